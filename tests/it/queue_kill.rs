//! `kill -9` while mail leaves: every acknowledged recipient has the message and exactly one
//! outcome; one has it twice only if the daemon ended between the remote server's word and its own
//! record of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon};
use crate::support::remote::{Manners, Remote, Taken};
use crate::support::sending::{self, Submitter, outcome, queue, route};
use crate::support::wait_for;

/// How often the daemon is killed; more with `MAILWEIR_CRASH_ROUNDS`.
const ROUNDS: u64 = 12;
const CONNECTIONS: u64 = 3;
/// Two destinations; one recipient is refused, one is deferred every other time.
const RECIPIENTS: [&str; 4] =
    ["carol@far.test", "nobody@far.test", "busy@far.test", "dan@near.test"];

fn rounds() -> u64 {
    let asked = std::env::var("MAILWEIR_CRASH_ROUNDS").ok();
    asked.map_or(ROUNDS, |rounds| rounds.parse().expect("MAILWEIR_CRASH_ROUNDS is a number"))
}

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below
}

fn remote() -> Remote {
    Remote::start(Manners {
        rcpt: |address, times| match address {
            "nobody@far.test" => "550 5.1.1 no such user",
            "busy@far.test" if times % 2 == 1 => "450 4.2.1 busy",
            _ => "250 2.1.5 ok",
        },
        ..Manners::default()
    })
}

/// A daemon that tries again after a second, whose users may write as much as they like.
fn daemon(remote: &Remote) -> Daemon {
    let port = remote.address.port();
    sending::started(&format!(
        "[queue]\nfirst_retry_s = 1\nlongest_retry_s = 1\n[outbound]\n\
         recipients_per_user_per_day = 1000000000\n\
         recipients_per_organization_per_day = 1000000000\n{}{}",
        route("far.test", port),
        route("near.test", port)
    ))
}

/// Submits numbered messages on one connection until it ends.
fn load(daemon: &Daemon, name: &str, acknowledged: &Mutex<BTreeSet<String>>) {
    let Some(mut alice) = Submitter::log_in(daemon.listener("submissions")) else { return };
    for number in 0.. {
        let subject = format!("load {name}/{number}");
        let Some(reply) = alice.submit(&RECIPIENTS, &subject) else { return };
        assert!(reply.starts_with("250"), "{reply}");
        acknowledged.lock().expect("no thread panics").insert(subject);
    }
}

/// Kills the daemon at a random moment of a load, some messages after it began, and starts it
/// again; how many entries waited then.
fn kill_under_load(
    daemon: &mut Daemon,
    remote: &Remote,
    round: u64,
    acknowledged: &Mutex<BTreeSet<String>>,
) -> usize {
    let count = || acknowledged.lock().expect("no thread panics").len();
    let enough = count() + 1 + random(15) as usize;
    let has_ended = AtomicBool::new(false);
    let pid = daemon.pid().to_string();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (daemon, has_ended) = (&*daemon, &has_ended);
            scope.spawn(move || {
                load(daemon, &format!("{round}/{connection}"), acknowledged);
                assert!(has_ended.load(SeqCst), "a connection ended before the kill");
            });
        }
        wait_for("some messages", || (count() >= enough).then_some(()));
        std::thread::sleep(Duration::from_millis(random(60)));
        has_ended.store(true, SeqCst);
        let killed = Command::new("kill").args(["-KILL", &pid]).status();
        assert!(killed.expect("runs kill").success());
    });
    daemon.kill();
    remote.next_epoch();
    let waiting = queue(daemon).len();
    daemon.launch(Command::new(BINARY));
    waiting
}

/// Waits until nothing waits, for as long as it gets less.
fn wait_until_empty(daemon: &Daemon) {
    let mut left = queue(daemon).len();
    while left > 0 {
        left = wait_for("the queue to get shorter", || {
            let now = queue(daemon).len();
            (now < left).then_some(now)
        });
    }
}

/// The outcomes of each submitted message: what, and when.
fn told(events: &[Value]) -> BTreeMap<String, Vec<(String, u64)>> {
    let subjects: BTreeMap<_, _> = events
        .iter()
        .filter(|line| line["event"]["eventName"] == "OUTGOING_EMAIL_SUBMITTED")
        .map(|line| (line["traceId"].to_string(), line["event"]["subject"].as_str()))
        .collect();
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in events {
        let subject = subjects.get(&line["traceId"].to_string()).copied().flatten();
        let Some(subject) = subject.filter(|subject| subject.starts_with("load ")) else {
            continue;
        };
        let of_message = told.entry(subject.to_owned()).or_default();
        if let Some(outcome) = outcome(&line["event"]) {
            of_message.push((outcome, line["eventTimestamp"].as_u64().expect("a time")));
        }
    }
    told
}

/// Every recipient has one outcome; who has the message has it at least once, at most once from
/// each daemon, and never after it was recorded. How many have it more than once.
fn check(subject: &str, told: &[(String, u64)], taken: &[Taken]) -> usize {
    let mut outcomes: Vec<_> = told.iter().map(|(outcome, _)| outcome.as_str()).collect();
    outcomes.sort_unstable();
    let expected = [
        "bounced nobody@far.test 5.1.1",
        "sent busy@far.test",
        "sent carol@far.test",
        "sent dan@near.test",
    ];
    assert_eq!(outcomes, expected, "{subject}");
    let mut doubled = 0;
    for (outcome, recorded_at) in told {
        let Some(recipient) = outcome.strip_prefix("sent ") else { continue };
        let of_it: Vec<_> = taken.iter().filter(|taken| taken.recipient == recipient).collect();
        assert!(!of_it.is_empty(), "{subject} for {recipient} is lost");
        let epochs: BTreeSet<_> = of_it.iter().map(|taken| taken.epoch).collect();
        assert_eq!(epochs.len(), of_it.len(), "one daemon sent it twice: {of_it:#?}");
        let last = of_it.iter().map(|taken| taken.at).max().expect("one");
        assert!(last <= *recorded_at, "{subject} was sent again after {recorded_at}: {of_it:#?}");
        doubled += of_it.len() - 1;
    }
    assert!(taken.iter().all(|taken| taken.recipient != "nobody@far.test"), "{taken:#?}");
    doubled
}

#[test]
fn what_was_acknowledged_leaves_and_has_one_outcome() {
    let remote = remote();
    let mut daemon = daemon(&remote);
    let acknowledged = Mutex::new(BTreeSet::new());
    let mut waited = 0;
    for round in 0..rounds() {
        waited += kill_under_load(&mut daemon, &remote, round, &acknowledged);
    }
    wait_until_empty(&daemon);
    assert!(daemon.stop().success());
    let report = daemon.succeeds(&["fsck"]);
    assert!(report.ends_with("sound\n"), "{report}");
    assert!(waited > 0, "deliveries were interrupted");

    let told = told(&daemon.events());
    let mut taken: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in remote.taken() {
        taken.entry(one.subject.clone()).or_default().push(one);
    }
    let acknowledged = acknowledged.into_inner().expect("no thread panicked");
    for subject in acknowledged.iter().chain(taken.keys()) {
        assert!(told.contains_key(subject), "{subject} is in no event");
    }
    let nothing = Vec::new();
    let doubled: usize = told
        .iter()
        .map(|(subject, told)| check(subject, told, taken.get(subject).unwrap_or(&nothing)))
        .sum();
    check_reports(&daemon, told.keys());
    println!(
        "{} rounds of kill -9: {} messages acknowledged, {waited} entries interrupted; 0 lost, \
         {doubled} recipients had a message again whose outcome was not recorded",
        rounds(),
        acknowledged.len(),
    );
}

/// The sender has one report on each message, on the recipient that was refused.
fn check_reports<'a>(daemon: &Daemon, subjects: impl Iterator<Item = &'a String>) {
    let reports = daemon.mailbox("alice");
    let mut reported: Vec<_> = reports
        .iter()
        .map(|(_, bytes)| {
            let text = crate::support::daemon::text(bytes);
            assert!(text.contains("Final-Recipient: rfc822; nobody@far.test"), "{text}");
            let line = text.lines().rfind(|line| line.starts_with("Subject: load "));
            line.expect("the message's header section").replace("Subject: ", "")
        })
        .collect();
    reported.sort_unstable();
    let expected: Vec<_> = subjects.cloned().collect();
    assert_eq!(reported, expected);
}
