use mail_parser::MessageParser;
use proptest::prelude::*;

use super::*;
use crate::mail::body_offset;

const FROM: &str = "From: alice@example.test\r\n";
const DATE: &str = "Date: Sat, 21 Nov 2026 04:31:26 +0000\r\n";
const ID: &str = "Message-ID: <01939e10-0000-7000-8000-000000000001@mx.example.test>\r\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

/// The message as it leaves: what goes on top, then what is left.
fn fixed(content: &[u8], sender: Option<&Address>) -> Result<Vec<u8>, Reason> {
    let submission = Completion {
        login: &address("alice@example.test"),
        sender,
        at: Timestamp::from_millis(1_795_235_486_123),
        hostname: "mx.example.test",
        trace_id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
    };
    let fixups = fix(content, &submission)?;
    let mut left = content.to_vec();
    fixups.take_out(&mut left);
    assert_eq!(fixups.keeps_content(), left == content);
    Ok([fixups.prefix, left].concat())
}

fn check(content: &str, expected: &str) {
    let found = fixed(content.as_bytes(), None).expect("is taken");
    assert_eq!(String::from_utf8_lossy(&found), expected, "{content:?}");
}

fn refused(content: &str, expected: Reason) {
    assert_eq!(fixed(content.as_bytes(), None), Err(expected), "{content:?}");
}

#[test]
fn what_is_missing_is_added_and_what_is_there_is_kept() {
    let whole = format!("Date: then\r\n{FROM}message-id: <1@x.test>\r\n\r\nbody\r\n.\r\n\x0c");
    check(&whole, &whole);
    check(&format!("{FROM}\r\nbody"), &format!("{DATE}{ID}{FROM}\r\nbody"));
    check("Subject: x\r\n", &format!("From: <alice@example.test>\r\n{DATE}{ID}Subject: x\r\n"));
    // Without a value it is as good as missing.
    let empty = "Date:\r\n \r\nfrom: \r\nSubject:\r\nMessage-ID:\r\n\r\nbody";
    let added = format!("From: <alice@example.test>\r\n{DATE}{ID}Subject:\r\n\r\nbody");
    check(empty, &added);
    // So is one in which nobody is named.
    for nobody in ["undisclosed-recipients:;", "(Alice)", ",", "a:;, b:;", "\r\n group:\r\n ;"] {
        let content = format!("From: {nobody}\r\nSender: {nobody}\r\nSubject:\r\n\r\nbody");
        check(&content, &added);
    }
}

#[test]
fn a_message_without_header_section_gets_one() {
    let head = format!("From: <alice@example.test>\r\n{DATE}{ID}\r\n");
    for body in
        ["", "just text\r\n", " folded: text\r\nmore\r\n\r\nBcc: no\r\n", "Dear Bob: hi\r\n"]
    {
        check(body, &format!("{head}{body}"));
    }
    check("\r\nBcc: in the body\r\n", &format!("{head}Bcc: in the body\r\n"));
    // The first line of an mbox file is not a text.
    let mbox = format!("From alice@x.test Sat 21 04:31:26\r\n{FROM}\r\nbody");
    check(&mbox, &format!("{DATE}{ID}{FROM}\r\nbody"));
    check("From here on\r\nall is text\r\n", &format!("{head}From here on\r\nall is text\r\n"));
}

#[test]
fn blind_copies_do_not_leave() {
    let top = format!("{DATE}{ID}{FROM}");
    let check = |fields: &str| {
        let content = format!("{FROM}{fields}Subject: x\r\n\r\nBcc: body\r\n");
        super::tests::check(&content, &format!("{top}Subject: x\r\n\r\nBcc: body\r\n"));
    };
    check("Bcc: b@x.test\r\n");
    check("bCC \t: b@x.test,\r\n c@x.test,\r\n\td@x.test\r\n");
    check("Bcc:\r\nBcc: b@x.test\r\nResent-Bcc: c@x.test\r\nReturn-Path: <d@x.test>\r\n");
    check("Bcc: b@x.test\r\n \r\n c@x.test\r\n");
}

#[test]
fn what_only_some_readers_take_for_a_field_is_refused() {
    for hidden in [
        "x\r\n Bcc: b@x.test\r\n",
        "Bcc\r\n : b@x.test\r\n",
        ":Bcc: b@x.test\r\n",
        "\u{a0}Bcc: b@x.test\r\n",
        "Bcc\u{200b}: b@x.test\r\n",
        "\x0bBcc: b@x.test\r\n",
        "B cc: b@x.test\r\n",
        "nonsense\r\n",
    ] {
        refused(&format!("{FROM}{hidden}\r\nbody"), Reason::MalformedHeader);
        refused(&format!("{hidden}{FROM}\r\nbody"), Reason::MalformedHeader);
    }
    refused(" Bcc: b@x.test\r\n\r\nbody", Reason::MalformedHeader);
    for resent in ["Resent-From", "resent-SENDER\x0b"] {
        refused(&format!(" {resent}: b@x.test\r\n\r\nbody"), Reason::MalformedHeader);
        refused(&format!("x\r\n {resent}: b@x.test\r\n{FROM}\r\n"), Reason::MalformedHeader);
    }
    refused("From here on\r\n Bcc: b@x.test\r\n\r\nbody", Reason::MalformedHeader);
    refused("text\r\n From: b@x.test\r\n\r\nbody", Reason::MalformedHeader);
    refused(&format!("{FROM}{FROM}\r\n"), Reason::SeveralAuthors);
    refused("Sender: a@x.test\r\nSender: a@x.test\r\n\r\n", Reason::SeveralAuthors);
    let swarm = "X: y\r\nBcc: b@x.test\r\n".repeat(MAX_REMOVED + 1);
    refused(&swarm, Reason::MalformedHeader);
    let run = format!("{FROM}{}\r\n", "Bcc: b@x.test\r\n".repeat(10 * MAX_REMOVED));
    check(&run, &format!("{DATE}{ID}{FROM}\r\n"));
}

#[test]
fn who_sends_for_somebody_is_named() {
    let check = |sender: &str, expected: &str| {
        let content = format!("{DATE}{ID}{FROM}{sender}\r\nbody");
        let wanted = address("carol@example.test");
        let found = fixed(content.as_bytes(), Some(&wanted)).expect("is taken");
        let expected = expected.replace('-', &format!("{DATE}{ID}{FROM}"));
        assert_eq!(String::from_utf8_lossy(&found), format!("{expected}\r\nbody"), "{sender:?}");
    };
    let added = "Sender: <carol@example.test>\r\n-";
    check("", added);
    check("Sender:\r\n", added);
    check("Sender: nobody:;\r\n", added);
    let kept = "Sender: \"Carol\" <Carol@example.test>\r\n";
    let found = fixed(
        format!("{DATE}{ID}{FROM}{kept}\r\n").as_bytes(),
        Some(&address("carol@example.test")),
    );
    assert_eq!(found, Ok(format!("{DATE}{ID}{FROM}{kept}\r\n").into_bytes()));
}

/// Lines of which headers are made, with those that deceive among them.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just("Bcc: secret@x.test".to_owned()),
        4 => Just("From: a@x.test".to_owned()),
        8 => Just("Date: then".to_owned()),
        8 => Just("Subject: x".to_owned()),
        2 => Just(String::new()),
        1 => "[ \t]{0,2}[Bb][Cc][Cc][ \t\x0b\x0c]{0,2}:?[ ]?secret@x.test",
        1 => "[ \t:]{0,2}(Resent-)?Bcc[ :]{1,2}secret@x.test",
        1 => "[ -~\u{80}-\u{ff}]{0,12}",
    ]
}

proptest! {
    #[test]
    fn no_reader_finds_a_blind_copy_and_nothing_is_fixed_twice(
        lines in proptest::collection::vec(line(), 0..12),
    ) {
        let content = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        let Ok(once) = fixed(content.as_bytes(), None) else { return Ok(()) };
        let sender = address("carol@example.test");
        prop_assert_eq!(fixed(&once, None), Ok(once.clone()), "fixed twice");
        let sent = fixed(&once, Some(&sender)).expect("is taken");
        prop_assert_eq!(fixed(&sent, Some(&sender)), Ok(sent.clone()), "fixed twice");
        for text in [&once, &sent] {
            let message = MessageParser::new().parse(text).expect("has a header section");
            prop_assert!(message.bcc().is_none() && message.resent_bcc().is_none());
            prop_assert!(message.from().is_some());
            let section = String::from_utf8_lossy(&text[..body_offset(text)]).to_lowercase();
            let hidden = section.lines().any(|line| {
                let name = line.split(':').next().unwrap_or_default();
                name.trim_matches(|c: char| !c.is_alphanumeric()).ends_with("bcc")
                    && line.contains(':') && !line.starts_with([' ', '\t'])
            });
            prop_assert!(!hidden, "{section}");
        }
        // The body is what it was.
        let content = content.as_bytes();
        prop_assert!(once.ends_with(&content[body_offset(content)..]));
    }
}
