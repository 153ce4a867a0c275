//! Users log in, as an administrator tries it with swaks, and the audit logs tell of it.

use std::fs;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::credentials::set_password;
use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::swaks::{Transcript, swaks};
use crate::support::{faketime, wait_for};

const ALICE: &str = "alice@example.test";
const PASSWORD: &str = "Lemon-tree1";
const WRONG: &str = "Lemon-tree2";

fn daemon(organization: &str) -> Daemon {
    daemon_with(organization, 1000)
}

/// A daemon that lets a network fail so often in a minute.
fn daemon_with(organization: &str, failures: usize) -> Daemon {
    let listener = |name: &str| {
        format!("[[listener]]\nname = \"{name}\"\nprotocol = \"{name}\"\nbind = \"127.0.0.1:0\"\n")
    };
    let listener = listener("submission") + &listener("submissions");
    let sections =
        format!("[limits]\nbanner_delay_ms = 0\nfailed_logins_per_network = {failures}\n");
    let daemon = Setup { listener, sections, ..Setup::with(organization) }.start();
    for user in ["alice", "bob", "carol"] {
        assert!(set_password(&daemon, user, PASSWORD).status.success());
    }
    daemon
}

/// Logs in over `submissions` and says goodbye.
fn log_in(daemon: &Daemon, user: &str, password: &str) -> Transcript {
    log_in_over(daemon, ("submissions", "--tls-on-connect"), "PLAIN", user, password)
}

fn log_in_over(
    daemon: &Daemon,
    (listener, tls): (&str, &str),
    mechanism: &str,
    user: &str,
    password: &str,
) -> Transcript {
    let port = daemon.listener(listener).port().to_string();
    let login = ["--auth", mechanism, "--auth-user", user, "--auth-password", password];
    let more = [&["--port", port.as_str(), tls, "--quit-after", "AUTH"][..], &login].concat();
    swaks(daemon, ALICE, ALICE, "never sent", &more)
}

/// The lines of a log about peers, once there are so many; commands leave lines too.
fn audit(daemon: &Daemon, kind: &str, count: usize) -> Vec<Value> {
    let path = daemon.data().join("audit").join(format!("{kind}.jsonl"));
    wait_for("the audit lines", || {
        let text = fs::read_to_string(&path).expect("reads");
        let parse = |line| serde_json::from_str(line).expect("JSON");
        let mut lines: Vec<Value> = text.lines().map(parse).collect();
        lines.retain(|line| line["protocol"] != "cli");
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_user_logs_in_over_both_listeners() {
    let daemon = daemon("");
    for secured in [("submission", "--tls"), ("submissions", "--tls-on-connect")] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let transcript = log_in_over(&daemon, secured, mechanism, ALICE, PASSWORD).accepted();
            assert!(transcript.text.contains("235 2.7.0"), "{}", transcript.text);
        }
    }
    log_in(&daemon, "alice", PASSWORD).accepted();
    log_in(&daemon, "a.liddell@example.test", PASSWORD).accepted();
    let lines = audit(&daemon, "authentication", 6);
    let id = Value::from(daemon.id("alice"));
    for line in &lines {
        assert_eq!((&line["auth_successful"], &line["user_id"]), (&true.into(), &id));
        assert_eq!((&line["protocol"], &line["source_ip"]), (&"SMTP".into(), &"127.0.0.1".into()));
    }
    assert_eq!(lines[4]["user"], "alice");
    for line in audit(&daemon, "access-control", 6) {
        assert_eq!((&line["access_granted"], &line["rule_id"]), (&true.into(), &"default".into()));
    }
}

#[test]
fn whoever_may_not_in_is_told_the_same() {
    let daemon = daemon("[[user]]\nname = \"dave\"\nremote = \"dave@else.test\"\n");
    let cases = [
        (ALICE, WRONG, "wrong-password"),
        ("carol", PASSWORD, "user-disabled"),
        ("dave", PASSWORD, "remote-user"),
        ("room@example.test", PASSWORD, "unknown-user"),
        ("nobody@example.test", PASSWORD, "unknown-user"),
        ("archive", PASSWORD, "no-password"),
        (ALICE, "mwpat_guess", "unknown-token"),
    ];
    for (user, password, _) in cases {
        log_in(&daemon, user, password).refused("535 5.7.8", "bad-credentials");
    }
    let lines = audit(&daemon, "authentication", cases.len());
    for (line, (user, _, reason)) in lines.iter().zip(cases) {
        assert_eq!((&line["user"], &line["auth_failed_reason"]), (&user.into(), &reason.into()));
        let id = line["request_id"].as_str().expect("an id");
        let told = daemon.succeeds(&["events", "trace", id]);
        let about = format!("refused AUTH as <{user}> ({reason}): 535");
        assert!(told.contains("bad-credentials") && told.contains(&about), "{told}");
    }
}

#[test]
fn changes_count_from_the_next_login() {
    let daemon = daemon("");
    log_in(&daemon, "bob", PASSWORD).accepted();
    assert!(set_password(&daemon, "bob", WRONG).status.success());
    log_in(&daemon, "bob", PASSWORD).refused("535 5.7.8", "bad-credentials");
    log_in(&daemon, "bob", WRONG).accepted();

    let made = daemon.succeeds(&["token", "create", "bob", "--name", "phone", "--json"]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (token, id) = (made["token"].as_str().expect("it"), made["id"].as_str().expect("an id"));
    log_in(&daemon, "bob", token).accepted();
    log_in(&daemon, "alice", token).refused("535 5.7.8", "bad-credentials");
    assert!(!daemon.succeeds(&["token", "list", "bob"]).contains("never"), "it was used");
    daemon.succeeds(&["token", "revoke", "bob", id]);
    log_in(&daemon, "bob", token).refused("535 5.7.8", "bad-credentials");
    assert_eq!(audit(&daemon, "authentication", 6)[3]["personal_access_token_id"], id);
}

#[test]
fn an_expired_token_is_refused_and_the_audit_log_tells_why() {
    let daemon = daemon("");
    // Made the day before yesterday for a day.
    let made = Command::new(BINARY)
        .args(["token", "create", "bob", "--name", "old", "--expires", "1", "--json", "--config"])
        .arg(daemon.config())
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME", "-2d")
        .output()
        .expect("runs");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let token = made["token"].as_str().expect("it");
    log_in(&daemon, "bob", token).refused("535 5.7.8", "bad-credentials");
    let line = &audit(&daemon, "authentication", 1)[0];
    assert_eq!(line["auth_successful"], false);
    assert_eq!(line["auth_failed_reason"], "expired-token");
    assert_eq!(line["personal_access_token_id"], made["id"]);
    assert!(daemon.succeeds(&["token", "list", "bob"]).contains("expired "));
}

#[test]
fn a_network_that_is_denied_learns_nothing_of_the_password() {
    let rules = "[[access_rule]]\nname = \"all\"\neffect = \"ALLOW\"\n[[access_rule]]\n\
                 name = \"bob-in-office\"\neffect = \"DENY\"\nusers = [\"bob\"]\n\
                 not_ip_ranges = [\"192.0.2.0/24\"]\n";
    let daemon = daemon(rules);
    log_in(&daemon, "alice", PASSWORD).accepted();
    log_in(&daemon, "bob", PASSWORD).refused("535 5.7.8", "bad-credentials");
    log_in(&daemon, "bob", WRONG).refused("535 5.7.8", "bad-credentials");
    let lines = audit(&daemon, "access-control", 3);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[1]["access_granted"], lines[2]["access_granted"]);
    assert_eq!((&lines[0]["rule_id"], &lines[0]["access_granted"]), (&"all".into(), &true.into()));
    let denied = (&lines[1]["rule_id"], &lines[1]["access_granted"]);
    assert_eq!(denied, (&"bob-in-office".into(), &false.into()));
}

#[test]
fn ten_failures_close_an_account_and_no_other() {
    let daemon = daemon("");
    for user in ["alice", "nobody@example.test"] {
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| log_in(&daemon, user, WRONG).refused("535", "bad-credentials"));
            }
        });
        log_in(&daemon, user, PASSWORD).refused("454 4.7.0", "logins-throttled");
    }
    log_in(&daemon, "bob", PASSWORD).accepted();
}

#[test]
fn attempts_that_are_not_looked_at_leave_their_lines() {
    let daemon = daemon_with("", 1);
    log_in(&daemon, "alice", WRONG).refused("535", "bad-credentials");
    for (mechanism, user) in [("PLAIN", "alice"), ("LOGIN", "nobody@example.test")] {
        let over = ("submissions", "--tls-on-connect");
        log_in_over(&daemon, over, mechanism, user, PASSWORD).refused("454", "logins-throttled");
    }
    let lines = audit(&daemon, "authentication", 3);
    let told = |line: &Value| {
        let words = ["user", "user_id", "auth_failed_reason"].map(|key| line[key].as_str());
        words.map(|word| word.unwrap_or("-").to_owned()).join(" ")
    };
    let told: Vec<String> = lines.iter().map(told).collect();
    let id = daemon.id("alice");
    let expected = [
        format!("alice {id} wrong-password"),
        format!("alice {id} too-many-failures"),
        "nobody@example.test - too-many-failures".to_owned(),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_locked_account_is_unlocked_by_command_and_by_a_new_password() {
    let daemon = daemon("");
    let unlock = || daemon.succeeds(&["user", "unlock", "alice"]);
    let lock = |password: &str| {
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| log_in(&daemon, "alice", WRONG).refused("535", "bad-credentials"));
            }
        });
        log_in(&daemon, "alice", password).refused("454 4.7.0", "logins-throttled");
    };
    assert_eq!(unlock(), "example/alice was not locked\n");
    let locked = || {
        let users = daemon.lists(&["user", "list"]);
        let locked = users.iter().filter(|user| user["locked"] == true);
        let names: Vec<_> = locked.map(|user| user["user"].to_string()).collect();
        assert!(users.iter().all(|user| user["locked"].is_boolean()), "{users:?}");
        names
    };
    assert_eq!(locked(), [""; 0]);
    lock(PASSWORD);
    assert_eq!(locked(), ["\"alice\""]);
    assert!(daemon.succeeds(&["user", "list"]).contains("locked for networks that failed"));
    assert_eq!(unlock(), "example/alice is unlocked\n");
    assert_eq!(locked(), [""; 0]);
    log_in(&daemon, "alice", PASSWORD).accepted();
    lock(PASSWORD);
    let other = "Cherry-tree2";
    assert!(set_password(&daemon, "alice", other).status.success());
    log_in(&daemon, "alice", other).accepted();
    let log = daemon.log();
    let by = uzers::get_current_username().expect("a name");
    for (line, was_locked) in [
        ("failed logins are forgotten", false),
        ("failed logins are forgotten", true),
        ("the password has been changed", true),
    ] {
        let who = format!("/alice by={by:?} was_locked={was_locked}");
        let is_it = |told: &&str| told.contains(line) && told.ends_with(&who);
        assert_eq!(log.lines().filter(is_it).count(), 1, "{line}, {who} in\n{log}");
    }
}
