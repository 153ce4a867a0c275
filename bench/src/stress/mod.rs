//! Load that a mail server does not like. Everything stays on loopback, is bounded in count and
//! time, and ends by itself. Each scenario says what happened in one line; what it claims about
//! the daemon either holds, or the program fails.

mod backlog;
mod deaf;
mod disk;
mod drip;
mod expansion;
mod flood;
mod guesses;
mod overload;
mod storm;
mod users;
mod worst;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::daemon::{Daemon, ORGANIZATION};
use crate::peer::Sources;
use crate::traffic::{Tally, Traffic, dns_section, small_message};
use crate::{gauge, process};

/// Client networks of the mail that must keep flowing, apart from all that attack.
const HONEST: Sources = Sources { first: 50_000, networks: 4 };
/// Connections of that mail.
const HONEST_CONNECTIONS: usize = 4;
/// Between two of its messages on one connection.
const HONEST_PAUSE: Duration = Duration::from_millis(10);
const MIB: f64 = 1024.0 * 1024.0;

type Scenario = fn(&Scene) -> anyhow::Result<Report>;

const SCENARIOS: [(&str, Scenario); 10] = [
    ("connect-and-drop", storm::run),
    ("slow-drip", drip::run),
    ("never-reads", deaf::run),
    ("flood-from-one-network", flood::run),
    ("guessed-recipients", guesses::run),
    ("overload", overload::run),
    ("worst-messages", worst::run),
    ("expanded-recipients", expansion::run),
    ("full-queue", backlog::run),
    ("full-disk", disk::run),
];

/// What a scenario is played with.
pub(crate) struct Scene<'a> {
    binary: &'a Path,
    quick: bool,
    /// Only what begins with this, of a scenario that has several parts.
    part: &'a str,
}

/// What happened, and which claims did not hold.
#[derive(Debug, Default)]
pub(crate) struct Report {
    line: String,
    broken_claims: Vec<String>,
}

impl Report {
    fn new(line: String) -> Self {
        Self { line, broken_claims: Vec::new() }
    }

    /// A claim, and whether it holds.
    fn claim(&mut self, holds: bool, claim: &str) {
        if !holds {
            self.broken_claims.push(claim.to_owned());
        }
    }
}

impl Scene<'_> {
    /// The first when it must only be shown to work.
    fn choose<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// A daemon with these `[limits]`, and its memory and descriptors before anything happens.
    fn daemon(&self, limits: &str) -> anyhow::Result<(Daemon, Held)> {
        self.daemon_of(ORGANIZATION, limits)
    }

    /// The same of another organization.
    fn daemon_of(&self, organization: &str, limits: &str) -> anyhow::Result<(Daemon, Held)> {
        self.daemon_with(organization, limits, "")
    }

    /// The same with further sections.
    fn daemon_with(
        &self,
        organization: &str,
        limits: &str,
        sections: &str,
    ) -> anyhow::Result<(Daemon, Held)> {
        let sections = format!("{sections}{}[limits]\n{limits}", dns_section());
        let daemon = Daemon::start(self.binary, organization, &sections)?;
        for pid in [daemon.pid(), std::process::id()] {
            gauge::require_descriptors(pid, 3000)?;
        }
        let warmed = honest(&daemon, Duration::from_millis(500))?;
        if warmed.accepted.is_empty() {
            bail!("no service from the start: {warmed}");
        }
        settle();
        gauge::reset_peak(daemon.pid())?;
        let held = Held::by(&daemon)?;
        Ok((daemon, held))
    }
}

/// What a daemon holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
}

impl Held {
    fn by(daemon: &Daemon) -> anyhow::Result<Self> {
        let pid = daemon.pid();
        Ok(Self { memory: gauge::resident(pid)?, descriptors: gauge::descriptors(pid)? })
    }

    /// Back near the start: no descriptor is lost, and no more memory is kept than an allocator
    /// keeps after a storm.
    fn is_near(self, start: Self) -> bool {
        self.descriptors <= start.descriptors + 2 && self.memory <= start.memory + (64 << 20)
    }
}

/// Some mail from networks of its own for a time, as honest clients send it.
fn honest(daemon: &Daemon, time: Duration) -> anyhow::Result<Tally> {
    join(honest_traffic(daemon, time).spawn("honest")?)
}

fn honest_traffic(daemon: &Daemon, time: Duration) -> Traffic {
    Traffic {
        to: daemon.address(),
        sources: HONEST,
        connections: HONEST_CONNECTIONS,
        pause: HONEST_PAUSE,
        message: small_message(),
        until: Instant::now() + time,
    }
}

fn join<T>(thread: std::thread::JoinHandle<T>) -> anyhow::Result<T> {
    thread.join().ok().context("a thread of the generator panicked")
}

/// Time for the daemon to end what has ended.
fn settle() {
    std::thread::sleep(Duration::from_millis(1500));
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The most memory since the start, in MiB.
fn peak_mib(daemon: &Daemon) -> anyhow::Result<f64> {
    Ok(process::peak_memory(daemon.pid())? as f64 / MIB)
}

/// Plays the scenarios whose name has `wanted` in it; `worst/large` is a part of one.
///
/// # Errors
/// A claim that does not hold, or a scenario that cannot be played.
pub(crate) fn run(binary: &Path, quick: bool, wanted: &str) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let (wanted, part) = wanted.split_once('/').unwrap_or((wanted, ""));
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| name.contains(wanted)) {
        let report =
            scenario(&Scene { binary, quick, part }).with_context(|| (*name).to_owned())?;
        let verdict = if report.broken_claims.is_empty() { "holds" } else { "FAILS" };
        println!("{name}: {verdict}: {}", report.line);
        for claim in &report.broken_claims {
            println!("  not so: {claim}");
            failed.push(format!("{name}: {claim}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}
