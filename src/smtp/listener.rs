//! The accept loop: who gets a place, and who must speak the PROXY protocol first.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::budget::{InFlight, NetworkPlace, Place, Places, Reservation};
use super::connection::{self, Arrival, Source};
use super::guesses::Guesses;
use super::handler::{Handler, Refusal, SessionRefusal};
use super::reason::Reason;
use super::reply::Reply;
use super::settings::{Limits, ListenerSettings, Protocol};
use super::tls::Tls;
use super::turns::Turns;
use super::waited::Waited;
use crate::id::TraceId;
use crate::mail::Domain;

/// Connections that the system holds for us until they are accepted.
const BACKLOG: u32 = 1024;
/// How long to wait when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that are kept waiting for their refusal; more are told at once.
const MAX_KEPT_WAITING: usize = 256;

/// What all connections of all listeners share.
pub struct Shared<H> {
    handler: H,
    hostname: Domain,
    limits: ArcSwap<Limits>,
    tls: Tls,
    places: Arc<Places>,
    turns: ArcSwap<Turns>,
    unknown_users: Guesses,
    failed_logins: Guesses,
    in_flight: Arc<InFlight>,
    waited: Waited,
}

impl<H: Handler> Shared<H> {
    /// `hostname` stands in the banner and in the answer to EHLO.
    pub fn new(handler: H, hostname: Domain, limits: Limits, tls: Tls) -> Arc<Self> {
        Arc::new(Self {
            handler,
            hostname,
            turns: ArcSwap::from_pointee(Turns::new(&limits)),
            limits: ArcSwap::from_pointee(limits),
            tls,
            places: Arc::default(),
            unknown_users: Guesses::default(),
            failed_logins: Guesses::default(),
            in_flight: Arc::default(),
            waited: Waited::default(),
        })
    }

    /// New limits, for connections from now on. Messages that are worked on keep their turns and
    /// do not count among the new ones.
    pub fn set_limits(&self, limits: Limits) {
        if limits.processing != self.limits().processing {
            self.turns.store(Arc::new(Turns::new(&limits)));
        }
        self.limits.store(Arc::new(limits));
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    pub(crate) fn hostname(&self) -> &Domain {
        &self.hostname
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// A place among the connections of the client's network. Networks that ask for recipients who
    /// do not exist get none where other MTAs come; users may still log in from there.
    ///
    /// # Errors
    /// [`Reason::TooManyUnknownUsers`] or [`Reason::TooManyFromNetwork`]
    pub(crate) fn take_in_network(
        &self,
        ip: IpAddr,
        protocol: Protocol,
        limits: &Limits,
    ) -> Result<NetworkPlace, Reason> {
        let is_guessing = self.unknown_users.are_spent(ip, limits.unknown_users_per_network);
        if is_guessing && !protocol.is_submission() {
            return Err(Reason::TooManyUnknownUsers);
        }
        self.places.take_in_network(ip, limits)
    }

    /// Whether more than one client network is connected.
    pub(crate) fn is_shared(&self) -> bool {
        self.places.are_shared()
    }

    pub(crate) fn turns(&self) -> Arc<Turns> {
        self.turns.load_full()
    }

    /// Recipients who do not exist.
    pub(crate) fn unknown_users(&self) -> &Guesses {
        &self.unknown_users
    }

    /// Wrong passwords.
    pub(crate) fn failed_logins(&self) -> &Guesses {
        &self.failed_logins
    }

    /// Clients that have waited for their banner.
    pub(crate) fn waited(&self) -> &Waited {
        &self.waited
    }

    pub(crate) fn reservation(&self) -> Reservation {
        Reservation::new(Arc::clone(&self.in_flight))
    }

    /// A place, and what is to be served in it.
    fn arrival(
        &self,
        settings: &ListenerSettings,
        address: SocketAddr,
    ) -> Result<(Place, Arrival), Reason> {
        let limits = self.limits();
        let protocol = settings.protocol;
        let mended_networks = Arc::clone(&settings.normalize_line_ends_from);
        let place = self.places.take(&limits)?;
        let ip = address.ip().to_canonical();
        // A client from elsewhere is served directly, and its PROXY line is only a bad command.
        let proxies = settings.proxy_protocol_from.as_deref().unwrap_or_default();
        if proxies.iter().any(|network| network.contains(&ip)) {
            let source = Source::Proxy(address);
            return Ok((place, Arrival { protocol, mended_networks, source }));
        }
        let source = Source::Client(address, self.take_in_network(ip, protocol, &limits)?);
        Ok((place, Arrival { protocol, mended_networks, source }))
    }
}

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
        match self.shared.arrival(&self.settings, address) {
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
        shared.handler.refused(SessionRefusal { refusal, peer: &peer, about: "connection" });
        // A client that waits for TLS could not read the reply.
        if self.protocol != Protocol::Submissions {
            let mut reply = Vec::new();
            Reply::refusal(refusal).write_to(&mut reply);
            // A client that is gone already needs no answer.
            self.stream.into_std().and_then(|mut stream| stream.write_all(&reply)).ok();
        }
    }
}

/// Waits until `stop` is true, or nobody is left who could make it so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the daemon.
    stop.wait_for(|stop| *stop).await.map(drop).ok();
}

/// A connection's task ends well, unless it panicked, which is a fault of ours.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
