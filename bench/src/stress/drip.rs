//! Clients that send an octet now and then, in commands and in messages.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::{Held, Report, Scene, honest, honest_traffic, join, peak_mib, runtime, settle};
use crate::peer::{Peer, Sources};

const SOURCES: Sources = Sources { first: 0, networks: 20 };
/// Between two octets.
const DRIP: Duration = Duration::from_secs(1);
/// Command time-out and message time-out of the daemon, in seconds.
const TIMEOUT_S: u64 = 4;
/// How long after its time-out a client may still be there.
const GRACE: Duration = Duration::from_secs(4);

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, before) = scene
        .daemon(&format!("command_timeout_s = {TIMEOUT_S}\nmessage_timeout_s = {TIMEOUT_S}\n"))?;
    let count = scene.choose(100, 1000);
    let alone = honest(&daemon, Duration::from_secs(scene.choose(1, 5)))?;
    let time = Duration::from_secs(TIMEOUT_S) + GRACE;
    let (to, runtime) = (daemon.address(), runtime()?);
    let drips = std::thread::spawn(move || runtime.block_on(drips(to, count, time)));
    let beside = join(honest_traffic(&daemon, time).spawn("honest")?)?;
    let ended = join(drips)?;
    settle();
    let after = Held::by(&daemon)?;
    let mut report = Report::new(format!(
        "{count} clients at an octet a second, {ended} ended by the daemon, peak {:.0} MiB; \
         alone {alone}; beside them {beside}",
        peak_mib(&daemon)?,
    ));
    report.claim(ended == count, "all are ended by the time-outs");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "mail flows beside them");
    let rate = |accepted: usize, time: Duration| accepted as f64 / time.as_secs_f64();
    let whole = rate(alone.accepted.len(), Duration::from_secs(scene.choose(1, 5)));
    report.claim(rate(beside.accepted.len(), time) > whole / 2.0, "at half its speed at least");
    report.claim(after.is_near(before), "memory and descriptors are back near the start");
    Ok(report)
}

/// How many the daemon ended before `time` was over.
async fn drips(to: SocketAddr, count: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(async move {
            let is_message = number % 2 == 0;
            let drip = drip(SOURCES.address(number), to, is_message);
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::timeout(left, drip).await.is_ok()
        });
    }
    clients.join_all().await.into_iter().filter(|is_ended| *is_ended).count()
}

/// Drips until the daemon has closed the connection.
async fn drip(from: Ipv4Addr, to: SocketAddr, is_message: bool) {
    let Ok(Ok(mut peer)) = Peer::greet(from, to).await else { return };
    let envelope = "MAIL FROM:<bob@good.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n";
    if is_message {
        for lines in [envelope, "", ""] {
            if peer.say(lines).await.is_err() {
                return;
            }
        }
    }
    let (mut reader, mut writer) = peer.into_stream().into_split();
    let sending = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    };
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        () = sending => {}
        // Its end is the connection's, whether by a last word or by a reset.
        _ = tokio::io::copy(&mut reader, &mut nowhere) => {}
    }
}
