//! Bytes to and from the server, over any stream: every wait has an end, and what the server
//! sends takes no more room than one reply.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::outcome::Fault;
use super::reply::{MAX_LINE, Replies, Reply};
use crate::smtp::tls;

/// Read at once.
const READ: usize = 1024;
/// How long a server that closed the connection while it was written to is read from, to learn
/// what it said before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// TLS's words; where the two have nothing in common, that is said first, because the words alone
/// ("received fatal alert: HandshakeFailure") say nothing to an operator. Servers that know only what
/// this one leaves out (TLS before 1.2, CBC, key exchange without forward secrecy) end so.
fn problem(error: &io::Error) -> String {
    let error: &dyn std::error::Error = match error.get_ref() {
        Some(inner) => inner,
        None => error,
    };
    let has_nothing_in_common = match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
        ),
        Some(rustls::Error::PeerIncompatible(_)) => true,
        Some(_) | None => false,
    };
    if has_nothing_in_common {
        format!(
            "no TLS version and cipher suite in common, the server may know only old ones: {error}"
        )
    } else {
        error.to_string()
    }
}

/// What a connection is made over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream with what was read from it.
pub(super) struct Channel {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    replies: Replies,
    /// When the transaction must be over; `None` outside of one.
    deadline: Option<Instant>,
    /// Protocol version and cipher suite; `None` in plain text.
    tls: Option<String>,
    /// Why it is in plain text although the server offers TLS.
    no_tls: Option<String>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Channel {
    /// In plain text.
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let (buffer, replies) = (BytesMut::new(), Replies::default());
        Self { stream, buffer, replies, deadline: None, tls: None, no_tls: None }
    }

    /// The same under TLS. What the server said before the handshake was not said under TLS, so
    /// it must have said nothing.
    pub(super) async fn into_tls(
        self,
        (config, name): (Arc<ClientConfig>, ServerName<'static>),
        time: Duration,
    ) -> Result<Self, Fault> {
        if !self.buffer.is_empty() {
            return Err(Fault::Handshake("the server went on in plain text".to_owned()));
        }
        let handshake = TlsConnector::from(config).connect(name, self.stream);
        match timeout(time, handshake).await {
            Ok(Ok(stream)) => {
                let tls = Some(tls::description(stream.get_ref().1));
                Ok(Self { tls, ..Self::new(Box::new(stream)) })
            }
            Ok(Err(error)) => Err(Fault::Handshake(problem(&error))),
            Err(_) => Err(Fault::Handshake("the server took too long".to_owned())),
        }
    }

    /// Protocol version and cipher suite; `None` in plain text.
    pub(super) fn tls(&self) -> Option<&str> {
        self.tls.as_deref()
    }

    /// Why it is in plain text although the server offers TLS.
    pub(super) fn no_tls(&self) -> Option<&str> {
        self.no_tls.as_deref()
    }

    /// Notes why it goes on in plain text.
    pub(super) fn goes_without_tls(&mut self, problem: String) {
        self.no_tls = Some(problem);
    }

    /// No wait from now on goes past this time from now.
    pub(super) fn set_deadline(&mut self, time: Option<Duration>) {
        self.deadline = time.map(|time| Instant::now() + time);
    }

    fn until(&self, time: Duration) -> Instant {
        let until = Instant::now() + time;
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn command(&mut self, line: &str, time: Duration) -> Result<Reply, Fault> {
        self.ask(format!("{line}\r\n").as_bytes(), time).await?;
        self.reply(time).await
    }

    /// Sends one command, or several at once; the server must have nothing more to say before.
    pub(super) async fn ask(&mut self, commands: &[u8], time: Duration) -> Result<(), Fault> {
        self.expect_silence().await?;
        self.write(commands, time).await
    }

    async fn write(&mut self, bytes: &[u8], time: Duration) -> Result<(), Fault> {
        let until = self.until(time);
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(until, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Fault::Lost),
            Err(_) => Err(Fault::TimedOut),
        }
    }

    /// Sends a block of content. A server that has enough of it may say so and close.
    pub(super) async fn send(&mut self, block: &[u8], time: Duration) -> Result<(), Fault> {
        let Err(fault) = self.write(block, time).await else { return Ok(()) };
        match self.reply(LAST_WORDS).await {
            Ok(reply) if reply.class() >= 4 => Err(Fault::Refused(reply)),
            Err(Fault::Refused(reply)) => Err(Fault::Refused(reply)),
            _ => Err(fault),
        }
    }

    /// The next reply. 421 ends a connection wherever it comes (RFC 5321 §3.8).
    pub(super) async fn reply(&mut self, time: Duration) -> Result<Reply, Fault> {
        let until = self.until(time);
        let reply = timeout_at(until, self.whole_reply()).await.unwrap_or(Err(Fault::TimedOut))?;
        if reply.code() == 421 { Err(Fault::Refused(reply)) } else { Ok(reply) }
    }

    async fn whole_reply(&mut self) -> Result<Reply, Fault> {
        loop {
            if let Some(reply) = self.replies.next(&mut self.buffer)? {
                return Ok(reply);
            }
            self.buffer.reserve(READ);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Fault::Lost),
                Ok(_) => {}
            }
        }
    }

    /// Fails if the server has said something that nobody asked for, or is gone. A refusal is
    /// taken for what it says; anything else would be taken for the answer to the next command.
    pub(super) async fn expect_silence(&mut self) -> Result<(), Fault> {
        let mut is_open = true;
        while is_open && self.buffer.len() < MAX_LINE {
            match self.read_what_is_there().await {
                Some(count) => is_open = count > 0,
                None => break,
            }
        }
        if self.buffer.is_empty() {
            return if is_open { Ok(()) } else { Err(Fault::Lost) };
        }
        match self.replies.next(&mut self.buffer)? {
            Some(reply) if reply.class() >= 4 => Err(Fault::Refused(reply)),
            _ => Err(Fault::Unsolicited),
        }
    }

    /// Reads without waiting: how much there was, 0 at the end, `None` if nothing was there.
    async fn read_what_is_there(&mut self) -> Option<usize> {
        self.buffer.reserve(READ);
        // Reading is cancel-safe: bytes are in the buffer or still to be read.
        let mut reading = pin!(self.stream.read_buf(&mut self.buffer));
        std::future::poll_fn(|context| {
            Poll::Ready(match reading.as_mut().poll(context) {
                Poll::Ready(read) => Some(read.unwrap_or(0)),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Ends the stream; what becomes of it matters to nobody.
    pub(super) async fn close(mut self, time: Duration) {
        timeout(time, self.stream.shutdown()).await.map(drop).ok();
    }
}
