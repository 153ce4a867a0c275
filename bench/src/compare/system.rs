//! What all compared systems have in common.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::haraka::Haraka;
use super::mailweir::Mailweir;
use super::outgoing::{self, Sending};
use super::plan::Direction;
use super::postfix::Postfix;
use super::sink::Sink;
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
    /// Haraka with its plugins for SPF and DKIM, and Dovecot, which delivers
    HarakaDovecot,
}

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

impl Kind {
    pub(super) const ALL: [Self; 4] =
        [Self::Mailweir, Self::PostfixRspamd, Self::Postfix, Self::HarakaDovecot];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mailweir => "Mailweir",
            Self::PostfixRspamd => "Postfix+rspamd",
            Self::Postfix => "Postfix alone",
            Self::HarakaDovecot => "Haraka+Dovecot",
        }
    }

    /// Whether it is one that signs and sends what users hand in.
    pub(super) fn signs(self) -> bool {
        match self {
            Self::Mailweir | Self::PostfixRspamd => true,
            Self::Postfix | Self::HarakaDovecot => false,
        }
    }

    /// Starts one in a scratch folder.
    pub(super) fn start(
        self,
        ground: &Ground<'_>,
        direction: Direction,
    ) -> anyhow::Result<Box<dyn System>> {
        match direction {
            Direction::Incoming => self.start_receiving(ground),
            Direction::Outgoing => self.start_sending(ground),
        }
    }

    fn start_receiving(self, ground: &Ground<'_>) -> anyhow::Result<Box<dyn System>> {
        Ok(match self {
            Self::Mailweir => Box::new(Mailweir::start(ground)?),
            Self::PostfixRspamd => Box::new(Postfix::start(ground, true)?),
            Self::Postfix => Box::new(Postfix::start(ground, false)?),
            Self::HarakaDovecot => Box::new(Haraka::start(ground)?),
        })
    }

    fn start_sending(self, ground: &Ground<'_>) -> anyhow::Result<Box<dyn System>> {
        let sink = Sink::start()?;
        let system: Box<dyn System> = match self {
            Self::Mailweir => Box::new(Mailweir::start_sending(ground, sink.address())?),
            Self::PostfixRspamd => Box::new(Postfix::start_sending(ground, sink.address())?),
            Self::Postfix | Self::HarakaDovecot => bail!("{} signs nothing here", self.name()),
        };
        Ok(Box::new(Sending { system, sink }))
    }

    /// What a delivered message must have in its header section.
    fn verdicts(self) -> &'static [&'static str] {
        match self {
            Self::Mailweir | Self::PostfixRspamd => {
                &["Authentication-Results:", "spf=pass", "dkim=pass", "dmarc=pass"]
            }
            // There is no plugin of this version that evaluates DMARC.
            Self::HarakaDovecot => &["Authentication-Results:", "spf=pass", "dkim=pass"],
            Self::Postfix => &[],
        }
    }

    /// Fails unless all messages have arrived, and with the verdicts that they deserve or, if they
    /// were sent, signed.
    pub(super) fn check(
        self,
        system: &dyn System,
        direction: Direction,
        count: usize,
    ) -> anyhow::Result<()> {
        let found = system.count()?;
        if found != count {
            bail!("{}: {found} messages of {count} arrived", self.name());
        }
        let sample = system.sample()?;
        let header = sample.split("\r\n\r\n").next().unwrap_or_default();
        let header = header.split("\n\n").next().unwrap_or_default();
        let checked = match direction {
            Direction::Incoming => self.check_verdicts(header),
            Direction::Outgoing => outgoing::check_signature(header),
        };
        checked.with_context(|| format!("{}, a delivered message:\n{header}", self.name()))
    }

    fn check_verdicts(self, header: &str) -> anyhow::Result<()> {
        match self.verdicts().iter().find(|word| !header.contains(**word)) {
            Some(missing) => bail!("there is no {missing}"),
            None => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_must_show_the_verdicts_that_it_makes() {
        let header =
            |verdicts: &str| format!("Authentication-Results: mx.example.test; {verdicts}");
        let all = header("spf=pass; dkim=pass; dmarc=pass");
        let without_dmarc = header("spf=pass;\r\n\tdkim=pass");
        let unsigned = header("spf=pass; dkim=none; dmarc=pass");
        let foreign = "X-Results: spf=pass; dkim=pass; dmarc=pass";
        for (kind, right, wrong) in [
            (Kind::Mailweir, vec![&*all], vec![&*without_dmarc, &unsigned, foreign, ""]),
            (Kind::PostfixRspamd, vec![&all], vec![&without_dmarc, &unsigned, foreign, ""]),
            (Kind::HarakaDovecot, vec![&all, &without_dmarc], vec![&unsigned, foreign, ""]),
            (Kind::Postfix, vec![""], vec![]),
        ] {
            for header in right {
                let checked = kind.check_verdicts(header);
                assert!(checked.is_ok(), "{}: {checked:?}", kind.name());
            }
            for header in wrong {
                assert!(kind.check_verdicts(header).is_err(), "{}: {header}", kind.name());
            }
        }
    }
}
