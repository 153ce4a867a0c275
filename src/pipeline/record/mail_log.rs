//! What became of mail, for the operational log: a line for each accepted message and one for each
//! outcome. It is written when that is durable. What peers say is escaped, so that it can neither
//! end a line nor hide in it.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::field::display;

use crate::id::TraceId;
use crate::mail::{Address, ReversePath};
use crate::pipeline::delivery::admit::AdmittedShare;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition};
use crate::pipeline::facts::road::Road;
use crate::pipeline::inbound::decide::{Basis, Disposition, SpamBasis};
use crate::pipeline::record::claim::Claimed;
use crate::pipeline::record::internal::Placed;
use crate::pipeline::record::own_mail::OwnMailKind;
use crate::queue::Settlement;
use crate::rules::mailbox::{AppliedMailboxRule, MailboxAction};
use crate::smtp::reason::Reason;
use crate::store::{Destination, Folder, Purpose, QueuedMail};

/// The `target` of all lines, for `log.level`.
pub const TARGET: &str = "mailweir::mail";

/// Lines that most messages do not have.
const LONG: usize = 32;

/// The lines of an accepted message.
#[derive(Debug)]
pub(in crate::pipeline) struct MailLog {
    reverse_path: ReversePath,
    size: usize,
    lines: Vec<Line>,
    /// Of journal records, reports and notices that stay here.
    beside: Vec<OwnDelivery>,
}

#[derive(Debug)]
struct Line {
    trace_id: TraceId,
    what: What,
}

#[derive(Debug)]
enum What {
    Accepted { ip: IpAddr, recipients: usize, user: Option<Address>, message_id: Option<String> },
    Delivered { to: Address, folder: Folder, because: Because },
    SentOn { to: Address, onward: Address, onward_trace_id: TraceId },
    Queued { to: Address, destination: Destination },
    Dropped { to: Address, because: Because },
    Bounced { to: Address, reason: Reason },
}

/// Why a message is dropped, or goes to JUNK_EMAIL: one of them, or neither for what needs no reason.
#[derive(Clone, Debug, Default)]
struct Because {
    /// The rule's name.
    rule: Option<Arc<str>>,
    reason: Option<&'static str>,
}

impl Because {
    fn rule(name: &Arc<str>) -> Self {
        Self { rule: Some(Arc::clone(name)), reason: None }
    }

    fn of(basis: &Basis) -> Self {
        let reason = match basis {
            Basis::Rule(rule) => return Self::rule(&rule.name),
            Basis::Spam { because: SpamBasis::NotSpam, .. } => None,
            Basis::Spam { because: SpamBasis::SpamVerdict, .. } => Some("spam-verdict"),
            Basis::Spam { because: SpamBasis::DmarcQuarantine, .. } => Some("dmarc-quarantine"),
            Basis::Dmarc => Some("dmarc-reject"),
        };
        Self { rule: None, reason }
    }

    /// The rule's name as the log has it.
    fn rule_name(&self) -> Option<String> {
        self.rule.as_ref().map(harmless)
    }
}

/// Mail of our own, or what was sent on and is kept after all, in a mailbox here.
#[derive(Debug)]
pub(in crate::pipeline) struct OwnDelivery {
    trace_id: TraceId,
    what: &'static str,
    /// The trace of what it is about.
    about: Option<TraceId>,
    to: String,
    folder: String,
}

impl OwnDelivery {
    /// Where mail of our own is.
    pub(in crate::pipeline) fn of(placed: &Placed) -> impl Iterator<Item = Self> {
        placed.deliveries().map(move |(to, folder)| Self {
            trace_id: placed.id,
            what: kind(placed.told.own_mail),
            about: Some(placed.told.about),
            to: to.to_owned(),
            folder: folder.to_owned(),
        })
    }

    /// That a mailbox keeps what it has sent on in vain.
    pub(in crate::pipeline) fn kept(trace_id: TraceId, to: &Address, folder: Folder) -> Self {
        let what = purpose(&Purpose::Message);
        Self { trace_id, what, about: None, to: to.to_string(), folder: folder.to_string() }
    }

    /// Writes its line.
    pub(in crate::pipeline) fn write(&self) {
        let Self { trace_id, what, about, to, folder } = self;
        let about = about.map(display);
        let to = Harmless(to);
        tracing::info!(target: TARGET, %trace_id, what, about, %to, %folder, "delivered");
    }
}

impl MailLog {
    /// The lines of a message that is about to be made durable; `None` where they are switched off.
    pub(in crate::pipeline) fn of(message: &Claimed) -> Option<Self> {
        let admitted = message.signed().admitted();
        let mail = admitted.mail();
        if !mail.snapshot().settings.logs_mail || !is_on() {
            return None;
        }
        let mut log = Self {
            reverse_path: mail.reverse_path().clone(),
            size: mail.content().len(),
            lines: Vec::with_capacity(2),
            beside: message.beside().iter().flat_map(OwnDelivery::of).collect(),
        };
        let ip = mail.peer().ip.to_canonical();
        let message_id = || mail.headers().message_id().map(str::to_owned);
        match mail.road() {
            Road::Submitted(outgoing) => {
                let recipients = outgoing.recipients.len();
                let message_id = message_id();
                let user = Some(outgoing.email.clone());
                log.add(outgoing.trace_id, What::Accepted { ip, recipients, user, message_id });
                log.add_outgoing(outgoing);
                admitted.shares().iter().for_each(|share| log.add_share(share));
            }
            Road::Received(_) => {
                for share in admitted.shares() {
                    let decided = share.decided();
                    if decided.is_first() {
                        let recipients = decided.recipients().len();
                        let user = None;
                        let message_id = message_id();
                        let accepted = What::Accepted { ip, recipients, user, message_id };
                        log.add(decided.trace_id(), accepted);
                    }
                    log.add_share(share);
                }
            }
        }
        for onward in admitted.leaving() {
            log.add_outgoing(onward);
        }
        Some(log)
    }

    fn add(&mut self, trace_id: TraceId, what: What) {
        self.lines.push(Line { trace_id, what });
    }

    fn add_share(&mut self, share: &AdmittedShare) {
        let trace_id = share.decided().trace_id();
        let mut why_junk = WhyJunk(None);
        for delivery in share.deliveries().iter().filter(|delivery| delivery.copy() == 0) {
            let to = delivery.member().address.clone();
            let folder = delivery.folder();
            let because = match folder {
                Folder::JunkEmail => why_junk.of(&to, share),
                _ => Because::default(),
            };
            self.add(trace_id, What::Delivered { to, folder, because });
        }
        for on in share.sent_on() {
            let to = on.from.clone();
            let onward = on.to.clone();
            self.add(trace_id, What::SentOn { to, onward, onward_trace_id: on.trace_id });
        }
        for (recipient, becomes) in share.recipients() {
            if becomes == Disposition::Drop {
                let to = recipient.address().clone();
                self.add(trace_id, What::Dropped { to, because: Because::of(recipient.basis()) });
            }
        }
        for (mailbox, rule) in deleted(share) {
            let to = mailbox.clone();
            self.add(trace_id, What::Dropped { to, because: Because::rule(rule) });
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
                OutgoingDisposition::Drop => {
                    let rule = recipient.rule.as_ref();
                    let because = rule.map(|rule| Because::rule(&rule.name));
                    What::Dropped { to, because: because.unwrap_or_default() }
                }
                OutgoingDisposition::Bounce(reason) => What::Bounced { to, reason: *reason },
            };
            self.add(outgoing.trace_id, what);
        }
    }

    /// Whether writing it takes as long as for many messages.
    pub(in crate::pipeline) fn is_long(&self) -> bool {
        self.lines.len() + self.beside.len() > LONG
    }

    /// Writes the lines.
    pub(in crate::pipeline) fn write(&self) {
        let from = Harmless(&self.reverse_path);
        let size = self.size;
        for Line { trace_id, what } in &self.lines {
            match what {
                What::Accepted { ip, recipients, user, message_id } => {
                    let user = user.as_ref().map(|user| display(Harmless(user)));
                    let message_id = message_id.as_ref().map(harmless);
                    tracing::info!(target: TARGET, %trace_id, %from, %ip, recipients, size, user,
                        message_id, "accepted");
                }
                What::Delivered { to, folder, because } => {
                    let to = Harmless(to);
                    let rule = because.rule_name();
                    let reason = because.reason;
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, %folder, rule,
                        reason, "delivered");
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
                What::Dropped { to, because } => {
                    let to = Harmless(to);
                    let rule = because.rule_name();
                    let reason = because.reason;
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, rule, reason,
                        "dropped");
                }
                What::Bounced { to, reason } => {
                    let to = Harmless(to);
                    let reason = reason.word();
                    tracing::info!(target: TARGET, %trace_id, %from, %to, size, reason,
                        "bounced");
                }
            }
        }
        self.beside.iter().for_each(OwnDelivery::write);
    }
}

/// The mailboxes that have nothing of a share's message because a rule of theirs deletes it, and the
/// rule's name.
fn deleted(share: &AdmittedShare) -> Vec<(&Address, &Arc<str>)> {
    let mut deleted = Vec::new();
    for ruled in share.ruled() {
        let mut rules = ruled.applied.iter();
        if let Some(rule) = rules.find(|rule| rule.action == MailboxAction::Delete) {
            deleted.push((&ruled.mailbox, &rule.name));
        }
    }
    if !deleted.is_empty() {
        // A rule before it may have copied it.
        let deliveries = share.deliveries().iter();
        let having: HashSet<&Address> = deliveries.map(|it| &it.member().address).collect();
        deleted.retain(|(mailbox, _)| !having.contains(mailbox));
    }
    deleted
}

/// Why mailboxes have a share's message in JUNK_EMAIL; looked up when it is first asked.
struct WhyJunk<'a>(Option<HashMap<&'a Address, Because>>);

impl<'a> WhyJunk<'a> {
    fn of(&mut self, mailbox: &Address, share: &'a AdmittedShare) -> Because {
        let known = self.0.get_or_insert_with(|| Self::known(share));
        known.get(mailbox).cloned().unwrap_or_default()
    }

    fn known(share: &'a AdmittedShare) -> HashMap<&'a Address, Because> {
        let mut known = HashMap::new();
        for (recipient, becomes) in share.recipients() {
            if becomes == Disposition::Deliver(Folder::JunkEmail) {
                for member in recipient.addressee().members.iter() {
                    known.entry(&member.address).or_insert_with(|| Because::of(recipient.basis()));
                }
            }
        }
        for ruled in share.ruled() {
            let moves =
                |rule: &&AppliedMailboxRule| rule.action.target_folder() == Some(Folder::JunkEmail);
            if let Some(rule) = ruled.applied.iter().rfind(moves) {
                known.insert(&ruled.mailbox, Because::rule(&rule.name));
            }
        }
        known
    }
}

/// Writes what came of an attempt, or of an operator's word, for each recipient; those that wait on
/// are one line. Then what of it is `delivered` here.
pub(in crate::pipeline::record) fn write_settlement(
    settlement: &Settlement,
    delivered: &[OwnDelivery],
) {
    if is_on() {
        write_outcomes(settlement);
        delivered.iter().for_each(OwnDelivery::write);
    }
}

fn write_outcomes(settlement: &Settlement) {
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
        let tls = receipt.tls.as_deref().unwrap_or("none");
        let no_tls = receipt.no_tls.as_ref().map(harmless);
        tracing::info!(target: TARGET, %trace_id, what, %id, %from, %to, size, destination, remote,
            %ip, reply, tls, no_tls, "sent");
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

fn kind(kind: OwnMailKind) -> &'static str {
    match kind {
        OwnMailKind::Report | OwnMailKind::Notice => "report",
        OwnMailKind::JournalRecord => "journal record",
    }
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
