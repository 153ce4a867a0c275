//! Reports as their readers find them: golden files, and a parser that is not ours.
//! `MAILWEIR_WRITE_GOLDEN=1` writes the files anew, to be reviewed as a diff.

use mail_parser::MessageParser;

use super::*;
use crate::mail::FieldLines;

const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);
const LATER: Timestamp = Timestamp::from_millis(1_795_667_486_123);
const ORIGINAL: &[&[u8]] = &[
    b"Received: from laptop by mx.example.test;\r\n\tSat, 21 Nov 2026 04:31:26 +0000\r\n",
    b"From: alice@example.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nthe plan itself\r\n",
];

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn recipient(text: &str, outcome: Outcome, status: &str) -> ReportedRecipient {
    ReportedRecipient {
        address: address(text),
        orcpt: None,
        outcome,
        status: status.into(),
        diagnostic: None,
        remote_mta: None,
        decided_by: DecidedBy::Their,
        last_attempt: NOW,
    }
}

fn refused(text: &str, remote_mta: &str, diagnostic: &str) -> ReportedRecipient {
    ReportedRecipient {
        remote_mta: Some(remote_mta.into()),
        diagnostic: Some(diagnostic.into()),
        ..recipient(text, Outcome::Failed, diagnostic.split(' ').nth(1).unwrap_or_default())
    }
}

fn report<'a>(to: &'a Address, recipients: Vec<ReportedRecipient>) -> StatusReport<'a> {
    StatusReport {
        id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
        hostname: "mx.example.test",
        at: NOW,
        to,
        envid: Some("QQ314159"),
        arrived_at: NOW,
        ret: None,
        original: Original(ORIGINAL),
        recipients,
    }
}

/// The three parts of a report as mail-parser finds them: text, status, what goes back.
fn parts(content: &[u8]) -> [String; 3] {
    let message = MessageParser::new().parse(content).expect("parses");
    let kind = message.content_type().expect("a type");
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let boundary = format!("--{}", kind.attribute("boundary").expect("a boundary"));
    let text = String::from_utf8_lossy(content).into_owned();
    let bodies: Vec<_> = text
        .split(&format!("\r\n{boundary}"))
        .filter_map(|part| Some(part.split_once("\r\n\r\n")?.1.to_owned()))
        .collect();
    let [_, status, back] = bodies.try_into().expect("three parts");
    [message.body_text(0).expect("a text").into_owned(), status, back]
}

fn golden(name: &str, recipients: Vec<ReportedRecipient>) {
    let to = address("alice@example.test");
    let found = report(&to, recipients).compose();
    let path = format!("{}/fixtures/golden/reports/{name}.eml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("writes");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&golden), "{name}");
    crate::fuzz::assert_no_bare_line_ends(&found);
    let [human, _, back] = parts(&found);
    assert!(human.contains("Your message \"Grüße\""), "{human}");
    assert!(back.contains("Received: from laptop") && !back.contains("the plan itself"), "{back}");
}

#[test]
fn every_outcome_has_its_golden_report() {
    let with_orcpt = ReportedRecipient {
        orcpt: Some("rfc822;bobby@list.test".into()),
        ..refused("bob@good.test", "mx1.good.test", "550 5.1.1 <bob@good.test>: unknown")
    };
    let full = refused("carol@good.test", "[192.0.2.7]", "552 5.2.2 Mailbox full");
    golden("failed", vec![with_orcpt, full]);
    let delayed = ReportedRecipient {
        remote_mta: Some("mx1.good.test".into()),
        diagnostic: Some("451 4.7.1 Greylisted".into()),
        ..recipient("bob@good.test", Outcome::Delayed { until: LATER }, "4.7.1")
    };
    golden("delayed", vec![delayed]);
    golden("delivered", vec![recipient("bob@good.test", Outcome::Delivered, "2.1.5")]);
    golden("relayed", vec![recipient("bob@good.test", Outcome::Relayed, "2.1.9")]);
    golden("expanded", vec![recipient("sales@example.test", Outcome::Expanded, "2.1.5")]);
    let international = ReportedRecipient {
        orcpt: Some("utf-8;用户+a=b@bücher.test".into()),
        ..refused("用户@bücher.test", "mx.xn--bcher-kva.test", "550 5.7.1 Nicht für uns")
    };
    golden("utf8-address", vec![international]);
}

/// The words fit whoever decided, whatever the code.
#[test]
fn a_report_does_not_blame_the_recipients_mail_system_for_our_own() {
    let to = address("alice@example.test");
    let check = |decided_by: DecidedBy, outcome: Outcome, status: &str, expected: &str| {
        let said = ReportedRecipient { decided_by, ..recipient("bob@good.test", outcome, status) };
        let [text, _, _] = parts(&report(&to, vec![said]).compose());
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{decided_by:?} {status}: {text}");
    };
    let delayed = Outcome::Delayed { until: LATER };
    let blocked = "Your administrator has blocked this message. Ask your administrator why.";
    check(DecidedBy::OurAdministrator, Outcome::Failed, "5.7.1", blocked);
    let removed = "Your administrator has removed this message from the queue";
    check(DecidedBy::OurAdministratorInQueue, Outcome::Failed, "5.7.1", removed);
    let gateway = "The gateway that your mail leaves through has not taken the message.";
    for status in ["5.7.1", "5.7.5", "5.4.1", "5.4.4", "5.3.0", "5.1.8", "5.0.0"] {
        check(DecidedBy::OurGateway, Outcome::Failed, status, gateway);
    }
    check(DecidedBy::OurGateway, Outcome::Failed, "5.1.1", "There is nobody with this address.");
    check(DecidedBy::OurGateway, Outcome::Failed, "5.2.2", "This mailbox is full.");
    let gateway = "The gateway that your mail leaves through does not take the message for now.";
    check(DecidedBy::OurGateway, delayed, "4.4.1", gateway);
    check(DecidedBy::OurGateway, delayed, "4.2.2", "This mailbox is full at present.");
    let theirs = "The message was refused for reasons of policy or security.";
    check(DecidedBy::Their, Outcome::Failed, "5.7.1", theirs);
}

/// RFC 3464 §2.3.6.
#[test]
fn only_a_servers_words_are_an_smtp_diagnostic() {
    let to = address("alice@example.test");
    for (name, expected) in [
        (Some("mx1.good.test"), "Diagnostic-Code: smtp; 550 5.4.6 it loops\r\n"),
        // A name that cannot be repeated is a server's all the same.
        (Some("no name"), "Diagnostic-Code: smtp; 550 5.4.6 it loops\r\n"),
        (None, "Diagnostic-Code: x-mailweir; 550 5.4.6 it loops\r\n"),
    ] {
        let said = ReportedRecipient {
            remote_mta: name.map(str::to_owned),
            ..refused("bob@good.test", "", "550 5.4.6 it loops")
        };
        let [_, status, _] = parts(&report(&to, vec![said]).compose());
        assert!(status.contains(expected), "{status}");
    }
}

#[test]
fn a_sender_is_told_what_it_asked_for() {
    let all = [
        Outcome::Failed,
        Outcome::Delayed { until: LATER },
        Outcome::Delivered,
        Outcome::Relayed,
        Outcome::Expanded,
    ];
    let check = |notify: Option<DsnNotify>, expected: [bool; 5]| {
        assert_eq!(all.map(|outcome| wants(notify, outcome)), expected, "{notify:?}");
    };
    let none = DsnNotify::default();
    check(None, [true, true, false, false, false]);
    check(Some(DsnNotify { never: true, ..none }), [false; 5]);
    let contradictory = DsnNotify { never: true, success: true, failure: true, delay: true };
    check(Some(contradictory), [false; 5]);
    check(Some(DsnNotify { success: true, ..none }), [false, false, true, true, true]);
    check(Some(DsnNotify { failure: true, ..none }), [true, false, false, false, false]);
    check(Some(DsnNotify { delay: true, ..none }), [false, true, false, false, false]);
}

#[test]
fn the_whole_message_goes_back_where_it_may() {
    let to = address("alice@example.test");
    let large = vec![b'x'; 1024 * 1024];
    let with_large: Vec<&[u8]> = ORIGINAL.iter().copied().chain([large.as_slice()]).collect();
    let check = |original: Original<'_>, ret, outcome, expected: &str, whole: bool| {
        let recipients = vec![recipient("bob@good.test", outcome, "")];
        let content = StatusReport { original, ret, ..report(&to, recipients) }.compose();
        let text = String::from_utf8_lossy(&content);
        assert!(text.contains(&format!("Content-Type: {expected}\r\n")), "{expected}: {text}");
        assert_eq!(text.contains("the plan itself"), whole, "{expected}");
        assert!(text.contains("Received: from laptop"), "{expected}");
    };
    let (whole, full, failed) = (Original(ORIGINAL), Some(DsnReturn::Full), Outcome::Failed);
    check(whole, full, failed, "message/rfc822", true);
    check(whole, Some(DsnReturn::Headers), failed, "text/rfc822-headers", false);
    check(whole, None, failed, "text/rfc822-headers", false);
    let delayed = Outcome::Delayed { until: LATER };
    check(whole, full, delayed, "text/rfc822-headers", false);
    check(whole, full, Outcome::Delivered, "text/rfc822-headers", false);
    check(Original(&with_large), full, failed, "text/rfc822-headers", false);
    let utf8: &[&[u8]] = &[ORIGINAL[0], "Subject: Grüße\r\n\r\nthe plan itself".as_bytes()];
    check(Original(utf8), full, failed, "message/global", true);
    check(Original(utf8), None, failed, "message/global-headers", false);
}

#[test]
fn a_long_header_section_is_cut_between_fields() {
    let to = address("alice@example.test");
    let fields = format!("{}: {}\r\n", "X-Long", "x".repeat(900)).repeat(200);
    let section = [ORIGINAL[0], fields.as_bytes(), b"\r\nbody"].concat();
    let recipients = vec![recipient("bob@good.test", Outcome::Failed, "5.0.0")];
    let original = Original(&[&section]);
    let content = StatusReport { original, ..report(&to, recipients) }.compose();
    let [.., back] = parts(&content);
    assert!((60_000..=64 * 1024).contains(&back.len()), "{}", back.len());
    let whole = FieldLines::new(back.as_bytes()).skip(1).all(|(_, range)| range.len() == 910);
    assert!(whole, "a field is cut");
    let endless = [b"X: ".as_slice(), &vec![b'x'; 100_000]].concat();
    let recipients = vec![recipient("bob@good.test", Outcome::Failed, "5.0.0")];
    let original = Original(&[&endless]);
    let content = StatusReport { original, ..report(&to, recipients) }.compose();
    assert_eq!(parts(&content)[2].trim_end_matches("--").trim(), "");
}

#[test]
fn a_server_cannot_add_to_a_report() {
    let to = address("alice@example.test");
    let words = "550 5.1.1 no\r\n\r\nFinal-Recipient: rfc822; x@evil.test\r\nAction: delivered\n\
                 --=_01939e10-0000-7000-8000-000000000001\r\n\u{1b}[31m\u{202e}";
    let mut evil = refused("bob@good.test", "evil\r\nAction: delivered", words);
    evil.status = "5.1.1\r\nAction: delivered".into();
    evil.orcpt = Some("rfc822;a\r\nAction: delivered".into());
    let endless = refused("eve@good.test", "evil.test", &format!("550 {}", "x".repeat(1 << 20)));
    let mut report = report(&to, vec![evil, endless]);
    report.envid = Some("a\r\nAction: delivered");
    let content = report.compose();
    let [human, status, _] = parts(&content);
    let actions = status.lines().filter(|line| line.starts_with("Action:")).collect::<Vec<_>>();
    assert_eq!(actions, ["Action: failed", "Action: failed"], "{status}");
    let finals = status.lines().filter(|line| line.starts_with("Final-Recipient:")).count();
    assert_eq!(finals, 2, "{status}");
    assert_eq!(status.matches("\r\n\r\n").count(), 2, "one group for each recipient: {status}");
    assert!(status.contains("Status: 5.0.0\r\n"), "{status}");
    assert!(!status.contains("Remote-MTA: dns; evil\r"), "{status}");
    assert!(status.is_ascii() && status.len() < 8_000, "{}", status.len());
    assert!(!human.contains(['\u{1b}', '\u{202e}']) && human.len() < 8_000, "{human}");
    let text = String::from_utf8(content).expect("UTF-8");
    assert!(text.lines().all(|line| line.len() <= 998), "a line is too long");
}

#[test]
fn status_codes_fit_their_outcome() {
    let check = |outcome, status: &str, expected: &str| {
        assert_eq!(recipient("a@b.test", outcome, status).status(), expected, "{status:?}");
    };
    let delayed = Outcome::Delayed { until: LATER };
    check(Outcome::Failed, "5.1.1", "5.1.1");
    check(Outcome::Failed, "4.4.7", "4.4.7");
    check(Outcome::Failed, "2.0.0", "5.0.0");
    check(delayed, "5.1.1", "4.0.0");
    check(delayed, "4.7.100", "4.7.100");
    for bad in ["", "5", "5.1", "5.1.1.1", "5.1.1000", "5..1", "5.a.1", "55.1.1", "5.1.1 "] {
        check(Outcome::Failed, bad, "5.0.0");
    }
    check(Outcome::Relayed, "250", "2.0.0");
}

#[test]
fn people_are_told_what_to_do() {
    let to = address("alice@example.test");
    let check = |outcome, status: &str, expected: &str| {
        let recipients = vec![recipient("bob@good.test", outcome, status)];
        let [human, ..] = parts(&report(&to, recipients).compose());
        let human = human.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(human.contains(expected), "{status}: {human}");
    };
    let (failed, delayed) = (Outcome::Failed, Outcome::Delayed { until: LATER });
    check(failed, "5.1.1", "There is nobody with this address.");
    check(failed, "5.2.2", "This mailbox is full.");
    check(failed, "5.3.4", "The message is too large.");
    check(failed, "4.4.1", "could not be reached. Try again later");
    check(failed, "5.7.5", "No way was found that is as safe as this message needs.");
    check(failed, "5.7.509", "refused for reasons of policy");
    check(failed, "5.9.9", "The message was not taken.");
    check(delayed, "4.2.2", "This mailbox is full at present.");
    check(delayed, "4.4.2", "cannot be reached at present. You need not do anything");
    check(delayed, "4.7.1", "does not take the message for now.");
}
