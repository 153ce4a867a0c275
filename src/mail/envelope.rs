//! The envelope: who a message is from and for, as SMTP says it, and where it came from.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Address, AddressError};
use crate::id::EntityId;

/// The envelope's sender (RFC 5321 §4.5.5): the null path is `<>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReversePath {
    /// `<>`: nobody is told of a failure.
    Null,
    /// Who is told of a failure.
    Address(Address),
}

impl ReversePath {
    /// The address, unless the path is null.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

/// The empty text stands for the null path.
impl TryFrom<String> for ReversePath {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self::Null) } else { Address::parse(&text).map(Self::Address) }
    }
}

impl From<ReversePath> for String {
    fn from(path: ReversePath) -> Self {
        path.address().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

/// What `BODY=` declares (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// How much of a message a DSN returns (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// `RET=FULL`
    Full,
    /// `RET=HDRS`
    Headers,
}

/// When a DSN is wanted for a recipient (RFC 3461 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsnNotify {
    /// `NOTIFY=NEVER`: no DSN of any kind; the other flags are then false.
    pub never: bool,
    /// `NOTIFY=SUCCESS`
    pub success: bool,
    /// `NOTIFY=FAILURE`
    pub failure: bool,
    /// `NOTIFY=DELAY`
    pub delay: bool,
}

/// The parameters of MAIL that live on with the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailParameters {
    /// `SIZE=`: the size that the client declared, in octets (RFC 1870).
    pub declared_size: Option<u64>,
    /// `BODY=`
    pub body: BodyType,
    /// `SMTPUTF8` was given (RFC 6531).
    pub smtputf8: bool,
    /// `RET=`
    pub ret: Option<DsnReturn>,
    /// `ENVID=`, decoded from xtext, printable ASCII.
    pub envid: Option<String>,
}

/// The parameters of RCPT that live on with the recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RcptParameters {
    /// `NOTIFY=`; absent means that nothing was said.
    pub notify: Option<DsnNotify>,
    /// `ORCPT=`: address type and decoded address, for example `rfc822;bob@example.org`.
    pub orcpt: Option<String>,
}

/// A recipient as RCPT named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeRecipient {
    /// The forward-path's address.
    pub address: Address,
    /// Its parameters.
    pub parameters: RcptParameters,
}

/// The envelope of a message (RFC 5321 §2.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who is told of a failure.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// Those accepted at RCPT, in the order given.
    pub recipients: Vec<EnvelopeRecipient>,
}

/// The other end of a connection, as far as the session knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The client's address: the PROXY header's where one is spoken, else the socket's.
    pub ip: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The argument of EHLO or HELO; empty before it.
    pub helo: String,
    /// Whether the client said EHLO, not HELO: `ESMTP` or `SMTP` in `Received` (RFC 3848).
    pub esmtp: bool,
    /// Set under TLS: protocol version and cipher suite, for example `TLSv1.3
    /// TLS13_AES_256_GCM_SHA384`.
    pub tls: Option<String>,
    /// Set once the client has logged in (RFC 4954); on submission listeners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// As whom a client has logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The organization's id.
    pub organization: Arc<str>,
    /// Who it is.
    pub id: EntityId,
    /// What the user was called then.
    pub user: Arc<str>,
    /// The id of the personal access token that stood for the password, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<str>>,
}

/// How a message entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// From another MTA over the `mx` listener.
    Relayed(Peer),
    /// Made here: a DSN, a journal record, a notice. Never journaled, never bounced.
    Internal,
}
