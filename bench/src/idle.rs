//! Memory of connections that wait, with and without TLS, and of one large message.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mailweir::smtp::client::{any_certificate, client_config};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::daemon::{Daemon, ORGANIZATION};
use crate::peer::{Peer, Sources};
use crate::traffic::{Tally, Traffic, dns_section, ms, small_message};
use crate::{gauge, process};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
/// Per connection, in octets, and for 10,000 plain ones with all else, in octets.
const PLAIN_BUDGET: f64 = 16.0 * KIB;
const TLS_BUDGET: f64 = 40.0 * KIB;
const WHOLE_BUDGET: f64 = 256.0 * MIB;
/// Of one large message above the idle daemon, in octets.
const LARGE_BUDGET: f64 = 64.0 * MIB;
/// Content of the large message, in octets: what fits into 40 MB with room for its transport.
const LARGE: usize = 38 * 1000 * 1000;
/// Networks that connect: each stays below the daemon's limit of 200.
const NETWORKS: usize = 60;
/// Connections that are made at once.
const OPENING: usize = 100;
/// Kept for anything else that a process has open.
const SPARE_DESCRIPTORS: u64 = 500;

/// Measures and prints; fails when a budget is exceeded.
pub(crate) fn run(binary: &Path, quick: bool) -> anyhow::Result<()> {
    let (plain, tls) = if quick { (1_000, 200) } else { (10_000, 2_000) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut problems = Vec::new();
    println!("| what | connections | PSS before MiB | PSS with them MiB | KiB each | budget KiB |");
    println!("|---|---|---|---|---|---|");
    let flow = runtime.block_on(plain_connections(binary, plain, quick, &mut problems))?;
    runtime.block_on(tls_connections(binary, tls, &mut problems))?;
    println!("\n| mail on 8 connections, 4 KB | messages/s | 250 p50 ms | 250 p99 ms |");
    println!("|---|---|---|---|");
    for (name, tally, time) in flow {
        let rate = tally.accepted.len() as f64 / time.as_secs_f64();
        let (p50, p99) = (ms(&tally.accepted, 50), ms(&tally.accepted, 99));
        println!("| {name} | {rate:.0} | {p50:.1} | {p99:.1} |");
        if tally.broken > 0 || !tally.refused.is_empty() {
            problems.push(format!("{name}: {tally}"));
        }
    }
    println!("\n| one message of 38 MB | idle MiB | peak above idle MiB | budget MiB |");
    println!("|---|---|---|---|");
    let journaling = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                      report_address = \"archive@example.test\"\n[[user]]\nname = \"archive\"\n";
    large_message(binary, "plain", ORGANIZATION, &mut problems)?;
    let journaled = format!("{ORGANIZATION}{journaling}");
    large_message(binary, "journaled", &journaled, &mut problems)?;
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}

fn sections(connections: usize) -> String {
    format!("{}[limits]\nconnections = {}\n", dns_section(), connections + 100)
}

type Flow = Vec<(String, Tally, Duration)>;

async fn plain_connections(
    binary: &Path,
    count: usize,
    quick: bool,
    problems: &mut Vec<String>,
) -> anyhow::Result<Flow> {
    let daemon = Daemon::start(binary, ORGANIZATION, &sections(count))?;
    for pid in [daemon.pid(), std::process::id()] {
        gauge::require_descriptors(pid, count as u64 + SPARE_DESCRIPTORS)?;
    }
    let time = Duration::from_secs(if quick { 1 } else { 8 });
    flow(&daemon, time / 2)?; // Warm caches and memory.
    let alone = flow(&daemon, time)?;
    let before = settled(&daemon).await;
    let mut held = Vec::with_capacity(count);
    open(&daemon, count, &mut held, |peer| async { Ok(peer) }).await?;
    let with = settled(&daemon).await;
    line("plain, after EHLO", count, (before, with), PLAIN_BUDGET, problems);
    if count == 10_000 && with as f64 > WHOLE_BUDGET {
        problems.push(format!("{:.0} MiB in all", with as f64 / MIB));
    }
    let beside = flow(&daemon, time)?;
    for peer in &mut held {
        peer.say("NOOP\r\n").await?.expect(250).context("an idle connection was lost")?;
    }
    Ok(vec![("alone".into(), alone, time), (format!("beside {count} idle ones"), beside, time)])
}

async fn tls_connections(
    binary: &Path,
    count: usize,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    let daemon = Daemon::start(binary, ORGANIZATION, &sections(count))?;
    flow(&daemon, Duration::from_millis(500))?;
    let before = settled(&daemon).await;
    let connector = trusting_connector();
    let mut held = Vec::with_capacity(count);
    open(&daemon, count, &mut held, |peer| start_tls(peer, connector.clone())).await?;
    let with = settled(&daemon).await;
    line("TLS 1.3, after the second EHLO", count, (before, with), TLS_BUDGET, problems);
    Ok(())
}

/// 8 connections sending messages of 4 KB for a time.
fn flow(daemon: &Daemon, time: Duration) -> anyhow::Result<Tally> {
    let traffic = Traffic {
        to: daemon.address(),
        sources: Sources { first: 1000, networks: 8 },
        connections: 8,
        pause: Duration::ZERO,
        message: small_message(),
        until: Instant::now() + time,
    };
    traffic.spawn("flow")?.join().map_err(|_| anyhow::anyhow!("the flow panicked"))
}

/// Memory once what came before has ended.
async fn settled(daemon: &Daemon) -> u64 {
    tokio::time::sleep(Duration::from_secs(1)).await;
    process::memory(daemon.pid())
}

fn line(
    what: &str,
    count: usize,
    (before, with): (u64, u64),
    budget: f64,
    problems: &mut Vec<String>,
) {
    let each = with.saturating_sub(before) as f64 / count as f64;
    println!(
        "| {what} | {count} | {:.1} | {:.1} | {:.1} | {:.0} |",
        before as f64 / MIB,
        with as f64 / MIB,
        each / KIB,
        budget / KIB
    );
    if each > budget {
        problems.push(format!("{what}: {:.1} KiB for each connection", each / KIB));
    }
}

/// Opens connections, some at once, each to where `ready` brings it.
async fn open<T: Send + 'static, F>(
    daemon: &Daemon,
    count: usize,
    held: &mut Vec<T>,
    ready: impl Fn(Peer<TcpStream>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let sources = Sources { first: 0, networks: NETWORKS };
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(OPENING) {
        let mut opening = JoinSet::new();
        for number in numbers {
            opening.spawn(Peer::greet(sources.address(*number), daemon.address()));
        }
        let mut readying = JoinSet::new();
        while let Some(opened) = opening.join_next().await {
            let peer = opened??.map_err(|reply| anyhow::anyhow!("refused: {reply:?}"))?;
            readying.spawn(ready(peer));
        }
        while let Some(ready) = readying.join_next().await {
            held.push(ready??);
        }
    }
    Ok(())
}

async fn start_tls(
    mut peer: Peer<TcpStream>,
    connector: TlsConnector,
) -> anyhow::Result<Peer<TlsStream<TcpStream>>> {
    peer.say("STARTTLS\r\n").await?.expect(220)?;
    let stream = connector.connect("mx.example.test".try_into()?, peer.into_stream()).await?;
    let mut peer = Peer::new(stream);
    peer.say("EHLO mail.good.test\r\n").await?.expect(250)?;
    Ok(peer)
}

/// A client that takes the daemon's self-signed certificate.
pub(crate) fn trusting_connector() -> TlsConnector {
    TlsConnector::from(Arc::new(client_config(any_certificate())))
}

fn large_message(
    binary: &Path,
    name: &str,
    organization: &str,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    let daemon = Daemon::start(binary, organization, &sections(100))?;
    let mut client = Client::connect(daemon.address())?;
    client.send("bob@good.test", &["alice@example.test"], &small_message())?;
    let mut wire = b"From: bob@good.test\r\nSubject: large\r\n\r\n".to_vec();
    while wire.len() < LARGE {
        wire.extend_from_slice([b'A'; 76].as_slice());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    let idle = gauge::resident(daemon.pid())?;
    gauge::reset_peak(daemon.pid())?;
    client.send("bob@good.test", &["alice@example.test"], &wire)?;
    let above = process::peak_memory(daemon.pid())?.saturating_sub(idle) as f64;
    println!(
        "| {name} | {:.1} | {:.1} | {:.0} |",
        idle as f64 / MIB,
        above / MIB,
        LARGE_BUDGET / MIB
    );
    if above > LARGE_BUDGET {
        problems.push(format!("a large message, {name}: {:.1} MiB", above / MIB));
    }
    client.quit()
}
