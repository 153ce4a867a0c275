//! Why a message is not taken, and where in it the reason is.

use crate::smtp::reason::Reason;

/// A reason, with the line or part of the message that it is about if it is about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: Reason,
    pub(super) place: Option<String>,
}

impl Rejection {
    pub(super) fn at(reason: Reason, place: String) -> Self {
        Self { reason, place: Some(place) }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, place: None }
    }
}
