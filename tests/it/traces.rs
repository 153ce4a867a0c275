//! `events trace` tells a message's whole story, whichever part of it is asked for.

use serde_json::Value;

use crate::outbound::{daemon, delivered, far, submit, told};
use crate::support::daemon::{Daemon, Setup, rule, text};
use crate::support::smtp::{Client, message};
use crate::support::wait_for;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const CAROL: &str = "carol@far.test";

/// What `events trace` tells of an id: a value for each trace, oldest first.
fn traces(daemon: &Daemon, id: &str) -> Vec<Value> {
    let lines = daemon.succeeds(&["events", "trace", id, "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The id of the trace that has an event with this name and value.
fn trace_with(daemon: &Daemon, name: &str, key: &str, value: &str) -> String {
    let events = daemon.events();
    let is_it = |line: &&Value| {
        let event = &line["event"];
        event["eventName"] == name && (event[key] == value || event[key][0] == value)
    };
    let found = events.iter().find(is_it);
    let found = found.unwrap_or_else(|| panic!("no {name} for {value} in {events:#?}"));
    found["traceId"].as_str().expect("an id").to_owned()
}

fn check_joined(trace: &Value, id: &str, expected: &[(&str, &str)]) {
    assert_eq!(trace["traceId"], id);
    let joined = trace["joined"].as_array().map_or(&[][..], Vec::as_slice);
    let field = |of: &Value, key: &str| of[key].as_str().expect("a text").to_owned();
    let found: Vec<_> =
        joined.iter().map(|it| (field(it, "relation"), field(it, "traceId"))).collect();
    let expected: Vec<_> =
        expected.iter().map(|(relation, id)| ((*relation).into(), (*id).into())).collect();
    assert_eq!(found, expected, "{trace:#}");
}

#[test]
fn both_halves_of_a_submission_are_told_together() {
    let far = far();
    let daemon = daemon("", far.address().port());
    submit(&daemon, &format!("{CAROL},{BOB}"), "both halves", &[]).accepted();
    submit(&daemon, BOB, "another", &[]).accepted();
    delivered(&far, "carol", "both halves");
    let out = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "both halves");
    let inbound = trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", "both halves");
    let events = daemon.events();
    let message_id = events.iter().find_map(|line| line["event"]["messageId"].as_str());
    for id in [out.as_str(), &inbound, message_id.expect("an id"), CAROL] {
        let found = traces(&daemon, id);
        assert_eq!(found.len(), 2, "{id}: {found:#?}");
        check_joined(&found[0], &out, &[("inbound", &inbound)]);
        check_joined(&found[1], &inbound, &[("outbound", &out)]);
        assert_eq!(found[0]["joined"][0]["to"], serde_json::json!([BOB]));
    }
    let text = daemon.succeeds(&["events", "trace", &inbound]);
    for expected in [
        format!("trace {out}\n"),
        format!("  received here in trace {inbound} for {BOB}\n"),
        format!("  submitted in trace {out}\n"),
        "MAILBOX_EMAIL_DELIVERED  bob@example.test INBOX".to_owned(),
    ] {
        assert!(text.contains(&expected), "no {expected} in\n{text}");
    }
}

#[test]
fn a_bounce_is_told_with_the_report_that_came_of_it() {
    let far = far();
    let bounce = "[[outbound_rule]]\nname = \"no\"\naction = \"BOUNCE\"\nsenders = [\"*\"]\n\
                  destinations = [\"not@far.test\"]\n";
    let daemon = daemon(bounce, far.address().port());
    let to = format!("not@far.test,nobody@far.test,{BOB}");
    submit(&daemon, &to, "twice no", &[]).accepted();
    wait_for("the second bounce", || {
        let names = daemon.names("twice no").into_iter();
        (names.filter(|name| name == "OUTGOING_EMAIL_BOUNCED").count() == 2).then_some(())
    });
    let out = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "twice no");
    let found = traces(&daemon, &out);
    let ids: Vec<_> = found.iter().filter_map(|trace| trace["traceId"].as_str()).collect();
    let [_, inbound, by_rule, by_server] = ids[..] else { panic!("{found:#?}") };
    let mut expected = [("inbound", inbound), ("report", by_rule), ("report", by_server)];
    expected.sort_by_key(|(_, id)| *id);
    check_joined(&found[0], &out, &expected);
    check_joined(&found[1], inbound, &[("outbound", &out)]);
    for (report, id) in [(&found[2], by_rule), (&found[3], by_server)] {
        check_joined(report, id, &[("about", &out)]);
        assert_eq!(traces(&daemon, id).len(), 4, "the same story from the report on");
    }
    let text = daemon.succeeds(&["events", "trace", &out]);
    assert!(text.contains(&format!("  reported to {ALICE} in trace {by_server}\n")), "{text}");
}

#[test]
fn what_only_bounced_is_found_by_its_message_id() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let header = ["--header", "Message-Id: <lost@x.test>"];
    submit(&daemon, "nobody@far.test", "lost", &header).accepted();
    told(&daemon, "lost", "OUTGOING_EMAIL_BOUNCED");
    let out = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "lost");
    for id in ["<lost@x.test>", "LOST@x.test"] {
        let found = traces(&daemon, id);
        assert_eq!((found.len(), &found[0]["traceId"]), (2, &out.as_str().into()), "{found:#?}");
    }
    let nothing = daemon.command(&["events", "trace", "<ost@x.test>"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn a_report_that_leaves_is_told_by_the_message_it_is_about() {
    let far = far();
    let daemon = daemon(&rule("no", "BOUNCE", "far.test", BOB), far.address().port());
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &[ALICE, BOB]);
    assert!(client.data(&message(CAROL, "half refused")).starts_with("250"));
    delivered(&far, "carol", "Undelivered mail");
    let id = trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", "half refused");
    let found = traces(&daemon, &id);
    assert_eq!(found.len(), 1, "a report that leaves has no events: {found:#?}");
    assert_eq!(found[0]["joined"][0]["relation"], "report");
    assert_eq!(found[0]["joined"][0]["to"], serde_json::json!([CAROL]));
}

#[test]
fn what_comes_back_with_the_same_message_id_is_joined() {
    let far = far();
    let daemon = daemon("", far.address().port());
    submit(&daemon, CAROL, "out and back", &["--header", "Message-Id: <back@x.test>"]).accepted();
    told(&daemon, "out and back", "OUTGOING_EMAIL_SENT");
    come_back(&daemon, &["it is back", "it is back again"]);
    let [out, one, two] = [
        ("OUTGOING_EMAIL_SUBMITTED", "out and back"),
        ("ORGANIZATION_EMAIL_RECEIVED", "it is back"),
        ("ORGANIZATION_EMAIL_RECEIVED", "it is back again"),
    ]
    .map(|(name, subject)| trace_with(&daemon, name, "subject", subject));
    let found = traces(&daemon, &one);
    assert_eq!(found.len(), 3, "the other one by way of what left: {found:#?}");
    check_joined(&found[0], &out, &[("inbound", &one), ("inbound", &two)]);
    check_joined(&found[1], &one, &[("outbound", &out)]);
}

#[test]
fn what_mailbox_rules_send_on_is_told_with_what_it_came_from() {
    let far = far();
    let sends_on = |name: &str, action: &str, to: &str| {
        format!(
            "[[user]]\nname = \"{name}\"\n[[user.mailbox_rule]]\nname = \"away\"\n\
             action = \"{action}\"\nto = \"{to}\"\n"
        )
    };
    let users = sends_on("fwd", "FORWARD", CAROL) + &sends_on("red", "REDIRECT", BOB);
    let refusal = rule("no", "BOUNCE", "far.test", ALICE);
    let daemon = daemon(&format!("{users}{refusal}"), far.address().port());
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &["fwd@example.test", "red@example.test", ALICE]);
    assert!(client.data(&message(CAROL, "on and on")).starts_with("250"));
    delivered(&far, "carol", "on and on");
    let to_carol = wait_for("the forward", || {
        let events = daemon.events();
        let is_it = |line: &&Value| line["event"]["eventName"] == "OUTGOING_EMAIL_SENT";
        let found = events.iter().find(is_it).map(|line| line["traceId"].clone());
        found.and_then(|id| id.as_str().map(str::to_owned))
    });
    let events = daemon.events().into_iter();
    let mut received =
        events.filter(|line| line["event"]["eventName"] == "ORGANIZATION_EMAIL_RECEIVED");
    let mut id = || received.next().expect("one")["traceId"].as_str().expect("an id").to_owned();
    let (first, to_bob) = (id(), id());
    for id in [&first, &to_carol, &to_bob] {
        let found = traces(&daemon, id);
        let of = |id: &String| {
            let found = found.iter().find(|trace| trace["traceId"] == id.as_str());
            found.unwrap_or_else(|| panic!("no {id} in {found:#?}"))
        };
        let mut on = [("sentOn", to_carol.as_str()), ("sentOn", &to_bob)];
        on.sort_by_key(|(_, id)| *id);
        let joined = of(&first)["joined"].as_array().expect("a list");
        let [one, two, report] = joined.as_slice() else { panic!("{joined:#?}") };
        for (joined, (relation, id)) in [one, two].into_iter().zip(on) {
            assert_eq!((&joined["relation"], &joined["traceId"]), (&relation.into(), &id.into()));
        }
        assert_eq!((&report["relation"], &report["to"][0]), (&"report".into(), &CAROL.into()));
        check_joined(of(&to_carol), &to_carol, &[("sentOnFrom", &first)]);
        check_joined(of(&to_bob), &to_bob, &[("sentOnFrom", &first)]);
    }
    let text = daemon.succeeds(&["events", "trace", &to_carol]);
    for expected in [
        "  mailbox fwd@example.test: its rule \"away\" says FORWARD to carol@far.test\n".to_owned(),
        format!(
            "  sent on from fwd@example.test to carol@far.test in trace {to_carol}: its server has \
                 taken it\n"
        ),
        format!(
            "  sent on from red@example.test to bob@example.test in trace {to_bob}: delivered to INBOX \
                 of bob@example.test\n"
        ),
        "  fwd@example.test: delivered to INBOX, and sent on to carol@far.test, because".to_owned(),
        "  red@example.test: sent on to bob@example.test, not kept here, because".to_owned(),
        "  sent on by organization example: ".to_owned(),
        format!("  sent on from trace {first}\n"),
    ] {
        assert!(text.contains(&expected), "no {expected} in\n{text}");
    }
    assert!(!text.contains("submitted by a user"), "{text}");
}

/// Somebody elsewhere writes to bob with the Message-ID of another message.
fn come_back(daemon: &Daemon, subjects: &[&str]) {
    let mut client = Client::connect(daemon.address());
    for subject in subjects {
        client.envelope(CAROL, &[BOB]);
        let content = format!(
            "From: <{CAROL}>\r\nSubject: {subject}\r\nMessage-ID: <back@x.test>\r\n\r\nx\r\n"
        );
        assert!(client.data(content.as_bytes()).starts_with("250"));
    }
}

#[test]
fn who_uses_a_message_id_again_hides_nothing() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let to = format!("nobody@far.test,{BOB}");
    submit(&daemon, &to, "used again", &["--header", "Message-Id: <back@x.test>"]).accepted();
    told(&daemon, "used again", "OUTGOING_EMAIL_BOUNCED");
    come_back(&daemon, &["flood"; 110]);
    let out = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "used again");
    let inbound = trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", "used again");
    let found = traces(&daemon, &out);
    assert_eq!(found.len(), 101, "a hundred are joined to it, the oldest");
    let joined = &found[0]["joined"];
    assert_eq!(joined[0]["traceId"], inbound.as_str());
    assert!(joined.as_array().expect("a list").iter().any(|it| it["relation"] == "report"));
}

#[test]
fn only_the_newest_traces_are_told_and_the_rest_is_counted() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    for number in 0..3 {
        client.envelope("bob@good.test", &[ALICE]);
        assert!(client.data(&message("bob@good.test", &format!("n{number}"))).starts_with("250"));
    }
    let output = daemon.command(&["events", "trace", ALICE, "--limit", "2", "--json"]);
    let found = text(&output.stdout);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(!found.contains("\"n0\"") && found.contains("\"n2\""), "{found}");
    assert_eq!(text(&output.stderr), "1 older trace not shown; see --limit\n");
    for limit in ["0", "1001"] {
        let output = daemon.command(&["events", "trace", ALICE, "--limit", limit]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
    let output = daemon.command(&["events", "trace", ALICE]);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}
