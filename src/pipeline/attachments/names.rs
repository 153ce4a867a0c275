//! Names of files as lenient readers find them: in fields that mail-parser cannot read, and in text.

use std::borrow::Cow;

use encodify::base64;
use memchr::memmem;

use super::PARSER;

/// Every name that some reader may find in the value of a `Content-Type` or `Content-Disposition`
/// field: whatever is given for something that is called a name.
pub(super) fn lenient(value: &str) -> impl Iterator<Item = String> {
    let named = parameters(value).filter(|(key, _)| key.contains("name"));
    let given = named.flat_map(|(_, value)| {
        // A reader may end one without quotes at a space.
        let words = (!value.starts_with('"')).then(|| value.split_whitespace());
        let words: Vec<&str> = words.into_iter().flatten().skip(1).collect();
        let first = value.split_whitespace().next().filter(|_| !words.is_empty());
        let candidates = [value].into_iter().chain(first).chain(words);
        candidates.map(decoded).collect::<Vec<_>>()
    });
    given.chain(in_pieces(value))
}

/// The names that are given in pieces (RFC 2231 §3), which some readers join before they decode:
/// what is encoded may be cut anywhere.
fn in_pieces(value: &str) -> Vec<String> {
    let named = parameters(value).filter(|(key, _)| key.contains("name"));
    let mut pieces: Vec<(String, u32, &str)> = named
        .filter_map(|(key, value)| {
            let (name, number) = key.split_once('*')?;
            let number = number.trim_end().trim_end_matches('*').trim().parse().ok()?;
            Some((name.trim().to_owned(), number, value.trim_matches('"')))
        })
        .collect();
    pieces.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let names = pieces.chunk_by(|one, other| one.0 == other.0);
    names.map(|pieces| decoded(&pieces.iter().map(|piece| piece.2).collect::<String>())).collect()
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

/// The names of files that stand in a text as such: uuencoded (POSIX `uuencode`) or yEnc (yEnc draft
/// 1.3). A line begins one, and says how it is called.
pub(super) fn in_text(text: &[u8]) -> impl Iterator<Item = String> {
    let lines = text.split(|octet| matches!(octet, b'\n' | b'\r'));
    lines.filter_map(|line| uuencoded(line).or_else(|| yenc(line)))
}

/// The name in a line as `begin 644 a.exe`, in every form that some reader takes.
///
/// POSIX gives a mode of three octal digits. Mail readers take three or four, with a name that may
/// have spaces; `uudecode` takes any number of digits; and old Outlook takes two spaces for a mode.
/// That is how people write too (`begin 5 days after`), so then a name has no space. Nobody takes a
/// line that begins with white space.
fn uuencoded(line: &[u8]) -> Option<String> {
    // A byte order mark at the beginning of a text is not seen.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let is_lower = line.starts_with(b"begin");
    if !line.get(..5)?.eq_ignore_ascii_case(b"begin") {
        return None;
    }
    let line = String::from_utf8_lossy(line.get(5..)?).into_owned();
    let suffix = line.split([' ', '\t']).next()?.to_ascii_lowercase();
    if !["", "-base64", "-encoded", "-base64-encoded"].contains(&suffix.as_str()) {
        return None;
    }
    let rest = line.get(suffix.len()..)?;
    let after_gap = rest.trim_start_matches([' ', '\t']);
    let gap = rest.len() - after_gap.len();
    let after_mode = after_gap.trim_start_matches(|c| matches!(c, '0'..='7'));
    let mode = after_gap.len() - after_mode.len();
    let name = match mode {
        0 if gap > 1 && is_lower => after_gap.trim(),
        0 => return None,
        _ if !after_mode.starts_with([' ', '\t']) => return None,
        _ => after_mode.trim(),
    };
    if !matches!(mode, 3 | 4) && name.contains(char::is_whitespace) {
        return None;
    }
    if suffix.ends_with("-encoded") {
        let octets = base64::MIME.decode(name).ok()?;
        return Some(String::from_utf8_lossy(&octets).into_owned());
    }
    Some(name.to_owned())
}

/// The name in a line as `=ybegin line=128 size=9 name=a.exe`, where it is the last and may have
/// spaces.
fn yenc(line: &[u8]) -> Option<String> {
    let parameters = line.strip_prefix(b"=ybegin ")?;
    let at = memmem::find(parameters, b"name=")?;
    Some(String::from_utf8_lossy(parameters.get(at + 5..)?).trim().to_owned())
}

/// What shows nothing of itself in a name (Unicode's category Cf, and variation selectors).
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
