//! The event file as an operator's tools read it: what stands on every line, and in which order.

use serde_json::Value;

use crate::support::daemon::{Setup, rule};
use crate::support::smtp::message;

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
    // Nothing is known of this one: no author, no subject, no id.
    assert!(client.data(b"\r\nbare\r\n").starts_with("250"));

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
    for absent in ["from", "sender", "subject", "messageId", "dmarcPolicy"] {
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
