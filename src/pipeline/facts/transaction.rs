//! A mail transaction as the pipeline knows it: who it is for, in which organizations.

use std::sync::Arc;

use super::begun::Begun;
use super::settings::Settings;
use super::snapshot::Snapshot;
use crate::directory::{Member, Organization, RemoteMember, ResolveError, Resolved};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, EnvelopeRecipient, MailParameters, Peer, ReversePath};
use crate::smtp::reason::Reason;

/// A transaction of another server; keeps the snapshot that it began with.
#[derive(Debug)]
pub struct Transaction {
    begun: Begun,
    /// One for each organization that has a recipient.
    shares: Vec<Share>,
    /// Recipients refused because their mailbox is full: they bounced, whatever follows.
    full: Vec<FullMailbox>,
    expansion: ExpansionLimit,
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
    /// The trace under which the last of them has it.
    pub(in crate::pipeline) sent_on_from: Option<TraceId>,
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

/// Who has no room at RCPT.
#[derive(Debug)]
pub(in crate::pipeline) struct FullRecipient {
    pub(in crate::pipeline) address: Address,
    /// Whose mailbox it is.
    pub(in crate::pipeline) id: EntityId,
}

/// The mailboxes and addresses elsewhere that the recipients of all shares lead to.
pub(in crate::pipeline) fn expanded(shares: &[Share]) -> usize {
    let addressees = shares.iter().flat_map(|share| &share.addressees);
    addressees.map(|addressee| addressee.members.len() + addressee.remote.len()).sum()
}

impl Transaction {
    /// A transaction without recipients.
    pub(in crate::pipeline) fn begin(begun: Begun) -> Self {
        let expansion = ExpansionLimit::default();
        Self { begun, shares: Vec::new(), full: Vec::new(), expansion }
    }

    pub(in crate::pipeline) fn trace_id(&self) -> TraceId {
        self.begun.trace_id
    }

    pub(in crate::pipeline) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.begun.snapshot
    }

    pub(in crate::pipeline) fn peer(&self) -> &Peer {
        &self.begun.peer
    }

    pub(in crate::pipeline) fn reverse_path(&self) -> &ReversePath {
        &self.begun.reverse_path
    }

    pub(in crate::pipeline) fn parameters(&self) -> &MailParameters {
        &self.begun.parameters
    }

    pub(in crate::pipeline) fn full(&self) -> &[FullMailbox] {
        &self.full
    }

    /// Its recipients, in the order of their organizations.
    pub(in crate::pipeline) fn recipients(&self) -> impl Iterator<Item = &Address> {
        let addressees = self.shares.iter().flat_map(|share| &share.addressees);
        addressees.map(|addressee| &addressee.recipient.address)
    }

    /// What MAIL began, the shares, and who was refused for a full mailbox.
    pub(in crate::pipeline) fn into_parts(self) -> (Begun, Vec<Share>, Vec<FullMailbox>) {
        (self.begun, self.shares, self.full)
    }

    /// Before a recipient is resolved.
    ///
    /// # Errors
    /// An earlier recipient led past the limit.
    pub(in crate::pipeline) fn check_open(&self) -> Result<(), Reason> {
        self.expansion.check_open()
    }

    /// Whether it may lead to these mailboxes too.
    ///
    /// # Errors
    /// They lead past the limit.
    pub(in crate::pipeline) fn check_expansion(
        &mut self,
        resolved: &Resolved,
    ) -> Result<(), Reason> {
        let so_far = self.expanded();
        self.expansion.check(so_far, resolved, &self.begun.snapshot.settings)
    }

    /// Notes that a recipient is refused because the mailbox is full.
    pub(in crate::pipeline) fn refuse_full(&mut self, resolved: &Resolved, full: FullRecipient) {
        let FullRecipient { address, id } = full;
        let trace_id = self.trace_id_for(&resolved.organization);
        let organization = Arc::clone(&resolved.organization);
        self.full.push(FullMailbox { organization, trace_id, address, id });
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
        known.unwrap_or_else(|| if is_first { self.begun.trace_id } else { TraceId::generate() })
    }

    /// The mailboxes and addresses elsewhere that its recipients lead to so far.
    pub(in crate::pipeline) fn expanded(&self) -> usize {
        expanded(&self.shares)
    }

    /// Adds a resolved recipient; the same address twice counts once.
    pub(in crate::pipeline) fn add(&mut self, recipient: EnvelopeRecipient, resolved: Resolved) {
        let organization = Arc::clone(&resolved.organization);
        let trace_id = self.trace_id_for(&organization);
        let position = self.shares.iter().position(|share| share.trace_id == trace_id);
        let position = position.unwrap_or_else(|| {
            let (addressees, forwarders) = (Vec::new(), Vec::new());
            let sent_on_from = None;
            let share = Share { organization, trace_id, addressees, forwarders, sent_on_from };
            self.shares.push(share);
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
