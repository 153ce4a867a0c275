//! Sender and recipient patterns (guide 3745–3772).

use std::cell::OnceCell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::mail::{Address, AddressError, Domain};

/// Which addresses a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// One address, in any case; held as its [`Address::key`].
    Address(Box<str>),
    /// All addresses of a domain.
    Domain(Domain),
    /// `*.example.com`: all addresses of the domain and of all domains below it.
    Wildcard(Domain),
    /// `*`: all addresses.
    Star,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Guide 3771: not valid inside a pattern.
    #[error("\"+\" is not valid in a pattern{}", meant(.0))]
    Plus(Option<Box<str>>),
    /// A wildcard stands only at the front of a domain (guide 3758).
    #[error("\"*\" may stand alone, or at the front of a domain as in *.example.com{}", meant(.0))]
    Wildcard(Option<Box<str>>),
    /// Neither an address nor a domain.
    #[error("{problem}{}", meant(.instead))]
    Address {
        /// What is wrong with it as an address.
        problem: AddressError,
        /// What to write instead.
        instead: Option<Box<str>>,
    },
}

/// What to write instead, as the end of a message.
fn meant(pattern: &Option<Box<str>>) -> String {
    pattern.as_ref().map(|pattern| format!("; write {pattern}")).unwrap_or_default()
}

/// What somebody wants who writes a `*`, a dot or an `@` where none may stand: everybody, all addresses
/// of a domain, or also those of the domains below it. Of others than that nobody can tell.
fn without_odd_star(text: &str) -> Option<Box<str>> {
    if text.contains('*') && text.chars().all(|c| matches!(c, '*' | '@' | '.')) {
        return Some("*".into());
    }
    let (local_part, domain) = match text.rsplit_once('@') {
        Some(("*" | "*." | "", domain)) => ("", domain),
        Some(_) => return None,
        None => ("*", text),
    };
    let below = domain.trim_start_matches(['*', '.']);
    let is_below = below.len() < domain.len();
    let domain = Domain::parse(below).ok()?;
    (local_part.is_empty() || is_below).then(|| match is_below {
        true => format!("*.{domain}").into(),
        false => domain.to_string().into(),
    })
}

/// The address without its tag, which a pattern for it matches too.
fn without_tag(text: &str) -> Option<Box<str>> {
    let (front, domain) = text.rsplit_once('@')?;
    let (untagged, _) = front.split_once('+')?;
    let address = format!("{untagged}@{domain}");
    Address::parse(&address).is_ok().then(|| address.into())
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains('+') {
            return Err(PatternError::Plus(without_tag(text)));
        }
        if text == "*" {
            return Ok(Self::Star);
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(PatternError::Wildcard(without_odd_star(text)));
        }
        let not_an_address =
            |problem| PatternError::Address { problem, instead: without_odd_star(text) };
        Ok(match (wildcard, rest.contains('@')) {
            (true, true) => return Err(PatternError::Wildcard(without_odd_star(text))),
            (true, false) => Self::Wildcard(Domain::parse(rest).map_err(not_an_address)?),
            (false, true) => {
                Self::Address(Address::parse(rest).map_err(not_an_address)?.key().into())
            }
            (false, false) => Self::Domain(Domain::parse(rest).map_err(not_an_address)?),
        })
    }

    /// Whether somebody is meant.
    pub fn matches(&self, party: &Party<'_>) -> bool {
        let domain = party.address.domain();
        match self {
            Self::Address(key) => party.has_key(key),
            Self::Domain(of) => of == domain,
            Self::Wildcard(of) => domain.is_within(of),
            Self::Star => true,
        }
    }
}

/// Somebody whom patterns are held against: an address as it is written, and the others by which a
/// rule may name the same mailbox. A tag and an alias do not lead past a rule for the mailbox
/// (product contract §7), so a pattern that is an address means all of them; one that is a domain
/// means the address as it is written.
#[derive(Debug)]
pub struct Party<'a> {
    address: &'a Address,
    /// Who knows the other addresses.
    directory: Option<&'a Directory>,
    /// The keys of all addresses, its own first; made when the first pattern needs them.
    keys: OnceCell<Vec<String>>,
    is_here: bool,
}

impl<'a> Party<'a> {
    /// Somebody of whom nothing but an address is known.
    pub fn new(address: &'a Address) -> Self {
        Self { address, directory: None, keys: OnceCell::new(), is_here: false }
    }

    /// Somebody as the directory knows an address.
    pub fn of(address: &'a Address, directory: &'a Directory) -> Self {
        Self {
            directory: Some(directory),
            is_here: directory.is_local(address.domain()),
            ..Self::new(address)
        }
    }

    /// Somebody here who is known by these keys too.
    #[cfg(test)]
    pub(super) fn named(address: &'a Address, others: &[&str]) -> Self {
        let others = others.iter().map(|&other| other.to_owned());
        let keys = std::iter::once(address.key()).chain(others).collect::<Vec<_>>();
        Self { keys: keys.into(), is_here: true, ..Self::new(address) }
    }

    /// Somebody in a domain that is here, or is not.
    #[cfg(test)]
    pub(super) fn placed(address: &'a Address, is_here: bool) -> Self {
        Self { is_here, ..Self::new(address) }
    }

    /// The address as it is written.
    pub(super) fn address(&self) -> &'a Address {
        self.address
    }

    /// Whether the domain is some organization's here.
    pub(super) fn is_here(&self) -> bool {
        self.is_here
    }

    /// The keys of all addresses.
    pub(super) fn keys(&self) -> &[String] {
        self.keys.get_or_init(|| {
            let others = self.directory.map(|directory| directory.other_keys(self.address));
            std::iter::once(self.address.key()).chain(others.unwrap_or_default()).collect()
        })
    }

    fn has_key(&self, key: &str) -> bool {
        // Most patterns are of other domains, and of somebody elsewhere no other domain is known.
        let may_be_one = self.is_here || key.ends_with(self.address.domain().as_str());
        may_be_one && self.keys().iter().any(|own| own == key)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(key) => f.write_str(key),
            Self::Domain(domain) => domain.fmt(f),
            Self::Wildcard(domain) => write!(f, "*.{domain}"),
            Self::Star => f.write_str("*"),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}
