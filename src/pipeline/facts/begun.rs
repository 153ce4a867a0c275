//! What is known of a message before its first octet: who brings it, and what MAIL said.

use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::id::TraceId;
use crate::mail::{MailParameters, Peer, ReversePath};

/// What MAIL began, and under which rules.
#[derive(Debug)]
pub(in crate::pipeline) struct Begun {
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) snapshot: Arc<Snapshot>,
    pub(in crate::pipeline) peer: Peer,
    pub(in crate::pipeline) reverse_path: ReversePath,
    pub(in crate::pipeline) parameters: MailParameters,
}
