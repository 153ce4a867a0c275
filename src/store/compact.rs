//! Compaction: closed files of the log that hold much that nobody needs any more are written
//! anew as a pack, without removed messages and expired events. Positions stay as they are.

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::codec::Decoded;
use super::entry::{Change, MessageRef, RecordHead, SealedBlob};
use super::evidence::{Changes, Evidence};
use super::header::Header;
use super::index::{Changed, Index};
use super::mac::LogKey;
use super::pack::{PackWriter, Trailer};
use super::queued::{QueueChange, QueueId, SealedQueued};
use super::segment::{Catalog, Scanned, ScannedFrame, Scanner, Segment};
use super::threads::pause;
use super::{StoreError, damaged, durable};
use crate::clock::Timestamp;
use crate::events::Lsn;

/// A file is written anew when a quarter of it can be had back.
const WORTHWHILE: u64 = 4;
/// So many small files in a row become one.
const MERGED_FILES: usize = 8;
/// How long compaction rests after each piece, so that it never keeps the disk from the log.
const REST: Duration = Duration::from_millis(10);
/// How long readers are waited for; the next attempt comes with the next round of housekeeping,
/// and until then retention is not kept waiting.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// Octets of a piece.
const PIECE: u64 = 512 * 1024;

/// Keeps the log's files as they are for as long as the returned lock is held. `None` on a data
/// folder that cannot be written: nothing is compacted there.
pub(super) fn keep_files(log_dir: &Path) -> Option<File> {
    let lock = durable::open_lock(&log_dir.join("lock")).ok()?;
    lock.lock_shared().ok()?;
    Some(lock)
}

/// Makes the file whose lock keeps the log's files, as the daemon's own.
pub(super) fn make_lock(log_dir: &Path) -> Result<(), StoreError> {
    durable::open_lock(&log_dir.join("lock"))
        .map(drop)
        .map_err(StoreError::file(log_dir.join("lock")))
}

/// What one compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    pub(super) files: usize,
    pub(super) before: u64,
    pub(super) after: u64,
}

/// Compacts the log of one data folder.
#[derive(Debug)]
pub(super) struct Compactor<'a> {
    pub(super) log_dir: PathBuf,
    /// The index's write-ahead file.
    pub(super) wal: PathBuf,
    pub(super) index: &'a mut Index,
    /// Events and stories from before this moment are not kept.
    pub(super) expired_before: Timestamp,
    /// Envelope senders of forwarded mail from before this moment are not kept.
    pub(super) senders_before: Timestamp,
    /// What a file should grow to.
    pub(super) segment_bytes: u64,
    pub(super) key: &'a LogKey,
    /// Ends the work early.
    pub(super) stop: &'a AtomicBool,
}

impl Compactor<'_> {
    /// Writes one run of files anew, if one is worth it.
    pub(super) fn compact_one(&mut self) -> Result<Option<Compacted>, StoreError> {
        let catalog = Catalog::read(&self.log_dir)?;
        let Some(run) = self.plan(&catalog)? else { return Ok(None) };
        let files = catalog.segments.get(run).unwrap_or_default();
        self.rewrite(&catalog, files)
    }

    /// The first run of closed files that is worth it.
    fn plan(&self, catalog: &Catalog) -> Result<Option<Range<usize>>, StoreError> {
        let closed = catalog.segments.split_last().map_or(&[][..], |(_, closed)| closed);
        let mut small = 0;
        for (number, file) in closed.iter().enumerate() {
            if self.is_stale(file)? {
                return Ok(Some(number..number + 1));
            }
            let is_small = file.pack.is_some() && file.bytes < self.segment_bytes / 8;
            small = if is_small { small + 1 } else { 0 };
            if small == MERGED_FILES {
                return Ok(Some(number + 1 - small..number + 1));
            }
        }
        Ok(None)
    }

    fn is_stale(&self, file: &Segment) -> Result<bool, StoreError> {
        let removed = self.index.removed_bytes(&(file.base..file.end))?;
        if removed > 0 && removed >= file.bytes / WORTHWHILE {
            return Ok(true);
        }
        Ok(match &file.pack {
            Some(pack) => {
                pack.newest.as_millis() > 0
                    && pack.newest < self.expired_before
                    && pack.expired_before <= pack.newest
            }
            None => newest_of(&file.path)? < self.expired_before,
        })
    }

    fn rewrite(
        &mut self,
        catalog: &Catalog,
        files: &[Segment],
    ) -> Result<Option<Compacted>, StoreError> {
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(None) };
        let positions = first.base..last.end;
        catalog.chain()?.check(self.key)?;
        let evidence = Evidence::new(catalog, self.key);
        let changes = evidence.confirm(self.index.changes(&positions)?)?;
        let considered = changes.considered;
        // The pack must not know of removals that a power loss could take from the index.
        durable::sync_if_there(&self.wal)?;
        let job = Job {
            catalog,
            evidence,
            positions: positions.clone(),
            changes,
            expired_before: self.expired_before,
            senders_before: self.senders_before,
        };
        let mut pack =
            PackWriter::create(&self.log_dir, header_of(catalog, first, last)?, self.key)?;
        let written = self.write(&job, files, &mut pack).and_then(|newest| match newest {
            Some(newest) => {
                pack.finish(Trailer {
                    end: positions.end,
                    considered: considered.0,
                    expired_before: self.expired_before,
                    newest,
                    ..Trailer::default()
                })?;
                self.wait_for_readers()
            }
            None => Ok(None),
        });
        let Ok(Some(_no_readers)) = written else {
            pack.discard();
            return written.map(|_| None);
        };
        let path = pack.take_place()?;
        for file in files.iter().filter(|file| file.path != path) {
            durable::remove_if_there(&file.path)?;
        }
        self.index.forget_changes(&positions, considered)?;
        let after = std::fs::metadata(&path).map_err(StoreError::file(&path))?.len();
        let before = files.iter().map(|file| file.bytes).sum();
        Ok(Some(Compacted { files: files.len(), before, after }))
    }

    /// From the returned lock on nobody reads the log's files by name; `None` when told to stop, or
    /// when they stay for long.
    fn wait_for_readers(&self) -> Result<Option<File>, StoreError> {
        let path = self.log_dir.join("lock");
        let lock = durable::open_lock(&path).map_err(StoreError::file(&path))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock)
                    if self.stop.load(Ordering::Relaxed) || begun.elapsed() >= PATIENCE =>
                {
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) => pause(REST),
                Err(TryLockError::Error(error)) => return Err(StoreError::file(&path)(error)),
            }
        }
    }

    /// Writes what is left of the records; the newest moment among them, or `None` when told to
    /// stop.
    fn write(
        &self,
        job: &Job<'_>,
        files: &[Segment],
        pack: &mut PackWriter,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut scanner = Scanner::over(files.to_vec(), Lsn(0))?;
        let (mut newest, mut since_rest) = (Timestamp::default(), 0);
        while let Some(scanned) = scanner.next()? {
            let frame = match scanned {
                Scanned::Frame(frame) => frame,
                Scanned::Torn { path, offset, .. } => {
                    return Err(damaged(&path, offset, "a record's checksum is wrong"));
                }
            };
            // What somebody has altered would have a right MAC from then on.
            let record = frame.record(self.key)?;
            newest = newest.max(job.copy(&frame, &record, pack)?);
            since_rest += frame.payload.len() as u64;
            if since_rest >= PIECE {
                since_rest = 0;
                pause(REST);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        Ok(Some(newest))
    }
}

/// The header of a pack that takes the place of the files from `first` to `last`.
fn header_of(catalog: &Catalog, first: &Segment, last: &Segment) -> Result<Header, StoreError> {
    let whole = |file: &Segment| {
        let header = file.header()?;
        header.ok_or_else(|| damaged(&file.path, 0, "its header is not whole"))
    };
    let epoch = catalog.chain()?.epoch;
    let first = whole(first)?;
    let last = whole(last)?;
    let generation = first.generation.max(last.generation) + 1;
    Ok(first.of_pack(&last, epoch, generation))
}

/// When a segment was last written to.
fn newest_of(path: &Path) -> Result<Timestamp, StoreError> {
    let modified = std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(StoreError::file(path))?;
    let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
}

/// What is known while one run of files is written anew.
struct Job<'a> {
    catalog: &'a Catalog,
    evidence: Evidence<'a>,
    positions: Range<u64>,
    changes: Changes,
    expired_before: Timestamp,
    senders_before: Timestamp,
}

impl Job<'_> {
    /// Copies what is left of a record; the moment of the events and stories that it still has.
    fn copy(
        &self,
        frame: &ScannedFrame,
        record: &Decoded,
        pack: &mut PackWriter,
    ) -> Result<Timestamp, StoreError> {
        let lsn = frame.place.lsn;
        let next = frame.place.next;
        let at = moment(&record.head);
        let is_expired = at < self.expired_before;
        let head = self.prune(lsn, &record.head, is_expired)?;
        let has_events = !record.events.is_empty() && !is_expired;
        if head.is_empty() && !has_events {
            return Ok(Timestamp::default());
        }
        let (start, mut pieces) = record.repack(&frame.payload, &head, has_events)?;
        pieces.insert(0, &start);
        pack.push(lsn, next, frame.first_mac(), &pieces)?;
        let has_told = has_events || !head.stories.is_empty();
        let told_at = if has_told { at } else { Timestamp::default() };
        Ok(told_at.max(self.sender_as_event(&head)))
    }

    /// The moment of an event that would expire when the record's kept sender does.
    fn sender_as_event(&self, head: &RecordHead) -> Timestamp {
        let Some(kept) = &head.first_sender else { return Timestamp::default() };
        let longer =
            self.expired_before.as_millis().saturating_sub(self.senders_before.as_millis());
        kept.at.plus(Duration::from_millis(longer))
    }

    fn prune(
        &self,
        lsn: Lsn,
        head: &RecordHead,
        is_expired: bool,
    ) -> Result<RecordHead, StoreError> {
        let mut head = head.clone();
        for (number, blob) in head.blobs.iter_mut().enumerate() {
            self.prune_blob(lsn, number, blob);
        }
        while head.blobs.last().is_some_and(|blob| blob.length == 0) {
            head.blobs.pop();
        }
        for change in std::mem::take(&mut head.changes) {
            if self.keeps(lsn, &change)? {
                head.changes.push(change);
            }
        }
        for change in std::mem::take(&mut head.queue_changes) {
            if self.keeps_queued(lsn, &change)? {
                head.queue_changes.push(change);
            }
        }
        head.first_sender = head.first_sender.filter(|kept| kept.at >= self.senders_before);
        if is_expired {
            head.stories.clear();
            head.events_at = None;
            head.usage.clear();
        }
        Ok(head)
    }

    /// Takes out the deliveries of removed messages, and the sealed pieces that nobody has then.
    fn prune_blob(&self, lsn: Lsn, blob_number: usize, blob: &mut SealedBlob) {
        for (mail_number, mail) in blob.mails.iter_mut().enumerate() {
            mail.deliveries.retain_mut(|delivery| {
                let message = MessageRef {
                    lsn,
                    blob: blob_number,
                    mail: mail_number,
                    mailbox: delivery.mailbox,
                };
                match self.changes.messages.get(&message) {
                    None => true,
                    Some(Changed { folder: None, .. }) => false,
                    Some(Changed { folder: Some(folder), since }) => {
                        (delivery.folder, delivery.since) = (*folder, Some(*since));
                        true
                    }
                }
            });
            for (entry, sealed) in
                mail.queued.iter_mut().flat_map(|queued| queued.entries.iter_mut().enumerate())
            {
                let id = QueueId { lsn, blob: blob_number, mail: mail_number, entry };
                sealed.is_gone |= self.changes.gone.contains(&id);
            }
            let is_queued = mail.queued.as_ref().is_some_and(SealedQueued::is_open);
            if mail.deliveries.is_empty() && !is_queued {
                mail.prefix_length = 0;
            }
        }
        if blob.mails.iter().all(|mail| mail.prefix_length == 0) {
            *blob = SealedBlob { length: 0, mails: Vec::new() };
        }
    }

    /// What became of a message is kept until it shows where the message stands.
    fn keeps(&self, lsn: Lsn, change: &Change) -> Result<bool, StoreError> {
        if !self.is_worked_in(lsn, change.message.lsn) {
            return Ok(true);
        }
        let shows = match self.changes.messages.get(&change.message) {
            Some(Changed { folder: None, .. }) => true,
            Some(Changed { since, .. }) => change.to.is_some() && *since >= change.at,
            None => false,
        };
        Ok(!shows && !self.evidence.shows_change(change)?)
    }

    /// How far a waiting entry has come is kept where it stands, and that an entry is gone until
    /// it shows where the entry stands.
    fn keeps_queued(&self, lsn: Lsn, change: &QueueChange) -> Result<bool, StoreError> {
        let entry = change.entry;
        if change.state.is_some() {
            let is_known = lsn < self.changes.considered;
            if !is_known || self.changes.waiting.contains(&entry) {
                return Ok(true);
            }
            return Ok(!self.evidence.knows_gone(entry, &self.changes)?);
        }
        if !self.is_worked_in(lsn, entry.lsn) {
            return Ok(true);
        }
        Ok(!self.changes.gone.contains(&entry) && !self.evidence.shows_gone(entry)?)
    }

    /// Whether what a change at `lsn` is about stands in a file that has it worked in.
    fn is_worked_in(&self, lsn: Lsn, target: Lsn) -> bool {
        if self.positions.contains(&target.0) {
            return lsn < self.changes.considered;
        }
        let pack = self.catalog.segment_of(target).and_then(|file| file.pack.as_ref());
        pack.is_some_and(|pack| lsn.0 < pack.considered)
    }
}

/// When a record was made.
fn moment(head: &RecordHead) -> Timestamp {
    let received = || Some(head.blobs.first()?.mails.first()?.received_at);
    head.events_at.or_else(received).unwrap_or_default()
}
