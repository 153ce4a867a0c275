//! Judges the certificates of other servers, by what their domain asks for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::dane::Associations;
use super::shown::Shown;

/// A verifier for rustls. Whatever else it asks for, the server must hold the key of the
/// certificate that it shows.
#[derive(Debug)]
pub struct Verifier {
    asks_for: AsksFor,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum AsksFor {
    /// A path to one of these authorities, and the name of the server.
    Authority(Arc<RootCertStore>),
    /// What TLSA records say.
    Association(Associations),
}

impl Verifier {
    /// Verifies as web browsers do (RFC 8461 §4.1): a valid path to an authority, and the server's
    /// name in the certificate.
    pub fn web_pki(authorities: Arc<RootCertStore>) -> Arc<Self> {
        Self::new(AsksFor::Authority(authorities))
    }

    /// Verifies against TLSA records (RFC 7672 §3).
    pub(super) fn dane(associations: Associations) -> Arc<Self> {
        Self::new(AsksFor::Association(associations))
    }

    fn new(asks_for: AsksFor) -> Arc<Self> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Self { asks_for, algorithms })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = &self.algorithms;
        let shown = Shown { end_entity, intermediates, now, algorithms };
        match &self.asks_for {
            AsksFor::Authority(roots) => shown.verify_path(roots, [server_name])?,
            AsksFor::Association(associations) => associations.verify(&shown)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
