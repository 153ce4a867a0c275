//! The accept loop: who gets a place, and who must speak the PROXY protocol first.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::budget::Place;
use super::connection::{self, Arrival, Source};
use super::handler::{Handler, Refusal, SessionRefusal};
use super::reason::Reason;
use super::reply::Reply;
use super::settings::{ListenerSettings, Protocol};
use super::shared::Shared;
use super::stop::stopped;
use crate::id::TraceId;

/// Connections that the system holds for us until they are accepted.
const BACKLOG: u32 = 1024;
/// How long to wait when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that are kept waiting for their refusal; more are told at once.
const MAX_KEPT_WAITING: usize = 256;

/// A bound `[[listener]]`.
pub struct Listener<H> {
    listener: TcpListener,
    local_address: SocketAddr,
    settings: ListenerSettings,
    shared: Arc<Shared<H>>,
    kept_waiting: Arc<Semaphore>,
}

impl<H: Handler> Listener<H> {
    /// Binds; port 0 takes a free one, which [`Listener::local_addr`] tells.
    ///
    /// # Errors
    /// The system's, for example that the port is taken.
    pub async fn bind(settings: ListenerSettings, shared: Arc<Shared<H>>) -> io::Result<Self> {
        let socket = match settings.bind {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(settings.bind)?;
        let listener = socket.listen(BACKLOG)?;
        let local_address = listener.local_addr()?;
        let kept_waiting = Arc::new(Semaphore::new(MAX_KEPT_WAITING));
        Ok(Self { listener, local_address, settings, shared, kept_waiting })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// Accepts and serves until `stop` becomes true; then takes no more connections, and returns
    /// when those that are open have ended: the idle ones at once, one with a message in progress
    /// at the end of it or after 30 seconds.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut stopping = stop.clone();
        loop {
            // None of these loses anything when it is cancelled.
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        self.accepted(stream, address, &mut connections, &stop);
                    }
                    Err(error) => {
                        tracing::warn!(listener = self.settings.name, %error, "cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => report(ended),
                () = stopped(&mut stopping) => break,
            }
        }
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }

    /// A place, and what is to be served in it.
    fn arrival(&self, address: SocketAddr) -> Result<(Place, Arrival), Reason> {
        let limits = self.shared.limits();
        let protocol = self.settings.protocol;
        let mended_networks = Arc::clone(&self.settings.normalize_line_ends_from);
        let place = self.shared.take_place(&limits)?;
        let ip = address.ip().to_canonical();
        // A client from elsewhere is served directly, and its PROXY line is only a bad command.
        let proxies = self.settings.proxy_protocol_from.as_deref().unwrap_or_default();
        if proxies.iter().any(|network| network.contains(&ip)) {
            let source = Source::Proxy(address);
            return Ok((place, Arrival { protocol, mended_networks, source }));
        }
        let in_network = self.shared.take_in_network(ip, protocol, &limits)?;
        let source = Source::Client(address, in_network);
        Ok((place, Arrival { protocol, mended_networks, source }))
    }

    fn accepted(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        connections: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
    ) {
        // Replies are written whole, so waiting to fill segments only costs time. If the option
        // cannot be set, the connection is gone already.
        stream.set_nodelay(true).ok();
        match self.arrival(address) {
            Ok((place, arrival)) => {
                let serving =
                    connection::serve(stream, arrival, Arc::clone(&self.shared), stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(reason) => {
                let protocol = self.settings.protocol;
                self.refuse(Refused { stream, address, protocol, reason }, connections, stop);
            }
        }
    }

    /// Refuses a network that asks for too much when the banner would have come, so that who
    /// connects again at once costs no more than who is served.
    fn refuse(
        &self,
        refused: Refused,
        connections: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
    ) {
        let shared = Arc::clone(&self.shared);
        let delay = match refused.reason {
            // Descriptors may be what there is too few of.
            Reason::TooManyConnections => Duration::ZERO,
            _ => shared.limits().banner_delay,
        };
        let kept = Arc::clone(&self.kept_waiting).try_acquire_owned().ok();
        let Some(kept) = kept.filter(|_| !delay.is_zero()) else {
            return refused.tell(&shared);
        };
        let mut stop = stop.clone();
        connections.spawn(async move {
            // Either way the refusal follows; a flag and a timer lose nothing when cancelled.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stopped(&mut stop) => {}
            }
            refused.tell(&shared);
            drop(kept);
        });
    }
}

/// A connection that gets no place.
struct Refused {
    stream: TcpStream,
    address: SocketAddr,
    protocol: Protocol,
    reason: Reason,
}

impl Refused {
    /// Refuses with one write into the socket's empty buffer, which cannot block, and closes.
    fn tell<H: Handler>(self, shared: &Shared<H>) {
        let refusal = Refusal { reason: self.reason, trace_id: TraceId::generate() };
        let peer = connection::peer(self.address);
        shared.handler().refused(SessionRefusal { refusal, peer: &peer, about: "connection" });
        // A client that waits for TLS could not read the reply.
        if self.protocol != Protocol::Submissions {
            let mut reply = Vec::new();
            Reply::refusal(refusal).write_to(&mut reply);
            // A client that is gone already needs no answer.
            self.stream.into_std().and_then(|mut stream| stream.write_all(&reply)).ok();
        }
    }
}

/// A connection's task ends well, unless it panicked, which is a fault of ours.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
