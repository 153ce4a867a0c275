//! Stage: everything that a message changes becomes durable in one step, or nothing does.

use std::borrow::Cow;
use std::fmt;

use super::admit::{Admitted, AdmittedShare};
use super::decide::Judged;
use super::journal::Journaled;
use super::story;
use super::transaction::FullMailbox;
use crate::clock::Timestamp;
use crate::events::{
    BouncedRecipient, DmarcPolicyApplied, EmailReceived, Event, EventLine, IncomingBounced,
    JournalingInitiated, MailboxDelivered, RuleActionApplied, RuleApplied, RuleType,
};
use crate::id::TraceId;
use crate::mail::{Address, Verdict};
use crate::msgauth::strip_forged_results;
use crate::smtp::reason::Reason;
use crate::store::{Blob, Commit, Delivery, Mail, Store, StoreError};

/// Proof that a message is durable; its text is that of the 250. Nothing but [`commit`] makes one.
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

/// Makes an accepted message durable with everything beside it.
pub(super) async fn commit(message: Journaled, store: &Store) -> Result<Committed, StoreError> {
    let Journaled { admitted: Admitted { mail, shares }, initiated, beside } = message;
    let trace_ids = shares.iter().map(|share| share.decided.trace_id).collect();
    let mut commit = Commit::default();
    for (share, initiated) in shares.iter().zip(&initiated) {
        commit.stories.push(story::tell(&mail, share, initiated.as_ref(), None));
        push_events(&mut commit.events, &mail, share, initiated.as_ref(), Outcome::Accepted);
    }
    push_full(&mut commit.events, &mail.full, mail.received_at);
    let received_at = mail.received_at;
    let mails = shares.into_iter().filter_map(|share| mail_of(share, received_at)).collect();
    let (mut around, mut own) = (Vec::new(), Vec::new());
    for placed in beside {
        commit.events.extend(placed.events);
        match placed.own {
            None => around.push(placed.mail),
            Some(content) => own.push(Blob { content, mails: vec![placed.mail] }),
        }
    }
    commit.blobs = blobs(mail, mails, around);
    commit.blobs.append(&mut own);
    store.commit(commit).await?;
    Ok(Committed { trace_ids })
}

/// Makes the events of a message durable that is refused in session.
pub(super) async fn commit_refusal(
    message: Admitted,
    reason: Reason,
    store: &Store,
) -> Result<(), StoreError> {
    let Admitted { mail, shares } = message;
    let mut commit = Commit::default();
    for share in &shares {
        commit.stories.push(story::tell(&mail, share, None, Some(reason.word())));
        push_events(&mut commit.events, &mail, share, None, Outcome::Refused);
    }
    push_full(&mut commit.events, &mail.full, mail.received_at);
    store.commit(commit).await.map(drop)
}

/// Makes the bounces of recipients durable that were refused because their mailbox is full.
pub(super) async fn commit_full(
    full: &[FullMailbox],
    now: Timestamp,
    store: &Store,
) -> Result<(), StoreError> {
    let mut commit = Commit::default();
    push_full(&mut commit.events, full, now);
    store.commit(commit).await.map(drop)
}

/// The body is stored as it came; of the header only a forged field of ours is left out. A journal
/// record stands around the original, so only then does it need a content of its own.
pub(super) fn blobs(mail: Judged, mut mails: Vec<Mail>, mut around: Vec<Mail>) -> Vec<Blob> {
    let hostname = &mail.snapshot.settings.hostname;
    let mut blobs = match strip_forged_results(&mail.content, hostname) {
        Cow::Borrowed(_) => {
            mails.append(&mut around);
            vec![Blob { content: mail.content, mails }]
        }
        Cow::Owned(content) => {
            vec![Blob { content, mails }, Blob { content: mail.content, mails: around }]
        }
    };
    blobs.retain(|blob| !blob.mails.is_empty());
    blobs
}

fn mail_of(share: AdmittedShare, received_at: Timestamp) -> Option<Mail> {
    let deliveries: Vec<_> = share
        .deliveries
        .into_iter()
        .map(|delivery| Delivery { room: delivery.room, folder: delivery.folder })
        .collect();
    (!deliveries.is_empty()).then_some(Mail {
        id: share.decided.trace_id,
        received_at,
        prefix: share.prefix,
        suffix: Vec::new(),
        deliveries,
        queued: Vec::new(),
    })
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
    let line = |event| line(share.decided.trace_id, mail.received_at, share, event);
    events.push(line(received(mail, share)));
    if let Some(policy) = share.decided.dmarc {
        events.push(line(Event::DmarcPolicyApplied(DmarcPolicyApplied {
            from: mail.headers.from.as_ref().map(Address::to_string),
            recipients: recipients(share),
            policy,
        })));
    }
    events.extend(rules_applied(share).into_iter().map(|rule| line(Event::RuleApplied(rule))));
    if let Some(address) = journaled_to {
        events.push(line(Event::JournalingInitiated(JournalingInitiated {
            journaling_address: address.to_string(),
        })));
    }
    if outcome == Outcome::Accepted {
        for delivery in &share.deliveries {
            events.push(line(Event::MailboxDelivered(MailboxDelivered {
                recipient: delivery.member.address.to_string(),
                folder: delivery.folder.to_string(),
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
        organization_id: share.decided.organization.id.to_string(),
    }
}

fn recipients(share: &AdmittedShare) -> Vec<String> {
    let recipients = share.decided.recipients.iter();
    recipients.map(|recipient| recipient.addressee.recipient.address.to_string()).collect()
}

fn received(mail: &Judged, share: &AdmittedShare) -> Event {
    let authentication = &mail.verdicts.authentication;
    let dmarc_verdict = authentication.dmarc_verdict();
    let failed = dmarc_verdict == Verdict::Fail;
    Event::EmailReceived(EmailReceived {
        recipients: recipients(share),
        sender: mail.headers.on_behalf_sender().map(Address::to_string),
        from: mail.headers.from.as_ref().map(Address::to_string),
        subject: mail.headers.subject.clone(),
        message_id: mail.headers.message_id.clone(),
        spam_verdict: mail.verdicts.spam.verdict,
        dkim_verdict: authentication.dkim_verdict(),
        dmarc_verdict,
        dmarc_policy: authentication.dmarc.policy.filter(|_| failed),
        spf_verdict: authentication.spf_verdict(),
        message_timestamp: mail.received_at,
    })
}

/// One event for each rule that won for somebody, with the recipients it won for.
fn rules_applied(share: &AdmittedShare) -> Vec<RuleApplied> {
    let mut applied: Vec<RuleApplied> = Vec::new();
    for recipient in &share.decided.recipients {
        let Some(rule) = recipient.basis.rule() else { continue };
        let address = recipient.addressee.recipient.address.to_string();
        match applied.iter_mut().find(|known| known.rule_name == *rule.name) {
            Some(known) => {
                for action in &mut known.rule_actions {
                    action.recipients.push(address.clone());
                }
            }
            None => applied.push(RuleApplied {
                rule_name: rule.name.to_string(),
                rule_type: RuleType::InboundRule,
                rule_actions: vec![RuleActionApplied {
                    action: rule.action.to_string(),
                    recipients: vec![address],
                }],
                target_folder: None,
                target_recipient: None,
            }),
        }
    }
    applied
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

fn push_full(events: &mut Vec<EventLine>, full: &[FullMailbox], at: Timestamp) {
    events.extend(full.iter().map(|full| EventLine {
        trace_id: full.trace_id,
        event: bounce(&full.address, Reason::MailboxFull),
        event_timestamp: at,
        organization_id: full.organization.id.to_string(),
    }));
}
