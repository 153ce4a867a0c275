//! Delivery status notifications: what became of a message, for its sender. A text for people
//! first, then the facts for programs, then the message or its header section (RFC 3464, RFC 6522;
//! RFC 3461 for what the sender asked for, RFC 6533 for addresses outside ASCII).
//!
//! Pure: composes bytes. What a remote server said is cleaned before it goes anywhere, so it cannot
//! add lines or fields.

mod original;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;

use mail_builder::headers::content_type::ContentType;
use mail_builder::mime::MimePart;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, DsnNotify, DsnReturn, excerpt_on_one_line};
use crate::pipeline::record::notice::Letterhead;

pub(crate) use original::Original;

/// How much of a server's words is repeated, in characters: two reply lines (RFC 5321 §4.5.3.1.5).
const MAX_DIAGNOSTIC: usize = 1024;
/// Columns after which a line is folded (RFC 5322 §2.1.1), where there is a space.
const WIDTH: usize = 72;
/// A word longer than this, in characters, is cut, since no line may exceed 998 octets.
const MAX_WORD: usize = 900;

/// A report to a sender. All its recipients should be of one kind: failed, delayed, or done.
#[derive(Clone, Debug)]
pub(crate) struct StatusReport<'a> {
    /// The report's own id.
    pub id: TraceId,
    /// Our name.
    pub hostname: &'a str,
    /// When it is made.
    pub at: Timestamp,
    /// The reverse-path's address. There is no report to a null path (RFC 5321 §6.1).
    pub to: &'a Address,
    /// `ENVID=`, decoded.
    pub envid: Option<&'a str>,
    /// When the message came to us.
    pub arrived_at: Timestamp,
    /// `RET=`; without it the header section goes back.
    pub ret: Option<DsnReturn>,
    /// The message.
    pub original: Original<'a>,
    /// What became of it, for each recipient that the report is about.
    pub recipients: Vec<ReportedRecipient>,
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportedRecipient {
    /// The address that we have tried.
    pub address: Address,
    /// `ORCPT=`: type and decoded address.
    pub orcpt: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The enhanced status code (RFC 3463), for example `5.1.1`; what has not that form, or not the
    /// outcome's class, is replaced by `X.0.0`.
    pub status: String,
    /// The remote server's reply, or ours, in any characters; at most 1024 of them are repeated.
    pub diagnostic: Option<String>,
    /// The server that said it; absent if we did.
    pub remote_mta: Option<String>,
    /// Whose word it is.
    pub decided_by: DecidedBy,
    /// When it was last tried.
    pub last_attempt: Timestamp,
}

/// Who decided what became of a message, as far as a report's words depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecidedBy {
    /// The recipient's mail system, which may be ours, or the way to it.
    Their,
    /// The gateway that the sender's mail leaves through, or the way to it.
    OurGateway,
    /// The sender's administrator, by an outbound rule.
    OurAdministrator,
    /// The same, who has dropped what waited to leave.
    OurAdministratorInQueue,
}

/// What a report tells of a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It will not get there.
    Failed,
    /// It is not there yet.
    Delayed {
        /// When we give up.
        until: Timestamp,
    },
    /// It is in the mailbox, or the next server will say so.
    Delivered,
    /// It went to a server that sends no reports.
    Relayed,
    /// It went on to the members of a group or list, and no more will be told.
    Expanded,
}

impl Outcome {
    /// `Action:`
    fn action(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed { .. } => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    /// The classes that a status code may have (RFC 3464 §2.3.4), the usual one first. What failed
    /// because it was tried for too long may have the code of the last try.
    fn classes(self) -> &'static [char] {
        match self {
            Self::Failed => &['5', '4'],
            Self::Delayed { .. } => &['4'],
            Self::Delivered | Self::Relayed | Self::Expanded => &['2'],
        }
    }
}

/// Whether a sender wants to be told of an outcome (RFC 3461 §4.1). Who says nothing is told of
/// failures and delays (§4.1: "FAILURE" or "FAILURE,DELAY" is the default), never of successes.
/// Who asks for successes is told also when the message leaves for a server that reports none
/// (§5.2.2), or for the members of a list (§5.2.7).
pub(crate) fn wants(notify: Option<DsnNotify>, outcome: Outcome) -> bool {
    let silent = DsnNotify { failure: true, delay: true, ..DsnNotify::default() };
    let notify = notify.unwrap_or(silent);
    let asked = match outcome {
        Outcome::Failed => notify.failure,
        Outcome::Delayed { .. } => notify.delay,
        Outcome::Delivered | Outcome::Relayed | Outcome::Expanded => notify.success,
    };
    asked && !notify.never
}

impl StatusReport<'_> {
    /// The report as a message; its envelope's reverse-path is null.
    pub(crate) fn compose(&self) -> Vec<u8> {
        let returned = self.original.returned(self.returns_all());
        let kind = ContentType::new("multipart/report")
            .attribute("report-type", "delivery-status")
            // No message can have this line in it: the id was made after the message had come.
            .attribute("boundary", format!("=_{}", self.id));
        let human = MimePart::new("text/plain", text::of(self, returned.subject.as_deref()));
        let status = raw_part("message/delivery-status", "", self.delivery_status().as_bytes());
        let encoding = if returned.octets.is_ascii() { "7bit" } else { "8bit" };
        let back = format!("Content-Transfer-Encoding: {encoding}\r\n");
        let back = raw_part(returned.content_type, &back, &returned.octets);
        let body = MimePart::new(kind, vec![human, status, back]).transfer_encoding(encoding);
        let letterhead = Letterhead { hostname: self.hostname, at: self.at };
        let mut content = Vec::new();
        let message = letterhead.message(self.id, self.to, self.subject());
        message.body(body).serialize(&mut content);
        content
    }

    fn has(&self, is_it: fn(Outcome) -> bool) -> bool {
        self.recipients.iter().any(|recipient| is_it(recipient.outcome))
    }

    /// RFC 3461 §4.3: only who learns of a failure gets the whole message back.
    fn returns_all(&self) -> bool {
        self.ret == Some(DsnReturn::Full) && self.has(|outcome| outcome == Outcome::Failed)
    }

    fn subject(&self) -> &'static str {
        if self.has(|outcome| outcome == Outcome::Failed) {
            "Undelivered mail"
        } else if self.has(|outcome| matches!(outcome, Outcome::Delayed { .. })) {
            "Delayed mail"
        } else {
            "Delivered mail"
        }
    }

    /// The machine-readable part (RFC 3464 §2.1).
    fn delivery_status(&self) -> String {
        let mut status = String::new();
        push_field(&mut status, "Reporting-MTA", &format!("dns; {}", self.hostname));
        if let Some(envid) = self.envid {
            push_field(&mut status, "Original-Envelope-Id", &ascii(envid));
        }
        push_field(&mut status, "Arrival-Date", &self.arrived_at.to_rfc5322());
        for recipient in &self.recipients {
            status.push_str("\r\n");
            recipient.push_status(&mut status);
        }
        status
    }
}

impl ReportedRecipient {
    /// RFC 3464 §2.3.
    fn push_status(&self, status: &mut String) {
        if let Some(orcpt) = &self.orcpt {
            push_field(status, "Original-Recipient", &original_recipient(orcpt));
        }
        push_field(status, "Final-Recipient", &final_recipient(&self.address));
        push_field(status, "Action", self.outcome.action());
        push_field(status, "Status", &self.status());
        if let Some(name) = self.remote_mta() {
            push_field(status, "Remote-MTA", &format!("dns; {}", mta_name(name)));
        }
        if let Some(diagnostic) = &self.diagnostic {
            let words = ascii(&cleaned(diagnostic));
            push_field(status, "Diagnostic-Code", &format!("{}; {words}", self.diagnostic_type()));
        }
        push_field(status, "Last-Attempt-Date", &self.last_attempt.to_rfc5322());
        if let Outcome::Delayed { until } = self.outcome {
            push_field(status, "Will-Retry-Until", &until.to_rfc5322());
        }
    }

    fn status(&self) -> String {
        let classes = self.outcome.classes();
        let mut parts = self.status.split('.');
        let class = parts.next().filter(|class| {
            let mut chars = class.chars();
            chars.next().is_some_and(|c| classes.contains(&c)) && chars.next().is_none()
        });
        let is_number = |part: &str| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let numbers = parts.clone().count();
        match class {
            Some(_) if numbers == 2 && parts.all(is_number) => self.status.clone(),
            _ => format!("{}.0.0", classes[0]),
        }
    }

    /// RFC 3464 §2.3.6: `smtp` is for replies of SMTP servers; our own words, which no server has
    /// said, have a type of their own.
    fn diagnostic_type(&self) -> &'static str {
        if self.remote_mta.is_some() { "smtp" } else { "x-mailweir" }
    }

    /// A host name or an address literal; what is neither is nobody's.
    fn remote_mta(&self) -> Option<&str> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let name = self.remote_mta.as_deref()?;
        ((1..=255).contains(&name.len()) && name.bytes().all(is_allowed)).then_some(name)
    }
}

/// A bare address is written as an address literal (RFC 5321 §4.1.3).
fn mta_name(name: &str) -> Cow<'_, str> {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("[{ip}]").into(),
        Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]").into(),
        Err(_) => name.into(),
    }
}

/// A field of the machine-readable part, folded where it is long.
fn push_field(out: &mut String, name: &str, value: &str) {
    let lines = wrapped(value, WIDTH - name.len());
    out.push_str(&format!("{name}: {}\r\n", lines.join("\r\n  ")));
}

/// A text in lines of about `width` characters, broken at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_ascii_whitespace().flat_map(pieces) {
        let line = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width
        });
        match line {
            Some(line) if line.is_empty() => line.push_str(&word),
            Some(line) => line.extend([" ", word.as_str()]),
            None => lines.push(word),
        }
    }
    lines
}

/// A word, in pieces if no line has room for it.
fn pieces(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    chars.chunks(MAX_WORD).map(|piece| piece.iter().collect()).collect()
}

/// A server's words on one line, from left to right.
fn cleaned(words: &str) -> String {
    excerpt_on_one_line(words.trim(), MAX_DIAGNOSTIC)
}

/// `utf-8` and its encoding is for what `rfc822` cannot say (RFC 6533 §3), so that the part stays
/// ASCII and reaches senders whose servers know nothing else.
fn final_recipient(address: &Address) -> String {
    let text = address.to_string();
    if text.is_ascii() {
        format!("rfc822; {}", ascii(&text))
    } else {
        format!("utf-8; {}", utf8_address(&text))
    }
}

fn original_recipient(orcpt: &str) -> String {
    match orcpt.split_once(';') {
        Some((kind, address)) if kind.eq_ignore_ascii_case("utf-8") => {
            format!("utf-8;{}", utf8_address(address))
        }
        _ => ascii(orcpt),
    }
}

/// RFC 6533 §3, utf-8-addr-xtext.
fn utf8_address(text: &str) -> String {
    encoded(text, |c| c.is_ascii_graphic() && !"\\+=".contains(c))
}

/// A text for a field that may only have ASCII.
fn ascii(text: &str) -> String {
    encoded(text, |c| (' '..='~').contains(&c))
}

fn encoded(text: &str, is_plain: fn(char) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("\\x{{{:02X}}}", u32::from(c)));
        }
    }
    encoded
}

fn raw_part(content_type: &str, more_fields: &str, body: &[u8]) -> MimePart<'static> {
    let mut part = format!("Content-Type: {content_type}\r\n{more_fields}\r\n").into_bytes();
    part.extend_from_slice(body);
    MimePart::raw(part)
}
