//! What was decided for a recipient, in words.

use serde_json::Value;

use crate::cli::trace::{at, list};
use crate::pipeline::{TransportOutcome, TransportResult};

/// Of a recipient whose mailbox or remote user has sent it on.
pub(super) fn went_on(recipient: &Value) -> Option<String> {
    let to: Vec<_> = list(recipient, "/sentOnTo").filter_map(Value::as_str).collect();
    let (first, others) = to.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let is_not_kept = recipient.pointer("/isNotKept").and_then(Value::as_bool) == Some(true);
    let folder = at(recipient, "/disposition/deliver");
    Some(match is_not_kept {
        true => format!("sent on to {first}{others}, not kept here"),
        false => format!("delivered to {folder}, and sent on to {first}{others}"),
    })
}

/// Who has signed, as `signatures` tells it of a domain.
pub(super) fn signed(signatures: &Value) -> String {
    let domain = at(signatures, "/domain");
    let selectors: Vec<_> = list(signatures, "/selectors").filter_map(Value::as_str).collect();
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

pub(super) fn disposition(value: &Value) -> String {
    if let Some(folder) = value.get("deliver").and_then(Value::as_str) {
        return format!("delivered to {folder}");
    }
    if value.as_str() == Some("reached-anyway") {
        return "not told to have bounced, since another recipient leads to the mailbox".to_owned();
    }
    match value.get("bounce").and_then(Value::as_str) {
        Some(reason) => format!("bounced [{reason}]"),
        None => "dropped".to_owned(),
    }
}

/// What a reason word means that speaks for itself, as far as the story does not say more.
pub(super) fn own_reason(word: &str) -> Option<&'static str> {
    Some(match word {
        "mailbox-full" => "the mailbox is full",
        "sender-not-allowed" => "the user may not send as the message's author",
        "blocked-attachment" => "an attachment is of a kind that may not be sent",
        "user-quota-exceeded" => "the user has written to too many recipients that day",
        "inside-quota-exceeded" => {
            "the user has written to too many mailboxes of the organization that day"
        }
        "organization-quota-exceeded" => {
            "the organization has written to too many recipients that day"
        }
        _ => return None,
    })
}

/// What becomes of a submitted message.
pub(super) fn outbound(value: &Value) -> String {
    if let Some(domain) = value.pointer("/queue/domain").and_then(Value::as_str) {
        return format!("queued for {domain}");
    }
    if let Some(gateway) = value.pointer("/queue/gateway").and_then(Value::as_str) {
        return format!("queued for SMTP gateway {gateway}");
    }
    match value.as_str() {
        Some("here") => "delivered here, in a trace of its own".to_owned(),
        _ => disposition(value),
    }
}

pub(super) fn matching(rule: &Value) -> String {
    format!(
        "rule \"{}\" ({}) matches {} {} and {}",
        at(rule, "/name"),
        at(rule, "/action"),
        at(rule, "/author"),
        at(rule, "/senderPattern"),
        at(rule, "/destinationPattern")
    )
}

/// Which rule did not count, where nothing proves the `Sender`.
pub(super) fn passed_over(recipient: &Value) -> String {
    let Some(rule) = recipient.get("passedOver") else { return String::new() };
    let because = match at(rule, "/author") {
        "Sender" => "but the Sender is not authenticated and may not relax this",
        _ => "but the rule for the Sender is at least as strict",
    };
    format!("; {}, {because}", matching(rule))
}

pub(super) fn basis(value: &Value) -> String {
    if let Some(found) = value.get("rule") {
        return matching(found);
    }
    let Some(spam) = value.get("spam") else {
        return "the DMARC policy of the author's domain says reject".to_owned();
    };
    let because = match at(spam, "/because") {
        "spam-verdict" => "the spam verdict is FAIL",
        "dmarc-quarantine" => "the DMARC policy of the author's domain says quarantine",
        _ => "it is not spam",
    };
    match spam.get("rule").filter(|found| !found.is_null()) {
        Some(found) => format!("{}, and {because}", matching(found)),
        None => format!("no rule matches, and {because}"),
    }
}
