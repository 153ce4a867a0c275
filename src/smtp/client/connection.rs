//! Opening a connection: banner, EHLO, STARTTLS, EHLO again, AUTH.

use std::io;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::auth;
use super::channel::{Channel, Stream};
use super::extensions::Extensions;
use super::outcome::{ClientError, Fault, Stage};
use super::reply::Reply;
use super::settings::{Endpoint, Timeouts};
use super::tls::TlsDemand;
use crate::mail::{Domain, Secret};

/// After so many transactions a connection is not used again, so that it does not stay with one
/// of a destination's many servers forever.
const MAX_TRANSACTIONS: usize = 100;

/// A connection to a server that is ready for transactions.
#[derive(Debug)]
pub struct Connection {
    pub(super) channel: Channel,
    pub(super) extensions: Extensions,
    pub(super) endpoint: Endpoint,
    pub(super) timeouts: Timeouts,
    pub(super) state: State,
    pub(super) transactions: usize,
}

/// Whether another transaction can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No transaction is open.
    Ready,
    /// The server is gone, or nobody knows what it would take the next command for.
    Broken,
}

impl Connection {
    /// Connects to the server, greets it, starts TLS and logs in, as is demanded.
    ///
    /// Where TLS is opportunistic and the handshake fails, it connects once more and goes without;
    /// not where there are `credentials`, which never go over plain text, nor with implicit TLS.
    ///
    /// # Errors
    /// [`ClientError`] says at which stage it failed, and why. Nothing was handed over.
    pub async fn open(
        endpoint: &Endpoint,
        demand: &TlsDemand,
        hello_name: &Domain,
        timeouts: &Timeouts,
        credentials: Option<&(String, Secret)>,
    ) -> Result<Self, ClientError> {
        Opening { endpoint, demand, hello_name, timeouts, credentials }.over(&Tcp).await
    }

    /// Whom it is connected to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Under TLS: version and cipher suite, for example `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    pub fn tls(&self) -> Option<&str> {
        self.channel.tls()
    }

    /// The most recipients that the server takes in one transaction, if it says (RFC 9422).
    pub fn max_recipients(&self) -> Option<usize> {
        self.extensions.max_recipients
    }

    /// Whether another transaction can be tried: the last one ended in order, and there were not
    /// too many. The server may have gone since; then [`Connection::send`] says so at once.
    pub fn can_be_reused(&self) -> bool {
        let most = self.extensions.max_transactions.unwrap_or(MAX_TRANSACTIONS);
        self.state == State::Ready && self.transactions < most.min(MAX_TRANSACTIONS)
    }

    /// Takes leave. Nothing depends on the answer.
    pub async fn quit(mut self) {
        let time = self.timeouts.quit;
        if self.state == State::Ready {
            self.channel.set_deadline(Some(time));
            self.channel.command("QUIT", time).await.map(drop).ok();
        }
        self.channel.close(time).await;
    }
}

/// How a stream to the server is made.
pub(super) trait Dial {
    /// Connects.
    fn dial(&self, endpoint: &Endpoint)
    -> impl Future<Output = io::Result<Box<dyn Stream>>> + Send;
}

/// Over the network.
struct Tcp;

impl Dial for Tcp {
    async fn dial(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(endpoint.address).await?;
        // Commands are written whole, so waiting to fill segments only costs time.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Whether STARTTLS is made use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartTls {
    /// As the demand says.
    AsDemanded,
    /// Not again: the handshake failed.
    Never,
}

/// What follows the greeting.
enum Next {
    /// The server waits for the TLS handshake.
    Handshake,
    /// A login, if there are credentials, on the channel as it is.
    LogIn(Extensions),
}

/// A connection that is to be opened.
pub(super) struct Opening<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) demand: &'a TlsDemand,
    pub(super) hello_name: &'a Domain,
    pub(super) timeouts: &'a Timeouts,
    pub(super) credentials: Option<&'a (String, Secret)>,
}

impl Opening<'_> {
    pub(super) async fn over<D: Dial + Sync>(&self, dialer: &D) -> Result<Connection, ClientError> {
        match self.attempt(dialer, StartTls::AsDemanded).await {
            Err(ClientError { fault: Fault::Handshake(problem), .. }) if self.may_be_plain() => {
                tracing::info!(server = %self.endpoint, problem, "no TLS: the handshake fails");
                let mut connection = self.attempt(dialer, StartTls::Never).await?;
                let problem = format!("the TLS handshake failed: {problem}");
                connection.channel.goes_without_tls(problem);
                Ok(connection)
            }
            opened => opened,
        }
    }

    fn may_be_plain(&self) -> bool {
        self.demand.is_opportunistic() && self.credentials.is_none() && !self.endpoint.implicit_tls
    }

    async fn attempt<D: Dial + Sync>(
        &self,
        dialer: &D,
        start_tls: StartTls,
    ) -> Result<Connection, ClientError> {
        let mut channel = self.connect(dialer).await?;
        if self.endpoint.implicit_tls {
            channel = self.handshake(channel).await?;
        }
        let greeted = match self.begin(&mut channel, start_tls).await {
            Ok(Next::LogIn(extensions)) => Ok(extensions),
            Ok(Next::Handshake) => {
                // RFC 3207 §4.2: what the server said before is forgotten.
                channel = self.handshake(channel).await?;
                self.greet(&mut channel).await
            }
            Err(error) => Err(error),
        };
        let opened = match greeted {
            Ok(extensions) => self.log_in(&mut channel, extensions).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(extensions) => Ok(self.connection(channel, extensions)),
            Err(error) => Err(self.leave(channel, error).await),
        }
    }

    fn connection(&self, channel: Channel, extensions: Extensions) -> Connection {
        Connection {
            channel,
            extensions,
            endpoint: self.endpoint.clone(),
            timeouts: self.timeouts.clone(),
            state: State::Ready,
            transactions: 0,
        }
    }

    /// Takes leave of a server that is of no use (RFC 5321 §4.1.1.10), if it listens; nothing
    /// depends on the answer.
    async fn leave(&self, mut channel: Channel, error: ClientError) -> ClientError {
        if error.fault.leaves_the_server_listening() {
            channel.command("QUIT", self.timeouts.quit).await.map(drop).ok();
            channel.close(self.timeouts.quit).await;
        }
        error
    }

    async fn connect<D: Dial + Sync>(&self, dialer: &D) -> Result<Channel, ClientError> {
        let fault = match timeout(self.timeouts.connect, dialer.dial(self.endpoint)).await {
            Ok(Ok(stream)) => return Ok(Channel::new(stream)),
            Ok(Err(error)) if is_no_way(&error) => Fault::NoWay(error.to_string()),
            Ok(Err(error)) => Fault::Connect(error.to_string()),
            Err(_) => Fault::TimedOut,
        };
        Err(ClientError { stage: Stage::Connect, fault })
    }

    /// EHLO, or HELO where that is not known (RFC 5321 §3.2).
    async fn greet(&self, channel: &mut Channel) -> Result<Extensions, ClientError> {
        let name = self.hello_name;
        let time = self.timeouts.hello;
        let said = channel.command(&format!("EHLO {name}"), time).await;
        let greeted = match said {
            Ok(reply) if reply.class() == 5 => {
                let said = channel.command(&format!("HELO {name}"), time).await;
                accepted(said).map(|_| Extensions::default())
            }
            said => accepted(said).map(|reply| Extensions::of(&reply)),
        };
        greeted.map_err(at(Stage::Hello))
    }

    /// Up to where TLS begins, or would.
    async fn begin(&self, channel: &mut Channel, start_tls: StartTls) -> Result<Next, ClientError> {
        let banner = channel.reply(self.timeouts.banner).await;
        accepted(banner).map_err(at(Stage::Banner))?;
        let extensions = self.greet(channel).await?;
        if start_tls == StartTls::AsDemanded && channel.tls().is_none() {
            self.start_tls(channel, extensions).await
        } else {
            Ok(Next::LogIn(extensions))
        }
    }

    /// Goes on under TLS where the server offers it, or in plain text where it may.
    async fn start_tls(
        &self,
        channel: &mut Channel,
        extensions: Extensions,
    ) -> Result<Next, ClientError> {
        if extensions.start_tls {
            let said = channel.command("STARTTLS", self.timeouts.hello).await;
            match accepted(said) {
                Ok(_) => return Ok(Next::Handshake),
                // It offers TLS and cannot do it now; 421 and silence end more than that.
                Err(Fault::Refused(reply)) if reply.code() != 421 && self.may_be_plain() => {
                    tracing::info!(server = %self.endpoint, %reply, "no TLS: refused");
                    channel.goes_without_tls(format!("STARTTLS was refused: {reply}"));
                    return Ok(Next::LogIn(extensions));
                }
                Err(fault) => return Err(ClientError { stage: Stage::StartTls, fault }),
            }
        }
        if self.may_be_plain() {
            return Ok(Next::LogIn(extensions));
        }
        Err(ClientError { stage: Stage::StartTls, fault: Fault::TlsNotOffered })
    }

    /// Logs in where there are credentials.
    async fn log_in(
        &self,
        channel: &mut Channel,
        extensions: Extensions,
    ) -> Result<Extensions, ClientError> {
        if let Some(credentials) = self.credentials {
            auth::log_in(channel, &extensions, credentials, self.timeouts)
                .await
                .map_err(at(Stage::Auth))?;
        }
        Ok(extensions)
    }

    async fn handshake(&self, channel: Channel) -> Result<Channel, ClientError> {
        let settings = self
            .demand
            .handshake(self.endpoint)
            .map_err(|error| at(Stage::StartTls)(Fault::Handshake(error.to_string())))?;
        let secured = channel.into_tls(settings, self.timeouts.handshake).await;
        secured.map_err(at(Stage::StartTls))
    }
}

/// Whether the address family or the network cannot be reached from this machine, which says nothing
/// of the server: no route, no address of our own, a family or route that is switched off.
fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind;
    use rustix::io::Errno;
    let of_routes = matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            // Routes of the types "prohibit" and "blackhole", and packet filters of this machine.
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
    );
    of_routes || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// A reply that must be 2yz.
pub(super) fn accepted(reply: Result<Reply, Fault>) -> Result<Reply, Fault> {
    let reply = reply?;
    match reply.class() {
        2 => Ok(reply),
        4 | 5 => Err(Fault::Refused(reply)),
        _ => Err(Fault::Unexpected(reply)),
    }
}

/// Tells where a fault happened.
pub(super) fn at(stage: Stage) -> impl FnOnce(Fault) -> ClientError {
    move |fault| ClientError { stage, fault }
}
