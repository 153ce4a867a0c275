//! Whether the daemon may read a file or write into a folder, also if root asks and the daemon runs
//! as somebody else: as the owner of the data folder, which is who the daemon is.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access as Wanted;
use uzers::{get_user_by_uid, get_user_groups};

use crate::files::open_regular;

const ROOT: u32 = 0;
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

/// With whose rights files are looked at.
#[derive(Debug)]
pub(super) enum Access {
    /// Whoever runs this command runs the daemon.
    Mine,
    /// Root asks, and the daemon is another user.
    Of(User),
}

/// A user, as the rights of files know one.
#[derive(Debug)]
pub(super) struct User {
    name: String,
    uid: u32,
    gids: Vec<u32>,
}

/// What came of looking at a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It can be read, as far as rights tell.
    Allowed,
    /// It is not there, or nobody can say.
    Unknown,
    /// It may not, for this reason.
    Denied(String),
}

impl Access {
    /// With the rights of the daemon whose data folder this is.
    pub(super) fn of_daemon(data_dir: &Path) -> Self {
        let owner = fs::metadata(data_dir).map(|metadata| metadata.uid());
        match owner {
            Ok(uid) if uid != ROOT && rustix::process::geteuid().is_root() => {
                Self::Of(User::of(uid))
            }
            _ => Self::Mine,
        }
    }

    /// Whether a file can be read.
    pub(super) fn read(&self, file: &Path) -> Reading {
        let denied = match self {
            Self::Mine => match open_regular(file) {
                Ok(_) => return Reading::Allowed,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => error.to_string(),
                Err(_) => return Reading::Unknown,
            },
            Self::Of(user) => match user.path_to(file, READ) {
                Some(Ok(())) => return Reading::Allowed,
                Some(Err(why)) => why,
                None => return Reading::Unknown,
            },
        };
        Reading::Denied(denied)
    }

    /// Whether something can be made in a folder that is there.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn write_in(&self, folder: &Path) -> Result<(), String> {
        match self {
            Self::Mine => rustix::fs::access(folder, Wanted::WRITE_OK | Wanted::EXEC_OK)
                .map_err(|error| std::io::Error::from(error).to_string()),
            Self::Of(user) => user.path_to(folder, WRITE | ENTER).unwrap_or(Ok(())),
        }
    }
}

impl User {
    fn of(uid: u32) -> Self {
        let Some(user) = get_user_by_uid(uid) else {
            return Self { name: format!("user {uid}"), uid, gids: Vec::new() };
        };
        let mut gids = vec![user.primary_group_id()];
        let others = get_user_groups(user.name(), user.primary_group_id()).unwrap_or_default();
        gids.extend(others.iter().map(uzers::Group::gid));
        Self { name: user.name().to_string_lossy().into_owned(), uid, gids }
    }

    /// Whether the rights of a file and of every folder above it let this user at it; `None` if
    /// one of them is not there.
    fn path_to(&self, path: &Path, wanted: u32) -> Option<Result<(), String>> {
        let whole = fs::canonicalize(path).ok()?;
        for (depth, part) in whole.ancestors().enumerate() {
            let metadata = fs::metadata(part).ok()?;
            let needed = if depth == 0 { wanted } else { ENTER };
            let mode = metadata.mode();
            let granted = if metadata.uid() == self.uid {
                mode >> 6
            } else if self.gids.contains(&metadata.gid()) {
                mode >> 3
            } else {
                mode
            };
            if granted & needed != needed {
                let shown = part.display();
                return Some(Err(format!(
                    "{} has no right to {shown} (mode {:04o})",
                    self.name,
                    mode & 0o7777
                )));
            }
        }
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
    }

    /// Somebody who owns nothing here.
    fn stranger(gids: Vec<u32>) -> User {
        User { name: "mailweir".into(), uid: 65_533, gids }
    }

    #[test]
    fn a_file_is_read_by_owner_group_or_all_and_only_through_folders_that_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("keys");
        let file = folder.join("master.key");
        fs::create_dir(&folder).expect("makes");
        fs::write(&file, "key").expect("writes");
        with_mode(dir.path(), 0o755);
        let metadata = fs::metadata(&file).expect("is there");
        let owner = User { name: "owner".into(), uid: metadata.uid(), gids: Vec::new() };
        let group = stranger(vec![metadata.gid()]);
        for (folder_mode, file_mode, by_owner, by_group, by_others) in [
            (0o755, 0o600, true, false, false),
            (0o755, 0o640, true, true, false),
            (0o755, 0o644, true, true, true),
            (0o750, 0o644, true, true, false),
            (0o700, 0o644, true, false, false),
            (0o755, 0o044, false, true, true),
        ] {
            with_mode(&folder, folder_mode);
            with_mode(&file, file_mode);
            let read = |user: &User| user.path_to(&file, READ).expect("is there").is_ok();
            let found = (read(&owner), read(&group), read(&stranger(Vec::new())));
            let expected = (by_owner, by_group, by_others);
            assert_eq!(found, expected, "{folder_mode:o} {file_mode:o}");
        }
        with_mode(&folder, 0o755);
        assert!(stranger(Vec::new()).path_to(&folder, WRITE | ENTER).expect("is there").is_err());
        assert_eq!(stranger(Vec::new()).path_to(&dir.path().join("none"), READ), None);
    }

    #[test]
    fn who_runs_the_command_looks_for_themselves() {
        let dir = tempfile::tempdir().expect("a folder");
        let access = Access::of_daemon(&dir.path().join("not made yet"));
        assert!(matches!(access, Access::Mine));
        assert_eq!(access.read(&dir.path().join("none")), Reading::Unknown);
        assert_eq!(access.write_in(dir.path()), Ok(()));
    }
}
