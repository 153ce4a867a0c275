//! Where mail lasts: an append-only log that is the truth, and an index that can be rebuilt
//! from it.
//!
//! [`Store::commit`] takes everything that one message changes, and returns when all of it is on
//! disk or none of it is. [`reader::Reader`] reads mailboxes, also beside a running daemon.
//! Everything that blocks stays inside this room, on threads of its own.

mod backlog;
pub mod backup;
mod codec;
mod committer;
mod compact;
mod company;
mod credentials;
pub mod disk;
mod domain_keys;
mod door;
mod durable;
mod entry;
mod evidence;
pub mod fsck;
mod header;
mod index;
mod indexer;
mod keeper;
mod key_check;
mod keyring;
mod keys;
mod layout;
mod line;
mod log;
mod mac;
mod mailbox;
mod memo;
mod pack;
mod queued;
pub mod reader;
mod recovery;
mod register;
mod reserve;
mod segment;
mod settings;
mod slots;
mod stated;
mod threads;
mod usage;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use backlog::{Claimant, QueueBound, QueueBounds, QueueClaim, QueueFull, QueueHold};
pub use company::Coming;
pub use credentials::{
    CREDENTIALS_FILE, CredentialCounts, CredentialStore, NewToken, Token, UserCredentials,
};
pub use domain_keys::{DomainKeyFile, DomainKeyFolder, DomainKeyName, domain_key_files};
pub use door::Store;
pub use durable::{create_file, is_there, link_new};
pub use entry::{Blob, Commit, Delivery, Folder, Mail, Story, StoryKind};
pub use keeper::{FolderRetention, RetentionAction};
pub use mailbox::{MailboxHandle, MailboxOwner, Reservation};
pub use memo::Memo;
pub use queued::{
    Authorship, Destination, Keeper, Purpose, QueueChange, QueueEntry, QueueFeed, QueueId,
    QueueState, QueuedContent, QueuedMail, Settled, SettledOutcome,
};
pub use register::{Declared, DeclaredEntity, Fact, Register, Registered};
pub use reserve::{CountAsk, Reserved, RoomAsk};
pub use settings::Settings;
pub use stated::{By, FACT_FORMAT, Said, Stated};
pub use usage::{UsageExceeded, UsageHold, UsageLimits, Written};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read, written or synced: disk full, permissions, a broken device.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has the data folder.
    #[error("{0} is in use by another mailweir")]
    Locked(PathBuf),
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// Another version has written the log.
    #[error(
        "{path} is of log format {format}, which {writer}; this one, {version}, reads format 4: put that \
         program back, or move the data folder away", version = env!("CARGO_PKG_VERSION")
    )]
    OtherFormat {
        /// Which file.
        path: PathBuf,
        /// The number of its format.
        format: char,
        /// Who has written it.
        writer: String,
    },
    /// Another version has made the backup.
    #[error(
        "{path} is of a backup of format {made}, which another version of mailweir has made; this one, \
         {version}, reads format {read}", version = env!("CARGO_PKG_VERSION")
    )]
    OtherBackup {
        /// Its manifest.
        path: PathBuf,
        /// The number of its format.
        made: u32,
        /// The number that this version reads.
        read: u32,
    },
    /// A file of the log may hold what this version does not know.
    #[error(
        "{path} may hold {what}, which this mailweir, {version}, does not know: mailweir {writer} has \
         written it, so put that program back or restore a backup from before it",
        version = env!("CARGO_PKG_VERSION")
    )]
    LaterKind {
        /// Which file.
        path: PathBuf,
        /// What it may hold.
        what: String,
        /// The version of the program that wrote it.
        writer: String,
    },
    /// A record has something in it that this version does not know.
    #[error(
        "{path} has a record at byte {offset} that this version of mailweir, {version}, does not know: \
         {problem}; another version has written it", version = env!("CARGO_PKG_VERSION")
    )]
    UnknownRecord {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is not known.
        problem: String,
    },
    /// Somebody without the master key has written it.
    #[error(
        "{path} was altered at byte {offset}: {problem}; put the file back as it was, or restore a backup"
    )]
    Tampered {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is not as it was.
        problem: String,
    },
    /// A file of a backup is not what was written, and nothing says where in it.
    #[error("{path} is not what the manifest says: {problem}")]
    Altered {
        /// Which file.
        path: PathBuf,
        /// What is another.
        problem: String,
    },
    /// A sync failed earlier; nothing more is taken until a restart has looked at the log.
    #[error("an earlier sync failed, the store takes nothing until it is restarted")]
    Poisoned,
    /// There is something where something is to be written.
    #[error("{0} is there already, and is not empty")]
    InTheWay(PathBuf),
    /// A backup would be part of what it is a copy of.
    #[error("{copy} lies inside the data folder {data_dir}, where a backup cannot be")]
    InsideDataFolder {
        /// Where it was to be written.
        copy: PathBuf,
        /// The data folder.
        data_dir: PathBuf,
    },
    /// What went wrong with all records that were to be written together.
    #[error("{0}")]
    Batch(Arc<StoreError>),
    /// The index cannot keep up, or cannot write.
    #[error("the index is too far behind the log")]
    IndexBehind,
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
    /// SQLite's word.
    #[error("the index: {0}")]
    Index(#[from] rusqlite::Error),
    /// SQLite's word about passwords and tokens.
    #[error("{path}: {source}")]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rusqlite::Error,
    },
    /// A key file that cannot be used, or content that a key does not open.
    #[error("{0}")]
    Key(String),
    /// There is no such mailbox or message.
    #[error("{0}")]
    NotFound(String),
}

impl StoreError {
    /// Whether the disk has no room, whoever found that.
    pub(crate) fn is_out_of_space(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Index(source) | Self::Credentials { source, .. } => durable::has_no_room(source),
            Self::Batch(error) => error.is_out_of_space(),
            _ => false,
        }
    }

    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

fn tampered(path: &Path, offset: u64, problem: &str) -> StoreError {
    StoreError::Tampered { path: path.into(), offset, problem: problem.into() }
}

fn damaged(path: &Path, offset: u64, problem: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), offset, problem: problem.into() }
}
