//! A list of mailboxes (RFC 5322 §3.4) as a strict reader sees it, and what others may see in it:
//! a check beside mail-parser, which finds an address in whatever it is given.

use std::iter::Peekable;

use super::{Address, Domain};

/// What stands in the value of a `From` or `Sender` field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxList {
    /// The addresses in their order, if there is one way only to read the value: no groups, no
    /// obsolete syntax, no `@` in a name that is not quoted.
    pub addresses: Option<Vec<Address>>,
    /// Every domain that some reader may find behind an `@`, quoted names, encoded names before
    /// an address in angle brackets, and comments aside. In lower-case A-label form if it has one.
    pub domains: Vec<String>,
    /// Whether a reader who decodes (RFC 2047) before it parses may find an address that is not in
    /// `domains`.
    pub may_hide_more: bool,
}

impl MailboxList {
    /// Reads a field's value, unfolded, in one pass.
    pub fn read(value: &str) -> Self {
        let mut list =
            Self { addresses: Some(Vec::new()), domains: Vec::new(), may_hide_more: false };
        let mut element = Element::default();
        let mut rest = value;
        while let Some((token, after)) = token(rest) {
            rest = after;
            match token {
                Token::Comma => list.end(std::mem::take(&mut element)),
                Token::GroupMark => {
                    list.addresses = None;
                    list.end(std::mem::take(&mut element));
                }
                Token::Unended(text) => {
                    list.addresses = None;
                    list.mention(text);
                }
                Token::Comment => element.push(" "),
                Token::Quoted(text) => element.quoted(text, after.starts_with('@')),
                Token::Angle(content) => {
                    element.is_odd |= element.angle.is_some();
                    // A local-part in quotes may have an `@` that means nothing.
                    let is_quoted = content.trim_start().starts_with('"');
                    let domain = content.rfind('"').filter(|_| is_quoted);
                    list.mention(content.get(domain.unwrap_or(0)..).unwrap_or_default());
                    element.angle = Some(content);
                }
                Token::Text(text) => element.push(text),
            }
        }
        list.end(element);
        list
    }

    fn end(&mut self, element: Element<'_>) {
        let text = element.text.trim();
        let is_odd = match element.angle {
            Some(_) => {
                let name = without_encoded_words(text);
                self.mention(&name);
                element.is_odd || name.contains('@')
            }
            None if text.is_empty() && element.quoted.is_empty() => return,
            None => {
                // Only in a name is an encoded word known to be text.
                self.may_hide_more |= text.contains("=?") && text.contains('@');
                self.mention(text);
                self.mention(&element.quoted);
                element.is_odd
            }
        };
        let address = Address::parse(element.angle.unwrap_or(element.whole.trim())).ok();
        match (&mut self.addresses, address) {
            (Some(addresses), Some(address)) if !is_odd => addresses.push(address),
            _ => self.addresses = None,
        }
    }

    fn mention(&mut self, text: &str) {
        for (at, _) in text.match_indices('@') {
            let (before, after) = (text.get(..at), text.get(at + 1..));
            let has_local_part =
                before.and_then(|before| before.trim_end().chars().next_back()).is_some();
            if let Some(domain) = after.and_then(domain_at).filter(|_| has_local_part) {
                self.domains.push(domain);
            }
        }
    }
}

/// What is left of a name without its encoded words (RFC 2047).
fn without_encoded_words(text: &str) -> String {
    let is_encoded = |word: &&str| word.starts_with("=?") && word.ends_with("?=");
    text.split_whitespace().filter(|word| !is_encoded(word)).flat_map(|word| [word, " "]).collect()
}

/// The domain that a text begins with; one without a dot is none that mail comes from.
fn domain_at(text: &str) -> Option<String> {
    let text = text.trim_start();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || !c.is_ascii();
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let domain = text.get(..end)?.trim_matches('.');
    domain.contains('.').then(|| {
        Domain::parse(domain).map_or_else(|_| domain.to_lowercase(), |read| read.to_string())
    })
}

/// What stands between two commas.
#[derive(Default)]
struct Element<'a> {
    /// All of it but comments and what stands in angle brackets.
    whole: String,
    /// The same without quoted strings.
    text: String,
    /// What stands in quoted strings that are no local-parts.
    quoted: String,
    angle: Option<&'a str>,
    is_odd: bool,
}

impl Element<'_> {
    fn push(&mut self, text: &str) {
        self.is_odd |= self.angle.is_some() && !text.trim().is_empty();
        self.whole.push_str(text);
        self.text.push_str(text);
    }

    fn quoted(&mut self, text: &str, is_local_part: bool) {
        self.is_odd |= self.angle.is_some();
        self.whole.push_str(text);
        if is_local_part {
            self.text.push_str("\"\"");
        } else {
            self.quoted.push_str(text);
            self.text.push(' ');
        }
    }
}

enum Token<'a> {
    Comma,
    /// `:` or `;`
    GroupMark,
    Comment,
    /// With its quotes.
    Quoted(&'a str),
    /// Without its brackets.
    Angle(&'a str),
    Text(&'a str),
    /// A comment, a quoted string or a bracket that never ends, with all that follows.
    Unended(&'a str),
}

/// The next token, and what comes after it.
fn token(text: &str) -> Option<(Token<'_>, &str)> {
    let first = text.chars().next()?;
    let length = match first {
        '(' => comment(text),
        '"' => quoted(text),
        '<' => angle(text),
        // A domain literal may have colons.
        '[' => text.find(']').map(|end| end + 1),
        ',' | ':' | ';' => Some(1),
        _ => text.find(['(', '"', '<', '[', ',', ':', ';']).or(Some(text.len())),
    };
    let Some((token, after)) = length.and_then(|length| text.split_at_checked(length)) else {
        return Some((Token::Unended(text), ""));
    };
    let token = match first {
        '(' => Token::Comment,
        '"' => Token::Quoted(token),
        '<' => Token::Angle(token.get(1..token.len() - 1).unwrap_or_default()),
        ',' => Token::Comma,
        ':' | ';' => Token::GroupMark,
        _ => Token::Text(token),
    };
    Some((token, after))
}

/// The length of the comment at the front; comments nest (RFC 5322 §3.2.2).
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            // What stands behind a backslash has no meaning of its own.
            b'\\' => drop(octets.next()),
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn quoted(text: &str) -> Option<usize> {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Some(at + 1),
            b'\\' => drop(octets.next()),
            _ => {}
        }
    }
    None
}

fn angle(text: &str) -> Option<usize> {
    let mut octets = text.bytes().enumerate().skip(1).peekable();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'>' => return Some(at + 1),
            b'<' => return None,
            b'"' => skip_quoted(&mut octets),
            _ => {}
        }
    }
    None
}

fn skip_quoted(octets: &mut Peekable<impl Iterator<Item = (usize, u8)>>) {
    while let Some((_, octet)) = octets.next() {
        match octet {
            b'"' => return,
            b'\\' => drop(octets.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(value: &str, addresses: Option<&[&str]>, domains: &[&str]) {
        let list = MailboxList::read(value);
        let address = |text: &&str| Address::parse(text).expect("an address");
        let addresses = addresses.map(|texts| texts.iter().map(address).collect::<Vec<_>>());
        assert_eq!(list.addresses, addresses, "{value}");
        let found: BTreeSet<&str> = list.domains.iter().map(String::as_str).collect();
        assert_eq!(found, domains.iter().copied().collect(), "{value}");
    }

    #[test]
    fn what_rfc_5322_writes_is_read() {
        check("", Some(&[]), &[]);
        check("a@b.test", Some(&["a@b.test"]), &["b.test"]);
        check(
            "A <a@B.test>,\t\"C, D\" (x) <c@d.test>",
            Some(&["a@b.test", "c@d.test"]),
            &["b.test", "d.test"],
        );
        check("\"c@d.test\" <a@b.test> (e@f.test)", Some(&["a@b.test"]), &["b.test"]);
        check("(a (b\\)) \"c)\") a@b.test", None, &["b.test"]);
        check("(a (b\\))) a@b.test", Some(&["a@b.test"]), &["b.test"]);
        check("=?utf-8?q?c@d.test?= <a@b.test>", Some(&["a@b.test"]), &["b.test"]);
        check("\"a\"@b.test", Some(&["a@b.test"]), &["b.test"]);
        check("\"a@x.test\"@b.test", Some(&["\"a@x.test\"@b.test"]), &["b.test"]);
        check("<\"a@x.test\\\"\"@b.test>", Some(&["\"a@x.test\\\"\"@b.test"]), &["b.test"]);
        check(
            "a@[IPv6:2001:db8::1], Grüße <g@bücher.test>",
            Some(&["a@[IPv6:2001:db8::1]", "g@bücher.test"]),
            &["xn--bcher-kva.test"],
        );
    }

    #[test]
    fn what_may_be_read_in_two_ways_is_not_read() {
        let both: &[&str] = &["c.test", "b.test"];
        for (value, domains) in [
            ("ceo@c.test <> <a@b.test>", both),
            ("ceo@c.test <a@b.test>", both),
            ("ceo @ c.test <a@b.test>", both),
            ("ceo@c.test: a@b.test", both),
            ("ceo@c.test: a@b.test;", both),
            ("\"ceo@c.test,\" a@b.test", both),
            ("a@b.test (<ceo@c.test>", both),
            ("\"ceo@c.test, <a@b.test>", both),
            ("<ceo@c.test <a@b.test>", both),
            ("[ceo@c.test <a@b.test>", both),
            ("[<ceo@c.test>] <a@b.test>", both),
            ("<a@b.test> ceo@c.test", both),
            ("<a@b.test> <ceo@c.test>", both),
            ("<a@b.test> \"ceo\"", &["b.test"]),
            ("<@c.test:a@b.test>", &["b.test"]),
            ("a@(x)b.test", &["b.test"]),
            ("Mailer <>", &[]),
            ("Mailer", &[]),
            ("undisclosed:;", &[]),
            ("at @work <a@b.test>", &["b.test"]),
        ] {
            check(value, None, domains);
        }
        let hides = |value: &str| MailboxList::read(value).may_hide_more;
        assert!(hides("=?utf-8?q?ceo=40c=2Etest=2C?= a@b.test"));
        assert!(!hides("=?utf-8?q?ceo=40c=2Etest=2C?= <a@b.test>"));
    }

    #[test]
    fn a_hostile_value_takes_no_longer_than_its_length() {
        for unit in ["(", "\"", "<", "[", "@", "a@", "@ ", "a@b.c <", "((\\", "[@", ":", "\" ("] {
            let list = MailboxList::read(&unit.repeat(1 << 20));
            assert!(list.addresses.is_none(), "{unit}");
        }
    }
}
