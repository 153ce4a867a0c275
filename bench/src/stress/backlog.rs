//! Users who write without end to a server that does not answer, until what waits is as much as may.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::users::{self, DeadDestination, Replies, User, told};
use super::{MIB, Report, Scene, honest, honest_traffic, join, runtime};
use crate::daemon::{Daemon, ORGANIZATION};
use crate::gauge;
use crate::traffic::ms;

/// Messages of one sender that may wait.
const OF_SENDER: u64 = 40;
/// Octets of one sender that may wait, in MiB.
const MIB_OF_SENDER: u64 = 4;
/// Messages of the organization that may wait.
const OF_ORGANIZATION: u64 = 90;
/// Users who write small messages, of whom the second meets the organization's bound; one who writes
/// large ones and meets the bound of octets; and one who writes to somebody here.
const NAMES: [&str; 4] = ["many", "second", "large", "colleague"];
const SMALL: usize = 2000;
const LARGE: usize = 300 << 10;

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    messages: u64,
    octets: u64,
}

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let dead = DeadDestination::new()?;
    let factor = scene.choose(1, 10);
    let sections = format!(
        "{}{}[queue]\nmessages_per_sender = {}\nmessages_per_organization = {}\n\
         bytes_per_sender = {}\n",
        users::LISTENER,
        dead.route,
        OF_SENDER * factor,
        OF_ORGANIZATION * factor,
        (MIB_OF_SENDER * factor) << 20,
    );
    let organization = format!("{ORGANIZATION}{}", users::named(&NAMES));
    let (mut daemon, before) = scene.daemon_with(&organization, "", &sections)?;
    users::let_in(&daemon, scene.binary, &NAMES)?;
    let time = Duration::from_secs(scene.choose(4, 30));
    let alone = honest(&daemon, time / 2)?;
    let first = [("large", "x@dead.test", LARGE), ("many", "x@dead.test", SMALL)];
    let large = play(&daemon, &first, time / 2)?.swap_remove(0);
    let octets_before = waiting(&daemon, scene)?.octets;
    let honest_mail = honest_traffic(&daemon, time).spawn("honest")?;
    let all = [
        ("many", "x@dead.test", SMALL),
        ("second", "y@dead.test", SMALL),
        ("colleague", "alice@example.test", SMALL),
    ];
    let replies = play(&daemon, &all, time)?;
    let beside = join(honest_mail)?;
    let grown = gauge::resident(daemon.pid())?.saturating_sub(before.memory) as f64;
    let waits = waiting(&daemon, scene)?;
    daemon.restart(scene.binary)?;
    let again = play(&daemon, &[("many", "x@dead.test", SMALL)], time / 4)?;
    let [of_many, of_second, of_colleague] = replies.as_slice() else {
        anyhow::bail!("somebody has had no replies")
    };
    let mut report = Report::new(format!(
        "{} messages wait with {:.1} MiB, {:.1} MiB of disk; memory grew by {:.1} MiB; a user: {}; a \
         second: {}; one with large messages: {}; one who writes to users here: {}; the first \
         after a restart: {}; others alone {alone}, beside it {beside}",
        waits.messages,
        waits.octets as f64 / MIB,
        on_disk(&daemon)? as f64 / MIB,
        grown / MIB,
        told(of_many),
        told(of_second),
        told(&large),
        told(of_colleague),
        again.iter().map(told).collect::<String>(),
    ));
    let count = |replies: &Replies, reply: &str| replies.get(reply).copied().unwrap_or(0) as u64;
    let is_full = |replies: &Replies, word: &str| count(replies, &format!("452 {word}")) > 0;
    let octets = (MIB_OF_SENDER * factor) << 20;
    report.claim(is_full(&large, "sender-queue-full"), "octets are bounded");
    let of_large = count(&large, "250") * LARGE as u64;
    report.claim(of_large <= octets && octets_before > octets / 2, "and may be used");
    report.claim(is_full(of_many, "sender-queue-full"), "messages are bounded");
    report.claim(count(of_many, "250") <= OF_SENDER * factor, "no sender has more messages");
    report.claim(is_full(of_second, "organization-queue-full"), "nor has the organization");
    report.claim(waits.messages == OF_ORGANIZATION * factor, "as many wait as may");
    report.claim(of_colleague.len() == 1 && count(of_colleague, "250") > 0, "mail here goes on");
    report.claim(again.iter().all(|it| count(it, "250") == 0), "a restart changes nothing");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "others are not refused");
    report.claim(grown <= 64.0 * MIB, "memory is bounded");
    report.claim(
        !beside.accepted.is_empty() && ms(&beside.accepted, 99) < scene.choose(2500.0, 250.0),
        "others have their 250 in time",
    );
    Ok(report)
}

/// Users who send at the same time, each from a network of its own; what each was answered.
fn play(
    daemon: &Daemon,
    users: &[(&'static str, &'static str, usize)],
    time: Duration,
) -> anyhow::Result<Vec<Replies>> {
    let at = daemon.listener("submissions")?;
    let until = Instant::now() + time;
    runtime()?.block_on(async {
        let mut sending = Vec::new();
        for (number, (name, to, octets)) in users.iter().enumerate() {
            let network = u8::try_from(number).unwrap_or(u8::MAX);
            let from = Ipv4Addr::new(127, 200, network, 1);
            let user = User { name, from, at, to, octets: *octets };
            sending.push(tokio::spawn(user.send_until(until)));
        }
        let mut replies = Vec::new();
        for user in sending {
            replies.push(user.await??);
        }
        Ok(replies)
    })
}

/// Every message has one recipient, so an entry is a message.
fn waiting(daemon: &Daemon, scene: &Scene<'_>) -> anyhow::Result<Waiting> {
    let list = daemon.command(scene.binary, &["queue", "list", "--json"], "")?;
    let mut waiting = Waiting { messages: 0, octets: 0 };
    for line in list.lines() {
        let entry: Value = serde_json::from_str(line)?;
        waiting.messages += 1;
        waiting.octets += entry["size"].as_u64().context("no size")?;
    }
    Ok(waiting)
}

/// Octets of all files of the data folder.
fn on_disk(daemon: &Daemon) -> anyhow::Result<u64> {
    let mut octets = 0;
    let mut folders = vec![daemon.path("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // A file may be gone between the two.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() { folders.push(entry.path()) } else { octets += about.len() }
        }
    }
    Ok(octets)
}
