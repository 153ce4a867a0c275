//! Files that some reader may find where readers do not agree on where parts begin and end. No other
//! reading is carried out: whatever could be a part's header in any of them is looked at. Pure.

use std::ops::Range;

use encodify::base64;

use super::names::{has_unreadable, in_text, lenient};
use super::{PARSER, Reading, bare, blocked_name};
use crate::mail::{FieldLines, hides, unfolded};
use crate::pipeline::facts::extensions::Extensions;

/// Whether some reader may find a file of a blocked kind in a message. What the parser finds has
/// been looked at.
pub(super) fn may_hide_file(content: &[u8], reading: Reading<'_>) -> bool {
    let content = with_line_feeds(content);
    let mut in_base64 = Bodies::default();
    let mut in_quoted_printable = Bodies::default();
    for range in headers(&content) {
        let body = range.end;
        let header = Header::read(content.get(range).unwrap_or_default(), reading.blocked);
        if header.names_file {
            return true;
        }
        in_base64.note(&header, "base64", body);
        in_quoted_printable.note(&header, "quoted-printable", body);
    }
    has_blocked_text(&content, reading)
        || in_base64.may_hide_file(&content, from_base64(&content, &in_base64.places), reading)
        || in_quoted_printable.may_hide_file(&content, quoted_printable(&content), reading)
}

/// Bodies that are encoded in one way, as far as they may hold a file's name.
#[derive(Debug, Default)]
struct Bodies {
    /// Where they begin.
    places: Vec<usize>,
    /// Whether one of them may be a multipart or message.
    have_parts: bool,
}

impl Bodies {
    fn note(&mut self, header: &Header, encoding: &str, place: usize) {
        let has_parts = header.is_composite();
        if (has_parts || header.is_text()) && header.is_encoded(encoding) {
            self.places.push(place);
            self.have_parts |= has_parts;
        }
    }

    fn may_hide_file(
        &self,
        encoded: &[u8],
        decoded: impl Iterator<Item = Vec<u8>>,
        reading: Reading<'_>,
    ) -> bool {
        if self.places.is_empty() {
            return false;
        }
        for decoded in decoded {
            if !reading.reads_again(decoded.len()) || has_blocked_text(&decoded, reading) {
                return true;
            }
            // Where decoding changes nothing any more, all has been looked at.
            let has_new_parts = self.have_parts && !is_same(encoded, &decoded);
            if has_new_parts
                && reading.deeper().is_none_or(|deeper| may_hide_file(&decoded, deeper))
            {
                return true;
            }
        }
        false
    }
}

/// Whether two texts are the same but for white space at the ends of lines, which decoding removes.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let lines = |text| <[u8]>::split(text, |octet| *octet == b'\n').map(<[u8]>::trim_ascii_end);
    lines(one).eq(lines(other))
}

fn has_blocked_text(text: &[u8], reading: Reading<'_>) -> bool {
    in_text(text).any(|name| reading.blocked.mean(&name))
}

/// What is decoded from each of these places on. Decoders pass over what is no base64, so a body may
/// go on behind what is a delimiter for others, to the end: all of them together are four texts, in
/// which a body begins on a line of its own.
fn from_base64<'a>(content: &'a [u8], places: &'a [usize]) -> impl Iterator<Item = Vec<u8>> + 'a {
    let is_base64 = |octet: &u8| octet.is_ascii_alphanumeric() || b"+/".contains(octet);
    let texts = (0..4).map(move |shift| {
        let mut decoded = Vec::new();
        // What is not decoded yet, from a body's beginning on.
        let mut digits = Vec::new();
        let mut count = 0;
        let mut has_begun = false;
        let mut position = 0;
        for place in places.iter().copied().chain([content.len()]) {
            let before = digits.len();
            let text = content.get(position..place).unwrap_or_default();
            digits.extend(text.iter().copied().filter(is_base64));
            count += digits.len() - before;
            position = place;
            let begins = count % 4 == shift && place < content.len();
            if has_begun && (begins || place == content.len()) {
                append_base64(&digits, &mut decoded);
                decoded.push(b'\n');
            }
            has_begun |= begins;
            if begins || !has_begun {
                digits.clear();
            }
        }
        decoded
    });
    texts.filter(|decoded| !decoded.is_empty())
}

/// Decodes digits of base64, whole groups of four.
fn append_base64(digits: &[u8], decoded: &mut Vec<u8>) {
    let whole = digits.len() / 4 * 4;
    let length = decoded.len();
    if base64::MIME.decode_append(digits.get(..whole).unwrap_or_default(), decoded).is_err() {
        decoded.truncate(length);
    }
}

/// A text as the parser decodes it, which passes over what is no such encoding.
fn quoted_printable(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::once_with(move || {
        let part = [b"Content-Transfer-Encoding: quoted-printable\n\n", text].concat();
        let parsed = PARSER.parse(part.as_slice());
        parsed.map(|message| message.root_part().decoded().into_owned()).unwrap_or_default()
    })
}

/// The content with a line feed for each line end that some reader knows.
fn with_line_feeds(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut pieces = content.split(|octet| *octet == b'\r');
    out.extend_from_slice(pieces.next().unwrap_or_default());
    for piece in pieces {
        if !piece.starts_with(b"\n") {
            out.push(b'\n');
        }
        out.extend_from_slice(piece);
    }
    out
}

/// All that may be a header: from an empty line, or from one that begins as delimiters do, to the
/// next of them.
fn headers(content: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut lines = content.split_inclusive(|octet| *octet == b'\n');
    let mut at = 0;
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let start = at;
        for line in lines.by_ref() {
            let end = at;
            at += line.len();
            if line == b"\n" || line.starts_with(b"--") {
                return Some(start..end);
            }
        }
        is_over = true;
        Some(start..at)
    })
}

/// What may be a header says of its part.
#[derive(Debug, Default)]
struct Header {
    kinds: Vec<String>,
    encodings: Vec<String>,
    /// Whether it names a file of a blocked kind.
    names_file: bool,
}

impl Header {
    fn read(text: &[u8], blocked: &Extensions) -> Self {
        let mut header = Self::default();
        for (name, range) in FieldLines::new(text) {
            let field = text.get(range).unwrap_or_default();
            let name = name.trim_ascii();
            let is = |wanted: &str| {
                name.eq_ignore_ascii_case(wanted.as_bytes()) || hides(name, field, wanted)
            };
            let is_kind = is("Content-Type");
            if is_kind {
                header.kinds.push(unfolded(field).to_ascii_lowercase());
            }
            if is_kind || is("Content-Disposition") {
                header.names_file |= names_file(field, blocked);
            }
            if is("Content-Transfer-Encoding") {
                header.encodings.push(unfolded(field).to_ascii_lowercase());
            }
        }
        header
    }

    fn is_encoded(&self, encoding: &str) -> bool {
        self.encodings.iter().any(|said| said.contains(encoding) || bare(said).contains(encoding))
    }

    fn is_text(&self) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.contains("text"))
    }

    fn is_composite(&self) -> bool {
        // Some readers find parts wherever they find a boundary.
        let is_composite = |kind: &str| {
            ["multipart", "message/", "boundary"].iter().any(|word| kind.contains(word))
        };
        self.kinds.iter().any(|kind| is_composite(kind) || is_composite(&bare(kind)))
    }
}

/// Whether a field, read as one that describes a part, names a file of a blocked kind, or one whose
/// name cannot be told.
fn names_file(field: &[u8], blocked: &Extensions) -> bool {
    let value = unfolded(field);
    if has_unreadable(&value) || lenient(&value).any(|name| blocked.mean(&name)) {
        return true;
    }
    let header = [field, b"\n\n"].concat();
    let parsed = PARSER.parse_headers(header.as_slice());
    parsed.is_some_and(|message| blocked_name(message.root_part(), blocked).is_some())
}
