//! Attachments that users may not send, by the extensions of their file names; and messages whose
//! parts readers do not agree on, so that nobody can say what is attached. Pure.

mod names;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use std::sync::LazyLock;

use encodify::{base64, qp};
use mail_parser::{ContentType, Message, MessageParser, MessagePart, PartFlags};

use self::names::{is_invisible, lenient, parameters, uuencoded};
use crate::mail::{FieldLines, hides, unfolded};

/// What is never sent where an organization does not say otherwise: the list of the guide of 2016,
/// "Unsupported Attachment Types".
#[rustfmt::skip]
const UNSUPPORTED: [&str; 90] = [
    "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh",
    "der", "exe", "fxp", "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "ksh",
    "lib", "lnk", "mad", "maf", "mag", "mam", "maq", "mar", "mas", "mat", "mau", "mav", "maw",
    "mda", "mdb", "mde", "mdt", "mdw", "mdz", "msc", "msh", "msh1", "msh1xml", "msh2", "msh2xml",
    "mshxml", "msi", "msp", "mst", "ops", "pcd", "pif", "plg", "prf", "prg", "ps1", "ps1xml",
    "ps2", "ps2xml", "psc1", "psc2", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "tmp", "url",
    "vb", "vbe", "vbs", "vps", "vsmacros", "vss", "vst", "vsw", "vxd", "ws", "wsc", "wsf", "wsh",
    "xnk",
];

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
/// The fields that say what a part is (RFC 2045 §3); each stands once.
const DESCRIBING: [&str; 3] = ["Content-Type", "Content-Disposition", "Content-Transfer-Encoding"];

/// An extension of file names: lower-case, without its dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extension(Box<str>);

/// Why a text is not an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an extension has letters, digits, - and _ only, as in exe")]
pub struct NotAnExtension;

/// In any case, with or without a dot before it.
impl FromStr for Extension {
    type Err = NotAnExtension;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('.').unwrap_or(text);
        let is_allowed = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let is_extension = !bare.is_empty() && bare.chars().all(is_allowed);
        if is_extension { Ok(Self(bare.to_lowercase().into())) } else { Err(NotAnExtension) }
    }
}

/// Extensions of files that are not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extensions(BTreeSet<Box<str>>);

/// The guide's list.
impl Default for Extensions {
    fn default() -> Self {
        Self(UNSUPPORTED.into_iter().map(Into::into).collect())
    }
}

impl FromIterator<Extension> for Extensions {
    fn from_iter<I: IntoIterator<Item = Extension>>(extensions: I) -> Self {
        Self(extensions.into_iter().map(|Extension(text)| text).collect())
    }
}

impl Extensions {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|extension| &**extension)
    }

    /// Whether a file of this name is meant. What stands before a control character or a colon
    /// counts as a name too, since some systems end a name there; what cannot be seen, and dots,
    /// spaces and slashes at a name's end do not count, since some systems drop them.
    fn mean(&self, name: &str) -> bool {
        let visible: String = name.chars().filter(|c| !is_invisible(*c)).collect();
        visible.split(|c: char| c.is_control() || c == ':').any(|name| {
            let is_dropped = |c: char| c.is_whitespace() || "./\\\"'".contains(c);
            let name = name.trim_end_matches(is_dropped);
            let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
            extension.is_some_and(|extension| self.0.contains(extension.as_str()))
        })
    }
}

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
    if blocked.0.is_empty() {
        return None;
    }
    let budget = Cell::new(content.len().saturating_mul(MAX_READ_AGAIN));
    Reading { blocked, container: "", depth: 0, budget: &budget }.objection(content)
}

/// How a message is read that may be a decoded part of another.
#[derive(Clone, Copy)]
struct Reading<'a> {
    blocked: &'a Extensions,
    /// The number of the part that it was.
    container: &'a str,
    /// How often something was decoded on the way to it.
    depth: usize,
    /// Octets that may still be read again.
    budget: &'a Cell<usize>,
}

impl Reading<'_> {
    fn objection(self, content: &[u8]) -> Option<Objection> {
        let message = PARSER.parse(content)?;
        message.parts().find_map(|part| self.objection_to(&message, part))
    }

    fn objection_to(self, message: &Message<'_>, part: MessagePart<'_>) -> Option<Objection> {
        let number = || joined(self.container, &number(message, part));
        if let Some(name) = blocked_name(part, self.blocked) {
            return Some(Objection::Blocked { name: shown(&name), part: number() });
        }
        let malformed = |why| Objection::Malformed {
            why,
            part: number(),
            name: part.attachment_name().map(shown),
        };
        if let Some(why) = malformed_how(part) {
            return Some(malformed(why));
        }
        let encodings = composite_encodings(part);
        if encodings.is_empty() {
            return None;
        }
        let length = part.raw_body().len().saturating_mul(encodings.len());
        let Some(rest) = self.budget.get().checked_sub(length).filter(|_| self.depth < MAX_DECODED)
        else {
            return Some(malformed("it is encoded too many times over"));
        };
        self.budget.set(rest);
        let container = number();
        let inner = Reading { container: &container, depth: self.depth + 1, ..self };
        encodings.into_iter().find_map(|encoding| match decoded(part, encoding) {
            Ok(content) => inner.objection(&content),
            Err(why) => Some(malformed(why)),
        })
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
/// where the parser has read it as it is to be read.
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
    if encodings.contains(&Encoding::QuotedPrintable) {
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
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().take(MAX_NAME).map(printable).collect()
}

fn blocked_name(part: MessagePart<'_>, blocked: &Extensions) -> Option<String> {
    let is_blocked = |name: &String| blocked.mean(name);
    let found = names(part).map(str::to_owned).find(is_blocked);
    let found = found.or_else(|| {
        let mut values = fields(part, "Content-Disposition").chain(fields(part, "Content-Type"));
        values.find_map(|value| lenient(&value).find(is_blocked))
    });
    found.or_else(|| {
        part.is_text().then(|| part.decoded()).and_then(|text| uuencoded(&text).find(is_blocked))
    })
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
    if is("message/partial") {
        return Some("a file may be in several messages");
    }
    if !has_one_boundary(&kind) {
        return Some("its boundary cannot be told");
    }
    // Nobody has looked into what is below.
    part.flags().contains(PartFlags::LIMIT_REACHED).then_some("it has too many parts in parts")
}

/// RFC 2046 §5.1.1: a boundary does not end with a space.
fn has_one_boundary(kind: &str) -> bool {
    let mut boundaries = parameters(kind).filter(|(key, _)| key.contains("boundary"));
    let is_clear =
        |(_, value): (String, &str)| !value.trim_matches('"').ends_with(char::is_whitespace);
    boundaries.next().is_none_or(is_clear) && boundaries.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(texts: &[&str]) -> Extensions {
        texts.iter().map(|text| text.parse::<Extension>().expect(text)).collect()
    }

    #[test]
    fn the_guides_list_is_whole_and_each_on_it_is_an_extension() {
        assert_eq!(Extensions::default(), extensions(&UNSUPPORTED));
        assert_eq!(Extensions::default().0.len(), 90, "none is there twice");
    }

    #[test]
    fn an_extension_is_read_in_any_case() {
        assert_eq!(extensions(&[".EXE", "Ps1"]), extensions(&["exe", "ps1"]));
        for bad in ["", ".", "tar.gz", "..exe", "e xe", "*", "ex/e", "e\nx"] {
            assert_eq!(bad.parse::<Extension>(), Err(NotAnExtension), "{bad:?}");
        }
    }

    fn check(content: &str, expected: Option<&str>) {
        let found = objection(content.as_bytes(), &Extensions::default());
        let found = found.map(|objection| match objection {
            Objection::Blocked { name, .. } => name,
            Objection::Malformed { .. } => panic!("{objection:?}: {content}"),
        });
        assert_eq!(found.as_deref(), expected, "{content}");
    }

    fn with_part(fields: &str) -> String {
        format!(
            "From: a@b.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n\
             --b\r\n{fields}\r\n\r\nAAAA\r\n--b--\r\n"
        )
    }

    #[test]
    fn a_name_is_found_wherever_it_stands() {
        for (fields, expected) in [
            ("Content-Disposition: attachment; filename=\"a.txt\"", None),
            ("Content-Disposition: attachment; filename=exe", None),
            ("Content-Disposition: attachment; filename=exe.txt", None),
            ("Content-Disposition: attachment; filename=a.exe", Some("a.exe")),
            ("Content-Disposition: inline; filename=\"My Tool.EXE\"", Some("My Tool.EXE")),
            ("Content-Type: application/x; name=\"b.Js\"", Some("b.Js")),
            (
                "Content-Type: text/plain; name=c.vbs\r\n\
                 Content-Disposition: attachment; filename=c.txt",
                Some("c.vbs"),
            ),
            (
                "Content-Type: text/plain; name=c.txt\r\n\
                 Content-Disposition: attachment;\r\n\tfilename=\"c.vbs\"",
                Some("c.vbs"),
            ),
            ("Content-Disposition: attachment; filename*=utf-8''%C3%BCber%2Eexe", Some("über.exe")),
            (
                "Content-Disposition: attachment; filename*0=\"long.e\"; filename*1=\"xe\"",
                Some("long.exe"),
            ),
            (
                "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe",
                Some("a.exe"),
            ),
            ("Content-Disposition: attachment; filename=\"=?utf-8?b?YS5leGU=?=\"", Some("a.exe")),
            ("Content-Disposition: attachment; filename=\"a.exe.\"", Some("a.exe.")),
            ("Content-Disposition: attachment; filename=\"a.exe . \"", Some("a.exe . ")),
            ("Content-Disposition: attachment; filename*=utf-8''a.exe%00.txt", Some("a.exe .txt")),
        ] {
            check(&with_part(fields), expected);
        }
    }

    #[test]
    fn messages_in_messages_and_messages_that_are_a_file_are_looked_into() {
        let inner = with_part("Content-Disposition: attachment; filename=a.exe");
        let nested = |encoding: &str, inner: &str| {
            format!(
                "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\
                 Content-Type: message/rfc822\r\n{encoding}\r\n{inner}\r\n--o--\r\n"
            )
        };
        check(&nested("", &inner), Some("a.exe"));
        check(&nested("", &nested("Content-Transfer-Encoding: 8bit\r\n", &inner)), Some("a.exe"));
        check("Content-Type: application/x; name=a.exe\r\n\r\nAAAA", Some("a.exe"));
        check("Subject: a.exe\r\n\r\nbegin with a.exe", None);
        check("", None);
    }

    #[test]
    fn a_name_that_only_a_lenient_reader_finds_counts() {
        for (field, name) in [
            ("; filename=a.exe", "a.exe"),
            ("filename=a.exe", "a.exe"),
            ("attachment filename=a.exe", "a.exe"),
            ("attachment; filename(c)=a.exe", "a.exe"),
            ("attachment; filename=a.exe more", "a.exe"),
            ("attachment; filename=\"=?utf-8?q?a=2E?= =?utf-8?q?exe?=\"", "a.exe"),
            ("attachment; filename*=utf-16''a%00.%00e%00x%00e%00", "a.exe"),
            ("attachment; filename=\"a.exe\u{a0}\"", "a.exe\u{a0}"),
            ("attachment; filename=\"a.e\u{200b}xe\u{200b}\"", "a.e\u{200b}xe\u{200b}"),
            ("attachment; filename=\"a.exe::$DATA\"", "a.exe::$DATA"),
            ("attachment; filename=\"a.exe/\"", "a.exe/"),
        ] {
            let content = with_part(&format!("Content-Disposition: {field}"));
            let found = objection(content.as_bytes(), &Extensions::default());
            let Some(Objection::Blocked { name: found, .. }) = found else {
                panic!("{field}: {found:?}")
            };
            assert!(found.ends_with(name), "{field}: {found}");
        }
        for field in [
            "Content-Type: text/x; boundary=a.com",
            "Content-Disposition: attachment; filename=a.exe.txt",
            "Content-Disposition: attachment; filename=\"a.exe b\"",
            "Content-Disposition: attachment; filename=\"100%.txt\"; size=1",
        ] {
            check(&with_part(field), None);
        }
    }

    #[test]
    fn a_uuencoded_file_has_a_name() {
        for text in ["begin 644 a.exe", "x\r\nbegin 0644 a.exe\r\n", "x\nbegin-base64 755 a.exe"] {
            check(&format!("Subject: x\r\n\r\n{text}"), Some("a.exe"));
        }
        let encoded =
            "Content-Transfer-Encoding: quoted-printable\r\n\r\nbegin=20644 a.e=\r\nxe\r\n";
        check(encoded, Some("a.exe"));
        for text in ["begin 644 a.txt", " begin 644 a.exe", "begin 999 a.exe", "begin to a.exe"] {
            check(&format!("Subject: x\r\n\r\n{text}"), None);
        }
    }

    #[test]
    fn a_message_that_readers_take_apart_in_two_ways_is_malformed() {
        let encoded = |kind: &str, encoding: &str| {
            with_part(&format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}"))
        };
        let twice = |field: &str| with_part(&format!("{field}\r\n{field}"));
        for content in [
            twice("Content-Disposition: attachment"),
            twice("Content-Type: text/plain"),
            twice("content-transfer-encoding : 7bit"),
            format!("Content-Type: text/plain\r\n{}", with_part("Content-Type: text/plain")),
            with_part("x\r\n Content-Disposition: attachment; filename=a.txt"),
            with_part("\tContent-Type: text/plain; name=a.txt"),
            with_part("x").replace("boundary=b", "boundary=c; boundary=b"),
            with_part("x").replace("boundary=b", "boundary=\"b \""),
            encoded("message/rfc822", "base64").replace("AAAA", "AA=A"),
            encoded("message/rfc822", "base64").replace("AAAA", "A:AA"),
            encoded("multipart/mixed; boundary=i", "base64").replace("AAAA", "--i"),
            encoded("message/partial; id=1; number=1; total=2", "7bit"),
            nested_messages(1000),
        ] {
            let found = objection(content.as_bytes(), &Extensions::default());
            assert!(matches!(found, Some(Objection::Malformed { .. })), "{found:?} {content:.500}");
            let none = Extensions::from_iter([]);
            assert_eq!(objection(content.as_bytes(), &none), None, "{content:.500}");
        }
        check(&encoded("message/rfc822", "8bit"), None);
        check(&encoded("text/plain", "base64"), None);
        check(&encoded("text/plain; name=\"a message/multipart/x\"", "base64"), None);
    }

    /// Ticket systems and libraries send `.eml` files so (RFC 2046 §5.2.1 forbids it).
    #[test]
    fn what_is_encoded_as_a_whole_is_decoded_and_looked_into() {
        let part = |kind: &str, encoding: &str, body: &str| {
            let fields = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}");
            with_part(&fields).replace("AAAA", body)
        };
        let base64 = |text: &str| base64::MIME.encode(text);
        let quoted = |text: &str| qp::BODY.encode(text).replace('.', "=2E");
        let with_file = |name: &str| {
            let inner = with_part(&format!("Content-Disposition: attachment; filename={name}"));
            inner.replace("boundary=b", "boundary=q").replace("--b", "--q")
        };
        let harmless = with_file("a.txt");
        let blocked = with_file("a.exe");
        let kinds = ["message/rfc822; name=mail.eml", "message/global", "Message/RFC822"];
        for kind in kinds {
            check(&part(kind, "base64", &base64(&harmless)), None);
            check(&part(kind, "Quoted-Printable", &quoted(&harmless)), None);
            check(&part(kind, "BASE64", &base64(&blocked)), Some("a.exe"));
            check(&part(kind, "quoted-printable", &quoted(&blocked)), Some("a.exe"));
            // A reader that passes over the encoding finds it as it is.
            check(&part(kind, "quoted-printable", &blocked), Some("a.exe"));
            check(&part(kind, "(x) quoted-printable", &quoted(&blocked)), Some("a.exe"));
            let twice = part(kind, "base64", &base64(&part(kind, "base64", &base64(&blocked))));
            check(&twice, Some("a.exe"));
        }
        let parts = |name: &str| {
            format!("--i\r\nContent-Disposition: attachment; filename={name}\r\n\r\nx\r\n--i--\r\n")
        };
        let multipart = "multipart/mixed; boundary=i";
        check(&part(multipart, "quoted-printable", &parts("a.txt")), None);
        check(&part(multipart, "quoted-printable", &parts("a.exe")), Some("a.exe"));
        check(&part(multipart, "quoted-printable", &quoted(&parts("a.exe"))), Some("a.exe"));
        check(&part(multipart, "base64", &base64(&parts("a.txt"))), None);
        check(&part(multipart, "base64", &base64(&parts("a.exe"))), Some("a.exe"));
        let whole = format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            base64(&blocked)
        );
        check(&whole, Some("a.exe"));
    }

    #[test]
    fn a_message_that_is_encoded_over_and_over_is_refused() {
        let mut content = "Subject: x\r\n\r\nx".to_owned();
        for depth in 1..=12 {
            content = format!(
                "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
                base64::MIME.encode(&content)
            );
            let found = objection(content.as_bytes(), &Extensions::default());
            assert_eq!(found.is_some(), depth > MAX_DECODED, "{depth}: {found:?}");
        }
        // As long as every part of it is read twice, and each of those again.
        let part = |body: &str| {
            format!(
                "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\
                 Content-Transfer-Encoding: quoted-printable\r\n\r\n{body}\r\n"
            )
        };
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        check_length(&format!("{head}{}", part("x").repeat(20_000)));
        let nested = (0..60).fold("x".repeat(1 << 20), |inner, depth| {
            format!(
                "Content-Type: multipart/mixed; boundary=b{depth}\r\n\
                 Content-Transfer-Encoding: quoted-printable\r\n\r\n--b{depth}\r\n{inner}\r\n"
            )
        });
        check_length(&nested);
    }

    #[test]
    fn the_part_is_named() {
        let check = |content: &str, expected: &str| {
            let found = objection(content.as_bytes(), &Extensions::default());
            assert_eq!(found.expect(content).place(), expected, "{content}");
        };
        let blocked = with_part("Content-Disposition: attachment; filename=a.exe");
        check(&blocked, "part 2 \"a.exe\"");
        check("Content-Type: application/x; name=a.exe\r\n\r\nAAAA", "part 1 \"a.exe\"");
        let message = |encoding: &str, body: &str| {
            let fields = format!("Content-Type: message/rfc822{encoding}");
            with_part(&fields).replace("AAAA", body)
        };
        check(&message("", &blocked), "part 2.2 \"a.exe\"");
        check(&message("", &message("", &blocked)), "part 2.2.2 \"a.exe\"");
        let single = "Content-Type: application/x; name=a.exe\r\n\r\nAAAA";
        check(&message("", single), "part 2.1 \"a.exe\"");
        let encoded = "\r\nContent-Transfer-Encoding: base64";
        let inner = base64::MIME.encode(&blocked);
        check(&message(encoded, &inner), "part 2.2 \"a.exe\"");
        check(&message("", &message(encoded, &inner)), "part 2.2.2 \"a.exe\"");
        let twice = "Content-Type: text/plain; name=\"b.txt\"\r\nContent-Type: text/plain";
        check(&with_part(twice), "part 2, it has a field twice");
        let unclean = "; name=mail.eml\r\nContent-Transfer-Encoding: base64";
        check(&message(unclean, "a:b"), "part 2 \"mail.eml\", it is not clean base64");
        let boundaries = with_part("x").replace("boundary=b", "boundary=c; boundary=b");
        check(&boundaries, "part 1, its boundary cannot be told");
        let root = format!("Content-Type: text/plain\r\n{blocked}");
        check(&root, "the message itself, it has a field twice");
    }

    fn nested_messages(depth: usize) -> String {
        let inner = "Content-Disposition: attachment; filename=a.exe\r\n\r\nx";
        format!("{}{inner}", "Content-Type: message/rfc822\r\n\r\n".repeat(depth))
    }

    #[test]
    fn a_hostile_message_takes_no_longer_than_its_length() {
        for unit in ["; name=\"", ";name= a", "=?", "=?utf-8?q?=2E?= ", ";boundary=", "%", " a"] {
            let value = unit.repeat(1 << 18);
            let field = format!("Content-Disposition: attachment; filename={value}");
            check_length(&with_part(&field));
        }
        check_length(&format!("\r\n{}", "begin 644 ".repeat(1 << 18)));
        check_length(&format!("\r\n{}", "begin\n".repeat(1 << 18)));
        check_length(&with_part(&"Content-Type: x\r\n".repeat(1 << 16)));
    }

    /// A quadratic cost would be seen as a test that does not end.
    fn check_length(content: &str) {
        let found = objection(content.as_bytes(), &Extensions::default());
        assert!(!matches!(found, Some(Objection::Blocked { .. })), "{content:.100}");
    }

    #[test]
    fn the_list_is_the_organizations() {
        let message = with_part("Content-Disposition: attachment; filename=a.Zip");
        let blocked = |list: &[&str]| objection(message.as_bytes(), &extensions(list));
        assert_eq!(blocked(&[]), None);
        assert_eq!(blocked(&["exe"]), None);
        let found = Objection::Blocked { name: "a.Zip".into(), part: "2".into() };
        assert_eq!(blocked(&["exe", "zip"]), Some(found));
    }

    #[test]
    fn thousands_of_parts_are_no_place_to_hide() {
        let part = "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n";
        let last = "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n--b--\r\n";
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        check(&format!("{head}{}{last}", part.repeat(20_000)), Some("a.exe"));
    }
}
