//! Who wrote a message: the one reading of `From` and `Sender` that rules, DMARC, events, mailbox
//! rules, forwarding, submission and journal share.
//!
//! Readers of mail take more than RFC 5322 writes, and each a little more than the other. A plain
//! field is read: mailboxes between commas, each an address by itself, or words and
//! quoted strings before an address in angle brackets, with words in comments beside them. So is a
//! field with oddities of one kind ([`oddity`]: obsolete syntax, common sloppiness), because all
//! readers take that alike. Where two kinds meet, one reader or another finds another domain, or
//! none; so that is no author, and a message that has no other is refused, because else a rule or a
//! policy for the domain could be evaded by odd spelling.

mod addr_spec;
mod error;
mod field;
mod oddity;
mod token;

pub use error::AuthorError;

use self::field::mailboxes;
use super::header::without_folds;
use super::{Address, Domain, FieldLines, hidden_names, is_name_within};

/// Domains of the authors of one message. Each is asked for in DNS, up to eight times.
const MAX_DOMAINS: usize = 8;

/// All authors of a message: at least one, of one domain, or of several that are perhaps one
/// organization's. Whether they are only DNS can say (RFC 9989 §4.10), so that is asked later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authors {
    addresses: Vec<Address>,
}

impl Authors {
    /// The authors that the header section at the front of `message` names.
    ///
    /// # Errors
    /// [`AuthorError`]
    pub fn of(message: &[u8]) -> Result<Self, AuthorError> {
        AuthorFields::of(message).authors()
    }

    /// Those that one field names, whatever it is called.
    ///
    /// # Errors
    /// [`AuthorError`]
    pub fn of_field(field: &[u8]) -> Result<Self, AuthorError> {
        let addresses = mailboxes(&without_folds(field))?;
        let domains = author_domains(&addresses);
        if domains.len() > MAX_DOMAINS || !may_be_one_organization(&domains) {
            return Err(AuthorError::Several);
        }
        Ok(Self { addresses })
    }

    /// Their addresses, as they stand in the field.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The same, without the reading.
    pub fn into_addresses(self) -> Vec<Address> {
        self.addresses
    }

    /// Their domains, each once.
    pub fn domains(&self) -> Vec<&Domain> {
        author_domains(&self.addresses)
    }
}

/// The domains of authors, each once, in the order of the field.
pub fn author_domains(authors: &[Address]) -> Vec<&Domain> {
    let mut domains: Vec<&Domain> = Vec::new();
    for address in authors {
        if !domains.contains(&address.domain()) {
            domains.push(address.domain());
        }
    }
    domains
}

/// Whether domains are the same, or all lie within one of at least two labels: below a top-level
/// domain everybody is somebody else. What an organization is they do not say by themselves; domains
/// that fail here are not one's.
pub fn may_be_one_organization(domains: &[&Domain]) -> bool {
    let [first, others @ ..] = domains else { return true };
    let mut shared = first.as_str();
    for domain in others.iter().filter(|domain| *domain != first) {
        // An address literal has no domain above it.
        if first.is_literal() || domain.is_literal() {
            return false;
        }
        while !is_name_within(domain.as_str(), shared) {
            let Some((_, above)) = shared.split_once('.') else { return false };
            shared = above;
        }
        if !shared.contains('.') {
            return false;
        }
    }
    true
}

/// The `From` and `Sender` fields of a header section, found in one walk through it.
#[derive(Debug, Default)]
pub struct AuthorFields<'a> {
    from: Found<'a>,
    sender: Found<'a>,
}

/// How often a field was found. Lines before it that are no fields do not hide it; one that only
/// some readers find is one too many.
#[derive(Debug, Default)]
enum Found<'a> {
    #[default]
    Never,
    Once(&'a [u8]),
    Oftener,
}

impl<'a> AuthorFields<'a> {
    /// Those of the header section at the front of `message`.
    pub fn of(message: &'a [u8]) -> Self {
        let mut fields = Self::default();
        for (name, range) in FieldLines::new(message) {
            fields.note(name, message.get(range).unwrap_or_default());
        }
        fields
    }

    /// Takes note of the next field of [`FieldLines`].
    pub fn note(&mut self, name: &[u8], field: &'a [u8]) {
        if let Some(known) = self.called(name) {
            known.note(field);
        }
        for hidden in hidden_names(name, field) {
            if let Some(known) = self.called(hidden) {
                *known = Found::Oftener;
            }
        }
    }

    fn called(&mut self, name: &[u8]) -> Option<&mut Found<'a>> {
        if name.eq_ignore_ascii_case(b"From") {
            Some(&mut self.from)
        } else if name.eq_ignore_ascii_case(b"Sender") {
            Some(&mut self.sender)
        } else {
            None
        }
    }

    /// The authors.
    ///
    /// # Errors
    /// [`AuthorError`]
    pub fn authors(&self) -> Result<Authors, AuthorError> {
        Authors::of_field(self.from.only()?.ok_or(AuthorError::None)?)
    }

    /// The address of the `Sender` field; `None` where there is no such field, or one that names
    /// nobody.
    ///
    /// # Errors
    /// [`AuthorError`]: it names somebody, and not with one address (RFC 5322 §3.6.2).
    pub fn sender(&self) -> Result<Option<Address>, AuthorError> {
        let Some(field) = self.sender.only()? else { return Ok(None) };
        let addresses = match mailboxes(&without_folds(field)) {
            Err(AuthorError::None) => return Ok(None),
            read => read?,
        };
        match <[Address; 1]>::try_from(addresses) {
            Ok([sender]) => Ok(Some(sender)),
            Err(_) => Err(AuthorError::Several),
        }
    }
}

impl<'a> Found<'a> {
    fn note(&mut self, field: &'a [u8]) {
        *self = match self {
            Self::Never => Self::Once(field),
            Self::Once(_) | Self::Oftener => Self::Oftener,
        };
    }

    fn only(&self) -> Result<Option<&'a [u8]>, AuthorError> {
        match self {
            Self::Never => Ok(None),
            Self::Once(field) => Ok(Some(field)),
            Self::Oftener => Err(AuthorError::Several),
        }
    }
}

/// Whether a `From` or `Sender` field is as good as missing: it has no value, only comments, or
/// only groups without members (RFC 6854).
pub fn names_nobody(field: &[u8]) -> bool {
    mailboxes(&without_folds(field)) == Err(AuthorError::None)
}

#[cfg(test)]
mod tests;
