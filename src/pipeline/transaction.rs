//! A mail transaction as the pipeline knows it: who it is for, in which organizations.

use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::directory::{Member, Organization, ResolveError};
use crate::id::TraceId;
use crate::mail::{Address, EnvelopeRecipient, MailParameters, Peer, ReversePath};
use crate::smtp::reason::Reason;

/// From MAIL to the message or its end; keeps the snapshot that it began with.
#[derive(Debug)]
pub struct Transaction {
    pub(super) trace_id: TraceId,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) peer: Peer,
    pub(super) reverse_path: ReversePath,
    pub(super) parameters: MailParameters,
    /// One for each organization that has a recipient.
    pub(super) shares: Vec<Share>,
    /// Recipients refused because their mailbox is full: they bounced, whatever follows.
    pub(super) full: Vec<FullMailbox>,
}

/// The part of a transaction that is one organization's; handled, told and traced by itself.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) organization: Arc<Organization>,
    pub(super) trace_id: TraceId,
    pub(super) addressees: Vec<Addressee>,
}

/// A recipient and the mailboxes behind it.
#[derive(Debug)]
pub(super) struct Addressee {
    pub(super) recipient: EnvelopeRecipient,
    pub(super) members: Vec<Member>,
}

/// A recipient that was refused at RCPT because the mailbox is full.
#[derive(Debug)]
pub(super) struct FullMailbox {
    pub(super) organization: Arc<Organization>,
    pub(super) trace_id: TraceId,
    pub(super) address: Address,
}

impl Transaction {
    /// The trace of an organization's share. The first takes the transaction's own id, which the
    /// client has seen; the others get ids of their own, so that nothing joins two organizations.
    pub(super) fn trace_id_for(&self, organization: &Organization) -> TraceId {
        let same = |other: &Organization| other.id == organization.id;
        let known = self
            .shares
            .iter()
            .find(|share| same(&share.organization))
            .map(|share| share.trace_id)
            .or_else(|| {
                let full = self.full.iter().find(|full| same(&full.organization));
                full.map(|full| full.trace_id)
            });
        let is_first = self.shares.is_empty() && self.full.is_empty();
        known.unwrap_or_else(|| if is_first { self.trace_id } else { TraceId::generate() })
    }

    /// Adds a resolved recipient; the same address twice counts once.
    pub(super) fn add(
        &mut self,
        organization: Arc<Organization>,
        recipient: EnvelopeRecipient,
        members: Vec<Member>,
    ) {
        let trace_id = self.trace_id_for(&organization);
        let position = self.shares.iter().position(|share| share.trace_id == trace_id);
        let position = position.unwrap_or_else(|| {
            self.shares.push(Share { organization, trace_id, addressees: Vec::new() });
            self.shares.len() - 1
        });
        let addressees = &mut self.shares[position].addressees;
        let key = recipient.address.key();
        if !addressees.iter().any(|known| known.recipient.address.key() == key) {
            addressees.push(Addressee { recipient, members });
        }
    }
}

/// Why an address that does not resolve is refused.
pub(super) fn reason_of(error: &ResolveError) -> Reason {
    match error {
        ResolveError::NotOurDomain => Reason::RelayDenied,
        ResolveError::Unknown => Reason::UnknownUser,
        ResolveError::Disabled => Reason::DisabledUser,
        ResolveError::GroupTooLarge => Reason::GroupTooLarge,
        ResolveError::EmptyGroup => Reason::EmptyGroup,
    }
}
