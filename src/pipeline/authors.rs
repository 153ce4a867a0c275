//! Whom a submitted message says it is from, with nobody left out: what the directory is asked
//! about before anything is sent in their names. Pure.

use std::sync::LazyLock;

use mail_parser::{AddressList, MessageParser};

use crate::mail::{Address, Domain, FieldLines, MailboxList, body_offset, hides, unfolded};

/// All authors and the sender of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorship {
    /// Every address of the `From` field; empty if there is none.
    pub authors: Vec<Address>,
    /// The `Sender` field's address, if there is one.
    pub sender: Option<Address>,
}

/// Why it cannot be said who a message is from. Somebody else might read another author out of it,
/// so it must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorshipError {
    /// There are several fields of the name, or lines that some readers take for one.
    #[error("the message has more than one {0} field")]
    Repeated(&'static str),
    /// The field has something that is no address.
    #[error("the {0} field has something that is no address")]
    Unreadable(&'static str),
    /// The `Sender` field has not one address (RFC 5322 §3.6.2).
    #[error("the Sender field must have one address")]
    SeveralSenders,
}

static PARSER: LazyLock<MessageParser> = LazyLock::new(MessageParser::new);

/// Reads all authors and the sender. A message without either field has no authorship, which is
/// no error here.
///
/// # Errors
/// [`AuthorshipError`]: unlike on the way in, nothing is passed over.
pub fn authorship(content: &[u8]) -> Result<Authorship, AuthorshipError> {
    let section = content.get(..body_offset(content)).unwrap_or(content);
    for name in ["From", "Sender"] {
        if count(section, name) > 1 {
            return Err(AuthorshipError::Repeated(name));
        }
    }
    // As on the way in: a message that begins with a folded line has no header section.
    if matches!(content.first(), Some(b' ' | b'\t')) {
        return Ok(Authorship::default());
    }
    let Some(message) = PARSER.parse_headers(section) else { return Ok(Authorship::default()) };
    let authors = addresses(section, message.from(), "From")?;
    let mut senders = addresses(section, message.sender(), "Sender")?;
    let sender = senders.pop();
    if !senders.is_empty() {
        return Err(AuthorshipError::SeveralSenders);
    }
    Ok(Authorship { authors, sender })
}

/// How many fields of a name a reader may find; one that only a lenient reader finds counts as
/// two, because readers do not agree on it.
fn count(section: &[u8], wanted: &str) -> usize {
    let fields = FieldLines::new(section).map(|(name, range)| {
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            1
        } else {
            2 * usize::from(hides(name, section.get(range).unwrap_or_default(), wanted))
        }
    });
    fields.sum()
}

/// The addresses of a field that is there once or not at all. mail-parser finds an address in
/// whatever it is given, so what it finds is held against what a strict reader does.
fn addresses(
    section: &[u8],
    list: Option<AddressList<'_>>,
    name: &'static str,
) -> Result<Vec<Address>, AuthorshipError> {
    let mut fields = FieldLines::new(section);
    let field = fields.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
    let Some(field) = field.and_then(|(_, range)| section.get(range)) else {
        return Ok(Vec::new());
    };
    let parsed: Vec<_> = list.iter().flat_map(|list| list.mailboxes()).collect();
    let read = MailboxList::read(&unfolded(field)).addresses.filter(|read| {
        !read.is_empty()
            && read.len() == parsed.len()
            && parsed.iter().zip(read).all(|(parsed, read)| is_same(parsed.address(), read))
    });
    read.ok_or(AuthorshipError::Unreadable(name))
}

/// mail-parser takes a local-part that is quoted outside of angle brackets for a name.
fn is_same(parsed: Option<&str>, read: &Address) -> bool {
    let Some(parsed) = parsed else { return false };
    match parsed.strip_prefix('@') {
        Some(domain) => Domain::parse(domain).as_ref() == Ok(read.domain()),
        None => Address::parse(parsed).as_ref() == Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Result<(&[&str], Option<&str>), AuthorshipError>) {
        let address = |text: &&str| Address::parse(text).expect("an address");
        let expected = expected.map(|(authors, sender)| Authorship {
            authors: authors.iter().map(address).collect(),
            sender: sender.as_ref().map(address),
        });
        let content = format!("{header}\r\n\r\nFrom: not@read.test\r\n");
        assert_eq!(authorship(content.as_bytes()), expected, "{header:?}");
    }

    #[test]
    fn every_author_is_found() {
        check("From: A <a@b.test>", Ok((&["a@b.test"], None)));
        check("from : a@b.test,\r\n \"C, D\" <c@d.test>", Ok((&["a@b.test", "c@d.test"], None)));
        check("From: \"a\"@b.test", Ok((&["a@b.test"], None)));
        check("From: A <\"a\"@b.test>", Ok((&["a@b.test"], None)));
        check("From: \"c@d.test\" <a@b.test>", Ok((&["a@b.test"], None)));
        check(
            "Sender: S <s@b.test>\r\nFrom: a@B.test (c@d.test)",
            Ok((&["a@b.test"], Some("s@b.test"))),
        );
    }

    #[test]
    fn a_message_without_a_header_section_has_no_author() {
        assert_eq!(authorship(b""), Ok(Authorship::default()));
        assert_eq!(authorship(b"\r\nFrom: a@b.test\r\n"), Ok(Authorship::default()));
        check(" folded\r\nFrom: a@b.test", Ok((&[], None)));
        check("Subject: x", Ok((&[], None)));
    }

    #[test]
    fn nobody_is_passed_over() {
        use AuthorshipError::{Repeated, SeveralSenders, Unreadable};
        check("From: a@b.test\r\nFROM: c@d.test", Err(Repeated("From")));
        check("From: a@b.test\r\nSender: a@b.test\r\nSender: c@d.test", Err(Repeated("Sender")));
        check("From: a@b.test\r\nx\r\n From: c@d.test", Err(Repeated("From")));
        check(" Sender: c@d.test\r\nFrom: a@b.test", Err(Repeated("Sender")));
        for unreadable in ["", "Boss", "a@b.test, Boss", "a@b.test, x@d_e.test", "undisclosed:;"] {
            check(&format!("From: {unreadable}"), Err(Unreadable("From")));
        }
        check("From: a@b.test\r\nSender: Boss", Err(Unreadable("Sender")));
        check("From: a@b.test\r\nSender: a@b.test, c@d.test", Err(SeveralSenders));
        check("From: a@b.test\r\nSender: undisclosed:;", Err(Unreadable("Sender")));
    }

    #[test]
    fn a_field_that_others_take_for_somebody_else_is_not_read() {
        for from in [
            "ceo@b.test <> <a@b.test>",
            "ceo@b.test <a@b.test>",
            "ceo@b.test: a@b.test",
            "ceo@b.test: a@b.test;",
            "team: a@b.test, c@d.test;",
            "=?utf-8?q?ceo=40b=2Etest=2C?= a@b.test",
            "\"ceo@b.test,\" a@b.test",
            "a@b.test (<ceo@b.test>",
            "<a@b.test> ceo@b.test",
        ] {
            let unreadable = AuthorshipError::Unreadable;
            check(&format!("From: {from}"), Err(unreadable("From")));
            check(&format!("From: a@b.test\r\nSender: {from}"), Err(unreadable("Sender")));
        }
    }
}
