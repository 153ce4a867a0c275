//! Attachments that users may not send, by the extensions of their file names. Pure.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::LazyLock;

use mail_parser::{ContentType, MessageParser, MessagePart};

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

    /// Whether a file of this name is meant. What stands before a control character counts as a
    /// name too, since some systems end a name there; dots and spaces at a name's end do not
    /// count, since some systems drop them.
    fn mean(&self, name: &str) -> bool {
        name.split(char::is_control).any(|name| {
            let name = name.trim_end_matches(['.', ' ']);
            let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
            extension.is_some_and(|extension| self.0.contains(extension.as_str()))
        })
    }
}

/// Messages in messages are opened too. One that is base64 or quoted-printable is not: RFC 2046
/// §5.2.1 does not allow it, and decoding may take as much memory as the message.
static PARSER: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().max_parts(MAX_PARTS).max_encoded_nesting(0));

/// The name of the first file in a message that is not to be sent, fit to be shown. A file's name
/// is what `Content-Disposition` or `Content-Type` says, decoded (RFC 2231, RFC 2047).
pub fn blocked_attachment(content: &[u8], blocked: &Extensions) -> Option<String> {
    if blocked.0.is_empty() {
        return None;
    }
    let message = PARSER.parse(content)?;
    let name = message.parts().flat_map(names).find(|name| blocked.mean(name))?;
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
        let found = blocked_attachment(content.as_bytes(), &Extensions::default());
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
        check("Subject: a.exe\r\n\r\nbegin 644 a.exe", None);
        check("", None);
    }

    #[test]
    fn the_list_is_the_organizations() {
        let message = with_part("Content-Disposition: attachment; filename=a.Zip");
        let blocked = |list: &[&str]| blocked_attachment(message.as_bytes(), &extensions(list));
        assert_eq!(blocked(&[]), None);
        assert_eq!(blocked(&["exe"]), None);
        assert_eq!(blocked(&["exe", "zip"]).as_deref(), Some("a.Zip"));
    }

    #[test]
    fn thousands_of_parts_are_no_place_to_hide() {
        let part = "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n";
        let last = "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n--b--\r\n";
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        check(&format!("{head}{}{last}", part.repeat(20_000)), Some("a.exe"));
    }
}
