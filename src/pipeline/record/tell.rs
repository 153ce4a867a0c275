//! Tells the stories of a message, for its record.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::id::EntityId;
use crate::mail::Address;
use crate::pipeline::delivery::admit::AdmittedShare;
use crate::pipeline::delivery::onward::SentOn;
use crate::pipeline::delivery::sign::Top;
use crate::pipeline::delivery::sort::Ruled;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingRecipient};
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::inbound::decide::{DecidedShare, Disposition};
use crate::pipeline::record::journal::Initiated;
use crate::pipeline::record::story::{
    LeavingStory, LeavingUnder, ReceivedStory, ReceivedUnder, ToldDelivery, ToldMailboxRule,
    ToldOutboundRecipient, ToldRecipient, ToldSentOn, ToldWithheld, written,
};
use crate::scan::ScanOutcome;
use crate::smtp::reason::Reason;
use crate::store::Story;

/// Tells the story of what leaves, or of what a user submits.
pub(in crate::pipeline) fn tell_outgoing(
    mail: &Judged,
    outgoing: &Outgoing,
    top: &Top,
    record: Option<&Initiated>,
    refused: Option<&Rejection>,
) -> Story {
    let told = LeavingStory {
        organization: Cow::Borrowed(&outgoing.organization.alias),
        organization_id: Cow::Borrowed(outgoing.organization.id.as_str()),
        submitted_at: mail.received_at(),
        rule_version: mail.snapshot().version,
        size_bytes: mail.content().len(),
        peer: Cow::Borrowed(mail.peer()),
        by: Cow::Borrowed(&outgoing.email),
        entity: Cow::Borrowed(&outgoing.entity),
        reverse_path: Cow::Borrowed(&outgoing.reverse_path),
        parameters: Cow::Borrowed(&outgoing.parameters),
        headers: Cow::Borrowed(mail.headers()),
        settings: leaving_under(mail, outgoing),
        sent_on_from: outgoing.sent_on_from,
        outbound_recipients: outgoing.recipients.iter().map(outbound_recipient).collect(),
        signatures: Cow::Borrowed(top.signatures()),
        journaled_to: record.and_then(Initiated::to).map(Cow::Borrowed),
        not_journaled: record.and_then(Initiated::problem).map(Cow::Borrowed),
        refused: refused.map(|rejection| rejection.reason),
        refused_for: refused.and_then(|it| it.place.as_deref()).map(Cow::Borrowed),
    };
    written(outgoing.trace_id, &told, false)
}

fn leaving_under<'a>(mail: &'a Judged, outgoing: &Outgoing) -> LeavingUnder<'a> {
    let settings = &mail.snapshot().settings;
    let policy = mail.snapshot().policies.get(&outgoing.organization.id);
    LeavingUnder {
        hostname: Cow::Borrowed(&settings.hostname),
        group_members: settings.max_group_members,
        expanded_recipients: settings.max_expanded_recipients,
        quotas: policy.map_or(settings.recipient_quotas, |policy| policy.recipient_quotas),
    }
}

fn outbound_recipient(recipient: &OutgoingRecipient) -> ToldOutboundRecipient<'_> {
    ToldOutboundRecipient {
        address: Cow::Borrowed(&recipient.recipient.address),
        parameters: Cow::Borrowed(&recipient.recipient.parameters),
        disposition: Cow::Borrowed(&recipient.disposition),
        rule: recipient.rule.as_ref().map(Cow::Borrowed),
    }
}

/// Tells a share's story.
pub(in crate::pipeline) fn tell(
    mail: &Judged,
    share: &AdmittedShare,
    record: Option<&Initiated>,
    refused: Option<Reason>,
) -> Story {
    let decided = share.decided();
    let (authentication, spam, submission) = match mail.road() {
        Road::Received(arrival) => {
            let verdicts = &arrival.verdicts;
            (Some(&verdicts.authentication), Cow::Borrowed(&verdicts.spam), None)
        }
        Road::Submitted(outgoing) => {
            (None, Cow::Owned(ScanOutcome::not_scanned()), Some(outgoing.trace_id))
        }
    };
    let dmarc = authentication.map(|found| &found.dmarc);
    let organizational_domain = dmarc.and_then(|dmarc| {
        let author = dmarc.domain.as_deref();
        dmarc.organizational_domain().filter(|domain| Some(*domain) != author)
    });
    let told = ReceivedStory {
        organization: Cow::Borrowed(&decided.organization().alias),
        organization_id: Cow::Borrowed(decided.organization().id.as_str()),
        received_at: mail.received_at(),
        rule_version: mail.snapshot().version,
        size_bytes: mail.content().len(),
        peer: Cow::Borrowed(mail.peer()),
        reverse_path: Cow::Borrowed(mail.reverse_path()),
        parameters: Cow::Borrowed(mail.parameters()),
        headers: Cow::Borrowed(mail.headers()),
        authentication: authentication.map(Cow::Borrowed),
        organizational_domain: organizational_domain.map(Cow::Borrowed),
        spam,
        sender_proof: mail.sender_proof(),
        dmarc_applied: decided.dmarc(),
        settings: received_under(mail, decided),
        submitted_in: submission.filter(|_| decided.is_first()),
        sent_on_from: decided.sent_on_from(),
        recipients: recipients(share),
        deliveries: deliveries(share, refused),
        mailbox_rules: share.ruled().iter().flat_map(mailbox_rules).collect(),
        withheld: share.ruled().iter().filter_map(withheld).collect(),
        sent_on: share.sent_on().iter().map(sent_on).collect(),
        journaled_to: record.and_then(Initiated::to).map(Cow::Borrowed),
        not_journaled: record.and_then(Initiated::problem).map(Cow::Borrowed),
        refused,
    };
    written(decided.trace_id(), &told, false)
}

fn received_under<'a>(mail: &'a Judged, decided: &DecidedShare) -> ReceivedUnder<'a> {
    let settings = &mail.snapshot().settings;
    let policy = mail.snapshot().policies.get(&decided.organization().id);
    ReceivedUnder {
        hostname: Cow::Borrowed(&settings.hostname),
        dmarc_enforcement: policy.is_some_and(|policy| policy.dmarc_enforcement),
        on_reject: policy.and_then(|policy| policy.on_reject).unwrap_or(settings.on_reject),
        plus_addressing: decided.organization().plus_addressing,
        group_members: settings.max_group_members,
        expanded_recipients: settings.max_expanded_recipients,
    }
}

/// The mailboxes that have it; none has what is refused.
fn deliveries(share: &AdmittedShare, refused: Option<Reason>) -> Vec<ToldDelivery<'_>> {
    let deliveries = share.deliveries().iter().filter(|_| refused.is_none());
    let told = deliveries.map(|delivery| ToldDelivery {
        mailbox: Cow::Borrowed(&delivery.member().name),
        entity: Cow::Borrowed(&delivery.member().id),
        folder: delivery.folder(),
        expanded_from: delivery.expanded_from().map(Cow::Borrowed),
    });
    told.collect()
}

fn sent_on(onward: &SentOn) -> ToldSentOn<'_> {
    ToldSentOn {
        from: Cow::Borrowed(&onward.from),
        entity: Cow::Borrowed(&onward.entity),
        to: Cow::Borrowed(&onward.to),
        trace: onward.trace_id,
        rule: onward.rule.as_ref().map(Cow::Borrowed),
    }
}

/// Whose address it is, if it is one person's.
fn entity_of(addressee: &Addressee) -> Option<&EntityId> {
    match (&*addressee.members, &*addressee.remote) {
        ([member], []) => Some(&member.id),
        ([], [remote]) => Some(&remote.id),
        _ => None,
    }
}

/// What was decided for each recipient, and whether that was the end of it.
fn recipients(share: &AdmittedShare) -> Vec<ToldRecipient<'_>> {
    let mut ways: HashMap<&Address, Vec<&Address>> = HashMap::new();
    for SentOn { from, to, .. } in share.sent_on() {
        ways.entry(from).or_default().push(to);
    }
    let mut kept = HashSet::new();
    if !ways.is_empty() {
        kept.extend(share.deliveries().iter().map(|delivery| &delivery.member().id));
    }
    let mut told = Vec::with_capacity(share.decided().recipients().len());
    for (recipient, disposition) in share.recipients() {
        let Addressee { recipient: named, members, remote, .. } = recipient.addressee();
        let is_delivered = matches!(disposition, Disposition::Deliver(_));
        let mut sent_on_to = Vec::new();
        if is_delivered && !ways.is_empty() {
            let members = members.iter().map(|member| &member.address);
            for from in members.chain(remote.iter().map(|remote| &remote.address)) {
                let to = ways.get(from).into_iter().flatten();
                sent_on_to.extend(to.map(|to| Cow::Borrowed(*to)));
            }
        }
        let is_kept = members.iter().any(|member| kept.contains(&member.id));
        told.push(ToldRecipient {
            address: Cow::Borrowed(&named.address),
            entity: entity_of(recipient.addressee()).map(Cow::Borrowed),
            parameters: Cow::Borrowed(&named.parameters),
            disposition,
            basis: Cow::Borrowed(recipient.basis()),
            is_not_kept: !sent_on_to.is_empty() && !is_kept,
            sent_on_to,
            passed_over: recipient.passed_over().map(Cow::Borrowed),
        });
    }
    told
}

fn mailbox_rules(ruled: &Ruled) -> impl Iterator<Item = ToldMailboxRule<'_>> {
    ruled.applied.iter().map(|rule| ToldMailboxRule {
        mailbox: Cow::Borrowed(&ruled.mailbox),
        rule: Cow::Borrowed(&rule.name),
        action: (&rule.action).into(),
        target_folder: rule.action.target_folder(),
        target_recipient: rule.action.target_recipient().map(Cow::Borrowed),
    })
}

fn withheld(ruled: &Ruled) -> Option<ToldWithheld<'_>> {
    let mailbox = Cow::Borrowed(&ruled.mailbox);
    Some(ToldWithheld { mailbox, reason: ruled.withheld? })
}
