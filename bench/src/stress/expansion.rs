//! Transactions whose recipients are a large group, again and again, and that are left open; then
//! messages to that group, one after the other.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Held, MIB, Report, Scene, honest, honest_traffic, join, runtime, settle};
use crate::daemon::ORGANIZATION;
use crate::peer::{Peer, Sources};
use crate::traffic::{ms, yield_to_all};
use crate::{gauge, process};

const ATTACKERS: Sources = Sources { first: 0, networks: 2 };
const MEMBERS: usize = 2000;
/// Recipients of a transaction, all of them the group, by a tag each.
const RECIPIENTS: usize = 500;
/// Mailboxes that one transaction may reach: the daemon's default.
const ALLOWED: usize = 20_000;
/// What a transaction may hold, in octets, however large the group is: its recipients.
const EACH: f64 = 64.0 * 1024.0;
/// What the messages may need, which are small: that of two of them at a time, and of what the index
/// is behind.
const BESIDE: f64 = 64.0 * MIB;
/// What all may hold together: the group's members once, and what an allocator keeps.
const TOGETHER: f64 = 8.0 * MIB;

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, _) = scene.daemon_of(&organization(), "")?;
    let connections = scene.choose(10, 100);
    let time = Duration::from_secs(scene.choose(2, 10));
    let alone = honest(&daemon, time)?;
    let before = Held::by(&daemon)?;
    let to = daemon.address();
    let runtime = runtime()?;
    let attacking = std::thread::spawn(move || runtime.block_on(all(to, connections, time)));
    let beside = join(honest_traffic(&daemon, time).spawn("honest")?)?;
    let with = gauge::resident(daemon.pid())?;
    let replies = join(attacking)?;
    settle();
    let before_messages = gauge::resident(daemon.pid())?;
    gauge::reset_peak(daemon.pid())?;
    let runtime = self::runtime()?;
    let sending = std::thread::spawn(move || {
        yield_to_all();
        runtime.block_on(messages(to, time))
    });
    let beside_messages = join(honest_traffic(&daemon, time).spawn("honest")?)?;
    let sent = join(sending)?;
    let peak = process::peak_memory(daemon.pid())?.saturating_sub(before_messages) as f64;
    let grown = with.saturating_sub(before.memory) as f64;
    let told: Vec<_> = replies.iter().map(|(reply, count)| format!("{count} × {reply}")).collect();
    let mut report = Report::new(format!(
        "{connections} transactions with {RECIPIENTS} times a group of {MEMBERS}: {}; memory grew \
         by {:.1} MiB; others alone {alone}, beside it {beside}; {sent} messages to {MEMBERS} \
         mailboxes each took {:.1} MiB at most, others beside them {beside_messages}",
        told.join(", "),
        grown / MIB,
        peak / MIB,
    ));
    let accepted = replies.get("250").copied().unwrap_or(0);
    report.claim(accepted <= connections * ALLOWED / MEMBERS, "expansions are bounded");
    report.claim(replies.contains_key("452 too-many-recipients"), "the rest is for later");
    report.claim(grown <= EACH * connections as f64 + TOGETHER, "memory is bounded");
    report.claim(sent > 0, "messages to the group are taken");
    report.claim(peak <= BESIDE, "memory is bounded while they are");
    for (beside, what) in [(beside, "transactions"), (beside_messages, "messages")] {
        let claim = |claim: &str| format!("beside {what}: {claim}");
        let is_refused = !beside.reasons.is_empty() || beside.broken > 0;
        report.claim(!is_refused, &claim("others are not refused"));
        let is_in_time = ms(&beside.accepted, 99) < scene.choose(2500.0, 250.0);
        report.claim(is_in_time, &claim("others have their 250 in time"));
    }
    Ok(report)
}

/// The usual one, with many more users, all of them in a group.
fn organization() -> String {
    let mut text = format!("plus_addressing = true\n{ORGANIZATION}");
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        text.push_str(&format!("[[user]]\nname = \"user{number}\"\n"));
        members.push(format!("\"user{number}\""));
    }
    format!("{text}[[group]]\nname = \"all\"\nmembers = [{}]\n", members.join(", "))
}

/// Replies to recipients by code and reason word; the transactions stay open until `time` is over.
async fn all(to: SocketAddr, connections: usize, time: Duration) -> BTreeMap<String, usize> {
    let mut attackers = JoinSet::new();
    for number in 0..connections {
        attackers.spawn(attack(ATTACKERS.address(number), to, time));
    }
    let mut replies = BTreeMap::new();
    for reply in attackers.join_all().await.into_iter().flatten() {
        *replies.entry(reply).or_default() += 1;
    }
    replies
}

/// How many messages to the group were taken from the two networks.
async fn messages(to: SocketAddr, time: Duration) -> usize {
    let mut attackers = JoinSet::new();
    for number in 0..ATTACKERS.networks {
        attackers.spawn(send(ATTACKERS.address(number), to, Instant::now() + time));
    }
    attackers.join_all().await.into_iter().sum()
}

async fn send(from: Ipv4Addr, to: SocketAddr, until: Instant) -> usize {
    let mut sent = 0;
    let Ok(Ok(mut peer)) = Peer::greet(from, to).await else { return sent };
    while Instant::now() < until {
        let commands = [
            "MAIL FROM:<bob@good.test>\r\n",
            "RCPT TO:<all@example.test>\r\n",
            "DATA\r\n",
            "From: bob@good.test\r\nSubject: to all\r\n\r\nbody\r\n.\r\n",
        ];
        for command in commands {
            match peer.say(command).await {
                Ok(reply) if reply.code() < 400 => {}
                _ => return sent,
            }
        }
        sent += 1;
    }
    sent
}

async fn attack(from: Ipv4Addr, to: SocketAddr, time: Duration) -> Vec<String> {
    let mut replies = Vec::new();
    let attack = async {
        let Ok(Ok(mut peer)) = Peer::greet(from, to).await else { return };
        drop(peer.say("MAIL FROM:<bob@good.test>\r\n").await); // RCPT will tell.
        for number in 0..RECIPIENTS {
            let Ok(reply) = peer.say(&format!("RCPT TO:<all+{number}@example.test>\r\n")).await
            else {
                return;
            };
            let code = reply.code();
            replies.push(if code == 250 { code.to_string() } else { reply.reason() });
        }
        std::future::pending::<()>().await;
    };
    drop(tokio::time::timeout(time + Duration::from_secs(1), attack).await); // It never ends itself.
    replies
}
