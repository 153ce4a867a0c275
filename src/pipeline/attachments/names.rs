//! Names of files as lenient readers find them: in fields that mail-parser cannot read, and in text.

use std::borrow::Cow;

use memchr::memmem;

use super::PARSER;

/// Every name that some reader may find in the value of a `Content-Type` or `Content-Disposition`
/// field: whatever is given for something that is called a name.
pub(super) fn lenient(value: &str) -> impl Iterator<Item = String> {
    let named = parameters(value).filter(|(key, _)| key.contains("name"));
    named.flat_map(|(_, value)| {
        // A reader may end one without quotes at a space.
        let words = (!value.starts_with('"')).then(|| value.split_whitespace());
        let words: Vec<&str> = words.into_iter().flatten().skip(1).collect();
        let first = value.split_whitespace().next().filter(|_| !words.is_empty());
        let candidates = [value].into_iter().chain(first).chain(words);
        candidates.map(decoded).collect::<Vec<_>>()
    })
}

/// What stands between semicolons and has a `=`: the key in lower case, and the value.
pub(super) fn parameters(value: &str) -> impl Iterator<Item = (String, &str)> {
    let assignments = value.split(';').filter_map(|parameter| parameter.split_once('='));
    assignments.map(|(key, value)| (key.to_ascii_lowercase(), value.trim()))
}

/// Without quotes, percent encoding (RFC 2231) and encoded words, of which adjacent ones are joined
/// (RFC 2047 §6.2).
fn decoded(value: &str) -> String {
    let bare = value.trim_matches(['"', '\'']);
    if !bare.contains("=?") {
        return without_percent(bare).into_owned();
    }
    let field = format!("Subject: {bare}\r\n\r\n");
    let message = PARSER.parse_headers(field.as_bytes());
    message.and_then(|message| message.subject().map(str::to_owned)).unwrap_or_default()
}

/// Octets of zero are left out, so that a name in UTF-16 is read as well.
fn without_percent(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    octets.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let code = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(0) => {}
            Some(octet) => octets.push(octet),
            None => octets.push(b'%'),
        }
        let rest = if code.is_some() { piece.get(2..) } else { Some(piece) };
        octets.extend_from_slice(rest.unwrap_or_default().as_bytes());
    }
    Cow::Owned(String::from_utf8_lossy(&octets).into_owned())
}

/// The names of uuencoded files in a text: of lines as `begin 644 a.exe` (POSIX `uuencode`).
pub(super) fn uuencoded(text: &[u8]) -> impl Iterator<Item = String> {
    memmem::find_iter(text, b"begin").filter_map(|at| {
        let starts_line = at.checked_sub(1).is_none_or(|before| text.get(before) == Some(&b'\n'));
        let rest = text.get(at..).filter(|_| starts_line)?;
        let line = rest.split(|octet| *octet == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(3, ' ');
        let is_begin = matches!(words.next(), Some("begin" | "begin-base64"));
        let mode = words.next().filter(|_| is_begin)?;
        let is_mode =
            matches!(mode.len(), 3 | 4) && mode.bytes().all(|c| (b'0'..=b'7').contains(&c));
        words.next().filter(|_| is_mode).map(|name| name.trim().to_owned())
    })
}

/// What shows nothing of itself in a name (Unicode's category Cf, and variation selectors).
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
