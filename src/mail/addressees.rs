//! Whom a header section names: the addresses of `To` and `Cc`.

use std::sync::LazyLock;

use mail_parser::{AddressList, HeaderForm, HeaderName, MessageParser};

use super::Address;

/// How many addresses of a field kind are looked at; a message has 500 recipients at most (product
/// contract §5), so more of them are nobody's who gets it.
const MAX_ADDRESSES: usize = 10_000;

/// The addresses in `To` and `Cc`, those of groups among them (RFC 5322 §3.6.3); of a resent
/// message also those in `Resent-To` and `Resent-Cc` (§3.6.6), which are the ones that it goes to
/// now. Which is a claim of whoever wrote the message, and no envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressees {
    /// `To`
    pub to: Vec<Address>,
    /// `Cc`
    pub cc: Vec<Address>,
}

static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .unknown_headers(HeaderForm::Ignore)
        .header(HeaderName::Received, HeaderForm::Ignore)
        .header(HeaderName::Subject, HeaderForm::Ignore)
});

impl Addressees {
    /// Reads them; what is not an address is passed over.
    pub fn of(header_section: &[u8]) -> Self {
        let Some(message) = PARSER.parse_headers(header_section) else { return Self::default() };
        let to = message.all_to().chain(message.resent_to()).flat_map(readable);
        let cc = message.all_cc().chain(message.resent_cc()).flat_map(readable);
        let (to, cc) = (to.take(MAX_ADDRESSES).collect(), cc.take(MAX_ADDRESSES).collect());
        Self { to, cc }
    }
}

fn readable(list: AddressList<'_>) -> Vec<Address> {
    let texts = list.mailboxes().filter_map(|mailbox| mailbox.address()).take(MAX_ADDRESSES);
    texts.filter_map(|text| Address::parse(text).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(section: &str, to: &[&str], cc: &[&str]) {
        let texts = |list: &[Address]| list.iter().map(Address::to_string).collect::<Vec<_>>();
        let found = Addressees::of(section.as_bytes());
        assert_eq!(texts(&found.to), to, "To of {section}");
        assert_eq!(texts(&found.cc), cc, "Cc of {section}");
    }

    #[test]
    fn all_addresses_of_all_fields_are_found() {
        check("", &[], &[]);
        check("From: a@x.test\r\nBcc: b@x.test\r\n\r\nTo: c@x.test\r\n", &[], &[]);
        check(
            "To: \"A, B\" <a@X.test>, b@x.test (c@x.test)\r\ncc : =?utf-8?q?d@x.test?= <e@x.test>\r\n",
            &["a@x.test", "b@x.test"],
            &["e@x.test"],
        );
        check(
            "To: team: a@x.test, <b@x.test>;, c@x.test\r\nTO:\r\n d@x.test\r\n",
            &["a@x.test", "b@x.test", "c@x.test", "d@x.test"],
            &[],
        );
        check("To: undisclosed-recipients:;\r\nCc: not an address, a@@b\r\n", &[], &[]);
        check(
            "To: a@x.test\r\nResent-To: b@x.test\r\nResent-Cc: c@x.test\r\n",
            &["a@x.test", "b@x.test"],
            &["c@x.test"],
        );
    }

    #[test]
    fn a_swarm_of_addresses_is_not_read_to_its_end() {
        let swarm = "a@x.test, ".repeat(MAX_ADDRESSES);
        let field = |name: &str| format!("{name}: {swarm}a@x.test\r\n");
        let section = [field("To"), field("Cc"), field("To"), field("Cc")].concat();
        let found = Addressees::of(section.as_bytes());
        assert_eq!((found.to.len(), found.cc.len()), (MAX_ADDRESSES, MAX_ADDRESSES));
    }
}
