mod disputed;
mod encoded;
mod names;

use super::*;
use crate::organization::Extension;

fn extensions(texts: &[&str]) -> Extensions {
    texts.iter().map(|text| text.parse::<Extension>().expect(text)).collect()
}

fn objected(content: &str) -> Option<Objection> {
    objection(content.as_bytes(), &Extensions::default())
}

/// A file of this name is found, or nothing is wrong.
fn check(content: &str, expected: Option<&str>) {
    let found = objected(content).map(|objection| match objection {
        Objection::Blocked { name, .. } => name,
        Objection::Malformed { .. } => panic!("{objection:?}: {content}"),
    });
    assert_eq!(found.as_deref(), expected, "{content}");
}

fn check_sent(content: &str) {
    assert_eq!(objected(content), None, "{content:.500}");
}

fn check_malformed(content: &str) {
    let found = objected(content);
    assert!(matches!(found, Some(Objection::Malformed { .. })), "{found:?}: {content:.500}");
    check_sent_where_nothing_is_blocked(content);
}

/// It is not sent, for whichever reason.
fn check_refused(content: &str) {
    assert!(objected(content).is_some(), "{content:.500}");
    check_sent_where_nothing_is_blocked(content);
}

/// What cannot be told matters only to whom some kind of file matters.
fn check_sent_where_nothing_is_blocked(content: &str) {
    let nothing = Extensions::from_iter([]);
    assert_eq!(objection(content.as_bytes(), &nothing), None, "{content:.500}");
}

/// A quadratic cost would be seen as a test that does not end.
fn check_length(content: &str) {
    let found = objected(content);
    assert!(!matches!(found, Some(Objection::Blocked { .. })), "{content:.100}");
}

fn with_part(fields: &str) -> String {
    format!(
        "From: a@b.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n\
         --b\r\n{fields}\r\n\r\nAAAA\r\n--b--\r\n"
    )
}

/// A message that is to be put into another, with boundaries of its own.
fn within(message: &str) -> String {
    message.replace("boundary=", "boundary=i").replace("\n--", "\n--i")
}

#[test]
fn the_list_is_the_organizations() {
    let message = with_part("Content-Disposition: attachment; filename=a.Zip");
    let blocked = |list: &[&str]| objection(message.as_bytes(), &extensions(list));
    assert_eq!(blocked(&[]), None);
    assert_eq!(blocked(&["exe"]), None);
    let found = Objection::Blocked { name: "a.Zip".into(), part: "2".into() };
    assert_eq!(blocked(&["exe", "zip"]), Some(found));
}

#[test]
fn messages_in_messages_and_messages_that_are_a_file_are_looked_into() {
    let inner = with_part("Content-Disposition: attachment; filename=a.exe");
    let nested = |encoding: &str, inner: &str| {
        let inner = within(inner);
        format!(
            "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\
             Content-Type: message/rfc822\r\n{encoding}\r\n{inner}\r\n--o--\r\n"
        )
    };
    check(&nested("", &inner), Some("a.exe"));
    check(&nested("", &nested("Content-Transfer-Encoding: 8bit\r\n", &inner)), Some("a.exe"));
    check("Content-Type: application/x; name=a.exe\r\n\r\nAAAA", Some("a.exe"));
    check_sent("Subject: a.exe\r\n\r\nbegin with a.exe");
    check_sent("");
}

/// Some readers take every message type for a message.
#[test]
fn types_of_messages_that_the_parser_does_not_know_are_looked_into() {
    let file = "Content-Type: application/x; name=a.exe\r\n\r\nAAAA";
    for kind in ["message/x-y", "message/news", "message/delivery-status", "Message/Global-Headers"]
    {
        let content = with_part(&format!("Content-Type: {kind}"));
        check(&content.replace("AAAA", file), Some("a.exe"));
        check(
            &content.replace("AAAA", &within(&with_part(&file.replace("\r\n\r\nAAAA", "")))),
            Some("a.exe"),
        );
        let report = "Reporting-MTA: dns; mx.example.test\r\n\r\nStatus: 5.1.1";
        check_sent(&content.replace("AAAA", report));
    }
}

/// What mail programs write is sent, with no long line to mend or with one, and a file of a blocked
/// kind is found in it.
#[test]
fn what_mail_programs_write_is_taken_apart_in_one_way() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/messages/clients");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("is there") {
        let path = entry.expect("reads").path();
        let harmless = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(objected(&harmless), None, "{path:?}");
        let mut blocked = harmless.clone();
        // In words, percent encoding and base64 (the German for overview).
        for (from, to) in [
            (".pdf", ".exe"),
            ("=2Epdf", "=2Eexe"),
            ("%2E%70%64%66", "%2E%65%78%65"),
            ("w5xiZXJzaWNodC5wZGY=", "w5xiZXJzaWNodC5leGU="),
        ] {
            blocked = blocked.replace(from, to);
        }
        assert_ne!(blocked, harmless, "{path:?}");
        let found = objected(&blocked);
        let Some(Objection::Blocked { name, .. }) = found else { panic!("{found:?}: {path:?}") };
        assert!(name.ends_with(".exe"), "{name}: {path:?}");
        let message = PARSER.parse(harmless.as_bytes()).expect("a message");
        assert!(message.parts().all(crate::pipeline::outbound::delimiters::are_clear), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 14);
}

#[test]
fn the_part_is_named() {
    let check = |content: &str, expected: &str| {
        assert_eq!(objected(content).expect(content).place(), expected, "{content}");
    };
    let blocked = with_part("Content-Disposition: attachment; filename=a.exe");
    check(&blocked, "part 2 \"a.exe\"");
    check("Content-Type: application/x; name=a.exe\r\n\r\nAAAA", "part 1 \"a.exe\"");
    let message = |encoding: &str, body: &str| {
        let fields = format!("Content-Type: message/rfc822{encoding}");
        with_part(&fields).replace("AAAA", &within(body))
    };
    check(&message("", &blocked), "part 2.2 \"a.exe\"");
    check(&message("", &message("", &blocked)), "part 2.2.2 \"a.exe\"");
    let single = "Content-Type: application/x; name=a.exe\r\n\r\nAAAA";
    check(&message("", single), "part 2.1 \"a.exe\"");
    let encoded = "\r\nContent-Transfer-Encoding: base64";
    let inner = base64::MIME.encode(&blocked);
    check(&message(encoded, &inner), "part 2.2 \"a.exe\"");
    check(&message("", &message(encoded, &inner)), "part 2.2.2 \"a.exe\"");
    let twice = "Content-Type: text/plain; name=\"b.txt\"\r\nContent-Type: text/plain";
    check(&with_part(twice), "part 2, it has a field twice");
    let unclean = "; name=mail.eml\r\nContent-Transfer-Encoding: base64";
    check(&message(unclean, "a:b"), "part 2 \"mail.eml\", it is not clean base64");
    let boundaries = with_part("x").replace("boundary=b", "boundary=c; boundary=b");
    check(&boundaries, "part 1, its boundary cannot be told");
    // What cannot be told is no reason where a file is.
    let last = "--b\r\nContent-Type: application/x; name=a.exe\r\n\r\nx\r\n--b--";
    check(&with_part(twice).replace("--b--", last), "part 3 \"a.exe\"");
    let root = format!("Content-Type: text/plain\r\n{}", with_part("x"));
    check(&root, "the message itself, it has a field twice");
}

#[test]
fn a_hostile_message_takes_no_longer_than_its_length() {
    for unit in [
        "; name=\"",
        ";name= a",
        "=?",
        "=?utf-8?q?=2E?= ",
        ";boundary=",
        "%",
        " a",
        "\"a\",",
        "\\\"",
        "a.e\\",
        "(",
        "<,",
        "=?x?q?",
        ";name*0='",
    ] {
        let value = unit.repeat(1 << 18);
        let field = format!("Content-Disposition: attachment; filename={value}");
        check_length(&with_part(&field));
    }
    check_length(&format!("\r\n{}", "begin 644 ".repeat(1 << 18)));
    check_length(&format!("\r\n{}", "begin\n".repeat(1 << 18)));
    check_length(&with_part(&"Content-Type: x\r\n".repeat(1 << 16)));
}

#[test]
fn thousands_of_parts_are_no_place_to_hide() {
    let part = "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n";
    let last = "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n--b--\r\n";
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    check(&format!("{head}{}{last}", part.repeat(20_000)), Some("a.exe"));
}
