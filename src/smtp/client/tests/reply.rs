//! Replies: what is read, what is not, and that cutting changes nothing.

use bytes::BytesMut;
use proptest::prelude::*;

use crate::smtp::client::reply::Replies;
use crate::smtp::client::{EnhancedStatus, Garbage, Reply};

/// All replies up to the end or to garbage.
fn read(pieces: &[&[u8]]) -> (Vec<Reply>, Option<Garbage>) {
    let (mut replies, mut buffer) = (Replies::default(), BytesMut::new());
    let mut read = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match replies.next(&mut buffer) {
                Ok(Some(reply)) => read.push(reply),
                Ok(None) => break,
                Err(garbage) => return (read, Some(garbage)),
            }
        }
    }
    (read, None)
}

fn check(text: &str, expected: &[&str]) {
    let (replies, garbage) = read(&[text.as_bytes()]);
    assert_eq!(garbage, None, "{text:?}");
    let printed: Vec<String> = replies.iter().map(ToString::to_string).collect();
    assert_eq!(printed, expected, "{text:?}");
}

#[test]
fn replies_are_read() {
    check("250 ok\r\n", &["250 ok"]);
    check("250\r\n", &["250 "]);
    check("250 ok\n", &["250 ok"]);
    check("250-\r\n250 \r\n", &["250  "]);
    check("250-a\r\n250-b\r\n250 c\r\n354 go\r\n", &["250 a b c", "354 go"]);
    check("250 2.1.0 fine\r\n", &["250 2.1.0 fine"]);
    check(
        "550-5.1.1 no\r\n550-5.1.10 such\r\n550 5.1.1 user\r\n",
        &["550 5.1.1 no 5.1.10 such user"],
    );
    check("250 incomplete", &[]);
}

#[test]
fn the_servers_characters_are_kept_and_none_that_cannot_be_seen() {
    let check = |octets: &[u8], expected: &str| {
        let (replies, garbage) = read(&[octets]);
        assert_eq!((replies[0].to_string().as_str(), garbage), (expected, None), "{octets:?}");
    };
    let russian = "550-5.7.1 Почта\r\n550 5.7.1 заблокирована\r\n";
    check(russian.as_bytes(), "550 5.7.1 Почта заблокирована");
    check(b"550 5.1.1 Empf\xe4nger unbekannt\r\n", "550 5.1.1 Empfänger unbekannt");
    check(b"550 \xe3\x83\xa1\xe3\x83\xbc\xe3\x83\xab Empf\xe4nger\r\n", "550 メール Empfänger");
    check("550 a\u{202e}b\u{200b}c\u{2066}d\u{ad}e\r\n".as_bytes(), "550 a?b?c?d?e");
    check("550 a\tb\u{a0}c\u{2028}d\u{3000}e\r\n".as_bytes(), "550 a b c d e");
    check(b"550 a\x1b[31m\x7f\0b\x9b\r\n", "550 a?[31m??b?");
    check("550 \u{feff}a\u{e0041}\u{fff9}\r\n".as_bytes(), "550 ?a??");
}

#[test]
fn an_enhanced_status_code_is_read_where_it_agrees_with_the_code() {
    let check = |line: &str, expected: Option<&str>| {
        let (replies, _) = read(&[format!("{line}\r\n").as_bytes()]);
        let enhanced = replies[0].enhanced().map(|enhanced| enhanced.to_string());
        assert_eq!(enhanced.as_deref(), expected, "{line}");
    };
    check("250 2.1.5 ok", Some("2.1.5"));
    check("550 5.7.26 ok", Some("5.7.26"));
    check("550 5.7.1", Some("5.7.1"));
    check("550 4.7.1 ok", None);
    check("550 5.7 ok", None);
    check("550 5.7.1.2 ok", None);
    check("550 5.1234.1 ok", None);
    check("550 5..1 ok", None);
    check("550 5.7.1: ok", None);
    check("550 no 5.7.1", None);
}

#[test]
fn garbage_is_named() {
    for (text, expected) in [
        ("hello\r\n", Garbage::NotAReply),
        ("\r\n", Garbage::NotAReply),
        ("25\r\n", Garbage::NotAReply),
        ("250x\r\n", Garbage::NotAReply),
        ("+25 ok\r\n", Garbage::NotAReply),
        ("199 ok\r\n", Garbage::NotAReply),
        ("600 ok\r\n", Garbage::NotAReply),
        ("\u{662}50 ok\r\n", Garbage::NotAReply),
        ("250-a\r\n550 b\r\n", Garbage::TwoCodes),
    ] {
        assert_eq!(read(&[text.as_bytes()]), (Vec::new(), Some(expected)), "{text:?}");
    }
}

#[test]
fn the_limits_are_sharp() {
    let line = |length: usize| format!("250 {}\r\n", "x".repeat(length - 6));
    check(&line(4096), &[&format!("250 {}", "x".repeat(1000))]);
    assert_eq!(read(&[line(4097).as_bytes()]).1, Some(Garbage::LongLine));
    assert_eq!(read(&[&[b'x'; 4096]]).1, Some(Garbage::LongLine));
    let lines = |count: usize| format!("{}250 z\r\n", "250-a\r\n".repeat(count - 1));
    assert_eq!(read(&[lines(100).as_bytes()]).0.len(), 1);
    assert_eq!(read(&[lines(101).as_bytes()]).1, Some(Garbage::ManyLines));
}

#[test]
fn status_codes_are_printed_as_they_are_read() {
    for text in ["2.0.0", "4.4.7", "5.999.999"] {
        let status: EnhancedStatus = text.parse().expect("valid");
        assert_eq!(status.to_string(), text);
        let json = serde_json::to_string(&status).expect("prints");
        assert_eq!(serde_json::from_str::<EnhancedStatus>(&json).expect("reads"), status);
    }
    for text in ["", "3.0.0", "5.1", "5.1.1.1", "5.1.1000", "5.a.1", "5.+1.1"] {
        assert!(text.parse::<EnhancedStatus>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn however_bytes_are_cut_the_same_replies_come_out(
        lines in prop::collection::vec("(250|550|421|25)[- x](5\\.1\\.1)?[ -~é]{0,8}\r?\n", 0..12),
        cuts in prop::collection::vec(1..9usize, 0..64),
    ) {
        let text = lines.concat();
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(read(&pieces), read(&[text.as_bytes()]));
    }
}
