//! Macros (RFC 7208 §7).

use std::net::IpAddr;

/// The longest name that DNS carries, in octets.
const MAX_NAME: usize = 253;
/// The longest text that an expansion may come to, so that a record cannot ask for more.
const MAX_EXPANSION: usize = 8192;

/// What a macro-string is for: an explanation may use more letters (RFC 7208 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// A domain-spec.
    Domain,
    /// An explanation's text.
    Explanation,
}

/// A text with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: Letter,
    /// Upper case: the value is URL-escaped.
    is_escaped: bool,
    /// How many right-hand parts are kept; all if it says nothing.
    keep: Option<usize>,
    is_reversed: bool,
    delimiters: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Ip,
    ValidatedName,
    IpVersion,
    Helo,
    ReadableIp,
    Receiver,
    Time,
}

/// What the letters stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub(super) local_part: &'a str,
    pub(super) sender_domain: &'a str,
    pub(super) domain: &'a str,
    pub(super) ip: IpAddr,
    pub(super) helo: &'a str,
    pub(super) receiver: &'a str,
    pub(super) now_secs: u64,
    /// `%{p}`, looked up only where [`MacroString::needs_validated_name`].
    pub(super) validated_name: &'a str,
}

impl MacroString {
    /// Reads a text; `None` if it is not a macro-string.
    pub(super) fn parse(text: &str, usage: Usage) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..)?;
            if c != '%' {
                let is_allowed = c.is_ascii_graphic() || (c == ' ' && usage == Usage::Explanation);
                is_allowed.then(|| literal.push(c))?;
                continue;
            }
            let kind = rest.chars().next()?;
            rest = rest.get(kind.len_utf8()..)?;
            match kind {
                '%' => literal.push('%'),
                '_' => literal.push(' '),
                '-' => literal.push_str("%20"),
                '{' => {
                    let (inner, after) = rest.split_once('}')?;
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Macro(Macro::parse(inner, usage)?));
                    rest = after;
                }
                _ => return None,
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Some(Self(parts))
    }

    /// The text after the last macro, if the string ends in a text.
    pub(super) fn last_literal(&self) -> Option<&str> {
        match self.0.last()? {
            Part::Literal(text) => Some(text),
            Part::Macro(_) => None,
        }
    }

    /// Whether it has a `%{p}`.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Macro(Macro { letter: Letter::ValidatedName, .. })))
    }

    /// The text with all macros expanded.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Macro(found) => text.push_str(&found.expand(values)),
            }
            if text.len() > MAX_EXPANSION {
                break;
            }
        }
        text
    }

    /// The expansion as a name: labels are dropped from the left until it is short enough
    /// (RFC 7208 §7.3), and a trailing dot goes.
    pub(super) fn expand_to_name(&self, values: &Values<'_>) -> String {
        let text = self.expand(values);
        let mut name = text.strip_suffix('.').unwrap_or(&text);
        while name.len() > MAX_NAME {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => return String::new(),
            }
        }
        name.to_ascii_lowercase()
    }
}

impl Macro {
    /// What stands between `%{` and `}`.
    fn parse(text: &str, usage: Usage) -> Option<Self> {
        let c = text.chars().next()?;
        let letter = match (c.to_ascii_lowercase(), usage) {
            ('s', _) => Letter::Sender,
            ('l', _) => Letter::LocalPart,
            ('o', _) => Letter::SenderDomain,
            ('d', _) => Letter::Domain,
            ('i', _) => Letter::Ip,
            ('p', _) => Letter::ValidatedName,
            ('v', _) => Letter::IpVersion,
            ('h', _) => Letter::Helo,
            ('c', Usage::Explanation) => Letter::ReadableIp,
            ('r', Usage::Explanation) => Letter::Receiver,
            ('t', Usage::Explanation) => Letter::Time,
            _ => return None,
        };
        let rest = text.get(1..)?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (digits, rest) = rest.split_at_checked(digits)?;
        let keep = match digits {
            "" => None,
            // RFC 7208 §7.1: zero is an error; a number too large to count keeps everything.
            digits => {
                Some(digits.parse().unwrap_or(usize::MAX)).filter(|keep| *keep > 0).map(Some)?
            }
        };
        let (is_reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(delimiters) => (true, delimiters),
            None => (false, rest),
        };
        let is_valid = delimiters.chars().all(|c| ".-+,/_=".contains(c));
        is_valid.then(|| Self {
            letter,
            is_escaped: c.is_ascii_uppercase(),
            keep,
            is_reversed,
            delimiters: delimiters.to_owned(),
        })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.letter.value(values);
        let is_plain = self.keep.is_none() && !self.is_reversed && self.delimiters.is_empty();
        let value = if is_plain { value } else { self.transform(&value) };
        if self.is_escaped { url_escaped(&value) } else { value }
    }

    /// RFC 7208 §7.3: split, reverse, keep the right-hand parts, join with dots.
    fn transform(&self, value: &str) -> String {
        let delimiters = if self.delimiters.is_empty() { "." } else { &self.delimiters };
        let mut parts: Vec<_> = value.split(|c| delimiters.contains(c)).collect();
        if self.is_reversed {
            parts.reverse();
        }
        let skip = parts.len().saturating_sub(self.keep.unwrap_or(usize::MAX));
        parts.split_off(skip).join(".")
    }
}

impl Letter {
    fn value(self, values: &Values<'_>) -> String {
        match self {
            Self::Sender => format!("{}@{}", values.local_part, values.sender_domain),
            Self::LocalPart => values.local_part.to_owned(),
            Self::SenderDomain => values.sender_domain.to_owned(),
            Self::Domain => values.domain.to_owned(),
            Self::Ip => dotted(values.ip),
            Self::ValidatedName => values.validated_name.to_owned(),
            Self::IpVersion => if values.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            Self::Helo => values.helo.to_owned(),
            Self::ReadableIp => values.ip.to_string(),
            Self::Receiver => values.receiver.to_owned(),
            Self::Time => values.now_secs.to_string(),
        }
    }
}

/// An IPv6 address as 32 dotted nibbles (RFC 7208 §7.3).
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xf]);
            nibbles.map(|nibble| format!("{nibble:X}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// RFC 3986 §2.3: everything but unreserved characters.
fn url_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
