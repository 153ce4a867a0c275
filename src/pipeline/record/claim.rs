//! Stage: room in the queue for what a message makes leave, taken before it is accepted, so that
//! nothing that is accepted is too much.

use super::bounces::Bounces;
use super::internal::Placed;
use super::journal::{Journaled, Records};
use super::room::{both, has_room_for_report};
use crate::mail::Address;
use crate::pipeline::delivery::sign::Signed;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::settings::BounceLimits;
use crate::smtp::reason::Reason;
use crate::store::{Claimant, Purpose, QueueClaim, QueueFull, QueueHold, Store};

/// A message for which the queue has room, with what of our own mail has room too. Nothing but this
/// file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Claimed {
    signed: Signed,
    records: Records,
    beside: Vec<Placed>,
    room: Option<QueueHold>,
}

impl Claimed {
    pub(in crate::pipeline) fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What became of its journal records.
    pub(in crate::pipeline) fn records(&self) -> &Records {
        &self.records
    }

    /// Journal records, notices, DSNs.
    pub(in crate::pipeline) fn beside(&self) -> &[Placed] {
        &self.beside
    }

    pub(in crate::pipeline) fn into_parts(self) -> (Signed, Vec<Placed>, Option<QueueHold>) {
        (self.signed, self.beside, self.room)
    }
}

/// Counts everything of a message that is to wait in the queue. Reports for which there is no room are
/// left out: strangers can cause them, and they hold up nobody's mail.
///
/// # Errors
/// Which bound is in the way.
pub(in crate::pipeline) fn claim(
    message: Journaled,
    store: &Store,
    reports: &Bounces,
) -> Result<Claimed, Reason> {
    let (signed, records, mut beside, journal_room) = message.into_parts();
    let admitted = signed.admitted();
    let mail = admitted.mail();
    beside.iter_mut().for_each(|placed| keep_those_with_room(placed, mail, store, reports));
    // Nobody else would hear of what it is about.
    if beside.iter().any(|placed| placed.is_needed && placed.mails.is_empty()) {
        return Err(Reason::MailboxFullGrace);
    }
    beside.retain(|placed| !placed.mails.is_empty());
    let mut claims = Vec::new();
    let top = signed.top().fields().len();
    let content = mail.content().len();
    if let Road::Submitted(outgoing) = mail.road() {
        claims.extend(claim_of(outgoing, top + content));
    }
    claims.extend(admitted.leaving().iter().filter_map(|it| claim_of(it, top + content)));
    let room = match claims.is_empty() {
        true => None,
        false => {
            let bounds = &mail.snapshot().settings.queue;
            Some(store.claim_queue(claims, bounds).map_err(reason_of)?)
        }
    };
    let room = both(room, journal_room);
    Ok(Claimed { signed, records, beside, room })
}

/// Leaves out the reports that the queue has no room for.
fn keep_those_with_room(placed: &mut Placed, mail: &Judged, store: &Store, reports: &Bounces) {
    let settings = &mail.snapshot().settings;
    let per_sender = settings.bounces.per_sender;
    let limits = BounceLimits { per_network: settings.reports_per_network, per_sender };
    let may = |to: &Address| match mail.road() {
        Road::Received(_) => reports.count(mail.peer().ip, to, limits),
        // What a user causes is bounded by the user's own quotas.
        Road::Submitted(_) => true,
    };
    placed.mails.retain(|mail_of_ours| match mail_of_ours.queued.first() {
        Some(entry) if entry.purpose == Purpose::Report => {
            let has_room = has_room_for_report(mail_of_ours, settings, store, may);
            if !has_room {
                let trace_id = mail.trace_id();
                tracing::warn!(%trace_id, to = %entry.destination, "no room for a report");
            }
            has_room
        }
        // A journal record has its room already.
        Some(_) | None => true,
    });
}

fn claim_of(outgoing: &Outgoing, octets: usize) -> Option<QueueClaim> {
    outgoing.leaves().then(|| QueueClaim {
        organization: outgoing.organization.id.as_str().into(),
        of: Claimant::User(outgoing.email.key().into()),
        octets: (outgoing.prefix.len() + octets) as u64,
    })
}

fn reason_of(full: QueueFull) -> Reason {
    match full {
        QueueFull::Sender => Reason::SenderQueueFull,
        QueueFull::Organization => Reason::OrganizationQueueFull,
        QueueFull::All => Reason::QueueFull,
    }
}
