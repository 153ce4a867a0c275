//! What the operator sets for the store.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::StoreError;
use super::layout::Layout;

/// Settings of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `data_dir`: everything that lasts is below it.
    pub data_dir: PathBuf,
    /// `store.master_key_file`: 32 bytes in hexadecimal; absent: made in
    /// `data_dir/keys/master.key` on first start.
    pub master_key_file: Option<PathBuf>,
    /// `store.segment_bytes`: a log segment is closed when it has grown past this.
    pub segment_bytes: u64,
    /// `store.housekeeping_interval_s`: how often retention is applied and the log compacted.
    pub housekeeping_interval: Duration,
    /// `store.min_free_bytes`: mail is deferred while less of the disk is free; zero: never.
    pub min_free_bytes: u64,
}

impl Settings {
    /// The defaults for a data folder.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            master_key_file: None,
            segment_bytes: 64 * 1024 * 1024,
            housekeeping_interval: Duration::from_secs(3600),
            min_free_bytes: 256 * 1024 * 1024,
        }
    }

    /// Whether the master key's file holds one, and the one that the data folder is sealed with. A
    /// key that is to be made, or that who asks may not see, is none that is wrong.
    ///
    /// # Errors
    /// A file that is named and cannot be read, or is not 64 hexadecimal digits; another's key.
    pub fn check_key(&self) -> Result<(), StoreError> {
        let layout = Layout(self);
        let checked = layout.makes_key().and_then(|is_made| match is_made {
            true => Ok(()),
            false => {
                layout.check_format()?;
                layout.known_keyring()?.open_all()
            }
        });
        match checked {
            Err(StoreError::File { source, .. })
                if self.master_key_file.is_none()
                    && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            checked => checked,
        }
    }
}
