//! Stage: what the checks say of a message.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::outgoing::{Dispatched, Outgoing};
use super::receive::Headers;
use super::transaction::Transaction;
use crate::clock::Timestamp;
use crate::dns::Resolver;
use crate::heavy::Weight;
use crate::mail::{Domain, Verdict, author_domains};
use crate::msgauth::spf::SpfResult;
use crate::msgauth::{Authentication, Authenticator, DkimResult, DmarcResult, Request};
use crate::scan::{self, ScanFaults, ScanOutcome};
use crate::smtp::reason::Reason;

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

    /// The organizational domain of authors who did not pass DMARC, as far as DNS tells it.
    pub(super) fn author_organization(&self) -> Option<&str> {
        let dmarc = &self.authentication.as_ref()?.dmarc;
        dmarc.organization.as_deref().or(dmarc.author_organization.as_deref())
    }

    pub(super) fn is_spam(&self) -> bool {
        self.spam.verdict == Verdict::Fail
    }
}

/// What proves that the `Sender` field tells the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Proof {
    /// A user here has logged in, and may send as whom the field names.
    Login,
    /// A valid signature of the domain.
    Dkim,
    /// The domain's SPF record has the client.
    Spf,
    /// The domain is that of the author, who passed DMARC.
    Dmarc,
}

impl Verdicts {
    /// What proves that a message comes from a domain, if anything does: an identifier that is
    /// aligned with it (RFC 9989 §4.4). Unlike DMARC this asks nobody for organizational domains:
    /// one of the two is the other, or is below it.
    pub(super) fn proof_of(&self, domain: &Domain) -> Option<Proof> {
        let Some(authentication) = &self.authentication else { return Some(Proof::Login) };
        let signatures = authentication.dkim.iter();
        let mut valid = signatures.filter(|signature| signature.result == DkimResult::Pass);
        let spf = &authentication.spf;
        let dmarc = &authentication.dmarc;
        let author = dmarc.domain.as_deref().filter(|_| dmarc.result == DmarcResult::Pass);
        if valid.any(|signature| is_aligned(&signature.domain, domain)) {
            Some(Proof::Dkim)
        } else if spf.result == SpfResult::Pass && is_aligned(&spf.domain, domain) {
            Some(Proof::Spf)
        } else if author.is_some_and(|author| is_aligned(author, domain)) {
            Some(Proof::Dmarc)
        } else {
            None
        }
    }
}

/// Nobody speaks for all names below a domain of one label.
fn is_aligned(identifier: &str, domain: &Domain) -> bool {
    let Ok(identifier) = Domain::parse(identifier) else { return false };
    let has_owner = |domain: &Domain| !domain.is_literal() && domain.as_str().contains('.');
    has_owner(&identifier)
        && has_owner(domain)
        && (identifier.is_within(domain) || domain.is_within(&identifier))
}

/// The two kinds of checks, which run side by side.
pub(super) struct Checks {
    authenticator: Authenticator,
    faults: ScanFaults,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
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
    pub(super) async fn authenticate(
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
    pub(super) fn check_organization(&self) -> Result<(), Reason> {
        if author_domains(&self.headers.authors).len() <= 1 {
            return Ok(());
        }
        match self.verdicts.authentication.as_ref().map(|found| &found.dmarc) {
            Some(dmarc) if dmarc.organization.is_some() => Ok(()),
            Some(dmarc) if dmarc.is_organization_unknown => Err(Reason::AuthorsUnconfirmed),
            Some(_) | None => Err(Reason::SeveralAuthors),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_vouches_for_a_name_owns_it_or_one_of_its_parents() {
        let check = |identifier: &str, domain: &str, expected: bool| {
            let domain = Domain::parse(domain).expect("a domain");
            assert_eq!(is_aligned(identifier, &domain), expected, "{identifier} {domain}");
        };
        check("b.test", "b.test", true);
        check("B.test", "b.test", true);
        check("xn--bcher-kva.test", "bücher.test", true);
        check("bounce.b.test", "b.test", true);
        check("b.test", "news.b.test", true);
        check("news.b.test", "mail.b.test", false);
        check("xb.test", "b.test", false);
        check("b.test", "xb.test", false);
        check("test", "b.test", false);
        check("b.test", "test", false);
        check("", "b.test", false);
        check("[192.0.2.1]", "[192.0.2.1]", false);
    }
}
