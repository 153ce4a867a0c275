//! Certificate authorities that an operator names.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

/// Why a file names no certificate authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// A PEM block is broken.
    #[error("is not PEM: {0}")]
    Pem(pem::Error),
    /// There is none.
    #[error("has no certificate")]
    Empty,
    /// A block is not a certificate.
    #[error("has something that is not a certificate: {0}")]
    Certificate(rustls::Error),
}

/// The certificates of PEM text, at least one, each fit to be a trust anchor.
///
/// # Errors
/// [`AuthoritiesError`], worded to follow the file's name.
pub fn certificate_authorities(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, AuthoritiesError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(AuthoritiesError::Pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(AuthoritiesError::Certificate)?;
    }
    if certificates.is_empty() { Err(AuthoritiesError::Empty) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pem: &[u8], expected: Result<usize, &str>) {
        let found = certificate_authorities(pem).map(|certificates| certificates.len());
        let found = found.map_err(|error| error.to_string());
        match expected {
            Ok(count) => assert_eq!(found, Ok(count)),
            Err(start) => {
                assert!(found.as_ref().is_err_and(|told| told.starts_with(start)), "{found:?}");
            }
        }
    }

    #[test]
    fn authorities_are_certificates() {
        let made = rcgen::generate_simple_self_signed(vec!["ca.test".into()]).expect("a pair");
        let pem = made.cert.pem();
        check(pem.as_bytes(), Ok(1));
        check(format!("a comment\n{pem}{pem}").as_bytes(), Ok(2));
        check(b"", Err("has no certificate"));
        check(made.signing_key.serialize_pem().as_bytes(), Err("has no certificate"));
        let cut = pem.replace("-----END CERTIFICATE-----", "");
        check(cut.as_bytes(), Err("is not PEM"));
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(other.as_bytes(), Err("has something that is not a certificate"));
    }
}
