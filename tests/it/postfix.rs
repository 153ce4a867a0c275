//! Postfix as a relaying client: a message that swaks hands to it arrives in the mailbox.

use std::fs;

use crate::support::daemon::{Daemon, Setup, below_our_headers, text};
use crate::support::postfix::Postfix;
use crate::support::wait_for;

fn delivered(daemon: &Daemon, user: &str, subject: &str) {
    let path = daemon.data().join("events/email-events.jsonl");
    let needle = format!("\"subject\":\"{subject}\"");
    wait_for(subject, || fs::read_to_string(&path).ok().filter(|log| log.contains(&needle)));
    assert_eq!(daemon.folders(user, subject), ["INBOX"]);
}

#[test]
fn postfix_relays_into_the_mailbox() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    let body = ["--body", "line one\\n.\\n..dots\\n"];
    postfix.swaks("bob@good.test", "alice@example.test", "through postfix", &body);
    let line = postfix.wait_for_line(&["to=<alice@example.test>", "status=sent", "250 2.0.0"]);
    delivered(&daemon, "alice", "through postfix");
    let trace = daemon.events()[0]["traceId"].as_str().expect("an id").to_owned();
    assert!(line.contains(&trace), "Postfix's log and our trace can be joined: {line}");
    assert_eq!(
        daemon.names("through postfix"),
        ["ORGANIZATION_EMAIL_RECEIVED", "MAILBOX_EMAIL_DELIVERED"]
    );
    let event = &daemon.trace("through postfix")[0];
    assert_eq!(event["spfVerdict"], "PASS");
    assert_eq!(event["dmarcVerdict"], "PASS");
    let stored = text(&daemon.mailbox("alice")[0].1);
    assert!(
        stored.contains("with ESMTPS id"),
        "Postfix takes STARTTLS where it is offered: {stored}"
    );
    assert!(
        stored.contains("Received: from desk.good.test"),
        "Postfix's own trace stays: {stored}"
    );
}

#[test]
fn postfix_relays_to_many_a_large_message_and_utf8() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    let to = "alice@example.test,bob@example.test,a.liddell@example.test";
    let attachment = daemon.path("large.bin");
    fs::write(&attachment, vec![7; 8 << 20]).expect("writes");
    let attach = format!("@{}", attachment.display());
    postfix.swaks("bob@good.test", to, "large", &["--attach", &attach]);
    postfix.wait_for_line(&["to=<bob@example.test>", "status=sent"]);
    delivered(&daemon, "alice", "large");
    delivered(&daemon, "bob", "large");
    let stored = &daemon.mailbox("bob")[0].1;
    assert!(below_our_headers(stored).len() > 8 << 20, "the whole of it");
    assert_eq!(daemon.trace("large").len(), 3, "one reception, two mailboxes");
}

#[test]
fn postfix_reports_what_is_refused() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    postfix.swaks("bob@good.test", "nobody@example.test", "unknown", &[]);
    postfix.wait_for_line(&[
        "to=<nobody@example.test>",
        "status=bounced",
        "550 5.1.1",
        "[unknown-user ",
    ]);
    postfix.swaks("ceo@reject.test", "alice@example.test", "spoofed", &[]);
    postfix.wait_for_line(&[
        "to=<alice@example.test>",
        "status=bounced",
        "550 5.7.1",
        "[dmarc-reject ",
    ]);
    assert!(daemon.mailbox("alice").is_empty());
}
