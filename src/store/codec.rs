//! A commit as the payload of a frame, and back.
//!
//! A payload is `head length u32, head (JSON), events length u32, events (lines), tail`. The tail
//! holds, for each blob, the sealed prefixes of its mails and then its sealed content. What follows
//! the content in a mail, its suffix, is sealed with the prefix.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backlog::QueueHold;
use super::entry::{
    Blob, Change, Commit, Delivery, KeptSender, Mail, RecordHead, SealedBlob, SealedDelivery,
    SealedMail,
};
use super::keyring::Keyring;
use super::keys::Key;
use super::log::Frame;
use super::mac;
use super::mailbox::{MailboxHandle, NewMailbox, Reservation};
use super::queued::{QueueEntry, QueuedContent, SealedEntry, SealedQueued};
use super::register::Fact;
use super::slots::Opened;
use super::stated::Stated;
use super::usage::UsageHold;
use super::{StoreError, damaged};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::events::sink::RecordedEvents;
use crate::heavy::Turn;
use crate::id::MailboxId;

/// The content is the first sealed piece of a blob, its mails' prefixes the following ones.
const CONTENT_PART: u32 = 0;
/// About as many octets as the beginning of a payload has, and for each further row of the index.
const START: usize = 4096;
const START_PER_ROW: usize = 640;

/// A commit, sealed and framed.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) frame: Frame,
    pub(super) head: Arc<RecordHead>,
    /// Where in the payload's first piece the events stand, encoded without ids, each ended by LF.
    events: Range<usize>,
    /// The room that the commit takes, to be kept when it is durable.
    pub(super) rooms: Vec<Reservation>,
    /// Octets that mailboxes get back when it is durable.
    pub(super) freed: Vec<(Arc<MailboxHandle>, u64)>,
    /// Recipients that were counted, to be kept when it is durable.
    pub(super) usage: Vec<UsageHold>,
    /// What was counted for mail that waits, until the queue's entries count.
    pub(super) queue_room: Option<QueueHold>,
}

impl Encoded {
    /// Its events, once its position is known.
    pub(super) fn recorded_events(&self, lsn: Lsn) -> RecordedEvents<'_> {
        let lines = self.frame.payload_start().get(self.events.clone()).unwrap_or_default();
        RecordedEvents { lsn, at: self.head.events_at.unwrap_or_default(), lines }
    }
}

/// Frames changes of messages; `mailboxes` are those that removals give room back to.
pub(super) fn encode_changes(
    changes: Vec<Change>,
    freed: Vec<(Arc<MailboxHandle>, u64)>,
) -> Result<Encoded, StoreError> {
    encode_alone(RecordHead { changes, ..RecordHead::default() }, freed)
}

/// Frames what is so from now on.
pub(super) fn encode_facts(
    facts: Vec<Fact>,
    stated: Option<Stated>,
) -> Result<Encoded, StoreError> {
    encode_alone(RecordHead { facts, stated, ..RecordHead::default() }, Vec::new())
}

/// Frames mailboxes that are no more, and those whose keys are gone.
pub(super) fn encode_erasures(
    erasing: Vec<NewMailbox>,
    erased: Vec<MailboxId>,
) -> Result<Encoded, StoreError> {
    encode_alone(RecordHead { erasing, erased, ..RecordHead::default() }, Vec::new())
}

/// Frames a head that has neither contents nor events.
fn encode_alone(
    head: RecordHead,
    freed: Vec<(Arc<MailboxHandle>, u64)>,
) -> Result<Encoded, StoreError> {
    let (start, events) = encode_start(&head, |_| {})?;
    let frame = Frame::new(vec![start]).ok_or_else(too_long)?;
    Ok(Encoded {
        frame,
        head: Arc::new(head),
        events,
        rooms: Vec::new(),
        freed,
        usage: Vec::new(),
        queue_room: None,
    })
}

/// What a payload begins with, its head and its events, and where in it the events stand. All of
/// it is written in place: of a message for many mailboxes it is megabytes.
fn encode_start(
    head: &RecordHead,
    push_events: impl FnOnce(&mut Vec<u8>),
) -> Result<(Vec<u8>, Range<usize>), StoreError> {
    let mut start = Vec::with_capacity(START + (head.rows() - 1).saturating_mul(START_PER_ROW));
    push_sized(&mut start, |start| {
        serde_json::to_writer(start, head)
            .expect("a record's head has only strings, numbers, lists and JSON values");
    })?;
    let events = push_sized(&mut start, push_events)?;
    Ok((start, events))
}

/// Seals a commit's contents and frames it.
pub(super) fn encode(_: &Turn, commit: Commit, keyring: &Keyring) -> Result<Encoded, StoreError> {
    let mut encoder = Encoder::new(keyring);
    let stories_at = || commit.queue_changes.first().filter(|_| !commit.stories.is_empty());
    let events_at = commit.events.first().map(|event| event.event_timestamp);
    encoder.head.events_at = events_at.or_else(|| Some(stories_at()?.at));
    encoder.head.stories = commit.stories;
    encoder.head.queue_changes = commit.queue_changes;
    encoder.head.first_sender = commit.first_sender.map(|address| KeptSender {
        address,
        at: commit.events.first().map_or_else(Timestamp::default, |event| event.event_timestamp),
    });
    encoder.head.usage = commit.usage.iter().filter_map(UsageHold::used).cloned().collect();
    for blob in commit.blobs {
        encoder.blob(blob)?;
    }
    let Encoder { head, tail, rooms, .. } = encoder;
    let (start, events) = encode_start(&head, |start| {
        for event in commit.events {
            event.encode_into(start);
            start.push(b'\n');
        }
    })?;
    let mut payload = vec![start];
    payload.extend(tail);
    let frame = Frame::new(payload).ok_or_else(too_long)?;
    Ok(Encoded {
        frame,
        head: Arc::new(head.for_the_index()),
        events,
        rooms,
        freed: Vec::new(),
        usage: commit.usage,
        queue_room: commit.queue_room,
    })
}

fn too_long() -> StoreError {
    StoreError::Key("a record cannot be longer than 4 GiB".into())
}

/// Pushes a part with its length before it; where the part stands then.
fn push_sized(
    out: &mut Vec<u8>,
    push: impl FnOnce(&mut Vec<u8>),
) -> Result<Range<usize>, StoreError> {
    let begin = out.len() + 4;
    out.extend_from_slice(&[0; 4]);
    push(out);
    let length = u32::try_from(out.len() - begin).map_err(|_| too_long())?;
    out[begin - 4..begin].copy_from_slice(&length.to_le_bytes());
    Ok(begin..out.len())
}

struct Encoder<'a> {
    keyring: &'a Keyring,
    head: RecordHead,
    /// Whose births are in the head.
    born: HashSet<MailboxId>,
    tail: Vec<Vec<u8>>,
    rooms: Vec<Reservation>,
}

impl<'a> Encoder<'a> {
    fn new(keyring: &'a Keyring) -> Self {
        let (head, born) = (RecordHead::default(), HashSet::new());
        Self { keyring, head, born, tail: Vec::new(), rooms: Vec::new() }
    }

    fn blob(&mut self, blob: Blob) -> Result<(), StoreError> {
        let key = Key::generate()?;
        let mut content = blob.content;
        let content_length = content.len() as u64;
        key.seal(CONTENT_PART, &mut content)?;
        let mut mails = Vec::with_capacity(blob.mails.len());
        for (part, mail) in (CONTENT_PART + 1..).zip(blob.mails) {
            mails.push(self.mail(mail, part, content_length, &key)?);
        }
        self.head.blobs.push(SealedBlob { length: content.len() as u64, mails });
        self.tail.push(content);
        Ok(())
    }

    fn mail(
        &mut self,
        mail: Mail,
        part: u32,
        content_length: u64,
        key: &Key,
    ) -> Result<SealedMail, StoreError> {
        let mut prefix = mail.prefix;
        let suffix_length = mail.suffix.len() as u64;
        prefix.extend_from_slice(&mail.suffix);
        let size = prefix.len() as u64 + content_length;
        key.seal(part, &mut prefix)?;
        let mut deliveries = Vec::with_capacity(mail.deliveries.len());
        for delivery in mail.deliveries {
            deliveries.extend(self.delivery(delivery, key)?);
        }
        let sealed = SealedMail {
            id: mail.id,
            received_at: mail.received_at,
            prefix_length: prefix.len() as u64,
            suffix_length,
            size,
            deliveries,
            queued: self.queued(mail.queued, key)?,
        };
        self.tail.push(prefix);
        Ok(sealed)
    }

    fn queued(
        &self,
        entries: Vec<QueueEntry>,
        key: &Key,
    ) -> Result<Option<SealedQueued>, StoreError> {
        let Some(first) = entries.first() else { return Ok(None) };
        // A mail is one organization's, and so is all that its entries say.
        let is_of_it = |entry: &QueueEntry| entry.organization == first.organization;
        debug_assert!(entries.iter().all(is_of_it), "entries of several organizations");
        let wrapped_key = self.keyring.leaving(&first.organization)?.wrap(key, &[])?;
        let sealed = |entry| SealedEntry { entry: Arc::new(entry), is_gone: false };
        Ok(Some(SealedQueued { entries: entries.into_iter().map(sealed).collect(), wrapped_key }))
    }

    /// Nothing for a mailbox that was erased while the message was on its way: nobody could read it
    /// there, and everybody else gets it.
    fn delivery(
        &mut self,
        delivery: Delivery,
        key: &Key,
    ) -> Result<Option<SealedDelivery>, StoreError> {
        let mailbox = Arc::clone(delivery.room.mailbox());
        let birth = &mailbox.birth;
        let Opened::Key(mailbox_key) = self.keyring.mailbox(birth)? else { return Ok(None) };
        self.rooms.push(delivery.room);
        self.birth_if_new(&mailbox);
        Ok(Some(SealedDelivery {
            mailbox: birth.id,
            folder: delivery.folder,
            since: None,
            wrapped_key: mailbox_key.wrap(key, birth.id.as_bytes())?,
        }))
    }

    /// Until a mailbox's birth is known to be durable, every commit that uses it carries it.
    fn birth_if_new(&mut self, mailbox: &MailboxHandle) {
        if !mailbox.is_durable.load(Ordering::Acquire) && self.born.insert(mailbox.birth.id) {
            self.head.new_mailboxes.push(mailbox.birth.clone());
        }
    }
}

/// A payload's parts.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) head: RecordHead,
    pub(super) events: Vec<u8>,
    /// Where in the payload the tail begins.
    tail: u64,
}

/// Why a payload cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not what [`encode`] makes.
    Damaged,
    /// Something is in it that this version does not know, or not what it must have.
    Unknown(String),
}

impl Unreadable {
    /// The error of a file that has it at this place.
    pub(super) fn at(self, path: &Path, offset: u64) -> StoreError {
        match self {
            Self::Damaged => damaged(path, offset, "a record cannot be read"),
            Self::Unknown(problem) => {
                StoreError::UnknownRecord { path: path.to_owned(), offset, problem }
            }
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("cannot be read"),
            Self::Unknown(problem) => {
                write!(f, "is one that this version does not know: {problem}")
            }
        }
    }
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        // A head is one line, so its number says nothing.
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
        if error.is_data() { Self::Unknown(problem) } else { Self::Damaged }
    }
}

/// Reads the head and events of a payload. What it does not know it refuses: who passed over it would
/// leave it out when the record is written anew.
///
/// # Errors
/// [`Unreadable`]
pub(super) fn decode(payload: &[u8]) -> Result<Decoded, Unreadable> {
    let (head, rest) = take_sized(payload).ok_or(Unreadable::Damaged)?;
    let (events, tail) = take_sized(rest).ok_or(Unreadable::Damaged)?;
    Ok(Decoded {
        head: serde_json::from_slice(head)?,
        events: events.to_vec(),
        tail: (payload.len() - tail.len()) as u64,
    })
}

fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl Decoded {
    /// Its events, which the log keeps at this position.
    pub(super) fn recorded_events(&self, lsn: Lsn) -> RecordedEvents<'_> {
        RecordedEvents { lsn, at: self.head.events_at.unwrap_or_default(), lines: &self.events }
    }

    /// A hash of head, events and the tags of all sealed pieces; `None` if the payload has other octets
    /// than those that the head speaks of.
    pub(super) fn digest(&self, payload: &[u8]) -> Option<mac::Digest> {
        let (start, mut tail) = payload.split_at_checked(usize::try_from(self.tail).ok()?)?;
        let mut sealed = Vec::new();
        for blob in &self.head.blobs {
            let prefixes = blob.mails.iter().map(|mail| mail.prefix_length);
            for length in prefixes.chain([blob.length]).filter(|length| *length > 0) {
                let (piece, rest) = tail.split_at_checked(usize::try_from(length).ok()?)?;
                sealed.push(piece);
                tail = rest;
            }
        }
        tail.is_empty().then(|| mac::digest(start, sealed))
    }

    /// Where in the payload a mail's sealed prefix and its blob's sealed content stand; `None` if
    /// there is no such mail, or if the head gives lengths that no payload has.
    pub(super) fn ranges(&self, blob: usize, mail: usize) -> Option<(Range<u64>, Range<u64>)> {
        let mut position = self.tail;
        for earlier in self.head.blobs.get(..blob)? {
            position = after_prefixes(position, &earlier.mails)?.checked_add(earlier.length)?;
        }
        let blob = self.head.blobs.get(blob)?;
        let prefix = after_prefixes(position, blob.mails.get(..mail)?)?;
        let prefix_end = prefix.checked_add(blob.mails.get(mail)?.prefix_length)?;
        let content = after_prefixes(position, &blob.mails)?;
        Some((prefix..prefix_end, content..content.checked_add(blob.length)?))
    }
}

fn after_prefixes(position: u64, mails: &[SealedMail]) -> Option<u64> {
    mails.iter().try_fold(position, |position, mail| position.checked_add(mail.prefix_length))
}

impl Decoded {
    /// The payload again in pieces, with another head and with or without its events. Sealed
    /// pieces to which `head`, which has the same blobs and mails, gives no length are left out.
    pub(super) fn repack<'a>(
        &self,
        payload: &'a [u8],
        head: &RecordHead,
        keeps_events: bool,
    ) -> Result<(Vec<u8>, Vec<&'a [u8]>), StoreError> {
        let events = if keeps_events { self.events.as_slice() } else { &[] };
        let (start, _) = encode_start(head, |start| start.extend_from_slice(events))?;
        let mut tail = payload.get(self.tail as usize..).unwrap_or_default();
        let mut take = |length: u64, is_kept: bool| {
            let (piece, rest) = tail.split_at(tail.len().min(length as usize));
            tail = rest;
            is_kept.then_some(piece)
        };
        let mut pieces = Vec::new();
        for (number, blob) in self.head.blobs.iter().enumerate() {
            let kept = head.blobs.get(number);
            for (number, mail) in blob.mails.iter().enumerate() {
                let kept = kept.and_then(|blob| blob.mails.get(number));
                let is_kept = kept.is_some_and(|mail| mail.prefix_length > 0);
                pieces.extend(take(mail.prefix_length, is_kept));
            }
            pieces.extend(take(blob.length, kept.is_some_and(|blob| blob.length > 0)));
        }
        Ok((start, pieces))
    }
}

/// Opens a mail: its prefix, its content and its suffix, joined.
pub(super) fn open(
    key: &Key,
    mail: usize,
    suffix_length: u64,
    prefix: Vec<u8>,
    content: Vec<u8>,
) -> Result<Vec<u8>, StoreError> {
    let opened = open_parts(key, mail, suffix_length, prefix, content)?;
    let QueuedContent { mut prefix, mut content, suffix, .. } = opened;
    prefix.reserve_exact(content.len() + suffix.len());
    prefix.append(&mut content);
    prefix.extend_from_slice(&suffix);
    Ok(prefix)
}

/// Opens a mail's parts.
pub(super) fn open_parts(
    key: &Key,
    mail: usize,
    suffix_length: u64,
    mut prefix: Vec<u8>,
    mut content: Vec<u8>,
) -> Result<QueuedContent, StoreError> {
    let part = u32::try_from(mail).unwrap_or(u32::MAX - 1) + CONTENT_PART + 1;
    key.open(part, &mut prefix)?;
    key.open(CONTENT_PART, &mut content)?;
    let suffix_length = usize::try_from(suffix_length).unwrap_or(usize::MAX);
    let suffix = prefix.split_off(prefix.len().saturating_sub(suffix_length));
    Ok(QueuedContent { prefix, content, suffix, token: None })
}
