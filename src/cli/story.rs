//! A trace as a text that an administrator can read aloud.

mod words;

use serde_json::Value;

use self::words::{
    basis, disposition, matching, outbound, own_reason, passed_over, signed, transport, went_on,
};
use super::trace::{Joined, Relation, Trace, Waiting, at, list};
use crate::clock::Timestamp;
use crate::pipeline::TransportOutcome;

/// Tells a trace's story.
pub(super) fn tell(trace: &Trace) -> String {
    let mut text = Text(format!("trace {}\n", trace.trace_id));
    match &trace.story {
        Some(story) if trace.about().is_some() => text.own_mail(story),
        Some(story) => text.message(trace, story),
        None => {}
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
    if let Some(story) = &trace.story {
        text.decisions(story);
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
    let recipients = trace.story.iter().flat_map(|story| list(story, "/recipients"));
    let mut named = recipients.filter(|it| at(it, "/address").eq_ignore_ascii_case(address));
    let decided = named.next().map(|recipient| {
        let decided = recipient.pointer("/disposition").unwrap_or(&Value::Null);
        went_on(recipient).unwrap_or_else(|| disposition(decided))
    });
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

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str("  ");
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Of a message: how it came, what was found and decided, and what became of it here.
    fn message(&mut self, trace: &Trace, story: &Value) {
        self.arrival(trace, story);
        if !trace.is_sent_on() {
            self.verdicts(story);
        }
        self.decisions(story);
        self.signatures(trace, story);
        self.mailboxes(story, &trace.joined);
        self.outcome(trace, story);
    }

    /// Of mail that Mailweir made itself.
    fn own_mail(&mut self, story: &Value) {
        let to = at(story, "/to");
        let what = match at(story, "/ownMail") {
            "journalRecord" => "a journal record",
            "notice" => "a notice",
            _ => "a report",
        };
        self.line(&format!("{what} of ours to {to}"));
        if let Some(signatures) = story.get("signatures") {
            self.line(&signed(signatures));
        }
    }

    /// Who has signed what leaves, and who has not, and why.
    fn signatures(&mut self, trace: &Trace, story: &Value) {
        let mut recipients = list(story, "/outboundRecipients");
        if !recipients.any(|recipient| recipient.pointer("/disposition/queue").is_some()) {
            return;
        }
        let mut is_told = false;
        for signatures in list(story, "/signatures") {
            is_told = true;
            self.line(&signed(signatures));
        }
        if !is_told && trace.is_sent_on() {
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

    fn arrival(&mut self, trace: &Trace, story: &Value) {
        let tls = at(story, "/peer/tls");
        let tls = if tls.is_empty() { "no TLS" } else { tls };
        let size = story.pointer("/sizeBytes").and_then(Value::as_u64).unwrap_or_default();
        let (moment, came) = match (trace.leaves(), trace.is_sent_on()) {
            (true, true) => ("/submittedAt", "sent on by"),
            (true, false) => ("/submittedAt", "submitted by a user of"),
            (false, _) => ("/receivedAt", "received for"),
        };
        self.line(&format!(
            "{}  {came} organization {}: {size} bytes from {} [{}], {tls}",
            time(story, moment),
            at(story, "/organization"),
            at(story, "/peer/helo"),
            at(story, "/peer/ip"),
        ));
        self.line(&format!("reverse-path <{}>", at(story, "/reversePath")));
        let authors: Vec<_> = list(story, "/authors").filter_map(Value::as_str).collect();
        let authors = authors.join(", ");
        for (name, pointer) in [
            ("From", "/headers/from"),
            ("Sender", "/headers/sender"),
            ("Subject", "/headers/subject"),
            ("Message-ID", "/headers/messageId"),
        ] {
            let value = match name {
                "From" if !authors.is_empty() => &authors,
                _ => at(story, pointer),
            };
            if !value.is_empty() {
                self.line(&format!("{name}: {value}"));
            }
        }
    }

    fn verdicts(&mut self, story: &Value) {
        let user = at(story, "/peer/login/user");
        if !user.is_empty() {
            self.line(&format!("logged in as {user}, so there is nothing to verify"));
            return;
        }
        self.line("verdicts");
        let spf = story.pointer("/authentication/spf").unwrap_or(&Value::Null);
        let detail = ["mechanism", "problem"].map(|key| at(spf, &format!("/{key}")));
        self.line(&format!(
            "  SPF {} for {}{}",
            at(spf, "/result"),
            at(spf, "/domain"),
            detail
                .iter()
                .filter(|text| !text.is_empty())
                .map(|text| format!(", {text}"))
                .collect::<String>()
        ));
        let mut is_signed = false;
        for dkim in list(story, "/authentication/dkim") {
            is_signed = true;
            let reason = at(dkim, "/reason");
            let reason = if reason.is_empty() { String::new() } else { format!(", {reason}") };
            self.line(&format!(
                "  DKIM {} for {} (selector {}){reason}",
                at(dkim, "/result"),
                at(dkim, "/domain"),
                at(dkim, "/selector")
            ));
        }
        if !is_signed {
            self.line("  DKIM none: not signed");
        }
        let dmarc = story.pointer("/authentication/dmarc").unwrap_or(&Value::Null);
        let policy = at(dmarc, "/policy");
        let policy = if policy.is_empty() { String::new() } else { format!(", policy {policy}") };
        let organization = match at(dmarc, "/organization") {
            "" => String::new(),
            name => format!(", the authors' domains are all of {name}"),
        };
        self.line(&format!(
            "  DMARC {} for {}{policy}{organization}",
            at(dmarc, "/result"),
            at(dmarc, "/domain")
        ));
        self.sender(story);
        let (verdict, detail) = (at(story, "/spam/verdict"), at(story, "/spam/detail"));
        self.line(&match verdict {
            "PROCESSING_FAILED" => format!("  spam {verdict}: {detail}"),
            _ => format!("  spam {verdict}"),
        });
    }

    /// Whether the `Sender` field tells the truth, and so what rules for it may do.
    fn sender(&mut self, story: &Value) {
        if at(story, "/headers/sender").is_empty() {
            return;
        }
        self.line(match at(story, "/senderProof") {
            "dkim" => "  Sender authenticated by DKIM",
            "spf" => "  Sender authenticated by SPF",
            "dmarc" => "  Sender authenticated: its domain is that of the author, by DMARC",
            _ => "  Sender not authenticated: a rule for it may restrict, and not relax",
        });
    }

    fn decisions(&mut self, story: &Value) {
        let applied = at(story, "/dmarcApplied");
        if !applied.is_empty() {
            self.line(&format!("DMARC policy {applied} applied"));
        }
        for recipient in list(story, "/recipients") {
            let basis = || {
                let basis = basis(recipient.pointer("/basis").unwrap_or(&Value::Null));
                basis + &passed_over(recipient)
            };
            self.decision(recipient, disposition, basis);
        }
        for recipient in list(story, "/outboundRecipients") {
            let rule = recipient.pointer("/rule");
            let basis = || rule.map_or_else(|| "no rule matches".to_owned(), matching);
            self.decision(recipient, outbound, basis);
        }
    }

    /// What was decided for a recipient, and from what: a bounce that no rule says is its own
    /// reason.
    fn decision(
        &mut self,
        recipient: &Value,
        what: fn(&Value) -> String,
        basis: impl FnOnce() -> String,
    ) {
        let disposition = recipient.pointer("/disposition").unwrap_or(&Value::Null);
        let detail = at(recipient, "/detail");
        let because = match at(disposition, "/bounce") {
            "" | "rule-bounce" | "outbound-rule-bounce" | "dmarc-reject" => {
                format!(", because {}", basis())
            }
            _ if !detail.is_empty() => format!(", because {detail}"),
            reason => own_reason(reason).map_or_else(String::new, |it| format!(", because {it}")),
        };
        let what = went_on(recipient).unwrap_or_else(|| what(disposition));
        self.line(&format!("{}: {what}{because}", at(recipient, "/address")));
    }

    /// What became of it in each mailbox, by the rules of its owner.
    fn mailboxes(&mut self, story: &Value, joined: &[Joined]) {
        for delivery in list(story, "/deliveries") {
            let group = at(delivery, "/expandedFrom");
            let group = if group.is_empty() { String::new() } else { format!(" through {group}") };
            let (mailbox, folder) = (at(delivery, "/mailbox"), at(delivery, "/folder"));
            self.line(&format!("mailbox {mailbox}{group}: {folder}"));
        }
        for rule in list(story, "/mailboxRules") {
            let target = match (at(rule, "/targetFolder"), at(rule, "/targetRecipient")) {
                ("", "") => String::new(),
                (folder, "") => format!(" to folder {folder}"),
                (_, recipient) => format!(" to {recipient}"),
            };
            self.line(&format!(
                "mailbox {}: its rule \"{}\" says {}{target}",
                at(rule, "/mailbox"),
                at(rule, "/rule"),
                at(rule, "/action"),
            ));
        }
        for withheld in list(story, "/withheld") {
            let (mailbox, reason) = (at(withheld, "/mailbox"), at(withheld, "/reason"));
            self.line(&format!("mailbox {mailbox}: not sent on [{reason}]"));
        }
        for on in list(story, "/sentOn") {
            let (from, to, trace) = (at(on, "/from"), at(on, "/to"), at(on, "/trace"));
            let is_it = |joined: &&Joined| {
                joined.relation == Relation::SentOn
                    && joined.trace_id == trace
                    && joined.to.iter().any(|address| address == to)
            };
            let became = joined.iter().find(is_it).and_then(|joined| joined.became.as_ref());
            let became = became.map(|it| format!(": {it}")).unwrap_or_default();
            let rule = match at(on, "/rule/name") {
                "" => String::new(),
                name => format!(" by outbound rule \"{name}\""),
            };
            self.line(&format!("sent on from {from} to {to}{rule} in trace {trace}{became}"));
        }
    }

    fn outcome(&mut self, trace: &Trace, story: &Value) {
        let journaled = at(story, "/journaledTo");
        // The trace of the record says more.
        let mut joined = trace.joined.iter();
        let is_joined = joined.any(|joined| joined.relation == Relation::JournalRecord);
        if !journaled.is_empty() && !is_joined {
            self.line(&format!("journal record to {journaled}"));
        }
        let problem = at(story, "/notJournaled");
        if !problem.is_empty() {
            self.line(&format!("no journal record: {problem}"));
        }
        let refused = at(story, "/refused");
        if !refused.is_empty() {
            let place = at(story, "/refusedFor");
            let place = if place.is_empty() { String::new() } else { format!(" for {place}") };
            let told = match at(story, "/peer/login/user") {
                "" => "the sender's server reports it",
                _ => "the user's mail program was told",
            };
            self.line(&format!("refused in session [{refused}]{place}: {told}"));
        }
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
mod tests;
