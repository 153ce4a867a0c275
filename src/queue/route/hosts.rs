//! The addresses of mail hosts, and which of the hosts are we.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::time::Instant;

use super::exchangers::Exchanger;
use super::random::{Random, shuffle};
use super::settings::AddressOrder;
use crate::dns::{LookupError, LookupResult, RecordData, Resolver, lookup_all};

/// A mail host and its addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) preference: u16,
    pub(super) name: String,
    /// In the order in which they are to be tried.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether DNSSEC vouches for all of them.
    pub(super) is_secure: bool,
    /// Why there may be more addresses, if DNS has not answered everything.
    pub(super) failure: Option<String>,
}

impl Host {
    /// A host of which the address is known.
    pub(super) fn at(name: String, address: IpAddr) -> Self {
        let addresses = vec![address];
        Self { preference: 0, name, addresses, is_secure: false, failure: None }
    }
}

/// Looks up the addresses of all hosts side by side.
pub(super) async fn resolve(
    exchangers: &[Exchanger],
    order: AddressOrder,
    resolver: &dyn Resolver,
    random: &Random,
    deadline: Instant,
) -> Vec<Host> {
    let types = order.record_types();
    let questions: Vec<_> = exchangers
        .iter()
        .flat_map(|exchanger| types.iter().map(|kind| (exchanger.name.as_str(), *kind)))
        .collect();
    let results = lookup_all(resolver, &questions, deadline).await;
    let of_hosts = exchangers.iter().zip(results.chunks(types.len()));
    of_hosts.map(|(exchanger, results)| host(exchanger, results, random)).collect()
}

fn host(exchanger: &Exchanger, results: &[LookupResult], random: &Random) -> Host {
    let Exchanger { preference, name } = exchanger.clone();
    let mut host = Host { preference, name, addresses: Vec::new(), is_secure: true, failure: None };
    for result in results {
        match result {
            Ok(answer) => {
                let mut addresses: Vec<_> = answer.records.iter().filter_map(address).collect();
                shuffle(&mut addresses, random);
                host.addresses.extend(addresses);
                host.is_secure &= answer.is_secure;
            }
            Err(LookupError::Transient(problem)) => host.failure = Some(problem.clone()),
            Err(LookupError::NoSuchName | LookupError::NoData) => {}
        }
    }
    host.is_secure &= !host.addresses.is_empty();
    host
}

fn address(record: &RecordData) -> Option<IpAddr> {
    let address = match record {
        RecordData::A(address) => IpAddr::V4(*address),
        RecordData::Aaaa(address) => IpAddr::V6(*address).to_canonical(),
        _ => return None,
    };
    is_of_one_host(address).then_some(address)
}

/// Whether a connection to this address can lead to a server that somebody has meant.
pub(super) fn is_of_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

/// Whether an address leads into a network that is not everybody's: this machine, its link, an
/// organization's or provider's own network, or one that IANA keeps for a special purpose and that
/// is not reached from everywhere (RFC 6890 and the registries that it began). Who can have mail
/// sent there reaches what no stranger should: services that trust their neighbours, or a cloud's
/// metadata at 169.254.169.254. The networks for documentation are
/// not among them: those are no networks at all.
pub(super) fn is_inner(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_inner_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_inner_v4(v4),
            None => is_among(&INNER_V6, u128::from(v6)),
        },
    }
}

/// Networks as an address and the length of its prefix.
const INNER_V4: [(Ipv4Addr, u32); 12] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),      // "this network"
    (Ipv4Addr::new(10, 0, 0, 0), 8),     // private use
    (Ipv4Addr::new(100, 64, 0, 0), 10),  // shared by a provider and its customers
    (Ipv4Addr::new(127, 0, 0, 0), 8),    // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local
    (Ipv4Addr::new(172, 16, 0, 0), 12),  // private use
    (Ipv4Addr::new(192, 0, 0, 0), 24),   // IETF protocol assignments
    (Ipv4Addr::new(192, 88, 99, 0), 24), // relays of 6to4, deprecated
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private use
    (Ipv4Addr::new(198, 18, 0, 0), 15),  // benchmarking
    (Ipv4Addr::new(224, 0, 0, 0), 4),    // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),    // reserved, and broadcast
];

const INNER_V6: [(Ipv6Addr, u32); 8] = [
    // Unspecified, loopback, IPv4-compatible, local translation (64:ff9b:1::/48) and all else that
    // begins with a zero octet; the well-known translation prefix is looked into.
    (Ipv6Addr::UNSPECIFIED, 8),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64), // discard-only
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF protocol assignments, Teredo
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16), // segment routing
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), // unique local
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), // link-local
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10), // site-local, which came before unique local
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), // multicast
];

fn is_inner_v4(v4: Ipv4Addr) -> bool {
    let networks = INNER_V4.map(|(network, length)| (network.to_ipv6_mapped(), length + 96));
    is_among(&networks, u128::from(v4.to_ipv6_mapped()))
}

fn is_among(networks: &[(Ipv6Addr, u32)], address: u128) -> bool {
    networks.iter().any(|(network, length)| (u128::from(*network) ^ address) >> (128 - length) == 0)
}

/// The IPv4 address that a packet to this one reaches in the end: by a NAT64 gateway, under the
/// prefix 64:ff9b::/96 that all of them know, or by 6to4.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let halves = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(halves(high, low)),
        _ => None,
    }
}

/// How this server is known to others, so that it does not send mail to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ourselves {
    /// Our host name, in lower case.
    pub hostname: String,
    /// Where we listen for mail.
    pub listeners: Vec<SocketAddr>,
}

impl Ourselves {
    /// Whether a connection to this host would come back to us.
    pub(super) fn are(&self, host: &Host, port: u16) -> bool {
        host.name == self.hostname || host.addresses.iter().any(|ip| self.listen_at(*ip, port))
    }

    /// Whether we listen at this address and port.
    pub(super) fn listen_at(&self, address: IpAddr, port: u16) -> bool {
        let is_there = |listener: &SocketAddr| {
            let ip = listener.ip().to_canonical();
            listener.port() == port
                && (ip == address || ip.is_unspecified() && is_of_this_machine(address))
        };
        self.listeners.iter().any(is_there)
    }
}

/// Whether an interface of this machine has the address: only then a socket can be bound to it.
/// Where the system lets sockets be bound to any address (`ip_nonlocal_bind`), nobody can tell, and
/// only our host name keeps mail from coming back.
fn is_of_this_machine(address: IpAddr) -> bool {
    let can_be_bound = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    // Of the networks for documentation, so nobody's.
    let nobodys = match address {
        IpAddr::V4(_) => IpAddr::from([203, 0, 113, 254]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfffe]),
    };
    address.is_loopback() || can_be_bound(address) && !can_be_bound(nobodys)
}

/// Takes out ourselves and every host that is no better (RFC 5321 §5.1): they would send it here.
pub(super) fn better_than_ours(mut hosts: Vec<Host>, ours: &Ourselves, port: u16) -> Vec<Host> {
    let own = hosts.iter().filter(|host| ours.are(host, port)).map(|host| host.preference).min();
    hosts.retain(|host| own.is_none_or(|own| host.preference < own));
    hosts
}
