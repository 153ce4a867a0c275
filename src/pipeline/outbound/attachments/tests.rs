use super::*;
use crate::pipeline::facts::extensions::Extension;

fn extensions(texts: &[&str]) -> Extensions {
    texts.iter().map(|text| text.parse::<Extension>().expect(text)).collect()
}

fn check(content: &str, expected: Option<&str>) {
    let found = objection(content.as_bytes(), &Extensions::default());
    let found = found.map(|objection| match objection {
        Objection::Blocked { name, .. } => name,
        Objection::Malformed { .. } => panic!("{objection:?}: {content}"),
    });
    assert_eq!(found.as_deref(), expected, "{content}");
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
fn a_name_is_found_wherever_it_stands() {
    for (fields, expected) in [
        ("Content-Disposition: attachment; filename=\"a.txt\"", None),
        ("Content-Disposition: attachment; filename=exe", None),
        ("Content-Disposition: attachment; filename=exe.txt", None),
        ("Content-Disposition: attachment; filename=a.exe", Some("a.exe")),
        ("Content-Disposition: inline; filename=\"My Tool.EXE\"", Some("My Tool.EXE")),
        ("Content-Type: application/x; name=\"b.Js\"", Some("b.Js")),
        (
            "Content-Type: text/plain; name=c.vbs\r\n\
             Content-Disposition: attachment; filename=c.txt",
            Some("c.vbs"),
        ),
        (
            "Content-Type: text/plain; name=c.txt\r\n\
             Content-Disposition: attachment;\r\n\tfilename=\"c.vbs\"",
            Some("c.vbs"),
        ),
        ("Content-Disposition: attachment; filename*=utf-8''%C3%BCber%2Eexe", Some("über.exe")),
        (
            "Content-Disposition: attachment; filename*0=\"long.e\"; filename*1=\"xe\"",
            Some("long.exe"),
        ),
        ("Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe", Some("a.exe")),
        ("Content-Disposition: attachment; filename=\"=?utf-8?b?YS5leGU=?=\"", Some("a.exe")),
        ("Content-Disposition: attachment; filename=\"a.exe.\"", Some("a.exe.")),
        ("Content-Disposition: attachment; filename=\"a.exe . \"", Some("a.exe . ")),
        ("Content-Disposition: attachment; filename*=utf-8''a.exe%00.txt", Some("a.exe .txt")),
    ] {
        check(&with_part(fields), expected);
    }
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
    check("Subject: a.exe\r\n\r\nbegin with a.exe", None);
    check("", None);
}

#[test]
fn a_name_that_only_a_lenient_reader_finds_counts() {
    for (field, name) in [
        ("; filename=a.exe", "a.exe"),
        ("filename=a.exe", "a.exe"),
        ("attachment filename=a.exe", "a.exe"),
        ("attachment; filename(c)=a.exe", "a.exe"),
        ("attachment; filename=a.exe more", "a.exe"),
        ("attachment; filename=\"=?utf-8?q?a=2E?= =?utf-8?q?exe?=\"", "a.exe"),
        ("attachment; filename*=utf-16''a%00.%00e%00x%00e%00", "a.exe"),
        ("attachment; filename=\"a.exe\u{a0}\"", "a.exe\u{a0}"),
        ("attachment; filename=\"a.e\u{200b}xe\u{200b}\"", "a.e xe "),
        ("attachment; filename=\"a.exe::$DATA\"", "a.exe::$DATA"),
        ("attachment; filename=\"a.exe/\"", "a.exe/"),
        ("attachment; filename*0*=utf-8''a%2; filename*1*=Eexe", "a.exe"),
        ("attachment; filename*1*=Eexe; filename*0*=utf-8''a%2", "a.exe"),
        ("attachment; filename*0=\"=?utf-8?q?a=2Ee\"; filename*1=\"xe?=\"", "a.exe"),
        ("attachment; name*0=a.; name*1=e; name*2=xe", "a.exe"),
    ] {
        let content = with_part(&format!("Content-Disposition: {field}"));
        let found = objection(content.as_bytes(), &Extensions::default());
        let Some(Objection::Blocked { name: found, .. }) = found else {
            panic!("{field}: {found:?}")
        };
        assert!(found.ends_with(name), "{field}: {found}");
    }
    for field in [
        "Content-Type: text/x; boundary=a.com",
        "Content-Disposition: attachment; filename=a.exe.txt",
        "Content-Disposition: attachment; filename=\"a.exe b\"",
        "Content-Disposition: attachment; filename=\"100%.txt\"; size=1",
    ] {
        check(&with_part(field), None);
    }
}

#[test]
fn a_file_in_a_text_has_a_name() {
    for (line, name) in [
        ("begin 644 a.exe", "a.exe"),
        ("begin 0644 a.exe", "a.exe"),
        ("begin 100644 a.exe", "a.exe"),
        ("begin 0 a.exe", "a.exe"),
        ("begin 644  My own Tool.exe ", "My own Tool.exe"),
        ("begin 644\tMy Tool.exe", "My Tool.exe"),
        ("begin \t 644 a.exe\t", "a.exe"),
        ("begin\t644 a.exe", "a.exe"),
        ("BEGIN 644 A.EXE", "A.EXE"),
        ("Begin 755 a.Exe", "a.Exe"),
        ("begin-base64 755 a.exe", "a.exe"),
        ("begin-base64 755  a b.exe", "a b.exe"),
        ("Begin-Base64 755 a.exe", "a.exe"),
        ("begin-encoded 644 YS5leGU=", "a.exe"),
        ("begin-base64-encoded 644 YS5leGU=", "a.exe"),
        ("begin  a.exe", "a.exe"),
        ("begin 644 \"a.exe\"", "\"a.exe\""),
        ("\u{feff}begin 644 a.exe", "a.exe"),
        ("=ybegin line=128 size=9 name=a.exe", "a.exe"),
        ("=ybegin part=1 total=2 line=128 size=9 name=my own tool.exe ", "my own tool.exe"),
    ] {
        check(&format!("Subject: x\r\n\r\n{line}"), Some(name));
        check(&format!("Subject: x\r\n\r\nx\r\n{line}\r\nM\r\n"), Some(name));
        let part = with_part("Content-Type: text/html").replace("AAAA", line);
        check(&part, Some(name));
        let text = base64::MIME.encode(format!("x\r{line}\rM"));
        check(&format!("Content-Transfer-Encoding: base64\r\n\r\n{text}"), Some(name));
        let part = "Content-Type: application/octet-stream\r\n\
                    Content-Transfer-Encoding: X-UUEncode";
        check(&with_part(part).replace("AAAA", line), Some(name));
    }
    let encoded = "Content-Transfer-Encoding: quoted-printable\r\n\r\nbegin=20644 a.e=\r\nxe\r\n";
    check(encoded, Some("a.exe"));
}

#[test]
fn a_text_that_says_begin_is_a_text() {
    for line in [
        "begin 5 days after",
        "begin 5 days after the setup.exe",
        "begin 12 tests of www.example.com",
        "Begin 5 days after example.com",
        "begin with a.exe",
        "begin to a.exe",
        "begin",
        "begin ",
        "begin  ",
        "Begin  a.exe",
        "begin  with the file a.exe",
        "begin 644",
        "begin 644a.exe",
        "begin 999 a.exe",
        "begin644 a.exe",
        "beginning 644 a.exe",
        "begin-again 644 a.exe",
        "begin 644 a.txt",
        "begin-encoded 644 a.exe",
        " begin 644 a.exe",
        "\tbegin 644 a.exe",
        "> begin 644 a.exe",
        "we begin 644 a.exe",
        "=ybegin is how yEnc begins: name a.exe",
        " =ybegin line=128 size=9 name=a.exe",
        "beg\u{131}n 644 a.exe",
    ] {
        check(&format!("Subject: x\r\n\r\nx\r\n{line}\r\nM\r\n"), None);
    }
    // What no reader takes for a text.
    check(&with_part("Content-Type: image/png").replace("AAAA", "begin 644 a.exe"), None);
}

/// Some readers end a header section at the first line that is no field.
#[test]
fn a_file_in_a_header_section_has_a_name() {
    let text = "begin 644 a.exe\r\n#0V%T\r\n";
    for content in [
        text.to_owned(),
        format!("Subject: x\r\n{text}"),
        format!("Subject: x\r\n{text}\r\nbody"),
        format!("Subject: x\r\nno field\r\n{text}\r\nbody"),
        with_part(text.trim_end()),
    ] {
        check(&content, Some("a.exe"));
        check(&content.replace("exe", "txt"), None);
        let whole = base64::MIME.encode(&content);
        for kind in ["Content-Type: message/rfc822", "X: y"] {
            let fields = format!("{kind}\r\nContent-Transfer-Encoding: base64");
            let digest = with_part(&fields).replace("/mixed", "/digest");
            check(&digest.replace("AAAA", &whole), Some("a.exe"));
        }
    }
    check("Subject: x\r\n begin 644 a.exe\r\n\r\nbody", None);
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
        check(
            &content.replace("AAAA", "Reporting-MTA: dns; mx.example.test\r\n\r\nStatus: 5.1.1"),
            None,
        );
    }
}

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
        let found = objection(content.as_bytes(), &Extensions::default());
        assert!(matches!(found, Some(Objection::Malformed { .. })), "{found:?} {content:.500}");
        let none = Extensions::from_iter([]);
        assert_eq!(objection(content.as_bytes(), &none), None, "{content:.500}");
    }
    check(&encoded("message/rfc822", "8bit"), None);
    for boundary in ["\"=_a:b?c/d'(e)+,-.\"", "===_x", "\"----=_Part 1\"", "Apple-Mail=_X"] {
        let bare = boundary.trim_matches('"');
        let content = with_part("x").replace("--b", &format!("--{bare}"));
        check(&content.replace("boundary=b", &format!("boundary={boundary}")), None);
    }
    check(&encoded("text/plain", "base64"), None);
    check(&encoded("text/plain; name=\"a message/multipart/x\"", "base64"), None);
}

/// Ticket systems and libraries send `.eml` files so (RFC 2046 §5.2.1 forbids it).
#[test]
fn what_is_encoded_as_a_whole_is_decoded_and_looked_into() {
    let part = |kind: &str, encoding: &str, body: &str| {
        let fields = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}");
        with_part(&fields).replace("AAAA", body)
    };
    let base64 = |text: &str| base64::MIME.encode(text);
    let quoted = |text: &str| qp::BODY.encode(text).replace('.', "=2E");
    let with_file = |name: &str| {
        let inner = with_part(&format!("Content-Disposition: attachment; filename={name}"));
        inner.replace("boundary=b", "boundary=q").replace("--b", "--q")
    };
    let harmless = with_file("a.txt");
    let blocked = with_file("a.exe");
    let kinds = ["message/rfc822; name=mail.eml", "message/global", "Message/RFC822"];
    for kind in kinds {
        check(&part(kind, "base64", &base64(&harmless)), None);
        check(&part(kind, "Quoted-Printable", &quoted(&harmless)), None);
        check(&part(kind, "BASE64", &base64(&blocked)), Some("a.exe"));
        check(&part(kind, "quoted-printable", &quoted(&blocked)), Some("a.exe"));
        // A reader that passes over the encoding finds it as it is.
        check(&part(kind, "quoted-printable", &blocked), Some("a.exe"));
        check(&part(kind, "(x) quoted-printable", &quoted(&blocked)), Some("a.exe"));
        let twice = part(kind, "base64", &base64(&part(kind, "base64", &base64(&blocked))));
        check(&twice, Some("a.exe"));
        // Its lines are broken and its padding is encoded for whoever does not decode it.
        for text in [&harmless, &blocked] {
            for more in ["", " ", "  "] {
                let inner = part(kind, "base64", &base64(&format!("{text}{more}")));
                let whole = part(kind, "quoted-printable", &qp::BODY.encode(within(&inner)));
                check(&whole, (*text == blocked).then_some("a.exe"));
            }
        }
    }
    let parts = |name: &str| {
        format!("--i\r\nContent-Disposition: attachment; filename={name}\r\n\r\nx\r\n--i--\r\n")
    };
    let multipart = "multipart/mixed; boundary=i";
    check(&part(multipart, "quoted-printable", &parts("a.txt")), None);
    check(&part(multipart, "quoted-printable", &parts("a.exe")), Some("a.exe"));
    check(&part(multipart, "quoted-printable", &quoted(&parts("a.exe"))), Some("a.exe"));
    check(&part(multipart, "base64", &base64(&parts("a.txt"))), None);
    check(&part(multipart, "base64", &base64(&parts("a.exe"))), Some("a.exe"));
    let whole = format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(&blocked)
    );
    check(&whole, Some("a.exe"));
}

#[test]
fn a_message_that_is_encoded_over_and_over_is_refused() {
    let mut content = "Subject: x\r\n\r\nx".to_owned();
    for depth in 1..=12 {
        content = format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            base64::MIME.encode(&content)
        );
        let found = objection(content.as_bytes(), &Extensions::default());
        assert_eq!(found.is_some(), depth > MAX_DECODED, "{depth}: {found:?}");
    }
    // As long as every part of it is read twice, and each of those again.
    let part = |body: &str| {
        format!(
            "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n{body}\r\n"
        )
    };
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    check_length(&format!("{head}{}", part("x").repeat(20_000)));
    let nested = (0..60).fold("x".repeat(1 << 20), |inner, depth| {
        format!(
            "Content-Type: multipart/mixed; boundary=b{depth}\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n--b{depth}\r\n{inner}\r\n"
        )
    });
    check_length(&nested);
    // Many parts that are each decoded, in one that is decoded.
    let part = "--b\r\nContent-Type: multipart/x; boundary=q\r\n\
                Content-Transfer-Encoding: quoted-printable\r\n\r\nx\r\n";
    check_length(&format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64::MIME.encode(format!("{head}{}", part.repeat(16_000)))
    ));
}

#[test]
fn the_parts_of_all_that_is_decoded_are_bounded_together() {
    let content = "Content-Type: multipart/mixed; boundary=b\r\n\
                   Content-Transfer-Encoding: quoted-printable\r\n\r\n--b\r\n\r\n--b--\r\n";
    // The multipart and its part: as they are, decoded, and as what nobody decodes.
    for (most, expected) in [(6, None), (5, Some(TOO_MANY)), (3, Some(TOO_MANY))] {
        let blocked = &Extensions::default();
        let octets = &Cell::new(usize::MAX);
        let reading =
            Reading { blocked, depth: 0, is_undecoded: false, octets, parts: &Cell::new(most) };
        let why = match reading.objection(content.as_bytes()) {
            Some(Objection::Malformed { why, .. }) => Some(why),
            other => other.map(|_| "blocked"),
        };
        assert_eq!(why, expected, "{most}");
    }
}

/// Readers differ in what they take for a delimiter, and in whether they read on behind the end.
/// Whatever the parser makes of it: a file that some reader finds is not sent, and where nobody
/// finds one, nothing is refused.
#[test]
fn a_file_behind_what_is_a_delimiter_for_some_only_is_not_sent() {
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
                let found = objection(content.as_bytes(), &Extensions::default());
                assert!(found.is_some(), "{content:?}");
                check_harmless(&content, line);
            }
        }
    }
    let padded = whole("", "y", "Content-Disposition: attachment; filename=a.txt");
    let padded = padded.replace("--b\r", "--b \t\r");
    check(&padded.replace("--b--", "--b-- \t"), None);
    check(&format!("{padded}epilogue\r\n"), None);
    // Parts may have the same boundary beside each other, as one message that is attached twice.
    let inner = padded.replace("boundary=b", "boundary=i").replace("--b", "--i");
    let part = format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{inner}");
    check(&format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{part}{part}--b--\r\n"), None);
}

/// With a file of a kind that is sent. A field that only some readers find is refused whatever it
/// says, as long as the parser finds its part.
fn check_harmless(content: &str, line: &str) {
    let harmless = content.replace("a.EXE", "a.txt");
    match objection(harmless.as_bytes(), &Extensions::default()) {
        None => {}
        Some(Objection::Malformed { why, .. }) if harmless.contains("\n Content-Type") => {
            assert_eq!(why, "it has a field that only some readers find");
        }
        found => panic!("{found:?}: {line:?} {harmless:?}"),
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
        let found = objection(content.as_bytes(), &Extensions::default());
        let why = "a delimiter has more on its line";
        let expected = Objection::Malformed { why, part: String::new(), name: None };
        assert_eq!(found, Some(expected), "{content}");
    }
    let begin = base64::MIME.encode("x\nbegin 644 a.txt\n");
    check(&with_body("base64", "YWJj", &format!("a{begin}")), None);
    check(&with_body("quoted-printable", "x", "begin=20644 a=2Etxt"), None);
    check(&with_body("quoted-printable", "x", "Content-Transfer-Encoding: base64"), None);
    check(&with_body("8bit", "x", "Content-Type: message/rfc822"), None);
    check(&with_body("8bit", "x", &format!("{message}\r\n\r\nYWJj")), None);
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

/// What mail programs write is sent, with no long line to mend or with one, and a file of a blocked
/// kind is found in it.
#[test]
fn what_mail_programs_write_is_taken_apart_in_one_way() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/messages/clients");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("is there") {
        let path = entry.expect("reads").path();
        let harmless = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(objection(harmless.as_bytes(), &Extensions::default()), None, "{path:?}");
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
        let found = objection(blocked.as_bytes(), &Extensions::default());
        let Some(Objection::Blocked { name, .. }) = found else { panic!("{found:?}: {path:?}") };
        assert!(name.ends_with(".exe"), "{name}: {path:?}");
        let message = PARSER.parse(harmless.as_bytes()).expect("a message");
        assert!(message.parts().all(crate::pipeline::outbound::delimiters::are_clear), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 14);
}

/// A part's number is looked for once, and each part is looked at once for each way in which it is
/// read, however many are encoded as a whole.
#[test]
fn many_parts_with_parts_are_looked_at_once() {
    let part = "--b\r\nContent-Type: multipart/x; boundary=q\r\n\
                Content-Transfer-Encoding: quoted-printable\r\n\r\nx\r\n";
    for count in [1_000, 16_000] {
        let content =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(count));
        let blocked = &Extensions::default();
        let octets = &Cell::new(usize::MAX);
        let parts = &Cell::new(MAX_PARTS);
        let reading = Reading { blocked, depth: 0, is_undecoded: false, octets, parts };
        assert_eq!(reading.objection(content.as_bytes()), None);
        // The message, and each part as it is, decoded, and as what nobody decodes.
        assert_eq!(MAX_PARTS - parts.get(), 1 + 3 * count);
    }
}

#[test]
fn the_part_is_named() {
    let check = |content: &str, expected: &str| {
        let found = objection(content.as_bytes(), &Extensions::default());
        assert_eq!(found.expect(content).place(), expected, "{content}");
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

fn nested_messages(depth: usize) -> String {
    let inner = "Content-Disposition: attachment; filename=a.exe\r\n\r\nx";
    format!("{}{inner}", "Content-Type: message/rfc822\r\n\r\n".repeat(depth))
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

/// A name as any reader may take it: without quotes and backslashes wherever they stand, up to a
/// comma, without what stands around it.
#[test]
fn a_name_counts_in_every_reading_of_its_value() {
    for value in [
        "a.\"exe\"",
        "\"a\".exe",
        "a\".\"exe",
        "\"a.e\" \"xe\"",
        "\"a.exe\"b",
        "a.exe\"b\"",
        "a\";\"b.e\"xe\"",
        "\"a;b.e\\xe\"",
        "a.e\\xe",
        "a.e\\\\xe",
        "\"a.e\\\\xe\"",
        "\\a\\.\\e\\x\\e",
        "a.exe,",
        "a.exe,b",
        "a.\"exe\",b",
        "\"a.exe,\"",
        "<a.exe>",
        "\"<a.exe>\"",
        "\"<a.exe>.\"",
        "a.exe=2E",
        "a.exe\\=2Ea.,exe (c)",
        "a.exe@x",
        "a.exe/x",
        "a.exe[x",
        "a.exe?x",
        "a.exe*x",
        "a.exe'x",
        "(c)a.exe=x",
        "(a.exe)",
        "[a.exe]",
        "a.e(x)xe",
        "a.exe(x)",
        "\"a.exe?\"",
        "\"a.exe*|\"",
        "<=?utf-8?q?a=2Eexe?=>",
        "\"=?utf-8?q?a.e=5Cxe?=\"",
        "\"=?utf-8?q?a.e=22xe=22?=\"",
        "\"=?utf-8?q?a%2Eexe?=\"",
        "\"%3D?utf-8?q?a=2Eexe?=\"",
    ] {
        for (disposition, kind) in [("filename", "name"), ("filename*", "name*")] {
            for field in [
                format!("Content-Disposition: attachment; {disposition}={value}"),
                format!("Content-Type: application/x; {kind}={value}"),
                format!("Content-Type: application/x; {kind}={value}; x=\"y;z\""),
            ] {
                let found = objection(with_part(&field).as_bytes(), &Extensions::default());
                let is_blocked = matches!(found, Some(Objection::Blocked { .. }));
                assert!(is_blocked, "{field}: {found:?}");
            }
        }
    }
    // An octet that is no UTF-8 is white space for some.
    let mut content = with_part("Content-Type: application/x; name=a.exe~").into_bytes();
    content.iter_mut().filter(|octet| **octet == b'~').for_each(|octet| *octet = 0xa0);
    let found = objection(&content, &Extensions::default());
    assert!(matches!(found, Some(Objection::Blocked { .. })), "{found:?}");
    for value in [
        "\"a.exe, b.txt\"",
        "\"a.exe=x/y@z b.txt\"",
        "C:/a.com/b.txt",
        "\"Plan (a.exe) b.pdf\"",
        "\"see <a.exe> in it.pdf\"",
        "\"it's Bob's 5%.pdf\"",
        "\"a \\\"b.exe\\\" c.pdf\"",
        "C:\\\\files\\\\a.pdf",
        "a,b.pdf",
        "\"What =? is it?.pdf\"",
    ] {
        check(&with_part(&format!("Content-Disposition: attachment; filename={value}")), None);
    }
}

/// What every reader takes for the same kind of file is that kind, whatever stands in its name.
#[test]
fn an_honest_name_with_an_extension_in_it_is_sent() {
    for field in [
        "filename*=utf-8''Offer%20shop.com%20%281%29.pdf",
        "filename*=utf-8''Plan%20(a.com)%20b.pdf",
        "filename=Offer shop.com 1.pdf",
        "filename=\"Offer shop.com (1).pdf\"",
        "filename=\"shop.com, 2.pdf\"; filename*=utf-8''shop.com%2C%202.pdf",
        "filename*0*=utf-8''Offer%20shop.com; filename*1*=%20%281%29.pdf",
        "filename*0=\"Offer shop.com\"; filename*1=\" (1).pdf\"",
        "filename*0=Offer_shop.com; filename*1=munity.pdf",
        "filename*0*=utf-8'en'Offer%20shop.com; filename*1=\" (1).pdf\"",
        "filename*0*=\"utf-8''shop.com\"; filename*1*=\"%20.pdf\"",
        "filename*1=\".pdf\"; filename*0=\"shop.com\"",
        "filename=\"=?utf-8?q?Offer_shop.com_(1).pdf?=\"",
        "filename=\"=?utf-8?q?Offer_shop.com?= =?utf-8?q?_=281=29.pdf?=\"",
        "filename=\"Re: shop.com: offer.pdf\"",
        "filename*=hz-gb-2312''~%7BVPND~%7D.pdf",
        "filename*=HZ''~%7BVPND~%7D%20shop.com%20~%7BVPND~%7D.pdf",
        "filename=\"=?hz-gb-2312?q?~{VPND~}_1.pdf?=\"",
        "filename=\"=?hz?b?fntWUE5Efn0ucGRm?=\"",
        "filename=\"=?hz?q?plain.pdf?=\"",
    ] {
        for field in [
            format!("Content-Disposition: attachment; {field}"),
            format!("Content-Type: application/pdf; {}", field.replace("filename", "name")),
        ] {
            check(&with_part(&field), None);
            let blocked =
                field.replace(".pdf", ".com").replace("fntWUE5Efn0ucGRm", "fntWUE5Efn0uY29t");
            let found = objection(with_part(&blocked).as_bytes(), &Extensions::default());
            assert!(matches!(found, Some(Objection::Blocked { .. })), "{blocked}: {found:?}");
        }
    }
}

/// Some readers end a value, or a piece of one, where a token ends, and some take not all pieces.
#[test]
fn a_name_that_only_some_readers_end_early_is_not_sent() {
    for field in [
        // Python's newest policy reads `Offer shop.com`.
        "filename*=utf-8''Offer%20shop.com%20(1).pdf",
        "filename*=utf-8''a.exe(1).pdf",
        "filename*=utf-8''a.exe[1].pdf",
        "filename*=utf-8''a.exe@x.pdf",
        "filename*=utf-8''a.exe'x.pdf",
        "filename*=utf-8''a.exe,x.pdf",
        "filename=a.exe@x.pdf",
        "filename=a.exe b.pdf",
        // The parser reads `Offer shop.exe`.
        "filename=Offer shop.exe (1).pdf",
        "filename*0*=utf-8''a.ex[x; filename*1*=e",
        "filename*0*=utf-8''a.ex(x); filename*1*=e",
        "filename*0=a.ex,x; filename*1=e",
        "filename*0=a.ex x; filename*1=e",
        "filename*0=a.exe; filename*2=.pdf",
        "filename*1=a.exe; filename*2=.pdf",
        "filename*0=a.exe; filename*0=.pdf",
        "filename*0=a.exe; filename*00=.pdf",
        "filename*0=a.txt; filename*x=a.exe",
        "filename*0=a.txt; filename-x=a.exe",
        "filename*0=a.exe; filename* 1=.pdf",
        "filename*0=a.exe; FILENAME*1=.pdf",
        "filename*0=a.exe; filename*1 =.pdf",
        "filename*0=a.exe; filename *1=.pdf",
        "x-filename*0=a.exe; x-filename*1=.pdf",
        "filename*0*=utf-8''a%2e(x; filename*1*=exe)",
    ] {
        for field in [
            format!("Content-Disposition: attachment; {field}"),
            format!("Content-Type: application/x; {}", field.replace("filename", "name")),
        ] {
            let found = objection(with_part(&field).as_bytes(), &Extensions::default());
            assert!(matches!(found, Some(Objection::Blocked { .. })), "{field}: {found:?}");
        }
    }
    for field in [
        "filename*=hz''~%7BVPN~%7D.pdf",
        "filename*=hz''~%7BVPND.pdf",
        "filename*=hz''a.e~%0Axe",
        "filename*=hz''a~~.pdf",
        "filename*=hz''~%7BVPND~%7D~.pdf",
        "filename=\"=?hz?q?a~.pdf?=\"",
        "filename=\"=?hz?q?a.pdf\"",
    ] {
        let found = objection(
            with_part(&format!("Content-Disposition: attachment; {field}")).as_bytes(),
            &Extensions::default(),
        );
        assert!(matches!(found, Some(Objection::Malformed { .. })), "{field}: {found:?}");
    }
}

/// In a charset that is not decoded here, or in which ASCII is not ASCII, a name may be any.
#[test]
fn a_name_in_a_charset_that_cannot_be_read_cannot_be_told() {
    for charset in [
        "cp037",
        "IBM037",
        "cp500",
        "cp1026",
        "cp875",
        "cp424",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "utf-7",
        "UTF_7",
        "unicode-1-1-utf-7",
        "utf-7-imap",
        "utf-16",
        "utf-16le",
        "utf-16be",
        "utf-32",
        "utf_32_le",
        "hz",
        "hz-gb-2312",
        "rot13",
        "idna",
        "hex",
        "base64",
        "x-unheard-of",
        "cp037*en",
        "\u{fc}",
        "ucs-2",
        "unicode",
        "x-user-defined",
    ] {
        for field in [
            format!("filename*={charset}''%81%4B%85%A7%85"),
            format!("filename*=\"{charset}'en'%81%4B%85%A7%85\""),
            format!("filename*0*={charset}''%81%4B; filename*1*=%85%A7%85"),
            format!("filename*1*=%85%A7%85; filename*0={charset}''%81%4B"),
            format!("filename*1*='%85%A7%85; filename*0={charset}'"),
            format!("filename=\"{charset}''%81%4B%85%A7%85\""),
            format!("filename=\"=?{charset}?Q?=81=4B=85=A7=85?=\""),
            format!("filename==?{charset}?b?gUuFp4U=?="),
            format!("filename=\"a =?utf-8?q?x?= =?{charset}?b?gUuFp4U=?=.txt\""),
            format!("filename*0=\"=?{charset}?q?=81\"; filename*1=\"=4B?=\""),
            format!("filename=\"=?{charset}\\?Q?=81=4B=85=A7=85?=\""),
        ] {
            for field in [
                format!("Content-Disposition: attachment; {field}"),
                format!("Content-Type: application/x; {}", field.replace("filename", "name")),
            ] {
                let content = with_part(&field);
                let found = objection(content.as_bytes(), &Extensions::default());
                assert!(found.is_some(), "{field}: {found:?}");
                let none = Extensions::from_iter([]);
                assert_eq!(objection(content.as_bytes(), &none), None, "{field}");
            }
        }
    }
    for charset in [
        "utf-8",
        "UTF8",
        "utf_8",
        "us-ascii",
        "ascii",
        "ISO-8859-1",
        "iso_8859-15",
        "latin1",
        "latin-1",
        "iso-8859-8-i",
        "windows-1252",
        "cp1251",
        "Windows-1258",
        "koi8-r",
        "KOI8-U",
        "gb2312",
        "gbk",
        "GB18030",
        "big5",
        "shift_jis",
        "euc-jp",
        "euc-kr",
        "ks_c_5601-1987",
        "iso-2022-jp",
        "macintosh",
        "cp437",
        "ibm850",
        "tis-620",
        "utf-8*de",
    ] {
        for field in [
            format!("filename*={charset}''a%2Etxt"),
            format!("filename=\"=?{charset}?Q?a=2Etxt?=\""),
            format!("filename*0*={charset}''it's; filename*1*=%27a'b'.txt"),
        ] {
            check(&with_part(&format!("Content-Disposition: attachment; {field}")), None);
        }
    }
    let text = "Content-Type: text/plain; charset=utf-7; name=a.txt";
    check(&with_part(text), None);
    check(&with_part("Content-Disposition: attachment; filename=\"it's 'x' 5%.txt\""), None);
}

/// Where some readers find another boundary than others, or parts where others find none.
#[test]
fn a_file_in_a_multipart_that_only_some_readers_find_is_not_sent() {
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
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             Q29udGVudC1UeXBlOiB4L3k7IG5hbWU9YS5leGUKCng=",
            "\r\nbegin 644 a.EXE",
        ] {
            let fields = format!("Content-Type: {kind}");
            let body = format!("--bb\r\n\r\nx\r\n--bb\r\n{part}\r\n--bb--");
            let whole = format!("{fields}\r\n\r\n{body}\r\n");
            for content in [with_part(&fields).replace("AAAA", &body), whole] {
                let found = objection(content.as_bytes(), &Extensions::default());
                assert!(found.is_some(), "{found:?} {content}");
                let harmless = content.replace("a.EXE", "a.txt").replace("cp037", "utf-8");
                let harmless = harmless.replace("Q29udGVudC1UeXBlOiB4L3k7IG5hbWU9YS5leGUKCng=", "");
                match objection(harmless.as_bytes(), &Extensions::default()) {
                    None => {}
                    // What was refused before, whatever is in it.
                    Some(Objection::Malformed { why, .. })
                        if why == "its boundary cannot be told"
                            || why == "its type or encoding cannot be told" => {}
                    found => panic!("{found:?}: {harmless}"),
                }
            }
        }
    }
    // In base64 as a whole.
    let inner = "--bb\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx\r\n--bb--\r\n";
    for kind in ["text/plain; boundary=b\"b\"", ";multipart/mixed; boundary=bb"] {
        let fields = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: base64");
        let with = |inner: &str| with_part(&fields).replace("AAAA", &base64::MIME.encode(inner));
        assert!(objection(with(inner).as_bytes(), &Extensions::default()).is_some(), "{kind}");
        check(&with(&inner.replace("exe", "txt")), None);
    }
}

/// A quadratic cost would be seen as a test that does not end.
fn check_length(content: &str) {
    let found = objection(content.as_bytes(), &Extensions::default());
    assert!(!matches!(found, Some(Objection::Blocked { .. })), "{content:.100}");
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
fn thousands_of_parts_are_no_place_to_hide() {
    let part = "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n";
    let last = "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n--b--\r\n";
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    check(&format!("{head}{}{last}", part.repeat(20_000)), Some("a.exe"));
}
