//! Starts a system, and says what its messages must come to.

use anyhow::{Context, bail};

use super::haraka::Haraka;
use super::kind::Kind;
use super::mailweir::Mailweir;
use super::outgoing::{self, Sending};
use super::plan::Direction;
use super::postfix::Postfix;
use super::sink::Sink;
use super::system::{Ground, System};

impl Kind {
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
