//! Stage: everything that a message changes becomes durable in one step, or nothing does.

use std::fmt;
use std::ops::Range;

use crate::clock::Timestamp;
use crate::events::{
    BouncedRecipient, DmarcPolicyApplied, EmailReceived, Event, EventLine, IncomingBounced,
    JournalingInitiated, MailboxDelivered, RuleActionApplied, RuleApplied, RuleType,
};
use crate::heavy::Owner;
use crate::id::TraceId;
use crate::mail::{Address, take_out};
use crate::pipeline::delivery::admit::{Admitted, AdmittedShare};
use crate::pipeline::delivery::sign::{Signed, Top};
use crate::pipeline::facts::applied::rules_applied;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::IsSubmitted;
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::transaction::FullMailbox;
use crate::pipeline::record::claim::Claimed;
use crate::pipeline::record::journal::Initiated;
use crate::pipeline::record::tell;
use crate::smtp::reason::Reason;
use crate::store::{Blob, Commit, Delivery, Mail, Store, StoreError};

/// Proof that a message is durable; its text is that of the 250. Nothing but [`Change::commit`] makes
/// one.
#[derive(Debug)]
pub struct Committed {
    trace_ids: Vec<TraceId>,
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepted")?;
        self.trace_ids.iter().try_for_each(|id| write!(f, " {id}"))
    }
}

/// What an accepted message changes, with everything beside it.
pub(in crate::pipeline) struct Change {
    trace_ids: Vec<TraceId>,
    commit: Commit,
}

impl Change {
    /// All that `message` changes.
    pub(in crate::pipeline) fn of(message: Claimed) -> Self {
        let trace_ids = trace_ids(message.signed().admitted());
        let mut commit = Commit::default();
        tell(&message, &mut commit);
        let (signed, beside, queue_room) = message.into_parts();
        let mut around = Vec::new();
        let mut own = Vec::new();
        for placed in beside {
            commit.stories.push(placed.story());
            commit.events.extend(placed.events);
            match placed.own {
                None => around.extend(placed.mails),
                Some(content) => own.push(Blob { content, mails: placed.mails }),
            }
        }
        commit.queue_room = queue_room;
        put_contents(signed, around, &mut commit);
        commit.blobs.append(&mut own);
        Self { trace_ids, commit }
    }

    /// Makes it durable, in a turn of this owner.
    pub(in crate::pipeline) async fn commit(
        self,
        store: &Store,
        owner: Owner,
    ) -> Result<Committed, StoreError> {
        store.commit(Commit { owner, ..self.commit }).await?;
        Ok(Committed { trace_ids: self.trace_ids })
    }
}

/// The traces that an answer names: what a user submits, and each organization that it came for.
fn trace_ids(admitted: &Admitted) -> Vec<TraceId> {
    let mut ids = Vec::new();
    if let Road::Submitted(outgoing) = admitted.mail().road() {
        ids.push(outgoing.trace_id);
    }
    let came_for = admitted.shares().iter().filter(|share| share.decided().is_first());
    ids.extend(came_for.map(|share| share.decided().trace_id()));
    ids
}

/// Tells the stories of an accepted message, and its events.
fn tell(message: &Claimed, commit: &mut Commit) {
    let admitted = message.signed().admitted();
    let top = message.signed().top();
    let mail = admitted.mail();
    let records = message.records();
    let at = mail.received_at();
    if let Road::Submitted(outgoing) = mail.road() {
        let record = records.of_outgoing();
        commit.stories.push(tell::tell_outgoing(mail, outgoing, top, record, None));
        let to = record.and_then(Initiated::to);
        let events = &mut commit.events;
        outgoing.push_events(events, IsSubmitted::Yes, at, to.map(initiation), None);
    }
    for (share, initiated) in admitted.shares().iter().zip(records.of_shares()) {
        commit.stories.push(tell::tell(mail, share, initiated.as_ref(), None));
        let to = initiated.as_ref().and_then(Initiated::to);
        push_events(&mut commit.events, mail, share, to, Outcome::Accepted);
    }
    let full = mail.road().full().iter().filter(|full| !is_told(full, admitted.shares()));
    push_full(&mut commit.events, full, at);
    if admitted.leaving().iter().any(|onward| onward.token_domain.is_some()) {
        commit.first_sender = mail.reverse_path().address().cloned();
    }
    for onward in admitted.leaving() {
        commit.stories.push(tell::tell_outgoing(mail, onward, top, None, None));
        onward.push_events(&mut commit.events, IsSubmitted::No, at, None, None);
    }
}

/// Puts in the content, for the mailboxes and the queue, and what was counted.
fn put_contents(signed: Signed, around: Vec<Mail>, commit: &mut Commit) {
    let (admitted, top) = signed.into_parts();
    let received_at = admitted.mail().received_at();
    let onward = admitted.leaving().iter();
    let leaving: Vec<_> =
        onward.filter_map(|onward| onward.mail(top.fields(), received_at)).collect();
    let forged = admitted.forged().to_vec();
    let (mail, shares, usage) = admitted.into_parts();
    commit.usage = usage;
    let mut mails: Vec<_> =
        shares.into_iter().flat_map(|share| mails_of(share, received_at)).collect();
    mails.extend(leaving);
    let (content, road) = mail.into_parts();
    if let Road::Submitted(outgoing) = road {
        mails.extend(outgoing.mail(top.fields(), received_at));
        commit.usage.extend(outgoing.usage);
    }
    commit.blobs = blobs(content, &forged, mails, around);
}

/// Makes the events of a message durable that is refused in session, in a turn of this owner.
pub(in crate::pipeline) async fn commit_refusal(
    message: Admitted,
    rejection: &Rejection,
    store: &Store,
    owner: Owner,
) -> Result<(), StoreError> {
    let reason = rejection.reason;
    let mail = message.mail();
    let at = mail.received_at();
    let mut commit = Commit { owner, ..Commit::default() };
    match mail.road() {
        Road::Submitted(outgoing) => {
            // It was never received by the organizations of its recipients here.
            let told = tell::tell_outgoing(mail, outgoing, &Top::default(), None, Some(rejection));
            commit.stories.push(told);
            let events = &mut commit.events;
            outgoing.push_events(events, IsSubmitted::Yes, at, None, Some(reason));
        }
        Road::Received(arrival) => {
            for share in message.shares() {
                commit.stories.push(tell::tell(mail, share, None, Some(reason)));
                push_events(&mut commit.events, mail, share, None, Outcome::Refused);
            }
            push_full(&mut commit.events, arrival.full.iter(), at);
        }
    }
    store.commit(commit).await.map(drop)
}

/// Makes the bounces of recipients durable that were refused because their mailbox is full.
pub(in crate::pipeline) async fn commit_full(
    full: &[FullMailbox],
    now: Timestamp,
    store: &Store,
) -> Result<(), StoreError> {
    let mut commit = Commit::default();
    push_full(&mut commit.events, full.iter(), now);
    store.commit(commit).await.map(drop)
}

/// The body is stored as it came; of the header only a forged field of ours is left out. A journal
/// record stands around the original, so only then does it need a content of its own.
pub(in crate::pipeline) fn blobs(
    mut content: Vec<u8>,
    forged: &[Range<usize>],
    mut mails: Vec<Mail>,
    mut around: Vec<Mail>,
) -> Vec<Blob> {
    let mut blobs = Vec::new();
    if !forged.is_empty() && !around.is_empty() {
        if mails.is_empty() {
            return vec![Blob { content, mails: around }];
        }
        blobs.push(Blob { content: content.clone(), mails: std::mem::take(&mut around) });
    }
    take_out(forged, &mut content);
    mails.append(&mut around);
    if !mails.is_empty() {
        blobs.insert(0, Blob { content, mails });
    }
    blobs
}

fn initiation(address: &Address) -> Event {
    Event::JournalingInitiated(JournalingInitiated { journaling_address: address.to_string() })
}

/// One mail for all mailboxes; a rule's copies are mails of their own, since a mail is in a mailbox
/// once.
fn mails_of(share: AdmittedShare, received_at: Timestamp) -> Vec<Mail> {
    let mut mails: Vec<Mail> = Vec::new();
    let id = share.decided().trace_id();
    let (prefix, deliveries) = share.into_parts();
    for delivery in deliveries {
        let folder = delivery.folder();
        let copy = delivery.copy();
        let delivery = Delivery { room: delivery.into_room(), folder };
        match mails.get_mut(copy) {
            Some(mail) => mail.deliveries.push(delivery),
            None => mails.push(Mail {
                id,
                received_at,
                prefix: prefix.clone(),
                suffix: Vec::new(),
                deliveries: vec![delivery],
                queued: Vec::new(),
            }),
        }
    }
    mails
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
}

/// The events of a share in the order of the product contract's §9: received, DMARC, rule,
/// journaling, delivered or bounced.
fn push_events(
    events: &mut Vec<EventLine>,
    mail: &Judged,
    share: &AdmittedShare,
    journaled_to: Option<&Address>,
    outcome: Outcome,
) {
    let line = |event| line(share.decided().trace_id(), mail.received_at(), share, event);
    events.push(line(received(mail, share)));
    if let Some(policy) = share.decided().dmarc() {
        events.push(line(Event::DmarcPolicyApplied(DmarcPolicyApplied {
            from: mail.headers().from().map(Address::to_string),
            recipients: recipients(share),
            policy,
        })));
    }
    let mut applied = inbound_rules_applied(share);
    if outcome == Outcome::Accepted {
        applied.extend(mailbox_rules_applied(share));
        applied.extend(outbound_rules_applied(share));
    }
    events.extend(applied.into_iter().map(|rule| line(Event::RuleApplied(rule))));
    if let Some(address) = journaled_to {
        events.push(line(initiation(address)));
    }
    if outcome == Outcome::Accepted {
        // One for a mailbox, however many folders a rule copies it to.
        for delivery in share.deliveries().iter().filter(|delivery| delivery.copy() == 0) {
            events.push(line(Event::MailboxDelivered(MailboxDelivered {
                recipient: delivery.member().address.to_string(),
                folder: delivery.folder().to_string(),
            })));
        }
    }
    for (address, reason) in share.bounced() {
        events.push(line(bounce(address, reason)));
    }
}

fn line(trace_id: TraceId, at: Timestamp, share: &AdmittedShare, event: Event) -> EventLine {
    EventLine {
        trace_id,
        event,
        event_timestamp: at,
        organization_id: share.decided().organization().id.to_string(),
    }
}

fn recipients(share: &AdmittedShare) -> Vec<String> {
    let recipients = share.decided().recipients().iter();
    recipients.map(|recipient| recipient.address().to_string()).collect()
}

fn received(mail: &Judged, share: &AdmittedShare) -> Event {
    let road = mail.road();
    let headers = mail.headers();
    Event::EmailReceived(EmailReceived {
        recipients: recipients(share),
        sender: headers.on_behalf_sender().map(Address::to_string),
        from: headers.from().map(Address::to_string),
        subject: headers.subject().map(str::to_owned),
        message_id: headers.message_id().map(str::to_owned),
        spam_verdict: road.spam(),
        dkim_verdict: road.dkim(),
        dmarc_verdict: road.dmarc(),
        dmarc_policy: road.failed_policy(),
        spf_verdict: road.spf(),
        message_timestamp: mail.received_at(),
    })
}

/// The inbound rules that won.
fn inbound_rules_applied(share: &AdmittedShare) -> Vec<RuleApplied> {
    let won = share
        .decided()
        .recipients()
        .iter()
        .filter_map(|recipient| Some((recipient.basis().rule()?, recipient.address())));
    rules_applied(RuleType::InboundRule, won)
}

/// The outbound rules by which it goes on to other organizations here. Those for what leaves are
/// told where it does.
fn outbound_rules_applied(share: &AdmittedShare) -> Vec<RuleApplied> {
    let won = share.sent_on().iter().filter_map(|onward| Some((onward.rule.as_ref()?, &onward.to)));
    rules_applied(RuleType::OutboundRule, won)
}

/// One event for each rule of a mailbox that applied, in the order in which they did.
fn mailbox_rules_applied(share: &AdmittedShare) -> impl Iterator<Item = RuleApplied> {
    share.ruled().iter().flat_map(|ruled| {
        ruled.applied.iter().map(|rule| RuleApplied {
            rule_name: rule.name.to_string(),
            rule_type: RuleType::MailboxRule,
            rule_actions: vec![RuleActionApplied {
                action: rule.action.as_str().to_owned(),
                recipients: vec![ruled.mailbox.to_string()],
            }],
            target_folder: rule.action.target_folder().map(|folder| folder.to_string()),
            target_recipient: rule.action.target_recipient().map(Address::to_string),
        })
    })
}

fn bounce(address: &Address, reason: Reason) -> Event {
    Event::IncomingBounced(IncomingBounced {
        bounced_recipient: BouncedRecipient {
            email_address: address.to_string(),
            reason: reason.text().to_owned(),
            status: reason.enhanced().to_owned(),
        },
    })
}

/// Whether a mailbox that was full when its address was named has the message by another recipient
/// after all, or is told to have bounced by one.
fn is_told(full: &FullMailbox, shares: &[AdmittedShare]) -> bool {
    let mut shares = shares.iter().filter(|share| share.decided().trace_id() == full.trace_id);
    shares.any(|share| {
        share.deliveries().iter().any(|delivery| delivery.member().id == full.id)
            || share.full().iter().any(|member| *member.id() == full.id)
    })
}

fn push_full<'a>(
    events: &mut Vec<EventLine>,
    full: impl Iterator<Item = &'a FullMailbox>,
    at: Timestamp,
) {
    events.extend(full.map(|full| EventLine {
        trace_id: full.trace_id,
        event: bounce(&full.address, Reason::MailboxFull),
        event_timestamp: at,
        organization_id: full.organization.id.to_string(),
    }));
}
