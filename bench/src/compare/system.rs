//! What all compared systems have in common.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use super::mailweir::Mailweir;
use super::postfix::Postfix;
use crate::process;

/// A system that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mailweir
    Mailweir,
    /// Postfix with rspamd as a milter: what Mailweir does, made of the usual parts
    PostfixRspamd,
    /// Postfix without any check
    Postfix,
}

/// What the systems need from outside.
pub(super) struct Ground<'a> {
    /// The daemon's binary
    pub(super) mailweir: &'a Path,
    /// The name server
    pub(super) dns: SocketAddr,
    /// Where their folders are
    pub(super) scratch: &'a Path,
}

/// A system that runs; ended when dropped.
pub(super) trait System {
    /// Where it listens for SMTP.
    fn address(&self) -> SocketAddr;
    /// The processes that it consists of, with all below them.
    fn roots(&self) -> Vec<u32>;
    /// Whether this many messages are where their recipient can read them.
    fn has_delivered(&self, count: usize) -> anyhow::Result<bool>;
    /// Counts the delivered messages, slowly and surely.
    fn count(&self) -> anyhow::Result<usize>;
    /// The beginning of one of them, with its whole header section.
    fn sample(&self) -> anyhow::Result<String>;
    /// What it has logged, for a failure.
    fn log(&self) -> String;
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Mailweir, Self::PostfixRspamd, Self::Postfix];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mailweir => "Mailweir",
            Self::PostfixRspamd => "Postfix+rspamd",
            Self::Postfix => "Postfix alone",
        }
    }

    /// Starts one in a scratch folder.
    pub(super) fn start(self, ground: &Ground<'_>) -> anyhow::Result<Box<dyn System>> {
        Ok(match self {
            Self::Mailweir => Box::new(Mailweir::start(ground)?),
            Self::PostfixRspamd => Box::new(Postfix::start(ground, true)?),
            Self::Postfix => Box::new(Postfix::start(ground, false)?),
        })
    }

    /// Fails unless all messages have arrived, and with the verdicts that they deserve.
    pub(super) fn check(self, system: &dyn System, count: usize) -> anyhow::Result<()> {
        let found = system.count()?;
        if found != count {
            bail!("{}: {found} messages of {count} arrived", self.name());
        }
        if self == Self::Postfix {
            return Ok(());
        }
        let sample = system.sample()?;
        let header = sample.split("\r\n\r\n").next().unwrap_or_default();
        let header = header.split("\n\n").next().unwrap_or_default();
        let needed = ["Authentication-Results:", "spf=pass", "dkim=pass", "dmarc=pass"];
        if let Some(missing) = needed.into_iter().find(|word| !header.contains(word)) {
            bail!("{}: no {missing} in a delivered message:\n{header}", self.name());
        }
        Ok(())
    }
}

/// CPU time so far of all of a system's processes.
pub(super) fn cpu(system: &dyn System) -> Duration {
    system.roots().into_iter().map(process::cpu).sum()
}

/// Memory of processes and all below them, in octets.
pub(super) fn memory(roots: &[u32]) -> u64 {
    roots.iter().map(|root| process::memory(*root)).sum()
}
