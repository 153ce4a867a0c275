//! What a commit holds: the values that the pipeline hands over, and their durable form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::backlog::QueueHold;
use super::mailbox::{NewMailbox, Reservation};
use super::queued::{QueueChange, QueueEntry, SealedQueued};
use super::register::Fact;
use super::stated::Stated;
use super::usage::{UsageHold, Used};
use crate::clock::Timestamp;
use crate::events::{EventLine, Lsn};
use crate::heavy::Owner;
use crate::id::{MailboxId, TraceId};
use crate::mail::Address;

/// The folders of a new mailbox, as the API's `FolderName` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Folder {
    /// Mail as it comes.
    Inbox,
    /// Spam.
    JunkEmail,
    /// What the user sent.
    SentItems,
    /// What the user has not sent yet.
    Drafts,
    /// What the user threw away.
    DeletedItems,
}

impl Folder {
    /// The five folders, in the order in which they are listed.
    pub const ALL: [Self; 5] =
        [Self::Inbox, Self::JunkEmail, Self::SentItems, Self::Drafts, Self::DeletedItems];

    /// The folder's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "INBOX",
            Self::JunkEmail => "JUNK_EMAIL",
            Self::SentItems => "SENT_ITEMS",
            Self::Drafts => "DRAFTS",
            Self::DeletedItems => "DELETED_ITEMS",
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Folder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|folder| folder.as_str() == text)
            .ok_or_else(|| format!("there is no folder {text}"))
    }
}

/// All that one message changes, to be made durable together.
#[derive(Debug, Default)]
pub struct Commit {
    /// Contents and who gets them.
    pub blobs: Vec<Blob>,
    /// What happened, in order.
    pub events: Vec<EventLine>,
    /// What was decided and why, one for each trace.
    pub stories: Vec<Story>,
    /// What becomes of entries of the queue.
    pub queue_changes: Vec<QueueChange>,
    /// Recipients that were counted for it, for each user who writes to them.
    pub usage: Vec<UsageHold>,
    /// What was counted for the mail of it that waits in the queue.
    pub queue_room: Option<QueueHold>,
    /// The envelope sender for whom a token stands where the message is forwarded to.
    pub first_sender: Option<Address>,
    /// For whom it is made.
    pub owner: Owner,
}

impl Commit {
    /// Octets of all contents, which are to be sealed.
    pub(super) fn content_octets(&self) -> usize {
        self.blobs.iter().map(|blob| blob.content.len()).sum()
    }
}

/// One content, stored once however many get it.
#[derive(Debug)]
pub struct Blob {
    /// The message as received or made, without the headers that are put on top.
    pub content: Vec<u8>,
    /// Who gets it, one for each prefix.
    pub mails: Vec<Mail>,
}

/// A content with its headers on top, for one organization.
#[derive(Debug)]
pub struct Mail {
    /// Its id in mailboxes and queue.
    pub id: TraceId,
    /// When it was received.
    pub received_at: Timestamp,
    /// The headers put on top, each line ending in CR LF.
    pub prefix: Vec<u8>,
    /// What follows the content: the end of a journal record around it, else nothing.
    pub suffix: Vec<u8>,
    /// The mailboxes that get it.
    pub deliveries: Vec<Delivery>,
    /// Where else it goes, through the queue: one entry for each destination.
    pub queued: Vec<QueueEntry>,
}

/// One mailbox that gets a mail.
#[derive(Debug)]
pub struct Delivery {
    /// The room taken for it in the mailbox.
    pub room: Reservation,
    /// The folder in it.
    pub folder: Folder,
}

/// What a decision was made from: octets to the store, whose fields are checked by whoever reads them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// What it tells of.
    #[serde(default)]
    pub kind: StoryKind,
    /// In which form; 0 is that of builds which did not say.
    #[serde(default)]
    pub version: u16,
    /// The story itself, as JSON.
    pub told: Box<RawValue>,
    /// Whether the index lists it, because no event leads to it: it is of mail of our own that
    /// leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_listed: bool,
}

/// What a story tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoryKind {
    /// A message that came to an organization here.
    #[default]
    Received,
    /// A message that leaves, or that a user submits.
    Leaving,
    /// What servers said of a message that leaves.
    Settled,
    /// Mail of our own.
    Own,
}

/// The head of a durable record: everything but events and sealed bytes. Its fields say where in
/// the record's tail those bytes are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordHead {
    /// Mailboxes whose key stands here first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) new_mailboxes: Vec<NewMailbox>,
    /// Mailboxes that are no more from here on, and whose keys are erased when this is durable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) erasing: Vec<NewMailbox>,
    /// Those whose keys are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) erased: Vec<MailboxId>,
    /// What is so from this record on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) facts: Vec<Fact>,
    /// What is said of organizations from this record on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stated: Option<Stated>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) blobs: Vec<SealedBlob>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stories: Vec<Story>,
    /// What becomes of messages that earlier records hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    /// What becomes of queue entries that earlier records hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) queue_changes: Vec<QueueChange>,
    /// Recipients outside of the organization, and mailboxes inside, that a user wrote to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) usage: Vec<Used>,
    /// The envelope sender for whom a token stands in forwarded mail, kept for as long as bounces
    /// may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first_sender: Option<KeptSender>,
    /// The time of its events, for the file's rotation, or of its stories; absent without either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events_at: Option<Timestamp>,
}

impl RecordHead {
    /// How many rows the index has to write for it: what its messages come to in mailboxes, queue
    /// entries and changes, and one at least. A record of 20,000 deliveries is a record as any
    /// other, and as much work as 20,000 of them.
    pub(super) fn rows(&self) -> usize {
        let mut rows = self.new_mailboxes.len() + self.facts.len() + self.listed().count();
        rows += self.stated.as_ref().map_or(0, |stated| 1 + stated.said.len());
        rows += self.changes.len() + self.queue_changes.len();
        rows += self.erasing.len() + self.erased.len();
        for mail in self.blobs.iter().flat_map(|blob| &blob.mails) {
            rows += mail.deliveries.len();
            rows += mail.queued.as_ref().map_or(0, |queued| queued.entries.len());
        }
        rows.max(1)
    }

    /// The stories that the index lists.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Story> {
        self.stories.iter().filter(|story| story.is_listed)
    }

    /// What the index needs of it, which may wait for its turn: neither stories that it does not
    /// list nor the keys of deliveries.
    pub(super) fn for_the_index(mut self) -> Self {
        self.stories.retain(|story| story.is_listed);
        for mail in self.blobs.iter_mut().flat_map(|blob| &mut blob.mails) {
            mail.deliveries.iter_mut().for_each(|delivery| delivery.wrapped_key = String::new());
        }
        self
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.new_mailboxes.is_empty()
            && self.erasing.is_empty()
            && self.erased.is_empty()
            && self.facts.is_empty()
            && self.stated.is_none()
            && self.blobs.is_empty()
            && self.stories.is_empty()
            && self.changes.is_empty()
            && self.queue_changes.is_empty()
            && self.usage.is_empty()
            && self.first_sender.is_none()
            && self.events_at.is_none()
    }
}

/// An envelope sender, and when its message came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptSender {
    pub(super) address: Address,
    pub(super) at: Timestamp,
}

/// One sealed content and its mails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedBlob {
    /// Octets of the sealed content, its tag included.
    pub(super) length: u64,
    pub(super) mails: Vec<SealedMail>,
}

/// One mail of a sealed content. In the tail, the sealed prefixes of a blob's mails stand before
/// its sealed content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedMail {
    pub(super) id: TraceId,
    pub(super) received_at: Timestamp,
    /// Octets of the sealed prefix and suffix, their tag included.
    pub(super) prefix_length: u64,
    /// How many of them, unsealed, are the suffix.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) suffix_length: u64,
    /// Octets of prefix, content and suffix, unsealed.
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deliveries: Vec<SealedDelivery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) queued: Option<SealedQueued>,
}

fn is_zero(length: &u64) -> bool {
    *length == 0
}

/// A delivery: the content's key, wrapped by the mailbox's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedDelivery {
    pub(super) mailbox: MailboxId,
    pub(super) folder: Folder,
    /// When it came into that folder, if that was not when it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    /// Hexadecimal.
    pub(super) wrapped_key: String,
}

/// A message of a mailbox, by where it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageRef {
    pub(super) lsn: Lsn,
    pub(super) blob: usize,
    pub(super) mail: usize,
    pub(super) mailbox: MailboxId,
}

/// A message's removal, or its move to another folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) message: MessageRef,
    pub(super) from: Folder,
    /// Absent: it is removed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Folder>,
    /// Octets that a removal gives back to the mailbox.
    pub(super) size: u64,
    pub(super) at: Timestamp,
}
