//! Where a connection changes to TLS: after STARTTLS (RFC 3207), or from its first octet
//! (RFC 8314 §3.3).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::{Driver, End, Interruption};
use crate::id::TraceId;
use crate::mail::Peer;
use crate::smtp::handler::{Handler, Refusal, SessionRefusal};
use crate::smtp::patience::OnStop;
use crate::smtp::session::{Input, Session};
use crate::smtp::settings::Protocol;
use crate::smtp::tls;

impl<S, H> Driver<S, H>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    H: Handler,
{
    /// Goes on after STARTTLS: bytes that came before the handshake are dropped with the buffer.
    pub(super) async fn serve_after_starttls(mut self, session: Session<H::Transaction>) {
        self.buffer = BytesMut::new();
        let handshake = self.handshake(session.trace_id(), session.peer());
        let Some((mut driver, tls)) = handshake.await else { return };
        let (session, end) = driver.converse(session, Input::Secured(tls)).await;
        driver.finish_under_tls(session, end).await;
    }

    /// Serves a client that speaks TLS from its first octet. Before that it could not read why it
    /// is refused, so the connection is only closed.
    pub(super) async fn serve_implicit_tls(
        self,
        mut peer: Peer,
        allowed: Result<(), Interruption>,
    ) {
        let trace_id = TraceId::generate();
        match allowed {
            Ok(()) => {}
            Err(Interruption::Lost) => return,
            Err(Interruption::Because(reason)) => {
                let refusal = Refusal { reason, trace_id };
                let refusal = SessionRefusal { refusal, peer: &peer, about: "connection" };
                return self.shared.handler().refused(refusal);
            }
        }
        let Some((driver, tls)) = self.handshake(trace_id, &peer).await else { return };
        peer.tls = Some(tls);
        driver.serve_secured(peer).await;
    }

    /// Serves a client of whom it is known that TLS is running, from the banner on.
    pub(super) async fn serve_secured(mut self, peer: Peer) {
        if let Some((session, end)) = self.begin(Protocol::Submissions, peer, Ok(())).await {
            self.finish_under_tls(session, end).await;
        }
    }

    async fn finish_under_tls(self, session: Session<H::Transaction>, end: End) {
        match end {
            End::Closed => self.close(session).await,
            // STARTTLS is refused under TLS.
            End::Lost | End::StartTls => self.abandon(session).await,
        }
    }

    /// The handshake, from what is in the buffer on, and what was agreed on. One that fails is
    /// logged, and the connection is closed.
    async fn handshake(
        mut self,
        trace_id: TraceId,
        peer: &Peer,
    ) -> Option<(Driver<TlsStream<Replayed<S>>, H>, String)> {
        let until = Instant::now() + self.limits.command_timeout;
        let stream = Replayed { read: self.buffer, stream: self.stream };
        let handshake = self.shared.tls().acceptor().accept(stream);
        let stream = match self.patience.wait(handshake, until, OnStop::Close).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(%trace_id, peer = %peer.ip, %error, "TLS handshake failed");
                return None;
            }
            Err(reason) => {
                tracing::info!(%trace_id, peer = %peer.ip, %reason, "TLS handshake ended");
                return None;
            }
        };
        let agreed = tls::description(stream.get_ref().1);
        let mut driver = Driver::new(stream, self.shared, self.limits, self.patience);
        driver.place = self.place;
        driver.line_ends = self.line_ends;
        Some((driver, agreed))
    }
}

/// A stream of which something was read already: a handshake that came with a PROXY header.
pub(super) struct Replayed<S> {
    read: BytesMut,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        if self.read.is_empty() {
            self.read = BytesMut::new(); // Gives the memory back.
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
