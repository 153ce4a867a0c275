//! Room in the queue for what we write ourselves: journal records and reports.

use std::sync::Arc;

use crate::mail::Address;
use crate::pipeline::facts::settings::Settings;
use crate::store::{Claimant, Mail, QueueClaim, QueueFull, QueueHold, Store};

/// Takes the room that a journal record needs if it leaves.
///
/// # Errors
/// Which bound is in the way.
pub(in crate::pipeline) fn claim_for_record(
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
pub(in crate::pipeline) fn both(
    one: Option<QueueHold>,
    other: Option<QueueHold>,
) -> Option<QueueHold> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.join(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// Whether the queue takes a report; `may` is asked last, since it counts.
pub(in crate::pipeline) fn has_room_for_report(
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
