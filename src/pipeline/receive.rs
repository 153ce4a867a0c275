//! A message as it came: its bytes, and what its header says of its authors.

use mail_parser::{HeaderForm, HeaderName, MessageParser};
use memchr::memmem;
use serde::Serialize;
use std::sync::LazyLock;

use super::Settings;
use crate::mail::{Address, Domain, FieldLines, MailboxList, body_offset, hides, unfolded};
use crate::smtp::reason::Reason;

/// How much of a Subject or Message-ID is repeated in events and stories, in characters: one
/// line's worth (RFC 5322 §2.1.1), since a peer can send megabytes of either.
const MAX_TOLD: usize = 998;

/// What the header section says, as far as rules, events and journal need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Headers {
    /// The `From` field's first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Address>,
    /// The `Sender` field's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sender: Option<Address>,
    /// `Subject`, decoded (RFC 2047).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// `Message-ID`, with its angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_id: Option<String>,
}

impl Headers {
    /// The sender, when it is somebody else than the author (guide 1528).
    pub(super) fn on_behalf_sender(&self) -> Option<&Address> {
        self.sender
            .as_ref()
            .filter(|sender| self.from.as_ref().is_none_or(|from| from.key() != sender.key()))
    }
}

static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .unknown_headers(HeaderForm::Raw)
        .header(HeaderName::Received, HeaderForm::Raw)
        .header(HeaderName::Date, HeaderForm::Raw)
        .header(HeaderName::To, HeaderForm::Raw)
        .header(HeaderName::Cc, HeaderForm::Raw)
});

/// Reads the header section, and refuses what must not go on: loops, ambiguous authors, too many
/// attachments.
pub(super) fn inspect(content: &[u8], settings: &Settings) -> Result<Headers, Reason> {
    let counts = count_fields(content);
    if counts.received > settings.max_hops {
        return Err(Reason::TooManyHops);
    }
    if counts.from > 1 {
        return Err(Reason::AmbiguousAuthor);
    }
    if matches!(content.first(), Some(b' ' | b'\t')) {
        // Such a message has no header section: it is kept below an empty line (`headers.rs`), and
        // nobody was asked whether its author is who it says.
        return Ok(Headers::default());
    }
    let section = content.get(..body_offset(content)).unwrap_or(content);
    let Some(message) = PARSER.parse_headers(section) else {
        return Ok(Headers::default()); // No header section: accepted, with nothing known of it.
    };
    let authors = addresses(message.from());
    let read = counts.from_value.as_deref().map(MailboxList::read).unwrap_or_default();
    let parsed = authors.iter().filter_map(|author| domain(author));
    let mut domains = parsed.chain(read.domains);
    let first = domains.next();
    // Some reader may find an author of another domain than the one that DMARC is asked about.
    if read.may_hide_more || domains.any(|other| Some(other) != first) {
        return Err(Reason::AmbiguousAuthor);
    }
    if has_too_many_attachments(content, settings.max_attachments) {
        return Err(Reason::TooManyAttachments);
    }
    Ok(Headers {
        from: first_readable(&authors).or_else(|| read.addresses?.into_iter().next()),
        sender: first_readable(&addresses(message.sender())),
        subject: told(message.subject()),
        message_id: told(counts.message_id.as_deref()),
    })
}

fn addresses(list: Option<mail_parser::AddressList<'_>>) -> Vec<String> {
    let list = list.iter();
    let mailboxes = list.flat_map(|list| list.mailboxes().collect::<Vec<_>>());
    mailboxes.filter_map(|mailbox| mailbox.address().map(str::to_owned)).collect()
}

/// What DMARC takes for an author's domain, even of an address that is not one: else such an
/// address could stand beside another, and free it from the policy of its domain.
fn domain(address: &str) -> Option<String> {
    let (_, domain) = address.rsplit_once('@')?;
    let read = Domain::parse(domain).map(|domain| domain.as_str().to_owned());
    Some(read.unwrap_or_else(|_| domain.to_lowercase()))
}

fn first_readable(addresses: &[String]) -> Option<Address> {
    addresses.iter().find_map(|address| Address::parse(address).ok())
}

#[derive(Default)]
struct FieldCounts {
    received: usize,
    from: usize,
    /// The value of the first `From` field.
    from_value: Option<String>,
    message_id: Option<String>,
}

fn count_fields(content: &[u8]) -> FieldCounts {
    let mut counts = FieldCounts::default();
    for (name, range) in FieldLines::new(content) {
        if name.eq_ignore_ascii_case(b"received") {
            counts.received += 1;
        } else if name.eq_ignore_ascii_case(b"from") {
            counts.from += 1;
            counts.from_value = counts.from_value.or_else(|| content.get(range).map(unfolded));
        } else if name.eq_ignore_ascii_case(b"message-id") && counts.message_id.is_none() {
            counts.message_id = content.get(range).map(unfolded);
        } else if hides(name, content.get(range).unwrap_or_default(), "From") {
            // Readers do not agree on one that only a lenient one finds: it is an author too many.
            counts.from += 2;
        }
    }
    counts
}

/// A value on one line: an encoded word (RFC 2047) may hold line ends and terminal escapes, which
/// nobody who reads an event, a story or a journal report should have to fear.
fn told(text: Option<&str>) -> Option<String> {
    let text = text?.trim();
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    (!text.is_empty()).then(|| text.chars().take(MAX_TOLD).map(printable).collect())
}

/// Every attachment begins with a delimiter line (RFC 2046 §5.1.1), so only a message with that
/// many of them is parsed as a whole.
fn has_too_many_attachments(content: &[u8], max: usize) -> bool {
    if memmem::find_iter(content, b"\n--").take(max + 1).count() <= max {
        return false;
    }
    // Multiparts and texts are parts too; a message with so many of them is not read further.
    let max_parts = max.saturating_mul(4);
    let parser = MessageParser::new().max_parts(max_parts).max_encoded_nesting(0);
    parser.parse(content).is_some_and(|message| {
        message.attachments().len() > max || message.parts().count() >= max_parts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, expected: Result<Headers, Reason>) {
        assert_eq!(inspect(content.as_bytes(), &Settings::default()), expected, "{content:?}");
    }

    fn address(text: &str) -> Option<Address> {
        Some(Address::parse(text).expect("an address"))
    }

    #[test]
    fn the_header_section_is_read_as_far_as_it_goes() {
        check("", Ok(Headers::default()));
        check("\r\nFrom: a@b.test\r\n", Ok(Headers::default()));
        check("no header here\r\n", Ok(Headers::default()));
        check(" continues nothing\r\nFrom: a@b.test\r\n\r\n", Ok(Headers::default()));
        check(
            "FROM: A <a@b.test>, c@B.test\r\nSender: s@d.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\
             \r\nMessage-ID:\r\n <1@b.test>\r\n\r\nbody",
            Ok(Headers {
                from: address("a@b.test"),
                sender: address("s@d.test"),
                subject: Some("Grüße".into()),
                message_id: Some("<1@b.test>".into()),
            }),
        );
        check("From: not an address\r\nSubject: \r\n\r\n", Ok(Headers::default()));
    }

    #[test]
    fn an_author_must_be_told() {
        check("From: a@b.test\r\nFrom: a@b.test\r\n\r\n", Err(Reason::AmbiguousAuthor));
        check("From: a@b.test, c@d.test\r\n\r\n", Err(Reason::AmbiguousAuthor));
        // An address that cannot be read is an author nevertheless, of whatever it says.
        for unreadable in ["x@d_e.test", "x@b.test.", &format!("{}@d.test", "x".repeat(65))] {
            let from = format!("From: {unreadable}, a@b.test\r\n\r\n");
            check(&from, Err(Reason::AmbiguousAuthor));
        }
        let same = format!("From: {}@b.test, a@b.test\r\n\r\n", "x".repeat(65));
        check(&same, Ok(Headers { from: address("a@b.test"), ..Headers::default() }));
        for two in [
            "ceo@c.test <> <a@b.test>",
            "ceo@c.test <a@b.test>",
            "ceo@c.test: a@b.test",
            "ceo@c.test: a@b.test;",
            "=?utf-8?q?ceo=40c=2Etest=2C?= a@b.test",
            "\"ceo@c.test,\" a@b.test",
            "a@b.test (<ceo@c.test>",
            "<a@b.test> ceo@c.test",
        ] {
            check(&format!("From: {two}\r\n\r\n"), Err(Reason::AmbiguousAuthor));
        }
        // Some readers find an author here, and some do not.
        check("From: a@b.test\r\nx\r\n From: c@d.test\r\n\r\n", Err(Reason::AmbiguousAuthor));
        check("x\r\n\tFROM : c@d.test\r\n\r\n", Err(Reason::AmbiguousAuthor));
        check(" From: c@d.test\r\n\r\n", Err(Reason::AmbiguousAuthor));
    }

    #[test]
    fn a_name_that_looks_like_an_address_is_common() {
        for name in [
            "\"a@b.test\"",
            "a@b.test",
            "c@b.test",
            "\"c@d.test via list\"",
            "=?utf-8?q?c=40d=2Etest?=",
            "=?utf-8?q?c@d.test?=",
            "Work @ home",
            "Bob@Home",
            "@b.test",
            "a (c@d.test)",
        ] {
            let from = format!("From: {name} <a@b.test>\r\n\r\n");
            check(&from, Ok(Headers { from: address("a@b.test"), ..Headers::default() }));
        }
        check("From: Mailer <>\r\n\r\n", Ok(Headers::default()));
        let quoted = "From: \"a\"@b.test\r\n\r\n";
        check(quoted, Ok(Headers { from: address("a@b.test"), ..Headers::default() }));
    }

    #[test]
    fn loops_and_swarms_of_attachments_are_refused() {
        check(&"Received: from a by b\r\n".repeat(101), Err(Reason::TooManyHops));
        let part =
            "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment\r\n\r\nx\r\n";
        let head = "From: a@b.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
        let message = |count| format!("{head}{}--b--\r\n", part.repeat(count));
        check(&message(501), Err(Reason::TooManyAttachments));
        assert!(inspect(message(500).as_bytes(), &Settings::default()).is_ok());
        let dashes = format!("{head}{}", "\r\n-- not a part".repeat(2000));
        assert!(inspect(dashes.as_bytes(), &Settings::default()).is_ok());
    }

    #[test]
    fn an_encoded_word_cannot_smuggle_lines_or_escapes() {
        let message = "Subject: =?utf-8?q?a=0D=0AX-Evil:_1=1B[31m?=\r\n\r\n";
        let headers = inspect(message.as_bytes(), &Settings::default()).expect("is accepted");
        assert_eq!(headers.subject.as_deref(), Some("a  X-Evil: 1 [31m"));
    }

    #[test]
    fn a_megabyte_of_subject_is_not_repeated() {
        let message = format!("Subject: {}\r\n\r\n", "a".repeat(1 << 20));
        let headers = inspect(message.as_bytes(), &Settings::default()).expect("is accepted");
        assert_eq!(headers.subject.map(|subject| subject.len()), Some(MAX_TOLD));
    }
}
