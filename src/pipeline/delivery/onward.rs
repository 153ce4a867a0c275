//! Where a message goes on to from a mailbox with rules of its own, or from a remote user: to users
//! here it goes on as inbound mail, elsewhere through the queue, each under a trace of its own.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::directory::{Directory, Organization, RemoteMember, ResolveError, Resolved};
use crate::id::{EntityId, EntityKind, TraceId};
use crate::mail::{
    Address, DeliveryMarks, Domain, DsnNotify, EnvelopeRecipient, FirstSender, RcptParameters,
    ReversePath, Srs,
};
use crate::pipeline::delivery::prefix;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{
    Outgoing, OutgoingDisposition, OutgoingRecipient, authorship, owner_of,
};
use crate::pipeline::facts::transaction::{Addressee, Share};
use crate::pipeline::inbound::decide::DecidedShare;
use crate::rules::{Authors, OutboundAction, Party, RuleSet, Sender, Winner, Withheld};
use crate::store::{Destination, Store, StoreError};

/// How many forwards by domains here a bounce is led back through.
const MAX_FORWARDS: usize = 10;

/// Somebody who a message goes on to.
#[derive(Debug)]
pub(in crate::pipeline) struct Target {
    pub(in crate::pipeline) recipient: EnvelopeRecipient,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// To users here; of another organization perhaps because a rule says so.
    Here(Resolved, Option<Winner<OutboundAction>>),
    /// To another server, perhaps because a rule says which.
    Elsewhere(Destination, Option<Winner<OutboundAction>>),
}

impl Target {
    /// The users of this organization that it comes to; `None` if it is outside.
    pub(in crate::pipeline) fn inside(&self, organization: &Organization) -> Option<&Resolved> {
        match &self.way {
            Way::Here(resolved, _) if resolved.organization.id == organization.id => Some(resolved),
            Way::Here(..) | Way::Elsewhere(..) => None,
        }
    }

    /// How many mailboxes here, and addresses elsewhere, it comes to.
    pub(in crate::pipeline) fn count(&self) -> usize {
        match &self.way {
            Way::Here(resolved, _) => resolved.count(),
            Way::Elsewhere(..) => 1,
        }
    }
}

/// A message goes on from one mailbox to one address; told in the story.
#[derive(Debug)]
pub(in crate::pipeline) struct SentOn {
    /// The mailbox or remote user.
    pub(in crate::pipeline) from: Address,
    /// Whose it is.
    pub(in crate::pipeline) entity: EntityId,
    /// To whom.
    pub(in crate::pipeline) to: Address,
    /// The trace under which it does.
    pub(in crate::pipeline) trace_id: TraceId,
    /// The outbound rule by which it goes on to another organization here.
    pub(in crate::pipeline) rule: Option<Winner<OutboundAction>>,
}

/// What a message that goes on becomes.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Onward {
    /// Inbound mail, a share for each organization.
    pub(in crate::pipeline) here: Vec<Share>,
    /// What leaves.
    pub(in crate::pipeline) leaving: Option<Outgoing>,
    /// Each target once.
    pub(in crate::pipeline) told: Vec<SentOn>,
}

/// Where mail for `recipient` goes, sent on by `from`. Another organization is outside, also if it is
/// here: the rules for what leaves are asked as they are for what users submit to it.
///
/// # Errors
/// [`Withheld::NobodyThere`], [`Withheld::DoubtfulAuthor`]; or an outbound rule of the organization
/// drops or bounces it.
pub(in crate::pipeline) fn target(
    mail: &Judged,
    organization: &Organization,
    from: &Address,
    recipient: EnvelopeRecipient,
) -> Result<Target, Withheld> {
    let snapshot = mail.snapshot();
    let to = &recipient.address;
    let here = match snapshot.directory.resolve(to, snapshot.settings.max_group_members) {
        Ok(resolved) if resolved.organization.id == organization.id => {
            return Ok(Target { recipient, way: Way::Here(resolved, None) });
        }
        Ok(resolved) => Some(resolved),
        Err(ResolveError::NotOurDomain) => None,
        Err(_) => return Err(Withheld::NobodyThere),
    };
    if here.is_none() && mail.is_author_unproven() {
        return Err(Withheld::DoubtfulAuthor);
    }
    let policy = snapshot.policies.get(&organization.id);
    let mut rule = policy.and_then(|policy| rule_for(&policy.outbound_rules, mail, from, to));
    if mail.is_led_back(from) {
        rule.take_if(|rule| is_strict(&rule.action));
    }
    let action = rule.as_ref().map(|rule| &rule.action);
    let destination = match (action, here) {
        (Some(OutboundAction::Drop | OutboundAction::Bounce), _) => {
            return Err(Withheld::OutboundRule);
        }
        (Some(OutboundAction::RouteToSmtpGateway { .. }), Some(_)) if mail.is_author_unproven() => {
            return Err(Withheld::DoubtfulAuthor);
        }
        (Some(OutboundAction::RouteToSmtpGateway { gateway }), _) => {
            Destination::Gateway(Arc::clone(gateway))
        }
        (Some(OutboundAction::Default) | None, Some(resolved)) => {
            return Ok(Target { recipient, way: Way::Here(resolved, rule) });
        }
        (Some(OutboundAction::Default) | None, None) => Destination::Domain(to.domain().clone()),
    };
    Ok(Target { recipient, way: Way::Elsewhere(destination, rule) })
}

fn is_strict(action: &OutboundAction) -> bool {
    match action {
        OutboundAction::Drop | OutboundAction::Bounce => true,
        OutboundAction::Default | OutboundAction::RouteToSmtpGateway { .. } => false,
    }
}

/// The outbound rule for a message that `from` sends on: who does is its sender to the organization's
/// rules, which are for whatever leaves. An author whom nothing proves may make the outcome stricter
/// than it is for who sends it on, and not milder.
fn rule_for(
    rules: &RuleSet<OutboundAction>,
    mail: &Judged,
    from: &Address,
    to: &Address,
) -> Option<Winner<OutboundAction>> {
    if rules.is_empty() {
        return None;
    }
    let directory = &mail.snapshot().directory;
    let recipient = Party::of(to, directory);
    let sender = || Some(Sender { party: Party::of(from, directory), is_proven: true });
    let authors = mail.headers().authors().iter();
    let parties = authors.map(|author| Party::of(author, directory)).collect();
    let authors = Authors { sender: sender(), from: parties };
    let winner = rules.evaluate(&authors, &recipient).winner;
    let is_stricter = winner.as_ref().is_some_and(|winner| is_strict(&winner.action));
    let is_proven = |author: &Address| mail.road().proof_of(author.domain()).is_some();
    if is_stricter || mail.headers().authors().iter().all(is_proven) {
        return winner;
    }
    rules.evaluate(&Authors { sender: sender(), from: Vec::new() }, &recipient).winner
}

/// How much the sender is to learn of what becomes of a message that goes on (RFC 3461 §5.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Told {
    /// What the sender asked for.
    AsAsked,
    /// No success: that a group was opened is told by itself.
    NoSuccess,
    /// Nothing: a mailbox keeps the message, so it was delivered.
    Nothing,
}

/// What is asked of the next server for somebody whom the message goes on to. Nobody is told of a
/// message whose author may be forged.
pub(in crate::pipeline) fn parameters(
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

/// What is always the same for the same master key.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Keys<'a> {
    /// How mail is marked that mailboxes here send on.
    pub(in crate::pipeline) marks: &'a DeliveryMarks,
    /// How senders are rewritten to addresses of a domain.
    pub(in crate::pipeline) rewriting: &'a dyn Fn(&Domain) -> Srs,
}

/// A mailbox or remote user that sends a message on.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Forwarder<'a> {
    pub(in crate::pipeline) address: &'a Address,
    pub(in crate::pipeline) entity: &'a EntityId,
}

/// Sends a message on from one mailbox or remote user.
pub(in crate::pipeline) fn send_on(
    mail: &Judged,
    share: &DecidedShare,
    from: Forwarder<'_>,
    targets: Vec<Target>,
    keys: Keys<'_>,
) -> Onward {
    let mut onward = Onward::default();
    for Target { recipient, way } in targets {
        let to = recipient.address.clone();
        let mut within = None;
        let trace_id = match way {
            Way::Here(resolved, rule) => {
                within = rule;
                onward.go_on_here(share, from.address, recipient, resolved)
            }
            Way::Elsewhere(destination, rule) => {
                let leaving =
                    onward.leaving.get_or_insert_with(|| leaving(mail, share, from, keys));
                let disposition = OutgoingDisposition::Queue(destination);
                leaving.recipients.push(OutgoingRecipient { recipient, disposition, rule });
                leaving.trace_id
            }
        };
        let (from, entity) = (from.address.clone(), from.entity.clone());
        onward.told.push(SentOn { from, entity, to, trace_id, rule: within });
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
        let organization = Arc::clone(&resolved.organization);
        let addressee = Addressee::new(recipient, resolved);
        let same = |known: &&mut Share| known.organization.id == organization.id;
        if let Some(known) = self.here.iter_mut().find(same) {
            known.addressees.push(addressee);
            return known.trace_id;
        }
        let trace_id = TraceId::generate();
        let forwarders = std::iter::once(from).chain(share.forwarders()).cloned().collect();
        let addressees = vec![addressee];
        let sent_on_from = Some(share.trace_id());
        self.here.push(Share { organization, trace_id, addressees, forwarders, sent_on_from });
        trace_id
    }
}

fn leaving(mail: &Judged, share: &DecidedShare, from: Forwarder<'_>, keys: Keys<'_>) -> Outgoing {
    let mut reverse_path = mail.reverse_path().clone();
    let mut token_domain = None;
    match sent_as(mail, share.organization(), keys) {
        SentAs::Path(path) => reverse_path = path,
        SentAs::Token(domain) => token_domain = Some(domain),
    }
    Outgoing {
        trace_id: TraceId::generate(),
        organization: Arc::clone(share.organization()),
        email: from.address.clone(),
        entity: from.entity.clone(),
        sent_on_from: Some(share.trace_id()),
        authorship: authorship(mail.headers()),
        returns_to: owner_of(&reverse_path, &mail.snapshot().directory),
        reverse_path,
        token_domain,
        keeper: None,
        parameters: mail.parameters().clone(),
        recipients: Vec::new(),
        prefix: prefix::onward_prefix(mail, share, from.address, keys.marks),
        added: Vec::new(),
        objected_to: None,
        usage: None,
    }
}

/// Under which envelope sender a message leaves that is sent on.
enum SentAs {
    /// This one.
    Path(ReversePath),
    /// A token of this domain, which stands for the sender as it is: nothing shorter leads back.
    Token(Domain),
}

fn sent_as(mail: &Judged, organization: &Organization, keys: Keys<'_>) -> SentAs {
    let as_it_is = || SentAs::Path(mail.reverse_path().clone());
    // RFC 5321 §6.1: what reports a failure is never answered, so it stays null.
    let Some(sender) = mail.reverse_path().address() else { return as_it_is() };
    let Some(domain) = organization.domains.first() else { return as_it_is() };
    let is_here = |address: &Address| mail.snapshot().directory.is_local(address.domain());
    let has_our_mark = |address: &Address| {
        (keys.rewriting)(address.domain()).reverse(address, mail.received_at()).is_ok()
    };
    if is_here(sender) {
        // It passes SPF as it is, which a sender does not get by saying so.
        let is_sure = mail.is_sender_proven() || has_our_mark(sender);
        return if is_sure { as_it_is() } else { SentAs::Token(domain.clone()) };
    }
    let first = Srs::of_first_forwarder(sender).filter(is_here);
    if let Some(first) = first {
        // Another server says that we have forwarded it before.
        let is_true = has_our_mark(&first);
        let path = SentAs::Path(ReversePath::Address(first));
        return if is_true { path } else { SentAs::Token(domain.clone()) };
    }
    match (keys.rewriting)(domain).forward(sender, mail.received_at()) {
        Some(address) => SentAs::Path(ReversePath::Address(address)),
        None => SentAs::Token(domain.clone()),
    }
}

/// The first sender of a message that was forwarded under `address`, if we made that address: where
/// a bounce to it belongs. Blocks.
///
/// # Errors
/// What is kept of the sender cannot be read.
pub(in crate::pipeline) fn first_sender(
    directory: &Directory,
    address: &Address,
    store: &Store,
    now: Timestamp,
) -> Result<Option<Resolved>, StoreError> {
    let Some(organization) = directory.organization_of(address.domain()) else { return Ok(None) };
    let mut sender = address.clone();
    for _ in 0..MAX_FORWARDS {
        let Ok(found) = store.sender_rewriting(sender.domain()).reverse(&sender, now) else {
            return Ok(None);
        };
        sender = match found {
            FirstSender::Address(address) => address,
            FirstSender::KeptAt(place) => match store.first_sender(place)? {
                Some(address) => address,
                None => return Ok(None),
            },
        };
        // What was forwarded from one domain here to another here leads back through both.
        if !Srs::is_rewritten(&sender) || !directory.is_local(sender.domain()) {
            let address = address.clone();
            // No user, but always the same for the same address; no name has an `@`.
            let id = EntityId::of_first(EntityKind::User, organization.id.as_str(), &address.key());
            let returned = RemoteMember { id, address, forward_to: sender };
            return Ok(Some(Resolved {
                organization: Arc::clone(organization),
                expanded_from: None,
                members: Arc::default(),
                remote: Arc::new([returned]),
            }));
        }
    }
    Ok(None)
}
