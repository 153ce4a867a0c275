//! The main file, `mailweir.toml`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::endpoint::{Endpoint, HostAndPort, NameServer, Network};
use super::organization_file::{self, Around, Claims, on_reject};
use super::reader::{Reader, Section, read_file, relative_to};
use super::routes::{self, routes, schedule};
use super::{Configuration, Keys, LogFormat, LogSettings, OrganizationConfig, Places, WhoIsWho};
use super::{hints, outbound, tree, warnings};
use crate::clock::Timestamp;
use crate::directory::Directory;
use crate::events::audit::ArnSettings;
use crate::mail::Domain;
use crate::scan::ScannerKind;
use crate::smtp::{Limits, ListenerSettings, Protocol, TlsSettings};
use crate::store::Register;
use crate::{dns, events, msgauth, pipeline, scan, store};

const DEFAULT_DATA_DIR: &str = "/var/lib/mailweir";
const DEFAULT_BIND: &str = "0.0.0.0:25";
const HOUR_S: u64 = 3600;
/// The words of `log.level`.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const MB: u64 = 1024 * 1024;

/// Reads everything; `None` where a problem leaves too little to go on with.
pub(super) fn read(
    path: &Path,
    environment: HashMap<String, String>,
    known: &[Arc<OrganizationConfig>],
    who_is_who: WhoIsWho<'_>,
    reader: &Reader,
) -> Option<Configuration> {
    if matches!(path.try_exists(), Ok(false)) {
        let cure = "name the configuration with --config FILE, or make one with mailweir init";
        reader.problem(path.display(), "", format!("there is no such file: {cure}"));
        return None;
    }
    let mut node = read_file(path, reader)?;
    warnings::misspelt_variables(&environment, reader);
    if let Err(error) = tree::overlay(&mut node, environment) {
        reader.problem("environment", "", error);
    }
    let root = reader.root(&node);
    let hostname = hostname(&root);
    let data_dir = root.text("data_dir").unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    if data_dir.starts_with('~') || data_dir.contains('$') {
        let sign = if data_dir.starts_with('~') { "~" } else { "$" };
        let cure = "write the whole path";
        root.problem("data_dir", format!("\"{data_dir}\": {sign} means nothing here: {cure}"));
    }
    let data_dir = relative_to(path, data_dir);
    let section = root.section("limits");
    let limits = limits(&section);
    let pipeline = pipeline_settings(&root, &section, hostname.clone(), limits.header_bytes);
    section.finish();
    let queue = root.section("queue");
    let routes = routes(&root, &queue, path);
    let schedule = schedule(&queue);
    queue.finish();
    let mut configuration = Configuration {
        path: path.into(),
        read_at: Timestamp::default(),
        listeners: listeners(&root),
        tls: tls(&root, path),
        limits,
        dns: dns_settings(&root, path),
        msgauth: verdicts(&root, hostname),
        scan: spam(&root),
        store: store_settings(&root, path, data_dir),
        events: event_settings(&root),
        arns: arn_settings(&root),
        pipeline,
        routes,
        queue: schedule,
        log: log(&root),
        organizations: Vec::new(),
        directory: Directory::default(),
        register: Arc::default(),
        places: places(&root),
        keys: Keys(node.texts()),
        warnings: Vec::new(),
    };
    configuration.register = who_is_who(&configuration.store);
    let register = Arc::clone(&configuration.register);
    configuration.organizations = organizations(&root, path, known, &register, reader);
    root.finish();
    warnings::own_routes(&root, &configuration.organizations);
    if let Some(key) = &configuration.store.master_key_file {
        warnings::open_secret(&root.section("store"), "master_key_file", key);
    }
    if let Some(tls) = &configuration.tls {
        warnings::open_secret(&root.section("tls"), "private_key", &tls.private_key);
    }
    let organizations = &configuration.organizations;
    let all = organizations.iter().map(|config| Arc::clone(&config.indexed)).collect();
    match Directory::new(all) {
        Ok(directory) => configuration.directory = directory,
        // The reader has told them with their lines; what it missed must not pass.
        Err(conflicts) if reader.is_content() => conflicts
            .iter()
            .for_each(|conflict| reader.problem(path.display(), "organization", conflict)),
        Err(_) => {}
    }
    Some(configuration)
}

/// Where the keys stand that are looked at again.
fn places(root: &Section<'_>) -> Places {
    let mut places = HashMap::new();
    for key in ["hostname", "data_dir"] {
        places.insert(key, root.place_of(key));
    }
    for (name, section, key) in [
        ("dns.zone_file", "dns", "zone_file"),
        ("dns.servers", "dns", "servers"),
        ("queue.ca_file", "queue", "ca_file"),
        ("queue.paused", "queue", "paused"),
        ("tls.certificate", "tls", "certificate"),
        ("tls.private_key", "tls", "private_key"),
        ("store.master_key_file", "store", "master_key_file"),
    ] {
        places.insert(name, root.section(section).place_of(key));
    }
    Places(places)
}

fn hostname(root: &Section<'_>) -> String {
    let hostname: Option<Domain> = root.parsed("hostname");
    root.required("hostname", hostname).map_or_else(String::new, |name| name.to_string())
}

fn listeners(root: &Section<'_>) -> Vec<ListenerSettings> {
    let sections = root.sections("listener");
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    for section in &sections {
        let protocol = protocol(section);
        let name = section.text("name");
        let bind = section.parsed("bind").map(|Endpoint(bind)| bind);
        let proxies = networks(section, "proxy_protocol_from");
        let mended_networks = networks(section, "normalize_line_ends_from");
        let name = section.required("name", name);
        if let (Some(name), Some(bind)) = (name, section.required("bind", bind)) {
            if listeners.iter().any(|known| known.name == name) {
                section.problem("name", format!("there is another listener \"{name}\""));
            }
            if let Some(known) = listeners.iter().find(|known| collide(known.bind, bind)) {
                section.problem("bind", format!("{bind} is taken by listener \"{}\"", known.name));
            }
            listeners.push(ListenerSettings {
                name,
                // Where it could not be read, there is a problem, and nothing is served.
                protocol: protocol.unwrap_or(Protocol::Mx),
                bind,
                proxy_protocol_from: proxies,
                normalize_line_ends_from: mended_networks.unwrap_or_default().into(),
            });
        }
        section.finish();
    }
    if sections.is_empty() {
        listeners.push(ListenerSettings {
            name: "mx".into(),
            protocol: Protocol::Mx,
            bind: DEFAULT_BIND.parse().expect("the default is an address and a port"),
            proxy_protocol_from: None,
            normalize_line_ends_from: Arc::default(),
        });
    }
    listeners
}

/// Whether the system refuses the second of two listeners; it finds a port for each that asks for
/// port 0.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || (is_any && one.is_ipv4() == other.is_ipv4()))
}

fn protocol(section: &Section<'_>) -> Option<Protocol> {
    let protocol = section.text("protocol");
    let protocol = section.required("protocol", protocol)?;
    if NOT_SERVED.contains(&protocol.as_str()) {
        let served = PROTOCOLS.map(|(word, _)| word).join(", ");
        let message = format!("\"{protocol}\" is not served by this version, which has {served}");
        section.problem("protocol", message);
        return None;
    }
    section.one_of("protocol", &protocol, &PROTOCOLS)
}

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("mx", Protocol::Mx),
    ("submission", Protocol::Submission),
    ("submissions", Protocol::Submissions),
];
/// Protocols that a listener may come to have.
const NOT_SERVED: [&str; 7] = ["lmtp", "api", "page", "imap", "imaps", "pop3", "pop3s"];

fn networks(section: &Section<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    let listed = section.list(key)?;
    Some(listed.into_iter().map(|(Network(network), _)| network).collect())
}

fn tls(root: &Section<'_>, path: &Path) -> Option<TlsSettings> {
    let section = root.section("tls");
    let files = (section.text("certificate"), section.text("private_key"));
    section.finish();
    match files {
        (Some(certificate), Some(private_key)) => Some(TlsSettings {
            certificate: relative_to(path, certificate),
            private_key: relative_to(path, private_key),
        }),
        (Some(_), None) => {
            section.problem("certificate", "needs a private_key beside it");
            None
        }
        (None, Some(_)) => {
            section.problem("private_key", "needs a certificate beside it");
            None
        }
        (None, None) => None,
    }
}

fn count(section: &Section<'_>, key: &'static str, max: u64, default: usize) -> usize {
    let number = section.number(key, 1..=max);
    number.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX))
}

fn seconds(section: &Section<'_>, key: &'static str, max: u64, default: Duration) -> Duration {
    section.number(key, 1..=max).map_or(default, Duration::from_secs)
}

fn millis(section: &Section<'_>, key: &'static str, max: u64, default: Duration) -> Duration {
    section.number(key, 0..=max).map_or(default, Duration::from_millis)
}

fn limits(section: &Section<'_>) -> Limits {
    let default = Limits::default();
    let many = |key, default| count(section, key, 1_000_000, default);
    let at_once = |key, default| count(section, key, 100_000, default);
    let up_to = |hours, key, default| seconds(section, key, hours * HOUR_S, default);
    Limits {
        message_bytes: section
            .number("message_bytes", 65_536..=1024 * MB)
            .unwrap_or(default.message_bytes),
        header_bytes: section
            .number("header_bytes", 16_384..=64 * MB)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(default.header_bytes),
        // RFC 5321 §4.5.3.1.8: at least 100.
        recipients: count(section, "recipients", 100_000, default.recipients),
        transactions: many("transactions", default.transactions),
        command_line_bytes: section
            .number("command_line_bytes", 512..=65_536)
            .map_or(default.command_line_bytes, |number| usize::try_from(number).unwrap_or(4096)),
        errors: count(section, "errors", 10_000, default.errors),
        idle_commands: many("idle_commands", default.idle_commands),
        connections: many("connections", default.connections),
        connections_per_network: many("connections_per_network", default.connections_per_network),
        unknown_users_per_network: many(
            "unknown_users_per_network",
            default.unknown_users_per_network,
        ),
        failed_logins_per_network: many(
            "failed_logins_per_network",
            default.failed_logins_per_network,
        ),
        processing: at_once("processing", default.processing),
        processing_per_network: at_once("processing_per_network", default.processing_per_network),
        waiting: at_once("waiting", default.waiting),
        in_flight_bytes: section
            .number("in_flight_bytes", MB..=1024 * 1024 * MB)
            .unwrap_or(default.in_flight_bytes),
        command_timeout: up_to(1, "command_timeout_s", default.command_timeout),
        data_timeout: up_to(1, "data_timeout_s", default.data_timeout),
        message_timeout: up_to(24, "message_timeout_s", default.message_timeout),
        session_timeout: up_to(24, "session_timeout_s", default.session_timeout),
        banner_delay: millis(section, "banner_delay_ms", 60_000, default.banner_delay),
    }
}

fn pipeline_settings(
    root: &Section<'_>,
    limits: &Section<'_>,
    hostname: String,
    max_header_bytes: usize,
) -> pipeline::Settings {
    let default = pipeline::Settings::default();
    let access = root.section("access");
    let allow = networks(&access, "allow");
    let deny = networks(&access, "deny");
    access.finish();
    let dmarc = root.section("dmarc");
    let on_reject = on_reject(&dmarc, "on_reject").unwrap_or(default.on_reject);
    dmarc.finish();
    let store = root.section("store");
    pipeline::Settings {
        hostname,
        allow,
        deny: deny.unwrap_or_default(),
        on_reject,
        max_attachments: count(limits, "attachments", 100_000, default.max_attachments),
        max_header_bytes,
        max_header_fields: count(limits, "header_fields", 100_000, default.max_header_fields),
        max_hops: count(limits, "hops", 10_000, default.max_hops),
        max_group_members: count(limits, "group_members", 1_000_000, default.max_group_members),
        max_expanded_recipients: count(
            limits,
            "expanded_recipients",
            10_000_000,
            default.max_expanded_recipients,
        ),
        mailbox_full_grace: store
            .number("mailbox_full_grace_s", 0..=7 * 24 * HOUR_S)
            .map_or(default.mailbox_full_grace, Duration::from_secs),
        recipient_quotas: outbound::quotas(root),
        bounces: pipeline::BounceLimits {
            per_network: count(
                limits,
                "bounces_per_network",
                1_000_000,
                default.bounces.per_network,
            ),
            per_sender: count(limits, "bounces_per_sender", 1_000_000, default.bounces.per_sender),
        },
        queue: routes::bounds(&root.section("queue")),
        reports_per_network: count(
            limits,
            "reports_per_network",
            1_000_000,
            default.reports_per_network,
        ),
        logs_mail: root.section("log").bool("mail").unwrap_or(default.logs_mail),
    }
}

fn dns_settings(root: &Section<'_>, path: &Path) -> dns::Settings {
    let section = root.section("dns");
    let default = dns::Settings::default();
    let servers = section.list("servers").map(|servers| {
        let addresses = servers.into_iter().map(|(NameServer(address), _)| address);
        addresses.collect::<Vec<_>>()
    });
    let zone_file = section.text("zone_file");
    if servers.is_some() && zone_file.is_some() {
        section.problem("zone_file", "cannot stand beside servers: answers come from one of them");
    }
    if servers.as_ref().is_some_and(Vec::is_empty) {
        section.problem("servers", "is empty; leave it out for the system's servers");
    }
    let source = match (zone_file, servers) {
        (Some(file), _) => dns::Source::ZoneFile(relative_to(path, file)),
        (None, Some(servers)) => dns::Source::Servers(servers),
        (None, None) => default.source,
    };
    let settings = dns::Settings {
        source,
        timeout: millis(&section, "timeout_ms", 60_000, default.timeout),
        attempts: count(&section, "attempts", 10, default.attempts),
        cache_entries: section
            .number("cache_entries", 0..=100_000_000)
            .unwrap_or(default.cache_entries),
        trust_ad: section.bool("trust_ad").unwrap_or(default.trust_ad),
    };
    section.finish();
    settings
}

fn verdicts(root: &Section<'_>, hostname: String) -> msgauth::Settings {
    let section = root.section("verdicts");
    let default = msgauth::Settings::default();
    let settings = msgauth::Settings {
        authserv_id: hostname,
        deadline: millis(&section, "deadline_ms", 300_000, default.deadline),
        max_signatures: count(&section, "max_signatures", 100, default.max_signatures),
    };
    section.finish();
    settings
}

fn spam(root: &Section<'_>) -> Option<scan::Settings> {
    let section = root.section("spam");
    let words = [("rspamd", ScannerKind::Rspamd), ("spamd", ScannerKind::Spamd)];
    let kind = section.word("scanner", &words);
    let address = section.parsed("address").map(|HostAndPort(address)| address);
    let timeout = section.number("timeout_ms", 1..=300_000).map(Duration::from_millis);
    let max_bytes = section.number("max_bytes", 1..=1024 * MB);
    section.finish();
    if !section.is_present() {
        return None;
    }
    let (kind, address) = (section.required("scanner", kind), section.required("address", address));
    let default = scan::Settings::new(kind?, address?);
    Some(scan::Settings {
        timeout: timeout.unwrap_or(default.timeout),
        max_bytes: max_bytes.unwrap_or(default.max_bytes),
        ..default
    })
}

fn store_settings(
    root: &Section<'_>,
    path: &Path,
    data_dir: std::path::PathBuf,
) -> store::Settings {
    let default = store::Settings::new(data_dir);
    let section = root.section("store");
    let settings = store::Settings {
        master_key_file: section.text("master_key_file").map(|file| relative_to(path, file)),
        segment_bytes: section
            .number("segment_bytes", MB..=4096 * MB)
            .unwrap_or(default.segment_bytes),
        housekeeping_interval: seconds(
            &section,
            "housekeeping_interval_s",
            24 * HOUR_S,
            default.housekeeping_interval,
        ),
        min_free_bytes: section
            .number("min_free_bytes", 0..=1024 * 1024 * 1024 * MB)
            .unwrap_or(default.min_free_bytes),
        ..default
    };
    // Read with the pipeline's settings, which reports what is wrong with it.
    section.allow("mailbox_full_grace_s");
    section.finish();
    settings
}

fn event_settings(root: &Section<'_>) -> events::Settings {
    let section = root.section("events");
    let default = events::Settings::default();
    let settings = events::Settings {
        max_file_bytes: section
            .number("max_file_bytes", 65_536..=1024 * 1024 * MB)
            .unwrap_or(default.max_file_bytes),
        retention_days: section
            .number("retention_days", 1..=36_500)
            .and_then(|days| u32::try_from(days).ok())
            .unwrap_or(default.retention_days),
    };
    section.finish();
    settings
}

fn arn_settings(root: &Section<'_>) -> ArnSettings {
    let section = root.section("arn");
    let settings = ArnSettings {
        region: section.parsed("region").unwrap_or_default(),
        account_id: section.parsed("account_id").unwrap_or_default(),
    };
    section.finish();
    settings
}

fn log(root: &Section<'_>) -> LogSettings {
    let section = root.section("log");
    let default = LogSettings::default();
    let words = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let settings = LogSettings {
        format: section.word("format", &words).unwrap_or(default.format),
        level: level(&section).unwrap_or(default.level),
    };
    // Read with the pipeline's settings.
    section.allow("mail");
    section.finish();
    settings
}

fn level(section: &Section<'_>) -> Option<String> {
    let filter: Option<Filter> = section.parsed("level");
    filter.map(|filter| filter.0)
}

/// A filter that tracing can read.
struct Filter(String);

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<tracing_subscriber::filter::Targets>().map_err(|error| error.to_string())?;
        // To tracing a lone word may also be a module, of which the rest is silent.
        let is_told = |part: &str| {
            part.contains('=') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part.trim()))
        };
        match text.split(',').find(|part| !is_told(part)) {
            None => Ok(Self(text.to_owned())),
            Some(part) => Err(format!(
                "\"{}\" is not one of {}, nor a directive such as mailweir::smtp=debug{}",
                part.trim(),
                LEVELS.join(", "),
                hints::value(part.trim(), LEVELS.into_iter())
            )),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn organizations(
    root: &Section<'_>,
    path: &Path,
    known: &[Arc<OrganizationConfig>],
    register: &Register,
    reader: &Reader,
) -> Vec<Arc<OrganizationConfig>> {
    let known: HashMap<_, _> = known.iter().map(|config| (&config.file, config)).collect();
    let mut organizations = Vec::new();
    // Also those that could not be read: named twice, their problems would be told twice.
    let mut files = HashSet::new();
    let mut claims = Claims::default();
    let hostname = root.text("hostname").and_then(|text| Domain::parse(&text).ok());
    let around = Around { hostname: hostname.as_ref(), register };
    let sections = root.sections("organization");
    if sections.is_empty() {
        root.problem("organization", "is missing: mail is for an organization");
    }
    for section in sections {
        let file = section.text("file");
        section.finish();
        let Some(file) = section.required("file", file) else { continue };
        let file = relative_to(path, file);
        if matches!(file.try_exists(), Ok(false)) {
            section.problem("file", format!("{}: there is no such file", file.display()));
            continue;
        }
        if !files.insert(file.clone()) {
            section.problem("file", format!("{} is named twice", file.display()));
            continue;
        }
        let unchanged = known.get(&file).filter(|config| config.stamps.are_current());
        if let Some(config) = unchanged {
            claims.add(&config.claims, reader);
            organizations.push(Arc::clone(config));
        } else {
            let read = organization_file::read(&file, around, reader, &mut claims);
            organizations.extend(read.map(Arc::new));
        }
    }
    organizations
}
