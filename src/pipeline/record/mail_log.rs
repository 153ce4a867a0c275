//! What became of mail, for the operational log: a line for each accepted message and one for each
//! outcome. It is written when that is durable. What peers say is escaped, so that it can neither
//! end a line nor hide in it.

use std::fmt::{self, Write};
use std::net::IpAddr;

use crate::id::TraceId;
use crate::mail::{Address, ReversePath};
use crate::pipeline::delivery::admit::AdmittedShare;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition};
use crate::pipeline::inbound::decide::Disposition;
use crate::pipeline::record::journal::Journaled;
use crate::queue::Settlement;
use crate::smtp::reason::Reason;
use crate::store::{Destination, Folder, Purpose, QueuedMail};

/// The `target` of all lines, for `log.level`.
pub const TARGET: &str = "mailweir::mail";

/// The lines of an accepted message.
#[derive(Debug)]
pub(in crate::pipeline) struct MailLog {
    reverse_path: ReversePath,
    size: usize,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    trace_id: TraceId,
    what: What,
}

#[derive(Debug)]
enum What {
    Accepted { ip: IpAddr, recipients: usize },
    Delivered { to: Address, folder: Folder },
    SentOn { to: Address, onward: Address, onward_trace_id: TraceId },
    Queued { to: Address, destination: Destination },
    Dropped { to: Address },
    Bounced { to: Address, reason: Reason },
}

impl MailLog {
    /// The lines of a message that is about to be made durable; `None` where they are switched off.
    pub(in crate::pipeline) fn of(message: &Journaled) -> Option<Self> {
        let admitted = &message.admitted;
        let mail = &admitted.mail;
        if !mail.snapshot.settings.logs_mail || !is_on() {
            return None;
        }
        let mut log = Self {
            reverse_path: mail.reverse_path.clone(),
            size: mail.content.len(),
            lines: Vec::with_capacity(2),
        };
        let ip = mail.peer.ip.to_canonical();
        if let Some(outgoing) = &mail.outgoing {
            let recipients = outgoing.recipients.len();
            log.add(outgoing.trace_id, What::Accepted { ip, recipients });
            log.add_outgoing(outgoing);
        }
        for share in &admitted.shares {
            if mail.outgoing.is_none() && share.decided.forwarders.is_empty() {
                let recipients = share.decided.recipients.len();
                log.add(share.decided.trace_id, What::Accepted { ip, recipients });
            }
            log.add_share(share);
        }
        for onward in &admitted.leaving {
            log.add_outgoing(onward);
        }
        Some(log)
    }

    fn add(&mut self, trace_id: TraceId, what: What) {
        self.lines.push(Line { trace_id, what });
    }

    fn add_share(&mut self, share: &AdmittedShare) {
        let trace_id = share.decided.trace_id;
        for delivery in share.deliveries.iter().filter(|delivery| delivery.copy == 0) {
            let to = delivery.member.address.clone();
            self.add(trace_id, What::Delivered { to, folder: delivery.folder });
        }
        for on in &share.sent_on {
            let to = on.from.clone();
            let onward = on.to.clone();
            self.add(trace_id, What::SentOn { to, onward, onward_trace_id: on.trace_id });
        }
        for recipient in &share.decided.recipients {
            if recipient.disposition == Disposition::Drop {
                let to = recipient.addressee.recipient.address.clone();
                self.add(trace_id, What::Dropped { to });
            }
        }
        for (to, reason) in share.bounced() {
            self.add(trace_id, What::Bounced { to: to.clone(), reason });
        }
    }

    fn add_outgoing(&mut self, outgoing: &Outgoing) {
        for recipient in &outgoing.recipients {
            let to = recipient.recipient.address.clone();
            let what = match &recipient.disposition {
                // Its other half says what became of it.
                OutgoingDisposition::Here => continue,
                OutgoingDisposition::Queue(destination) => {
                    What::Queued { to, destination: destination.clone() }
                }
                OutgoingDisposition::Drop => What::Dropped { to },
                OutgoingDisposition::Bounce(reason) => What::Bounced { to, reason: *reason },
            };
            self.add(outgoing.trace_id, what);
        }
    }

    /// Writes the lines.
    pub(in crate::pipeline) fn write(&self) {
        let from = Harmless(&self.reverse_path);
        let size = self.size;
        for Line { trace_id, what } in &self.lines {
            match what {
                What::Accepted { ip, recipients } => {
                    tracing::info!(target: TARGET, %trace_id, %from, %ip, recipients, size,
                        "accepted");
                }
                What::Delivered { to, folder } => {
                    let to = Harmless(to);
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, %folder,
                        "delivered");
                }
                What::SentOn { to, onward, onward_trace_id } => {
                    let to = Harmless(to);
                    let onward = Harmless(onward);
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, %onward,
                        %onward_trace_id, "sent on");
                }
                What::Queued { to, destination } => {
                    let to = Harmless(to);
                    let destination = harmless(destination);
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, destination,
                        "queued");
                }
                What::Dropped { to } => {
                    let to = Harmless(to);
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, "dropped");
                }
                What::Bounced { to, reason } => {
                    let to = Harmless(to);
                    let reason = reason.word();
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, reason,
                        "bounced");
                }
            }
        }
    }
}

/// Writes what came of an attempt, or of an operator's word, for each recipient; those that wait on
/// are one line.
pub(in crate::pipeline) fn write_settlement(settlement: &Settlement) {
    if !is_on() {
        return;
    }
    let mail = &settlement.mail;
    let QueuedMail { id, trace_id, entry, size, .. } = mail;
    let what = purpose(&entry.purpose);
    let from = Harmless(&entry.reverse_path);
    let destination = harmless(&entry.destination);
    let address = |place: usize| entry.recipients.get(place).map(|it| Harmless(&it.address));
    for (place, receipt) in &settlement.sent {
        let Some(to) = address(*place) else { continue };
        let remote = harmless(&receipt.remote);
        let ip = receipt.address.ip();
        let reply = harmless(&receipt.reply);
        let no_tls = receipt.no_tls.as_ref().map(harmless);
        tracing::info!(target: TARGET, %trace_id, what, %id, %from, %to, size, destination, remote,
            %ip, reply, no_tls, "sent");
    }
    for (place, failure) in &settlement.failed {
        let Some(to) = address(*place) else { continue };
        let failure = harmless(failure);
        // Nobody is told, so it does not come back.
        let outcome = match (settlement.is_given_up, settlement.is_told) {
            (true, false) => "dropped by the administrator",
            (true, true) => "bounced by the administrator",
            (false, _) => "bounced",
        };
        tracing::info!(target: TARGET, %trace_id, what, %id, %from, %to, size, destination,
            failure, "{outcome}");
    }
    let Some(state) = settlement.state.as_ref().filter(|_| !settlement.is_given_up) else { return };
    let settled = |place: &usize| state.settled_at(*place).is_none();
    let mut waiting = (0..entry.recipients.len()).filter(settled);
    let Some(to) = waiting.next().and_then(address) else { return };
    let recipients = 1 + waiting.count();
    let failure = harmless(&state.last_failure.as_deref().unwrap_or_default());
    let next_attempt = state.next_attempt;
    tracing::info!(target: TARGET, %trace_id, what, %id, %from, %to, recipients, size, destination,
        failure, %next_attempt, "deferred");
}

fn purpose(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Message => "message",
        Purpose::Report => "report",
        Purpose::JournalRecord { .. } => "journal record",
    }
}

/// Whether `log.level` lets the lines through.
fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// The same as a text; the log puts it in quotes.
pub(in crate::pipeline) fn harmless(value: &impl fmt::Display) -> String {
    Harmless(value).to_string()
}

/// Prints control characters and invisible ones as Rust writes them, `\u{202e}`.
struct Harmless<T>(T);

impl<T: fmt::Display> fmt::Display for Harmless<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            match c {
                ' '..='~' => self.0.write_char(c)?,
                _ => write!(self.0, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_stays_in_its_line_and_shows() {
        for (text, expected) in [
            ("250 2.0.0 Ok: queued as 4X", "250 2.0.0 Ok: queued as 4X"),
            ("a\r\n2026-11-30 INFO forged", "a\\r\\n2026-11-30 INFO forged"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("\0\u{7f}\u{85}", "\\0\\u{7f}\\u{85}"),
            ("mo\u{202e}c.elgoog\u{200b}", "mo\\u{202e}c.elgoog\\u{200b}"),
            ("Übertragen \u{2028} \u{feff}", "Übertragen \\u{2028} \\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(harmless(&text), expected);
        }
    }
}
