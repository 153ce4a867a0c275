//! What a submitted message lacks, and what must not leave with it (RFC 6409 §8, RFC 5322 §3.6).
//!
//! Decided from the header section alone: lines to put on top, and ranges to take out. The body is
//! never touched, and nothing is copied or moved when there is nothing to take out.
//!
//! A header section is taken as it is only when every line of it is a field or continues one; what
//! only a lenient reader would take for a field (`mail::hides`) is refused, or a Bcc could leave in
//! a spelling that we do not know.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, FieldLines, hides, names_nobody, take_out};
use crate::smtp::reason::Reason;

/// Fields that a message must have, or may have to have.
const REPAIRED: [&str; 4] = ["From", "Sender", "Date", "Message-ID"];
/// Fields that are taken out: the blind copies' addresses (RFC 5322 §3.6.3), and what only the last
/// server writes (RFC 5321 §4.4).
const PRIVATE: [&str; 3] = ["Bcc", "Resent-Bcc", "Return-Path"];
/// Fields that say who sends again what was sent before.
pub(in crate::pipeline) const RESENT: [&str; 2] = ["Resent-From", "Resent-Sender"];
/// Removals that are not side by side; no mail program comes near it.
const MAX_REMOVED: usize = 1000;

/// What is known of a submission beside its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion<'a> {
    /// Whose login it is: the author of a message that names none.
    pub login: &'a Address,
    /// The `Sender` that a message without one must have: it is sent on somebody's behalf (RFC 6409
    /// §8.1).
    pub sender: Option<&'a Address>,
    /// When it came.
    pub at: Timestamp,
    /// Our name, for the Message-ID.
    pub hostname: &'a str,
    /// The message's own id.
    pub trace_id: TraceId,
}

/// What makes a submitted message a whole one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fixups {
    /// Fields that go on top, below those of our own; ends with an empty line if the content has no
    /// header section.
    pub prefix: Vec<u8>,
    /// Whether the content has none, so that all of it is text.
    pub makes_header_section: bool,
    /// What is taken out of the content, in order; always whole fields.
    removed: Vec<Range<usize>>,
}

impl Fixups {
    /// Takes out of the content what must not leave, in place.
    pub(crate) fn take_out(&self, content: &mut Vec<u8>) {
        take_out(&self.removed, content);
    }

    /// What is taken out, in order.
    pub(in crate::pipeline) fn removed(&self) -> &[Range<usize>] {
        &self.removed
    }

    /// Whether the content stays as it came.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn keeps_content(&self) -> bool {
        self.removed.is_empty()
    }
}

/// Finds what a submitted message lacks and what must go.
///
/// A message without `From` gets the login's address (RFC 6409 leaves it open; refusing would turn
/// away what printers and scripts send). One without a header section gets one. `Date` and
/// `Message-ID` are added where missing (§8.2, §8.3), and `Sender` where one is asked for (§8.1).
/// One of these without a value, or without anybody in it, counts as missing and is taken out.
///
/// # Errors
/// [`Reason::SeveralAuthors`] for two `From` or two `Sender` fields;
/// [`Reason::MalformedHeader`] where some line of the header section is neither a field nor
/// continues one, since nobody can say which readers find what in it.
pub(crate) fn fix(content: &[u8], submission: &Completion<'_>) -> Result<Fixups, Reason> {
    let Some(fields) = Fields::read(content)? else {
        let mut prefix = missing(&Fields::default(), submission);
        // What begins with the empty line has it already.
        if !content.starts_with(b"\r\n") {
            prefix.extend_from_slice(b"\r\n");
        }
        return Ok(Fixups { prefix, makes_header_section: true, removed: Vec::new() });
    };
    let prefix = missing(&fields, submission);
    Ok(Fixups { prefix, makes_header_section: false, removed: fields.removed })
}

/// Which of the fields that matter here are there, and which must go.
#[derive(Debug, Default)]
struct Fields {
    has_from: bool,
    has_sender: bool,
    has_date: bool,
    has_message_id: bool,
    removed: Vec<Range<usize>>,
}

impl Fields {
    /// `None` if there is no header section: the content begins with an empty line, or no line
    /// before the first one is a field.
    fn read(content: &[u8]) -> Result<Option<Self>, Reason> {
        let mut fields = Self::default();
        let (mut count, mut others, mut is_deceptive) = (0_usize, 0_usize, false);
        for (name, range) in FieldLines::new(content) {
            let field = content.get(range.clone()).unwrap_or_default();
            if is_name(name) {
                count += 1;
                fields.take(name, field, range)?;
            } else if range.start == 0 && is_mbox_line(field) {
                fields.remove(range)?;
            } else {
                others += 1;
                is_deceptive |= may_deceive(name, field);
            }
        }
        match (count, others) {
            (0, _) if !is_deceptive => Ok(None),
            (_, 0) => Ok(Some(fields)),
            _ => Err(Reason::MalformedHeader),
        }
    }

    fn take(&mut self, name: &[u8], field: &[u8], range: Range<usize>) -> Result<(), Reason> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if PRIVATE.iter().any(|name| is(name)) {
            return self.remove(range);
        }
        if !REPAIRED.iter().any(|name| is(name)) {
            return Ok(());
        }
        if is("From") || is("Sender") {
            if names_nobody(field) {
                return self.remove(range);
            }
            let is_there = if is("From") { &mut self.has_from } else { &mut self.has_sender };
            return once(is_there);
        }
        if is_empty(field) {
            return self.remove(range);
        }
        self.has_date |= is("Date");
        self.has_message_id |= is("Message-ID");
        Ok(())
    }

    /// Notes a field for removal, as one range with those directly before it.
    fn remove(&mut self, range: Range<usize>) -> Result<(), Reason> {
        let is_full = self.removed.len() == MAX_REMOVED;
        match self.removed.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if is_full => return Err(Reason::MalformedHeader),
            _ => self.removed.push(range),
        }
        Ok(())
    }
}

/// The line that begins a message in an mbox file. It goes where fields follow it; else it is text.
fn is_mbox_line(field: &[u8]) -> bool {
    field.starts_with(b"From ") && memchr::memchr_iter(b'\n', field).count() <= 1
}

/// RFC 5322 §3.6.8: printable ASCII.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// Whether a line that is no field may be taken for one that matters.
fn may_deceive(name: &[u8], field: &[u8]) -> bool {
    REPAIRED.iter().chain(&PRIVATE).chain(&RESENT).any(|wanted| hides(name, field, wanted))
}

fn is_empty(field: &[u8]) -> bool {
    let value = memchr::memchr(b':', field).and_then(|colon| field.get(colon + 1..));
    value.is_none_or(|value| value.trim_ascii().is_empty())
}

/// RFC 5322 §3.6: at most one.
fn once(is_there: &mut bool) -> Result<(), Reason> {
    if std::mem::replace(is_there, true) { Err(Reason::SeveralAuthors) } else { Ok(()) }
}

fn missing(fields: &Fields, submission: &Completion<'_>) -> Vec<u8> {
    let Completion { login, sender, at, hostname, trace_id } = submission;
    let mut prefix = String::new();
    if !fields.has_from {
        prefix.push_str(&format!("From: <{login}>\r\n"));
    }
    if let Some(sender) = sender.filter(|_| !fields.has_sender) {
        prefix.push_str(&format!("Sender: <{sender}>\r\n"));
    }
    if !fields.has_date {
        prefix.push_str(&format!("Date: {}\r\n", at.to_rfc5322()));
    }
    if !fields.has_message_id {
        prefix.push_str(&format!("Message-ID: <{trace_id}@{hostname}>\r\n"));
    }
    prefix.into_bytes()
}

#[cfg(test)]
mod tests;
