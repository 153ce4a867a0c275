//! `[spam]`: which scanner is asked.

use std::time::Duration;

/// What the scanner speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScannerKind {
    /// rspamd's HTTP `POST /checkv2`.
    Rspamd,
    /// SpamAssassin's spamd protocol (SPAMC/1.5, `SYMBOLS`).
    Spamd,
}

/// `[spam]`: absent means that there is no scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it speaks.
    pub kind: ScannerKind,
    /// `host:port`.
    pub address: String,
    /// For the whole question and answer; past it the verdict is PROCESSING_FAILED.
    pub timeout: Duration,
    /// Messages above this many octets are not scanned (verdict DISABLED).
    pub max_bytes: u64,
}

impl Settings {
    /// A scanner at `address` with the default limits.
    pub fn new(kind: ScannerKind, address: String) -> Self {
        Self { kind, address, timeout: Duration::from_secs(10), max_bytes: 10 * 1024 * 1024 }
    }
}
