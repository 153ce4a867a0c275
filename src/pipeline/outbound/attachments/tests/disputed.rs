//! What readers take apart in two ways: fields, boundaries, delimiters.

use super::*;

#[test]
fn a_message_that_readers_take_apart_in_two_ways_is_malformed() {
    let encoded = |kind: &str, encoding: &str| {
        with_part(&format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}"))
    };
    let twice = |field: &str| with_part(&format!("{field}\r\n{field}"));
    for content in [
        twice("Content-Disposition: attachment"),
        twice("Content-Type: text/plain"),
        twice("content-transfer-encoding : 7bit"),
        format!("Content-Type: text/plain\r\n{}", with_part("Content-Type: text/plain")),
        with_part("x\r\n Content-Disposition: attachment; filename=a.txt"),
        with_part("\tContent-Type: text/plain; name=a.txt"),
        with_part("x").replace("boundary=b", "boundary=c; boundary=b"),
        with_part("x").replace("boundary=b", "boundary=\"b \""),
        encoded("message/rfc822", "base64").replace("AAAA", "AA=A"),
        encoded("message/rfc822", "base64").replace("AAAA", "A:AA"),
        encoded("multipart/mixed; boundary=i", "base64").replace("AAAA", "--i"),
        with_part("x").replace("boundary=b", "boundary=\"\""),
        with_part("x").replace("boundary=b", "boundary="),
        with_part("x").replace("boundary=b", "boundary=; x=y"),
        with_part("x").replace("; boundary=b", ""),
        with_part("x").replace("boundary=b", "boundary=\"\"b"),
        encoded("message(x)/rfc822", "7bit"),
        encoded("message/(x)rfc822", "7bit"),
        encoded("mes(x(y))sage/rfc822", "7bit"),
        encoded("multi part/mixed; boundary=i", "7bit"),
        encoded("message/rfc822", "base(x)64"),
        encoded("message/rfc822", "base 64"),
        encoded("message/rfc822", "Quoted(\\))-printable"),
        encoded("message/partial; id=1; number=1; total=2", "7bit"),
        nested_messages(1000),
    ] {
        check_malformed(&content);
    }
    check_sent(&encoded("message/rfc822", "8bit"));
    for boundary in ["\"=_a:b?c/d'(e)+,-.\"", "===_x", "\"----=_Part 1\"", "Apple-Mail=_X"] {
        let bare = boundary.trim_matches('"');
        let content = with_part("x").replace("--b", &format!("--{bare}"));
        check_sent(&content.replace("boundary=b", &format!("boundary={boundary}")));
    }
    check_sent(&encoded("text/plain", "base64"));
    check_sent(&encoded("text/plain; name=\"a message/multipart/x\"", "base64"));
}

fn nested_messages(depth: usize) -> String {
    let inner = "Content-Disposition: attachment; filename=a.exe\r\n\r\nx";
    format!("{}{inner}", "Content-Type: message/rfc822\r\n\r\n".repeat(depth))
}

/// Readers differ in what they take for a delimiter, and in whether they read on behind the end.
/// Whatever the parser makes of it: a file that some reader finds is not sent, and where nobody
/// finds one, nothing is refused.
#[test]
fn a_file_behind_what_is_a_delimiter_for_some_only_is_not_sent() {
    const DOUBTFUL_FIELD: &str = "it has a field that only some readers find";
    let around = |inner: &str| {
        let inner = inner.replace("boundary=b", "boundary=i").replace("--b", "--i");
        [
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{inner}--b--\r\n"),
            format!(
                "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\
                 Content-Type: message/rfc822\r\n\r\n{inner}--b\r\n\r\nx\r\n--b--\r\n"
            ),
        ]
    };
    let whole = |before: &str, end: &str, fields: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n{before}--b\r\n\r\nx\r\n\
             {end}\r\n--b\r\n{fields}\r\n\r\nx\r\n--b--\r\n"
        )
    };
    let lines = [
        "--b--x",
        "--b-- x",
        "--b--\x0c",
        "--b--\0",
        "--b---",
        "--b----",
        "--b--\rx",
        "--b x",
        "--bx",
        "--b\x0b",
        "--b-",
        "--b--",
        "--b-- \t",
        "x\r--b--",
        "x--b--",
        "--b ",
    ];
    for line in lines {
        for fields in [
            "Content-Disposition: attachment; filename=a.EXE",
            "x\r\n Content-Type: text/plain;\r\n\tname=a.EXE",
            "Content-Type: text/plain\r\n\r\nbegin 644 a.EXE",
        ] {
            let mut contents =
                vec![whole("", line, fields), whole(&format!("{line}\r\n"), "y", fields)];
            for content in contents.clone() {
                contents.extend(around(&content));
            }
            for content in contents {
                check_refused(&content);
                // A field that only some readers find is refused whatever it says, as long as the
                // parser finds its part.
                let has_doubtful_field = fields.contains("\n Content-Type");
                let reasons = has_doubtful_field.then_some(DOUBTFUL_FIELD);
                check_sent_unless(&content.replace("a.EXE", "a.txt"), reasons.as_slice());
            }
        }
    }
    let padded = whole("", "y", "Content-Disposition: attachment; filename=a.txt");
    let padded = padded.replace("--b\r", "--b \t\r");
    check_sent(&padded.replace("--b--", "--b-- \t"));
    check_sent(&format!("{padded}epilogue\r\n"));
    // Parts may have the same boundary beside each other, as one message that is attached twice.
    let inner = padded.replace("boundary=b", "boundary=i").replace("--b", "--i");
    let part = format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{inner}");
    check_sent(&format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{part}{part}--b--\r\n"));
}

/// Where some readers find another boundary than others, or parts where others find none.
#[test]
fn a_file_in_a_multipart_that_only_some_readers_find_is_not_sent() {
    const BASE64: &str = "Content-Transfer-Encoding: base64";
    /// What was refused before, whatever is in it.
    const DOUBTFUL: [&str; 2] =
        ["its boundary cannot be told", "its type or encoding cannot be told"];
    /// A message that is a file, `a.exe`.
    const MESSAGE: &str = "Q29udGVudC1UeXBlOiB4L3k7IG5hbWU9YS5leGUKCng=";
    let types = [
        "multipart/mixed; boundary=b\"b\"",
        "multipart/mixed; boundary=\"b\"b",
        "multipart/mixed; boundary=bb*",
        "multipart/mixed; boundary=bb>",
        "multipart/mixed; boundary=bb,",
        "multipart/mixed; boundary=bb]",
        "multipart/mixed; boundary=bb@x",
        "multipart/mixed; boundary=bb/x",
        "multipart/mixed; boundary=bb:x",
        "multipart/mixed; boundary=bb?x",
        "multipart/mixed; boundary=bb=x",
        "multipart/mixed; boundary=bb(x)",
        "multipart/mixed; boundary=b\\b",
        "multipart/mixed; boundary=\"b\\b\"",
        "multipart/mixed; boundary=bb=?utf-8?q?x?=",
        "multipart/mixed; boundary=\"=?utf-8?q?bb?=\"",
        "multipart/mixed; boundary=\"<bb>\"",
        "multipart/mixed; boundary=<bb>",
        "multipart/mixed; boundary=\"utf-8''bb\"",
        "multipart/mixed; boundary=b%62",
        "multipart/mixed; boundary*=utf-8''bb",
        "multipart/mixed; boundary*0=b; boundary*1=b",
        "multipart/mixed; boundary=other",
        "multipart/mixed; boundary=\"other\"",
        ";multipart/mixed; boundary=bb",
        "; boundary=bb",
        "\"multipart/mixed\"; boundary=bb",
        "multipart; boundary=bb",
        "multipart mixed; boundary=bb",
        "=?utf-8?q?multipart?=/mixed; boundary=bb",
        "x multipart/mixed; boundary=bb",
        "text/plain multipart/mixed",
        "text/plain; boundary=bb",
        "text/plain; boundary=b\"b\"",
        "text/plain; boundary=b\\b",
        "text/plain;\x0bboundary=bb",
        "text/plain; x=y, boundary=bb",
        "application/x; boundary=bb",
    ];
    for kind in types {
        for part in [
            "Content-Disposition: attachment; filename=a.EXE\r\n\r\nx",
            "Content-Type: x/y; name*=cp037''%81%4B%85%A7%85\r\n\r\nx",
            &format!("Content-Type: message/rfc822\r\n{BASE64}\r\n\r\n{MESSAGE}"),
            "\r\nbegin 644 a.EXE",
        ] {
            let fields = format!("Content-Type: {kind}");
            let body = format!("--bb\r\n\r\nx\r\n--bb\r\n{part}\r\n--bb--");
            let whole = format!("{fields}\r\n\r\n{body}\r\n");
            for content in [with_part(&fields).replace("AAAA", &body), whole] {
                check_refused(&content);
                let harmless = content.replace("a.EXE", "a.txt").replace("cp037", "utf-8");
                check_sent_unless(&harmless.replace(MESSAGE, ""), &DOUBTFUL);
            }
        }
    }
    // In base64 as a whole.
    let inner = "--bb\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx\r\n--bb--\r\n";
    for kind in ["text/plain; boundary=b\"b\"", ";multipart/mixed; boundary=bb"] {
        let fields = format!("Content-Type: {kind}\r\n{BASE64}");
        let with = |inner: &str| with_part(&fields).replace("AAAA", &base64::MIME.encode(inner));
        check_refused(&with(inner));
        check_sent(&with(&inner.replace("exe", "txt")));
    }
}

/// A message whose files are of kinds that are sent is refused for one of these reasons at most.
fn check_sent_unless(content: &str, reasons: &[&str]) {
    match objected(content) {
        None => {}
        Some(Objection::Malformed { why, .. }) if reasons.contains(&why) => {}
        found => panic!("{found:?}: {content:?}"),
    }
}

/// What is encoded has its delimiters elsewhere for a reader who passes over some.
#[test]
fn what_is_encoded_where_readers_do_not_agree_is_looked_into() {
    let with_body = |encoding: &str, before: &str, after: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/plain\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n\
             {before}\r\n--b-- xx\r\n{after}\r\n--b--\r\n"
        )
    };
    // What stands in the line itself is four characters of base64.
    let begin = base64::MIME.encode("x\nbegin 644 a.exe\n");
    let message = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64";
    let multipart = "content-type : multi(x)part/y\r\nContent-Transfer-Encoding: base(x)64";
    let blocked = base64::MIME.encode("Content-Type: text/plain; name=a.exe\n\nx");
    let found = [
        with_body("base64", "YWJj", &format!("a{begin}")),
        with_body("quoted-printable", "x", "begin=20644 a=2Eexe"),
        with_body("quoted-printable", "x=\r\ny", "b=\r\negin 644 a.exe"),
        with_body("8bit", "x", "begin 644 a.exe"),
        with_body("8bit", "x", &format!("{message}\r\n\r\n{blocked}")),
        with_body("8bit", "x", &format!("{multipart}\r\n\r\n{blocked}")),
    ];
    for content in found {
        let why = "a delimiter has more on its line";
        let expected = Objection::Malformed { why, part: String::new(), name: None };
        assert_eq!(objected(&content), Some(expected), "{content}");
    }
    let begin = base64::MIME.encode("x\nbegin 644 a.txt\n");
    check_sent(&with_body("base64", "YWJj", &format!("a{begin}")));
    check_sent(&with_body("quoted-printable", "x", "begin=20644 a=2Etxt"));
    check_sent(&with_body("quoted-printable", "x", "Content-Transfer-Encoding: base64"));
    check_sent(&with_body("8bit", "x", "Content-Type: message/rfc822"));
    check_sent(&with_body("8bit", "x", &format!("{message}\r\n\r\nYWJj")));
}

/// Some generators make a boundary out of the one around it.
#[test]
fn a_boundary_may_begin_as_another_does() {
    for (outer, inner) in [
        ("b", "b1"),
        ("b", "b--x"),
        ("b", "b--"),
        ("b", "b b"),
        ("b1", "b"),
        ("b", "b.1.2"),
        ("b", "bb"),
    ] {
        for name in ["a.txt", "a.exe"] {
            let file = format!("Content-Disposition: attachment; filename={name}\r\n\r\nx\r\n");
            let content = format!(
                "Content-Type: multipart/mixed; boundary=\"{outer}\"\r\n\r\n--{outer}\r\n\
                 Content-Type: multipart/related; boundary=\"{inner}\"\r\n\r\n--{inner}\r\n\r\n\
                 x\r\n--{inner}\r\n{file}--{inner}--\r\n\r\n--{outer}\r\n{file}--{outer}--\r\n"
            );
            check(&content, (name == "a.exe").then_some(name));
            check(&content.replace("\r\n", "\n"), (name == "a.exe").then_some(name));
        }
    }
}
