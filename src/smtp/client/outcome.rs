//! What came of it: for a connection, and for each recipient.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::reply::{EnhancedStatus, Garbage, Reply};
use super::settings::Endpoint;

/// Where in the conversation it was, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Connecting.
    Connect,
    /// Waiting for the banner.
    Banner,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the TLS handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content, before its final dot.
    Content,
    /// From the final dot to its answer: the only stage at which nobody knows whether the server
    /// has the message.
    EndOfData,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connection",
            Self::Banner => "banner",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "content",
            Self::EndOfData => "end of DATA",
        })
    }
}

/// What went wrong with a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection came about; the system's words.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// This machine has no way to the address, for example no IPv6, or a network on the way said
    /// that it has none; the system's words.
    #[error("cannot connect: {0}")]
    NoWay(String),
    /// The server did not answer, or did not read, in time.
    #[error("the server took too long")]
    TimedOut,
    /// The connection ended.
    #[error("the server closed the connection")]
    Lost,
    /// What the server said is not SMTP.
    #[error("the server does not speak SMTP: {0}")]
    Garbage(#[from] Garbage),
    /// The server spoke before it was asked.
    #[error("the server spoke before it was asked")]
    Unsolicited,
    /// The server refused: 4yz or 5yz, and 421 to whatever.
    #[error("{0}")]
    Refused(Reply),
    /// A reply that is no answer to what was asked, for example 250 to DATA.
    #[error("the server gave an answer that means nothing here: {0}")]
    Unexpected(Reply),
    /// TLS is demanded, or needed to log in, and the server does not offer it.
    #[error("TLS is required, and the server does not offer it")]
    TlsNotOffered,
    /// The handshake failed, for example for the certificate; TLS's words.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// A login is wanted, and the server offers neither AUTH PLAIN nor AUTH LOGIN under TLS.
    #[error("the server offers neither AUTH PLAIN nor AUTH LOGIN")]
    AuthNotOffered,
}

impl Fault {
    /// As the server said it, or what RFC 3463 has for our own finding.
    fn enhanced(&self) -> EnhancedStatus {
        match self {
            Self::Refused(reply) => status_of(reply),
            Self::Connect(_) | Self::NoWay(_) => EnhancedStatus::new(4, 4, 1),
            Self::TimedOut | Self::Lost => EnhancedStatus::new(4, 4, 2),
            Self::Garbage(_) | Self::Unsolicited | Self::Unexpected(_) => {
                EnhancedStatus::new(4, 5, 0)
            }
            Self::TlsNotOffered | Self::AuthNotOffered => EnhancedStatus::new(4, 7, 4),
            Self::Handshake(_) => EnhancedStatus::new(4, 7, 5),
        }
    }

    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whether the server waits for the next command. 421 closes the connection (RFC 5321 §3.8),
    /// and whose words cannot be understood might take the next command for something else.
    pub(super) fn leaves_the_server_listening(&self) -> bool {
        match self {
            Self::Refused(reply) => reply.code() != 421,
            Self::TlsNotOffered | Self::AuthNotOffered => true,
            Self::Connect(_)
            | Self::NoWay(_)
            | Self::TimedOut
            | Self::Lost
            | Self::Garbage(_)
            | Self::Unsolicited
            | Self::Unexpected(_)
            | Self::Handshake(_) => false,
        }
    }
}

/// The reply's own, or the most general one of its class.
fn status_of(reply: &Reply) -> EnhancedStatus {
    let class = if reply.class() == 5 { 5 } else { 4 };
    reply.enhanced().unwrap_or(EnhancedStatus::new(class, 0, 0))
}

/// Why there is no connection, or why there no longer is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {fault}")]
pub struct ClientError {
    /// Where in the conversation.
    pub stage: Stage,
    /// What went wrong.
    pub fault: Fault,
}

impl ClientError {
    /// Whether the server was never spoken to, because no way leads to its address.
    pub fn is_no_way(&self) -> bool {
        matches!(self.fault, Fault::NoWay(_))
    }

    /// Whether the server itself said that it is of no use to come again (5yz).
    pub fn is_permanent(&self) -> bool {
        self.fault.reply().is_some_and(|reply| reply.class() == 5)
    }

    /// The same as what is told of a recipient.
    pub fn failure(&self, endpoint: &Endpoint) -> Failure {
        let reply = self.fault.reply();
        Failure {
            stage: self.stage,
            code: reply.map(Reply::code),
            enhanced: self.fault.enhanced(),
            said: reply.map(Reply::enhanced),
            text: reply.map_or_else(|| self.fault.to_string(), Reply::text),
            remote: endpoint.name.clone(),
            address: Some(endpoint.address),
            maybe_delivered: self.stage == Stage::EndOfData && reply.is_none(),
        }
    }

    /// The same as an outcome.
    pub(crate) fn outcome(&self, endpoint: &Endpoint) -> Outcome {
        let failure = self.failure(endpoint);
        if self.is_permanent() { Outcome::Failed(failure) } else { Outcome::Deferred(failure) }
    }
}

/// Why a recipient did not get the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where in the conversation.
    pub stage: Stage,
    /// The code of the server's reply; absent where the finding is ours.
    pub code: Option<u16>,
    /// The server's, or what RFC 3463 has for `code` or for our finding.
    pub enhanced: EnhancedStatus,
    /// The enhanced status code that stood in the server's reply, or that none did. Absent where
    /// there was no reply; records of before have it in `enhanced` alone.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub said: Option<Option<EnhancedStatus>>,
    /// The reply's text without codes, or our finding: printable, at most 1,000 characters of the
    /// server's.
    pub text: String,
    /// The server's name.
    pub remote: String,
    /// Which of its addresses; absent where none was tried.
    pub address: Option<SocketAddr>,
    /// The connection was lost between the final dot and its answer: the server may have the
    /// message, and another attempt may double it. True nowhere else.
    pub maybe_delivered: bool,
}

impl Failure {
    /// Whether the server is to blame and not the recipient or the message, so that another
    /// server of the same destination may do better.
    pub fn concerns_host(&self) -> bool {
        !self.maybe_delivered && (matches!(self.code, None | Some(421)) || self.stage < Stage::Rcpt)
    }

    /// Whether the server knew nothing of the message yet, so that it is to blame for certain: what
    /// it says from MAIL on, it may say for the sender or the content.
    pub fn is_without_message(&self) -> bool {
        self.stage < Stage::Mail
    }

    /// The server's reply with the codes that it gave and no others, or our finding with its code.
    pub fn words(&self) -> String {
        let said = self.said.unwrap_or(Some(self.enhanced));
        let text = &self.text;
        match (self.code, said) {
            (Some(code), Some(said)) => format!("{code} {said} {text}"),
            (Some(code), None) => format!("{code} {text}"),
            (None, _) => format!("{} {text}", self.enhanced),
        }
    }

    /// The same as something that may pass.
    pub fn for_now(self) -> Self {
        let enhanced = EnhancedStatus::new(4, self.enhanced.subject(), self.enhanced.detail());
        Self { enhanced, ..self }
    }

    /// Whether the server had enough recipients in this transaction (RFC 5321 §4.5.3.1.10).
    pub fn is_too_many_recipients(&self) -> bool {
        self.stage == Stage::Rcpt && self.enhanced == TOO_MANY_RECIPIENTS
    }
}

/// A field that is there, if it is null.
fn known<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<EnhancedStatus>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// 4.5.3 (RFC 3463 §3.6).
pub(super) const TOO_MANY_RECIPIENTS: EnhancedStatus = EnhancedStatus::new(4, 5, 3);

/// As `550 5.1.1 No such user (mx.example.test, RCPT)`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.words(), self.remote, self.stage)
    }
}

/// Who took a message, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The answer to the final dot.
    pub reply: Reply,
    /// The server's name.
    pub remote: String,
    /// Which of its addresses.
    pub address: SocketAddr,
    /// Under TLS: version and cipher suite, for example `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    pub tls: Option<String>,
    /// In plain text although the server offers TLS: why.
    pub no_tls: Option<String>,
    /// The server offers DSN and was told what the sender wants. If not, and a DSN of success is
    /// wanted, it is on us to say `relayed` (RFC 3461 §5.2.2).
    pub dsn_passed_on: bool,
}

/// What came of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The server took the message.
    Sent(Receipt),
    /// It did not; another attempt may do better.
    Deferred(Failure),
    /// It never will.
    Failed(Failure),
}

impl Outcome {
    /// A refusal of this recipient or of the whole message: 4yz or 5yz.
    pub(super) fn refused(reply: &Reply, stage: Stage, endpoint: &Endpoint) -> Self {
        ClientError { stage, fault: Fault::Refused(reply.clone()) }.outcome(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(reply: &str) -> Failure {
        let endpoint = Endpoint {
            address: ([192, 0, 2, 25], 25).into(),
            name: "mx.far.test".to_owned(),
            implicit_tls: false,
        };
        let reply: Reply = serde_json::from_str(reply).expect("a reply");
        ClientError { stage: Stage::Rcpt, fault: Fault::Refused(reply) }.failure(&endpoint)
    }

    fn check(failure: &Failure, expected: &str) {
        assert_eq!(failure.to_string(), format!("{expected} (mx.far.test, RCPT)"));
        let json = serde_json::to_string(failure).expect("serializes");
        let again: Failure = serde_json::from_str(&json).expect(&json);
        assert_eq!(again, *failure, "{json}");
    }

    /// From MAIL on, it may be the sender's or the content's fault.
    #[test]
    fn a_server_is_to_blame_for_what_it_says_before_it_knows_the_message() {
        use Stage::{Auth, Banner, Connect, Content, Data, EndOfData, Hello, Mail, Rcpt, StartTls};
        let at = |stage| {
            let busy = failure(r#"{"code": 421, "enhanced": "4.3.2", "lines": ["busy"]}"#);
            Failure { stage, ..busy }.is_without_message()
        };
        assert!([Connect, Banner, Hello, StartTls, Auth].into_iter().all(at));
        assert!(![Mail, Rcpt, Data, Content, EndOfData].into_iter().any(at));
    }

    /// RFC 3464 §2.3.6: the words are the server's; `Status` alone needs a code in any case.
    #[test]
    fn a_server_is_not_said_to_have_given_a_code_that_it_did_not() {
        let with = failure(r#"{"code": 550, "enhanced": "5.1.1", "lines": ["no", "such user"]}"#);
        check(&with, "550 5.1.1 no such user");
        let without = failure(r#"{"code": 552, "enhanced": null, "lines": ["mailbox full"]}"#);
        check(&without, "552 mailbox full");
        assert_eq!(without.enhanced.to_string(), "5.0.0");
        let other = failure(r#"{"code": 550, "enhanced": null, "lines": ["4.2.2 over quota"]}"#);
        check(&other, "550 4.2.2 over quota");
        // What it means to us does not change what was said.
        check(&with.for_now(), "550 5.1.1 no such user");
        check(&without.for_now(), "552 mailbox full");
    }

    #[test]
    fn records_that_do_not_tell_what_was_said_are_read() {
        let json = r#"{"stage": "rcpt", "code": 550, "enhanced": "5.1.1", "text": "no such user",
            "remote": "mx.far.test", "address": null, "maybe_delivered": false}"#;
        let failure: Failure = serde_json::from_str(json).expect("is read");
        check(&failure, "550 5.1.1 no such user");
    }
}
