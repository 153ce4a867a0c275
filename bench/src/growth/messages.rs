//! Many messages: in many mailboxes, in one, and leaving again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Cost, SECTIONS, ms, row, send, us};
use crate::daemon::Daemon;

const MAILBOXES: usize = 1000;
/// Messages of each measurement, for each hundred that the store is to have.
const SAMPLES: usize = 10;
const CONNECTIONS: usize = 16;

fn organization(users: usize, more: &str) -> String {
    let mut text = String::from("alias = \"example\"\ndomains = [\"example.test\"]\n");
    text.push_str(more);
    for number in 0..users {
        text.push_str(&format!("[[user]]\nname = \"user{number}\"\n"));
    }
    text
}

/// Cost from an empty store to `count` messages, and the time that a start on it takes.
pub(super) fn many_mailboxes(mailweir: &Path, count: usize) -> anyhow::Result<()> {
    let mut daemon = Daemon::start(mailweir, &organization(MAILBOXES, ""), SECTIONS)?;
    let to = |number: usize| format!("user{}@example.test", number % MAILBOXES);
    grow(&daemon, count, &format!("{count} messages in {MAILBOXES} mailboxes"), to)?;
    let took = daemon.restart(mailweir)?;
    row(&format!("start to listening with {count} messages"), "1 s", &ms(took));
    Ok(())
}

/// Cost from an empty mailbox to one of `count` messages.
pub(super) fn one_mailbox(mailweir: &Path, count: usize) -> anyhow::Result<()> {
    let daemon = Daemon::start(mailweir, &organization(1, ""), SECTIONS)?;
    grow(&daemon, count, &format!("{count} messages in one mailbox"), |_| {
        "user0@example.test".into()
    })
}

fn grow(
    daemon: &Daemon,
    count: usize,
    what: &str,
    to: impl Fn(usize) -> String + Sync,
) -> anyhow::Result<()> {
    send(daemon, CONNECTIONS, 2000, &to)?; // Warms caches and makes the mailboxes.
    let part = (count / SAMPLES).max(1);
    let costs: Vec<Cost> =
        (0..SAMPLES).map(|_| send(daemon, CONNECTIONS, part, &to)).collect::<Result<_, _>>()?;
    let (first, last) =
        costs.first().zip(costs.last()).context("there is at least one measurement")?;
    let growth = last.cpu.as_secs_f64() / first.cpu.as_secs_f64() * 100.0 - 100.0;
    row(
        &format!("server CPU for a message, up to {what}"),
        "within 15 %",
        &format!("{} at first, {} at last: {growth:+.0} %", us(first.cpu), us(last.cpu)),
    );
    let (one, other) = (first.at(99), last.at(99));
    row(&format!("p99 of the 250, up to {what}"), "-", &format!("{} then {}", ms(one), ms(other)));
    Ok(())
}

/// Mail of two days ago is removed by retention and compacted away while mail flows.
pub(super) fn retention(mailweir: &Path, count: usize) -> anyhow::Result<()> {
    let policy = "[[retention]]\nfolder = \"INBOX\"\naction = \"PERMANENTLY_DELETE\"\n\
        period_days = 1\n";
    let organization = organization(100, policy);
    let quiet = format!(
        "{SECTIONS}[store]\nhousekeeping_interval_s = 3600\nsegment_bytes = {}\n",
        if count < 100_000 { 1 << 20 } else { 1 << 26 }
    );
    let to = |number: usize| format!("user{}@example.test", number % 100);
    let mut daemon = Daemon::start_shifted(mailweir, &organization, &quiet, "-2d")?;
    send(&daemon, CONNECTIONS, count, to)?;
    let old = log_bytes(&daemon)?;
    daemon.restart(mailweir)?;
    let calm = send(&daemon, 1, 2000, to)?;
    let before = log_bytes(&daemon)?;
    daemon.set_config("housekeeping_interval_s = 3600", "housekeeping_interval_s = 1")?;
    daemon.restart(mailweir)?;
    let (mut worst, mut p99, mut new) = (Duration::ZERO, Duration::ZERO, 0);
    let started = Instant::now();
    // Events and stories of removed messages are kept for thirty days, their contents are not.
    while log_bytes(&daemon)? > before + new - old * 2 / 5 {
        let cost = send(&daemon, 1, 2000, to)?;
        (worst, p99) = (worst.max(cost.at(100)), p99.max(cost.at(99)));
        new += old / count as u64 * 2000;
        if started.elapsed() > Duration::from_secs(300) {
            bail!("the log has {} octets still, of {before} and {new}", log_bytes(&daemon)?);
        }
    }
    let (after, took) = (log_bytes(&daemon)? - new, started.elapsed().as_secs());
    daemon.stop()?;
    fsck(mailweir, &daemon)?;
    row(
        "the 250 while retention and compaction run, worst",
        "50 ms above",
        &format!(
            "{} (p99 {}); without them {} (p99 {})",
            ms(worst),
            ms(p99),
            ms(calm.at(100)),
            ms(calm.at(99))
        ),
    );
    row(
        &format!("log without what came meanwhile, {count} messages removed, in MiB"),
        "-",
        &format!("{} of {} after {took} s", after >> 20, before >> 20),
    );
    Ok(())
}

fn log_bytes(daemon: &Daemon) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(daemon.path("data/log"))? {
        // A file that compaction removes meanwhile counts nothing.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}

fn fsck(mailweir: &Path, daemon: &Daemon) -> anyhow::Result<()> {
    let config = daemon.path("mailweir.toml");
    let status =
        Command::new(mailweir).args(["fsck", "--json", "--config"]).arg(config).output()?;
    if status.status.success() {
        Ok(())
    } else {
        bail!("fsck: {}", String::from_utf8_lossy(&status.stdout))
    }
}
