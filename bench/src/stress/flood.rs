//! A flood from one network, while another one gets service.

use std::time::{Duration, Instant};

use super::{HONEST_CONNECTIONS, Report, Scene, honest, join, peak_mib};
use crate::peer::Sources;
use crate::traffic::{Tally, Traffic, ms, small_message};

const FLOOD: Sources = Sources { first: 0, networks: 1 };
/// Connections of the flood: more than one network may have.
const CONNECTIONS: usize = 400;
/// Without and with the flood by turns, so that what else the machine does weighs on both.
const ROUNDS: usize = 3;
/// Below this nobody notices, and the clock's and the scheduler's grain decides, in ms.
const GRAIN_MS: f64 = 5.0;

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, _) = scene.daemon("")?;
    let time = Duration::from_secs(scene.choose(1, 7));
    let (mut alone, mut beside, mut flood) = <(Tally, Tally, Tally)>::default();
    for _ in 0..ROUNDS {
        alone.add(honest(&daemon, time)?);
        let traffic = Traffic {
            to: daemon.address(),
            sources: FLOOD,
            connections: CONNECTIONS,
            pause: Duration::ZERO,
            message: small_message(),
            until: Instant::now() + time + Duration::from_secs(1),
        };
        let flooding = traffic.spawn_elsewhere("flood")?;
        std::thread::sleep(Duration::from_millis(500));
        beside.add(honest(&daemon, time)?);
        flood.add(join(flooding)?);
    }
    let mut report = Report::new(format!(
        "{HONEST_CONNECTIONS} connections alone {alone}; beside a flood of {CONNECTIONS} from one \
         /24 {beside}; the flood: {flood}; peak {:.0} MiB",
        peak_mib(&daemon)?,
    ));
    let (before, with) = (ms(&alone.accepted, 99), ms(&beside.accepted, 99));
    report.claim(with <= (2.0 * before).max(GRAIN_MS), "the others' p99 no more than doubles");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "the others are not refused");
    report.claim(
        flood.reasons.contains_key("421 too-many-from-network"),
        "the flood is held to its network's share",
    );
    Ok(report)
}
