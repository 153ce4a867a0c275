//! What a client and the pipeline speak about between MAIL and the message.

use std::sync::Arc;

use super::facts::transaction::Transaction;
use super::inbound::authenticate::Checks;
use super::outbound::submission::Submission;
use crate::id::TraceId;
use crate::mail::{Peer, ReversePath};
use crate::store::Coming;

/// A mail transaction, from MAIL to the answer to its message or its end.
#[derive(Debug)]
pub struct MailTransaction {
    pub(super) kind: TransactionKind,
    /// The store expects it.
    pub(super) coming: Coming,
}

/// Whose transaction it is.
#[derive(Debug)]
pub(super) enum TransactionKind {
    /// Of another server.
    Relayed(Relayed),
    /// Of a user who has logged in.
    Submitted(Submission),
}

/// Of another server, with the checks that were in force when it began.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) transaction: Transaction,
    pub(super) checks: Arc<Checks>,
}

impl MailTransaction {
    pub(super) fn trace_id(&self) -> TraceId {
        match &self.kind {
            TransactionKind::Relayed(relayed) => relayed.transaction.trace_id(),
            TransactionKind::Submitted(submission) => submission.trace_id(),
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        match &self.kind {
            TransactionKind::Relayed(relayed) => relayed.transaction.peer(),
            TransactionKind::Submitted(submission) => submission.peer(),
        }
    }

    pub(super) fn reverse_path(&self) -> &ReversePath {
        match &self.kind {
            TransactionKind::Relayed(relayed) => relayed.transaction.reverse_path(),
            TransactionKind::Submitted(submission) => submission.reverse_path(),
        }
    }
}
