//! A mail transaction as the pipeline knows it: who it is for, in which organizations.

use std::sync::Arc;

use super::settings::Settings;
use super::snapshot::Snapshot;
use crate::directory::{Member, Organization, RemoteMember, ResolveError, Resolved};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, EnvelopeRecipient, MailParameters, Peer, ReversePath};
use crate::smtp::reason::Reason;

/// A transaction of another server; keeps the snapshot that it began with.
#[derive(Debug)]
pub struct Transaction {
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) snapshot: Arc<Snapshot>,
    pub(in crate::pipeline) peer: Peer,
    pub(in crate::pipeline) reverse_path: ReversePath,
    pub(in crate::pipeline) parameters: MailParameters,
    /// One for each organization that has a recipient.
    pub(in crate::pipeline) shares: Vec<Share>,
    /// Recipients refused because their mailbox is full: they bounced, whatever follows.
    pub(in crate::pipeline) full: Vec<FullMailbox>,
    pub(in crate::pipeline) expansion: ExpansionLimit,
}

/// Whether a transaction may lead to more mailboxes. Once it may not, no further group is opened for
/// it: whoever names one large group after the other has them all refused at the price of one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::pipeline) struct ExpansionLimit {
    is_reached: bool,
}

impl ExpansionLimit {
    /// Before a recipient is resolved.
    ///
    /// # Errors
    /// An earlier recipient led past the limit.
    pub(in crate::pipeline) fn check_open(self) -> Result<(), Reason> {
        if self.is_reached { Err(Reason::TooManyRecipients) } else { Ok(()) }
    }

    /// A few recipients that are large groups, under many tags, would lead to millions of mailboxes,
    /// all held until the message comes. One recipient's own limit is for one recipient.
    ///
    /// # Errors
    /// This recipient leads past the limit; in another message it need not.
    pub(in crate::pipeline) fn check(
        &mut self,
        so_far: usize,
        resolved: &Resolved,
        settings: &Settings,
    ) -> Result<(), Reason> {
        let is_within =
            so_far == 0 || so_far + resolved.count() <= settings.max_expanded_recipients;
        self.is_reached = !is_within;
        self.check_open()
    }
}

/// The part of a transaction that is one organization's; handled, told and traced by itself.
#[derive(Debug)]
pub(in crate::pipeline) struct Share {
    pub(in crate::pipeline) organization: Arc<Organization>,
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) addressees: Vec<Addressee>,
    /// The mailboxes and remote users that have sent it on since it came, the last one first.
    pub(in crate::pipeline) forwarders: Vec<Address>,
}

/// A recipient, the mailboxes behind it, and the remote users.
#[derive(Debug)]
pub(in crate::pipeline) struct Addressee {
    pub(in crate::pipeline) recipient: EnvelopeRecipient,
    /// The recipient's own address, if it is a group's.
    pub(in crate::pipeline) expanded_from: Option<Address>,
    pub(in crate::pipeline) members: Arc<[Member]>,
    pub(in crate::pipeline) remote: Arc<[RemoteMember]>,
}

impl Addressee {
    /// A recipient with what it comes to.
    pub(in crate::pipeline) fn new(recipient: EnvelopeRecipient, resolved: Resolved) -> Self {
        let Resolved { expanded_from, members, remote, organization: _ } = resolved;
        Self { recipient, expanded_from, members, remote }
    }

    /// The mailbox that it comes to, if to no other and to nobody elsewhere.
    pub(in crate::pipeline) fn only_mailbox(&self) -> Option<&Member> {
        match (&*self.members, &*self.remote) {
            ([member], []) => Some(member),
            _ => None,
        }
    }
}

/// A recipient that was refused at RCPT because the mailbox is full.
#[derive(Debug)]
pub(in crate::pipeline) struct FullMailbox {
    pub(in crate::pipeline) organization: Arc<Organization>,
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) address: Address,
    /// Whose mailbox it is.
    pub(in crate::pipeline) id: EntityId,
}

impl Transaction {
    /// A transaction without recipients.
    pub(in crate::pipeline) fn begin(
        trace_id: TraceId,
        snapshot: Arc<Snapshot>,
        peer: &Peer,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Self {
        Self {
            trace_id,
            snapshot,
            peer: peer.clone(),
            reverse_path,
            parameters,
            shares: Vec::new(),
            full: Vec::new(),
            expansion: ExpansionLimit::default(),
        }
    }

    /// The trace of an organization's share. The first takes the transaction's own id, which the
    /// client has seen; the others get ids of their own, so that nothing joins two organizations.
    pub(in crate::pipeline) fn trace_id_for(&self, organization: &Organization) -> TraceId {
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

    /// The mailboxes and addresses elsewhere that its recipients lead to so far.
    pub(in crate::pipeline) fn expanded(&self) -> usize {
        let addressees = self.shares.iter().flat_map(|share| &share.addressees);
        addressees.map(|addressee| addressee.members.len() + addressee.remote.len()).sum()
    }

    /// Adds a resolved recipient; the same address twice counts once.
    pub(in crate::pipeline) fn add(&mut self, recipient: EnvelopeRecipient, resolved: Resolved) {
        let organization = Arc::clone(&resolved.organization);
        let trace_id = self.trace_id_for(&organization);
        let position = self.shares.iter().position(|share| share.trace_id == trace_id);
        let position = position.unwrap_or_else(|| {
            let (addressees, forwarders) = (Vec::new(), Vec::new());
            self.shares.push(Share { organization, trace_id, addressees, forwarders });
            self.shares.len() - 1
        });
        let addressees = &mut self.shares[position].addressees;
        let address = &recipient.address;
        if !addressees.iter().any(|known| known.recipient.address.has_key_of(address)) {
            addressees.push(Addressee::new(recipient, resolved));
        }
    }
}

/// Why an address that does not resolve is refused.
pub(in crate::pipeline) fn reason_of(error: &ResolveError) -> Reason {
    match error {
        ResolveError::NotOurDomain => Reason::RelayDenied,
        ResolveError::Unknown => Reason::UnknownUser,
        ResolveError::Disabled => Reason::DisabledUser,
        ResolveError::GroupTooLarge => Reason::GroupTooLarge,
        ResolveError::EmptyGroup => Reason::EmptyGroup,
    }
}
