//! Forwarded mail that comes back must not be forwarded again.
//!
//! What a mailbox rule sends on carries a `Delivered-To` field with the mailbox's address (RFC 9228),
//! which other mail systems write and heed too, and a mark that only we make: a mailbox never forwards
//! what has its own already. All else of the message stays as it is, signatures, `Auto-Submitted` (RFC 3834) and all, and a
//! null path stays null.

use serde::{Deserialize, Serialize};

use crate::mail::{Address, DELIVERED_TO, FieldLines, MARKED_DELIVERED_TO, delivered_to_whom};

/// How many mailboxes may have sent a message on, one after the other.
const MAX_FORWARDS: usize = 10;

/// Why a message is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Withheld {
    /// This mailbox has sent it on before.
    Loop,
    /// Ten mailboxes have.
    TooManyForwards,
    /// The target is an address here that leads nowhere.
    NobodyThere,
    /// An outbound rule drops or bounces it.
    OutboundRule,
    /// The message goes on to a thousand addresses already.
    TooManyTargets,
    /// The user or the organization has written to too many recipients today.
    Quota,
    /// It says that it is from a domain here, which nothing proves, and would leave as our own.
    DoubtfulAuthor,
    /// Nobody that it would go on to takes it.
    NotTaken,
}

/// Whether a mailbox may send a message on, by the message's header section, in which nothing is
/// forged: fields that name a mailbox here are ours. `before` mailboxes have sent it on since it came.
///
/// # Errors
/// Why it may not.
pub fn may_go_on(header_section: &[u8], mailbox: &Address, before: usize) -> Result<(), Withheld> {
    let mailbox = mailbox.key();
    let mut count = before;
    for (name, range) in FieldLines::new(header_section) {
        let is_standard = name.eq_ignore_ascii_case(DELIVERED_TO.as_bytes());
        if !is_standard && !name.eq_ignore_ascii_case(MARKED_DELIVERED_TO.as_bytes()) {
            continue;
        }
        // Either field is enough: there are servers that take one of them out.
        let named = header_section.get(range).and_then(delivered_to_whom);
        if named.is_some_and(|address| address.key() == mailbox) {
            return Err(Withheld::Loop);
        }
        count += usize::from(is_standard);
    }
    if count >= MAX_FORWARDS { Err(Withheld::TooManyForwards) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::delivered_to;

    #[test]
    fn a_mailbox_forwards_a_message_once() {
        let mailbox = Address::parse("Alice@example.test").expect("an address");
        let ours = delivered_to(&mailbox);
        assert_eq!(ours, "Delivered-To: Alice@example.test\r\n");
        let others: String = (0..10).map(|n| format!("delivered-to: u{n}@x.test\r\n")).collect();
        for (section, expected) in [
            ("Subject: x\r\n", Ok(())),
            (ours.as_str(), Err(Withheld::Loop)),
            ("X-mailweir-delivered-TO: alice@example.test; mark=x\r\n", Err(Withheld::Loop)),
            ("X-Mailweir-Delivered-To: bob@example.test; mark=x\r\n", Ok(())),
            ("X: y\r\nDELIVERED-TO :\r\n <alice@Example.test>\r\n", Err(Withheld::Loop)),
            ("Delivered-To: bob@example.test\r\n", Ok(())),
            ("X-Delivered-To: alice@example.test\r\n", Ok(())),
            ("Subject: x\r\n\r\nDelivered-To: alice@example.test\r\n", Ok(())),
            (others.as_str(), Err(Withheld::TooManyForwards)),
            (&format!("{others}{ours}"), Err(Withheld::Loop)),
        ] {
            assert_eq!(may_go_on(section.as_bytes(), &mailbox, 0), expected, "{section}");
        }
    }

    #[test]
    fn each_mailbox_that_has_sent_a_message_on_counts_once() {
        let mailbox = Address::parse("alice@example.test").expect("an address");
        let both = |count: usize| -> String {
            let of = |n| {
                let name = "X-Mailweir-Delivered-To";
                format!("Delivered-To: u{n}@x.test\r\n{name}: u{n}@x.test; mark=x\r\n")
            };
            (0..count).map(of).collect()
        };
        for (fields, before, expected) in [
            (9, 0, Ok(())),
            (10, 0, Err(Withheld::TooManyForwards)),
            (0, 9, Ok(())),
            (0, 10, Err(Withheld::TooManyForwards)),
            (5, 4, Ok(())),
            (5, 5, Err(Withheld::TooManyForwards)),
        ] {
            let found = may_go_on(both(fields).as_bytes(), &mailbox, before);
            assert_eq!(found, expected, "{fields} in fields, {before} before");
        }
    }
}
