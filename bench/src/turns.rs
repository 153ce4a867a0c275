//! What several builds of the daemon cost in CPU time for each message, beside each other: short bursts
//! of mail go to one after the other, in an order that changes, so that what else the machine does
//! meets all of them alike. The figures of one run compare; those of two runs do not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::{Daemon, ORGANIZATION};
use crate::peer::Sources;
use crate::process;
use crate::traffic::{Traffic, dns_section, small_message};

const SOURCES: Sources = Sources { first: 0, networks: 16 };
const CONNECTIONS: usize = 16;
/// How long a burst takes: shorter ones are mostly made of connections that begin.
const BURST: Duration = Duration::from_millis(60);
/// What a daemon does after the last 250 is over then.
const AFTERMATH: Duration = Duration::from_millis(80);

/// A build, or one build with other settings.
struct Contender<'a> {
    spelled: &'a str,
    daemon: Daemon,
    /// Microseconds of CPU time for each message, one for each round.
    costs: Vec<f64>,
}

impl<'a> Contender<'a> {
    /// One that is spelled `KEY=VALUE,…,BINARY`: variables of its environment, and its path.
    fn start(spelled: &'a str) -> anyhow::Result<Self> {
        let (variables, binary) = spelled.rsplit_once(',').unwrap_or(("", spelled));
        let mut command = Command::new(Path::new(binary));
        for variable in variables.split(',').filter(|variable| !variable.is_empty()) {
            let (key, value) = variable.split_once('=').context("a variable is KEY=VALUE")?;
            command.env(key, value);
        }
        let daemon = Daemon::start_as(command, ORGANIZATION, &dns_section())?;
        Ok(Self { spelled, daemon, costs: Vec::new() })
    }

    fn burst(&mut self) -> anyhow::Result<f64> {
        let before = process::cpu(self.daemon.pid());
        let traffic = Traffic {
            to: self.daemon.address(),
            sources: SOURCES,
            connections: CONNECTIONS,
            pause: Duration::ZERO,
            message: small_message(),
            until: Instant::now() + BURST,
        };
        let burst = traffic.spawn("burst")?;
        let tally = burst.join().ok().context("the generator panicked")?;
        anyhow::ensure!(tally.refused.is_empty() && tally.broken == 0, "{}: {tally}", self.spelled);
        std::thread::sleep(AFTERMATH);
        let spent = process::cpu(self.daemon.pid()).saturating_sub(before);
        Ok(spent.as_secs_f64() * 1e6 / tally.accepted.len().max(1) as f64)
    }
}

/// Compares the builds; the first is what the others are measured by.
///
/// # Errors
/// A daemon that does not start, or does not take a message.
pub(crate) fn run(spelled: &[String], rounds: usize) -> anyhow::Result<()> {
    let contenders = spelled.iter().map(|it| Contender::start(it));
    let mut contenders = contenders.collect::<anyhow::Result<Vec<_>>>()?;
    for contender in &mut contenders {
        contender.burst()?;
    }
    for round in 0..rounds {
        for place in 0..contenders.len() {
            // Whoever comes first in one round comes last in another.
            let place = (round + place) % contenders.len();
            let place = if round % 2 == 0 { place } else { contenders.len() - 1 - place };
            let contender = contenders.get_mut(place).context("there is one at each place")?;
            let cost = contender.burst()?;
            contender.costs.push(cost);
        }
    }
    let measure = contenders.first().map(|first| first.costs.clone()).unwrap_or_default();
    for Contender { spelled, costs, .. } in &contenders {
        let ratios: Vec<_> = costs.iter().zip(&measure).map(|(cost, first)| cost / first).collect();
        println!(
            "{spelled}: {:.1} µs of CPU for each message (a quarter below {:.1}); {:.3} of the first",
            part_of(costs, 2),
            part_of(costs, 4),
            part_of(&ratios, 2),
        );
    }
    Ok(())
}

/// What the given part of all is below: 2 for the median.
fn part_of(values: &[f64], part: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / part).copied().unwrap_or_default()
}
