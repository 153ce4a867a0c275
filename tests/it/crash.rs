//! kill -9 at random moments of a load: what was acknowledged is there, once.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::daemon::{BINARY, Setup};
use crate::support::smtp::{Client, message};

const SENDERS: u32 = 4;

fn rounds() -> u64 {
    std::env::var("MAILWEIR_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"))
}

/// Sends numbered messages until the connection breaks; notes those that got their 250.
fn load(address: std::net::SocketAddr, numbers: &AtomicU32, acknowledged: &Mutex<Vec<u32>>) {
    let mut client = Client::open(address);
    if !client.reply().starts_with("220") || !client.try_command("EHLO mail.good.test") {
        return;
    }
    loop {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let commands = ["MAIL FROM:<bob@good.test>", "RCPT TO:<alice@example.test>", "DATA"];
        if !commands.iter().all(|command| client.try_command(command)) {
            return;
        }
        let mut wire = message("bob@good.test", &format!("number {number:06}"));
        wire.extend_from_slice(b".\r\n");
        if client.try_send(&wire).is_err() || !client.reply().starts_with("250") {
            return;
        }
        acknowledged.lock().expect("not poisoned").push(number);
    }
}

impl Client {
    fn try_command(&mut self, line: &str) -> bool {
        self.try_send(format!("{line}\r\n").as_bytes()).is_ok()
            && self.reply().starts_with(['2', '3'])
    }
}

fn count<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

#[test]
fn what_was_acknowledged_is_there_exactly_once() {
    let mut daemon = Setup::default().start();
    let numbers = AtomicU32::new(0);
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..rounds() {
        let address = daemon.address();
        // Spread over the moments of a commit without repeating; the seed is the round.
        let moment = Duration::from_micros(
            20_000 + (round * 7_919 + u64::from(std::process::id())) % 120_000,
        );
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| load(address, &numbers, &acknowledged));
            }
            std::thread::sleep(moment);
            daemon.kill();
        });
        daemon.launch(Command::new(BINARY));
    }
    daemon.stop();

    let acknowledged = acknowledged.into_inner().expect("not poisoned");
    assert!(acknowledged.len() > 10, "the load did not run: {}", acknowledged.len());
    let stored = count(daemon.mailbox("alice").into_iter().map(|(_, bytes)| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        let at = text.find("Subject: number ").expect("a subject") + 16;
        text[at..at + 6].parse::<u32>().expect("a number")
    }));
    let events = daemon.events();
    let received = count(events.iter().filter_map(|line| {
        let subject = line["event"]["subject"].as_str()?;
        subject.strip_prefix("number ")?.parse::<u32>().ok()
    }));
    let delivered = events
        .iter()
        .filter(|line| line["event"]["eventName"] == "MAILBOX_EMAIL_DELIVERED")
        .count();
    for number in &acknowledged {
        assert_eq!(stored.get(number), Some(&1), "message {number} in the mailbox");
        assert_eq!(received.get(number), Some(&1), "message {number} in the event file");
    }
    assert!(stored.values().chain(received.values()).all(|times| *times == 1), "nothing twice");
    assert_eq!(stored.len(), delivered, "mailbox and event file tell the same");
    assert_eq!(stored.len(), received.len(), "mailbox and event file tell the same");
    let ids = count(events.iter().map(|line| line["eventId"].to_string()));
    assert!(ids.values().all(|times| *times == 1), "event ids are unique");
}
