//! What was decided for a recipient, in words.

use crate::mail::Address;
use crate::pipeline::story::ToldRecipient;
use crate::pipeline::{
    Basis, Disposition, OutgoingDisposition, Signatures, SpamBasis, TransportOutcome,
    TransportResult,
};
use crate::rules::{Action, AuthorField, Winner};
use crate::smtp::reason::Reason;
use crate::store::Destination;

/// Of a recipient whose mailbox or remote user has sent it on.
pub(super) fn went_on(recipient: &ToldRecipient<'_>) -> Option<String> {
    let (first, others) = recipient.sent_on_to.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(match recipient.disposition {
        Disposition::Deliver(folder) if !recipient.is_not_kept => {
            format!("delivered to {folder}, and sent on to {first}{others}")
        }
        _ => format!("sent on to {first}{others}, not kept here"),
    })
}

/// Who has signed for a domain.
pub(super) fn signed(signatures: &Signatures) -> String {
    let Signatures { domain, selectors } = signatures;
    if selectors.is_empty() {
        return format!(
            "not signed by {domain}, which has no keys that sign (mailweir domain check {domain})"
        );
    }
    format!("signed by {domain} (selector {})", selectors.join(", "))
}

/// What a server said of a recipient.
pub(super) fn transport(outcome: &TransportOutcome) -> String {
    let TransportOutcome { result, server, address, reply, stage, tls, no_tls, .. } = outcome;
    let server = match (server, address) {
        (Some(name), Some(address)) => format!("{name} ({address})"),
        (Some(name), None) => name.clone(),
        (None, _) => String::new(),
    };
    match (result, stage) {
        (TransportResult::Sent, _) => {
            let how = match (tls, no_tls) {
                (Some(tls), _) => tls.clone(),
                (None, Some(problem)) => format!("in plain text because {problem}"),
                (None, None) => "no TLS".to_owned(),
            };
            format!("sent to {server}, {how}: {reply}")
        }
        (TransportResult::Bounced, Some(stage)) => format!("bounced, {server}, {stage}: {reply}"),
        (TransportResult::Bounced, None) => format!("bounced: {reply}"),
        (TransportResult::GivenUp, _) => format!("taken out of the queue: {reply}"),
    }
}

pub(super) fn disposition(disposition: Disposition) -> String {
    match disposition {
        Disposition::Deliver(folder) => format!("delivered to {folder}"),
        Disposition::Drop => "dropped".to_owned(),
        Disposition::Bounce(reason) => format!("bounced [{reason}]"),
        Disposition::ReachedAnyway => {
            "not told to have bounced, since another recipient leads to the mailbox".to_owned()
        }
    }
}

/// What a reason means that speaks for itself, as far as the story does not say more.
pub(super) fn own_reason(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::MailboxFull => "the mailbox is full",
        Reason::SenderNotAllowed => "the user may not send as the message's author",
        Reason::BlockedAttachment => "an attachment is of a kind that may not be sent",
        Reason::UserQuotaExceeded => "the user has written to too many recipients that day",
        Reason::InsideQuotaExceeded => {
            "the user has written to too many mailboxes of the organization that day"
        }
        Reason::OrganizationQuotaExceeded => {
            "the organization has written to too many recipients that day"
        }
        _ => return None,
    })
}

/// What becomes of a message that leaves.
pub(super) fn outbound(disposition: &OutgoingDisposition) -> String {
    match disposition {
        OutgoingDisposition::Here => "delivered here, in a trace of its own".to_owned(),
        OutgoingDisposition::Queue(Destination::Domain(domain)) => format!("queued for {domain}"),
        OutgoingDisposition::Queue(Destination::Gateway(gateway)) => {
            format!("queued for SMTP gateway {gateway}")
        }
        OutgoingDisposition::Drop => "dropped".to_owned(),
        OutgoingDisposition::Bounce(reason) => format!("bounced [{reason}]"),
    }
}

pub(super) fn matching<A: Action>(rule: &Winner<A>) -> String {
    format!(
        "rule \"{}\" ({}) matches {} {} and {}",
        rule.name,
        rule.action.as_str(),
        field(rule.author),
        rule.sender_pattern,
        rule.destination_pattern
    )
}

fn field(author: AuthorField) -> &'static str {
    match author {
        AuthorField::Sender => "Sender",
        AuthorField::From => "From",
    }
}

/// Which rule did not count, where nothing proves the `Sender`.
pub(super) fn passed_over(recipient: &ToldRecipient<'_>) -> String {
    let Some(rule) = recipient.passed_over.as_deref() else { return String::new() };
    let because = match rule.author {
        AuthorField::Sender => "but the Sender is not authenticated and may not relax this",
        AuthorField::From => "but the rule for the Sender is at least as strict",
    };
    format!("; {}, {because}", matching(rule))
}

pub(super) fn basis(basis: &Basis) -> String {
    let (rule, because) = match basis {
        Basis::Rule(rule) => return matching(rule),
        Basis::Dmarc => return "the DMARC policy of the author's domain says reject".to_owned(),
        Basis::Spam { rule, because } => (rule, because),
    };
    let because = match because {
        SpamBasis::SpamVerdict => "the spam verdict is FAIL",
        SpamBasis::DmarcQuarantine => "the DMARC policy of the author's domain says quarantine",
        SpamBasis::NotSpam => "it is not spam",
    };
    match rule {
        Some(rule) => format!("{}, and {because}", matching(rule)),
        None => format!("no rule matches, and {because}"),
    }
}

/// Addresses with commas between them.
pub(super) fn listed(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
