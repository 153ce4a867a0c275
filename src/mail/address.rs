//! Addresses and domains, in the one form in which they are compared.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest address, in octets: a path has 256 with its brackets (RFC 5321 §4.5.3.1.3). The 64
/// octets of a local-part (§4.5.3.1.1) are what everybody must take at least; forwarders and mailing
/// lists, which write one address into another, need more.
const MAX_ADDRESS: usize = 254;
/// The longest domain (RFC 5321 §4.5.3.1.2), in octets of its A-label form.
const MAX_DOMAIN: usize = 255;

/// What no domain has: all but letters, digits, hyphens, dots and underscores. RFC 1123 §2.1 has no
/// underscore, but DNS takes it (RFC 2181 §11), and large senders bounce to such names.
const NO_DOMAIN_CHARS: idna::AsciiDenyList =
    idna::AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// Why a text is not an address or a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`.
    #[error("has no @")]
    NoAtSign,
    /// The local-part is empty or has a character that needs quoting.
    #[error("the part before the @ is empty, or not quoted as it must be")]
    LocalPart,
    /// The address is longer than a path may be.
    #[error("is longer than 254 octets")]
    TooLong,
    /// The domain is empty, too long, or not valid under IDNA.
    #[error("\"{0}\" is not a valid domain name")]
    Domain(String),
}

/// A domain in lower-case A-label form without a trailing dot, or an address literal
/// (`[192.0.2.1]`, RFC 5321 §4.1.3). Two domains are the same exactly when they are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Arc<str>);

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
        // RFC 5321 §2.3.5: a domain is written without a trailing dot. With one it is the same.
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii =
            idna::domain_to_ascii_cow(text.as_bytes(), NO_DOMAIN_CHARS).map_err(|_| invalid())?;
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
        is_name_within(&self.0, &parent.0)
    }
}

/// Whether a name is `parent` or stands below it: [`Domain::is_within`] for names out of DNS, which
/// need not be domains of mail. Both are in lower-case A-label form.
pub fn is_name_within(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
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
        domain.0.as_ref().into()
    }
}

/// An address: a local-part, which keeps its case, and a [`Domain`].
///
/// Cheap to copy, since the same ones stand in many places: in a group's members above all.
/// Two addresses are equal when both parts are equal to the letter; who looks a recipient up or
/// matches a pattern compares [`Address::key`], because local domains are case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local_part: Arc<str>,
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
        let domain = Domain::parse(domain)?;
        if local_part.len() + 1 + domain.as_str().len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local_part: shortest(local_part), domain })
    }

    /// An address whose local-part is written as it must be; of any length.
    pub(super) fn new(local_part: &str, domain: Domain) -> Option<Self> {
        is_local_part(local_part).then(|| Self { local_part: shortest(local_part), domain })
    }

    /// The part before the `@`, in its own case, quoted if it must be.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The address without the tag that stands behind a `+`; `None` if there is none. Whether the two
    /// are the same mailbox is for the domain's organization to say.
    pub fn without_tag(&self) -> Option<Address> {
        let (user, _tag) = self.local_part.split_once('+')?;
        // A tag in quotes takes the closing quote with it.
        let user = if user.starts_with('"') { format!("{user}\"") } else { user.to_owned() };
        is_local_part(&user)
            .then(|| Self { local_part: shortest(&user), domain: self.domain.clone() })
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The lower-case spelling under which local addresses and patterns are compared.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local_part.to_lowercase(), self.domain)
    }

    /// Whether the two have one [`Address::key`], without making it.
    pub fn has_key_of(&self, other: &Self) -> bool {
        if self.domain != other.domain {
            return false;
        }
        if self.local_part.is_ascii() && other.local_part.is_ascii() {
            return self.local_part.eq_ignore_ascii_case(&other.local_part);
        }
        self.local_part.to_lowercase() == other.local_part.to_lowercase()
    }

    /// Whether the address needs SMTPUTF8 (RFC 6531) to travel.
    pub fn is_internationalized(&self) -> bool {
        !self.local_part.is_ascii()
    }
}

/// `a.b` or `"a b"`: a Dot-string or Quoted-string (RFC 5321 §4.1.2).
///
/// Deviation: dots may stand at the ends and beside each other. A large carrier gave out such
/// addresses, and nothing else can be meant by them.
fn is_local_part(text: &str) -> bool {
    match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(is_quoted_content),
        None => !text.is_empty() && text.chars().all(|c| c == '.' || is_atom_char(c)),
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

/// RFC 5321 §4.1.2: `"abc"`, `"a\bc"` and `abc` are the same mailbox. The shortest spelling is kept:
/// quoted only if it must be, and in that only `"` and `\` behind a backslash.
fn shortest(local_part: &str) -> Arc<str> {
    let Some(quoted) = local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local_part.into();
    };
    let content = without_quoted_pairs(quoted);
    // What begins with a quote here is content, not a quoted string.
    if !content.starts_with('"') && is_local_part(&content) {
        return content.into();
    }
    in_quotes(&content)
}

/// A quoted string of this content.
fn in_quotes(content: &str) -> Arc<str> {
    let mut spelling = String::from('"');
    for c in content.chars() {
        if matches!(c, '"' | '\\') {
            spelling.push('\\');
        }
        spelling.push(c);
    }
    spelling.push('"');
    spelling.into()
}

/// What [`is_quoted_content`] means.
fn without_quoted_pairs(text: &str) -> String {
    let mut content = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        content.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    content
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
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<&str>) {
        let printed = Address::parse(text).ok().map(|address| address.to_string());
        assert_eq!(printed.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn two_addresses_have_one_key_or_not() {
        let check = |one: &str, other: &str, expected: bool| {
            let [one, other] = [one, other].map(|text| Address::parse(text).expect("valid"));
            assert_eq!(one.has_key_of(&other), expected, "{one} {other}");
            assert_eq!(one.key() == other.key(), expected, "{one} {other}");
        };
        check("Alice@Example.test", "aLICE@example.TEST", true);
        check("alice@example.test", "alice@example.org", false);
        check("alice@example.test", "alicf@example.test", false);
        check("ÜBER@example.test", "über@example.test", true);
        check("über@example.test", "uber@example.test", false);
        check("K@example.test", "\u{212a}@example.test", true);
        check("\"a b\"@example.test", "\"A B\"@example.test", true);
    }

    #[test]
    fn reads_what_rfc_5321_allows_and_nothing_else() {
        check("Alice@Example.TEST", Some("Alice@example.test"));
        check("a+b@bücher.test", Some("a+b@xn--bcher-kva.test"));
        check("用户@example.test", Some("用户@example.test"));
        check("\"a b\"@example.test", Some("\"a b\"@example.test"));
        check("\"abc\"@example.test", Some("abc@example.test"));
        check("\"a@b\"@example.test", Some("\"a@b\"@example.test"));
        check(r#""\boss"@example.test"#, Some("boss@example.test"));
        check(r#""b\o\ss"@example.test"#, Some("boss@example.test"));
        check(r#""a\ b"@example.test"#, Some(r#""a b"@example.test"#));
        check(r#""a\"b"@example.test"#, Some(r#""a\"b"@example.test"#));
        check(r#""a\\b"@example.test"#, Some(r#""a\\b"@example.test"#));
        check(r#""\"a\""@example.test"#, Some(r#""\"a\""@example.test"#));
        check(r#"""@example.test"#, Some(r#"""@example.test"#));
        check("a@[192.0.2.1]", Some("a@[192.0.2.1]"));
        check("a@[IPv6:2001:db8::1]", Some("a@[ipv6:2001:db8::1]"));
        for bad in [
            "",
            "alice",
            "@example.test",
            "a@",
            "a b@example.test",
            "a@b!c$%.com",
            "a@example.test..",
            "a@.example.test",
            "a@example..test",
            "a@-x.test",
            "a@[300.1.1.1]",
            "\"a\"b\"@example.test",
            "a\r\nb@example.test",
            "a@exa mple.test",
        ] {
            check(bad, None);
        }
        let long = format!("{}@example.test", "a".repeat(MAX_ADDRESS - "@example.test".len()));
        check(&long, Some(&long));
        check(&format!("a{long}"), None);
    }

    #[test]
    fn reads_what_others_write_although_no_rfc_has_it() {
        for (text, printed) in [
            ("bo..b@docomo.test", "bo..b@docomo.test"),
            ("bob.@docomo.test", "bob.@docomo.test"),
            (".bob@docomo.test", ".bob@docomo.test"),
            ("\"bob.\"@docomo.test", "bob.@docomo.test"),
            ("bounce@em_1.example.test", "bounce@em_1.example.test"),
            ("a@_x.Example.test", "a@_x.example.test"),
            ("a@example.test.", "a@example.test"),
        ] {
            check(text, Some(printed));
        }
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

    #[test]
    fn an_address_may_have_a_tag() {
        for (text, expected) in [
            ("alice@example.test", None),
            ("Alice+x@example.test", Some("Alice@example.test")),
            ("a+x+y@example.test", Some("a@example.test")),
            ("\"a b+x y\"@example.test", Some("\"a b\"@example.test")),
            ("\"a+x y\"@example.test", Some("a@example.test")),
            ("+x@example.test", None),
            ("a.+x@example.test", Some("a.@example.test")),
        ] {
            let untagged = Address::parse(text).expect("valid").without_tag();
            assert_eq!(untagged.map(|it| it.to_string()).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        /// However many of a quoted string's characters stand behind a backslash, it is the same
        /// address, and its spelling is read as itself.
        #[test]
        fn every_spelling_of_a_mailbox_is_the_same_address(
            content in prop::collection::vec((prop::char::range(' ', '~'), any::<bool>()), 0..30),
        ) {
            let spell = |behind: &dyn Fn(char, bool) -> bool| {
                let pair = |&(c, needless): &(char, bool)| {
                    if behind(c, needless) { format!("\\{c}") } else { c.to_string() }
                };
                let text = content.iter().map(pair).collect::<String>();
                Address::parse(&format!("\"{text}\"@example.test")).expect("a quoted string")
            };
            let must = |c: char| matches!(c, '"' | '\\');
            let short = spell(&|c, _| must(c));
            prop_assert_eq!(&short, &spell(&|c, needless| must(c) || needless));
            prop_assert_eq!(Address::parse(&short.to_string()), Ok(short.clone()));
            let plain: String = content.iter().map(|(c, _)| c).collect();
            if let Ok(bare) = Address::parse(&format!("{plain}@example.test"))
                && !plain.starts_with('"')
            {
                prop_assert_eq!(short, bare);
            }
        }
    }
}
