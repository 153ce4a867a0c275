//! Connect and drop, as fast as the generator can.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Held, MIB, Report, Scene, honest, join, peak_mib, runtime, settle};
use crate::peer::{Sources, connect};

/// Connections being made at once.
const AT_ONCE: usize = 64;
const SOURCES: Sources = Sources { first: 0, networks: 2_000 };

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, before) = scene.daemon("")?;
    let time = Duration::from_secs(scene.choose(2, 30));
    let to = daemon.address();
    let runtime = runtime()?;
    let storm = std::thread::spawn(move || runtime.block_on(storm(to, Instant::now() + time)));
    let connections = join(storm)?;
    settle();
    let after = Held::by(&daemon)?;
    let served = honest(&daemon, Duration::from_secs(1))?;
    let mut report = Report::new(format!(
        "{connections} connections dropped in {} s; memory {:.0} MiB before, {:.0} at most, {:.0} \
         after; descriptors {} before, {} after; then {served}",
        time.as_secs(),
        before.memory as f64 / MIB,
        peak_mib(&daemon)?,
        after.memory as f64 / MIB,
        before.descriptors,
        after.descriptors,
    ));
    report.claim(after.is_near(before), "memory and descriptors are back near the start");
    report.claim(
        !served.accepted.is_empty() && served.reasons.is_empty() && served.broken == 0,
        "normal service afterwards",
    );
    Ok(report)
}

/// How many connections were made and dropped.
async fn storm(to: SocketAddr, until: Instant) -> usize {
    let mut droppers = JoinSet::new();
    for first in 0..AT_ONCE {
        droppers.spawn(async move {
            let mut made = 0;
            for number in (first..).step_by(AT_ONCE) {
                if Instant::now() >= until {
                    break;
                }
                // A source may run out of ports for a while; the next one has some.
                if let Ok(stream) = connect(SOURCES.address(number), to).await {
                    // Every other one is reset, as from a client that was killed.
                    if number % 2 == 0 {
                        stream.set_zero_linger().ok();
                    }
                    made += 1;
                }
            }
            made
        });
    }
    droppers.join_all().await.into_iter().sum()
}
