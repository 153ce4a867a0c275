//! `mailweir user list`

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::is_nobody_there;
use crate::cli::ConfigArgument;
use crate::cli::output::{self, Lines};
use crate::clock::Timestamp;
use crate::config::Configuration;
use crate::daemon::control::{self, LockedUsers, Request};
use crate::directory::{EntityState, Organization, User};
use crate::id::EntityId;
use crate::mail::Address;
use crate::store::reader::Reader;
use crate::store::{CredentialStore, MailboxOwner, StoreError, UserCredentials};

/// Octets of a MB, as quotas count.
const MB: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArguments {
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What is known of a user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserLine<'a> {
    organization: &'a str,
    user: &'a str,
    id: &'a EntityId,
    email: &'a Address,
    aliases: &'a [Address],
    state: &'static str,
    /// Where the mailbox is, if it is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<&'a Address>,
    quota_mb: u64,
    used_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_set_at: Option<u64>,
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_used_at: Option<u64>,
    /// Absent where no daemon runs, which alone knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
}

pub(super) fn run(arguments: &ListArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let known = Known::of(&configuration)?;
    let mut lines = Lines::to_stdout();
    for organization in configuration.directory.organizations() {
        for user in &organization.users {
            let line = known.line(organization, user);
            match arguments.json {
                true => lines.json(&line)?,
                false => lines.line(&line.text())?,
            }
        }
    }
    lines.finish()
}

/// What the data folder and the daemon know of users.
struct Known {
    used_bytes: HashMap<MailboxOwner, u64>,
    credentials: HashMap<MailboxOwner, UserCredentials>,
    locked: Option<HashSet<MailboxOwner>>,
}

impl Known {
    fn of(configuration: &Configuration) -> anyhow::Result<Self> {
        let used_bytes = match Reader::open(&configuration.store) {
            Ok(reader) => {
                reader.mailboxes().into_iter().map(|it| (it.owner, it.used_bytes)).collect()
            }
            // Nobody has had mail yet.
            Err(StoreError::NotFound(_)) => HashMap::new(),
            Err(error) => return Err(error.into()),
        };
        let data_dir = &configuration.store.data_dir;
        let credentials = CredentialStore::open_if_there(data_dir)?;
        let credentials = credentials.map_or(Ok(HashMap::new()), |store| store.users())?;
        let locked = match control::ask::<LockedUsers>(data_dir, &Request::LockedUsers) {
            Ok(answer) => Some(answer.locked.into_iter().collect()),
            Err(error) if is_nobody_there(&error) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { used_bytes, credentials, locked })
    }

    fn line<'a>(&self, organization: &'a Organization, user: &'a User) -> UserLine<'a> {
        let id = organization.id.as_str();
        let owner = MailboxOwner { organization: id.into(), entity: user.id.clone() };
        let credentials = self.credentials.get(&owner).copied().unwrap_or_default();
        let (state, remote) = match &user.state {
            EntityState::Enabled => ("enabled", None),
            EntityState::Disabled => ("disabled", None),
            EntityState::Remote(elsewhere) => ("remote", Some(elsewhere)),
        };
        UserLine {
            organization: &organization.alias,
            user: &user.name,
            id: &user.id,
            email: &user.email,
            aliases: &user.aliases,
            state,
            remote,
            quota_mb: user.quota_mb,
            used_bytes: self.used_bytes.get(&owner).copied().unwrap_or_default(),
            password_set_at: credentials.password_set_at.map(Timestamp::as_millis),
            tokens: credentials.tokens,
            token_used_at: credentials.token_used_at.map(Timestamp::as_millis),
            locked: self.locked.as_ref().map(|locked| locked.contains(&owner)),
        }
    }
}

impl UserLine<'_> {
    fn text(&self) -> String {
        let mut text =
            format!("{}/{}  {}  {}", self.organization, self.user, self.email, self.state);
        match self.remote {
            Some(elsewhere) => text.push_str(&format!(", at {elsewhere}")),
            None => {
                let used = self.used_bytes.div_ceil(MB);
                text.push_str(&format!(", {used} of {} MB", self.quota_mb));
                text.push_str(match self.password_set_at {
                    Some(_) => ", with a password",
                    None => ", without a password",
                });
            }
        }
        if self.tokens > 0 {
            text.push_str(&format!(", {}", output::counted(self.tokens, "token")));
        }
        if let Some(at) = self.token_used_at {
            text.push_str(&format!(" (last used {})", Timestamp::from_millis(at)));
        }
        text.push_str(&format!(", id {}", self.id));
        if self.locked == Some(true) {
            text.push_str(", locked for networks that failed to log in: user unlock lifts that");
        }
        text
    }
}
