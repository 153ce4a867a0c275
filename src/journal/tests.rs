//! Golden records, read by a reader that knows the format's description only.
//! `MAILWEIR_WRITE_GOLDEN=1` writes them anew, to be reviewed as a diff.

#[allow(unreachable_pub, reason = "shared with the integration tests")]
#[allow(clippy::string_slice, reason = "a test may panic on odd text")]
#[path = "../../tests/it/support/journal_record.rs"]
mod journal_record;

use super::*;
use crate::clock::Timestamp;
use crate::mail::{Address, Addressees, ReversePath};
use journal_record::JournalRecord;

const ORIGINAL: &[u8] = b"From: bob@good.test\r\nSubject: =?utf-8?q?hi?=\r\n\r\n\xff\x00 odd\r\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn settings() -> Settings {
    Settings {
        journaling_address: address("archive@example.test"),
        report_address: address("admin@example.test"),
        sender_address: address("amazonjournaling@example.test"),
    }
}

fn record<'a>(
    settings: &'a Settings,
    from: &'a Address,
    recipients: Vec<JournaledRecipient>,
) -> Record<'a> {
    Record {
        id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
        at: Timestamp::from_millis(1_795_235_486_123),
        hostname: "mx.example.test",
        settings,
        reverse_path: &ReversePath::Null,
        header_from: Some(from),
        header_sender: None,
        subject: Some("Lunch"),
        message_id: Some("<1@good.test>"),
        recipients,
    }
}

#[test]
fn nothing_that_others_write_begins_a_line_of_the_report() {
    let settings = settings();
    let from = address("\"a\u{2028}To: b\"@good.test");
    let group = address("\"g\u{2029}To: c\"@good.test");
    let recipient = address("\"r\u{2028}To: d\"@good.test");
    let received = JournaledRecipient::received(recipient.clone(), Some(group));
    let forwarded = JournaledRecipient::forwarded(recipient, from.clone());
    let record = Record {
        header_sender: Some(&from),
        subject: Some("x\u{2028}To: evil@x\u{202e}"),
        message_id: Some("<1\u{2029}To: f@x>"),
        ..record(&settings, &from, vec![received, forwarded])
    };
    let before = String::from_utf8(record.compose().before).expect("UTF-8");
    let report = before.split("\r\n\r\n").find(|part| part.starts_with("Sender: "));
    let report = report.expect("a report");
    let ends = ['\n', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let lines = report.replace("\r\n", "\n").split(ends).count();
    assert_eq!(lines, report.split("\r\n").count(), "{report:?}");
    assert!(report.contains("\r\nSubject: x To: evil@x \r\n"), "{report:?}");
    assert!(report.contains("Sender: \"a\\x{2028}To: b\"@good.test\r\n"), "{report:?}");
}

/// The whole record, compared with its golden file, as the reader finds it.
fn golden(name: &str, record: &Record<'_>, original: &[u8]) -> JournalRecord {
    let wrapping = record.compose();
    let found = [wrapping.before.as_slice(), original, &wrapping.after].concat();
    let path = format!("{}/fixtures/golden/journal/{name}.eml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("writes");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&golden), "{name}");
    let read = journal_record::read(&golden).expect("a journal record");
    assert_eq!(read.original, original, "the original is unaltered");
    read
}

/// The recipient lines as the reader has understood them.
fn lines(record: &JournalRecord) -> Vec<(&str, &str, Option<&str>, Option<&str>)> {
    let recipients = record.recipients.iter();
    recipients
        .map(|found| {
            let (expanded, forwarded) = (found.expanded.as_deref(), found.forwarded.as_deref());
            (found.word.as_str(), found.address.as_str(), expanded, forwarded)
        })
        .collect()
}

#[test]
fn mail_from_outside_is_journaled_without_trust() {
    let (settings, from) = (settings(), address("bob@good.test"));
    let recipients = vec![
        JournaledRecipient::received(address("alice@example.test"), None),
        JournaledRecipient::received(
            address("carl@example.test"),
            Some(address("sales@example.test")),
        ),
        JournaledRecipient::forwarded(address("carl@home.test"), address("carl@example.test")),
    ];
    let subject = Some("Grüße\r\nSender: forged@x.test");
    let record = Record { subject, ..record(&settings, &from, recipients) };
    let read = golden("received", &record, ORIGINAL);
    assert_eq!(read.sender, "bob@good.test", "the author stands in for a null path");
    assert_eq!(read.on_behalf_of, None);
    assert_eq!(read.subject, "Grüße  Sender: forged@x.test");
    assert_eq!(read.message_id, "<1@good.test>");
    assert_eq!(
        lines(&read),
        [
            ("Recipient", "alice@example.test", None, None),
            ("To", "carl@example.test", Some("sales@example.test"), None),
            ("Recipient", "carl@home.test", None, Some("carl@example.test")),
        ]
    );
    let head: Vec<_> =
        read.head.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("X-MS-Journal-Report", ""),
        ("X-WM-Journal-Report", "journal"),
        ("From", "<amazonjournaling@example.test>"),
        ("To", "<archive@example.test>"),
    ];
    assert_eq!(head.get(..4), Some(expected.as_slice()));
    assert!(
        head.contains(&("Message-ID", "<01939e10-0000-7000-8000-000000000001@mx.example.test>"))
    );
}

#[test]
fn submitted_mail_is_journaled_as_its_author_wrote_it() {
    let (settings, from) = (settings(), address("alice@example.test"));
    let assistant = address("carol@example.test");
    let original = b"From: alice@example.test\r\nSender: carol@example.test\r\n\
                     To: Bob <Bob@Good.test>, friends: eve@x.test;\r\n\
                     Cc: sales@example.test, bob@good.test\r\n\r\nbody\r\n";
    let named = Named::by(&Addressees::of(original));
    let submitted = |text: &str| JournaledRecipient::submitted(&named, address(text), None);
    let group = Some(address("sales@example.test"));
    let recipients = vec![
        submitted("bob@good.test"),
        submitted("eve@x.test"),
        JournaledRecipient::submitted(&named, address("carl@example.test"), group),
        submitted("hidden@x.test"),
        JournaledRecipient::submitted(
            &named,
            address("dave@example.test"),
            Some(address("board@example.test")),
        ),
    ];
    let path = ReversePath::Address(address("carol@example.test"));
    let record = Record {
        reverse_path: &path,
        header_sender: Some(&assistant),
        ..record(&settings, &from, recipients)
    };
    let read = golden("submitted", &record, original);
    assert_eq!(read.sender, "carol@example.test");
    assert_eq!(read.on_behalf_of.as_deref(), Some("alice@example.test"));
    assert_eq!(
        lines(&read),
        [
            ("To", "bob@good.test", None, None),
            ("To", "eve@x.test", None, None),
            ("Cc", "carl@example.test", Some("sales@example.test"), None),
            ("Bcc", "hidden@x.test", None, None),
            ("Bcc", "dave@example.test", Some("board@example.test"), None),
        ]
    );
}

#[test]
fn a_message_that_says_nothing_is_journaled_too() {
    let (settings, from) = (settings(), address("bob@good.test"));
    let recipients = vec![JournaledRecipient::received(address("alice@example.test"), None)];
    let record = Record {
        header_from: None,
        subject: None,
        message_id: None,
        ..record(&settings, &from, recipients)
    };
    let read = golden("bare", &record, b"");
    assert_eq!((read.sender.as_str(), read.subject.as_str()), ("<>", ""));
    assert_eq!(read.message_id, "");
}

#[test]
fn the_reader_knows_a_record_from_other_mail() {
    for bad in ["", "Subject: x\r\n\r\nbody", "X-MS-Journal-Report: \r\n\r\nbody"] {
        assert!(journal_record::read(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
