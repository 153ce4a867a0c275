//! Whoever reads a `From` field, with whatever library, finds the author whom we find, or the message
//! is refused. Generated fields are read by mail-parser, by Python's library with both of its
//! policies, by nodemailer and by postal-mime.
//!
//! The fields are always the same; `MAILWEIR_AUTHOR_FIELDS=100000 cargo t --test it author_readers` is
//! the long form, with other fields at each run.

use mail_parser::MessageParser;
use mailweir::mail::{AuthorError, Authors, Domain};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::support::readers::{Generated, Reader};

/// How many fields are tried without the variable.
const FEW: usize = 2000;

fn mail_parser(field: &str) -> Vec<String> {
    let message = format!("From: {field}\r\n\r\n");
    let Some(message) = MessageParser::new().parse_headers(message.as_bytes()) else {
        return Vec::new();
    };
    let list = message.from();
    let mailboxes = list.iter().flat_map(|list| list.mailboxes());
    let domains = mailboxes.filter_map(|mailbox| Some(mailbox.address()?.rsplit_once('@')?.1));
    domains.filter(|domain| !domain.is_empty()).map(str::to_owned).collect()
}

/// One spelling for each domain: white space that the obsolete syntax allows is none of it.
fn spelling(domain: &str) -> String {
    let closed: String = domain.chars().filter(|c| !c.is_whitespace()).collect();
    Domain::parse(&closed).map_or(closed, |domain| domain.to_string())
}

/// The one class in which a reader may find somebody else: an address that stands unquoted in the
/// name before an address in angle brackets, as shops and mailing lists write it. The address in the
/// brackets is the author then, for us and for nearly everybody.
fn stands_in_a_name(field: &str, domain: &str) -> bool {
    let closed: String = field.chars().filter(|c| !c.is_whitespace()).collect();
    // Empty comments are what the noise puts in.
    let closed = closed.replace("()", "");
    let Some((names, _)) = closed.rsplit_once('<') else { return false };
    names.to_lowercase().split('@').skip(1).any(|after| {
        let found: String = domain.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
        let shared = found.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
        shared > 0 && shared >= found.chars().count().min(after.chars().count())
    })
}

/// The usual piece two times in three, so that most fields have an author.
fn mostly<T: Clone + std::fmt::Debug + 'static>(usual: T, odd: Vec<T>) -> impl Strategy<Value = T> {
    prop_oneof![2 => Just(usual), 1 => prop::sample::select(odd)]
}

/// A comment with comments, pairs and addresses in it. Readers differ in where it ends.
fn comment() -> impl Strategy<Value = String> {
    let pieces = [
        "(",
        ")",
        "(b)",
        "((",
        "))",
        "\\(",
        "\\)",
        "\\\\",
        "\\\"",
        "\\<",
        "\"",
        "\"q\"",
        "<ceo@c.test>",
        "(<ceo@c.test>",
        "ceo@c.test",
        "@c.test",
        "<",
        ">",
        ",",
        ";",
        ":",
        "[",
        "]",
        ".",
        "'",
        "a",
        "b ",
        " ",
        "é",
        "=?utf-8?q?=22?=",
        "(x) ",
        "\r\n ",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..7)
        .prop_map(|pieces| format!("({})", pieces.concat()))
}

/// Pieces of which fields are made: right ones, odd ones, and what has once led a reader astray.
fn field() -> impl Strategy<Value = String> {
    let domain = prop_oneof![
        8 => prop::sample::select(vec![
            "b.test", "b.test", "x.b.test", "y.b.test", "z.x.b.test", "B.TEST", "c.test",
        ]),
        2 => prop::sample::select(vec![
            "b.(x)test", "(x)b.test", "b.test(x)", "b.test (c.test)", "b\r\n .test", "_b.test",
            "BÜCHER.test", "XN--BCHER-KVA.TEST", "bücher.xn--bcher-kva.test", "b\u{2060}.test",
            "\u{202e}b.test", "b\u{feff}.test", "[IPv6:2001:db8::1]", "[b.test]", "=?utf-8?q?b?=.test",
            "b\u{ff0e}test", "b,test", "b;test", "b:test", "b.test,c.test",
            "b_c.test", "b.test.", "b. test", "b .test", "b(x).test", "bücher.test", "b\u{200b}.test",
            "b\u{a0}.test", "b\u{ad}.test", "b\0.test", "[192.0.2.1]", "b..test", "localhost", "b\u{3002}test",
            "xn--bcher-kva.test", "b.test>", "b.test\\", "\u{ff42}.test", "b\u{fffd}.test", "-b.test",
        ]),
    ];
    let local = prop_oneof![
        8 => prop::sample::select(vec!["a", "ceo", "a.b", "a+t"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "a..b", ".a", "a.", "\"a b\"", "\"a@c.test\"", "a(x)", "a .b", "a b", "\"", "a\\", "ä",
            "\"a\\\"b\"", "", "<", "a@c.test", "=?utf-8?q?a?=", "\"a\".b", "a;b", "a,b", "a:b",
            "(x)a", "a.(x)b", "a(x).b", "(a@c.test)b", "\"<a@c.test>\"", "\"a@c.test> <x\"",
            "\"a\\\"@c.test\"", "\"a,b@c.test\"", "=?utf-8?q?a=40c=2Etest?=", "a\u{200b}", "a\0b",
            "a\u{a0}b", "[a]", "a\r\n ", "a'b", "a@c.test,b", "a\u{17}b", "\"a\"(x)", "\"a\" \"b\"",
        ]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![65, 300, 999]).prop_map(|length| "x".repeat(length)),
    ];
    let spec = (
        local,
        prop::sample::select(vec![
            "@", "@", "@", "@", "@", "@", "@", "@", "@", " @ ", "@(x)", "@@", "\u{ff20}", "",
        ]),
        domain,
    )
        .prop_map(|(local, at, domain)| format!("{local}{at}{domain}"));
    let spec = spec.boxed();
    let name = prop::sample::select(vec![
        "",
        "Boss ",
        "\"Boss\" ",
        "\"ceo@c.test\" ",
        "ceo@c.test ",
        "'ceo@c.test' ",
        "ceo@c.test via X ",
        "Foo [ceo@c.test] ",
        "Doe, Jane ",
        "(ceo@c.test) ",
        "=?utf-8?q?ceo=40c.test?= ",
        "Grüße ",
        "\"Boss ",
        "Boss (",
        "B\\oss ",
        "Boss: ",
        "ceo@c.test: ",
        "Boss\r\n ",
        "a\tb ",
        "<> ",
        "ceo@c.test <> ",
        "@ ",
        "B\0 ",
        "\"a\\\"b\" ",
        "=?utf-8?q?=3Cceo=40c=2Etest=3E?= ",
        ", ",
        "; ",
        "ceo@c.test via X's \"list\" ",
        "[ceo@c.test] ",
        "(ceo@c.test (x)) ",
        "=?utf-8?b?Y2VvQGMudGVzdA==?= ",
        "=?utf-8?q?ceo=40c=2Etest=2C?= ",
        "=?utf-8?q?=22?= ",
        "=?x?q?ceo@c.test?= ",
        "undisclosed:; ",
        "a: b: ",
        "\u{200b}ceo@c.test ",
        "ceo\u{ff20}c.test ",
        "\"Boss\"\r\n\t",
        "\"Bo\r\n ss\" ",
        "(=?utf-8?q?ceo=40c.test?=) ",
    ]);
    let name = prop_oneof![
        8 => name.prop_map(str::to_owned),
        1 => comment().prop_map(|comment| format!("{comment} ")),
        1 => comment().prop_map(|comment| format!("Boss {comment} ")),
        1 => comment().prop_map(|comment| format!("{comment}\"Boss\" ")),
    ];
    let open = mostly(
        "<",
        vec![
            "<",
            "<",
            "<",
            "<",
            "<",
            "<",
            "< ",
            "<<",
            "<@c.test:",
            "<@c.test,@d.test:",
            "<@c.test :",
            "<@[192.0.2.1]:",
            "<c.test:",
            "<(x)",
            "<\r\n ",
            "<=?utf-8?q?",
            "",
        ],
    );
    let close = mostly(
        ">",
        vec![
            ">",
            ">",
            ">",
            " >",
            ">>",
            "> Boss",
            "> (x)",
            "> <>",
            "",
            ">;",
            ">.",
            "> ceo@c.test",
            "> (ceo@c.test)",
            "(x)>",
            ">\r\n ",
            "?=>",
            "> \"ceo@c.test\"",
            ">,",
            "> via ceo@c.test",
        ],
    );
    let close = prop_oneof![
        12 => close.prop_map(str::to_owned),
        1 => comment().prop_map(|comment| format!("> {comment}")),
    ];
    let angle = (name, open, spec.clone(), close)
        .prop_map(|(name, open, spec, close)| format!("{name}{open}{spec}{close}"));
    let bare = (
        prop::sample::select(vec!["", "", " ", "Boss ", "(x) "]),
        spec,
        prop_oneof![
            6 => prop::sample::select(vec!["", "", " (ceo@c.test)", " Boss", "<>", " <>"])
                .prop_map(str::to_owned),
            1 => comment().prop_map(|comment| format!(" {comment}")),
        ],
    )
        .prop_map(|(before, spec, after)| format!("{before}{spec}{after}"));
    let mailbox = prop_oneof![3 => angle, 2 => bare].boxed();
    let list =
        (prop_oneof![3 => prop::collection::vec(mailbox.clone(), 1..2), 1 => prop::collection::vec(mailbox, 2..4)], prop::sample::select(vec![", ", ",", ";", " , ,"]))
            .prop_map(|(list, separator)| list.join(separator));
    let around = mostly(
        ("", ""),
        vec![
            ("", ""),
            ("", ""),
            ("", ""),
            ("", ""),
            ("", ""),
            ("", ""),
            ("team: ", ";"),
            ("team:", ""),
            ("=?utf-8?q?team?=: ", ";"),
            ("\"team@c.test\": ", ";"),
            ("undisclosed:;, ", ""),
            ("", ", x:;"),
            ("a: b: ", ";;"),
            ("(c@c.test) ", ""),
            ("", " (c@c.test)"),
            ("\r\n ", ""),
        ],
    );
    let list = (around, list).prop_map(|((before, after), list)| format!("{before}{list}{after}"));
    // One octet of somebody else's in the middle of it.
    let noise = mostly(
        "",
        vec![
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "\"",
            "(",
            ")",
            "<",
            ">",
            "@",
            ",",
            ";",
            ":",
            "\\",
            " ",
            ".",
            "\u{feff}",
            "=?",
            "\r\n ",
            "\r\n\t",
            "\r\n \r\n ",
            "\0",
            "\u{a0}",
            "\u{202e}",
            "[",
            "]",
            "\u{17}",
            "\u{b}",
            "\u{2060}",
            "<>",
            "()",
            "\"\"",
            "via ",
        ],
    );
    (list, noise, any::<prop::sample::Index>()).prop_map(|(list, noise, place)| {
        let places: Vec<usize> =
            list.char_indices().map(|(at, _)| at).chain([list.len()]).collect();
        let at = places[place.index(places.len())];
        format!("{}{noise}{}", &list[..at], &list[at..])
    })
}

#[test]
fn all_readers_find_our_author_or_the_message_is_refused() {
    let Generated { count, mut runner } = Generated::new("AUTHOR_FIELDS", FEW);
    let mut others =
        [Reader::python("tests/author_readers.py"), Reader::node("tests/author_readers.js")];
    let strategy = field();
    let mut accepted = 0;
    let mut faults = Vec::new();
    for _ in 0..count {
        let field = strategy.new_tree(&mut runner).expect("a field").current();
        // A line that does not begin with white space is another field's.
        let field = field.replace("\r\n", "\r\n ");
        // No message has a bare CR or LF: SMTP refuses it (`bare-newline`).
        if field.replace("\r\n", "").contains(['\r', '\n']) {
            continue;
        }
        let Ok(authors) = Authors::of(format!("From: {field}\r\n\r\n").as_bytes()) else {
            continue;
        };
        for second in ["From: z@b.test", "FROM :", "x\r\n From: z@b.test"] {
            let twice = format!("From: {field}\r\n{second}\r\n\r\n");
            let found = Authors::of(twice.as_bytes());
            assert_eq!(found, Err(AuthorError::Several), "{field:?} and {second:?}");
        }
        accepted += 1;
        let ours: Vec<String> = authors.domains().iter().map(ToString::to_string).collect();
        let unfolded = field.replace("\r\n", "");
        let mut found = mail_parser(&field);
        for reader in &mut others {
            found.extend(reader.names(&unfolded));
        }
        // What a reader could not decode is no other domain, and none that it could show.
        found.retain(|domain| !domain.contains('\u{fffd}'));
        for domain in found {
            if !ours.contains(&spelling(&domain)) && !stands_in_a_name(&unfolded, &domain) {
                faults.push(format!("{field:?}: {ours:?}, and a reader finds {domain:?}"));
            }
        }
    }
    println!("{accepted} of {count} fields have an author");
    assert!(accepted * 10 > count, "nearly all is refused, so nothing was tried");
    faults.sort_unstable_by_key(String::len);
    faults.truncate(40);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
