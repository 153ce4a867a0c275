//! Stage: what the checks say of a message.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::dns::Resolver;
use crate::heavy::Weight;
use crate::mail::author_domains;
use crate::msgauth::{Authenticator, Organization, Request};
use crate::pipeline::facts::headers::Headers;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::transaction::Transaction;
use crate::pipeline::facts::verdicts::Verdicts;
use crate::pipeline::outbound::dispatch::Dispatched;
use crate::scan::{self, ScanFaults, ScanOutcome};
use crate::smtp::reason::Reason;

/// A message whose verdicts are made. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Authenticated {
    pub(in crate::pipeline) transaction: Transaction,
    pub(in crate::pipeline) content: Vec<u8>,
    pub(in crate::pipeline) headers: Headers,
    pub(in crate::pipeline) received_at: Timestamp,
    pub(in crate::pipeline) verdicts: Verdicts,
    /// The outbound half of a submitted message.
    pub(in crate::pipeline) outgoing: Option<Box<Outgoing>>,
}

/// The two kinds of checks, which run side by side.
pub(in crate::pipeline) struct Checks {
    authenticator: Authenticator,
    faults: ScanFaults,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Checks {
    pub(in crate::pipeline) fn new(
        resolver: Arc<dyn Resolver>,
        settings: crate::msgauth::Settings,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(resolver, settings),
            faults: ScanFaults::default(),
        }
    }

    /// Makes the verdicts. Bounded in time by the settings of either kind: what did not answer is
    /// PROCESSING_FAILED, and the message goes on.
    pub(in crate::pipeline) async fn authenticate(
        &self,
        transaction: Transaction,
        content: Vec<u8>,
        headers: Headers,
        weight: Weight,
        now: Timestamp,
    ) -> Authenticated {
        let request = Request {
            message: &content,
            weight,
            peer: &transaction.peer,
            reverse_path: &transaction.reverse_path,
            authors: &headers.authors,
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
        self.faults.tell(&spam, now);
        let verdicts = Verdicts { authentication: Some(authentication), spam };
        let outgoing = None;
        Authenticated { transaction, content, headers, received_at: now, verdicts, outgoing }
    }
}

impl Authenticated {
    /// Whether the authors are of one organization, as far as DNS tells (RFC 9989 §4.10.2). One domain
    /// is, without a question.
    ///
    /// # Errors
    /// They are of several, or DNS does not tell now.
    pub(in crate::pipeline) fn check_organization(&self) -> Result<(), Reason> {
        if author_domains(&self.headers.authors).len() <= 1 {
            return Ok(());
        }
        match self.verdicts.authentication.as_ref().map(|found| &found.dmarc.organization) {
            Some(Organization::Shared(_)) => Ok(()),
            Some(Organization::Untold) => Err(Reason::AuthorsUnconfirmed),
            Some(Organization::Several | Organization::OfOneDomain(_)) | None => {
                Err(Reason::SeveralAuthors)
            }
        }
    }

    /// A submitted message: it came from a user of ours, who may write as its author, so there is
    /// nothing to check, and it is not scanned.
    pub(in crate::pipeline) fn submitted(message: Dispatched) -> Self {
        let Dispatched { outgoing, inbound, content, headers, submitted_at } = message;
        let verdicts = Verdicts { authentication: None, spam: ScanOutcome::not_scanned() };
        Self {
            transaction: inbound,
            content,
            headers,
            received_at: submitted_at,
            verdicts,
            outgoing: Some(Box::new(outgoing)),
        }
    }
}
