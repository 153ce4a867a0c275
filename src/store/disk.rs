//! How much of the disk is free, so that mail is deferred before it is full: what is on its way out
//! still has room for its outcomes then, and so have events and index.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often the system is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The disk of the data folder.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    /// Octets that stay free.
    floor: u64,
    last: Mutex<Look>,
}

/// What was seen, less what was written since.
#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    free: u64,
    /// Whether the operator was told that there is too little.
    is_told: bool,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, floor: u64) -> Self {
        Self { folder, floor, last: Mutex::new(Look { at: None, free: 0, is_told: false }) }
    }

    /// Whether there is room for so many octets above what stays free. The system is asked seldom.
    pub(super) fn has_room(&self, octets: u64) -> bool {
        if self.floor == 0 {
            return true;
        }
        // Nothing panics while holding this lock.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            last.at = Some(Instant::now());
            last.free = self.look();
        }
        let has_room = last.free >= self.floor.saturating_add(octets);
        if last.free >= self.floor {
            last.is_told = false;
        } else if !last.is_told {
            last.is_told = true;
            let (folder, free, floor) = (self.folder.display(), last.free, self.floor);
            tracing::error!(%folder, free, floor, "too little of the disk is free: mail is deferred");
        }
        has_room
    }

    /// So many octets were written.
    pub(super) fn took(&self, octets: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.free = last.free.saturating_sub(octets);
    }

    /// What the system says; where it says nothing, writing shows whether there is room.
    fn look(&self) -> u64 {
        match free(&self.folder) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "nobody knows what is free");
                u64::MAX
            }
        }
    }
}

/// The octets that are free on the disk of a folder, for whoever is not root.
///
/// # Errors
/// The folder is not there, or the system does not say.
pub fn free(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_counts_before_the_system_is_asked_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = |floor| Disk::new(folder.path().into(), floor);
        assert!(!disk(u64::MAX).has_room(0));
        assert!(disk(0).has_room(u64::MAX), "no floor");
        let free = disk(1).look();
        assert!(free > 1024 * 1024, "the test needs a megabyte");
        let disk = disk(free / 2);
        assert!(disk.has_room(1) && !disk.has_room(free));
        disk.took(free - free / 4);
        assert!(!disk.has_room(1));
    }
}
