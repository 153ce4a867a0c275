//! Lines of a submitted message that are longer than mail has (RFC 5322 §2.1.1: 998 octets): other
//! servers refuse them, and by then the message has been accepted. RFC 6409 §8 lets a submission
//! server mend what a client has made: header lines are folded, texts are encoded, and lines of an
//! encoding are broken where it allows that. Nothing that a signature covers is touched. Pure.
//!
//! A message without such a line costs one jump for every 998 octets, and is not parsed.

use std::ops::Range;
use std::sync::LazyLock;

use encodify::{base64, qp};
use mail_parser::{MessageParser, MessagePart, PartFlags, PartKind};
use memchr::{memchr, memchr_iter, memmem, memrchr};

use crate::mail::{FieldLines, body_offset, unfolded};
use crate::pipeline::outbound::delimiters;
use crate::pipeline::outbound::fixups::Fixups;

/// Octets of a line without its CR LF (RFC 5322 §2.1.1).
pub(in crate::pipeline) const MAX_LINE: usize = 998;
/// How long a folded line should be at most (the same).
const FOLDED_LINE: usize = 78;
/// How long a line of base64 or quoted-printable is (RFC 2045 §6.7, §6.8).
const ENCODED_LINE: usize = 76;
/// Parts that are looked at; more than the limit on attachments, at its highest, lets through.
const MAX_PARTS: usize = 400_000;

/// A line that cannot be made shorter, by its number in the message as it came, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct LongLine(pub(in crate::pipeline) usize);

static PARSER: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().max_parts(MAX_PARTS).max_encoded_nesting(0));

/// Takes out of a message what must not leave, and mends its long lines. Fields that this needs go
/// on top.
///
/// # Errors
/// The first line that stays too long: in a header field without white space to fold at; in what a
/// signature covers or is encrypted; in a message in the message (RFC 2046 §5.2.1 lets nobody
/// encode it), in a part that is no text, in what stands around parts, or where readers do not
/// agree on what it is.
pub(in crate::pipeline) fn take_out_and_mend(
    content: &mut Vec<u8>,
    fixups: &mut Fixups,
) -> Result<(), LongLine> {
    let removed = fixups.removed();
    let is_leaving = |line: &Range<usize>| {
        let next = removed.partition_point(|removed| removed.end <= line.start);
        removed.get(next).is_none_or(|removed| line.start < removed.start)
    };
    let lines: Vec<_> = LongLines::of(content).filter(is_leaving).collect();
    if lines.is_empty() {
        fixups.take_out(content);
        return Ok(());
    }
    let mut plan = Plan::new(content, lines);
    if fixups.makes_header_section {
        plan.encode_all();
    } else {
        plan.mend_parts();
    }
    if let Some(line) = plan.first_unmended() {
        return Err(line);
    }
    let Plan { mut changes, mut added, .. } = plan;
    changes.extend(removed.iter().map(|removed| Change::new(removed.clone(), b"")));
    changes.sort_by_key(|change| change.range.start);
    *content = changed(content, &changes);
    added.append(&mut fixups.prefix);
    fixups.prefix = added;
    Ok(())
}

/// The lines that are too long, each with its line end.
struct LongLines<'a> {
    content: &'a [u8],
    position: usize,
}

impl<'a> LongLines<'a> {
    fn of(content: &'a [u8]) -> Self {
        Self { content, position: 0 }
    }
}

impl Iterator for LongLines<'_> {
    type Item = Range<usize>;

    /// Jumps from a line's beginning to the last line end that lies within reach of it.
    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let rest = self.content.get(self.position..).unwrap_or_default();
            if rest.len() <= MAX_LINE {
                return None;
            }
            let reach = rest.get(..MAX_LINE + 2).unwrap_or(rest);
            let start = self.position;
            if let Some(end) = memrchr(b'\n', reach) {
                self.position += end + 1;
                continue;
            }
            self.position = memchr(b'\n', rest).map_or(self.content.len(), |end| start + end + 1);
            return Some(start..self.position);
        }
    }
}

/// What stands in place of a range of the content.
#[derive(Debug)]
struct Change {
    range: Range<usize>,
    by: Replacement,
}

#[derive(Debug)]
enum Replacement {
    Octets(&'static [u8]),
    QuotedPrintable,
    Base64,
}

impl Change {
    fn new(range: Range<usize>, octets: &'static [u8]) -> Self {
        Self { range, by: Replacement::Octets(octets) }
    }

    fn insert(at: usize, octets: &'static [u8]) -> Self {
        Self::new(at..at, octets)
    }
}

/// The content with its changes, which are in order.
fn changed(content: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 8);
    let mut kept = 0;
    for Change { range, by } in changes {
        out.extend_from_slice(content.get(kept..range.start).unwrap_or_default());
        let replaced = content.get(range.clone()).unwrap_or_default();
        match by {
            Replacement::Octets(octets) => out.extend_from_slice(octets),
            Replacement::QuotedPrintable => {
                qp::BODY.encode_append(replaced, &mut out);
            }
            Replacement::Base64 => {
                base64::MIME.encode_append(replaced, &mut out);
            }
        }
        kept = range.end;
    }
    out.extend_from_slice(content.get(kept..).unwrap_or_default());
    out
}

/// What is to be changed, and which of the long lines are then no longer.
struct Plan<'a> {
    content: &'a [u8],
    lines: Vec<Range<usize>>,
    is_mended: Vec<bool>,
    changes: Vec<Change>,
    /// Fields on top.
    added: Vec<u8>,
}

impl<'a> Plan<'a> {
    fn new(content: &'a [u8], lines: Vec<Range<usize>>) -> Self {
        let is_mended = vec![false; lines.len()];
        Self { content, lines, is_mended, changes: Vec::new(), added: Vec::new() }
    }

    fn first_unmended(&self) -> Option<LongLine> {
        let first = self.is_mended.iter().position(|is_mended| !is_mended)?;
        let before = self.content.get(..self.lines.get(first)?.start)?;
        Some(LongLine(memchr_iter(b'\n', before).count() + 1))
    }

    /// The numbers of the long lines that begin in a range.
    fn lines_in(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.lines.partition_point(|line| line.start < range.start);
        first..self.lines.partition_point(|line| line.start < range.end)
    }

    /// A long line without its end.
    fn text_of(&self, line: usize) -> (usize, &'a [u8]) {
        let range = self.lines.get(line).cloned().unwrap_or_default();
        let line = self.content.get(range.clone()).unwrap_or_default();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        (range.start, text.strip_suffix(b"\r").unwrap_or(text))
    }

    /// A content that has no header section is one text.
    fn encode_all(&mut self) {
        // What begins with the empty line has it already.
        let start = if self.content.starts_with(b"\r\n") { 2 } else { 0 };
        let body = start..self.content.len();
        self.add(b"MIME-Version: 1.0\r\n");
        let encoding = self.encode(body);
        self.add(encoding);
    }

    fn mend_parts(&mut self) {
        let content = self.content;
        let Some(message) = PARSER.parse(content) else { return };
        let root = message.root_part();
        if offset(root.offset_body()) != body_offset(content) {
            return;
        }
        // Up to here nothing may be changed.
        let mut closed = 0;
        for part in message.parts() {
            let header = offset(part.offset_header())..offset(part.offset_body());
            let body = header.end..offset(part.offset_end());
            if header.start < closed {
                continue;
            }
            // A break before what only looks like a part of a field makes a field of it.
            if has_fields_only(part) {
                self.fold(&header);
            }
            match part.kind() {
                PartKind::Multipart if is_open(part) => {}
                PartKind::Multipart | PartKind::Message(_) => closed = body.end,
                PartKind::Text | PartKind::Html | PartKind::Binary | PartKind::InlineBinary => {
                    self.mend_body(part, body);
                }
            }
        }
        let is_encoded = self
            .changes
            .iter()
            .any(|change| matches!(change.by, Replacement::QuotedPrintable | Replacement::Base64));
        if is_encoded && fields(root, "MIME-Version").next().is_none() {
            self.add(b"MIME-Version: 1.0\r\n");
        }
    }

    fn add(&mut self, field: &[u8]) {
        self.added.extend_from_slice(field);
    }

    /// Folds the long lines of a header.
    fn fold(&mut self, header: &Range<usize>) {
        if self.lines_in(header).is_empty() {
            return;
        }
        let fields = self.content.get(header.clone()).unwrap_or_default();
        for (name, range) in FieldLines::new(fields) {
            let field = header.start + range.start..header.start + range.end;
            let lines = self.lines_in(&field);
            if lines.is_empty() {
                continue;
            }
            let gaps = gaps(name, fields.get(range).unwrap_or_default());
            let gaps: Vec<usize> = gaps.into_iter().map(|at| field.start + at).collect();
            lines.for_each(|line| self.fold_line(line, &gaps));
        }
    }

    /// RFC 5322 §2.2.3: a header line may be broken before white space, which is then kept; where
    /// there is none, but may be, it is put in.
    fn fold_line(&mut self, line: usize, gaps: &[usize]) {
        let (start, text) = self.text_of(line);
        let is_gap = |at: usize| gaps.binary_search(&(start + at)).is_ok();
        let Some(folds) = folds(text, is_gap) else { return };
        self.changes.extend(folds.into_iter().map(|at| {
            let line_end: &[u8] = if is_gap(at) { b"\r\n " } else { b"\r\n" };
            Change::insert(start + at, line_end)
        }));
        self.note(line);
    }

    fn note(&mut self, line: usize) {
        if let Some(is_mended) = self.is_mended.get_mut(line) {
            *is_mended = true;
        }
    }

    /// A part that holds no others. A text is encoded whole; of what is encoded already, only the
    /// lines that are too long are broken.
    fn mend_body(&mut self, part: MessagePart<'_>, body: Range<usize>) {
        let lines = self.lines_in(&body);
        let flags = part.flags();
        let is_doubtful =
            flags.intersects(PartFlags::LIMIT_REACHED | PartFlags::FALLBACK_DELIMITER);
        // Its delimiters have not been found, but another reader may find some.
        let is_multipart =
            part.content_type().is_some_and(|kind| kind.ctype().eq_ignore_ascii_case("multipart"));
        if lines.is_empty() || is_doubtful || is_multipart || !has_fields_only(part) {
            return;
        }
        let encoding: Vec<_> = fields(part, "Content-Transfer-Encoding").collect();
        // Nothing is broken within a field that is replaced.
        if encoding.len() > 1 || encoding.iter().any(|(range, _)| range.len() > MAX_LINE) {
            return;
        }
        match encoding.first().map_or("7bit", |(_, value)| value.as_str()) {
            "base64" => self.line_endlines(lines, base64_breaks),
            "quoted-printable" => self.line_endlines(lines, soft_breaks),
            "7bit" | "8bit" | "binary" if is_text(part) => {
                let field = self.encode(body);
                self.name_encoding(part, encoding.first().map(|(range, _)| range.clone()), field);
            }
            _ => {}
        }
    }

    fn line_endlines(&mut self, lines: Range<usize>, breaks: fn(&[u8]) -> Option<Breaks>) {
        for line in lines {
            let (start, text) = self.text_of(line);
            let Some(breaks) = breaks(text) else { continue };
            self.changes.extend(breaks.into_iter().map(|(range, octets)| {
                Change::new(start + range.start..start + range.end, octets)
            }));
            self.note(line);
        }
    }

    /// Encodes a range by what is shorter, as mail programs do; the field that says so.
    fn encode(&mut self, range: Range<usize>) -> &'static [u8] {
        for line in self.lines_in(&range) {
            self.note(line);
        }
        let text = self.content.get(range.clone()).unwrap_or_default();
        let most = base64::MIME.encoded_len(text.len());
        let is_short = qp::BODY.encoded_len_within(text, most).is_some();
        // A soft line break can make a delimiter of what stood within a line.
        let makes_delimiter =
            || memmem::find(qp::BODY.encode(text).as_bytes(), b"=\r\n--").is_some();
        let (by, field): (_, &[u8]) = if is_short && !makes_delimiter() {
            (Replacement::QuotedPrintable, b"Content-Transfer-Encoding: quoted-printable\r\n")
        } else {
            (Replacement::Base64, b"Content-Transfer-Encoding: base64\r\n")
        };
        self.changes.push(Change { range, by });
        field
    }

    /// Says how a part is encoded, in place of what its field said; the root's new field goes on
    /// top, since it may have no header section of its own.
    fn name_encoding(
        &mut self,
        part: MessagePart<'_>,
        known: Option<Range<usize>>,
        field: &'static [u8],
    ) {
        let header = offset(part.offset_header());
        match known {
            Some(range) => {
                self.changes.push(Change::new(header + range.start..header + range.end, field));
            }
            None if header == 0 => self.add(field),
            None => self.changes.push(Change::insert(header, field)),
        }
    }
}

fn offset(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Whether each line of a part's header is a field, or continues one, so that readers agree on what
/// the part is. Of the message's own header section, `fixups` has found that out.
fn has_fields_only(part: MessagePart<'_>) -> bool {
    let is_name = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    part.offset_header() == 0 || FieldLines::new(part.raw()).all(|(name, _)| is_name(name))
}

/// A part's fields of a name: where they stand in its header, and their values in lower case.
fn fields<'m>(
    part: MessagePart<'m>,
    wanted: &'static str,
) -> impl Iterator<Item = (Range<usize>, String)> + 'm {
    let header = part.raw();
    let is_wanted = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
    let found = FieldLines::new(header).filter(move |(name, _)| is_wanted(name));
    found.map(move |(_, range)| {
        let field = header.get(range.clone()).unwrap_or_default();
        (range, unfolded(field).to_ascii_lowercase())
    })
}

/// RFC 2046 §5.1.4, RFC 2045 §5.2: what says nothing of its type is a text.
fn is_text(part: MessagePart<'_>) -> bool {
    let is_read_so = matches!(part.kind(), PartKind::Text | PartKind::Html);
    is_read_so
        && match fields(part, "Content-Type").count() {
            0 => true,
            1 => part.content_type().is_some_and(|kind| kind.ctype().eq_ignore_ascii_case("text")),
            _ => false,
        }
}

/// Whether the parts of a multipart may be changed: nobody has signed or encrypted them (RFC 1847),
/// it is not encoded as a whole (RFC 2045 §6.4), and readers agree on where they are.
fn is_open(part: MessagePart<'_>) -> bool {
    let is_sealed =
        ["signed", "encrypted"].iter().any(|kind| part.is_content_type("multipart", kind));
    let is_encoded = fields(part, "Content-Transfer-Encoding")
        .any(|(_, value)| !matches!(value.as_str(), "7bit" | "8bit" | "binary"));
    !is_sealed && !is_encoded && has_fields_only(part) && delimiters::are_clear(part)
}

/// Where to break a header line, so that each of the lines has at most [`MAX_LINE`] octets and,
/// where that can be, [`FOLDED_LINE`]: before white space or in a gap for it. Never within white
/// space nor at an end of the line, since a line of white space alone ends the header section for
/// some readers; and after the name and its colon only where it must be.
fn folds(text: &[u8], is_gap: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
    let is_white = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    let end = text.len() - text.iter().rev().take_while(|octet| is_white(Some(octet))).count();
    let begins_white = |at: usize| is_white(text.get(at)) && !is_white(text.get(at - 1));
    let candidates = (1..end).filter(|at| begins_white(*at) || is_gap(*at));
    let mut folds = Vec::new();
    let mut start = 0;
    let mut last = None;
    for at in candidates.chain([text.len()]) {
        if at - start > FOLDED_LINE
            && let Some(fold) = last.take()
        {
            let is_after_name = text.get(fold - 1) == Some(&b':') && start == 0;
            if !is_after_name || at - start > MAX_LINE {
                folds.push(fold);
                start = fold;
            }
        }
        // With the space that may be put in.
        if at - start >= MAX_LINE && (at - start > MAX_LINE || is_gap(start)) {
            return None;
        }
        last = Some(at);
    }
    Some(folds)
}

/// Fields of addresses (RFC 5322 §3.6.2, §3.6.3, §3.6.6).
const ADDRESSES: [&str; 10] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Resent-To",
    "Resent-Cc",
];
/// Fields of message identifiers (RFC 5322 §3.6.4).
const IDENTIFIERS: [&str; 2] = ["References", "In-Reply-To"];

/// Where white space may be put into a field without any: after the commas of an address list
/// (RFC 5322 §3.4), and between message identifiers. Not in quotes, comments and brackets.
fn gaps(name: &[u8], field: &[u8]) -> Vec<usize> {
    let is_one_of =
        |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    let last = match () {
        () if is_one_of(&ADDRESSES) => b',',
        () if is_one_of(&IDENTIFIERS) => b'>',
        () => return Vec::new(),
    };
    let mut gaps = Vec::new();
    let mut is_quoted = false;
    let mut is_escaped = false;
    let mut comments = 0_usize;
    let mut brackets = 0_usize;
    for (at, octet) in field.iter().enumerate() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match octet {
            b'\\' => is_escaped = true,
            b'"' if comments == 0 => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'(' => comments += 1,
            b')' => comments = comments.saturating_sub(1),
            _ if comments > 0 => {}
            b'<' => brackets += 1,
            b'>' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        let is_outside = !is_quoted && comments == 0 && brackets == 0;
        let is_followed = field.get(at + 1).is_some_and(|next| !next.is_ascii_whitespace());
        if *octet == last && is_outside && is_followed {
            gaps.push(at + 1);
        }
    }
    gaps
}

/// What is put in place of which octets of a line.
type Breaks = Vec<(Range<usize>, &'static [u8])>;

/// RFC 2045 §6.8: line breaks in base64 mean nothing.
fn base64_breaks(text: &[u8]) -> Option<Breaks> {
    let at = (ENCODED_LINE..text.len()).step_by(ENCODED_LINE);
    // What is no base64 could make a delimiter.
    let is_base64 = !text.contains(&b'-');
    is_base64.then(|| at.map(|at| (at..at, b"\r\n".as_slice())).collect())
}

/// RFC 2045 §6.7: a line may be broken after a `=` that is added, but not within an escape, nor
/// within a character of UTF-8 that ought to be one. A hyphen that would begin a line is escaped,
/// or it could make a delimiter. White space that ends the line means nothing (rule 3) and is left
/// out: behind a break, readers take it differently.
fn soft_breaks(text: &[u8]) -> Option<Breaks> {
    let mut breaks = Vec::new();
    let mut start = 0;
    let is_white = |octet: &u8| matches!(octet, b' ' | b'\t');
    let end = text.iter().rposition(|octet| !is_white(octet)).map_or(0, |last| last + 1);
    let (text, white) = text.split_at(end);
    for (at, octet) in text.iter().enumerate() {
        let is_in_escape = text.get(at.saturating_sub(2)..at).unwrap_or_default().contains(&b'=');
        let is_in_character = *octet & 0b1100_0000 == 0b1000_0000;
        if at - start >= ENCODED_LINE - 3 && !is_in_escape && !is_in_character {
            match octet {
                b'-' => breaks.push((at..at + 1, b"=\r\n=2D".as_slice())),
                _ => breaks.push((at..at, b"=\r\n".as_slice())),
            }
            start = at;
        }
        // So many escapes after escapes are none.
        if at - start >= MAX_LINE - 3 {
            return None;
        }
    }
    if !white.is_empty() {
        breaks.push((end..end + white.len(), b"".as_slice()));
    }
    Some(breaks)
}

#[cfg(test)]
mod tests;
