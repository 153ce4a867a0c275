//! Servers that a message may be handed to.

use std::net::IpAddr;

use crate::mail::Secret;
use crate::smtp::client::TlsDemand;

/// One server of a route, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Its name, as MX or an organization's gateway names it.
    pub name: String,
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// The port.
    pub port: u16,
    /// How much TLS it must offer.
    pub tls: TlsDemand,
    /// TLS begins with the first octet, not with STARTTLS.
    pub implicit_tls: bool,
    /// User name and password, where it wants a login.
    pub credentials: Option<(String, Secret)>,
}

/// The servers that take a destination's mail, best first.
#[derive(Clone, Debug)]
pub struct Route {
    hops: Vec<Hop>,
    is_complete: bool,
}

impl Route {
    /// Of all the servers that there are.
    pub fn complete(hops: Vec<Hop>) -> Self {
        Self { hops, is_complete: true }
    }

    /// Of those that are known; there may be others, for example because DNS did not answer. What
    /// these refuse for good, the others might take.
    pub fn incomplete(hops: Vec<Hop>) -> Self {
        Self { hops, is_complete: false }
    }

    /// The servers.
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// Whether there are no others.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}
