//! Files that an administrator names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whom a file with a secret is not for, by the bits of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Whoever is neither its owner nor in its group. The group may be how the daemon reads a file
    /// of root's.
    Everybody = 0o007,
    /// All but its owner.
    GroupAndEverybody = 0o077,
}

/// What is wrong with the mode of a file or folder that others have rights to, and the command that
/// mends it.
pub fn rights_of_others(path: &Path, mode: u32, others: Others) -> Option<String> {
    if mode & others as u32 == 0 {
        return None;
    }
    let (who, change) = match others {
        Others::Everybody => ("everybody on this machine has", "o="),
        Others::GroupAndEverybody => ("others than its owner have", "go="),
    };
    let shown = path.display();
    let mode = mode & 0o7777;
    Some(format!(
        "{who} rights to {shown} (mode {mode:04o}): chmod {change} {shown} takes them away"
    ))
}

/// The same of a file with a secret, wherever it is: whether everybody on this machine can read or
/// write it. One behind a folder that keeps them out is as good as closed, as an ACME client's keys
/// are.
pub fn open_to_everybody(path: &Path) -> Option<String> {
    const READ_OR_WRITE: u32 = 0o006;
    const ENTER: u32 = 0o001;
    // One that is not there, or not to be found by who asks, is told by who opens it.
    let whole = fs::canonicalize(path).ok()?;
    let mode = fs::metadata(&whole).ok()?.mode();
    if mode & READ_OR_WRITE == 0 {
        return None;
    }
    for folder in whole.ancestors().skip(1) {
        if fs::metadata(folder).ok()?.mode() & ENTER == 0 {
            return None;
        }
    }
    rights_of_others(path, mode, Others::Everybody)
}

/// Opens a file to read it, and never a device, pipe or socket: opening or reading one might not end.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a device, pipe or socket, not a file",
        ));
    }
    File::open(path)
}

/// The octets of such a file.
///
/// # Errors
/// Those of [`open_regular`].
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    open_regular(path)?.read_to_end(&mut octets)?;
    Ok(octets)
}

/// The text of such a file.
///
/// # Errors
/// Those of [`open_regular`]; [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub fn read_regular_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_regular(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_open_where_everybody_gets_at_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("keys");
        let file = folder.join("key.pem");
        let link = dir.path().join("link.pem");
        fs::create_dir(&folder).expect("makes");
        fs::write(&file, "key").expect("writes");
        std::os::unix::fs::symlink(&file, &link).expect("links");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changes");
        };
        set(dir.path(), 0o755);
        for (folder_mode, file_mode, is_open) in [
            (0o755, 0o644, true),
            (0o711, 0o604, true),
            (0o755, 0o602, true),
            (0o755, 0o640, false),
            (0o755, 0o600, false),
            (0o755, 0o601, false),
            (0o750, 0o644, false),
            (0o700, 0o666, false),
        ] {
            set(&folder, folder_mode);
            set(&file, file_mode);
            for path in [&file, &link] {
                let expected = is_open.then(|| {
                    let shown = path.display();
                    format!(
                        "everybody on this machine has rights to {shown} (mode {file_mode:04o}): \
                         chmod o= {shown} takes them away"
                    )
                });
                assert_eq!(open_to_everybody(path), expected, "{folder_mode:o} {file_mode:o}");
            }
        }
        assert_eq!(open_to_everybody(&folder.join("none")), None);
    }
}
