//! The event file as an operator's tools read it: what stands on every line, and in which order.

use serde_json::Value;

use crate::support::daemon::{BINARY, Setup, rule};
use crate::support::smtp::message;
use crate::support::swaks::swaks;
use crate::support::wait_for;

const JOURNALING: &str = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                          report_address = \"admin@example.test\"\n";

#[test]
fn a_trace_tells_received_dmarc_rules_journaling_then_the_outcome() {
    let rules = rule("loud", "BOUNCE", "none.test", "bob@example.test")
        + &rule("plain", "DEFAULT", "none.test", "*");
    let daemon = Setup::with(&(JOURNALING.to_owned() + &rules)).start();
    let mut client = daemon.client();
    client.envelope("x@none.test", &["bob@example.test", "alice@example.test"]);
    let reply = client.data(&message("x@none.test", "everything at once"));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(
        daemon.names("everything at once"),
        [
            "ORGANIZATION_EMAIL_RECEIVED",
            "DMARC_POLICY_APPLIED",
            "RULE_APPLIED",
            "RULE_APPLIED",
            "JOURNALING_INITIATED",
            "MAILBOX_EMAIL_DELIVERED",
            "INCOMING_EMAIL_BOUNCED",
        ]
    );
}

#[test]
fn every_line_has_the_fields_of_the_contract_and_nothing_empty() {
    let daemon = Setup::with(JOURNALING).start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["sales@example.test"]);
    assert!(client.data(&message("bob@good.test", "whole")).starts_with("250"));
    client.transaction("", &["alice@example.test"]);
    // Nothing is known of this one but its author: no subject, no id.
    assert!(client.data(b"From: a@plain.test\r\n\r\nbare\r\n").starts_with("250"));

    let events = daemon.events();
    let keys = ["event", "eventId", "eventTimestamp", "organizationId", "traceId"];
    for line in &events {
        let found: Vec<_> = line.as_object().expect("an object").keys().collect();
        assert_eq!(found, keys, "{line}");
        assert!(line["eventTimestamp"].is_u64() && line["event"]["eventName"].is_string());
        assert_nothing_empty(line);
    }
    let ids: Vec<_> = events.iter().map(|line| line["eventId"].as_str()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "unique, and in the order of the file: {ids:?}");
    let bare = events.iter().rfind(|line| line["event"]["spfVerdict"].is_string());
    let bare = &bare.expect("a reception")["event"];
    for absent in ["sender", "subject", "messageId", "dmarcPolicy"] {
        assert!(bare.get(absent).is_none(), "{absent} in {bare}");
    }
}

fn assert_nothing_empty(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::String(text) => assert!(!text.is_empty(), "an empty text"),
        Value::Array(list) => {
            assert!(!list.is_empty(), "an empty list");
            list.iter().for_each(assert_nothing_empty);
        }
        Value::Object(map) => map.values().for_each(assert_nothing_empty),
        Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The ids of all events in a file, in its order.
fn ids(text: &str) -> Vec<String> {
    let id = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        event["eventId"].as_str().expect("an id").to_owned()
    };
    text.lines().map(id).collect()
}

#[test]
fn tail_follows_over_rotations() {
    let sections = "[events]\nmax_file_bytes = 65536\n".into();
    let daemon = Setup { sections, ..Setup::default() }.start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "first", &[]).accepted();
    let config = daemon.config();
    let mut tail = std::process::Command::new(BINARY)
        .args(["events", "tail", "-n", "1000000", "-f", "--config"])
        .arg(config)
        .stdout(std::fs::File::create(daemon.path("tail")).expect("creates"))
        .spawn()
        .expect("runs");
    let mut client = daemon.client();
    client.command("EHLO good.test");
    for number in 0..250 {
        client.transaction("bob@good.test", &["alice@example.test", "bob@example.test"]);
        let subject = format!("number {number} {}", "long ".repeat(40));
        assert!(client.data(&message("bob@good.test", &subject)).starts_with("250"));
    }
    let mut all: Vec<String> = daemon
        .events()
        .iter()
        .map(|event| event["eventId"].as_str().expect("an id").to_owned())
        .collect();
    all.sort();
    let rotated = std::fs::read_dir(daemon.data().join("events")).expect("lists").count();
    assert!(rotated > 3, "{rotated} files");
    let told = || ids(&std::fs::read_to_string(daemon.path("tail")).expect("reads"));
    wait_for("all events", || (told().len() >= all.len()).then_some(()));
    tail.kill().expect("ends");
    tail.wait().expect("ends");
    assert!(told() == all, "each once, and in their order");
}

#[test]
fn an_event_file_that_was_moved_away_is_opened_again_and_told() {
    let daemon = Setup::default().start();
    let events = daemon.data().join("events");
    let (current, moved) = (events.join("email-events.jsonl"), events.join("email-events.jsonl.1"));
    let audit = daemon.data().join("audit/mailbox-access.jsonl");
    swaks(&daemon, "bob@good.test", "alice@example.test", "before", &[]).accepted();
    std::fs::rename(&current, &moved).expect("moves");
    std::fs::rename(&audit, audit.with_extension("1")).expect("moves");
    daemon.signal("HUP");
    wait_for("the files", || (current.exists() && audit.exists()).then_some(()));
    swaks(&daemon, "bob@good.test", "alice@example.test", "after", &[]).accepted();
    assert_eq!(daemon.names("after")[0], "ORGANIZATION_EMAIL_RECEIVED");
    assert!(!ids(&std::fs::read_to_string(&moved).expect("reads")).is_empty());
    let log = daemon.log();
    assert!(log.contains("the event file was moved away"), "{log}");
    assert!(log.contains("an audit log was moved away"), "{log}");
    // Without a signal, and without mail.
    std::fs::rename(&current, &moved).expect("moves");
    wait_for("the file", || current.exists().then_some(()));
    let checked = daemon.command(&["fsck"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.contains("events that no event file has") && !told.contains("sound"), "{told}");
    assert_eq!(checked.status.code(), Some(1));
}
