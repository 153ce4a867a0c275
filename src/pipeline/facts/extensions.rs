//! Extensions of file names that users may not send.

use std::collections::BTreeSet;

use crate::organization::Extension;

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
        Self(extensions.into_iter().map(Extension::into_text).collect())
    }
}

impl Extensions {
    pub(in crate::pipeline) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|extension| &**extension)
    }

    /// Whether a file of this name is meant. What stands before a control character or a colon
    /// counts as a name too, since some systems end a name there; what cannot be seen, and dots,
    /// spaces, slashes and brackets at a name's end do not count, since some systems drop them, nor
    /// do quotes and backslashes, wherever they are.
    pub(in crate::pipeline) fn mean(&self, name: &str) -> bool {
        let visible: String = name.chars().filter(|c| !is_invisible(*c)).collect();
        let has_quotes = visible.contains(['"', '\\']);
        self.mean_visible(&visible) || has_quotes && self.mean_visible(&without_quotes(&visible))
    }

    fn mean_visible(&self, visible: &str) -> bool {
        visible.split(char::is_control).any(|name| {
            // Prose has a space behind a colon, which no system takes for the name's end; only the
            // first colon may be one all the same.
            let mut pieces = name.split(':').enumerate().peekable();
            while let Some((place, piece)) = pieces.next() {
                let is_prose = pieces.peek().is_some_and(|(_, next)| next.starts_with(' '));
                if (place == 0 || !is_prose) && self.mean_whole(piece) {
                    return true;
                }
            }
            false
        })
    }

    fn mean_whole(&self, name: &str) -> bool {
        let is_dropped = |c: char| c.is_whitespace() || "./\\\"',;?*|<>()[]{}\u{fffd}".contains(c);
        let name = name.trim_end_matches(is_dropped);
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
        extension.is_some_and(|extension| self.0.contains(extension.as_str()))
    }
}

/// A text without quotes and backslashes.
pub(in crate::pipeline) fn without_quotes(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '"' | '\\')).collect()
}

/// What shows nothing of itself in a name (Unicode's category Cf, and variation selectors).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::organization::NotAnExtension;

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
}
