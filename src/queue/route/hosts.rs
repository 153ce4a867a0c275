//! The addresses of mail hosts, and which of the hosts are we.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::time::Instant;

use super::exchangers::Exchanger;
use super::networks::is_of_one_host;
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
