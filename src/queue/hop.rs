//! A server that a message may be handed to.

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
