//! One cell of one system: CPU time, rate, latencies, memory.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::plan::Cell;
use super::system::{Ground, Kind, System, cpu, memory};
use super::{load, wait};

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

impl Measured {
    /// Takes the better of each figure; of memory the larger one.
    pub(super) fn improve(&mut self, other: &Self) {
        self.cpu_us = self.cpu_us.min(other.cpu_us);
        self.rate = self.rate.max(other.rate);
        self.p50 = self.p50.min(other.p50);
        self.p99 = self.p99.min(other.p99);
        self.memory = self.memory.max(other.memory);
    }
}

/// Starts the system anew, warms it up and sends `count` messages.
pub(super) fn measure(
    kind: Kind,
    ground: &Ground<'_>,
    corpus: &[Vec<u8>],
    cell: Cell,
    count: usize,
) -> anyhow::Result<Measured> {
    let system = kind.start(ground)?;
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
    corpus: &[Vec<u8>],
    cell: Cell,
    count: usize,
) -> anyhow::Result<Measured> {
    let before = warm_up(system, corpus, cell)?;
    let cpu_before = cpu(system);
    let ((mut latencies, wall), memory) = with_memory(system, || {
        let started = Instant::now();
        let latencies = load::drive(system.address(), corpus, cell, count)?;
        wait_delivered(system, before + latencies.len())?;
        Ok((latencies, started.elapsed()))
    })?;
    settle(system)?;
    let cpu = cpu(system).saturating_sub(cpu_before);
    let sent = latencies.len();
    kind.check(system, before + sent)?;
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
pub(super) fn warm_up(
    system: &dyn System,
    corpus: &[Vec<u8>],
    cell: Cell,
) -> anyhow::Result<usize> {
    let sent = load::warm_up(system.address(), corpus, cell.connections)?;
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
