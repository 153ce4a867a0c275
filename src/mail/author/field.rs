//! The reading of a field with mailboxes in it (RFC 5322 §3.4), with what senders make of it.

use super::addr_spec::{Place, address};
use super::error::AuthorError;
use super::oddity::{Oddities, Oddity};
use super::token::{BLANKS, angle, comment, inside, literal, quoted};
use crate::mail::Address;

/// Addresses that are read from a field. RFC 5322 has no limit; nobody writes together with more.
pub(super) const MAX_ADDRESSES: usize = 100;

/// The addresses of a field's value, at least one.
pub(super) fn mailboxes(value: &str) -> Result<Vec<Address>, AuthorError> {
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
        // Who does not nest comments, or knows no pairs, reads on behind the first end as if the
        // rest stood outside, where an address counts and a quote reaches to the next.
        let behind_first_end = inner.split_once(')').map_or("", |(_, rest)| rest);
        if behind_first_end.contains(['@', '<', '>', ',', ';']) || is_nested && inner.contains('"')
        {
            return Err(AuthorError::Unreadable);
        }
        if is_glued {
            self.oddities.note(Oddity::Obsolete)?;
        }
        // What is glued to such an end becomes a part of a word beside it.
        let follows_address = self.element.text.contains('@');
        let mut rests = inner.split(')').skip(1);
        let is_split =
            rests.any(|rest| !rest.starts_with(BLANKS) && (!rest.is_empty() || follows_address));
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
