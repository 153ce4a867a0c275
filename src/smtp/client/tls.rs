//! The client's side of TLS: what is demanded of a server's certificate. Versions 1.2 and 1.3.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::settings::Endpoint;

/// How much TLS a server must offer.
#[derive(Clone, Debug)]
pub enum TlsDemand {
    /// STARTTLS where it is offered, with any certificate, and plain text where it is not or where
    /// the handshake fails (RFC 7435). A login is never sent in plain text.
    Opportunistic,
    /// A certificate that the verifier accepts for this name, which is sent in SNI, or no mail:
    /// for gateways, MTA-STS (RFC 8461 §4.1) and DANE (RFC 7672).
    Verified(Arc<dyn ServerCertVerifier>, String),
}

impl TlsDemand {
    /// Whether mail may go in plain text.
    pub(super) fn is_opportunistic(&self) -> bool {
        matches!(self, Self::Opportunistic)
    }

    /// The settings of the handshake, and the name for SNI.
    pub(super) fn handshake(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), Error> {
        match self {
            Self::Opportunistic => {
                // An address sends no SNI, which is right for a name that cannot be sent.
                let name = ServerName::try_from(endpoint.name.clone())
                    .unwrap_or_else(|_| ServerName::from(endpoint.address.ip()));
                Ok((Arc::clone(&OPPORTUNISTIC), name))
            }
            Self::Verified(verifier, name) => {
                let name = ServerName::try_from(name.clone()).map_err(|_| {
                    Error::General(format!("no certificate can have the name \"{name}\""))
                })?;
                Ok((Arc::new(client_config(Arc::clone(verifier))), name))
            }
        }
    }
}

/// One for all, so that sessions are resumed.
static OPPORTUNISTIC: LazyLock<Arc<ClientConfig>> =
    LazyLock::new(|| Arc::new(client_config(any_certificate())));

/// TLS 1.3 or 1.2, with a server whose certificate the verifier accepts.
pub fn client_config(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has cipher suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Accepts whatever certificate the server has the key of.
pub fn any_certificate() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyCertificate(provider()))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
