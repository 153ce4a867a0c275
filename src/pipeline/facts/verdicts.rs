//! What the checks say of a message, and what that proves.

use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::msgauth::spf::SpfResult;
use crate::msgauth::{Authentication, DkimResult, DmarcResult};
use crate::scan::ScanOutcome;

/// All verdicts of a message that another server has brought.
#[derive(Debug)]
pub(in crate::pipeline) struct Verdicts {
    pub(in crate::pipeline) authentication: Authentication,
    pub(in crate::pipeline) spam: ScanOutcome,
}

/// What proves that the `Sender` field tells the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
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
    pub(in crate::pipeline) fn proof_of(&self, domain: &Domain) -> Option<Proof> {
        let authentication = &self.authentication;
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
