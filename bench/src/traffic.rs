//! Connections that send message after message, and what they were answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::peer::{Peer, Reply, Sources};

/// Messages on one connection, below what the daemon announces in LIMITS.
const MESSAGES: usize = 900;

/// A signed message of 4 KB, dot-stuffed, with its end.
pub(crate) fn small_message() -> Arc<[u8]> {
    let message = include_bytes!("../../fixtures/bench/signed-4k.eml");
    [message.as_slice(), b".\r\n"].concat().into()
}

/// The `[dns]` section of a daemon that has the sender's records.
pub(crate) fn dns_section() -> String {
    let zone = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/dns/demo.zone");
    format!("[dns]\nzone_file = \"{zone}\"\n")
}

/// Mail on several connections at once, for a time.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// The daemon.
    pub(crate) to: SocketAddr,
    /// From where.
    pub(crate) sources: Sources,
    /// Connections at once; a closed one is opened again.
    pub(crate) connections: usize,
    /// How long each connection waits between two messages.
    pub(crate) pause: Duration,
    /// The message, with its end.
    pub(crate) message: Arc<[u8]>,
    /// When nothing more is begun.
    pub(crate) until: Instant,
}

/// What the connections were answered.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// From the last octet of each accepted message to its 250.
    pub(crate) accepted: Vec<Duration>,
    /// From asking (connecting, or MAIL) to each refusal.
    pub(crate) refused: Vec<Duration>,
    /// Refusals by code and reason word.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// Connections that ended without a word, or could not be made.
    pub(crate) broken: usize,
}

impl Tally {
    fn refuse(&mut self, asked: Instant, reply: &Reply) {
        self.refused.push(asked.elapsed());
        *self.reasons.entry(reply.reason()).or_default() += 1;
    }

    /// Adds another one's.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.accepted.append(&mut other.accepted);
        self.refused.append(&mut other.refused);
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.broken += other.broken;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} accepted (p99 {:.1} ms)", self.accepted.len(), ms(&self.accepted, 99))?;
        for (reason, count) in &self.reasons {
            write!(f, ", {count} × {reason}")?;
        }
        if !self.refused.is_empty() {
            write!(f, " (p99 {:.1} ms)", ms(&self.refused, 99))?;
        }
        if self.broken > 0 { write!(f, ", {} broken", self.broken) } else { Ok(()) }
    }
}

/// The given percentile, in milliseconds; 0 for nothing.
pub(crate) fn ms(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((times.len() * percent / 100).min(last)).map_or(0.0, Duration::as_secs_f64) * 1e3
}

impl Traffic {
    /// Sends until the time is over, on a thread of this name of its own, so that what it measures
    /// does not wait behind other connections' work.
    pub(crate) fn spawn(self, name: &str) -> io::Result<std::thread::JoinHandle<Tally>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || runtime.block_on(self.run()))
    }

    /// The same on a thread of the lowest priority: an attacker's work is done elsewhere, so here
    /// it gets only what processor time nobody else wants.
    pub(crate) fn spawn_elsewhere(self, name: &str) -> io::Result<std::thread::JoinHandle<Tally>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            yield_to_all();
            runtime.block_on(self.run())
        })
    }

    /// Sends until the time is over.
    pub(crate) async fn run(self) -> Tally {
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            let traffic = self.clone();
            let from = self.sources.address(number);
            connections.spawn(async move { traffic.connection(from).await });
        }
        let mut tally = Tally::default();
        while let Some(ended) = connections.join_next().await {
            tally.add(ended.unwrap_or_default());
        }
        tally
    }

    async fn connection(&self, from: Ipv4Addr) -> Tally {
        let mut tally = Tally::default();
        while Instant::now() < self.until {
            let asked = Instant::now();
            match Peer::greet(from, self.to).await {
                Ok(Ok(peer)) => self.session(peer, &mut tally).await,
                Ok(Err(reply)) => tally.refuse(asked, &reply),
                Err(_) => {
                    tally.broken += 1;
                    // A full accept queue is not hammered: the generator must not starve.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        tally
    }

    async fn session(&self, mut peer: Peer<TcpStream>, tally: &mut Tally) {
        for _ in 0..MESSAGES {
            if Instant::now() >= self.until {
                break;
            }
            match transaction(&mut peer, &self.message, tally).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    tally.broken += 1;
                    return;
                }
            }
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
        drop(peer.send(b"QUIT\r\n").await); // It is over, with or without a farewell.
    }
}

/// Gives this thread the lowest priority; where that is not allowed, it keeps the usual one.
pub(crate) fn yield_to_all() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(id) = thread.file_name() {
        let mut renice = std::process::Command::new("renice");
        drop(renice.args(["-n", "19", "-p"]).arg(id).stdout(std::process::Stdio::null()).status());
    }
}

/// One message, its commands pipelined; whether the connection goes on.
pub(crate) async fn transaction(
    peer: &mut Peer<TcpStream>,
    message: &[u8],
    tally: &mut Tally,
) -> io::Result<bool> {
    let asked = Instant::now();
    peer.send(b"MAIL FROM:<bob@good.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n").await?;
    for expected in [250, 250, 354] {
        let reply = peer.reply().await?;
        if reply.code() != expected {
            tally.refuse(asked, &reply);
            return Ok(false);
        }
    }
    peer.send(message).await?;
    let sent = Instant::now();
    let reply = peer.reply().await?;
    if reply.code() == 250 {
        tally.accepted.push(sent.elapsed());
    } else {
        tally.refuse(sent, &reply);
    }
    Ok(reply.code() != 421)
}
