//! The two roads that a message comes by, and what is known of it on one of them alone.

use super::outgoing::Outgoing;
use super::transaction::FullMailbox;
use super::verdicts::{Proof, Verdicts};
use crate::mail::{DmarcPolicy, Domain, Verdict};

/// How a message has come.
#[derive(Debug)]
pub(in crate::pipeline) enum Road {
    /// From another server, which may be anybody's.
    Received(Box<Arrival>),
    /// From a user here who has logged in: who wrote it is known, so there is nothing to check. This
    /// is its outbound half.
    Submitted(Box<Outgoing>),
}

/// What is known of a message that another server has brought.
#[derive(Debug)]
pub(in crate::pipeline) struct Arrival {
    pub(in crate::pipeline) verdicts: Verdicts,
    /// Recipients refused because their mailbox is full: they bounced, whatever follows.
    pub(in crate::pipeline) full: Vec<FullMailbox>,
}

impl Road {
    pub(in crate::pipeline) fn spf(&self) -> Verdict {
        match self {
            Self::Received(arrival) => arrival.verdicts.authentication.spf_verdict(),
            Self::Submitted(_) => Verdict::Pass,
        }
    }

    /// What is delivered here without leaving bears no signature.
    pub(in crate::pipeline) fn dkim(&self) -> Verdict {
        match self {
            Self::Received(arrival) => arrival.verdicts.authentication.dkim_verdict(),
            Self::Submitted(_) => Verdict::Gray,
        }
    }

    pub(in crate::pipeline) fn dmarc(&self) -> Verdict {
        match self {
            Self::Received(arrival) => arrival.verdicts.authentication.dmarc_verdict(),
            Self::Submitted(_) => Verdict::Pass,
        }
    }

    /// The policy that the author's domain has for this message, `pct` taken into account, if it did
    /// not meet it.
    pub(in crate::pipeline) fn failed_policy(&self) -> Option<DmarcPolicy> {
        match self {
            Self::Received(arrival) if self.dmarc() == Verdict::Fail => {
                arrival.verdicts.authentication.dmarc.applied
            }
            Self::Received(_) | Self::Submitted(_) => None,
        }
    }

    /// What the scanner says; what users here submit is not scanned.
    pub(in crate::pipeline) fn spam(&self) -> Verdict {
        match self {
            Self::Received(arrival) => arrival.verdicts.spam.verdict,
            Self::Submitted(_) => Verdict::Disabled,
        }
    }

    /// What proves that the message comes from a domain, if anything does.
    pub(in crate::pipeline) fn proof_of(&self, domain: &Domain) -> Option<Proof> {
        match self {
            Self::Received(arrival) => arrival.verdicts.proof_of(domain),
            Self::Submitted(_) => Some(Proof::Login),
        }
    }

    /// Fields that a submitted message lacked: they are a part of it wherever it goes.
    pub(in crate::pipeline) fn added(&self) -> &[u8] {
        match self {
            Self::Received(_) => &[],
            Self::Submitted(outgoing) => &outgoing.added,
        }
    }

    /// Recipients of other servers' mail that bounced at RCPT.
    pub(in crate::pipeline) fn full(&self) -> &[FullMailbox] {
        match self {
            Self::Received(arrival) => &arrival.full,
            Self::Submitted(_) => &[],
        }
    }
}
