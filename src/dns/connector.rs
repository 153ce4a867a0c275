//! How name servers are spoken to: hickory's way, less what a server is known not to understand.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{DnsRequest, DnsResponse, ResponseCode};
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{
    DnsExchange, DnsHandle, DnsResponseStream, FirstAnswer, Protocol,
};
use hickory_resolver::{ConnectionProvider, PoolContext};
use tokio::time::Instant;

use super::server::Server;
use super::udp::Runtime;

/// Connects to name servers as hickory does, over sockets that learn of a refusal.
///
/// It sets the AD bit of every query if asked to: RFC 6840 §5.7 has it mean that its answer is
/// wanted and understood. hickory itself can only validate on its own; a resolver that does so
/// already need not be followed to the root again.
#[derive(Clone)]
pub(super) struct Connector {
    runtime: Runtime,
    wants_ad: bool,
    has_several: bool,
    /// What is known of each server. hickory names only servers of the configuration, so there
    /// are no more than those.
    servers: Arc<Mutex<HashMap<SocketAddr, Arc<Server>>>>,
    last_failure: LastFailure,
}

/// What the last failure of a server was: hickory forgets it, and says that there are no
/// connections, where it has asked all servers in vain.
type LastFailure = Arc<Mutex<Option<String>>>;

impl Connector {
    /// For one name server or for several.
    pub(super) fn new(wants_ad: bool, has_several: bool) -> Self {
        Self {
            runtime: Runtime::default(),
            wants_ad,
            has_several,
            servers: Arc::default(),
            last_failure: Arc::default(),
        }
    }

    /// The last failure of a server, for people.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server(&self, address: SocketAddr) -> Arc<Server> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(address).or_default())
    }
}

impl ConnectionProvider for Connector {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = Runtime;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.runtime.new_connection(ip, config, context)?;
        let address = SocketAddr::new(ip, config.port);
        let server = self.server(address);
        let protocol = config.protocol.to_protocol();
        let connector = self.clone();
        Ok(Box::pin(async move {
            let exchange = connecting.await?;
            Ok(Connection { exchange, address, server, protocol, connector })
        }))
    }

    fn runtime_provider(&self) -> &Runtime {
        &self.runtime
    }
}

/// A connection to one name server.
#[derive(Clone)]
pub(super) struct Connection {
    exchange: DnsExchange<Runtime>,
    address: SocketAddr,
    server: Arc<Server>,
    protocol: Protocol,
    connector: Connector,
}

impl DnsHandle for Connection {
    type Response = DnsResponseStream;
    type Runtime = Runtime;

    fn send(&self, mut request: DnsRequest) -> DnsResponseStream {
        request.metadata.authentic_data = self.connector.wants_ad;
        Box::pin(self.clone().ask(request)).into()
    }
}

impl Connection {
    async fn ask(self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        // What becomes of a TCP connection says nothing of the server over UDP.
        if self.protocol == Protocol::Udp
            && let Some(refusal) = self.server.refusal(Instant::now())
        {
            return Err(io::Error::from(refusal).into());
        }
        let answered = self.ask_with_or_without_edns(request).await;
        match answered {
            Err(NetError::Io(error)) if self.protocol == Protocol::Udp => {
                self.server.failed(error.kind(), Instant::now());
                self.failed(format!("{}: {}", self.address, error.kind()));
                Err(NetError::Io(error))
            }
            Ok(response) if self.connector.has_several && is_failure(response.response_code) => {
                // hickory asks the next server after an error of the connection only, and one
                // that refuses, or has lost its way to the root, would answer for all of them.
                let problem = format!("{} answers {}", self.address, response.response_code);
                self.failed(problem.clone());
                Err(io::Error::other(problem).into())
            }
            answered => answered,
        }
    }

    fn failed(&self, problem: String) {
        let mut last = self.connector.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(problem);
    }

    /// RFC 6891 §6.2.2: who does not know EDNS is asked without it, and that is remembered.
    async fn ask_with_or_without_edns(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let has_edns = request.edns.is_some() && self.server.takes_edns(Instant::now());
        if !has_edns {
            let answered = self.exchange.send(without_edns(request)).first_answer().await;
            match &answered {
                Ok(_) => self.server.answered_without_edns(Instant::now()),
                Err(NetError::Timeout) => self.server.silent_without_edns(),
                Err(_) => {}
            }
            return answered;
        }
        let answered = self.exchange.send(request.clone()).first_answer().await;
        match &answered {
            Ok(response) if is_about_edns(response.response_code) => {}
            Ok(_) => {
                self.server.answered_with_edns();
                return answered;
            }
            Err(NetError::Timeout) => {
                self.server.silent_with_edns();
                return answered;
            }
            Err(_) => return answered,
        }
        let answered = self.exchange.send(without_edns(request)).first_answer().await?;
        if !is_about_edns(answered.response_code) {
            self.server.does_not_know_edns(Instant::now());
        }
        Ok(answered)
    }
}

fn without_edns(mut request: DnsRequest) -> DnsRequest {
    request.edns = None;
    request.options_mut().use_edns = false;
    request
}

/// What servers say to a query with EDNS that do not know it (RFC 6891 §7), or another version:
/// that code is also TSIG's BADSIG, and hickory reads it as such.
fn is_about_edns(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS | ResponseCode::BADSIG
    )
}

/// Whether another server may know more.
fn is_failure(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused) || is_about_edns(code)
}
