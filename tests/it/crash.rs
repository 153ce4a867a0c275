//! `kill -9` under load: what was acknowledged is there exactly once, in the mailbox and in the
//! event file; what was not is there at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::ledger::{counted, subject_of};

/// How often the daemon is killed; more with `MAILWEIR_CRASH_ROUNDS`.
const ROUNDS: u64 = 5;
const CONNECTIONS: usize = 6;
/// Some connections send to one mailbox, some to two, and some through a group that holds both.
const RECIPIENTS: [&[&str]; 3] =
    [&["alice@example.test"], &["alice@example.test", "bob@example.test"], &["sales@example.test"]];

fn rounds() -> u64 {
    let asked = std::env::var("MAILWEIR_CRASH_ROUNDS").ok();
    asked.map_or(ROUNDS, |rounds| rounds.parse().expect("MAILWEIR_CRASH_ROUNDS is a number"))
}

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below
}

/// What was sent, by subject.
#[derive(Default)]
struct Sent {
    /// Those whose 250 arrived.
    acknowledged: BTreeSet<String>,
    /// Those of which at least the envelope was sent.
    begun: BTreeSet<String>,
}

/// An SMTP client to which the end of the connection is no surprise.
struct Sender {
    reader: BufReader<TcpStream>,
}

impl Sender {
    fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut sender = Self { reader: BufReader::new(stream) };
        sender.reply("220")?;
        sender.say("EHLO mail.good.test\r\n", "250")?;
        Some(sender)
    }

    /// The last line of a reply that begins with `code`; `None` if the connection ends first.
    fn reply(&mut self, code: &str) -> Option<()> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return None;
            }
            assert!(line.starts_with(code), "expected {code}: {line}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(());
            }
        }
    }

    fn say(&mut self, line: &str, code: &str) -> Option<()> {
        self.reader.get_mut().write_all(line.as_bytes()).ok()?;
        self.reply(code)
    }

    /// `Some` when the message was acknowledged.
    fn send(&mut self, recipients: &[&str], subject: &str) -> Option<()> {
        self.say("MAIL FROM:<bob@good.test>\r\n", "250")?;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>\r\n"), "250")?;
        }
        self.say("DATA\r\n", "354")?;
        let filler = "A line of a message that is being counted.\r\n".repeat(random(400) as usize);
        self.say(
            &format!("From: <bob@good.test>\r\nSubject: {subject}\r\n\r\n{filler}.\r\n"),
            "250",
        )
    }
}

/// Sends numbered messages on one connection until it ends.
fn load(address: SocketAddr, round: u64, connection: usize, sent: &Mutex<Sent>) {
    let Some(mut sender) = Sender::connect(address) else { return };
    let recipients = RECIPIENTS[connection % RECIPIENTS.len()];
    for number in 0.. {
        let subject = format!("load {round}/{connection}/{number}");
        sent.lock().expect("no thread panics").begun.insert(subject.clone());
        if sender.send(recipients, &subject).is_none() {
            return;
        }
        sent.lock().expect("no thread panics").acknowledged.insert(subject);
    }
}

/// Kills the daemon at a random moment of a load, and starts it again.
fn kill_under_load(daemon: &mut Daemon, round: u64, sent: &Mutex<Sent>) {
    let address = daemon.address();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let has_ended = &has_ended;
            scope.spawn(move || {
                load(address, round, connection, sent);
                assert!(has_ended.load(Ordering::SeqCst), "a connection ended before the kill");
            });
        }
        std::thread::sleep(Duration::from_millis(100 + random(900)));
        has_ended.store(true, Ordering::SeqCst);
        daemon.kill();
    });
    daemon.launch(Command::new(BINARY));
}

/// How often the event file says that each subject was delivered to a mailbox.
fn deliveries(events: &[Value], recipient: &str) -> BTreeMap<String, usize> {
    let received = events.iter().filter(|line| line["event"]["subject"].is_string());
    let subjects: BTreeMap<_, _> = received
        .map(|line| (line["traceId"].as_str(), line["event"]["subject"].as_str()))
        .collect();
    let is_delivery = |line: &&Value| {
        let event = &line["event"];
        event["eventName"] == "MAILBOX_EMAIL_DELIVERED" && event["recipient"] == recipient
    };
    counted(events.iter().filter(is_delivery).map(|line| {
        let subject = subjects.get(&line["traceId"].as_str()).copied().flatten();
        subject.expect("a delivery has a reception before it").to_owned()
    }))
}

fn check_events(events: &[Value]) {
    let ids: Vec<_> = events.iter().map(|line| line["eventId"].as_str().expect("an id")).collect();
    for pair in ids.windows(2) {
        assert!(pair[0] < pair[1], "eventIds are unique and sorted: {pair:?}");
    }
    let mut receptions = BTreeSet::new();
    for line in events.iter().filter(|line| line["event"]["subject"].is_string()) {
        let subject = line["event"]["subject"].as_str();
        assert!(receptions.insert(subject), "{subject:?} was received twice");
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let mut daemon = Setup::default().start();
    let sent = Mutex::new(Sent::default());
    for round in 0..rounds() {
        kill_under_load(&mut daemon, round, &sent);
        daemon.client();
    }
    assert!(daemon.stop().success());
    let report = daemon.succeeds(&["fsck"]);
    assert!(report.ends_with("sound\n"), "{report}");
    let sent = sent.into_inner().expect("no thread panicked");
    let unacknowledged = sent.begun.difference(&sent.acknowledged).count();
    assert!(sent.acknowledged.len() > CONNECTIONS, "messages were acknowledged");
    assert!(unacknowledged > 0, "messages were interrupted");
    let (rounds, acknowledged) = (rounds(), sent.acknowledged.len());
    let events = daemon.events();
    check_events(&events);
    for (user, address) in [("alice", "alice@example.test"), ("bob", "bob@example.test")] {
        let stored = counted(daemon.mailbox(user).iter().map(|(_, bytes)| subject_of(bytes)));
        let told = deliveries(&events, address);
        assert_eq!(stored, told, "the mailbox and the event file agree");
        for (subject, count) in &stored {
            assert!(sent.begun.contains(subject), "{subject} was never sent");
            assert_eq!(*count, 1, "{subject} is there once");
        }
        for subject in &sent.acknowledged {
            let is_for_alice_alone = subject.split('/').nth(1).is_some_and(|connection| {
                connection.parse::<usize>().expect("a number") % RECIPIENTS.len() == 0
            });
            let is_expected = user == "alice" || !is_for_alice_alone;
            assert_eq!(stored.contains_key(subject), is_expected, "{subject} for {user}");
        }
    }
    println!(
        "{rounds} rounds of kill -9: {acknowledged} messages acknowledged, {unacknowledged} \
         interrupted; 0 lost, 0 doubled, in mailboxes and event file"
    );
}

/// The event file is written anew from the durable record where a crash cut it off, and whole
/// lines are never written twice.
#[test]
fn an_event_file_that_a_crash_cut_off_is_completed() {
    let mut daemon = Setup::default().start();
    for number in 0..20 {
        let mut client = daemon.client();
        client.envelope("bob@good.test", &["alice@example.test"]);
        let subject = format!("number {number}");
        assert!(
            client
                .data(&crate::support::smtp::message("bob@good.test", &subject))
                .starts_with("250")
        );
    }
    daemon.kill();
    let file = daemon.data().join("events/email-events.jsonl");
    let whole = std::fs::read(&file).expect("reads");
    // What the system had not written yet when the power failed: the tail, in the middle of a line.
    for cut in [1, 100, 1000, 2000] {
        std::fs::write(&file, &whole[..whole.len() - cut]).expect("writes");
        daemon.launch(Command::new(BINARY));
        assert!(daemon.stop().success());
        assert_eq!(text(&std::fs::read(&file).expect("reads")), text(&whole), "cut by {cut}");
    }
}
