//! What the operator sets for message authentication.

use std::time::Duration;

/// Settings of message authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our name in `Authentication-Results` (RFC 8601 §2.5): the daemon's hostname.
    pub authserv_id: String,
    /// `verdicts.deadline_ms`: for all DNS lookups of one message together.
    pub deadline: Duration,
    /// `verdicts.max_signatures`: DKIM signatures of a message that are verified; the rest are
    /// ignored.
    pub max_signatures: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authserv_id: "localhost".to_owned(),
            deadline: Duration::from_secs(8),
            max_signatures: 10,
        }
    }
}
