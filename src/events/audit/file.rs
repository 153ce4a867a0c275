//! The file of one kind of audit lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LogType;
use crate::clock::Timestamp;
use crate::events::Settings;
use crate::events::dated::{DatedFiles, leads_to, named};

/// The current file of a log, which the daemon alone rotates and to which commands append too.
#[derive(Debug)]
pub(super) struct AuditFile {
    dir: PathBuf,
    names: DatedFiles,
    settings: Settings,
    file: File,
    /// The newest day of the file's lines, or of those before it.
    day: Option<String>,
    /// A failed write may have left part of a line.
    is_ragged: bool,
}

impl AuditFile {
    pub(super) fn open(dir: &Path, kind: LogType, settings: Settings) -> io::Result<Self> {
        let names = DatedFiles(kind.as_str());
        let file = open_append(dir, names)?;
        let day = names.newest_day(dir, "event_timestamp")?;
        Ok(Self { dir: dir.into(), names, settings, file, day, is_ragged: false })
    }

    /// Opens the file by its name again if somebody has moved or deleted it.
    pub(super) fn reopen_if_moved(&mut self) -> io::Result<()> {
        let path = self.names.current(&self.dir);
        if leads_to(&path, &self.file)? {
            return Ok(());
        }
        self.file = open_append(&self.dir, self.names)?;
        self.is_ragged = false;
        tracing::warn!(path = %path.display(),
            "an audit log was moved away or deleted, and is begun anew; it rotates itself, and \
             nothing else should");
        Ok(())
    }

    /// Deletes the files whose time has come, the current one among them.
    pub(super) fn delete_expired(&mut self, now: Timestamp) -> io::Result<()> {
        let oldest = now.minus(self.settings.retention());
        if self.day.as_ref().is_some_and(|day| *day < oldest.day()) {
            return self.rotate_if_due(now);
        }
        self.names.delete_before(&self.dir, oldest)
    }

    /// Appends whole lines, the newest of them made at `at`.
    pub(super) fn append(&mut self, lines: &[u8], at: Timestamp) -> io::Result<()> {
        self.reopen_if_moved()?;
        self.rotate_if_due(at)?;
        if self.is_ragged {
            self.file.write_all(b"\n")?;
        }
        self.is_ragged = true;
        self.file.write_all(lines)?;
        self.is_ragged = false;
        Ok(())
    }

    fn rotate_if_due(&mut self, at: Timestamp) -> io::Result<()> {
        let today = at.day();
        // Commands may have added to it.
        let size = self.file.metadata()?.len();
        match &self.day {
            Some(day) if *day >= today && size < self.settings.max_file_bytes => return Ok(()),
            Some(day) if size > 0 => {
                let current = self.names.current(&self.dir);
                // It is gone already if an earlier rotation could not make the new file.
                if current.exists() {
                    rename(&current, &self.names.free_name(&self.dir, day))?;
                }
                self.file = open_append(&self.dir, self.names)?;
                self.is_ragged = false;
                self.names.delete_before(&self.dir, at.minus(self.settings.retention()))?;
            }
            _ => {}
        }
        self.day = self.day.take().max(Some(today));
        Ok(())
    }
}

/// Appends a line with one call, so that it stays whole beside another process's.
pub(super) fn append(dir: &Path, kind: LogType, line: &[u8]) -> io::Result<()> {
    let names = DatedFiles(kind.as_str());
    open_append(dir, names)?.write_all(line).map_err(|error| named(&names.current(dir), error))
}

fn open_append(dir: &Path, names: DatedFiles) -> io::Result<File> {
    let path = names.current(dir);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let open = || OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path);
    made.and_then(|()| open()).map_err(|error| named(&path, error))
}

#[expect(clippy::disallowed_methods, reason = "a log that nothing durable depends on")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| named(from, error))
}
