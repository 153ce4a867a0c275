//! What a client and the pipeline speak about between MAIL and the message.

use std::sync::Arc;

use super::facts::transaction::Transaction;
use super::inbound::authenticate::Checks;
use super::outbound::submission::Submission;
use crate::id::TraceId;
use crate::mail::{Peer, ReversePath};

/// A mail transaction, from MAIL to the message or its end.
#[derive(Debug)]
pub enum MailTransaction {
    /// Of another server.
    Relayed(Relayed),
    /// Of a user who has logged in.
    Submitted(Submission),
}

/// Of another server, with the checks that were in force when it began.
#[derive(Debug)]
pub struct Relayed {
    pub(super) transaction: Transaction,
    pub(super) checks: Arc<Checks>,
}

impl MailTransaction {
    pub(super) fn trace_id(&self) -> TraceId {
        match self {
            Self::Relayed(relayed) => relayed.transaction.trace_id,
            Self::Submitted(submission) => submission.trace_id,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        match self {
            Self::Relayed(relayed) => &relayed.transaction.peer,
            Self::Submitted(submission) => &submission.peer,
        }
    }

    pub(super) fn reverse_path(&self) -> &ReversePath {
        match self {
            Self::Relayed(relayed) => &relayed.transaction.reverse_path,
            Self::Submitted(submission) => &submission.reverse_path,
        }
    }
}
