//! Lines that are longer than mail has: what users submit is mended before it is signed, or refused
//! with the line's number.

use std::fs;

use mail_parser::MessageParser;

use crate::outbound::{BOB, daemon, delivered, far, submit};
use crate::support::daemon::Daemon;
use crate::support::swaks::Transcript;

fn send(daemon: &Daemon, message: &str) -> Transcript {
    let file = daemon.path("message.eml");
    fs::write(&file, message).expect("writes");
    let data = format!("@{}", file.display());
    let to = format!("carol@far.test,{BOB}");
    submit(daemon, &to, "too long", &["--data", &data, "--suppress-data"])
}

#[test]
fn long_lines_are_mended_before_a_message_leaves() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let references = "<0123456789abcdef0123@example.test> ".repeat(64);
    let to = "\"Somebody\" <somebody@far.test>, ".repeat(64);
    let cc: Vec<_> = (0..100).map(|number| format!("user{number}@far.test")).collect();
    let cc = cc.join(",");
    let line = "0123456789abcdef ".repeat(118);
    let message = format!(
        "From: alice@example.test\r\nTo: {to}carol@far.test\r\nCc: {cc}\r\nReferences: {references}\r\n\
         Subject: too long\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\
         \r\n--b\r\n\r\nfirst\r\n.{line}\r\nlast\r\n--b\r\n\
         Content-Type: text/html; charset=utf-8\r\n\r\n<p>{line}</p>\r\n--b--\r\n"
    );
    send(&daemon, &message).accepted();
    let there = delivered(&far, "carol", "too long");
    let here = delivered(&daemon, "bob", "too long");
    for text in [&there, &here] {
        let longest = text.lines().map(str::len).max();
        assert!(longest <= Some(998), "{longest:?} octets in\n{text}");
        let parsed = MessageParser::new().parse(text.as_bytes()).expect("a message");
        let body = parsed.body_text(0).expect("a text");
        assert_eq!(body, format!("first\r\n.{line}\r\nlast"));
        assert_eq!(parsed.body_html(1).expect("a text"), format!("<p>{line}</p>"));
        assert_eq!(parsed.to().expect("is there").mailboxes().count(), 65);
        assert_eq!(parsed.cc().expect("is there").mailboxes().count(), 100);
        assert_eq!(parsed.references().expect("is there").iter().count(), 64);
    }
    assert!(there.contains("DKIM-Signature: "), "{there}");
}

#[test]
fn what_cannot_be_mended_is_refused_with_the_lines_number() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let line = "0123456789abcdef ".repeat(118);
    let head = "From: alice@example.test\r\nSubject: too long\r\n";
    let unbroken = format!("{head}X-Token: {}\r\n\r\nx\r\n", "x".repeat(2000));
    let signed = format!(
        "{head}Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{line}\r\n--b\r\n\
         Content-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
    );
    for (message, number) in [(unbroken, 3), (signed, 7)] {
        let place = format!("cannot be broken: line {number}");
        let transcript = send(&daemon, &message).refused("550 5.6.0", "long-line");
        assert!(transcript.text.contains(&place), "{}", transcript.text);
        assert!(daemon.log().contains(&format!(": line {number}")), "{}", daemon.log());
        let (_, word) = transcript.text.split_once("[long-line ").expect("a refusal");
        let (id, _) = word.split_once(']').expect("an id");
        let trace = daemon.succeeds(&["events", "trace", id]);
        assert!(trace.contains(&format!(": line {number}")), "{trace}");
    }
    assert!(daemon.mailbox("bob").is_empty());
}
