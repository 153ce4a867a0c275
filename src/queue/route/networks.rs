//! Which addresses mail is sent to because DNS says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// To which networks mail goes, and policies are fetched from, because DNS says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Networks {
    /// To those that are everybody's.
    Public,
    /// To inner networks as well.
    All,
}

impl Networks {
    /// Whether an address is of one of them.
    pub(super) fn have(self, address: IpAddr) -> bool {
        self == Self::All || !is_inner(address)
    }
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
/// metadata at 169.254.169.254. The networks for documentation are not among them: those are no
/// networks at all.
fn is_inner(address: IpAddr) -> bool {
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
