//! Where outgoing mail goes: the keys of `[queue]` that say so, and `[[queue_route]]`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::path::Path;

use super::reader::{Section, relative_to};
use crate::mail::{AddressError, Domain};
use crate::queue::route::{AddressOrder, FixedRoute, Settings};

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
        fixed: fixed(root),
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
