//! Where outgoing mail goes: the keys of `[queue]` that say so, and `[[queue_route]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::outbound;
use super::reader::{Section, relative_to};
use super::stamp::Stamps;
use crate::mail::{AddressError, Domain};
use crate::queue::Settings as Schedule;
use crate::queue::route::{AddressOrder, FixedRoute, RouteTls, Settings};
use crate::store::{QueueBound, QueueBounds};

const DAY_S: u64 = 24 * 3600;
const MIB: u64 = 1024 * 1024;
/// A pebibyte.
const MAX_BYTES: u64 = 1024 * 1024 * 1024 * MIB;

/// The words of `addresses`.
const ORDERS: [(&str, AddressOrder); 4] = [
    ("ipv6-first", AddressOrder::Ipv6First),
    ("ipv4-first", AddressOrder::Ipv4First),
    ("ipv6-only", AddressOrder::Ipv6Only),
    ("ipv4-only", AddressOrder::Ipv4Only),
];

/// The words of a route's `tls`.
const TLS: [(&str, RouteTls); 3] = [
    ("opportunistic", RouteTls::Opportunistic),
    ("starttls", RouteTls::StartTls),
    ("implicit", RouteTls::Implicit),
];

/// Reads them; who has read the rest of `[queue]` finishes it.
pub(super) fn routes(root: &Section<'_>, queue: &Section<'_>, path: &Path) -> Settings {
    let default = Settings::default();
    let settings = Settings {
        port: port(queue).unwrap_or(default.port),
        addresses: queue.word("addresses", &ORDERS).unwrap_or(default.addresses),
        ca_file: queue.text("ca_file").map(|file| relative_to(path, file)),
        private_networks: queue.bool("private_networks").unwrap_or(default.private_networks),
        ..default
    };
    let Named { fixed, relay } = named(root, path);
    Settings { fixed, relay, ..settings }
}

/// When and how hard mail is tried.
pub(super) fn schedule(queue: &Section<'_>) -> Schedule {
    let default = Schedule::default();
    let seconds = |key, max: u64, default: Duration| {
        queue.number(key, 1..=max).map_or(default, Duration::from_secs)
    };
    let count = |key, max: u64, default: usize| {
        queue.number(key, 1..=max).and_then(|it| usize::try_from(it).ok()).unwrap_or(default)
    };
    let schedule = Schedule {
        paused: queue.bool("paused").unwrap_or(default.paused),
        lifetime: seconds("lifetime_s", 30 * DAY_S, default.lifetime),
        delay_warning: seconds("delay_warning_s", 30 * DAY_S, default.delay_warning),
        first_retry: seconds("first_retry_s", DAY_S, default.first_retry),
        longest_retry: seconds("longest_retry_s", DAY_S, default.longest_retry),
        connections: count("connections", 10_000, default.connections),
        connections_per_destination: count(
            "connections_per_destination",
            1000,
            default.connections_per_destination,
        ),
        in_flight_bytes: queue
            .number("in_flight_bytes", MIB..=1024 * 1024 * MIB)
            .unwrap_or(default.in_flight_bytes),
    };
    check_retries(queue, &schedule);
    // Read with the pipeline's settings, which reports what is wrong with them.
    for key in BOUNDS {
        queue.allow(key);
    }
    schedule
}

/// The keys of how much mail may wait.
const BOUNDS: [&str; 7] = [
    "messages",
    "bytes",
    "messages_per_organization",
    "bytes_per_organization",
    "messages_per_sender",
    "bytes_per_sender",
    "reports_per_destination",
];

/// How much mail may wait.
pub(super) fn bounds(queue: &Section<'_>) -> QueueBounds {
    let default = QueueBounds::default();
    let messages = |key, default| queue.number(key, 1..=1_000_000_000).unwrap_or(default);
    let octets = |key, default| queue.number(key, MIB..=MAX_BYTES).unwrap_or(default);
    QueueBounds {
        all: QueueBound {
            messages: messages("messages", default.all.messages),
            octets: octets("bytes", default.all.octets),
        },
        organization: QueueBound {
            messages: messages("messages_per_organization", default.organization.messages),
            octets: octets("bytes_per_organization", default.organization.octets),
        },
        sender: QueueBound {
            messages: messages("messages_per_sender", default.sender.messages),
            octets: octets("bytes_per_sender", default.sender.octets),
        },
        reports_per_destination: messages(
            "reports_per_destination",
            default.reports_per_destination,
        ),
    }
}

/// Pauses grow from the first to the longest, be one of them set or both.
fn check_retries(queue: &Section<'_>, schedule: &Schedule) {
    let (first, longest) = (schedule.first_retry.as_secs(), schedule.longest_retry.as_secs());
    if first <= longest {
        return;
    }
    if queue.has("first_retry_s") {
        let problem = format!("{first} is more than longest_retry_s, which is {longest}");
        queue.problem("first_retry_s", problem);
    } else {
        let problem = format!("{longest} is less than first_retry_s, which is {first}");
        queue.problem("longest_retry_s", problem);
    }
}

fn port(section: &Section<'_>) -> Option<u16> {
    section.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok())
}

/// The routes that the operator has named.
struct Named {
    fixed: BTreeMap<Domain, FixedRoute>,
    relay: Option<FixedRoute>,
}

fn named(root: &Section<'_>, path: &Path) -> Named {
    let mut named = Named { fixed: BTreeMap::new(), relay: None };
    for section in root.sections("queue_route") {
        let of: Option<RouteOf> = section.parsed("domain");
        let of = section.required("domain", of);
        let route = fixed_route(&section, path);
        section.finish();
        let (Some(of), Some(route)) = (of, route) else { continue };
        let is_taken = match &of {
            RouteOf::All => named.relay.is_some(),
            RouteOf::Domain(domain) => named.fixed.contains_key(domain),
        };
        if is_taken {
            section.problem("domain", format!("{of} has its route already"));
            continue;
        }
        match of {
            RouteOf::All => named.relay = Some(route),
            RouteOf::Domain(domain) => {
                named.fixed.insert(domain, route);
            }
        }
    }
    named
}

fn fixed_route(section: &Section<'_>, path: &Path) -> Option<FixedRoute> {
    let host: Option<Host> = section.parsed("host");
    let host = section.required("host", host);
    let port = port(section);
    let tls = section.word("tls", &TLS);
    // What is read here is read again with every reload, as this whole file is.
    let mut stamps = Stamps::of(path);
    let login = outbound::login(section, path, &mut stamps);
    let authorities = outbound::authorities(section, path, &mut stamps);
    let is_logged_in = section.has("user_name") || section.has("password_file");
    let otherwise = match port {
        Some(outbound::SUBMISSIONS_PORT) => RouteTls::Implicit,
        _ if is_logged_in || section.has("ca_file") => RouteTls::StartTls,
        _ => RouteTls::Opportunistic,
    };
    if tls == Some(RouteTls::Opportunistic) && is_logged_in {
        section.problem("tls", "must be \"starttls\" or \"implicit\" where there is a login");
    }
    if tls == Some(RouteTls::Opportunistic) && section.has("ca_file") {
        section.problem("tls", "must be \"starttls\" or \"implicit\" where there is a ca_file");
    }
    let tls = tls.unwrap_or(otherwise);
    Some(FixedRoute { host: host?.0, port, tls, login, authorities })
}

/// Whose mail takes a route.
enum RouteOf {
    /// All mail that has no other.
    All,
    Domain(Domain),
}

impl std::str::FromStr for RouteOf {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" { Ok(Self::All) } else { Domain::parse(text).map(Self::Domain) }
    }
}

impl std::fmt::Display for RouteOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

/// A host's name or address.
struct Host(String);

impl std::str::FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && port.parse::<u16>().is_ok()
        {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            return Err(format!("write host = \"{host}\" and port = {port}"));
        }
        match Domain::parse(text) {
            Ok(domain) if !text.starts_with('[') => Ok(Self(domain.to_string())),
            Ok(_) => Err(AddressError::Domain(text.to_owned()).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
