//! The only file of the crate that creates lasting files, syncs and truncates them.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::StoreError;

/// Makes a folder that only its owner may enter, durably.
pub(super) fn create_dir(path: &Path) -> Result<(), StoreError> {
    let missing: Vec<_> = path.ancestors().take_while(|part| is_missing(part)).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::file(path))?;
    missing.into_iter().try_for_each(sync_parent)
}

fn is_missing(path: &Path) -> bool {
    !path.as_os_str().is_empty() && !path.exists()
}

/// Creates a file that must not exist, for its owner alone, with its content, so that both are on
/// disk on return.
///
/// # Errors
/// Those of the file system; then there is no such file.
pub fn create_file(path: &Path, content: &[u8]) -> Result<File, StoreError> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::file(path))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written.map_err(StoreError::file(path)).and_then(|()| sync_parent(path)) {
        // Half a file must not stand in the way of the next attempt. If it cannot be removed
        // either, that attempt says so.
        drop(fs::remove_file(path));
        return Err(error);
    }
    Ok(file)
}

/// Makes a folder below `parent`, durably, with the owner of `parent`.
pub(super) fn create_dir_below(parent: &Path, path: &Path) -> Result<(), StoreError> {
    create_dir(parent)?;
    let missing: Vec<_> = path.ancestors().take_while(|part| is_missing(part)).collect();
    create_dir(path)?;
    missing.into_iter().try_for_each(|made| own_like(made, parent))
}

/// Gives a new file or folder the owner that `like` has, so that the daemon can use what root's
/// command made.
pub(super) fn own_like(path: &Path, like: &Path) -> Result<(), StoreError> {
    let owner = |path: &Path| fs::metadata(path).map_err(StoreError::file(path));
    let wanted = owner(like)?;
    let made = owner(path)?;
    // Its group has no rights to it, so it does not matter; and a user cannot give a file to a
    // group of others.
    if wanted.uid() == made.uid() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(wanted.uid()), Some(wanted.gid()))
        .map_err(StoreError::file(path))
}

/// Gives a synced file its name, in place of what had it, durably.
#[expect(clippy::disallowed_methods, reason = "the one place where lasting files are renamed")]
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::file(from))?;
    sync_parent(to)
}

/// Gives a synced file a further name, durably; nothing may have it.
///
/// # Errors
/// Those of the file system.
pub fn link_new(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::hard_link(from, to).map_err(StoreError::file(to))?;
    sync_parent(to)
}

/// Removes a file, unless it is gone already.
pub(super) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::file(path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether SQLite found no room on the disk. Its index of a write-ahead log is a file too, also for
/// who only reads.
pub(super) fn has_no_room(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    error.sqlite_error().is_some_and(|error| {
        matches!(
            error.extended_code,
            ffi::SQLITE_FULL
                | ffi::SQLITE_IOERR_SHMSIZE
                | ffi::SQLITE_IOERR_SHMOPEN
                | ffi::SQLITE_IOERR_SHMMAP
                | ffi::SQLITE_IOERR_WRITE
        )
    })
}

/// Removes what an interrupted write left in a folder under a name that is nobody's (`*.new`), if
/// there is such a folder. Nobody may be writing there.
pub(super) fn remove_unfinished(dir: &Path) -> Result<(), StoreError> {
    if !is_there(dir)? {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(StoreError::file(dir))? {
        let path = entry.map_err(StoreError::file(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Makes a file's name in its folder durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let named = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = named.unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(StoreError::file(parent))
}

/// Makes what was written to a file durable.
pub(super) fn sync(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(StoreError::file(path))
}

/// Makes what was written to a file durable, if there is such a file.
pub(super) fn sync_if_there(path: &Path) -> Result<(), StoreError> {
    match File::open(path).and_then(|file| file.sync_data()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::file(path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens a file to be locked; reading is enough for that. One that root's command makes is for the
/// owner of the folder that it is in, because else the daemon could not open it.
pub(super) fn open_lock(path: &Path) -> std::io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    // Where there is a link, nothing is made and nothing given away.
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(made) => {
            let dir = path.parent().map(fs::metadata).transpose()?;
            // Only root can give a file away; whoever else makes it has it.
            if let Some(dir) = dir.filter(|_| rustix::process::geteuid().is_root()) {
                std::os::unix::fs::fchown(&made, Some(dir.uid()), Some(dir.gid()))?;
            }
            Ok(made)
        }
        // Another process was first.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => File::open(path),
        Err(error) => Err(error),
    }
}

/// Whether there is such a file. That nobody may tell is an error, not a no.
///
/// # Errors
/// Those of the file system.
pub fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::file(path))
}

/// Writes octets at a place of an existing file, which may be its end, and makes them durable.
pub(super) fn write_at(path: &Path, at: u64, octets: &[u8]) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).open(path).map_err(StoreError::file(path))?;
    let written = file.write_all_at(octets, at).and_then(|()| file.sync_data());
    written.map_err(StoreError::file(path))
}

/// Opens an existing file for reading and appending.
pub(super) fn open_append(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().read(true).append(true).open(path).map_err(StoreError::file(path))
}

/// Appends all the slices, in as few calls as the system takes.
pub(super) fn append(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
