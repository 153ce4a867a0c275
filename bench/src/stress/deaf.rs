//! Clients that pipeline commands and never read a reply.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::{Held, MIB, Report, Scene, honest_traffic, join, peak_mib, runtime, settle};
use crate::peer::{Sources, connect_narrow};

const SOURCES: Sources = Sources { first: 0, networks: 10 };
/// Command time-out of the daemon, in seconds; it is also that of a write.
const TIMEOUT_S: u64 = 3;
/// How long after its time-out a client may still be there.
const GRACE: Duration = Duration::from_secs(4);
/// What the client's system takes without its reading, in octets: little, so that it is soon full.
const ROOM: u32 = 4096;
/// Memory for each such client: its buffers, and no queue of replies.
const EACH: f64 = 64.0 * 1024.0;

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, before) = scene.daemon(&format!("command_timeout_s = {TIMEOUT_S}\n"))?;
    let count = scene.choose(20, 200);
    let time = Duration::from_secs(TIMEOUT_S) + GRACE;
    let (to, runtime) = (daemon.address(), runtime()?);
    let deaf = std::thread::spawn(move || runtime.block_on(all(to, count, time)));
    let beside = join(honest_traffic(&daemon, time).spawn("honest")?)?;
    let ended = join(deaf)?;
    let grown = peak_mib(&daemon)? - before.memory as f64 / MIB;
    settle();
    let after = Held::by(&daemon)?;
    let mut report = Report::new(format!(
        "{count} clients pipeline NOOP or RCPT and read nothing, {ended} ended by the daemon, \
         memory grew by {grown:.1} MiB; beside them {beside}",
    ));
    report.claim(ended == count, "all are ended, by the time-out or as idle");
    report.claim(grown * MIB < EACH * count as f64 + 32.0 * MIB, "memory is bounded");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "mail flows beside them");
    report.claim(after.is_near(before), "memory and descriptors are back near the start");
    Ok(report)
}

/// How many the daemon ended before `time` was over.
async fn all(to: SocketAddr, count: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(async move {
            let left = until.saturating_duration_since(Instant::now());
            let deaf = deaf(SOURCES.address(number), to, number % 2 == 0);
            tokio::time::timeout(left, deaf).await.is_ok()
        });
    }
    clients.join_all().await.into_iter().filter(|is_ended| *is_ended).count()
}

/// Writes until the daemon has closed the connection.
async fn deaf(from: Ipv4Addr, to: SocketAddr, is_busy: bool) {
    let Ok(mut stream) = connect_narrow(from, to, ROOM).await else { return };
    // Past the banner, or it would be an early talker and nothing else.
    tokio::time::sleep(Duration::from_millis(300)).await;
    if stream.write_all(b"EHLO mail.good.test\r\nMAIL FROM:<bob@good.test>\r\n").await.is_err() {
        return;
    }
    let commands = match is_busy {
        true => b"NOOP\r\nRSET\r\n".repeat(100),
        false => b"RCPT TO:<alice@example.test>\r\n".repeat(100),
    };
    while stream.write_all(&commands).await.is_ok() {}
}
