//! What an administrator's command makes in the data folder is the daemon's, not root's: else the
//! daemon could not open it.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use anyhow::{Context, bail};

use super::output;
use crate::daemon::UNIT_USER as USER;

/// Somebody other than root, for whom root prepares files.
#[derive(Debug)]
pub(super) struct DaemonUser {
    uid: u32,
    gid: u32,
}

impl DaemonUser {
    /// The owner of the data folder; before there is one, the user of that name, or the unit's.
    /// `None` if whoever runs this command runs the daemon as well, as far as can be seen.
    pub(super) fn find(data_dir: &Path, name: Option<&str>) -> anyhow::Result<Option<Self>> {
        let named = uzers::get_user_by_name(name.unwrap_or(USER));
        if let (Some(name), None) = (name, &named) {
            bail!("there is no user {name}");
        }
        let named = named.map(|user| Self { uid: user.uid(), gid: user.primary_group_id() });
        let own = rustix::process::geteuid();
        if !own.is_root() {
            return match named.filter(|named| name.is_some() && named.uid != own.as_raw()) {
                Some(_) => bail!("only root can prepare files for another user"),
                None => Ok(None),
            };
        }
        let owner = fs::metadata(data_dir).map(|it| Self { uid: it.uid(), gid: it.gid() });
        let found = match (owner, named) {
            (Ok(owner), Some(named)) if name.is_some() && owner.uid != named.uid => {
                bail!("{} belongs to another user", data_dir.display());
            }
            (Ok(owner), _) => Some(owner),
            (Err(_), named) => named,
        };
        Ok(found.filter(|found| found.uid != own.as_raw()))
    }

    /// Gives a file or folder away.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid)).with_context(|| path.display().to_string())
    }

    /// Lets the daemon have the group's rights to a file or folder that stays root's.
    pub(super) fn share(&self, path: &Path) -> anyhow::Result<()> {
        lchown(path, None, Some(self.gid)).with_context(|| path.display().to_string())
    }
}

/// Root made files where the unit's user is missing, and only a daemon that is root can read them.
pub(super) fn warn_of_root() {
    if rustix::process::geteuid().is_root() {
        output::note(&format!(
            "warning: this host has no user {USER}, so all that is made here is root's, and only a \
             daemon that runs as root can read it; --user names another user"
        ));
    }
}

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
