//! What leaves, or is refused to a user who submits it: the outbound half of a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::applied::rules_applied;
use super::headers::Headers;
use crate::clock::Timestamp;
use crate::directory::{Directory, Organization};
use crate::events::{
    BouncedRecipient, Event, EventLine, OutgoingBounced, OutgoingSent, OutgoingSubmitted,
    RuleApplied, RuleType,
};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, Domain, EnvelopeRecipient, MailParameters, ReversePath};
use crate::rules::{OutboundAction, Winner};
use crate::smtp::reason::Reason;
use crate::store::{
    Authorship, Destination, Keeper, Mail, MailboxOwner, Purpose, QueueEntry, UsageHold,
};

/// The outbound half of a submitted message: each recipient has one disposition.
#[derive(Debug)]
pub(in crate::pipeline) struct Outgoing {
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) organization: Arc<Organization>,
    /// The own address of whoever submits it, or sends it on.
    pub(in crate::pipeline) email: Address,
    /// Who that is.
    pub(in crate::pipeline) entity: EntityId,
    /// The trace under which it came to whoever sends it on.
    pub(in crate::pipeline) sent_on_from: Option<TraceId>,
    pub(in crate::pipeline) authorship: Authorship,
    pub(in crate::pipeline) reverse_path: ReversePath,
    /// Who has the reverse-path, if it is somebody here.
    pub(in crate::pipeline) returns_to: Option<MailboxOwner>,
    /// The domain under which a token stands for the reverse-path.
    pub(in crate::pipeline) token_domain: Option<Domain>,
    /// Who keeps it if it bounces.
    pub(in crate::pipeline) keeper: Option<Keeper>,
    pub(in crate::pipeline) parameters: MailParameters,
    pub(in crate::pipeline) recipients: Vec<OutgoingRecipient>,
    /// The fields above all others on top of what a mailbox or remote user sends on.
    pub(in crate::pipeline) prefix: Vec<u8>,
    /// Fields that the message lacked.
    pub(in crate::pipeline) added: Vec<u8>,
    /// The part of the message for which nobody gets it, if it is for one.
    pub(in crate::pipeline) objected_to: Option<String>,
    /// Recipients outside the organization, counted.
    pub(in crate::pipeline) usage: Option<UsageHold>,
}

/// Who has a reverse-path, if it is somebody here.
pub(in crate::pipeline) fn owner_of(
    reverse_path: &ReversePath,
    directory: &Directory,
) -> Option<MailboxOwner> {
    let (organization, entity) = directory.entity_of(reverse_path.address()?)?;
    Some(MailboxOwner { organization: organization.into(), entity: entity.clone() })
}

/// Whether a user has submitted what leaves (guide 1576): what a mailbox or remote user sends on may
/// be anybody's, and its arrival has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum IsSubmitted {
    Yes,
    No,
}

/// A recipient with its disposition.
#[derive(Debug)]
pub(in crate::pipeline) struct OutgoingRecipient {
    pub(in crate::pipeline) recipient: EnvelopeRecipient,
    pub(in crate::pipeline) disposition: OutgoingDisposition,
    pub(in crate::pipeline) rule: Option<Winner<OutboundAction>>,
}

/// What becomes of a submitted message for a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OutgoingDisposition {
    /// It goes on as inbound mail.
    Here,
    /// It leaves.
    Queue(Destination),
    /// It is accepted and discarded.
    Drop,
    /// It is refused if all recipients are, else the sender is told.
    Bounce(Reason),
}

impl Outgoing {
    /// Whether it leaves for anybody.
    pub(in crate::pipeline) fn leaves(&self) -> bool {
        self.recipients.iter().any(|it| matches!(it.disposition, OutgoingDisposition::Queue(_)))
    }

    /// Whether somebody gets it who is not here, or it is dropped for somebody.
    pub(in crate::pipeline) fn is_taken(&self) -> bool {
        self.recipients.iter().any(|recipient| match recipient.disposition {
            OutgoingDisposition::Queue(_) | OutgoingDisposition::Drop => true,
            OutgoingDisposition::Here | OutgoingDisposition::Bounce(_) => false,
        })
    }

    /// Who does not get it by a rule or a refusal, and why.
    pub(in crate::pipeline) fn bounced(
        &self,
    ) -> impl Iterator<Item = (&EnvelopeRecipient, Reason)> {
        self.recipients.iter().filter_map(|recipient| match recipient.disposition {
            OutgoingDisposition::Bounce(reason) => Some((&recipient.recipient, reason)),
            _ => None,
        })
    }

    /// What goes into the queue, if anything does, with these fields on top of the content.
    pub(in crate::pipeline) fn mail(&self, top: &[u8], received_at: Timestamp) -> Option<Mail> {
        let queued = self.entries();
        (!queued.is_empty()).then(|| Mail {
            id: self.trace_id,
            received_at,
            prefix: [&self.prefix, top].concat(),
            suffix: Vec::new(),
            deliveries: Vec::new(),
            queued,
        })
    }

    /// The entries of the queue: one for each destination.
    pub(in crate::pipeline) fn entries(&self) -> Vec<QueueEntry> {
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
            returns_to: self.returns_to.clone(),
            token_domain: self.token_domain.clone(),
            keeper: self.keeper.clone(),
        }
    }

    /// The events in the order of the product contract's §9; for recipients here the message is
    /// sent when it is accepted.
    pub(in crate::pipeline) fn push_events(
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
pub(in crate::pipeline) fn sent(recipient: &Address, authorship: &Authorship) -> Event {
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

pub(in crate::pipeline) fn authorship(headers: &Headers) -> Authorship {
    Authorship {
        from: headers.from().cloned(),
        sender: headers.on_behalf_sender().cloned(),
        message_id: headers.message_id().map(str::to_owned),
        subject: headers.subject().map(str::to_owned),
    }
}
