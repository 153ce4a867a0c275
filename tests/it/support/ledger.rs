//! What clients were told, held against what the store has.

use std::collections::{BTreeMap, BTreeSet};

use super::daemon::{Daemon, text};
use super::smtp::{Client, message};

/// Numbered messages to alice, by subject.
#[derive(Default)]
pub struct Ledger {
    /// Those whose 250 arrived.
    pub acknowledged: BTreeSet<String>,
    /// Those that were refused in words.
    pub refused: BTreeSet<String>,
    /// All that were begun.
    pub begun: BTreeSet<String>,
}

impl Ledger {
    /// Sends the next message on a connection that has said EHLO; the reply, empty if the
    /// connection ended.
    pub fn send(&mut self, client: &mut Client) -> String {
        let subject = format!("number {}", self.begun.len());
        self.begun.insert(subject.clone());
        let message = message("bob@good.test", &subject);
        let wire = super::smtp::stuffed(&message);
        let commands = "MAIL FROM:<bob@good.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n";
        let mut reply = String::new();
        for (bytes, replies) in [(commands.as_bytes(), 3), (&wire, 1)] {
            if client.try_send(bytes).is_err() {
                return String::new();
            }
            for _ in 0..replies {
                reply = client.reply();
            }
        }
        match reply.get(..3) {
            Some("250") => self.acknowledged.insert(subject),
            Some(_) => self.refused.insert(subject),
            None => false,
        };
        reply
    }

    /// Every acknowledged message is in the mailbox and in the event file once, no refused one
    /// is, and of the others none is there by halves; `fsck` agrees. The daemon must have stopped.
    pub fn check(&self, daemon: &Daemon, what: &str) {
        let stored = counted(daemon.mailbox("alice").iter().map(|(_, bytes)| subject_of(bytes)));
        let events = daemon.events();
        let named = |name: &str| {
            let of_name = events.iter().filter(|line| line["event"]["eventName"] == name);
            of_name.cloned().collect::<Vec<_>>()
        };
        let received = named("ORGANIZATION_EMAIL_RECEIVED");
        let subject = |line: &serde_json::Value| line["event"]["subject"].as_str().map(Into::into);
        let told = counted(received.iter().map(|line| subject(line).expect("a subject")));
        assert_eq!(stored, told, "{what}: mailbox and event file agree");
        assert_eq!(named("MAILBOX_EMAIL_DELIVERED").len(), stored.len(), "{what}");
        for (subject, count) in &stored {
            assert_eq!(*count, 1, "{what}: {subject} is there once");
            assert!(self.begun.contains(subject), "{what}: {subject} was never sent");
            assert!(!self.refused.contains(subject), "{what}: {subject} was refused");
        }
        for subject in &self.acknowledged {
            assert!(stored.contains_key(subject), "{what}: {subject} is lost");
        }
        let report = daemon.succeeds(&["fsck"]);
        assert!(report.ends_with("sound\n"), "{what}: {report}");
    }
}

/// The subject of a stored message.
pub fn subject_of(message: &[u8]) -> String {
    let message = text(message);
    let line = message.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.expect("has a subject").to_owned()
}

/// How often each subject is there.
pub fn counted(subjects: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for subject in subjects {
        *counts.entry(subject).or_default() += 1;
    }
    counts
}
