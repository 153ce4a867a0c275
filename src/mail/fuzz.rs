//! The fuzzers' door: who wrote a message, by its `From` field.

use mail_parser::MessageParser;

use super::header::without_folds;
use super::{Authors, Domain, FieldLines};
use crate::fuzz::with_crlf;

/// Octets of the longest field that is read: one whose reading takes time out of proportion to its
/// length is stopped by the fuzzer's clock.
const LONG: usize = 256 * 1024;

/// The value of a `From` field.
///
/// Folding does not change who has written a message, nor does writing the authors anew; and where
/// another reader finds a single domain, it is an author's, or nobody's mail is taken for it.
pub fn author(input: &[u8]) {
    let value = continued(&with_crlf(input));
    let message = message(&value);
    let found = Authors::of(&message);
    drop(Authors::of(&message_of_length(&value)));
    let range = FieldLines::new(&message).next().expect("a field").1;
    let unfolded = without_folds(&message[range]);
    for again in [unfolded.clone(), refolded(&unfolded)] {
        assert_eq!(Authors::of(&self::message(again.as_bytes())), found, "folding counts");
    }
    let Ok(authors) = found else { return };
    let addresses: Vec<_> = authors.addresses().iter().map(ToString::to_string).collect();
    let written = self::message(addresses.join(", ").as_bytes());
    assert_eq!(Authors::of(&written).as_ref(), Ok(&authors), "does not read what it has written");
    if let Some(domain) = only_domain(&message).filter(|it| !stands_in_a_name(&unfolded, it)) {
        let ours: Vec<_> = authors.domains().iter().map(ToString::to_string).collect();
        assert!(ours.contains(&spelling(&domain)), "{ours:?}, and mail-parser finds {domain:?}");
    }
}

fn message(value: &[u8]) -> Vec<u8> {
    [b"From: ", value, b"\r\n\r\n"].concat()
}

/// The same value over and over.
fn message_of_length(value: &[u8]) -> Vec<u8> {
    message(&value.repeat(LONG.checked_div(value.len()).unwrap_or(0)))
}

/// Every line but the first begins with white space, so that the field goes on.
fn continued(value: &[u8]) -> Vec<u8> {
    let mut lines = value.split_inclusive(|octet| *octet == b'\n');
    let mut out = lines.next().unwrap_or_default().to_vec();
    for line in lines {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    let end = out.len() - out.iter().rev().take_while(|octet| b"\r\n".contains(octet)).count();
    out.truncate(end);
    out
}

/// RFC 5322 §2.2.3: a line may end before any white space.
fn refolded(value: &str) -> String {
    value.replace(' ', "\r\n ").replace('\t', "\r\n\t")
}

/// What mail-parser finds, if it is one domain.
fn only_domain(message: &[u8]) -> Option<String> {
    let message = MessageParser::new().parse_headers(message)?;
    let list = message.from();
    let mut domains: Vec<String> = list
        .iter()
        .flat_map(|list| list.mailboxes())
        .filter_map(|mailbox| Some(mailbox.address()?.rsplit_once('@')?.1.to_owned()))
        .filter(|domain| !domain.is_empty())
        .collect();
    domains.dedup();
    // What it could not decode is none that it could show.
    <[String; 1]>::try_from(domains)
        .ok()
        .map(|[domain]| domain)
        .filter(|it| !it.contains('\u{fffd}'))
}

fn spelling(domain: &str) -> String {
    let closed: String = domain.chars().filter(|c| !c.is_whitespace()).collect();
    Domain::parse(&closed).map_or(closed, |domain| domain.to_string())
}

/// An address that stands unquoted in the name before one in angle brackets, which is the author for
/// us and for nearly everybody.
fn stands_in_a_name(value: &str, domain: &str) -> bool {
    let closed: String = value.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    let Some((names, _)) = closed.rsplit_once('<') else { return false };
    let found: String = domain.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    names.split('@').skip(1).any(|after| {
        let shared = found.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
        shared > 0 && shared >= found.chars().count().min(after.chars().count())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_hold() {
        crate::fuzz::replay("author", author);
    }
}
