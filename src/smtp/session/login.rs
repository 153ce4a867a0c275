//! The part of a session that is about logging in: what may not come before it (RFC 4954 §6,
//! RFC 3207 §4), AUTH and its exchange, and what a failed login costs.

use std::time::Duration;

use super::about::About;
use super::{Answer, Context, Idle, Next, Question, State, Step, close_if_421, reply};
use crate::mail::{Login, Secret};
use crate::smtp::auth::{Exchange, Progress};
use crate::smtp::command::Command;
use crate::smtp::handler::Refusal;
use crate::smtp::reason::Reason;
use crate::smtp::reply::{Offer, Reply};
use crate::smtp::wire::Line;

/// Failed logins on a connection, with the last of which it is closed.
const MAX_FAILED_LOGINS: u32 = 3;
/// How long a client waits for the answer to its first failed login; each further one doubles it.
const FAILED_LOGIN_PAUSE: Duration = Duration::from_secs(1);

impl Context {
    /// What EHLO offers at this moment.
    pub(super) fn offer(&self) -> Offer {
        match (&self.peer.tls, &self.peer.login) {
            (None, _) => Offer::StartTls,
            (Some(_), None) if self.protocol.is_submission() => Offer::Auth,
            (Some(_), _) => Offer::Nothing,
        }
    }

    /// Why a command may not come yet, on a listener for users.
    pub(super) fn premature(&self, command: &Command) -> Option<Reason> {
        if !self.protocol.is_submission() {
            return None;
        }
        match command {
            Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Noop
            | Command::Quit
            | Command::StartTls
            // Its octets follow whatever is thought of it, and are refused after their end.
            | Command::Bdat(_)
            | Command::EndlessBdat => None,
            _ if self.peer.tls.is_none() => Some(Reason::MustStartTls),
            Command::Auth(..) | Command::Rset | Command::Help => None,
            Command::Mail(..) | Command::Rcpt(_) | Command::Data | Command::Vrfy => {
                self.peer.login.is_none().then_some(Reason::AuthenticationRequired)
            }
        }
    }

    /// RFC 4954 §4: AUTH may come once, and not in a mail transaction.
    pub(super) fn auth<T>(
        &mut self,
        state: State<T>,
        mechanism: &str,
        initial: Option<Secret>,
    ) -> Next<T> {
        let reason = match state {
            _ if self.peer.login.is_some() => Reason::AlreadyAuthenticated,
            State::Idle(Idle::Ready | Idle::ChunksRefused(_)) => {
                return self.exchange_begins(mechanism, initial);
            }
            _ => Reason::BadSequence,
        };
        let step = self.refuse(reason, state.trace_id(), About::auth());
        (state, step)
    }

    fn exchange_begins<T>(&mut self, mechanism: &str, initial: Option<Secret>) -> Next<T> {
        let Some(exchange) = Exchange::begin(mechanism) else {
            return self.exchange_failed(Reason::UnknownMechanism);
        };
        match initial {
            None => challenge(exchange),
            Some(response) => self.exchange_goes_on(exchange.take_initial(response.expose())),
        }
    }

    /// A line that answers a challenge.
    pub(super) fn auth_line<T>(&mut self, exchange: Exchange, line: Line) -> Next<T> {
        match line {
            Line::Command(line) => self.exchange_goes_on(exchange.take_line(&line)),
            Line::TooLong => self.exchange_failed(Reason::AuthLineTooLong),
            Line::BadEnding => self.exchange_failed(Reason::BadLineEnding),
        }
    }

    fn exchange_goes_on<T>(&mut self, progress: Result<Progress, Reason>) -> Next<T> {
        match progress {
            Ok(Progress::Continued(exchange)) => challenge(exchange),
            Ok(Progress::Complete(credentials)) => {
                let question = Question::Login(self.trace_id, credentials);
                (State::LoginAsked, Step::Ask(question))
            }
            Err(reason @ Reason::BadCredentials) => {
                let refusal = Refusal { reason, trace_id: self.trace_id };
                let step = self.login_failed(Answer::Refusal(refusal, About::auth()));
                (State::Idle(Idle::Ready), step)
            }
            Err(reason) => self.exchange_failed(reason),
        }
    }

    fn exchange_failed<T>(&mut self, reason: Reason) -> Next<T> {
        (State::Idle(Idle::Ready), self.refuse(reason, None, About::auth()))
    }

    /// RFC 4954 §4: without a security layer, what was said before the login stays known.
    pub(super) fn login_answered<T>(&mut self, answer: Result<Login, Refusal>) -> Next<T> {
        let step = match answer {
            Ok(login) => {
                self.peer.login = Some(login);
                reply(Reply::AUTHENTICATED)
            }
            Err(refusal) => {
                let answer = Answer::Reply(Reply::refusal(refusal));
                if refusal.reason == Reason::LoginsThrottled {
                    // Nobody has looked at the password. But each attempt leaves its lines in the
                    // logs, and without a pause they would grow as fast as the network is.
                    Step::Pause(FAILED_LOGIN_PAUSE, Box::new(Step::Answer(answer)))
                } else if refusal.reason.is_transient() {
                    // What failed here says nothing about the password.
                    close_if_421(refusal.reason, answer)
                } else {
                    self.login_failed(answer)
                }
            }
        };
        (State::Idle(Idle::Ready), step)
    }

    /// Each failed login costs an error and more time than the one before, the last the connection.
    fn login_failed<T>(&mut self, answer: Answer) -> Step<T> {
        let pause = FAILED_LOGIN_PAUSE * (1 << self.failed_logins);
        self.failed_logins += 1;
        self.errors += 1;
        let step = if self.failed_logins >= MAX_FAILED_LOGINS {
            self.close(Reason::TooManyFailedLogins)
        } else if self.errors >= self.limits.errors {
            self.close(Reason::TooManyErrors)
        } else {
            Step::Answer(answer)
        };
        Step::Pause(pause, Box::new(step))
    }

    fn close<T>(&self, reason: Reason) -> Step<T> {
        let refusal = Refusal { reason, trace_id: self.trace_id };
        Step::Close(Answer::Refusal(refusal, About::auth()))
    }
}

fn challenge<T>(exchange: Exchange) -> Next<T> {
    let challenge = Reply::challenge(exchange.challenge());
    (State::Authenticating(exchange), Step::Challenge(challenge))
}
