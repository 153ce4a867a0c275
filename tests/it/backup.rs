//! A backup made by the command while mail flows is restored somewhere else, and serves.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::ledger::Ledger;

const CONNECTIONS: usize = 4;

/// Sends until told to stop, a connection's messages in a ledger of their own.
fn send(daemon: &Daemon, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    while !stop.load(Ordering::SeqCst) {
        let reply = ledger.lock().expect("no thread panics").send(&mut client);
        assert!(reply.starts_with("250"), "{reply}");
    }
}

#[test]
fn a_backup_made_while_mail_flows_is_whole() {
    let mut daemon = Setup::default().start();
    let copy = daemon.path("copy");
    let to = copy.display().to_string();
    let stop = AtomicBool::new(false);
    // Messages are numbered in one ledger, so the senders take turns; the store does not.
    let ledger = Mutex::new(Ledger::default());
    let before = std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| send(&daemon, &ledger, &stop));
        }
        std::thread::sleep(Duration::from_millis(300));
        let before = ledger.lock().expect("no thread panics").acknowledged.clone();
        let said = daemon.succeeds(&["backup", &to]);
        assert!(said.contains("the master key is not among them"), "{said}");
        stop.store(true, Ordering::SeqCst);
        before
    });
    assert!(daemon.stop().success());
    let mut ledger = ledger.into_inner().expect("no thread panicked");
    assert!(!before.is_empty() && before.len() < ledger.acknowledged.len());

    let mut other = Setup::default().prepare();
    let said = other.succeeds(&["restore", &to]);
    assert!(said.contains("now put the master key to"), "{said}");
    std::fs::copy(daemon.data().join("keys/master.key"), other.data().join("keys/master.key"))
        .expect("copies");
    other.launch(Command::new(BINARY));
    assert!(other.stop().success());
    ledger.acknowledged = before;
    ledger.check(&other, "after a restore");

    let again = other.command(&["restore", &to]);
    assert!(!again.status.success(), "nothing is written over a store");
    let again = other.command(&["backup", &to]);
    assert!(!again.status.success(), "nothing is written over a backup");
    let told = text(&again.stderr);
    assert!(told.contains("is not empty; name a folder that is not there yet"), "{told}");
}
