//! The content as it goes over the wire: dots stuffed, its last line ended, in blocks, without
//! ever being in one buffer.

use memchr::memmem;

/// How much is written at once, in octets, give or take a line end and the final dot.
const BLOCK: usize = 64 * 1024;

/// Octets of the content as SIZE counts them (RFC 1870 §3): with the line end that it may lack,
/// without stuffed dots.
pub(super) fn size(parts: &[&[u8]]) -> u64 {
    let mut tail = Tail::default();
    parts.iter().for_each(|part| tail.follow(part));
    let octets: usize = parts.iter().map(|part| part.len()).sum();
    (octets + tail.missing_end().len()) as u64
}

/// Whether there is an octet outside ASCII.
pub(super) fn is_eight_bit(parts: &[&[u8]]) -> bool {
    parts.iter().any(|part| !part.is_ascii())
}

/// Whether there is an octet outside ASCII in the header section.
pub(super) fn is_header_eight_bit(parts: &[&[u8]]) -> bool {
    let mut tail = Tail::default();
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            if tail.at_line_start() && line == b"\r\n" {
                return false;
            }
            if !line.is_ascii() {
                return true;
            }
            tail.follow(line);
            rest = after;
        }
    }
    false
}

/// The last two octets so far.
#[derive(Clone, Copy, Debug, Default)]
struct Tail([Option<u8>; 2]);

impl Tail {
    fn follow(&mut self, more: &[u8]) {
        if let [.., before, last] = more {
            self.0 = [Some(*before), Some(*last)];
        } else if let [last] = more {
            self.0 = [self.0[1], Some(*last)];
        }
    }

    /// After any LF: what is stuffed is more than RFC 5321 §4.5.2 asks for where a message has a
    /// bare LF, which then ends no message at a server that takes it for a line end.
    fn at_line_start(self) -> bool {
        matches!(self.0[1], None | Some(b'\n'))
    }

    /// What the content lacks to end in CR LF; an empty one lacks nothing.
    fn missing_end(self) -> &'static [u8] {
        match self.0 {
            [_, None] | [Some(b'\r'), Some(b'\n')] => b"",
            [_, Some(b'\r')] => b"\n",
            _ => b"\r\n",
        }
    }
}

/// Whether the final dot is among what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More blocks follow.
    More,
    /// The block ends in the final dot.
    End,
}

/// The content with its dots stuffed (RFC 5321 §4.5.2) and its final dot.
#[derive(Debug)]
pub(super) struct Stuffed<'a> {
    parts: &'a [&'a [u8]],
    /// What is left of the part before them.
    rest: &'a [u8],
    tail: Tail,
}

impl<'a> Stuffed<'a> {
    /// Of a content in parts.
    pub(super) fn new(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, rest: &[], tail: Tail::default() }
    }

    /// Replaces what is in `block` by the next one.
    pub(super) fn fill(&mut self, block: &mut Vec<u8>) -> Progress {
        block.clear();
        while block.len() < BLOCK {
            if let [first, ..] = self.rest {
                if self.tail.at_line_start() && *first == b'.' {
                    block.push(b'.');
                }
                self.copy_run(block);
            } else if let [next, others @ ..] = self.parts {
                self.rest = next;
                self.parts = others;
            } else {
                block.extend_from_slice(self.tail.missing_end());
                block.extend_from_slice(b".\r\n");
                return Progress::End;
            }
        }
        Progress::More
    }

    /// Copies up to the next line that begins with a dot, or as much as there is room for.
    fn copy_run(&mut self, block: &mut Vec<u8>) {
        let room = BLOCK.saturating_sub(block.len()).max(1);
        let window = self.rest.get(..room).unwrap_or(self.rest);
        let length = memmem::find(window, b"\n.").map_or(window.len(), |at| at + 1);
        let (run, rest) = self.rest.split_at(length);
        block.extend_from_slice(run);
        self.tail.follow(run);
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on_the_wire(parts: &[&[u8]]) -> Vec<u8> {
        let (mut wire, mut block) = (Vec::new(), Vec::new());
        let mut stuffed = Stuffed::new(parts);
        loop {
            let progress = stuffed.fill(&mut block);
            assert!(block.len() <= BLOCK + 8, "a block of {} octets", block.len());
            wire.extend_from_slice(&block);
            if progress == Progress::End {
                return wire;
            }
        }
    }

    fn check(parts: &[&str], expected: &str, expected_size: u64) {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        assert_eq!(String::from_utf8_lossy(&on_the_wire(&parts)), expected);
        assert_eq!(size(&parts), expected_size);
    }

    #[test]
    fn dots_are_stuffed_and_the_last_line_is_ended() {
        check(&[], ".\r\n", 0);
        check(&["", ""], ".\r\n", 0);
        check(&["a\r\n"], "a\r\n.\r\n", 3);
        check(&["a"], "a\r\n.\r\n", 3);
        check(&["a\r"], "a\r\n.\r\n", 3);
        check(&["a\r", "\n"], "a\r\n.\r\n", 3);
        check(&["a\n"], "a\n\r\n.\r\n", 4);
        check(&[".\r\n"], "..\r\n.\r\n", 3);
        check(&["a\r\n", ".b\r\n"], "a\r\n..b\r\n.\r\n", 7);
        check(&["a\r\n", ".", ".", "\r\n"], "a\r\n...\r\n.\r\n", 7);
        check(&["a.b\r\n.\r\n..c\r\n"], "a.b\r\n..\r\n...c\r\n.\r\n", 13);
        // What would end the message at a server that takes a bare LF for a line end.
        check(&["a\n.\nMAIL FROM:<x@y.test>\r\n"], "a\n..\nMAIL FROM:<x@y.test>\r\n.\r\n", 26);
    }

    #[test]
    fn a_header_needs_utf8_and_a_body_does_not() {
        let check = |parts: &[&str], expected| {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(is_header_eight_bit(&parts), expected, "{parts:?}");
        };
        check(&["Subject: a\r\n\r\né"], false);
        check(&["Subject: é\r\n\r\na"], true);
        check(&["Subject: a\r\n\r", "\né"], true); // A cut in the blank line only errs to caution.
        check(&["Received: a\r\n", "Subject: a\r\n", "\r\n", "é"], false);
        check(&["\r\né"], false);
        check(&["Subject: a", "é"], true);
    }

    /// Line by line, in one buffer.
    fn naive(content: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(match wire.as_slice() {
            [] | [.., b'\r', b'\n'] => b"",
            [.., b'\r'] => b"\n",
            _ => b"\r\n",
        });
        wire.extend_from_slice(b".\r\n");
        wire
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_goes_over_the_wire(
            pieces in prop::collection::vec("[.\\r\\na]{0,6}", 0..12),
            padding in 0..3 * BLOCK,
        ) {
            let padding = vec![b'x'; padding];
            let mut parts: Vec<&[u8]> = vec![&padding];
            parts.extend(pieces.iter().map(|piece| piece.as_bytes()));
            prop_assert_eq!(on_the_wire(&parts), naive(&parts.concat()));
        }
    }
}
