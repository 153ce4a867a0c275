//! Writes an exported mailbox. A folder that others may write to can be prepared by them, so no
//! link is followed, and what has a file's name already is not written into.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::id::TraceId;
use crate::store::Folder;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder that messages are written to, by folder and id.
pub(super) struct Export {
    path: PathBuf,
    dir: OwnedFd,
    folders: HashMap<Folder, OwnedFd>,
    written: HashSet<PathBuf>,
}

impl Export {
    /// Opens the folder; makes it, and those above it, if they are not there.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // With a slash or a dot behind it, a name that is a link would be followed.
        let path: PathBuf = path.components().collect();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let dir = open_folder(CWD, &path).with_context(|| path.display().to_string())?;
        Ok(Self { path, dir, folders: HashMap::new(), written: HashSet::new() })
    }

    /// Writes a message, in place of what an earlier export left; where it is.
    pub(super) fn write(
        &mut self,
        folder: Folder,
        id: TraceId,
        bytes: &[u8],
    ) -> anyhow::Result<PathBuf> {
        let inside = self.path.join(folder.as_str());
        if !self.folders.contains_key(&folder) {
            let opened = open_folder(&self.dir, Path::new(folder.as_str()))
                .with_context(|| inside.display().to_string())?;
            self.folders.insert(folder, opened);
        }
        // A message may be in a folder twice.
        let mut name = format!("{id}.eml");
        let mut number = 1;
        while !self.written.insert(inside.join(&name)) {
            number += 1;
            name = format!("{id}.{number}.eml");
        }
        let path = inside.join(&name);
        let Some(dir) = self.folders.get(&folder) else { return Ok(path) };
        write_new(dir, &name, bytes).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn open_folder(dir: impl rustix::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    match mkdirat(&dir, path, Mode::RWXU) {
        Err(Errno::EXIST) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    openat(&dir, path, FOLDER, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::other("is a link or a file, not a folder"),
        error => error.into(),
    })
}

fn write_new(dir: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    let file = openat(dir, name, NEW_FILE, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("stats").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_exported_is_for_its_owner_and_twice_is_not_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let to = dir.path().join("new/mail");
        let id = TraceId::generate();
        for _ in 0..2 {
            let mut export = Export::open(&to).expect("opens");
            let first = export.write(Folder::Inbox, id, b"one").expect("writes");
            let second = export.write(Folder::Inbox, id, b"two").expect("writes");
            assert_eq!(first, to.join(format!("INBOX/{id}.eml")));
            assert_eq!(fs::read(&first).expect("reads"), b"one");
            assert_eq!(fs::read(&second).expect("reads"), b"two");
            assert_eq!((mode(&first), mode(&to.join("INBOX")), mode(&to)), (0o600, 0o700, 0o700));
        }
        assert_eq!(fs::read_dir(to.join("INBOX")).expect("lists").count(), 2);
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (to, elsewhere) = (dir.path().join("mail"), dir.path().join("elsewhere"));
        fs::create_dir_all(to.join("INBOX")).expect("creates");
        fs::create_dir(&elsewhere).expect("creates");
        fs::write(elsewhere.join("victim"), "theirs").expect("writes");
        let id = TraceId::generate();
        symlink(elsewhere.join("victim"), to.join(format!("INBOX/{id}.eml"))).expect("links");
        symlink(&elsewhere, to.join("JUNK_EMAIL")).expect("links");
        let mut export = Export::open(&to).expect("opens");
        let path = export.write(Folder::Inbox, id, b"mail").expect("writes");
        assert!(fs::symlink_metadata(&path).expect("stats").is_file());
        assert_eq!(fs::read_to_string(elsewhere.join("victim")).expect("reads"), "theirs");
        let error = export.write(Folder::JunkEmail, id, b"mail").expect_err("a link");
        assert!(format!("{error:#}").contains("JUNK_EMAIL: is a link"), "{error:#}");
        symlink(&to, dir.path().join("link")).expect("links");
        for name in ["link", "link/", "link//", "link/.", "link/./"] {
            assert!(Export::open(&dir.path().join(name)).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(&elsewhere).expect("lists").count(), 1);
    }
}
