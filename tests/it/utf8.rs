//! Internationalized mail (RFC 6531), which swaks cannot send: local-parts, domains, headers.

use crate::support::daemon::{Setup, rule, text};

const KEYS: &str = "alias = \"bücher\"\ndomains = [\"bücher.test\"]\n[[user]]\nname = \"jürgen\"\n";

/// An organization with an internationalized domain beside the usual one.
fn setup(more: &str) -> Setup {
    Setup { more_organizations: vec![format!("{KEYS}{more}")], ..Setup::default() }
}

#[test]
fn both_forms_of_a_domain_are_one_domain() {
    let daemon = setup("").start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for (subject, domain) in
        [("u-label", "bücher.test"), ("a-label", "xn--bcher-kva.test"), ("case", "BÜCHER.test")]
    {
        assert!(client.command("MAIL FROM:<bob@good.test> SMTPUTF8").starts_with("250"));
        let reply = client.command(&format!("RCPT TO:<jürgen@{domain}>"));
        assert!(reply.starts_with("250"), "{domain}: {reply}");
        let content = format!("From: bob@good.test\r\nSubject: {subject}\r\n\r\nx\r\n");
        assert!(client.data(content.as_bytes()).starts_with("250"));
        assert_eq!(daemon.folders("bücher/jürgen", subject), ["INBOX"], "{domain}");
    }
}

#[test]
fn a_rule_compares_domains_as_a_labels() {
    let daemon = setup(&rule("drop", "DROP", "größe.test", "*")).start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for (subject, author) in [("u", "x@größe.test"), ("a", "x@xn--gre-6ka8i.test")] {
        assert!(client.command("MAIL FROM:<bob@good.test> SMTPUTF8").starts_with("250"));
        assert!(client.command("RCPT TO:<jürgen@bücher.test>").starts_with("250"));
        let content = format!("From: <{author}>\r\nSubject: {subject}\r\n\r\nx\r\n");
        assert!(client.data(content.as_bytes()).starts_with("250"));
        assert!(daemon.folders("bücher/jürgen", subject).is_empty(), "{author}");
        assert_eq!(daemon.trace(subject)[1]["ruleName"], "drop", "{author}");
    }
}

#[test]
fn an_internationalized_reverse_path_is_kept() {
    let daemon = setup("").start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    let refused = client.command("MAIL FROM:<jürgen@good.test>");
    assert!(refused.starts_with("553 5.6.7") && refused.contains("[needs-smtp-utf8 "), "{refused}");
    assert!(client.command("MAIL FROM:<jürgen@good.test> SMTPUTF8").starts_with("250"));
    assert!(client.command("RCPT TO:<alice@example.test>").starts_with("250"));
    let content = "From: jürgen@good.test\r\nSubject: Grüße\r\n\r\nx\r\n";
    assert!(client.bdat(content.as_bytes(), &[]).starts_with("250"));
    let received = &daemon.trace("Grüße")[0];
    assert_eq!(received["from"], "jürgen@good.test");
    assert_eq!(received["spfVerdict"], "PASS");
    let stored = text(&daemon.mailbox("alice")[0].1);
    assert!(stored.starts_with("Return-Path: <jürgen@good.test>\r\n"), "{stored}");
    assert!(stored.ends_with(content), "{stored}");
}
