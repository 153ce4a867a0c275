//! The store as the daemon uses it, and the two threads behind it.
//!
//! The committer takes every commit that waits, writes them with one call and syncs once for all
//! (a lone one does not wait for company), writes their events to the event file, and only then
//! answers. The indexer follows at its own pace; nothing waits for it.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::backlog::{Backlog, QueueBounds, QueueClaim, QueueFull, QueueHold};
use super::codec::{self, Decoded, Encoded};
use super::disk::Disk;
use super::entry::{Commit, RecordHead};
use super::index::{self, Cursor, Index};
use super::keeper::{FolderRetention, Keeper};
use super::keys::Keyring;
use super::log::Log;
use super::mailbox::{MailboxHandle, MailboxName, Mailboxes, Reservation};
use super::queued::{Destination, QueueFeed, QueueId, QueuedContent, QueuedMail};
use super::segment::{Catalog, Scanned, Scanner};
use super::usage::{Usage, UsageExceeded, UsageHold, UsageLimits, Written};
use super::{Settings, StoreError, compact, durable};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::events::sink::{EventFile, EventSink, RecordedEvents};
use crate::heavy::{self, Weight};
use crate::mail::{Address, Domain, Srs};

/// Commits that may wait for the committer; more wait in their sessions.
const QUEUE: usize = 1024;
/// A record of more octets is written and synced by itself.
const LARGE_FRAME: u64 = 1024 * 1024;
/// Octets, but for one record, and records that one sync serves at most.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
const BATCH_RECORDS: usize = 256;
/// When so many commits shared a sync, more are on their way: the next sync waits a moment for
/// them, and serves more of them at less cost. After fewer, nobody waits.
const COMPANY: usize = 4;
const COMPANY_GATHER: Duration = Duration::from_micros(300);
/// Records of one transaction while the index is brought up to the log at start.
const REPLAY_RECORDS: usize = 1000;
/// Records that the index may be behind before new mail is deferred.
const MAX_INDEX_BACKLOG: usize = 50_000;
/// Records of one transaction of the index.
const INDEX_BATCH: usize = 4000;
/// How long the indexer gathers records for one transaction, and how often it tries again after
/// an error.
const INDEX_GATHER: Duration = Duration::from_millis(100);
const INDEX_RETRY: Duration = Duration::from_secs(1);
/// How often events that could not be written are tried again.
const EVENT_RETRY: Duration = Duration::from_secs(1);
/// How often the event file is synced; what is lost between is written again from the log.
const EVENT_SYNC: Duration = Duration::from_secs(5);

/// Keys of mail domains, below the data folder.
pub(super) const DOMAIN_KEYS: &str = "keys/dkim";

/// Where things are below the data folder.
pub(super) struct Layout<'a>(pub(super) &'a Settings);

impl Layout<'_> {
    pub(super) fn log(&self) -> PathBuf {
        self.0.data_dir.join("log")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.0.data_dir.join("index.sqlite")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.0.data_dir.join("events")
    }

    pub(super) fn master_key(&self) -> PathBuf {
        let default = || self.0.data_dir.join("keys").join("master.key");
        self.0.master_key_file.clone().unwrap_or_else(default)
    }

    pub(super) fn domain_keys(&self) -> PathBuf {
        self.0.data_dir.join(DOMAIN_KEYS)
    }

    /// The master key; a data folder that has no mail yet gets one, unless its file is named.
    pub(super) fn keyring(&self) -> Result<Keyring, StoreError> {
        let is_new = !durable::is_there(&self.log())? && !durable::is_there(&self.index())?;
        if self.0.master_key_file.is_none() && is_new {
            Keyring::create_if_absent(&self.0.data_dir, &self.master_key())?;
        }
        Keyring::load(&self.master_key())
    }
}

/// The store of a running daemon.
#[derive(Debug)]
pub struct Store {
    keyring: Keyring,
    mailboxes: Mailboxes,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    retention: ArcSwap<Vec<FolderRetention>>,
    keeper: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    is_closing: Arc<AtomicBool>,
    queue: Mutex<Option<QueueFeed>>,
    usage: Arc<Usage>,
    backlog: Arc<Backlog>,
    disk: Disk,
    log_dir: PathBuf,
    /// Held for as long as the store is open, so that no second daemon takes the folder.
    folder_lock: Mutex<Option<File>>,
}

#[derive(Debug)]
enum Request {
    Commit(Box<Waiting>),
    /// Bring the event file up to the log, if it is behind.
    CatchUp,
    /// See whether the event file still has its name.
    Look,
    /// Delete the event files whose time has come.
    DeleteExpired(Timestamp),
}

/// A commit and who waits for it.
#[derive(Debug)]
struct Waiting {
    encoded: Encoded,
    answer: oneshot::Sender<Result<Lsn, StoreError>>,
}

/// A durable record on its way into the index.
struct Indexable {
    lsn: Lsn,
    next: Lsn,
    head: Arc<RecordHead>,
    /// The event file that the record's events are in, unless they are not written yet.
    events: Option<Arc<EventFile>>,
}

impl Store {
    /// Opens the store: recovers the log, brings index and event file up to it, and starts the
    /// threads.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another daemon has it; [`StoreError::Key`] if the master key is
    /// not the one of its mailboxes; damage; those of the file system.
    pub fn open(
        settings: &Settings,
        events: &crate::events::Settings,
    ) -> Result<Arc<Self>, StoreError> {
        let layout = Layout(settings);
        durable::create_dir(&settings.data_dir)?;
        let folder_lock = lock_folder(&settings.data_dir)?;
        let keyring = layout.keyring()?;
        let recovered = Recovered::open(&layout, settings, events)?;
        let mailboxes = mailboxes(&recovered.index, &keyring, &layout)?;
        Self::start(settings, events, keyring, mailboxes, recovered, folder_lock)
    }

    /// Starts the threads of a recovered store.
    fn start(
        settings: &Settings,
        events: &crate::events::Settings,
        keyring: Keyring,
        mailboxes: Mailboxes,
        recovered: Recovered,
        folder_lock: File,
    ) -> Result<Arc<Self>, StoreError> {
        let layout = Layout(settings);
        let (requests, waiting) = mpsc::channel(QUEUE);
        let (to_queue, new) = mpsc::unbounded_channel();
        let queue = QueueFeed { waiting: recovered.index.queue()?, new };
        let usage = Usage::new(recovered.index.usage()?);
        let backlog = Backlog::new(&queue.waiting);
        let is_closing = Arc::new(AtomicBool::new(false));
        let threads = recovered.start_writing(
            layout.log(),
            Ties {
                requests: waiting,
                to_committer: requests.downgrade(),
                to_queue,
                is_closing: Arc::clone(&is_closing),
                waiting_to_leave: Arc::clone(&backlog),
            },
        )?;
        let (keeper, stopped) = std::sync::mpsc::channel();
        let store = Arc::new(Self {
            keyring,
            mailboxes,
            requests: Mutex::new(Some(requests)),
            threads: Mutex::new(threads),
            retention: ArcSwap::default(),
            keeper: Mutex::new(Some(keeper)),
            is_closing,
            queue: Mutex::new(Some(queue)),
            usage,
            backlog,
            disk: Disk::new(settings.data_dir.clone(), settings.min_free_bytes),
            log_dir: layout.log(),
            folder_lock: Mutex::new(Some(folder_lock)),
        });
        let keeper = Keeper {
            store: Arc::downgrade(&store),
            index: layout.index(),
            log_dir: layout.log(),
            interval: settings.housekeeping_interval,
            event_retention: events.retention(),
            segment_bytes: settings.segment_bytes,
            stop: Arc::clone(&store.is_closing),
        };
        lock(&store.threads).push(spawn("keeper", move || keeper.run(&stopped))?);
        Ok(store)
    }

    /// What becomes of messages that have been in a folder for long, from now on.
    pub fn set_retention(&self, retention: Vec<FolderRetention>) {
        self.retention.store(Arc::new(retention));
    }

    pub(super) fn retention(&self) -> Arc<Vec<FolderRetention>> {
        self.retention.load_full()
    }

    pub(super) fn mailboxes_of(&self, organization: &str) -> Vec<Arc<MailboxHandle>> {
        self.mailboxes.of_organization(organization)
    }

    /// Makes a record durable, on a thread that may block.
    pub(super) fn commit_blocking(&self, encoded: Encoded) -> Result<Lsn, StoreError> {
        let requests = lock(&self.requests).clone().ok_or(StoreError::Closed)?;
        let (answer, outcome) = oneshot::channel();
        let request = Request::Commit(Box::new(Waiting { encoded, answer }));
        requests.blocking_send(request).map_err(|_| StoreError::Closed)?;
        outcome.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// The mailbox of that name, made on first use.
    ///
    /// # Errors
    /// [`StoreError::Key`] if the system gives no random bytes.
    pub fn mailbox(&self, name: &MailboxName) -> Result<Arc<MailboxHandle>, StoreError> {
        self.mailboxes.get(name, &self.keyring)
    }

    /// How senders are rewritten to addresses of `domain`; always in the same way for the same
    /// master key.
    pub fn sender_rewriting(&self, domain: &Domain) -> Srs {
        Srs::new(domain.clone(), &self.keyring.sender_rewriting(domain.as_str()))
    }

    /// The envelope sender that is kept with a forwarded message, for whom a token stands. `None`
    /// if there is none at this place, or none any more. Blocks.
    ///
    /// # Errors
    /// Damage, those of the file system.
    pub fn first_sender(&self, place: u64) -> Result<Option<Address>, StoreError> {
        let _log_stays = compact::keep_files(&self.log_dir);
        let record = Catalog::read(&self.log_dir)?.frame(Lsn(place)).and_then(|it| it.record());
        match record {
            Ok(record) => Ok(record.head.first_sender.map(|kept| kept.address)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a commit durable: all of it, or on an error nothing. A caller that goes away does
    /// not stop it.
    ///
    /// # Errors
    /// What kept it from being written; nobody may be told that it was accepted then.
    pub async fn commit(&self, commit: Commit) -> Result<Lsn, StoreError> {
        let requests = lock(&self.requests).clone().ok_or(StoreError::Closed)?;
        let weight = Weight::of_octets(commit.content_octets());
        let encoded = heavy::in_turn(weight, || codec::encode(commit, &self.keyring)).await?;
        self.disk.took(encoded.frame.length());
        let (answer, outcome) = oneshot::channel();
        let request = Request::Commit(Box::new(Waiting { encoded, answer }));
        requests.send(request).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Counts whom a user writes to on a day (days since the Unix epoch); durable with the commit
    /// that takes the hold.
    ///
    /// # Errors
    /// The limit that is in the way.
    pub fn count_recipients(
        &self,
        by: &MailboxName,
        day: u64,
        written: Written,
        limits: UsageLimits,
    ) -> Result<UsageHold, UsageExceeded> {
        self.usage.take(by, day, written, limits)
    }

    /// Counts messages that are to wait in the queue, until the commit that takes the hold has made
    /// them durable.
    ///
    /// # Errors
    /// The bound that is in the way.
    pub fn claim_queue(
        &self,
        claims: Vec<QueueClaim>,
        bounds: &QueueBounds,
    ) -> Result<QueueHold, QueueFull> {
        self.backlog.claim(claims, bounds)
    }

    /// Whether a report more may wait for a destination.
    pub fn has_room_for_report(&self, to: &Destination, bounds: &QueueBounds) -> bool {
        self.backlog.has_room_for_report(to, bounds)
    }

    /// Whether the disk has room for a message of so many octets; if not, mail is deferred before
    /// the disk is full.
    pub fn has_room_on_disk(&self, octets: u64) -> bool {
        self.disk.has_room(octets)
    }

    /// What waits to leave, and what will. Whoever takes it is the queue: there is one.
    pub fn take_queue(&self) -> Option<QueueFeed> {
        lock(&self.queue).take()
    }

    /// The octets of a mail in the queue. Blocks.
    ///
    /// # Errors
    /// Damage, a key that does not fit, those of the file system.
    pub fn read_queued(&self, id: QueueId) -> Result<QueuedContent, StoreError> {
        let _log_stays = compact::keep_files(&self.log_dir);
        let frame = Catalog::read(&self.log_dir)?.frame(id.lsn)?;
        let record = frame.record()?;
        let missing = || StoreError::NotFound(format!("the log has no queue entry {id}"));
        let blob = record.head.blobs.get(id.blob).ok_or_else(missing)?;
        let mail = blob.mails.get(id.mail).ok_or_else(missing)?;
        let queued = mail.queued.as_ref().ok_or_else(missing)?;
        let key = self.keyring.queue().unwrap_key(&queued.wrapped_key, &[])?;
        let (prefix, content) = record.ranges(id.blob, id.mail).ok_or_else(missing)?;
        let (prefix, content) = (frame.read(prefix)?, frame.read(content)?);
        let mut opened = codec::open_parts(&key, id.mail, mail.suffix_length, prefix, content)?;
        let entry = queued.entries.get(id.entry).ok_or_else(missing)?;
        opened.token = entry
            .entry
            .token_domain
            .as_ref()
            .and_then(|domain| self.sender_rewriting(domain).token(id.lsn.0, mail.received_at));
        Ok(opened)
    }

    /// Opens the event file by its name again, if somebody has moved it away.
    pub fn reopen_events(&self) {
        self.ask(Request::Look);
    }

    /// Deletes the event files whose time has come.
    pub(super) fn delete_expired_events(&self, now: Timestamp) {
        self.ask(Request::DeleteExpired(now));
    }

    /// Asks the committer for what comes round again: where it has no time, nothing is lost.
    fn ask(&self, request: Request) {
        if let Some(requests) = &*lock(&self.requests) {
            requests.try_send(request).ok();
        }
    }

    /// Writes what is under way and stops the threads; commits fail from now on.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        lock(&self.keeper).take();
        lock(&self.requests).take();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        lock(&self.folder_lock).take();
    }
}

/// What a store stands on, brought to one state.
struct Recovered {
    log: Log,
    index: Index,
    sink: EventSink,
}

impl Recovered {
    /// Recovers the log, and brings index and event file up to it.
    fn open(
        layout: &Layout<'_>,
        settings: &Settings,
        events: &crate::events::Settings,
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
        let log = Log::open(&layout.log(), settings.segment_bytes, start, acknowledged)?;
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
        replay(&layout.log(), start, indexed, &mut index, &mut sink)?;
        Ok(Self { log, index, sink })
    }

    /// Starts the threads that write: one for log and event file, one for the index.
    fn start_writing(
        self,
        log_dir: PathBuf,
        ties: Ties,
    ) -> Result<Vec<JoinHandle<()>>, StoreError> {
        let Ties { requests, to_committer, to_queue, is_closing, waiting_to_leave } = ties;
        let backlog = Arc::new(AtomicUsize::new(0));
        let sink_is_behind = Arc::new(AtomicBool::new(false));
        let (to_index, from_committer) = std::sync::mpsc::channel();
        let committer = Committer {
            log: self.log,
            log_dir,
            sink: self.sink,
            sink_is_behind: Arc::clone(&sink_is_behind),
            to_index,
            to_queue,
            waiting_to_leave,
            backlog: Arc::clone(&backlog),
            is_poisoned: AtomicBool::new(false),
        };
        let indexer = Indexer {
            index: self.index,
            backlog,
            synced_at: Instant::now(),
            unsynced: None,
            is_closing,
            sink_is_behind,
            committer: to_committer,
        };
        Ok(vec![
            spawn("committer", move || committer.run(requests))?,
            spawn("indexer", move || indexer.run(&from_committer))?,
        ])
    }
}

/// What ties the threads that write to the rest of the store.
struct Ties {
    /// What the committer is asked for.
    requests: mpsc::Receiver<Request>,
    /// By which the indexer asks the committer, for as long as the store is open.
    to_committer: mpsc::WeakSender<Request>,
    to_queue: mpsc::UnboundedSender<QueuedMail>,
    is_closing: Arc<AtomicBool>,
    waiting_to_leave: Arc<Backlog>,
}

/// The mailboxes that the index knows; an error if the master key is not theirs.
fn mailboxes(
    index: &Index,
    keyring: &Keyring,
    layout: &Layout<'_>,
) -> Result<Mailboxes, StoreError> {
    let mailboxes = Mailboxes::default();
    for (birth, used_bytes) in index.mailboxes()? {
        if mailboxes.is_empty() {
            keyring.mailbox(&birth.name.organization, birth.id, &birth.wrapped_key).map_err(
                |_| {
                    let path = layout.master_key();
                    let path = path.display();
                    StoreError::Key(format!("{path} is not the key of these mailboxes"))
                },
            )?;
        }
        mailboxes.insert(birth, used_bytes);
    }
    Ok(mailboxes)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding these locks, and the values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn lock_folder(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let file = durable::open_lock(&path).map_err(StoreError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(data_dir.into())),
        Err(TryLockError::Error(error)) => Err(StoreError::file(path)(error)),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(StoreError::file(name))
}

/// From where on the log may have events that are not in the files: a record that is in them
/// with its first events only is looked at again.
fn events_position(index: &Index, sink: &EventSink) -> Result<Lsn, StoreError> {
    let in_file = sink.last().map_or(Lsn(0), |id| id.lsn);
    Ok(index.cursor(Cursor::EventsSynced)?.max(in_file))
}

/// Brings index and event files up to the log's end.
fn replay(
    log_dir: &Path,
    start: Lsn,
    indexed: Lsn,
    index: &mut Index,
    sink: &mut EventSink,
) -> Result<(), StoreError> {
    let events_from = events_position(index, sink)?;
    let mut scanner = Scanner::new(log_dir, start)?;
    let mut unindexed: Vec<(Lsn, RecordHead)> = Vec::new();
    let mut indexed_to = indexed;
    while let Some((lsn, next, record)) = next_record(&mut scanner)? {
        if lsn >= events_from {
            append_events(sink, lsn, &record).map_err(StoreError::file(log_dir))?;
        }
        if lsn >= indexed {
            unindexed.push((lsn, record.head));
            indexed_to = next;
        }
        if unindexed.len() >= REPLAY_RECORDS {
            index.apply(unindexed.iter().map(|(lsn, head)| (*lsn, head)), indexed_to)?;
            unindexed.clear();
        }
    }
    if !unindexed.is_empty() {
        index.apply(unindexed.iter().map(|(lsn, head)| (*lsn, head)), indexed_to)?;
    }
    Ok(())
}

fn append_events(sink: &mut EventSink, lsn: Lsn, record: &Decoded) -> io::Result<()> {
    let at = record.head.events_at.unwrap_or(Timestamp::from_millis(0));
    sink.append([RecordedEvents { lsn, at, lines: &record.events }])
}

/// The next whole record; a torn end is an end.
pub(super) fn next_record(
    scanner: &mut Scanner,
) -> Result<Option<(Lsn, Lsn, Decoded)>, StoreError> {
    match scanner.next()? {
        Some(Scanned::Frame { lsn, next, payload }) => {
            let record = codec::decode(&payload).ok_or_else(|| StoreError::Damaged {
                path: "log".into(),
                offset: lsn.0,
                problem: "a record cannot be read".into(),
            })?;
            Ok(Some((lsn, next, record)))
        }
        Some(Scanned::Torn { .. }) | None => Ok(None),
    }
}

struct Committer {
    log: Log,
    log_dir: PathBuf,
    sink: EventSink,
    /// An earlier write to the event file failed; it is brought up from the log.
    sink_is_behind: Arc<AtomicBool>,
    to_index: std::sync::mpsc::Sender<Indexable>,
    to_queue: mpsc::UnboundedSender<QueuedMail>,
    waiting_to_leave: Arc<Backlog>,
    backlog: Arc<AtomicUsize>,
    is_poisoned: AtomicBool,
}

impl Committer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut large = VecDeque::new();
        loop {
            let first = match large.is_empty() {
                true => requests.blocking_recv(),
                false => requests.try_recv().ok(),
            };
            if first.is_none() && large.is_empty() {
                break;
            }
            let mut batch = self.gather(first, &mut requests, &mut large);
            let has_company = batch.len() >= COMPANY;
            match large.pop_front() {
                None if batch.is_empty() => self.write_events(&[], &[]),
                None => self.commit_batch(&mut batch),
                Some(request) => {
                    self.commit_batch(&mut batch);
                    self.commit_batch(&mut vec![request]);
                }
            }
            if has_company {
                pause(COMPANY_GATHER);
            }
        }
        if let Err(error) = self.sink.file().sync() {
            tracing::warn!(%error, "the event file cannot be synced");
        }
    }

    /// What is to be written together; a large record is written by itself, when all that is there
    /// beside it has been, so that small ones wait for one of them at most.
    fn gather(
        &mut self,
        first: Option<Request>,
        requests: &mut mpsc::Receiver<Request>,
        large: &mut VecDeque<Waiting>,
    ) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while let Some(request) = next {
            match request {
                Request::Commit(waiting) if waiting.encoded.frame.length() > LARGE_FRAME => {
                    large.push_back(*waiting);
                }
                Request::Commit(waiting) => {
                    bytes += waiting.encoded.frame.length();
                    batch.push(*waiting);
                }
                Request::CatchUp => {}
                Request::Look => self.look(),
                Request::DeleteExpired(now) => self.delete_expired(now),
            }
            if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                break;
            }
            next = requests.try_recv().ok();
        }
        batch
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
                let error = Arc::new(error);
                for request in batch.drain(..) {
                    // A session that has gone needs no answer.
                    drop(request.answer.send(Err(StoreError::Batch(Arc::clone(&error)))));
                }
            }
        }
    }

    fn write_and_sync(&mut self, batch: &[Waiting]) -> Result<Vec<Lsn>, StoreError> {
        if self.is_poisoned.load(Ordering::Relaxed) {
            return Err(StoreError::Poisoned);
        }
        if self.backlog.load(Ordering::Relaxed) > MAX_INDEX_BACKLOG {
            return Err(StoreError::IndexBehind);
        }
        let frames: Vec<_> = batch.iter().map(|request| &request.encoded.frame).collect();
        let positions = self.log.append(&frames)?;
        self.log.sync().inspect_err(|error| {
            // The kernel may have dropped the dirty pages and will say "fine" the next time, so
            // a failed sync is never tried again: nothing is accepted until a restart.
            tracing::error!(%error, path = %self.log.path().display(), "sync failed");
            self.is_poisoned.store(true, Ordering::Relaxed);
        })?;
        Ok(positions)
    }

    fn write_events(&mut self, batch: &[Waiting], positions: &[Lsn]) {
        let written = if self.sink_is_behind.load(Ordering::Relaxed) {
            self.catch_up()
        } else {
            self.sink
                .append(batch.iter().zip(positions).map(|(request, lsn)| RecordedEvents {
                    lsn: *lsn,
                    at: request.encoded.head.events_at.unwrap_or(Timestamp::from_millis(0)),
                    lines: &request.encoded.events,
                }))
                .map_err(StoreError::file("email-events.jsonl"))
        };
        self.sink_is_behind.store(written.is_err(), Ordering::Relaxed);
        if let Err(error) = written {
            tracing::error!(%error, "events cannot be written; they are in the log and follow");
        }
    }

    fn catch_up(&mut self) -> Result<(), StoreError> {
        let from = self.sink.last().map_or(Lsn(0), |id| id.lsn);
        let mut scanner = Scanner::new(&self.log_dir, from)?;
        while let Some((lsn, _, record)) = next_record(&mut scanner)? {
            append_events(&mut self.sink, lsn, &record)
                .map_err(StoreError::file("email-events.jsonl"))?;
        }
        Ok(())
    }

    fn accept(&self, request: Waiting, lsn: Lsn) {
        let Encoded { frame, head, rooms, freed, usage, queue_room, .. } = request.encoded;
        usage.into_iter().for_each(UsageHold::keep);
        freed.iter().for_each(|(mailbox, size)| mailbox.free(*size));
        for room in rooms {
            room.mailbox().is_durable.store(true, Ordering::Release);
            Reservation::keep(room);
        }
        let next = Lsn(lsn.0 + frame.length());
        let events = (!self.sink_is_behind.load(Ordering::Relaxed)).then(|| self.sink.file());
        for queued in index::queued_of(lsn, &head) {
            self.waiting_to_leave.add(&queued);
            // Without a queue, as in a command, it waits in the index for the next daemon.
            self.to_queue.send(queued).ok();
        }
        // Counted by its entries from here on.
        drop(queue_room);
        for change in head.queue_changes.iter().filter(|change| change.state.is_none()) {
            self.waiting_to_leave.remove(change.entry);
        }
        self.backlog.fetch_add(1, Ordering::Relaxed);
        if self.to_index.send(Indexable { lsn, next, head, events }).is_err() {
            tracing::error!("the indexer has stopped; a restart builds the index from the log");
        }
        // A session that has gone needs no answer.
        drop(request.answer.send(Ok(lsn)));
    }
}

struct Indexer {
    index: Index,
    backlog: Arc<AtomicUsize>,
    synced_at: Instant,
    unsynced: Option<(Arc<EventFile>, Lsn)>,
    is_closing: Arc<AtomicBool>,
    sink_is_behind: Arc<AtomicBool>,
    committer: mpsc::WeakSender<Request>,
}

impl Indexer {
    fn run(mut self, records: &std::sync::mpsc::Receiver<Indexable>) {
        loop {
            match receive(records, EVENT_RETRY) {
                Received::Record(first) => {
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
                self.ask_to_look();
            }
        }
        self.sync_events();
    }

    /// A file that was moved away is noticed when it is written to; without mail, by this.
    fn ask_to_look(&self) {
        if let Some(committer) = self.committer.upgrade() {
            committer.try_send(Request::Look).ok();
        }
    }

    /// The committer learns of a disk that has room again when it writes; without mail, from here.
    fn nudge(&self) {
        if self.sink_is_behind.load(Ordering::Relaxed)
            && let Some(committer) = self.committer.upgrade()
        {
            // A full queue is mail, which does the same.
            committer.try_send(Request::CatchUp).ok();
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
            pause(INDEX_RETRY);
        }
        self.backlog.fetch_sub(batch.len(), Ordering::Relaxed);
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
            self.sink_is_behind.store(true, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of the store's own")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

enum Received {
    Record(Indexable),
    Nothing,
    Closed,
}

fn receive(records: &std::sync::mpsc::Receiver<Indexable>, wait: Duration) -> Received {
    use std::sync::mpsc::RecvTimeoutError;
    match records.recv_timeout(wait) {
        Ok(record) => Received::Record(record),
        Err(RecvTimeoutError::Timeout) => Received::Nothing,
        Err(RecvTimeoutError::Disconnected) => Received::Closed,
    }
}

/// What has come some time after `first`. Waiting for each record would cost a wake-up each.
fn gather(records: &std::sync::mpsc::Receiver<Indexable>, first: Indexable) -> Vec<Indexable> {
    pause(INDEX_GATHER);
    let mut batch = vec![first];
    batch.extend(records.try_iter().take(INDEX_BATCH));
    batch
}
