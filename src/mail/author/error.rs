//! What every step of the reading may end with.

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
