//! Journal records as an archive reads them (`contracts.md` §6).

use crate::support::daemon::{Setup, below_our_headers, text};
use crate::support::smtp::message;
use crate::support::swaks::swaks;

const JOURNALING: &str = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                          report_address = \"admin@example.test\"\n";

/// Splits a record by hand, as an archive without a MIME library would.
struct Read {
    head: String,
    report: Vec<String>,
    original: Vec<u8>,
}

fn read(record: &[u8]) -> Read {
    let find = |bytes: &[u8], what: &str| {
        memchr::memmem::find(bytes, what.as_bytes())
            .unwrap_or_else(|| panic!("no {what:?} in {}", text(bytes)))
    };
    let head_end = find(record, "\r\n\r\n");
    let head = text(&record[..head_end]);
    let at = head.find("boundary=\"").expect("a boundary") + 10;
    let boundary = head[at..].split('"').next().expect("its end").to_owned();
    let delimiter = format!("\r\n--{boundary}");
    let body = &record[head_end..];
    let parts: Vec<_> = memchr::memmem::find_iter(body, delimiter.as_bytes()).collect();
    assert_eq!(parts.len(), 3, "two parts and the end");
    let first = &body[parts[0]..parts[1]];
    let second = &body[parts[1]..parts[2]];
    let report = text(&first[find(first, "\r\n\r\n") + 4..]);
    assert!(
        text(&second[..200.min(second.len())]).contains("Content-Type: message/rfc822\r\n\r\n")
    );
    let original = second[find(second, "\r\n\r\n") + 4..].to_vec();
    Read { head, report: report.lines().map(str::to_owned).collect(), original }
}

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
    let record = read(record);
    assert!(
        record.head.contains("\r\nX-MS-Journal-Report: \r\nX-WM-Journal-Report: journal\r\n"),
        "{}",
        record.head
    );
    assert!(record.head.contains("From: <amazonjournaling@example.test>"));
    assert!(record.head.contains("Subject: journaled"));
    assert!(record.head.starts_with("Return-Path: <>\r\n"));
    assert_eq!(record.original, sent);
    for expected in [
        "Sender: bob@good.test",
        "Subject: journaled",
        "Message-Id: <journaled@good.test>",
        "Recipient: alice@example.test",
        "To: bob@example.test, Expanded: sales@example.test",
        "Recipient: admin@example.test",
    ] {
        assert!(
            record.report.iter().any(|line| line == expected),
            "{expected}: {:?}",
            record.report
        );
    }
    let names = daemon.names("journaled");
    assert_eq!(names[1], "JOURNALING_INITIATED");
    assert_eq!(names.iter().filter(|name| *name == "JOURNALING_INITIATED").count(), 1);
    assert_eq!(daemon.trace("journaled")[1]["journalingAddress"], "archive@example.test");
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
    let nobody = JOURNALING.replace("archive@", "nobody@");
    let daemon = Setup::with(&nobody).start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "unjournaled", &[]).accepted();
    assert_eq!(daemon.folders("alice", "unjournaled"), ["INBOX"]);
    assert_eq!(daemon.folders("admin", "Journal record not delivered"), ["INBOX"]);
    let notice = text(&daemon.mailbox("admin")[0].1);
    assert!(
        notice.contains("nobody@example.test") && notice.contains("Subject: unjournaled"),
        "{notice}"
    );
    assert!(!daemon.names("unjournaled").contains(&"JOURNALING_INITIATED".to_owned()));
}

#[test]
fn refused_and_dropped_mail_is_not_journaled() {
    let rule = crate::support::daemon::rule("drop", "DROP", "evil.test", "*");
    let daemon = Setup::with(&format!("{JOURNALING}{rule}")).start();
    swaks(&daemon, "x@evil.test", "alice@example.test", "dropped", &[]).accepted();
    swaks(&daemon, "x@reject.test", "alice@example.test", "refused", &[])
        .refused("550", "dmarc-reject");
    assert!(daemon.mailbox("archive").is_empty());
}

#[test]
fn a_record_for_another_domain_is_kept_until_it_can_be_sent() {
    let elsewhere = JOURNALING.replace("archive@example.test", "archive@vault.test");
    let daemon = Setup::with(&elsewhere).start();
    swaks(&daemon, "bob@good.test", "alice@example.test", "kept", &[]).accepted();
    assert_eq!(daemon.trace("kept")[1]["journalingAddress"], "archive@vault.test");
    assert!(daemon.mailbox("admin").is_empty(), "nothing failed");
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
    assert_eq!(read(&records[0].1).original, sent);
    let stored = &daemon.mailbox("alice")[0].1;
    assert!(!text(below_our_headers(stored)).contains("spf=pass"));
}
