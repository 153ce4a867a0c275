//! How much of the disk is free, so that mail is deferred before it is full: what is on its way out
//! still has room for its outcomes then, and so have events and index.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Room for a message that is on its way to the disk, until it is dropped: by then it is written, or
/// given up.
#[derive(Debug)]
pub struct DiskRoom<'a> {
    disk: &'a Disk,
    octets: u64,
}

impl Drop for DiskRoom<'_> {
    fn drop(&mut self) {
        self.disk.last().promised -= self.octets; // was added when it was promised
    }
}

/// What was seen, less what was written since.
#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    free: u64,
    /// Octets of what is on its way.
    promised: u64,
    /// Whether the operator was told that there is too little.
    is_told: bool,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, floor: u64) -> Self {
        Self {
            folder,
            floor,
            last: Mutex::new(Look { at: None, free: 0, promised: 0, is_told: false }),
        }
    }

    /// Whether there is room for so many octets above what stays free and what is on its way. The
    /// system is asked seldom.
    pub(super) fn has_room(&self, octets: u64) -> bool {
        self.has_room_beside(&mut self.last(), octets)
    }

    /// Keeps this room, if it is there.
    pub(super) fn room(&self, octets: u64) -> Option<DiskRoom<'_>> {
        let mut last = self.last();
        if !self.has_room_beside(&mut last, octets) {
            return None;
        }
        last.promised += octets;
        Some(DiskRoom { disk: self, octets })
    }

    fn last(&self) -> MutexGuard<'_, Look> {
        // Nothing panics while holding this lock.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room_beside(&self, last: &mut Look, octets: u64) -> bool {
        if self.floor == 0 {
            return true;
        }
        if last.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            last.at = Some(Instant::now());
            last.free = self.look();
        }
        let wanted = self.floor.saturating_add(last.promised).saturating_add(octets);
        let has_room = last.free >= wanted;
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
        let mut last = self.last();
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

    #[test]
    fn what_is_on_its_way_counts_until_it_is_written_or_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let free = Disk::new(folder.path().into(), 1).look();
        let disk = Disk::new(folder.path().into(), free / 2);
        let most = free / 3;
        let first = disk.room(most).expect("room for one");
        assert!(disk.room(most).is_none() && !disk.has_room(most), "and not for two");
        drop(first);
        assert!(disk.room(most).is_some());
    }
}
