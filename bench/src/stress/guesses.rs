//! Recipients guessed from a dictionary.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Report, Scene, honest, honest_traffic, join, runtime};
use crate::peer::{Peer, Sources};
use crate::traffic::ms;

const GUESSERS: Sources = Sources { first: 0, networks: 1 };
const CONNECTIONS: usize = 50;
/// Guesses that a network has each minute: the daemon's default.
const ALLOWED: usize = 100;

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, _) = scene.daemon("")?;
    let time = Duration::from_secs(scene.choose(3, 20));
    let alone = honest(&daemon, time)?;
    let (to, runtime) = (daemon.address(), runtime()?);
    let until = Instant::now() + time;
    let guessers = std::thread::spawn(move || runtime.block_on(all(to, until)));
    let beside = join(honest_traffic(&daemon, time).spawn("honest")?)?;
    let replies = join(guessers)?;
    let told: Vec<_> = replies.iter().map(|(reply, count)| format!("{count} × {reply}")).collect();
    let mut report = Report::new(format!(
        "{CONNECTIONS} connections from one /24 guess: {}; others alone {alone}, beside it {beside}",
        told.join(", "),
    ));
    let answered = replies.get("550 unknown-user").copied().unwrap_or(0);
    // Each connection may have one more guess under way when the last allowed one is counted.
    report.claim(answered <= ALLOWED + CONNECTIONS, "a network's guesses are bounded");
    report.claim(replies.contains_key("421 too-many-unknown-users"), "then it is deferred");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "others are not refused");
    let (before, with) = (ms(&alone.accepted, 99), ms(&beside.accepted, 99));
    report.claim(with <= (2.0 * before).max(20.0), "others are not slowed down");
    Ok(report)
}

/// Replies to guesses by code and reason word.
async fn all(to: SocketAddr, until: Instant) -> BTreeMap<String, usize> {
    let mut guessers = JoinSet::new();
    for number in 0..CONNECTIONS {
        guessers.spawn(guess(GUESSERS.address(number), to, number, until));
    }
    let mut replies = BTreeMap::new();
    for reply in guessers.join_all().await.into_iter().flatten() {
        *replies.entry(reply).or_default() += 1;
    }
    replies
}

/// Guesses on one connection after the other.
async fn guess(from: Ipv4Addr, to: SocketAddr, number: usize, until: Instant) -> Vec<String> {
    let mut replies = Vec::new();
    while Instant::now() < until {
        match Peer::greet(from, to).await {
            Ok(Ok(mut peer)) => {
                drop(peer.say("MAIL FROM:<bob@good.test>\r\n").await); // RCPT will tell.
                while Instant::now() < until {
                    let guess =
                        format!("RCPT TO:<user{number}-{}@example.test>\r\n", replies.len());
                    let Ok(reply) = peer.say(&guess).await else { break };
                    replies.push(reply.reason());
                }
            }
            Ok(Err(refusal)) => {
                replies.push(refusal.reason());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    replies
}
