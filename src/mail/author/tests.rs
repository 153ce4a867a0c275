use proptest::prelude::*;

use super::addr_spec::MAX_LOCAL_PART;
use super::field::MAX_ADDRESSES;
use super::*;

/// The addresses of a `From` field, or why there are none.
fn read(value: &str) -> Result<Vec<String>, AuthorError> {
    let message = format!("From: {value}\r\n\r\nFrom: not@read.test\r\n");
    let authors = Authors::of(message.as_bytes())?;
    Ok(authors.addresses().iter().map(Address::to_string).collect())
}

fn check(value: &str, expected: &[&str]) {
    let expected = expected.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(read(value), Ok(expected), "{value:?}");
}

#[test]
fn what_rfc_5322_writes_is_read() {
    check("a@b.test", &["a@b.test"]);
    check("A <a@B.test>,\t\"C, D\" (x) <c@b.test>", &["a@b.test", "c@b.test"]);
    check("\"c@d.test\" <a@b.test> (e@f.test)", &["a@b.test"]);
    check("=?utf-8?q?c@d.test?= <a@b.test>", &["a@b.test"]);
    check("\"a\"@b.test", &["a@b.test"]);
    check("\"a@x.test\"@b.test", &["\"a@x.test\"@b.test"]);
    check("<\"a@x.test\\\"\"@b.test>", &["\"a@x.test\\\"\"@b.test"]);
    check("a@[IPv6:2001:db8::1]", &["a@[ipv6:2001:db8::1]"]);
    check("Grüße <g@bücher.test>", &["g@xn--bcher-kva.test"]);
    check("team: a@b.test, C <c@b.test>;", &["a@b.test", "c@b.test"]);
}

#[test]
fn obsolete_forms_and_comments_are_read() {
    check("alice(x)@example.test", &["alice@example.test"]);
    check("alice@(x)example.test", &["alice@example.test"]);
    check("(a (b\\))) a@b.test", &["a@b.test"]);
    check("a@b.test (John (Jack) Doe)", &["a@b.test"]);
    check("A (x(y)z) <a@b.test>", &["a@b.test"]);
    check("A ((ceo@c.test <x>)) <a@b.test>", &["a@b.test"]);
    check("A (x \\( y) <a@b.test>", &["a@b.test"]);
    check("((x)) a@b.test", &["a@b.test"]);
    check("CEO <ceo@reject. test>", &["ceo@reject.test"]);
    check("CEO <ceo . x @ reject .\ttest>", &["ceo.x@reject.test"]);
    check("<@c.test:a@b.test>", &["a@b.test"]);
    check(",, a@b.test,", &["a@b.test"]);
}

#[test]
fn what_is_common_though_no_rfc_has_it_is_read() {
    for name in [
        "visitor@customer.test",
        "visitor@customer.test via Docs",
        "'bob@partner.example'",
        "Foo [a@corp.example]",
        "=?utf-8?q?c=40d=2Etest?=",
        "Work @ home",
        "@b.test",
        "Doe, Jane",
        "a (c@d.test)",
        "Caf\u{e9} \u{200b}",
        "=?iso-2022-jp?b?GyRCRnxLXBsoQg==?= (x)",
        "[EXT] Jane (Sales)",
        "[EXT] =?utf-8?q?J=C3=BCrgen?= (Sales) via x@y.test",
        "\"=?utf-8?q?Jane_(Sales)?=\"",
        "Re: x",
    ] {
        check(&format!("{name} <a@b.test>"), &["a@b.test"]);
    }
    check("bo..b@b.test", &["bo..b@b.test"]);
    check(".bob.@b.test", &[".bob.@b.test"]);
    check("x@b_c.test", &["x@b_c.test"]);
    check("x@b.test.", &["x@b.test"]);
    check("Jane Doe <x@b.test.>", &["x@b.test"]);
    check("root@localhost", &["root@localhost"]);
    let long = "x".repeat(300);
    check(&format!("{long}@b.test"), &[&format!("{long}@b.test")]);
}

#[test]
fn what_readers_may_take_for_somebody_else_is_not_read() {
    for value in [
        "(ceo@c.test (x)\") <ceo@b.test>",
        "CEO ceo@rej.test <>",
        "ceo@b.test (x@c.test())",
        "x: a@b.test (;ceo@c.test);",
        "<(x<>)a@b.test>",
        "@(c@c.test) rej.test <a@b.test>",
        "((x) <ceo@c.test>) a@b.test",
        "a: b: <\"a\\\"b;\"@x.b.test> (x)",
        "\"ceo@rej.test\" <>",
        "\"CEO <ceo@rej.test>",
        "ceo@c.test <> <a@b.test>",
        "<a@b.test> ceo@c.test",
        "<a@b.test> <ceo@c.test>",
        "<a@b.test> Boss",
        "\"ceo@c.test,\" a@b.test",
        "a@b.test (<ceo@c.test>",
        "<ceo@c.test <a@b.test>",
        "ceo@c.test: a@b.test",
        "=?utf-8?q?ceo=40c=2Etest=2C?= a@b.test",
        "a@b@c.test",
        "a b@c.test",
        "a\\@c.test",
        "a@b.test, Boss",
        "Boss",
        "Mailer <>",
        "@b.test",
        "a@",
        "a@exa\u{200b}mple.test",
        "a@exa\u{ad}mple.test",
        "a@example\u{a0}.test",
        "a@exam\0ple.test",
        "CEO\0 <a@b.test>",
        "a@exam\u{fffd}ple.test",
        "a@exa mple.test",
        "a@example. test",
        "<@c.test,@d.test:a@b.test>",
        "a@b.test, (ceo@c.test)",
        "a@b.test (x(y)z)",
        "a@(x())b.test",
        "a @ b.test (c@c.test())",
        "team:\"ceo@c;.test\" <a@b.test>",
        "a@b.test(x (y))",
        "'ceo@c.test' [<a@b.test>",
        "@ \u{b}<a@b.test>",
        "(c@c.test) =?utf-8?q?ceo=40c.test?= <a@b.test>",
        "=?utf-8?q?ceo=40c.test?=\u{2060} <a@b.test> (ceo@c.test)",
        "=?utf-8?q?Jane?= <a @b.test>",
        "a\u{feff}b@[192.0.2.1]",
        "Boss: =?<utf-8?q?a?=@b.test>",
        "=?<utf-8?q?a?=@b.test>",
        "=?utf-8?q?ceo=40c.test?= \u{a0}<a@b.test.>",
        "=?utf-8?b?Y2VvQGMudGVzdA==?= é <a@b.test.>",
        "ceo@c.test é <a@b.test.>",
        "<=?utf-8?q?a?=@b.test>",
        "ceo . \u{17} @ b.test",
        "CEO <ceo . \u{17} @ b. test>",
        "\"\u{17}\"@b.test",
        "\u{b}a@b.test",
        "a@b.test\u{c}",
        "[a]@b.test",
        "Boss, team: <a@b.test>",
        "a: b: c@b.test",
        "<@c.test@d.test:a@b.test>",
        "ceo@c.test (x@y.test) <a@b.test>",
        "Foo [x <a@b.test>",
        "Foo ] x [ <a@b.test>",
        "\"x (y)\" <\"a\"@b.test>",
        "\"x (y)\" <a @b.test>",
        "Doe, \"x <y\" Jane <a@b.test>",
        "team: ceo@c.test <a@b.test>;",
        "ceo@c[.test <a@b.test>",
        "a@\u{a0} b.test",
        "a@b.test (x (y) ceo@c.test)",
        "(x (y) ceo@c.test) a@b.test",
        "a@b.test (x\\)y (ceo@c.test) z)",
        "=?utf-8?q?ceo=40c.test?=; <a@b.test>",
        "<\"a@c.t;est\"@b.test>",
        "a@example(x).test",
        "<a@example(x).test>",
        "<a@(x)example.test>",
        "a@b..test",
        "a@[300.1.1.1]",
        "a@b$c.test",
        "<a@b.test",
        "a@b.test>",
    ] {
        assert_eq!(read(value), Err(AuthorError::Unreadable), "{value:?}");
    }
}

#[test]
fn behind_the_first_end_of_a_comment_in_a_comment_is_no_address() {
    for comment in [
        "((b)<ceo@c.test>)",
        "((b) <ceo@c.test>)",
        "(\\)<ceo@c.test>)",
        "(x \\) ceo@c.test)",
        "(x(y)z ceo@c.test)",
        "((x) ceo, y)",
        "((x); y)",
        "((x) >)",
        "((x (y)) <)",
        "((x) \")",
        "(\" (x))",
    ] {
        for value in [
            format!("{comment} <a@b.test>"),
            format!("\"A\" {comment} <a@b.test>"),
            format!("A {comment} \"B\" <a@b.test>"),
            format!("<a@b.test> {comment}"),
            format!("{comment} a@b.test"),
            format!("a@b.test {comment}"),
            format!("a@b.test, {comment} <c@b.test>"),
        ] {
            assert_eq!(read(&value), Err(AuthorError::Unreadable), "{value:?}");
        }
    }
    assert_eq!(read("a@b.test ((x))"), Err(AuthorError::Unreadable));
    assert_eq!(read("a@b.test (x\\))"), Err(AuthorError::Unreadable));
}

#[test]
fn several_domains_may_be_one_organization_only_below_one_domain() {
    check("a@b.test, c@x.b.test", &["a@b.test", "c@x.b.test"]);
    check("a@x.y.b.test, c@b.test, d@z.b.test", &["a@x.y.b.test", "c@b.test", "d@z.b.test"]);
    check("a@x.b.test, c@Y.b.test, d@x.b.test", &["a@x.b.test", "c@y.b.test", "d@x.b.test"]);
    check("a@localhost, c@localhost", &["a@localhost", "c@localhost"]);
    check("a@[192.0.2.1], c@[192.0.2.1]", &["a@[192.0.2.1]", "c@[192.0.2.1]"]);
    for value in [
        "a@b.test, c@d.test",
        "a@x.b.test, c@y.b.test, d@e.test",
        "a@x.b.test, c@y.b.test, d@test",
        "a@test, b@b.test",
        "a@b.test, b@test",
        "a@b.test, b@ab.test",
        "a@x.b.test, b@x.ab.test",
        "a@[192.0.2.1], b@[198.0.2.1]",
        "a@b.test, b@[192.0.2.1]",
        "a@[192.0.2.1], b@b.test",
    ] {
        assert_eq!(read(value), Err(AuthorError::Several), "{value:?}");
    }
    let swarm = "a@b.test, ".repeat(MAX_ADDRESSES + 1);
    assert_eq!(read(&swarm), Err(AuthorError::Several));
    let of_domains = |count: usize| {
        (0..count).map(|number| format!("a@x{number}.b.test")).collect::<Vec<_>>().join(", ")
    };
    assert!(read(&of_domains(MAX_DOMAINS)).is_ok());
    assert_eq!(read(&of_domains(MAX_DOMAINS + 1)), Err(AuthorError::Several));
}

#[test]
fn nobody_is_an_author_without_a_field() {
    for value in ["", " ", "(only a comment)", ",", "undisclosed:;"] {
        assert_eq!(read(value), Err(AuthorError::None), "{value:?}");
    }
    let of = |message: &str| Authors::of(message.as_bytes()).map(Authors::into_addresses);
    assert_eq!(of(""), Err(AuthorError::None));
    assert_eq!(of("\r\nFrom: a@b.test\r\n"), Err(AuthorError::None));
    assert_eq!(of("Subject: x\r\n"), Err(AuthorError::None));
}

#[test]
fn lines_that_are_no_fields_do_not_hide_the_author() {
    for front in [
        "From a@c.test\r\n",
        "From a@c.test Sat Jan  3 01:05:34 2026\r\n",
        ">From a@c.test\r\n",
        "no field\r\n",
        " folded\r\n",
        "Odd name: x\r\n",
    ] {
        let message = format!("{front}From: a@b.test\r\n\r\n");
        let authors = Authors::of(message.as_bytes());
        assert_eq!(
            authors.map(|it| it.addresses()[0].to_string()).as_deref(),
            Ok("a@b.test"),
            "{front}"
        );
    }
    for two in [
        "From: a@b.test\r\nFROM : a@b.test\r\n",
        "From: a@b.test\r\nx\r\n From: c@d.test\r\n",
        "x\r\n\tFROM : c@d.test\r\n",
        " From: c@d.test\r\n",
    ] {
        assert_eq!(Authors::of(two.as_bytes()), Err(AuthorError::Several), "{two:?}");
    }
}

#[test]
fn a_sender_is_one_address() {
    let of = |field: &str| {
        AuthorFields::of(format!("{field}From: a@b.test\r\n\r\n").as_bytes())
            .sender()
            .map(|sender| sender.map(|address| address.to_string()))
    };
    assert_eq!(of(""), Ok(None));
    assert_eq!(of("Sender: S <s@b.test>\r\n"), Ok(Some("s@b.test".into())));
    assert_eq!(of("Sender: Boss\r\n"), Err(AuthorError::Unreadable));
    for nobody in ["", " (S)", " nobody:;"] {
        assert_eq!(of(&format!("Sender:{nobody}\r\n")), Ok(None), "{nobody:?}");
    }
    assert_eq!(of("Sender: a@b.test, c@d.test\r\n"), Err(AuthorError::Several));
    assert_eq!(of("Sender: a@b.test\r\nSender: a@b.test\r\n"), Err(AuthorError::Several));
}

#[test]
fn a_hostile_value_takes_no_longer_than_its_length() {
    for unit in
        ["(", "\"", "<", "[", "@", "a@", "@ ", "a@b.c <", "((\\", "[@", ":", "\" (", "<(", "."]
    {
        assert!(read(&unit.repeat(1 << 20)).is_err(), "{unit}");
    }
}

/// Where an address may stand.
const PLACES: [[&str; 2]; 3] = [["", ""], ["<", ">"], ["A <", ">, "]];

/// The spelling of a local-part in quotes.
fn in_quotes(content: &str) -> String {
    let pairs = content.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{pairs}\"")
}

/// What is read of a local-part without quotes is read with them, and as the same; and what is
/// written of it is read.
fn check_spellings(content: &str) {
    for [open, close] in PLACES {
        let of = |local_part: &str| read(&format!("{open}{local_part}@b.test{close}"));
        let bare = of(content);
        let quoted = of(&in_quotes(content));
        if bare.is_ok() {
            assert_eq!(bare, quoted, "{content:?} in {open:?}");
        }
        if let Ok(written) = quoted {
            assert_eq!(read(&written.join(", ")), Ok(written), "{content:?} in {open:?}");
        }
    }
}

#[test]
fn every_octet_of_a_local_part_means_the_same_in_quotes() {
    for c in '\0'..='\u{ff}' {
        // White space beside a dot or around a local-part is none of it, and line ends are folding.
        if [' ', '\t', '\r', '\n'].contains(&c) {
            continue;
        }
        for content in [format!("{c}"), format!("{c}a"), format!("a{c}b"), format!("a.{c}")] {
            // A comment or the end of an address is none of it either.
            if !content.contains(['(', ')', '<', '>', ',', ';', ':', '@', '"', '\\']) {
                check_spellings(&content);
            }
        }
        let is_control = c.is_control();
        for value in [format!("a{c}b@b.test"), format!("\"a{c}b\"@b.test")] {
            assert!(!is_control || read(&value).is_err(), "{value:?}");
            assert!(!is_control || read(&format!("CEO <{value}>")).is_err(), "{value:?}");
        }
    }
    for length in [MAX_LOCAL_PART - 2, MAX_LOCAL_PART, MAX_LOCAL_PART + 1, 2 * MAX_LOCAL_PART] {
        check_spellings(&"x".repeat(length));
        check_spellings(&"[".repeat(length));
    }
}

proptest! {
    #[test]
    fn every_spelling_of_a_local_part_is_read_alike(
        content in "[a-z.=?\\[\\]\\x00-\\xff&&[^ \t\r\n(),;:<>@\"\\\\]]{1,12}",
    ) {
        check_spellings(&content);
    }

    #[test]
    fn what_is_written_is_read(content in "[a-z .\\[\\](),;:<>@\"\\\\=?é]{1,12}") {
        for local_part in [in_quotes(&content), content] {
            for [open, close] in PLACES {
                if let Ok(written) = read(&format!("{open}{local_part}@b.test{close}")) {
                    prop_assert_eq!(read(&written.join(", ")), Ok(written));
                }
            }
        }
    }
}
