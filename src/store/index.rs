//! The index: which mailbox has which messages, and where in the log they stand. SQLite in WAL
//! mode, so that commands read it beside a running daemon. It only repeats what the log says: a
//! lost index is built again from the log.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::StoreError;
use super::entry::{Folder, RecordHead};
use super::mailbox::{MailboxName, NewMailbox};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::id::{MailboxId, TraceId};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS cursor (
        name TEXT PRIMARY KEY, lsn INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS mailbox (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
        organization TEXT NOT NULL, user TEXT NOT NULL, wrapped_key TEXT NOT NULL,
        used_bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (organization, user)
    );
    CREATE TABLE IF NOT EXISTS message (
        mailbox INTEGER NOT NULL, folder INTEGER NOT NULL, lsn INTEGER NOT NULL,
        blob INTEGER NOT NULL, mail INTEGER NOT NULL,
        id TEXT NOT NULL, size INTEGER NOT NULL, received_at INTEGER NOT NULL,
        PRIMARY KEY (mailbox, folder, lsn, blob, mail)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS queue (
        lsn INTEGER NOT NULL, blob INTEGER NOT NULL, mail INTEGER NOT NULL,
        id TEXT NOT NULL, PRIMARY KEY (lsn, blob, mail)
    ) WITHOUT ROWID;
";
/// Raised with every change of the schema; an index of another version is built again.
const VERSION: i64 = 1;

/// How far something has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cursor {
    /// All records before this are in the index.
    Indexed,
    /// The events of all records before this are on disk in the event files.
    EventsSynced,
}

impl Cursor {
    fn name(self) -> &'static str {
        match self {
            Self::Indexed => "indexed",
            Self::EventsSynced => "events-synced",
        }
    }
}

/// A message as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexedMessage {
    pub(super) mailbox: MailboxId,
    pub(super) folder: Folder,
    pub(super) lsn: Lsn,
    pub(super) blob: usize,
    pub(super) mail: usize,
    pub(super) id: TraceId,
    pub(super) size: u64,
    pub(super) received_at: Timestamp,
}

/// The messages that a record puts into mailboxes.
pub(super) fn messages_of(lsn: Lsn, head: &RecordHead) -> Vec<IndexedMessage> {
    let mut messages = Vec::new();
    for (blob, sealed) in head.blobs.iter().enumerate() {
        for (mail, sealed) in sealed.mails.iter().enumerate() {
            for delivery in &sealed.deliveries {
                messages.push(IndexedMessage {
                    mailbox: delivery.mailbox,
                    folder: delivery.folder,
                    lsn,
                    blob,
                    mail,
                    id: sealed.id,
                    size: sealed.size,
                    received_at: sealed.received_at,
                });
            }
        }
    }
    messages
}

/// The index's connection.
#[derive(Debug)]
pub(super) struct Index(Connection);

impl Index {
    /// Opens the index for writing, making it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        // Off the path of the 250: what a power loss takes from the index, the log gives back.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;",
        )?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            connection.execute_batch(
                "DROP TABLE IF EXISTS cursor; DROP TABLE IF EXISTS mailbox;
                 DROP TABLE IF EXISTS message; DROP TABLE IF EXISTS queue;",
            )?;
        }
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(Self(connection))
    }

    /// Opens an existing index for reading, beside a daemon that may be writing it.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; BEGIN;")?;
        Ok(Self(connection))
    }

    pub(super) fn cursor(&self, cursor: Cursor) -> Result<Lsn, StoreError> {
        let lsn: Option<i64> = self
            .0
            .query_row("SELECT lsn FROM cursor WHERE name = ?1", [cursor.name()], |row| row.get(0))
            .optional()?;
        Ok(Lsn(lsn.unwrap_or(0).cast_unsigned()))
    }

    /// Applies records in one transaction, and moves the cursor past them. Records that are in
    /// the index already change nothing.
    pub(super) fn apply<'a>(
        &mut self,
        records: impl Iterator<Item = (Lsn, &'a RecordHead)>,
        next: Lsn,
    ) -> Result<(), StoreError> {
        let transaction = self.0.transaction()?;
        for (lsn, head) in records {
            apply_record(&transaction, lsn, head)?;
        }
        set_cursor(&transaction, Cursor::Indexed, next)?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn set_cursor(&mut self, cursor: Cursor, lsn: Lsn) -> Result<(), StoreError> {
        let transaction = self.0.transaction()?;
        set_cursor(&transaction, cursor, lsn)?;
        transaction.commit()?;
        Ok(())
    }

    /// All mailboxes with their used octets.
    pub(super) fn mailboxes(&self) -> Result<Vec<(NewMailbox, u64)>, StoreError> {
        let mut statement = self
            .0
            .prepare("SELECT id, organization, user, wrapped_key, used_bytes FROM mailbox")?;
        let rows = statement.query_map([], |row| {
            let id: String = row.get(0)?;
            let (organization, user): (String, String) = (row.get(1)?, row.get(2)?);
            let used: i64 = row.get(4)?;
            Ok((
                id,
                MailboxName { organization: organization.into(), user: user.into() },
                row.get::<_, String>(3)?,
                used,
            ))
        })?;
        let mut mailboxes = Vec::new();
        for row in rows {
            let (id, name, wrapped_key, used) = row?;
            let id = id.parse().map_err(|_| unreadable("mailbox id"))?;
            mailboxes.push((NewMailbox { id, name, wrapped_key }, used.cast_unsigned()));
        }
        Ok(mailboxes)
    }

    /// The messages of a mailbox, oldest first within each folder.
    pub(super) fn messages(&self, mailbox: MailboxId) -> Result<Vec<IndexedMessage>, StoreError> {
        let mut statement = self.0.prepare(
            "SELECT folder, lsn, blob, mail, message.id, size, received_at
             FROM message JOIN mailbox ON mailbox.number = message.mailbox
             WHERE mailbox.id = ?1 ORDER BY folder, lsn, blob, mail",
        )?;
        let mut rows = statement.query([mailbox.to_string()])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let folder: usize = row.get(0)?;
            let id: String = row.get(4)?;
            messages.push(IndexedMessage {
                mailbox,
                folder: *Folder::ALL.get(folder).ok_or_else(|| unreadable("folder"))?,
                lsn: Lsn(row.get::<_, i64>(1)?.cast_unsigned()),
                blob: row.get(2)?,
                mail: row.get(3)?,
                id: id.parse().map_err(|_| unreadable("message id"))?,
                size: row.get::<_, i64>(5)?.cast_unsigned(),
                received_at: Timestamp::from_millis(row.get::<_, i64>(6)?.cast_unsigned()),
            });
        }
        Ok(messages)
    }
}

fn unreadable(what: &str) -> StoreError {
    StoreError::NotFound(format!("the index has an unreadable {what}; delete it to build it again"))
}

fn set_cursor(transaction: &Transaction<'_>, cursor: Cursor, lsn: Lsn) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT INTO cursor (name, lsn) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET lsn = excluded.lsn",
        )?
        .execute(params![cursor.name(), lsn.0.cast_signed()])?;
    Ok(())
}

fn apply_record(
    transaction: &Transaction<'_>,
    lsn: Lsn,
    head: &RecordHead,
) -> Result<(), StoreError> {
    for birth in &head.new_mailboxes {
        transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO mailbox (id, organization, user, wrapped_key)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                birth.id.to_string(),
                &*birth.name.organization,
                &*birth.name.user,
                birth.wrapped_key
            ])?;
    }
    for message in messages_of(lsn, head) {
        insert_message(transaction, &message)?;
    }
    for (blob, sealed) in head.blobs.iter().enumerate() {
        for (mail, sealed) in sealed.mails.iter().enumerate().filter(|(_, m)| m.queued.is_some()) {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO queue VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![lsn.0.cast_signed(), blob, mail, sealed.id.to_string()])?;
        }
    }
    Ok(())
}

fn insert_message(
    transaction: &Transaction<'_>,
    message: &IndexedMessage,
) -> Result<(), StoreError> {
    let mailbox: i64 = transaction
        .prepare_cached("SELECT number FROM mailbox WHERE id = ?1")?
        .query_row([message.mailbox.to_string()], |row| row.get(0))?;
    let size = message.size.cast_signed();
    let inserted = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO message
             (mailbox, folder, lsn, blob, mail, id, size, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            mailbox,
            message.folder as usize,
            message.lsn.0.cast_signed(),
            message.blob,
            message.mail,
            message.id.to_string(),
            size,
            message.received_at.as_millis().cast_signed()
        ])?;
    if inserted > 0 {
        transaction
            .prepare_cached("UPDATE mailbox SET used_bytes = used_bytes + ?2 WHERE number = ?1")?
            .execute(params![mailbox, size])?;
    }
    Ok(())
}
