//! The data folder is for the daemon's user alone. One that was made otherwise, by hand or by a
//! restored archive, is told and left as it is: somebody may have wanted it so.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::files::{Others, rights_of_others};

/// Files that are named; more are only counted.
const NAMED: usize = 5;
/// Files that are looked at: a start must not take long.
const MAX_LOOKED_AT: usize = 10_000;

/// What there is to tell of a data folder that others may enter, and of files in it that others may
/// read: keys, passwords' hashes, mail, events. Links are nobody's.
pub(super) fn rights_in(data_dir: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut more = 0;
    walk(data_dir, |path, metadata| {
        if metadata.is_symlink() {
            return;
        }
        match rights_of_others(path, metadata.mode(), Others::GroupAndEverybody) {
            Some(message) if told.len() < NAMED => told.push(message),
            Some(_) => more += 1,
            None => {}
        }
    });
    if more > 0 {
        let shown = data_dir.display();
        told.push(format!("{more} more files there: chmod -R go= {shown} is for all of them"));
    }
    told
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
        assert!(rights_in(dir.path()).is_empty());
        let told = |path: &Path, mode: &str| {
            let shown = path.display();
            format!(
                "others than its owner have rights to {shown} (mode {mode}): chmod go= {shown} takes \
                 them away"
            )
        };
        set(&file, 0o640);
        assert_eq!(rights_in(dir.path()), [told(&file, "0640")]);
        set(dir.path(), 0o711);
        assert_eq!(rights_in(dir.path()), [told(dir.path(), "0711"), told(&file, "0640")]);
        assert!(rights_in(&dir.path().join("none")).is_empty());
        for number in 0..NAMED {
            let more = inside.join(format!("more-{number}"));
            fs::write(&more, "").expect("writes");
            set(&more, 0o644);
        }
        let all = rights_in(dir.path());
        assert_eq!(all.len(), NAMED + 1, "{all:?}");
        assert!(all[NAMED].starts_with("2 more files there: chmod -R go= "), "{all:?}");
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
