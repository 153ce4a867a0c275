//! The pieces of a structured field (RFC 5322 §3.2): where those that have an end of their own end.

use super::error::AuthorError;

/// What an unfolded field has between its words. Other white space some readers take for a part of
/// an address, or for its end.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// The length of the comment at the front; comments nest (RFC 5322 §3.2.2).
pub(super) fn comment(text: &str) -> Result<usize, AuthorError> {
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
            return Ok(at + 1);
        }
    }
    Err(AuthorError::Unreadable)
}

/// The length of the quoted string at the front.
pub(super) fn quoted(text: &str) -> Result<usize, AuthorError> {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Ok(at + 1),
            b'\\' => drop(octets.next()),
            _ => {}
        }
    }
    Err(AuthorError::Unreadable)
}

/// The length of what stands in angle brackets at the front.
pub(super) fn angle(text: &str) -> Result<usize, AuthorError> {
    let mut at = 1;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        at += match rest.as_bytes().first() {
            Some(b'>') => return Ok(at + 1),
            Some(b'<') => return Err(AuthorError::Unreadable),
            Some(b'"') => quoted(rest)?,
            Some(b'(') => comment(rest)?,
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    Err(AuthorError::Unreadable)
}

/// The length of the domain literal at the front.
pub(super) fn literal(text: &str) -> Result<usize, AuthorError> {
    text.find(']').map(|end| end + 1).ok_or(AuthorError::Unreadable)
}

/// What stands between the first octet and the last, which are delimiters.
pub(super) fn inside(token: &str) -> &str {
    token.get(1..token.len() - 1).unwrap_or_default()
}

/// The text with a space for each comment; `None` if one does not end, or has more in it than words,
/// of which some readers make something.
pub(super) fn without_comments(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => comment(rest).ok()?,
            '"' => quoted(rest).ok()?,
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length)?;
        if first == '(' && inside(token).contains(|c| "@<>,;:\"[]()\\".contains(c)) {
            return None;
        }
        plain.push_str(if first == '(' { " " } else { token });
        rest = after;
    }
    Some(plain)
}
