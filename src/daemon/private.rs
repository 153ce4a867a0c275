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
    let mut to_see = vec![data_dir.to_owned()];
    let mut seen = 0;
    while let Some(path) = to_see.pop() {
        seen += 1;
        // What cannot be looked at is told by whoever uses it.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if !metadata.is_symlink() && metadata.mode() & 0o077 != 0 {
            found.push(path.clone());
        }
        if metadata.is_dir() && seen < MAX_LOOKED_AT {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            to_see.extend(inside.map(|entry| entry.path()).take(MAX_LOOKED_AT));
        }
        if seen >= MAX_LOOKED_AT {
            break;
        }
    }
    found
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
}
