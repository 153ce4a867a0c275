//! Stage: what the checks say of a message.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::dns::Resolver;
use crate::heavy::Weight;
use crate::mail::author_domains;
use crate::msgauth::{Authenticator, Organization, Request};
use crate::pipeline::facts::headers::Headers;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::transaction::{Share, Transaction, expanded};
use crate::pipeline::facts::verdicts::Verdicts;
use crate::pipeline::outbound::dispatch::Dispatched;
use crate::scan::{self, ScanFaults};
use crate::smtp::reason::Reason;

/// A message whose verdicts are made. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Authenticated {
    mail: Judged,
    shares: Vec<Share>,
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
            peer: transaction.peer(),
            reverse_path: transaction.reverse_path(),
            authors: headers.authors(),
            trace_id: transaction.trace_id(),
            now,
        };
        let recipients: Vec<_> = transaction.recipients().collect();
        let scanned = scan::Request {
            message: &content,
            peer: transaction.peer(),
            reverse_path: transaction.reverse_path(),
            recipients: &recipients,
            trace_id: transaction.trace_id(),
        };
        let (authentication, spam) = tokio::join!(
            self.authenticator.authenticate(&request),
            scan::scan(transaction.snapshot().scanner.as_ref(), &scanned),
        );
        self.faults.tell(&spam, now);
        let verdicts = Verdicts { authentication, spam };
        let (mail, shares) = Judged::received(transaction, content, headers, verdicts, now);
        Authenticated { mail, shares }
    }
}

impl Authenticated {
    /// A submitted message: it came from a user of ours, who may write as its author, so there is
    /// nothing to check, and it is not scanned.
    pub(in crate::pipeline) fn submitted(message: Dispatched) -> Self {
        let (mail, shares) = message.into_parts();
        Self { mail, shares }
    }

    /// Whether the authors are of one organization, as far as DNS tells (RFC 9989 §4.10.2). One domain
    /// is, without a question, and who has submitted it was asked for the right of each.
    ///
    /// # Errors
    /// They are of several, or DNS does not tell now.
    pub(in crate::pipeline) fn check_organization(&self) -> Result<(), Reason> {
        let Road::Received(arrival) = self.mail.road() else { return Ok(()) };
        if author_domains(self.mail.headers().authors()).len() <= 1 {
            return Ok(());
        }
        match &arrival.verdicts.authentication.dmarc.organization {
            Organization::Shared(_) => Ok(()),
            Organization::Untold => Err(Reason::AuthorsUnconfirmed),
            Organization::Several | Organization::OfOneDomain(_) => Err(Reason::SeveralAuthors),
        }
    }

    /// The mailboxes and addresses elsewhere that its recipients lead to.
    pub(in crate::pipeline) fn expanded(&self) -> usize {
        expanded(&self.shares)
    }

    pub(in crate::pipeline) fn into_parts(self) -> (Judged, Vec<Share>) {
        (self.mail, self.shares)
    }
}
