//! A domain's mail exchangers (RFC 5321 §5.1).

use rustls_pki_types::DnsName;
use tokio::time::Instant;

use super::error::RouteError;
use super::random::{Random, shuffle};
use crate::dns::{LookupError, RecordData, RecordType, Resolver, lookup_all};
use crate::mail::Domain;

/// Mail exchangers that are tried; none of the large providers has half as many.
const MAX_EXCHANGERS: usize = 20;

/// A host that takes a domain's mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchanger {
    /// Lower is tried first.
    pub(super) preference: u16,
    /// Its name, in lower case.
    pub(super) name: String,
}

/// The hosts that take a domain's mail, in the order in which they are to be tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exchangers {
    pub(super) hosts: Vec<Exchanger>,
    /// Whether DNSSEC vouches for these being the ones.
    pub(super) is_secure: bool,
    /// Whether there are more than are looked at.
    pub(super) are_cut: bool,
}

/// Looks a domain's mail exchangers up.
///
/// # Errors
/// There is no such domain, it wants no mail, or DNS does not answer by the deadline.
pub(super) async fn lookup(
    domain: &Domain,
    resolver: &dyn Resolver,
    random: &Random,
    deadline: Instant,
) -> Result<Exchangers, RouteError> {
    let question = [(domain.as_str(), RecordType::Mx)];
    let result = lookup_all(resolver, &question, deadline).await.pop();
    match result.unwrap_or(Err(LookupError::NoData)) {
        Ok(answer) => {
            let mut hosts = hosts(domain, &answer.records, random)?;
            let are_cut = hosts.len() > MAX_EXCHANGERS;
            hosts.truncate(MAX_EXCHANGERS);
            Ok(Exchangers { hosts, is_secure: answer.is_secure, are_cut })
        }
        // RFC 5321 §5.1: the domain itself is its host. That it has no MX record is as secure as
        // its addresses, which stand at the same name.
        Err(LookupError::NoData) => {
            let hosts = vec![Exchanger { preference: 0, name: domain.as_str().to_owned() }];
            Ok(Exchangers { hosts, is_secure: true, are_cut: false })
        }
        Err(LookupError::NoSuchName) => Err(RouteError::NoSuchDomain(domain.clone())),
        Err(LookupError::Transient(problem)) => {
            Err(RouteError::Dns { name: domain.to_string(), problem })
        }
    }
}

fn hosts(
    domain: &Domain,
    records: &[RecordData],
    random: &Random,
) -> Result<Vec<Exchanger>, RouteError> {
    let exchanges = records.iter().filter_map(|record| match record {
        RecordData::Mx { preference, exchange } => Some((*preference, &**exchange)),
        _ => None,
    });
    // RFC 7505 §3: a null MX beside others means nothing.
    if exchanges.clone().all(|(_, exchange)| exchange.is_empty()) {
        return Err(RouteError::NullMx(domain.clone()));
    }
    let mut hosts: Vec<_> = exchanges
        .filter(|(_, exchange)| is_host_name(exchange))
        .map(|(preference, name)| Exchanger { preference, name: name.to_ascii_lowercase() })
        .collect();
    // RFC 5321 §5.1: those of one preference share the load by random order.
    shuffle(&mut hosts, random);
    hosts.sort_by_key(|host| host.preference);
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.name.clone()));
    Ok(hosts)
}

/// Whether a certificate, and so a server, could have this name; underscores do occur. An address
/// in place of a name (RFC 5321 §5.1 has none) is no name.
fn is_host_name(name: &str) -> bool {
    DnsName::try_from(name).is_ok()
}
