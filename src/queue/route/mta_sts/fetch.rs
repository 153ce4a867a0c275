//! Fetching a policy over HTTPS (RFC 8461 §3.3).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::networks::{Networks, is_of_one_host};
use super::super::verifier::Verifier;
use super::policy::{Policy, PolicyError};
use crate::dns::{RecordData, RecordType, Resolver, lookup_all};
use crate::mail::Domain;
use crate::smtp::client::client_config;

/// Where policies are (RFC 8461 §3.3).
pub const HTTPS_PORT: u16 = 443;
/// RFC 8461 §3.3 suggests this bound.
const MAX_POLICY_OCTETS: usize = 64 * 1024;
/// Octets of an answer's status line and header.
const MAX_HEADER_OCTETS: usize = 16 * 1024;
/// Addresses of the policy host that are tried.
const MAX_ADDRESSES: usize = 4;
/// For one of them to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no policy where one should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The policy host has no address that can be connected to.
    #[error("{0}")]
    Connect(String),
    /// All addresses of the policy host are of networks that are not everybody's: a domain's DNS
    /// must not make this server speak to those behind its back.
    #[error(
        "{0} is in a private network, where this server asks nothing unless [queue] private_networks allows it"
    )]
    PrivateNetwork(String),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// RFC 8461 §3.3: a redirect is not followed.
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer is not text/plain")]
    MediaType,
    #[error("the answer is longer than {MAX_POLICY_OCTETS} octets")]
    TooLong,
    #[error("the answer is not UTF-8")]
    Encoding,
    #[error("the policy is not valid: {0}")]
    Policy(#[from] PolicyError),
    #[error("there is no answer in time")]
    Late,
}

/// Fetches policies.
pub struct Fetcher {
    tls: TlsConnector,
    verifier: Arc<Verifier>,
    port: u16,
    networks: Networks,
}

impl Fetcher {
    /// A fetcher that trusts these authorities and asks at this port, [`HTTPS_PORT`] in earnest, of
    /// hosts in these networks.
    pub fn new(authorities: Arc<RootCertStore>, port: u16, networks: Networks) -> Self {
        let verifier = Verifier::web_pki(authorities);
        let mut config = client_config(Arc::clone(&verifier) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(config)), verifier, port, networks }
    }

    pub(super) fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier)
    }

    /// The present policy of a domain.
    pub(super) async fn fetch(
        &self,
        domain: &Domain,
        resolver: &dyn Resolver,
        deadline: Instant,
    ) -> Result<Policy, FetchError> {
        let fetched = tokio::time::timeout_at(deadline, async {
            let host = format!("mta-sts.{domain}");
            let addresses = self.addresses(&host, resolver, deadline).await?;
            let stream = self.connect(&host, &addresses).await?;
            Ok(Policy::parse(&get(&host, stream).await?)?)
        });
        fetched.await.unwrap_or(Err(FetchError::Late))
    }

    async fn addresses(
        &self,
        host: &str,
        resolver: &dyn Resolver,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, FetchError> {
        let questions = [(host, RecordType::Aaaa), (host, RecordType::A)];
        let results = lookup_all(resolver, &questions, deadline).await;
        let mut found = Vec::new();
        let mut is_refused = false;
        for answer in results.iter().flatten() {
            // Both kinds, so that one of them not being reachable does no harm.
            let mut left = MAX_ADDRESSES / 2;
            for address in answer.records.iter().filter_map(ip) {
                if !is_of_one_host(address) || !self.networks.have(address) {
                    is_refused = true;
                } else if left > 0 {
                    found.push(address);
                    left -= 1;
                }
            }
        }
        if found.is_empty() && is_refused {
            return Err(FetchError::PrivateNetwork(host.to_owned()));
        }
        Ok(found)
    }

    async fn connect(
        &self,
        host: &str,
        addresses: &[IpAddr],
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FetchError::Connect(format!("{host} is not a host name")))?;
        let mut failure = format!("{host} has no address");
        for address in addresses {
            let address = SocketAddr::new(*address, self.port);
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    return self.tls.connect(name, stream).await.map_err(FetchError::Tls);
                }
                Ok(Err(error)) => failure = format!("{address}: {error}"),
                Err(_) => failure = format!("{address}: no answer in time"),
            }
        }
        Err(FetchError::Connect(failure))
    }
}

fn ip(record: &RecordData) -> Option<IpAddr> {
    match record {
        RecordData::A(address) => Some(IpAddr::V4(*address)),
        RecordData::Aaaa(address) => Some(IpAddr::V6(*address).to_canonical()),
        _ => None,
    }
}

async fn get(host: &str, stream: TlsStream<TcpStream>) -> Result<String, FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER_OCTETS)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(header::HOST, host)
        .header(header::ACCEPT, "text/plain")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Connect(error.to_string()))?;
    let answer = async { text(sender.send_request(request).await?).await };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // When the connection ends, the answer is complete or has got the error; dropping either
        // loses nothing that is still wanted.
        _ended = connection => answer.await,
    }
}

async fn text(response: Response<Incoming>) -> Result<String, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    // RFC 8461 §3.2; parameters do not matter.
    let media_type = response.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("text/plain") {
        return Err(FetchError::MediaType);
    }
    let body = Limited::new(response.into_body(), MAX_POLICY_OCTETS).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => FetchError::Http(*error),
        Err(error) if error.is::<LengthLimitError>() => FetchError::TooLong,
        Err(_) => FetchError::Encoding,
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| FetchError::Encoding)
}
