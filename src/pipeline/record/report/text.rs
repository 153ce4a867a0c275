//! A report in words, for people who know nothing of mail servers: what happened, for whom, and
//! what they can do.

use super::{DecidedBy, Outcome, ReportedRecipient, StatusReport, WIDTH, cleaned, wrapped};
use crate::mail::address_on_one_line;

/// The text part of a report.
pub(super) fn of(report: &StatusReport<'_>, subject: Option<&str>) -> String {
    let message = match subject {
        Some(subject) => format!("Your message \"{subject}\""),
        None => "Your message".to_owned(),
    };
    let mut text = String::new();
    push(&mut text, "", &format!("This is the mail system at {}.", report.hostname));
    let mut rest = report.recipients.as_slice();
    // Recipients of one outcome stand below one sentence.
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|recipient| recipient.outcome == first.outcome).count();
        let (group, others) = rest.split_at(same);
        text.push_str("\r\n");
        push(&mut text, "", &format!("{message} {}", happened(first.outcome)));
        group.iter().for_each(|recipient| push_recipient(&mut text, recipient));
        text.push_str("\r\n");
        push(&mut text, "", &next(first.outcome));
        rest = others;
    }
    text.push_str("\r\n");
    push(
        &mut text,
        "",
        "Only the recipients named here are concerned. What an administrator needs to know is \
         attached.",
    );
    text
}

fn push(text: &mut String, indent: &str, words: &str) {
    for line in wrapped(words, WIDTH - indent.len()) {
        text.push_str(&format!("{indent}{line}\r\n"));
    }
}

fn push_recipient(text: &mut String, recipient: &ReportedRecipient) {
    text.push_str(&format!("\r\n  {}\r\n", address_on_one_line(&recipient.address)));
    if matches!(recipient.outcome, Outcome::Failed | Outcome::Delayed { .. }) {
        push(text, "    ", explanation(recipient));
        let said = recipient.diagnostic.as_deref().map(cleaned);
        match (recipient.remote_mta(), said) {
            (Some(name), Some(words)) => {
                push(text, "    ", &format!("The mail system {name} said: {words}"));
            }
            (None, Some(words)) => push(text, "    ", &format!("The reason in short: {words}")),
            (_, None) => {}
        }
    }
}

fn happened(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => "could not be delivered to:",
        Outcome::Delayed { .. } => "has not been delivered yet to:",
        Outcome::Delivered => "was delivered to:",
        Outcome::Relayed => "was handed to the mail system of:",
        Outcome::Expanded => "was sent on to all members of:",
    }
}

fn next(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed => {
            "We have stopped trying. When the reason is gone, send the message again.".to_owned()
        }
        Outcome::Delayed { until } => format!(
            "You need not do anything, and should not send it again: we keep trying until {}, and \
             tell you if it does not get there. If it is urgent, reach them in another way.",
            until.to_rfc5322()
        ),
        Outcome::Delivered => "You asked to be told. You need not do anything.".to_owned(),
        Outcome::Relayed => {
            "You asked to be told. That mail system confirms no deliveries, so you \
                             will hear no more of it unless something goes wrong."
                .to_owned()
        }
        Outcome::Expanded => "You asked to be told. Deliveries to members are not confirmed, so \
                              you will hear no more of it unless something goes wrong."
            .to_owned(),
    }
}

/// What a status code means and what can be done (RFC 3463 §3: subject and detail).
fn explanation(recipient: &ReportedRecipient) -> &'static str {
    let status = recipient.status();
    let (_, code) = status.split_once('.').unwrap_or_default();
    match (recipient.decided_by, recipient.outcome) {
        (DecidedBy::OurAdministrator, _) => {
            "Your administrator has blocked this message. Ask your administrator why."
        }
        (DecidedBy::OurAdministratorInQueue, _) => {
            "Your administrator has removed this message from the queue of mail that waits to \
             leave. Ask your administrator why."
        }
        (DecidedBy::OurGateway, Outcome::Delayed { .. }) if !is_of_recipient(code) => {
            "The gateway that your mail leaves through does not take the message for now."
        }
        (DecidedBy::OurGateway, _) if !is_of_recipient(code) => {
            "The gateway that your mail leaves through has not taken the message. Show this report \
             to your administrator."
        }
        (_, Outcome::Delayed { .. }) => why_delayed(code),
        _ => why_failed(code),
    }
}

/// Whether a code is about the recipient's address or mailbox, or the message: then a gateway
/// repeats what the recipient's mail system says (RFC 3463 §3.2, §3.3, §3.7).
fn is_of_recipient(code: &str) -> bool {
    ["1.", "2.", "6."].iter().any(|subject| code.starts_with(subject)) && code != "1.8"
}

/// A reason that may pass by itself is nothing to act upon.
fn why_delayed(code: &str) -> &'static str {
    match code {
        "2.2" => "This mailbox is full at present.",
        code if code.starts_with("4.") => "Their mail system cannot be reached at present.",
        _ => "Their mail system does not take the message for now.",
    }
}

fn why_failed(code: &str) -> &'static str {
    match code {
        "1.1" => {
            "There is nobody with this address. Check how it is written, or ask for the right \
             address in another way."
        }
        "1.2" | "1.3" => {
            "The part of the address after the @ does not exist, or is misspelt. Check it."
        }
        "1.6" => "This person has moved to another address. Ask for it in another way.",
        "1.8" | "7.26" | "7.27" => {
            "Their mail system does not accept your own address as a sender. Show this report to \
             your administrator."
        }
        "1.10" => "The part of the address after the @ takes no mail at all. Check it.",
        "2.0" | "2.1" => "This mailbox is closed. Ask for another address in another way.",
        "2.2" => "This mailbox is full. Try again in a few days, or reach them in another way.",
        "2.3" | "3.4" => {
            "The message is too large. Send it without its largest attachments, or send a link to \
             them."
        }
        "2.4" => "The list behind this address does not work. Tell who looks after it.",
        "3.1" | "3.2" | "4.5" | "4.3" => {
            "Their mail system cannot take mail at present. Try again later."
        }
        "4.1" | "4.2" | "4.4" | "4.7" | "4.0" => {
            "Their mail system could not be reached. Try again later; if that does not help, reach \
             them in another way, or show this report to your administrator."
        }
        "4.6" => "The message goes round in a circle. Show this report to your administrator.",
        "6.7" => {
            "This address has characters that not every mail system can use. Ask for another \
             address in another way."
        }
        "7.4" | "7.5" => {
            "No way was found that is as safe as this message needs. Show this report to your \
             administrator."
        }
        code if code.starts_with("7.") => {
            "The message was refused for reasons of policy or security. Ask them in another way \
             whether they expect it, or show this report to your administrator."
        }
        code if code.starts_with("6.") => {
            "The message has a form that their mail system does not accept. Show this report to \
             your administrator."
        }
        _ => {
            "The message was not taken. If it is not clear why, show this report to your \
             administrator."
        }
    }
}
