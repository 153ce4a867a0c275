//! What an administrator tries first.

use crate::support::daemon::{Daemon, Setup, below_our_headers};
use crate::support::smtp::Client;
use crate::support::swaks::swaks;

const BOB: &str = "bob@good.test";
const ALICE: &str = "alice@example.test";

fn daemon() -> Daemon {
    Setup::default().start()
}

#[test]
fn a_plain_message_is_delivered_and_explained() {
    let daemon = daemon();
    swaks(&daemon, BOB, ALICE, "plain", &[]).accepted();
    assert_eq!(daemon.folders("alice", "plain"), ["INBOX"]);
    let trace = daemon.trace("plain");
    let received = &trace[0];
    assert_eq!(received["eventName"], "ORGANIZATION_EMAIL_RECEIVED");
    assert_eq!(received["recipients"][0], ALICE);
    assert_eq!(received["from"], BOB);
    assert_eq!(received["spfVerdict"], "PASS");
    assert_eq!(received["dkimVerdict"], "GRAY");
    assert_eq!(received["dmarcVerdict"], "PASS");
    assert_eq!(received["spamVerdict"], "DISABLED");
    assert!(received.get("dmarcPolicy").is_none() && received.get("sender").is_none());
    assert!(received["messageTimestamp"].is_u64());
    assert_eq!(trace[1]["eventName"], "MAILBOX_EMAIL_DELIVERED");
    assert_eq!(trace[1]["recipient"], ALICE);
    assert_eq!(trace[1]["folder"], "INBOX");
    assert_eq!(trace.len(), 2);
}

#[test]
fn starttls_is_offered_and_seen_in_received() {
    let daemon = daemon();
    for (version, name) in [("tlsv1_2", "TLSv1.2"), ("tlsv1_3", "TLSv1.3")] {
        let subject = format!("over {name}");
        swaks(&daemon, BOB, ALICE, &subject, &["--tls", "--tls-protocol", version]).accepted();
        let stored = daemon.mailbox("alice");
        let has = |text: &str| {
            stored.iter().any(|(_, bytes)| memchr::memmem::find(bytes, text.as_bytes()).is_some())
        };
        assert!(has("with ESMTPS id") && has(name), "{name}");
    }
    let old = swaks(&daemon, BOB, ALICE, "old", &["--tls", "--tls-protocol", "tlsv1_1"]);
    assert!(!old.is_success, "TLS 1.1 is not spoken");
}

#[test]
fn pipelined_commands_get_their_replies() {
    let daemon = daemon();
    let to = "alice@example.test,nobody@example.test,bob@example.test";
    let transcript = swaks(&daemon, BOB, to, "pipelined", &["--pipeline"]);
    assert!(transcript.text.contains("[unknown-user "), "{}", transcript.text);
    assert_eq!(daemon.folders("alice", "pipelined"), ["INBOX"]);
    assert_eq!(daemon.folders("bob", "pipelined"), ["INBOX"]);
}

#[test]
fn several_recipients_make_one_received_event() {
    let daemon = daemon();
    // An address is of one domain: bob has none at example.org.
    let partly = swaks(&daemon, BOB, "alice@example.test,bob@example.org", "partly", &[]);
    assert!(partly.accepted().text.contains("[unknown-user "));
    assert_eq!(daemon.trace("partly")[0]["recipients"], serde_json::json!([ALICE]));
    let to = "alice@example.test,bob@example.test,room@example.test";
    swaks(&daemon, BOB, to, "several", &[]).accepted();
    assert_eq!(
        daemon.names("several"),
        [
            "ORGANIZATION_EMAIL_RECEIVED",
            "MAILBOX_EMAIL_DELIVERED",
            "MAILBOX_EMAIL_DELIVERED",
            "MAILBOX_EMAIL_DELIVERED"
        ]
    );
}

#[test]
fn a_group_reaches_each_mailbox_once() {
    let daemon = daemon();
    let to = "verkauf@example.org,sales@example.test,alice@example.test,A.Liddell@example.test";
    swaks(&daemon, BOB, to, "group", &[]).accepted();
    for user in ["alice", "bob", "room"] {
        assert_eq!(daemon.folders(user, "group"), ["INBOX"], "{user}");
    }
    let delivered =
        daemon.names("group").iter().filter(|name| *name == "MAILBOX_EMAIL_DELIVERED").count();
    assert_eq!(delivered, 3);
}

#[test]
fn a_big_attachment_arrives_as_it_was_sent() {
    let daemon = daemon();
    let file = daemon.path("big.bin");
    let bytes: Vec<u8> =
        (0..7_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &bytes).expect("writes");
    let attach = format!("@{}", file.display());
    swaks(&daemon, BOB, ALICE, "big", &["--attach", &attach, "--suppress-data"]).accepted();
    let stored = &daemon.mailbox("alice")[0].1;
    let parsed = mail_parser::MessageParser::new().parse(stored).expect("parses");
    let attachment = parsed.attachments().next().expect("an attachment");
    assert!(attachment.decoded().as_ref() == bytes, "the attachment was altered");
}

#[test]
fn an_internationalized_address_needs_smtputf8() {
    let daemon = daemon();
    let mut client = daemon.client();
    let ehlo = client.command("EHLO mail.good.test");
    assert!(ehlo.contains("SMTPUTF8"), "{ehlo}");
    assert!(client.command("MAIL FROM:<bob@good.test>").starts_with("250"));
    let refused = client.command("RCPT TO:<用户@example.test>");
    assert!(refused.starts_with("553 5.6.7"), "{refused}");
    assert!(client.command("RSET").starts_with("250"));
    assert!(client.command("MAIL FROM:<bob@good.test> SMTPUTF8").starts_with("250"));
    assert!(client.command("RCPT TO:<用户@example.test>").starts_with("250"));
    let message = "From: bob@good.test\r\nTo: 用户@example.test\r\nSubject: utf8\r\n\r\nGrüße\r\n";
    assert!(client.data(message.as_bytes()).starts_with("250"));
    assert_eq!(daemon.folders("用户", "utf8"), ["INBOX"]);
    assert_eq!(daemon.trace("utf8")[0]["recipients"][0], "用户@example.test");
}

#[test]
fn the_daemons_own_postmaster_is_somebody() {
    let daemon = daemon();
    let mut client = daemon.client();
    client.envelope(BOB, &["postmaster", "Postmaster@mx.example.test"]);
    assert!(
        client
            .data(b"From: bob@good.test\r\nSubject: to whom it concerns\r\n\r\n")
            .starts_with("250")
    );
    assert_eq!(daemon.folders("admin", "to whom it concerns"), ["INBOX"]);
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_word() {
    let daemon = daemon();
    let send = |to: &str| swaks(&daemon, BOB, to, "refused", &[]);
    send("nobody@example.test").refused("550 5.1.1", "unknown-user");
    send("carol@example.test").refused("550 5.2.1", "disabled-user");
    send("someone@elsewhere.test").refused("550 5.7.1", "relay-denied");
    send("alice%elsewhere.test@other.test").refused("550 5.7.1", "relay-denied");
    assert!(daemon.events().is_empty(), "nothing was accepted");
}

#[test]
fn an_oversize_message_is_refused_before_and_after_it_is_sent() {
    let sections = "[limits]\nbanner_delay_ms = 0\nmessage_bytes = 100000\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").contains("SIZE 100000"));
    let declared = client.command("MAIL FROM:<bob@good.test> SIZE=100001");
    assert!(declared.starts_with("552 5.3.4"), "{declared}");
    client.transaction(BOB, &[ALICE]);
    let big = [b"Subject: big\r\n\r\n".to_vec(), b"0123456789abcde\r\n".repeat(6000)].concat();
    let reply = client.data(&big);
    assert!(reply.starts_with("552 5.3.4") && reply.contains("[message-too-big "), "{reply}");
    client.transaction(BOB, &[ALICE]);
    assert!(
        client.data(b"From: bob@good.test\r\nSubject: small\r\n\r\n").starts_with("250"),
        "the session goes on"
    );
}

#[test]
fn the_size_limit_is_the_guides_to_the_octet() {
    const LIMIT: usize = 41_943_040;
    let daemon = daemon();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").contains("SIZE 41943040"));
    let line = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    for (subject, octets, is_taken) in [("most", LIMIT, true), ("over", LIMIT + 1, false)] {
        let head = format!("From: <{BOB}>\r\nSubject: {subject}\r\n\r\n");
        let mut message = head.into_bytes();
        while message.len() + line.len() + 80 < octets {
            message.extend_from_slice(line);
        }
        message.resize(octets - 2, b'x');
        message.extend_from_slice(b"\r\n");
        client.transaction(BOB, &[ALICE]);
        let by_data = client.data(&message);
        client.transaction(BOB, &[ALICE]);
        let by_bdat = client.bdat(&message, &[1 << 20, 30 << 20]);
        for reply in [by_data, by_bdat] {
            let expected = if is_taken { "250" } else { "552 5.3.4" };
            assert!(reply.starts_with(expected), "{octets}: {reply}");
        }
    }
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), 2);
    for (_, bytes) in &stored {
        assert_eq!(below_our_headers(bytes).len(), LIMIT, "our headers do not count");
    }
}

#[test]
fn an_oversize_attachment_is_refused_as_swaks_sends_it() {
    let daemon = daemon();
    let file = daemon.path("big.bin");
    std::fs::write(&file, vec![b'x'; 32 << 20]).expect("writes");
    let attach = format!("@{}", file.display());
    swaks(&daemon, BOB, ALICE, "oversize", &["--attach", &attach, "--suppress-data"])
        .refused("552 5.3.4", "message-too-big");
    assert!(daemon.events().is_empty(), "nothing was accepted");
}

#[test]
fn postmaster_is_always_taken() {
    let daemon = daemon();
    swaks(&daemon, BOB, "Postmaster@example.org", "to the postmaster", &[]).accepted();
    let mut client: Client = daemon.client();
    client.envelope("", &["postmaster@example.test"]);
    assert!(client.data(b"From: a@plain.test\r\nSubject: a null path\r\n\r\n").starts_with("250"));
    assert_eq!(daemon.folders("admin", "to the postmaster"), ["INBOX"]);
    assert_eq!(daemon.folders("admin", "a null path"), ["INBOX"]);
}

#[test]
fn plus_addressing_reaches_the_user() {
    let daemon = daemon();
    swaks(&daemon, BOB, "alice+shop@example.test", "plus", &[]).accepted();
    assert_eq!(daemon.folders("alice", "plus"), ["INBOX"]);
}
