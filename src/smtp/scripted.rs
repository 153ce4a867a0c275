//! A handler whose answers depend on the addresses and the content alone, for tests and fuzzing.

use std::net::IpAddr;
use std::sync::Mutex;

use crate::id::{EntityId, EntityKind, TraceId};
use crate::mail::{Domain, EnvelopeRecipient, Login, MailParameters, Peer, ReversePath};
use crate::smtp::handler::{Credentials, Handler, MessageRefusal, Refusal, SessionRefusal};
use crate::smtp::reason::Reason;

/// What the handler was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// The user's name.
    Authenticate(String),
    /// The user name that was not asked about.
    Throttled(String),
    Mail(Peer, ReversePath, MailParameters),
    Rcpt(EnvelopeRecipient),
    Message(Vec<u8>),
    Abandon,
    Refused(Reason, String),
}

/// The scripted handler; `example.test` is local. `alice` logs in with `secret`; passwords cannot
/// be checked for `busy`.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    told: Mutex<Vec<Told>>,
}

/// A transaction; lost ones show as a difference between those begun and those ended.
#[derive(Debug)]
pub(crate) struct Transaction(TraceId);

impl Scripted {
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("whole").clone()
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let message = |told| match told {
            Told::Message(content) => Some(content),
            _ => None,
        };
        self.told().into_iter().filter_map(message).collect()
    }

    #[cfg(test)]
    pub(crate) fn refusals(&self) -> Vec<Reason> {
        let reason = |told| match told {
            Told::Refused(reason, _) => Some(reason),
            _ => None,
        };
        self.told().into_iter().filter_map(reason).collect()
    }

    /// Every transaction that began has ended in exactly one of the two ways.
    pub(crate) fn assert_balanced(&self) {
        let (mut begun, mut ended) = (0, 0);
        for told in self.told() {
            match told {
                Told::Mail(_, ref path, _) if !is_refused(path) => begun += 1,
                Told::Message(_) | Told::Abandon => ended += 1,
                Told::Authenticate(_)
                | Told::Throttled(_)
                | Told::Mail(..)
                | Told::Rcpt(_)
                | Told::Refused(..) => {}
            }
            assert!(ended <= begun, "a transaction ended twice");
        }
        assert_eq!(begun, ended, "a transaction was lost");
    }

    fn note(&self, told: Told) {
        self.told.lock().expect("whole").push(told);
    }
}

fn is_refused(path: &ReversePath) -> bool {
    path.address().is_some_and(|address| address.local_part() == "refused")
}

impl Handler for Scripted {
    type Transaction = Transaction;
    type Accepted = &'static str;

    async fn connect(&self, ip: IpAddr) -> Result<(), Reason> {
        let denied: IpAddr = "192.0.2.66".parse().expect("valid");
        if ip == denied { Err(Reason::NetworkDenied) } else { Ok(()) }
    }

    async fn authenticate(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        credentials: Credentials,
    ) -> Result<Login, Refusal> {
        assert!(peer.tls.is_some(), "a password was let through without TLS");
        let Credentials { user_name, password } = credentials;
        self.note(Told::Authenticate(user_name.clone()));
        let reason = match (user_name.as_str(), password.expose()) {
            ("alice", "secret") => {
                let (organization, user) = ("m-1".into(), "alice".into());
                let id = EntityId::of_first(EntityKind::User, "m-1", "alice");
                return Ok(Login { organization, id, user, token: None });
            }
            ("busy", _) => Reason::AuthenticationUnavailable,
            _ => Reason::BadCredentials,
        };
        Err(Refusal { reason, trace_id })
    }

    fn login_throttled(&self, _trace_id: TraceId, _peer: &Peer, user_name: &str) {
        self.note(Told::Throttled(user_name.to_owned()));
    }

    async fn mail(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<Transaction, Refusal> {
        let refused = is_refused(&reverse_path);
        self.note(Told::Mail(peer.clone(), reverse_path, parameters));
        if refused {
            return Err(Refusal { reason: Reason::StoreFailure, trace_id });
        }
        Ok(Transaction(trace_id))
    }

    async fn rcpt(
        &self,
        transaction: &mut Transaction,
        recipient: EnvelopeRecipient,
    ) -> Result<(), Refusal> {
        let reason = match recipient.address.key().as_str() {
            "nobody@example.test" => Some(Reason::UnknownUser),
            "full@example.test" => Some(Reason::MailboxFull),
            "busy@example.test" => Some(Reason::Overloaded),
            "later@example.test" => Some(Reason::MailboxFullGrace),
            "postmaster@mx.example.test" => None,
            key if key.ends_with("@example.test") => None,
            _ => Some(Reason::RelayDenied),
        };
        self.note(Told::Rcpt(recipient));
        match reason {
            None => Ok(()),
            Some(reason) => Err(Refusal { reason, trace_id: transaction.0 }),
        }
    }

    async fn message(
        &self,
        transaction: Transaction,
        content: Vec<u8>,
    ) -> Result<&'static str, MessageRefusal> {
        let has = |text: &str| memchr::memmem::find(&content, text.as_bytes()).is_some();
        let reason = match () {
            () if has("Subject: spoofed") => Some(Reason::DmarcReject),
            () if has("Subject: disk full") => Some(Reason::StoreFailure),
            () => None,
        };
        self.note(Told::Message(content));
        match reason {
            None => Ok("Message stored"),
            Some(reason) => {
                let refusal = Refusal { reason, trace_id: transaction.0 };
                Err(MessageRefusal { refusal, place: None })
            }
        }
    }

    async fn abandon(&self, _: Transaction) {
        self.note(Told::Abandon);
    }

    fn refused(&self, refusal: SessionRefusal<'_>) {
        self.note(Told::Refused(refusal.refusal.reason, refusal.about.to_owned()));
    }
}

/// The name that the server has in tests.
pub(crate) fn hostname() -> Domain {
    Domain::parse("mx.example.test").expect("valid")
}

/// Replaces the id of each refusal by `<id>`.
pub(crate) fn normalized(output: &str) -> String {
    output
        .split_inclusive("\r\n")
        .map(|line| match line.trim_end_matches("]\r\n").rsplit_once(' ') {
            Some((head, id)) if id.parse::<TraceId>().is_ok() => format!("{head} <id>]\r\n"),
            _ => line.to_owned(),
        })
        .collect()
}
