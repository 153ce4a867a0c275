//! Names of files as lenient readers find them: in fields that mail-parser cannot read, and in text.

use std::borrow::Cow;

use encodify::{base64, qp};
use mail_parser::decoders::charsets::Charset;
use memchr::memmem;

use super::{PARSER, bare};
use crate::pipeline::facts::extensions::without_quotes;

/// Every name that some reader may find in the value of a `Content-Type` or `Content-Disposition`
/// field: whatever is given for something that is called a name.
pub(super) fn lenient(value: &str) -> impl Iterator<Item = String> {
    let has_one_case = has_one_case(value);
    given_names(value).into_iter().flat_map(move |named| {
        let mut names = Vec::new();
        let mut clear = Vec::new();
        for pieces in in_pieces(&named) {
            if has_one_case && pieces.is_clear {
                names.append(&mut decoded(&pieces.joined));
                clear.push(pieces.name);
            } else {
                names.append(&mut readings(&pieces.joined));
                names.append(&mut decoded(&pieces.cut));
            }
        }
        for (key, value) in named {
            let is_clear =
                numbered(&key).is_some_and(|(name, _)| clear.iter().any(|it| it == name));
            if !is_clear {
                names.append(&mut readings(value));
            }
        }
        names
    })
}

/// Whether all pieces of names are called alike: some readers do not join them otherwise.
fn has_one_case(value: &str) -> bool {
    value.matches("name*").count() == value.to_ascii_lowercase().matches("name*").count()
}

/// Whether a name in a field's value is in a charset that is not decoded here, or in which ASCII is
/// not ASCII: what it is called depends on what a reader can decode.
pub(super) fn has_unreadable(value: &str) -> bool {
    let is_encoded_first = |key: &str| {
        let number = key.split_once('*').map(|(_, number)| number.trim_end());
        number.is_some_and(|it| it.is_empty() || it.ends_with('*') && !it.contains(is_counted))
    };
    given_names(value).into_iter().any(|named| {
        let is_alone = named.iter().any(|(key, value)| {
            is_unreadable_extended(value, is_encoded_first(key)) || has_unreadable_word(value)
        });
        is_alone
            || in_pieces(&named).into_iter().any(|pieces| {
                is_unreadable_extended(&pieces.joined, pieces.are_extended)
                    || has_unreadable_word(&pieces.joined)
            })
    })
}

/// Whether a digit makes a piece another than the first.
fn is_counted(digit: char) -> bool {
    matches!(digit, '1'..='9')
}

/// What is called a name, with its value, in each way in which readers take a field apart: they do
/// not agree on whether a semicolon within quotes ends a value, nor on where quotes are.
fn given_names(value: &str) -> Vec<Vec<(String, &str)>> {
    // Most fields name nothing.
    if !value.to_ascii_lowercase().contains("name") {
        return Vec::new();
    }
    let is_name = |(key, _): &(String, &str)| key.contains("name");
    let mut ways = vec![parameters(value).filter(is_name).collect::<Vec<_>>()];
    if value.contains('"') {
        for escapes in [true, false] {
            let pieces = outside_quotes(value, escapes).into_iter();
            let assignments = pieces.filter_map(|piece| piece.split_once('='));
            let named = assignments.map(|(key, value)| (key.to_ascii_lowercase(), value.trim()));
            let named: Vec<(String, &str)> = named.filter(is_name).collect();
            if !ways.contains(&named) {
                ways.push(named);
            }
        }
    }
    ways
}

/// What stands between the semicolons that are in no quotes.
fn outside_quotes(value: &str, escapes: bool) -> Vec<&str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let pieces = value.split(|c: char| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match c {
            '\\' => is_escaped = escapes,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ';' && !is_quoted
    });
    pieces.collect()
}

/// A name that is given in pieces (RFC 2231 §3).
struct Pieces {
    /// What is given so: `filename` or `name`, if nothing is odd.
    name: String,
    joined: String,
    /// The same where each piece ends at what ends a token.
    cut: String,
    /// Whether one of them says that it is encoded, so that the first may name a charset.
    are_extended: bool,
    /// Whether they are as the RFC wants them, so that no reader takes fewer or less of them.
    is_clear: bool,
}

/// One of them.
struct Piece<'a> {
    name: String,
    number: u32,
    key: &'a str,
    value: &'a str,
}

impl Piece<'_> {
    fn is_extended(&self) -> bool {
        self.key.trim_end().ends_with('*')
    }

    /// Whether it is the one of this number for every reader, and its value is all that it seems.
    fn is_clear(&self, number: u32) -> bool {
        let end = if self.is_extended() { "*" } else { "" };
        let is_known = ["filename", "name"].contains(&self.name.as_str());
        let bare_key = self.key.trim_start_matches([' ', '\t']);
        let is_called_so = bare_key == format!("{}*{number}{end}", self.name);
        if !is_known || !is_called_so {
            return false;
        }
        let names_charset = number == 0 && self.is_extended();
        if !names_charset && is_quoted_string(self.value) {
            return !self.value.contains('\\');
        }
        let value = self.value.trim_matches('"');
        let text = if names_charset { behind_charset(value) } else { Some(value) };
        text.is_some_and(|text| !text.contains(ends_value) && !text.contains(ENDS_TOKEN))
    }
}

/// The names that are given in pieces, which some readers join before they decode: what is encoded
/// may be cut anywhere.
fn in_pieces(named: &[(String, &str)]) -> Vec<Pieces> {
    let mut pieces: Vec<Piece<'_>> = named
        .iter()
        .filter_map(|(key, value)| {
            let (name, number) = numbered(key)?;
            Some(Piece { name: name.to_owned(), number, key, value })
        })
        .collect();
    pieces.sort_by(|one, other| (&one.name, one.number).cmp(&(&other.name, other.number)));
    let names = pieces.chunk_by(|one, other| one.name == other.name);
    names
        .map(|pieces| Pieces {
            name: pieces.first().map(|piece| piece.name.clone()).unwrap_or_default(),
            joined: pieces.iter().map(|piece| piece.value.trim_matches('"')).collect(),
            cut: pieces.iter().map(|piece| token(piece.value)).collect(),
            are_extended: pieces.iter().any(Piece::is_extended),
            is_clear: pieces.iter().zip(0..).all(|(piece, number)| piece.is_clear(number)),
        })
        .collect()
}

/// What a key calls a piece of, and its number.
fn numbered(key: &str) -> Option<(&str, u32)> {
    let (name, number) = key.split_once('*')?;
    let number = number.trim_end().trim_end_matches('*').trim().parse().ok()?;
    Some((name.trim(), number))
}

/// A value as who ends it where a token ends; all of a quoted string.
fn token(value: &str) -> &str {
    if is_quoted_string(value) {
        return value.trim_matches('"');
    }
    let text = behind_charset(value).unwrap_or(value);
    let text = text.trim_start_matches(ends_value);
    text.split(|c| ends_value(c) || ENDS_TOKEN.contains(&c)).next().unwrap_or_default()
}

/// What is encoded behind a charset and a language (RFC 2231 §4).
fn behind_charset(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once(QUOTE)?;
    rest.split_once(QUOTE).map(|(_, text)| text)
}

/// What stands between semicolons and has a `=`: the key in lower case, and the value.
pub(super) fn parameters(value: &str) -> impl Iterator<Item = (String, &str)> {
    let assignments = value.split(';').filter_map(|parameter| parameter.split_once('='));
    assignments.map(|(key, value)| (key.to_ascii_lowercase(), value.trim()))
}

/// What stands around the language behind a charset (RFC 2231 §4).
const QUOTE: char = '\'';

/// What ends a token (RFC 2045 §5.1) or an attribute (RFC 2231 §7), beside what separates words.
const ENDS_TOKEN: [char; 11] = ['@', ':', '\\', '/', '[', ']', '?', '=', '*', '\'', ';'];

/// What ends a value for some readers, and what others pass over where one begins.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | '"' | '<' | '>' | '(' | ')')
}

/// Every name for which some reader may take a value. A quoted string that is well-formed (RFC 5322
/// §3.2.4) is one name; of anything else, readers drop quotes, backslashes and comments wherever they
/// stand, or end it at a comma, white space, a quote or a bracket, or where a token ends. Nobody begins
/// in the middle, but at a quote.
fn readings(value: &str) -> Vec<String> {
    let mut taken: Vec<String> = vec![value.to_owned()];
    if value.contains(['"', '\\']) {
        taken.push(without_quotes(value));
    }
    if !is_quoted_string(value) {
        taken.extend(beginnings(value));
        if value.contains('"') {
            for piece in value.split(ends_value) {
                taken.push(piece.to_owned());
                taken.push(piece.split(ENDS_TOKEN).next().unwrap_or_default().to_owned());
            }
            let dropped = without_quotes(value);
            taken.extend(dropped.split([',', ' ', '\t']).map(str::to_owned));
        }
        if value.contains(['"', '(']) {
            let bare = bare(&without_quotes(value));
            taken.extend(beginnings(&bare));
            taken.push(bare);
        }
    }
    taken.iter().flat_map(|name| decoded(name)).collect()
}

/// What stands before the first end of a value that some reader finds, with a charset before it or
/// without one.
fn beginnings(value: &str) -> impl Iterator<Item = String> {
    let texts = [Some(value), behind_charset(value)].into_iter().flatten();
    texts.flat_map(|text| {
        let text = text.trim_start_matches(ends_value);
        let piece = text.split(ends_value).next().unwrap_or_default();
        let token = piece.split(ENDS_TOKEN).next().unwrap_or_default();
        [piece.to_owned(), token.to_owned()]
    })
}

/// Whether it is one quoted string, in which nothing but a quote or a backslash is escaped.
fn is_quoted_string(value: &str) -> bool {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else { return false };
    let mut is_escaped = false;
    for c in inner.chars() {
        match c {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !is_escaped
}
/// How often a name is decoded that is still encoded when it was decoded.
const MAX_DECODED_NAME: usize = 3;

/// Without quotes, percent encoding (RFC 2231) and encoded words, of which adjacent ones are joined
/// (RFC 2047 §6.2): each name that comes out on the way.
fn decoded(value: &str) -> Vec<String> {
    let mut names = vec![value.trim_matches(['"', '\'']).to_owned()];
    for _ in 0..MAX_DECODED_NAME {
        let Some(last) = names.last() else { break };
        let next = if last.contains("=?") { without_words(last) } else { None };
        let next = next.filter(|next| next != last);
        let next = next.unwrap_or_else(|| without_percent(last).into_owned());
        if next == *last {
            break;
        }
        names.push(next);
    }
    names
}

/// A text with its encoded words decoded.
fn without_words(text: &str) -> Option<String> {
    let field = format!("Subject: {}\r\n\r\n", with_hz_as_ascii(text));
    let message = PARSER.parse_headers(field.as_bytes());
    message.and_then(|message| message.subject().map(str::to_owned))
}

/// The parser decodes nothing that is in HZ, although the ASCII in it is ASCII.
fn with_hz_as_ascii(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    if !lower.contains("=?hz") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in lower.match_indices("=?hz") {
        for label in HZ.map(|charset| format!("=?{charset}?")) {
            if lower.get(at..).is_some_and(|word| word.starts_with(&label)) {
                out.push_str(text.get(done..at).unwrap_or_default());
                out.push_str("=?us-ascii?");
                done = at + label.len();
            }
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// Whether a value begins with a charset that cannot be read (RFC 2231 §4). One that does not say
/// that it is encoded so may be decoded all the same where it looks like it.
fn is_unreadable_extended(value: &str, is_extended: bool) -> bool {
    let value = value.trim_start_matches('"');
    let Some((charset, rest)) = value.split_once('\'') else { return false };
    let is_encoded =
        is_extended && rest.contains('\'') || rest.starts_with('\'') && rest.contains('%');
    if !is_encoded || charset.is_empty() || is_readable(charset) {
        return false;
    }
    let text = rest.split_once(QUOTE).map_or(rest, |(_, text)| text);
    let text = without_percent(text);
    let is_clear = is_hz(charset) && is_clear_hz(text.trim_end_matches('"').as_bytes());
    !is_clear
}

/// Whether a value has an encoded word (RFC 2047 §2) in a charset that cannot be read, as it is or
/// when it is decoded.
fn has_unreadable_word(value: &str) -> bool {
    decoded(&without_quotes(value)).iter().any(|name| {
        let words = name.match_indices("=?").filter_map(|(at, mark)| name.get(at + mark.len()..));
        let mut words = words.map(|word| word.splitn(3, '?'));
        words.any(|mut word| {
            let charset = word.next().unwrap_or_default().trim();
            let encoding = word.next().unwrap_or_default().trim();
            let is_word = ["b", "q"].iter().any(|known| encoding.eq_ignore_ascii_case(known));
            let Some(rest) = word.next().filter(|_| is_word && !charset.is_empty()) else {
                return false;
            };
            let is_clear = is_hz(charset) && is_clear_hz_word(encoding, rest);
            !is_clear && !is_readable(charset)
        })
    })
}

/// What HZ is called (RFC 1843).
const HZ: [&str; 2] = ["hz", "hz-gb-2312"];

fn is_hz(charset: &str) -> bool {
    HZ.iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// Whether a text in HZ has the same end for whoever can decode it and whoever cannot: what
/// is Chinese is whole pairs between its two marks, and all else is ASCII without a tilde.
fn is_clear_hz(octets: &[u8]) -> bool {
    let mut rest = octets;
    loop {
        let at = rest.iter().position(|octet| *octet == b'~').unwrap_or(rest.len());
        let plain = rest.get(..at).unwrap_or_default();
        if !plain.iter().all(|octet| matches!(octet, b' '..=b'~')) {
            return false;
        }
        let Some(marked) = rest.get(at..).filter(|marked| !marked.is_empty()) else { return true };
        let Some(chinese) = marked.strip_prefix(b"~{") else { return false };
        let Some(length) = memmem::find(chinese, b"~}") else { return false };
        let pairs = chinese.get(..length).unwrap_or_default();
        if length % 2 != 0 || !pairs.iter().all(|octet| matches!(octet, b'!'..=b'}')) {
            return false;
        }
        rest = chinese.get(length + 2..).unwrap_or_default();
    }
}

/// The same of an encoded word, from its text on.
fn is_clear_hz_word(encoding: &str, rest: &str) -> bool {
    let Some((text, _)) = rest.split_once("?=") else { return false };
    if encoding.eq_ignore_ascii_case("b") {
        return base64::MIME.decode(text).is_ok_and(|octets| is_clear_hz(&octets));
    }
    let text = text.replace('_', " ");
    qp::BODY.decode(&text).is_ok_and(|octets| is_clear_hz(&octets))
}

/// Charsets that hold ASCII as it is, beside those that the parser knows.
#[rustfmt::skip]
const READABLE: [&str; 20] = [
    "latin-1", "latin-9", "ansi", "unknown-8bit", "iso8859", "iso-8859-11", "utf-8-mac", "utf8mb4",
    "cp437", "ibm437", "cp852", "ibm852", "cp855", "cp857", "cp858", "cp860", "cp862", "cp874", "cp932",
    "cp950",
];

/// Whether each reader finds the ASCII in a text of this charset. Case, an underscore for a hyphen,
/// and a language behind an asterisk (RFC 2231 §5) make no difference.
fn is_readable(charset: &str) -> bool {
    let charset = charset.split('*').next().unwrap_or_default().trim().to_ascii_lowercase();
    let hyphened = charset.replace('_', "-");
    let known = [&charset, &hyphened].into_iter().find_map(|it| Charset::from_label(it.as_bytes()));
    match known {
        Some(
            Charset::Utf7
            | Charset::Utf16
            | Charset::Utf16Le
            | Charset::Utf16Be
            | Charset::XUserDefined
            | Charset::Replacement,
        ) => false,
        Some(_) => true,
        None => READABLE.contains(&hyphened.as_str()),
    }
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
