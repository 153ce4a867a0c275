//! Which master key a data folder is sealed with, written down beside its keys: `keys/master.check`.
//! Another key is found out by it before anything is sealed, also while there is no mailbox and no
//! message that would not open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::keys::MasterKey;
use super::{StoreError, durable};

/// Below the data folder, also where the master key itself is elsewhere.
const FILE: &str = "keys/master.check";

/// The file, which need not be there: an older version wrote none.
pub(super) struct KeyCheck(PathBuf);

impl KeyCheck {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    pub(super) fn is_there(&self) -> Result<bool, StoreError> {
        durable::is_there(&self.0)
    }

    /// Whether the folder's master key is this one, as far as the folder says.
    ///
    /// # Errors
    /// [`StoreError::Key`] if it is another one's.
    pub(super) fn hold_against(&self, master: &MasterKey, key: &Path) -> Result<(), StoreError> {
        match self.read()? {
            Some(known) if known != master.check() => Err(another_key(key)),
            Some(_) | None => Ok(()),
        }
    }

    /// Says whose the folder is, unless it says so already.
    ///
    /// # Errors
    /// [`StoreError::Key`] if it is another one's; those of the file system.
    pub(super) fn write(&self, data_dir: &Path, check: &str, key: &Path) -> Result<(), StoreError> {
        match self.read()? {
            Some(known) if known == check => return Ok(()),
            Some(_) => return Err(another_key(key)),
            None => {}
        }
        if let Some(parent) = self.0.parent() {
            durable::create_dir_below(data_dir, parent)?;
        }
        // Another command may have been faster, and then it has checked its key as well.
        match durable::create_file(&self.0, format!("{check}\n").as_bytes()) {
            Err(StoreError::File { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            made => drop(made?),
        }
        durable::own_like(&self.0, data_dir)
    }

    fn read(&self) -> Result<Option<String>, StoreError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file(&self.0)(error)),
        }
    }
}

/// The file holds a key, and nothing in the data folder opens with it.
pub(super) fn another_key(file: &Path) -> StoreError {
    let file = file.display();
    StoreError::Key(format!(
        "{file} is not the key that this data folder is sealed with: put the right one there"
    ))
}
