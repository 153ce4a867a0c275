//! What several builds of the daemon cost in CPU time for each message, beside each other: short bursts
//! of mail go to one after the other, in an order that changes, so that what else the machine does
//! meets all of them alike. They are started anew every few bursts: two processes of one build differ,
//! by where their memory lies. The figures of one run compare; those of two runs do not.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::daemon::{Daemon, ORGANIZATION};
use crate::peer::{Peer, Sources};
use crate::process::{self, ThreadCost};
use crate::traffic::{Tally, dns_section, small_message, transaction};

const SOURCES: Sources = Sources { first: 0, networks: 16 };
/// A burst: connections at once, and messages on each, so many that a connection's own cost is little
/// beside theirs.
const CONNECTIONS: usize = 16;
const MESSAGES: usize = 20;
/// Bursts from one start to the next.
const BURSTS: usize = 20;
/// What a daemon does after the last 250 is over then.
const AFTERMATH: Duration = Duration::from_millis(80);

/// What threads cost, by name.
type Threads = BTreeMap<String, ThreadCost>;

/// A build, or one build with other settings.
struct Contender<'a> {
    spelled: &'a str,
    daemon: Daemon,
}

impl<'a> Contender<'a> {
    /// One that is spelled `KEY=VALUE,…,BINARY`: variables of its environment, and its path.
    fn start(spelled: &'a str) -> anyhow::Result<Self> {
        let (variables, binary) = spelled.rsplit_once(',').unwrap_or(("", spelled));
        let mut command = Command::new(Path::new(binary));
        for variable in variables.split(',').filter(|variable| !variable.is_empty()) {
            let (key, value) = variable.split_once('=').context("a variable is KEY=VALUE")?;
            command.env(key, value);
        }
        let daemon = Daemon::start_as(command, ORGANIZATION, &dns_section())?;
        Ok(Self { spelled, daemon })
    }

    /// Adds what each of its threads has cost since its start.
    fn add_threads(&self, all: &mut Threads) {
        for (name, ThreadCost { cpu, waits }) in process::threads(self.daemon.pid()) {
            let so_far = all.entry(name).or_default();
            so_far.cpu += cpu;
            so_far.waits += waits;
        }
    }

    /// Microseconds of CPU time for each message of a burst.
    fn burst(&self) -> anyhow::Result<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let before = process::cpu(self.daemon.pid());
        let tally = runtime.block_on(send(self.daemon.address()))?;
        let all = tally.accepted.len() == CONNECTIONS * MESSAGES;
        anyhow::ensure!(all, "{}: {tally}", self.spelled);
        std::thread::sleep(AFTERMATH);
        let spent = process::cpu(self.daemon.pid()).saturating_sub(before);
        Ok(spent.as_secs_f64() * 1e6 / tally.accepted.len() as f64)
    }
}

/// One burst.
async fn send(to: SocketAddr) -> anyhow::Result<Tally> {
    let message = small_message();
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        connections.spawn(converse(SOURCES.address(number), to, Arc::clone(&message)));
    }
    let mut tally = Tally::default();
    while let Some(ended) = connections.join_next().await {
        tally.add(ended.context("the generator panicked")??);
    }
    Ok(tally)
}

async fn converse(from: Ipv4Addr, to: SocketAddr, message: Arc<[u8]>) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let Ok(mut peer) = Peer::greet(from, to).await? else { return Ok(tally) };
    for _ in 0..MESSAGES {
        transaction(&mut peer, &message, &mut tally).await?;
    }
    peer.send(b"QUIT\r\n").await?;
    Ok(tally)
}

/// Compares the builds; the first is what the others are measured by.
///
/// # Errors
/// A daemon that does not start, or does not take a message.
pub(crate) fn run(spelled: &[String], rounds: usize) -> anyhow::Result<()> {
    let mut costs = vec![Vec::new(); spelled.len()];
    let mut threads = vec![BTreeMap::new(); spelled.len()];
    for round in 0..rounds.div_ceil(BURSTS) {
        let contenders = spelled.iter().map(|it| Contender::start(it));
        let contenders = contenders.collect::<anyhow::Result<Vec<_>>>()?;
        for contender in &contenders {
            contender.burst()?;
        }
        for burst in 0..BURSTS {
            // Whoever comes first in one comes last in another.
            let mut order: Vec<_> = contenders.iter().zip(&mut costs).collect();
            order.rotate_left((round + burst / 2) % contenders.len());
            if burst % 2 == 1 {
                order.reverse();
            }
            for (contender, costs) in order {
                costs.push(contender.burst()?);
            }
        }
        for (contender, threads) in contenders.iter().zip(&mut threads) {
            contender.add_threads(threads);
        }
    }
    let first = costs.first().cloned().unwrap_or_default();
    for ((spelled, costs), threads) in spelled.iter().zip(&costs).zip(&threads) {
        let ratios: Vec<_> = costs.iter().zip(&first).map(|(cost, first)| cost / first).collect();
        println!(
            "{spelled}: {:.1} µs of CPU for each message (a quarter below {:.1}); {:.3} of the first",
            part_of(costs, 2),
            part_of(costs, 4),
            part_of(&ratios, 2),
        );
        print_threads(threads, costs.len() + rounds.div_ceil(BURSTS));
    }
    Ok(())
}

/// Prints what each thread did for a message, from its start on; bursts are all of a build's.
fn print_threads(threads: &Threads, bursts: usize) {
    let messages = (bursts * CONNECTIONS * MESSAGES) as f64;
    for (name, ThreadCost { cpu, waits }) in threads {
        let cpu = cpu.as_secs_f64() * 1e6 / messages;
        if cpu >= 0.1 {
            println!("    {name}: {cpu:.1} µs, waits {:.3} times", *waits as f64 / messages);
        }
    }
}

/// What the given part of all is below: 2 for the median.
fn part_of(values: &[f64], part: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / part).copied().unwrap_or_default()
}
