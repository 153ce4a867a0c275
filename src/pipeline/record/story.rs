//! Stories: what a decision was made from and what it was, kept with the durable record. They are
//! read back as they were written, so a message's story can be told, and changed rules tried on it,
//! without its body.
//!
//! Who writes one borrows what it tells; who reads one owns it. A field or word that is not known is
//! refused, never passed over: another version has written it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, DmarcPolicy, MailParameters, Peer, RcptParameters, ReversePath};
use crate::msgauth::Authentication;
use crate::organization::OnReject;
use crate::pipeline::facts::headers::Headers;
use crate::pipeline::facts::outgoing::OutgoingDisposition;
use crate::pipeline::facts::settings::RecipientQuotas;
use crate::pipeline::facts::signatures::Signatures;
use crate::pipeline::facts::verdicts::Proof;
use crate::pipeline::inbound::decide::{Basis, Disposition};
use crate::pipeline::record::own_mail::OwnMail;
use crate::pipeline::record::transport::TransportStory;
use crate::rules::mailbox::MailboxAction;
use crate::rules::{InboundAction, OutboundAction, Winner, Withheld};
use crate::scan::ScanOutcome;
use crate::smtp::reason::Reason;
use crate::store::{self, Folder, StoryKind};

/// The form of all kinds that this version writes and reads.
const VERSION: u16 = 1;

/// A message that came to an organization here, from elsewhere or from a user here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceivedStory<'a> {
    /// What the organization is called.
    pub organization: Cow<'a, str>,
    /// Its id.
    pub organization_id: Cow<'a, str>,
    /// When the message was there.
    pub received_at: Timestamp,
    /// The position in the log of what was said last of organizations, by which it was judged.
    pub rule_version: u64,
    /// Octets of its content.
    pub size_bytes: usize,
    /// Who brought it.
    pub peer: Cow<'a, Peer>,
    /// The envelope's sender.
    pub reverse_path: Cow<'a, ReversePath>,
    /// What MAIL said, if it said something.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Cow<'a, MailParameters>,
    /// What the header section says.
    pub headers: Cow<'a, Headers>,
    /// The verdicts; absent where a user here has submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Cow<'a, Authentication>>,
    /// The organizational domain of the one author's domain, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organizational_domain: Option<Cow<'a, str>>,
    /// What the scanner says.
    pub spam: Cow<'a, ScanOutcome>,
    /// Absent if there is no `Sender` field, or nothing proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_proof: Option<Proof>,
    /// The DMARC policy that was applied, if enforcement is on and the check failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dmarc_applied: Option<DmarcPolicy>,
    /// What was decided under, beside rules.
    pub settings: ReceivedUnder<'a>,
    /// The trace of the submission that this is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_in: Option<TraceId>,
    /// The trace that it was sent on from, by a mailbox or remote user here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_on_from: Option<TraceId>,
    /// What became of it for each recipient.
    pub recipients: Vec<ToldRecipient<'a>>,
    /// The mailboxes that have it.
    pub deliveries: Vec<ToldDelivery<'a>>,
    /// What users' own rules did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailbox_rules: Vec<ToldMailboxRule<'a>>,
    /// Who did not send it on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<ToldWithheld<'a>>,
    /// To whom it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_on: Vec<ToldSentOn<'a>>,
    /// Where its journal record goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journaled_to: Option<Cow<'a, Address>>,
    /// Why there is no journal record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_journaled: Option<Cow<'a, str>>,
    /// Why the message was refused in session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
}

/// Settings that the decisions on a message that came read: of the daemon, and of the organization's
/// file beside its rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceivedUnder<'a> {
    /// Ours; mail for `postmaster` without a domain is for somebody because of it.
    pub hostname: Cow<'a, str>,
    /// Whether DMARC policies are enforced.
    pub dmarc_enforcement: bool,
    /// The answer to `p=reject`.
    pub on_reject: OnReject,
    /// Whether `name+tag` is `name`.
    pub plus_addressing: bool,
    /// Mailboxes that one recipient may expand to.
    pub group_members: usize,
    /// Mailboxes that all recipients together may expand to.
    pub expanded_recipients: usize,
}

/// A recipient of a message that came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToldRecipient<'a> {
    /// As the envelope has it.
    pub address: Cow<'a, Address>,
    /// Whose mailbox or remote address it is, if it is one person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Cow<'a, EntityId>>,
    /// What RCPT said, if it said something.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Cow<'a, RcptParameters>,
    /// What became of it in the end.
    pub disposition: Disposition,
    /// What decided, before room was looked for.
    pub basis: Cow<'a, Basis>,
    /// To whom mailboxes and remote users that it leads to send it on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_on_to: Vec<Cow<'a, Address>>,
    /// None of them keeps it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_not_kept: bool,
    /// The rule of the other field, where nothing proves the `Sender`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<Cow<'a, Winner<InboundAction>>>,
}

/// A mailbox that has the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToldDelivery<'a> {
    /// The user's name.
    pub mailbox: Cow<'a, str>,
    /// Whose it is.
    pub entity: Cow<'a, EntityId>,
    /// Where in it.
    pub folder: Folder,
    /// The group that it came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded_from: Option<Cow<'a, Address>>,
}

/// A rule of a mailbox that applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToldMailboxRule<'a> {
    /// The mailbox's primary address.
    pub mailbox: Cow<'a, Address>,
    /// The rule's name.
    pub rule: Cow<'a, str>,
    /// What it did.
    pub action: ToldAction,
    /// To what folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_folder: Option<Folder>,
    /// To whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_recipient: Option<Cow<'a, Address>>,
}

/// What a rule of a mailbox did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ToldAction {
    /// It goes into a folder.
    Move,
    /// A copy does.
    Copy,
    /// A copy is sent on.
    Forward,
    /// It is sent on.
    Redirect,
    /// It is not kept.
    Delete,
}

impl From<&MailboxAction> for ToldAction {
    fn from(action: &MailboxAction) -> Self {
        match action {
            MailboxAction::Move(_) => Self::Move,
            MailboxAction::Copy(_) => Self::Copy,
            MailboxAction::Forward(_) => Self::Forward,
            MailboxAction::Redirect(_) => Self::Redirect,
            MailboxAction::Delete => Self::Delete,
        }
    }
}

/// Why a mailbox does not send the message on, though one of its rules says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldWithheld<'a> {
    /// The mailbox's primary address.
    pub mailbox: Cow<'a, Address>,
    /// Why.
    pub reason: Withheld,
}

/// Under which trace the message goes on to somebody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldSentOn<'a> {
    /// The mailbox or remote user.
    pub from: Cow<'a, Address>,
    /// Whose it is.
    pub entity: Cow<'a, EntityId>,
    /// To whom.
    pub to: Cow<'a, Address>,
    /// The trace there.
    pub trace: TraceId,
    /// The outbound rule by which it goes to another organization here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'a, Winner<OutboundAction>>>,
}

/// A message that a user submits, or that a mailbox or remote user sends on to another server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeavingStory<'a> {
    /// What the organization that it leaves is called.
    pub organization: Cow<'a, str>,
    /// Its id.
    pub organization_id: Cow<'a, str>,
    /// When the message was there.
    pub submitted_at: Timestamp,
    /// The position in the log of what was said last of organizations, by which it was judged.
    pub rule_version: u64,
    /// Octets of its content.
    pub size_bytes: usize,
    /// Who brought it.
    pub peer: Cow<'a, Peer>,
    /// The own address of whoever submits it, or sends it on.
    pub by: Cow<'a, Address>,
    /// Who that is.
    pub entity: Cow<'a, EntityId>,
    /// The envelope's sender.
    pub reverse_path: Cow<'a, ReversePath>,
    /// What MAIL said, if it said something.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Cow<'a, MailParameters>,
    /// What the header section says.
    pub headers: Cow<'a, Headers>,
    /// What was decided under, beside rules.
    pub settings: LeavingUnder<'a>,
    /// The trace that it was sent on from; absent where a user submits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_on_from: Option<TraceId>,
    /// What became of it for each recipient.
    pub outbound_recipients: Vec<ToldOutboundRecipient<'a>>,
    /// Absent where nothing leaves, or it leaves as it came.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub signatures: Cow<'a, [Signatures]>,
    /// Where its journal record goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journaled_to: Option<Cow<'a, Address>>,
    /// Why there is no journal record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_journaled: Option<Cow<'a, str>>,
    /// Why the message was refused in session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
    /// The line or part of the message that is the reason, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_for: Option<Cow<'a, str>>,
}

/// Settings that the decisions on a message that leaves read, beside the organization's rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeavingUnder<'a> {
    /// Ours.
    pub hostname: Cow<'a, str>,
    /// Mailboxes that one recipient may expand to.
    pub group_members: usize,
    /// Mailboxes that all recipients together may expand to.
    pub expanded_recipients: usize,
    /// How many recipients may be written to in a day.
    pub quotas: RecipientQuotas,
}

/// A recipient of a message that leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToldOutboundRecipient<'a> {
    /// As the envelope has it.
    pub address: Cow<'a, Address>,
    /// What RCPT said, if it said something.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Cow<'a, RcptParameters>,
    /// What became of it.
    pub disposition: Cow<'a, OutgoingDisposition>,
    /// The rule that won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'a, Winner<OutboundAction>>>,
}

fn is_default<T: Clone + Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_empty<T: Clone>(list: &[T]) -> bool {
    list.is_empty()
}

/// A story that was read back.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyStory {
    /// Of a message that came.
    Received(Box<ReceivedStory<'static>>),
    /// Of one that leaves, or that a user submits.
    Leaving(Box<LeavingStory<'static>>),
    /// What servers said.
    Settled(TransportStory),
    /// Of mail of our own.
    Own(OwnMail),
}

/// Why a story cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the story of trace {trace_id} is not one that this version knows: {problem}")]
pub struct UnknownStory {
    trace_id: TraceId,
    problem: String,
}

impl AnyStory {
    /// Reads a story.
    ///
    /// # Errors
    /// Something in it is not known: another version has written it.
    pub fn read(story: &store::Story) -> Result<Self, UnknownStory> {
        let unknown = |problem: String| UnknownStory { trace_id: story.trace_id, problem };
        if story.version != VERSION {
            return Err(unknown(format!("it is of version {}", story.version)));
        }
        let told = story.told.get();
        let read = match story.kind {
            StoryKind::Received => from_json(told).map(|it| Self::Received(Box::new(it))),
            StoryKind::Leaving => from_json(told).map(|it| Self::Leaving(Box::new(it))),
            StoryKind::Settled => from_json(told).map(Self::Settled),
            StoryKind::Own => from_json(told).map(Self::Own),
        };
        read.map_err(|error| unknown(error.to_string()))
    }
}

fn from_json<T: DeserializeOwned>(told: &str) -> serde_json::Result<T> {
    serde_json::from_str(told)
}

/// What has a kind of story to itself.
pub(in crate::pipeline) trait Tells: Serialize {
    const KIND: StoryKind;
}

impl Tells for ReceivedStory<'_> {
    const KIND: StoryKind = StoryKind::Received;
}

impl Tells for LeavingStory<'_> {
    const KIND: StoryKind = StoryKind::Leaving;
}

impl Tells for TransportStory {
    const KIND: StoryKind = StoryKind::Settled;
}

impl Tells for OwnMail {
    const KIND: StoryKind = StoryKind::Own;
}

/// A story as the store keeps it.
pub(in crate::pipeline) fn written<T: Tells>(
    trace_id: TraceId,
    story: &T,
    is_listed: bool,
) -> store::Story {
    let told = serde_json::value::to_raw_value(story)
        .expect("a story has only strings, numbers, lists and structs, which all serialize");
    store::Story { trace_id, kind: T::KIND, version: VERSION, told, is_listed }
}

#[cfg(test)]
mod tests;
