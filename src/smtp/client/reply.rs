//! What the server says (RFC 5321 §4.2): bytes to replies. However the same bytes are cut on
//! their way, the same replies come out, and a reply holds no more than the limits here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use crate::mail::is_invisible;

/// The longest reply line with its line end, in octets; RFC 5321 §4.5.3.1.5 allows 512.
pub(super) const MAX_LINE: usize = 4096;
/// The most lines of a reply.
const MAX_LINES: usize = 100;
/// The longest text that is passed on, in characters.
const MAX_TEXT: usize = 1000;

/// An enhanced status code (RFC 3463 §2), for example `5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

/// Why a text is not an enhanced status code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an enhanced status code")]
pub struct NotAStatus(String);

impl EnhancedStatus {
    /// A code of our own.
    pub(crate) const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// 2, 4 or 5.
    pub fn class(self) -> u8 {
        self.class
    }

    /// What it is about: 1 addresses, 2 mailboxes, … (RFC 3463 §3).
    pub fn subject(self) -> u16 {
        self.subject
    }

    /// What it says about that.
    pub fn detail(self) -> u16 {
        self.detail
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read_status(text).ok_or_else(|| NotAStatus(text.to_owned()))
    }
}

impl TryFrom<String> for EnhancedStatus {
    type Error = NotAStatus;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EnhancedStatus> for String {
    fn from(status: EnhancedStatus) -> Self {
        status.to_string()
    }
}

/// `class "." subject "." detail` (RFC 2034 §4): subject and detail of one to three digits.
fn read_status(text: &str) -> Option<EnhancedStatus> {
    let mut parts = text.split('.');
    let class = match parts.next()? {
        "2" => 2,
        "4" => 4,
        "5" => 5,
        _ => return None,
    };
    let mut number = || {
        let digits = parts.next()?;
        let number = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| number)
    };
    let (subject, detail) = (number()?, number()?);
    parts.next().is_none().then_some(EnhancedStatus { class, subject, detail })
}

/// A whole reply: visible characters, whatever the server sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedStatus>,
    lines: Vec<String>,
}

impl Reply {
    /// The code, from 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, if the first line has one and its class is the code's. Where
    /// they disagree, the code alone counts.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// The lines without their codes.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The lines in one, without their codes, cut at 1,000 characters.
    pub fn text(&self) -> String {
        self.lines.join(" ").chars().take(MAX_TEXT).collect()
    }

    /// The first digit of the code.
    pub(super) fn class(&self) -> u16 {
        self.code / 100
    }
}

/// As the server said it, in one line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text())
    }
}

/// Why what the server says is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// A line does not begin with a code, or its code is followed by neither space nor hyphen.
    #[error("a line is not a reply")]
    NotAReply,
    /// A line has no end within 4,096 octets.
    #[error("a line is longer than 4096 octets")]
    LongLine,
    /// A reply has no end within 100 lines.
    #[error("a reply has more than 100 lines")]
    ManyLines,
    /// The lines of a reply have different codes (RFC 5321 §4.2.1).
    #[error("a reply has two codes")]
    TwoCodes,
}

/// Splits what the server sends into replies. After [`Garbage`], nothing more can be read.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// The reply that is not yet whole.
    code: Option<u16>,
    lines: Vec<String>,
    /// How many bytes at the front of the buffer are known to hold no LF.
    scanned: usize,
}

impl Replies {
    /// The next reply, or `None` until more bytes come.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, Garbage> {
        while let Some(line) = self.line(buffer)? {
            let (code, place, text) = read_line(&line).ok_or(Garbage::NotAReply)?;
            if self.code.is_some_and(|other| other != code) {
                return Err(Garbage::TwoCodes);
            }
            if self.lines.len() == MAX_LINES {
                return Err(Garbage::ManyLines);
            }
            self.code = Some(code);
            self.lines.push(text);
            if place == Place::Last {
                self.code = None;
                return Ok(Some(whole(code, std::mem::take(&mut self.lines))));
            }
        }
        Ok(None)
    }

    /// The next line without its end. Deviation: RFC 5321 §2.3.8 knows CR LF alone; a bare LF
    /// ends a line too, because here that can only be read in one way.
    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, Garbage> {
        let window = buffer.get(..MAX_LINE.min(buffer.len())).unwrap_or_default();
        let Some(at) = memchr(b'\n', window.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = window.len();
            return if window.len() == MAX_LINE { Err(Garbage::LongLine) } else { Ok(None) };
        };
        let mut line = buffer.split_to(self.scanned + at + 1);
        self.scanned = 0;
        let end = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).map_or(0, <[u8]>::len);
        line.truncate(end);
        Ok(Some(line))
    }
}

/// Whether a line ends its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    More,
    Last,
}

/// `Reply-code [SP textstring]` or `Reply-code "-" [textstring]`.
fn read_line(line: &[u8]) -> Option<(u16, Place, String)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code: u16 = str::from_utf8(code).ok()?.parse().ok()?;
    let (place, text) = match rest.split_first() {
        None => (Place::Last, rest),
        Some((b' ', text)) => (Place::Last, text),
        Some((b'-', text)) => (Place::More, text),
        Some(_) => return None,
    };
    (200..600).contains(&code).then(|| (code, place, printable(text)))
}

/// Text that can stand in a log, an event and a terminal: the server's own characters, but for those
/// that cannot be seen. Servers answer in UTF-8 (RFC 6531 §3.7.4.2), and in Latin-1, though nothing
/// allows it; where a line has both, each stretch is read as what it is.
fn printable(text: &[u8]) -> String {
    let text = match str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => mixed(text).into(),
    };
    let visible = |c: char| match c {
        _ if c.is_whitespace() => ' ',
        _ if is_invisible(c) => '?',
        _ => c,
    };
    text.trim().chars().map(visible).collect()
}

fn mixed(text: &[u8]) -> String {
    let mut read = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        read.push_str(chunk.valid());
        read.extend(chunk.invalid().iter().map(|octet| char::from(*octet)));
    }
    read
}

/// Takes the enhanced status code out of the lines.
fn whole(code: u16, mut lines: Vec<String>) -> Reply {
    let first = lines.first().and_then(|line| line.split(' ').next());
    let enhanced =
        first.and_then(read_status).filter(|enhanced| u16::from(enhanced.class) == code / 100);
    if let Some(prefix) = enhanced.map(|enhanced| enhanced.to_string()) {
        for line in &mut lines {
            let rest = line.strip_prefix(&prefix);
            let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(' '));
            if let Some(rest) = rest.map(|rest| rest.trim_start().to_owned()) {
                *line = rest;
            }
        }
    }
    Reply { code, enhanced, lines }
}
