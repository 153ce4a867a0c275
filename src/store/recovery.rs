//! What a store does before it opens: the log is read to its end, and index and event file are
//! brought up to it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::backlog::Backlog;
use super::committer::{Committer, Followers, Request};
use super::company::Company;
use super::entry::RecordHead;
use super::index::{Cursor, Erasure, Index};
use super::indexer::{Indexer, Lag};
use super::keyring::Keyring;
use super::layout::Layout;
use super::log::Log;
use super::mac::LogKey;
use super::mailbox::{Mailboxes, NewMailbox};
use super::queued::QueuedMail;
use super::segment::{Catalog, LoggedRecord, Scanner};
use super::slots::Opened;
use super::threads::spawn;
use super::{Settings, StoreError, compact};
use crate::events::Lsn;
use crate::events::sink::EventSink;
use crate::id::MailboxId;

/// Rows of one transaction, but for those of one record, while the index is brought up to the log.
const REPLAY_ROWS: usize = 10_000;

/// What a store stands on, brought to one state.
pub(super) struct Recovered {
    log: Log,
    index: Index,
    sink: EventSink,
}

impl Recovered {
    /// Recovers the log, and brings index and event file up to it.
    pub(super) fn open(
        layout: &Layout<'_>,
        settings: &Settings,
        events: &crate::events::Settings,
        key: &LogKey,
    ) -> Result<Self, StoreError> {
        let mut index = Index::open(&layout.index())?;
        let indexed = index.cursor(Cursor::Indexed)?;
        let synced = index.cursor(Cursor::EventsSynced)?;
        let mut sink = EventSink::open(layout.events(), *events, synced)
            .map_err(StoreError::file(layout.events()))?;
        let events_from = events_position(&index, &sink)?;
        let start = indexed.min(events_from);
        // Events are written when their record is durable, and so is the index.
        let told = sink.last().map_or(Lsn(0), |id| Lsn(id.lsn.0 + 1));
        let acknowledged = indexed.max(told);
        let log = Log::open(&layout.log(), settings.segment_bytes, start, acknowledged, key)?;
        if acknowledged > log.end() {
            return Err(StoreError::Damaged {
                path: layout.log(),
                offset: log.end().0,
                problem: format!(
                    "index or events know records up to {acknowledged}, the log ends before"
                ),
            });
        }
        compact::make_lock(&layout.log())?;
        replay(&log, start, indexed, &mut index, &mut sink)?;
        Ok(Self { log, index, sink })
    }

    /// The index, with all that the log has.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The mailboxes that the log knows, whose keys are theirs from now on. What the log calls erased
    /// is erased again, since a crash may have come between the two, or an older copy of the keys.
    ///
    /// # Errors
    /// A mailbox's key that is not there; those of index and file system.
    pub(super) fn mailboxes(
        &self,
        keyring: &Keyring,
        layout: &Layout<'_>,
    ) -> Result<Known, StoreError> {
        // First, so that no key of somebody who is gone is taken for one that is nobody's yet.
        let mut known = Known { erased: self.erase_again(keyring, layout)?, ..Known::default() };
        let indexed = self.index.mailboxes()?;
        let births: Vec<_> = indexed.iter().map(|(birth, _)| birth.clone()).collect();
        let without_key = keyring.adopt(&births)?;
        for (birth, used_bytes) in indexed {
            if !without_key.contains(&birth.id) {
                known.mailboxes.insert(birth, used_bytes);
                continue;
            }
            // The log is older than the keys: it was restored.
            tracing::warn!(mailbox = %birth.owner, "its key is erased, and so it is");
            known.erased.push(birth.id);
            known.erasing.push(birth);
        }
        Ok(known)
    }

    /// Those of which no record says yet that their keys are gone.
    fn erase_again(
        &self,
        keyring: &Keyring,
        layout: &Layout<'_>,
    ) -> Result<Vec<MailboxId>, StoreError> {
        let mut unfinished = Vec::new();
        for Erasure { birth, at, is_done } in self.index.erasures()? {
            if keyring.look(&birth)? != Opened::Erased {
                // The index only finds it: what it says is never enough to erase anything, nor is a
                // record without its MAC.
                let head = Catalog::read(&layout.log())?.proven_head(at, self.log.key())?;
                if !head.is_some_and(|head| head.erasing.contains(&birth)) {
                    let owner = &birth.owner;
                    return Err(StoreError::NotFound(format!(
                        "the index calls the mailbox of {owner} erased, and the log does not; \
                         delete the index to build it again"
                    )));
                }
                keyring.erase(&birth)?;
            }
            if !is_done {
                unfinished.push(birth.id);
            }
        }
        Ok(unfinished)
    }

    /// Starts the threads that write: one for log and event file, one for the index.
    pub(super) fn start_writing(self, ties: Ties) -> Result<Vec<JoinHandle<()>>, StoreError> {
        let Ties { requests, to_committer, queue, backlog, company, is_closing } = ties;
        let lag = Arc::new(Lag::default());
        let (indexer, records) = std::sync::mpsc::channel();
        let followers = Followers { indexer, queue, backlog };
        let committer = Committer::new(self.log, self.sink, followers, Arc::clone(&lag), company);
        let indexer = Indexer::new(self.index, lag, to_committer, is_closing);
        Ok(vec![
            spawn("committer", move || committer.run(requests))?,
            spawn("indexer", move || indexer.run(&records))?,
        ])
    }
}

/// The mailboxes of the log, and what it does not say yet of those that are erased.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) mailboxes: Mailboxes,
    pub(super) erasing: Vec<NewMailbox>,
    pub(super) erased: Vec<MailboxId>,
}

/// What ties the threads that write to the rest of the store.
pub(super) struct Ties {
    /// What the committer is asked for.
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) company: Company,
    /// By which the indexer asks the committer, for as long as the store is open.
    pub(super) to_committer: mpsc::WeakSender<Request>,
    /// Who learns of new entries of the queue.
    pub(super) queue: mpsc::UnboundedSender<QueuedMail>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) is_closing: Arc<AtomicBool>,
}

/// From where on the log may have events that are not in the files: a record that is in them
/// with its first events only is looked at again.
fn events_position(index: &Index, sink: &EventSink) -> Result<Lsn, StoreError> {
    let in_file = sink.last().map_or(Lsn(0), |id| id.lsn);
    Ok(index.cursor(Cursor::EventsSynced)?.max(in_file))
}

/// Brings index and event files up to the log's end.
fn replay(
    log: &Log,
    start: Lsn,
    indexed: Lsn,
    index: &mut Index,
    sink: &mut EventSink,
) -> Result<(), StoreError> {
    let events_from = events_position(index, sink)?;
    let mut scanner = Scanner::new(log.dir(), start)?;
    let mut unindexed: Vec<(Lsn, RecordHead)> = Vec::new();
    let mut rows = 0;
    let mut indexed_to = indexed;
    while let Some(LoggedRecord { lsn, next, record }) = scanner.next_record(log.key())? {
        if lsn >= events_from {
            sink.append([record.recorded_events(lsn)]).map_err(StoreError::file(log.dir()))?;
        }
        if lsn >= indexed {
            rows += record.head.rows();
            unindexed.push((lsn, record.head.for_the_index()));
            indexed_to = next;
        }
        if rows >= REPLAY_ROWS {
            index.apply(unindexed.iter().map(|(lsn, head)| (*lsn, head)), indexed_to)?;
            unindexed.clear();
            rows = 0;
        }
    }
    if !unindexed.is_empty() {
        index.apply(unindexed.iter().map(|(lsn, head)| (*lsn, head)), indexed_to)?;
    }
    Ok(())
}
