//! A trace as a text that an administrator can read aloud.

mod words;

use serde::Serialize;
use serde_json::Value;

use self::words::{
    basis, disposition, listed, matching, outbound, own_reason, passed_over, signed, transport,
    went_on,
};
use super::trace::{Joined, Relation, Trace, Waiting, at, list};
use crate::clock::Timestamp;
use crate::mail::{Address, Login, Peer, ReversePath, Verdict};
use crate::msgauth::{Authentication, DkimOutcome};
use crate::pipeline::story::{AnyStory, LeavingStory, ReceivedStory, ToldDelivery, ToldWithheld};
use crate::pipeline::{
    Disposition, Headers, OutgoingDisposition, OwnMail, OwnMailKind, Proof, TransportOutcome,
};
use crate::scan::ScanOutcome;
use crate::smtp::reason::Reason;

/// Tells a trace's story.
pub(super) fn tell(trace: &Trace) -> String {
    let mut text = Text(format!("trace {}\n", trace.trace_id));
    match &trace.story {
        Some(AnyStory::Own(story)) => text.own_mail(story),
        Some(AnyStory::Received(story)) => text.received(trace, story),
        Some(AnyStory::Leaving(story)) => text.leaving(trace, story),
        Some(AnyStory::Settled(_)) | None => {}
    }
    if let Some(problem) = &trace.unread_story {
        text.line(&format!("its story is not told here: {problem}"));
    }
    for refusal in &trace.refusals {
        text.line(&format!(
            "{}  refused {}: {} [{}], from {}",
            refusal.timestamp, refusal.about, refusal.reply, refusal.reason, refusal.ip
        ));
    }
    trace.waiting.iter().for_each(|waiting| text.waiting(waiting));
    trace.transport.iter().for_each(|outcome| text.transport(outcome));
    for joined in &trace.joined {
        text.joined(joined);
    }
    if !trace.events.is_empty() {
        text.line("events");
    }
    for event in &trace.events {
        text.event(event);
    }
    text.0
}

/// What was decided for each recipient, and how it ended for those elsewhere.
pub(super) fn outcomes(trace: &Trace) -> Vec<String> {
    let mut text = Text(String::new());
    match &trace.story {
        Some(AnyStory::Received(story)) => text.decisions(story),
        Some(AnyStory::Leaving(story)) => text.outbound_decisions(story),
        Some(AnyStory::Own(_) | AnyStory::Settled(_)) | None => {}
    }
    for line in &trace.events {
        let event = line.pointer("/event").unwrap_or(&Value::Null);
        match at(event, "/eventName") {
            "OUTGOING_EMAIL_SENT" => text.line(&format!("{}: sent", at(event, "/recipient"))),
            "OUTGOING_EMAIL_BOUNCED" => {
                let recipient = at(event, "/bouncedRecipient/emailAddress");
                let status = at(event, "/bouncedRecipient/status");
                let reason = at(event, "/bouncedRecipient/reason");
                text.line(&format!("{recipient}: bounced, {status} {reason}"));
            }
            _ => {}
        }
    }
    text.0.lines().map(|line| line.trim_start().to_owned()).collect()
}

/// What became of a trace for a recipient, as far as that is known.
pub(super) fn became(trace: &Trace, address: &str) -> Option<String> {
    let mut kept = Vec::new();
    for line in &trace.events {
        let Some(event) = line.pointer("/event") else { continue };
        let is_for = |pointer: &str| at(event, pointer).eq_ignore_ascii_case(address);
        match at(event, "/eventName") {
            "OUTGOING_EMAIL_SENT" if is_for("/recipient") => {
                return Some("its server has taken it".to_owned());
            }
            "INCOMING_EMAIL_BOUNCED" | "OUTGOING_EMAIL_BOUNCED"
                if is_for("/bouncedRecipient/emailAddress") =>
            {
                let status = at(event, "/bouncedRecipient/status");
                return Some(format!(
                    "bounced, {status} {}",
                    at(event, "/bouncedRecipient/reason")
                ));
            }
            "MAILBOX_EMAIL_DELIVERED" => {
                let (mailbox, folder) = (at(event, "/recipient"), at(event, "/folder"));
                kept.push(format!("delivered to {folder} of {mailbox}"));
            }
            _ => {}
        }
    }
    let recipients = trace.received().into_iter().flat_map(|story| &story.recipients);
    let mut named = recipients.filter(|it| it.address.to_string().eq_ignore_ascii_case(address));
    let decided = named
        .next()
        .map(|recipient| went_on(recipient).unwrap_or_else(|| disposition(recipient.disposition)));
    match kept.as_slice() {
        [] => {}
        [one] => return Some(one.clone()),
        [..] if trace.about().is_none() => return decided,
        [..] => return Some(format!("delivered to {} mailboxes", kept.len())),
    }
    let is_for = |outcome: &&TransportOutcome| {
        let mut recipients = outcome.recipients.iter();
        recipients.any(|it| it.to_string().eq_ignore_ascii_case(address))
    };
    let carried = trace.transport.iter().find(is_for).map(transport);
    decided.or(carried).or_else(|| trace.waiting.first().map(waits))
}

fn waits(waiting: &Waiting) -> String {
    match &waiting.last_failure {
        Some(failure) => format!("deferred until {}, {failure}", waiting.next_attempt),
        None => "waits to leave".to_owned(),
    }
}

/// Recipients who are named where a server said the same of many.
const SERVED_TOGETHER: usize = 10;

struct Text(String);

fn time(value: &Value, pointer: &str) -> String {
    let millis = value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    Timestamp::from_millis(millis).to_rfc3339()
}

/// How a message came, of either kind of story.
struct Arrival<'a> {
    at: Timestamp,
    came: &'static str,
    organization: &'a str,
    size_bytes: usize,
    peer: &'a Peer,
    reverse_path: &'a ReversePath,
    headers: &'a Headers,
}

/// Why: a bounce that no rule says is its own reason.
fn because(bounced: Option<Reason>, basis: impl FnOnce() -> String) -> String {
    match bounced {
        None | Some(Reason::RuleBounce | Reason::OutboundRuleBounce | Reason::DmarcReject) => {
            format!(", because {}", basis())
        }
        Some(reason) => own_reason(reason).map_or_else(String::new, |it| format!(", because {it}")),
    }
}

/// The word that a value is written as.
fn word(value: &impl Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str("  ");
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Of a message that came: how, what was found and decided, and what became of it here.
    fn received(&mut self, trace: &Trace, story: &ReceivedStory<'_>) {
        self.arrival(Arrival {
            at: story.received_at,
            came: "received for",
            organization: &story.organization,
            size_bytes: story.size_bytes,
            peer: &story.peer,
            reverse_path: &story.reverse_path,
            headers: &story.headers,
        });
        match &story.peer.login {
            Some(login) => self.login(login),
            None => self.verdicts(story),
        }
        self.decisions(story);
        self.mailboxes(story, &trace.joined);
        self.journal(trace, story.journaled_to.as_deref(), story.not_journaled.as_deref());
        self.refusal(story.refused, None, &story.peer);
    }

    /// Of a message that leaves, or that a user submits.
    fn leaving(&mut self, trace: &Trace, story: &LeavingStory<'_>) {
        self.arrival(Arrival {
            at: story.submitted_at,
            came: match story.sent_on_from {
                Some(_) => "sent on by",
                None => "submitted by a user of",
            },
            organization: &story.organization,
            size_bytes: story.size_bytes,
            peer: &story.peer,
            reverse_path: &story.reverse_path,
            headers: &story.headers,
        });
        if let (None, Some(login)) = (story.sent_on_from, &story.peer.login) {
            self.login(login);
        }
        self.outbound_decisions(story);
        self.signatures(story);
        self.journal(trace, story.journaled_to.as_deref(), story.not_journaled.as_deref());
        self.refusal(story.refused, story.refused_for.as_deref(), &story.peer);
    }

    /// Of mail that Mailweir made itself.
    fn own_mail(&mut self, story: &OwnMail) {
        let what = match story.own_mail {
            OwnMailKind::JournalRecord => "a journal record",
            OwnMailKind::Notice => "a notice",
            OwnMailKind::Report => "a report",
        };
        self.line(&format!("{what} of ours to {}", story.to));
        if let Some(signatures) = &story.signatures {
            self.line(&signed(signatures));
        }
    }

    /// Who has signed what leaves, and who has not, and why.
    fn signatures(&mut self, story: &LeavingStory<'_>) {
        let mut recipients = story.outbound_recipients.iter();
        if !recipients.any(|it| matches!(&*it.disposition, OutgoingDisposition::Queue(_))) {
            return;
        }
        for signatures in story.signatures.iter() {
            self.line(&signed(signatures));
        }
        if story.signatures.is_empty() && story.sent_on_from.is_some() {
            self.line("not signed here: it is sent on with the signatures that it came with");
        }
    }

    /// What a server said of recipients.
    fn transport(&mut self, outcome: &TransportOutcome) {
        let mut recipients = outcome.recipients.iter().map(ToString::to_string);
        let mut named: Vec<_> = recipients.by_ref().take(SERVED_TOGETHER).collect();
        let more = recipients.count();
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        self.line(&format!("{}: {}", named.join(", "), transport(outcome)));
    }

    fn arrival(&mut self, arrival: Arrival<'_>) {
        let Arrival { at, came, organization, size_bytes, peer, reverse_path, headers } = arrival;
        let helo = &peer.helo;
        let ip = peer.ip;
        let tls = peer.tls.as_deref().unwrap_or("no TLS");
        self.line(&format!(
            "{at}  {came} organization {organization}: {size_bytes} bytes from {helo} [{ip}], {tls}"
        ));
        self.line(&format!("reverse-path {reverse_path}"));
        if !headers.authors().is_empty() {
            self.line(&format!("From: {}", listed(headers.authors())));
        }
        if let Some(sender) = headers.sender() {
            self.line(&format!("Sender: {sender}"));
        }
        if let Some(subject) = headers.subject() {
            self.line(&format!("Subject: {subject}"));
        }
        if let Some(message_id) = headers.message_id() {
            self.line(&format!("Message-ID: {message_id}"));
        }
    }

    fn login(&mut self, login: &Login) {
        self.line(&format!("logged in as {}, so there is nothing to verify", login.user));
    }

    fn verdicts(&mut self, story: &ReceivedStory<'_>) {
        let Some(Authentication { spf, dkim, dmarc, .. }) = story.authentication.as_deref() else {
            return;
        };
        self.line("verdicts");
        let detail = [&spf.mechanism, &spf.problem].into_iter().flatten();
        let detail: String = detail.map(|text| format!(", {text}")).collect();
        self.line(&format!("  SPF {} for {}{detail}", spf.result.as_str(), spf.domain));
        for DkimOutcome { result, domain, selector, reason, .. } in dkim {
            let reason = reason.iter().map(|it| format!(", {it}")).collect::<String>();
            let result = result.as_str();
            self.line(&format!("  DKIM {result} for {domain} (selector {selector}){reason}"));
        }
        if dkim.is_empty() {
            self.line("  DKIM none: not signed");
        }
        let policy = dmarc.policy.map(|policy| format!(", policy {}", policy.as_str()));
        let policy = policy.unwrap_or_default();
        let organization = dmarc.organization.shared();
        let organization = organization
            .map(|name| format!(", the authors' domains are all of {name}"))
            .unwrap_or_default();
        self.line(&format!(
            "  DMARC {} for {}{policy}{organization}",
            dmarc.result.as_str(),
            dmarc.domain.as_deref().unwrap_or_default()
        ));
        self.sender(story);
        let ScanOutcome { verdict, detail, .. } = &*story.spam;
        self.line(&match verdict {
            Verdict::ProcessingFailed => format!("  spam {verdict}: {detail}"),
            _ => format!("  spam {verdict}"),
        });
    }

    /// Whether the `Sender` field tells the truth, and so what rules for it may do.
    fn sender(&mut self, story: &ReceivedStory<'_>) {
        if story.headers.sender().is_none() {
            return;
        }
        self.line(match story.sender_proof {
            Some(Proof::Dkim) => "  Sender authenticated by DKIM",
            Some(Proof::Spf) => "  Sender authenticated by SPF",
            Some(Proof::Dmarc) => {
                "  Sender authenticated: its domain is that of the author, by DMARC"
            }
            Some(Proof::Login) | None => {
                "  Sender not authenticated: a rule for it may restrict, and not relax"
            }
        });
    }

    fn decisions(&mut self, story: &ReceivedStory<'_>) {
        if let Some(policy) = story.dmarc_applied {
            self.line(&format!("DMARC policy {} applied", policy.as_str()));
        }
        for recipient in &story.recipients {
            let basis = || basis(&recipient.basis) + &passed_over(recipient);
            let what = went_on(recipient).unwrap_or_else(|| disposition(recipient.disposition));
            let reason = match recipient.disposition {
                Disposition::Bounce(reason) => Some(reason),
                Disposition::Deliver(_) | Disposition::Drop | Disposition::ReachedAnyway => None,
            };
            let because = because(reason, basis);
            self.line(&format!("{}: {what}{because}", recipient.address));
        }
    }

    fn outbound_decisions(&mut self, story: &LeavingStory<'_>) {
        for recipient in &story.outbound_recipients {
            let rule = recipient.rule.as_deref();
            let basis = || rule.map_or_else(|| "no rule matches".to_owned(), matching);
            let reason = match &*recipient.disposition {
                OutgoingDisposition::Bounce(reason) => Some(*reason),
                OutgoingDisposition::Here
                | OutgoingDisposition::Queue(_)
                | OutgoingDisposition::Drop => None,
            };
            let what = outbound(&recipient.disposition);
            let because = because(reason, basis);
            self.line(&format!("{}: {what}{because}", recipient.address));
        }
    }

    /// What became of it in each mailbox, by the rules of its owner.
    fn mailboxes(&mut self, story: &ReceivedStory<'_>, joined: &[Joined]) {
        for ToldDelivery { mailbox, folder, expanded_from, .. } in &story.deliveries {
            let group = expanded_from.iter().map(|it| format!(" through {it}"));
            self.line(&format!("mailbox {mailbox}{}: {folder}", group.collect::<String>()));
        }
        for rule in &story.mailbox_rules {
            let target = match (rule.target_folder, &rule.target_recipient) {
                (_, Some(recipient)) => format!(" to {recipient}"),
                (Some(folder), None) => format!(" to folder {folder}"),
                (None, None) => String::new(),
            };
            self.line(&format!(
                "mailbox {}: its rule \"{}\" says {}{target}",
                rule.mailbox,
                rule.rule,
                word(&rule.action),
            ));
        }
        for ToldWithheld { mailbox, reason } in &story.withheld {
            self.line(&format!("mailbox {mailbox}: not sent on [{}]", word(reason)));
        }
        for on in &story.sent_on {
            let is_it = |joined: &&Joined| {
                joined.relation == Relation::SentOn
                    && joined.trace_id == on.trace.to_string()
                    && joined.to.iter().any(|address| *address == on.to.to_string())
            };
            let became = joined.iter().find(is_it).and_then(|joined| joined.became.as_ref());
            let became = became.map(|it| format!(": {it}")).unwrap_or_default();
            let rule = on.rule.iter().map(|rule| format!(" by outbound rule \"{}\"", rule.name));
            let rule: String = rule.collect();
            let from = &on.from;
            let to = &on.to;
            let trace = on.trace;
            self.line(&format!("sent on from {from} to {to}{rule} in trace {trace}{became}"));
        }
    }

    fn journal(&mut self, trace: &Trace, to: Option<&Address>, problem: Option<&str>) {
        // The trace of the record says more.
        let mut joined = trace.joined.iter();
        let is_joined = joined.any(|joined| joined.relation == Relation::JournalRecord);
        if let Some(to) = to.filter(|_| !is_joined) {
            self.line(&format!("journal record to {to}"));
        }
        if let Some(problem) = problem {
            self.line(&format!("no journal record: {problem}"));
        }
    }

    fn refusal(&mut self, refused: Option<Reason>, place: Option<&str>, peer: &Peer) {
        let Some(reason) = refused else { return };
        let place = place.map(|place| format!(" for {place}")).unwrap_or_default();
        let told = match peer.login {
            None => "the sender's server reports it",
            Some(_) => "the user's mail program was told",
        };
        self.line(&format!("refused in session [{reason}]{place}: {told}"));
    }

    fn waiting(&mut self, waiting: &Waiting) {
        let Waiting { id, destination, attempts, next_attempt, last_failure } = waiting;
        let failure = last_failure.iter().map(|it| format!(", last failure {it}"));
        self.line(&format!(
            "waits: queue entry {id} for {destination}, attempts {attempts}, next {next_attempt}{}",
            failure.collect::<String>()
        ));
    }

    fn joined(&mut self, joined: &Joined) {
        let Joined { relation, trace_id, to, became } = joined;
        let to = to.join(", ");
        let became = became.iter().map(|it| format!(": {it}")).collect::<String>();
        let line = match relation {
            Relation::Outbound => format!("submitted in trace {trace_id}"),
            Relation::Inbound => format!("received here in trace {trace_id} for {to}"),
            Relation::SentOnFrom => format!("sent on from trace {trace_id}"),
            Relation::Report => format!("reported to {to} in trace {trace_id}{became}"),
            Relation::Notice => format!("notice to {to} in trace {trace_id}{became}"),
            Relation::JournalRecord => {
                format!("journal record to {to} in trace {trace_id}{became}")
            }
            Relation::About => format!("about trace {trace_id}"),
            Relation::SentOn => return, // The story has told it.
        };
        self.line(&line);
    }

    fn event(&mut self, line: &Value) {
        let event = line.pointer("/event").unwrap_or(&Value::Null);
        let detail = match at(event, "/eventName") {
            "MAILBOX_EMAIL_DELIVERED" => {
                format!("{} {}", at(event, "/recipient"), at(event, "/folder"))
            }
            "RULE_APPLIED" => {
                let actions: Vec<_> =
                    list(event, "/ruleActions").map(|action| at(action, "/action")).collect();
                format!("{} {}", at(event, "/ruleName"), actions.join(", "))
            }
            "OUTGOING_EMAIL_SENT" => at(event, "/recipient").to_owned(),
            "INCOMING_EMAIL_BOUNCED" | "OUTGOING_EMAIL_BOUNCED" => format!(
                "{} {} {}",
                at(event, "/bouncedRecipient/emailAddress"),
                at(event, "/bouncedRecipient/status"),
                at(event, "/bouncedRecipient/reason")
            ),
            "DMARC_POLICY_APPLIED" => at(event, "/policy").to_owned(),
            "JOURNALING_INITIATED" => at(event, "/journalingAddress").to_owned(),
            _ => {
                list(event, "/recipients").filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
        };
        let name = at(event, "/eventName");
        self.line(&format!("  {}  {name}  {detail}", time(line, "/eventTimestamp")));
    }
}

#[cfg(test)]
pub(super) mod tests;
