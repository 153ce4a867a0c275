//! What a decision was made from, kept with the durable record: enough to tell a message's story
//! and to replay changed rules over it without its body.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, DmarcPolicy, Peer, ReversePath};
use crate::msgauth::Authentication;
use crate::pipeline::delivery::admit::AdmittedShare;
use crate::pipeline::delivery::onward::SentOn;
use crate::pipeline::delivery::sign::Top;
use crate::pipeline::delivery::sort::Ruled;
use crate::pipeline::facts::headers::Headers;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition, OutgoingRecipient};
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::signatures::Signatures;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::facts::verdicts::Proof;
use crate::pipeline::inbound::decide::{Basis, Disposition};
use crate::pipeline::record::journal::Initiated;
use crate::rules::{InboundAction, OutboundAction, Winner, Withheld};
use crate::scan::ScanOutcome;
use crate::store::{Folder, Story};

/// The story of one organization's share of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    organization: &'a str,
    received_at: Timestamp,
    rule_version: u64,
    size_bytes: usize,
    peer: &'a Peer,
    reverse_path: &'a ReversePath,
    headers: &'a Headers,
    /// Absent where one address has written it alone.
    #[serde(skip_serializing_if = "<[Address]>::is_empty")]
    authors: &'a [Address],
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication: Option<&'a Authentication>,
    spam: &'a ScanOutcome,
    /// Absent if there is no `Sender` field, or nothing proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_proof: Option<Proof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dmarc_applied: Option<DmarcPolicy>,
    recipients: Vec<ToldRecipient<'a>>,
    deliveries: Vec<ToldDelivery<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mailbox_rules: Vec<ToldMailboxRule<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<ToldWithheld<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent_on: Vec<ToldSentOn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journaled_to: Option<&'a Address>,
    /// Why there is no journal record.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_journaled: Option<&'a str>,
    /// The reason word, if the message was refused in session.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldRecipient<'a> {
    address: &'a Address,
    disposition: Disposition,
    basis: &'a Basis,
    /// To whom mailboxes and remote users that it leads to send it on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent_on_to: Vec<&'a Address>,
    /// None of them keeps it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_not_kept: bool,
    /// The rule of the other field, where nothing proves the `Sender`.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_over: Option<&'a Winner<InboundAction>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldDelivery<'a> {
    mailbox: &'a str,
    folder: Folder,
    #[serde(skip_serializing_if = "Option::is_none")]
    expanded_from: Option<&'a Address>,
}

/// A rule of a mailbox that applied.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldMailboxRule<'a> {
    mailbox: &'a Address,
    rule: &'a str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_folder: Option<Folder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_recipient: Option<&'a Address>,
}

/// Why a mailbox does not send the message on, though one of its rules says so.
#[derive(Debug, Serialize)]
struct ToldWithheld<'a> {
    mailbox: &'a Address,
    reason: Withheld,
}

/// Under which trace the message goes on to somebody.
#[derive(Debug, Serialize)]
struct ToldSentOn<'a> {
    from: &'a Address,
    to: &'a Address,
    trace: TraceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a Winner<OutboundAction>>,
}

/// The story of a submitted message's outbound half.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldOutgoing<'a> {
    organization: &'a str,
    submitted_at: Timestamp,
    rule_version: u64,
    size_bytes: usize,
    peer: &'a Peer,
    reverse_path: &'a ReversePath,
    headers: &'a Headers,
    /// Absent where one address has written it alone.
    #[serde(skip_serializing_if = "<[Address]>::is_empty")]
    authors: &'a [Address],
    outbound_recipients: Vec<ToldOutboundRecipient<'a>>,
    /// Absent where nothing leaves, or it leaves as it came.
    #[serde(skip_serializing_if = "<[Signatures]>::is_empty")]
    signatures: &'a [Signatures],
    #[serde(skip_serializing_if = "Option::is_none")]
    journaled_to: Option<&'a Address>,
    /// Why there is no journal record.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_journaled: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    /// The line or part of the message that is the reason, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_for: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldOutboundRecipient<'a> {
    address: &'a Address,
    disposition: &'a OutgoingDisposition,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a Winner<OutboundAction>>,
}

impl<'a> ToldOutboundRecipient<'a> {
    fn of(recipient: &'a OutgoingRecipient) -> Self {
        Self {
            address: &recipient.recipient.address,
            disposition: &recipient.disposition,
            rule: recipient.rule.as_ref(),
        }
    }
}

/// Tells the outbound half's story.
pub(in crate::pipeline) fn tell_outgoing(
    mail: &Judged,
    outgoing: &Outgoing,
    top: &Top,
    record: Option<&Initiated>,
    refused: Option<&Rejection>,
) -> Story {
    let told = ToldOutgoing {
        organization: &outgoing.organization.alias,
        submitted_at: mail.received_at(),
        rule_version: mail.snapshot().version,
        size_bytes: mail.content().len(),
        peer: mail.peer(),
        reverse_path: &outgoing.reverse_path,
        headers: mail.headers(),
        authors: several(mail.headers()),
        outbound_recipients: outgoing.recipients.iter().map(ToldOutboundRecipient::of).collect(),
        signatures: top.signatures(),
        journaled_to: record.and_then(Initiated::to),
        not_journaled: record.and_then(Initiated::problem),
        refused: refused.map(|rejection| rejection.reason.word()),
        refused_for: refused.and_then(|rejection| rejection.place.as_deref()),
    };
    story(outgoing.trace_id, &told)
}

/// All authors, if there are several.
fn several(headers: &Headers) -> &[Address] {
    match headers.authors() {
        [] | [_] => &[],
        several => several,
    }
}

fn story(trace_id: TraceId, told: &impl Serialize) -> Story {
    let told = serde_json::value::to_raw_value(told)
        .expect("a story has only strings, numbers, lists and structs, which all serialize");
    Story { trace_id, told, is_listed: false }
}

/// Tells a share's story.
pub(in crate::pipeline) fn tell(
    mail: &Judged,
    share: &AdmittedShare,
    record: Option<&Initiated>,
    refused: Option<&'static str>,
) -> Story {
    let not_scanned;
    let (authentication, spam) = match mail.road() {
        Road::Received(arrival) => (Some(&arrival.verdicts.authentication), &arrival.verdicts.spam),
        Road::Submitted(_) => {
            not_scanned = ScanOutcome::not_scanned();
            (None, &not_scanned)
        }
    };
    let told = Told {
        organization: &share.decided().organization().alias,
        received_at: mail.received_at(),
        rule_version: mail.snapshot().version,
        size_bytes: mail.content().len(),
        peer: mail.peer(),
        reverse_path: mail.reverse_path(),
        headers: mail.headers(),
        authors: several(mail.headers()),
        authentication,
        spam,
        sender_proof: mail.sender_proof(),
        dmarc_applied: share.decided().dmarc(),
        recipients: recipients(share),
        deliveries: share
            .deliveries()
            .iter()
            .filter(|_| refused.is_none())
            .map(|delivery| ToldDelivery {
                mailbox: &delivery.member().name,
                folder: delivery.folder(),
                expanded_from: delivery.expanded_from(),
            })
            .collect(),
        mailbox_rules: share.ruled().iter().flat_map(mailbox_rules).collect(),
        withheld: share.ruled().iter().filter_map(withheld).collect(),
        sent_on: share
            .sent_on()
            .iter()
            .map(|SentOn { from, to, trace_id, rule }| ToldSentOn {
                from,
                to,
                trace: *trace_id,
                rule: rule.as_ref(),
            })
            .collect(),
        journaled_to: record.and_then(Initiated::to),
        not_journaled: record.and_then(Initiated::problem),
        refused,
    };
    story(share.decided().trace_id(), &told)
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
                sent_on_to.extend(ways.get(from).into_iter().flatten());
            }
        }
        let is_kept = members.iter().any(|member| kept.contains(&member.id));
        told.push(ToldRecipient {
            address: &named.address,
            disposition,
            basis: recipient.basis(),
            is_not_kept: !sent_on_to.is_empty() && !is_kept,
            sent_on_to,
            passed_over: recipient.passed_over(),
        });
    }
    told
}

fn mailbox_rules(ruled: &Ruled) -> impl Iterator<Item = ToldMailboxRule<'_>> {
    ruled.applied.iter().map(|rule| ToldMailboxRule {
        mailbox: &ruled.mailbox,
        rule: &rule.name,
        action: rule.action.as_str(),
        target_folder: rule.action.target_folder(),
        target_recipient: rule.action.target_recipient(),
    })
}

fn withheld(ruled: &Ruled) -> Option<ToldWithheld<'_>> {
    Some(ToldWithheld { mailbox: &ruled.mailbox, reason: ruled.withheld? })
}
