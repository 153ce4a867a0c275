//! Stage: what the checks say of a message.

use super::outgoing::{Dispatched, Outgoing};
use super::receive::Headers;
use super::transaction::Transaction;
use crate::clock::Timestamp;
use crate::dns::Resolver;
use crate::mail::{Address, Verdict};
use crate::msgauth::{Authentication, Authenticator, Request};
use crate::scan::{self, ScanFaults, ScanOutcome};
use crate::smtp::reason::Reason;
use std::sync::Arc;

/// A message whose verdicts are made. Nothing but this file makes one.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) transaction: Transaction,
    pub(super) content: Vec<u8>,
    pub(super) headers: Headers,
    pub(super) received_at: Timestamp,
    pub(super) verdicts: Verdicts,
    /// The outbound half of a submitted message.
    pub(super) outgoing: Option<Box<Outgoing>>,
}

/// All verdicts of a message.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// `None` for a message that a user here has submitted: who wrote it is known by the login.
    pub(super) authentication: Option<Authentication>,
    pub(super) spam: ScanOutcome,
}

impl Verdicts {
    pub(super) fn spf(&self) -> Verdict {
        self.authentication.as_ref().map_or(Verdict::Pass, Authentication::spf_verdict)
    }

    /// What is delivered here without leaving bears no signature.
    pub(super) fn dkim(&self) -> Verdict {
        self.authentication.as_ref().map_or(Verdict::Gray, Authentication::dkim_verdict)
    }

    pub(super) fn dmarc(&self) -> Verdict {
        self.authentication.as_ref().map_or(Verdict::Pass, Authentication::dmarc_verdict)
    }

    pub(super) fn is_spam(&self) -> bool {
        self.spam.verdict == Verdict::Fail
    }
}

/// The two kinds of checks, which run side by side.
pub(super) struct Checks {
    authenticator: Authenticator,
    faults: ScanFaults,
}

impl Checks {
    pub(super) fn new(resolver: Arc<dyn Resolver>, settings: crate::msgauth::Settings) -> Self {
        Self {
            authenticator: Authenticator::new(resolver, settings),
            faults: ScanFaults::default(),
        }
    }

    /// Makes the verdicts. Bounded in time by the settings of either kind: what did not answer is
    /// PROCESSING_FAILED, and the message goes on.
    ///
    /// # Errors
    /// DMARC judged another author than the one whom rules and events see. A `From` field that is
    /// not understood by all, such as one whose line does not end before the message does (BDAT),
    /// would else be a way around the policy of its domain.
    pub(super) async fn authenticate(
        &self,
        transaction: Transaction,
        content: Vec<u8>,
        headers: Headers,
        now: Timestamp,
    ) -> Result<Authenticated, Reason> {
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
        self.faults.tell(&spam, now);
        if !is_author(&headers, authentication.dmarc.domain.as_deref()) {
            return Err(Reason::AmbiguousAuthor);
        }
        let verdicts = Verdicts { authentication: Some(authentication), spam };
        let outgoing = None;
        Ok(Authenticated { transaction, content, headers, received_at: now, verdicts, outgoing })
    }
}

impl Authenticated {
    /// A submitted message: it came from a user of ours, who may write as its author, so there is
    /// nothing to check, and it is not scanned.
    pub(super) fn submitted(message: Dispatched) -> Self {
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

/// Whether the author's domain is the one that was judged. Nobody has a policy for an address
/// literal.
fn is_author(headers: &Headers, judged: Option<&str>) -> bool {
    let author = headers.from.as_ref().map(Address::domain);
    author
        .filter(|domain| !domain.is_literal())
        .is_none_or(|author| judged == Some(author.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_author_is_the_one_who_was_judged() {
        let check = |from: &str, judged: Option<&str>, expected: bool| {
            let headers = Headers { from: Address::parse(from).ok(), ..Headers::default() };
            assert_eq!(is_author(&headers, judged), expected, "{from} {judged:?}");
        };
        check("a@b.test", Some("b.test"), true);
        check("a@B.test", Some("b.test"), true);
        check("a@[192.0.2.1]", None, true);
        check("", Some("b.test"), true);
        check("", None, true);
        check("a@b.test", Some("c.test"), false);
        check("a@b.test", None, false);
    }
}
