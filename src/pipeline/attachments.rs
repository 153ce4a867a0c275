//! Attachments that users may not send, by the extensions of their file names; and messages whose
//! parts readers do not agree on, so that nobody can say what is attached. Pure.

mod names;

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use std::sync::LazyLock;

use mail_parser::{ContentType, MessageParser, MessagePart, PartFlags};

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

/// Why a message is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It has a file of this name, which is fit to be shown.
    Blocked(String),
    /// It cannot be said what files it has.
    Malformed(&'static str),
}

/// Messages in messages are opened too. One that is base64 or quoted-printable is not: RFC 2046
/// §5.2.1 does not allow it, and decoding may take as much memory as the message.
static PARSER: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().max_parts(MAX_PARTS).max_encoded_nesting(0));

/// What speaks against sending a message, if files of some kinds are blocked at all. A file's name
/// is what `Content-Disposition` or `Content-Type` says, decoded (RFC 2231, RFC 2047), or what a
/// lenient reader may find there, or what a uuencoded text says.
pub fn objection(content: &[u8], blocked: &Extensions) -> Option<Objection> {
    if blocked.0.is_empty() {
        return None;
    }
    let message = PARSER.parse(content)?;
    message.parts().find_map(|part| {
        let name = blocked_name(part, blocked);
        name.map(Objection::Blocked).or_else(|| malformed(part).map(Objection::Malformed))
    })
}

fn blocked_name(part: MessagePart<'_>, blocked: &Extensions) -> Option<String> {
    let is_blocked = |name: &String| blocked.mean(name);
    let found = names(part).map(str::to_owned).find(is_blocked);
    let found = found.or_else(|| {
        let mut values = fields(part, "Content-Disposition").chain(fields(part, "Content-Type"));
        values.find_map(|value| lenient(&value).find(is_blocked))
    });
    let name = found.or_else(|| {
        part.is_text().then(|| part.decoded()).and_then(|text| uuencoded(&text).find(is_blocked))
    })?;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    Some(name.chars().take(MAX_NAME).map(printable).collect())
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
fn malformed(part: MessagePart<'_>) -> Option<&'static str> {
    let header = part.raw();
    let is_hidden = |(name, range): (&[u8], Range<usize>)| {
        let field = header.get(range).unwrap_or_default();
        DESCRIBING.iter().any(|wanted| hides(name, field, wanted))
    };
    if FieldLines::new(header).any(is_hidden) {
        return Some("a part has a field that only some readers find");
    }
    let types: Vec<String> = fields(part, "Content-Type").collect();
    let encodings: Vec<String> = fields(part, "Content-Transfer-Encoding").collect();
    if types.len() > 1 || encodings.len() > 1 || fields(part, "Content-Disposition").count() > 1 {
        return Some("a part has a field twice");
    }
    let kind = types.first().map(|value| value.to_ascii_lowercase()).unwrap_or_default();
    let is = |word: &str| kind.split(';').next().is_some_and(|kind| kind.contains(word));
    let encoding = encodings.first().map(|value| value.to_ascii_lowercase()).unwrap_or_default();
    if is("message/partial") {
        return Some("a file may be in several messages");
    }
    // RFC 2045 §6.4
    let is_composite = is("multipart/") || is("message/");
    if is_composite && ["base64", "quoted-printable"].iter().any(|word| encoding.contains(word)) {
        return Some("a multipart or message is encoded as a whole");
    }
    if !has_one_boundary(&kind) {
        return Some("the boundary of a multipart cannot be told");
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
        assert_eq!(found, expected.map(|name| Objection::Blocked(name.into())), "{content}");
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
            let Some(Objection::Blocked(found)) = found else { panic!("{field}: {found:?}") };
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
            encoded("message/rfc822", "base64"),
            encoded("message/global", "Quoted-Printable"),
            encoded("multipart/mixed; boundary=i", "base64"),
            encoded("message/partial; id=1; number=1; total=2", "7bit"),
            nested_messages(1000),
        ] {
            let found = objection(content.as_bytes(), &Extensions::default());
            assert!(matches!(found, Some(Objection::Malformed(_))), "{found:?} {content:.500}");
            let none = Extensions::from_iter([]);
            assert_eq!(objection(content.as_bytes(), &none), None, "{content:.500}");
        }
        check(&encoded("message/rfc822", "8bit"), None);
        check(&encoded("text/plain", "base64"), None);
        check(&encoded("text/plain; name=\"a message/multipart/x\"", "base64"), None);
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
        assert!(!matches!(found, Some(Objection::Blocked(_))), "{content:.100}");
    }

    #[test]
    fn the_list_is_the_organizations() {
        let message = with_part("Content-Disposition: attachment; filename=a.Zip");
        let blocked = |list: &[&str]| objection(message.as_bytes(), &extensions(list));
        assert_eq!(blocked(&[]), None);
        assert_eq!(blocked(&["exe"]), None);
        assert_eq!(blocked(&["exe", "zip"]), Some(Objection::Blocked("a.Zip".into())));
    }

    #[test]
    fn thousands_of_parts_are_no_place_to_hide() {
        let part = "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n";
        let last = "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n--b--\r\n";
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        check(&format!("{head}{}{last}", part.repeat(20_000)), Some("a.exe"));
    }
}
