//! Where things are below the data folder, and who has it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::key_check::KeyCheck;
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

    /// Beside the domain keys, also where the master key itself is elsewhere.
    pub(super) fn key_check(&self) -> KeyCheck {
        KeyCheck::of(&self.0.data_dir)
    }

    /// Whether a master key is to be made: unless its file is named, for a data folder that has
    /// nothing under a key yet.
    pub(super) fn makes_key(&self) -> Result<bool, StoreError> {
        Ok(self.0.master_key_file.is_none()
            && !durable::is_there(&self.master_key())?
            && !durable::is_there(&self.log())?
            && !durable::is_there(&self.index())?
            && !self.key_check().is_there()?)
    }

    /// The master key, which is made where it has to be.
    pub(super) fn keyring(&self) -> Result<Keyring, StoreError> {
        if self.makes_key()? {
            Keyring::create_if_absent(&self.0.data_dir, &self.master_key())?;
        }
        self.known_keyring()
    }

    /// The master key that is there. One under which nothing was sealed here is refused, whether
    /// the data folder has much, little or nothing yet that would not open with it.
    pub(super) fn known_keyring(&self) -> Result<Keyring, StoreError> {
        let keyring = Keyring::load(&self.master_key())?;
        self.key_check().hold_against(&keyring, &self.master_key())?;
        Ok(keyring)
    }

    /// From now on the data folder is this key's alone.
    pub(super) fn bind_to(&self, keyring: &Keyring) -> Result<(), StoreError> {
        self.bind_to_check(&keyring.check())
    }

    /// The same for a key that need not be there yet, by what tells it from others.
    pub(super) fn bind_to_check(&self, check: &str) -> Result<(), StoreError> {
        self.key_check().write(&self.0.data_dir, check, &self.master_key())
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
