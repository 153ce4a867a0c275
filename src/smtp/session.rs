//! The session as a state machine (RFC 5321 §4.1.4, RFC 3030, RFC 3207): an input goes in, the
//! next state and what is to be done about it come out. No I/O, no clock; `connection.rs` does
//! what a [`Step`] asks and feeds the result back. Messages are in
//! `session/content.rs`, logging in (RFC 4954) is in `session/login.rs`.

mod about;
mod content;
mod login;

use std::sync::Arc;
use std::time::Duration;

use super::auth::Exchange;
use super::body::Body;
use super::command::{self, Chunk, ChunkPlace, Command, ForwardPath, Rcpt, Spelling};
use super::handler::{Credentials, MessageRefusal, Refusal};
use super::reason::Reason;
use super::reply::Reply;
use super::settings::{Limits, Protocol};
use super::wire::Line;
use crate::id::TraceId;
use crate::mail::{Address, Domain, EnvelopeRecipient, Login, MailParameters, Peer, ReversePath};
pub(crate) use about::About;

/// Refusals on a connection that are no error of the client's: what is deferred, recipients above the
/// limit, what was pipelined behind a refusal. Past so many each is charged as an error, as with
/// Postfix's `smtpd_recipient_overshoot_limit`.
const FREE_REFUSALS: usize = 1000;
/// So many refused recipients cost the client no time.
const FREE_ERRORS: usize = 5;
/// What each further one costs, until [`MAX_PAUSE`].
const PAUSE_STEP: Duration = Duration::from_millis(200);
/// The longest pause before a recipient is refused.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// A session: its state, and what is known in every state. `T` is the handler's transaction.
#[derive(Debug)]
pub(crate) struct Session<T> {
    context: Context,
    state: State<T>,
}

/// What is known whatever the state.
#[derive(Debug)]
pub(crate) struct Context {
    hostname: Domain,
    protocol: Protocol,
    limits: Arc<Limits>,
    peer: Peer,
    /// The connection's own id, for what is refused outside a transaction.
    trace_id: TraceId,
    errors: usize,
    failed_logins: u32,
    /// AUTH has come: what is no command after it may be a response in an exchange that did not
    /// begin.
    has_tried_auth: bool,
    /// Commands that lead nowhere, since the last message.
    idle_commands: usize,
    /// Those that are no error, so far.
    free_refusals: usize,
    transactions: usize,
}

/// Where the session stands; each state holds what is known in it.
#[derive(Debug)]
enum State<T> {
    /// Connected, the banner not yet sent.
    Connected,
    /// No transaction.
    Idle(Idle),
    /// An exchange of AUTH waits for the client's response.
    Authenticating(Exchange),
    /// Credentials are with the handler.
    LoginAsked,
    /// MAIL is with the handler.
    MailAsked(Opened),
    /// MAIL was accepted, no recipient yet.
    HasSender(Opened, T),
    /// RCPT is with the handler; so many recipients stand already.
    RcptAsked(Opened, usize),
    /// So many recipients stand.
    HasRecipients(Opened, T, usize),
    /// DATA is arriving.
    InData(Opened, T),
    /// A BDAT chunk is arriving.
    InChunk(Opened, T, Chunk),
    /// Between two chunks of a message.
    HasChunks(Opened, T, Body),
    /// A chunk that belongs to nothing is arriving, to be dropped and refused.
    StrayChunk(Idle, ChunkPlace),
    /// The message is with the handler.
    MessageAsked,
    /// A TLS handshake is under way.
    TlsAsked,
}

/// The states without a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// The banner was sent, EHLO has not come.
    Greeted,
    /// EHLO or HELO has come.
    Ready,
    /// A chunk was refused, and more of its message may be on their way (RFC 3030 §2).
    ChunksRefused(TraceId),
}

/// What is known of a transaction from MAIL on.
#[derive(Debug)]
struct Opened {
    trace_id: TraceId,
    spelling: Spelling,
    declared_size: u64,
    /// Chunks of the message that were too small for their trouble.
    small_chunks: usize,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input<T> {
    /// The client may talk to us.
    Admitted,
    /// The connection cannot go on.
    Interrupted(Reason),
    /// A command line.
    Line(Line),
    /// What the handler said to the credentials.
    Login(Result<Login, Refusal>),
    /// What the handler said to MAIL.
    Mail(Result<T, Refusal>),
    /// What the handler said to RCPT.
    Rcpt(T, Result<(), Refusal>),
    /// The whole of what a [`Step::Receive`] asked for was consumed.
    Received(Body),
    /// What the handler said to the message; its text, if it is durable.
    Message(Result<String, MessageRefusal>),
    /// TLS is running: protocol version and cipher suite.
    Secured(String),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// Read a command line.
    Read,
    /// Answer, then read a command line.
    Answer(Answer),
    /// Answer, send it all, and close.
    Close(Answer),
    /// Tell the handler that the transaction ended, then go on with the other step.
    Abandon(T, Box<Step<T>>),
    /// Let so much time pass, then go on with the other step.
    Pause(Duration, Box<Step<T>>),
    /// Answer, then read a response of AUTH, which may be longer than a command line.
    Challenge(Reply),
    /// Ask the handler.
    Ask(Question<T>),
    /// Answer, then read a message's bytes into the body.
    Receive(Option<Answer>, Transfer, Body),
    /// Answer, drop all unread bytes, and start the TLS handshake.
    StartTls(Answer),
}

/// What the handler is asked.
#[derive(Debug)]
pub(crate) enum Question<T> {
    /// Who has these credentials?
    Login(TraceId, Credentials),
    /// MAIL: may this transaction begin?
    Mail(TraceId, ReversePath, MailParameters),
    /// RCPT: may it have this recipient?
    Rcpt(TraceId, T, EnvelopeRecipient),
    /// Is the message taken?
    Message(T, Vec<u8>),
}

/// How the bytes of a message are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// DATA.
    Dots,
    /// BDAT, with its size in octets.
    Chunk(u64),
}

/// What the peer is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A reply, its refusal (if it is one) already known to the handler.
    Reply(Reply),
    /// A refusal by the session itself, to be recorded.
    Refusal(Refusal, About),
}

type Next<T> = (State<T>, Step<T>);

impl<T> Session<T> {
    /// A session with a client that has just connected.
    pub(crate) fn new(
        hostname: Domain,
        protocol: Protocol,
        limits: Arc<Limits>,
        peer: Peer,
    ) -> Self {
        let trace_id = TraceId::generate();
        let context = Context {
            hostname,
            protocol,
            limits,
            peer,
            trace_id,
            errors: 0,
            failed_logins: 0,
            has_tried_auth: false,
            idle_commands: 0,
            free_refusals: 0,
            transactions: 0,
        };
        Self { context, state: State::Connected }
    }

    /// The client, as far as it is known.
    pub(crate) fn peer(&self) -> &Peer {
        &self.context.peer
    }

    /// The connection's own id.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }

    /// The transaction that is open, if one is: what a lost connection leaves behind.
    pub(crate) fn into_transaction(self) -> Option<T> {
        match self.state {
            State::HasSender(_, transaction)
            | State::HasRecipients(_, transaction, _)
            | State::InData(_, transaction)
            | State::InChunk(_, transaction, _)
            | State::HasChunks(_, transaction, _) => Some(transaction),
            State::Connected
            | State::Idle(_)
            | State::Authenticating(_)
            | State::LoginAsked
            | State::MailAsked(_)
            | State::RcptAsked(..)
            | State::StrayChunk(..)
            | State::MessageAsked
            | State::TlsAsked => None,
        }
    }

    /// Takes an input, and says what is to be done.
    pub(crate) fn handle(self, input: Input<T>) -> (Self, Step<T>) {
        let Self { mut context, state } = self;
        let (state, step) = match (state, input) {
            (State::Connected, Input::Admitted) => context.greet(),
            (state, Input::Interrupted(reason)) => context.interrupt(state, reason),
            (State::Authenticating(exchange), Input::Line(line)) => {
                context.auth_line(exchange, line)
            }
            (state, Input::Line(line)) => context.line(state, line),
            (State::LoginAsked, Input::Login(answer)) => context.login_answered(answer),
            (State::MailAsked(opened), Input::Mail(answer)) => {
                context.mail_answered(opened, answer)
            }
            (State::RcptAsked(opened, count), Input::Rcpt(transaction, answer)) => {
                context.rcpt_answered(opened, transaction, count, answer)
            }
            (State::InData(opened, transaction), Input::Received(body)) => {
                context.content_ended(opened, transaction, body, Idle::Ready, "DATA")
            }
            (State::InChunk(opened, transaction, chunk), Input::Received(body)) => {
                context.chunk_ended(opened, transaction, chunk, body)
            }
            (State::StrayChunk(idle, place), Input::Received(_)) => {
                context.stray_chunk_ended(idle, place)
            }
            (State::MessageAsked, Input::Message(answer)) => context.message_answered(answer),
            (State::TlsAsked, Input::Secured(tls)) => context.secured(tls),
            // What follows is not an answer to what was asked; the driver never does that.
            (state, Input::Mail(Ok(transaction)) | Input::Rcpt(transaction, _)) => {
                let (state, close) = context.interrupt(state, Reason::InternalError);
                (state, Step::Abandon(transaction, Box::new(close)))
            }
            (
                state,
                Input::Admitted
                | Input::Login(_)
                | Input::Mail(Err(_))
                | Input::Received(_)
                | Input::Message(_)
                | Input::Secured(_),
            ) => context.interrupt(state, Reason::InternalError),
        };
        (Self { context, state }, step)
    }
}

impl<T> State<T> {
    fn trace_id(&self) -> Option<TraceId> {
        match self {
            Self::MailAsked(opened)
            | Self::HasSender(opened, _)
            | Self::RcptAsked(opened, _)
            | Self::HasRecipients(opened, ..)
            | Self::InData(opened, _)
            | Self::InChunk(opened, ..)
            | Self::HasChunks(opened, ..) => Some(opened.trace_id),
            Self::Idle(Idle::ChunksRefused(trace_id))
            | Self::StrayChunk(Idle::ChunksRefused(trace_id), _) => Some(*trace_id),
            Self::Connected
            | Self::Idle(Idle::Greeted | Idle::Ready)
            | Self::Authenticating(_)
            | Self::LoginAsked
            | Self::StrayChunk(Idle::Greeted | Idle::Ready, _)
            | Self::MessageAsked
            | Self::TlsAsked => None,
        }
    }

    /// Ends the transaction if there is one, then does `step` in the state without it.
    fn ended(self, idle: Idle, step: Step<T>) -> Next<T> {
        let state = State::Idle(idle);
        match self {
            Self::HasSender(_, transaction)
            | Self::HasRecipients(_, transaction, _)
            | Self::InData(_, transaction)
            | Self::InChunk(_, transaction, _)
            | Self::HasChunks(_, transaction, _) => {
                (state, Step::Abandon(transaction, Box::new(step)))
            }
            Self::Connected
            | Self::Idle(_)
            | Self::Authenticating(_)
            | Self::LoginAsked
            | Self::MailAsked(_)
            | Self::RcptAsked(..)
            | Self::StrayChunk(..)
            | Self::MessageAsked
            | Self::TlsAsked => (state, step),
        }
    }
}

fn reply<T>(reply: Reply) -> Step<T> {
    Step::Answer(Answer::Reply(reply))
}

impl Context {
    fn greet<T>(&self) -> Next<T> {
        (State::Idle(Idle::Greeted), reply(Reply::banner(&self.hostname)))
    }

    /// Says why the connection ends, and ends it.
    fn interrupt<T>(&self, state: State<T>, reason: Reason) -> Next<T> {
        let trace_id = state.trace_id().unwrap_or(self.trace_id);
        let about = match &state {
            State::Connected => "connection",
            State::InData(..) => "DATA",
            State::InChunk(..) | State::HasChunks(..) | State::StrayChunk(..) => "BDAT",
            State::TlsAsked => "STARTTLS",
            State::Authenticating(_) | State::LoginAsked => "AUTH",
            State::Idle(_)
            | State::MailAsked(_)
            | State::HasSender(..)
            | State::RcptAsked(..)
            | State::HasRecipients(..)
            | State::MessageAsked => "waiting for a command",
        };
        let answer = Answer::Refusal(Refusal { reason, trace_id }, About::from(about));
        (state, Step::Close(answer))
    }

    /// A refusal by the session itself, which closes it when its budget of errors is used up.
    fn refuse<T>(&mut self, reason: Reason, trace_id: Option<TraceId>, about: About) -> Step<T> {
        self.charge(reason);
        let reason = self.within_budget(reason);
        let trace_id = trace_id.unwrap_or(self.trace_id);
        close_if_421(reason, Answer::Refusal(Refusal { reason, trace_id }, about))
    }

    /// The same for what is no error of its own.
    fn refuse_freely<T>(&mut self, refusal: Refusal, about: About) -> Step<T> {
        self.charge_free_refusal();
        let reason = self.within_budget(refusal.reason);
        close_if_421(reason, Answer::Refusal(Refusal { reason, ..refusal }, about))
    }

    fn charge(&mut self, reason: Reason) {
        if reason.is_transient() {
            self.charge_free_refusal();
        } else {
            self.errors += 1;
        }
    }

    fn charge_free_refusal(&mut self) {
        self.free_refusals += 1;
        self.errors += usize::from(self.free_refusals > FREE_REFUSALS);
    }

    fn within_budget(&self, reason: Reason) -> Reason {
        if self.errors >= self.limits.errors { Reason::TooManyErrors } else { reason }
    }

    fn line<T>(&mut self, state: State<T>, line: Line) -> Next<T> {
        let (command, about) = match line {
            Line::Command(line) => {
                self.has_tried_auth |= about::carries_credentials(&line);
                (command::parse(&line, self.protocol), About::line(&line))
            }
            Line::TooLong => (Err(Reason::LineTooLong), About::from("(line too long)")),
            Line::BadEnding => (Err(Reason::BadLineEnding), About::from("(bad line ending)")),
        };
        match command {
            Ok(command) => self.command(state, command, about),
            Err(reason) => {
                let is_unknown = reason == Reason::UnknownCommand;
                let about = if is_unknown && self.has_tried_auth { About::auth() } else { about };
                let step = self.refuse(reason, state.trace_id(), about);
                (state, step)
            }
        }
    }

    fn command<T>(&mut self, state: State<T>, command: Command, about: About) -> Next<T> {
        if leads_nowhere(&command) && self.charge_idle_command() {
            let trace_id = state.trace_id().unwrap_or(self.trace_id);
            let refusal = Refusal { reason: Reason::TooManyErrors, trace_id };
            return (state, Step::Close(Answer::Refusal(refusal, about)));
        }
        if let Some(reason) = self.premature(&command) {
            let step = self.refuse(reason, state.trace_id(), about);
            return (state, step);
        }
        match command {
            Command::Ehlo(name) => self.hello(state, name, Hello::Ehlo),
            Command::Helo(name) => self.hello(state, name, Hello::Helo),
            Command::Mail(path, parameters) => self.mail(state, path, parameters, about),
            Command::Rcpt(rcpt) => self.rcpt(state, rcpt, about),
            Command::Data => self.data(state, about),
            Command::Bdat(chunk) => self.bdat(state, chunk),
            Command::EndlessBdat => {
                // What follows cannot be told from commands, so nothing after it may be read.
                let trace_id = state.trace_id().unwrap_or(self.trace_id);
                let refusal = Refusal { reason: Reason::BadSyntax, trace_id };
                (state, Step::Close(Answer::Refusal(refusal, about)))
            }
            Command::Rset => {
                let idle = match state.idle() {
                    Some(Idle::Greeted) => Idle::Greeted,
                    Some(Idle::Ready | Idle::ChunksRefused(_)) | None => Idle::Ready,
                };
                state.ended(idle, reply(Reply::RESET))
            }
            Command::Noop => (state, reply(Reply::NOOP)),
            Command::Vrfy => (state, reply(Reply::VRFY)),
            Command::Help => (state, reply(Reply::help(self.protocol))),
            Command::Quit => (state, Step::Close(Answer::Reply(Reply::BYE))),
            Command::StartTls => self.start_tls(state, about),
            Command::Auth(mechanism, initial) => self.auth(state, &mechanism, initial),
        }
    }

    /// Counts a command that leads nowhere; whether the budget of errors is used up by it.
    fn charge_idle_command(&mut self) -> bool {
        self.idle_commands += 1;
        let is_charged = self.idle_commands > self.limits.idle_commands;
        self.errors += usize::from(is_charged);
        is_charged && self.errors >= self.limits.errors
    }

    /// RFC 5321 §4.1.4: EHLO and HELO reset the session.
    fn hello<T>(&mut self, state: State<T>, name: String, hello: Hello) -> Next<T> {
        self.peer.helo = name;
        self.peer.esmtp = hello == Hello::Ehlo;
        let answer = match hello {
            Hello::Ehlo => Reply::ehlo(&self.hostname, &self.limits, self.offer()),
            Hello::Helo => Reply::helo(&self.hostname),
        };
        state.ended(Idle::Ready, reply(answer))
    }

    fn mail<T>(
        &mut self,
        state: State<T>,
        reverse_path: ReversePath,
        parameters: MailParameters,
        about: About,
    ) -> Next<T> {
        if !matches!(state, State::Idle(Idle::Ready | Idle::ChunksRefused(_))) {
            return self.out_of_sequence(state, about);
        }
        if self.transactions >= self.limits.transactions {
            let step = self.refuse(Reason::TooManyTransactions, None, about);
            return (state, step);
        }
        self.transactions += 1;
        let trace_id = TraceId::generate();
        let declared_size = parameters.declared_size.unwrap_or(0);
        // RFC 1870 §6.1: known to be too big already.
        if declared_size > self.limits.message_bytes {
            let step = self.refuse(Reason::MessageTooBig, Some(trace_id), about);
            return (State::Idle(Idle::Ready), step);
        }
        let spelling = if parameters.smtputf8 { Spelling::Utf8 } else { Spelling::Ascii };
        let opened = Opened { trace_id, spelling, declared_size, small_chunks: 0 };
        let question = Question::Mail(trace_id, reverse_path, parameters);
        (State::MailAsked(opened), Step::Ask(question))
    }

    fn mail_answered<T>(&mut self, opened: Opened, answer: Result<T, Refusal>) -> Next<T> {
        match answer {
            Ok(transaction) => (State::HasSender(opened, transaction), reply(Reply::SENDER_OK)),
            Err(refusal) => (State::Idle(Idle::Ready), self.refused_by_handler(refusal)),
        }
    }

    fn rcpt<T>(&mut self, state: State<T>, rcpt: Rcpt, about: About) -> Next<T> {
        let (opened, transaction, count) = match state {
            State::HasSender(opened, transaction) => (opened, transaction, 0),
            State::HasRecipients(opened, transaction, count) => (opened, transaction, count),
            state => return self.out_of_sequence(state, about),
        };
        match self.recipient(rcpt, opened.spelling, count) {
            Ok(recipient) => {
                let question = Question::Rcpt(opened.trace_id, transaction, recipient);
                (State::RcptAsked(opened, count), Step::Ask(question))
            }
            Err(reason) => {
                let step = self.refuse(reason, Some(opened.trace_id), about);
                (with_recipients(opened, transaction, count), step)
            }
        }
    }

    /// The recipient, if the session itself has nothing against it.
    fn recipient(
        &self,
        rcpt: Rcpt,
        spelling: Spelling,
        count: usize,
    ) -> Result<EnvelopeRecipient, Reason> {
        if rcpt.spelling == Spelling::Utf8 && spelling == Spelling::Ascii {
            return Err(Reason::NeedsSmtpUtf8);
        }
        // RFC 5321 §4.5.3.1.10: the client sends those that were accepted, and the others later.
        if count >= self.limits.recipients {
            return Err(Reason::TooManyRecipients);
        }
        let address = match rcpt.path {
            ForwardPath::Address(address) => address,
            ForwardPath::Postmaster => Address::from_parts("postmaster", self.hostname.as_str())
                .map_err(|_| Reason::BadAddress)?,
        };
        Ok(EnvelopeRecipient { address, parameters: rcpt.parameters })
    }

    fn rcpt_answered<T>(
        &mut self,
        opened: Opened,
        transaction: T,
        count: usize,
        answer: Result<(), Refusal>,
    ) -> Next<T> {
        match answer {
            Ok(()) => {
                (State::HasRecipients(opened, transaction, count + 1), reply(Reply::RECIPIENT_OK))
            }
            Err(refusal) => {
                let step = self.refused_by_handler(refusal);
                let step = match self.pause() {
                    Duration::ZERO => step,
                    pause => Step::Pause(pause, Box::new(step)),
                };
                (with_recipients(opened, transaction, count), step)
            }
        }
    }

    /// How long a client waits that has asked for so many recipients who do not exist.
    fn pause(&self) -> Duration {
        let charged = u32::try_from(self.errors.saturating_sub(FREE_ERRORS)).unwrap_or(u32::MAX);
        PAUSE_STEP.saturating_mul(charged).min(MAX_PAUSE)
    }

    /// A refused command or recipient; the budget of errors holds for it too.
    fn refused_by_handler<T>(&mut self, refusal: Refusal) -> Step<T> {
        self.charge(refusal.reason);
        match self.within_budget(refusal.reason) {
            reason if reason == refusal.reason => {
                close_if_421(reason, Answer::Reply(Reply::refusal(refusal)))
            }
            reason => {
                let refusal = Refusal { reason, ..refusal };
                Step::Close(Answer::Refusal(refusal, About::from("MAIL or RCPT")))
            }
        }
    }

    fn start_tls<T>(&mut self, state: State<T>, about: About) -> Next<T> {
        match state {
            State::Idle(_) if self.peer.tls.is_none() => {
                (State::TlsAsked, Step::StartTls(Answer::Reply(Reply::START_TLS)))
            }
            state if self.peer.tls.is_some() => {
                let step = self.refuse(Reason::AlreadyTls, state.trace_id(), about);
                (state, step)
            }
            state => self.out_of_sequence(state, about),
        }
    }

    /// RFC 3207 §4.2: nothing that the client said before TLS is believed.
    fn secured<T>(&mut self, tls: String) -> Next<T> {
        self.peer.helo = String::new();
        self.peer.esmtp = false;
        self.peer.tls = Some(tls);
        (State::Idle(Idle::Greeted), Step::Read)
    }

    fn out_of_sequence<T>(&mut self, state: State<T>, about: About) -> Next<T> {
        let step = self.refuse(Reason::BadSequence, state.trace_id(), about);
        (state, step)
    }
}

impl<T> State<T> {
    /// The state without a transaction, if this is one.
    fn idle(&self) -> Option<Idle> {
        match self {
            Self::Connected | Self::Idle(Idle::Greeted) => Some(Idle::Greeted),
            Self::Idle(idle) | Self::StrayChunk(idle, _) => Some(*idle),
            Self::Authenticating(_)
            | Self::LoginAsked
            | Self::MailAsked(_)
            | Self::HasSender(..)
            | Self::RcptAsked(..)
            | Self::HasRecipients(..)
            | Self::InData(..)
            | Self::InChunk(..)
            | Self::HasChunks(..)
            | Self::MessageAsked
            | Self::TlsAsked => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    Ehlo,
    Helo,
}

/// Whether a command may come any number of times without a message coming of it.
fn leads_nowhere(command: &Command) -> bool {
    match command {
        Command::Noop
        | Command::Rset
        | Command::Vrfy
        | Command::Help
        | Command::Ehlo(_)
        | Command::Helo(_)
        | Command::Auth(..) => true,
        Command::Mail(..)
        | Command::Rcpt(_)
        | Command::Data
        | Command::Bdat(_)
        | Command::EndlessBdat
        | Command::Quit
        | Command::StartTls => false,
    }
}

fn with_recipients<T>(opened: Opened, transaction: T, count: usize) -> State<T> {
    match count {
        0 => State::HasSender(opened, transaction),
        count => State::HasRecipients(opened, transaction, count),
    }
}

/// RFC 5321 §3.8: 421 says that the connection is about to be closed.
fn close_if_421<T>(reason: Reason, answer: Answer) -> Step<T> {
    if reason.code() == 421 { Step::Close(answer) } else { Step::Answer(answer) }
}
