//! Mail that Mailweir makes itself: journal records, notices and DSNs. It carries a null
//! reverse-path and is never judged, ruled, journaled or bounced, so it cannot loop.

use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::clock::Timestamp;
use crate::events::{Event, EventLine, MailboxDelivered};
use crate::id::TraceId;
use crate::mail::{Address, ReversePath};
use crate::store::{Blob, Delivery, Folder, Mail, MailboxName, QueuedMail, Store, StoreError};

/// A composed message and where it goes.
#[derive(Debug)]
pub(super) struct InternalMail {
    pub(super) id: TraceId,
    pub(super) to: Address,
    pub(super) content: Vec<u8>,
}

/// Internal mail, ready for the commit.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) blob: Blob,
    pub(super) events: Vec<EventLine>,
}

/// Why internal mail has no place.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unplaced {
    #[error("{0} is not a deliverable address here: {1}")]
    Unresolved(Address, String),
    #[error("the mailbox of {0} is full")]
    Full(Address),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds a place for internal mail: mailboxes for a local address, else the queue.
pub(super) fn place(
    mail: InternalMail,
    snapshot: &Snapshot,
    store: &Store,
    now: Timestamp,
) -> Result<Placed, Unplaced> {
    let prefix = format!(
        "Return-Path: <>\r\nReceived: by {} (mailweir) id {};\r\n\t{} (UTC)\r\n",
        snapshot.settings.hostname,
        mail.id,
        now.to_rfc5322()
    )
    .into_bytes();
    let size = (prefix.len() + mail.content.len()) as u64;
    let mut stored =
        Mail { id: mail.id, received_at: now, prefix, deliveries: Vec::new(), queued: None };
    let mut events = Vec::new();
    if !snapshot.directory.is_local(mail.to.domain()) {
        stored.queued =
            Some(QueuedMail { reverse_path: ReversePath::Null, recipients: vec![mail.to] });
        return Ok(Placed { blob: Blob { content: mail.content, mails: vec![stored] }, events });
    }
    let resolved = snapshot
        .directory
        .resolve(&mail.to, snapshot.settings.max_group_members)
        .map_err(|error| Unplaced::Unresolved(mail.to.clone(), error.to_string()))?;
    for member in resolved.members {
        let name = MailboxName {
            organization: resolved.organization.id.as_str().into(),
            user: Arc::clone(&member.mailbox),
        };
        let Some(room) = store.mailbox(&name)?.reserve(size, member.quota_bytes) else {
            continue;
        };
        stored.deliveries.push(Delivery { room, folder: Folder::Inbox });
        events.push(EventLine {
            trace_id: mail.id,
            event: Event::MailboxDelivered(MailboxDelivered {
                recipient: member.address.to_string(),
                folder: Folder::Inbox.to_string(),
            }),
            event_timestamp: now,
            organization_id: resolved.organization.id.to_string(),
        });
    }
    if stored.deliveries.is_empty() {
        return Err(Unplaced::Full(mail.to));
    }
    Ok(Placed { blob: Blob { content: mail.content, mails: vec![stored] }, events })
}
