//! What peers should not send, and do: refused by rule or stored to the byte, never a crash.

use std::process::Command;

use crate::support::daemon::{BINARY, Daemon, Setup, below_our_headers, text};
use crate::support::smtp::{message, stuffed};

const BOB: &str = "bob@good.test";
const ALICE: &str = "alice@example.test";

fn send(daemon: &Daemon, content: &[u8]) -> String {
    let mut client = daemon.client();
    client.envelope(BOB, &[ALICE]);
    client.data(content)
}

/// Sends it, and finds it stored as it was sent.
fn is_stored(daemon: &Daemon, what: &str, content: &[u8]) {
    let before = daemon.mailbox("alice").len();
    let reply = send(daemon, content);
    assert!(reply.starts_with("250"), "{what}: {reply}");
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), before + 1, "{what}");
    let found = stored.iter().any(|(_, bytes)| below_our_headers(bytes) == content);
    assert!(found, "{what}: the stored bytes are not the sent ones");
}

fn nested(depth: usize) -> Vec<u8> {
    let mut out = b"From: bob@good.test\r\nMIME-Version: 1.0\r\n".to_vec();
    for level in 0..depth {
        let boundary = format!("b{level}");
        out.extend_from_slice(
            format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n")
                .as_bytes(),
        );
    }
    out.extend_from_slice(b"\r\ninnermost\r\n");
    out
}

#[test]
fn odd_messages_are_stored_to_the_byte() {
    let daemon = Setup::default().start();
    let line = "x".repeat(1 << 20);
    let same_boundary = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: \
                         multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; \
                         boundary=b\r\n\r\n--b--\r\n--b\r\n";
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("only an empty line", b"\r\n".to_vec()),
        ("headerless", b"just a text\r\nand another\r\n".to_vec()),
        ("header without a body", b"Subject: nothing below\r\n".to_vec()),
        (
            "8-bit junk",
            [b"Subject: \xff\xfe\x80\r\n\r\n".to_vec(), (128..=255).collect(), b"\r\n".to_vec()]
                .concat(),
        ),
        (
            "control characters",
            b"From: \x01\x02@\x7f\r\nSubject: \x1b[31m\r\n\r\n\x08\r\n".to_vec(),
        ),
        ("a megabyte of header line", format!("X-Long: {line}\r\n\r\nbody\r\n").into_bytes()),
        ("a megabyte of From", format!("From: {line}@good.test\r\n\r\nbody\r\n").into_bytes()),
        (
            "unclosed quotes",
            b"From: \"unclosed <a@good.test>\r\nContent-Type: text/plain; x=\"y\r\n\r\n".to_vec(),
        ),
        ("dots", b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\n".to_vec()),
        ("nested a thousand deep", nested(1000)),
        ("boundaries in a circle", same_boundary.as_bytes().to_vec()),
        ("rfc822 in rfc822", b"Content-Type: message/rfc822\r\n\r\n".repeat(1000)),
        ("ten thousand fields", b"X-Field: y\r\n".repeat(10_000)),
        ("broken encoded words", b"Subject: =?utf-8?q?=ZZ?= =?x?b?!!!?=\r\n\r\n".to_vec()),
        (
            "broken signature",
            b"DKIM-Signature: v=1; a=rsa-sha256; d=; s=;;;=\r\nFrom: a@good.test\r\n\r\n".to_vec(),
        ),
    ];
    for (what, content) in messages {
        is_stored(&daemon, what, &content);
    }
}

#[test]
fn two_hundred_signatures_cost_no_more_than_ten() {
    let daemon = Setup::default().start();
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=good.test; s=demo; \
                     h=from; bh=AAAA; b=AAAA\r\n";
    let content =
        format!("{}From: bob@good.test\r\nSubject: signed\r\n\r\nx\r\n", signature.repeat(200));
    assert!(send(&daemon, content.as_bytes()).starts_with("250"));
    let story = daemon.succeeds(&["events", "trace", ALICE, "--json"]);
    let story: serde_json::Value = serde_json::from_str(&story).expect("JSON");
    let signatures = story["story"]["authentication"]["dkim"].as_array().expect("a list").len();
    assert!(signatures <= 10, "{signatures}");
    assert_eq!(daemon.trace("signed")[0]["dkimVerdict"], "FAIL");
}

#[test]
fn loops_are_refused() {
    let daemon = Setup::default().start();
    let content = "Received: from a by b\r\n".repeat(101) + "\r\nx\r\n";
    let reply = send(&daemon, content.as_bytes());
    assert!(reply.starts_with("554 5.4.6") && reply.contains("[too-many-hops "), "{reply}");
}

#[test]
fn smuggling_makes_no_second_message() {
    let daemon = Setup::default().start();
    let second = "MAIL FROM:<evil@evil.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: \
                  smuggled\r\n\r\nx";
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r\n.\r\r\n", "\n\n.\r\n"] {
        let mut client = daemon.client();
        client.envelope(BOB, &[ALICE]);
        assert!(client.command("DATA").starts_with("354"));
        client.send(format!("Subject: first\r\n\r\nx{end}{second}\r\n.\r\n").as_bytes());
        let reply = client.reply();
        assert!(
            reply.starts_with("550 5.6.0") && reply.contains("[bare-newline "),
            "{end:?}: {reply}"
        );
        assert!(client.command("NOOP").starts_with("250"), "{end:?}");
    }
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn a_forged_result_of_ours_is_taken_out() {
    let daemon = Setup::default().start();
    let content = b"Authentication-Results: mx.example.test; dkim=pass header.d=bank.test\r\n\
        Authentication-Results: other.test; spf=pass\r\nSubject: forged\r\n\r\nx\r\n";
    assert!(send(&daemon, content).starts_with("250"));
    let stored = daemon.mailbox("alice").remove(0).1;
    assert_eq!(
        text(below_our_headers(&stored)),
        "Authentication-Results: other.test; spf=pass\r\nSubject: forged\r\n\r\nx\r\n"
    );
}

#[test]
fn commands_before_the_banner_and_before_tls_are_not_obeyed() {
    let sections = "[limits]\nbanner_delay_ms = 300\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut early = crate::support::smtp::Client::open(daemon.address());
    early.send(b"EHLO early.test\r\n");
    let reply = early.reply();
    assert!(reply.starts_with("554 5.5.0") && reply.contains("[early-talker "), "{reply}");
}

#[test]
fn a_full_disk_defers_mail_and_loses_none() {
    let mut daemon = Setup::default().start();
    assert!(send(&daemon, &message(BOB, "before")).starts_with("250"));
    daemon.stop();
    // A file may not grow past two megabytes: to the daemon, a full disk (EFBIG).
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f 4096; exec {BINARY} \"$@\""), "sh"]);
    daemon.launch(limited);
    let big = [message(BOB, "big"), b"0123456789abcde\r\n".repeat(150_000)].concat();
    let reply = send(&daemon, &big);
    assert!(reply.starts_with("452 4.3.1") && reply.contains("[store-failure "), "{reply}");
    assert!(send(&daemon, &message(BOB, "small")).starts_with("250"), "what fits is still taken");
    daemon.kill();
    daemon.launch(Command::new(BINARY));
    assert_eq!(daemon.folders("alice", "before"), ["INBOX"]);
    assert_eq!(daemon.folders("alice", "small"), ["INBOX"]);
    assert!(daemon.folders("alice", "big").is_empty());
    assert!(send(&daemon, &big).starts_with("250"));
}

#[test]
fn the_end_of_data_is_found_however_it_is_cut() {
    let daemon = Setup::default().start();
    let content = b"Subject: cut end\r\n\r\n.\r\nx\r\n";
    let wire = stuffed(content);
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for cut in 1..wire.len() {
        client.transaction(BOB, &[ALICE]);
        assert!(client.command("DATA").starts_with("354"));
        client.send(&wire[..cut]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        client.send(&wire[cut..]);
        assert!(client.reply().starts_with("250"), "cut at {cut}");
    }
    let stored = daemon.mailbox("alice");
    assert!(stored.iter().all(|(_, bytes)| below_our_headers(bytes) == content));
}
