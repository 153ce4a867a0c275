//! The index: which mailbox has which messages, and where in the log they stand. SQLite in WAL
//! mode, so that commands read it beside a running daemon. It only repeats what the log says: a
//! lost index is built again from the log.

mod queue;
mod register;
mod stated;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Rows, Transaction, params};

use super::StoreError;
use super::entry::{Change, Folder, MessageRef, RecordHead};
use super::mailbox::{MailboxOwner, NewMailbox};
use super::queued::QueueId;
use super::slots::Slot;
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::id::{MailboxId, TraceId};

pub(super) use queue::queued_of;
use queue::{apply_queue_change, count, gone_entries, insert_queued, queue_ids};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS cursor (
        name TEXT PRIMARY KEY, lsn INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS mailbox (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
        organization TEXT NOT NULL, entity TEXT NOT NULL, slot INTEGER NOT NULL,
        used_bytes INTEGER NOT NULL DEFAULT 0,
        erasing_at INTEGER, is_erased INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX IF NOT EXISTS mailbox_of ON mailbox (organization, entity)
        WHERE erasing_at IS NULL;
    CREATE TABLE IF NOT EXISTS organization (
        id TEXT PRIMARY KEY, alias TEXT NOT NULL, at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS entity (
        organization TEXT NOT NULL, id TEXT NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL,
        at INTEGER NOT NULL, gone_at INTEGER,
        PRIMARY KEY (organization, id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stated (
        lsn INTEGER PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, command TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS said (
        organization TEXT NOT NULL, about TEXT NOT NULL, lsn INTEGER NOT NULL,
        number INTEGER NOT NULL, format INTEGER NOT NULL, fact TEXT NOT NULL,
        PRIMARY KEY (organization, about, lsn)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS message (
        mailbox INTEGER NOT NULL, folder INTEGER NOT NULL, lsn INTEGER NOT NULL,
        blob INTEGER NOT NULL, mail INTEGER NOT NULL,
        id TEXT NOT NULL, size INTEGER NOT NULL, received_at INTEGER NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (mailbox, folder, lsn, blob, mail)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS change (
        lsn INTEGER NOT NULL, blob INTEGER NOT NULL, mail INTEGER NOT NULL,
        mailbox INTEGER NOT NULL, at INTEGER NOT NULL, folder INTEGER, size INTEGER NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (lsn, blob, mail, mailbox)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS queue (
        lsn INTEGER NOT NULL, blob INTEGER NOT NULL, mail INTEGER NOT NULL, entry INTEGER NOT NULL,
        trace_id TEXT NOT NULL, queued_at INTEGER NOT NULL, size INTEGER NOT NULL,
        told TEXT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (lsn, blob, mail, entry)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS usage (
        day INTEGER NOT NULL, organization TEXT NOT NULL, entity TEXT NOT NULL,
        recipients INTEGER NOT NULL, inside INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, organization, entity)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS gone (
        lsn INTEGER NOT NULL, blob INTEGER NOT NULL, mail INTEGER NOT NULL, entry INTEGER NOT NULL,
        at INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (lsn, blob, mail, entry)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS listed (
        trace_id TEXT NOT NULL, lsn INTEGER NOT NULL,
        PRIMARY KEY (trace_id, lsn)
    ) WITHOUT ROWID;
";
/// Raised with every change of the schema; an index of another version is built again.
const VERSION: i64 = 6;

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
    pub(super) at: MessageRef,
    pub(super) folder: Folder,
    pub(super) id: TraceId,
    pub(super) size: u64,
    pub(super) received_at: Timestamp,
    /// When it came into its folder.
    pub(super) since: Timestamp,
}

/// A message of the index as it stands there, for comparing two.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    /// Mailbox, folder, position, content and mail.
    place: (String, i64, i64, i64, i64),
    id: String,
    size: i64,
    since: i64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of mailbox {}", self.id, self.place.0)
    }
}

/// The messages that a record puts into mailboxes.
pub(super) fn messages_of(lsn: Lsn, head: &RecordHead) -> Vec<IndexedMessage> {
    let mut messages = Vec::new();
    for (blob, sealed) in head.blobs.iter().enumerate() {
        for (mail, sealed) in sealed.mails.iter().enumerate() {
            for delivery in &sealed.deliveries {
                messages.push(IndexedMessage {
                    at: MessageRef { lsn, blob, mail, mailbox: delivery.mailbox },
                    folder: delivery.folder,
                    id: sealed.id,
                    size: sealed.size,
                    received_at: sealed.received_at,
                    since: delivery.since.unwrap_or(sealed.received_at),
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
                 DROP TABLE IF EXISTS message; DROP TABLE IF EXISTS queue;
                 DROP TABLE IF EXISTS change; DROP TABLE IF EXISTS gone;
                 DROP TABLE IF EXISTS usage; DROP TABLE IF EXISTS organization;
                 DROP TABLE IF EXISTS entity; DROP TABLE IF EXISTS listed;
                 DROP TABLE IF EXISTS stated; DROP TABLE IF EXISTS said;",
            )?;
            connection.execute_batch(SCHEMA)?;
            // Last, so that half a schema is made again. A full disk keeps no store from opening.
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        Ok(Self(connection))
    }

    /// Opens an existing index for reading, beside a daemon that may be writing it.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; BEGIN;")?;
        Ok(Self(connection))
    }

    /// Copies the index as it is at this moment into a new or empty file, durably. Of the event
    /// files the copy knows nothing: theirs were made at another moment.
    pub(super) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        // The reader's own transaction has nothing left to keep, and VACUUM takes none.
        self.0.execute_batch("ROLLBACK; PRAGMA query_only = OFF;")?;
        self.0.execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        Connection::open(path)?
            .execute("DELETE FROM cursor WHERE name = ?1", [Cursor::EventsSynced.name()])?;
        super::durable::sync_if_there(path)
    }

    pub(super) fn cursor(&self, cursor: Cursor) -> Result<Lsn, StoreError> {
        self::cursor(&self.0, cursor)
    }

    /// Applies records in one transaction, and moves the cursor past them. Records that are in
    /// the index already change nothing.
    pub(super) fn apply<'a>(
        &mut self,
        records: impl Iterator<Item = (Lsn, &'a RecordHead)>,
        next: Lsn,
    ) -> Result<(), StoreError> {
        let records: Vec<_> = records.collect();
        let transaction = self.0.transaction()?;
        for (lsn, head) in &records {
            insert_births(&transaction, &head.new_mailboxes)?;
            apply_erasures(&transaction, *lsn, head)?;
            register::insert_facts(&transaction, &head.facts)?;
            if let Some(stated) = &head.stated {
                stated::insert_stated(&transaction, *lsn, stated)?;
            }
        }
        // A message is before its changes, in whichever order mailboxes get theirs.
        insert_messages(&transaction, &records)?;
        for (lsn, head) in &records {
            apply_record(&transaction, *lsn, head)?;
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

    /// All mailboxes with their used octets, but for those that are erased.
    pub(super) fn mailboxes(&self) -> Result<Vec<(NewMailbox, u64)>, StoreError> {
        let mut statement = self.0.prepare(&format!(
            "SELECT {BIRTH_COLUMNS}, used_bytes FROM mailbox WHERE erasing_at IS NULL"
        ))?;
        let mut rows = statement.query([])?;
        let mut mailboxes = Vec::new();
        while let Some(row) = rows.next()? {
            mailboxes.push((birth_of(row)?, row.get::<_, i64>(4)?.cast_unsigned()));
        }
        Ok(mailboxes)
    }

    /// All mailboxes that are erased, in the order of their ids.
    pub(super) fn erasures(&self) -> Result<Vec<Erasure>, StoreError> {
        let mut statement = self.0.prepare(&format!(
            "SELECT {BIRTH_COLUMNS}, erasing_at, is_erased FROM mailbox
             WHERE erasing_at IS NOT NULL ORDER BY id"
        ))?;
        let mut rows = statement.query([])?;
        let mut erasures = Vec::new();
        while let Some(row) = rows.next()? {
            let at = Lsn(row.get::<_, i64>(4)?.cast_unsigned());
            erasures.push(Erasure { birth: birth_of(row)?, at, is_done: row.get(5)? });
        }
        Ok(erasures)
    }

    /// The messages of a mailbox, oldest first within each folder.
    pub(super) fn messages(&self, mailbox: MailboxId) -> Result<Vec<IndexedMessage>, StoreError> {
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM message WHERE mailbox = \
             (SELECT number FROM mailbox WHERE id = ?1) ORDER BY folder, lsn, blob, mail"
        ))?;
        let rows = statement.query([mailbox.to_string()])?;
        collect_messages(rows, mailbox)
    }

    /// The next messages of the whole index in the order of [`Row`].
    pub(super) fn rows_after(&self, last: Option<&Row>) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT mailbox.id, folder, lsn, blob, mail, message.id, size, since
             FROM message JOIN mailbox ON mailbox.number = message.mailbox
             WHERE (mailbox.id, folder, lsn, blob, mail) > (?1, ?2, ?3, ?4, ?5)
             ORDER BY mailbox.id, folder, lsn, blob, mail LIMIT 10000",
        )?;
        let none = Row::default();
        let last = last.unwrap_or(&none);
        let (mailbox, folder, lsn, blob, mail) = &last.place;
        let after = params![mailbox, folder, lsn, blob, mail];
        let rows = statement.query_map(after, |row| {
            let place = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Row { place, id: row.get(5)?, size: row.get(6)?, since: row.get(7)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// At most `limit` messages that came into a mailbox's folder before a moment.
    pub(super) fn messages_before(
        &self,
        mailbox: MailboxId,
        folder: Folder,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<IndexedMessage>, StoreError> {
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM message WHERE mailbox = \
             (SELECT number FROM mailbox WHERE id = ?1) AND folder = ?2 AND since < ?3 LIMIT ?4"
        ))?;
        let before = before.as_millis().cast_signed();
        let rows = statement.query(params![mailbox.to_string(), folder as usize, before, limit])?;
        collect_messages(rows, mailbox)
    }

    /// How many octets of the messages of some positions were removed since they were worked
    /// into a pack.
    pub(super) fn removed_bytes(&self, positions: &Range<u64>) -> Result<u64, StoreError> {
        let sum: i64 = self
            .0
            .prepare_cached(
                "SELECT (SELECT coalesce(sum(size), 0) FROM change
                         WHERE lsn >= ?1 AND lsn < ?2 AND folder IS NULL)
                      + (SELECT coalesce(sum(size), 0) FROM gone WHERE lsn >= ?1 AND lsn < ?2)",
            )?
            .query_row(span(positions), |row| row.get(0))?;
        Ok(sum.cast_unsigned())
    }

    /// What became of the messages and queue entries of some positions, up to a position of the
    /// index.
    pub(super) fn changes(&mut self, positions: &Range<u64>) -> Result<Known, StoreError> {
        let transaction = self.0.transaction()?;
        let gone_at = gone_entries(&transaction)?;
        let mut gone: Vec<_> = gone_at.keys().copied().collect();
        gone.retain(|entry| positions.contains(&entry.record().0));
        Ok(Known {
            considered: cursor(&transaction, Cursor::Indexed)?,
            messages: changed_messages(&transaction, positions)?,
            gone,
            gone_at,
            waiting: queue_ids(&transaction)?,
        })
    }

    /// The records that have a story of this trace to which no event leads.
    pub(super) fn listed(&self, trace_id: TraceId) -> Result<Vec<Lsn>, StoreError> {
        let mut statement =
            self.0.prepare_cached("SELECT lsn FROM listed WHERE trace_id = ?1 ORDER BY lsn")?;
        let records = statement.query_map([trace_id.to_string()], |row| {
            Ok(Lsn(row.get::<_, i64>(0)?.cast_unsigned()))
        })?;
        Ok(records.collect::<Result<_, _>>()?)
    }

    /// Forgets the stories of traces that began before a moment.
    pub(super) fn forget_listed(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let first = TraceId::first_since(before.as_millis()).to_string();
        self.0.execute("DELETE FROM listed WHERE trace_id < ?1", [first])?;
        Ok(())
    }

    /// Forgets changes that are worked into a pack.
    pub(super) fn forget_changes(
        &mut self,
        positions: &Range<u64>,
        considered: Lsn,
    ) -> Result<(), StoreError> {
        let (start, end) = span(positions);
        for table in ["change", "gone"] {
            self.0.execute(
                &format!("DELETE FROM {table} WHERE lsn >= ?1 AND lsn < ?2 AND at < ?3"),
                params![start, end, considered.0.cast_signed()],
            )?;
        }
        Ok(())
    }
}

/// A mailbox that is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Erasure {
    pub(super) birth: NewMailbox,
    /// The record that says so.
    pub(super) at: Lsn,
    /// Whether a record says that its key is gone.
    pub(super) is_done: bool,
}

const BIRTH_COLUMNS: &str = "id, organization, entity, slot";

fn birth_of(row: &rusqlite::Row<'_>) -> Result<NewMailbox, StoreError> {
    let id: String = row.get(0)?;
    let organization: String = row.get(1)?;
    let entity: String = row.get(2)?;
    let id = id.parse().map_err(|_| unreadable("mailbox id"))?;
    let entity = entity.parse().map_err(|_| unreadable("user id"))?;
    let owner = MailboxOwner { organization: organization.into(), entity };
    Ok(NewMailbox { id, owner, slot: Slot::numbered(row.get(3)?) })
}

/// What the index knows of what became of messages and queue entries, and where the log says it.
#[derive(Debug)]
pub(super) struct Known {
    /// Changes before this position are in it.
    pub(super) considered: Lsn,
    /// Messages, where they are now, and which record says it.
    pub(super) messages: Vec<(MessageRef, Changed, Lsn)>,
    /// Entries of the positions asked for that are gone.
    pub(super) gone: Vec<QueueId>,
    /// All entries that are gone, and which record says it.
    pub(super) gone_at: HashMap<QueueId, Lsn>,
    /// Entries of all positions that wait.
    pub(super) waiting: HashSet<QueueId>,
}

fn changed_messages(
    transaction: &Transaction<'_>,
    positions: &Range<u64>,
) -> Result<Vec<(MessageRef, Changed, Lsn)>, StoreError> {
    let mut changes = Vec::new();
    let mut statement = transaction.prepare_cached(
        "SELECT change.lsn, blob, mail, mailbox.id, folder, since, at
         FROM change JOIN mailbox ON mailbox.number = change.mailbox
         WHERE change.lsn >= ?1 AND change.lsn < ?2",
    )?;
    let mut rows = statement.query(span(positions))?;
    while let Some(row) = rows.next()? {
        let mailbox: String = row.get(3)?;
        let message = MessageRef {
            lsn: Lsn(row.get::<_, i64>(0)?.cast_unsigned()),
            blob: row.get(1)?,
            mail: row.get(2)?,
            mailbox: mailbox.parse().map_err(|_| unreadable("mailbox id"))?,
        };
        let folder: Option<usize> = row.get(4)?;
        let folder = folder.map(folder_of).transpose()?;
        let since = Timestamp::from_millis(row.get::<_, i64>(5)?.cast_unsigned());
        let at = Lsn(row.get::<_, i64>(6)?.cast_unsigned());
        changes.push((message, Changed { folder, since }, at));
    }
    Ok(changes)
}

/// Where a changed message is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// Nowhere, if absent.
    pub(super) folder: Option<Folder>,
    pub(super) since: Timestamp,
}

const MESSAGE_COLUMNS: &str = "folder, lsn, blob, mail, id, size, received_at, since";

fn collect_messages(
    mut rows: Rows<'_>,
    mailbox: MailboxId,
) -> Result<Vec<IndexedMessage>, StoreError> {
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(4)?;
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let at = MessageRef { lsn: Lsn(number(1)?), blob: row.get(2)?, mail: row.get(3)?, mailbox };
        messages.push(IndexedMessage {
            at,
            folder: folder_of(row.get(0)?)?,
            id: id.parse().map_err(|_| unreadable("message id"))?,
            size: number(5)?,
            received_at: Timestamp::from_millis(number(6)?),
            since: Timestamp::from_millis(number(7)?),
        });
    }
    Ok(messages)
}

fn folder_of(number: usize) -> Result<Folder, StoreError> {
    Folder::ALL.get(number).copied().ok_or_else(|| unreadable("folder"))
}

fn span(positions: &Range<u64>) -> (i64, i64) {
    (positions.start.cast_signed(), positions.end.cast_signed())
}

fn cursor(connection: &Connection, cursor: Cursor) -> Result<Lsn, StoreError> {
    let lsn: Option<i64> = connection
        .query_row("SELECT lsn FROM cursor WHERE name = ?1", [cursor.name()], |row| row.get(0))
        .optional()?;
    Ok(Lsn(lsn.unwrap_or(0).cast_unsigned()))
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

/// A mailbox that is known, also as one that is erased, stays as it is.
fn insert_births(transaction: &Transaction<'_>, births: &[NewMailbox]) -> Result<(), StoreError> {
    for birth in births {
        transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO mailbox (id, organization, entity, slot)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                birth.id.to_string(),
                &*birth.owner.organization,
                birth.owner.entity.to_string(),
                birth.slot.number()
            ])?;
    }
    Ok(())
}

/// Takes the messages of mailboxes out that are erased. They are removed for good, so compaction
/// gives their room back.
fn apply_erasures(
    transaction: &Transaction<'_>,
    at: Lsn,
    head: &RecordHead,
) -> Result<(), StoreError> {
    insert_births(transaction, &head.erasing)?;
    for birth in &head.erasing {
        let id = birth.id.to_string();
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO change
                 SELECT lsn, blob, mail, mailbox, ?2, NULL, size, since FROM message
                 WHERE mailbox = (SELECT number FROM mailbox WHERE id = ?1)",
            )?
            .execute(params![id, at.0.cast_signed()])?;
        transaction
            .prepare_cached(
                "DELETE FROM message
                 WHERE mailbox = (SELECT number FROM mailbox WHERE id = ?1)",
            )?
            .execute([&id])?;
        transaction
            .prepare_cached(
                "UPDATE mailbox SET erasing_at = ?2, used_bytes = 0
                 WHERE id = ?1 AND erasing_at IS NULL",
            )?
            .execute(params![id, at.0.cast_signed()])?;
    }
    for id in &head.erased {
        transaction
            .prepare_cached("UPDATE mailbox SET is_erased = 1 WHERE id = ?1")?
            .execute([id.to_string()])?;
    }
    Ok(())
}

/// All but births, erasures and messages.
fn apply_record(
    transaction: &Transaction<'_>,
    lsn: Lsn,
    head: &RecordHead,
) -> Result<(), StoreError> {
    for change in &head.changes {
        apply_change(transaction, lsn, change)?;
    }
    for queued in queued_of(lsn, head) {
        insert_queued(transaction, &queued)?;
    }
    for change in &head.queue_changes {
        apply_queue_change(transaction, lsn, change)?;
    }
    for story in head.listed() {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO listed VALUES (?1, ?2)")?
            .execute(params![story.trace_id.to_string(), lsn.0.cast_signed()])?;
    }
    head.usage.iter().try_for_each(|used| count(transaction, used))
}

/// Inserts the messages of records by mailbox, in the order in which the table has them: so each of
/// its pages is written once, however many messages come to however many mailboxes, and each mailbox
/// is looked up and counted once.
fn insert_messages(
    transaction: &Transaction<'_>,
    records: &[(Lsn, &RecordHead)],
) -> Result<(), StoreError> {
    let mut messages = Vec::new();
    for (lsn, head) in records {
        messages.append(&mut messages_of(*lsn, head));
    }
    messages.sort_by_key(|message| message.at.mailbox);
    let mut by_mailbox = Vec::new();
    for messages in messages.chunk_by(|one, other| one.at.mailbox == other.at.mailbox) {
        let Some(first) = messages.first() else { continue };
        let found: Option<(i64, Option<i64>)> = transaction
            .prepare_cached("SELECT number, erasing_at FROM mailbox WHERE id = ?1")?
            .query_row([first.at.mailbox.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((number, None)) => by_mailbox.push((number, messages)),
            Some((number, Some(erasing_at))) => {
                remove_late(transaction, number, erasing_at, messages)?;
            }
            // An error here would keep everybody's mail out of the index; `fsck` tells it.
            None => tracing::error!(mailbox = %first.at.mailbox, "mail for a mailbox never made"),
        }
    }
    by_mailbox.sort_by_key(|(number, _)| *number);
    for (number, messages) in by_mailbox {
        let mut added = 0;
        for message in messages {
            if insert_message(transaction, number, message)? {
                added += message.size.cast_signed();
            }
        }
        if added > 0 {
            transaction
                .prepare_cached(
                    "UPDATE mailbox SET used_bytes = used_bytes + ?2 WHERE number = ?1",
                )?
                .execute(params![number, added])?;
        }
    }
    Ok(())
}

/// What came for a mailbox that was erased is removed at once.
fn remove_late(
    transaction: &Transaction<'_>,
    mailbox: i64,
    erasing_at: i64,
    messages: &[IndexedMessage],
) -> Result<(), StoreError> {
    for message in messages {
        let lsn = message.at.lsn.0.cast_signed();
        let size = message.size.cast_signed();
        let since = message.since.as_millis().cast_signed();
        let place = (message.at.blob, message.at.mail);
        // It counts as removed when it came, so that a pack has it worked in only once it is there.
        let at = erasing_at.max(lsn);
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO change VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7)",
            )?
            .execute(params![lsn, place.0, place.1, mailbox, at, size, since])?;
    }
    Ok(())
}

/// Whether it was not there.
fn insert_message(
    transaction: &Transaction<'_>,
    mailbox: i64,
    message: &IndexedMessage,
) -> Result<bool, StoreError> {
    let inserted = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO message
             (mailbox, folder, lsn, blob, mail, id, size, received_at, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            mailbox,
            message.folder as usize,
            message.at.lsn.0.cast_signed(),
            message.at.blob,
            message.at.mail,
            message.id.to_string(),
            message.size.cast_signed(),
            message.received_at.as_millis().cast_signed(),
            message.since.as_millis().cast_signed()
        ])?;
    Ok(inserted > 0)
}

/// A change of a message that is not where the change says it is changes nothing: it was applied
/// before.
fn apply_change(transaction: &Transaction<'_>, at: Lsn, change: &Change) -> Result<(), StoreError> {
    let message = &change.message;
    let mailbox: Option<i64> = transaction
        .prepare_cached("SELECT number FROM mailbox WHERE id = ?1")?
        .query_row([message.mailbox.to_string()], |row| row.get(0))
        .optional()?;
    let Some(mailbox) = mailbox else { return Ok(()) };
    let lsn = message.lsn.0.cast_signed();
    let place = params![mailbox, change.from as usize, lsn, message.blob, message.mail];
    let since = change.at.as_millis().cast_signed();
    let to = change.to.map(|folder| folder as usize);
    let changed = match to {
        None => transaction
            .prepare_cached(
                "DELETE FROM message WHERE mailbox = ?1 AND folder = ?2 AND lsn = ?3
                 AND blob = ?4 AND mail = ?5",
            )?
            .execute(place)?,
        Some(to) => transaction
            .prepare_cached(
                "UPDATE message SET folder = ?6, since = ?7 WHERE mailbox = ?1 AND folder = ?2
                 AND lsn = ?3 AND blob = ?4 AND mail = ?5",
            )?
            .execute(params![
                mailbox,
                change.from as usize,
                lsn,
                message.blob,
                message.mail,
                to,
                since
            ])?,
    };
    if changed == 0 {
        return Ok(());
    }
    let size = change.size.cast_signed();
    if to.is_none() {
        transaction
            .prepare_cached("UPDATE mailbox SET used_bytes = used_bytes - ?2 WHERE number = ?1")?
            .execute(params![mailbox, size])?;
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO change VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            lsn,
            message.blob,
            message.mail,
            mailbox,
            at.0.cast_signed(),
            to,
            size,
            since
        ])?;
    Ok(())
}
