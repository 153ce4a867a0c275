//! What the operator sets for the event log.

use std::time::Duration;

/// `[events]`, for the event file and the audit logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `events.max_file_bytes`: a file is rotated when it has grown past this, and each day.
    pub max_file_bytes: u64,
    /// `events.retention_days`: rotated files older than this are deleted (WorkMail guide 2044).
    pub retention_days: u32,
}

impl Settings {
    /// For how long events are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_days) * 86_400)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_file_bytes: 100 * 1024 * 1024, retention_days: 30 }
    }
}
