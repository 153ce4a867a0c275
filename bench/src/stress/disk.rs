//! A disk that is nearly full: everything is deferred, nothing that was accepted is lost, and mail goes
//! on when there is room.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::users::{self, DeadDestination, Replies, User, told};
use super::{Report, Scene, honest, runtime};
use crate::daemon::{Daemon, ORGANIZATION};
use crate::traffic::Tally;

/// More than any disk has.
const TOO_MUCH: &str = "min_free_bytes = 1125899906842624";
const NOTHING: &str = "min_free_bytes = 0";
/// The user sends as much as there is time for.
const WITHOUT_QUOTAS: &str = "[outbound]\nrecipients_per_user_per_day = 1000000\n\
    recipients_per_organization_per_day = 1000000\n[queue]\nmessages_per_sender = 1000000\n\
    messages_per_organization = 1000000\nmessages = 1000000\n";
const USER: &str = "user";

/// What an outside server and a user were answered.
struct Answers {
    outside: Tally,
    user: Replies,
}

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let dead = DeadDestination::new()?;
    let sections = format!("{}{}{WITHOUT_QUOTAS}[store]\n{NOTHING}\n", users::LISTENER, dead.route);
    let organization = format!("{ORGANIZATION}{}", users::named(&[USER]));
    let (mut daemon, _) = scene.daemon_with(&organization, "", &sections)?;
    users::let_in(&daemon, scene.binary, &[USER])?;
    let time = Duration::from_secs(scene.choose(1, 5));
    let before = play(&daemon, time)?;
    let stored = count(&daemon, scene, &["mailbox", "list", "alice", "--json"])?;
    let queued = count(&daemon, scene, &["queue", "list", "--json"])?;
    daemon.set_config(NOTHING, TOO_MUCH)?;
    daemon.restart(scene.binary)?;
    let full = play(&daemon, time)?;
    let is_kept = count(&daemon, scene, &["mailbox", "list", "alice", "--json"])? == stored
        && count(&daemon, scene, &["queue", "list", "--json"])? == queued;
    daemon.set_config(TOO_MUCH, NOTHING)?;
    daemon.restart(scene.binary)?;
    let after = play(&daemon, time)?;
    let at_last = count(&daemon, scene, &["mailbox", "list", "alice", "--json"])?;
    let queued_at_last = count(&daemon, scene, &["queue", "list", "--json"])?;
    let told = |answers: &Answers| format!("{} (a user: {})", answers.outside, told(&answers.user));
    let mut report = Report::new(format!(
        "with room {}; below the floor {}; with room again {}; {at_last} stored, {queued_at_last} wait",
        told(&before),
        told(&full),
        told(&after),
    ));
    let only = |replies: &Replies, reply: &str| replies.len() == 1 && replies.contains_key(reply);
    report.claim(
        full.outside.accepted.is_empty() && only(&full.outside.reasons, "452 disk-low"),
        "all mail is deferred",
    );
    report.claim(only(&full.user, "452 disk-low"), "that of users too");
    report.claim(is_kept, "nothing is lost meanwhile");
    for (answers, when) in [(&before, "before"), (&after, "after")] {
        let goes_on = answers.outside.reasons.is_empty()
            && answers.outside.broken == 0
            && !answers.outside.accepted.is_empty()
            && only(&answers.user, "250");
        report.claim(goes_on, &format!("mail is taken {when}"));
    }
    let accepted = after.outside.accepted.len();
    report.claim(at_last == stored + accepted, "each 250 is a stored message");
    let of_user = after.user.get("250").copied().unwrap_or(0);
    report.claim(queued_at_last == queued + of_user, "or one that waits");
    Ok(report)
}

/// Mail from outside and of a user, one after the other.
fn play(daemon: &Daemon, time: Duration) -> anyhow::Result<Answers> {
    let outside = honest(daemon, time)?;
    let user = User {
        name: USER,
        from: Ipv4Addr::LOCALHOST,
        at: daemon.listener("submissions")?,
        to: "x@dead.test",
        octets: 2000,
    };
    let user = runtime()?.block_on(user.send_until(Instant::now() + time))?;
    Ok(Answers { outside, user })
}

/// Messages that a command lists, a line for each.
fn count(daemon: &Daemon, scene: &Scene<'_>, arguments: &[&str]) -> anyhow::Result<usize> {
    let list = daemon.command(scene.binary, arguments, "")?;
    let lines =
        list.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    Ok(lines.iter().filter(|line| line.get("id").is_some()).count())
}
