//! Mail of our own, as its trace tells it: what it is, and which message it is about. It is
//! recorded with the mail itself, because nothing else leads from one to the other.

use serde::{Deserialize, Serialize};

use crate::id::TraceId;
use crate::mail::Address;
use crate::pipeline::facts::signatures::Signatures;
use crate::pipeline::record::story::written;
use crate::store::Story;

/// What mail of our own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnMailKind {
    /// A delivery status notification.
    Report,
    /// A notice to a user or to the report address.
    Notice,
    /// A journal record.
    JournalRecord,
}

/// The story of mail of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnMail {
    /// What it is.
    pub own_mail: OwnMailKind,
    /// The trace of what it is about.
    pub about: TraceId,
    /// Whom it is for.
    pub to: Address,
    /// Its signatures, if it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Signatures>,
}

impl OwnMail {
    /// As it is recorded, under its own trace. An event leads to what stays here, and the index to
    /// what leaves.
    pub(in crate::pipeline) fn story(&self, id: TraceId, leaves: bool) -> Story {
        written(id, self, leaves)
    }
}
