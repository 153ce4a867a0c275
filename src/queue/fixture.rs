//! Entries for the tests of this room.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath};
use crate::store::{Authorship, Destination, Purpose, QueueEntry, QueueState, QueuedMail};

/// A message that is due at once.
pub(super) fn mail(number: usize, destination: Destination, recipients: &[&str]) -> QueuedMail {
    let recipient = |address: &&str| EnvelopeRecipient {
        address: Address::parse(address).expect("an address"),
        parameters: RcptParameters::default(),
    };
    QueuedMail {
        id: format!("{number:x}.0.0.0").parse().expect("an id"),
        trace_id: TraceId::generate(),
        queued_at: Timestamp::from_millis(1_000_000),
        size: 1,
        entry: Arc::new(QueueEntry {
            organization: "m-1".into(),
            purpose: Purpose::Message,
            destination,
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: recipients.iter().map(recipient).collect(),
            authorship: Authorship::default(),
            sender: None,
            returns_to: None,
            token_domain: None,
            keeper: None,
        }),
        state: QueueState::default(),
    }
}
