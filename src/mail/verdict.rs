//! The vocabulary in which checks report (`contracts.md` §2).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a check says of a message, in Amazon SES's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// The check passed.
    Pass,
    /// The check failed.
    Fail,
    /// There was nothing to check, or it was not conclusive.
    Gray,
    /// The check could not be made: DNS trouble, an unreadable record, a silent scanner.
    ProcessingFailed,
    /// The check is switched off.
    Disabled,
}

impl Verdict {
    /// The word, as it stands in events and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Gray => "GRAY",
            Self::ProcessingFailed => "PROCESSING_FAILED",
            Self::Disabled => "DISABLED",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A DMARC policy (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DmarcPolicy {
    /// Nothing is asked.
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

impl DmarcPolicy {
    /// The word, as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Quarantine => "QUARANTINE",
            Self::Reject => "REJECT",
        }
    }
}
