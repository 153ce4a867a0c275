//! Attachments that users may not send, by the extensions of their file names; and messages whose
//! parts readers do not agree on, so that nobody can say what is attached. Pure.

mod boundaries;
mod disputed;
mod names;

use std::cell::Cell;
use std::ops::Range;
use std::sync::LazyLock;

use encodify::{base64, qp};
use mail_parser::{ContentType, Message, MessageParser, MessagePart, PartFlags};

use self::disputed::may_hide_file;
use self::names::{has_unreadable, in_text, lenient, parameters};
use crate::mail::{FieldLines, excerpt_on_one_line, hides, unfolded};
use crate::pipeline::facts::extensions::Extensions;

/// Parts of a message that are looked at: more than any message has that the limit on attachments,
/// at its highest, lets through.
const MAX_PARTS: usize = 400_000;
/// How much of a name is repeated to the sender, in characters.
const MAX_NAME: usize = 255;
/// How often something is decoded in what was decoded. Each time takes no more room than the message
/// has.
const MAX_DECODED: usize = 2;
/// How much may be read again that is encoded as a whole, in messages' lengths: parts in parts are
/// read with each of those around them, in every way in which a reader may take them.
const MAX_READ_AGAIN: usize = 8;
const TOO_MANY: &str = "it has too many parts in parts";
/// The fields that say what a part is (RFC 2045 §3); each stands once.
const DESCRIBING: [&str; 3] = ["Content-Type", "Content-Disposition", "Content-Transfer-Encoding"];

/// Why a message is not sent, and which of its parts is the reason: by its number, as IMAP counts
/// (RFC 9051 §6.4.5.1), and its file's name. Names are fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It has a file of this name.
    Blocked {
        /// The file's name.
        name: String,
        /// The part's number; empty for the message itself.
        part: String,
    },
    /// It cannot be said what files it has.
    Malformed {
        /// What is wrong with the part.
        why: &'static str,
        /// The part's number; empty for the message itself.
        part: String,
        /// The part's file name, if it has one.
        name: Option<String>,
    },
}

impl Objection {
    /// The same, of a message that was decoded out of a part of this number.
    fn below(mut self, container: &str) -> Self {
        let (Self::Blocked { part, .. } | Self::Malformed { part, .. }) = &mut self;
        *part = joined(container, part);
        self
    }

    /// The part in words.
    pub fn place(&self) -> String {
        let (part, name) = match self {
            Self::Blocked { name, part } => (part, Some(name)),
            Self::Malformed { part, name, .. } => (part, name.as_ref()),
        };
        let mut place = match part.as_str() {
            "" => "the message itself".to_owned(),
            number => format!("part {number}"),
        };
        if let Some(name) = name {
            place.push_str(&format!(" \"{name}\""));
        }
        if let Self::Malformed { why, .. } = self {
            place.push_str(&format!(", {why}"));
        }
        place
    }
}

/// Messages in messages are opened too. What is encoded as a whole is decoded here, not by the
/// parser, and then read as a message of its own.
static PARSER: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().max_parts(MAX_PARTS).max_encoded_nesting(0));

/// What speaks against sending a message, if files of some kinds are blocked at all. A file's name
/// is what `Content-Disposition` or `Content-Type` says, decoded (RFC 2231, RFC 2047), or what a
/// lenient reader may find there, or what a uuencoded text says.
pub fn objection(content: &[u8], blocked: &Extensions) -> Option<Objection> {
    if blocked.is_empty() {
        return None;
    }
    let octets = Cell::new(content.len().saturating_mul(MAX_READ_AGAIN));
    let parts = Cell::new(MAX_PARTS);
    let reading =
        Reading { blocked, depth: 0, is_undecoded: false, octets: &octets, parts: &parts };
    reading.objection(content)
}

/// How a message is read that may be a decoded part of another.
#[derive(Clone, Copy)]
struct Reading<'a> {
    blocked: &'a Extensions,
    /// How often something was decoded on the way to it.
    depth: usize,
    /// Whether it is read as it is written, although it says that it is in quoted-printable.
    is_undecoded: bool,
    /// Octets that may still be read again.
    octets: &'a Cell<usize>,
    /// Parts that may still be looked at, of the message and of what is decoded together.
    parts: &'a Cell<usize>,
}

impl Reading<'_> {
    /// A file that is blocked is the objection, wherever it is; only where there is none, what
    /// cannot be told. A part's number is looked for once, at the end, since all parts of the
    /// message may stand before it.
    fn objection(self, content: &[u8]) -> Option<Objection> {
        let Some(message) = PARSER.parse(content) else {
            // Without a field and without a body, it is a text for some readers.
            let name = in_text(content).find(|name| self.blocked.mean(name))?;
            return Some(Objection::Blocked { name: shown(&name), part: String::new() });
        };
        let Some(rest) = self.parts.get().checked_sub(message.parts().len()) else {
            return Some(Objection::Malformed { why: TOO_MANY, part: String::new(), name: None });
        };
        self.parts.set(rest);
        let mut first: Option<(MessagePart<'_>, Fault)> = None;
        let mut disputed: Option<(MessagePart<'_>, Fault)> = None;
        for part in message.parts() {
            match self.fault(part) {
                None => {}
                Some(fault) if fault.is_blocked() => return Some(fault.of(&message, part)),
                Some(fault) => first = first.or(Some((part, fault))),
            }
            if first.is_none() && disputed.is_none() {
                disputed = boundaries::dispute(part).map(|why| (part, Fault::Malformed(why)));
            }
        }
        let disputed = disputed.filter(|_| first.is_none() && may_hide_file(content, self));
        let (part, fault) = first.or(disputed)?;
        Some(fault.of(&message, part))
    }

    /// What speaks against a part, with what is decoded out of it.
    fn fault(self, part: MessagePart<'_>) -> Option<Fault> {
        if let Some(name) = blocked_name(part, self.blocked) {
            return Some(Fault::Blocked(name));
        }
        if let Some(why) = malformed_how(part) {
            return Some(Fault::Malformed(why));
        }
        let encodings = composite_encodings(part);
        if encodings.is_empty() {
            return None;
        }
        let length = part.raw_body().len().saturating_mul(encodings.len());
        let Some(inner) = self.deeper().filter(|_| self.reads_again(length)) else {
            return Some(Fault::Malformed("it is encoded too many times over"));
        };
        let is_said = encodings.len() > 1;
        let faults = encodings.into_iter().filter_map(|encoding| match decoded(part, encoding) {
            Ok(content) => {
                let is_undecoded = is_said && encoding == Encoding::None;
                let found = Reading { is_undecoded, ..inner }.objection(&content);
                found.map(Fault::Below)
            }
            // There every reader finds soft line breaks in it, who does not decode.
            Err(why) if self.is_undecoded => {
                may_hide_file(part.raw(), self).then_some(Fault::Malformed(why))
            }
            Err(why) => Some(Fault::Malformed(why)),
        });
        // The first that is blocked, or the first.
        faults
            .reduce(|one, other| if other.is_blocked() && !one.is_blocked() { other } else { one })
    }

    /// How something is read that was decoded out of what is read so, if that may be.
    fn deeper(self) -> Option<Self> {
        let deeper = Self { depth: self.depth + 1, ..self };
        (self.depth < MAX_DECODED).then_some(deeper)
    }

    /// Whether so many octets may be read again.
    fn reads_again(self, octets: usize) -> bool {
        let rest = self.octets.get().checked_sub(octets);
        self.octets.set(rest.unwrap_or(0));
        rest.is_some()
    }
}

/// What speaks against a part.
#[derive(Debug)]
enum Fault {
    /// It is a file of this name.
    Blocked(String),
    /// It cannot be said what it is.
    Malformed(&'static str),
    /// Something in what was decoded out of it.
    Below(Objection),
}

impl Fault {
    fn is_blocked(&self) -> bool {
        matches!(self, Self::Blocked(_) | Self::Below(Objection::Blocked { .. }))
    }

    /// The objection to this part of a message.
    fn of(self, message: &Message<'_>, part: MessagePart<'_>) -> Objection {
        let number = number(message, part);
        match self {
            Self::Blocked(name) => Objection::Blocked { name: shown(&name), part: number },
            Self::Malformed(why) => {
                let name = part.attachment_name().map(shown);
                Objection::Malformed { why, part: number, name }
            }
            Self::Below(objection) => objection.below(&number),
        }
    }
}

/// What RFC 2045 §6.4 does not let a multipart or message be, and mail programs write all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Base64,
    QuotedPrintable,
    /// Some readers pass over the field that says it is encoded.
    None,
}

/// How a multipart or message is encoded as a whole, in every way that a reader may find; empty
/// where the parser has read it as it is to be read. Some readers take every message type for a
/// message, the parser only two.
fn composite_encodings(part: MessagePart<'_>) -> Vec<Encoding> {
    let kind = fields(part, "Content-Type").next().unwrap_or_default().to_ascii_lowercase();
    let is = |word: &str| kind.split(';').next().is_some_and(|kind| kind.contains(word));
    let is_in_digest = kind.is_empty()
        && part.parent().is_some_and(|it| it.is_content_type("multipart", "digest"));
    if !is("multipart/") && !is("message/") && !is_in_digest {
        return Vec::new();
    }
    let said = fields(part, "Content-Transfer-Encoding").next().unwrap_or_default();
    let said = said.to_ascii_lowercase();
    let known = [("base64", Encoding::Base64), ("quoted-printable", Encoding::QuotedPrintable)];
    let found = known.into_iter().filter(|(word, _)| said.contains(word));
    let mut encodings: Vec<Encoding> = found.map(|(_, encoding)| encoding).collect();
    // What is clean base64 has no field in it that could be read as it is.
    let is_unread = encodings.is_empty() && is("message/") && !part.is_message();
    if encodings.contains(&Encoding::QuotedPrintable) || is_unread {
        encodings.push(Encoding::None);
    }
    encodings
}

/// A part as the message that is in it.
fn decoded(part: MessagePart<'_>, encoding: Encoding) -> Result<Vec<u8>, &'static str> {
    const UNCLEAN: &str = "it is not clean base64";
    let kind = fields(part, "Content-Type").next().unwrap_or_default();
    let mut content = Vec::new();
    // The parts of a multipart are found by what its own field says.
    if kind.to_ascii_lowercase().contains("multipart/") {
        content.extend_from_slice(format!("Content-Type: {kind}\r\n\r\n").as_bytes());
    }
    let body = part.raw_body();
    match encoding {
        // Readers go on in different ways behind an end that is none, and over what is no base64.
        Encoding::Base64 if !is_clean_base64(body) => return Err(UNCLEAN),
        Encoding::Base64 => {
            let appended = base64::MIME.decode_append(body, &mut content);
            appended.map_err(|_| UNCLEAN)?;
        }
        Encoding::QuotedPrintable => {
            let appended = qp::BODY.decode_append(body, &mut content);
            appended.map_err(|_| "it is no quoted-printable")?;
        }
        Encoding::None => content.extend_from_slice(body),
    }
    Ok(content)
}

fn is_clean_base64(body: &[u8]) -> bool {
    let is_filling = |octet: &&u8| octet.is_ascii_whitespace() || **octet == b'=';
    let length = body.len() - body.iter().rev().take_while(is_filling).count();
    let text = body.get(..length).unwrap_or_default();
    text.iter().all(|octet| {
        octet.is_ascii_alphanumeric() || octet.is_ascii_whitespace() || b"+/".contains(octet)
    })
}

/// A part's number in its message (RFC 9051 §6.4.5.1); empty for a multipart that is the message.
fn number(message: &Message<'_>, part: MessagePart<'_>) -> String {
    let root = message.root_part();
    let mut numbers = if root.is_multipart() { Vec::new() } else { vec![1] };
    let is_found = leads_to(root, part, &mut numbers);
    let numbers = if is_found { numbers } else { Vec::new() };
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

/// Whether a part is below another, and then by which numbers. The parser bounds the depth.
fn leads_to(from: MessagePart<'_>, part: MessagePart<'_>, numbers: &mut Vec<usize>) -> bool {
    if from.id() == part.id() {
        return true;
    }
    for (place, child) in from.children().enumerate() {
        numbers.push(place + 1);
        if leads_to(child, part, numbers) {
            return true;
        }
        numbers.pop();
    }
    let Some(root) = from.nested().map(|message| message.root_part()) else { return false };
    if root.is_multipart() {
        return leads_to(root, part, numbers);
    }
    numbers.push(1);
    let is_found = leads_to(root, part, numbers);
    if !is_found {
        numbers.pop();
    }
    is_found
}

fn joined(container: &str, number: &str) -> String {
    match (container, number) {
        ("", number) => number.to_owned(),
        (container, "") => container.to_owned(),
        (container, number) => format!("{container}.{number}"),
    }
}

/// A name that is fit to be shown.
fn shown(name: &str) -> String {
    excerpt_on_one_line(name, MAX_NAME)
}

fn blocked_name(part: MessagePart<'_>, blocked: &Extensions) -> Option<String> {
    let is_blocked = |name: &String| blocked.mean(name);
    let found = names(part).map(str::to_owned).find(is_blocked);
    let found = found.or_else(|| {
        let mut values = fields(part, "Content-Disposition").chain(fields(part, "Content-Type"));
        values.find_map(|value| lenient(&value).find(is_blocked))
    });
    if found.is_some() {
        return found;
    }
    // For some readers a text begins with the first line that is no field.
    let header = part.raw();
    let lines = FieldLines::new(header).map(|(_, range)| header.get(range).unwrap_or_default());
    let in_header = lines.flat_map(in_text).find(is_blocked);
    if in_header.is_some() || !is_read_as_text(part) {
        return in_header;
    }
    in_text(&part.decoded()).find(is_blocked)
}

/// Whether readers look for uuencoded files in it: in texts, and in what says that it is uuencoded.
fn is_read_as_text(part: MessagePart<'_>) -> bool {
    let is_uuencoded = || {
        fields(part, "Content-Transfer-Encoding")
            .any(|said| said.to_ascii_lowercase().contains("uu"))
    };
    part.is_text() || is_uuencoded()
}

/// Every name that a part has; readers do not agree on which one counts.
fn names<'m>(part: MessagePart<'m>) -> impl Iterator<Item = &'m str> {
    let fields = [part.content_disposition(), part.content_type()];
    let parameters =
        fields.into_iter().flatten().flat_map(|field: ContentType<'m>| field.attributes());
    parameters.filter(|(key, _)| matches!(*key, "filename" | "name")).map(|(_, name)| name)
}

/// The values of a part's fields of a name, each on one line.
fn fields<'m>(part: MessagePart<'m>, name: &'static str) -> impl Iterator<Item = String> {
    let headers = part.headers().iter();
    let fields = headers.filter(move |field| field.raw_name().trim().eq_ignore_ascii_case(name));
    fields.map(|field| unfolded(&[b":", field.raw_value()].concat()))
}

/// Why readers do not agree on what a part is.
fn malformed_how(part: MessagePart<'_>) -> Option<&'static str> {
    let header = part.raw();
    let is_hidden = |(name, range): (&[u8], Range<usize>)| {
        let field = header.get(range).unwrap_or_default();
        DESCRIBING.iter().any(|wanted| hides(name, field, wanted))
    };
    if FieldLines::new(header).any(is_hidden) {
        return Some("it has a field that only some readers find");
    }
    let types: Vec<String> = fields(part, "Content-Type").collect();
    let encodings: Vec<String> = fields(part, "Content-Transfer-Encoding").collect();
    if types.len() > 1 || encodings.len() > 1 || fields(part, "Content-Disposition").count() > 1 {
        return Some("it has a field twice");
    }
    let kind = types.first().map(|value| value.to_ascii_lowercase()).unwrap_or_default();
    let is = |word: &str| kind.split(';').next().is_some_and(|kind| kind.contains(word));
    if is_composite_for_some(&kind, encodings.first().map_or("", String::as_str)) {
        return Some("its type or encoding cannot be told");
    }
    if is("message/partial") {
        return Some("a file may be in several messages");
    }
    let mut named = fields(part, "Content-Disposition").chain(types.iter().cloned());
    if named.any(|value| has_unreadable(&value)) {
        return Some("its file name cannot be told");
    }
    if !has_one_boundary(part, &kind) {
        return Some("its boundary cannot be told");
    }
    // Nobody has looked into what is below.
    if part.flags().contains(PartFlags::LIMIT_REACHED) {
        return Some(TOO_MANY);
    }
    None
}

/// RFC 2046 §5.1.1: a boundary does not end with a space. That of a multipart is there, and the same
/// for whoever reads its field in another way.
fn has_one_boundary(part: MessagePart<'_>, kind: &str) -> bool {
    let is_multipart = kind.split(';').next().is_some_and(|kind| kind.contains("multipart/"));
    let mut boundaries = parameters(kind).filter(|(key, _)| key.contains("boundary"));
    let Some((_, value)) = boundaries.next() else { return !is_multipart };
    let value = value.trim_matches('"');
    let parsed = part.content_type().and_then(|kind| kind.attribute("boundary"));
    let is_same = parsed.is_some_and(|parsed| parsed.eq_ignore_ascii_case(value));
    let is_printable = value.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    let is_clear = !is_multipart || !value.is_empty() && is_printable && is_same;
    is_clear && !value.ends_with(char::is_whitespace) && boundaries.next().is_none()
}

/// Whether only readers that know of comments and white space within a type or an encoding
/// (RFC 2045 §5.1) see that a part has parts, or that it is encoded as a whole.
fn is_composite_for_some(kind: &str, encoding: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_composite = |kind: &str| kind.contains("multipart/") || kind.contains("message/");
    let bare_kind = bare(kind);
    let encoding = encoding.to_ascii_lowercase();
    let bare_encoding = bare(&encoding);
    let is_told = ["base64", "quoted-printable"]
        .iter()
        .all(|known| encoding.contains(known) || !bare_encoding.contains(known));
    (is_composite(kind) || is_composite(&bare_kind)) && (bare_kind != kind || !is_told)
}

/// A text without comments (RFC 5322 §3.2.2) and white space.
fn bare(text: &str) -> String {
    let mut depth = 0_usize;
    let mut is_escaped = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' if depth > 0 => is_escaped = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && !c.is_whitespace() => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests;
