//! Bytes to lines, DATA and chunks: the only file that splits what a peer sends. However the same
//! bytes are cut on their way, the same values come out.

use bytes::{Buf, BytesMut};
use memchr::{memchr2, memchr3};

use super::body::Body;
use super::reason::Reason;

/// A command line as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line, its CR LF removed.
    Command(Vec<u8>),
    /// Longer than allowed; what remains of it, up to its CR LF, never comes out.
    TooLong,
    /// A bare CR, a bare LF or a NUL; what remains of it, up to its CR LF, never comes out.
    BadEnding,
}

/// Splits command lines. Only CR LF ends a line (RFC 5321 §2.3.8).
#[derive(Debug, Default)]
pub(crate) struct Lines {
    place: Place,
    /// How many bytes at the front of the buffer are known to hold no CR, LF or NUL.
    scanned: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the start of a line.
    #[default]
    Line,
    /// In the rest of a line that was already refused.
    Refused,
}

impl Lines {
    /// The next line of at most `limit` octets with its CR LF, or `None` until more bytes come.
    ///
    /// A line is refused as soon as it is known to be bad, not at its end: a peer that ends its
    /// lines with a bare LF waits for an answer.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, limit: usize) -> Option<Line> {
        if self.place == Place::Refused && !discard_line(buffer) {
            return None;
        }
        self.place = Place::Line;
        let window = buffer.get(..limit.min(buffer.len())).unwrap_or_default();
        let unseen = window.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr3(b'\r', b'\n', 0, unseen).map(|at| at + self.scanned) else {
            self.scanned = window.len();
            return (window.len() == limit).then(|| self.refuse(buffer, limit, Line::TooLong));
        };
        if window.get(at) != Some(&b'\r') {
            return Some(self.refuse(buffer, at + 1, Line::BadEnding));
        }
        if at + 1 >= limit {
            return Some(self.refuse(buffer, at, Line::TooLong));
        }
        match window.get(at + 1) {
            None => {
                self.scanned = at;
                None
            }
            Some(b'\n') => {
                let line = buffer.split_to(at).to_vec();
                buffer.advance(2);
                self.scanned = 0;
                Some(Line::Command(line))
            }
            Some(_) => Some(self.refuse(buffer, at + 1, Line::BadEnding)),
        }
    }

    fn refuse(&mut self, buffer: &mut BytesMut, consumed: usize, line: Line) -> Line {
        buffer.advance(consumed);
        self.scanned = 0;
        self.place = Place::Refused;
        line
    }
}

/// Drops bytes up to and with the next CR LF; says whether it was there. A CR at the end stays,
/// for its LF may still come.
fn discard_line(buffer: &mut BytesMut) -> bool {
    let end = memchr::memmem::find(buffer, b"\r\n");
    let consumed = match end {
        Some(at) => at + 2,
        None => buffer.len() - usize::from(buffer.last() == Some(&b'\r')),
    };
    buffer.advance(consumed);
    end.is_some()
}

/// Whether the end has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All bytes are used up, and more must come.
    More,
    /// The end was among the bytes; what follows it is still in the buffer.
    End,
}

/// What a transfer is framed by.
#[derive(Debug)]
pub(crate) enum Framing {
    /// DATA: up to `<CRLF>.<CRLF>`.
    Dots(DotDecoder),
    /// BDAT: so many octets.
    Chunk(ChunkReader),
}

impl Framing {
    /// DATA, about to begin.
    pub(crate) fn dots() -> Self {
        Self::Dots(DotDecoder::default())
    }

    /// A BDAT chunk of so many octets, about to begin.
    pub(crate) fn chunk(size: u64) -> Self {
        Self::Chunk(ChunkReader { remaining: size })
    }

    /// Moves content from the buffer to the body, up to the end of the transfer.
    pub(crate) fn transfer(&mut self, buffer: &mut BytesMut, body: &mut Body) -> Progress {
        let (consumed, progress) = match self {
            Self::Dots(decoder) => decoder.decode(buffer, body),
            Self::Chunk(reader) => reader.read(buffer, body),
        };
        buffer.advance(consumed);
        progress
    }
}

/// Where in the stream of DATA the decoder stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// After CR LF; DATA begins here too, so that an empty message ends at once.
    #[default]
    LineStart,
    /// Within a line.
    Text,
    /// After a CR.
    Cr,
    /// After a dot that began a line and was taken away.
    Dot,
    /// After such a dot and a CR, which is still held back.
    DotCr,
}

/// The DATA decoder (RFC 5321 §4.5.2): ends at exactly `<CRLF>.<CRLF>`, takes away the dot that
/// begins a line, and refuses the message for a bare CR or LF anywhere in it (§2.3.8), which other
/// servers might take for the end of a line and so for the end of the message.
#[derive(Debug, Default)]
pub(crate) struct DotDecoder {
    at: At,
}

impl DotDecoder {
    /// Returns how many bytes were used.
    fn decode(&mut self, input: &[u8], body: &mut Body) -> (usize, Progress) {
        // `input[copied..next]` is content that is not yet in the body: it is copied in as long
        // runs as possible, and always before a fault is noted, so that the first fault of a
        // message does not depend on how its bytes were cut.
        let (mut copied, mut next) = (0, 0);
        let run = |from: usize, to: usize| input.get(from..to).unwrap_or_default();
        while let Some(&byte) = input.get(next) {
            match (self.at, byte) {
                (At::LineStart, b'.') => {
                    body.append(run(copied, next));
                    next += 1;
                    copied = next;
                    self.at = At::Dot;
                }
                (At::LineStart, _) => self.at = At::Text,
                (At::Text, _) => match memchr2(b'\r', b'\n', input.get(next..).unwrap_or_default())
                {
                    None => next = input.len(),
                    Some(ahead) => {
                        next += ahead + 1;
                        self.at = At::Cr;
                        if input.get(next - 1) == Some(&b'\n') {
                            body.append(run(copied, next));
                            copied = next;
                            body.refuse(Reason::BareNewline);
                            self.at = At::Text;
                        }
                    }
                },
                (At::Cr, b'\n') => {
                    next += 1;
                    self.at = At::LineStart;
                }
                (At::Cr, _) => {
                    body.append(run(copied, next));
                    copied = next;
                    body.refuse(Reason::BareNewline);
                    self.at = At::Text;
                }
                (At::Dot, b'\r') => {
                    next += 1;
                    copied = next;
                    self.at = At::DotCr;
                }
                (At::Dot, _) => self.at = At::Text,
                (At::DotCr, b'\n') => return (next + 1, Progress::End),
                (At::DotCr, _) => {
                    body.append(b"\r");
                    body.refuse(Reason::BareNewline);
                    self.at = At::Text;
                }
            }
        }
        body.append(run(copied, next));
        (next, Progress::More)
    }
}

/// Counts a BDAT chunk off (RFC 3030 §2).
#[derive(Debug)]
pub(crate) struct ChunkReader {
    remaining: u64,
}

impl ChunkReader {
    fn read(&mut self, input: &[u8], body: &mut Body) -> (usize, Progress) {
        let size = usize::try_from(self.remaining).map_or(input.len(), |n| n.min(input.len()));
        body.append_checked(input.get(..size).unwrap_or_default());
        self.remaining -= size as u64; // size is at most remaining
        (size, if self.remaining == 0 { Progress::End } else { Progress::More })
    }
}
