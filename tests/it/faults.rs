//! Disks that fill up, break or become read-only, and a daemon that ends between any two system
//! calls: nothing acknowledged is lost or doubled, nothing else is there by halves.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::ledger::Ledger;
use crate::support::smtp::Client;
use crate::support::{faketime, strace, wait_for};

/// The calls of a commit in the order in which it makes them: the record is written and synced,
/// its events are written, the reply is sent, the index follows.
const COMMIT: [&str; 5] = ["writev", "fdatasync", "write", "sendto", "pwrite64"];

fn log(daemon: &Daemon) -> PathBuf {
    daemon.data().join("log/0000000000000000.log")
}

fn events(daemon: &Daemon) -> PathBuf {
    daemon.data().join("events/email-events.jsonl")
}

fn index(daemon: &Daemon) -> [PathBuf; 2] {
    [daemon.data().join("index.sqlite"), daemon.data().join("index.sqlite-wal")]
}

/// A daemon that ran once, so that its files are there, and has ended.
fn stopped() -> Daemon {
    let mut daemon = Setup::default().start();
    assert!(daemon.stop().success());
    daemon
}

fn connected(daemon: &Daemon) -> Client {
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    client
}

/// At how many commits in a row the daemon ends; more with `MAILWEIR_CRASH_ROUNDS`.
fn rounds() -> usize {
    let asked = std::env::var("MAILWEIR_CRASH_ROUNDS").ok();
    asked.map_or(3, |rounds| rounds.parse().expect("MAILWEIR_CRASH_ROUNDS is a number"))
}

#[test]
fn an_end_at_every_system_call_of_a_commit_loses_nothing() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let index = index(&daemon);
    let paths = [&[log(&daemon), events(&daemon)], index.as_slice()].concat();
    let mut ends = 0;
    for when in 1..=rounds() {
        for call in COMMIT {
            // Replies go to a socket, and those before the first message are not of interest.
            let (paths, when) = match call {
                "sendto" => (&[][..], when + 5),
                _ => (&*paths, when),
            };
            let what = format!("an end before {call} {when}");
            let command = strace::with_fault(call, paths, "signal=KILL", &when.to_string());
            if daemon.launch_doomed(command) {
                send_until_it_ends(&daemon, &mut ledger, when + 3);
            }
            ends += usize::from(daemon.ends_within(Duration::from_millis(800)));
            daemon.launch(Command::new(BINARY));
            assert!(daemon.stop().success());
            ledger.check(&daemon, &what);
        }
    }
    assert_eq!(ends, rounds() * COMMIT.len(), "the daemon ended each time");
    assert!(!ledger.acknowledged.is_empty() && ledger.acknowledged.len() < ledger.begun.len());
}

fn send_until_it_ends(daemon: &Daemon, ledger: &mut Ledger, at_most: usize) {
    let Some(mut client) = Client::greeted(daemon.address()) else { return };
    for _ in 0..at_most {
        if ledger.send(&mut client).is_empty() {
            return;
        }
    }
}

#[test]
fn a_full_disk_defers_mail_and_takes_it_again_when_there_is_room() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    for (calls, path, takes_mail) in [
        ("writev", log(&daemon), false),
        ("write", events(&daemon), true),
        ("pwrite64", index(&daemon)[1].clone(), true),
    ] {
        for when in ["2", "3", "2..4"] {
            let what = format!("{calls} {when} on {}", path.display());
            let full = strace::with_fault(calls, std::slice::from_ref(&path), "error=ENOSPC", when);
            daemon.launch(full);
            let mut client = connected(&daemon);
            let replies: Vec<_> = (0..6).map(|_| ledger.send(&mut client)).collect();
            let deferred = replies.iter().filter(|reply| reply.starts_with("452 4.3.1")).count();
            let accepted = replies.iter().filter(|reply| reply.starts_with("250")).count();
            assert_eq!(deferred + accepted, 6, "{what}: {replies:?}");
            assert_eq!(deferred == 0, takes_mail, "{what}: {replies:?}");
            assert!(replies[5].starts_with("250"), "{what}: {replies:?}");
            wait_for("event file and index", || {
                let report = daemon.succeeds(&["fsck", "--quick", "--json"]);
                let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
                (report["eventsToWrite"] == 0 && report["recordsToIndex"] == 0).then_some(())
            });
            drop(client);
            assert!(daemon.stop().success(), "{what}");
            ledger.check(&daemon, &what);
        }
    }
}

#[test]
fn a_disk_that_stays_full_loses_nothing() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let index = index(&daemon);
    let paths = [&[log(&daemon), events(&daemon)], index.as_slice()].concat();
    for when in 1..=8 {
        let full = strace::with_fault(
            "write,writev,pwrite64",
            &paths,
            "error=ENOSPC",
            &format!("{when}+"),
        );
        if daemon.launch_doomed(full) {
            let mut client = connected(&daemon);
            for _ in 0..4 {
                let reply = ledger.send(&mut client);
                assert!(reply.starts_with("250") || reply.starts_with("452 4.3.1"), "{reply}");
            }
            drop(client);
            assert!(daemon.stop().success(), "full from call {when} on");
        }
        daemon.launch(Command::new(BINARY));
        let mut client = connected(&daemon);
        assert!(ledger.send(&mut client).starts_with("250"), "there is room again");
        drop(client);
        assert!(daemon.stop().success());
        ledger.check(&daemon, &format!("full from call {when} on"));
    }
    assert!(!ledger.refused.is_empty());
}

/// The system may have dropped what it could not write, and says so only once.
#[test]
fn a_failed_sync_of_the_log_is_the_end_until_a_restart() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let broken = strace::with_fault("fdatasync", &[log(&daemon)], "error=EIO", "2");
    daemon.launch(broken);
    let mut client = connected(&daemon);
    assert!(ledger.send(&mut client).starts_with("250"));
    let failed = ledger.send(&mut client);
    assert!(failed.starts_with("452 4.3.1"), "{failed}");
    // It may be on disk nevertheless, and then it is there after the restart.
    ledger.refused.clear();
    for _ in 0..3 {
        let reply = ledger.send(&mut client);
        assert!(reply.starts_with("452 4.3.1"), "no later sync is believed: {reply}");
    }
    assert!(daemon.log().contains("sync failed"), "{}", daemon.log());
    drop(client);
    assert!(daemon.stop().success());
    daemon.launch(Command::new(BINARY));
    let mut client = connected(&daemon);
    assert!(ledger.send(&mut client).starts_with("250"));
    drop(client);
    assert!(daemon.stop().success());
    ledger.check(&daemon, "after a failed sync");
}

#[test]
fn an_event_file_that_cannot_be_synced_is_written_anew() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let file = events(&daemon);
    let number = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).expect("is there").ino()
    };
    let before = number(&file);
    daemon.launch(strace::with_fault("fdatasync", std::slice::from_ref(&file), "error=EIO", "1"));
    let mut client = connected(&daemon);
    assert!(ledger.send(&mut client).starts_with("250"));
    // It is synced every five seconds.
    wait_for("a new file", || (number(&file) != before).then_some(()));
    assert!(ledger.send(&mut client).starts_with("250"));
    drop(client);
    assert!(daemon.stop().success());
    ledger.check(&daemon, "after a failed sync of the event file");
}

#[test]
fn a_read_only_data_folder_is_named_at_the_start_and_defers_mail_later() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let read_only = strace::with_fault("openat", &[log(&daemon)], "error=EROFS", "1+");
    assert!(!daemon.launch_doomed(read_only), "it does not start");
    let log_text = daemon.log();
    assert!(log_text.contains("0000000000000000.log: Read-only file system"), "{log_text}");

    daemon.launch(strace::with_fault("writev", &[log(&daemon)], "error=EROFS", "2+"));
    let mut client = connected(&daemon);
    assert!(ledger.send(&mut client).starts_with("250"));
    for _ in 0..2 {
        assert!(ledger.send(&mut client).starts_with("452 4.3.1"));
    }
    drop(client);
    assert!(daemon.stop().success());
    ledger.check(&daemon, "read-only");
}

/// `FAKETIME` shifts the daemon's wall clock; the monotonic one goes on as it is.
#[test]
fn a_clock_that_jumps_back_doubles_and_loses_nothing() {
    let mut daemon = stopped();
    let mut ledger = Ledger::default();
    let file = daemon.path("time");
    std::fs::write(&file, "+3d").expect("writes");
    let mut command = Command::new(BINARY);
    command
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME_TIMESTAMP_FILE", &file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    daemon.launch(command);
    let mut client = connected(&daemon);
    for shift in ["+3d", "-400d", "+0", "-1d", "+2d", "-3d"] {
        std::fs::write(&file, shift).expect("writes");
        for _ in 0..3 {
            let reply = ledger.send(&mut client);
            assert!(reply.starts_with("250"), "{shift}: {reply}");
        }
    }
    drop(client);
    assert!(daemon.stop().success());
    ledger.check(&daemon, "after a clock that jumped");
    let days: std::collections::BTreeSet<_> = daemon
        .events()
        .iter()
        .map(|line| line["eventTimestamp"].as_u64().expect("a time") / 86_400_000)
        .collect();
    assert!(days.len() >= 5, "the clock did jump: {days:?}");
}
