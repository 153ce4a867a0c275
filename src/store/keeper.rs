//! The keeper: a thread of the store that in the background applies the organizations' mailbox
//! retention and compacts the log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::compact::Compactor;
use super::door::Store;
use super::entry::{Change, Folder};
use super::index::{Cursor, Index, IndexedMessage};
use super::mac::LogKey;
use super::mailbox::MailboxHandle;
use super::threads::pause;
use super::{StoreError, codec};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::events::Lsn;
use crate::mail::SRS_VALID_DAYS;

/// Changes of one commit.
const CHANGES: usize = 500;
/// How long the envelope senders of forwarded mail are kept: for as long as their tokens are
/// valid, whose day may have begun up to a day before the message.
const SENDERS_KEPT: Duration = Duration::from_secs((SRS_VALID_DAYS + 2) * 24 * 60 * 60);
/// How often the keeper looks whether the index has come to its changes.
const INDEX_POLL: Duration = Duration::from_millis(20);

/// What happens to messages that have been in a folder for too long (guide 4614–4633).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionAction {
    /// They are moved to `DELETED_ITEMS`, where their user can have them back.
    Delete,
    /// They are removed for good.
    PermanentlyDelete,
}

/// One folder's part of an organization's retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderRetention {
    /// `m-` and 32 hexadecimal digits.
    pub organization: Arc<str>,
    /// The folder, in every mailbox of the organization.
    pub folder: Folder,
    /// What happens.
    pub action: RetentionAction,
    /// After how many days in the folder, 1 to 730.
    pub period_days: u16,
}

/// What the keeper needs to know.
pub(super) struct Keeper {
    pub(super) store: Weak<Store>,
    pub(super) index: PathBuf,
    pub(super) log_dir: PathBuf,
    pub(super) interval: Duration,
    pub(super) event_retention: Duration,
    pub(super) segment_bytes: u64,
    pub(super) log_key: LogKey,
    pub(super) stop: Arc<AtomicBool>,
}

impl Keeper {
    /// Works once each interval until the other end of `stopped` is gone.
    pub(super) fn run(self, stopped: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(self.interval) {
            if let Err(error) = self.work() {
                tracing::warn!(%error, "the store could not be tidied; it is tried again");
            }
        }
    }

    fn work(&self) -> Result<(), StoreError> {
        let now = SystemClock.now();
        let mut index = Index::open(&self.index)?;
        if let Some(store) = self.store.upgrade() {
            store.delete_expired_events(now);
        }
        // A disk too full for a removal's record is one on which room is to be made.
        let expired = self.expire(&index, now);
        let mut compactor = Compactor {
            log_dir: self.log_dir.clone(),
            wal: self.index.with_extension("sqlite-wal"),
            index: &mut index,
            expired_before: now.minus(self.event_retention),
            senders_before: now.minus(SENDERS_KEPT),
            segment_bytes: self.segment_bytes,
            key: &self.log_key,
            stop: &self.stop,
        };
        while let Some(compacted) = compactor.compact_one()? {
            let (files, before, after) = (compacted.files, compacted.before, compacted.after);
            tracing::info!(files, before, after, "log compacted");
        }
        index.forget_listed(now.minus(self.event_retention))?;
        expired
    }

    /// Applies every organization's retention.
    fn expire(&self, index: &Index, now: Timestamp) -> Result<(), StoreError> {
        let Some(store) = self.store.upgrade() else { return Ok(()) };
        for policy in store.retention().iter() {
            let before = now.minus(Duration::from_secs(u64::from(policy.period_days) * 86_400));
            for mailbox in store.mailboxes_of(&policy.organization) {
                let mut expired = self.expire_some(&store, index, policy, &mailbox, before)?;
                while expired == CHANGES && !self.stop.load(Ordering::Relaxed) {
                    expired = self.expire_some(&store, index, policy, &mailbox, before)?;
                }
            }
        }
        Ok(())
    }

    /// One commit's worth of a mailbox's expired messages; how many there were.
    fn expire_some(
        &self,
        store: &Store,
        index: &Index,
        policy: &FolderRetention,
        mailbox: &Arc<MailboxHandle>,
        before: Timestamp,
    ) -> Result<usize, StoreError> {
        let to = match policy.action {
            RetentionAction::Delete => Some(Folder::DeletedItems),
            RetentionAction::PermanentlyDelete => None,
        };
        if to == Some(policy.folder) {
            return Ok(0);
        }
        let expired = index.messages_before(mailbox.birth.id, policy.folder, before, CHANGES)?;
        if expired.is_empty() {
            return Ok(0);
        }
        let at = SystemClock.now();
        let changes: Vec<_> = expired.iter().map(|message| change(message, to, at)).collect();
        let freed = match to {
            Some(_) => Vec::new(),
            None => changes.iter().map(|change| (Arc::clone(mailbox), change.size)).collect(),
        };
        let lsn = store.commit_blocking(codec::encode_changes(changes, freed)?)?;
        let mailbox = store.register().describe(mailbox.owner());
        tracing::info!(%mailbox, folder = %policy.folder, messages = expired.len(),
            "retention applied");
        self.wait_for_index(index, lsn)?;
        Ok(expired.len())
    }

    /// Until the index has a change, it would be found again.
    fn wait_for_index(&self, index: &Index, lsn: Lsn) -> Result<(), StoreError> {
        while index.cursor(Cursor::Indexed)? <= lsn {
            if self.stop.load(Ordering::Relaxed) {
                return Err(StoreError::Closed);
            }
            pause(INDEX_POLL);
        }
        Ok(())
    }
}

fn change(message: &IndexedMessage, to: Option<Folder>, at: Timestamp) -> Change {
    Change { message: message.at, from: message.folder, to, size: message.size, at }
}
