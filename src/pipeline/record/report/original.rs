//! What of the message goes back with a report.

use mail_parser::{HeaderForm, MessageParser};

use crate::mail::{FieldLines, body_offset, excerpt_on_one_line};

/// The largest message that goes back whole, in octets; of a larger one the header section does,
/// whatever `RET=` asks for, so that no report is larger than what its reader can take.
const MAX_RETURNED: usize = 1024 * 1024;
/// How much of a header section goes back, in octets; it ends with a whole field.
const MAX_SECTION: usize = 64 * 1024;
/// How much of a subject is repeated, in characters.
const MAX_SUBJECT: usize = 200;

/// The message that a report is about, in the parts in which it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original<'a>(pub(crate) &'a [&'a [u8]]);

/// What goes back, and as what.
pub(super) struct Returned {
    pub(super) content_type: &'static str,
    pub(super) octets: Vec<u8>,
    pub(super) subject: Option<String>,
}

impl Original<'_> {
    /// The whole message if it is wanted and small enough, else its header section.
    pub(super) fn returned(&self, is_whole_wanted: bool) -> Returned {
        let section = self.section();
        let subject = subject(&section);
        // RFC 6533 §4: what needs UTF-8 in its header section is of another type.
        let is_global = !section.is_ascii() && std::str::from_utf8(&section).is_ok();
        let length: usize = self.0.iter().map(|part| part.len()).sum();
        if is_whole_wanted && length <= MAX_RETURNED {
            let content_type = if is_global { "message/global" } else { "message/rfc822" };
            return Returned { content_type, octets: self.0.concat(), subject };
        }
        let content_type = if is_global { "message/global-headers" } else { "text/rfc822-headers" };
        Returned { content_type, octets: section, subject }
    }

    fn section(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for part in self.0 {
            let room = (MAX_SECTION + 1).saturating_sub(head.len());
            head.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        let end = if head.len() > MAX_SECTION { whole_fields(&head) } else { body_offset(&head) };
        head.truncate(end);
        head
    }
}

/// Where the header section ends, or the last field of it of which all is there.
fn whole_fields(head: &[u8]) -> usize {
    let ends: Vec<_> = FieldLines::new(head).map(|(_, range)| range.end).collect();
    match ends.as_slice() {
        [.., before, last] if *last == head.len() => *before,
        [last] if *last == head.len() => 0,
        _ => body_offset(head),
    }
}

fn subject(section: &[u8]) -> Option<String> {
    let parser = MessageParser::new().unknown_headers(HeaderForm::Ignore);
    let message = parser.parse_headers(section)?;
    let subject = message.subject()?.trim();
    (!subject.is_empty()).then(|| excerpt_on_one_line(subject, MAX_SUBJECT))
}
