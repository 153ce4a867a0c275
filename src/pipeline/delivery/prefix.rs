//! The headers put on top of a message, in the order of the product contract's §6: `Return-Path`,
//! `Received`, `X-SES-Spam-Verdict`, `X-SES-Virus-Verdict`, `Received-SPF`,
//! `Authentication-Results`.

use crate::mail::{Address, DeliveryMarks, Verdict, delivered_to};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::received::Received;
use crate::pipeline::inbound::decide::DecidedShare;

/// What stands on top of a message in the mailboxes of one organization.
pub(in crate::pipeline) fn prefix(mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let mut prefix = format!("Return-Path: {}\r\n", mail.reverse_path);
    share.forwarders.iter().for_each(|mailbox| prefix.push_str(&delivered_to(mailbox)));
    push_results(prefix, mail, share)
}

/// What stands on top of a message that a mailbox or remote user sends on to another server: the
/// mailboxes that it has come through, marked as ours in case it comes back, then what we have found
/// out.
pub(in crate::pipeline) fn onward_prefix(
    mail: &Judged,
    share: &DecidedShare,
    from: &Address,
    marks: &DeliveryMarks,
) -> Vec<u8> {
    let mut prefix = marks.fields(from);
    share.forwarders.iter().for_each(|mailbox| prefix.push_str(&marks.fields(mailbox)));
    if mail.outgoing.is_some() {
        // What a user submits leaves as all of it does: `outgoing::sign` makes the rest.
        return prefix.into_bytes();
    }
    push_results(prefix, mail, share)
}

fn push_results(mut prefix: String, mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let hostname = &mail.snapshot.settings.hostname;
    let recipient = match share.recipients.as_slice() {
        [only] => Some(&only.addressee.recipient.address),
        _ => None,
    };
    let authentication = mail.verdicts.authentication.as_ref();
    let name = authentication.and_then(|known| known.iprev.name.as_deref());
    let id = share.trace_id;
    prefix.push_str(
        &Received { peer: &mail.peer, name, hostname, id, recipient }.at(mail.received_at),
    );
    prefix.push_str(&format!("X-SES-Spam-Verdict: {}\r\n", mail.verdicts.spam.verdict));
    prefix.push_str(&format!("X-SES-Virus-Verdict: {}\r\n", Verdict::Disabled));
    if let Some(authentication) = authentication {
        prefix.push_str(&authentication.received_spf(&mail.peer, &mail.reverse_path));
        prefix.push_str(&authentication.authentication_results(hostname));
    }
    let Some(outgoing) = &mail.outgoing else {
        prefix.push_str(separator(&mail.content));
        return prefix.into_bytes();
    };
    // RFC 8601 §2.7.4: the client was authenticated, and that is all there was to find out.
    prefix.push_str(&format!(
        "Authentication-Results: {hostname};\r\n auth=pass smtp.auth={}\r\n",
        outgoing.email
    ));
    [prefix.as_bytes(), &outgoing.added].concat()
}

/// A message whose first line is folded would go on in our last field (RFC 5322 §2.2.3), and add
/// results of its own to ours. An empty line ends our header section before it.
fn separator(content: &[u8]) -> &'static str {
    if content.starts_with(b" ") || content.starts_with(b"\t") { "\r\n" } else { "" }
}
