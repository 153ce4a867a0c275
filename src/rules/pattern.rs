//! Sender and recipient patterns (guide 3745–3772).

use std::cell::OnceCell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    #[error("\"+\" is not valid in a pattern")]
    Plus,
    /// A wildcard stands only at the front of a domain (guide 3758).
    #[error("\"*\" may stand alone, or at the front of a domain as in *.example.com")]
    Wildcard,
    /// Neither an address nor a domain.
    #[error("{0}")]
    Address(#[from] AddressError),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains('+') {
            return Err(PatternError::Plus);
        }
        if text == "*" {
            return Ok(Self::Star);
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(PatternError::Wildcard);
        }
        Ok(match (wildcard, rest.contains('@')) {
            (true, true) => return Err(PatternError::Wildcard),
            (true, false) => Self::Wildcard(Domain::parse(rest)?),
            (false, true) => Self::Address(Address::parse(rest)?.key().into()),
            (false, false) => Self::Domain(Domain::parse(rest)?),
        })
    }

    /// Whether an address is meant.
    pub fn matches(&self, address: &Address) -> bool {
        self.meets(&Subject::new(address))
    }

    /// The same, for an address that many patterns are held against.
    pub(super) fn meets(&self, subject: &Subject<'_>) -> bool {
        let domain = subject.address.domain();
        match self {
            // Most patterns are of other domains; a key is made only where it can be equal.
            Self::Address(key) => key.ends_with(domain.as_str()) && **key == *subject.key(),
            Self::Domain(of) => of == domain,
            Self::Wildcard(of) => domain.is_within(of),
            Self::Star => true,
        }
    }
}

/// An address that patterns are held against. Its key is made when the first needs it.
pub(super) struct Subject<'a> {
    pub(super) address: &'a Address,
    key: OnceCell<String>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(address: &'a Address) -> Self {
        Self { address, key: OnceCell::new() }
    }

    pub(super) fn key(&self) -> &str {
        self.key.get_or_init(|| self.address.key())
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
