//! What all compared systems have in common.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::process;

/// What the systems need from outside.
pub(super) struct Ground<'a> {
    /// The daemon's binary
    pub(super) mailweir: &'a Path,
    /// The name server
    pub(super) dns: SocketAddr,
    /// Haraka and its plugins
    pub(super) node_modules: &'a Path,
    /// A key that signs, in PEM format
    pub(super) signing_key: &'a Path,
    /// Where their folders are
    pub(super) scratch: &'a Path,
}

/// A system that runs; ended when dropped.
pub(super) trait System {
    /// Where it listens for SMTP.
    fn address(&self) -> SocketAddr;
    /// What AUTH PLAIN says there, after STARTTLS; `None` where other servers bring mail.
    fn login(&self) -> Option<&str> {
        None
    }
    /// The processes that it consists of, with all below them.
    fn roots(&self) -> Vec<u32>;
    /// Whether this many messages are where their recipient can read them, or with the next
    /// server.
    fn has_delivered(&self, count: usize) -> anyhow::Result<bool> {
        Ok(self.count()? >= count)
    }
    /// Counts the delivered messages, slowly and surely.
    fn count(&self) -> anyhow::Result<usize>;
    /// The beginning of one of them, with its whole header section.
    fn sample(&self) -> anyhow::Result<String>;
    /// What it has logged, for a failure.
    fn log(&self) -> String;
}

/// CPU time so far of all of a system's processes.
pub(super) fn cpu(system: &dyn System) -> Duration {
    system.roots().into_iter().map(process::cpu).sum()
}

/// Memory of processes and all below them, in octets.
pub(super) fn memory(roots: &[u32]) -> u64 {
    roots.iter().map(|root| process::memory(*root)).sum()
}
