//! Addresses and domains, in the one form in which they are compared.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest local-part (RFC 5321 §4.5.3.1.1), in octets.
const MAX_LOCAL_PART: usize = 64;
/// The longest domain (RFC 5321 §4.5.3.1.2), in octets of its A-label form.
const MAX_DOMAIN: usize = 255;

/// Why a text is not an address or a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`.
    #[error("has no @")]
    NoAtSign,
    /// The local-part is empty, too long or has a character that needs quoting.
    #[error("the part before the @ is empty, longer than 64 octets, or not quoted as it must be")]
    LocalPart,
    /// The domain is empty, too long, or not valid under IDNA.
    #[error("\"{0}\" is not a valid domain name")]
    Domain(String),
}

/// A domain in lower-case A-label form without a trailing dot, or an address literal
/// (`[192.0.2.1]`, RFC 5321 §4.1.3). Two domains are the same exactly when they are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Box<str>);

impl Domain {
    /// Reads a domain in any spelling: upper case, U-labels, A-labels.
    ///
    /// # Errors
    /// [`AddressError::Domain`] for what no mail can be sent to.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::Domain(text.to_owned());
        if text.starts_with('[') {
            return parse_literal(text).ok_or_else(invalid);
        }
        // RFC 5321 §2.3.5: a domain is written without a trailing dot.
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::STD3)
            .map_err(|_| invalid())?;
        let well_formed = !ascii.is_empty()
            && ascii.len() <= MAX_DOMAIN
            && ascii.split('.').all(|label| {
                (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
            });
        if well_formed { Ok(Self(ascii.into())) } else { Err(invalid()) }
    }

    /// The lower-case A-label form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an address literal such as `[192.0.2.1]`.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }

    /// Whether this domain is `parent` or stands below it.
    pub fn is_within(&self, parent: &Domain) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

fn parse_literal(text: &str) -> Option<Domain> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let valid = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => {
            inner.get(5..)?.parse::<Ipv6Addr>().is_ok()
        }
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    valid.then(|| Domain(text.to_ascii_lowercase().into()))
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Domain {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.into()
    }
}

/// An address: a local-part, which keeps its case, and a [`Domain`].
///
/// Two addresses are equal when both parts are equal to the letter; who looks a recipient up or
/// matches a pattern compares [`Address::key`], because local domains are case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local_part: Box<str>,
    domain: Domain,
}

impl Address {
    /// Reads `local-part@domain`; the local-part may be a quoted string (RFC 5321 §4.1.2), and
    /// may be UTF-8 (RFC 6531 §3.3).
    ///
    /// # Errors
    /// [`AddressError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local_part, domain) = text.rsplit_once('@').ok_or(AddressError::NoAtSign)?;
        Self::from_parts(local_part, domain)
    }

    /// An address from its two parts.
    ///
    /// # Errors
    /// [`AddressError`] says which part is wrong.
    pub fn from_parts(local_part: &str, domain: &str) -> Result<Self, AddressError> {
        if !is_local_part(local_part) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self { local_part: unquoted_if_possible(local_part), domain: Domain::parse(domain)? })
    }

    /// The part before the `@`, in its own case, quoted if it must be.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The lower-case spelling under which local addresses and patterns are compared.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local_part.to_lowercase(), self.domain)
    }

    /// Whether the address needs SMTPUTF8 (RFC 6531) to travel.
    pub fn is_internationalized(&self) -> bool {
        !self.local_part.is_ascii()
    }
}

/// `a.b` or `"a b"`: a Dot-string or Quoted-string (RFC 5321 §4.1.2) of at most 64 octets.
fn is_local_part(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_LOCAL_PART {
        return false;
    }
    match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(is_quoted_content),
        None => text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char)),
    }
}

fn is_quoted_content(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let valid = match c {
            '\\' => chars.next().is_some_and(|c| (' '..='~').contains(&c)),
            '"' => false,
            c => c >= ' ' && c != '\x7f' && !('\u{80}'..'\u{a0}').contains(&c),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// RFC 5322 §3.2.3 atext, with RFC 6531's UTF-8.
fn is_atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || c >= '\u{a0}'
}

/// RFC 5321 §4.1.2: `"abc"` and `abc` are the same mailbox, so the shorter spelling is kept.
fn unquoted_if_possible(local_part: &str) -> Box<str> {
    let plain = local_part
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.contains('\\') && is_local_part(inner));
    plain.unwrap_or(local_part).into()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let printed = Address::parse(text).ok().map(|address| address.to_string());
        assert_eq!(printed.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn reads_what_rfc_5321_allows_and_nothing_else() {
        check("Alice@Example.TEST", Some("Alice@example.test"));
        check("a+b@bücher.test", Some("a+b@xn--bcher-kva.test"));
        check("用户@example.test", Some("用户@example.test"));
        check("\"a b\"@example.test", Some("\"a b\"@example.test"));
        check("\"abc\"@example.test", Some("abc@example.test"));
        check("\"a@b\"@example.test", Some("\"a@b\"@example.test"));
        check("a@[192.0.2.1]", Some("a@[192.0.2.1]"));
        check("a@[IPv6:2001:db8::1]", Some("a@[ipv6:2001:db8::1]"));
        for bad in [
            "",
            "alice",
            "@example.test",
            "a@",
            "a b@example.test",
            "a..b@example.test",
            ".a@example.test",
            "a@b!c$%.com",
            "a@example.test.",
            "a@-x.test",
            "a@[300.1.1.1]",
            "\"a\"b\"@example.test",
            "a\r\nb@example.test",
            "a@exa mple.test",
        ] {
            check(bad, None);
        }
        check(&format!("{}@example.test", "a".repeat(65)), None);
    }

    #[test]
    fn a_domain_knows_what_stands_below_it() {
        let parent = Domain::parse("example.test").expect("valid");
        for (text, within) in
            [("example.test", true), ("a.example.test", true), ("badexample.test", false)]
        {
            assert_eq!(Domain::parse(text).expect("valid").is_within(&parent), within, "{text}");
        }
    }
}
