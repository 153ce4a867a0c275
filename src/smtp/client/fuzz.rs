//! The fuzzer's door: what a server says.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Stream;
use super::connection::{Dial, Opening};
use super::reply::{Replies, Reply};
use super::{
    ClientError, Endpoint, Garbage, Outcome, OutgoingTransaction, Stage, Timeouts, TlsDemand,
};
use crate::fuzz::{Cuts, run};
use crate::mail::is_invisible;
use crate::mail::{
    Address, Domain, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath,
};

/// Ends what the server says at once; what follows is said when the client has said something.
const TURN: &[u8] = b"--\n";
/// The most that is said at once: less than what the client reads ahead, so that all is seen.
const MAX_TURN: usize = 3000;
const CONTENT: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// A server's whole side of a connection: four octets that say how it is cut, then its bytes in
/// turns. Where a handshake fails, the same server is met again.
///
/// However they are cut, the client says the same and the same comes of each recipient; nobody
/// has the message unless its final dot was sent; what is told of a failure is printable.
pub fn server(input: &[u8]) {
    let Some((seed, bytes)) = input.split_first_chunk::<4>() else { return };
    assert_eq!(replies(bytes, None), replies(bytes, Some(Cuts::of(*seed))));
    let whole = run(Exchange::with(bytes, None));
    let cut = run(Exchange::with(bytes, Some(Cuts::of(*seed))));
    assert_eq!(whole.outcome, cut.outcome, "the outcome depends on how bytes are cut");
    assert_eq!(whole.said, cut.said, "what is said depends on how bytes are cut");
    whole.check();
}

/// The replies up to garbage or the end.
fn replies(mut rest: &[u8], mut cuts: Option<Cuts>) -> (Vec<Reply>, Option<Garbage>) {
    let (mut read, mut replies, mut buffer) = (Vec::new(), Replies::default(), BytesMut::new());
    while !rest.is_empty() {
        let length = cuts.as_mut().map_or(rest.len(), Cuts::next_length).min(rest.len());
        let (piece, after) = rest.split_at(length);
        buffer.extend_from_slice(piece);
        rest = after;
        loop {
            match replies.next(&mut buffer) {
                Ok(Some(reply)) => read.push(reply),
                Ok(None) => break,
                Err(garbage) => return (read, Some(garbage)),
            }
        }
    }
    (read, None)
}

/// What came of a message for two, and what the client said over its last connection.
struct Exchange {
    outcome: Result<Vec<Outcome>, ClientError>,
    said: Vec<u8>,
}

impl Exchange {
    async fn with(bytes: &[u8], cuts: Option<Cuts>) -> Self {
        let server = Server { bytes: bytes.to_vec(), cuts, said: Arc::default() };
        let outcome = hand_over(&server).await;
        let said = server.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { outcome, said }
    }

    fn check(&self) {
        let Ok(outcomes) = &self.outcome else { return };
        assert_eq!(outcomes.len(), 2);
        let has_content = memchr::memmem::find(&self.said, b"hello\r\n.\r\n").is_some();
        for outcome in outcomes {
            let failure = match outcome {
                Outcome::Sent(_) => {
                    assert!(has_content, "sent without its content");
                    continue;
                }
                Outcome::Failed(failure) => {
                    assert_eq!(failure.enhanced.class(), 5);
                    failure
                }
                Outcome::Deferred(failure) => {
                    assert_eq!(failure.enhanced.class(), 4);
                    failure
                }
            };
            assert!(!failure.maybe_delivered || (has_content && failure.stage == Stage::EndOfData));
            let is_visible = |c: char| c == ' ' || !is_invisible(c);
            assert!(failure.text.chars().all(is_visible), "{failure:?}");
            assert!(failure.text.chars().count() <= 1100, "{failure:?}");
        }
    }
}

async fn hand_over(server: &Server) -> Result<Vec<Outcome>, ClientError> {
    let endpoint = Endpoint {
        address: ([192, 0, 2, 25], 25).into(),
        name: "mx.example.test".to_owned(),
        implicit_tls: false,
    };
    let opening = Opening {
        endpoint: &endpoint,
        demand: &TlsDemand::Opportunistic,
        hello_name: &Domain::parse("client.test").expect("valid"),
        timeouts: &Timeouts::default(),
        credentials: None,
    };
    let mut connection = opening.over(server).await?;
    let recipients = ["b@example.test", "c@example.test"].map(|address| EnvelopeRecipient {
        address: Address::parse(address).expect("valid"),
        parameters: RcptParameters::default(),
    });
    let transaction = OutgoingTransaction {
        reverse_path: &ReversePath::Null,
        parameters: &MailParameters::default(),
        recipients: recipients.iter().collect(),
    };
    connection.send(&transaction, &[CONTENT]).await
}

/// Says the same on every connection.
struct Server {
    bytes: Vec<u8>,
    cuts: Option<Cuts>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Dial for Server {
    async fn dial(&self, _: &Endpoint) -> io::Result<Box<dyn Stream>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut turns = VecDeque::new();
        let mut rest = self.bytes.as_slice();
        while let Some(end) = memchr::memmem::find(rest, TURN) {
            turns.push_back(rest.get(..end.min(MAX_TURN)).unwrap_or_default().to_vec());
            rest = rest.get(end + TURN.len()..).unwrap_or_default();
        }
        turns.push_back(rest.get(..rest.len().min(MAX_TURN)).unwrap_or_default().to_vec());
        let (cuts, said) = (self.cuts.clone(), Arc::clone(&self.said));
        Ok(Box::new(Conversation { turns, turn: VecDeque::new(), is_asked: true, cuts, said }))
    }
}

/// A server's end of a connection: a turn is said when the client has said something since the
/// one before, and the connection ends after the last.
struct Conversation {
    turns: VecDeque<Vec<u8>>,
    turn: VecDeque<u8>,
    is_asked: bool,
    cuts: Option<Cuts>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Conversation {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn.is_empty() {
            if !self.is_asked {
                return Poll::Pending; // The client waits until its patience ends.
            }
            self.is_asked = false;
            match self.turns.pop_front() {
                None => return Poll::Ready(Ok(())),
                Some(turn) if turn.is_empty() => return Poll::Pending,
                Some(turn) => self.turn = turn.into(),
            }
        }
        let length = self.cuts.as_mut().map_or(usize::MAX, Cuts::next_length);
        let length = length.min(buffer.remaining()).min(self.turn.len());
        let piece: Vec<u8> = self.turn.drain(..length).collect();
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        self.said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_hold() {
        crate::fuzz::replay("client", server);
    }
}
