//! How a connection begins: who connected, after a PROXY header where one is required, and whether
//! they may talk to us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Driver, Interruption, LINE_READ};
use crate::mail::Peer;
use crate::smtp::budget::NetworkPlace;
use crate::smtp::handler::Handler;
use crate::smtp::patience::OnStop;
use crate::smtp::proxy;
use crate::smtp::reason::Reason;
use crate::smtp::settings::Protocol;
use crate::smtp::wire::LineEnds;

/// How long a proxy may take to say whom it speaks for.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// What its listener speaks.
    pub(crate) protocol: Protocol,
    /// Networks whose line ends it mends in DATA.
    pub(crate) mended_networks: Arc<[IpNet]>,
    /// Who connected.
    pub(crate) source: Source,
}

/// Who connected.
#[derive(Debug)]
pub(crate) enum Source {
    /// A client.
    Client(SocketAddr, NetworkPlace),
    /// A trusted proxy, which says first whom it speaks for.
    Proxy(SocketAddr),
}

/// A client of whom the address is known, and nothing else yet.
pub(crate) fn peer(address: SocketAddr) -> Peer {
    // An IPv4 client of a dual-stack socket is an IPv4 client.
    let ip = address.ip().to_canonical();
    Peer { ip, port: address.port(), helo: String::new(), esmtp: false, tls: None, login: None }
}

impl<S, H> Driver<S, H>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    H: Handler,
{
    /// Who the client is and how its line ends are read, and takes its network's place, which is
    /// held to the end.
    pub(super) async fn identify(&mut self, arrival: Arrival) -> (Peer, Result<(), Interruption>) {
        let mended_networks = Arc::clone(&arrival.mended_networks);
        let (peer, identified) = self.find_client(arrival).await;
        if mended_networks.iter().any(|network| network.contains(&peer.ip)) {
            self.line_ends = LineEnds::Mended;
        }
        (peer, identified)
    }

    async fn find_client(&mut self, arrival: Arrival) -> (Peer, Result<(), Interruption>) {
        let proxy = match arrival.source {
            Source::Client(address, place) => {
                self.place = Some(place);
                return (peer(address), Ok(()));
            }
            Source::Proxy(address) => address,
        };
        match self.proxy_header().await {
            Ok(client) => {
                let peer = peer(client.unwrap_or(proxy));
                let place = self.shared.take_in_network(peer.ip, arrival.protocol, &self.limits);
                let place = place.map(|place| self.place = Some(place));
                (peer, place.map_err(Interruption::Because))
            }
            Err(interruption) => (peer(proxy), Err(interruption)),
        }
    }

    /// The client that a trusted proxy names; `None` where it speaks for itself.
    async fn proxy_header(&mut self) -> Result<Option<SocketAddr>, Interruption> {
        let until = Instant::now() + PROXY_TIMEOUT;
        let invalid = Interruption::Because(Reason::BadProxyHeader);
        loop {
            match proxy::parse(&self.buffer) {
                proxy::Header::Complete { length, client } => {
                    self.buffer.advance(length);
                    return Ok(client);
                }
                proxy::Header::Invalid => return Err(invalid),
                proxy::Header::Incomplete if self.buffer.len() > proxy::MAX_HEADER => {
                    return Err(invalid);
                }
                proxy::Header::Incomplete => match self.fill(LINE_READ, until, OnStop::Close).await
                {
                    Err(Interruption::Because(Reason::TimedOut)) => return Err(invalid),
                    filled => filled?,
                },
            }
        }
    }

    /// May the client talk to us?
    pub(super) async fn ask_access(&self, peer: &Peer) -> Result<(), Interruption> {
        let asked = Box::pin(self.shared.handler().connect(peer.ip)).await;
        asked.map_err(Interruption::Because)
    }
}
