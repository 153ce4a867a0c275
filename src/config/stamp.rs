//! Whether files are still those that were read.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::clock::{Clock, SystemClock};

/// A file changed so shortly before it was read may change again without looking different.
pub(super) const SETTLED_AFTER_MS: i64 = if cfg!(test) { 50 } else { 2000 };

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    /// A file's stamp, to be taken before it is read; `None` if another version of it could have
    /// the same.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
        let stamp = Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        };
        let now = i64::try_from(SystemClock.now().as_millis()).unwrap_or(i64::MAX);
        let newest = stamp.modified_ns.max(stamp.changed_ns) / 1_000_000;
        (newest + SETTLED_AFTER_MS < now).then_some(stamp)
    }
}

/// The stamps of a file and of all files that were read because it names them.
#[derive(Debug)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

impl Stamps {
    /// A file's stamp, to be taken before it is read.
    pub(super) fn of(path: &Path) -> Self {
        let mut stamps = Self(Vec::new());
        stamps.add(path);
        stamps
    }

    /// The stamp of a further file, to be taken before that is read.
    pub(super) fn add(&mut self, path: &Path) {
        self.0.push((path.into(), Stamp::of(path)));
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Whether all files look as they did.
    pub(super) fn are_current(&self) -> bool {
        self.0.iter().all(|(path, stamp)| stamp.is_some() && *stamp == Stamp::of(path))
    }
}
