//! Addresses and networks as configuration has them, with errors that say what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// An IP address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(pub(super) SocketAddr);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let without_brackets = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = without_brackets.parse::<IpAddr>() {
            return Err(format!("has no port, such as 25 in {}", SocketAddr::from((ip, 25))));
        }
        if let Some(("" | "*", port)) = text.split_once(':')
            && port.parse::<u16>().is_ok()
        {
            let everywhere =
                format!("0.0.0.0:{port} is every IPv4 address, [::]:{port} every IPv6");
            return Err(format!("has no IP address; {everywhere}"));
        }
        Err("is not an IP address and a port, such as 127.0.0.1:25 or [::1]:25".to_owned())
    }
}

/// The IP address of a name server, with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameServer(pub(super) SocketAddr);

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let without_brackets = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = without_brackets.parse::<IpAddr>() {
            return Err(format!("has no port, such as 53 in {}", SocketAddr::from((ip, 53))));
        }
        let address = text.parse().map(Self);
        address.map_err(|_| "is not an IP address and a port, such as 127.0.0.53:53".to_owned())
    }
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(network) = text.parse() {
            return Ok(Self(network));
        }
        let one_address = text.parse::<IpAddr>().map(|ip| Self(ip.into()));
        one_address.map_err(|_| {
            "is not a network, such as 192.0.2.0/24 or 2001:db8::/32, nor an IP address".to_owned()
        })
    }
}

/// The port that the well-known scanners listen on.
const USUAL_SCANNER_PORT: u16 = 11333;

/// A host, by name or IP address, with a port, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostAndPort(pub(super) String);

impl FromStr for HostAndPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        if text.contains("://") {
            return Err("is not a URL: write the host and the port alone".to_owned());
        }
        let without_brackets = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = without_brackets.parse::<IpAddr>() {
            let whole = SocketAddr::from((ip, USUAL_SCANNER_PORT));
            return Err(format!("has no port, such as {USUAL_SCANNER_PORT} in {whole}"));
        }
        let Some((host, port)) = text.split_once(':') else {
            return Err(format!(
                "has no port, such as {USUAL_SCANNER_PORT} in {text}:{USUAL_SCANNER_PORT}"
            ));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(format!("\"{host}\" is neither the name of a host nor an IP address"));
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(Self(text.to_owned())),
            Ok(0) | Err(_) => Err(format!("\"{port}\" is not a port between 1 and 65535")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a text that cannot be read; empty where it can.
    fn said<T: FromStr<Err = String>>(text: &str) -> String {
        text.parse::<T>().err().unwrap_or_default()
    }

    #[test]
    fn an_endpoint_says_what_it_lacks() {
        for text in ["127.0.0.1:25", "[::1]:2525", "0.0.0.0:0"] {
            assert_eq!(said::<Endpoint>(text), "", "{text}");
        }
        for (text, expected) in [
            ("127.0.0.1", "has no port, such as 25 in 127.0.0.1:25"),
            ("::1", "has no port, such as 25 in [::1]:25"),
            ("[::1]", "has no port, such as 25 in [::1]:25"),
            (":25", "has no IP address; 0.0.0.0:25 is every IPv4 address, [::]:25 every IPv6"),
            ("*:25", "has no IP address; 0.0.0.0:25 is every IPv4 address, [::]:25 every IPv6"),
            ("mx.example.test:25", "is not an IP address and a port"),
            ("127.0.0.1:smtp", "is not an IP address and a port"),
            ("", "is not an IP address and a port"),
        ] {
            assert!(
                said::<Endpoint>(text).starts_with(expected),
                "{text}: {}",
                said::<Endpoint>(text)
            );
        }
    }

    #[test]
    fn one_address_is_a_network() {
        let read = |text: &str| text.parse::<Network>().map(|network| network.0.to_string());
        assert_eq!(read("192.0.2.1").as_deref(), Ok("192.0.2.1/32"));
        assert_eq!(read("2001:db8::1").as_deref(), Ok("2001:db8::1/128"));
        assert_eq!(read("192.0.2.0/24").as_deref(), Ok("192.0.2.0/24"));
        for text in ["10.0.0.0/40", "192.0.2", "localhost", ""] {
            assert!(said::<Network>(text).starts_with("is not a network"), "{text}");
        }
    }

    #[test]
    fn a_scanner_has_a_host_and_a_port() {
        for text in ["127.0.0.1:11333", "[::1]:783", "rspamd:11333", "scan_1.example.test:1"] {
            assert_eq!(said::<HostAndPort>(text), "", "{text}");
        }
        for (text, expected) in [
            ("rspamd", "has no port, such as 11333 in rspamd:11333"),
            ("127.0.0.1", "has no port, such as 11333 in 127.0.0.1:11333"),
            ("::1", "has no port, such as 11333 in [::1]:11333"),
            ("http://rspamd:11333", "is not a URL: write the host and the port alone"),
            ("rspamd:0", "\"0\" is not a port between 1 and 65535"),
            ("rspamd:", "\"\" is not a port between 1 and 65535"),
            ("rspamd:99999", "\"99999\" is not a port between 1 and 65535"),
            (":11333", "\"\" is neither the name of a host nor an IP address"),
            ("two words:1", "\"two words\" is neither the name of a host nor an IP address"),
        ] {
            assert_eq!(said::<HostAndPort>(text), expected, "{text}");
        }
    }
}
