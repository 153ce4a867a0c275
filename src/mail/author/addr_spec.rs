//! One address, as all readers take it (RFC 5322 §3.4.1).

use super::oddity::{Oddities, Oddity};
use super::token::{BLANKS, quoted, without_comments};
use crate::mail::invisible::is_invisible;
use crate::mail::{Address, Domain};

/// The longest local-part that is read, in octets: a line's worth (RFC 5322 §2.1.1).
pub(super) const MAX_LOCAL_PART: usize = 998;

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In angle brackets, so that all agree where it ends.
    Brackets,
    /// By itself.
    Bare,
}

/// An addr-spec with white space and comments where the obsolete syntax has them (RFC 5322 §4.4).
/// Around the dots of a domain they are where readers part ways: some end a bare domain at white
/// space, and some take a comment for a part of it.
pub(super) fn address(text: &str, place: Place, oddities: &mut Oddities) -> Option<Address> {
    // Some end an address at any white space that Unicode knows, and at U+FEFF, which JavaScript
    // takes for such. Who decodes first finds what an encoded word hides, or one that begins before
    // the bracket (RFC 2047 §5 has none in an address).
    let is_other_blank = |c: char| c.is_whitespace() && !BLANKS.contains(&c) || c == '\u{feff}';
    if text.contains(is_other_blank) || ["=?", "?="].iter().any(|it| text.contains(it)) {
        return None;
    }
    if text.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('(')) {
        return None;
    }
    let plain = without_comments(text)?;
    let written = without_route(plain.trim_matches(BLANKS))?;
    let at = last_at(written)?;
    let local_part = written.get(..at)?;
    let domain = written.get(at + 1..)?;
    let is_quoted = local_part.starts_with('"');
    let is_spaced = local_part.ends_with(BLANKS)
        || !is_quoted && local_part.contains(BLANKS)
        || domain.contains(BLANKS);
    let ends_in_dot = domain.trim_end_matches(BLANKS).ends_with('.');
    if is_spaced || ends_in_dot || plain != text || written != plain.trim_matches(BLANKS) {
        oddities.note(Oddity::Obsolete).ok()?;
    }
    let domain = domain.trim_matches(BLANKS);
    let domain = match domain.strip_prefix('[') {
        // With white space in it, an address literal is not found whole by all.
        Some(_) if is_spaced => return None,
        Some(_) => Domain::parse(domain).ok()?,
        None if place == Place::Bare && domain.contains(BLANKS) => return None,
        None => domain_name(domain)?,
    };
    let local_part = match is_quoted {
        true => quoted_local_part(local_part.trim_end_matches(BLANKS), oddities)?.to_owned(),
        false => closed_up(local_part)?,
    };
    let address = Address::new(&local_part, domain)?;
    (address.local_part().len() <= MAX_LOCAL_PART).then_some(address)
}

/// There are readers who end an address at a bracket also in quotes, and a quoted string where a list
/// could go on.
fn quoted_local_part<'a>(text: &'a str, oddities: &mut Oddities) -> Option<&'a str> {
    oddities.note(Oddity::LocalPart).ok()?;
    let ends_early =
        text.contains(['<', '>']) || text.contains('@') && text.contains([',', ';', '(', ')']);
    (!ends_early).then_some(text)
}

/// `@a.test:bob@example.com`: a route (RFC 5322 §4.4) is ignored. Of one with several hosts some
/// readers take the last for the author's.
fn without_route(text: &str) -> Option<&str> {
    let Some(text) = text.strip_prefix('@') else { return Some(text) };
    let (route, rest) = text.split_once(':')?;
    let is_route = |c: char| c.is_ascii_alphanumeric() || "-._ \t".contains(c);
    route.chars().all(is_route).then(|| rest.trim_start_matches(BLANKS))
}

/// The only `@` that is not in quotes.
fn last_at(text: &str) -> Option<usize> {
    let quoted_length = if text.starts_with('"') { quoted(text).ok()? } else { 0 };
    let rest = text.get(quoted_length..)?;
    let (before, after) = rest.split_once('@')?;
    let is_only =
        !after.contains('@') && (quoted_length == 0 || before.trim_matches(BLANKS).is_empty());
    is_only.then_some(quoted_length + before.len())
}

/// A domain name in any spelling that all readers take for the same.
fn domain_name(text: &str) -> Option<Domain> {
    let text = closed_up(text)?;
    if text.chars().any(is_invisible) {
        return None;
    }
    Domain::parse(&text).ok()
}

/// Without white space around dots; `None` where there is other white space.
fn closed_up(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').map(|part| part.trim_matches(BLANKS)).collect();
    let closed = parts.join(".");
    (!closed.is_empty() && !closed.contains(char::is_whitespace)).then_some(closed)
}
