//! Audit logs: who logged in or tried to, what the access control rules said, what became of
//! mailboxes, and who made or removed a personal access token (guide 1618–1728, `contracts.md`
//! §8). A file for each kind, `audit/<log-type>.jsonl`, rotated and kept as the event file is.
//!
//! Lines are written by a thread of their own and never synced: what a power loss takes of them is
//! gone, and nothing durable depends on them. A flood of them takes none: who makes more than can be
//! written waits, beside the runtime.

mod arn;
mod file;
#[cfg(test)]
mod golden;
mod line;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use arn::{AccountId, ArnSettings, NotARegion, NotAnAccountId, Region};
pub use line::{
    AccessControl, AuditLine, AuthFailure, Authentication, LogType, MailboxAccess, Occasion,
    PersonalAccessToken, TokenAction,
};

use super::Settings;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::heavy;
use file::AuditFile;

/// Lines that wait for the disk. A message to a large group makes more than that at once, so whoever
/// makes the next one waits for it.
const WAITING: usize = 4096;
/// Lines that are handed over in well below a millisecond.
const MANY: usize = 1000;
/// Octets of memory that are kept for the text of the next lines.
const KEPT: usize = 64 * 1024;
/// How long the writer gathers lines, since waking it for each would cost more than writing it.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked whether the files still have their names, where no lines come.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked for files whose time has come.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
enum Request {
    Write(Box<AuditLine>),
    /// Look at once whether the files still have their names.
    Look,
}

/// Takes audit lines, and writes what waits when it is dropped.
#[derive(Debug)]
pub struct AuditLog {
    /// Absent only while it is dropped.
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the files of all kinds in `dir`, and makes what is not there.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn open(dir: &Path, settings: Settings, arns: ArnSettings) -> io::Result<Self> {
        let mut books = Vec::with_capacity(LogType::ALL.len());
        for kind in LogType::ALL {
            books.push(Book::new(kind, AuditFile::open(dir, kind, settings)?));
        }
        let (requests, waiting) = sync_channel(WAITING);
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(books, &arns, &waiting))?;
        Ok(Self { requests: Some(requests), writer: Some(writer) })
    }

    /// A log whose disk hangs for as long as what comes with it is kept.
    #[cfg(test)]
    pub(crate) fn hanging() -> (Self, impl Send) {
        let (requests, disk) = sync_channel(0);
        (Self { requests: Some(requests), writer: None }, disk)
    }

    /// Takes a line. Where too many wait already, it waits beside the runtime until there is room:
    /// the writer always comes to that, because it waits for nobody.
    pub fn record(&self, line: impl Into<AuditLine>) {
        let Some(requests) = &self.requests else { return };
        let request = Request::Write(Box::new(line.into()));
        if let Err(TrySendError::Full(request)) = requests.try_send(request) {
            // An error says that the writer is gone, which only a panic in it brings about; closing
            // the log tells of that.
            heavy::beside_the_runtime(|| drop(requests.send(request)));
        }
    }

    /// Takes the lines of one message, beside the runtime if they are many. Nobody does this in a
    /// turn of heavy work, since it may have to wait for the disk.
    pub fn record_all(&self, lines: Vec<impl Into<AuditLine>>) {
        let are_many = lines.len() > MANY;
        let record = || lines.into_iter().for_each(|line| self.record(line));
        if are_many { heavy::beside_the_runtime(record) } else { record() }
    }

    /// Opens the files again that somebody has moved away.
    pub fn reopen(&self) {
        // Where the channel is full, lines come, and each look at the files first.
        self.requests.iter().for_each(|requests| drop(requests.try_send(Request::Look)));
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        drop(self.requests.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit logs did not close well");
        }
    }
}

/// Appends a line for a command, beside a daemon or without one; rotation is the daemon's.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn append(dir: &Path, arns: &ArnSettings, line: impl Into<AuditLine>) -> io::Result<()> {
    append_all(dir, arns, [line.into()])
}

/// The same for many lines of one kind, which stand together.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn append_all(
    dir: &Path,
    arns: &ArnSettings,
    lines: impl IntoIterator<Item = AuditLine>,
) -> io::Result<()> {
    let mut kind = None;
    let mut text = Vec::new();
    for line in lines {
        kind = Some(line.log_type());
        line.write_to(arns, &mut text);
    }
    kind.map_or(Ok(()), |kind| file::append(dir, kind, &text))
}

#[expect(clippy::disallowed_methods, reason = "the writer's own thread")]
fn gather() {
    std::thread::sleep(GATHER);
}

/// Writes until nobody can send any more.
fn write_all(mut books: Vec<Book>, arns: &ArnSettings, waiting: &Receiver<Request>) {
    let mut tidied: Option<Instant> = None;
    let mut is_flooded = false;
    loop {
        match waiting.recv_timeout(LOOK_EVERY) {
            Ok(first) => {
                // Whoever fills the channel waits for the next lines to be taken.
                if !is_flooded {
                    gather();
                }
                let mut taken = 0;
                for request in std::iter::once(first).chain(waiting.try_iter().take(WAITING)) {
                    taken += 1;
                    // Each book looks for its file before it writes.
                    let Request::Write(line) = request else { continue };
                    let kind = line.log_type();
                    let book = books.iter_mut().find(|book| book.kind == kind);
                    book.into_iter().for_each(|book| book.add(&line, arns));
                }
                is_flooded = taken >= WAITING;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        books.iter_mut().for_each(Book::write);
        if tidied.is_none_or(|tidied| tidied.elapsed() >= TIDY_EVERY) {
            tidied = Some(Instant::now());
            let now = SystemClock.now();
            books.iter_mut().for_each(|book| book.tidy(now));
        }
    }
}

/// The file of a kind, and the text of what goes into it next.
struct Book {
    kind: LogType,
    file: AuditFile,
    text: Vec<u8>,
    lines: usize,
    /// When the newest line was made.
    newest: Timestamp,
}

impl Book {
    fn new(kind: LogType, file: AuditFile) -> Self {
        Self { kind, file, text: Vec::new(), lines: 0, newest: Timestamp::from_millis(0) }
    }

    fn add(&mut self, line: &AuditLine, arns: &ArnSettings) {
        line.write_to(arns, &mut self.text);
        self.lines += 1;
        self.newest = self.newest.max(line.at());
    }

    fn tidy(&mut self, now: Timestamp) {
        if let Err(error) = self.file.delete_expired(now) {
            tracing::warn!(%error, log = self.kind.as_str(), "old audit files are not deleted");
        }
    }

    fn write(&mut self) {
        if self.lines == 0 {
            if let Err(error) = self.file.reopen_if_moved() {
                tracing::warn!(%error, log = self.kind.as_str(), "the audit log is not there");
            }
            return;
        }
        let (log, lines) = (self.kind.as_str(), std::mem::take(&mut self.lines));
        if let Err(error) = self.file.append(&self.text, self.newest) {
            tracing::warn!(%error, log, lines, "audit lines are not written");
        }
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.newest = Timestamp::from_millis(0);
    }
}
