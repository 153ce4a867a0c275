//! Journal records as an archive reads them (`contracts.md` §6).

use crate::support::daemon::{Setup, below_our_headers, rule, text};
use crate::support::journal_record::read;
use crate::support::smtp::message;
use crate::support::swaks::swaks;
use crate::support::wait_for;

const JOURNALING: &str = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                          report_address = \"admin@example.test\"\n";

#[test]
fn one_record_for_a_message_whatever_its_recipients() {
    let daemon = Setup::with(JOURNALING).start();
    let mut client = daemon.client();
    client.envelope(
        "bob@good.test",
        &["alice@example.test", "sales@example.test", "admin@example.test"],
    );
    let sent = [message("bob@good.test", "journaled"), b"\xff\x00 odd \r\n".to_vec()].concat();
    assert!(client.data(&sent).starts_with("250"));
    let records = daemon.mailbox("archive");
    let [(folder, record)] = records.as_slice() else { panic!("{} records", records.len()) };
    assert_eq!(folder, "INBOX");
    let head = text(record);
    assert!(head.starts_with("Return-Path: <>\r\n"), "{head}");
    let record = read(record).expect("a journal record");
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert!(record.head.contains(&field("From", "<amazonjournaling@example.test>")));
    assert!(record.head.contains(&field("Subject", "journaled")));
    assert_eq!(record.original, sent);
    assert_eq!((record.sender.as_str(), record.subject.as_str()), ("bob@good.test", "journaled"));
    assert_eq!(record.message_id, "<journaled@good.test>");
    for (word, address, expanded) in [
        ("Recipient", "alice@example.test", None),
        ("To", "bob@example.test", Some("sales@example.test")),
        ("Recipient", "admin@example.test", None),
    ] {
        let found = record.recipients.iter().find(|recipient| recipient.address == address);
        let found = found.unwrap_or_else(|| panic!("{address}: {:?}", record.recipients));
        assert_eq!((found.word.as_str(), found.expanded.as_deref()), (word, expanded), "{address}");
        assert_eq!(found.forwarded, None);
    }
    let names = daemon.names("journaled");
    assert_eq!(names[1], "JOURNALING_INITIATED");
    assert_eq!(names.iter().filter(|name| *name == "JOURNALING_INITIATED").count(), 1);
    assert_eq!(daemon.trace("journaled")[1]["journalingAddress"], "archive@example.test");
}

/// Whoever could write as the address of the records could put records into the archive.
#[test]
fn nobody_else_writes_from_the_address_of_the_records() {
    let daemon = Setup::with(JOURNALING).start();
    let (alice, archive) = ("alice@example.test", "archive@example.test");
    for reserved in ["amazonjournaling@example.test", "AmazonJournaling+tag@EXAMPLE.test"] {
        let from = ["--h-From", reserved];
        let sender = ["--h-From", "bob@plain.test", "--header", &format!("Sender: {reserved}")];
        let unread = format!("Sender: x@plain.test, <{reserved}> Journal");
        let unread = ["--h-From", "bob@plain.test", "--header", &unread];
        let refusals = [
            swaks(&daemon, reserved, archive, "envelope", &["--h-From", "bob@plain.test"]),
            swaks(&daemon, "bob@plain.test", alice, "author", &from),
            swaks(&daemon, "bob@plain.test", alice, "sender", &sender),
            swaks(&daemon, "bob@plain.test", alice, "unread sender", &unread),
        ];
        for refusal in refusals {
            refusal.refused("550 5.7.1", "reserved-address");
        }
    }
    assert!(daemon.mailbox("archive").is_empty());
}

#[test]
fn journal_mail_is_not_journaled() {
    let daemon = Setup::with(JOURNALING).start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "once", &[]).accepted();
    assert_eq!(daemon.mailbox("archive").len(), 1);
    let initiated = daemon
        .events()
        .iter()
        .filter(|line| line["event"]["eventName"] == "JOURNALING_INITIATED")
        .count();
    assert_eq!(initiated, 1);
}

#[test]
fn a_record_that_cannot_be_delivered_is_reported_and_the_mail_flows() {
    // Of another organization, whose file says nothing of what this one names.
    let nobody = JOURNALING.replace("archive@example.test", "nobody@other.test");
    let other = "alias = \"other\"\ndomains = [\"other.test\"]\n[[user]]\nname = \"eve\"\n";
    let more_organizations = vec![other.to_owned()];
    let daemon = Setup { more_organizations, ..Setup::with(&nobody) }.start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "unjournaled", &[]).accepted();
    assert_eq!(daemon.folders("alice", "unjournaled"), ["INBOX"]);
    assert_eq!(daemon.folders("admin", "Journal record not delivered"), ["INBOX"]);
    let notice = text(&daemon.mailbox("admin")[0].1);
    assert!(
        notice.contains("nobody@other.test") && notice.contains("Subject: unjournaled"),
        "{notice}"
    );
    assert!(!daemon.names("unjournaled").contains(&"JOURNALING_INITIATED".to_owned()));
}

/// Every message that is accepted has its record (guide 7306), whatever rules do with it.
#[test]
fn refused_mail_is_not_journaled_and_discarded_mail_is() {
    let rules = rule("drop", "DROP", "evil.test", "*")
        + "[[user]]\nname = \"deleter\"\n[[user.mailbox_rule]]\nname = \"all\"\naction = \"DELETE\"\n";
    let daemon = Setup::with(&format!("{JOURNALING}{rules}")).start();
    let loud = rule("loud", "BOUNCE", "evil.test", "*");
    let bouncing = Setup::with(&format!("{JOURNALING}{loud}")).start();
    swaks(&bouncing, "x@evil.test", "alice@example.test", "bounced", &[])
        .refused("550", "rule-bounce");
    swaks(&bouncing, "x@reject.test", "alice@example.test", "refused", &[])
        .refused("550", "dmarc-reject");
    assert!(bouncing.mailbox("archive").is_empty());

    let to = "alice@example.test,sales@example.test";
    swaks(&daemon, "x@evil.test", to, "dropped", &[]).accepted();
    let names = daemon.names("dropped");
    assert_eq!(names, ["ORGANIZATION_EMAIL_RECEIVED", "RULE_APPLIED", "JOURNALING_INITIATED"]);
    swaks(&daemon, "x@good.test", "deleter@example.test", "deleted", &[]).accepted();
    for (_, record) in daemon.mailbox("archive") {
        let record = read(&record).expect("a journal record");
        let to: Vec<_> = record.recipients.iter().map(|it| it.address.as_str()).collect();
        match record.subject.as_str() {
            "dropped" => {
                assert!(to.starts_with(&["alice@example.test"]) && to.len() == 4, "{to:?}")
            }
            _ => assert_eq!(to, ["deleter@example.test"]),
        }
    }
    assert_eq!(daemon.mailbox("archive").len(), 2);
    assert!(daemon.mailbox("alice").is_empty() && daemon.mailbox("deleter").is_empty());
}

#[test]
fn who_is_reached_directly_and_through_a_group_is_both_in_the_record() {
    let daemon = Setup::with(JOURNALING).start();
    let to = "sales@example.test,alice@example.test,a.liddell@example.test";
    swaks(&daemon, "bob@good.test", to, "both ways", &[]).accepted();
    assert_eq!(daemon.folders("alice", "both ways"), ["INBOX"]);
    let record = read(&daemon.mailbox("archive")[0].1).expect("a journal record");
    let of_alice = record.recipients.iter().filter(|it| it.address == "alice@example.test");
    let ways: Vec<_> = of_alice.map(|it| (it.word.as_str(), it.expanded.as_deref())).collect();
    assert_eq!(ways, [("To", Some("sales@example.test")), ("Recipient", None)]);
}

#[test]
fn a_record_for_a_domain_that_takes_no_mail_is_reported() {
    let elsewhere = JOURNALING.replace("archive@example.test", "archive@vault.test");
    let daemon = Setup::with(&elsewhere).start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "kept", &[]).accepted();
    assert_eq!(daemon.trace("kept")[1]["journalingAddress"], "archive@vault.test");
    let notice = wait_for("the notice", || daemon.mailbox("admin").pop());
    assert!(crate::support::daemon::text(&notice.1).contains("archive@vault.test"));
}

#[test]
fn a_record_has_what_is_left_out_of_the_mailbox() {
    let daemon = Setup::with(JOURNALING).start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["alice@example.test"]);
    let forged = b"Authentication-Results: mx.example.test; spf=pass\r\n".to_vec();
    let sent = [forged, message("bob@good.test", "forged results")].concat();
    assert!(client.data(&sent).starts_with("250"));
    let records = daemon.mailbox("archive");
    let record = read(&records[0].1).expect("a journal record");
    assert_eq!(record.original, sent);
    let stored = &daemon.mailbox("alice")[0].1;
    assert!(!text(below_our_headers(stored)).contains("spf=pass"));
}
