//! `[queue]`, as far as it says where mail goes, and `[[queue_route]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::networks::Networks;
use crate::dns::RecordType;
use crate::mail::{Domain, GatewayLogin};

/// Which addresses of a host are tried, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressOrder {
    /// All, IPv6 first; where there is no IPv6, such an attempt fails at once.
    #[default]
    Ipv6First,
    /// All, IPv4 first.
    Ipv4First,
    /// No IPv4.
    Ipv6Only,
    /// No IPv6.
    Ipv4Only,
}

impl AddressOrder {
    /// The types of address records in their order.
    pub(super) fn record_types(self) -> &'static [RecordType] {
        match self {
            Self::Ipv6First => &[RecordType::Aaaa, RecordType::A],
            Self::Ipv4First => &[RecordType::A, RecordType::Aaaa],
            Self::Ipv6Only => &[RecordType::Aaaa],
            Self::Ipv4Only => &[RecordType::A],
        }
    }
}

/// A server that the operator has named for a domain, in place of its mail exchangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedRoute {
    /// A name, whose addresses are looked up, or an address.
    pub host: String,
    /// The TCP port; absent: the port of all other mail.
    pub port: Option<u16>,
    /// How much TLS is asked of it.
    pub tls: RouteTls,
    /// What it is logged in to with; only with TLS that is verified.
    pub login: Option<GatewayLogin>,
    /// The authorities that its certificate may come from, at least one; `None` stands for the
    /// public ones and those of `queue.ca_file`.
    pub authorities: Option<Arc<[CertificateDer<'static>]>>,
}

impl FixedRoute {
    /// To a host, with whatever TLS it offers and without a login.
    pub fn to(host: &str, port: Option<u16>) -> Self {
        let tls = RouteTls::Opportunistic;
        Self { host: host.to_owned(), port, tls, login: None, authorities: None }
    }
}

/// How much TLS is asked of a server that the operator has named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteTls {
    /// What it offers.
    #[default]
    Opportunistic,
    /// STARTTLS, with a certificate for its name.
    StartTls,
    /// TLS from the first octet on (RFC 8314 §3), with a certificate for its name.
    Implicit,
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The TCP port of other mail servers (RFC 5321 §4.5.4.2).
    pub port: u16,
    /// Which of their addresses are tried.
    pub addresses: AddressOrder,
    /// Whether mail goes to addresses of inner networks because DNS, or an address literal, says
    /// so. Else only `fixed` and `relay` lead there, since anybody can make this server write to
    /// anybody: by an address, or a domain, to which a report is due.
    pub private_networks: bool,
    /// Certificate authorities beside the system's, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Domains whose mail goes elsewhere than DNS says.
    pub fixed: BTreeMap<Domain, FixedRoute>,
    /// Where the mail of all other domains goes, if not where DNS says.
    pub relay: Option<FixedRoute>,
}

impl Settings {
    /// To which networks mail goes because DNS says so.
    pub fn networks(&self) -> Networks {
        if self.private_networks { Networks::All } else { Networks::Public }
    }

    /// The server that the operator has named for a domain, if there is one.
    pub(super) fn named_for(&self, domain: &Domain) -> Option<&FixedRoute> {
        self.fixed.get(domain).or(self.relay.as_ref())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 25,
            addresses: AddressOrder::default(),
            private_networks: false,
            ca_file: None,
            fixed: BTreeMap::new(),
            relay: None,
        }
    }
}
