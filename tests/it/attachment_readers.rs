//! A file of a blocked kind that mail-parser or Python's library finds in a message, however odd its
//! parts are, is found here too, or the message is refused as one that can be read in several ways.
//! And what no reader could take for another thing is not refused.
//!
//! The messages are always the same; `MAILWEIR_ATTACHMENT_TREES=100000 cargo t --test it
//! attachment_readers` is the long form, with other messages at each run.

use encodify::{base64, qp};
use mail_parser::{Message, MessageParser};
use mailweir::pipeline::Extensions;
use mailweir::pipeline::attachments::{Objection, objection};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

use crate::support::readers::{Generated, Reader};

/// What is generated, for [`Generated`].
const KIND: &str = "ATTACHMENT_TREES";
/// How many messages are tried without the variable.
const FEW: usize = 2000;

/// The names of a message's files, as Python finds them.
fn python_names(python: &mut Reader, message: &[u8]) -> Vec<String> {
    let octets: String = message.iter().map(|octet| char::from(*octet)).collect();
    python.names(&octets)
}

fn mail_parser_names(message: &Message<'_>) -> Vec<String> {
    let parts = message.parts();
    parts.filter_map(|part| part.attachment_name().map(str::to_owned)).collect()
}

fn is_blocked(name: &str) -> bool {
    name.trim().trim_matches('"').to_lowercase().ends_with(".exe")
}

/// What a message is made of: `clean` is what honest generators write.
fn tree(clean: bool) -> BoxedStrategy<String> {
    let leaf = leaf(clean).boxed();
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let parts = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            5 => multipart(clean, parts.boxed()),
            2 => (inner, message_kind(clean)).prop_map(|(inner, wrap)| wrap(&inner)),
        ]
    })
    .boxed()
}

/// One of these, rarely one of those.
fn mostly(
    clean: bool,
    usual: &'static [&'static str],
    odd: &'static [&'static str],
) -> BoxedStrategy<&'static str> {
    if clean {
        select(usual).boxed()
    } else {
        prop_oneof![6 => select(usual), 1 => select(odd)].boxed()
    }
}

const NAMED: &[&str] = &[
    "Content-Disposition: attachment; filename=\"a.exe\"\r\n",
    "Content-Disposition: attachment; filename=a.exe\r\n",
    "Content-Disposition: attachment;\r\n\tfilename=\"My a.EXE\"; size=3\r\n",
    "Content-Disposition: attachment; filename*=utf-8''%C3%BC.exe\r\n",
    "Content-Disposition: attachment; filename*=utf-8'en'a%2Eexe\r\n",
    "Content-Disposition: attachment; filename*0=\"a.\"; filename*1=\"exe\"\r\n",
    "Content-Disposition: attachment; filename*0*=utf-8''a%2E; filename*1*=exe\r\n",
    "Content-Disposition: attachment; filename*1=xe; filename*0=a.e\r\n",
    "Content-Disposition: attachment; filename=\"=?utf-8?q?a=2Eexe?=\"\r\n",
    "Content-Disposition: attachment; filename==?utf-8?b?YS5leGU=?=\r\n",
    "Content-Disposition: attachment; filename=\"=?utf-8?q?a=2E?=\r\n =?utf-8?q?exe?=\"\r\n",
    "Content-Type: application/octet-stream; name=a.exe\r\n",
    "Content-Type: text/plain; charset=utf-8; name=\"a.exe\"\r\n",
    "Content-Type: application/x; name*=utf-8''a.exe\r\nContent-Disposition: attachment\r\n",
    "",
    "Content-Type: text/plain\r\n",
    "Content-Type: text/html; charset=utf-8\r\n",
];
const ODD_NAMED: &[&str] = &[
    "Content-Disposition: attachment; filename=\"a\\.exe\"\r\n",
    "Content-Disposition: attachment; filename = a.exe\r\n",
    "Content-Disposition: attachment (x; filename=b.txt); filename=a.exe\r\n",
    "Content-Disposition: attachment; filename=\"a.txt\"; filename=\"a.exe\"\r\n",
    "Content-Disposition: attachment; filename*0*=utf-8''a%2; filename*1*=Eexe\r\n",
    "Content-Disposition: attachment; filename*0*=utf-8''a%2; filename*1=\"Eexe\"\r\n",
    "Content-Disposition: attachment; FileName=a.exe\r\n",
    "Content-Disposition : attachment; filename=a.exe\r\n",
    "content-disposition:attachment;filename=a.exe\r\n",
    "Content-Disposition: filename=a.exe\r\n",
    "Content-Disposition: attachment; x=\";\"; filename=a.exe\r\n",
    "Content-Disposition: attachment; x=\"\\\"; filename=b.txt\"; filename=a.exe\r\n",
    "Content-Disposition: attachment; filename=\"a.exe\r\n",
    "x\r\n Content-Disposition: attachment; filename=a.exe\r\n",
    "no field\r\nContent-Disposition: attachment; filename=a.exe\r\n",
    "Content-Type: text/plain\r\nContent-Type: text/plain; name=a.exe\r\n",
    "Content-Type: application/x; name=\"a.exe\" more\r\n",
    "Content-Type: ; name=a.exe\r\n",
    "Content-Type: application/x; name=a.exe (comment)\r\n",
    "Content-Type: application/x name=a.exe\r\n",
    "\tContent-Type: text/plain; name=a.exe\r\n",
    "Content-Type: text/plain; boundary=b\r\n",
    "Content-Disposition: attachment; filename*=utf-8''a.exe%20(1).pdf\r\n",
    "Content-Disposition: attachment; filename*=utf-8''a.exe[1].pdf\r\n",
    "Content-Disposition: attachment; filename=a.exe (1).pdf\r\n",
    "Content-Disposition: attachment; filename=x a.exe y.pdf\r\n",
    "Content-Disposition: attachment; filename=<x>a.exe\r\n",
    "Content-Disposition: attachment; filename=(x)a.exe(y)\r\n",
    "Content-Disposition: attachment; filename*0*=utf-8''a.ex[x; filename*1*=e\r\n",
    "Content-Disposition: attachment; filename*0=a.ex,x; filename*1=e\r\n",
    "Content-Disposition: attachment; filename*0=a.exe; filename*2=.txt\r\n",
    "Content-Disposition: attachment; filename*0=a.exe; FILENAME*1=.txt\r\n",
    "Content-Disposition: attachment; filename*0=a.exe; filename*0=.txt\r\n",
    "Content-Disposition: attachment; filename*=hz''a.exe\r\n",
    "Content-Disposition: attachment; filename=\"=?hz?q?a.e~=0Axe?=\"\r\n",
    "Content-Disposition: attachment; filename=\"=?hz?q?~{VPND~}.exe?=\"\r\n",
    "Content-Disposition: attachment; filename=\"C:a.exe:\"\r\n",
];

fn leaf(clean: bool) -> BoxedStrategy<String> {
    let encoding = mostly(
        clean,
        &[
            "",
            "Content-Transfer-Encoding: 7bit\r\n",
            "Content-Transfer-Encoding: base64\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n",
        ],
        &["Content-Transfer-Encoding: (x) base64\r\n", "Content-Transfer-Encoding: x-y\r\n"],
    );
    let body = mostly(
        clean,
        &[
            "text\r\n",
            "",
            "begin 644 a.exe\r\n#0V%T\r\n",
            "begin 5 days after\r\n",
            "-- \r\nme\r\n",
        ],
        &[
            "--b\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n",
            "--b1--\r\n--b1\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx",
            "x--b\r\n\r\nbegin 644 a.exe\r\n",
            "--",
        ],
    );
    let encode = |encoding: &str, body: &str| match encoding {
        _ if encoding.contains("base64") => base64::MIME.encode(body) + "\r\n",
        _ if encoding.contains("quoted") => qp::BODY.encode(body).replace('.', "=2E"),
        _ => body.to_owned(),
    };
    (mostly(clean, NAMED, ODD_NAMED), encoding, body)
        .prop_map(move |(fields, encoding, body)| {
            if !clean {
                return format!("{fields}{encoding}\r\n{}", encode(encoding, body));
            }
            // Honest generators write of files that may be sent.
            let harmless = |text: &str| {
                let text = text.replace("exe", "txt").replace("EXE", "TXT");
                let text = text.replace("*1=xe; filename*0=a.e", "*1=xt; filename*0=a.t");
                text.replace("YS5leGU=", "YS50eHQ=")
            };
            format!("{}{encoding}\r\n{}", harmless(fields), encode(encoding, &harmless(body)))
        })
        .boxed()
}

/// A message as a part, encoded in one of several ways.
fn message_kind(clean: bool) -> BoxedStrategy<fn(&str) -> String> {
    fn plain(inner: &str) -> String {
        format!("Content-Type: message/rfc822\r\n\r\nSubject: x\r\n{inner}")
    }
    fn in_base64(inner: &str) -> String {
        let inner = base64::MIME.encode(format!("Subject: x\r\n{inner}"));
        format!(
            "Content-Type: message/rfc822; name=m.eml\r\nContent-Transfer-Encoding: base64\r\n\r\n{inner}\r\n"
        )
    }
    fn quoted(inner: &str) -> String {
        let inner = qp::BODY.encode(format!("Subject: x\r\n{inner}"));
        format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{inner}\r\n"
        )
    }
    fn unknown(inner: &str) -> String {
        format!("Content-Type: message/x-y\r\n\r\n{inner}")
    }
    fn said_only(inner: &str) -> String {
        format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{inner}"
        )
    }
    fn commented(inner: &str) -> String {
        format!("Content-Type: message(x)/rfc822\r\n\r\n{inner}")
    }
    // RFC 2046 §5.2.1 forbids both encodings; only base64 is written all the same.
    let honest: Vec<fn(&str) -> String> = vec![plain, in_base64];
    let odd: Vec<fn(&str) -> String> = vec![quoted, unknown, said_only, commented];
    if clean {
        select(honest).boxed()
    } else {
        prop_oneof![4 => select(honest), 1 => select(odd)].boxed()
    }
}

/// Parts between delimiters, some of which only some readers take for such.
fn multipart(clean: bool, parts: BoxedStrategy<Vec<String>>) -> BoxedStrategy<String> {
    let boundary = select(vec!["b", "b1", "b--x", "b.1", "c", "=_b", "B"]);
    let kind = mostly(
        clean,
        &["multipart/mixed", "multipart/alternative", "multipart/related", "Multipart/Mixed"],
        &[
            "multipart/digest",
            "multipart/signed",
            "multipart/x",
            "multi(x)part/mixed",
            "text/plain",
        ],
    );
    let written = mostly(
        clean,
        &["; boundary=\"B\"", ";\r\n\tboundary=\"B\"", "; charset=utf-8; boundary=\"B\""],
        &[
            "; boundary=\"\"",
            "",
            "; boundary=B; boundary=c",
            "; boundary*=utf-8''B",
            "; boundary*0=B",
            "; boundary=\"B\" x",
            ";boundary=B(x)",
        ],
    );
    let ends = prop::collection::vec(
        mostly(
            clean,
            &["", "", "", " \t"],
            &["--", "--x", " x", "x", "-", "-- ", "\x0c", "--\r\n--B"],
        ),
        5,
    );
    let last = mostly(clean, &["--", "--", "-- ", "--\r\nepilogue"], &["", "--x", "-", "x"]);
    let before =
        mostly(clean, &["", "This is MIME.\r\n"], &["--B--\r\n", "--B--x\r\n", "x--B\r\n"]);
    (boundary, kind, written, parts, ends, (last, before))
        .prop_map(move |(boundary, kind, written, parts, ends, (last, before))| {
            // Nested multiparts of honest generators have boundaries of their own.
            let taken = |boundary: &str| {
                let own = format!("boundary=\"{boundary}\"");
                parts.iter().any(|part| {
                    part.contains(&own)
                        || part.contains(&format!("--{boundary}\r"))
                        || part.contains(&format!("--{boundary} "))
                })
            };
            let mut boundary = boundary.to_owned();
            while clean && taken(&boundary) {
                boundary.push('0');
            }
            let mut body = before.replace('B', &boundary);
            for (part, end) in parts.iter().zip(&ends) {
                body.push_str(&format!(
                    "--{boundary}{}\r\n{part}\r\n",
                    end.replace('B', &boundary)
                ));
            }
            let fields = format!("Content-Type: {kind}{}", written.replace('B', &boundary));
            format!("{fields}\r\n\r\n{body}--{boundary}{last}\r\n")
        })
        .boxed()
}

fn shortest(mut faults: Vec<String>) -> String {
    faults.sort_unstable_by_key(String::len);
    faults.truncate(12);
    faults.join("\n\n")
}

#[test]
fn a_blocked_file_that_a_reader_finds_is_found_or_refused() {
    let mut python = Reader::python("tests/attachment_readers.py");
    let Generated { count, mut runner } = Generated::new(KIND, FEW);
    let strategy = tree(false);
    let blocked = Extensions::default();
    let mut with_file = 0;
    let mut taken = 0;
    let mut faults = Vec::new();
    for _ in 0..count {
        let tree = strategy.new_tree(&mut runner).expect("a message").current();
        let content = format!("From: a@b.test\r\n{tree}");
        let mut names = python_names(&mut python, content.as_bytes());
        let parsed = MessageParser::new().parse(content.as_bytes());
        names.extend(parsed.iter().flat_map(mail_parser_names));
        names.retain(|name| is_blocked(name));
        let found = objection(content.as_bytes(), &blocked);
        with_file += usize::from(!names.is_empty());
        taken += usize::from(found.is_none());
        if found.is_none() && !names.is_empty() {
            faults.push(format!("{content:?}: {names:?}"));
        }
    }
    println!("{with_file} of {} have a file that a reader finds, {taken} are taken", count);
    assert!(faults.is_empty(), "{} messages\n{}", faults.len(), shortest(faults));
    assert!(with_file * 10 > count && taken * 20 > count, "too little was tried");
}

#[test]
fn what_honest_generators_write_is_not_refused() {
    let Generated { count, mut runner } = Generated::new(KIND, FEW);
    let strategy = tree(true);
    let blocked = Extensions::default();
    let mut taken = 0;
    let mut faults = Vec::new();
    for _ in 0..count {
        let tree = strategy.new_tree(&mut runner).expect("a message").current();
        let content = format!("From: a@b.test\r\n{tree}");
        match objection(content.as_bytes(), &blocked) {
            None => taken += 1,
            // Messages in messages in messages, each encoded as a whole.
            Some(Objection::Malformed { why, .. }) if why.contains("too many times") => {}
            Some(found) => faults.push(format!("{content:?}: {found:?}")),
        }
    }
    println!("{taken} of {} are taken", count);
    assert!(faults.is_empty(), "{} messages\n{}", faults.len(), shortest(faults));
    assert!(taken * 10 > count * 9, "too little was tried");
}

/// A file's name as people give it, before its extension: with spaces, parentheses, other files' names
/// and letters of other languages.
fn stem() -> impl Strategy<Value = String> {
    let words =
        ["Offer", "shop.com", "(1)", "setup.exe", "a.js", "Grüße", "中文", "100%", "it's", "v1.2"];
    let joints = [" ", "_", " - ", " & ", ", ", "+"];
    prop::collection::vec((select(words.to_vec()), select(joints.to_vec())), 1..5).prop_map(
        |words| {
            let mut stem = String::new();
            for (word, joint) in words {
                if !stem.is_empty() {
                    stem.push_str(joint);
                }
                stem.push_str(word);
            }
            stem
        },
    )
}

/// As RFC 2231 §7 wants it.
fn percent_encoded(name: &str) -> Vec<String> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    let encoded = |octet: u8| format!("%{octet:02X}");
    let one =
        |octet: u8| if is_plain(octet) { char::from(octet).to_string() } else { encoded(octet) };
    name.bytes().map(one).collect()
}

/// Encoded words (RFC 2047) of some characters each.
fn words(name: &str, encoding: char, length: usize) -> String {
    let characters: Vec<char> = name.chars().collect();
    let words = characters.chunks(length).map(|text| {
        let text: String = text.iter().collect();
        let encoded = match encoding {
            'b' => base64::MIME.encode(&text).replace("\r\n", ""),
            _ => percent_encoded(&text).concat().replace('%', "="),
        };
        format!("=?utf-8?{encoding}?{encoded}?=")
    });
    words.collect::<Vec<_>>().join("\r\n ")
}

/// A name in pieces of some octets each (RFC 2231 §3).
fn in_pieces(key: &str, encoded: &[String], length: usize) -> String {
    let pieces = encoded.chunks(length).enumerate().map(|(number, piece)| {
        let charset = if number == 0 { "utf-8''" } else { "" };
        format!("{key}*{number}*={charset}{}", piece.concat())
    });
    pieces.collect::<Vec<_>>().join(";\r\n ")
}

/// A name's parameter in every form in which honest generators give it.
fn forms(key: &str, name: &str, length: usize) -> Vec<String> {
    let encoded = percent_encoded(name);
    let mut forms = vec![
        format!("{key}*=UTF-8''{}", encoded.concat()),
        in_pieces(key, &encoded, length),
        format!("{key}=\"{}\"", words(name, 'q', length)),
        format!("{key}=\"{}\"", words(name, 'b', length)),
        format!("{key}=\"{name}\""),
    ];
    if name.is_ascii() {
        let pieces = name.as_bytes().chunks(length).map(String::from_utf8_lossy).enumerate();
        let pieces: Vec<_> =
            pieces.map(|(number, piece)| format!("{key}*{number}=\"{piece}\"")).collect();
        forms.push(pieces.join(";\r\n "));
    }
    forms
}

#[test]
fn the_extension_of_an_honest_name_is_its_last() {
    let Generated { count, mut runner } = Generated::new(KIND, FEW);
    let blocked = Extensions::default();
    let strategy = (stem(), 3_usize..40);
    let mut faults = Vec::new();
    for _ in 0..count {
        let (stem, length) = strategy.new_tree(&mut runner).expect("a name").current();
        for extension in ["pdf", "exe"] {
            let name = format!("{stem}.{extension}");
            for (kind, key) in
                [("Content-Disposition: attachment", "filename"), ("Content-Type: a/b", "name")]
            {
                for form in forms(key, &name, length) {
                    let content = format!("From: a@b.test\r\n{kind}; {form}\r\n\r\nx");
                    let found = objection(content.as_bytes(), &blocked);
                    let is_right = match found {
                        None => extension == "pdf",
                        Some(Objection::Blocked { .. }) => extension == "exe",
                        Some(Objection::Malformed { .. }) => false,
                    };
                    if !is_right {
                        faults.push(format!("{content:?}: {found:?}"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} names\n{}", faults.len(), shortest(faults));
}
