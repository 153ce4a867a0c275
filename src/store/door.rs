//! The store as the daemon uses it. What is to be durable goes to the committer; what is only to
//! be counted or looked up is in memory.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::backlog::{Backlog, QueueBounds, QueueClaim, QueueFull, QueueHold};
use super::codec::{self, Encoded};
use super::committer::Request;
use super::company::{Coming, Company};
use super::disk::{Disk, DiskRoom};
use super::entry::Commit;
use super::keeper::{FolderRetention, Keeper};
use super::keyring::Keyring;
use super::layout::{Layout, lock_folder};
use super::mailbox::{MailboxHandle, MailboxOwner, Mailboxes, NewMailbox};
use super::queued::{Destination, QueueFeed, QueueId, QueuedContent};
use super::recovery::{Known, Recovered, Ties};
use super::register::{Fact, Register};
use super::segment::Catalog;
use super::stated::Stated;
use super::threads::spawn;
use super::usage::{Usage, UsageExceeded, UsageHold, UsageLimits, Written};
use super::{Settings, StoreError, compact, durable};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::heavy::{self, Weight};
use crate::id::MailboxId;
use crate::mail::{Address, DeliveryMarks, Domain, Srs};

/// Commits that may wait for the committer; more wait in their sessions.
const WAITING_COMMITS: usize = 1024;
/// How long an erasure waits for messages that have room in the mailbox: longer than a message is on
/// its way once it has.
const RESERVED_FOR: Duration = Duration::from_secs(60);

/// The store of a running daemon.
#[derive(Debug)]
pub struct Store {
    keyring: Arc<Keyring>,
    delivery_marks: DeliveryMarks,
    mailboxes: Mailboxes,
    register: ArcSwap<Register>,
    /// The position of the record that said something of organizations last.
    last_stated: AtomicU64,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    retention: ArcSwap<Vec<FolderRetention>>,
    keeper: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    is_closing: Arc<AtomicBool>,
    queue: Mutex<Option<QueueFeed>>,
    usage: Arc<Usage>,
    backlog: Arc<Backlog>,
    company: Company,
    disk: Disk,
    log_dir: PathBuf,
    /// Held for as long as the store is open, so that no second daemon takes the folder.
    folder_lock: Mutex<Option<File>>,
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
        let chain = layout.check_format()?;
        // Before anything is written: on a full disk this is the room to start in.
        durable::remove_unfinished(&layout.log())?;
        let keyring = Arc::new(layout.keyring()?);
        let log_key = layout.log_key(keyring.master(), &chain)?;
        keyring.open_all()?;
        let recovered = Recovered::open(&layout, settings, events, &log_key)?;
        let known = recovered.mailboxes(&keyring, &layout)?;
        layout.bind_to(keyring.master())?;
        Self::start(settings, events, keyring, known, recovered, folder_lock)
    }

    /// Starts the threads of a recovered store.
    fn start(
        settings: &Settings,
        events: &crate::events::Settings,
        keyring: Arc<Keyring>,
        known: Known,
        recovered: Recovered,
        folder_lock: File,
    ) -> Result<Arc<Self>, StoreError> {
        let layout = Layout(settings);
        let (requests, waiting) = mpsc::channel(WAITING_COMMITS);
        let (to_queue, new) = mpsc::unbounded_channel();
        let queue = QueueFeed { waiting: recovered.index().queue()?, new };
        let usage = Usage::new(recovered.index().usage()?);
        let register = recovered.index().register()?;
        let last_stated = recovered.index().last_stated()?;
        let backlog = Backlog::new(&queue.waiting);
        let company = Company::default();
        let is_closing = Arc::new(AtomicBool::new(false));
        let mut threads = recovered.start_writing(Ties {
            requests: waiting,
            to_committer: requests.downgrade(),
            queue: to_queue,
            backlog: Arc::clone(&backlog),
            company: company.clone(),
            is_closing: Arc::clone(&is_closing),
        })?;
        threads.push(keyring.start_filling()?);
        let (keeper, stopped) = std::sync::mpsc::channel();
        let store = Arc::new(Self {
            delivery_marks: DeliveryMarks::new(&keyring.master().delivery_marks()),
            keyring,
            mailboxes: known.mailboxes,
            register: ArcSwap::from_pointee(register),
            last_stated: AtomicU64::new(last_stated.0),
            requests: Mutex::new(Some(requests)),
            threads: Mutex::new(threads),
            retention: ArcSwap::default(),
            keeper: Mutex::new(Some(keeper)),
            is_closing,
            queue: Mutex::new(Some(queue)),
            usage,
            backlog,
            company,
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
            log_key: store.keyring.master().log(),
            stop: Arc::clone(&store.is_closing),
        };
        lock(&store.threads).push(spawn("keeper", move || keeper.run(&stopped))?);
        store.write_down(known.erasing, known.erased)?;
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
        let (request, outcome) = Request::commit(encoded);
        requests.blocking_send(request).map_err(|_| StoreError::Closed)?;
        outcome.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// Who is who.
    pub fn register(&self) -> Arc<Register> {
        self.register.load_full()
    }

    /// The version of what is said of organizations: the position of the record that has said
    /// something last; zero, where nothing was said yet.
    pub fn version(&self) -> u64 {
        self.last_stated.load(Ordering::Acquire)
    }

    /// Makes facts durable and takes them as they are, all of them or, on an error, none: who is who,
    /// and what is said beside it, in one record. Of nothing there is none. Only one caller at a time:
    /// each has looked at what is known to find out what has to be said.
    ///
    /// # Errors
    /// What kept them from being written.
    pub async fn state(&self, facts: Vec<Fact>, stated: Option<Stated>) -> Result<(), StoreError> {
        let stated = stated.filter(|stated| !stated.said.is_empty());
        if facts.is_empty() && stated.is_none() {
            return Ok(());
        }
        let is_version = stated.is_some();
        let mut register = Register::clone(&self.register.load());
        facts.iter().for_each(|fact| register.apply(fact));
        let lsn = self.write(codec::encode_facts(facts, stated)?).await?;
        self.register.store(Arc::new(register));
        if is_version {
            self.last_stated.store(lsn.0, Ordering::Release);
        }
        Ok(())
    }

    /// The mailbox of that owner, made on first use.
    ///
    /// # Errors
    /// Those of the file system, where keys have to be made.
    pub fn mailbox(&self, owner: &MailboxOwner) -> Result<Arc<MailboxHandle>, StoreError> {
        self.mailboxes.get(owner, &self.keyring)
    }

    /// Erases a mailbox for good: its key first, so that all its messages are noise at once, also in
    /// old files of the log. A recipient whose mail comes meanwhile has no room; mail that comes
    /// afterwards makes another mailbox. What has its record is ended by the next start, if nobody else
    /// does; a caller that goes away before that leaves the mailbox closed until then. What of it waits
    /// in the queue leaves all the same, under the organization's key, and what is told of it stays as
    /// long as it does for others.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such mailbox; those of the file system.
    pub async fn erase(&self, owner: &MailboxOwner) -> Result<(), StoreError> {
        let mailbox = self
            .mailboxes
            .known(owner)
            .ok_or_else(|| StoreError::NotFound(format!("{owner} has no mailbox")))?;
        mailbox.set_closed(true);
        // Who has room for a message commits it soon, or never. What comes later all the same is for
        // its other recipients alone.
        if tokio::time::timeout(RESERVED_FOR, mailbox.until_unreserved()).await.is_err() {
            tracing::warn!(mailbox = %owner, "erased while messages to it are on their way");
        }
        let birth = mailbox.birth.clone();
        let erasing = codec::encode_erasures(vec![birth.clone()], Vec::new())?;
        self.write(erasing).await.inspect_err(|_| mailbox.set_closed(false))?;
        heavy::beside_the_runtime(|| self.keyring.erase(&birth))?;
        self.write(codec::encode_erasures(Vec::new(), vec![birth.id])?).await?;
        self.mailboxes.forget(&birth);
        Ok(())
    }

    /// Has the committer write erasures down that the start has found. If it cannot, the next start
    /// finds them again.
    fn write_down(
        &self,
        erasing: Vec<NewMailbox>,
        erased: Vec<MailboxId>,
    ) -> Result<(), StoreError> {
        if !erased.is_empty() {
            self.ask(Request::commit(codec::encode_erasures(erasing, erased)?).0);
        }
        Ok(())
    }

    /// How senders are rewritten to addresses of `domain`; always in the same way for the same
    /// master key.
    pub fn sender_rewriting(&self, domain: &Domain) -> Srs {
        Srs::new(domain.clone(), &self.keyring.master().sender_rewriting(domain.as_str()))
    }

    /// How mail is marked that mailboxes here send on; always in the same way for the same master
    /// key.
    pub fn delivery_marks(&self) -> &DeliveryMarks {
        &self.delivery_marks
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

    /// Says that a commit is on its way, so that those who come together share a sync.
    pub fn expect_commit(&self) -> Coming {
        self.company.expect()
    }

    /// Makes a commit durable: all of it, or on an error nothing. A caller that goes away does
    /// not stop it.
    ///
    /// # Errors
    /// What kept it from being written; nobody may be told that it was accepted then.
    pub async fn commit(&self, commit: Commit) -> Result<Lsn, StoreError> {
        if lock(&self.requests).is_none() {
            return Err(StoreError::Closed); // Nothing is sealed for nobody.
        }
        // Nearly every delivery has an event.
        let deliveries = Weight::of_deliveries(commit.events.len());
        let weight = Weight::of_octets(commit.content_octets()).and(deliveries);
        let weight = weight.owned_by(commit.owner);
        let permit = heavy::permit_for(weight).await;
        let encoded = permit.run(|turn| codec::encode(turn, commit, &self.keyring))?;
        self.disk.took(encoded.frame.length());
        self.write(encoded).await
    }

    /// Has the committer write a record.
    pub(super) async fn write(&self, encoded: Encoded) -> Result<Lsn, StoreError> {
        let requests = lock(&self.requests).clone().ok_or(StoreError::Closed)?;
        let (request, outcome) = Request::commit(encoded);
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
        by: &MailboxOwner,
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

    /// Keeps room on the disk for a message of so many octets, if there is room; messages that come
    /// together have it each.
    pub fn room_on_disk(&self, octets: u64) -> Option<DiskRoom<'_>> {
        self.disk.room(octets)
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
        let entry = queued.entries.get(id.entry).ok_or_else(missing)?;
        let leaving = self.keyring.leaving(&entry.entry.organization)?;
        let key = leaving.unwrap_key(&queued.wrapped_key, &[])?;
        let (prefix, content) = record.ranges(id.blob, id.mail).ok_or_else(missing)?;
        let (prefix, content) = (frame.read(prefix)?, frame.read(content)?);
        let mut opened = codec::open_parts(&key, id.mail, mail.suffix_length, prefix, content)?;
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
        self.keyring.stop_filling();
        lock(&self.requests).take();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        lock(&self.folder_lock).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these locks, and the values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
