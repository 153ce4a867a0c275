//! The client's side of TLS: what is demanded of a server's certificate. Versions 1.2 and 1.3.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::settings::Endpoint;

/// How much TLS a server must offer.
#[derive(Clone, Debug)]
pub enum TlsDemand {
    /// STARTTLS where it is offered, with any certificate, and plain text where it is not or where
    /// the handshake fails (RFC 7435). A login is never sent in plain text.
    Opportunistic,
    /// A certificate that the verifier accepts for this name, which is sent in SNI, or no mail:
    /// [`Roots::verifier`] for MTA-STS (RFC 8461 §4.1) and gateways, a verifier of TLSA records for
    /// DANE (RFC 7672), [`any_certificate`] where there must be TLS with whomever.
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
                let config = Arc::clone(OPPORTUNISTIC.as_ref().map_err(Error::clone)?);
                // An address sends no SNI, which is right for a name that cannot be sent.
                let name = ServerName::try_from(endpoint.name.clone())
                    .unwrap_or_else(|_| ServerName::from(endpoint.address.ip()));
                Ok((config, name))
            }
            Self::Verified(verifier, name) => {
                let name = ServerName::try_from(name.clone()).map_err(|_| {
                    Error::General(format!("no certificate can have the name \"{name}\""))
                })?;
                Ok((Arc::new(config(Arc::clone(verifier))?), name))
            }
        }
    }
}

/// One for all, so that sessions are resumed.
static OPPORTUNISTIC: LazyLock<Result<Arc<ClientConfig>, Error>> =
    LazyLock::new(|| config(any_certificate()).map(Arc::new));

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Certificates whose word is taken for others.
#[derive(Clone, Debug)]
pub struct Roots(Arc<WebPkiServerVerifier>);

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read, or holds no certificate in PEM format.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system has no certificates where they are looked for; its words.
    #[error("the system has no trusted certificates (ca-certificates, SSL_CERT_FILE): {0}")]
    System(String),
    /// A fault in setting TLS up.
    #[error("cannot set TLS up: {0}")]
    Setup(String),
}

impl Roots {
    /// The system's roots (`ca-certificates`, or `SSL_CERT_FILE` and `SSL_CERT_DIR`), and those
    /// in a PEM file. Reads files, so it is for the start and for reloads.
    ///
    /// # Errors
    /// [`RootsError::System`] where the system has none and no file is given;
    /// [`RootsError::File`] for a bad file.
    pub fn system(more: Option<&Path>) -> Result<Self, RootsError> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() && more.is_none() {
            let problem = found.errors.first().map_or_else(String::new, ToString::to_string);
            return Err(RootsError::System(problem));
        }
        let mut store = RootCertStore::empty();
        // Some systems carry old roots that no longer parse; nothing depends on those.
        store.add_parsable_certificates(found.certs);
        if let Some(path) = more {
            add_file(&mut store, path)?;
        }
        Self::of(store)
    }

    /// Those in a PEM file and no others.
    ///
    /// # Errors
    /// [`RootsError::File`]
    pub fn file(path: &Path) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        add_file(&mut store, path)?;
        Self::of(store)
    }

    /// Accepts certificates that lead to one of these.
    pub fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        Arc::clone(&self.0) as Arc<dyn ServerCertVerifier>
    }

    fn of(store: RootCertStore) -> Result<Self, RootsError> {
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map(Self)
            .map_err(|error| RootsError::Setup(error.to_string()))
    }
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let bad = |problem: String| RootsError::File { path: path.to_owned(), problem };
    let pem = std::fs::read(path).map_err(|error: io::Error| bad(error.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(format!("{error:?}")))?;
        store.add(certificate).map_err(|error| bad(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(bad("holds no certificate in PEM format".to_owned())) } else { Ok(()) }
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
