//! What becomes of cost and latency as a store and a directory grow.

mod directory;
mod messages;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::daemon::Daemon;
use crate::process;

/// Sections of the main file for all scenarios: no peer is made to wait.
const SECTIONS: &str = "[limits]\nbanner_delay_ms = 0\nconnections_per_network = 10000\nprocessing_per_network = 500\ntransactions = 1000000\n";

/// Runs all scenarios and prints a table of figures beside their budgets.
pub(crate) fn run(mailweir: &Path, quick: bool) -> anyhow::Result<()> {
    println!("| figure | budget | reached |\n|---|---|---|");
    directory::run(mailweir, quick)?;
    messages::one_mailbox(mailweir, if quick { 4_000 } else { 200_000 })?;
    messages::many_mailboxes(mailweir, if quick { 8_000 } else { 1_000_000 })?;
    messages::retention(mailweir, if quick { 4_000 } else { 200_000 })
}

fn row(figure: &str, budget: &str, reached: &str) {
    println!("| {figure} | {budget} | {reached} |");
}

/// An unsigned message of about 4 KB on the wire.
fn message() -> Vec<u8> {
    let mut message = b"From: <bob@good.test>\r\nTo: <all@example.test>\r\nSubject: growth\r\n\
        Message-ID: <growth@good.test>\r\nDate: Sat, 21 Nov 2026 04:31:26 +0000\r\n\r\n"
        .to_vec();
    while message.len() < 4000 {
        message
            .extend_from_slice(b"A line of a message that is like many others, and not long.\r\n");
    }
    message.extend_from_slice(b".\r\n");
    message
}

/// What some messages cost.
struct Cost {
    /// Server CPU time for each message.
    cpu: Duration,
    /// From the final dot to the 250, sorted.
    latencies: Vec<Duration>,
}

impl Cost {
    fn at(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(self.latencies.len() * percent / 100)
            .copied()
            .unwrap_or_else(|| self.latencies.get(last).copied().unwrap_or_default())
    }
}

/// Sends `count` messages on some connections at once, to the address that `to` gives each.
fn send(
    daemon: &Daemon,
    connections: usize,
    count: usize,
    to: impl Fn(usize) -> String + Sync,
) -> anyhow::Result<Cost> {
    let wire = message();
    let latencies = Mutex::new(Vec::with_capacity(count));
    let before = process::cpu(daemon.pid());
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|connection| {
                let (wire, to, latencies) = (&wire, &to, &latencies);
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut client = Client::connect(daemon.address())?;
                    let mut own = Vec::new();
                    for number in (connection..count).step_by(connections) {
                        own.push(client.send("bob@good.test", &[&to(number)], wire)?);
                    }
                    if let Ok(mut all) = latencies.lock() {
                        all.append(&mut own);
                    }
                    client.quit()
                })
            })
            .collect();
        senders.into_iter().try_for_each(|sender| sender.join().unwrap_or(Ok(())))
    })?;
    // The index follows at its own pace; its work is part of the message's cost.
    settle(daemon);
    let cpu = (process::cpu(daemon.pid()) - before) / u32::try_from(count)?;
    let mut latencies = latencies.into_inner().unwrap_or_default();
    latencies.sort();
    Ok(Cost { cpu, latencies })
}

/// Waits until the daemon has used no processor for a while.
fn settle(daemon: &Daemon) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut before = process::cpu(daemon.pid());
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(300));
        let now = process::cpu(daemon.pid());
        if now - before <= Duration::from_millis(10) {
            return;
        }
        before = now;
    }
}

fn us(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
