//! The queue's part of the index: what waits to leave, what has left, and what users have used.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Index, unreadable};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::store::StoreError;
use crate::store::entry::RecordHead;
use crate::store::mailbox::MailboxOwner;
use crate::store::queued::{QueueChange, QueueEntry, QueueId, QueueState, QueuedMail};
use crate::store::usage::Used;

impl Index {
    /// Everything in the queue, oldest first.
    pub(in crate::store) fn queue(&self) -> Result<Vec<QueuedMail>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT lsn, blob, mail, entry, trace_id, queued_at, size, told, state FROM queue
             ORDER BY lsn, blob, mail, entry",
        )?;
        let mut rows = statement.query([])?;
        let mut queued = Vec::new();
        while let Some(row) = rows.next()? {
            queued.push(queued_mail(row)?);
        }
        Ok(queued)
    }

    /// What users have used of late.
    pub(in crate::store) fn usage(&self) -> Result<Vec<Used>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT day, organization, entity, recipients, inside FROM usage ORDER BY day",
        )?;
        let mut rows = statement.query([])?;
        let mut used = Vec::new();
        while let Some(row) = rows.next()? {
            let (organization, entity): (String, String) = (row.get(1)?, row.get(2)?);
            let entity = entity.parse().map_err(|_| unreadable("user id"))?;
            used.push(Used {
                day: row.get::<_, i64>(0)?.cast_unsigned(),
                by: MailboxOwner { organization: organization.into(), entity },
                recipients: row.get::<_, i64>(3)?.cast_unsigned(),
                inside: row.get::<_, i64>(4)?.cast_unsigned(),
            });
        }
        Ok(used)
    }
}

/// The queue entries that a record holds and that still wait.
pub(in crate::store) fn queued_of(lsn: Lsn, head: &RecordHead) -> Vec<QueuedMail> {
    let mut queued = Vec::new();
    for (blob, sealed) in head.blobs.iter().enumerate() {
        for (mail, sealed) in sealed.mails.iter().enumerate() {
            let entries = sealed.queued.iter().flat_map(|queued| queued.entries.iter().enumerate());
            queued.extend(entries.filter(|(_, entry)| !entry.is_gone).map(|(entry, known)| {
                QueuedMail {
                    id: QueueId { lsn, blob, mail, entry },
                    trace_id: sealed.id,
                    queued_at: sealed.received_at,
                    size: sealed.size,
                    entry: Arc::clone(&known.entry),
                    state: QueueState::default(),
                }
            }));
        }
    }
    queued
}

pub(super) fn insert_queued(
    transaction: &Transaction<'_>,
    queued: &QueuedMail,
) -> Result<(), StoreError> {
    let QueueId { lsn, blob, mail, entry } = queued.id;
    transaction
        .prepare_cached("INSERT OR IGNORE INTO queue VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            lsn.0.cast_signed(),
            blob,
            mail,
            entry,
            queued.trace_id.to_string(),
            queued.queued_at.as_millis().cast_signed(),
            queued.size.cast_signed(),
            as_json(&*queued.entry)?,
            as_json(&queued.state)?
        ])?;
    Ok(())
}

fn as_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| unreadable("queue entry"))
}

/// A change of an entry that is not there changes nothing: it was applied before.
pub(super) fn apply_queue_change(
    transaction: &Transaction<'_>,
    at: Lsn,
    change: &QueueChange,
) -> Result<(), StoreError> {
    let QueueId { lsn, blob, mail, entry } = change.entry;
    let lsn = lsn.0.cast_signed();
    if let Some(state) = &change.state {
        transaction
            .prepare_cached(
                "UPDATE queue SET state = ?5
                 WHERE lsn = ?1 AND blob = ?2 AND mail = ?3 AND entry = ?4",
            )?
            .execute(params![lsn, blob, mail, entry, as_json(state)?])?;
        return Ok(());
    }
    let size: Option<i64> = transaction
        .prepare_cached(
            "DELETE FROM queue WHERE lsn = ?1 AND blob = ?2 AND mail = ?3 AND entry = ?4
             RETURNING size",
        )?
        .query_row(params![lsn, blob, mail, entry], |row| row.get(0))
        .optional()?;
    if let Some(size) = size {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO gone VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![lsn, blob, mail, entry, at.0.cast_signed(), size])?;
    }
    Ok(())
}

/// A record is applied once, with the cursor that says so, so adding is right.
pub(super) fn count(transaction: &Transaction<'_>, used: &Used) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET recipients = recipients + ?4, inside = inside + ?5",
        )?
        .execute(params![
            used.day.cast_signed(),
            &*used.by.organization,
            used.by.entity.to_string(),
            used.recipients.cast_signed(),
            used.inside.cast_signed()
        ])?;
    transaction
        .prepare_cached("DELETE FROM usage WHERE day < ?1")?
        .execute([used.day.saturating_sub(1).cast_signed()])?;
    Ok(())
}

pub(super) fn gone_entries(
    transaction: &Transaction<'_>,
) -> Result<HashMap<QueueId, Lsn>, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT lsn, blob, mail, entry, at FROM gone")?;
    let gone = statement
        .query_map([], |row| Ok((queue_id(row)?, Lsn(row.get::<_, i64>(4)?.cast_unsigned()))))?;
    Ok(gone.collect::<Result<_, _>>()?)
}

pub(super) fn queue_ids(transaction: &Transaction<'_>) -> Result<HashSet<QueueId>, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT lsn, blob, mail, entry FROM queue")?;
    let ids = statement.query_map([], queue_id)?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn queue_id(row: &rusqlite::Row<'_>) -> rusqlite::Result<QueueId> {
    Ok(QueueId {
        lsn: Lsn(row.get::<_, i64>(0)?.cast_unsigned()),
        blob: row.get(1)?,
        mail: row.get(2)?,
        entry: row.get(3)?,
    })
}

fn queued_mail(row: &rusqlite::Row<'_>) -> Result<QueuedMail, StoreError> {
    let (trace_id, told, state): (String, String, String) = (row.get(4)?, row.get(7)?, row.get(8)?);
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let entry: QueueEntry = serde_json::from_str(&told).map_err(|_| unreadable("queue entry"))?;
    Ok(QueuedMail {
        id: queue_id(row)?,
        trace_id: trace_id.parse().map_err(|_| unreadable("trace id"))?,
        queued_at: Timestamp::from_millis(number(5)?),
        size: number(6)?,
        entry: Arc::new(entry),
        state: serde_json::from_str(&state).map_err(|_| unreadable("queue state"))?,
    })
}
