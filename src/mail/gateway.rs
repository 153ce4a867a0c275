//! An SMTP gateway: where mail goes for which an outbound rule says so (guide 3648–3681).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{AddressError, Domain, Secret};

/// An organization's SMTP gateway. It is spoken to over TLS 1.2 or later only, and its certificate
/// is verified for its host (guide 3656).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Unique in the organization; outbound rules name it.
    pub name: Arc<str>,
    /// Where it is, and what its certificate is for.
    pub host: GatewayHost,
    /// Its TCP port.
    pub port: u16,
    /// Whether TLS begins with the connection (RFC 8314 §3), not with STARTTLS.
    pub implicit_tls: bool,
    /// What it is logged in to with, if it asks for that.
    pub login: Option<GatewayLogin>,
    /// The authorities that its certificate may come from, at least one; `None` stands for the
    /// public ones.
    pub authorities: Option<Arc<[CertificateDer<'static>]>>,
}

/// A gateway's name in DNS, or its address. No MX records are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GatewayHost {
    /// A host name.
    Name(Domain),
    /// An IP address.
    Address(IpAddr),
}

/// An IP address, with or without the brackets of an address literal, or else a host name.
impl FromStr for GatewayHost {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let name = Domain::parse(text)?;
        // What ends in a number is an address that cannot be read, as `300.1.1.1`.
        let last = name.as_str().rsplit('.').next().unwrap_or_default();
        if name.is_literal() || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Domain(text.to_owned()));
        }
        Ok(Self::Name(name))
    }
}

impl TryFrom<String> for GatewayHost {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GatewayHost> for String {
    fn from(host: GatewayHost) -> Self {
        host.to_string()
    }
}

impl fmt::Display for GatewayHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// A user name and a password: the "basic authentication" of guide 3656.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLogin {
    /// The user name.
    pub user_name: String,
    /// The password.
    pub password: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let check = |text: &str, expected: Option<&str>| {
            let host = GatewayHost::from_str(text).ok();
            assert_eq!(host.map(|host| host.to_string()).as_deref(), expected, "{text}");
        };
        check("Filter.Example.test", Some("filter.example.test"));
        check("bücher.test", Some("xn--bcher-kva.test"));
        check("filter1", Some("filter1"));
        check("127.0.0.1", Some("127.0.0.1"));
        check("[127.0.0.1]", Some("127.0.0.1"));
        check("2001:DB8::1", Some("2001:db8::1"));
        check("[::1]", Some("::1"));
        for bad in ["", "a b", "300.1.1.1", "10.1", "[IPv6:::1]", "filter:25", "https://x.test"] {
            check(bad, None);
        }
        assert_eq!(
            GatewayHost::from_str("::1"),
            Ok(GatewayHost::Address("::1".parse().expect("one")))
        );
    }
}
