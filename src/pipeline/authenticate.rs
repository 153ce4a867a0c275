//! Stage: what the checks say of a message.

use super::receive::Headers;
use super::transaction::Transaction;
use crate::clock::Timestamp;
use crate::dns::Resolver;
use crate::mail::Verdict;
use crate::msgauth::{Authentication, Authenticator, Request};
use crate::scan::{self, ScanOutcome};
use std::sync::Arc;

/// A message whose verdicts are made. Nothing but this file makes one.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) transaction: Transaction,
    pub(super) content: Vec<u8>,
    pub(super) headers: Headers,
    pub(super) received_at: Timestamp,
    pub(super) verdicts: Verdicts,
}

/// All verdicts of a message.
#[derive(Debug)]
pub(super) struct Verdicts {
    pub(super) authentication: Authentication,
    pub(super) spam: ScanOutcome,
}

impl Verdicts {
    pub(super) fn is_spam(&self) -> bool {
        self.spam.verdict == Verdict::Fail
    }
}

/// The two kinds of checks, which run side by side.
pub(super) struct Checks {
    authenticator: Authenticator,
}

impl Checks {
    pub(super) fn new(resolver: Arc<dyn Resolver>, settings: crate::msgauth::Settings) -> Self {
        Self { authenticator: Authenticator::new(resolver, settings) }
    }

    /// Makes the verdicts. Bounded in time by the settings of either kind: what did not answer is
    /// PROCESSING_FAILED, and the message goes on.
    pub(super) async fn authenticate(
        &self,
        transaction: Transaction,
        content: Vec<u8>,
        headers: Headers,
        now: Timestamp,
    ) -> Authenticated {
        let request = Request {
            message: &content,
            peer: &transaction.peer,
            reverse_path: &transaction.reverse_path,
            trace_id: transaction.trace_id,
            now,
        };
        let recipients: Vec<_> = transaction
            .shares
            .iter()
            .flat_map(|share| &share.addressees)
            .map(|addressee| &addressee.recipient.address)
            .collect();
        let scanned = scan::Request {
            message: &content,
            peer: &transaction.peer,
            reverse_path: &transaction.reverse_path,
            recipients: &recipients,
            trace_id: transaction.trace_id,
        };
        let (authentication, spam) = tokio::join!(
            self.authenticator.authenticate(&request),
            scan::scan(transaction.snapshot.scanner.as_ref(), &scanned),
        );
        let verdicts = Verdicts { authentication, spam };
        Authenticated { transaction, content, headers, received_at: now, verdicts }
    }
}
