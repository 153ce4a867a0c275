//! What compaction may leave out: what records of the log say, whose MACs are looked at. The index only
//! says where to look, because what SQLite alone says would be signed with the pack, and then nobody
//! could tell it from the truth.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::StoreError;
use super::entry::{Change, MessageRef, RecordHead};
use super::index::{Changed, Known};
use super::mac::LogKey;
use super::queued::QueueId;
use super::segment::Catalog;
use crate::events::Lsn;

/// What became of messages and queue entries, as the log says it.
#[derive(Debug)]
pub(super) struct Changes {
    /// Changes before this position are in it.
    pub(super) considered: Lsn,
    pub(super) messages: BTreeMap<MessageRef, Changed>,
    /// Entries of the positions asked for that are gone.
    pub(super) gone: HashSet<QueueId>,
    /// Entries of all positions that wait, as the index has it.
    pub(super) waiting: HashSet<QueueId>,
    /// Where the log says of entries that they are gone, as the index has it.
    gone_at: HashMap<QueueId, Lsn>,
}

/// Reads records of the log to see what they say.
pub(super) struct Evidence<'a> {
    catalog: &'a Catalog,
    key: &'a LogKey,
    /// What was asked for last; changes come in groups.
    last: RefCell<Option<(Lsn, Option<Arc<RecordHead>>)>>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(catalog: &'a Catalog, key: &'a LogKey) -> Self {
        Self { catalog, key, last: RefCell::new(None) }
    }

    /// The head of a record; `None` if a pack has nothing left of it.
    fn head(&self, lsn: Lsn) -> Result<Option<Arc<RecordHead>>, StoreError> {
        if let Some((known, head)) = &*self.last.borrow()
            && *known == lsn
        {
            return Ok(head.clone());
        }
        let head = self.catalog.proven_head(lsn, self.key)?.map(Arc::new);
        *self.last.borrow_mut() = Some((lsn, head.clone()));
        Ok(head)
    }

    /// What the log says of what the index knows of some positions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the log says nothing of the kind.
    pub(super) fn confirm(&self, known: Known) -> Result<Changes, StoreError> {
        let mut messages = BTreeMap::new();
        for (message, changed, at) in known.messages {
            let head = self.head(at)?;
            let is_said = head.is_some_and(|head| {
                let mut changes = head.changes.iter();
                // With its mailbox a message goes, too.
                let is_erased = changed.folder.is_none()
                    && head.erasing.iter().any(|birth| birth.id == message.mailbox);
                is_erased
                    || changes.any(|change| {
                        change.message == message
                            && change.to == changed.folder
                            && change.at == changed.since
                    })
            });
            if is_said {
                messages.insert(message, changed);
            } else if !self.shows(message, changed)? {
                return Err(nowhere("became of a message"));
            }
        }
        let mut gone = HashSet::new();
        for entry in known.gone {
            let at = known.gone_at.get(&entry).copied().unwrap_or_default();
            if self.says_gone(entry, at)? {
                gone.insert(entry);
            } else if !self.shows_gone(entry)? {
                return Err(nowhere("became of a queue entry"));
            }
        }
        let Known { considered, waiting, gone_at, .. } = known;
        Ok(Changes { considered, messages, gone, waiting, gone_at })
    }

    /// Whether the record of a message is as a change has left it, so that the change has nothing more
    /// to say.
    pub(super) fn shows_change(&self, change: &Change) -> Result<bool, StoreError> {
        self.shows(change.message, Changed { folder: change.to, since: change.at })
    }

    fn shows(&self, message: MessageRef, changed: Changed) -> Result<bool, StoreError> {
        let Some(head) = self.head(message.lsn)? else { return Ok(true) };
        let mail = head.blobs.get(message.blob).and_then(|blob| blob.mails.get(message.mail));
        let mut deliveries = mail.iter().flat_map(|mail| &mail.deliveries);
        Ok(match deliveries.find(|delivery| delivery.mailbox == message.mailbox) {
            None => true,
            Some(delivery) => {
                changed.folder.is_some() && delivery.since.is_some_and(|at| at >= changed.since)
            }
        })
    }

    /// Whether the log has it that an entry is gone: where it stands, or where that was recorded.
    pub(super) fn knows_gone(&self, entry: QueueId, changes: &Changes) -> Result<bool, StoreError> {
        if changes.gone.contains(&entry) {
            return Ok(true);
        }
        // What was recorded is shorter than the message.
        if let Some(at) = changes.gone_at.get(&entry)
            && self.says_gone(entry, *at)?
        {
            return Ok(true);
        }
        self.shows_gone(entry)
    }

    /// Whether the record of an entry has it that it is gone.
    pub(super) fn shows_gone(&self, entry: QueueId) -> Result<bool, StoreError> {
        let Some(head) = self.head(entry.lsn)? else { return Ok(true) };
        let mail = head.blobs.get(entry.blob).and_then(|blob| blob.mails.get(entry.mail));
        let known = mail.and_then(|mail| mail.queued.as_ref()?.entries.get(entry.entry));
        Ok(known.is_none_or(|known| known.is_gone))
    }

    fn says_gone(&self, entry: QueueId, at: Lsn) -> Result<bool, StoreError> {
        let head = self.head(at)?;
        let mut changes = head.iter().flat_map(|head| &head.queue_changes);
        Ok(changes.any(|change| change.entry == entry && change.state.is_none()))
    }
}

fn nowhere(what: &str) -> StoreError {
    StoreError::NotFound(format!(
        "the index says what {what}, and no record of the log does; delete it to build it again"
    ))
}
