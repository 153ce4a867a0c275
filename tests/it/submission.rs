//! Users submit: the listeners for them, as an administrator tries them with swaks.

use std::fs;

use crate::support::daemon::{Daemon, Setup};
use crate::support::smtp::Client;
use crate::support::swaks::{Transcript, swaks};

const ALICE: &str = "alice@example.test";
const PASSWORD: &str = "correct horse battery staple";
/// The password as LOGIN sends it, and its end as PLAIN does after the name.
const ENCODED: [&str; 2] = ["Y29ycmVjdCBob3JzZSBiYXR0ZXJ5", "aG9yc2UgYmF0dGVyeSBzdGFwbGU"];
/// What a password is answered that is not the user's.
const REFUSED: (&str, &str) = ("535 5.7.8", "bad-credentials");

fn daemon() -> Daemon {
    let listener = "[[listener]]\nname = \"submission\"\nprotocol = \"submission\"\n\
                    bind = \"127.0.0.1:0\"\n[[listener]]\nname = \"submissions\"\n\
                    protocol = \"submissions\"\nbind = \"127.0.0.1:0\"\n";
    Setup { listener: listener.to_owned(), ..Setup::default() }.start()
}

/// The listeners with TLS as swaks begins it on each.
const SECURED: [(&str, &str); 2] = [("submission", "--tls"), ("submissions", "--tls-on-connect")];

fn submit(daemon: &Daemon, listener: &str, more: &[&str]) -> Transcript {
    let port = daemon.listener(listener).port().to_string();
    let more = [&["--port", port.as_str()], more].concat();
    swaks(daemon, ALICE, "bob@good.test", "submitted", &more)
}

fn log_in<'a>(tls: &'a str, mechanism: &'a str, password: &'a str) -> [&'a str; 7] {
    [tls, "--auth", mechanism, "--auth-user", "alice", "--auth-password", password]
}

#[test]
fn nobody_submits_without_tls() {
    let daemon = daemon();
    submit(&daemon, "submission", &[]).refused("530 5.7.0", "must-start-tls");
    let mut client = Client::connect(daemon.listener("submission"));
    let offered = client.command("EHLO mail.good.test");
    assert!(offered.contains("STARTTLS") && !offered.contains("AUTH"), "{offered}");
    let refused = client.command("AUTH PLAIN AGFsaWNlAGNvcnJlY3Q=");
    assert!(refused.starts_with("530 5.7.0 Must issue a STARTTLS command first"), "{refused}");
    let plain = submit(&daemon, "submissions", &["--timeout", "2"]);
    assert!(!plain.is_success && !plain.text.contains("ESMTP"), "{}", plain.text);
}

#[test]
fn nobody_submits_without_logging_in() {
    let daemon = daemon();
    for (listener, tls) in SECURED {
        let transcript = submit(&daemon, listener, &[tls]);
        assert!(transcript.text.contains("AUTH PLAIN LOGIN"), "{}", transcript.text);
        transcript.refused("530 5.7.0", "authentication-required");
    }
    assert!(daemon.events().is_empty(), "nothing was accepted");
}

#[test]
fn a_wrong_password_is_refused_and_seen_nowhere() {
    let daemon = daemon();
    for (listener, tls) in SECURED {
        for mechanism in ["PLAIN", "LOGIN"] {
            let transcript = submit(&daemon, listener, &log_in(tls, mechanism, PASSWORD));
            transcript.refused(REFUSED.0, REFUSED.1);
            let nothing = submit(&daemon, listener, &log_in(tls, mechanism, "<>"));
            nothing.refused("535 5.7.8", "bad-credentials");
        }
    }
    let mut records = daemon.log();
    for entry in fs::read_dir(daemon.data().join("refusals")).expect("lists") {
        records += &fs::read_to_string(entry.expect("an entry").path()).expect("reads");
    }
    assert!(records.contains("AUTH as <") && records.contains("bad-credentials"), "{records}");
    for text in [&[PASSWORD], ENCODED.as_slice()].concat() {
        assert!(!records.contains(text), "{text} in {records}");
    }
    assert!(daemon.events().is_empty(), "nothing was accepted");
}

#[test]
fn other_mtas_are_not_asked_to_log_in() {
    let daemon = daemon();
    swaks(&daemon, "bob@good.test", ALICE, "relayed", &["--tls"]).accepted();
    let transcript = swaks(&daemon, ALICE, ALICE, "user", &log_in("--tls", "PLAIN", PASSWORD));
    assert!(!transcript.is_success, "{}", transcript.text);
    assert!(!transcript.text.contains("AUTH PLAIN"), "{}", transcript.text);
}
