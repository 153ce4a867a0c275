//! Queries that ask a validating resolver whether it has validated its answer.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use hickory_proto::op::DnsRequest;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle};
use hickory_resolver::{ConnectionProvider, PoolContext};

/// Connects to name servers as hickory does, and sets the AD bit of every query if asked to:
/// RFC 6840 §5.7 has it mean that its answer is wanted and understood. hickory itself can only
/// validate on its own; a resolver that does so already need not be followed to the root again.
#[derive(Clone)]
pub(super) struct Connector {
    runtime: TokioRuntimeProvider,
    wants_ad: bool,
}

impl Connector {
    pub(super) fn new(wants_ad: bool) -> Self {
        Self { runtime: TokioRuntimeProvider::default(), wants_ad }
    }
}

impl ConnectionProvider for Connector {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.runtime.new_connection(ip, config, context)?;
        let wants_ad = self.wants_ad;
        Ok(Box::pin(async move { Ok(Connection { exchange: connecting.await?, wants_ad }) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.runtime
    }
}

/// A connection to one name server.
#[derive(Clone)]
pub(super) struct Connection {
    exchange: DnsExchange<TokioRuntimeProvider>,
    wants_ad: bool,
}

impl DnsHandle for Connection {
    type Response = <DnsExchange<TokioRuntimeProvider> as DnsHandle>::Response;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        request.metadata.authentic_data = self.wants_ad;
        self.exchange.send(request)
    }
}
