//! Reading the store for commands, beside a running daemon or without one.
//!
//! The index may be a moment behind the log, so what the log has beyond it is read too: a reader
//! sees every message that was acknowledged before it was opened.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::PathBuf;

use super::entry::{Change, Folder, RecordHead, Story};
use super::index::{Cursor, Index, IndexedMessage, messages_of, queued_of};
use super::keyring::Keyring;
use super::layout::Layout;
use super::mailbox::{MailboxOwner, NewMailbox};
use super::queued::{QueueChange, QueuedMail};
use super::register::Register;
use super::segment::{Catalog, LoggedRecord, Scanner, StoredFrame};
use super::stated::{Said, Stated};
use super::{Settings, StoreError};
use super::{codec, compact, durable};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::id::{MailboxId, TraceId};

/// A mailbox and how full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxSummary {
    /// Whose it is.
    pub owner: MailboxOwner,
    /// Octets of its messages.
    pub used_bytes: u64,
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its id.
    pub id: TraceId,
    /// Where it is.
    pub folder: Folder,
    /// Octets, our headers included.
    pub size: u64,
    /// When it was received.
    pub received_at: Timestamp,
    indexed: IndexedMessage,
}

#[cfg(test)]
impl StoredMessage {
    pub(super) fn place(&self) -> super::entry::MessageRef {
        self.indexed.at
    }
}

/// What a durable record holds beside its events.
#[derive(Debug)]
pub struct RecordContents {
    /// One for each trace that is told of.
    pub stories: Vec<Story>,
    /// What it put into mailboxes, in the folders of that moment.
    pub messages: Vec<StoredMessage>,
    /// What it put into the queue.
    pub queued: Vec<QueuedMail>,
}

/// An open store, for reading.
#[derive(Debug)]
pub struct Reader {
    log_dir: PathBuf,
    catalog: Catalog,
    /// Held while the reader lives, so that no file that it knows is replaced.
    _log_stays: Option<File>,
    keyring: Keyring,
    index: Index,
    mailboxes: Vec<(NewMailbox, u64)>,
    register: Register,
    /// Messages of records that the index does not have yet.
    beyond: Vec<IndexedMessage>,
    /// Changes that the index does not have yet.
    changes_beyond: Vec<Change>,
    /// The same of the queue.
    queued_beyond: Vec<QueuedMail>,
    queue_changes_beyond: Vec<QueueChange>,
    /// The traces of stories that the index is to list, and where they stand.
    listed_beyond: Vec<(TraceId, Lsn)>,
}

impl Reader {
    /// Opens the store of a data folder.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none; damage; those of the file system.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let layout = Layout(settings);
        if !durable::is_there(&layout.index())? {
            let dir = settings.data_dir.display();
            return Err(StoreError::NotFound(format!("{dir} holds no mail store yet")));
        }
        layout.check_format()?;
        let keyring = layout.known_keyring()?;
        let log_stays = compact::keep_files(&layout.log());
        let index = Index::open_to_read(&layout.index())?;
        let mut mailboxes = index.mailboxes()?;
        let mut gone: HashSet<_> = index.erasures()?.iter().map(|it| it.birth.id).collect();
        let mut register = index.register()?;
        let (mut beyond, mut changes_beyond) = (Vec::new(), Vec::new());
        let (mut queued_beyond, mut queue_changes_beyond) = (Vec::new(), Vec::new());
        let mut listed_beyond = Vec::new();
        let catalog = Catalog::read(&layout.log())?;
        let log_key = layout.log_key(keyring.master(), &catalog.chain()?)?;
        let from = index.cursor(Cursor::Indexed)?;
        let mut scanner = Scanner::over(catalog.segments.clone(), from)?;
        while let Some(LoggedRecord { lsn, record, .. }) = scanner.next_record(&log_key)? {
            add_births(&mut mailboxes, &record.head);
            gone.extend(record.head.erasing.iter().map(|birth| birth.id));
            record.head.facts.iter().for_each(|fact| register.apply(fact));
            beyond.extend(messages_of(lsn, &record.head));
            queued_beyond.extend(queued_of(lsn, &record.head));
            listed_beyond.extend(record.head.listed().map(|story| (story.trace_id, lsn)));
            changes_beyond.extend(record.head.changes);
            queue_changes_beyond.extend(record.head.queue_changes);
        }
        mailboxes.retain(|(birth, _)| !gone.contains(&birth.id));
        for message in &beyond {
            let mailbox = mailboxes.iter_mut().find(|(birth, _)| birth.id == message.at.mailbox);
            mailbox.into_iter().for_each(|(_, used)| *used = used.saturating_add(message.size));
        }
        for change in changes_beyond.iter().filter(|change| change.to.is_none()) {
            let mailbox =
                mailboxes.iter_mut().find(|(birth, _)| birth.id == change.message.mailbox);
            mailbox.into_iter().for_each(|(_, used)| *used = used.saturating_sub(change.size));
        }
        Ok(Self {
            log_dir: layout.log(),
            catalog,
            _log_stays: log_stays,
            keyring,
            index,
            mailboxes,
            register,
            beyond,
            changes_beyond,
            queued_beyond,
            queue_changes_beyond,
            listed_beyond,
        })
    }

    /// Who is who.
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// All mailboxes that ever received a message.
    pub fn mailboxes(&self) -> Vec<MailboxSummary> {
        self.mailboxes
            .iter()
            .map(|(birth, used)| MailboxSummary { owner: birth.owner.clone(), used_bytes: *used })
            .collect()
    }

    /// The messages of a mailbox by folder, oldest first; none if it never received one.
    ///
    /// # Errors
    /// Those of the index.
    pub fn messages(&self, owner: &MailboxOwner) -> Result<Vec<StoredMessage>, StoreError> {
        let Some((birth, _)) = self.mailboxes.iter().find(|(birth, _)| birth.owner == *owner)
        else {
            return Ok(Vec::new());
        };
        let mut messages = self.index.messages(birth.id)?;
        let beyond = self.beyond.iter().filter(|message| message.at.mailbox == birth.id);
        messages.extend(beyond.cloned());
        for change in &self.changes_beyond {
            messages.retain_mut(|message| {
                let is_it = message.at == change.message && message.folder == change.from;
                if let (true, Some(to)) = (is_it, change.to) {
                    message.folder = to;
                }
                !is_it || change.to.is_some()
            });
        }
        messages.sort_by_key(|message| (message.folder, message.at));
        Ok(messages.into_iter().map(stored).collect())
    }

    /// A message as it is stored: our headers and the bytes that were received.
    ///
    /// # Errors
    /// Damage, a key that does not fit, those of the file system.
    pub fn read(&self, message: &StoredMessage) -> Result<Vec<u8>, StoreError> {
        let at = message.indexed.at;
        let (frame, record) = self.record(at.lsn)?;
        let missing = || StoreError::NotFound(format!("the log has no message {}", message.id));
        let blob = record.head.blobs.get(at.blob).ok_or_else(missing)?;
        let mail = blob.mails.get(at.mail).ok_or_else(missing)?;
        let delivery = mail
            .deliveries
            .iter()
            .find(|delivery| delivery.mailbox == at.mailbox)
            .ok_or_else(missing)?;
        let key = self
            .mailbox_key(at.mailbox)?
            .unwrap_key(&delivery.wrapped_key, at.mailbox.as_bytes())?;
        let (prefix, content) = record.ranges(at.blob, at.mail).ok_or_else(missing)?;
        let (prefix, content) = (frame.read(prefix)?, frame.read(content)?);
        codec::open(&key, at.mail, mail.suffix_length, prefix, content)
    }

    /// What waits in the queue, oldest first.
    ///
    /// # Errors
    /// Those of the index.
    pub fn queue(&self) -> Result<Vec<QueuedMail>, StoreError> {
        let mut queued = self.index.queue()?;
        queued.extend(self.queued_beyond.iter().cloned());
        for change in &self.queue_changes_beyond {
            match &change.state {
                None => queued.retain(|mail| mail.id != change.entry),
                Some(state) => {
                    let changed = queued.iter_mut().find(|mail| mail.id == change.entry);
                    changed.into_iter().for_each(|mail| mail.state = state.clone());
                }
            }
        }
        Ok(queued)
    }

    /// The durable records that have a story of this trace to which no event leads, oldest first:
    /// of mail of our own that leaves.
    ///
    /// # Errors
    /// Those of the index.
    pub fn listed(&self, trace_id: TraceId) -> Result<Vec<Lsn>, StoreError> {
        let mut records = self.index.listed(trace_id)?;
        let beyond = self.listed_beyond.iter().filter(|(id, _)| *id == trace_id);
        records.extend(beyond.map(|(_, lsn)| *lsn));
        Ok(records)
    }

    /// What a durable record holds beside its events.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the log has no such record.
    pub fn contents(&self, lsn: Lsn) -> Result<RecordContents, StoreError> {
        let head = self.record(lsn)?.1.head;
        Ok(RecordContents {
            messages: messages_of(lsn, &head).into_iter().map(stored).collect(),
            queued: queued_of(lsn, &head),
            stories: head.stories,
        })
    }

    fn mailbox_key(&self, id: MailboxId) -> Result<super::keys::Key, StoreError> {
        let (birth, _) =
            self.mailboxes.iter().find(|(birth, _)| birth.id == id).ok_or_else(|| {
                StoreError::NotFound(format!("mailbox {id} is not there, or was erased"))
            })?;
        self.keyring.mailbox(birth)?.or_gone(birth)
    }

    /// A record's frame, and its head and events.
    fn record(&self, lsn: Lsn) -> Result<(StoredFrame, codec::Decoded), StoreError> {
        let frame = if lsn < self.catalog.end() {
            self.catalog.frame(lsn)?
        } else {
            Catalog::read(&self.log_dir)?.frame(lsn)?
        };
        let record = frame.record()?;
        Ok((frame, record))
    }
}

fn add_births(mailboxes: &mut Vec<(NewMailbox, u64)>, head: &RecordHead) {
    for birth in &head.new_mailboxes {
        if !mailboxes.iter().any(|(known, _)| known.id == birth.id) {
            mailboxes.push((birth.clone(), 0));
        }
    }
}

fn stored(indexed: IndexedMessage) -> StoredMessage {
    StoredMessage {
        id: indexed.id,
        folder: indexed.folder,
        size: indexed.size,
        received_at: indexed.received_at,
        indexed,
    }
}

/// What is known of a data folder without any key: its index, where this version has made it, and
/// the records that the index does not have.
struct Known {
    index: Option<Index>,
    beyond: Scanner,
    _log_stays: Option<File>,
}

impl Known {
    /// `None` where there is no store yet.
    fn of(settings: &Settings) -> Result<Option<Self>, StoreError> {
        let layout = Layout(settings);
        if !durable::is_there(&layout.log())? {
            return Ok(None);
        }
        let log_stays = compact::keep_files(&layout.log());
        let catalog = Catalog::read(&layout.log())?;
        let mut index = None;
        if durable::is_there(&layout.index())? {
            let opened = Index::open_to_read(&layout.index())?;
            // Of another version, it is made again from the log.
            index = opened.is_of_this_version()?.then_some(opened);
        }
        let indexed = index.as_ref().map(|index| index.cursor(Cursor::Indexed)).transpose()?;
        let beyond = Scanner::over(catalog.segments, indexed.unwrap_or(Lsn(0)))?;
        Ok(Some(Self { index, beyond, _log_stays: log_stays }))
    }

    /// The next record that the index does not have. Who asks may not have the key; a start has, before
    /// it believes any of it.
    fn next(&mut self) -> Result<Option<(Lsn, RecordHead)>, StoreError> {
        let Some(frame) = self.beyond.next_frame()? else { return Ok(None) };
        let record = frame.unproven_record()?;
        Ok(Some((frame.place.lsn, record.head)))
    }
}

/// Who is who in the store of a data folder, beside a daemon or without one; nobody where there is
/// no store yet.
///
/// # Errors
/// Damage, those of the file system.
pub fn register(settings: &Settings) -> Result<Register, StoreError> {
    let Some(mut known) = Known::of(settings)? else { return Ok(Register::default()) };
    let register = known.index.as_ref().map(Index::register).transpose()?;
    let mut register = register.unwrap_or_default();
    while let Some((_, head)) = known.next()? {
        head.facts.iter().for_each(|fact| register.apply(fact));
    }
    Ok(register)
}

/// What was said last about each thing of an organization, by what it is about.
///
/// # Errors
/// Damage, those of the file system.
pub fn said(
    settings: &Settings,
    organization: &str,
) -> Result<BTreeMap<Box<str>, Said>, StoreError> {
    let Some(mut known) = Known::of(settings)? else { return Ok(BTreeMap::new()) };
    let said = known.index.as_ref().map(|index| index.said(organization)).transpose()?;
    let mut said = said.unwrap_or_default();
    while let Some((_, head)) = known.next()? {
        let all = head.stated.into_iter().flat_map(|stated| stated.said);
        for one in all.filter(|one| *one.organization == *organization) {
            said.insert(one.about.clone(), one);
        }
    }
    Ok(said)
}

/// All that was said of organizations, or of one of them alone, by where in the log it stands.
///
/// # Errors
/// Damage, those of the file system.
pub fn statements(
    settings: &Settings,
    organization: Option<&str>,
) -> Result<BTreeMap<Lsn, Stated>, StoreError> {
    let Some(mut known) = Known::of(settings)? else { return Ok(BTreeMap::new()) };
    let statements = known.index.as_ref().map(|index| index.statements(organization));
    let mut statements = statements.transpose()?.unwrap_or_default();
    while let Some((lsn, head)) = known.next()? {
        statements.extend(head.stated.map(|stated| (lsn, stated)));
    }
    for stated in statements.values_mut() {
        stated.said.retain(|said| organization.is_none_or(|it| *said.organization == *it));
    }
    statements.retain(|_, stated| !stated.said.is_empty());
    Ok(statements)
}

/// Whether a data folder is there at all, for a clearer message than "no such file".
pub fn exists(settings: &Settings) -> bool {
    fs::metadata(Layout(settings).index()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntityId, EntityKind};
    use crate::store::slots::Slot;

    /// Two records have the key of a mailbox that was not durable yet when the second was made.
    #[test]
    fn a_mailbox_that_is_born_twice_is_one() {
        let entity = EntityId::generate(EntityKind::User);
        let owner = MailboxOwner { organization: "m-1".into(), entity };
        let birth = NewMailbox { id: MailboxId::generate(), owner, slot: Slot::numbered(3) };
        let head = RecordHead { new_mailboxes: vec![birth.clone()], ..RecordHead::default() };
        let mut mailboxes = vec![(birth, 7)];
        add_births(&mut mailboxes, &head);
        let other = NewMailbox { id: MailboxId::generate(), ..mailboxes[0].0.clone() };
        let head = RecordHead { new_mailboxes: vec![other.clone(), other], ..head };
        add_births(&mut mailboxes, &head);
        let used: Vec<_> = mailboxes.iter().map(|(_, used)| *used).collect();
        assert_eq!(used, [7, 0]);
    }
}
