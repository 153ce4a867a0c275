//! What authentication finds out about a message, and the verdicts that follow from it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::spf::{SpfOutcome, SpfResult};
use super::tree_walk::TreeWalk;
use crate::mail::{DmarcPolicy, Verdict};

/// All that authentication found out about one message. It is kept in the durable record, so
/// that the story of a message can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// SPF (RFC 7208).
    pub spf: SpfOutcome,
    /// DKIM (RFC 6376): each signature looked at, in the order of the header.
    pub dkim: Vec<DkimOutcome>,
    /// DMARC (RFC 9989).
    pub dmarc: DmarcOutcome,
    /// ARC (RFC 8617).
    pub arc: ArcOutcome,
    /// The client's reverse name (RFC 8601 §2.7.3).
    pub iprev: IprevOutcome,
}

/// The result for one signature, in the words of RFC 8601 §2.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DkimResult {
    /// The signature is valid.
    Pass,
    /// The signature is not valid for this message.
    Fail,
    /// It failed, but its key says that the domain is only testing (RFC 6376 §3.6.1, `t=y`).
    Neutral,
    /// We do not accept such signatures.
    Policy,
    /// The key could not be looked up.
    TempError,
    /// The signature or its key cannot be interpreted, or there is no key.
    PermError,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DkimOutcome {
    /// `d=`, the signing domain; empty if it cannot be read.
    pub domain: String,
    /// `s=`, the selector; empty if it cannot be read.
    pub selector: String,
    /// `i=`, on whose behalf it is signed; `@` and the domain if it does not say.
    pub identity: String,
    /// `a=`, for example `rsa-sha256`; empty if it cannot be read.
    pub algorithm: String,
    /// The result.
    pub result: DkimResult,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The result of DMARC, in the words that RFC 9989 has in the Authentication-Results registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcResult {
    /// No policy applies.
    None,
    /// An aligned identifier passed.
    Pass,
    /// None did.
    Fail,
    /// DNS trouble.
    TempError,
    /// The policy cannot be interpreted.
    PermError,
}

/// The policy of the author's domain, and whether the message meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmarcOutcome {
    /// The result.
    pub result: DmarcResult,
    /// The author's domain, in lower-case A-label form, of several the one whose policy counts;
    /// absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<String>,
    /// The policy published for this author's domain: `p`, `sp` or `np`, one step milder under
    /// `t=y`. Absent if none is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<DmarcPolicy>,
    /// The policy for this very message, after `pct` sampling. Absent if none is published.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub applied: Option<DmarcPolicy>,
    /// `pct` of the record (RFC 7489 §6.3), 100 if it has none.
    pub pct: u8,
    /// What went wrong, for temperror, permerror, and a none that is not for want of a record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whose the authors' domains are. A record has it only where several are one organization's.
    #[serde(skip_serializing_if = "Organization::is_not_shared", default)]
    pub organization: Organization,
}

/// The organization that the authors' domains are of (RFC 9989 §4.10.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Option<String>", from = "Option<String>")]
pub enum Organization {
    /// There is one domain, or none. Whose it is, its walk knows.
    OfOneDomain(TreeWalk),
    /// There are several, all of the organization with this domain.
    Shared(String),
    /// They are of several organizations.
    Several,
    /// DNS does not tell now whether they are.
    Untold,
}

impl Organization {
    /// The organizational domain that several domains have in common.
    pub fn shared(&self) -> Option<&str> {
        match self {
            Self::Shared(domain) => Some(domain),
            Self::OfOneDomain(_) | Self::Several | Self::Untold => None,
        }
    }

    fn is_not_shared(&self) -> bool {
        self.shared().is_none()
    }
}

impl Default for Organization {
    fn default() -> Self {
        Self::OfOneDomain(TreeWalk::default())
    }
}

impl From<Option<String>> for Organization {
    fn from(shared: Option<String>) -> Self {
        shared.map_or_else(Self::default, Self::Shared)
    }
}

impl From<Organization> for Option<String> {
    fn from(organization: Organization) -> Self {
        organization.shared().map(str::to_owned)
    }
}

impl DmarcOutcome {
    /// The organizational domain of the authors, as far as DNS tells it.
    pub fn organizational_domain(&self) -> Option<&str> {
        match &self.organization {
            Organization::OfOneDomain(walk) => walk.organizational_domain(self.domain.as_deref()?),
            Organization::Shared(domain) => Some(domain),
            Organization::Several | Organization::Untold => None,
        }
    }

    /// What the author's domain asks for this message: its policy if the message failed, nothing
    /// otherwise.
    pub fn requested(&self) -> DmarcPolicy {
        match (self.result, self.applied) {
            (DmarcResult::Fail, Some(policy)) => policy,
            _ => DmarcPolicy::None,
        }
    }
}

/// The result of an ARC chain, in the words of RFC 8617 §10.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArcResult {
    /// There is no chain.
    None,
    /// The chain is valid.
    Pass,
    /// It is not.
    Fail,
    /// A key could not be looked up.
    TempError,
    /// There is no key, or it cannot be interpreted.
    PermError,
}

/// The ARC chain. It is reported and overrides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArcOutcome {
    /// The result.
    pub result: ArcResult,
    /// How many sets the chain has.
    pub instances: usize,
    /// The domain of the newest seal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sealer: Option<String>,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The result of the reverse lookup, in the words of RFC 8601 §2.7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IprevResult {
    /// A name of the address leads back to it.
    Pass,
    /// The names that it has do not.
    Fail,
    /// DNS trouble.
    TempError,
    /// It has no name.
    PermError,
}

/// The client's reverse name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IprevOutcome {
    /// The result.
    pub result: IprevResult,
    /// The client's address.
    pub ip: IpAddr,
    /// The first name that leads back to the address: letters, digits, hyphens, underscores and
    /// dots, lower case. Present exactly on a pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

impl Authentication {
    /// pass → PASS; fail, softfail → FAIL; none, neutral → GRAY; errors → PROCESSING_FAILED.
    pub fn spf_verdict(&self) -> Verdict {
        match self.spf.result {
            SpfResult::Pass => Verdict::Pass,
            SpfResult::Fail | SpfResult::SoftFail => Verdict::Fail,
            SpfResult::None | SpfResult::Neutral => Verdict::Gray,
            SpfResult::TempError | SpfResult::PermError => Verdict::ProcessingFailed,
        }
    }

    /// Any valid signature → PASS; unsigned → GRAY; a key lookup failed → PROCESSING_FAILED;
    /// signed but none valid → FAIL. RFC 6376 §3.6.1: failed signatures of a domain that is only
    /// testing count as none.
    pub fn dkim_verdict(&self) -> Verdict {
        let any = |result| self.dkim.iter().any(|signature| signature.result == result);
        if any(DkimResult::Pass) {
            Verdict::Pass
        } else if any(DkimResult::TempError) {
            Verdict::ProcessingFailed
        } else if self.dkim.iter().all(|signature| signature.result == DkimResult::Neutral) {
            Verdict::Gray
        } else {
            Verdict::Fail
        }
    }

    /// pass → PASS; fail → FAIL; none → GRAY; errors → PROCESSING_FAILED.
    pub fn dmarc_verdict(&self) -> Verdict {
        match self.dmarc.result {
            DmarcResult::Pass => Verdict::Pass,
            DmarcResult::Fail => Verdict::Fail,
            DmarcResult::None => Verdict::Gray,
            DmarcResult::TempError | DmarcResult::PermError => Verdict::ProcessingFailed,
        }
    }
}

impl DkimResult {
    /// The word of RFC 8601 §2.7.1.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl DmarcResult {
    /// The word of the Authentication-Results registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl ArcResult {
    /// The word of the Authentication-Results registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl IprevResult {
    /// The word of RFC 8601 §2.7.3.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}
