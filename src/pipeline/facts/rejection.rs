//! Why a message is not taken, and where in it the reason is.

use crate::smtp::reason::Reason;

/// A reason, with the line or part of the message that it is about if it is about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct Rejection {
    pub(in crate::pipeline) reason: Reason,
    pub(in crate::pipeline) place: Option<String>,
}

impl Rejection {
    pub(in crate::pipeline) fn at(reason: Reason, place: String) -> Self {
        Self { reason, place: Some(place) }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, place: None }
    }
}
