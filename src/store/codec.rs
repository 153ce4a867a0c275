//! A commit as the payload of a frame, and back.
//!
//! A payload is `head length u32, head (JSON), events length u32, events (lines), tail`. The tail
//! holds, for each blob, the sealed prefixes of its mails and then its sealed content. What follows
//! the content in a mail, its suffix, is sealed with the prefix.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StoreError;
use super::entry::{
    Blob, Commit, Delivery, Mail, RecordHead, SealedBlob, SealedDelivery, SealedMail, SealedQueued,
};
use super::keys::{Key, Keyring};
use super::log::Frame;
use super::mailbox::{MailboxHandle, Reservation};

/// The content is the first sealed piece of a blob, its mails' prefixes the following ones.
const CONTENT_PART: u32 = 0;

/// A commit, sealed and framed.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) frame: Frame,
    pub(super) head: Arc<RecordHead>,
    /// The events, encoded without ids, each ended by LF.
    pub(super) events: Vec<u8>,
    /// The room that the commit takes, to be kept when it is durable.
    pub(super) rooms: Vec<Reservation>,
}

/// Seals a commit's contents and frames it.
pub(super) fn encode(commit: Commit, keyring: &Keyring) -> Result<Encoded, StoreError> {
    let mut encoder = Encoder { keyring, head: RecordHead::default(), tail: vec![], rooms: vec![] };
    encoder.head.events_at = commit.events.first().map(|event| event.event_timestamp);
    encoder.head.stories = commit.stories;
    for blob in commit.blobs {
        encoder.blob(blob)?;
    }
    let mut events = Vec::new();
    for event in &commit.events {
        events.append(&mut event.encode());
        events.push(b'\n');
    }
    let Encoder { head, tail, rooms, .. } = encoder;
    let head_json = serde_json::to_vec(&head)
        .expect("a record's head has only strings, numbers, lists and JSON values");
    let mut start = Vec::with_capacity(8 + head_json.len() + events.len());
    push_sized(&mut start, &head_json)?;
    push_sized(&mut start, &events)?;
    let mut payload = vec![start];
    payload.extend(tail);
    let frame = Frame::new(payload).ok_or_else(too_long)?;
    Ok(Encoded { frame, head: Arc::new(head), events, rooms })
}

fn too_long() -> StoreError {
    StoreError::Key("a record cannot be longer than 4 GiB".into())
}

fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), StoreError> {
    let length = u32::try_from(bytes.len()).map_err(|_| too_long())?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

struct Encoder<'a> {
    keyring: &'a Keyring,
    head: RecordHead,
    tail: Vec<Vec<u8>>,
    rooms: Vec<Reservation>,
}

impl Encoder<'_> {
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
        let sealed = SealedMail {
            id: mail.id,
            received_at: mail.received_at,
            prefix_length: prefix.len() as u64,
            suffix_length,
            size,
            deliveries: mail
                .deliveries
                .into_iter()
                .map(|delivery| self.delivery(delivery, key))
                .collect::<Result<_, _>>()?,
            queued: mail
                .queued
                .map(|queued| {
                    let wrapped_key = self.keyring.queue().wrap(key, &[])?;
                    Ok::<_, StoreError>(SealedQueued { mail: queued, wrapped_key })
                })
                .transpose()?,
        };
        self.tail.push(prefix);
        Ok(sealed)
    }

    fn delivery(&mut self, delivery: Delivery, key: &Key) -> Result<SealedDelivery, StoreError> {
        let mailbox = Arc::clone(delivery.room.mailbox());
        self.rooms.push(delivery.room);
        self.birth_if_new(&mailbox);
        let mailbox_key =
            self.keyring.mailbox(&mailbox.name.organization, mailbox.id, &mailbox.wrapped_key)?;
        Ok(SealedDelivery {
            mailbox: mailbox.id,
            folder: delivery.folder,
            wrapped_key: mailbox_key.wrap(key, mailbox.id.as_bytes())?,
        })
    }

    /// Until a mailbox's birth is known to be durable, every commit that uses it carries it.
    fn birth_if_new(&mut self, mailbox: &MailboxHandle) {
        let is_listed = self.head.new_mailboxes.iter().any(|birth| birth.id == mailbox.id);
        if !is_listed && !mailbox.is_durable.load(Ordering::Acquire) {
            self.head.new_mailboxes.push(mailbox.birth());
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

/// Reads the head and events of a payload; `None` if they are not what [`encode`] makes.
pub(super) fn decode(payload: &[u8]) -> Option<Decoded> {
    let (head, rest) = take_sized(payload)?;
    let (events, tail) = take_sized(rest)?;
    Some(Decoded {
        head: serde_json::from_slice(head).ok()?,
        events: events.to_vec(),
        tail: (payload.len() - tail.len()) as u64,
    })
}

fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl Decoded {
    /// Where in the payload a mail's sealed prefix and its blob's sealed content stand.
    pub(super) fn ranges(&self, blob: usize, mail: usize) -> Option<(Range<u64>, Range<u64>)> {
        let mut position = self.tail;
        for earlier in self.head.blobs.get(..blob)? {
            position += earlier.mails.iter().map(|mail| mail.prefix_length).sum::<u64>();
            position += earlier.length;
        }
        let blob = self.head.blobs.get(blob)?;
        let before: u64 = blob.mails.get(..mail)?.iter().map(|mail| mail.prefix_length).sum();
        let all: u64 = blob.mails.iter().map(|mail| mail.prefix_length).sum();
        let prefix = position + before..position + before + blob.mails.get(mail)?.prefix_length;
        let content = position + all..position + all + blob.length;
        Some((prefix, content))
    }
}

/// Opens a mail: its prefix, its content and its suffix, joined.
pub(super) fn open(
    key: &Key,
    mail: usize,
    suffix_length: u64,
    mut prefix: Vec<u8>,
    mut content: Vec<u8>,
) -> Result<Vec<u8>, StoreError> {
    let part = u32::try_from(mail).unwrap_or(u32::MAX - 1) + CONTENT_PART + 1;
    key.open(part, &mut prefix)?;
    key.open(CONTENT_PART, &mut content)?;
    let suffix_length = usize::try_from(suffix_length).unwrap_or(usize::MAX);
    let suffix = prefix.split_off(prefix.len().saturating_sub(suffix_length));
    prefix.reserve_exact(content.len() + suffix.len());
    prefix.append(&mut content);
    prefix.extend_from_slice(&suffix);
    Ok(prefix)
}
