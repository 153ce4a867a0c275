//! Names of files as lenient readers find them: in fields that mail-parser cannot read, and in text.

use std::borrow::Cow;

use encodify::base64;
use mail_parser::decoders::charsets::Charset;
use memchr::memmem;

use super::{PARSER, bare};

/// Every name that some reader may find in the value of a `Content-Type` or `Content-Disposition`
/// field: whatever is given for something that is called a name.
pub(super) fn lenient(value: &str) -> impl Iterator<Item = String> {
    let given = given_names(value).into_iter();
    given.flat_map(|named| {
        let whole = in_pieces(&named).into_iter().map(|pieces| pieces.joined);
        let joined: Vec<String> = whole.flat_map(|name| readings(&name)).collect();
        named.into_iter().flat_map(|(_, value)| readings(value)).chain(joined)
    })
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
    joined: String,
    /// Whether one of them says that it is encoded, so that the first may name a charset.
    are_extended: bool,
}

/// The names that are given in pieces, which some readers join before they decode: what is encoded
/// may be cut anywhere.
fn in_pieces(named: &[(String, &str)]) -> Vec<Pieces> {
    let mut pieces: Vec<(String, u32, bool, &str)> = named
        .iter()
        .filter_map(|(key, value)| {
            let (name, number) = key.split_once('*')?;
            let is_extended = number.trim_end().ends_with('*');
            let number = number.trim_end().trim_end_matches('*').trim().parse().ok()?;
            Some((name.trim().to_owned(), number, is_extended, value.trim_matches('"')))
        })
        .collect();
    pieces.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let names = pieces.chunk_by(|one, other| one.0 == other.0);
    names
        .map(|pieces| Pieces {
            joined: pieces.iter().map(|piece| piece.3).collect(),
            are_extended: pieces.iter().any(|piece| piece.2),
        })
        .collect()
}

/// What stands between semicolons and has a `=`: the key in lower case, and the value.
pub(super) fn parameters(value: &str) -> impl Iterator<Item = (String, &str)> {
    let assignments = value.split(';').filter_map(|parameter| parameter.split_once('='));
    assignments.map(|(key, value)| (key.to_ascii_lowercase(), value.trim()))
}

/// What ends a token (RFC 2045 §5.1) or an attribute (RFC 2231 §7), beside what separates words.
const ENDS_TOKEN: [char; 11] = ['@', ':', '\\', '/', '[', ']', '?', '=', '*', '\'', ';'];

/// Every name for which some reader may take a value. A quoted string that is well-formed (RFC 5322
/// §3.2.4) is one name; of anything else, readers drop quotes, backslashes and comments wherever they
/// stand, or end it at a comma, white space, a quote or a bracket, or where a token ends.
fn readings(value: &str) -> Vec<String> {
    let mut taken: Vec<String> = vec![value.to_owned()];
    if value.contains(['"', '\\']) {
        taken.push(without_quotes(value));
    }
    if !is_quoted_string(value) {
        let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | '<' | '>' | '(' | ')');
        for piece in value.split(ends) {
            taken.push(piece.to_owned());
            taken.extend(piece.find(ENDS_TOKEN).and_then(|at| piece.get(..at)).map(str::to_owned));
        }
        if value.contains('"') {
            let dropped = without_quotes(value);
            taken.extend(dropped.split([',', ' ', '\t']).map(str::to_owned));
        }
        if value.contains(['"', '(']) {
            taken.push(bare(&without_quotes(value)));
        }
    }
    taken.iter().flat_map(|name| decoded(name)).collect()
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

/// A text without quotes and backslashes.
pub(super) fn without_quotes(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '"' | '\\')).collect()
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
    let field = format!("Subject: {text}\r\n\r\n");
    let message = PARSER.parse_headers(field.as_bytes());
    message.and_then(|message| message.subject().map(str::to_owned))
}

/// Whether a value begins with a charset that cannot be read (RFC 2231 §4). One that does not say
/// that it is encoded so may be decoded all the same where it looks like it.
fn is_unreadable_extended(value: &str, is_extended: bool) -> bool {
    let value = value.trim_start_matches('"');
    let Some((charset, rest)) = value.split_once('\'') else { return false };
    let is_encoded =
        is_extended && rest.contains('\'') || rest.starts_with('\'') && rest.contains('%');
    is_encoded && !charset.is_empty() && !is_readable(charset)
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
            is_word && word.next().is_some() && !charset.is_empty() && !is_readable(charset)
        })
    })
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

/// What shows nothing of itself in a name (Unicode's category Cf, and variation selectors).
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
