//! Where a message goes on to from a mailbox with rules of its own, or from a remote user: to users
//! here it goes on as inbound mail, elsewhere through the queue, each under a trace of its own.

use std::sync::Arc;

use super::decide::{DecidedShare, Judged};
use super::headers;
use super::outgoing::{Outgoing, OutgoingDisposition, OutgoingRecipient, authorship};
use super::transaction::{Addressee, Share};
use crate::clock::Timestamp;
use crate::directory::{Organization, RemoteMember, ResolveError, Resolved};
use crate::id::TraceId;
use crate::mail::{Address, DsnNotify, EnvelopeRecipient, RcptParameters, ReversePath, Srs};
use crate::rules::{Authors, OutboundAction, Winner, Withheld};
use crate::store::{Destination, Store};

/// Somebody who a message goes on to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) recipient: EnvelopeRecipient,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// To users here.
    Here(Resolved),
    /// To another server, perhaps because a rule says which.
    Elsewhere(Destination, Option<Winner<OutboundAction>>),
}

impl Target {
    /// Whether it is nobody of this organization's.
    pub(super) fn is_outside(&self, organization: &Organization) -> bool {
        match &self.way {
            Way::Here(resolved) => resolved.organization.id != organization.id,
            Way::Elsewhere(..) => true,
        }
    }
}

/// A message goes on from one mailbox to one address; told in the story.
#[derive(Debug)]
pub(super) struct SentOn {
    /// The mailbox or remote user.
    pub(super) from: Address,
    /// To whom.
    pub(super) to: Address,
    /// The trace under which it does.
    pub(super) trace_id: TraceId,
}

/// What a message that goes on becomes.
#[derive(Debug, Default)]
pub(super) struct Onward {
    /// Inbound mail, a share for each organization.
    pub(super) here: Vec<Share>,
    /// What leaves.
    pub(super) leaving: Option<Outgoing>,
    /// Each target once.
    pub(super) told: Vec<SentOn>,
}

/// Where mail for `recipient` goes, sent on by `from`.
///
/// # Errors
/// [`Withheld::NobodyThere`], [`Withheld::DoubtfulAuthor`]; or an outbound rule of the organization
/// drops or bounces it.
pub(super) fn target(
    mail: &Judged,
    organization: &Organization,
    from: &Address,
    recipient: EnvelopeRecipient,
) -> Result<Target, Withheld> {
    let (snapshot, to) = (&mail.snapshot, &recipient.address);
    match snapshot.directory.resolve(to, snapshot.settings.max_group_members) {
        Ok(resolved) => return Ok(Target { recipient, way: Way::Here(resolved) }),
        Err(ResolveError::NotOurDomain) => {}
        Err(_) => return Err(Withheld::NobodyThere),
    }
    if mail.is_author_unproven() {
        return Err(Withheld::DoubtfulAuthor);
    }
    // Who sends it on is its sender to the organization's rules, which are for whatever leaves.
    let authors = Authors { sender: Some(from), from: mail.headers.from.as_ref() };
    let policy = snapshot.policies.get(&organization.id);
    let rule = policy.and_then(|policy| policy.outbound_rules.evaluate(&authors, to));
    let destination = match rule.as_ref().map(|rule| &rule.action) {
        Some(OutboundAction::Drop | OutboundAction::Bounce) => return Err(Withheld::OutboundRule),
        Some(OutboundAction::RouteToSmtpGateway { gateway }) => {
            Destination::Gateway(Arc::clone(gateway))
        }
        Some(OutboundAction::Default) | None => Destination::Domain(to.domain().clone()),
    };
    Ok(Target { recipient, way: Way::Elsewhere(destination, rule) })
}

/// How much the sender is to learn of what becomes of a message that goes on (RFC 3461 §5.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// What the sender asked for.
    AsAsked,
    /// No success: that a group was opened is told by itself.
    NoSuccess,
    /// Nothing: a mailbox keeps the message, so it was delivered.
    Nothing,
}

/// What is asked of the next server for somebody whom the message goes on to. Nobody is told of a
/// message whose author may be forged.
pub(super) fn parameters(
    mail: &Judged,
    came_for: &EnvelopeRecipient,
    told: Told,
) -> RcptParameters {
    let mut parameters = came_for.parameters.clone();
    if told == Told::Nothing || !mail.may_tell_sender() {
        parameters.notify = Some(DsnNotify { never: true, ..DsnNotify::default() });
    } else if let Some(notify) = parameters.notify.as_mut().filter(|_| told == Told::NoSuccess) {
        notify.success = false;
        notify.never = !notify.failure && !notify.delay;
    }
    parameters
}

/// Sends a message on from one mailbox or remote user.
pub(super) fn send_on(
    mail: &Judged,
    share: &DecidedShare,
    from: &Address,
    targets: Vec<Target>,
    store: &Store,
) -> Onward {
    let mut onward = Onward::default();
    for Target { recipient, way } in targets {
        let to = recipient.address.clone();
        let trace_id = match way {
            Way::Here(resolved) => onward.go_on_here(share, from, recipient, resolved),
            Way::Elsewhere(destination, rule) => {
                let leaving =
                    onward.leaving.get_or_insert_with(|| leaving(mail, share, from, store));
                let disposition = OutgoingDisposition::Queue(destination);
                leaving.recipients.push(OutgoingRecipient { recipient, disposition, rule });
                leaving.trace_id
            }
        };
        onward.told.push(SentOn { from: from.clone(), to, trace_id });
    }
    onward
}

impl Onward {
    fn go_on_here(
        &mut self,
        share: &DecidedShare,
        from: &Address,
        recipient: EnvelopeRecipient,
        resolved: Resolved,
    ) -> TraceId {
        let Resolved { organization, members, remote } = resolved;
        let addressee = Addressee { recipient, members, remote };
        let same = |known: &&mut Share| known.organization.id == organization.id;
        if let Some(known) = self.here.iter_mut().find(same) {
            known.addressees.push(addressee);
            return known.trace_id;
        }
        let trace_id = TraceId::generate();
        let forwarders = std::iter::once(from).chain(&share.forwarders).cloned().collect();
        self.here.push(Share { organization, trace_id, addressees: vec![addressee], forwarders });
        trace_id
    }
}

fn leaving(mail: &Judged, share: &DecidedShare, from: &Address, store: &Store) -> Outgoing {
    Outgoing {
        trace_id: TraceId::generate(),
        organization: Arc::clone(&share.organization),
        email: from.clone(),
        authorship: authorship(&mail.headers),
        reverse_path: reverse_path(mail, &share.organization, from, store),
        parameters: mail.parameters.clone(),
        recipients: Vec::new(),
        prefix: headers::onward_prefix(mail, share, from),
        added: Vec::new(),
        usage: None,
    }
}

/// The envelope sender under which it leaves. A sender of a domain here passes SPF as it is; one
/// that was not sent from there gives way to the mailbox's own address.
fn reverse_path(
    mail: &Judged,
    organization: &Organization,
    from: &Address,
    store: &Store,
) -> ReversePath {
    let is_here = |sender: &Address| mail.snapshot.directory.is_local(sender.domain());
    let Some(domain) = organization.domains.first() else { return mail.reverse_path.clone() };
    if mail.reverse_path.address().is_none_or(is_here) {
        let is_proven = mail.reverse_path == ReversePath::Null || mail.is_sender_proven();
        let path = || ReversePath::Address(from.clone());
        return if is_proven { mail.reverse_path.clone() } else { path() };
    }
    let srs = Srs::new(domain.clone(), &store.sender_rewriting_key(domain));
    srs.forward(&mail.reverse_path, from, mail.received_at)
}

/// The first sender of a message that was forwarded under `address`, if we made that address: where
/// a bounce to it belongs.
pub(super) fn first_sender(
    organization: &Arc<Organization>,
    address: &Address,
    store: &Store,
    now: Timestamp,
) -> Option<Resolved> {
    let srs = Srs::new(address.domain().clone(), &store.sender_rewriting_key(address.domain()));
    let forward_to = srs.reverse(address, now).ok()?;
    let returned = RemoteMember { address: address.clone(), forward_to, expanded_from: None };
    let organization = Arc::clone(organization);
    Some(Resolved { organization, members: Vec::new(), remote: vec![returned] })
}
