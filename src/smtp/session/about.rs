//! What a refusal was about, as it goes into the records: never a credential.

/// The longest, in characters.
const MAX_ABOUT: usize = 200;
/// What stands for a line that may carry credentials.
const MASKED: &str = "AUTH ...";

/// The command line that was refused, or what stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About(String);

impl About {
    /// Printable, cut to its limit, without the credentials that AUTH may carry.
    pub(super) fn line(line: &[u8]) -> Self {
        if carries_credentials(line) {
            return Self::auth();
        }
        let text = String::from_utf8_lossy(line);
        let printable = |c: char| if c.is_control() { '?' } else { c };
        Self(text.chars().take(MAX_ABOUT).map(printable).collect())
    }

    /// AUTH, or a response in its exchange.
    pub(super) fn auth() -> Self {
        Self(MASKED.to_owned())
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for About {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Whether a line is, or is meant to be, an AUTH command.
pub(super) fn carries_credentials(line: &[u8]) -> bool {
    line.trim_ascii_start().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"))
}
