//! Where things are below the data folder, and who has it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::keys::Keyring;
use super::{Settings, StoreError, durable};

/// Keys of mail domains, below the data folder.
pub(super) const DOMAIN_KEYS: &str = "keys/dkim";

/// Where things are below the data folder.
pub(super) struct Layout<'a>(pub(super) &'a Settings);

impl Layout<'_> {
    pub(super) fn log(&self) -> PathBuf {
        self.0.data_dir.join("log")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.0.data_dir.join("index.sqlite")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.0.data_dir.join("events")
    }

    pub(super) fn master_key(&self) -> PathBuf {
        let default = || self.0.data_dir.join("keys").join("master.key");
        self.0.master_key_file.clone().unwrap_or_else(default)
    }

    pub(super) fn domain_keys(&self) -> PathBuf {
        self.0.data_dir.join(DOMAIN_KEYS)
    }

    /// The master key; a data folder that has no mail yet gets one, unless its file is named.
    pub(super) fn keyring(&self) -> Result<Keyring, StoreError> {
        let is_new = !durable::is_there(&self.log())? && !durable::is_there(&self.index())?;
        if self.0.master_key_file.is_none() && is_new {
            Keyring::create_if_absent(&self.0.data_dir, &self.master_key())?;
        }
        Keyring::load(&self.master_key())
    }
}

/// Takes a data folder, for as long as the file stays open.
pub(super) fn lock_folder(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let file = durable::open_lock(&path).map_err(StoreError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(data_dir.into())),
        Err(TryLockError::Error(error)) => Err(StoreError::file(path)(error)),
    }
}
