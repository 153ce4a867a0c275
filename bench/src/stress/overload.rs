//! Ten times as many who send without pause as are worked on and wait.

use std::time::{Duration, Instant};

use super::{HONEST_CONNECTIONS, Report, Scene, honest, honest_traffic, join, peak_mib};
use crate::peer::Sources;
use crate::traffic::{Traffic, ms, small_message};

const SOURCES: Sources = Sources { first: 0, networks: 200 };
const CONNECTIONS: usize = 2_000;
/// A tenth of the connections: what is worked on, and what may wait beside it.
const LIMITS: &str = "processing = 100\nwaiting = 100\n";
/// The accepted ones' p99, the refused ones' p99, and the peak.
const ACCEPTED_MS: f64 = 1_000.0;
const REFUSED_MS: f64 = 100.0;
const PEAK_MIB: f64 = 256.0;
/// How soon latency is normal again.
const RECOVERY: Duration = Duration::from_secs(5);

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, _) = scene.daemon(LIMITS)?;
    let time = Duration::from_secs(scene.choose(5, 120));
    let before = honest(&daemon, Duration::from_secs(scene.choose(2, 10)))?;
    let load = Traffic {
        to: daemon.address(),
        sources: SOURCES,
        connections: CONNECTIONS,
        pause: Duration::ZERO,
        message: small_message(),
        until: Instant::now() + time,
    };
    let load = load.spawn_elsewhere("load")?;
    // One more client, whose times do not wait behind the generator's own work.
    let probe = honest_traffic(&daemon, time).spawn("probe")?;
    let (load, probe) = (join(load)?, join(probe)?);
    let ended = Instant::now();
    let mut recovered = None;
    while ended.elapsed() < RECOVERY && recovered.is_none() {
        let now = honest(&daemon, Duration::from_millis(500))?;
        let is_normal = ms(&now.accepted, 99) <= (2.0 * ms(&before.accepted, 99)).max(20.0);
        recovered = (is_normal && now.refused.is_empty()).then(|| ended.elapsed());
    }
    let peak = peak_mib(&daemon)?;
    let mut report = Report::new(format!(
        "{CONNECTIONS} connections for {} s: {load}; {HONEST_CONNECTIONS} more as a probe: {probe}; \
         before: {before}; normal again after {}; peak {peak:.0} MiB",
        time.as_secs(),
        recovered.map_or("never".into(), |time| format!("{:.1} s", time.as_secs_f64())),
    ));
    report.claim(!load.accepted.is_empty(), "work is done");
    report.claim(load.reasons.contains_key("421 overloaded"), "the rest is refused");
    report.claim(ms(&probe.accepted, 99) < ACCEPTED_MS, "what is accepted is accepted in a second");
    // What asking takes on this machine anyway is not the overload's.
    let anyway = ms(&before.accepted, 99);
    report.claim(ms(&probe.refused, 99) < REFUSED_MS + anyway, "the rest is refused in 100 ms");
    report.claim(peak < PEAK_MIB, "memory is bounded");
    report.claim(recovered.is_some(), "latency is normal again in 5 s");
    Ok(report)
}
