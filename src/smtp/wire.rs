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

/// What becomes of a bare CR or LF in DATA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// The message is refused (RFC 5321 §2.3.8).
    #[default]
    Strict,
    /// They are mended as in a chunk, because the operator has named the client's network.
    Mended,
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
    pub(crate) fn dots(line_ends: LineEnds) -> Self {
        Self::Dots(DotDecoder { at: At::default(), line_ends })
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
    /// After a bare LF that is mended: a line begins, but not one that can end DATA.
    MendedStart,
    /// Within a line.
    Text,
    /// After a CR.
    Cr,
    /// After a dot that began a line and is held back.
    Dot,
    /// After such a dot and a CR, which is held back too.
    DotCr,
    /// After a dot that began a line behind a bare LF, and is held back.
    MendedDot,
}

/// The DATA decoder (RFC 5321 §4.5.2): ends at exactly `<CRLF>.<CRLF>` (§4.1.1.4) and takes away
/// the dot that begins a line. For a bare CR or LF anywhere in it, which other servers might take
/// for the end of a line and so for the end of the message, it refuses the message (§2.3.8).
///
/// Deviation: from networks whose line ends are mended, a bare LF ends a line, so that the dot
/// which begins the next is taken away too. It never ends the message: `<LF>.<LF>`, `<CRLF>.<LF>`
/// and their like are a line that is a dot, and stays one. What the decoder has told to be one
/// message is so for everybody, because it goes on with CR LF and its dots doubled. Who needs it:
/// devices and scripts that nobody mends.
#[derive(Debug)]
pub(crate) struct DotDecoder {
    at: At,
    line_ends: LineEnds,
}

impl DotDecoder {
    /// Returns how many bytes were used.
    fn decode(&mut self, input: &[u8], body: &mut Body) -> (usize, Progress) {
        // `input[copied..next]` is content that is not yet in the body: it is copied in as long
        // runs as possible, and always before a fault is noted, so that the first fault of a
        // message does not depend on how its bytes were cut.
        let mut copied = 0;
        let mut next = 0;
        let run = |from: usize, to: usize| input.get(from..to).unwrap_or_default();
        while let Some(&byte) = input.get(next) {
            match (self.at, byte) {
                (At::LineStart | At::MendedStart, b'.') => {
                    self.give(run(copied, next), body);
                    next += 1;
                    copied = next;
                    self.at = if self.at == At::LineStart { At::Dot } else { At::MendedDot };
                }
                (At::LineStart | At::MendedStart, _) => self.at = At::Text,
                (At::Text, _) => match memchr2(b'\r', b'\n', run(next, input.len())) {
                    None => next = input.len(),
                    Some(ahead) => {
                        next += ahead + 1;
                        self.at = At::Cr;
                        if input.get(next - 1) == Some(&b'\n') {
                            self.give(run(copied, next), body);
                            copied = next;
                            self.at = self.after_bare_newline(body);
                        }
                    }
                },
                (At::Cr, b'\n') => {
                    next += 1;
                    self.at = At::LineStart;
                }
                (At::Cr, _) => {
                    self.give(run(copied, next), body);
                    copied = next;
                    self.after_bare_newline(body);
                    self.at = At::Text;
                }
                (At::Dot, b'\r') => {
                    next += 1;
                    copied = next;
                    self.at = At::DotCr;
                }
                (At::DotCr, b'\n') => return (next + 1, Progress::End),
                (At::DotCr, _) => {
                    self.give(b".\r", body);
                    self.at = At::Cr;
                }
                // RFC 5321 §4.5.2 takes the dot away where there are other characters on the line.
                (At::Dot | At::MendedDot, b'\r' | b'\n') => {
                    self.give(b".", body);
                    self.at = At::Text;
                }
                (At::Dot | At::MendedDot, _) => self.at = At::Text,
            }
        }
        self.give(run(copied, next), body);
        (next, Progress::More)
    }

    fn give(&self, run: &[u8], body: &mut Body) {
        match self.line_ends {
            LineEnds::Strict => body.append(run),
            LineEnds::Mended => body.append_mended(run),
        }
    }

    /// Where the decoder stands after a bare CR or LF; the body itself knows which it can mend.
    fn after_bare_newline(&self, body: &mut Body) -> At {
        match self.line_ends {
            LineEnds::Strict => {
                body.refuse(Reason::BareNewline);
                At::Text
            }
            LineEnds::Mended => At::MendedStart,
        }
    }
}

/// Counts a BDAT chunk off (RFC 3030 §2).
///
/// RFC 3030 lets a chunk hold anything once BINARYMIME is offered, which it is not here. A length
/// leaves no doubt where a message ends, so its line ends are mended rather than refused, from
/// everybody: Microsoft 365 hands mail with bare LF to servers with CHUNKING, and to no others.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    remaining: u64,
}

impl ChunkReader {
    fn read(&mut self, input: &[u8], body: &mut Body) -> (usize, Progress) {
        let size = usize::try_from(self.remaining).map_or(input.len(), |n| n.min(input.len()));
        body.append_mended(input.get(..size).unwrap_or_default());
        self.remaining -= size as u64; // size is at most remaining
        (size, if self.remaining == 0 { Progress::End } else { Progress::More })
    }
}
