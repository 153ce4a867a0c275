//! Checks a store: every byte of the log, that every message opens, and that index and event
//! files say what the log says. Changes nothing, and may run beside a daemon.

mod events;
mod shadow;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::codec::{self, Decoded};
use super::compact;
use super::credentials::{CredentialCounts, CredentialStore};
use super::domain_keys::DomainKeyFolder;
use super::entry::{SealedBlob, SealedMail};
use super::index::{Cursor, Index};
use super::keyring::{Keyring, organization_files};
use super::keys::Key;
use super::layout::{Layout, lock_folder};
use super::mac::LogKey;
use super::mailbox::NewMailbox;
use super::queued::SealedQueued;
use super::segment::{Catalog, Scanned, ScannedFrame, Scanner};
use super::slots::{Content, Opened, Purpose};
use super::{Settings, StoreError, damaged, durable};
use crate::clock::{Clock, SystemClock};
use crate::events::Lsn;
use crate::id::MailboxId;
use events::{Bounds, EventCheck};
use shadow::Shadow;

/// Problems that are told one by one; more are only counted.
const MAX_PROBLEMS: usize = 100;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything: each sealed content is opened.
    Contents,
    /// All but the contents: checksums, keys, index and events.
    Records,
}

/// What was checked, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Log files as they were written.
    pub segments: usize,
    /// Log files that compaction wrote.
    pub packs: usize,
    /// Records whose checksum is right.
    pub records: u64,
    /// Octets of the log.
    pub log_bytes: u64,
    /// Sealed contents that open with the key of every mailbox that has them.
    pub contents: u64,
    /// Mailboxes whose key opens.
    pub mailboxes: u64,
    /// Mailboxes that were erased, with their keys.
    pub erased: u64,
    /// Private keys of mail domains that open.
    pub domain_keys: u64,
    /// Messages that the index has where the log has them.
    pub messages: u64,
    /// Entries of the queue that the index has as the log has them.
    pub queued: u64,
    /// Events that stand in the event files exactly once, as the log has them.
    pub events: u64,
    /// Events of the log that the files do not have yet; the daemon writes them when it starts.
    pub events_to_write: u64,
    /// Records that the index does not have yet; the daemon brings it up.
    pub records_to_index: u64,
    /// The passwords and tokens; absent if there is no file of them, or none that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialCounts>,
    /// What interrupted writes left behind; harmless.
    pub leftovers: Vec<PathBuf>,
    /// What is wrong; empty for a sound store.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, problem: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem.into());
        } else {
            self.more_problems += 1;
        }
    }
}

/// Checks the store of a data folder. Without a daemon, none can start meanwhile.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none; [`StoreError::Key`] if the master key is missing or
/// another store's; files that cannot be read at all. What is wrong with
/// their content is in the report.
pub fn check(
    settings: &Settings,
    events: &crate::events::Settings,
    depth: Depth,
) -> Result<Report, StoreError> {
    let layout = Layout(settings);
    if !durable::is_there(&layout.log())? {
        let dir = settings.data_dir.display();
        return Err(StoreError::NotFound(format!("{dir} holds no mail store yet")));
    }
    // What is wrong with the files themselves is in the report.
    if let Err(error @ (StoreError::OtherFormat { .. } | StoreError::LaterKind { .. })) =
        layout.check_format()
    {
        return Err(error);
    }
    let keyring = layout.known_keyring()?;
    let is_at_rest = lock_folder(&settings.data_dir);
    let _log_stays = compact::keep_files(&layout.log());
    let mut report = Report { leftovers: leftovers(&layout.log())?, ..Report::default() };
    match keyring.open_all() {
        Err(error @ StoreError::Damaged { .. }) => {
            report.problem(error.to_string());
            return Ok(report);
        }
        opened => opened?,
    }
    check_credentials(&settings.data_dir, &mut report);
    let index = match durable::is_there(&layout.index())? {
        true => Some(Index::open_to_read(&layout.index())?),
        false => None,
    };
    let catalog = match Catalog::read(&layout.log()) {
        Ok(catalog) => catalog,
        Err(error @ StoreError::Damaged { .. }) => {
            report.problem(error.to_string());
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let log_key = match catalog.chain().and_then(|chain| layout.log_key(keyring.master(), &chain)) {
        Ok(key) => key,
        Err(error @ StoreError::Key(_)) => return Err(error),
        Err(error) => {
            report.problem(error.to_string());
            return Ok(report);
        }
    };
    count_files(&catalog, &mut report);
    domain_keys(settings, &mut report)?;
    spare_keys(settings, &keyring, &mut report)?;
    let cursor = |which| index.as_ref().map_or(Ok(Lsn(0)), |index| index.cursor(which));
    let indexed = cursor(Cursor::Indexed)?;
    let kept_from = SystemClock.now().minus(events.retention());
    // Asked for before the files are listed: what it says is written is in one of them.
    let bounds = Bounds { synced: cursor(Cursor::EventsSynced)?, kept_from };
    let mut checker = Checker {
        keyring,
        log_key,
        depth,
        births: HashMap::new(),
        erasing: HashSet::new(),
        erased: HashSet::new(),
        shadow: Shadow::new(indexed)?,
        events: EventCheck::open(&layout.events(), &catalog, bounds)?,
        report,
    };
    let read_to = checker.log(&catalog)?;
    if read_to.is_some() {
        checker.erasures();
    }
    let Checker { shadow, events, mut report, .. } = checker;
    let Some(read_to) = read_to else {
        // Index and events speak of what could not be read.
        return Ok(report);
    };
    events.finish(if is_at_rest.is_ok() { Lsn(u64::MAX) } else { read_to }, &mut report)?;
    match index {
        Some(index) => shadow.compare(&index, catalog.end(), &mut report)?,
        None => report.records_to_index = report.records,
    }
    Ok(report)
}

fn check_credentials(data_dir: &Path, report: &mut Report) {
    match CredentialStore::check_if_there(data_dir) {
        Ok(counts) => report.credentials = counts,
        Err(error) => report.problem(error.to_string()),
    }
}

fn leftovers(log_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut leftovers = Vec::new();
    for entry in std::fs::read_dir(log_dir).map_err(StoreError::file(log_dir))? {
        let path = entry.map_err(StoreError::file(log_dir))?.path();
        if path.extension().is_some_and(|extension| extension == "torn" || extension == "new") {
            leftovers.push(path);
        }
    }
    leftovers.sort();
    Ok(leftovers)
}

fn count_files(catalog: &Catalog, report: &mut Report) {
    report.packs = catalog.segments.iter().filter(|file| file.pack.is_some()).count();
    report.segments = catalog.segments.len() - report.packs;
    report.log_bytes = catalog.segments.iter().map(|file| file.bytes).sum();
    report.leftovers.extend(catalog.superseded.iter().cloned());
}

fn domain_keys(settings: &Settings, report: &mut Report) -> Result<(), StoreError> {
    let folder = DomainKeyFolder::open(settings)?;
    for name in folder.list()? {
        match folder.read(&name) {
            Ok(_) => report.domain_keys += 1,
            Err(error) => report.problem(error.to_string()),
        }
    }
    Ok(())
}

/// Each key that is whole opens in its place, whether it is somebody's already or not; what is no
/// whole key is somebody's, and then told with its mailbox, or an append that did not end.
fn spare_keys(
    settings: &Settings,
    keyring: &Keyring,
    report: &mut Report,
) -> Result<(), StoreError> {
    for path in organization_files(&settings.data_dir)? {
        let Some(organization) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let keys = keyring.opened(organization)?;
        let mut has_leftovers = false;
        for (slot, content) in keys.contents()? {
            has_leftovers |= content == Content::Broken;
            if let Content::Whole(purpose @ Purpose::Mailbox(_)) = content
                && let Err(error) = keys.key(slot, purpose)
            {
                report.problem(error.to_string());
            }
        }
        if has_leftovers {
            report.leftovers.push(path);
        }
    }
    Ok(())
}

struct Checker {
    keyring: Keyring,
    log_key: LogKey,
    depth: Depth,
    /// Mailboxes with their keys, but for those whose keys are erased.
    births: HashMap<MailboxId, (NewMailbox, Option<Key>)>,
    /// Mailboxes that the log calls erased, or about to be.
    erasing: HashSet<MailboxId>,
    erased: HashSet<MailboxId>,
    shadow: Shadow,
    events: EventCheck,
    report: Report,
}

impl Checker {
    /// Every record of the log, in order, and where they end; `None` if damage kept it from
    /// reading on.
    fn log(&mut self, catalog: &Catalog) -> Result<Option<Lsn>, StoreError> {
        let mut scanner = Scanner::over(catalog.segments.clone(), Lsn(0))?;
        let mut position = Lsn(0);
        loop {
            let frame = match scanner.next() {
                Ok(Some(Scanned::Frame(frame))) => frame,
                // What is being written this moment, or what a crash left of a write.
                Ok(Some(Scanned::Torn { path, offset, lsn })) if lsn < self.shadow.indexed() => {
                    let error =
                        damaged(&path, offset, "a record that was acknowledged is not whole");
                    self.report.problem(error.to_string());
                    return Ok(None);
                }
                Ok(Some(Scanned::Torn { path, .. })) => {
                    self.report.leftovers.push(path.to_path_buf());
                    return Ok(Some(position));
                }
                Ok(None) => return Ok(Some(position)),
                Err(error @ (StoreError::Damaged { .. } | StoreError::Tampered { .. })) => {
                    self.report.problem(error.to_string());
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let lsn = frame.place.lsn;
            let next = frame.place.next;
            if lsn < position || next <= lsn {
                self.report.problem(format!("record {lsn} stands behind {position}"));
            }
            position = next;
            self.record(&frame)?;
        }
    }

    fn record(&mut self, frame: &ScannedFrame) -> Result<(), StoreError> {
        self.report.records += 1;
        let lsn = frame.place.lsn;
        let next = frame.place.next;
        let payload = &frame.payload;
        let record = match frame.unproven_record() {
            Ok(record) => record,
            Err(error) => {
                self.report.problem(error.to_string());
                return Ok(());
            }
        };
        // What it says is gone on with, so that nothing else is told that is right.
        if let Err(error) = frame.check(&record, &self.log_key) {
            self.report.problem(error.to_string());
        }
        for birth in record.head.new_mailboxes.iter().chain(&record.head.erasing) {
            self.birth(lsn, birth);
        }
        self.erasing.extend(record.head.erasing.iter().map(|birth| birth.id));
        self.erased.extend(&record.head.erased);
        for (number, blob) in record.head.blobs.iter().enumerate() {
            self.blob(lsn, payload, &record, number, blob);
        }
        self.events.record(lsn, &record, &mut self.report)?;
        self.shadow.record(lsn, next, &record.head, &mut self.report);
        Ok(())
    }

    fn birth(&mut self, lsn: Lsn, birth: &NewMailbox) {
        if self.births.contains_key(&birth.id) {
            return; // Several commits may carry it.
        }
        match self.keyring.look(birth) {
            Ok(Opened::Key(key)) => {
                self.report.mailboxes += 1;
                self.births.insert(birth.id, (birth.clone(), Some(key)));
            }
            Ok(Opened::Erased) => drop(self.births.insert(birth.id, (birth.clone(), None))),
            Err(error) => self
                .report
                .problem(format!("record {lsn}: the key of mailbox {}: {error}", birth.owner)),
        }
    }

    /// Holds what the log calls erased against the keys that are there.
    fn erasures(&mut self) {
        for (birth, key) in self.births.values() {
            let is_told = self.erasing.contains(&birth.id);
            if key.is_none() && !is_told {
                let owner = &birth.owner;
                self.report.problem(format!(
                    "mailbox {owner}: its key is erased, and no record says so; a start writes it down"
                ));
            }
            // The daemon may have erased it since the key was looked at.
            let is_there = || matches!(self.keyring.look(birth), Ok(Opened::Key(_)));
            if key.is_some() && self.erased.contains(&birth.id) && is_there() {
                let owner = &birth.owner;
                self.report.problem(format!(
                    "mailbox {owner} was erased, and its key is there again; a start erases it"
                ));
            }
            self.report.erased += u64::from(is_told);
        }
    }

    fn blob(
        &mut self,
        lsn: Lsn,
        payload: &[u8],
        record: &Decoded,
        number: usize,
        blob: &SealedBlob,
    ) {
        let mut is_whole = blob.length > 0;
        for (mail_number, mail) in blob.mails.iter().enumerate() {
            let keys = self.keys(lsn, mail);
            // Nobody can open what only erased mailboxes had.
            is_whole &= !keys.is_empty() || mail.deliveries.is_empty();
            for key in keys {
                let opened = self.open(payload, record, (number, mail_number), mail, &key);
                if let Err(problem) = opened {
                    is_whole = false;
                    self.report.problem(format!("record {lsn}, message {}: {problem}", mail.id));
                }
            }
        }
        self.report.contents += u64::from(is_whole && self.depth == Depth::Contents);
    }

    /// The content's key, as each mailbox and the queue has it wrapped.
    fn keys(&mut self, lsn: Lsn, mail: &SealedMail) -> Vec<Key> {
        let mut keys = Vec::new();
        for delivery in &mail.deliveries {
            let Some((birth, key)) = self.births.get(&delivery.mailbox) else {
                let mailbox = delivery.mailbox;
                self.report.problem(format!("record {lsn}: mailbox {mailbox} was never made"));
                continue;
            };
            let Some(key) = key else { continue };
            match key.unwrap_key(&delivery.wrapped_key, birth.id.as_bytes()) {
                Ok(key) => keys.push(key),
                Err(error) => self.report.problem(format!("record {lsn}: {error}")),
            }
        }
        if let Some(queued) = mail.queued.as_ref().filter(|queued| queued.is_open()) {
            match self.leaving(queued) {
                Ok(key) => keys.push(key),
                Err(error) => self.report.problem(format!("record {lsn}: {error}")),
            }
        }
        // All of them wrap the same key, so that one opening serves; two that differ do not.
        keys.dedup_by(|one, other| one == other);
        keys
    }

    /// The content's key, as it is wrapped for what leaves.
    fn leaving(&self, queued: &SealedQueued) -> Result<Key, StoreError> {
        let organization = queued.entries.first().map(|it| Arc::clone(&it.entry.organization));
        let leaving = self.keyring.leaving(&organization.unwrap_or_default())?;
        leaving.unwrap_key(&queued.wrapped_key, &[])
    }

    fn open(
        &self,
        payload: &[u8],
        record: &Decoded,
        (blob, number): (usize, usize),
        mail: &SealedMail,
        key: &Key,
    ) -> Result<(), String> {
        let (prefix, content) = record.ranges(blob, number).ok_or("its place is not known")?;
        let piece = |range: std::ops::Range<u64>| {
            payload
                .get(range.start as usize..range.end as usize)
                .ok_or("the record ends before its content does")
        };
        let (prefix, content) = (piece(prefix)?, piece(content)?);
        if self.depth == Depth::Records {
            return Ok(());
        }
        let opened =
            codec::open(key, number, mail.suffix_length, prefix.to_vec(), content.to_vec());
        let size = opened.map_err(|error| error.to_string())?.len() as u64;
        if size == mail.size {
            Ok(())
        } else {
            Err(format!("it has {size} octets, the record says {}", mail.size))
        }
    }
}
