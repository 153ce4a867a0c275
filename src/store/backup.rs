//! A copy of a store that is whole in itself, made while mail flows, and the way back.
//!
//! Event files and index are copied first and the log last, so the log has all that they speak
//! of; what it has beyond them, the daemon adds when it starts on the copy. After the log come the
//! organizations' keys, so all that it names are there. The master key, under which they are
//! sealed, is not copied: whoever has a backup alone can read no message. Of passwords and tokens
//! there are only hashes to copy.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compact;
use super::credentials::{CREDENTIALS_FILE, CredentialStore};
use super::header::HEADER;
use super::index::{Cursor, Index};
use super::keyring::{KEYS, organization_files};
use super::keys::MasterKey;
use super::layout::{DOMAIN_KEYS, Layout, lock_folder};
use super::log::begin_next_epoch;
use super::segment::{Catalog, Scanner, first_damage};
use super::slots::{self, SlotFile};
use super::{Settings, StoreError, durable};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::events::{Lsn, sink};

/// Says what a backup consists of; written last, so that a folder without it is no backup.
const MANIFEST: &str = "manifest.json";
/// The format of the log that is in it.
const VERSION: u32 = 4;
/// Folders of the data folder that are copied as they are, if they are there.
const PLAIN: [&str; 4] = ["tls", "refusals", "audit", DOMAIN_KEYS];

/// What a backup consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    version: u32,
    /// When it was begun.
    pub created_at: Timestamp,
    /// Where its log ends: it has every message that was acknowledged before it was begun.
    pub log_end: Lsn,
    /// Tells whether a master key is the one that it was made with.
    key_check: String,
    /// Its files.
    pub files: Vec<BackupFile>,
}

impl Manifest {
    /// Octets of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Below the backup's and the data folder.
    pub path: PathBuf,
    /// Octets.
    pub bytes: u64,
    crc32: u32,
}

/// Copies the store of a data folder to `destination`, beside a running daemon or without one.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no store; [`StoreError::InTheWay`] unless `destination` is
/// new or empty; [`StoreError::InsideDataFolder`]; damage; those of the file system, after which `destination` is no backup.
pub fn backup(settings: &Settings, destination: &Path) -> Result<Manifest, StoreError> {
    if is_inside(destination, &settings.data_dir) {
        let data_dir = settings.data_dir.clone();
        return Err(StoreError::InsideDataFolder { copy: destination.into(), data_dir });
    }
    check_empty(destination)?;
    copy_all(settings, destination).inspect_err(|_| {
        // It was empty, so all of it is ours; what cannot be removed is no backup without a
        // manifest.
        drop(fs::remove_dir_all(destination));
    })
}

fn copy_all(settings: &Settings, destination: &Path) -> Result<Manifest, StoreError> {
    let layout = Layout(settings);
    if !durable::is_there(&layout.index())? {
        let dir = settings.data_dir.display();
        return Err(StoreError::NotFound(format!("{dir} holds no mail store yet")));
    }
    layout.check_format()?;
    durable::create_dir(destination)?;
    let _log_stays = compact::keep_files(&layout.log());
    let master = layout.known_master()?;
    let key_check = master.check();
    let created_at = SystemClock.now();
    let mut copier = Copier { from: &settings.data_dir, to: destination, files: Vec::new() };
    let events = layout.events();
    copier.events(&events)?;
    let index = destination.join("index.sqlite");
    // Made here, so that it is for its owner alone; SQLite takes an empty file.
    durable::create_file(&index, &[])?;
    let known = Index::open_to_read(&layout.index())?;
    let acknowledged = known.cursor(Cursor::Indexed)?;
    known.copy_to(&index)?;
    copier.files.push(summed(&index, Path::new("index.sqlite"))?);
    copier.credentials()?;
    let log_end = copier.log(&layout, &master, acknowledged)?;
    for path in organization_files(&settings.data_dir)? {
        // What is being written behind the last whole key is nobody's yet.
        let octets = fs::metadata(&path).map_err(StoreError::file(&path))?.len();
        copier.copy(&path, slots::whole_slots(octets))?;
    }
    for folder in PLAIN {
        copier.folder(&settings.data_dir.join(folder))?;
    }
    let files = copier.files;
    let manifest = Manifest { version: VERSION, created_at, log_end, key_check, files };
    let text = serde_json::to_vec_pretty(&manifest).expect("it has only strings and numbers");
    durable::create_file(&destination.join(MANIFEST), &text)?;
    Ok(manifest)
}

/// Puts a backup back as a data folder, after checking every byte of it.
///
/// # Errors
/// [`StoreError::InTheWay`] if the data folder holds a store already; [`StoreError::Locked`] if a
/// daemon has it; [`StoreError::Damaged`] and [`StoreError::Altered`] if the backup is not what was written;
/// [`StoreError::Key`] if the master key that is there is another one; those of the file system, after which the data folder can be removed.
pub fn restore(backup: &Path, settings: &Settings) -> Result<Manifest, StoreError> {
    let layout = Layout(settings);
    let lasting = [layout.log(), layout.index(), settings.data_dir.join(CREDENTIALS_FILE)];
    let check_free = || {
        for path in &lasting {
            if durable::is_there(path)? {
                return Err(StoreError::InTheWay(settings.data_dir.clone()));
            }
        }
        Ok(())
    };
    check_free()?;
    let manifest = read_manifest(backup)?;
    let key = layout.master_key();
    if durable::is_there(&key)? && MasterKey::load(&key)?.check() != manifest.key_check {
        let key = key.display();
        return Err(StoreError::Key(format!(
            "{key} is not the key that this backup was made with"
        )));
    }
    for file in &manifest.files {
        let path = backup.join(&file.path);
        let found = summed(&path, &file.path)?;
        if found != *file {
            return Err(altered(&path, file.bytes, found.bytes));
        }
    }
    durable::create_dir(&settings.data_dir)?;
    let _nobody_starts = lock_folder(&settings.data_dir)?;
    check_free()?;
    let mut to_copy = Vec::with_capacity(manifest.files.len());
    for file in &manifest.files {
        if !goes_on(&backup.join(&file.path), &settings.data_dir.join(&file.path))? {
            to_copy.push(backup.join(&file.path));
        }
    }
    let mut copier = Copier { from: backup, to: &settings.data_dir, files: Vec::new() };
    for path in to_copy {
        copier.copy(&path, u64::MAX)?;
    }
    // The log knows less than the files that are there: a mailbox that came after the backup has a
    // key which may never be another's. Of copies it is not known whether there was one.
    for path in organization_files(&settings.data_dir)? {
        SlotFile::open(&path)?.mark()?;
    }
    // What was written since the backup was made, or by another restore of it, is of another life.
    durable::create_dir(&layout.log())?;
    begin_next_epoch(&layout.log())?;
    layout.bind_to_check(&manifest.key_check)?;
    Ok(manifest)
}

/// Whether a file that is there stays in place of its copy: keys that go on from those in the
/// backup. What was erased of them since stays erased.
///
/// # Errors
/// [`StoreError::InTheWay`] if it is of other keys, or of fewer.
fn goes_on(copy: &Path, there: &Path) -> Result<bool, StoreError> {
    let is_of_keys = there.extension().is_some_and(|extension| extension == slots::SUFFIX)
        && there.parent().is_some_and(|dir| dir.ends_with(KEYS));
    if !is_of_keys || !durable::is_there(there)? {
        return Ok(false);
    }
    match SlotFile::open(there)?.goes_on_from(copy)? {
        true => Ok(true),
        false => Err(StoreError::InTheWay(there.into())),
    }
}

/// What is wrong with a file that is not as the manifest says: a file of the log is damaged at its
/// first record that is not whole; nothing marks places in the others.
fn altered(path: &Path, expected_bytes: u64, found_bytes: u64) -> StoreError {
    if let Some(damage) = first_damage(path) {
        return damage;
    }
    let problem = match found_bytes == expected_bytes {
        true => "it is as long, and says something else".to_owned(),
        false => format!("it has {found_bytes} octets where there were {expected_bytes}"),
    };
    StoreError::Altered { path: path.into(), problem }
}

fn read_manifest(backup: &Path) -> Result<Manifest, StoreError> {
    let path = backup.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let is_there = backup.exists();
            let what = if is_there { "is not a whole backup" } else { "is not there" };
            StoreError::NotFound(format!("{} {what}", backup.display()))
        }
        _ => StoreError::file(&path)(error),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| super::damaged(&path, 0, &error.to_string()))?;
    let leads_out = |file: &BackupFile| {
        let is_plain = |part| matches!(part, std::path::Component::Normal(_));
        !file.path.components().all(is_plain)
    };
    if manifest.version != VERSION {
        return Err(StoreError::OtherBackup { path, made: manifest.version, read: VERSION });
    }
    if manifest.files.iter().any(leads_out) {
        return Err(super::damaged(&path, 0, "it has files that are in no backup"));
    }
    Ok(manifest)
}

/// Whether a path, which need not exist, leads into a folder or is it, also by symbolic links.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let (Ok(path), Ok(folder)) = (std::path::absolute(path), folder.canonicalize()) else {
        return false;
    };
    // What is not there yet leads nowhere else.
    let known = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    known.is_some_and(|known| known.starts_with(folder))
}

fn check_empty(destination: &Path) -> Result<(), StoreError> {
    match fs::read_dir(destination) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(StoreError::InTheWay(destination.into())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::file(destination)(error)),
    }
}

struct Copier<'a> {
    from: &'a Path,
    to: &'a Path,
    files: Vec<BackupFile>,
}

impl Copier<'_> {
    /// Copies the first `length` octets of a file, durably.
    fn copy(&mut self, path: &Path, length: u64) -> Result<(), StoreError> {
        let source = File::open(path).map_err(StoreError::file(path))?;
        self.copy_open(path, source, length)
    }

    fn copy_open(&mut self, path: &Path, source: File, length: u64) -> Result<(), StoreError> {
        let relative = path.strip_prefix(self.from).unwrap_or(path);
        let target = self.to.join(relative);
        durable::create_dir(target.parent().unwrap_or(self.to))?;
        let copy = durable::create_file(&target, &[])?;
        let (bytes, crc32) = pass(source.take(length), &copy).map_err(StoreError::file(&target))?;
        durable::sync(&copy, &target)?;
        self.files.push(BackupFile { path: relative.into(), bytes, crc32 });
        Ok(())
    }

    /// Copies the event files; one that the daemon deletes meanwhile is not needed.
    fn events(&mut self, dir: &Path) -> Result<(), StoreError> {
        let sink::FilesAtOnce { rotated, current } =
            sink::files_at_once(dir).map_err(StoreError::file(dir))?;
        for path in rotated {
            match File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                file => self.copy_open(&path, file.map_err(StoreError::file(&path))?, u64::MAX)?,
            }
        }
        current.map_or(Ok(()), |(path, file)| self.copy_open(&path, file, u64::MAX))
    }

    /// Copies passwords and tokens, if there are any.
    fn credentials(&mut self) -> Result<(), StoreError> {
        let Some(known) = CredentialStore::open_if_there(self.from)? else { return Ok(()) };
        let copy = self.to.join(CREDENTIALS_FILE);
        // Made here, so that it is for its owner alone.
        durable::create_file(&copy, &[])?;
        known.copy_to(&copy)?;
        self.files.push(summed(&copy, Path::new(CREDENTIALS_FILE))?);
        Ok(())
    }

    /// Copies the log up to its last whole record, and tells where that ends.
    fn log(
        &mut self,
        layout: &Layout<'_>,
        master: &MasterKey,
        acknowledged: Lsn,
    ) -> Result<Lsn, StoreError> {
        let catalog = Catalog::read(&layout.log())?;
        let key = layout.log_key(master, &catalog.chain()?)?;
        let Some((last, closed)) = catalog.segments.split_last() else { return Ok(Lsn(0)) };
        for file in closed {
            self.copy(&file.path, file.bytes)?;
        }
        let mut end = last.position_at(HEADER.min(last.bytes));
        // All of it, so that nothing that was altered is taken for a copy of what was.
        let mut scanner = Scanner::over(catalog.segments.clone(), Lsn(0))?;
        while let Some(logged) = scanner.next_record(&key)? {
            end = end.max(logged.next.0);
        }
        if end < acknowledged.0 {
            let problem = "a record that was acknowledged is not whole";
            return Err(super::damaged(&last.path, last.offset_of(Lsn(end)), problem));
        }
        let is_all = last.pack.is_some() || last.bytes < HEADER;
        let length = if is_all { last.bytes } else { last.offset_of(Lsn(end)) };
        self.copy(&last.path, length)?;
        Ok(Lsn(end))
    }

    fn folder(&mut self, dir: &Path) -> Result<(), StoreError> {
        if !dir.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(dir).map_err(StoreError::file(dir))? {
            let path = entry.map_err(StoreError::file(dir))?.path();
            if path.is_file() {
                self.copy(&path, u64::MAX)?;
            }
        }
        Ok(())
    }
}

/// What the manifest says of a file.
fn summed(path: &Path, relative: &Path) -> Result<BackupFile, StoreError> {
    let file = File::open(path).map_err(StoreError::file(path))?;
    let (bytes, crc32) = pass(file, std::io::sink()).map_err(StoreError::file(path))?;
    Ok(BackupFile { path: relative.into(), bytes, crc32 })
}

/// Passes all octets on; how many they were, and their checksum.
fn pass(mut from: impl Read, mut to: impl Write) -> std::io::Result<(u64, u32)> {
    let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() {
            return Ok((bytes, hasher.finalize()));
        }
        hasher.update(piece);
        to.write_all(piece)?;
        bytes += length as u64;
    }
}
