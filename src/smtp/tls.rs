//! The server's side of TLS: versions 1.2 and 1.3, the certificate's files, and their replacement
//! while the daemon runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{
    Certificate, CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CommonState, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::not_pem::{self, Wanted};
use super::settings::TlsSettings;
use super::stop::stopped;
use crate::files::read_regular;
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
    #[error("{} with {}: {problem}", certificate.display(), private_key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
        /// What is wrong with them.
        problem: String,
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
        Self::with(files, Current { pair: ArcSwap::from_pointee(pair), rsa: None }, provider)
    }

    fn with(
        files: TlsSettings,
        current: Current,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let current = Arc::new(current);
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
    /// For those that know RSA only there is a second pair, made when the first of them comes.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be written, or that is there and wrong.
    pub fn self_signed(directory: &Path, hostname: &Domain) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made =
            |kind| SelfMade { directory: directory.to_owned(), hostname: hostname.clone(), kind };
        let ecdsa = made(Kind::Ecdsa);
        let pair = ecdsa.pair(&provider)?;
        let rsa = LazyPair { made: made(Kind::Rsa), pair: OnceLock::new() };
        let current = Current { pair: ArcSwap::from_pointee(pair), rsa: Some(rsa) };
        Self::with(ecdsa.files(), current, provider)
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
            Ok(pair) if self.is_another(&pair) => self.take(pair),
            // A reload was faster, or the file was written anew with what it had.
            Ok(_) => {}
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

    /// Whether a pair has another certificate than the one that is served.
    pub fn is_another(&self, ServerPair(pair): &ServerPair) -> bool {
        self.current.pair.load().cert != pair.cert
    }

    /// Serves a pair from now on.
    pub fn take(&self, ServerPair(pair): ServerPair) {
        self.current.pair.store(Arc::new(pair));
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
struct Current {
    pair: ArcSwap<CertifiedKey>,
    /// Beside a self-made pair, for peers that cannot use that one.
    rsa: Option<LazyPair>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.load_full();
        // rustls has left out the schemes that go with none of the peer's cipher suites.
        if let Some(rsa) = &self.rsa
            && pair.key.choose_scheme(hello.signature_schemes()).is_none()
        {
            return rsa.get().or(Some(pair));
        }
        Some(pair)
    }
}

/// A pair that is read or made when it is needed first: an RSA key takes a tenth of a second and
/// more, and most servers never meet a peer that needs one.
#[derive(Debug)]
struct LazyPair {
    made: SelfMade,
    pair: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl LazyPair {
    fn get(&self) -> Option<Arc<CertifiedKey>> {
        if let Some(pair) = self.pair.get() {
            return pair.clone();
        }
        let find = || self.pair.get_or_init(|| self.find()).clone();
        match Handle::try_current() {
            // Other connections go on meanwhile.
            Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(find)
            }
            Ok(_) | Err(_) => find(),
        }
    }

    fn find(&self) -> Option<Arc<CertifiedKey>> {
        match self.made.pair(&rustls::crypto::aws_lc_rs::default_provider()) {
            Ok(pair) => Some(Arc::new(pair)),
            Err(error) => {
                tracing::error!(%error, "there is no certificate for peers that know RSA only");
                None
            }
        }
    }
}

fn load_pair(files: &TlsSettings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let text = read(&files.certificate)?;
    let unread = |problem| TlsError::Pem { path: files.certificate.clone(), problem };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unread(pem_problem(Wanted::Certificate, &text, &error)))?;
    if chain.is_empty() {
        return Err(unread(not_pem::told(Wanted::Certificate, &text)));
    }
    let text = read(&files.private_key)?;
    let unread = |problem| TlsError::Pem { path: files.private_key.clone(), problem };
    if not_pem::is_encrypted(&text) {
        return Err(unread(not_pem::told(Wanted::PrivateKey, &text)));
    }
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| unread(pem_problem(Wanted::PrivateKey, &text, &error)))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Pair {
        certificate: files.certificate.clone(),
        private_key: files.private_key.clone(),
        problem: pair_problem(&error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_regular(path).map_err(|error| TlsError::File { path: path.to_owned(), error })
}

fn pem_problem(kind: Wanted, text: &[u8], error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => not_pem::told(kind, text),
        error => format!("cannot be read: {error:?}"),
    }
}

fn pair_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key is not that of the first certificate in the file, which has to be this host's; \
             those that lead from it to an authority come after it"
                .to_owned()
        }
        // rustls says no more of a key than that it cannot take it.
        rustls::Error::General(said) => format!(
            "{said}; a key is RSA with 2048 to 8192 bits, ECDSA with P-256, P-384 or P-521, or Ed25519"
        ),
        other => other.to_string(),
    }
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

/// The keys of self-made pairs.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// With P-256: small, fast, and known to nearly everybody.
    Ecdsa,
    /// With 2048 bits.
    Rsa,
}

/// A self-signed pair that is kept in a folder.
#[derive(Debug)]
struct SelfMade {
    directory: PathBuf,
    hostname: Domain,
    kind: Kind,
}

impl SelfMade {
    fn files(&self) -> TlsSettings {
        let prefix = match self.kind {
            Kind::Ecdsa => "",
            Kind::Rsa => "rsa_",
        };
        TlsSettings {
            certificate: self.directory.join(format!("{prefix}certificate.pem")),
            private_key: self.directory.join(format!("{prefix}private_key.pem")),
        }
    }

    /// The pair in its files, or a new one.
    fn pair(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let files = self.files();
        if files.certificate.exists() && files.private_key.exists() {
            match load_pair(&files, provider) {
                Ok(pair) => return Ok(pair),
                // A power cut may have left them empty, and nobody else has a copy to miss.
                Err(error) => tracing::warn!(%error, "a new self-signed certificate is made"),
            }
        }
        self.write(&files)?;
        load_pair(&files, provider)
    }

    fn make(&self) -> Result<(Certificate, KeyPair), rcgen::Error> {
        let key = match self.kind {
            Kind::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Kind::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let name = self.hostname.as_str().trim_matches(['[', ']']).to_owned();
        let certificate = CertificateParams::new(vec![name])?.self_signed(&key)?;
        Ok((certificate, key))
    }

    /// The key comes last: a pair of which only the certificate was written is made anew.
    fn write(&self, files: &TlsSettings) -> Result<(), TlsError> {
        let (certificate, key) = self.make().map_err(|error| TlsError::Setup(error.to_string()))?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            |error| TlsError::File { path, error }
        };
        let directory = &self.directory;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        fs::write(&files.certificate, certificate.pem()).map_err(failed(&files.certificate))?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&files.private_key)
            .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
            .map_err(failed(&files.private_key))?;
        let path = files.private_key.display();
        tracing::info!(%path, hostname = %self.hostname, "a self-signed pair is made");
        Ok(())
    }
}
