//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::clock::{Clock, SystemClock};

/// A file changed so shortly before it was read may change again without looking different.
pub(super) const SETTLED_AFTER_MS: i64 = if cfg!(test) { 50 } else { 2000 };

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    /// A file's stamp, to be taken before it is read; `None` if another version of it could have
    /// the same.
    pub(super) fn of(path: &Path) -> Option<Self> {
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
