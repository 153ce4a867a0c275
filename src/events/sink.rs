//! The event file: `events/email-events.jsonl`, appended to and rotated, never rewritten. The
//! only writer of the event log.
//!
//! Each line carries the position of the durable record it came from, so after a crash the sink
//! says where the file stands and the store sends what is missing: every event stands in the
//! file exactly once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Settings;
use super::dated::{DatedFiles, leads_to, named};
use super::line::{EventId, Lsn, finish_line, id_of_line};
use crate::clock::Timestamp;

const FILES: DatedFiles = DatedFiles("email-events");
const CURRENT: &str = "email-events.jsonl";
const UNFINISHED: &str = "email-events.jsonl.new";
/// How much of a file's end is read to find its last line; longer lines are looked for in the
/// whole file.
const TAIL_BYTES: u64 = 1 << 20;
/// How much of the buffer stays when there was one record with very many events.
const KEPT_BUFFER: usize = 1 << 20;

/// The events of one durable record.
#[derive(Clone, Copy, Debug)]
pub struct RecordedEvents<'a> {
    /// The record's position.
    pub lsn: Lsn,
    /// When they were recorded.
    pub at: Timestamp,
    /// Encoded without their ids ([`super::EventLine::encode`]), each ended by LF.
    pub lines: &'a [u8],
}

/// The current file, shared with whoever has time to sync it.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    /// A sync failed: nobody knows which of its lines are on disk, and no later sync can tell.
    is_doubtful: AtomicBool,
}

impl EventFile {
    fn new(file: File) -> Arc<Self> {
        Arc::new(Self { file, is_doubtful: AtomicBool::new(false) })
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Those of the file system; the sink writes the file anew then, and this one is never
    /// synced again.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_doubtful.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        self.file.sync_data().inspect_err(|_| self.is_doubtful.store(true, Ordering::Release))
    }
}

/// Writes events to the current file and rotates it.
#[derive(Debug)]
pub struct EventSink {
    dir: PathBuf,
    settings: Settings,
    file: Arc<EventFile>,
    /// How much of the file is whole lines.
    size: u64,
    /// The newest day of the file's lines, or of those before it.
    day: Option<String>,
    last: Option<EventId>,
    /// A failed write may have left part of a line behind the whole ones.
    is_ragged: bool,
    /// The second in which it was last looked whether the file still has its name.
    looked_at_s: u64,
    buffer: Vec<u8>,
}

impl EventSink {
    /// Opens `data_dir/events` and finds the last event written. Events of records before
    /// `synced` are known to be on disk; what comes after them in the current file is kept up to
    /// where a power loss took something.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn open(dir: PathBuf, settings: Settings, synced: Lsn) -> io::Result<Self> {
        let path = dir.join(CURRENT);
        let is_new = !path.exists();
        fs::create_dir_all(&dir).map_err(|error| named(&dir, error))?;
        let mut file = open_append(&path)?;
        if is_new {
            let parent = dir.parent().unwrap_or(&dir);
            sync_dir(&dir).and_then(|()| sync_dir(parent))?;
        }
        let (size, mut last) =
            trusted_end(&mut file, synced).map_err(|error| named(&path, error))?;
        file.set_len(size).map_err(|error| named(&path, error))?;
        if last.is_none() {
            last = newest_rotated(&dir)?;
        }
        let day = FILES.newest_day(&dir, "eventTimestamp")?;
        let file = EventFile::new(file);
        Ok(Self {
            dir,
            settings,
            file,
            size,
            day,
            last,
            is_ragged: false,
            looked_at_s: 0,
            buffer: Vec::new(),
        })
    }

    /// The last event that is in the files, if there is any.
    pub fn last(&self) -> Option<EventId> {
        self.last
    }

    /// The current file, to be synced by someone with time for it.
    pub fn file(&self) -> Arc<EventFile> {
        Arc::clone(&self.file)
    }

    /// Appends the events of durable records, in their order; those that the files already have
    /// are passed over.
    ///
    /// # Errors
    /// Those of the file system; what was written of the lines is cut off before the next ones.
    pub fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = RecordedEvents<'a>>,
    ) -> io::Result<()> {
        if self.file.is_doubtful.load(Ordering::Acquire) {
            self.write_anew()?;
        }
        let mut newest = self.last;
        let mut first_at = None;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
        for record in records {
            let lines = record.lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            for (index, line) in (0..).zip(lines) {
                let id = EventId { lsn: record.lsn, index };
                if newest.is_none_or(|newest| id > newest) {
                    finish_line(line, id, &mut self.buffer);
                    newest = Some(id);
                    first_at.get_or_insert(record.at);
                }
            }
        }
        let Some(at) = first_at else { return Ok(()) };
        if at.as_secs() != self.looked_at_s {
            self.looked_at_s = at.as_secs();
            self.reopen_if_moved()?;
        }
        // A line that is not whole must not stand before the next one.
        if self.is_ragged {
            self.file.file.set_len(self.size)?;
        }
        self.rotate_if_due(at)?;
        self.is_ragged = true;
        (&self.file.file).write_all(&self.buffer)?;
        self.is_ragged = false;
        self.size += self.buffer.len() as u64;
        self.last = newest;
        Ok(())
    }

    /// Opens the file by its name again if somebody has moved or deleted it; whether that was so.
    /// Its events are where it is now; the next ones go where others look for them.
    ///
    /// # Errors
    /// Those of the file system; then the old file is written on.
    pub fn reopen_if_moved(&mut self) -> io::Result<bool> {
        let path = self.dir.join(CURRENT);
        if leads_to(&path, &self.file.file)? {
            return Ok(false);
        }
        // What is in it counts as written from now on.
        self.file.sync()?;
        let file = open_append(&path)?;
        sync_dir(&self.dir)?;
        self.size = file.metadata().map_err(|error| named(&path, error))?.len();
        self.file = EventFile::new(file);
        self.is_ragged = false;
        tracing::warn!(path = %path.display(),
            "the event file was moved away or deleted, and is begun anew; it rotates itself, and \
             nothing else should");
        Ok(true)
    }

    /// Deletes the files whose time has come, the current one among them: where no events come, no
    /// rotation does it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn delete_expired(&mut self, now: Timestamp) -> io::Result<()> {
        let oldest = now.minus(self.settings.retention());
        if self.size > 0 && self.day.as_ref().is_some_and(|day| *day < oldest.day()) {
            return self.rotate_if_due(now);
        }
        FILES.delete_before(&self.dir, oldest)
    }

    fn rotate_if_due(&mut self, at: Timestamp) -> io::Result<()> {
        let today = at.day();
        match &self.day {
            // Files are in the order of their days, so a clock that goes back makes no older one.
            Some(day) if *day >= today && self.size < self.settings.max_file_bytes => return Ok(()),
            Some(day) if self.size > 0 => {
                let rotated = FILES.free_name(&self.dir, day);
                self.file.sync()?;
                // It is gone already if an earlier rotation could not make the new file.
                if self.dir.join(CURRENT).exists() {
                    rename(&self.dir.join(CURRENT), &rotated)?;
                }
                self.file = EventFile::new(open_append(&self.dir.join(CURRENT))?);
                sync_dir(&self.dir)?;
                self.size = 0;
                FILES.delete_before(&self.dir, at.minus(self.settings.retention()))?;
            }
            _ => {}
        }
        self.day = self.day.take().max(Some(today));
        Ok(())
    }

    /// After a failed sync: the same lines in a new file, which is synced before it counts.
    fn write_anew(&mut self) -> io::Result<()> {
        let (path, unfinished) = (self.dir.join(CURRENT), self.dir.join(UNFINISHED));
        let mut lines = &self.file.file;
        lines.seek(SeekFrom::Start(0))?;
        let mut copy = File::create(&unfinished).map_err(|error| named(&unfinished, error))?;
        io::copy(&mut lines.take(self.size), &mut copy)?;
        copy.sync_all()?;
        rename(&unfinished, &path)?;
        sync_dir(&self.dir)?;
        self.file = EventFile::new(open_append(&path)?);
        self.is_ragged = false;
        Ok(())
    }
}

/// A record's events as they stand in the file, each with its id and its LF.
pub fn finished_lines(lsn: Lsn, lines: &[u8]) -> impl Iterator<Item = (EventId, Vec<u8>)> {
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    (0..).zip(lines).map(move |(index, line)| {
        let id = EventId { lsn, index };
        let mut finished = Vec::with_capacity(line.len() + 48);
        finish_line(line, id, &mut finished);
        (id, finished)
    })
}

/// The id of a line of the file; `None` if it is not a whole event.
pub fn id_of(line: &[u8]) -> Option<EventId> {
    id_of_line(line.strip_suffix(b"\n")?)
}

/// The event files of a folder, oldest first, the current one last.
///
/// # Errors
/// Those of the file system, naming the folder.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut rotated = FILES.rotated(dir)?;
    let current = dir.join(CURRENT);
    if current.exists() {
        rotated.push(current);
    }
    Ok(rotated)
}

/// The event files as they were at one moment.
#[derive(Debug)]
pub struct FilesAtOnce {
    /// Oldest first. The oldest may be deleted at any time.
    pub rotated: Vec<PathBuf>,
    /// Open already, since its name may soon be another file's.
    pub current: Option<(PathBuf, File)>,
}

/// The event files of a folder as they were at one moment, while another process may rotate them.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn files_at_once(dir: &Path) -> io::Result<FilesAtOnce> {
    let path = dir.join(CURRENT);
    loop {
        let current = unless_missing(File::open(&path)).map_err(|error| named(&path, error))?;
        let mut rotated = files(dir)?;
        rotated.retain(|file| *file != path);
        let is_still_current = match &current {
            Some(file) => leads_to(&path, file)?,
            None => !path.exists(),
        };
        if is_still_current {
            return Ok(FilesAtOnce { rotated, current: current.map(|file| (path, file)) });
        }
    }
}

fn unless_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn newest_rotated(dir: &Path) -> io::Result<Option<EventId>> {
    for path in files(dir)?.into_iter().rev() {
        let mut file = File::open(&path).map_err(|error| named(&path, error))?;
        let (_, line) = last_line(&mut file).map_err(|error| named(&path, error))?;
        if let Some(id) = line.as_deref().and_then(id_of_line) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// How much of the current file can be trusted, and the last event in that.
fn trusted_end(file: &mut File, synced: Lsn) -> io::Result<(u64, Option<EventId>)> {
    let mut end = start_of_unsynced(file, synced)?;
    file.seek(SeekFrom::Start(end))?;
    let mut reader = BufReader::new(file);
    let (mut line, mut last) = (Vec::new(), None);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some(id) = id_of(&line).filter(|id| last.is_none_or(|last| *id > last)) else { break };
        end += line.len() as u64;
        last = Some(id);
        line.clear();
    }
    Ok((end, last))
}

/// Where a line begins that is known to be on disk, close before those that are not; the
/// beginning of the file if there is none.
fn start_of_unsynced(file: &mut File, synced: Lsn) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut span = TAIL_BYTES.min(length);
    while span < length {
        file.seek(SeekFrom::Start(length - span))?;
        let mut tail = Vec::new();
        file.take(span).read_to_end(&mut tail)?;
        let mut start = length - span;
        for line in tail.split_inclusive(|&byte| byte == b'\n') {
            match id_of(line) {
                Some(id) if id.lsn < synced => return Ok(start),
                Some(_) => break,
                None => start += line.len() as u64,
            }
        }
        span = (span * 4).min(length);
    }
    Ok(0)
}

/// The length of the whole lines that can be read, and the last of them.
fn last_line(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let length = file.seek(SeekFrom::End(0))?;
    for span in [TAIL_BYTES.min(length), length] {
        let start = length - span;
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(span).read_to_end(&mut tail)?;
        let mut end = tail.len();
        while let Some(newline) = memchr::memrchr(b'\n', &tail[..end]) {
            let begin = memchr::memrchr(b'\n', &tail[..newline]).map_or(0, |at| at + 1);
            if begin == 0 && start > 0 {
                break; // The line begins before what was read.
            }
            if id_of_line(&tail[begin..newline]).is_some() {
                let whole = start + newline as u64 + 1;
                return Ok((whole, Some(tail[begin..newline].to_vec())));
            }
            end = newline;
        }
    }
    Ok((0, None))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| named(dir, error))
}

/// Opens a file of the log; makes it, and its folder, which somebody may have moved away too.
fn open_append(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().create(true).append(true).read(true).open(path);
    let opened = match (open(), path.parent()) {
        (Err(error), Some(dir)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).and_then(|()| open())
        }
        (opened, _) => opened,
    };
    opened.map_err(|error| named(path, error))
}

#[expect(clippy::disallowed_methods, reason = "rotation of the file that this module owns")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| named(from, error))
}

#[cfg(test)]
mod tests;
