//! What a certificate says of itself: for whom it is, and when it is valid.

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Timestamp;

/// A server's own certificate, the first of its chain.
#[derive(Debug)]
pub struct ServerCertificate {
    der: CertificateDer<'static>,
    /// The names that it is for, as its subject alternative names have them (RFC 9525 §6.3).
    pub names: Vec<String>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// When it ceases to be.
    pub not_after: Timestamp,
}

impl ServerCertificate {
    /// Reads the first certificate of a PEM file's octets.
    ///
    /// # Errors
    /// Why there is none that can be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem)
            .map_err(|error| format!("holds no certificate in PEM format: {error:?}"))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let not_before = timestamp(parsed.validity().not_before.timestamp());
        let not_after = timestamp(parsed.validity().not_after.timestamp());
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let listed = alternative.iter().flat_map(|extension| &extension.value.general_names);
        let names = listed.filter_map(name_of).collect();
        Ok(Self { names, not_before, not_after, der: der.into_owned() })
    }

    /// Whether a client that asked for `hostname` takes it for this server's.
    pub fn is_for(&self, hostname: &str) -> bool {
        let hostname = hostname.trim_matches(['[', ']']);
        let Ok(name) = ServerName::try_from(hostname) else { return false };
        let parsed = ParsedCertificate::try_from(&self.der);
        parsed.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    }
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(octets).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> ServerCertificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).expect("names");
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(2026, 3, 4);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("signs");
        ServerCertificate::from_pem(certificate.pem().as_bytes()).expect("reads")
    }

    #[test]
    fn a_certificate_says_for_whom_and_when() {
        let certificate = made(&["mx.example.test", "*.wild.test", "192.0.2.1"]);
        assert_eq!(certificate.names, ["mx.example.test", "*.wild.test", "192.0.2.1"]);
        assert_eq!(certificate.not_before.as_secs(), 1_767_312_000);
        assert_eq!(certificate.not_after.as_secs(), 1_772_582_400);
        for (hostname, expected) in [
            ("mx.example.test", true),
            ("MX.Example.Test", true),
            ("a.wild.test", true),
            ("[192.0.2.1]", true),
            ("example.test", false),
            ("a.b.wild.test", false),
            ("192.0.2.2", false),
            ("", false),
        ] {
            assert_eq!(certificate.is_for(hostname), expected, "{hostname}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(ServerCertificate::from_pem(b"").is_err());
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = ServerCertificate::from_pem(broken).expect_err("no certificate");
        assert!(error.starts_with("the certificate cannot be read"), "{error}");
    }
}
