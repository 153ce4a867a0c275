//! The session driven without I/O: bytes in, bytes out. What `connection.rs` does with sockets,
//! without a socket, so that every cut of the same bytes can be tried.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::scripted::{Scripted, Told, Transaction, hostname, normalized};
use crate::id::TraceId;
use crate::mail::Peer;
use crate::smtp::auth;
use crate::smtp::body::Body;
use crate::smtp::handler::{Handler, Refusal, SessionRefusal};
use crate::smtp::reason::Reason;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Answer, Input, Question, Session, Step, Transfer};
use crate::smtp::settings::{Limits, Protocol};
use crate::smtp::wire::{Framing, LineEnds, Lines, Progress};

const TLS: &str = "TLSv1.3 TLS13_AES_256_GCM_SHA384";

pub(crate) struct Machine {
    session: Option<Session<Transaction>>,
    pub(crate) handler: Scripted,
    lines: Lines,
    limits: Arc<Limits>,
    buffer: BytesMut,
    receiving: Option<(Framing, Body)>,
    output: Vec<u8>,
    line_limit: usize,
    pub(crate) pauses: Vec<Duration>,
    pub(crate) closed: bool,
}

/// The result of a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the scripted handler never waits"),
    }
}

pub(crate) fn peer() -> Peer {
    let ip = "192.0.2.7".parse().expect("valid");
    Peer { ip, port: 45000, helo: String::new(), esmtp: false, tls: None, login: None }
}

impl Machine {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::speaking(Protocol::Mx, limits)
    }

    /// A connection to a listener of that protocol, after the handshake if it has an implicit one.
    pub(crate) fn speaking(protocol: Protocol, limits: &Limits) -> Self {
        let limits = Arc::new(limits.clone());
        let tls = (protocol == Protocol::Submissions).then(|| TLS.to_owned());
        let peer = Peer { tls, ..peer() };
        let mut machine = Self {
            session: Some(Session::new(hostname(), protocol, Arc::clone(&limits), peer)),
            line_limit: limits.command_line_bytes,
            pauses: Vec::new(),
            handler: Scripted::default(),
            lines: Lines::default(),
            limits,
            buffer: BytesMut::new(),
            receiving: None,
            output: Vec::new(),
            closed: false,
        };
        machine.input(Input::Admitted);
        machine
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while !self.closed {
            let input = match &mut self.receiving {
                Some((framing, body)) => match framing.transfer(&mut self.buffer, body) {
                    Progress::More => return,
                    Progress::End => {
                        let (_, body) = self.receiving.take().expect("matched");
                        Input::Received(body)
                    }
                },
                None => match self.lines.next(&mut self.buffer, self.line_limit) {
                    Some(line) => Input::Line(line),
                    None => return,
                },
            };
            self.input(input);
        }
    }

    /// What the server has said since the last time.
    pub(crate) fn said(&mut self) -> String {
        normalized(&String::from_utf8(std::mem::take(&mut self.output)).expect("ASCII"))
    }

    /// The connection is lost.
    pub(crate) fn lose(&mut self) {
        if let Some(transaction) = self.session.take().and_then(Session::into_transaction) {
            now(self.handler.abandon(transaction));
        }
    }

    pub(crate) fn input(&mut self, input: Input<Transaction>) {
        let mut input = Some(input);
        while let Some(next) = input.take() {
            let (session, step) = self.session.take().expect("not lost").handle(next);
            let peer = session.peer().clone();
            self.line_limit = self.limits.command_line_bytes;
            self.session = Some(session);
            input = self.perform(step, &peer);
        }
    }

    fn perform(&mut self, step: Step<Transaction>, peer: &Peer) -> Option<Input<Transaction>> {
        match step {
            Step::Read => None,
            Step::Answer(answer) => {
                self.answer(answer, peer);
                None
            }
            Step::Close(answer) => {
                self.answer(answer, peer);
                self.closed = true;
                None
            }
            Step::Abandon(transaction, next) => {
                now(self.handler.abandon(transaction));
                self.perform(*next, peer)
            }
            Step::Pause(pause, next) => {
                self.pauses.push(pause);
                self.perform(*next, peer)
            }
            Step::Challenge(challenge) => {
                challenge.write_to(&mut self.output);
                self.line_limit = auth::MAX_LINE;
                None
            }
            Step::Ask(question) => Some(self.ask(question, peer)),
            Step::Receive(answer, transfer, body) => {
                if let Some(answer) = answer {
                    self.answer(answer, peer);
                }
                let framing = match transfer {
                    Transfer::Dots => Framing::dots(LineEnds::Strict),
                    Transfer::Chunk(size) => Framing::chunk(size),
                };
                self.receiving = Some((framing, body));
                None
            }
            Step::StartTls(answer) => {
                self.answer(answer, peer);
                self.buffer.clear();
                Some(Input::Secured(TLS.to_owned()))
            }
        }
    }

    fn ask(&mut self, question: Question<Transaction>, peer: &Peer) -> Input<Transaction> {
        match question {
            Question::Login(id, credentials) => {
                Input::Login(now(self.handler.authenticate(id, peer, credentials)))
            }
            Question::Mail(id, path, parameters) => {
                Input::Mail(now(self.handler.mail(id, peer, path, parameters)))
            }
            Question::Rcpt(_, mut transaction, recipient) => {
                let answer = now(self.handler.rcpt(&mut transaction, recipient));
                Input::Rcpt(transaction, answer)
            }
            Question::Message(transaction, content) => {
                let answer = now(self.handler.message(transaction, content));
                Input::Message(answer.map(str::to_owned))
            }
        }
    }

    fn answer(&mut self, answer: Answer, peer: &Peer) {
        match answer {
            Answer::Reply(reply) => reply.write_to(&mut self.output),
            Answer::Refusal(refusal, about) => {
                let about = about.as_str();
                self.handler.refused(SessionRefusal { refusal, peer, about });
                Reply::refusal(refusal).write_to(&mut self.output);
            }
        }
    }
}

/// What the server says to `bytes`, sent in pieces of the given lengths, the rest at once.
fn converse(limits: &Limits, bytes: &[u8], cuts: &[usize]) -> (String, Vec<Told>) {
    converse_with(Machine::new(limits), bytes, cuts)
}

fn converse_with(mut machine: Machine, bytes: &[u8], cuts: &[usize]) -> (String, Vec<Told>) {
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        machine.feed(piece);
        rest = after;
    }
    machine.feed(rest);
    machine.lose();
    machine.handler.assert_balanced();
    (machine.said(), machine.handler.told())
}

/// Pieces of a session, sensible and otherwise.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "EHLO client.test\r\n",
        "HELO client.test\r\n",
        "MAIL FROM:<a@example.org>\r\n",
        "MAIL FROM:<> SIZE=100 BODY=8BITMIME SMTPUTF8\r\n",
        "MAIL FROM:<refused@example.org>\r\n",
        "MAIL FROM:<a@example.org> SIZE=99999999999999999999\r\n",
        "RCPT TO:<alice@example.test>\r\n",
        "RCPT TO:<nobody@example.test>\r\n",
        "RCPT TO:<x@elsewhere.test>\r\n",
        "RCPT TO:<Postmaster>\r\n",
        "DATA\r\n",
        "Subject: x\r\n\r\nbody\r\n.\r\n",
        "..stuffed\r\n.\r\n",
        ".\r\n",
        "bare\nLF\r\n.\r\n",
        "bare\rCR\r\n.\r\n",
        "\r\n.\r\r\n.\r\n",
        "BDAT 0\r\n",
        "BDAT 0 LAST\r\n",
        "BDAT 7\r\nabcde\r\n",
        "BDAT 7 LAST\r\nabcd\r\n\r\n",
        "BDAT 3\r\nab\r",
        "BDAT 3 LAST\r\n\n\r\n",
        "BDAT 50 LAST\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY alice\r\n",
        "QUIT\r\n",
        "BDAT x\r\n",
        "JUNK\r\n",
        "AUTH PLAIN AGEAYg==\r\n",
        "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
        "AUTH PLAIN\r\n",
        "AUTH LOGIN\r\n",
        "AUTH LOGIN YWxpY2U=\r\n",
        "YWxpY2U=\r\n",
        "c2VjcmV0\r\n",
        "*\r\n",
        "\0\r\n",
        "\r",
        "\n",
        "\r\n",
    ]);
    prop_oneof![
        12 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
        1 => (0..90_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

fn limits() -> Limits {
    Limits { command_line_bytes: 70, message_bytes: 60, recipients: 2, ..Limits::default() }
}

proptest! {
    /// Any cutting of the same bytes gives the same replies and the same calls of the handler.
    #[test]
    fn replies_do_not_depend_on_how_bytes_are_cut(
        protocol in select(vec![Protocol::Mx, Protocol::Submission, Protocol::Submissions]),
        fragments in vec(fragment(), 1..40),
        cuts in vec(1..50_usize, 0..60),
    ) {
        let converse = |bytes: &[u8], cuts: &[usize]| {
            converse_with(Machine::speaking(protocol, &limits()), bytes, cuts)
        };
        let mut bytes = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\n".to_vec();
        bytes.extend(fragments.concat());
        let whole = converse(&bytes, &[]);
        prop_assert_eq!(&converse(&bytes, &cuts), &whole);
        prop_assert_eq!(&converse(&bytes, &vec![1; bytes.len()]), &whole);
    }
}

#[test]
fn an_interruption_names_its_reason_and_leaves_no_transaction() {
    for reason in [Reason::TimedOut, Reason::ShuttingDown] {
        let mut machine = Machine::new(&Limits::default());
        machine.feed(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\nhalf");
        machine.said();
        machine.input(Input::Interrupted(reason));
        assert!(machine.said().contains(reason.word()));
        assert!(machine.closed);
        machine.lose();
        machine.handler.assert_balanced();
        assert_eq!(machine.handler.refusals(), [reason]);
    }
}

/// A driver that answers what was not asked ends the session; it loses no transaction.
#[test]
fn answers_to_nothing_end_the_session() {
    let inputs = [
        Input::Admitted,
        Input::Login(Err(Refusal {
            reason: Reason::BadCredentials,
            trace_id: TraceId::generate(),
        })),
        Input::Received(Body::new(1, 1)),
        Input::Message(Ok(String::new())),
        Input::Secured(String::new()),
    ];
    for input in inputs {
        let mut machine = Machine::new(&Limits::default());
        machine.feed(b"EHLO a\r\nMAIL FROM:<>\r\n");
        machine.input(input);
        assert!(machine.closed);
        machine.lose();
        machine.handler.assert_balanced();
    }
}

#[test]
fn credentials_never_reach_the_records() {
    let mut machine = Machine::new(&Limits::default());
    machine.feed(b"EHLO a\r\nauth PLAIN AGEAc2VjcmV0\r\n");
    let refused = Told::Refused(Reason::NotImplemented, "AUTH ...".to_owned());
    assert_eq!(machine.handler.told(), [refused]);
}

#[test]
fn records_are_printable_and_short() {
    let mut machine = Machine::new(&Limits::default());
    machine.feed(format!("JUNK \u{1b}[2J{}\r\n", "é".repeat(500)).as_bytes());
    let [Told::Refused(_, about)] = &machine.handler.told()[..] else { panic!("one refusal") };
    assert_eq!(about.chars().count(), 200);
    assert!(about.starts_with("JUNK ?[2Jé"));
}

#[test]
fn starttls_forgets_what_was_said_before_it() {
    let mut machine = Machine::new(&Limits::default());
    machine.feed(b"EHLO before.test\r\nSTARTTLS\r\nMAIL FROM:<injected@example.org>\r\n");
    machine.feed(b"MAIL FROM:<a@example.org>\r\n");
    machine.feed(b"EHLO after.test\r\nMAIL FROM:<a@example.org>\r\nSTARTTLS\r\n");
    let said = machine.said();
    assert!(said.contains("220 2.0.0 Ready to start TLS\r\n503 5.5.1"), "{said}");
    assert_eq!(said.matches("250-STARTTLS").count(), 1, "offered before TLS only: {said}");
    assert!(said.contains("[already-tls <id>]"), "{said}");
    let mails: Vec<_> = machine
        .handler
        .told()
        .into_iter()
        .filter_map(|told| match told {
            Told::Mail(peer, path, _) => Some((peer.helo, peer.tls.is_some(), path.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(mails, [("after.test".to_owned(), true, "<a@example.org>".to_owned())]);
}

#[test]
fn the_handler_learns_what_the_client_said() {
    for (hello, esmtp) in [("EHLO", true), ("HELO", false)] {
        let mut machine = Machine::new(&Limits::default());
        let said = format!("{hello} client.test\r\nMAIL FROM:<A@Example.org> ENVID=x+2By\r\n");
        machine.feed(said.as_bytes());
        machine.feed(b"RCPT TO:<postmaster> NOTIFY=NEVER ORCPT=rfc822;p+3Dq@example.org\r\n");
        let [Told::Mail(peer, path, mail), Told::Rcpt(rcpt)] = &machine.handler.told()[..] else {
            panic!("{:?}", machine.handler.told())
        };
        assert_eq!((peer.helo.as_str(), peer.esmtp), ("client.test", esmtp));
        assert_eq!(path.to_string(), "<A@example.org>");
        assert_eq!(mail.envid.as_deref(), Some("x+y"));
        assert_eq!(rcpt.address.to_string(), "postmaster@mx.example.test");
        assert_eq!(rcpt.parameters.orcpt.as_deref(), Some("rfc822;p=q@example.org"));
        assert!(rcpt.parameters.notify.is_some_and(|notify| notify.never));
    }
}

/// One message's refusals carry one id, and it is not the next one's.
#[test]
fn each_transaction_has_its_own_id() {
    let mut machine = Machine::new(&Limits::default());
    machine.feed(b"EHLO a\r\nJUNK\r\nMAIL FROM:<>\r\nRCPT TO:<x@elsewhere.test>\r\nRCPT TO:<>\r\n");
    machine.feed(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<x@elsewhere.test>\r\nRSET\r\nJUNK\r\n");
    let output = String::from_utf8(std::mem::take(&mut machine.output)).expect("ASCII");
    let ids: Vec<TraceId> = output
        .lines()
        .filter_map(|line| line.strip_suffix(']')?.rsplit_once(' ')?.1.parse().ok())
        .collect();
    let [outside, first, same, second, outside_again] = ids[..] else { panic!("{output}") };
    assert_eq!((outside, first), (outside_again, same));
    assert!(outside != first && first != second && outside != second);
}

#[test]
fn recipients_far_above_the_limit_are_charged_as_errors() {
    let limits = Limits { recipients: 1, errors: 2, ..Limits::default() };
    let envelope = "EHLO client.test\r\nMAIL FROM:<>\r\n".to_owned();
    let recipients = "RCPT TO:<b@example.test>\r\n".repeat(2000);
    let (said, _) = converse(&limits, (envelope + &recipients).as_bytes(), &[]);
    assert_eq!(said.matches("452 4.5.3").count(), 1001);
    assert!(said.contains("\r\n421 4.7.0 Too many errors"), "it ends with the second error");
}
