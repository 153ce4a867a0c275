//! What of a configuration only shows when it is used: files that it names, the certificate, the
//! data folder, the resolver.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::private;
use super::readers::{Access, Reading};
use crate::clock::{Clock, SystemClock};
use crate::config::{Configuration, Problem, Problems};
use crate::directory::Organization;
use crate::dns::{LookupError, RecordType, Resolver, Source};
use crate::domains::{DomainKeys, Unsigned, unsigned};
use crate::files::read_regular;
use crate::mail::Domain;
use crate::queue::pki;
use crate::smtp::{ListenerSettings, Protocol, ServerCertificate, Tls};
use crate::store::{disk, domain_key_files};

/// How long before a certificate's end its administrator is told.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
/// Whom the unit runs the daemon as, and where it lets it write.
pub const UNIT_USER: &str = "mailweir";
const UNIT_DATA_DIR: &str = "/var/lib/mailweir";
/// Names of users in several organizations that are told one by one; more are only counted.
const SHARED_NAMED: usize = 10;
/// Domains without signatures that are told one by one; more are only counted.
const UNSIGNED_NAMED: usize = 10;
/// How long the resolver may take to answer a first question.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(10);

/// What works, but not as it is meant, and what soon will not.
#[derive(Debug, Default)]
pub struct Outlook {
    /// The daemon runs with these, but somebody outside will turn away or nothing will be stored.
    pub problems: Vec<Problem>,
    /// Nothing is wrong yet.
    pub warnings: Vec<Problem>,
    /// What is as it should be, and worth a look: it may not be what was meant.
    pub notes: Vec<Problem>,
}

/// Everything without which the daemon does not start: zone file, certificate, key, certificate
/// authorities, master key.
///
/// # Errors
/// Everything that is wrong, with the keys that name the files.
pub fn try_out(configuration: &Configuration) -> Result<(), Problems> {
    let places = &configuration.places;
    let dns = match &configuration.dns.source {
        Source::ZoneFile(_) => "dns.zone_file",
        Source::Servers(_) | Source::System => "dns",
    };
    let authorities = pki::authorities(configuration.routes.ca_file.as_deref());
    let tls = configuration.tls.clone().map_or(Ok(()), |files| Tls::load(files).map(drop));
    let found = [
        tried(dns, places, super::resolver(configuration)),
        tried("queue.ca_file", places, authorities),
        tried("tls.certificate", places, tls),
        tried("store.master_key_file", places, configuration.store.check_key()),
    ];
    let problems: Vec<_> = found.into_iter().flatten().collect();
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// What is wrong with what a key names.
fn tried<T>(
    key: &str,
    places: &crate::config::Places,
    outcome: Result<T, impl Display>,
) -> Option<Problem> {
    let message = outcome.err()?.to_string();
    Some(Problem { place: places.of(key), key: key.to_owned(), message })
}

/// Looks at what the daemon would meet: its name, its certificate, its folder, its files.
pub fn look_around(configuration: &Configuration) -> Outlook {
    let mut outlook = Outlook::default();
    let mut found = Found { configuration, outlook: &mut outlook };
    found.hostname();
    found.certificate();
    found.data_folder();
    found.files();
    found.queue();
    found.signatures();
    found.namesakes();
    outlook
}

/// Opens every key that signs mail, as the daemon does when it starts, and tells of the first that
/// does not open.
pub fn open_domain_keys(configuration: &Configuration) -> Option<Problem> {
    tried("data_dir", &configuration.places, DomainKeys::try_out(&configuration.store))
}

/// Asks the resolver a first question: the mail exchangers of a domain, of which any answer will do,
/// also that there is no such name. What is wrong if there is none.
pub async fn ask_resolver(configuration: &Configuration) -> Option<Problem> {
    if let Source::ZoneFile(_) = &configuration.dns.source {
        return None;
    }
    // A resolver that cannot be set up is told by `try_out`.
    let resolver: Arc<dyn Resolver> = super::resolver(configuration).ok()?;
    let first = configuration.organizations.iter().flat_map(|it| &it.organization.domains).next();
    let question = first?.as_str();
    let answered = timeout(RESOLVER_PATIENCE, resolver.lookup(question, RecordType::Mx)).await;
    let silence = match answered {
        Ok(Err(LookupError::Transient(problem))) => problem,
        Ok(_) => return None,
        Err(_) => format!("no answer within {} s", RESOLVER_PATIENCE.as_secs()),
    };
    let servers = match &configuration.dns.source {
        Source::Servers(servers) => {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            servers.join(", ")
        }
        Source::System | Source::ZoneFile(_) => "the servers of /etc/resolv.conf".to_owned(),
    };
    let message = format!("{servers} did not say where mail for {question} goes: {silence}");
    let key = "dns.servers".to_owned();
    Some(Problem { place: configuration.places.of(&key), key, message })
}

/// Notes what it finds.
struct Found<'a> {
    configuration: &'a Configuration,
    outlook: &'a mut Outlook,
}

impl Found<'_> {
    fn problem(&mut self, key: &str, message: String) {
        let place = self.configuration.places.of(key);
        self.outlook.problems.push(Problem { place, key: key.to_owned(), message });
    }

    fn warning(&mut self, key: &str, message: String) {
        let place = self.configuration.places.of(key);
        self.outlook.warnings.push(Problem { place, key: key.to_owned(), message });
    }

    fn note(&mut self, key: &str, message: String) {
        let place = self.configuration.places.of(key);
        self.outlook.notes.push(Problem { place, key: key.to_owned(), message });
    }

    /// Other servers look the name up, and many refuse mail from one that means nothing to them.
    fn hostname(&mut self) {
        let name = self.configuration.pipeline.hostname.clone();
        // One that could not be read is a problem of its own.
        if !name.is_empty() && !means_something_outside(&name) {
            self.problem("hostname", format!("\"{name}\" {MEANS_NOTHING_AS_HOST}"));
        }
    }

    fn certificate(&mut self) {
        let Some(files) = &self.configuration.tls else { return self.self_made_certificate() };
        // A file that cannot be read or parsed keeps the daemon from starting: `try_out`.
        let Ok(pem) = read_regular(&files.certificate) else { return };
        let Ok(certificate) = ServerCertificate::from_pem(&pem) else { return };
        let now = SystemClock.now();
        let file = files.certificate.display();
        let from = certificate.not_before.to_rfc3339();
        let until = certificate.not_after.to_rfc3339();
        if now < certificate.not_before {
            self.problem("tls.certificate", format!("{file} is valid only from {from} on"));
        } else if now >= certificate.not_after {
            self.problem("tls.certificate", format!("{file} expired at {until}"));
        } else if now.plus(CERTIFICATE_WARNING) >= certificate.not_after {
            self.warning("tls.certificate", format!("{file} expires at {until}"));
        }
        let hostname = &self.configuration.pipeline.hostname;
        if !hostname.is_empty() && !certificate.is_for(hostname) {
            let names = match certificate.names.as_slice() {
                // RFC 9525 §6.3: the common name does not count.
                [] => "no name (it has no subjectAltName)".to_owned(),
                names => names.join(", "),
            };
            self.problem("tls.certificate", format!("{file} is for {names}, not for {hostname}"));
        }
    }

    /// Servers do not mind whose certificate it is; the programs of users do.
    fn self_made_certificate(&mut self) {
        let mut listeners = self.configuration.listeners.iter();
        let is_for_users = |listener: &&ListenerSettings| {
            let is_submission = match listener.protocol {
                Protocol::Submission | Protocol::Submissions => true,
                Protocol::Mx => false,
            };
            is_submission && !listener.bind.ip().is_loopback()
        };
        if let Some(listener) = listeners.find(is_for_users) {
            let name = &listener.name;
            let why = "users' programs do not trust the self-made pair";
            let message = format!("is missing, and listener \"{name}\" needs it: {why}");
            self.warning("tls.certificate", message);
        }
    }

    /// The data folder, or the nearest folder above it in which it would be made.
    fn data_folder(&mut self) {
        let data_dir = &self.configuration.store.data_dir;
        let nearest = data_dir.ancestors().find(|folder| folder.exists());
        let nearest = nearest.unwrap_or(Path::new(".")).to_owned();
        let shown = data_dir.display();
        if !nearest.is_dir() {
            self.problem("data_dir", format!("{} is not a folder", nearest.display()));
        } else if let Err(why) = Access::of_daemon(data_dir).write_in(&nearest) {
            let what = if nearest == *data_dir { "written to" } else { "made" };
            self.problem("data_dir", format!("{shown} cannot be {what}: {why}"));
        } else if nearest != *data_dir {
            // A name that is mistyped looks like a daemon without mail and passwords.
            let key = match self.configuration.store.master_key_file {
                None => ", with a new master key",
                Some(_) => "",
            };
            let what = format!("the first start makes it, without mail or passwords{key}");
            self.note("data_dir", format!("{shown} is not there yet: {what}"));
        }
        self.room(&nearest);
        self.owners();
        for message in private::rights_in(data_dir) {
            self.warning("data_dir", message);
        }
    }

    /// With less room than stays free, every message would be deferred from the first on.
    fn room(&mut self, folder: &Path) {
        const MIB: u64 = 1024 * 1024;
        let floor = self.configuration.store.min_free_bytes;
        let Ok(free) = disk::free(folder) else { return };
        if free < floor {
            let message = format!(
                "{} MiB are free on the disk of {}, and below {} MiB mail is deferred: make room, or \
                 let less stay free",
                free / MIB,
                self.configuration.store.data_dir.display(),
                floor / MIB
            );
            self.problem("store.min_free_bytes", message);
        }
    }

    /// What a command of root's has left in the folder, the daemon can neither read nor replace.
    fn owners(&mut self) {
        let data_dir = &self.configuration.store.data_dir;
        let Some(foreign) = private::foreign(data_dir) else { return };
        let shown = data_dir.display();
        let daemon = private::name_of(foreign.owner);
        let cure = format!("chown -R {daemon}: {shown} gives it back");
        if let Some((path, owner)) = foreign.files.first() {
            let owner = private::name_of(*owner);
            let more = match foreign.files.len() - 1 {
                0 => String::new(),
                more => format!(", and so do {more} more there"),
            };
            let message = format!(
                "{} belongs to {owner}, not to {daemon} as the folder does{more}: {cure}",
                path.display()
            );
            self.problem("data_dir", message);
        }
        let unit_user = uzers::get_user_by_name(UNIT_USER);
        let is_units = *data_dir == Path::new(UNIT_DATA_DIR);
        if is_units && unit_user.is_some_and(|user| user.uid() != foreign.owner) {
            let message = format!(
                "{shown} belongs to {daemon}, and the unit runs the daemon as {UNIT_USER}: \
                 chown -R {UNIT_USER}: {shown}"
            );
            self.warning("data_dir", message);
        }
    }

    fn files(&mut self) {
        let access = Access::of_daemon(&self.configuration.store.data_dir);
        for (key, file) in self.configuration.named_files() {
            // One that is not there is told by who opens it.
            if let Reading::Denied(why) = access.read(&file) {
                let message = format!("{} cannot be read by the daemon: {why}", file.display());
                self.problem(key, message);
            }
        }
        for file in domain_key_files(&self.configuration.store).into_iter().flatten() {
            if let Reading::Denied(why) = access.read(&file.path) {
                let shown = file.path.display();
                self.problem("data_dir", format!("{shown} cannot be read by the daemon: {why}"));
            }
        }
    }

    /// A pause is meant for a while, and is easily forgotten.
    fn queue(&mut self) {
        if self.configuration.queue.paused {
            let message = "the queue is paused, so no mail leaves: once it may, write paused = false, \
                           and mailweir reload";
            self.warning("queue.paused", message.to_owned());
        }
    }

    /// Domains whose mail leaves unsigned: those at which somebody has an address, and the one whose
    /// keys sign what this host writes itself.
    fn signatures(&mut self) {
        let configuration = self.configuration;
        let organizations = &configuration.organizations;
        let mut in_use: HashSet<&Domain> = HashSet::new();
        for config in organizations {
            add_domains_in_use(&config.organization, &mut in_use);
        }
        let host = Domain::parse(&configuration.pipeline.hostname).ok();
        let is_hosts = |domain: &Domain| host.as_ref().is_some_and(|host| host.is_within(domain));
        let all = organizations.iter().flat_map(|config| &config.organization.domains);
        let looked_at: Vec<&Domain> =
            all.filter(|domain| in_use.contains(domain) || is_hosts(domain)).collect();
        // A folder that cannot be listed is told by who makes something in it.
        let Ok(mut found) = unsigned(&configuration.store, looked_at.iter().copied()) else {
            return;
        };
        // The nearest domain above the host that has keys signs its mail.
        let hosts: Vec<&Domain> = looked_at.into_iter().filter(|it| is_hosts(it)).collect();
        let is_unsigned = |domain: &&Domain| found.iter().any(|it| it.domain() == *domain);
        let is_host_unsigned = hosts.iter().all(is_unsigned);
        let nearest = hosts.into_iter().max_by_key(|domain| domain.as_str().len());
        let hosts_domain = nearest.filter(|_| is_host_unsigned).cloned();
        found.retain(|it| {
            in_use.contains(it.domain()) || hosts_domain.as_ref() == Some(it.domain())
        });
        self.tell_unsigned(&found, hosts_domain.as_ref());
    }

    fn tell_unsigned(&mut self, found: &[Unsigned], hosts_domain: Option<&Domain>) {
        for unsigned in found.iter().take(UNSIGNED_NAMED) {
            let domain = unsigned.domain();
            let configuration = self.configuration;
            let mut organizations = configuration.organizations.iter();
            let of = organizations.find(|config| config.organization.domains.contains(domain));
            let place = of.map_or_else(String::new, |config| config.place_of(domain));
            let mut message = unsigned.to_string();
            if hosts_domain == Some(domain) {
                let host = &configuration.pipeline.hostname;
                message.push_str(&format!(" (reports from postmaster@{host} need them too)"));
            }
            self.outlook.warnings.push(Problem { place, key: "domains".to_owned(), message });
        }
        if found.len() > UNSIGNED_NAMED {
            let more = found.len() - UNSIGNED_NAMED;
            let message = format!(
                "mail of {more} more domains leaves unsigned as well: mailweir domain check DOMAIN \
                 tells of each"
            );
            let (place, key) = (String::new(), "domains".to_owned());
            self.outlook.warnings.push(Problem { place, key, message });
        }
    }

    /// Users of different organizations with one name, which logs nobody in.
    fn namesakes(&mut self) {
        let shared = self.configuration.directory.shared_names();
        for (name, aliases) in shared.iter().take(SHARED_NAMED) {
            let organizations = match aliases.as_slice() {
                [first, second] => format!("{first} and {second}"),
                [first, second, more @ ..] => format!("{first}, {second} and {} more", more.len()),
                _ => continue,
            };
            let message = format!(
                "{name} is a user's name in {organizations}: they log in with their addresses, the name \
                 alone logs nobody in"
            );
            self.note("organization", message);
        }
        if shared.len() > SHARED_NAMED {
            let more = shared.len() - SHARED_NAMED;
            self.note("organization", format!("and so it is with {more} more names"));
        }
    }
}

/// Adds the domains at which somebody in an organization has an address.
fn add_domains_in_use<'a>(organization: &'a Organization, domains: &mut HashSet<&'a Domain>) {
    let resources = organization.resources.iter().map(|resource| &resource.mailbox);
    for mailbox in organization.users.iter().chain(resources) {
        domains.insert(mailbox.email.domain());
        domains.extend(mailbox.aliases.iter().map(|alias| alias.domain()));
    }
    for group in &organization.groups {
        domains.insert(group.email.domain());
        domains.extend(group.aliases.iter().map(|alias| alias.domain()));
    }
}

/// What is wrong with a name of this host that other servers cannot look up.
pub const MEANS_NOTHING_AS_HOST: &str = "means nothing to other servers: write the name that DNS \
     has for this host, such as mx.example.com";

/// Whether a name can be looked up by other servers, and is not for inner networks alone.
pub fn means_something_outside(name: &str) -> bool {
    let is_local = ["localhost", "localdomain", "local", "internal", "lan"]
        .iter()
        .any(|word| name == *word || name.ends_with(&format!(".{word}")));
    !is_local && is_host_name(name)
}

/// Whether DNS can have an address for the name (RFC 1123 §2.1): letters, digits and hyphens, and no
/// address itself, whose last part would be a number. What is not ASCII is looked up as its A-label.
fn is_host_name(name: &str) -> bool {
    let is_plain = |label: &str| label.chars().all(|c| c.is_alphanumeric() || c == '-');
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    name.contains('.') && name.split('.').all(is_plain) && !is_number
}
