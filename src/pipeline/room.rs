//! Room in the queue for what a message makes leave: taken before it is accepted, so that nothing that
//! is accepted is too much.

use std::sync::Arc;

use super::Settings;
use super::bounces::Bounces;
use super::journal::Journaled;
use super::outgoing::{Outgoing, OutgoingDisposition};
use super::settings::BounceLimits;
use crate::mail::Address;
use crate::smtp::reason::Reason;
use crate::store::{Claimant, Mail, Purpose, QueueClaim, QueueFull, QueueHold, Store};

/// Counts everything of a message that is to wait in the queue; `None` if nothing is. Reports for
/// which there is no room are left out: strangers can cause them, and they hold up nobody's mail.
///
/// # Errors
/// Which bound is in the way.
pub(super) fn claim(
    message: &mut Journaled,
    store: &Store,
    reports: &Bounces,
) -> Result<Option<QueueHold>, Reason> {
    let Journaled { admitted, beside, journal_room, .. } = message;
    let mail = &admitted.mail;
    let settings = &mail.snapshot.settings;
    let mut claims = Vec::new();
    for outgoing in mail.outgoing.as_deref().into_iter().chain(&admitted.leaving) {
        claims.extend(claim_of(outgoing, mail.content.len()));
    }
    // What a user causes is bounded by the user's own quotas.
    let is_users = mail.outgoing.is_some();
    let per_sender = settings.bounces.per_sender;
    let limits = BounceLimits { per_network: settings.reports_per_network, per_sender };
    for placed in beside.iter_mut() {
        placed.mails.retain(|mail_of_ours| match mail_of_ours.queued.first() {
            Some(entry) if entry.purpose == Purpose::Report => {
                let may = |to: &Address| is_users || reports.count(mail.peer.ip, to, limits);
                let has_room = has_room_for_report(mail_of_ours, settings, store, may);
                if !has_room {
                    let trace_id = mail.trace_id;
                    tracing::warn!(%trace_id, to = %entry.destination, "no room for a report");
                }
                has_room
            }
            // A journal record has its room already.
            Some(_) | None => true,
        });
    }
    beside.retain(|placed| !placed.mails.is_empty());
    let room = match claims.is_empty() {
        true => None,
        false => Some(store.claim_queue(claims, &settings.queue).map_err(reason_of)?),
    };
    Ok(both(room, journal_room.take()))
}

/// Takes the room that a journal record needs if it leaves.
///
/// # Errors
/// Which bound is in the way.
pub(super) fn claim_for_record(
    record: &Mail,
    content: usize,
    settings: &Settings,
    store: &Store,
) -> Result<Option<QueueHold>, QueueFull> {
    let Some(entry) = record.queued.first() else { return Ok(None) };
    let octets = (record.prefix.len() + content + record.suffix.len()) as u64;
    let organization = Arc::clone(&entry.organization);
    let claim = QueueClaim { organization, of: Claimant::Journal, octets };
    store.claim_queue(vec![claim], &settings.queue).map(Some)
}

/// What two of them hold.
pub(super) fn both(one: Option<QueueHold>, other: Option<QueueHold>) -> Option<QueueHold> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.join(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// Whether the queue takes a report; `may` is asked last, since it counts.
pub(super) fn has_room_for_report(
    report: &Mail,
    settings: &Settings,
    store: &Store,
    may: impl Fn(&Address) -> bool,
) -> bool {
    report.queued.iter().all(|entry| {
        store.has_room_for_report(&entry.destination, &settings.queue)
            && entry.recipients.iter().all(|recipient| may(&recipient.address))
    })
}

fn claim_of(outgoing: &Outgoing, content: usize) -> Option<QueueClaim> {
    let leaves =
        |disposition: &OutgoingDisposition| matches!(disposition, OutgoingDisposition::Queue(_));
    outgoing.recipients.iter().any(|it| leaves(&it.disposition)).then(|| QueueClaim {
        organization: outgoing.organization.id.as_str().into(),
        of: Claimant::User(outgoing.email.key().into()),
        octets: (outgoing.prefix.len() + content) as u64,
    })
}

fn reason_of(full: QueueFull) -> Reason {
    match full {
        QueueFull::Sender => Reason::SenderQueueFull,
        QueueFull::Organization => Reason::OrganizationQueueFull,
        QueueFull::All => Reason::QueueFull,
    }
}
