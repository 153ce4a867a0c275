//! The daemon: builds the rooms from a configuration, binds, reports ready, reloads, drains.

mod changes;
pub mod control;
mod fixed;
mod identities;
mod outbound;
mod private;
mod readers;
mod recorded;
mod trial;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::{Clock, SystemClock};
use crate::config::{Configuration, OrganizationConfig};
use crate::dns::{self, Resolver};
use crate::domains::{DomainKeyError, DomainKeys};
use crate::events::audit::AuditLog;
use crate::heavy;
use crate::mail::{AddressError, Domain};
use crate::memory;
use crate::pipeline::login::Logins;
use crate::pipeline::outcomes::Outcomes;
use crate::pipeline::refusals::RefusalLog;
use crate::pipeline::snapshot::{Policy, Snapshot};
use crate::pipeline::{self, MailLogWriter, Pipeline};
use crate::queue::pki;
use crate::smtp::{Listener, ListenerSettings, Shared, Tls, TlsError, WATCH_INTERVAL};
use crate::store::{By, CredentialStore, FolderRetention, Register, Store, StoreError};
use changes::{BesideFiles, Contents};
use control::ReloadRequest;
use fixed::Fixed;
use identities::Exodus;
use outbound::{Change, Outbound};
use recorded::{News, Occasion, UnknownFact};

pub use changes::Changes;
pub use outbound::MailQueue;
pub use recorded::{Plan, plan, recorded};
pub use trial::{
    MEANS_NOTHING_AS_HOST, Outlook, UNIT_USER, ask_resolver, look_around, means_something_outside,
    open_domain_keys, try_out,
};

/// Why the daemon does not start, or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A key for signatures cannot be used.
    #[error("{0}")]
    DomainKeys(#[from] DomainKeyError),
    /// The log says something that this version does not know.
    #[error("{0}")]
    UnknownFact(#[from] UnknownFact),
    /// The files say that most users are gone.
    #[error("{0}")]
    Exodus(#[from] Exodus),
    /// The system gives no thread.
    #[error("starting a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The resolver cannot be set up.
    #[error("{0}")]
    Dns(#[from] dns::SetupError),
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The certificate authorities cannot be used.
    #[error("{0}")]
    Pki(#[from] pki::PkiError),
    /// The hostname is not a name.
    #[error("hostname: {0}")]
    Hostname(#[from] AddressError),
    /// An address cannot be listened on.
    #[error("listener {name} cannot listen on {address}: {error}{}", bind_hint(*address, error))]
    Bind {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of the data folder cannot be written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What to do where the system does not let a listener have its address.
fn bind_hint(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied if address.port() < FIRST_FREE_PORT => format!(
            "; a port below {FIRST_FREE_PORT} is for root and for who has the right: start the \
             daemon by its unit (systemctl start mailweir), give the program the right \
             (setcap cap_net_bind_service=+ep FILE), or name a higher port"
        ),
        std::io::ErrorKind::AddrInUse => {
            format!("; another program has it: ss -ltnp 'sport = {}' shows which", address.port())
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "; this host has no such address: ip address shows which it has".to_owned()
        }
        _ => String::new(),
    }
}

/// Linux keeps the ports below it for those who have the right (`ip_unprivileged_port_start`).
const FIRST_FREE_PORT: u16 = 1024;

impl StartError {
    /// Whether the operator's files are at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Dns(_) | Self::Tls(_) | Self::Pki(_) | Self::Hostname(_) | Self::Exodus(_)
        )
    }
}

/// A running daemon.
pub struct Daemon {
    shared: Arc<Shared<Pipeline>>,
    store: Arc<Store>,
    credentials: Arc<CredentialStore>,
    tls: Tls,
    domain_keys: Arc<DomainKeys>,
    /// For who asks DNS beside the messages.
    lookups: watch::Sender<Arc<dyn Resolver>>,
    outbound: Outbound,
    addresses: BTreeMap<String, SocketAddr>,
    fixed: Fixed,
    resolver: ArcSwap<dns::Configured>,
    current: ArcSwap<Configuration>,
    /// Of the files that the current configuration names.
    contents: ArcSwap<Contents>,
    reload_requests: Option<mpsc::Receiver<ReloadRequest>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Where a relative zone file is sought; `config` has made it absolute.
const RESOLVER_BASE: &str = ".";

/// What is open before anything listens.
struct Opened {
    hostname: Domain,
    credentials: Arc<CredentialStore>,
    resolver: dns::Configured,
    tls: Tls,
    parts: pipeline::Parts,
}

impl Opened {
    fn of(configuration: &Configuration) -> Result<Self, StartError> {
        let data_dir = &configuration.store.data_dir;
        let resolver = dns::Configured::new(&configuration.dns, Path::new(RESOLVER_BASE))?;
        let hostname = Domain::parse(&configuration.pipeline.hostname)?;
        let store = Store::open(&configuration.store, &configuration.events)?;
        store.set_retention(retention(configuration));
        let tls = match configuration.tls.clone() {
            Some(files) => Tls::load(files)?,
            None => Tls::self_signed(&data_dir.join("tls"), &hostname)?,
        };
        let refusals = RefusalLog::open(&data_dir.join("refusals"))
            .map_err(|source| StartError::File { path: data_dir.join("refusals"), source })?;
        let audit = audit(configuration)?;
        let credentials = Arc::new(CredentialStore::open(data_dir)?);
        let logins =
            Logins::new(Arc::clone(&credentials), Arc::clone(&audit), Arc::new(SystemClock));
        let domain_keys = Arc::new(DomainKeys::load(&configuration.store)?);
        let mail_log = Arc::new(MailLogWriter::start().map_err(StartError::Thread)?);
        let parts = pipeline::Parts { store, logins, audit, domain_keys, refusals, mail_log };
        Ok(Self { hostname, credentials, resolver, tls, parts })
    }
}

impl Daemon {
    /// Opens the store, binds the listeners and begins to serve.
    ///
    /// # Errors
    /// What kept it from starting; nothing is left running then.
    pub async fn start(configuration: Configuration) -> Result<Self, StartError> {
        let Opened { hostname, credentials, resolver, tls, parts } = Opened::of(&configuration)?;
        let (store, domain_keys) = (Arc::clone(&parts.store), Arc::clone(&parts.domain_keys));
        let mail_log = Arc::clone(&parts.mail_log);
        let at = SystemClock.now();
        let occasion = Occasion { by: By::Daemon, command: "start", at };
        let news = News::of(&configuration, &[], &store.register(), occasion)?;
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot(&configuration, store.version())));
        let pipeline = Pipeline::new(
            Arc::clone(&snapshot),
            resolver.resolver(),
            configuration.msgauth.clone(),
            parts,
            Arc::new(SystemClock),
        );
        let limits = configuration.limits.clone();
        let shared = Shared::new(pipeline, hostname.clone(), limits, tls.clone());
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let listeners = bind(&configuration.listeners, &shared).await?;
        let addresses = addresses_of(&listeners);
        let bound = addresses.values().copied().collect();
        let keys = Arc::clone(&domain_keys);
        let outcomes = Outcomes::new(Arc::clone(&store), keys, Arc::clone(&snapshot), mail_log);
        let asked = resolver.resolver();
        let lookups = watch::Sender::new(Arc::clone(&asked));
        let outbound =
            Outbound::new(&configuration, asked, &store, &snapshot, outcomes, bound, &hostname)?;
        // Whatever can fail is behind. What follows in the log is in force in the next moment.
        store.state(news.facts, news.stated).await?;
        remove_strangers(&credentials, &configuration, &store.register());
        snapshot.store(Arc::new(self::snapshot(&configuration, store.version())));
        for (name, listener) in listeners {
            tracing::info!(listener = name, address = %listener.local_addr(), "listening");
            tasks.spawn(listener.run(stopped.clone()));
        }
        let mut daemon = Self {
            shared,
            store,
            credentials,
            tls,
            domain_keys,
            lookups,
            outbound,
            addresses,
            fixed: Fixed::of(&configuration),
            resolver: ArcSwap::from_pointee(resolver),
            contents: ArcSwap::from_pointee(Contents::of(&configuration)),
            current: ArcSwap::from_pointee(configuration),
            reload_requests: None,
            stop,
            tasks,
        };
        let data_dir = daemon.current.load().store.data_dir.clone();
        daemon.spawn_watches_and_queue(&data_dir, &stopped)?;
        write_addresses(&data_dir.join("run"), &daemon.addresses)?;
        Ok(daemon)
    }

    /// What runs beside the listeners: the looks at certificate and keys, the operator's socket,
    /// and the queue.
    fn spawn_watches_and_queue(
        &mut self,
        data_dir: &Path,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), StartError> {
        self.tasks.spawn(memory::give_back(stopped.clone()));
        self.tasks.spawn(self.tls.clone().watch(WATCH_INTERVAL, stopped.clone()));
        let keys = Arc::clone(&self.domain_keys);
        let resolver = self.lookups.subscribe();
        self.tasks.spawn(keys.watch(WATCH_INTERVAL, resolver, stopped.clone()));
        let queue = &self.outbound.queue;
        let control = control::bind(data_dir)
            .map_err(|source| StartError::File { path: control::path(data_dir), source })?;
        let (reloads, requests) = mpsc::channel(1);
        self.reload_requests = Some(requests);
        let shared = Arc::clone(&self.shared);
        let door = control::Door { queue: Arc::clone(queue), reloads, shared };
        self.tasks.spawn(control::run(control, door, stopped.clone()));
        if let Some(feed) = self.store.take_queue() {
            self.tasks.spawn(Arc::clone(queue).run(feed, stopped.clone()));
        }
        Ok(())
    }

    /// Where each listener listens, by name.
    pub fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// Takes a new configuration for messages that begin from now on, because somebody wants that: all
    /// of it, or on an error nothing, and the old one goes on. Says what has changed.
    ///
    /// # Errors
    /// What is wrong with the new one.
    pub async fn reload(
        &self,
        configuration: Configuration,
        by: By,
    ) -> Result<Changes, StartError> {
        // Whatever can fail comes first.
        let resolver =
            self.resolver.load().renewed(&configuration.dns, Path::new(RESOLVER_BASE))?;
        let outbound = Change::to(&configuration)?;
        let certificate = self.tls.read_again().await?;
        let has_new_certificate = self.tls.is_another(&certificate);
        let has_new_domain_keys = self.refresh_domain_keys().await?;
        let met_before = self.store.register();
        let occasion = Occasion { by, command: "reload", at: SystemClock.now() };
        let in_force = self.organizations();
        let news = heavy::beside_the_runtime(|| {
            News::of(&configuration, &in_force, &met_before, occasion)
        })?;
        // What follows in the log is in force in the next moment.
        self.store.state(news.facts, news.stated).await?;
        let register = self.register();
        heavy::beside_the_runtime(|| {
            remove_strangers(&self.credentials, &configuration, &register);
        });

        let asked_for = Fixed::of(&configuration);
        let mut configuration = configuration;
        self.fixed.keep_hostname(&mut configuration);
        let contents = Contents::of(&configuration);
        let beside = BesideFiles { contents, has_new_certificate, has_new_domain_keys, met_before };
        let before = self.current.load();
        let changes = Changes::between((&before, &self.contents.load()), &configuration, &beside)
            .waiting(&self.fixed, &asked_for);
        let version = self.store.version();
        self.shared.set_limits(configuration.limits.clone());
        self.store.set_retention(retention(&configuration));
        self.store.reopen_events();
        self.shared.handler().reopen_logs();
        if has_new_certificate {
            self.tls.take(certificate);
        }
        self.contents.store(Arc::new(beside.contents));
        self.outbound.reload(outbound, resolver.resolver());
        self.lookups.send_replace(resolver.resolver());
        let msgauth = configuration.msgauth.clone();
        self.shared.handler().reload(
            snapshot(&configuration, version),
            resolver.resolver(),
            msgauth,
        );
        self.resolver.store(Arc::new(resolver));
        self.current.store(Arc::new(configuration));
        log_changes(&changes, version);
        Ok(changes)
    }

    /// Whether there was anything new.
    async fn refresh_domain_keys(&self) -> Result<bool, StartError> {
        let domain_keys = Arc::clone(&self.domain_keys);
        match tokio::task::spawn_blocking(move || domain_keys.refresh()).await {
            Ok(refreshed) => refreshed.map_err(StartError::DomainKeys),
            Err(panic) => {
                tracing::error!(%panic, "the keys of domains could not be looked at");
                Ok(false)
            }
        }
    }

    /// Who is who.
    pub fn register(&self) -> Arc<Register> {
        self.store.register()
    }

    /// The organizations in force.
    pub fn organizations(&self) -> Vec<Arc<OrganizationConfig>> {
        self.current.load().organizations.clone()
    }

    /// What operators ask of whoever reads the configuration files. Nobody but the first caller
    /// gets it.
    pub fn take_reload_requests(&mut self) -> Option<mpsc::Receiver<ReloadRequest>> {
        self.reload_requests.take()
    }

    /// Stops listening, lets messages under way finish, and closes the store.
    pub async fn stop(mut self) {
        // Nobody listening any more is what is wanted.
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a listener did not end well");
            }
        }
        let store = Arc::clone(&self.store);
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the store did not close well");
        }
    }
}

fn log_changes(changes: &Changes, version: u64) {
    for change in &changes.after_restart {
        tracing::warn!("only a restart changes {change}");
    }
    let changed = match changes.in_force.as_slice() {
        [] => "nothing".to_owned(),
        changes => changes.join("; "),
    };
    tracing::info!(version, changed, "configuration reloaded");
}

/// Binds the listeners, each with its name. Whoever connects waits until they are served.
async fn bind(
    listeners: &[ListenerSettings],
    shared: &Arc<Shared<Pipeline>>,
) -> Result<Vec<(String, Listener<Pipeline>)>, StartError> {
    let mut bound = Vec::new();
    for settings in listeners {
        let (name, address) = (settings.name.clone(), settings.bind);
        let listener = Listener::bind(settings.clone(), Arc::clone(shared))
            .await
            .map_err(|error| StartError::Bind { name: name.clone(), address, error })?;
        bound.push((name, listener));
    }
    Ok(bound)
}

/// The address of each listener, by its name.
fn addresses_of(listeners: &[(String, Listener<Pipeline>)]) -> BTreeMap<String, SocketAddr> {
    let named = listeners.iter().map(|(name, listener)| (name.clone(), listener.local_addr()));
    named.collect()
}

/// The resolver that a configuration asks for.
///
/// # Errors
/// A zone file or system configuration that cannot be used.
pub fn resolver(configuration: &Configuration) -> Result<Arc<dyn Resolver>, StartError> {
    Ok(dns::from_settings(&configuration.dns, Path::new(RESOLVER_BASE))?)
}

/// What cannot be removed now goes another time; no mail waits for it.
fn remove_strangers(
    credentials: &CredentialStore,
    configuration: &Configuration,
    register: &Register,
) {
    if let Err(error) = identities::remove_strangers(credentials, configuration, register) {
        tracing::error!(%error, "passwords of people whom nobody knows cannot be looked for");
    }
}

fn audit(configuration: &Configuration) -> Result<Arc<AuditLog>, StartError> {
    let audit = configuration.store.data_dir.join("audit");
    AuditLog::open(&audit, configuration.events, configuration.arns.clone())
        .map(Arc::new)
        .map_err(|source| StartError::File { path: audit, source })
}

fn retention(configuration: &Configuration) -> Vec<FolderRetention> {
    let policies = configuration.organizations.iter().map(|config| &config.retention);
    policies.flatten().cloned().collect()
}

fn snapshot(configuration: &Configuration, version: u64) -> Snapshot {
    let policies = configuration
        .organizations
        .iter()
        .map(|config| (config.organization.id.clone(), policy(config, &configuration.pipeline)))
        .collect();
    Snapshot {
        version,
        directory: configuration.directory.clone(),
        policies,
        settings: configuration.pipeline.clone(),
        scanner: configuration.scan.clone(),
    }
}

fn policy(config: &OrganizationConfig, daemon: &pipeline::Settings) -> Policy {
    let gateways = config.gateways.iter();
    Policy {
        rules: Arc::clone(&config.rules),
        outbound_rules: Arc::clone(&config.outbound),
        gateways: gateways
            .map(|gateway| (Arc::clone(&gateway.name), Arc::clone(gateway)))
            .collect(),
        mailbox_rules: Arc::clone(&config.mailbox_rules),
        blocked_attachments: Arc::clone(&config.blocked_attachments),
        recipient_quotas: daemon.recipient_quotas.unless(config.quotas),
        journaling: config.journaling.clone(),
        dmarc_enforcement: config.dmarc_enforcement,
        on_reject: config.on_reject,
        access: Arc::clone(&config.access),
    }
}

/// `run/listeners.json`: where each listener listens, for scripts that asked for port 0.
fn write_addresses(dir: &Path, addresses: &BTreeMap<String, SocketAddr>) -> Result<(), StartError> {
    let path = dir.join("listeners.json");
    let text = serde_json::json!(addresses).to_string() + "\n";
    let written = std::fs::create_dir_all(dir).and_then(|()| {
        let whole = dir.join("listeners.json.new");
        std::fs::write(&whole, text)?;
        replace(&whole, &path)
    });
    written.map_err(|source| StartError::File { path, source })
}

#[expect(clippy::disallowed_methods, reason = "not durable: it is written anew at each start")]
fn replace(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}
