use mail_parser::Message;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::mail::Address;
use crate::pipeline::outbound::fixups::{self, Completion};

const HEAD: &str = "From: alice@example.test\r\nDate: then\r\nMessage-ID: <1@x.test>\r\n\
                    MIME-Version: 1.0\r\n";

/// The message as it leaves.
fn mended(content: &str) -> Result<String, LongLine> {
    let submission = Completion {
        login: &Address::parse("alice@example.test").expect("an address"),
        sender: None,
        at: Timestamp::from_millis(1_795_235_486_123),
        hostname: "mx.example.test",
        trace_id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
    };
    let mut fixups = fixups::fix(content.as_bytes(), &submission).expect("is taken");
    let mut content = content.as_bytes().to_vec();
    take_out_and_mend(&mut content, &mut fixups)?;
    let whole = String::from_utf8([fixups.prefix, content].concat()).expect("UTF-8");
    assert_eq!(LongLines::of(whole.as_bytes()).next(), None, "{whole:.3000}");
    Ok(whole)
}

fn message(fields: &str, body: &str) -> String {
    format!("{HEAD}{fields}\r\n{body}")
}

/// What each leaf says, with the types of all parts.
fn read(message: &Message<'_>) -> Vec<(String, Vec<u8>)> {
    let parts = message.parts().map(|part| {
        let kind = part.content_type().map(|kind| format!("{} {:?}", kind.ctype(), kind.subtype()));
        let is_leaf = !part.is_multipart() && !part.is_message();
        let octets = if is_leaf { part.decoded().into_owned() } else { Vec::new() };
        (kind.unwrap_or_default(), octets)
    });
    parts.collect()
}

/// A message is mended, and says what it said.
fn check_same(content: &str) -> String {
    let after = mended(content).unwrap_or_else(|line| panic!("{line:?}: {content:.3000}"));
    let parsed = MessageParser::new().parse(content.as_bytes()).expect("a message");
    let again = MessageParser::new().parse(after.as_bytes()).expect("a message");
    assert_eq!(read(&parsed), read(&again), "{after:.3000}");
    assert_eq!(mended(&after).as_deref(), Ok(after.as_str()), "mended twice");
    let unfolded_fields = |text: &str| -> Vec<(String, String)> {
        let fields = FieldLines::new(text.as_bytes()).map(|(name, range)| {
            let name = String::from_utf8_lossy(name).into_owned();
            let field = String::from_utf8_lossy(&text.as_bytes()[range]).replace("\r\n", "");
            (name, field)
        });
        fields.filter(|(name, _)| !name.eq_ignore_ascii_case("Content-Transfer-Encoding")).collect()
    };
    let fields = unfolded_fields(content);
    assert!(
        unfolded_fields(&after).iter().filter(|it| fields.contains(it)).eq(fields.iter()),
        "fields are what they were: {after:.3000}"
    );
    after
}

fn check_refused(content: &str, line: usize) {
    assert_eq!(mended(content), Err(LongLine(line)), "{content:.3000}");
}

fn words(count: usize) -> String {
    "word ".repeat(count)
}

#[test]
fn a_line_is_long_past_998_octets() {
    const NONE: [(usize, usize); 0] = [];
    let lines = |content: &str| {
        let lines = LongLines::of(content.as_bytes());
        lines.map(|line| (line.start, line.end)).collect::<Vec<_>>()
    };
    let line = |length: usize| "x".repeat(length);
    for length in [0, 1, 997, 998] {
        for end in ["", "\r\n", "\r\nx\r\n"] {
            assert_eq!(lines(&format!("{}{end}", line(length))), NONE, "{length}");
        }
    }
    for length in [999, 1000, 1001, 2000, 100_000] {
        assert_eq!(lines(&line(length)), [(0, length)]);
        let content = format!("a\r\n{}\r\nb\r\n{}\r\n", line(length), line(998));
        assert_eq!(lines(&content), [(3, length + 5)], "{length}");
    }
    let many = format!("{}\r\n", line(998)).repeat(50);
    assert_eq!(lines(&many), NONE);
}

#[test]
fn header_lines_are_folded_at_white_space() {
    let references = "<0123456789@example.test> ".repeat(90);
    let after = check_same(&message(&format!("References: {references}\r\n"), "body\r\n"));
    assert!(after.lines().all(|line| line.len() <= 78), "{after}");
    let to = "\"Somebody, Else\" <somebody@example.test>, ".repeat(50);
    check_same(&message(&format!("To: {to}x@example.test\r\nSubject: x\r\n"), "body\r\n"));
    check_same(&message(&format!("Subject: a\r\n\t{}\t\r\n", words(300)), "body\r\n"));
    check_same(&message(&format!("Subject:  a   b{}  \t \r\n", words(300)), "body\r\n"));
    check_same(&message(&format!("X: {} {}\r\n", "x".repeat(900), "y".repeat(997)), ""));
    // Only where there is no other way is a field's name left alone on its line.
    let alone = check_same(&message(&format!("X-Long: {}\r\n", "y".repeat(997)), "body\r\n"));
    assert!(alone.contains("X-Long:\r\n yyy"), "{alone}");
    let together = check_same(&message(&format!("X: {} {}\r\n", "y".repeat(500), words(200)), ""));
    assert!(together.contains("X: yyy"), "{together}");
}

/// A space is put in where the grammar has room for one, as between addresses that a script joined.
#[test]
fn lists_without_spaces_are_folded_between_their_members() {
    let addresses = |text: &str| -> Vec<String> {
        let message = MessageParser::new().parse_headers(text.as_bytes()).expect("fields");
        let list = message.to().expect("is there");
        list.mailboxes().map(|it| format!("{:?} {:?}", it.name(), it.address())).collect()
    };
    let check = |to: &str| {
        let content = message(&format!("To: {to}\r\n"), "body\r\n");
        let after = mended(&content).expect("is mended");
        assert_eq!(addresses(&after), addresses(&content), "{after}");
        let without = |text: &str| text.replace([' ', '\r', '\n'], "");
        assert_eq!(without(&after), without(&content));
        assert_eq!(mended(&after).as_deref(), Ok(after.as_str()), "mended twice");
    };
    check(&"somebody@example.test,".repeat(100));
    check(&"\"x,y(\"<somebody@example.test>,".repeat(100));
    check(&"(a,b\\))<some@example.test>,\"\\\",\"<a@x.test>,".repeat(100));
    check(&"friends:a@x.test,b@x.test;,".repeat(100));
    let quoted = format!("\"{}\"<a@x.test>", "x,".repeat(1000));
    check_refused(&message(&format!("To: {quoted}\r\n"), "body\r\n"), 5);
    let ids = "<0123456789@example.test>".repeat(90);
    let after = mended(&message(&format!("References:{ids}\r\n"), "body\r\n"));
    let after = after.expect("is mended");
    let parsed = MessageParser::new().parse_headers(after.as_bytes()).expect("fields");
    assert_eq!(parsed.references().expect("is there").iter().count(), 90);
    check_refused(&message(&format!("X-Ids:{ids}\r\n"), "body\r\n"), 5);
}

#[test]
fn header_lines_without_white_space_are_refused() {
    check_refused(&message(&format!("X: {}\r\n", "x".repeat(998)), "body\r\n"), 5);
    check_refused(&message(&format!("S: x\r\nX:{}\r\n", "x".repeat(2000)), "body\r\n"), 6);
    check_refused(&message(&format!("X: a{}b\r\n", " ".repeat(1000)), "body\r\n"), 5);
    check_refused(&message(&format!("X: a{}\r\n", " ".repeat(1000)), "body\r\n"), 5);
    // What does not leave is no reason.
    let bcc = format!("Bcc: {}\r\n", "b@example.test,".repeat(100));
    let after = mended(&message(&format!("{bcc}Subject: x\r\n"), "body\r\n"));
    assert_eq!(after, Ok(message("Subject: x\r\n", "body\r\n")));
    check_refused(
        &message(&bcc, &format!("{}\r\n", words(300))).replace("MIME", &"x".repeat(999)),
        4,
    );
}

#[test]
fn texts_are_encoded() {
    let long = format!("first\r\n{}\r\n.\r\n-- \r\nlast =20\r\n", words(400));
    for fields in [
        "",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Transfer-Encoding: 8bit\r\nContent-Type: text/html\r\n",
        "content-transfer-encoding: 7BIT\r\nSubject: x\r\n",
        "Content-Transfer-Encoding:\r\n binary\r\nSubject: x\r\n",
    ] {
        let after = check_same(&message(fields, &long));
        let count = after.matches("quoted-printable").count();
        assert_eq!(count, 1, "{after}");
    }
    // What needs more as quoted-printable is in base64.
    let after = check_same(&message("", &format!("{}\r\n", "Почта ".repeat(300))));
    assert!(after.contains("Content-Transfer-Encoding: base64\r\n"), "{after}");
    let without_version = message("", &long).replace("MIME-Version: 1.0\r\n", "");
    assert!(check_same(&without_version).contains("MIME-Version: 1.0\r\nFrom: "));
}

#[test]
fn a_message_without_header_section_is_a_text() {
    let text = format!("Dear Bob\r\n{}\r\n", words(300));
    for content in [text.clone(), format!("\r\n{text}")] {
        let after = mended(&content).expect("is mended");
        let message = MessageParser::new().parse(after.as_bytes()).expect("a message");
        assert_eq!(message.body_text(0).expect("a text"), text, "{after}");
        assert!(message.from().is_some());
    }
}

/// Parts of a multipart between delimiters.
fn multipart(kind: &str, boundary: &str, parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}\r\n")).collect();
    format!(
        "Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n{parts}--{boundary}--\r\n"
    )
}

#[test]
fn parts_in_parts_are_mended_where_they_stand() {
    let long = words(400);
    let plain = format!("\r\n{long}");
    let html = format!("Content-Type: text/html\r\n\r\n<p>{long}\r\n</p>");
    let file = format!(
        "Content-Type: image/png;\r\n name=\"{}.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        long.trim(),
        "QUJD".repeat(2000)
    );
    let quoted = format!(
        "Content-Type: application/x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}=\r\n-",
        "a=3D--b \t=2Dc".repeat(200)
    );
    let inner = multipart("alternative", "i", &[&plain, &html]);
    let content = format!("{HEAD}{}", multipart("mixed", "o", &[&inner, &file, &quoted, &plain]));
    let after = check_same(&content);
    assert_eq!(after.matches("Content-Transfer-Encoding: quoted-printable\r\n").count(), 4);
    // A part that lacks its end, and one that is empty.
    check_same(&content.replace("--o--\r\n", ""));
    check_same(&content.replace(&quoted, ""));
}

#[test]
fn what_is_signed_sealed_or_no_text_is_refused() {
    let long = words(400);
    let plain = format!("Content-Type: text/plain\r\n\r\n{long}");
    let signature = "Content-Type: application/pgp-signature\r\n\r\nx";
    for kind in ["signed", "encrypted"] {
        let sealed = multipart(kind, "s", &[&plain, signature]);
        check_refused(&format!("{HEAD}{sealed}"), 10);
        check_refused(&format!("{HEAD}{}", multipart("mixed", "o", &[&plain, &sealed])), 17);
        let inner = multipart("mixed", "i", &[&plain]);
        check_refused(&format!("{HEAD}{}", multipart(kind, "s", &[&inner, signature])), 13);
        let header = format!("Content-Type: text/plain;\r\n x=\"{}\"\r\n\r\nx", long.trim());
        check_refused(&format!("{HEAD}{}", multipart(kind, "s", &[&header, signature])), 9);
    }
    let forwarded = format!("Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n{long}");
    check_refused(&format!("{HEAD}{}", multipart("mixed", "o", &[&forwarded])), 12);
    check_refused(
        &format!("{HEAD}{}", multipart("digest", "o", &[&format!("\r\nSubject: x\r\n\r\n{long}")])),
        11,
    );
    for fields in [
        "Content-Type: application/json",
        "Content-Type: application/json\r\nContent-Transfer-Encoding: 8bit",
        "Content-Type: message/delivery-status\r\nX: y",
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uuencode",
        "Content-Type: text/plain\r\nContent-Type: text/html",
        "Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit",
        "Content-Type: text/plain\r\nno field",
        "Content-Type: multipart/mixed; boundary=absent\r\nX: y",
    ] {
        let part = format!("{fields}\r\n\r\n{long}");
        let lines = fields.lines().count();
        let content = format!("{HEAD}{}", multipart("mixed", "o", &["\r\nx", &part]));
        check_refused(&content, 12 + lines);
    }
    // What stands around parts belongs to none of them.
    let around = multipart("mixed", "o", &["\r\nx"]);
    check_refused(&format!("{HEAD}{around}{long}\r\n"), 11);
    let before = around.replacen("\r\n\r\n", &format!("\r\n\r\n{long}\r\n"), 1);
    check_refused(&format!("{HEAD}{before}"), 7);
}

/// Nothing is changed where readers find different parts, nor where a fold would make a field.
#[test]
fn what_readers_take_apart_in_two_ways_is_refused() {
    let plain = format!("Content-Type: text/plain\r\n\r\n{}", words(400));
    let last = format!("\r\n{}", words(400));
    for end in ["--o--x", "--o-- x", "--o--\x0c", "--o-x", "--o--", "--o--\rx"] {
        let parts = multipart("mixed", "o", &[&plain, &format!("\r\nx\r\n{end}"), &last]);
        check_refused(&format!("{HEAD}{parts}"), 10);
        check_refused(&format!("{HEAD}{}", multipart("mixed", "p", &[&parts])), 13);
        let first = parts.replacen("--o\r\n", &format!("{end}\r\n--o\r\n"), 1);
        check_refused(&format!("{HEAD}{first}"), 11);
    }
    for encoding in ["base64", "quoted-printable"] {
        let hidden = format!(
            "Content-Type: multipart/mixed; boundary=q\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{}",
            "QUJD".repeat(400)
        );
        check_refused(&format!("{HEAD}{}", multipart("mixed", "o", &[&hidden])), 11);
    }
    let parts = multipart("mixed", "o", &[&plain, "\r\nx"]);
    check_same(&format!("{HEAD}{parts}epilogue\r\n"));
    let words = vec!["y".repeat(60); 17].join(" ");
    for lead in ["", "Subject ", "\t"] {
        let line = format!("{lead}{words} Content-Disposition: attachment; filename=a.exe");
        let part = format!("Content-Type: text/plain\r\n{line}\r\n\r\nx");
        let content = format!("{HEAD}{}", multipart("mixed", "o", &[&part]));
        match lead {
            // This continues a field.
            "\t" => drop(check_same(&content)),
            _ => check_refused(&content, 9),
        }
    }
}

/// Some generators make a boundary out of the one around it.
#[test]
fn boundaries_that_begin_alike_are_no_reason_to_refuse() {
    let plain = format!("Content-Type: text/plain\r\n\r\n{}", words(400));
    for inner in ["b1", "b--x", "b b", "b.1"] {
        let parts = multipart("related", inner, &[&plain, "\r\nx"]);
        let content = format!("{HEAD}{}", multipart("mixed", "b", &[&parts, &plain]));
        let after = check_same(&content);
        assert_eq!(after.matches("Content-Transfer-Encoding: quoted-printable\r\n").count(), 2);
        // A line that only looks like that of one of them.
        let odd = content.replacen("\r\nx\r\n", "\r\nx\r\n--b2\r\n", 1);
        check_refused(&odd, 13);
    }
}

/// The header of what is signed is not covered by the signature.
#[test]
fn header_fields_above_what_is_signed_are_folded() {
    let sealed = multipart("signed", "s", &["\r\nx", "Content-Type: application/x\r\n\r\nx"]);
    check_same(&format!("{HEAD}Subject: {}\r\n{sealed}", words(300)));
}

#[test]
fn nothing_becomes_a_delimiter() {
    // Wherever a line is broken, one of these stands there.
    for lead in 1..80 {
        let text = format!("{}{}", "x".repeat(lead), "--b--b".repeat(300));
        let plain = format!("\r\n{text}");
        let quoted = format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{text}");
        check_same(&format!("{HEAD}{}", multipart("mixed", "b", &[&plain, &quoted, "\r\nlast"])));
    }
    let dashes = format!("Content-Transfer-Encoding: base64\r\n\r\n{}", "QUJD--b".repeat(200));
    check_refused(&format!("{HEAD}{}", multipart("mixed", "b", &[&dashes])), 10);
    let escapes =
        format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", "=".repeat(2000));
    check_refused(&format!("{HEAD}{}", multipart("mixed", "b", &[&escapes])), 10);
}

/// RFC 2045 §6.7 rule 3: white space at the end of a line means nothing. Behind a soft line break it
/// would be a line of its own, which readers take differently.
#[test]
fn white_space_that_ends_an_encoded_line_is_left_out() {
    let words = words(250);
    let words = words.trim_end();
    for (white, next) in
        [(" ", ""), ("\t\t", ""), (" \t ", "\r\nnext\r\n"), ("\t", "\r\n"), ("= \t", "\r\nnext")]
    {
        for length in [1, 70, 71, 72, 73, 74, 75, 76, 1200] {
            let start = "x".repeat(length);
            let end = white.trim_end();
            let encoded = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
            let after = check_same(&format!("{HEAD}{encoded}{words} {start}{white}{next}"));
            let body = after.split_once("\r\n\r\n").expect("a body").1;
            let joined = body.replace("=\r\n", "").replace("=\n", "");
            let expected = format!("{words} {start}{end}{next}").replace("=\r\n", "");
            assert_eq!(joined, expected, "{white:?} after {length}");
        }
    }
    let white = " ".repeat(1200);
    let encoded = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
    assert_eq!(
        check_same(&format!("{HEAD}{encoded}a{white}\r\nb")).split("\r\n\r\n").nth(1),
        Some("a\r\nb")
    );
}

/// Texts in which what matters is frequent, most of their lines too long.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z]{1,9} ".prop_map(|word| word.repeat(110)),
        2 => "[ -~\t]{0,1200}",
        1 => "[à-üа-я =.-]{300,600}",
        1 => Just("--b--o.. =3D=".repeat(90)),
        3 => Just("\r\n".to_owned()),
    ];
    proptest::collection::vec(piece, 0..6)
        .prop_map(|pieces| pieces.concat().replace("\r\n--", "\r\n"))
}

proptest! {
    #[test]
    fn a_mended_message_says_the_same(
        subject in "[a-z]{1,30}( [!-~]{1,400}){0,6}",
        bodies in proptest::collection::vec(text(), 1..4),
        nested in any::<bool>(),
        encoding in proptest::sample::select(vec![
            "", "Content-Transfer-Encoding: 8bit\r\n", "Content-Transfer-Encoding: base64\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n",
        ]),
    ) {
        let parts: Vec<String> = bodies
            .iter()
            .filter(|body| !body.starts_with("--"))
            .map(|body| format!("{encoding}Content-Type: text/plain; charset=utf-8\r\n\r\n{body}"))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let inner = multipart("mixed", "b", &parts);
        let inner = if nested { multipart("related", "o", &[&inner, "\r\nx"]) } else { inner };
        let content = format!("{HEAD}Subject: {subject}\r\n{inner}");
        // Encodings that are none cannot always be broken.
        if mended(&content).is_ok() || encoding.is_empty() || encoding.contains("8bit") {
            check_same(&content);
        }
        check_same(&format!("{HEAD}Subject: {subject}\r\n\r\n{}", bodies[0]));
    }
}
