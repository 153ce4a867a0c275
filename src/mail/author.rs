//! Who wrote a message: the one reading of `From` and `Sender` that rules, DMARC, events, mailbox
//! rules, forwarding, submission and journal share.
//!
//! Readers of mail take more than RFC 5322 writes, and each a little more than the other. A plain
//! field is read: mailboxes between commas, each an address by itself, or words and
//! quoted strings before an address in angle brackets, with words in comments beside them. So is a
//! field with oddities of one kind ([`Oddity`]: obsolete syntax, common sloppiness), because all
//! readers take that alike. Where two kinds meet, one reader or another finds another domain, or
//! none; so that is no author, and a message that has no other is refused, because else a rule or a
//! policy for the domain could be evaded by odd spelling.

use super::header::without_folds;
use super::invisible::is_invisible;
use super::{Address, Domain, FieldLines, hidden_names, is_name_within};

/// Addresses that are read from a field. RFC 5322 has no limit; nobody writes together with more.
const MAX_ADDRESSES: usize = 100;
/// Domains of the authors of one message. Each is asked for in DNS, up to eight times.
const MAX_DOMAINS: usize = 8;
/// The longest local-part that is read, in octets: a line's worth (RFC 5322 §2.1.1).
const MAX_LOCAL_PART: usize = 998;
/// What an unfolded field has between its words. Other white space some readers take for a part of
/// an address, or for its end.
const BLANKS: [char; 2] = [' ', '\t'];

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

/// The addresses of a field's value, at least one.
fn mailboxes(value: &str) -> Result<Vec<Address>, AuthorError> {
    // Some end a text or an address at control characters, and no name has them.
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(AuthorError::Unreadable);
    }
    let mut list = List::default();
    let mut before = ' ';
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => comment(rest)?,
            '"' => quoted(rest)?,
            '<' => angle(rest)?,
            '[' if list.element.text.trim_end_matches(BLANKS).ends_with('@') => literal(rest)?,
            // A pair outside of quotes is obsolete, and readers differ on it.
            '>' | '\\' => return Err(AuthorError::Unreadable),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length).ok_or(AuthorError::Unreadable)?;
        match first {
            '(' => list.comment(token, before, after.chars().next().unwrap_or(' '))?,
            '"' => list.quotes(token)?,
            '<' => list.angle(token)?,
            ',' => list.end_element()?,
            ':' => list.begin_group()?,
            ';' => list.end_group()?,
            _ => list.words(token)?,
        }
        before = token.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    list.end()
}

/// What only some senders write. Each by itself is read alike by all; of two together one reader or
/// another makes something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oddity {
    /// An `@`, brackets or an encoded word in a name without quotes.
    Name,
    /// A comma in such a name: `Doe, Jane <jane@example.com>`.
    Comma,
    /// More than words in a name's quotes.
    Quotes,
    /// A comment within a comment, or with more than words in it.
    Comment,
    /// White space, comments or a route within an address (RFC 5322 §4.4).
    Obsolete,
    /// A local-part in quotes.
    LocalPart,
    /// A group (RFC 6854).
    Group,
}

/// The one oddity that a field may have, however often.
#[derive(Default)]
struct Oddities(Option<Oddity>);

impl Oddities {
    fn note(&mut self, oddity: Oddity) -> Result<(), AuthorError> {
        match *self.0.get_or_insert(oddity) == oddity {
            true => Ok(()),
            false => Err(AuthorError::Unreadable),
        }
    }
}

/// What has been read of a field.
#[derive(Default)]
struct List<'a> {
    addresses: Vec<Address>,
    oddities: Oddities,
    element: Element<'a>,
    /// What came last is the front of a name with a comma in it, whose address follows.
    name_is_open: bool,
    is_in_group: bool,
}

/// What stands between two commas.
#[derive(Default)]
struct Element<'a> {
    /// What stands outside of angle brackets, with a space for each comment.
    text: String,
    /// What stands in them.
    angle: Option<&'a str>,
    /// Whether it has a comment out of which some reader takes an address where none stands in angle
    /// brackets.
    needs_angle: bool,
    /// Whether its quotes have more than words in them.
    has_odd_quotes: bool,
    /// Whether there is more than words outside of quotes, comments and angle brackets.
    has_odd_name: bool,
}

impl Element<'_> {
    fn push(&mut self, token: &str) -> Result<(), AuthorError> {
        // Some readers take what follows an address for the next one's name.
        if self.angle.is_some() && !token.trim_matches(BLANKS).is_empty() {
            return Err(AuthorError::Unreadable);
        }
        self.text.push_str(token);
        Ok(())
    }
}

impl<'a> List<'a> {
    /// A comment outside of angle brackets, and the characters beside it.
    fn comment(&mut self, comment: &str, before: char, after: char) -> Result<(), AuthorError> {
        let inner = inside(comment);
        let is_glued = !(BLANKS.contains(&before) || ",:;>".contains(before))
            || !(BLANKS.contains(&after) || ",:;<".contains(after));
        let has_more_than_words = inner.contains(['@', '<', '>', ';', '"', '[', ']']);
        let is_nested = inner.contains(['(', ')', '\\']);
        if has_more_than_words || is_nested {
            self.oddities.note(Oddity::Comment)?;
        }
        // Who does not nest comments finds the quote outside of them, and reads to the next.
        if is_nested && inner.contains('"') {
            return Err(AuthorError::Unreadable);
        }
        if is_glued {
            self.oddities.note(Oddity::Obsolete)?;
        }
        // Who does not nest comments reads on behind the first end.
        let mut rests = inner.split(')').skip(1);
        let is_split = rests.any(|rest| !rest.is_empty() && !rest.starts_with(BLANKS));
        self.element.needs_angle |= has_more_than_words || is_split;
        self.element.push(" ")
    }

    fn quotes(&mut self, token: &str) -> Result<(), AuthorError> {
        let inner = inside(token);
        // Of an address by itself they are the local-part.
        self.element.has_odd_quotes |=
            inner.contains(['<', '>', ';', ':', '(', ')', '[', ']', '\\']);
        self.element.push(token)
    }

    fn angle(&mut self, token: &'a str) -> Result<(), AuthorError> {
        let content = inside(token);
        // Who does not know of comments and quotes in brackets ends the address there.
        if self.element.angle.is_some() || content.contains(['<', '>']) {
            return Err(AuthorError::Unreadable);
        }
        self.element.angle = Some(content);
        Ok(())
    }

    fn words(&mut self, token: &str) -> Result<(), AuthorError> {
        self.element.has_odd_name |= token.contains(['@', '[', ']', ')']);
        self.element.push(token)
    }

    /// RFC 6854 allows groups in `From`. A name with an address in it could be one's author.
    fn begin_group(&mut self) -> Result<(), AuthorError> {
        self.oddities.note(Oddity::Group)?;
        let name = std::mem::take(&mut self.element);
        let is_name = name.angle.is_none() && !name.text.contains('@') && !name.text.contains("=?");
        match is_name && !self.name_is_open && !std::mem::replace(&mut self.is_in_group, true) {
            true => Ok(()),
            false => Err(AuthorError::Unreadable),
        }
    }

    fn end_group(&mut self) -> Result<(), AuthorError> {
        self.oddities.note(Oddity::Group)?;
        self.is_in_group = false;
        self.end_element()
    }

    fn end_element(&mut self) -> Result<(), AuthorError> {
        let element = std::mem::take(&mut self.element);
        let text = element.text.trim_matches(BLANKS);
        let address = match element.angle {
            Some(content) => {
                self.check_name(&element)?;
                address(content, Place::Brackets, &mut self.oddities)
            }
            // Only an address in brackets has such things before it.
            None if element.needs_angle || text.contains("=?") => {
                return Err(AuthorError::Unreadable);
            }
            None if text.contains('@') && !self.name_is_open => {
                address(text, Place::Bare, &mut self.oddities)
            }
            None if text.contains('@') => return Err(AuthorError::Unreadable),
            None if text.is_empty() => return Ok(()),
            None => {
                self.name_is_open = true;
                return self.oddities.note(Oddity::Comma);
            }
        };
        let address = address.ok_or(AuthorError::Unreadable)?;
        self.name_is_open = false;
        if self.addresses.len() >= MAX_ADDRESSES {
            return Err(AuthorError::Several);
        }
        self.addresses.push(address);
        Ok(())
    }

    fn check_name(&mut self, element: &Element<'_>) -> Result<(), AuthorError> {
        if element.has_odd_quotes {
            self.oddities.note(Oddity::Quotes)?;
        }
        let has_encoded_word = element.text.contains("=?") && !element.has_odd_quotes;
        if element.has_odd_name || has_encoded_word {
            self.oddities.note(Oddity::Name)?;
            // From an open bracket some read on as in a domain literal.
            if !has_whole_brackets(&element.text) {
                return Err(AuthorError::Unreadable);
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Address>, AuthorError> {
        self.end_element()?;
        match (self.addresses.is_empty(), self.name_is_open) {
            (false, false) => Ok(self.addresses),
            (true, false) => Err(AuthorError::None),
            (_, true) => Err(AuthorError::Unreadable),
        }
    }
}

/// What stands between the first octet and the last, which are delimiters.
fn inside(token: &str) -> &str {
    token.get(1..token.len() - 1).unwrap_or_default()
}

fn has_whole_brackets(text: &str) -> bool {
    let mut is_open = false;
    for c in text.chars().filter(|c| matches!(c, '[' | ']')) {
        if is_open == (c == '[') {
            return false;
        }
        is_open = !is_open;
    }
    !is_open
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
fn address(text: &str, place: Place, oddities: &mut Oddities) -> Option<Address> {
    // Some end an address at any white space that Unicode knows, and at U+FEFF, which JavaScript
    // takes for such. Who decodes first finds what an encoded word hides, or one that begins before
    // the bracket (RFC 2047 §5 has none in an address).
    let is_other_blank = |c: char| c.is_whitespace() && !BLANKS.contains(&c) || c == '\u{feff}';
    if text.contains(is_other_blank) || ["=?", "?="].iter().any(|it| text.contains(it)) {
        return None;
    }
    if text.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('(')) {
        return None;
    }
    let plain = without_comments(text)?;
    let written = without_route(plain.trim_matches(BLANKS))?;
    let at = last_at(written)?;
    let local_part = written.get(..at)?;
    let domain = written.get(at + 1..)?;
    let is_quoted = local_part.starts_with('"');
    let is_spaced = local_part.ends_with(BLANKS)
        || !is_quoted && local_part.contains(BLANKS)
        || domain.contains(BLANKS);
    if is_spaced || plain != text || written != plain.trim_matches(BLANKS) {
        oddities.note(Oddity::Obsolete).ok()?;
    }
    let domain = domain.trim_matches(BLANKS);
    let domain = match domain.strip_prefix('[') {
        // With white space in it, an address literal is not found whole by all.
        Some(_) if is_spaced => return None,
        Some(_) => Domain::parse(domain).ok()?,
        None if place == Place::Bare && domain.contains(BLANKS) => return None,
        None => domain_name(domain)?,
    };
    let local_part = match is_quoted {
        true => quoted_local_part(local_part.trim_end_matches(BLANKS), oddities)?.to_owned(),
        false => closed_up(local_part)?,
    };
    let address = Address::new(&local_part, domain)?;
    (address.local_part().len() <= MAX_LOCAL_PART).then_some(address)
}

/// There are readers who end an address at a bracket also in quotes, and a quoted string where a list
/// could go on.
fn quoted_local_part<'a>(text: &'a str, oddities: &mut Oddities) -> Option<&'a str> {
    oddities.note(Oddity::LocalPart).ok()?;
    let ends_early =
        text.contains(['<', '>']) || text.contains('@') && text.contains([',', ';', '(', ')']);
    (!ends_early).then_some(text)
}

/// `@a.test:bob@example.com`: a route (RFC 5322 §4.4) is ignored. Of one with several hosts some
/// readers take the last for the author's.
fn without_route(text: &str) -> Option<&str> {
    let Some(text) = text.strip_prefix('@') else { return Some(text) };
    let (route, rest) = text.split_once(':')?;
    let is_route = |c: char| c.is_ascii_alphanumeric() || "-._ \t".contains(c);
    route.chars().all(is_route).then(|| rest.trim_start_matches(BLANKS))
}

/// The only `@` that is not in quotes.
fn last_at(text: &str) -> Option<usize> {
    let quoted_length = if text.starts_with('"') { quoted(text).ok()? } else { 0 };
    let rest = text.get(quoted_length..)?;
    let (before, after) = rest.split_once('@')?;
    let is_only =
        !after.contains('@') && (quoted_length == 0 || before.trim_matches(BLANKS).is_empty());
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
    let parts: Vec<&str> = text.split('.').map(|part| part.trim_matches(BLANKS)).collect();
    let closed = parts.join(".");
    (!closed.is_empty() && !closed.contains(char::is_whitespace)).then_some(closed)
}

/// The text with a space for each comment; `None` if one does not end, or has more in it than words,
/// of which some readers make something.
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
        if first == '(' && inside(token).contains(|c| "@<>,;:\"[]()\\".contains(c)) {
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
            Some(b'<') => return Err(AuthorError::Unreadable),
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
