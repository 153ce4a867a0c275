//! What was refused in session, for `events trace`: a reply names a trace id, and an operator who
//! is given it must find out why. Not events: these lines are written without a sync, and a
//! flood of them is thinned, never waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::events::leads_to;
use crate::pipeline::record::mail_log::harmless;
use crate::smtp::handler::SessionRefusal;
use crate::smtp::reason::Reason;

const CURRENT: &str = "refusals.jsonl";
const PREVIOUS: &str = "refusals.1.jsonl";
/// The file is replaced when it has grown past this; one older file is kept.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Lines that wait for the disk; more are dropped and counted in the log.
const WAITING: usize = 4096;
/// Refusals told in the operational log in a second; a flood of them is counted there.
const TOLD_A_SECOND: u64 = 100;

/// A refusal as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalLine {
    /// The id in the reply.
    pub trace_id: String,
    /// When.
    pub timestamp: Timestamp,
    /// The reason word in the reply.
    pub reason: String,
    /// The reply's code and text.
    pub reply: String,
    /// The client's address.
    pub ip: String,
    /// The argument of EHLO; absent before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub helo: Option<String>,
    /// What was refused.
    pub about: String,
}

/// Writes refusals from a thread of its own.
#[derive(Debug)]
pub struct RefusalLog {
    lines: SyncSender<RefusalLine>,
    pace: Mutex<Pace>,
}

/// How many refusals a second has had.
#[derive(Debug, Default)]
struct Pace {
    second: u64,
    refusals: u64,
}

impl Pace {
    /// Counts one more: whether it is told, and how many of an earlier second were not.
    fn count(&mut self, second: u64) -> (bool, u64) {
        let mut untold = 0;
        if second != self.second {
            untold = self.refusals.saturating_sub(TOLD_A_SECOND);
            *self = Self { second, refusals: 0 };
        }
        self.refusals += 1;
        (self.refusals <= TOLD_A_SECOND, untold)
    }
}

impl RefusalLog {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut writer = Writer::open(dir.into())?;
        let (lines, waiting) = sync_channel::<RefusalLine>(WAITING);
        std::thread::Builder::new().name("refusals".into()).spawn(move || {
            for line in waiting {
                if let Err(error) = writer.append(&line) {
                    tracing::warn!(%error, "a refusal cannot be recorded");
                }
            }
        })?;
        Ok(Self { lines, pace: Mutex::default() })
    }

    pub(in crate::pipeline) fn record(&self, refused: &SessionRefusal<'_>, now: Timestamp) {
        let reason = refused.refusal.reason;
        let peer = refused.peer;
        // A count is whole at every moment, so a panic elsewhere cannot have harmed it.
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_told, untold) = pace.count(now.as_secs());
        drop(pace);
        if untold > 0 {
            tracing::info!(untold, "more was refused than is told here");
        }
        // At a stop every idle connection is told; that is no news to the operator who stops it.
        if reason == Reason::ShuttingDown {
            tracing::debug!(ip = %peer.ip, "told that we are stopping");
        } else if is_told {
            let about = harmless(&refused.about);
            tracing::info!(trace_id = %refused.refusal.trace_id, reason = reason.word(),
                ip = %peer.ip, about, "refused");
        }
        let line = RefusalLine {
            trace_id: refused.refusal.trace_id.to_string(),
            timestamp: now,
            reason: reason.word().to_owned(),
            reply: format!("{} {} {}", reason.code(), reason.enhanced(), reason.text()),
            ip: peer.ip.to_string(),
            helo: Some(peer.helo.clone()).filter(|helo| !helo.is_empty()),
            about: refused.about.to_owned(),
        };
        match self.lines.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(line)) if is_told => {
                tracing::warn!(trace_id = line.trace_id, "refusal not recorded: too many at once");
            }
            Err(TrySendError::Full(_)) => {}
        }
    }
}

struct Writer {
    dir: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let file = OpenOptions::new().create(true).append(true).open(dir.join(CURRENT))?;
        let size = file.metadata()?.len();
        Ok(Self { dir, file, size })
    }

    fn append(&mut self, line: &RefusalLine) -> io::Result<()> {
        // Somebody may have moved it away; `events trace` looks under its name.
        if !leads_to(&self.dir.join(CURRENT), &self.file)? {
            *self = Self::open(self.dir.clone())?;
        }
        if self.size > MAX_FILE_BYTES {
            replace(&self.dir.join(CURRENT), &self.dir.join(PREVIOUS))?;
            *self = Self::open(self.dir.clone())?;
        }
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a log that nothing durable depends on")]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// The refusal files of a folder, oldest first.
///
/// # Errors
/// A folder that nobody may look into.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in [PREVIOUS, CURRENT].map(|name| dir.join(name)) {
        if path.try_exists()? {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
    fn a_file_or_folder_that_was_moved_away_is_begun_anew() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("refusals");
        let line = |about: &str| RefusalLine {
            trace_id: "1".into(),
            timestamp: Timestamp::from_millis(0),
            reason: "bad-syntax".into(),
            reply: "501".into(),
            ip: "192.0.2.1".into(),
            helo: None,
            about: about.into(),
        };
        let mut writer = Writer::open(dir.clone()).expect("opens");
        writer.append(&line("first")).expect("writes");
        fs::rename(dir.join(CURRENT), dir.join("moved")).expect("moves");
        writer.append(&line("second")).expect("writes");
        fs::rename(&dir, parent.path().join("away")).expect("moves");
        writer.append(&line("third")).expect("writes");
        let read = |path: &Path| fs::read_to_string(path).expect("reads");
        let second = read(&parent.path().join("away").join(CURRENT));
        assert!(second.contains("second") && !second.contains("first"), "{second}");
        let third = read(&dir.join(CURRENT));
        assert!(third.contains("third") && !third.contains("second"), "{third}");
    }

    #[test]
    fn a_flood_of_refusals_is_counted_not_told() {
        let mut pace = Pace::default();
        let told = (0..250).filter(|_| pace.count(7).0).count();
        assert_eq!(told, 100);
        assert_eq!(pace.count(8), (true, 150), "the next second tells how many there were");
        assert_eq!(pace.count(9), (true, 0));
    }
}
