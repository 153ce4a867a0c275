//! Where outgoing mail goes: the keys of `[queue]` that say so, and `[[queue_route]]`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::reader::{Section, relative_to};
use crate::mail::{AddressError, Domain};
use crate::queue::Settings as Schedule;
use crate::queue::route::{AddressOrder, FixedRoute, Settings};

const DAY_S: u64 = 24 * 3600;
const MIB: u64 = 1024 * 1024;

/// The words of `addresses`.
const ORDERS: [(&str, AddressOrder); 4] = [
    ("ipv6-first", AddressOrder::Ipv6First),
    ("ipv4-first", AddressOrder::Ipv4First),
    ("ipv6-only", AddressOrder::Ipv6Only),
    ("ipv4-only", AddressOrder::Ipv4Only),
];

/// Reads them; who has read the rest of `[queue]` finishes it.
pub(super) fn routes(root: &Section<'_>, queue: &Section<'_>, path: &Path) -> Settings {
    let default = Settings::default();
    Settings {
        port: port(queue).unwrap_or(default.port),
        addresses: queue.word("addresses", &ORDERS).unwrap_or(default.addresses),
        ca_file: queue.text("ca_file").map(|file| relative_to(path, file)),
        private_networks: queue.bool("private_networks").unwrap_or(default.private_networks),
        fixed: fixed(root),
    }
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
    schedule
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

fn fixed(root: &Section<'_>) -> BTreeMap<Domain, FixedRoute> {
    let mut routes = BTreeMap::new();
    for section in root.sections("queue_route") {
        let domain: Option<Domain> = section.parsed("domain");
        let host: Option<Host> = section.parsed("host");
        let port = port(&section);
        let domain = section.required("domain", domain);
        let host = section.required("host", host);
        section.finish();
        let (Some(domain), Some(Host(host))) = (domain, host) else { continue };
        match routes.entry(domain) {
            Entry::Occupied(taken) => {
                section.problem("domain", format!("{} has its route already", taken.key()));
            }
            Entry::Vacant(free) => {
                free.insert(FixedRoute { host, port });
            }
        }
    }
    routes
}

/// A host's name or address.
struct Host(String);

impl std::str::FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(address.to_string())),
            Err(_) if text.starts_with('[') => Err(AddressError::Domain(text.to_owned())),
            Err(_) => Domain::parse(text).map(|domain| Self(domain.to_string())),
        }
    }
}
