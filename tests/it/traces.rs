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
    let reported = "delivered to INBOX of alice@example.test";
    let port = far.address().port();
    for expected in [
        format!("  reported to {ALICE} in trace {by_server}: {reported}\n"),
        format!("  nobody@far.test: bounced, 127.0.0.1 (127.0.0.1:{port}), RCPT: 550 5.1.1 "),
    ] {
        assert!(text.contains(&expected), "no {expected} in\n{text}");
    }
}

#[test]
fn what_left_is_told_with_who_took_it_and_who_signed_it() {
    let far = far();
    let port = far.address().port();
    let forward = "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n";
    let daemon = daemon(forward, port);
    let check = |daemon: &Daemon, recipient: &str, parts: &[&str]| {
        logged(daemon, &[": sent trace_id=", &format!(" to={recipient} ")]);
        let mut found = traces(daemon, recipient).into_iter();
        let found = found.find(|trace| trace["transport"].is_array()).expect("an outcome");
        let outcome = &found["transport"][0];
        assert_eq!(outcome["recipients"], serde_json::json!([recipient]));
        assert_eq!((&outcome["result"], &outcome["server"]), (&"sent".into(), &"127.0.0.1".into()));
        assert_eq!(outcome["address"], format!("127.0.0.1:{port}"));
        let reply = outcome["reply"].as_str().expect("a reply");
        assert!(reply.starts_with("250 2.0.0 Accepted "), "{reply}");
        let tls = outcome["tls"].as_str().expect("TLS");
        assert!(tls.starts_with("TLSv1.3 "), "{tls}");
        let text = daemon.succeeds(&["events", "trace", recipient]);
        let sent = format!("  {recipient}: sent to 127.0.0.1 (127.0.0.1:{port}), {tls}: {reply}\n");
        for expected in [&[sent.as_str()], parts].concat() {
            assert!(text.contains(expected), "no {expected} in\n{text}");
        }
        let log = daemon.log();
        let is_it = |line: &&str| line.contains(": sent trace_id=") && line.contains(recipient);
        let line = log.lines().find(is_it).expect("a line");
        assert!(line.contains(&format!(" tls=\"{tls}\"")), "{line}");
    };
    submit(&daemon, CAROL, "signed", &[]).accepted();
    check(&daemon, CAROL, &["  signed by example.test (selector mw1r, mw1e)\n"]);
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &["dave@example.test"]);
    assert!(client.data(&message(CAROL, "sent on")).starts_with("250"));
    check(&daemon, "dave@far.test", &["  not signed here: it is sent on with the signatures"]);

    let mut waiting = crate::outbound::prepared_with_waiting_keys(port);
    waiting.launch(std::process::Command::new(crate::support::daemon::BINARY));
    submit(&waiting, CAROL, "unsigned", &[]).accepted();
    check(&waiting, CAROL, &["  not signed by example.test, which has no keys that sign "]);
}

/// The id in a line of the log with all this in it, once there is one.
fn logged(daemon: &Daemon, parts: &[&str]) -> String {
    let line = wait_for(&format!("{parts:?} in the log"), || {
        let log = daemon.log();
        let mut lines = log.lines();
        lines.find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    });
    let id = line.split("trace_id=").nth(1).and_then(|rest| rest.split(' ').next());
    id.expect("an id").to_owned()
}

#[test]
fn a_journal_record_that_fails_is_told_by_its_id_and_by_the_message() {
    let far = far();
    let journaling = "[journaling]\njournaling_address = \"vault@far.test\"\n\
                      report_address = \"admin@example.test\"\n";
    let daemon = daemon(journaling, far.address().port());
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &[BOB]);
    assert!(client.data(&message(CAROL, "journaled")).starts_with("250"));
    let record = logged(&daemon, &[" bounced ", "what=\"journal record\""]);
    let notice = logged(&daemon, &[" delivered ", "what=\"report\"", &format!("about={record}")]);
    let told = delivered(&daemon, "admin", "Journal record not delivered");
    assert!(told.contains(&format!("Record: {record}\r\n")), "{told}");
    let first = trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", "journaled");
    for id in [&first, &record, &notice] {
        let found = traces(&daemon, id);
        assert_eq!(found.len(), 3, "{id}: {found:#?}");
        check_joined(&found[0], &first, &[("journalRecord", &record)]);
        check_joined(&found[1], &record, &[("about", &first), ("notice", &notice)]);
        check_joined(&found[2], &notice, &[("about", &record)]);
        assert_eq!(found[1]["transport"][0]["result"], "bounced");
        assert_eq!(found[1]["transport"][0]["recipients"][0], "vault@far.test");
        let became = found[0]["joined"][0]["became"].as_str().expect("a text");
        assert!(became.starts_with("bounced, 127.0.0.1 ("), "{became}");
        assert!(became.contains(", RCPT: 550 5.1.1 "), "{became}");
    }
    let text = daemon.succeeds(&["events", "trace", "<journaled@good.test>"]);
    let expected = format!("  journal record to vault@far.test in trace {record}: bounced, ");
    assert!(text.contains(&expected), "no {expected} in\n{text}");
    assert!(text.contains("  a journal record of ours to vault@far.test\n"), "{text}");
}

/// Also where the record is kept here, and where there is none.
#[test]
fn a_message_tells_what_became_of_its_journal_record() {
    let with = |address: &str| {
        Setup::with(&format!(
            "[journaling]\njournaling_address = \"{address}\"\n\
             report_address = \"admin@example.test\"\n"
        ))
    };
    let send = |daemon: &Daemon| {
        let mut client = daemon.client();
        client.envelope("bob@good.test", &[ALICE]);
        assert!(client.data(&message("bob@good.test", "journaled")).starts_with("250"));
        daemon.succeeds(&["events", "trace", "<journaled@good.test>"])
    };
    let kept = with("archive@example.test").start();
    let text = send(&kept);
    let record =
        logged(&kept, &[" delivered ", "what=\"journal record\"", "to=archive@example.test"]);
    let became = "delivered to INBOX of archive@example.test";
    let expected =
        format!("  journal record to archive@example.test in trace {record}: {became}\n");
    assert!(text.contains(&expected), "no {expected} in\n{text}");
    let first = trace_with(&kept, "ORGANIZATION_EMAIL_RECEIVED", "subject", "journaled");
    check_joined(&traces(&kept, &record)[1], &record, &[("about", &first)]);

    let other = "alias = \"other\"\ndomains = [\"other.test\"]\n[[user]]\nname = \"eve\"\n";
    let more_organizations = vec![other.to_owned()];
    let none = Setup { more_organizations, ..with("nobody@other.test") }.start();
    let text = send(&none);
    for expected in
        ["  no journal record: nobody@other.test is not", "  notice to admin@example.test"]
    {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
}

#[test]
fn a_report_on_what_was_sent_on_is_told_by_its_id() {
    let far = far();
    let forward = "[[user]]\nname = \"dave\"\nremote = \"nobody@far.test\"\n";
    let daemon = daemon(forward, far.address().port());
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &["dave@example.test"]);
    assert!(client.data(&message(CAROL, "in vain")).starts_with("250"));
    let report = logged(&daemon, &[" sent ", "what=\"report\"", "to=carol@far.test"]);
    let first = trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", "in vain");
    for id in [&first, &report] {
        let found = traces(&daemon, id);
        let [_, onward, third] = found.as_slice() else { panic!("{id}: {found:#?}") };
        let onward_id = onward["traceId"].as_str().expect("an id");
        check_joined(&found[0], &first, &[("sentOn", onward_id)]);
        check_joined(onward, onward_id, &[("sentOnFrom", &first), ("report", &report)]);
        check_joined(third, &report, &[("about", onward_id)]);
        assert_eq!(third["transport"][0]["result"], "sent");
        assert_eq!(third["story"]["signatures"]["domain"], "example.test");
    }
    let text = daemon.succeeds(&["events", "trace", &report]);
    for expected in [
        "  a report of ours to carol@far.test\n".to_owned(),
        "  signed by example.test (selector mw1r, mw1e)\n".to_owned(),
        format!("  reported to carol@far.test in trace {report}: sent to 127.0.0.1 ("),
    ] {
        assert!(text.contains(&expected), "no {expected} in\n{text}");
    }
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
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[0]["joined"][0]["relation"], "report");
    assert_eq!(found[0]["joined"][0]["to"], serde_json::json!([CAROL]));
    let report = found[0]["joined"][0]["traceId"].as_str().expect("an id");
    assert_eq!(traces(&daemon, report), found, "the same from the report on");
}

/// A Message-ID is what its writer says, so anybody may write that of another message.
#[test]
fn a_reused_message_id_joins_nothing() {
    let far = far();
    let daemon = daemon("", far.address().port());
    come_back(&daemon, &["it was there before"]);
    let to = format!("nobody@far.test,{BOB}");
    submit(&daemon, &to, "the first", &["--header", "Message-Id: <back@x.test>"]).accepted();
    told(&daemon, "the first", "OUTGOING_EMAIL_BOUNCED");
    submit(&daemon, BOB, "another's", &["--header", "Message-Id: <back@x.test>"]).accepted();
    come_back(&daemon, &["it is back", "it is back again"]);
    let received = |subject| trace_with(&daemon, "ORGANIZATION_EMAIL_RECEIVED", "subject", subject);
    let out = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "the first");
    let other = trace_with(&daemon, "OUTGOING_EMAIL_SUBMITTED", "subject", "another's");
    let found = traces(&daemon, &out);
    let [_, _, report] = found.as_slice() else { panic!("{found:#?}") };
    let report = report["traceId"].as_str().expect("an id");
    check_joined(&found[0], &out, &[("inbound", &received("the first")), ("report", report)]);
    assert_eq!(traces(&daemon, &received("the first")), found, "the same from the other half on");
    let found = traces(&daemon, &other);
    assert_eq!(found.len(), 2, "{found:#?}");
    check_joined(&found[0], &other, &[("inbound", &received("another's"))]);
    for subject in ["it was there before", "it is back", "it is back again"] {
        let id = received(subject);
        let found = traces(&daemon, &id);
        assert_eq!(found.len(), 1, "{found:#?}");
        check_joined(&found[0], &id, &[]);
    }
    // Whoever asks for the id itself finds all that have it, each with what is its own alone.
    let found = traces(&daemon, "<back@x.test>");
    for trace in &found {
        let joined = trace["joined"].as_array().map_or(0, Vec::len);
        assert!(joined <= 2, "{trace:#}");
    }
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
