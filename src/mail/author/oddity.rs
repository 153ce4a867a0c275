//! What only some senders write, of which readers agree on one kind at a time.

use super::error::AuthorError;

/// What only some senders write. Each by itself is read alike by all; of two together one reader or
/// another makes something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    /// An `@`, brackets or an encoded word in a name without quotes.
    Name,
    /// A comma in such a name: `Doe, Jane <jane@example.com>`.
    Comma,
    /// More than words in a name's quotes.
    Quotes,
    /// A comment within a comment, or with more than words in it.
    Comment,
    /// White space, comments or a route within an address (RFC 5322 §4.4), or a dot at its end: who
    /// finds no address there looks for one in the name.
    Obsolete,
    /// A local-part in quotes.
    LocalPart,
    /// A group (RFC 6854).
    Group,
}

/// The one oddity that a field may have, however often.
#[derive(Default)]
pub(super) struct Oddities(Option<Oddity>);

impl Oddities {
    /// Takes note of one.
    ///
    /// # Errors
    /// [`AuthorError::Unreadable`] beside one of another kind.
    pub(super) fn note(&mut self, oddity: Oddity) -> Result<(), AuthorError> {
        match *self.0.get_or_insert(oddity) == oddity {
            true => Ok(()),
            false => Err(AuthorError::Unreadable),
        }
    }
}
