//! One connection: performs what the session asks for, over any byte stream. All waiting happens
//! here, and every wait has an end. How it begins is in `connection/arrival.rs`, how it changes to
//! TLS in `connection/secure.rs`.

mod arrival;
mod secure;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::auth;
use super::body::Body;
use super::budget::{NetworkPlace, Reservation};
use super::gate::Gate;
use super::handler::{Handler, Refusal, SessionRefusal};
use super::patience::{OnStop, Patience};
use super::reason::Reason;
use super::reply::Reply;
use super::session::{Answer, Input, Question, Session, Step, Transfer};
use super::settings::{Limits, Protocol};
use super::shared::Shared;
use super::wire::{Framing, LineEnds, Lines, Progress};
use crate::id::TraceId;
use crate::mail::{EnvelopeRecipient, Peer};
pub(crate) use arrival::{Arrival, Source, peer};

/// Read at once while waiting for commands, and kept while idle.
const LINE_READ: usize = 1024;
/// Read at once while a message arrives: little at first, since most are small.
const FIRST_DATA_READ: usize = 8 * 1024;
const DATA_READ: usize = 64 * 1024;
/// Pipelined commands are taken so many at a stretch; then other connections go on.
const STRETCH: usize = 16;
/// Replies are sent when so many octets of them wait, even if more commands do too.
const MAX_OUTPUT: usize = 8 * 1024;
/// Octets of a transaction's recipients that count as the connection's own; only a few have more.
const FREE_ENVELOPE: usize = 8 * 1024;
/// How long a closed connection is read from, so that the last reply is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// How much is read then.
const MAX_LINGER: u64 = 256 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve<S, H>(
    stream: S,
    arrival: Arrival,
    shared: Arc<Shared<H>>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    H: Handler,
{
    let mut driver = Driver::accepted(stream, shared, stop);
    let protocol = arrival.protocol;
    let (peer, identified) = driver.identify(arrival).await;
    let allowed = match identified {
        Ok(()) => driver.ask_access(&peer).await,
        Err(interruption) => Err(interruption),
    };
    // Boxed, so that a connection without TLS does not carry the room for it.
    if protocol == Protocol::Submissions {
        return Box::pin(driver.serve_implicit_tls(peer, allowed)).await;
    }
    let Some((session, end)) = driver.begin(protocol, peer, allowed).await else { return };
    match end {
        End::Lost => driver.abandon(session).await,
        End::Closed => driver.close(session).await,
        End::StartTls => Box::pin(driver.serve_after_starttls(session)).await,
    }
}

/// Serves a client as if it had done a TLS handshake, from the banner on.
#[cfg(any(test, fuzzing))]
pub(crate) async fn serve_without_handshake<S, H>(
    stream: S,
    arrival: Arrival,
    shared: Arc<Shared<H>>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    H: Handler,
{
    let mut driver = Driver::accepted(stream, shared, stop);
    if let (peer, Ok(())) = driver.identify(arrival).await {
        driver.serve_secured(Peer { tls: Some("TLS".to_owned()), ..peer }).await;
    }
}

/// Why nothing more comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// The peer is to be told.
    Because(Reason),
    /// The peer is gone, or does not read.
    Lost,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The last reply was sent.
    Closed,
    /// The peer is gone, or does not read.
    Lost,
    /// A TLS handshake comes next.
    StartTls,
}

/// What a step led to.
enum Outcome<T> {
    Input(Input<T>),
    End(End),
}

impl<T> From<Interruption> for Outcome<T> {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Because(reason) => Self::Input(Input::Interrupted(reason)),
            Interruption::Lost => Self::End(End::Lost),
        }
    }
}

struct Driver<S, H: Handler> {
    stream: S,
    shared: Arc<Shared<H>>,
    limits: Arc<Limits>,
    patience: Patience,
    buffer: BytesMut,
    output: Vec<u8>,
    lines: Lines,
    /// Taken so far.
    commands: usize,
    reservation: Reservation,
    /// Octets that the recipients of the open transaction take.
    envelope: usize,
    /// Among the connections of the client's network; `None` until a proxy has told the client.
    place: Option<NetworkPlace>,
    line_ends: LineEnds,
    /// When the message that is arriving must be here; `None` when none is.
    message_deadline: Option<Instant>,
}

impl<S, H> Driver<S, H>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    H: Handler,
{
    /// For a connection that has just been accepted.
    fn accepted(stream: S, shared: Arc<Shared<H>>, stop: watch::Receiver<bool>) -> Self {
        let limits = shared.limits();
        let patience = Patience::new(limits.session_timeout, stop);
        Self::new(stream, shared, limits, patience)
    }

    fn new(stream: S, shared: Arc<Shared<H>>, limits: Arc<Limits>, patience: Patience) -> Self {
        Self {
            stream,
            limits,
            patience,
            buffer: BytesMut::new(),
            output: Vec::new(),
            lines: Lines::default(),
            commands: 0,
            reservation: shared.reservation(),
            envelope: 0,
            place: None,
            line_ends: LineEnds::Strict,
            message_deadline: None,
            shared,
        }
    }

    /// From the banner, or the refusal in its place, to the end of the conversation; `None` if the
    /// client was gone before it began.
    async fn begin(
        &mut self,
        protocol: Protocol,
        peer: Peer,
        allowed: Result<(), Interruption>,
    ) -> Option<(Session<H::Transaction>, End)> {
        let hostname = self.shared.hostname().clone();
        let client = peer.ip;
        let session = Session::new(hostname, protocol, Arc::clone(&self.limits), peer);
        let admitted = match allowed {
            Ok(()) => self.hear_silence(client).await,
            Err(interruption) => Err(interruption),
        };
        let input = match admitted {
            Ok(()) => Input::Admitted,
            Err(Interruption::Because(reason)) => Input::Interrupted(reason),
            Err(Interruption::Lost) => return None,
        };
        Some(self.converse(session, input).await)
    }

    /// Does the client wait for the banner (RFC 5321 §3.1)?
    /// One that has done so lately is believed to.
    async fn hear_silence(&mut self, client: IpAddr) -> Result<(), Interruption> {
        let early = Interruption::Because(Reason::EarlyTalker);
        if !self.buffer.is_empty() {
            return Err(early);
        }
        if self.limits.banner_delay.is_zero() || self.shared.waited().has(client) {
            return Ok(());
        }
        let until = Instant::now() + self.limits.banner_delay;
        match self.fill(LINE_READ, until, OnStop::Close).await {
            Ok(()) => Err(early),
            Err(Interruption::Because(Reason::TimedOut)) => {
                self.shared.waited().add(client);
                Ok(())
            }
            Err(interruption) => Err(interruption),
        }
    }

    /// Goes from step to step until the connection ends or changes to TLS.
    async fn converse(
        &mut self,
        session: Session<H::Transaction>,
        input: Input<H::Transaction>,
    ) -> (Session<H::Transaction>, End) {
        let (mut session, mut step) = session.handle(input);
        loop {
            match self.perform(step, session.peer()).await {
                Outcome::Input(input) => (session, step) = session.handle(input),
                Outcome::End(end) => return (session, end),
            }
        }
    }

    async fn perform(
        &mut self,
        mut step: Step<H::Transaction>,
        peer: &Peer,
    ) -> Outcome<H::Transaction> {
        loop {
            match step {
                Step::Abandon(transaction, next) => {
                    Box::pin(self.shared.handler().abandon(transaction)).await;
                    self.message_over();
                    step = *next;
                }
                Step::Pause(pause, next) => {
                    tokio::time::sleep(pause).await;
                    step = *next;
                }
                Step::Read => return self.line(self.limits.command_line_bytes).await,
                Step::Answer(answer) => {
                    self.queue(answer, peer);
                    return self.line(self.limits.command_line_bytes).await;
                }
                Step::Challenge(challenge) => {
                    challenge.write_to(&mut self.output);
                    return self.line(auth::MAX_LINE).await;
                }
                Step::Ask(question) => {
                    return Outcome::Input(self.ask(question, peer).await);
                }
                Step::Receive(answer, transfer, body) => {
                    if let Some(answer) = answer {
                        self.queue(answer, peer);
                    }
                    return self.receive(transfer, body).await;
                }
                Step::Close(answer) => return self.end(answer, peer, End::Closed).await,
                Step::StartTls(answer) => return self.end(answer, peer, End::StartTls).await,
            }
        }
    }

    /// Hands a question on to the handler. Each answer is boxed, so that an idle connection does
    /// not carry its room, and none takes more than its own.
    async fn ask(
        &mut self,
        question: Question<H::Transaction>,
        peer: &Peer,
    ) -> Input<H::Transaction> {
        let gate = self.gate(peer);
        match question {
            Question::Login(trace_id, credentials) => {
                Input::Login(Box::pin(gate.authenticate(trace_id, credentials)).await)
            }
            Question::Mail(trace_id, reverse_path, parameters) => {
                Input::Mail(Box::pin(gate.mail(trace_id, reverse_path, parameters)).await)
            }
            Question::Rcpt(trace_id, mut transaction, recipient) => {
                let envelope = self.envelope + octets_of(&recipient);
                let asked = gate.rcpt(trace_id, &mut transaction, recipient);
                let mut answer = Box::pin(asked).await;
                if answer.is_ok() {
                    answer = self.hold_envelope(envelope, trace_id, peer);
                }
                Input::Rcpt(transaction, answer)
            }
            Question::Message(transaction, content) => {
                let accepted = Box::pin(gate.message(transaction, content)).await;
                self.message_over();
                Input::Message(accepted)
            }
        }
    }

    /// Counts the recipients of the open transaction among what is in flight, as far as they are more
    /// than an ordinary connection holds anyhow.
    fn hold_envelope(
        &mut self,
        octets: usize,
        trace_id: TraceId,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        self.envelope = octets;
        let held = self.reservation.resize(self.held(0), self.limits.in_flight_bytes);
        held.map_err(|reason| {
            let refusal = Refusal { reason, trace_id };
            self.shared.handler().refused(SessionRefusal { refusal, peer, about: "RCPT" });
            refusal
        })
    }

    /// What the open transaction holds together with so many octets of its message.
    fn held(&self, message: usize) -> usize {
        message + self.envelope.saturating_sub(FREE_ENVELOPE)
    }

    /// Sends the last answer of this conversation.
    async fn end(&mut self, answer: Answer, peer: &Peer, end: End) -> Outcome<H::Transaction> {
        self.queue(answer, peer);
        Outcome::End(if self.flush().await.is_ok() { end } else { End::Lost })
    }

    /// The handler's door, as far as the client's network may go through it.
    fn gate<'a>(&'a self, peer: &'a Peer) -> Gate<'a, H> {
        Gate { shared: &self.shared, limits: &self.limits, place: self.place.as_ref(), peer }
    }

    /// The next line, of at most `limit` octets. A client that drips it byte by byte has no more
    /// time for it.
    async fn line(&mut self, limit: usize) -> Outcome<H::Transaction> {
        let until = Instant::now() + self.limits.command_timeout;
        let until = self.message_deadline.map_or(until, |deadline| until.min(deadline));
        // Between the chunks of a message, the message may still come to its end.
        let on_stop = if self.message_deadline.is_some() { OnStop::Finish } else { OnStop::Close };
        loop {
            if self.output.len() > MAX_OUTPUT
                && let Err(interruption) = self.flush().await
            {
                return interruption.into();
            }
            if let Some(line) = self.lines.next(&mut self.buffer, limit) {
                self.commands += 1;
                if self.commands.is_multiple_of(STRETCH) {
                    tokio::task::yield_now().await;
                }
                return Outcome::Input(Input::Line(line));
            }
            if let Err(interruption) = self.fill(LINE_READ, until, on_stop).await {
                return interruption.into();
            }
        }
    }

    /// Reads a message or a chunk of it to its end, whether or not it is still wanted.
    async fn receive(&mut self, transfer: Transfer, mut body: Body) -> Outcome<H::Transaction> {
        let mut framing = match transfer {
            Transfer::Dots => Framing::dots(self.line_ends),
            Transfer::Chunk(size) => Framing::chunk(size),
        };
        let whole = Instant::now() + self.limits.message_timeout;
        let whole = *self.message_deadline.get_or_insert(whole);
        loop {
            let progress = framing.transfer(&mut self.buffer, &mut body);
            let held = self.held(body.len());
            if let Err(reason) = self.reservation.resize(held, self.limits.in_flight_bytes) {
                body.refuse(reason);
                // Less than is held already is always granted.
                self.reservation.resize(self.held(0), self.limits.in_flight_bytes).ok();
            }
            if progress == Progress::End {
                if body.refusal().is_some() {
                    self.message_over();
                }
                return Outcome::Input(Input::Received(body));
            }
            let until = whole.min(Instant::now() + self.limits.data_timeout);
            let amount = if body.len() < FIRST_DATA_READ { FIRST_DATA_READ } else { DATA_READ };
            if let Err(interruption) = self.fill(amount, until, OnStop::Finish).await {
                return interruption.into();
            }
        }
    }

    fn message_over(&mut self) {
        self.reservation.clear();
        self.envelope = 0;
        self.message_deadline = None;
    }

    fn queue(&mut self, answer: Answer, peer: &Peer) {
        match answer {
            Answer::Reply(reply) => reply.write_to(&mut self.output),
            Answer::Refusal(refusal, about) => {
                let about = about.as_str();
                self.shared.handler().refused(SessionRefusal { refusal, peer, about });
                Reply::refusal(refusal).write_to(&mut self.output);
            }
        }
    }

    /// Sends what waits to be sent, then waits for at least one byte more.
    async fn fill(
        &mut self,
        amount: usize,
        until: Instant,
        on_stop: OnStop,
    ) -> Result<(), Interruption> {
        self.flush().await?;
        make_room(&mut self.buffer, amount);
        // Reading is cancel-safe: bytes are in the buffer or still to be read.
        let read = self.stream.read_buf(&mut self.buffer);
        match self.patience.wait(read, until, on_stop).await {
            Ok(Ok(0) | Err(_)) => Err(Interruption::Lost),
            Ok(Ok(_)) => Ok(()),
            Err(reason) => Err(Interruption::Because(reason)),
        }
    }

    /// Sends what waits to be sent. A client that does not read is as good as gone.
    async fn flush(&mut self) -> Result<(), Interruption> {
        if self.output.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + self.limits.command_timeout;
        // Taken, so that an idle connection holds no memory for it.
        let output = std::mem::take(&mut self.output);
        let write = async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        };
        match self.patience.wait(write, until, OnStop::Finish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Interruption::Lost),
        }
    }

    /// The transaction that a lost connection leaves behind.
    async fn abandon(self, session: Session<H::Transaction>) {
        if let Some(transaction) = session.into_transaction() {
            Box::pin(self.shared.handler().abandon(transaction)).await;
        }
    }

    /// Closes so that the peer can still read the last reply: what it has already sent must be
    /// read, or its system throws the reply away with the connection.
    async fn close(mut self, session: Session<H::Transaction>) {
        if let Some(transaction) = session.into_transaction() {
            Box::pin(self.shared.handler().abandon(transaction)).await;
        }
        let stream = &mut self.stream;
        let linger = async move {
            stream.shutdown().await?;
            let mut rest = stream.take(MAX_LINGER);
            let mut dropped = [0; 512];
            while rest.read(&mut dropped).await? > 0 {}
            io::Result::Ok(())
        };
        match timeout(LINGER, linger).await {
            // There is nothing left to be done about any of these.
            Ok(Ok(()) | Err(_)) | Err(_) => {}
        }
    }
}

/// What a recipient takes while its message is on the way, with what it leads to.
fn octets_of(recipient: &EnvelopeRecipient) -> usize {
    let EnvelopeRecipient { address, parameters } = recipient;
    let texts = address.local_part().len() + address.domain().as_str().len();
    let orcpt = parameters.orcpt.as_ref().map_or(0, String::len);
    2 * size_of::<EnvelopeRecipient>() + texts + orcpt
}

/// Makes room to read `amount` octets, and gives back the room that a message needed.
fn make_room(buffer: &mut BytesMut, amount: usize) {
    if buffer.capacity() > 4 * amount && buffer.len() < buffer.capacity() / 4 {
        *buffer = BytesMut::from(buffer.as_ref());
    }
    buffer.reserve(amount);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_gives_back_what_a_message_needed() {
        for waiting in [b"".as_slice(), b"NOO"] {
            let mut buffer = BytesMut::with_capacity(DATA_READ);
            buffer.extend_from_slice(waiting);
            make_room(&mut buffer, LINE_READ);
            assert_eq!(buffer, waiting);
            assert!(buffer.capacity() <= 2 * LINE_READ, "{}", buffer.capacity());
        }
    }
}
