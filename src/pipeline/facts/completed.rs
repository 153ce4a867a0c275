//! A message that a user submits, once it is whole (RFC 6409 §8).

use super::headers::Headers;
use super::rejection::Rejection;
use crate::clock::Timestamp;

/// The message as it will leave, but for what is signed.
#[derive(Debug)]
pub(in crate::pipeline) struct Completed {
    /// Without `Bcc`.
    pub(in crate::pipeline) content: Vec<u8>,
    /// Fields that were missing, to be put on top: `Date`, `Message-ID`, `Sender`.
    pub(in crate::pipeline) added: Vec<u8>,
    pub(in crate::pipeline) headers: Headers,
    pub(in crate::pipeline) submitted_at: Timestamp,
    /// Why nobody gets it, if nobody may.
    pub(in crate::pipeline) veto: Option<Rejection>,
}
