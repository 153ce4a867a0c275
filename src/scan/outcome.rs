//! What a scan comes to.

use serde::{Deserialize, Serialize};

use crate::mail::Verdict;

/// What the scanner says of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanOutcome {
    /// FAIL is spam, GRAY undecided, DISABLED not scanned.
    pub verdict: Verdict,
    /// The scanner's points; absent if it gave none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// From how many points on it calls a message spam.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub required: Option<f64>,
    /// What led to the verdict: the scanner's own word for it, or what went wrong.
    pub detail: String,
}

impl ScanOutcome {
    /// For mail that users here have submitted, which is not scanned.
    pub fn not_scanned() -> Self {
        Self::without_score(Verdict::Disabled, "submitted mail is not scanned")
    }

    pub(super) fn without_score(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { verdict, score: None, required: None, detail: detail.into() }
    }
}

/// Why a scanner's answer cannot be used. All of them are PROCESSING_FAILED; mail flows.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("the scanner cannot be reached: {0}")]
    Connection(#[from] std::io::Error),
    #[error("the scanner did not answer in time")]
    TimedOut,
    #[error("the scanner broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the scanner answered {0}")]
    Status(String),
    #[error("the scanner's answer is longer than {MAX_ANSWER} octets")]
    TooLong,
    #[error("the scanner's answer cannot be read")]
    Unreadable,
}

/// The longest answer read, in octets; real ones have a few thousand.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// The longest word of a scanner's that is kept, in characters.
const MAX_WORD: usize = 60;

/// A scanner's word, fit to be kept and shown.
pub(super) fn word(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect()
}
