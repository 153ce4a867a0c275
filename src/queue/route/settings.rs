//! `[queue]`, as far as it says where mail goes, and `[[queue_route]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::dns::RecordType;
use crate::mail::Domain;

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
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The TCP port of other mail servers (RFC 5321 §4.5.4.2).
    pub port: u16,
    /// Which of their addresses are tried.
    pub addresses: AddressOrder,
    /// Whether mail goes to addresses of inner networks because DNS, or an address literal, says
    /// so. Else only `fixed` leads there, since anybody can make this server write to anybody: by
    /// an address, or a domain, to which a report is due.
    pub private_networks: bool,
    /// Certificate authorities beside the system's, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Domains whose mail goes elsewhere than DNS says.
    pub fixed: BTreeMap<Domain, FixedRoute>,
}

impl Default for Settings {
    fn default() -> Self {
        let addresses = AddressOrder::default();
        let (private_networks, ca_file, fixed) = (false, None, BTreeMap::new());
        Self { port: 25, addresses, private_networks, ca_file, fixed }
    }
}
