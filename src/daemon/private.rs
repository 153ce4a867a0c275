//! The data folder is for the daemon's user alone. One that was made otherwise, by hand or by a
//! restored archive, is told and left as it is: somebody may have wanted it so.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that are named; more are only counted.
const NAMED: usize = 5;
/// Files that are looked at: a start must not take long.
const MAX_LOOKED_AT: usize = 10_000;

/// Tells of a data folder that others may enter, and of files in it that others may read.
pub(super) fn tell_wide(data_dir: &Path) {
    let wide = wide(data_dir);
    for path in wide.iter().take(NAMED) {
        tracing::warn!(path = %path.display(),
            "others than the daemon's user have rights to it; chmod go= takes them away");
    }
    if wide.len() > NAMED {
        tracing::warn!(files = wide.len() - NAMED, "others have rights to more files there");
    }
}

/// The folder and what is in it, as far as others have rights to it. Links are nobody's.
fn wide(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(data_dir, |path, metadata| {
        if !metadata.is_symlink() && metadata.mode() & 0o077 != 0 {
            found.push(path.to_owned());
        }
    });
    found
}

/// Shows the folder and what is in it, as far as a start can wait for it.
fn walk(data_dir: &Path, mut see: impl FnMut(&Path, &fs::Metadata)) {
    let mut to_see = vec![data_dir.to_owned()];
    let mut seen = 0;
    while let Some(path) = to_see.pop() {
        seen += 1;
        // What cannot be looked at is told by whoever uses it.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        see(&path, &metadata);
        if metadata.is_dir() && seen < MAX_LOOKED_AT {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            to_see.extend(inside.map(|entry| entry.path()).take(MAX_LOOKED_AT));
        }
        if seen >= MAX_LOOKED_AT {
            break;
        }
    }
}

/// What is in a data folder and belongs to somebody else than the folder does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The folder's owner, who the daemon is.
    pub(super) owner: u32,
    /// Each with its owner.
    pub(super) files: Vec<(PathBuf, u32)>,
}

/// Looks who has what is in a data folder; `None` if it is not there, or nobody may say. A folder of
/// root's is for a daemon that is root, who can do with all files as it likes.
pub(super) fn foreign(data_dir: &Path) -> Option<Foreign> {
    let owner = fs::metadata(data_dir).ok()?.uid();
    let mut files = Vec::new();
    if owner != 0 {
        walk(data_dir, |path, metadata| {
            if metadata.uid() != owner {
                files.push((path.to_owned(), metadata.uid()));
            }
        });
    }
    Some(Foreign { owner, files })
}

/// What the system calls a user.
pub(super) fn name_of(uid: u32) -> String {
    let user = uzers::get_user_by_uid(uid);
    user.map_or_else(|| format!("user {uid}"), |user| user.name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn rights_of_others_are_found_wherever_they_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changes");
        };
        let inside = dir.path().join("events");
        fs::create_dir(&inside).expect("creates");
        let file = inside.join("email-events.jsonl");
        fs::write(&file, "").expect("writes");
        set(dir.path(), 0o700);
        set(&inside, 0o700);
        set(&file, 0o600);
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).expect("links");
        assert!(wide(dir.path()).is_empty());
        set(&file, 0o640);
        assert_eq!(wide(dir.path()), std::slice::from_ref(&file));
        set(dir.path(), 0o711);
        assert_eq!(wide(dir.path()), [dir.path().to_owned(), file]);
        assert!(wide(&dir.path().join("none")).is_empty());
    }

    /// Only root can give files away.
    #[test]
    fn what_somebody_else_left_in_the_folder_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("lock"), "").expect("writes");
        assert_eq!(foreign(&dir.path().join("none")), None);
        let found = foreign(dir.path()).expect("is there");
        assert_eq!(found.files, [], "all of it is of one owner");
        if std::os::unix::fs::chown(dir.path(), Some(12_345), None).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let found = foreign(dir.path()).expect("is there");
        assert_eq!(found.owner, 12_345);
        assert_eq!(found.files, [(dir.path().join("lock"), 0)]);
        assert_eq!((name_of(0), name_of(12_345)), ("root".to_owned(), "user 12345".to_owned()));
    }
}
