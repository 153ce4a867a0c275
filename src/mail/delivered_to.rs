//! `Delivered-To` (RFC 9228), which stops mail that comes back from being sent on again, and the
//! field beside it by which we know our own.
//!
//! Anybody can write that a message has been in a mailbox here before, and would so decide whether
//! it is sent on from there. RFC 9228 has no comments in its field, so the mark has a field of its
//! own:
//!
//! ```text
//! Delivered-To: alice@example.test
//! X-Mailweir-Delivered-To: alice@example.test; mark=hash
//! ```

use aws_lc_rs::{constant_time, hmac};
use memchr::memchr;

use super::srs::base32;
use super::{Address, unfolded};

/// The field that other servers write and heed too.
pub const DELIVERED_TO: &str = "Delivered-To";
/// Ours, for mailboxes here.
pub const MARKED_DELIVERED_TO: &str = "X-Mailweir-Delivered-To";
const MARK: &str = "mark=";

/// The field for `mailbox`, with its line end.
pub fn delivered_to(mailbox: &Address) -> String {
    format!("{DELIVERED_TO}: {mailbox}\r\n")
}

/// The mailbox that a field of either name is about; `None` if it does not say so in the form in
/// which it is usually written.
pub fn delivered_to_whom(field: &[u8]) -> Option<Address> {
    read(&unfolded(field)).0
}

/// The mailbox and the mark in a field's value. A server on the way may have folded it anew.
fn read(value: &str) -> (Option<Address>, Option<String>) {
    let marked = value.rsplit_once(';').and_then(|(front, rest)| {
        let rest = rest.trim().to_ascii_lowercase();
        Some((front, rest.strip_prefix(MARK)?.to_owned()))
    });
    let (mailbox, mark) = match marked {
        Some((front, mark)) => (front, Some(mark)),
        None => (value, None),
    };
    (Address::parse(mailbox.trim_matches(|c: char| "<> \t".contains(c))).ok(), mark)
}

/// Every word in a field's value that follows an `@`, with nothing between its parts: the domains
/// that a reader may find, however the field is written.
pub fn domains_within(field: &[u8]) -> Vec<String> {
    let value = memchr(b':', field).and_then(|colon| field.get(colon + 1..)).unwrap_or_default();
    let closed: String = String::from_utf8_lossy(value).split_whitespace().collect();
    let is_end = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-._".contains(c);
    let parts = closed.split('@').skip(1);
    parts.map(|part| part.split(is_end).next().unwrap_or_default().to_owned()).collect()
}

/// Makes and knows the marks of mailboxes here.
#[derive(Debug)]
pub struct DeliveryMarks {
    key: hmac::Key,
}

impl DeliveryMarks {
    /// `key` is secret, and made for this use alone; with another one, what was sent on before is not
    /// known when it comes back.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// What goes on top of a message that `mailbox` sends on to another server: both fields.
    pub fn fields(&self, mailbox: &Address) -> String {
        let mark = self.mark(mailbox);
        let field = delivered_to(mailbox);
        format!("{field}{MARKED_DELIVERED_TO}: {mailbox}; {MARK}{mark}\r\n")
    }

    /// Whether we have made a marked field.
    pub fn is_ours(&self, field: &[u8]) -> bool {
        let (Some(mailbox), Some(mark)) = read(&unfolded(field)) else { return false };
        let expected = self.mark(&mailbox);
        constant_time::verify_slices_are_equal(mark.as_bytes(), expected.as_bytes()).is_ok()
    }

    /// It is about the mailbox alone, and has no day. Who has once got a message from there can so
    /// keep a message of his own from being sent on from there again, and nothing else.
    fn mark(&self, mailbox: &Address) -> String {
        base32(hmac::sign(&self.key, mailbox.key().as_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    #[test]
    fn only_our_own_mark_of_the_same_mailbox_counts() {
        let marks = DeliveryMarks::new(&[1; 32]);
        let fields = marks.fields(&address("Alice@example.test"));
        assert_eq!(
            fields,
            "Delivered-To: Alice@example.test\r\n\
             X-Mailweir-Delivered-To: Alice@example.test; mark=sbhzp533\r\n"
        );
        let (_, field) = fields.split_once("\r\n").expect("two fields");
        let check = |text: &str, expected: bool| {
            assert_eq!(marks.is_ours(text.as_bytes()), expected, "{text}");
        };
        check(field, true);
        check(&field.replace("Alice", "\r\n\talice"), true);
        check(&field.to_uppercase(), true);
        check(&field.replace("; ", " ;\r\n\t "), true);
        check(&field.replace("Alice", "bob"), false);
        check(&field.replace("example", "other"), false);
        check(&field.replace("mark=s", "mark=t"), false);
        check(&field.replace("; mark=sbhzp533", ""), false);
        check(&field.replace("sbhzp533", ""), false);
        check("X-Mailweir-Delivered-To:\r\n", false);
        assert!(!DeliveryMarks::new(&[2; 32]).is_ours(field.as_bytes()));
    }

    #[test]
    fn a_mailbox_is_found_however_it_is_written() {
        for value in
            [" alice@example.test", "\r\n <alice@example.test>", "alice@EXAMPLE.test; mark=x"]
        {
            let field = format!("Delivered-To:{value}\r\n");
            let found = delivered_to_whom(field.as_bytes());
            assert_eq!(found.map(|it| it.key()).as_deref(), Some("alice@example.test"), "{value}");
        }
        for (value, domains) in [
            ("Alice <alice@example.test>, b@c.test", &["example.test", "c.test"][..]),
            ("alice @ example . test (x)", &["example.test"]),
            ("(x@y.test", &["y.test"]),
            ("=?utf-8?q?a@b=2Etest?=", &["b"]),
            ("alice", &[]),
        ] {
            let field = format!("Delivered-To: {value}\r\n");
            assert_eq!(delivered_to_whom(field.as_bytes()), None, "{value}");
            assert_eq!(domains_within(field.as_bytes()), domains, "{value}");
        }
    }
}
