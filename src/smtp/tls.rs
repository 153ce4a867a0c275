//! The server's side of TLS: versions 1.2 and 1.3, the certificate's files, and their replacement
//! while the daemon runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CommonState, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::listener::stopped;
use super::settings::TlsSettings;
use crate::mail::Domain;

/// How often the certificate's files are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The file has no PEM block of the kind that is needed, or a broken one.
    #[error("{}: {problem}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of an unsupported kind.
    #[error("{} with {}: {error}", certificate.display(), private_key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
        /// What is wrong with them.
        error: rustls::Error,
    },
    /// A fault in making the self-signed pair or in setting TLS up.
    #[error("cannot set TLS up: {0}")]
    Setup(String),
}

/// TLS with the present certificate, shared by all listeners.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    files: TlsSettings,
    current: Arc<Current>,
}

impl Tls {
    /// TLS with the pair in the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that is missing or wrong.
    pub fn load(files: TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pair = load_pair(&files, &provider)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(setup)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), files, current })
    }

    /// TLS with the self-signed pair in `directory`, which is made if it is not there. Other
    /// MTAs accept it, for they do not verify certificates unless DANE or MTA-STS asks for it.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be written, or that is there and wrong.
    pub fn self_signed(directory: &Path, hostname: &Domain) -> Result<Self, TlsError> {
        let files = TlsSettings {
            certificate: directory.join("certificate.pem"),
            private_key: directory.join("private_key.pem"),
        };
        if files.certificate.exists() && files.private_key.exists() {
            match Self::load(files.clone()) {
                Ok(tls) => return Ok(tls),
                // A power cut may have left them empty, and nobody else has a copy to miss.
                Err(error) => tracing::warn!(%error, "a new self-signed certificate is made"),
            }
        }
        write_self_signed(directory, &files, hostname)?;
        Self::load(files)
    }

    /// Looks at the files every `interval` and takes a changed pair into use; a bad one is logged
    /// and the present one stays. Ends when `stop` becomes true.
    pub async fn watch(self, interval: Duration, mut stop: watch::Receiver<bool>) {
        let mut seen = stamps(self.files.clone()).await;
        loop {
            tokio::select! {
                // Cancelling a timer or a wait for a flag loses nothing.
                () = tokio::time::sleep(interval) => {}
                () = stopped(&mut stop) => return,
            }
            let now = stamps(self.files.clone()).await;
            if now != seen {
                seen = now;
                self.reload().await;
            }
        }
    }

    /// Takes the pair that is now in the files into use, or logs why not.
    async fn reload(&self) {
        match self.read_again().await {
            Ok(pair) => self.take(pair),
            Err(error) => tracing::error!(%error, "the present certificate stays in use"),
        }
    }

    /// The pair that is now in the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that is missing or wrong.
    pub async fn read_again(&self) -> Result<ServerPair, TlsError> {
        let files = self.files.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            load_pair(&files, &rustls::crypto::aws_lc_rs::default_provider())
        });
        let pair = loaded.await.map_err(|panic| TlsError::Setup(panic.to_string()))??;
        Ok(ServerPair(pair))
    }

    /// Serves a pair from now on.
    pub fn take(&self, ServerPair(pair): ServerPair) {
        self.current.0.store(Arc::new(pair));
        tracing::info!(certificate = %self.files.certificate.display(), "certificate loaded");
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// A certificate with its key, read and found to belong together.
#[derive(Debug)]
pub struct ServerPair(CertifiedKey);

/// Protocol version and cipher suite, as in `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
pub(crate) fn description(connection: &CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    match connection.negotiated_cipher_suite() {
        Some(suite) => format!("{version} {:?}", suite.suite()),
        None => version.to_owned(),
    }
}

/// The pair in use. One certificate serves every name, so SNI is not asked.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn load_pair(files: &TlsSettings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = read(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(&files.certificate, "certificate", &error))?;
    if chain.is_empty() {
        return Err(pem_error(&files.certificate, "certificate", &pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.private_key)?)
        .map_err(|error| pem_error(&files.private_key, "private key", &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Pair {
        certificate: files.certificate.clone(),
        private_key: files.private_key.clone(),
        error,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), error })
}

fn pem_error(path: &Path, kind: &str, error: &pem::Error) -> TlsError {
    let problem = match error {
        pem::Error::NoItemsFound => format!("holds no {kind} in PEM format"),
        error => format!("the {kind} cannot be read: {error:?}"),
    };
    TlsError::Pem { path: path.to_owned(), problem }
}

/// What changes when a file is replaced: its modification time and its size.
type Stamp = Option<(SystemTime, u64)>;

async fn stamps(files: TlsSettings) -> [Stamp; 2] {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    tokio::task::spawn_blocking(move || [stamp(&files.certificate), stamp(&files.private_key)])
        .await
        .unwrap_or_default()
}

/// The key comes last: a pair of which only the certificate was written is made anew.
fn write_self_signed(
    directory: &Path,
    files: &TlsSettings,
    hostname: &Domain,
) -> Result<(), TlsError> {
    let names = vec![hostname.as_str().trim_matches(['[', ']']).to_owned()];
    let pair = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        |error| TlsError::File { path, error }
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    fs::write(&files.certificate, pair.cert.pem()).map_err(failed(&files.certificate))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&files.private_key)
        .and_then(|mut file| file.write_all(pair.signing_key.serialize_pem().as_bytes()))
        .map_err(failed(&files.private_key))
}
