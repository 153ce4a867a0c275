//! `[dns]`: where answers come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where answers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The servers of `/etc/resolv.conf`.
    System,
    /// These servers, over UDP with TCP as fall-back.
    Servers(Vec<SocketAddr>),
    /// This zone file (RFC 1035 §5) and nothing else: what is not in it does not exist.
    ZoneFile(PathBuf),
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where answers come from.
    pub source: Source,
    /// Wait for one server's answer to one query.
    pub timeout: Duration,
    /// How often a query is sent before giving up.
    pub attempts: usize,
    /// Answers, positive and negative, kept in memory.
    pub cache_entries: u64,
    /// Whether to believe a server that says it has validated an answer (the AD bit, RFC 6840
    /// §5.8): only for a validating resolver that is reached over a path nobody can tamper with
    /// (RFC 7672 §2.1.1). A zone file is then taken for validated as a whole.
    pub trust_ad: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source: Source::System,
            timeout: Duration::from_secs(2),
            attempts: 2,
            cache_entries: 100_000,
            trust_ad: false,
        }
    }
}
