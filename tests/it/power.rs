//! Power cuts: all that the daemon does to its files is recorded, and what a disk may hold after
//! a cut at any moment, with every write that was not synced there, torn or missing, must have
//! every message that was acknowledged by then.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::disk::{Dice, Disk};
use crate::support::smtp::message;
use crate::support::strace::{self, Call};

/// How many cuts are tried; more with `MAILWEIR_POWER_CUTS`.
const CUTS: usize = 24;

fn cuts() -> usize {
    let asked = std::env::var("MAILWEIR_POWER_CUTS").ok();
    asked.map_or(CUTS, |cuts| cuts.parse().expect("MAILWEIR_POWER_CUTS is a number"))
}

fn setup() -> Setup {
    Setup { sections: "[store]\nsegment_bytes = 1048576\n".into(), ..Setup::default() }
}

/// Sends messages on a few connections at once, so that some share a sync, small ones and some
/// that fill segments.
fn load(daemon: &Daemon) {
    std::thread::scope(|scope| {
        for connection in 0..4 {
            scope.spawn(move || {
                let mut client = daemon.client();
                assert!(client.command("EHLO mail.good.test").starts_with("250"));
                for number in 0..8 {
                    let mut content = message("bob@good.test", &format!("{connection}/{number}"));
                    if number % 4 == 3 {
                        content
                            .extend(b"0123456789012345678901234567890123456789\r\n".repeat(6000));
                    }
                    client.transaction("bob@good.test", &["alice@example.test"]);
                    assert!(client.data(&content).starts_with("250"));
                }
            });
        }
    });
}

/// The trace id of an acceptance.
fn accepted(text: &str) -> Option<String> {
    Some(text.strip_prefix("250 2.0.0 Accepted ")?.trim_end().to_owned())
}

#[test]
fn what_was_acknowledged_survives_every_power_cut() {
    let mut recorded = setup().start();
    assert!(recorded.stop().success());
    std::fs::remove_dir_all(recorded.data()).expect("removes");
    let trace = recorded.path("trace.txt");
    recorded.launch(strace::recording(&trace));
    load(&recorded);
    assert!(recorded.stop().success());
    strace::wait_for_end(&trace);
    let calls = strace::calls(&trace);

    let mut dice = Dice(20_261_121);
    let mut at: BTreeSet<usize> = BTreeSet::new();
    let first_reply = calls.iter().position(|call| matches!(call, Call::Say { .. }));
    let first_reply = first_reply.expect("the daemon said something");
    while at.len() < cuts().min(calls.len() - first_reply) {
        at.insert(first_reply + dice.throw((calls.len() - first_reply) as u64) as usize);
    }
    let mut disk = Disk::new(&recorded.data());
    let mut acknowledged = BTreeSet::new();
    for (number, call) in calls.iter().enumerate() {
        if at.contains(&number) {
            check(&disk, &mut dice, &acknowledged, &recorded.data(), number);
        }
        disk.see(number, call);
        if let Call::Say { text } = call {
            acknowledged.extend(accepted(text));
        }
    }
    assert_eq!(acknowledged.len(), 32, "the recording has all replies");
    check(&disk, &mut dice, &acknowledged, &recorded.data(), calls.len());
}

/// A daemon on what a cut left has all that was acknowledged.
fn check(
    disk: &Disk,
    dice: &mut Dice,
    acknowledged: &BTreeSet<String>,
    root: &Path,
    number: usize,
) {
    let mut daemon = setup().prepare();
    disk.cut(dice, &daemon.data());
    daemon.launch(Command::new(BINARY));
    assert!(daemon.stop().success());
    let report = daemon.succeeds(&["fsck"]);
    assert!(report.ends_with("sound\n"), "cut at call {number} of {}: {report}", root.display());
    let list = daemon.succeeds(&["mailbox", "list", "alice", "--json"]);
    let mut stored = BTreeSet::new();
    for line in list.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let id = line["id"].as_str().expect("an id").to_owned();
        assert!(stored.insert(id), "cut at call {number}: {line} is there twice");
    }
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "cut at call {number}: {lost:?} of {}", acknowledged.len());
    let received: Vec<_> = daemon
        .events()
        .iter()
        .filter(|line| line["event"]["eventName"] == "ORGANIZATION_EMAIL_RECEIVED")
        .map(|line| line["traceId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(received.len(), stored.len(), "cut at call {number}");
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), stored, "cut at call {number}");
}
