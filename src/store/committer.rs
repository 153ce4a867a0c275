//! The committer: the thread that makes commits durable.
//!
//! It takes every commit that waits, writes them with one call and syncs once for all (a lone one
//! does not wait for company), writes their events to the event file, and only then answers. The
//! indexer follows at its own pace; nothing waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::backlog::Backlog;
use super::codec::Encoded;
use super::company::{Company, Gathering};
use super::index;
use super::indexer::{Indexable, Lag};
use super::line::{Extent, Large, Line, Round};
use super::log::Log;
use super::mailbox::Reservation;
use super::queued::QueuedMail;
use super::segment::Scanner;
use super::threads::pause;
use super::usage::UsageHold;
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::events::sink::EventSink;

/// Rows that the index may be behind before large records wait for it, and before all mail is
/// deferred. What is in between is for the small ones.
pub(super) const LARGE_INDEX_LAG: usize = 10_000;
pub(super) const MAX_INDEX_LAG: usize = 50_000;

/// What the committer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Make a commit durable.
    Commit(Box<Waiting>),
    /// Bring the event file up to the log, if it is behind.
    CatchUp,
    /// See whether the event file still has its name.
    Look,
    /// See whether the index is still as far behind.
    Indexed,
    /// Delete the event files whose time has come.
    DeleteExpired(Timestamp),
}

/// A commit and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    encoded: Encoded,
    answer: oneshot::Sender<Result<Lsn, StoreError>>,
}

/// Where the answer to a commit comes.
pub(super) type Answer = oneshot::Receiver<Result<Lsn, StoreError>>;

impl Request {
    /// Asks for a commit.
    pub(super) fn commit(encoded: Encoded) -> (Self, Answer) {
        let (answer, outcome) = oneshot::channel();
        (Self::Commit(Box::new(Waiting { encoded, answer })), outcome)
    }
}

/// Who learns of a record when it is durable.
#[derive(Debug)]
pub(super) struct Followers {
    pub(super) indexer: std::sync::mpsc::Sender<Indexable>,
    pub(super) queue: mpsc::UnboundedSender<QueuedMail>,
    /// Counts what waits to leave.
    pub(super) backlog: Arc<Backlog>,
}

/// Tells those who wait that nothing of theirs is stored.
fn refuse(waiting: Vec<Waiting>, error: StoreError) {
    let error = Arc::new(error);
    for request in waiting {
        // A session that has gone needs no answer.
        drop(request.answer.send(Err(StoreError::Batch(Arc::clone(&error)))));
    }
}

/// Has the writing ends of log and event file.
pub(super) struct Committer {
    log: Log,
    sink: EventSink,
    followers: Followers,
    lag: Arc<Lag>,
    gathering: Gathering,
    is_poisoned: bool,
    /// Nobody is left who could ask for anything.
    is_closing: bool,
}

impl Committer {
    /// A committer for a log and an event file that are in step with each other.
    pub(super) fn new(
        log: Log,
        sink: EventSink,
        followers: Followers,
        lag: Arc<Lag>,
        company: Company,
    ) -> Self {
        let gathering = Gathering::new(company);
        Self { log, sink, followers, lag, gathering, is_poisoned: false, is_closing: false }
    }

    /// Serves requests until nobody is left who could have one.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut line = Line::new();
        while self.receive(&mut requests, &mut line) {
            let large = self.large();
            if large == Large::Wait && self.lag.is_stuck() {
                refuse(line.take_large(), StoreError::IndexBehind);
            }
            let Round { mut batch, mut large } = line.next_round(large);
            if batch.is_empty() && large.is_empty() {
                self.write_events(&[], &[]);
            }
            let commits = batch.len() + large.len();
            // A round for something else says nothing of who comes.
            let gathering =
                if commits == 0 { Duration::ZERO } else { self.gathering.after(commits) };
            self.commit_batch(&mut batch);
            self.commit_batch(&mut large);
            if gathering > Duration::ZERO {
                pause(gathering);
            }
        }
        if let Err(error) = self.sink.file().sync() {
            tracing::warn!(%error, "the event file cannot be synced");
        }
    }

    /// Whether large records wait for the index. At the end, what has come is written.
    fn large(&self) -> Large {
        let is_behind = self.lag.unindexed() > LARGE_INDEX_LAG;
        if is_behind && !self.is_closing { Large::Wait } else { Large::Go }
    }

    /// Lets commits join the line until none is there or it is full, and does what else is asked
    /// for. Waits for a request if it is nobody's turn; false if there will be none.
    fn receive(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        line: &mut Line<Waiting>,
    ) -> bool {
        let mut next = if line.is_ready(self.large()) {
            requests.try_recv().ok()
        } else {
            let next = requests.blocking_recv();
            self.is_closing = next.is_none();
            next
        };
        if self.is_closing && line.is_empty() {
            return false;
        }
        while let Some(request) = next {
            match request {
                Request::Commit(waiting) => {
                    let Encoded { frame, head, .. } = &waiting.encoded;
                    let extent = Extent { bytes: frame.length(), rows: head.rows() };
                    line.join(*waiting, extent);
                }
                Request::CatchUp | Request::Indexed => {}
                Request::Look => self.look(),
                Request::DeleteExpired(now) => self.delete_expired(now),
            }
            if line.is_full() {
                break;
            }
            next = requests.try_recv().ok();
        }
        true
    }

    fn look(&mut self) {
        if let Err(error) = self.sink.reopen_if_moved() {
            tracing::error!(%error, "the event file is not where it should be");
        }
    }

    fn delete_expired(&mut self, now: Timestamp) {
        if let Err(error) = self.sink.delete_expired(now) {
            tracing::warn!(%error, "old event files are not deleted");
        }
    }

    fn commit_batch(&mut self, batch: &mut Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        match self.write_and_sync(batch) {
            Ok(positions) => {
                self.write_events(batch, &positions);
                for (request, lsn) in batch.drain(..).zip(positions) {
                    self.accept(request, lsn);
                }
            }
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "nothing can be stored");
                refuse(std::mem::take(batch), error);
            }
        }
    }

    fn write_and_sync(&mut self, batch: &mut [Waiting]) -> Result<Vec<Lsn>, StoreError> {
        if self.is_poisoned {
            return Err(StoreError::Poisoned);
        }
        if self.lag.unindexed() > MAX_INDEX_LAG {
            return Err(StoreError::IndexBehind);
        }
        let mut frames: Vec<_> =
            batch.iter_mut().map(|request| &mut request.encoded.frame).collect();
        let positions = self.log.append(&mut frames)?;
        self.log.sync().inspect_err(|error| {
            // The kernel may have dropped the dirty pages and will say "fine" the next time, so
            // a failed sync is never tried again: nothing is accepted until a restart.
            tracing::error!(%error, path = %self.log.path().display(), "sync failed");
            self.is_poisoned = true;
        })?;
        Ok(positions)
    }

    fn write_events(&mut self, batch: &[Waiting], positions: &[Lsn]) {
        let written = if self.lag.are_events_missing() {
            self.catch_up()
        } else {
            let records = batch.iter().zip(positions);
            let events = records.map(|(request, lsn)| request.encoded.recorded_events(*lsn));
            self.sink.append(events).map_err(StoreError::file("email-events.jsonl"))
        };
        self.lag.set_events_missing(written.is_err());
        if let Err(error) = written {
            tracing::error!(%error, "events cannot be written; they are in the log and follow");
        }
    }

    /// Writes the events of all records that the file does not have, from the log.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let from = self.sink.last().map_or(Lsn(0), |id| id.lsn);
        let mut scanner = Scanner::new(self.log.dir(), from)?;
        while let Some(logged) = scanner.next_record(self.log.key())? {
            self.sink
                .append([logged.record.recorded_events(logged.lsn)])
                .map_err(StoreError::file("email-events.jsonl"))?;
        }
        Ok(())
    }

    /// Tells everybody of a durable record, and whoever waits for it last.
    fn accept(&self, request: Waiting, lsn: Lsn) {
        let Encoded { frame, head, rooms, freed, usage, queue_room, .. } = request.encoded;
        usage.into_iter().for_each(UsageHold::keep);
        freed.iter().for_each(|(mailbox, size)| mailbox.free(*size));
        for room in rooms {
            room.mailbox().is_durable.store(true, Ordering::Release);
            Reservation::keep(room);
        }
        let next = Lsn(lsn.0 + frame.length());
        let events = (!self.lag.are_events_missing()).then(|| self.sink.file());
        for queued in index::queued_of(lsn, &head) {
            self.followers.backlog.add(&queued);
            // Without a queue, as in a command, it waits in the index for the next daemon.
            self.followers.queue.send(queued).ok();
        }
        // Counted by its entries from here on.
        drop(queue_room);
        for change in head.queue_changes.iter().filter(|change| change.state.is_none()) {
            self.followers.backlog.remove(change.entry);
        }
        self.lag.add_unindexed(head.rows());
        if self.followers.indexer.send(Indexable { lsn, next, head, events }).is_err() {
            tracing::error!("the indexer has stopped; a restart builds the index from the log");
        }
        // A session that has gone needs no answer.
        drop(request.answer.send(Ok(lsn)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::encode_changes;
    use super::super::mac::LogKey;
    use super::*;

    /// How the batch fails does not matter: here, the index has not followed.
    #[test]
    fn everybody_who_waits_for_a_failed_batch_learns_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = LogKey::new(&[7; 32]);
        let log = Log::open(&dir.path().join("log"), 1 << 20, Lsn(0), Lsn(0), &key);
        let log = log.expect("opens");
        let settings = crate::events::Settings::default();
        let sink = EventSink::open(dir.path().join("events"), settings, Lsn(0)).expect("opens");
        let (indexer, _records) = std::sync::mpsc::channel();
        let (queue, _queued) = mpsc::unbounded_channel();
        let followers = Followers { indexer, queue, backlog: Backlog::new(&[]) };
        let lag = Arc::new(Lag::default());
        lag.add_unindexed(MAX_INDEX_LAG + 1);
        let mut committer = Committer::new(log, sink, followers, lag, Company::default());
        let mut batch = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let encoded = encode_changes(Vec::new(), Vec::new()).expect("frames");
            let (request, answer) = Request::commit(encoded);
            let Request::Commit(waiting) = request else { panic!("{request:?}") };
            batch.push(*waiting);
            answers.push(answer);
        }
        committer.commit_batch(&mut batch);
        for mut answer in answers {
            let told = answer.try_recv().expect("an answer");
            let Err(StoreError::Batch(error)) = told else { panic!("{told:?}") };
            assert!(matches!(*error, StoreError::IndexBehind), "{error}");
        }
    }
}
