//! What an operator is told of mail that waits, and what comes of a word on it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::refusing_port;
use crate::support::remote::{Manners, Remote};
use crate::support::sending::{outcomes, prepared, queue, route, started, submit};
use crate::support::wait_for;

/// Nothing is tried twice by itself.
const RETRY_LATE: &str = "[queue]\nfirst_retry_s = 3600\nlongest_retry_s = 3600\n";

/// For each reason how many entries wait for it.
fn reasons(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for entry in queue(daemon) {
        let reason = entry["waitsFor"]["reason"].as_str().expect("a reason");
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
    reasons
}

fn is(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn summary(daemon: &Daemon) -> Vec<Value> {
    daemon.lists(&["queue", "summary"])
}

fn asked(daemon: &Daemon, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = ["queue"].iter().chain(arguments).chain(&["--json"]).copied().collect();
    serde_json::from_str(&daemon.succeeds(&arguments)).expect("JSON")
}

#[test]
fn waiting_entries_say_what_for_and_a_retry_says_what_came_of_it() {
    let silent = Remote::start(Manners { is_silent: true, ..Manners::default() });
    let busy = Remote::start(Manners { rcpt: |_, _| "450 4.2.1 busy", ..Manners::default() });
    let routes = [
        route("silent.test", silent.address.port()),
        route("busy.test", busy.address.port()),
        route("down.test", refusing_port()),
    ];
    let mut daemon = started(&(RETRY_LATE.to_owned() + &routes.concat()));
    for subject in ["one", "two"] {
        submit(&daemon, &["a@silent.test", "b@busy.test", "c@down.test"], subject);
    }
    let expected =
        is(&[("in-flight", 1), ("connection", 1), ("next-attempt", 3), ("destination-down", 1)]);
    wait_for("everything to wait", || (reasons(&daemon) == expected).then_some(()));
    let lines = daemon.succeeds(&["queue", "list"]);
    for expected in [
        "-> silent.test (a@silent.test), attempts 0, is being sent at this moment\n",
        "(a@silent.test), attempts 0, waits for the one connection to its destination, where no",
        "(b@busy.test), attempts 1, next attempt 20",
        "; 450 4.2.1 busy (127.0.0.1, RCPT)\n",
        "(c@down.test), attempts 0, nobody takes mail at its destination, which is left alone until 20",
    ] {
        assert!(lines.contains(expected), "no {expected} in\n{lines}");
    }

    let hurried = asked(&daemon, &["retry", "--to", "silent.test"]);
    let (in_flight, waiting) = (&hurried["inFlight"], &hurried["waiting"]);
    assert_eq!(in_flight.as_array().map(Vec::len), Some(1), "{hurried}");
    assert_eq!(waiting[0]["waitsFor"]["reason"], "connection", "{hurried}");
    assert_eq!(hurried["done"], json!([]));
    let told = daemon.succeeds(&["queue", "retry", "--to", "a@silent.test"]);
    assert!(told.ends_with("1 being sent, 1 due but waiting\n"), "{told}");
    let before = busy_attempts(&daemon);
    let hurried = asked(&daemon, &["retry", "--to", "b@busy.test"]);
    assert_eq!(hurried["done"].as_array().map(Vec::len), Some(2), "{hurried}");
    wait_for("both to be tried", || (busy_attempts(&daemon) == before + 2).then_some(()));
    for command in ["list", "retry", "drop"] {
        let told = daemon.succeeds(&["queue", command, "--to", "nobody.test"]);
        assert_eq!(told, "nothing waits for nobody.test; for others, 6 entries\n", "{command}");
    }

    // It would be waited for.
    drop(silent);
    assert!(daemon.stop().success());
    assert_eq!(reasons(&daemon), is(&[("no-daemon", 6)]));
}

fn busy_attempts(daemon: &Daemon) -> u64 {
    let queue = queue(daemon);
    let busy = queue.iter().filter(|entry| entry["destination"] == "busy.test");
    busy.map(|entry| entry["attempts"].as_u64().expect("a number")).sum()
}

#[test]
fn a_summary_tells_of_each_destination() {
    let busy = Remote::start(Manners { rcpt: |_, _| "450 4.2.1 busy", ..Manners::default() });
    let routes = route("busy.test", busy.address.port()) + &route("down.test", refusing_port());
    let daemon = started(&(RETRY_LATE.to_owned() + &routes));
    let to_nobody = ["list", "retry", "drop"].map(|command| vec![command, "--to", "nobody.test"]);
    for arguments in [vec!["summary"], vec!["retry", "--all"]].into_iter().chain(to_nobody) {
        let told = daemon.succeeds(&[&["queue"], arguments.as_slice()].concat());
        assert_eq!(told, "the queue is empty\n", "{arguments:?}");
    }
    submit(&daemon, &["b@busy.test"], "one");
    submit(&daemon, &["b@busy.test", "c@busy.test", "d@down.test"], "two");
    let all = wait_for("all attempts", || {
        let all = summary(&daemon);
        let is_tried = |it: &Value| it["lastFailure"].is_string();
        let is_over = all.len() == 2 && all.iter().all(is_tried);
        (is_over && all[0]["waitsFor"]["next-attempt"] == 2).then_some(all)
    });
    let [busy, down] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!((&busy["destination"], &busy["messages"]), (&json!("busy.test"), &json!(2)));
    assert_eq!((&down["destination"], &down["messages"]), (&json!("down.test"), &json!(1)));
    let entries = queue(&daemon);
    let of_busy = |key: &'static str| {
        let entries = entries.iter().filter(|entry| entry["destination"] == "busy.test");
        entries.map(move |entry| entry[key].as_u64().expect("a number"))
    };
    assert_eq!(busy["octets"], of_busy("size").sum::<u64>());
    assert_eq!(busy["oldestQueuedAt"].as_u64(), of_busy("queuedAt").min());
    assert_eq!(busy["nextAttempt"].as_u64(), of_busy("nextAttempt").min());
    assert_eq!(busy["lastAttempt"].as_u64(), of_busy("lastAttempt").max());
    assert_eq!(busy["lastFailure"], "450 4.2.1 busy (127.0.0.1, RCPT)");
    assert!(down["lastFailure"].as_str().expect("one").starts_with("4.4.1"), "{down}");
    let lines = daemon.succeeds(&["queue", "summary"]);
    assert!(lines.starts_with("busy.test: 2 messages, "), "{lines}");
    assert!(lines.contains(" bytes, oldest ") && lines.contains(", next attempt 20"), "{lines}");
}

#[test]
fn who_is_dropped_by_address_takes_nobody_along() {
    let busy = Remote::start(Manners { rcpt: |_, _| "450 4.2.1 busy", ..Manners::default() });
    let daemon = started(&(RETRY_LATE.to_owned() + &route("busy.test", busy.address.port())));
    submit(&daemon, &["bob@busy.test", "carol@busy.test"], "for two");
    wait_for("an attempt", || (busy_attempts(&daemon) == 1).then_some(()));
    wait_for("its end", || (reasons(&daemon) == is(&[("next-attempt", 1)])).then_some(()));
    let told = daemon.succeeds(&["queue", "drop", "--to", "BOB@busy.test", "--bounce"]);
    assert!(told.ends_with("1 given up\n"), "{told}");
    assert_eq!(outcomes(&daemon, "for two", 1), ["bounced bob@busy.test 5.7.1"]);
    let left = queue(&daemon);
    assert_eq!(left[0]["recipients"], json!(["carol@busy.test"]), "{left:#?}");
    daemon.succeeds(&["queue", "drop", "--to", "busy.test"]);
    let all = outcomes(&daemon, "for two", 2);
    assert_eq!(all[1], "bounced carol@busy.test 5.7.1");
    assert!(queue(&daemon).is_empty());
    let by = uzers::get_current_username().expect("a name");
    let id = left[0]["id"].as_str().expect("an id");
    for is_told in [true, false] {
        let line = format!("by={by:?} count=1 entries={id:?} is_told={is_told}");
        assert!(daemon.log().contains(&line), "{line} in\n{}", daemon.log());
    }
    let report = daemon.mailbox("alice");
    assert_eq!(report.len(), 1, "of bob alone");
    let both = daemon.command(&["queue", "drop", "--to", "busy.test", "1.0.0.0"]);
    assert!(!both.status.success(), "one or the other");
}

#[test]
fn a_relay_for_all_mail_has_the_connections_of_one_destination() {
    let silent = Remote::start(Manners { is_silent: true, ..Manners::default() });
    let daemon = started(&route("*", silent.address.port()));
    let recipients: Vec<_> = (0..5).map(|number| format!("a@d{number}.test")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    submit(&daemon, &recipients, "for five domains");
    let expected = is(&[("in-flight", 1), ("connection", 4)]);
    wait_for("everything to wait", || (reasons(&daemon) == expected).then_some(()));
    wait_for("a connection", || (silent.connections() > 0).then_some(()));
    assert_eq!(silent.connections(), 1, "one until it answers");
    // It would be waited for.
    drop(silent);
}

/// Its servers take nothing for as long as each message was tried once, as when they start anew.
#[test]
fn what_waits_for_a_destination_that_is_back_goes_at_once() {
    let remote = Remote::start(Manners {
        rcpt: |_, times| if times == 1 { "421 4.3.2 starting" } else { "250 2.1.5 ok" },
        ..Manners::default()
    });
    let daemon = started(&(RETRY_LATE.to_owned() + &route("far.test", remote.address.port())));
    let recipients: Vec<_> = (0..6).map(|number| format!("u{number}@far.test")).collect();
    for recipient in &recipients {
        submit(&daemon, &[recipient], recipient);
    }
    wait_for("an attempt for each", || {
        let queue = queue(&daemon);
        let Some(entry) = queue.iter().find(|entry| entry["lastFailure"].is_null()) else {
            return Some(());
        };
        // The destination is left alone for a minute, which an operator need not wait.
        daemon.succeeds(&["queue", "retry", entry["id"].as_str().expect("an id")]);
        None
    });
    let first = queue(&daemon).first().cloned().expect("an entry");
    daemon.succeeds(&["queue", "retry", first["id"].as_str().expect("an id")]);
    for recipient in &recipients {
        assert_eq!(outcomes(&daemon, recipient, 1), [format!("sent {recipient}")]);
    }
    assert!(queue(&daemon).is_empty());
}

/// A queue that was restored, or moved here, can be looked at before anything of it leaves.
#[test]
fn nothing_leaves_a_paused_queue_until_a_reload_lets_it_go() {
    let far = Remote::start(Manners::default());
    let with =
        |paused: bool| format!("[queue]\npaused = {paused}\n{}", route("*", far.address.port()));
    let setup = |paused| Setup { sections: with(paused), ..Setup::default() };
    let mut daemon = prepared(setup(true));
    let rewrite = |daemon: &Daemon, paused: bool| {
        let text = std::fs::read_to_string(daemon.config()).expect("reads");
        std::fs::write(daemon.config(), text.replace(&with(!paused), &with(paused)))
            .expect("writes");
    };
    let checked = daemon.command(&["check-config"]);
    assert!(text(&checked.stderr).contains("queue.paused: the queue is paused, so no mail leaves"));
    daemon.launch(Command::new(BINARY));
    assert_eq!(daemon.log().matches("the queue is paused").count(), 1, "{}", daemon.log());
    let told = daemon.succeeds(&["queue", "list"]);
    assert!(told.starts_with("the queue is empty\nthe queue is paused"), "{told}");
    submit(&daemon, &["a@one.test", "b@two.test", "bob@example.test"], "held");
    assert_eq!(daemon.folders("bob", "held"), ["INBOX"], "what stays here never waits");
    assert_eq!(reasons(&daemon), is(&[("paused", 2)]));

    // Hurried, it waits; dropped, it is gone, and its sender's report is no mail that leaves.
    let told = daemon.succeeds(&["queue", "retry", "--all"]);
    assert!(told.contains("is due, and waits, because the queue is paused"), "{told}");
    assert!(told.contains("2 due but waiting\nthe queue is paused: nothing leaves"), "{told}");
    assert_eq!(asked(&daemon, &["retry", "--all"])["paused"], true);
    daemon.succeeds(&["queue", "drop", "--to", "b@two.test", "--bounce"]);
    let all = outcomes(&daemon, "held", 2);
    assert_eq!(all, ["sent bob@example.test", "bounced b@two.test 5.7.1"]);
    assert_eq!(daemon.mailbox("alice").len(), 1, "her report");

    // Neither a restart nor another reload lets anything go.
    daemon.stop();
    let told = daemon.succeeds(&["queue", "list"]);
    assert!(
        told.contains("no daemon is running") && told.contains("the queue is paused"),
        "{told}"
    );
    daemon.launch(Command::new(BINARY));
    assert!(text(&daemon.command(&["reload"]).stderr).contains("the queue is paused"));
    assert_eq!(reasons(&daemon), is(&[("paused", 1)]));
    assert_eq!(far.connections(), 0, "nobody was spoken to");

    rewrite(&daemon, false);
    let told = daemon.succeeds(&["reload"]);
    assert!(
        told.contains("reloaded: queue.paused\nreloaded: the queue goes on: mail leaves"),
        "{told}"
    );
    wait_for("the rest to leave", || queue(&daemon).is_empty().then_some(()));
    let taken: Vec<_> = far.taken().into_iter().map(|taken| taken.recipient).collect();
    assert_eq!(taken, ["a@one.test"]);

    // And back: what comes from then on waits.
    rewrite(&daemon, true);
    let told = daemon.succeeds(&["reload"]);
    assert!(told.contains("reloaded: the queue is paused: no mail leaves"), "{told}");
    submit(&daemon, &["c@one.test"], "later");
    assert_eq!(reasons(&daemon), is(&[("paused", 1)]));
    assert_eq!(far.taken().len(), 1);
}

/// What did not happen leaves no line.
#[test]
fn nothing_that_is_dropped_is_not_logged() {
    let daemon = started("");
    assert!(!daemon.command(&["queue", "drop", "1.0.0.0"]).status.success());
    daemon.succeeds(&["queue", "drop", "--to", "nobody.test"]);
    assert!(!daemon.log().contains("has dropped mail"), "{}", daemon.log());
}
