//! The PROXY protocol's header (versions 1 and 2): the client's address as a trusted proxy says
//! it, before the first byte of SMTP.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// The longest header: version 1 has at most 107 octets, version 2 as many as fit its TLVs, of
/// which real proxies send a few hundred.
pub(crate) const MAX_HEADER: usize = 2048;
/// The longest version 1 header, with its CR LF.
const MAX_V1: usize = 107;
/// What begins a version 1 header.
const V1_PREFIX: &[u8] = b"PROXY ";
/// What begins a version 2 header.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// A version 2 header's length without addresses and TLVs.
const V2_FIXED: usize = 16;

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Not all of a header yet.
    Incomplete,
    /// No header, or one that cannot be read.
    Invalid,
    /// A header of so many octets.
    Complete {
        /// Its length in octets.
        length: usize,
        /// Who the client is; `None` where the proxy speaks for itself (LOCAL, UNKNOWN).
        client: Option<SocketAddr>,
    },
}

/// Reads a header from the front of `input`.
pub(crate) fn parse(input: &[u8]) -> Header {
    let signature = V2_SIGNATURE.get(..input.len()).unwrap_or(V2_SIGNATURE);
    if input.starts_with(signature) { parse_v2(input) } else { parse_v1(input) }
}

fn parse_v1(input: &[u8]) -> Header {
    let prefix = V1_PREFIX.get(..input.len()).unwrap_or(V1_PREFIX);
    // The crate reads whole lines only, and nothing that follows them.
    let line = match memchr::memchr(b'\n', input) {
        Some(end) => input.get(..=end).unwrap_or_default(),
        None if input.starts_with(prefix) && input.len() < MAX_V1 => return Header::Incomplete,
        None => return Header::Invalid,
    };
    // The crate also takes a space for the CR.
    if !line.ends_with(b"\r\n") {
        return Header::Invalid;
    }
    let parsed = v1::Header::try_from(line);
    let client = match parsed.map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(ip)) => Some((IpAddr::V4(ip.source_address), ip.source_port)),
        Ok(v1::Addresses::Tcp6(ip)) => Some((IpAddr::V6(ip.source_address), ip.source_port)),
        Ok(v1::Addresses::Unknown) => None,
        Err(_) => return Header::Invalid,
    };
    Header::Complete { length: line.len(), client: client.map(SocketAddr::from) }
}

fn parse_v2(input: &[u8]) -> Header {
    let Some(&[high, low]) = input.get(V2_FIXED - 2..V2_FIXED) else {
        return Header::Incomplete;
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER {
        return Header::Invalid;
    }
    let Some(header) = input.get(..length) else {
        return Header::Incomplete;
    };
    let Ok(header) = v2::Header::try_from(header) else {
        return Header::Invalid;
    };
    let client = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, _) if header.protocol == v2::Protocol::Datagram => {
            return Header::Invalid;
        }
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Some((IpAddr::V4(ip.source_address), ip.source_port))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Some((IpAddr::V6(ip.source_address), ip.source_port))
        }
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    Header::Complete { length, client: client.map(SocketAddr::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(addresses.len()).expect("short").to_be_bytes());
        header.extend(addresses);
        header
    }

    /// Every beginning of a header is incomplete, and what follows it is not a part of it.
    fn check(header: &[u8], client: Option<&str>) {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Header::Incomplete, "{end} of {header:?}");
        }
        let client = client.map(|text| text.parse().expect("valid"));
        let complete = Header::Complete { length: header.len(), client };
        assert_eq!(parse(header), complete);
        for after in ["EHLO x\r\n", "\r\n", "\u{e9}\0"] {
            assert_eq!(parse(&[header, after.as_bytes()].concat()), complete);
        }
    }

    #[test]
    fn reads_both_versions() {
        check(b"PROXY TCP4 192.0.2.7 127.0.0.1 45000 25\r\n", Some("192.0.2.7:45000"));
        check(b"PROXY TCP6 2001:db8::7 ::1 45000 25\r\n", Some("[2001:db8::7]:45000"));
        check(b"PROXY UNKNOWN\r\n", None);
        let four = [192, 0, 2, 7, 127, 0, 0, 1, 0xaf, 0xc8, 0, 25];
        check(&v2(1, 0x11, &four), Some("192.0.2.7:45000"));
        let with_tlv = [&four[..], &[0x04, 0, 2, 0, 0]].concat();
        check(&v2(1, 0x11, &with_tlv), Some("192.0.2.7:45000"));
        check(&v2(0, 0x00, &[]), None);
        check(&v2(1, 0x00, &[]), None);
    }

    #[test]
    fn refuses_what_is_not_a_header() {
        let too_long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
        let mut huge = v2(1, 0x11, &[]);
        huge.truncate(14);
        huge.extend([0xff, 0xff]);
        for bad in [
            b"EHLO client.test\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.300 127.0.0.1 45000 25\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 45000 25\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 45000 25 \n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 99999 25\r\n",
            b"PROXY\r\n",
            b"\x16\x03\x01\x00",
            &too_long,
            &huge,
            &v2(5, 0x11, &[0; 12]),
            &v2(1, 0x12, &[0; 12]),
            &v2(1, 0x11, &[0; 4]),
        ] {
            assert_eq!(parse(bad), Header::Invalid, "{bad:?}");
        }
    }
}
