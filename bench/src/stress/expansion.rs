//! Transactions whose recipients are a large group, again and again, and that are left open.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Held, MIB, Report, Scene, honest, honest_traffic, join, runtime};
use crate::daemon::ORGANIZATION;
use crate::gauge;
use crate::peer::{Peer, Sources};
use crate::traffic::ms;

const ATTACKERS: Sources = Sources { first: 0, networks: 2 };
const MEMBERS: usize = 2000;
/// Recipients of a transaction, all of them the group, by a tag each.
const RECIPIENTS: usize = 500;
/// Mailboxes that one transaction may reach: the daemon's default.
const ALLOWED: usize = 20_000;
/// What a transaction may hold, in octets: a mailbox is 112 at most.
const EACH: f64 = ALLOWED as f64 * 112.0;

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
    let grown = with.saturating_sub(before.memory) as f64;
    let told: Vec<_> = replies.iter().map(|(reply, count)| format!("{count} × {reply}")).collect();
    let mut report = Report::new(format!(
        "{connections} transactions with {RECIPIENTS} times a group of {MEMBERS}: {}; memory grew \
         by {:.1} MiB; others alone {alone}, beside it {beside}",
        told.join(", "),
        grown / MIB,
    ));
    let accepted = replies.get("250").copied().unwrap_or(0);
    report.claim(accepted <= connections * ALLOWED / MEMBERS, "expansions are bounded");
    report.claim(replies.contains_key("452 too-many-recipients"), "the rest is for later");
    report.claim(grown <= EACH * connections as f64 + 32.0 * MIB, "memory is bounded");
    report.claim(beside.reasons.is_empty() && beside.broken == 0, "others are not refused");
    report.claim(
        ms(&beside.accepted, 99) < scene.choose(2500.0, 250.0),
        "others have their 250 in time",
    );
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
