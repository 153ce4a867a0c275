//! Who wrote a message: the one reading of `From` and `Sender` that rules, DMARC, events, mailbox
//! rules, forwarding, submission and journal share.
//!
//! Readers of mail take more than RFC 5322 writes, and each a little more than the other. What all
//! of them take alike is read here, obsolete forms and common sloppiness included. What one of
//! them may take for another domain, or for none, is no author: a message that has no other is
//! refused, because else a rule or a policy for the domain could be evaded by odd
//! spelling.

use super::{Address, Domain, FieldLines, hidden_names, unfolded};

/// Addresses that are read from a field. RFC 5322 has no limit; nobody writes together with more.
const MAX_ADDRESSES: usize = 100;
/// Domains of the authors of one message. Each is asked for in DNS, up to eight times.
const MAX_DOMAINS: usize = 8;
/// The longest local-part that is read, in octets: a line's worth (RFC 5322 §2.1.1).
const MAX_LOCAL_PART: usize = 998;

/// Why it cannot be said who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// There is no `From` field, or an empty one.
    #[error("there is no author")]
    None,
    /// There are several fields, or authors of several domains.
    #[error("there is more than one author")]
    Several,
    /// Readers of mail find different authors, or none of them finds one.
    #[error("the author cannot be read")]
    Unreadable,
}

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

    fn read(field: &[u8]) -> Result<Self, AuthorError> {
        let addresses = mailboxes(&unfolded(field))?;
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
        while !is_at_or_below(domain.as_str(), shared) {
            let Some((_, above)) = shared.split_once('.') else { return false };
            shared = above;
        }
        if !shared.contains('.') {
            return false;
        }
    }
    true
}

fn is_at_or_below(domain: &str, above: &str) -> bool {
    domain.strip_suffix(above).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
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
        Authors::read(self.from.only()?.ok_or(AuthorError::None)?)
    }

    /// The address of the `Sender` field; `None` where there is no such field, or one that names
    /// nobody.
    ///
    /// # Errors
    /// [`AuthorError`]: it names somebody, and not with one address (RFC 5322 §3.6.2).
    pub fn sender(&self) -> Result<Option<Address>, AuthorError> {
        let Some(field) = self.sender.only()? else { return Ok(None) };
        let addresses = match mailboxes(&unfolded(field)) {
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
    mailboxes(&unfolded(field)) == Err(AuthorError::None)
}

/// The addresses of a field's value, at least one.
fn mailboxes(value: &str) -> Result<Vec<Address>, AuthorError> {
    let mut list = List::default();
    let mut element = Element::default();
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => comment(rest)?,
            '"' => quoted(rest)?,
            '<' => angle(rest)?,
            '[' if element.text.trim_end().ends_with('@') => literal(rest)?,
            // A pair outside of quotes is obsolete, and readers differ on it. Some end a text at
            // NUL.
            '>' | '\\' | '\0' => return Err(AuthorError::Unreadable),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length).ok_or(AuthorError::Unreadable)?;
        rest = after;
        match first {
            // Who looks into quotes and comments for it ends a group there.
            '"' | '<' | '(' if list.has_group && token.contains(';') => {
                return Err(AuthorError::Unreadable);
            }
            // Who does not know of comments in brackets ends the address there.
            '<' if token.matches(['<', '>']).count() != 2 => return Err(AuthorError::Unreadable),
            '(' => element.comment(token, after)?,
            '<' => element.angle(token.trim_start_matches('<').trim_end_matches('>'))?,
            ',' | ';' => list.end(std::mem::take(&mut element))?,
            ':' => {
                list.has_group = true;
                element.end_group_name()?;
            }
            _ => element.push(token)?,
        }
    }
    list.end(element)?;
    match (list.addresses.is_empty(), list.name_is_open) {
        (false, false) => Ok(list.addresses),
        (true, false) => Err(AuthorError::None),
        (_, true) => Err(AuthorError::Unreadable),
    }
}

/// The addresses so far.
#[derive(Default)]
struct List {
    addresses: Vec<Address>,
    /// A comma may stand in a name that should be quoted: `Doe, Jane <jane@example.com>`. Then
    /// what came last is the front of a name, whose address follows.
    name_is_open: bool,
    /// Whether a group has begun (RFC 6854).
    has_group: bool,
}

impl List {
    fn end(&mut self, element: Element<'_>) -> Result<(), AuthorError> {
        let text = element.text.trim();
        if element.angle.is_none() && !text.contains('@') {
            // Who finds nothing else takes an address from a comment, or from an encoded word.
            if element.is_mentioned_in_comment || text.contains("=?") {
                return Err(AuthorError::Unreadable);
            }
            self.name_is_open |= !text.is_empty();
            return Ok(());
        }
        // Only an address in brackets can have a name before it, and is never glued to anything.
        if element.angle.is_none() && (self.name_is_open || element.has_split_comment) {
            return Err(AuthorError::Unreadable);
        }
        // After an address, who takes it for one reads on from a bracket, as for a domain literal.
        if element.angle.is_some() && text.contains('@') && text.rfind('[') > text.rfind(']') {
            return Err(AuthorError::Unreadable);
        }
        // Who takes a comment's address with the `@` of a name takes its rest for a domain.
        if element.angle.is_some() && text.starts_with('@') && element.is_mentioned_in_comment {
            return Err(AuthorError::Unreadable);
        }
        self.name_is_open = false;
        let address = match element.angle {
            Some(content) => address(content, Place::Brackets),
            None => address(text, Place::Bare),
        };
        let address = address.ok_or(AuthorError::Unreadable)?;
        if self.addresses.len() >= MAX_ADDRESSES {
            return Err(AuthorError::Several);
        }
        self.addresses.push(address);
        Ok(())
    }
}

/// What stands between two commas, without comments.
#[derive(Default)]
struct Element<'a> {
    /// What stands outside of angle brackets.
    text: String,
    /// What stands in them.
    angle: Option<&'a str>,
    /// Whether a comment has an `@`.
    is_mentioned_in_comment: bool,
    /// Whether a comment ends early for who does not nest them, and the rest could be an address, or
    /// the end of one.
    has_split_comment: bool,
}

impl<'a> Element<'a> {
    fn push(&mut self, token: &str) -> Result<(), AuthorError> {
        // Some readers take what follows an address for the next one's name.
        if self.angle.is_some() && !token.trim().is_empty() {
            return Err(AuthorError::Unreadable);
        }
        self.text.push_str(token);
        Ok(())
    }

    fn comment(&mut self, comment: &str, after: &str) -> Result<(), AuthorError> {
        self.is_mentioned_in_comment |= comment.contains('@');
        let mut rests = comment.split(')').skip(1);
        let is_nested = rests.clone().count() > 1;
        let is_glued = self.text.ends_with(|c: char| !c.is_whitespace())
            || after.starts_with(|c: char| !c.is_whitespace());
        let is_spaced_out = self.text.trim().contains(char::is_whitespace);
        self.has_split_comment |= is_nested && (is_glued || is_spaced_out || comment.contains('@'))
            || rests.clone().any(|rest| rest.contains('@'))
            || rests.any(|rest| !rest.is_empty() && !rest.starts_with([' ', '\t']));
        self.push(" ")
    }

    fn angle(&mut self, content: &'a str) -> Result<(), AuthorError> {
        match self.angle.replace(content) {
            None => Ok(()),
            Some(_) => Err(AuthorError::Unreadable),
        }
    }

    /// RFC 6854 allows groups in `From`. A name with an address in it could be one's author.
    fn end_group_name(&mut self) -> Result<(), AuthorError> {
        if self.angle.is_some() || self.text.contains('@') {
            return Err(AuthorError::Unreadable);
        }
        self.text.clear();
        Ok(())
    }
}

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In angle brackets, so that all agree where it ends.
    Brackets,
    /// By itself.
    Bare,
}

/// An addr-spec with white space and comments where the obsolete syntax has them (RFC 5322 §4.4).
/// Around the dots of a domain they are where readers part ways: some end a bare domain at white
/// space, and some take a comment for a part of it.
fn address(text: &str, place: Place) -> Option<Address> {
    // Some end an address at any white space that Unicode knows.
    if text.contains(|c: char| c.is_whitespace() && !" \t".contains(c)) {
        return None;
    }
    let has_comment = |domain: &str| domain.contains('(');
    if text.rsplit_once('@').is_some_and(|(_, domain)| has_comment(domain)) {
        return None;
    }
    let text = without_comments(text)?;
    let text = without_route(text.trim())?;
    let at = last_at(text)?;
    let (local_part, domain) = (text.get(..at)?, text.get(at + 1..)?);
    let domain = domain.trim();
    // Who decodes first finds what a bare encoded word hides (RFC 2047 §5 has none in an address).
    if place == Place::Bare && (domain.contains(char::is_whitespace) || text.contains("=?")) {
        return None;
    }
    let domain = match domain.strip_prefix('[') {
        // With white space in it, an address literal is not found whole by all.
        Some(_) if text.contains(char::is_whitespace) => return None,
        Some(_) => Domain::parse(domain).ok()?,
        None => domain_name(domain)?,
    };
    let local_part = local_part.trim();
    if local_part.starts_with('"') {
        // There are readers who end an address at a bracket also in quotes, and a quoted string
        // where a list could go on.
        if local_part.contains(['<', '>']) {
            return None;
        }
        if local_part.contains('@') && local_part.contains([',', ';', '<', '>', '(', ')']) {
            return None;
        }
        return Address::new(local_part, domain);
    }
    let local_part = closed_up(local_part)?;
    if local_part.len() > MAX_LOCAL_PART || local_part.contains(['"', '@', ',', ';', ':', '<', '>'])
    {
        return None;
    }
    Some(Address::with_any_local_part(&local_part, domain))
}

/// `@a.test:bob@example.com`: a route (RFC 5322 §4.4) is ignored. Of one with several hosts some
/// readers take the last for the author's.
fn without_route(text: &str) -> Option<&str> {
    if !text.starts_with('@') {
        return Some(text);
    }
    let (route, rest) = text.split_once(':')?;
    let is_route = |c: char| c.is_ascii_alphanumeric() || "-._@ \t".contains(c);
    route.chars().all(is_route).then(|| rest.trim_start())
}

/// The only `@` that is not in quotes.
fn last_at(text: &str) -> Option<usize> {
    let quoted_length = if text.starts_with('"') { quoted(text).ok()? } else { 0 };
    let rest = text.get(quoted_length..)?;
    let (before, after) = rest.split_once('@')?;
    let is_only = !after.contains('@') && (quoted_length == 0 || before.trim().is_empty());
    is_only.then_some(quoted_length + before.len())
}

/// A domain name in any spelling that all readers take for the same.
fn domain_name(text: &str) -> Option<Domain> {
    let text = closed_up(text)?;
    if text.chars().any(is_invisible) {
        return None;
    }
    Domain::parse(&text).ok()
}

/// Without white space around dots; `None` where there is other white space.
fn closed_up(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').map(|part| part.trim_matches([' ', '\t'])).collect();
    let closed = parts.join(".");
    (!closed.is_empty() && !closed.contains(char::is_whitespace)).then_some(closed)
}

/// Characters that a screen does not show. IDNA drops some of them, and then two readers could find
/// two domains in what looks like one: controls, white space, and those that Unicode calls
/// default-ignorable.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text with a space for each comment; `None` if one does not end, or has an `@`, at which some
/// readers begin the domain.
fn without_comments(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => comment(rest).ok()?,
            '"' => quoted(rest).ok()?,
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length)?;
        if first == '(' && token.contains('@') {
            return None;
        }
        plain.push_str(if first == '(' { " " } else { token });
        rest = after;
    }
    Some(plain)
}

/// The length of the comment at the front; comments nest (RFC 5322 §3.2.2).
fn comment(text: &str) -> Result<usize, AuthorError> {
    let mut depth = 0_usize;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            // What stands behind a backslash has no meaning of its own.
            b'\\' => drop(octets.next()),
            b'\0' => return Err(AuthorError::Unreadable),
            _ => {}
        }
        if depth == 0 {
            return Ok(at + 1);
        }
    }
    Err(AuthorError::Unreadable)
}

/// The length of the quoted string at the front.
fn quoted(text: &str) -> Result<usize, AuthorError> {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Ok(at + 1),
            b'\\' => drop(octets.next()),
            b'\0' => return Err(AuthorError::Unreadable),
            _ => {}
        }
    }
    Err(AuthorError::Unreadable)
}

/// The length of what stands in angle brackets at the front.
fn angle(text: &str) -> Result<usize, AuthorError> {
    let mut at = 1;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        at += match rest.as_bytes().first() {
            Some(b'>') => return Ok(at + 1),
            Some(b'<' | b'\0') => return Err(AuthorError::Unreadable),
            Some(b'"') => quoted(rest)?,
            Some(b'(') => comment(rest)?,
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    Err(AuthorError::Unreadable)
}

/// The length of the domain literal at the front.
fn literal(text: &str) -> Result<usize, AuthorError> {
    text.find(']').map(|end| end + 1).ok_or(AuthorError::Unreadable)
}

#[cfg(test)]
mod tests;
