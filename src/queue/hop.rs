//! The next server on a message's way.

use std::net::IpAddr;

use crate::mail::Secret;
use crate::smtp::client::TlsDemand;

/// A server to be tried, with all that an attempt needs to know about it.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The server's name, or its address literal; for logs, events and reports.
    pub name: String,
    /// Its addresses, to be tried in this order; at least one.
    pub addresses: Vec<IpAddr>,
    /// The TCP port.
    pub port: u16,
    /// How safe the connection must be.
    pub tls: TlsDemand,
    /// Whether TLS begins with the connection, not with STARTTLS.
    pub implicit_tls: bool,
    /// User name and password for AUTH, for a server that is not the recipient's own.
    pub credentials: Option<(String, Secret)>,
}
