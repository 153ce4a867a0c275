//! What an administrator's command makes in the data folder is the daemon's, not root's: else the
//! daemon could not open it.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use anyhow::Context;

/// Gives what a command may have made below the data folder to the folder's owner.
pub(super) fn give_to_daemon(data_dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    let daemon = fs::metadata(data_dir).with_context(|| data_dir.display().to_string())?;
    for path in names.iter().map(|name| data_dir.join(name)) {
        // Links are not followed: whoever has the folder could have them lead out of it.
        let given = fs::symlink_metadata(&path).and_then(|made| match made.uid() == daemon.uid() {
            true => Ok(()),
            false => lchown(&path, Some(daemon.uid()), Some(daemon.gid())),
        });
        given.with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_makes_is_given_to_the_owner_of_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("file"), "").expect("writes");
        give_to_daemon(dir.path(), &["file"]).expect("nothing to do");
        if lchown(dir.path(), Some(12_345), Some(12_345)).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        give_to_daemon(dir.path(), &["file"]).expect("gives");
        let made = fs::metadata(dir.path().join("file")).expect("stats");
        assert_eq!((made.uid(), made.gid()), (12_345, 12_345));
        assert!(give_to_daemon(dir.path(), &["none"]).is_err());
    }
}
