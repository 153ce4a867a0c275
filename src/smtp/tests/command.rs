//! Command lines, good and bad.

use proptest::prelude::*;

use crate::mail::{BodyType, DsnNotify, DsnReturn, MailParameters, ReversePath, Secret};
use crate::smtp::command::{self, Chunk, ChunkPlace, Command, ForwardPath, Spelling};
use crate::smtp::reason::Reason;
use crate::smtp::settings::Protocol;

fn parse(line: &[u8]) -> Result<Command, Reason> {
    command::parse(line, Protocol::Mx)
}

fn refused(line: &str, reason: Reason) {
    assert_eq!(parse(line.as_bytes()), Err(reason), "{line:?}");
}

#[test]
fn simple_commands() {
    for (line, command) in [
        ("DATA", Command::Data),
        ("data", Command::Data),
        ("RSET  \t", Command::Rset),
        ("QUIT", Command::Quit),
        ("STARTTLS", Command::StartTls),
        ("NOOP", Command::Noop),
        ("NOOP anything at all", Command::Noop),
        ("HELP", Command::Help),
        ("HELP MAIL", Command::Help),
        ("VRFY alice", Command::Vrfy),
        ("EHLO client.test", Command::Ehlo("client.test".to_owned())),
        ("helo [192.0.2.1]", Command::Helo("[192.0.2.1]".to_owned())),
        ("EHLO [IPv6:2001:db8::1]", Command::Ehlo("[IPv6:2001:db8::1]".to_owned())),
        ("EHLO my_host", Command::Ehlo("my_host".to_owned())),
        ("EHLO  scanner ", Command::Ehlo("scanner".to_owned())),
        ("EHLO 192.0.2.1", Command::Ehlo("192.0.2.1".to_owned())),
        ("EHLO My Printer", Command::Ehlo("My?Printer".to_owned())),
        ("HELO (a); <b>", Command::Helo("?a????b?".to_owned())),
        ("EHLO b\u{fc}ro", Command::Ehlo("b?ro".to_owned())),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(command), "{line:?}");
    }
}

#[test]
fn auth_is_for_users_alone() {
    let auth = |mechanism: &str, initial: Option<&str>| {
        let initial = initial.map(|text| Secret::new(text.to_owned()));
        Ok(Command::Auth(mechanism.to_owned(), initial))
    };
    for (line, expected) in [
        ("AUTH PLAIN", auth("PLAIN", None)),
        ("auth plain AGEAYg==", auth("plain", Some("AGEAYg=="))),
        ("AUTH LOGIN =", auth("LOGIN", Some("="))),
        ("AUTH X-UNKNOWN ", auth("X-UNKNOWN", None)),
        ("AUTH", Err(Reason::BadSyntax)),
        ("AUTH  PLAIN", Err(Reason::BadSyntax)),
        ("AUTH PLAIN  AGEAYg==", Err(Reason::BadSyntax)),
        ("AUTH PLAIN AGEA Yg==", Err(Reason::BadSyntax)),
        ("AUTH PLAIN \u{7}", Err(Reason::BadSyntax)),
    ] {
        for protocol in [Protocol::Submission, Protocol::Submissions] {
            assert_eq!(command::parse(line.as_bytes(), protocol), expected, "{line:?}");
        }
        let on_mx = parse(line.as_bytes());
        assert!(matches!(on_mx, Err(Reason::NotImplemented | Reason::BadSyntax)), "{line:?}");
    }
}

/// RFC 4954 §5.
#[test]
fn whom_mail_names_as_authenticated_is_read_and_forgotten() {
    for (value, is_read) in [
        ("=<>", true),
        ("=bob+40example.org", true),
        ("=bob@example.org", true),
        ("=+4", false),
        ("=+0A", false),
        ("=", false),
        ("", false),
        ("=<> AUTH=<>", false),
    ] {
        let line = format!("MAIL FROM:<a@example.org> AUTH{value}");
        let read = command::parse(line.as_bytes(), Protocol::Submission);
        match read {
            Ok(Command::Mail(_, parameters)) => {
                assert!(is_read && parameters == MailParameters::default(), "{line:?}");
            }
            read => assert!(!is_read && read == Err(Reason::BadSyntax), "{line:?}: {read:?}"),
        }
    }
    refused("MAIL FROM:<a@example.org> AUTH=<>", Reason::UnknownParameter);
}

#[test]
fn commands_that_are_refused() {
    for (line, reason) in [
        ("", Reason::UnknownCommand),
        ("JUNK", Reason::UnknownCommand),
        (" NOOP", Reason::UnknownCommand),
        ("GET / HTTP/1.1", Reason::UnknownCommand),
        ("DATA foo", Reason::BadSyntax),
        ("RSET xx", Reason::BadSyntax),
        ("QUIT xx", Reason::BadSyntax),
        ("STARTTLS xx", Reason::BadSyntax),
        ("EHLO", Reason::BadSyntax),
        ("HELO", Reason::BadSyntax),
        ("NOOP \u{7}", Reason::BadSyntax),
        ("VRFY", Reason::BadSyntax),
        ("EXPN list", Reason::NotImplemented),
        ("AUTH PLAIN AGEAYg==", Reason::NotImplemented),
        ("ETRN example.test", Reason::NotImplemented),
        ("MAIL", Reason::BadSyntax),
        ("MAIL a@example.org", Reason::BadSyntax),
        ("MAIL TO:<a@example.org>", Reason::BadSyntax),
        ("MAIL FROM:", Reason::BadSender),
        ("MAIL FROM:<a@example.org", Reason::BadSender),
        ("MAIL FROM:a@example.org>", Reason::BadSender),
        ("MAIL FROM:a b@example.org", Reason::BadSender),
        ("MAIL FROM:bob", Reason::BadSender),
        ("MAIL FROM:<\"a\tb\"@example.org>", Reason::BadSyntax),
        ("NOOP\tx", Reason::UnknownCommand),
        ("MAIL FROM:<a@b@example.org>", Reason::BadSender),
        ("MAIL FROM:<postmaster>", Reason::BadSender),
        ("MAIL FROM:<a@b!c$%.test>", Reason::BadSender),
        ("RCPT", Reason::BadSyntax),
        ("RCPT TO:<>", Reason::BadAddress),
        ("RCPT TO:<alice>", Reason::BadAddress),
        ("RCPT TO:<@a.test:>", Reason::BadAddress),
        ("RCPT TO:<@a..test:alice@example.test>", Reason::BadAddress),
        ("RCPT TO:<a@[300.0.0.1]>", Reason::BadAddress),
    ] {
        refused(line, reason);
    }
    refused(&format!("MAIL FROM:<{}@example.org>", "a".repeat(243)), Reason::BadSender);
    assert!(parse(format!("MAIL FROM:<{}@example.org>", "a".repeat(242)).as_bytes()).is_ok());
    assert_eq!(parse(b"EHLO M\xdcLLER-PC"), Ok(Command::Ehlo("M?LLER-PC".to_owned())));
    let long = format!("a@{}.test", ["x".repeat(60).as_str(); 5].join("."));
    refused(&format!("RCPT TO:<{long}>"), Reason::BadAddress);
    assert_eq!(parse(b"NOOP \xff"), Err(Reason::BadSyntax), "not UTF-8");
    assert_eq!(parse(b"MAIL FROM:<\xff@example.org>"), Err(Reason::BadSyntax), "not UTF-8");
}

fn mail(line: &str) -> (String, MailParameters) {
    match parse(line.as_bytes()) {
        Ok(Command::Mail(path, parameters)) => (path.to_string(), parameters),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn reverse_paths() {
    for (line, path) in [
        ("MAIL FROM:<>", "<>"),
        ("mail from:<A@Example.ORG>", "<A@example.org>"),
        ("MAIL FROM: <a@example.org>", "<a@example.org>"),
        ("MAIL FROM:   < a@example.org >", "<a@example.org>"),
        ("MAIL FROM :<a@example.org>", "<a@example.org>"),
        ("MAIL\tFROM:\t<a@example.org>\tSIZE=100 \t", "<a@example.org>"),
        ("MAIL FROM:a@example.org\tSIZE=100", "<a@example.org>"),
        ("MAIL FROM:a@example.org", "<a@example.org>"),
        ("MAIL FROM: a@example.org  SIZE=100", "<a@example.org>"),
        ("MAIL FROM:<a@example.org.>", "<a@example.org>"),
        ("MAIL FROM:<bo..b.@docomo.test>", "<bo..b.@docomo.test>"),
        ("MAIL FROM:<bounce@em_1.example.org>", "<bounce@em_1.example.org>"),
        (
            "MAIL FROM:<gmailuser+caf_=website_8b506e99-b5c5-4e14-8294-f5ebd6083faa=mail.jam.test@gmail.test>",
            "<gmailuser+caf_=website_8b506e99-b5c5-4e14-8294-f5ebd6083faa=mail.jam.test@gmail.test>",
        ),
        ("MAIL FROM:<a@[192.0.2.1]>", "<a@[192.0.2.1]>"),
        ("MAIL FROM:<a@[IPv6:2001:db8::1]>", "<a@[ipv6:2001:db8::1]>"),
        ("MAIL FROM:<@a.test,@b.test:a@example.org>", "<a@example.org>"),
        (r#"MAIL FROM:<"a b"@example.org>"#, r#"<"a b"@example.org>"#),
        (r#"MAIL FROM:<"a>b"@example.org>"#, r#"<"a>b"@example.org>"#),
        (r#"MAIL FROM:<"a b\"@c"@example.org>"#, r#"<"a b\"@c"@example.org>"#),
    ] {
        assert_eq!(mail(line).0, path, "{line:?}");
    }
    assert_eq!(
        parse(b"MAIL FROM:<>").map(|c| matches!(c, Command::Mail(ReversePath::Null, _))),
        Ok(true)
    );
}

#[test]
fn mail_parameters() {
    let none = MailParameters::default();
    for (parameters, expected) in [
        ("", none.clone()),
        ("SIZE=1000", MailParameters { declared_size: Some(1000), ..none.clone() }),
        (
            "SIZE=18446744073709551615",
            MailParameters { declared_size: Some(u64::MAX), ..none.clone() },
        ),
        (
            "SIZE=99999999999999999999",
            MailParameters { declared_size: Some(u64::MAX), ..none.clone() },
        ),
        ("BODY=7BIT", none.clone()),
        ("body=8bitmime", MailParameters { body: BodyType::EightBitMime, ..none.clone() }),
        ("SMTPUTF8", MailParameters { smtputf8: true, ..none.clone() }),
        ("RET=HDRS", MailParameters { ret: Some(DsnReturn::Headers), ..none.clone() }),
        ("ENVID=a+2Bb+20c", MailParameters { envid: Some("a+b c".to_owned()), ..none.clone() }),
        (
            "SIZE=1 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=QQ314159",
            MailParameters {
                declared_size: Some(1),
                body: BodyType::EightBitMime,
                smtputf8: true,
                ret: Some(DsnReturn::Full),
                envid: Some("QQ314159".to_owned()),
            },
        ),
    ] {
        let line = format!("MAIL FROM:<a@example.org> {parameters}");
        assert_eq!(mail(&line).1, expected, "{line}");
    }
}

#[test]
fn mail_parameters_that_are_refused() {
    for (parameters, reason) in [
        (" SIZE=99999999999999999999999", Reason::BadSyntax),
        (" SIZE=", Reason::BadSyntax),
        (" SIZE", Reason::BadSyntax),
        (" SIZE=-1", Reason::BadSyntax),
        (" SIZE=1 SIZE=1", Reason::BadSyntax),
        ("SIZE=10", Reason::BadSyntax),
        (" BODY=FOO", Reason::BadSyntax),
        (" BODY=BINARYMIME", Reason::UnknownParameter),
        (" BODY=7BIT BODY=8BITMIME", Reason::BadSyntax),
        (" SMTPUTF8=yes", Reason::BadSyntax),
        (" SMTPUTF8 SMTPUTF8", Reason::BadSyntax),
        (" RET=FULL RET=HDRS", Reason::BadSyntax),
        (" RET=SOME", Reason::BadSyntax),
        (" ENVID=a+0D+0AX", Reason::BadSyntax),
        (" ENVID=a+ZZb", Reason::BadSyntax),
        (" ENVID=a+2b", Reason::BadSyntax),
        (" ENVID=a+2", Reason::BadSyntax),
        (" ENVID=a=b", Reason::BadSyntax),
        (" ENVID=\u{e9}", Reason::BadSyntax),
        (" FOO=BAR", Reason::UnknownParameter),
        (" FOO", Reason::UnknownParameter),
        (" AUTH=<>", Reason::UnknownParameter),
        (" NOTIFY=NEVER", Reason::UnknownParameter),
        (" =x", Reason::BadSyntax),
        (" -a=x", Reason::BadSyntax),
    ] {
        refused(&format!("MAIL FROM:<a@example.org>{parameters}"), reason);
    }
    refused(&format!("MAIL FROM:<> ENVID={}", "x".repeat(101)), Reason::BadSyntax);
}

#[test]
fn addresses_outside_ascii_need_smtputf8() {
    refused("MAIL FROM:<us\u{e9}r@example.org>", Reason::NeedsSmtpUtf8);
    refused("MAIL FROM:<a@b\u{fc}cher.test> SIZE=1", Reason::NeedsSmtpUtf8);
    assert_eq!(mail("MAIL FROM:<a@b\u{fc}cher.test> SMTPUTF8").0, "<a@xn--bcher-kva.test>");
    for (line, spelling) in [
        ("RCPT TO:<a@example.test>", Spelling::Ascii),
        ("RCPT TO:<\u{e9}@example.test>", Spelling::Utf8),
        ("RCPT TO:<a@b\u{fc}cher.test>", Spelling::Utf8),
        ("RCPT TO:<a@example.test> ORCPT=utf-8;\u{e9}@example.test", Spelling::Utf8),
    ] {
        match parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => assert_eq!(rcpt.spelling, spelling, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn postmaster_needs_no_domain() {
    for line in ["RCPT TO:<postmaster>", "RCPT TO:<PostMaster>"] {
        match parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => assert_eq!(rcpt.path, ForwardPath::Postmaster),
            other => panic!("{other:?}"),
        }
    }
}

fn check_rcpt(parameters: &str, expected: Option<(Option<DsnNotify>, Option<&str>)>) {
    let line = format!("RCPT TO:<alice@example.test> {parameters}");
    let read = match parse(line.as_bytes()) {
        Ok(Command::Rcpt(rcpt)) => Some((rcpt.parameters.notify, rcpt.parameters.orcpt)),
        Err(Reason::BadSyntax) => None,
        other => panic!("{line}: {other:?}"),
    };
    let read = read.as_ref().map(|(notify, orcpt)| (*notify, orcpt.as_deref()));
    assert_eq!(read, expected, "{line}");
}

#[test]
fn rcpt_parameters() {
    let none = DsnNotify::default();
    check_rcpt("NOTIFY=NEVER", Some((Some(DsnNotify { never: true, ..none }), None)));
    let both = DsnNotify { success: true, failure: true, ..none };
    check_rcpt("notify=success,FAILURE", Some((Some(both), None)));
    check_rcpt("NOTIFY=DELAY", Some((Some(DsnNotify { delay: true, ..none }), None)));
    check_rcpt("ORCPT=RFC822;bob+2Bx@example.org", Some((None, Some("rfc822;bob+x@example.org"))));
    check_rcpt(r"ORCPT=utf-8;\x{E9}@example.org", Some((None, Some("utf-8;\u{e9}@example.org"))));
    // As Postfix says it.
    check_rcpt("ORCPT=rfc822;+C3+A9@example.org", Some((None, Some("utf-8;\u{e9}@example.org"))));
    check_rcpt("ORCPT=utf-8;\u{e9}@example.org", Some((None, Some("utf-8;\u{e9}@example.org"))));
    for bad in [
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,SUCCESS",
        "NOTIFY=",
        "NOTIFY=SOMETIMES",
        "NOTIFY=NEVER NOTIFY=NEVER",
        "ORCPT=bob@example.org",
        "ORCPT=;bob@example.org",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;a+0D+0ABcc:x@example.org",
        "ORCPT=rfc822;a+00b",
        "ORCPT=rfc822;a+ZZb",
        "ORCPT=rfc822;\u{e9}@example.org",
        "ORCPT=rfc822;+E7@example.org",
        "ORCPT=rfc822;+C2+85@example.org",
        "ORCPT=x400;+C3+A9",
        r"ORCPT=utf-8;\x{0D}\x{0A}@example.org",
        r"ORCPT=utf-8;\x{D800}@example.org",
        r"ORCPT=utf-8;\x{+9}@example.org",
        r"ORCPT=utf-8;\n@example.org",
        "ORCPT=utf-8;a+b@example.org",
        "ORCPT=rfc822;a ORCPT=rfc822;a",
    ] {
        check_rcpt(bad, None);
    }
    refused("RCPT TO:<a@example.test> SIZE=1", Reason::UnknownParameter);
}

#[test]
fn bdat() {
    let chunk = |size, place| Ok(Command::Bdat(Chunk { size, place }));
    for (line, expected) in [
        ("BDAT 0", chunk(0, ChunkPlace::More)),
        ("BDAT 0 LAST", chunk(0, ChunkPlace::Last)),
        ("bdat 1000 last", chunk(1000, ChunkPlace::Last)),
        ("BDAT 00000000000000000007", chunk(7, ChunkPlace::More)),
        ("BDAT 18446744073709551614", chunk(u64::MAX - 1, ChunkPlace::More)),
        ("BDAT 99999999999999999999", Ok(Command::EndlessBdat)),
        ("BDAT 99999999999999999999999999", Ok(Command::EndlessBdat)),
        ("BDAT 18446744073709551616", Ok(Command::EndlessBdat)),
        ("BDAT", Ok(Command::EndlessBdat)),
        ("BDAT x", Ok(Command::EndlessBdat)),
        ("BDAT +1", Ok(Command::EndlessBdat)),
        ("BDAT -1", Ok(Command::EndlessBdat)),
        ("BDAT 1 FIRST", Ok(Command::EndlessBdat)),
        ("BDAT 1  LAST", Ok(Command::EndlessBdat)),
        ("BDAT\t1", Ok(Command::EndlessBdat)),
    ] {
        assert_eq!(parse(line.as_bytes()), expected, "{line}");
    }
    assert_eq!(parse(b"BDAT 1\xff"), Ok(Command::EndlessBdat));
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_unprintable_gets_through(
        verb in prop_oneof![Just("MAIL FROM:"), Just("RCPT TO:"), Just("BDAT "), Just("EHLO ")],
        rest in "\\PC{0,60}|[<>@a\"\\\\ .:,=+;x{}0-9A-F\\x00-\\x1f-]{0,60}",
    ) {
        let line = format!("{verb}{rest}");
        let printable = |text: &str| !text.chars().any(char::is_control);
        match parse(line.as_bytes()) {
            Ok(Command::Mail(path, parameters)) => {
                prop_assert!(printable(&path.to_string()));
                prop_assert!(printable(&parameters.envid.unwrap_or_default()));
            }
            Ok(Command::Rcpt(rcpt)) => {
                if let ForwardPath::Address(address) = rcpt.path {
                    prop_assert!(printable(&address.to_string()));
                }
                prop_assert!(printable(&rcpt.parameters.orcpt.unwrap_or_default()));
            }
            Ok(Command::Ehlo(name)) => prop_assert!(printable(&name)),
            _ => {}
        }
    }

    #[test]
    fn any_bytes_parse_or_are_refused(line in proptest::collection::vec(any::<u8>(), 0..100)) {
        // It must not panic; both outcomes are right.
        prop_assert!(matches!(parse(&line), Ok(_) | Err(_)));
    }
}
