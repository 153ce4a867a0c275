//! Stage: where a submitted message goes for each recipient, and why. The way of recipients here
//! continues on the path that all inbound mail takes, under a trace of its own.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;

use super::applied::rules_applied;
use super::decide::Judged;
use super::headers::Received;
use super::receive::Headers;
use super::snapshot::Policy;
use super::submission::{Composed, Submission, SubmittedRecipient, Way};
use super::transaction::{Addressee, ExpansionLimit, Share, Transaction};
use crate::clock::Timestamp;
use crate::directory::{Directory, Organization, Resolved};
use crate::domains::DomainKeys;
use crate::events::{
    BouncedRecipient, Event, EventLine, OutgoingBounced, OutgoingSent, OutgoingSubmitted,
    RuleApplied, RuleType,
};
use crate::heavy::Turn;
use crate::id::TraceId;
use crate::mail::{
    Address, Domain, EnvelopeRecipient, MailParameters, ReversePath, author_domains,
};
use crate::msgauth::SignError;
use crate::rules::{Authors, OutboundAction, Party, Sender, Winner};
use crate::smtp::reason::Reason;
use crate::store::{
    Authorship, Destination, Keeper, Mail, MailboxName, Purpose, QueueEntry, Store, UsageExceeded,
    UsageHold, UsageLimits, Written,
};

/// The outbound half of a submitted message: each recipient has one disposition.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) trace_id: TraceId,
    pub(super) organization: Arc<Organization>,
    /// The user's own address.
    pub(super) email: Address,
    pub(super) authorship: Authorship,
    pub(super) reverse_path: ReversePath,
    /// The domain under which a token stands for the reverse-path.
    pub(super) token_domain: Option<Domain>,
    /// Who keeps it if it bounces.
    pub(super) keeper: Option<Keeper>,
    pub(super) parameters: MailParameters,
    pub(super) recipients: Vec<OutgoingRecipient>,
    /// The fields put on top of what leaves.
    pub(super) prefix: Vec<u8>,
    /// Fields that the message lacked.
    pub(super) added: Vec<u8>,
    /// The part of the message for which nobody gets it, if it is for one.
    pub(super) objected_to: Option<String>,
    /// Recipients outside the organization, counted.
    pub(super) usage: Option<UsageHold>,
}

/// Whether a user has submitted what leaves (guide 1576): what a mailbox or remote user sends on may
/// be anybody's, and its arrival has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsSubmitted {
    Yes,
    No,
}

/// A recipient with its disposition.
#[derive(Debug)]
pub(super) struct OutgoingRecipient {
    pub(super) recipient: EnvelopeRecipient,
    pub(super) disposition: OutgoingDisposition,
    pub(super) rule: Option<Winner<OutboundAction>>,
}

/// What becomes of a submitted message for a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OutgoingDisposition {
    /// It goes on as inbound mail.
    Here,
    /// It leaves.
    Queue(Destination),
    /// It is accepted and discarded.
    Drop,
    /// It is refused if all recipients are, else the sender is told.
    Bounce(Reason),
}

/// A decided message: the outbound half, and the inbound transaction of the recipients here.
#[derive(Debug)]
pub(super) struct Dispatched {
    pub(super) outgoing: Outgoing,
    pub(super) inbound: Transaction,
    pub(super) content: Vec<u8>,
    pub(super) headers: Headers,
    pub(super) submitted_at: Timestamp,
}

/// Decides for every recipient, and counts those outside.
pub(super) fn dispatch(_: &Turn, message: Composed, store: &Store) -> Dispatched {
    let Composed { mut submission, content, added, headers, submitted_at, veto } = message;
    let objected_to = veto.as_ref().and_then(|veto| veto.place.clone());
    let veto = veto.map(|veto| veto.reason);
    let quota = count_submitted(&submission, veto, submitted_at, store);
    let veto = veto.or(quota.as_ref().err().copied());
    let mut recipients = Vec::with_capacity(submission.recipients.len());
    let mut here = Vec::new();
    let submitted = std::mem::take(&mut submission.recipients);
    let snapshot = Arc::clone(&submission.snapshot);
    let directory = &snapshot.directory;
    let rules = submission.policy().map(|policy| &*policy.outbound_rules);
    let rules = rules.filter(|rules| veto.is_none() && !rules.is_empty());
    let rules = rules.map(|rules| (rules, authors(&headers, directory)));
    for SubmittedRecipient { recipient, way } in submitted {
        let rule = rules.as_ref().and_then(|(rules, authors)| {
            let meant = snapshot.meant(&recipient.address);
            rules.evaluate(authors, &Party::of(&meant, directory)).winner
        });
        let disposition = match veto {
            Some(reason) => OutgoingDisposition::Bounce(reason),
            None => disposition(rule.as_ref(), &recipient.address, &way),
        };
        if let (OutgoingDisposition::Here, Way::Here(resolved)) = (&disposition, way) {
            here.push((recipient.clone(), resolved));
        }
        recipients.push(OutgoingRecipient { recipient, disposition, rule });
    }
    let inbound = inbound(&submission, here);
    let outgoing = Outgoing {
        trace_id: submission.trace_id,
        organization: submission.organization,
        email: submission.email,
        authorship: authorship(&headers),
        reverse_path: submission.reverse_path,
        token_domain: None,
        keeper: None,
        parameters: submission.parameters,
        recipients,
        prefix: Vec::new(),
        added,
        objected_to,
        usage: quota.ok().flatten(),
    };
    Dispatched { outgoing, inbound, content, headers, submitted_at }
}

pub(super) fn authorship(headers: &Headers) -> Authorship {
    Authorship {
        from: headers.from().cloned(),
        sender: headers.on_behalf_sender().cloned(),
        message_id: headers.message_id.clone(),
        subject: headers.subject.clone(),
    }
}

/// Counts recipients that a user writes to (guide 3425–3450), also by a rule of the mailbox (3416).
pub(super) fn count(
    policy: &Policy,
    by: &MailboxName,
    written: Written,
    at: Timestamp,
    store: &Store,
) -> Result<UsageHold, UsageExceeded> {
    let limits = UsageLimits {
        user: policy.recipient_quotas.per_user,
        organization: policy.recipient_quotas.per_organization,
        inside: policy.recipient_quotas.inside_per_user,
    };
    store.count_recipients(by, at.as_secs() / 86_400, written, limits)
}

/// How many mailboxes of its own organization, and remote users, a message is for: each is counted
/// once, however many recipients lead to it.
fn count_inside(recipients: &[&Resolved]) -> u64 {
    let count = match recipients {
        [only] => only.count(),
        all => all.iter().flat_map(|it| it.addresses()).collect::<HashSet<_>>().len(),
    };
    count as u64
}

fn count_submitted(
    submission: &Submission,
    veto: Option<Reason>,
    now: Timestamp,
    store: &Store,
) -> Result<Option<UsageHold>, Reason> {
    let own = submission.organization.id.as_str();
    let mut written = Written::default();
    let mut inside = Vec::new();
    for recipient in &submission.recipients {
        match &recipient.way {
            Way::Here(resolved) if resolved.organization.id.as_str() == own => {
                inside.push(resolved);
            }
            Way::Here(_) | Way::Elsewhere => written.outside += 1,
        }
    }
    written.inside = count_inside(&inside);
    let Some(policy) = submission.policy().filter(|_| veto.is_none()) else { return Ok(None) };
    let by = MailboxName { organization: own.into(), user: Arc::clone(&submission.login.user) };
    match count(policy, &by, written, now, store) {
        Ok(hold) => Ok(Some(hold)),
        Err(UsageExceeded::User) => Err(Reason::UserQuotaExceeded),
        Err(UsageExceeded::Organization) => Err(Reason::OrganizationQuotaExceeded),
        Err(UsageExceeded::Inside) => Err(Reason::InsideQuotaExceeded),
    }
}

/// Whom a submitted message says it is from, as outbound rules know them.
fn authors<'a>(headers: &'a Headers, directory: &'a Directory) -> Authors<'a> {
    let party = |address: &'a Address| Party::of(address, directory);
    Authors {
        // Who may send as whom was asked before.
        sender: headers.sender.as_ref().map(|it| Sender { party: party(it), is_proven: true }),
        from: headers.authors.iter().map(party).collect(),
    }
}

fn disposition(
    rule: Option<&Winner<OutboundAction>>,
    address: &Address,
    way: &Way,
) -> OutgoingDisposition {
    match (rule.map(|rule| &rule.action), way) {
        (Some(OutboundAction::Drop), _) => OutgoingDisposition::Drop,
        (Some(OutboundAction::Bounce), _) => {
            OutgoingDisposition::Bounce(Reason::OutboundRuleBounce)
        }
        (Some(OutboundAction::RouteToSmtpGateway { gateway }), _) => {
            OutgoingDisposition::Queue(Destination::Gateway(Arc::clone(gateway)))
        }
        (Some(OutboundAction::Default) | None, Way::Here(_)) => OutgoingDisposition::Here,
        (Some(OutboundAction::Default) | None, Way::Elsewhere) => {
            OutgoingDisposition::Queue(Destination::Domain(address.domain().clone()))
        }
    }
}

/// The transaction of the recipients here. Each organization's share has an id of its own: it is
/// another trace than the outbound one (guide 1736–1773).
fn inbound(submission: &Submission, here: Vec<(EnvelopeRecipient, Resolved)>) -> Transaction {
    let mut shares: Vec<Share> = Vec::new();
    for (recipient, resolved) in here {
        let organization = Arc::clone(&resolved.organization);
        let addressee = Addressee::new(recipient, resolved);
        match shares.iter_mut().find(|share| share.organization.id == organization.id) {
            Some(share) => share.addressees.push(addressee),
            None => shares.push(Share {
                organization,
                trace_id: TraceId::generate(),
                addressees: vec![addressee],
                forwarders: Vec::new(),
            }),
        }
    }
    Transaction {
        trace_id: submission.trace_id,
        snapshot: Arc::clone(&submission.snapshot),
        peer: submission.peer.clone(),
        reverse_path: submission.reverse_path.clone(),
        parameters: submission.parameters.clone(),
        shares,
        full: Vec::new(),
        expansion: ExpansionLimit::default(),
    }
}

/// Stage: makes the fields on top of a submitted message that leaves, also from a mailbox that sends
/// it on: `Received`, then the signatures of each author's domain over everything below them, if it
/// has keys.
///
/// # Errors
/// The message cannot be signed; it must not leave unsigned then.
pub(super) fn sign(
    turn: &Turn,
    mail: &mut Judged,
    leaving: &mut [Outgoing],
    keys: &DomainKeys,
) -> Result<(), SignError> {
    let (snapshot, peer, at) = (&mail.snapshot, &mail.peer, mail.received_at);
    let Some(outgoing) = mail.outgoing.as_deref_mut() else { return Ok(()) };
    if !outgoing.leaves() && leaving.is_empty() {
        return Ok(());
    }
    let (hostname, id) = (&snapshot.settings.hostname, outgoing.trace_id);
    let mut prefix = Received { peer, name: None, hostname, id, recipient: None }.at(at);
    for domain in author_domains(&mail.headers.authors) {
        if let Some(signer) = keys.signer_for(domain) {
            prefix.push_str(&signer.sign(turn, &[&outgoing.added, &mail.content], at)?);
        }
    }
    outgoing.prefix = [prefix.as_bytes(), &outgoing.added].concat();
    leaving.iter_mut().for_each(|onward| onward.prefix.extend_from_slice(&outgoing.prefix));
    Ok(())
}

impl Outgoing {
    /// Whether it leaves for anybody.
    fn leaves(&self) -> bool {
        self.recipients.iter().any(|it| matches!(it.disposition, OutgoingDisposition::Queue(_)))
    }

    /// Whether somebody gets it who is not here, or it is dropped for somebody.
    pub(super) fn is_taken(&self) -> bool {
        self.recipients.iter().any(|recipient| match recipient.disposition {
            OutgoingDisposition::Queue(_) | OutgoingDisposition::Drop => true,
            OutgoingDisposition::Here | OutgoingDisposition::Bounce(_) => false,
        })
    }

    /// Who does not get it by a rule or a refusal, and why.
    pub(super) fn bounced(&self) -> impl Iterator<Item = (&EnvelopeRecipient, Reason)> {
        self.recipients.iter().filter_map(|recipient| match recipient.disposition {
            OutgoingDisposition::Bounce(reason) => Some((&recipient.recipient, reason)),
            _ => None,
        })
    }

    /// What goes into the queue, if anything does.
    pub(super) fn mail(&self, received_at: Timestamp) -> Option<Mail> {
        let queued = self.entries();
        (!queued.is_empty()).then(|| Mail {
            id: self.trace_id,
            received_at,
            prefix: self.prefix.clone(),
            suffix: Vec::new(),
            deliveries: Vec::new(),
            queued,
        })
    }

    /// The entries of the queue: one for each destination.
    pub(super) fn entries(&self) -> Vec<QueueEntry> {
        let mut entries: Vec<QueueEntry> = Vec::new();
        for recipient in &self.recipients {
            let OutgoingDisposition::Queue(destination) = &recipient.disposition else { continue };
            match entries.iter_mut().find(|entry| entry.destination == *destination) {
                Some(entry) => entry.recipients.push(recipient.recipient.clone()),
                None => entries.push(self.entry(destination, &recipient.recipient)),
            }
        }
        entries
    }

    fn entry(&self, destination: &Destination, recipient: &EnvelopeRecipient) -> QueueEntry {
        QueueEntry {
            organization: self.organization.id.as_str().into(),
            purpose: Purpose::Message,
            destination: destination.clone(),
            reverse_path: self.reverse_path.clone(),
            parameters: self.parameters.clone(),
            recipients: vec![recipient.clone()],
            authorship: self.authorship.clone(),
            sender: Some(self.email.clone()),
            token_domain: self.token_domain.clone(),
            keeper: self.keeper.clone(),
        }
    }

    /// The events in the order of the product contract's §9; for recipients here the message is
    /// sent when it is accepted.
    pub(super) fn push_events(
        &self,
        events: &mut Vec<EventLine>,
        is_submitted: IsSubmitted,
        at: Timestamp,
        journaled_to: Option<Event>,
        refused: Option<Reason>,
    ) {
        let line = |event| EventLine {
            trace_id: self.trace_id,
            event,
            event_timestamp: at,
            organization_id: self.organization.id.to_string(),
        };
        if is_submitted == IsSubmitted::Yes {
            events.push(line(Event::OutgoingSubmitted(OutgoingSubmitted {
                recipients: self.addresses().collect(),
                sender: self.authorship.sender.as_ref().map(Address::to_string),
                from: self.authorship.from.as_ref().map(Address::to_string),
                subject: self.authorship.subject.clone(),
            })));
        }
        events.extend(self.rules_applied().into_iter().map(|rule| line(Event::RuleApplied(rule))));
        events.extend(journaled_to.map(line));
        for recipient in &self.recipients {
            let address = &recipient.recipient.address;
            match (&recipient.disposition, refused) {
                (OutgoingDisposition::Bounce(reason), _) => {
                    events.push(line(bounced(address, *reason)));
                }
                (OutgoingDisposition::Here, Some(reason)) => {
                    events.push(line(bounced(address, reason)));
                }
                (OutgoingDisposition::Here, None) => {
                    events.push(line(sent(address, &self.authorship)));
                }
                (OutgoingDisposition::Queue(_) | OutgoingDisposition::Drop, _) => {}
            }
        }
    }

    fn addresses(&self) -> impl Iterator<Item = String> {
        self.recipients.iter().map(|it| it.recipient.address.to_string())
    }

    fn rules_applied(&self) -> Vec<RuleApplied> {
        let won = self
            .recipients
            .iter()
            .filter_map(|recipient| Some((recipient.rule.as_ref()?, &recipient.recipient.address)));
        rules_applied(RuleType::OutboundRule, won)
    }
}

/// OUTGOING_EMAIL_SENT for a recipient.
pub(super) fn sent(recipient: &Address, authorship: &Authorship) -> Event {
    Event::OutgoingSent(OutgoingSent {
        recipient: recipient.to_string(),
        sender: authorship.sender.as_ref().map(Address::to_string),
        from: authorship.from.as_ref().map(Address::to_string),
        message_id: authorship.message_id.clone(),
    })
}

fn bounced(recipient: &Address, reason: Reason) -> Event {
    Event::OutgoingBounced(OutgoingBounced::new(BouncedRecipient {
        email_address: recipient.to_string(),
        reason: reason.text().to_owned(),
        status: reason.enhanced().to_owned(),
    }))
}
