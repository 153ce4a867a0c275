//! The headers put on top of a message, in the order of the product contract's §6: `Return-Path`,
//! `Received`, `X-SES-Spam-Verdict`, `X-SES-Virus-Verdict`, `Received-SPF`,
//! `Authentication-Results`.

use crate::mail::{Address, DeliveryMarks, Verdict, delivered_to};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::received::Received;
use crate::pipeline::facts::road::{Arrival, Road};
use crate::pipeline::facts::verdicts::Verdicts;
use crate::pipeline::inbound::decide::DecidedShare;

/// What stands on top of a message in the mailboxes of one organization.
pub(in crate::pipeline) fn prefix(mail: &Judged, share: &DecidedShare) -> Vec<u8> {
    let mut prefix = format!("Return-Path: {}\r\n", mail.reverse_path());
    share.forwarders().iter().for_each(|mailbox| prefix.push_str(&delivered_to(mailbox)));
    match mail.road() {
        Road::Received(arrival) => push_results(prefix, mail, share, arrival),
        Road::Submitted(outgoing) => push_login(prefix, mail, share, outgoing),
    }
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
    share.forwarders().iter().for_each(|mailbox| prefix.push_str(&marks.fields(mailbox)));
    match mail.road() {
        Road::Received(arrival) => push_results(prefix, mail, share, arrival),
        // What a user submits leaves as all of it does: the stage that signs makes the rest.
        Road::Submitted(_) => prefix.into_bytes(),
    }
}

/// What the checks have found.
fn push_results(
    mut prefix: String,
    mail: &Judged,
    share: &DecidedShare,
    arrival: &Arrival,
) -> Vec<u8> {
    let Verdicts { authentication, .. } = &arrival.verdicts;
    push_received(&mut prefix, mail, share, authentication.iprev.name.as_deref());
    prefix.push_str(&authentication.received_spf(mail.peer(), mail.reverse_path()));
    prefix.push_str(&authentication.authentication_results(&mail.snapshot().settings.hostname));
    prefix.push_str(separator(mail.content()));
    prefix.into_bytes()
}

/// RFC 8601 §2.7.4: the client was authenticated, and that is all there was to find out.
fn push_login(
    mut prefix: String,
    mail: &Judged,
    share: &DecidedShare,
    outgoing: &Outgoing,
) -> Vec<u8> {
    push_received(&mut prefix, mail, share, None);
    prefix.push_str(&format!(
        "Authentication-Results: {};\r\n auth=pass smtp.auth={}\r\n",
        mail.snapshot().settings.hostname,
        outgoing.email
    ));
    [prefix.as_bytes(), &outgoing.added].concat()
}

/// The trace field, with the client's name in DNS if that is known, and what scanners say.
fn push_received(prefix: &mut String, mail: &Judged, share: &DecidedShare, name: Option<&str>) {
    let recipient = match share.recipients() {
        [only] => Some(only.address()),
        _ => None,
    };
    let peer = mail.peer();
    let id = share.trace_id();
    let hostname = &mail.snapshot().settings.hostname;
    let received = Received { peer, name, hostname, id, recipient };
    prefix.push_str(&received.at(mail.received_at()));
    prefix.push_str(&format!("X-SES-Spam-Verdict: {}\r\n", mail.road().spam()));
    prefix.push_str(&format!("X-SES-Virus-Verdict: {}\r\n", Verdict::Disabled));
}

/// A message whose first line is folded would go on in our last field (RFC 5322 §2.2.3), and add
/// results of its own to ours. An empty line ends our header section before it.
fn separator(content: &[u8]) -> &'static str {
    if content.starts_with(b" ") || content.starts_with(b"\t") { "\r\n" } else { "" }
}
