//! Where things are below the data folder, and who has it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::key_check::{KeyCheck, another_key};
use super::keyring::{Access, KEYS, Keyring, organization_files};
use super::keys::MasterKey;
use super::mac::LogKey;
use super::segment::{Catalog, Chain};
use super::{Settings, StoreError, compact, durable};

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
        let default = || self.0.data_dir.join(KEYS).join("master.key");
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
            && !self.key_check().is_there()?
            && organization_files(&self.0.data_dir)?.is_empty())
    }

    /// Whether this version knows all that may stand in the log, and its files are one log. Asked before
    /// anything else is: what another version has written is left as it is.
    ///
    /// # Errors
    /// [`StoreError::OtherFormat`], [`StoreError::LaterKind`]; a file that is none of this log.
    pub(super) fn check_format(&self) -> Result<Chain, StoreError> {
        if !durable::is_there(&self.log())? {
            return Ok(Chain::default());
        }
        let _log_stays = compact::keep_files(&self.log());
        Catalog::read(&self.log())?.chain()
    }

    /// All keys of the folder, for whoever has its lock; the master key is made where it has to be.
    pub(super) fn keyring(&self) -> Result<Keyring, StoreError> {
        Ok(self.keyring_of(self.master()?, Access::Writes))
    }

    /// All keys that are there, to open what is sealed under them.
    pub(super) fn known_keyring(&self) -> Result<Keyring, StoreError> {
        Ok(self.keyring_of(self.known_master()?, Access::Reads))
    }

    fn keyring_of(&self, master: MasterKey, access: Access) -> Keyring {
        Keyring::new(master, self.master_key(), self.0.data_dir.clone(), access)
    }

    /// The master key, which is made where it has to be.
    pub(super) fn master(&self) -> Result<MasterKey, StoreError> {
        if self.makes_key()? {
            MasterKey::create_if_absent(&self.0.data_dir, &self.master_key())?;
        }
        self.known_master()
    }

    /// The master key that is there. One under which nothing was sealed here is refused, whether
    /// the data folder has much, little or nothing yet that would not open with it.
    pub(super) fn known_master(&self) -> Result<MasterKey, StoreError> {
        let master = MasterKey::load(&self.master_key())?;
        self.key_check().hold_against(&master, &self.master_key())?;
        Ok(master)
    }

    /// The key of the log's MACs, with which the headers of all its files must have been written.
    ///
    /// # Errors
    /// [`StoreError::Key`] if it is another folder's; [`StoreError::Tampered`].
    pub(super) fn log_key(&self, master: &MasterKey, chain: &Chain) -> Result<LogKey, StoreError> {
        let key = master.log();
        if !chain.is_under(&key) && !self.key_check().is_there()? {
            return Err(another_key(&self.master_key()));
        }
        chain.check(&key)?;
        Ok(key)
    }

    /// From now on the data folder is this key's alone.
    pub(super) fn bind_to(&self, master: &MasterKey) -> Result<(), StoreError> {
        self.bind_to_check(&master.check())
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
