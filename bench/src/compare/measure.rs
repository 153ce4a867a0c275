//! One cell of one system: CPU time, rate, latencies, memory.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::corpus::Corpus;
use super::kind::Kind;
use super::load;
use super::local::wait;
use super::plan::Cell;
use super::system::{Ground, System, cpu, memory};

/// Sampling memory may take this part of one core's time.
const SAMPLING_SHARE: u32 = 100;
const SAMPLING_PERIOD: Duration = Duration::from_millis(250);
/// A system is quiet if it uses less than this share of one core…
const QUIET_SHARE: f64 = 0.03;
/// …for this long.
const QUIET_TIME: Duration = Duration::from_millis(400);

/// What a cell gave.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    pub(super) cell: Cell,
    /// User and system time for each message, in microseconds
    pub(super) cpu_us: f64,
    /// Messages for each second, until the last of them was delivered
    pub(super) rate: f64,
    /// From the last octet to the 250
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// The most memory seen, in octets
    pub(super) memory: u64,
}

/// A figure over several rounds: what else the machine does can make each of them worse, so the
/// best one says little of it, and the range says how even it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of at least one value; the median of two is their mean.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        let median = f64::midpoint(lower, upper);
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }
}

/// Starts the system anew, warms it up and sends `count` messages.
pub(super) fn measure(
    kind: Kind,
    ground: &Ground<'_>,
    corpus: &Corpus,
    cell: Cell,
    count: usize,
) -> anyhow::Result<Measured> {
    let system = kind.start(ground, corpus.direction())?;
    let measured = measure_running(kind, &*system, corpus, cell, count);
    measured.with_context(|| {
        let log = system.log();
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!("{}, {}; its log ends:\n{}", kind.name(), cell.name(), tail.join("\n"))
    })
}

fn measure_running(
    kind: Kind,
    system: &dyn System,
    corpus: &Corpus,
    cell: Cell,
    count: usize,
) -> anyhow::Result<Measured> {
    let before = warm_up(system, corpus, cell)?;
    let cpu_before = cpu(system);
    let ((mut latencies, wall), memory) = with_memory(system, || {
        let started = Instant::now();
        let latencies = load::drive(system, corpus, cell, count)?;
        wait_delivered(system, before + latencies.len())?;
        Ok((latencies, started.elapsed()))
    })?;
    settle(system)?;
    let cpu = cpu(system).saturating_sub(cpu_before);
    let sent = latencies.len();
    kind.check(system, corpus.direction(), before + sent)?;
    latencies.sort();
    Ok(Measured {
        kind,
        cell,
        cpu_us: cpu.as_secs_f64() * 1e6 / sent as f64,
        rate: sent as f64 / wall.as_secs_f64(),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        memory,
    })
}

/// Sends the first messages and waits until the system is quiet; how many they were.
pub(super) fn warm_up(system: &dyn System, corpus: &Corpus, cell: Cell) -> anyhow::Result<usize> {
    let sent = load::warm_up(system, corpus, cell.connections)?;
    wait_delivered(system, sent)?;
    settle(system)?;
    Ok(sent)
}

/// Waits until this many messages can be read.
pub(super) fn wait_delivered(system: &dyn System, count: usize) -> anyhow::Result<()> {
    wait("the deliveries", Duration::from_secs(120), || system.has_delivered(count))
}

/// Waits until what comes after a delivery is done: queue files, indexes.
pub(super) fn settle(system: &dyn System) -> anyhow::Result<()> {
    let mut last = cpu(system);
    wait("quiet", Duration::from_secs(60), || {
        std::thread::sleep(QUIET_TIME);
        let before = std::mem::replace(&mut last, cpu(system));
        Ok(last.saturating_sub(before) < QUIET_TIME.mul_f64(QUIET_SHARE))
    })
}

/// Does `work` and returns the most memory that the system had meanwhile, sampled by a thread
/// that takes a hundredth of its time, and once at the end.
fn with_memory<T>(
    system: &dyn System,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, u64)> {
    let roots = system.roots();
    let (done, is_done) = mpsc::channel::<()>();
    let (result, most) = std::thread::scope(|scope| {
        let sampler = scope.spawn(move || {
            let (mut most, mut pause) = (0, SAMPLING_PERIOD);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let started = Instant::now();
                most = memory(&roots).max(most);
                pause = SAMPLING_PERIOD.max(started.elapsed() * SAMPLING_SHARE);
            }
            most
        });
        let result = work();
        drop(done);
        (result, sampler.join().unwrap_or(0))
    });
    // The last sample sees what stays.
    Ok((result?, most.max(memory(&system.roots()))))
}

/// Of sorted values; the nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_range() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        let spread = |median, least, most| Some(Spread { median, least, most });
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), spread(3.0, 3.0, 3.0));
        assert_eq!(of(&[9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), spread(3.0, 1.0, 9.0));
    }
}
