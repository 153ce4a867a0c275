//! The files of one log: a current one, `stem.jsonl`, and beside it rotated ones that say which
//! day they are of, `stem.2026-11-21.jsonl`, `stem.2026-11-21.0001.jsonl`, …

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;

pub(super) const SUFFIX: &str = ".jsonl";
/// How much of a file is read to find its first line.
const HEAD_BYTES: u64 = 1 << 20;

/// The files of the log with this stem.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatedFiles(pub(super) &'static str);

impl DatedFiles {
    /// The current file.
    pub(super) fn current(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}{SUFFIX}", self.0))
    }

    /// The name that the current file takes when it is rotated.
    pub(super) fn free_name(self, dir: &Path, day: &str) -> PathBuf {
        let name = |part: String| dir.join(format!("{}.{day}{part}{SUFFIX}", self.0));
        let mut path = name(String::new());
        let mut number = 0;
        while path.exists() {
            number += 1;
            path = name(format!(".{number:04}"));
        }
        path
    }

    /// The rotated files, oldest first.
    pub(super) fn rotated(self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut rotated = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| named(dir, error))? {
            let path = entry?.path();
            if self.day_of(&path).is_some() {
                rotated.push(path);
            }
        }
        // `….2026-11-21.jsonl` is older than `….2026-11-21.0001.jsonl`, and `….9999.jsonl` than
        // `….10000.jsonl`.
        rotated.sort_by_key(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default().trim_end_matches(SUFFIX).to_owned();
            (self.day_of(path), name.len(), name)
        });
        Ok(rotated)
    }

    /// The newest day of the files; `key` of a line has its moment. The clock may have gone back
    /// before the current file was begun, and no file may sort before an older one.
    pub(super) fn newest_day(self, dir: &Path, key: &str) -> io::Result<Option<String>> {
        let rotated = self.rotated(dir)?.iter().filter_map(|path| self.day_of(path)).max();
        Ok(first_day(&self.current(dir), key)?.max(rotated))
    }

    /// Deletes the rotated files of the days before `oldest`.
    pub(super) fn delete_before(self, dir: &Path, oldest: Timestamp) -> io::Result<()> {
        for path in self.rotated(dir)? {
            if self.day_of(&path).is_some_and(|day| day < oldest.day()) {
                fs::remove_file(&path).map_err(|error| named(&path, error))?;
            }
        }
        Ok(())
    }

    fn day_of(self, path: &Path) -> Option<String> {
        let name = path.file_name()?.to_str()?.strip_prefix(self.0)?;
        let day = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.get(..10)?;
        day.starts_with(|c: char| c.is_ascii_digit()).then(|| day.to_owned())
    }
}

fn first_day(path: &Path, key: &str) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    let millis = parsed.and_then(|line| line.get(key)?.as_u64());
    Ok(millis.map(|millis| Timestamp::from_millis(millis).day()))
}

/// Whether a name leads to a file that is open; not if somebody has moved or deleted it.
pub(crate) fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(|error| named(path, error))?,
    };
    let here = file.metadata().map_err(|error| named(path, error))?;
    Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
}

/// An error that says which file it is about.
pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
