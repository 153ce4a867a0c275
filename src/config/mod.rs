//! Configuration: the only room that reads configuration files, and fills in each room's
//! settings. Every problem of all files is found in one run, each with file, line and key.
//!
//! `toml` gives values with their places and `config` the environment; a small reader of our own
//! walks them, because a deserializer stops at the first problem.

mod access;
mod daemon_file;
mod endpoint;
mod export;
mod flow_rules;
mod hints;
mod mailbox_rules;
mod organization_file;
mod outbound;
mod permissions;
mod reader;
mod routes;
mod stamp;
mod tree;
mod warnings;
mod who;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use export::export;
pub use organization_file::check_name;
pub use reader::Problem;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::directory::{AccessRules, Directory, IndexedOrganization, Organization};
use crate::mail::{Domain, Gateway};
use crate::organization::{OnReject, OwnQuotas, State};
use crate::rules::mailbox::MailboxRules;
use crate::rules::{InboundAction, OutboundAction, RuleSet};
use crate::store::{Register, StoreError};
use crate::{dns, events, journal, msgauth, pipeline, queue, scan, smtp, store};

/// How operational logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// `[log]`: the operational log on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How it looks.
    pub format: LogFormat,
    /// A level, or a filter such as `info,mailweir::smtp=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// Everything that the files say, valid.
#[derive(Debug)]
pub struct Configuration {
    /// The main file.
    pub path: PathBuf,
    /// When reading the files began.
    pub read_at: Timestamp,
    /// The listeners.
    pub listeners: Vec<smtp::ListenerSettings>,
    /// Certificate and key; absent: a self-signed pair in the data folder.
    pub tls: Option<smtp::TlsSettings>,
    /// What a peer may ask for.
    pub limits: smtp::Limits,
    /// Where DNS answers come from.
    pub dns: dns::Settings,
    /// Message authentication.
    pub msgauth: msgauth::Settings,
    /// The spam scanner, if there is one.
    pub scan: Option<scan::Settings>,
    /// The store.
    pub store: store::Settings,
    /// The event log.
    pub events: events::Settings,
    /// What organizations are called in the audit logs.
    pub arns: events::audit::ArnSettings,
    /// When and how hard outgoing mail is tried.
    pub queue: queue::Settings,
    /// The path of a message.
    pub pipeline: pipeline::Settings,
    /// Where outgoing mail goes.
    pub routes: queue::route::Settings,
    /// The operational log.
    pub log: LogSettings,
    /// The organizations.
    pub organizations: Vec<Arc<OrganizationConfig>>,
    /// All organizations, indexed.
    pub directory: Directory,
    /// Who was who when the files were read.
    pub register: Arc<Register>,
    /// Where the keys stand that are looked at again.
    pub places: Places,
    /// What the main file and the environment say, by key.
    pub keys: Keys,
    /// What is valid, but hardly meant.
    pub warnings: Vec<Problem>,
}

impl Configuration {
    /// Every file that the daemon reads, with the key that names it.
    pub fn named_files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut files = vec![("", self.path.clone())];
        if let dns::Source::ZoneFile(file) = &self.dns.source {
            files.push(("dns.zone_file", file.clone()));
        }
        if let Some(tls) = &self.tls {
            files.push(("tls.certificate", tls.certificate.clone()));
            files.push(("tls.private_key", tls.private_key.clone()));
        }
        files.extend(self.routes.ca_file.clone().map(|file| ("queue.ca_file", file)));
        let master_key = self.store.master_key_file.clone();
        files.extend(master_key.map(|file| ("store.master_key_file", file)));
        for organization in &self.organizations {
            files.extend(organization.stamps.files().map(|file| ("organization", file.to_owned())));
        }
        files
    }
}

/// Where the keys of the main file stand: `file:line`, or the environment's variable. For those
/// that are looked at again when the files have been read.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<&'static str, String>);

impl Places {
    /// The place of a key, written as `section.key`; empty where it is not in the file.
    pub fn of(&self, key: &str) -> String {
        self.0.get(key).cloned().unwrap_or_default()
    }
}

/// What the main file and the environment say for each key that stands outside of `[[…]]`, as
/// `section.key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, String>);

impl Keys {
    /// The keys that begin so and say something else there than here.
    pub fn differing(&self, other: &Self, prefix: &str) -> Vec<String> {
        let both: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = both
            .into_iter()
            .filter(|key| key.starts_with(prefix) && self.0.get(*key) != other.0.get(*key));
        differing.cloned().collect()
    }
}

/// An organization as its file has it.
#[derive(Debug)]
pub struct OrganizationConfig {
    /// Its file.
    pub file: PathBuf,
    stamps: stamp::Stamps,
    claims: Vec<organization_file::Claim>,
    indexed: Arc<IndexedOrganization>,
    /// What it consists of.
    pub organization: Arc<Organization>,
    /// What its file says, with ids in place of names and nothing left out.
    pub state: Arc<State>,
    /// Its inbound rules.
    pub rules: Arc<RuleSet<InboundAction>>,
    /// Its outbound rules; the gateways that they name are there.
    pub outbound: Arc<RuleSet<OutboundAction>>,
    /// Its SMTP gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// The extensions of files that its users may not send.
    pub blocked_attachments: Arc<pipeline::Extensions>,
    /// Its own answers to how many recipients outside a day may have.
    pub quotas: OwnQuotas,
    /// Mailbox rules, by user name; who has none is not there.
    pub mailbox_rules: Arc<HashMap<Arc<str>, Arc<MailboxRules>>>,
    /// Its journaling.
    pub journaling: Option<journal::Settings>,
    /// Whether DMARC policies are enforced.
    pub dmarc_enforcement: bool,
    /// Its own answer to `p=reject`.
    pub on_reject: Option<OnReject>,
    /// Who may log in, over what and from where.
    pub access: Arc<AccessRules>,
    /// What becomes of messages that have been in a folder for long.
    pub retention: Vec<store::FolderRetention>,
    /// How many users are to go, where it is most of them.
    pub removes_users: Option<u64>,
}

impl OrganizationConfig {
    /// Where its file names one of its domains, as `file:line`; empty for another domain.
    pub fn place_of(&self, domain: &Domain) -> String {
        let place = self.claims.iter().find_map(|claim| claim.place_of(domain));
        place.unwrap_or_default().to_owned()
    }
}

/// Why a configuration cannot be used: all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What was found in the files, right or wrong.
#[derive(Debug)]
pub struct Examined {
    /// As far as it could be read; what has a problem has its default there.
    pub configuration: Option<Configuration>,
    /// Every problem there is. With any, nothing of the configuration may be used.
    pub problems: Vec<Problem>,
}

/// Reads the main file, the environment (variables that begin with `MAILWEIR__`), the organization
/// files, and who is who in the store.
///
/// # Errors
/// Every problem there is; then nothing of it is used. What keeps the store from being read.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Configuration, LoadError> {
    let unread = OnceCell::new();
    let who_is_who = |settings: &store::Settings| match store::reader::register(settings) {
        Ok(register) => Arc::new(register),
        Err(error) => {
            // It is asked once.
            unread.set(error).ok();
            Arc::default()
        }
    };
    let configuration = read(path, environment, &[], &who_is_who).whole()?;
    match unread.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(configuration),
    }
}

/// Why [`load`] gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files cannot be used.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// The store cannot be read, so nobody knows who is who.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The same for somebody who may not read the store, and needs not: names that have been given again
/// may mean somebody who is gone.
///
/// # Errors
/// Every problem there is; then nothing of it is used.
pub fn load_without_store(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Configuration, Problems> {
    read(path, environment, &[], &known_to_store).whole()
}

/// The same as [`load`], where most is known already: an organization file that looks as it did when
/// one of `known` was read from it is not read again, and the store says who is who.
///
/// # Errors
/// Every problem there is; then nothing of it is used.
pub fn load_again(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    known: &[Arc<OrganizationConfig>],
    register: &Arc<Register>,
) -> Result<Configuration, Problems> {
    read(path, environment, known, &|_| Arc::clone(register)).whole()
}

/// Reads all that [`load`] reads, and keeps what is right beside what is wrong, so that the rest can
/// be looked at too.
pub fn examine(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Examined {
    read(path, environment, &[], &known_to_store)
}

/// An organization as a file has it that is not in force.
#[derive(Debug)]
pub struct Candidate {
    /// What the file says.
    pub organization: OrganizationConfig,
    /// Where the store is.
    pub store: store::Settings,
    /// Who was who when it was read.
    pub register: Arc<Register>,
    /// What is valid, but hardly meant.
    pub warnings: Vec<Problem>,
}

/// Reads an organization's file as if it stood in the place of the one that the main file names for
/// that organization, or beside those that it names.
///
/// # Errors
/// Every problem of the main file that keeps it from being read, or of this file.
pub fn read_instead(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    file: &Path,
) -> Result<Candidate, LoadError> {
    let examined = examine(path, environment);
    let configuration = examined.configuration.ok_or(Problems(examined.problems))?;
    let register = Arc::new(store::reader::register(&configuration.store)?);
    let hostname = Domain::parse(&configuration.pipeline.hostname).ok();
    let around = organization_file::Around { hostname: hostname.as_ref(), register: &register };
    let reader = reader::Reader::default();
    let read = organization_file::read_instead(file, around, &reader, &configuration.organizations);
    let (problems, warnings) = reader.into_findings();
    match read.filter(|_| problems.is_empty()) {
        Some(organization) => {
            Ok(Candidate { organization, store: configuration.store, register, warnings })
        }
        None => Err(Problems(problems).into()),
    }
}

impl Examined {
    /// The configuration, if nothing is wrong with it.
    fn whole(self) -> Result<Configuration, Problems> {
        match self {
            Self { configuration: Some(configuration), problems } if problems.is_empty() => {
                Ok(configuration)
            }
            Self { problems, .. } => Err(Problems(problems)),
        }
    }
}

/// What tells who is who in the store that the main file names.
type WhoIsWho<'a> = &'a dyn Fn(&store::Settings) -> Arc<Register>;

/// Nobody, where the store cannot be read.
fn known_to_store(settings: &store::Settings) -> Arc<Register> {
    Arc::new(store::reader::register(settings).unwrap_or_default())
}

fn read(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    known: &[Arc<OrganizationConfig>],
    who_is_who: WhoIsWho<'_>,
) -> Examined {
    let read_at = SystemClock.now();
    let reader = reader::Reader::default();
    let environment = environment.into_iter().collect();
    let loaded = daemon_file::read(path, environment, known, who_is_who, &reader);
    let (problems, warnings) = reader.into_findings();
    let configuration =
        loaded.map(|configuration| Configuration { warnings, read_at, ..configuration });
    Examined { configuration, problems }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
