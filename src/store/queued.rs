//! Mail that leaves, as the store keeps it: an entry for each destination, until every recipient
//! of it has an outcome. When and how it is tried is the queue's business.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Folder;
use super::mailbox::MailboxOwner;
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, Domain, EnvelopeRecipient, MailParameters, ReversePath};

/// Names a queue entry by where it stands in the log; prints as four numbers, the first in
/// hexadecimal, with dots between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId {
    pub(super) lsn: Lsn,
    pub(super) blob: usize,
    pub(super) mail: usize,
    pub(super) entry: usize,
}

impl QueueId {
    /// The record that the entry came with.
    pub fn record(self) -> Lsn {
        self.lsn
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}.{}", self.lsn.0, self.blob, self.mail, self.entry)
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for QueueId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for QueueId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut numbers = text.split('.');
            let lsn = Lsn(u64::from_str_radix(numbers.next()?, 16).ok()?);
            let mut number = || numbers.next()?.parse().ok();
            let id = Self { lsn, blob: number()?, mail: number()?, entry: number()? };
            numbers.next().is_none().then_some(id)
        };
        parse().ok_or_else(|| format!("{text} is not the id of a queue entry, as 1f40.0.0.0 is"))
    }
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Destination {
    /// To the mail exchangers of a domain.
    Domain(Domain),
    /// Through the organization's SMTP gateway of this name.
    Gateway(Arc<str>),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Gateway(name) => write!(f, "gateway {name}"),
        }
    }
}

/// What a mail that leaves is, which says who is told what of its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Purpose {
    /// A user's message, or one that is sent on for a user: events and DSNs.
    Message,
    /// A DSN or notice of our own: nobody is told.
    Report,
    /// A journal record: its failure is told to the organization's report address.
    #[serde(rename_all = "camelCase")]
    JournalRecord {
        /// The report address.
        report_to: Address,
    },
}

/// What the events of an outgoing message repeat of its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorship {
    /// The address of `From`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// The address of `Sender`, when it is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Address>,
    /// `Message-ID`, with its angle brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// `Subject`, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A mail that leaves, for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueEntry {
    /// The organization's id.
    pub organization: Arc<str>,
    /// What it is.
    pub purpose: Purpose,
    /// Where it goes.
    pub destination: Destination,
    /// Who is told of a failure.
    pub reverse_path: ReversePath,
    /// What MAIL said.
    pub parameters: MailParameters,
    /// Who gets it there; recipients are named by their place in this list.
    pub recipients: Vec<EnvelopeRecipient>,
    /// What events repeat.
    pub authorship: Authorship,
    /// Whose message it is, of the organization's users: who has sent it, or sends it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Address>,
    /// Who had the reverse-path when the message came, if it was somebody here: its reports are for
    /// nobody who has the address later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_to: Option<MailboxOwner>,
    /// The domain here under which a token stands for the reverse-path, which fits into no
    /// rewritten address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_domain: Option<Domain>,
    /// Who keeps the message if it bounces and nobody else has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Keeper>,
}

/// Who keeps a message that was sent on and comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Keeper {
    /// The mailbox whose rule has sent it on without keeping it.
    #[serde(rename_all = "camelCase")]
    Mailbox {
        /// Whose mailbox it is.
        entity: EntityId,
        /// The mailbox's primary address.
        address: Address,
        /// Where it would have been without the rule.
        folder: Folder,
    },
    /// The organization's postmaster: its sender cannot be told, and no mailbox here has it.
    Postmaster,
}

/// How far an entry has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueState {
    /// Attempts so far.
    pub attempts: u32,
    /// When the next one is due.
    pub next_attempt: Timestamp,
    /// The recipients that have their outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
    /// Whether the sender was told of the delay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_delay_told: bool,
    /// Why the last attempt did not do for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Whether that was the fault of its destination's servers, or of the way to them, and of no
    /// recipient: once somebody answers there, it need not wait for its time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_servers_fault: bool,
    /// When it was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Timestamp>,
}

impl QueueState {
    /// What is known of the recipient at a place; `None` while it waits.
    pub fn settled_at(&self, place: usize) -> Option<&Settled> {
        self.settled.iter().find(|settled| settled.place == place)
    }
}

/// A recipient that has its outcome, while others of its entry wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// Its place in the entry.
    pub place: usize,
    /// What came of it.
    pub outcome: SettledOutcome,
}

/// What came of a recipient, in the words of the server or ours; short, since each record of the
/// entry repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SettledOutcome {
    /// Its server took the message.
    Sent(String),
    /// It never gets it.
    Bounced(String),
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueChange {
    /// Which one.
    pub entry: QueueId,
    /// How far it has come; absent: every recipient has an outcome, and it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<QueueState>,
    /// When.
    pub at: Timestamp,
}

/// An entry that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMail {
    /// Its id.
    pub id: QueueId,
    /// The trace of its message.
    pub trace_id: TraceId,
    /// When it came into the queue.
    pub queued_at: Timestamp,
    /// Octets.
    pub size: u64,
    /// What it is and where it goes.
    pub entry: Arc<QueueEntry>,
    /// How far it has come.
    pub state: QueueState,
}

/// The octets of a queued mail, in the order in which they are sent.
#[derive(Debug, Default)]
pub struct QueuedContent {
    /// Our header fields.
    pub prefix: Vec<u8>,
    /// The message.
    pub content: Vec<u8>,
    /// What closes a journal record around it, else nothing.
    pub suffix: Vec<u8>,
    /// The envelope sender that stands for the entry's own, if one has to.
    pub token: Option<Address>,
}

/// Everything that waits at start, and everything that comes into the queue from then on.
#[derive(Debug)]
pub struct QueueFeed {
    /// What an earlier run left.
    pub waiting: Vec<QueuedMail>,
    /// What becomes durable.
    pub new: tokio::sync::mpsc::UnboundedReceiver<QueuedMail>,
}

/// An entry as a record holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedEntry {
    pub(super) entry: Arc<QueueEntry>,
    /// Compaction has worked in that it is gone; its place is kept, since places are names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_gone: bool,
}

/// The entries of a mail, and its content's key, wrapped by the queue's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedQueued {
    pub(super) entries: Vec<SealedEntry>,
    /// Hexadecimal.
    pub(super) wrapped_key: String,
}

impl SealedQueued {
    /// Whether any entry waits.
    pub(super) fn is_open(&self) -> bool {
        self.entries.iter().any(|entry| !entry.is_gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_recipient_is_read_as_it_was_written() {
        let sent = SettledOutcome::Sent("250 2.0.0 ok".into());
        let state = QueueState {
            settled: vec![Settled { place: 2, outcome: sent.clone() }],
            ..QueueState::default()
        };
        let json = serde_json::to_string(&state).expect("JSON");
        assert!(json.contains(r#""settled":[{"place":2,"outcome":{"sent":"250 2.0.0 ok"}}]"#));
        assert_eq!(serde_json::from_str::<QueueState>(&json).expect("reads"), state);
        assert_eq!(state.settled_at(2).map(|settled| &settled.outcome), Some(&sent));
        assert_eq!(state.settled_at(1), None);
    }

    #[test]
    fn an_id_is_read_as_it_prints() {
        let id = QueueId { lsn: Lsn(0x1f40), blob: 0, mail: 2, entry: 11 };
        assert_eq!(id.to_string(), "1f40.0.2.11");
        assert_eq!("1f40.0.2.11".parse(), Ok(id));
        for text in ["", "1f40", "1f40.0.2", "1f40.0.2.11.0", "x.0.0.0", "1.-1.0.0"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
