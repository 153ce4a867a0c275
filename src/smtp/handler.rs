//! The door through which a session asks what to do: implemented by the pipeline.

use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;

use super::reason::Reason;
use crate::id::TraceId;
use crate::mail::{EnvelopeRecipient, Login, MailParameters, Peer, ReversePath, Secret};

/// A refusal: the reply's code and text come from the reason, its `[word trace-id]` from both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Under which id it can be looked up.
    pub trace_id: TraceId,
}

/// A message's refusal, and where in the message its reason is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRefusal {
    /// What is answered.
    pub refusal: Refusal,
    /// A line or a part of the message, as text that stands after that of the reason.
    pub place: Option<String>,
}

/// What a client logs in with (RFC 4954).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user as the client names it: never empty, without control characters, at most 12 KiB.
    pub user_name: String,
    /// The password, or a token in its place: never empty, at most 12 KiB.
    pub password: Secret,
}

/// A refusal that the session itself decided, with what is known of the circumstances, for the
/// operational log and `events trace`.
#[derive(Clone, Debug)]
pub struct SessionRefusal<'a> {
    /// What is answered.
    pub refusal: Refusal,
    /// Who was refused.
    pub peer: &'a Peer,
    /// The command line or what stands for it, printable, at most 200 characters; never a
    /// credential or a body.
    pub about: &'a str,
}

/// What the session asks of the rest of the daemon. A transaction begins with [`Handler::mail`]
/// and ends with exactly one of [`Handler::message`] and [`Handler::abandon`].
pub trait Handler: Send + Sync + 'static {
    /// A mail transaction as the handler knows it (RFC 5321 §3.3).
    type Transaction: Send;
    /// Proof that a message is durable; prints as the text of the 250.
    type Accepted: Display + Send;

    /// May this client talk to us at all? Asked before the banner.
    fn connect(&self, ip: IpAddr) -> impl Future<Output = Result<(), Reason>> + Send;

    /// AUTH: who has these credentials? Asked on submission listeners under TLS only, and not once
    /// the client's network has failed too often. A refusal that is not transient counts as a
    /// failed login; it must not tell whether there is such a user.
    fn authenticate(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Login, Refusal>> + Send;

    /// AUTH with this user name, from a network whose logins fail too often: nobody asks whether the
    /// credentials are right. For the records only.
    fn login_throttled(&self, trace_id: TraceId, peer: &Peer, user_name: &str);

    /// MAIL: begins a transaction under `trace_id`. On submission listeners, `peer.login` is set.
    fn mail(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> impl Future<Output = Result<Self::Transaction, Refusal>> + Send;

    /// RCPT: adds a recipient, or refuses it and leaves the transaction as it was. A domain-less
    /// `postmaster` (RFC 5321 §4.5.1) arrives as `postmaster@<our hostname>`.
    fn rcpt(
        &self,
        transaction: &mut Self::Transaction,
        recipient: EnvelopeRecipient,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The end of DATA or of the last BDAT: the message, dot-stuffing undone. `Ok` means that it
    /// is durable and the 250 may be sent.
    fn message(
        &self,
        transaction: Self::Transaction,
        content: Vec<u8>,
    ) -> impl Future<Output = Result<Self::Accepted, MessageRefusal>> + Send;

    /// The transaction ended without a message: RSET, EHLO, QUIT, a lost connection.
    fn abandon(&self, transaction: Self::Transaction) -> impl Future<Output = ()> + Send;

    /// The session refused something by itself; for the records only.
    fn refused(&self, refusal: SessionRefusal<'_>);
}
