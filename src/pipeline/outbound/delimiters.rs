//! Whether readers agree on where the parts of a multipart begin and end (RFC 2046 §5.1.1). Pure.

use std::collections::HashSet;

use mail_parser::{MessagePart, PartFlags};
use memchr::{memchr, memmem};

const HAS_MORE: &str = "a delimiter has more on its line";
const IS_CLOSED: &str = "a delimiter follows its end";
const IS_MISSING: &str = "a delimiter is missing";
const IS_NO_MULTIPART: &str = "only some readers find parts in it";

/// Why readers do not agree on the parts of what may be a multipart, if they do not.
///
/// Some take each line that begins with the delimiter for one, as the RFC says, and each that begins
/// with the closing one for the end; others only lines that have nothing else but white space, or
/// nothing at all. Some read on behind the end, and some do not look for the delimiter of a multipart
/// that is around one without an end.
pub(in crate::pipeline) fn dispute(part: MessagePart<'_>) -> Option<&'static str> {
    let broken =
        PartFlags::FALLBACK_DELIMITER | PartFlags::UNTERMINATED | PartFlags::MISSING_DELIMITER;
    if part.flags().intersects(broken) {
        return Some(IS_MISSING);
    }
    let boundary = part.content_type()?.attribute("boundary")?;
    let mut is_closed = false;
    for line in lines(part.raw_body(), boundary) {
        if !part.is_multipart() {
            return Some(IS_NO_MULTIPART);
        }
        if is_closed {
            return Some(IS_CLOSED);
        }
        match line.kind() {
            Kind::Opens => {}
            Kind::Closes => is_closed = true,
            Kind::IsPadded | Kind::HasMore => return Some(HAS_MORE),
        }
    }
    None
}

/// Why readers may find parts in a multipart whose own delimiter is nowhere in it.
pub(in crate::pipeline) fn dispute_without_delimiter(
    part: MessagePart<'_>,
) -> Option<&'static str> {
    let boundary = part.content_type().and_then(|kind| kind.attribute("boundary"));
    let is_there = boundary.is_some_and(|it| lines(part.raw_body(), it).next().is_some());
    (!is_there).then_some(IS_MISSING)
}

/// Whether the parts of a multipart are where every reader that obeys the RFC finds them. A boundary
/// that begins as that of a multipart around it is no fault: each of its delimiters is a line of its
/// own.
pub(in crate::pipeline) fn are_clear(part: MessagePart<'_>) -> bool {
    let Some(boundary) = part.content_type().and_then(|kind| kind.attribute("boundary")) else {
        return true;
    };
    let mut nested = None;
    let mut is_closed = false;
    for line in lines(part.raw_body(), boundary) {
        match line.kind() {
            Kind::HasMore => {
                let nested = nested.get_or_insert_with(|| boundaries_below(part));
                if !line.is_delimiter_of(nested) {
                    return false;
                }
            }
            _ if is_closed => return false,
            _ => is_closed = line.closes(),
        }
    }
    true
}

/// The boundaries of all multiparts in a part, those of messages in it included. The parser bounds
/// the depth.
fn boundaries_below(part: MessagePart<'_>) -> HashSet<&[u8]> {
    let mut found = HashSet::new();
    let mut waiting: Vec<MessagePart<'_>> = part.children().collect();
    while let Some(part) = waiting.pop() {
        if let Some(boundary) = part.boundary() {
            found.insert(boundary.as_bytes());
        }
        waiting.extend(part.children());
        waiting.extend(part.nested().map(|message| message.root_part()));
    }
    found
}

/// The lines of a body that begin with a delimiter. A carriage return alone ends a line for some.
fn lines<'a>(body: &'a [u8], boundary: &str) -> impl Iterator<Item = Line<'a>> {
    let delimiter = memmem::Finder::new(format!("--{boundary}").as_bytes()).into_owned();
    let mut position = 0;
    std::iter::from_fn(move || {
        loop {
            let at = position + delimiter.find(body.get(position..)?)?;
            let end = at + delimiter.needle().len();
            position = end;
            let before = at.checked_sub(1).and_then(|before| body.get(before));
            if matches!(before, None | Some(b'\n' | b'\r')) {
                let behind = body.get(end..)?;
                let line_end = end + memchr(b'\n', behind).unwrap_or(behind.len());
                let line = body.get(at..line_end)?;
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return Some(Line { line, rest: line.get(end - at..).unwrap_or_default() });
            }
        }
    })
}

/// A line that begins with a delimiter.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// All of it, without its end.
    line: &'a [u8],
    /// What stands behind the boundary.
    rest: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Opens,
    Closes,
    /// White space follows it.
    IsPadded,
    HasMore,
}

impl Line<'_> {
    fn kind(self) -> Kind {
        match self.rest {
            b"" => Kind::Opens,
            b"--" => Kind::Closes,
            rest => match rest.strip_prefix(b"--").unwrap_or(rest) {
                padding if is_white(padding) => Kind::IsPadded,
                _ => Kind::HasMore,
            },
        }
    }

    fn closes(self) -> bool {
        self.rest.starts_with(b"--")
    }

    /// Whether it is a delimiter of one of these boundaries, with nothing but white space behind it.
    fn is_delimiter_of(self, boundaries: &HashSet<&[u8]>) -> bool {
        let Some(boundary) = self.line.trim_ascii_end().strip_prefix(b"--") else { return false };
        let closed = boundary.strip_suffix(b"--");
        boundaries.contains(boundary) || closed.is_some_and(|it| boundaries.contains(it))
    }
}

fn is_white(octets: &[u8]) -> bool {
    octets.iter().all(|octet| matches!(octet, b' ' | b'\t'))
}
