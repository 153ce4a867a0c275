//! Answers from DNS, behind one trait: a real resolver, a zone file, and a bounded cache over
//! either. Knows record types, no mail semantics.

mod cache;
mod configured;
mod connector;
mod gather;
mod name;
mod record;
mod server;
mod settings;
mod system;
mod udp;
mod zone;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use cache::{CachedResolver, Fetch, Fetched, Upstream};
pub use configured::{Configured, SYSTEM_FILE};
pub use gather::lookup_all;
pub use settings::{Settings, Source};
pub use system::SystemResolver;
pub use zone::{ZoneError, ZoneResolver};

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The zone file is at fault.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The system's resolver configuration is at fault, or the resolver cannot start.
    #[error("the DNS resolver cannot be set up: {0}")]
    System(String),
}

/// The resolver that the settings ask for, with the cache in front of what needs one. A relative
/// zone file is sought in `base`.
///
/// # Errors
/// [`SetupError`], for the operator.
pub fn from_settings(settings: &Settings, base: &Path) -> Result<Arc<dyn Resolver>, SetupError> {
    let system = match &settings.source {
        Source::ZoneFile(path) => {
            let zone = ZoneResolver::read(&base.join(path))?;
            return Ok(Arc::new(zone.with_trust(settings.trust_ad)));
        }
        Source::System => SystemResolver::system(settings),
        Source::Servers(servers) => SystemResolver::with_servers(servers, settings),
    };
    let system = system.map_err(SetupError::System)?;
    Ok(Arc::new(CachedResolver::new(system, settings.cache_entries)))
}

/// The record types that mail needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// Text: SPF, DKIM and DMARC records.
    Txt,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail exchangers.
    Mx,
    /// Names of an address.
    Ptr,
    /// Certificate associations of a service (RFC 6698).
    Tlsa,
}

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// A TXT record, its character-strings joined without spaces (RFC 7208 §3.3).
    Txt(Box<[u8]>),
    /// An A record.
    A(Ipv4Addr),
    /// An AAAA record.
    Aaaa(Ipv6Addr),
    /// An MX record; the exchange has no trailing dot, and is empty for a null MX (RFC 7505).
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// The host's name.
        exchange: Box<str>,
    },
    /// A PTR record's name, without a trailing dot.
    Ptr(Box<str>),
    /// A TLSA record.
    Tlsa(Tlsa),
}

/// What a TLSA record associates with a service (RFC 6698 §2.1); any numbers, for who uses it to
/// judge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// What the association constrains: an authority, or the server's own certificate.
    pub usage: u8,
    /// The part of a certificate that is compared: all of it, or its public key.
    pub selector: u8,
    /// How that part is given: as it is, or as a digest.
    pub matching_type: u8,
    /// The part, or its digest.
    pub data: Box<[u8]>,
}

/// A positive answer: at least one record of the type asked for, CNAMEs already followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records, in the server's order.
    pub records: Arc<[RecordData]>,
    /// For how long they may be kept.
    pub ttl: Duration,
    /// Whether DNSSEC vouches for all of it, CNAMEs included: a resolver that the operator trusts
    /// to validate (`trust_ad`) has said so. False where nobody has looked.
    pub is_secure: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// NXDOMAIN: the name does not exist.
    #[error("no such name")]
    NoSuchName,
    /// NOERROR without a record of this type.
    #[error("no record of this type")]
    NoData,
    /// Time-out, SERVFAIL, a refusal, a broken answer: asking later may help.
    #[error("{0}")]
    Transient(String),
}

impl LookupError {
    /// Whether the answer was "there is nothing" (a void lookup of RFC 7208 §4.6.4), rather than
    /// no answer at all.
    pub fn is_void(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoData)
    }
}

/// What a lookup comes to.
pub type LookupResult = Result<Answer, LookupError>;

/// A lookup under way.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = LookupResult> + Send + 'a>>;

/// Answers questions about names. Deadlines are the caller's: a lookup can be dropped.
pub trait Resolver: Send + Sync {
    /// Looks up the records of one type at `name` (no trailing dot, in A-label form; any octets
    /// that DNS allows in a label, since SPF macros make such names). A name that DNS cannot
    /// carry is [`LookupError::NoSuchName`].
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a>;
}

/// The name under which an address's PTR records stand (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(73);
            for octet in v6.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", octet & 0xf, octet >> 4));
            }
            name.push_str("ip6.arpa");
            name
        }
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
