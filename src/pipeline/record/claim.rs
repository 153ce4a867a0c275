//! Room in the queue for what a message makes leave: taken before it is accepted, so that nothing that
//! is accepted is too much.

use super::bounces::Bounces;
use super::journal::Journaled;
use super::room::{both, has_room_for_report};
use crate::mail::Address;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition};
use crate::pipeline::facts::settings::BounceLimits;
use crate::smtp::reason::Reason;
use crate::store::{Claimant, Purpose, QueueClaim, QueueFull, QueueHold, Store};

/// Counts everything of a message that is to wait in the queue; `None` if nothing is. Reports for
/// which there is no room are left out: strangers can cause them, and they hold up nobody's mail.
///
/// # Errors
/// Which bound is in the way.
pub(in crate::pipeline) fn claim(
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
    // Nobody else would hear of what it is about.
    if beside.iter().any(|placed| placed.is_needed && placed.mails.is_empty()) {
        return Err(Reason::MailboxFullGrace);
    }
    beside.retain(|placed| !placed.mails.is_empty());
    let room = match claims.is_empty() {
        true => None,
        false => Some(store.claim_queue(claims, &settings.queue).map_err(reason_of)?),
    };
    Ok(both(room, journal_room.take()))
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
