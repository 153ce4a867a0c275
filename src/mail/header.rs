//! The header section as bytes: where fields begin and end, nothing more.
//!
//! Parsing values is mail-parser's work; this is for the two things that must keep every byte as
//! it came: cutting a field out, and finding where the body begins.

use std::ops::Range;

use memchr::memchr;

/// Where the body begins: after the empty line, or at the end if there is none.
pub fn body_offset(message: &[u8]) -> usize {
    let mut fields = FieldLines::new(message);
    while fields.next().is_some() {}
    match message.get(fields.position..) {
        Some([b'\r', b'\n', ..]) => fields.position + 2,
        Some([b'\n', ..]) => fields.position + 1,
        _ => fields.position,
    }
}

/// The fields of a header section, one after the other, each with its name and the range of all
/// its lines with their ends. Stops at the empty line.
#[derive(Clone, Debug)]
pub struct FieldLines<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> FieldLines<'a> {
    /// The fields of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, position: 0 }
    }

    fn line_end(&self, start: usize) -> usize {
        let rest = self.message.get(start..).unwrap_or_default();
        memchr(b'\n', rest).map_or(self.message.len(), |at| start + at + 1)
    }
}

impl<'a> Iterator for FieldLines<'a> {
    /// The field's name without the colon (empty for a line that has none), and its bytes.
    type Item = (&'a [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.position;
        let rest = self.message.get(start..)?;
        if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
            return None;
        }
        let mut end = self.line_end(start);
        // RFC 5322 §2.2: the name and its colon stand on the first line.
        let line = self.message.get(start..end)?;
        let name = memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
        // RFC 5322 §2.2.3: a line that begins with white space continues the field.
        while matches!(self.message.get(end), Some(b' ' | b'\t')) {
            end = self.line_end(end);
        }
        self.position = end;
        Some((name.trim_ascii_end(), start..end))
    }
}

/// Takes whole fields out of a message, in place; `fields` are in order.
pub fn take_out(fields: &[Range<usize>], message: &mut Vec<u8>) {
    let Some(first) = fields.first() else { return };
    let mut end = first.start;
    let nexts = fields.iter().skip(1).map(|field| field.start);
    for (field, next) in fields.iter().zip(nexts.chain([message.len()])) {
        message.copy_within(field.end..next, end);
        end += next - field.end;
    }
    message.truncate(end);
}

/// Whether a lenient reader may find a field called `wanted` in a field of [`FieldLines`] that has
/// another name. In one whose own name is none (RFC 5322 §3.6.8), some readers pass over the lines
/// that they cannot read, and take a line that continues them for a field.
pub fn hides(name: &[u8], field: &[u8], wanted: &str) -> bool {
    hidden_names(name, field).any(|name| name.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The names of all fields that [`hides`] may find. What no name has in it counts for nothing before
/// and behind one: readers differ on what is white space, and take VT and U+00A0 for it as well.
pub fn hidden_names<'a>(name: &[u8], field: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let lines = if is_name { &[] } else { field }.split(|octet| *octet == b'\n');
    lines.filter_map(|line| line.get(..memchr(b':', line)?)).map(without_blanks)
}

fn without_blanks(name: &[u8]) -> &[u8] {
    let first = name.iter().position(u8::is_ascii_graphic).unwrap_or(name.len());
    let last = name.iter().rposition(u8::is_ascii_graphic).map_or(first, |at| at + 1);
    name.get(first..last).unwrap_or_default()
}

/// A field's value on one line (RFC 5322 §2.2.3), lossily as UTF-8, without white space around it.
pub fn unfolded(field: &[u8]) -> String {
    without_folds(field).trim().to_owned()
}

/// The same with what stands around it.
pub(super) fn without_folds(field: &[u8]) -> String {
    let value = memchr(b':', field).and_then(|colon| field.get(colon + 1..)).unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(['\r', '\n']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_continuation_lines() {
        let message = b"A: 1\r\n two\r\nnonsense\r\nB : x\r\n\r\nC: body\r\n";
        let fields: Vec<_> = FieldLines::new(message)
            .map(|(name, range)| (name.to_vec(), message[range].to_vec()))
            .collect();
        assert_eq!(
            fields,
            [
                (b"A".to_vec(), b"A: 1\r\n two\r\n".to_vec()),
                (b"".to_vec(), b"nonsense\r\n".to_vec()),
                (b"B".to_vec(), b"B : x\r\n".to_vec()),
            ]
        );
        assert_eq!(&message[body_offset(message)..], b"C: body\r\n");
        assert_eq!(unfolded(b"A: 1\r\n two\r\n"), "1 two");
    }

    #[test]
    fn a_field_without_a_name_may_hide_another() {
        let check = |field: &[u8], hidden: bool| {
            let (name, range) = FieldLines::new(field).next().expect("a field");
            assert_eq!(hides(name, &field[range], "From"), hidden, "{field:?}");
        };
        check(b" From: a\r\n", true);
        check(b"nonsense\r\n\tmore\r\n FROM : a\r\n", true);
        check(b"x\r\n :y\r\n From: a\r\n", true);
        check(b"x y: z\r\n From: a\r\n", true);
        check(b"x\r\n From\r\n : a\r\n", false);
        check(b"From\r\n : a\r\n", false);
        check(b"From: a\r\n", false);
        let blanks =
            [b"\x0b".as_slice(), b"\xa0", b"\0", b"\xc2\xa0", b"\xe2\x80\x83", b"\xef\xbb\xbf"];
        for blank in blanks {
            check(&[blank, b"From: a\r\n"].concat(), true);
            check(&[b"From ", blank, b": a\r\n"].concat(), true);
            check(&[b"From", blank, b" : a\r\n"].concat(), true);
        }
        check(b"\x0b: a\r\n", false);
        check(b"X: y\r\n From: a\r\n", false);
        check(b"From a@b.test Sat 21 04:31\r\n", false);
    }

    #[test]
    fn a_message_may_lack_either_part() {
        assert_eq!(body_offset(b""), 0);
        assert_eq!(body_offset(b"\r\nbody"), 2);
        assert_eq!(body_offset(b"A: 1\r\n"), 6);
        assert_eq!(body_offset(b"A: 1"), 4);
    }
}
