//! The indexer: the thread that follows the log with the index, and syncs the event file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::StoreError;
use super::committer::Request;
use super::entry::RecordHead;
use super::index::{Cursor, Index};
use super::threads::pause;
use crate::events::Lsn;
use crate::events::sink::EventFile;

/// Rows of one transaction of the index, but for those of one record.
pub(super) const INDEX_BATCH: usize = 10_000;
/// How long the indexer gathers records for one transaction, because to wait for each would cost a
/// wake-up each, and how often it tries again after
/// an error.
const INDEX_GATHER: Duration = Duration::from_millis(100);
const INDEX_RETRY: Duration = Duration::from_secs(1);
/// How often events that could not be written are tried again.
const EVENT_RETRY: Duration = Duration::from_secs(1);
/// How often the event file is synced; what is lost between is written again from the log.
const EVENT_SYNC: Duration = Duration::from_secs(5);

/// A durable record on its way into the index.
#[derive(Debug)]
pub(super) struct Indexable {
    pub(super) lsn: Lsn,
    pub(super) next: Lsn,
    pub(super) head: Arc<RecordHead>,
    /// The event file that the record's events are in, unless they are not written yet.
    pub(super) events: Option<Arc<EventFile>>,
}

/// How far index and event file are behind the log; committer and indexer both see to it.
#[derive(Debug, Default)]
pub(super) struct Lag {
    unindexed: AtomicUsize,
    is_stuck: AtomicBool,
    are_events_missing: AtomicBool,
}

impl Lag {
    /// Rows of durable records that the index does not have.
    pub(super) fn unindexed(&self) -> usize {
        self.unindexed.load(Ordering::Relaxed)
    }

    /// A further record is on its way to the index, with so many rows.
    pub(super) fn add_unindexed(&self, rows: usize) {
        self.unindexed.fetch_add(rows, Ordering::Relaxed);
    }

    /// The index has so many rows more.
    pub(super) fn take_indexed(&self, rows: usize) {
        self.unindexed.fetch_sub(rows, Ordering::Relaxed);
    }

    /// Whether the index cannot be written at present, so that waiting for it is in vain.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    pub(super) fn set_stuck(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
    }

    /// Whether events could not be written or synced: the file is then brought up from the log.
    pub(super) fn are_events_missing(&self) -> bool {
        self.are_events_missing.load(Ordering::Relaxed)
    }

    pub(super) fn set_events_missing(&self, are_missing: bool) {
        self.are_events_missing.store(are_missing, Ordering::Relaxed);
    }
}

/// Has the writing end of the index.
pub(super) struct Indexer {
    index: Index,
    lag: Arc<Lag>,
    synced_at: Instant,
    unsynced: Option<(Arc<EventFile>, Lsn)>,
    is_closing: Arc<AtomicBool>,
    committer: mpsc::WeakSender<Request>,
}

impl Indexer {
    /// An indexer that asks `committer` for what only the committer can do, until the store closes.
    pub(super) fn new(
        index: Index,
        lag: Arc<Lag>,
        committer: mpsc::WeakSender<Request>,
        is_closing: Arc<AtomicBool>,
    ) -> Self {
        let synced_at = Instant::now();
        Self { index, lag, synced_at, unsynced: None, is_closing, committer }
    }

    /// Indexes records until the committer has stopped.
    pub(super) fn run(mut self, records: &Receiver<Indexable>) {
        loop {
            match receive(records, EVENT_RETRY) {
                Received::Record(first) => {
                    // Whoever is far behind need not wait for more.
                    if self.lag.unindexed() < INDEX_BATCH {
                        pause(INDEX_GATHER);
                    }
                    let batch = gather(records, first);
                    if !self.apply(&batch) {
                        // The log has it; the next start brings the index up.
                        return;
                    }
                }
                Received::Nothing => {}
                Received::Closed => break,
            }
            self.nudge();
            if self.synced_at.elapsed() >= EVENT_SYNC {
                self.sync_events();
                // A file that was moved away is noticed when it is written to; without mail, by this.
                self.ask(Request::Look);
            }
        }
        self.sync_events();
    }

    /// The committer learns of a disk that has room again when it writes; without mail, from here.
    fn nudge(&self) {
        if self.lag.are_events_missing() {
            self.ask(Request::CatchUp);
        }
    }

    /// Asks the committer for what mail makes it do too, so that a full queue does the same.
    fn ask(&self, request: Request) {
        if let Some(committer) = self.committer.upgrade() {
            committer.try_send(request).ok();
        }
    }

    /// Applies records, however often it takes; false if the store closes before it succeeds.
    fn apply(&mut self, batch: &[Indexable]) -> bool {
        let Some(last) = batch.last() else { return true };
        let records = || batch.iter().map(|record| (record.lsn, &*record.head));
        while let Err(error) = self.index.apply(records(), last.next) {
            tracing::error!(%error, "the index cannot be written");
            if self.is_closing.load(Ordering::Relaxed) {
                return false;
            }
            self.lag.set_stuck(true);
            self.ask(Request::Indexed);
            pause(INDEX_RETRY);
        }
        self.lag.set_stuck(false);
        self.lag.take_indexed(batch.iter().map(|record| record.head.rows()).sum());
        // Large records may wait for it.
        self.ask(Request::Indexed);
        if let Some(file) = &last.events {
            self.unsynced = Some((Arc::clone(file), last.next));
        }
        true
    }

    /// A rotated file was synced when it was rotated, so the newest file stands for all.
    fn sync_events(&mut self) {
        self.synced_at = Instant::now();
        let Some((file, next)) = self.unsynced.take() else { return };
        let synced = file
            .sync()
            .map_err(StoreError::file("email-events.jsonl"))
            .and_then(|()| self.index.set_cursor(Cursor::EventsSynced, next));
        if let Err(error) = synced {
            tracing::error!(%error, "the event file cannot be synced; it is written anew");
            self.lag.set_events_missing(true);
        }
    }
}

enum Received {
    Record(Indexable),
    Nothing,
    Closed,
}

fn receive(records: &Receiver<Indexable>, wait: Duration) -> Received {
    match records.recv_timeout(wait) {
        Ok(record) => Received::Record(record),
        Err(RecvTimeoutError::Timeout) => Received::Nothing,
        Err(RecvTimeoutError::Disconnected) => Received::Closed,
    }
}

/// What has come beside `first`, for one transaction.
pub(super) fn gather(records: &Receiver<Indexable>, first: Indexable) -> Vec<Indexable> {
    let mut rows = first.head.rows();
    let mut batch = vec![first];
    while rows < INDEX_BATCH {
        let Ok(next) = records.try_recv() else { break };
        rows += next.head.rows();
        batch.push(next);
    }
    batch
}
