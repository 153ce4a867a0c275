//! Input that breaks mail servers: it is accepted or refused by rule, never with a crash, and what
//! is accepted is stored as it was sent.

use std::process::Command;

use crate::support::daemon::{BINARY, Daemon, Setup, below_our_headers, text};
use crate::support::smtp::{Client, message, stuffed};

const ALICE: &str = "alice@example.test";
const SENDER: &str = "a@plain.test";
const BOB: &str = "bob@good.test";

fn mail_by_data(daemon: &Daemon, content: &[u8]) -> String {
    let mut client = daemon.client();
    client.envelope(SENDER, &[ALICE]);
    client.data(content)
}

fn mail_by_bdat(daemon: &Daemon, content: &[u8]) -> String {
    let mut client = daemon.client();
    client.envelope(SENDER, &[ALICE]);
    client.bdat(content, &[])
}

/// The id in the 250, under which the message is exported.
fn stored(daemon: &Daemon, reply: &str) -> Vec<u8> {
    assert!(reply.starts_with("250"), "{reply}");
    let id = reply.split_whitespace().last().expect("an id");
    let found = daemon.mailbox("alice").into_iter().find(|(_, bytes)| text(bytes).contains(id));
    found.expect("is in the mailbox").1
}

/// The message, with an author if it has none, is accepted both ways, and stored as it is.
#[track_caller]
fn check_kept(daemon: &Daemon, what: &str, content: &[u8]) {
    let has_author = content.starts_with(b"From:") || text(content).contains("\nFrom:");
    let author: &[u8] = if has_author { b"" } else { b"From: <a@plain.test>\r\n" };
    let content = &[author, content].concat();
    for reply in [mail_by_data(daemon, content), mail_by_bdat(daemon, content)] {
        assert!(reply.starts_with("250"), "{what}: {reply}");
        let stored = stored(daemon, &reply);
        let below = below_our_headers(&stored);
        assert!(
            below == content.as_slice(),
            "{what}: {} octets became {}",
            content.len(),
            below.len()
        );
    }
    assert!(daemon.client().command("NOOP").starts_with("250"), "{what}: it goes on serving");
}

fn nested(depth: usize) -> Vec<u8> {
    let mut content = "Subject: nested\r\nMIME-Version: 1.0\r\n".to_owned();
    for level in 0..depth {
        content.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=\"b{level}\"\r\n\r\n--b{level}\r\n"
        ));
    }
    content.push_str("Content-Type: text/plain\r\n\r\nthe heart of it\r\n");
    for level in (0..depth).rev() {
        content.push_str(&format!("--b{level}--\r\n"));
    }
    content.into_bytes()
}

fn encapsulated(depth: usize) -> Vec<u8> {
    let level = "Content-Type: message/rfc822\r\n\r\n";
    format!("Subject: letters in letters\r\n{}Subject: inner\r\n\r\nhello\r\n", level.repeat(depth))
        .into_bytes()
}

#[test]
fn broken_structure_is_stored_as_it_is() {
    // Journaling and rules look into every message, too.
    let daemon = Setup::with(
        "[journaling]\njournaling_address = \"archive@example.test\"\nreport_address = \
         \"admin@example.test\"\n",
    )
    .start();
    let multipart =
        |boundary: &str| format!("Content-Type: multipart/mixed; boundary={boundary}\r\n");
    let cases: [(&str, Vec<u8>); 17] = [
        ("no header", b"just a line of text\r\n".to_vec()),
        ("one empty line", b"\r\n".to_vec()),
        ("no body", b"From: <a@plain.test>\r\nSubject: no body\r\n".to_vec()),
        ("a header without a name", b": no name\r\nSubject: x\r\n\r\nbody\r\n".to_vec()),
        (
            "a broken line among the fields",
            b"Subject: x\r\nnot a field\r\nTo: y\r\n\r\nbody\r\n".to_vec(),
        ),
        ("no closing boundary", format!("{}\r\n--b\r\n\r\ntext\r\n", multipart("b")).into_bytes()),
        ("a boundary that never comes", format!("{}\r\ntext\r\n", multipart("b")).into_bytes()),
        (
            "an empty boundary",
            format!("{}\r\n--\r\n--\r\n----\r\n", multipart("\"\"")).into_bytes(),
        ),
        (
            "a part that holds itself",
            format!(
                "{outer}\r\n--b\r\n{outer}\r\n--b\r\n{outer}\r\n--b\r\n--b--\r\n--b--\r\n",
                outer = multipart("b")
            )
            .into_bytes(),
        ),
        (
            "boundaries that begin with each other",
            format!(
                "{}\r\n--a\r\n{}\r\n--aa\r\n\r\n--a\r\n--aa--\r\n--a--\r\n",
                multipart("a"),
                multipart("aa")
            )
            .into_bytes(),
        ),
        (
            "two content types",
            format!("{}{}\r\n--b\r\n--c\r\n", multipart("b"), multipart("c")).into_bytes(),
        ),
        (
            "broken encoded words",
            b"From: =?utf-8?q?=ZZ?= <a@plain.test>\r\nSubject: =?x?y?z?=\r\n\r\n\r\n".to_vec(),
        ),
        ("control characters", b"Subject: \x1b[31m\r\n\r\n\x08\r\n".to_vec()),
        ("unclosed quotes", b"Content-Type: text/plain; x=\"y\r\n\r\n".to_vec()),
        (
            "a broken signature",
            b"DKIM-Signature: v=1; a=rsa-sha256; d=; s=;;;=\r\nFrom: a@plain.test\r\n\r\n".to_vec(),
        ),
        ("broken base64", b"Content-Transfer-Encoding: base64\r\n\r\n=====%%%%\r\n".to_vec()),
        ("addresses that are none", b"Sender: \"\r\nTo: (((((\r\n\r\n.\r\n".to_vec()),
    ];
    for (what, content) in &cases {
        check_kept(&daemon, what, content);
    }
}

#[test]
fn deep_nesting_is_stored_as_it_is() {
    let daemon = Setup::default().start();
    check_kept(&daemon, "multipart, 1000 deep", &nested(1000));
    check_kept(&daemon, "multipart, 20,000 deep", &nested(20_000));
    let unclosed = nested(1000);
    let unclosed = &unclosed[..memchr::memmem::find(&unclosed, b"--b999--").expect("closes")];
    check_kept(&daemon, "multipart, 1000 deep and never closed", unclosed);
    check_kept(&daemon, "message/rfc822, 1000 deep", &encapsulated(1000));
    let groups = format!("To: {}\r\n\r\nx\r\n", "g:".repeat(100_000));
    check_kept(&daemon, "groups, 100,000 deep", groups.as_bytes());
    let words = format!("Subject: {}\r\n\r\nx\r\n", "=?utf-8?b?8J+YgA==?= ".repeat(20_000));
    check_kept(&daemon, "20,000 encoded words", words.as_bytes());
}

#[test]
fn long_lines_and_odd_octets_are_stored_as_they_are() {
    let daemon = Setup::default().start();
    let long = "a".repeat(1 << 20);
    check_kept(
        &daemon,
        "a header line of 500,000 octets",
        format!("Subject: {}\r\n\r\nx\r\n", &long[..500_000]).as_bytes(),
    );
    check_kept(
        &daemon,
        "a field name of 500,000 octets",
        format!("{}: x\r\n\r\nx\r\n", &long[..500_000]).as_bytes(),
    );
    let reply = mail_by_data(&daemon, format!("Subject: {long}\r\n\r\nx\r\n").as_bytes());
    assert!(reply.starts_with("552 5.3.4") && reply.contains("[header-too-big "), "{reply}");
    check_kept(&daemon, "a body line of 1 MB", format!("Subject: x\r\n\r\n{long}\r\n").as_bytes());
    let folds = format!("Subject: x{}\r\n\r\nx\r\n", "\r\n y".repeat(100_000));
    check_kept(&daemon, "a field of 100,000 lines", folds.as_bytes());
    let fields = |count| format!("{}\r\nx\r\n", "X-A: b\r\n".repeat(count));
    check_kept(&daemon, "1,900 fields", fields(1900).as_bytes());
    let reply = mail_by_data(&daemon, fields(50_000).as_bytes());
    assert!(reply.starts_with("552 5.3.4") && reply.contains("[header-too-big "), "{reply}");
    let mut junk: Vec<u8> = (0..=255).filter(|octet| ![b'\r', b'\n'].contains(octet)).collect();
    junk.extend_from_slice(b"\r\n");
    check_kept(&daemon, "every octet, NUL too", &[b"Subject: x\r\n\r\n", &junk[..]].concat());
    check_kept(
        &daemon,
        "every octet in a field",
        &[b"Subject: ", &junk[..], b"\r\nx\r\n"].concat(),
    );
    check_kept(
        &daemon,
        "every octet as a field",
        &[&junk[..], b"Subject: x\r\n\r\nx\r\n"].concat(),
    );
}

#[test]
fn an_author_whom_nobody_can_read_is_no_author() {
    let daemon = Setup::default().start();
    let deep = format!("From: {}a@plain.test\r\n\r\nx\r\n", "(".repeat(100_000));
    for (content, word) in [
        (b"From: <a\0b@plain.test>\r\n\r\nx\r\n".as_slice(), "unreadable-author"),
        (b"From: \x01\x02@\x7f\r\n\r\n", "unreadable-author"),
        (b"From: \"unclosed <a@good.test>\r\n\r\n", "unreadable-author"),
        (b"From: ,,,<<<>>>@@;:\r\n\r\n", "unreadable-author"),
        (deep.as_bytes(), "unreadable-author"),
        (b"From: a@plain.test, b@good.test\r\n\r\n", "several-authors"),
        (b"From: a@plain.test\r\nFrom: a@plain.test\r\n\r\n", "several-authors"),
        (b"Subject: x\r\n\r\nFrom: a@plain.test\r\n", "no-author"),
        (b"\r\nFrom: a@plain.test\r\n", "no-author"),
        (b"\r\n", "no-author"),
        (b"From: \r\n\r\n", "no-author"),
    ] {
        for reply in [mail_by_data(&daemon, content), mail_by_bdat(&daemon, content)] {
            let is_refused = reply.starts_with("550 5.7.1") && reply.contains(&format!("[{word} "));
            assert!(is_refused, "{}: {reply}", text(content));
        }
    }
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn dots_are_stored_as_they_are() {
    let daemon = Setup::default().start();
    for body in
        [".\r\n", "..\r\n", "...\r\n.\r\n", ".a\r\n", "a\r\n.\r\nb\r\n", ".\r\nQUIT\r\n", " .\r\n"]
    {
        check_kept(&daemon, body, format!("Subject: dots\r\n\r\n{body}").as_bytes());
    }
}

#[test]
fn an_empty_message_has_no_author() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope(SENDER, &[ALICE]);
    assert!(client.command("DATA").starts_with("354"));
    client.send(b".\r\n");
    assert!(client.reply().contains("[no-author "));
    client.transaction(SENDER, &[ALICE]);
    assert!(client.command("BDAT 0 LAST").contains("[no-author "));
}

/// Sends these octets after DATA's 354 and gives the reply to them.
fn raw_data(client: &mut Client, octets: &[u8]) -> String {
    client.transaction(SENDER, &[ALICE]);
    assert!(client.command("DATA").starts_with("354"));
    client.send(octets);
    client.reply()
}

#[test]
fn a_bare_cr_or_lf_is_refused_and_the_connection_goes_on() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.plain.test").starts_with("250"));
    for body in
        ["a\nb\r\n", "a\rb\r\n", "\n\r\n", "\r\r\n", "a\n", "Subject: x\n\ny\r\n", "a\n\r\n"]
    {
        let octets = format!("Subject: bare\r\n\r\n{body}\r\n.\r\n");
        let reply = raw_data(&mut client, octets.as_bytes());
        assert!(
            reply.starts_with("550 5.6.0") && reply.contains("[bare-newline "),
            "{body:?}: {reply}"
        );
    }
    let reply = client.command("MAIL FROM:<a@plain.test>");
    assert!(reply.starts_with("250"), "{reply}");
    assert!(daemon.mailbox("alice").is_empty());
}

/// From a network that is named, all octets up to `<CRLF>.<CRLF>` are one message, and everything
/// that some server takes for a line end is one in it.
#[test]
fn line_ends_of_named_networks_are_mended_and_nothing_is_smuggled() {
    let listener = "normalize_line_ends_from = [\"127.0.0.9/32\"]".to_owned();
    let daemon = Setup { listener, ..Setup::default() }.start();
    let message = "From: a@plain.test\nSubject: mended\n\nsoft=\r\r\nbreak\n..dot\n.\nMAIL \
                   FROM:<ceo@reject.test>\n.\r\nRSET\r\n.\nlast\r\n.\r\n";
    let mended = "From: a@plain.test\r\nSubject: mended\r\n\r\nsoft=\r\nbreak\r\n.dot\r\n.\r\nMAIL \
                  FROM:<ceo@reject.test>\r\n.\r\nRSET\r\n.\r\nlast\r\n";
    for (from, code) in [("127.0.0.9", "250"), ("127.0.0.8", "550 5.6.0")] {
        let address = from.parse().expect("an address");
        let mut client = Client::open_from(address, daemon.address());
        client.expect("220");
        assert!(client.command("EHLO mail.plain.test").starts_with("250"));
        let reply = raw_data(&mut client, message.as_bytes());
        assert!(reply.starts_with(code), "{from}: {reply}");
        assert!(client.command("NOOP").starts_with("250"), "{from}: one reply, no more");
    }
    let stored = daemon.mailbox("alice");
    assert_eq!(stored.len(), 1);
    assert_eq!(String::from_utf8_lossy(below_our_headers(&stored[0].1)), mended);
}

/// Every line end that some server somewhere takes for the end of a message (the smuggling attacks
/// of December 2023): none makes a second message.
#[test]
fn nothing_is_smuggled() {
    let daemon = Setup::default().start();
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r.\r\n",
        "\r\n.\n",
        "\r\n.\r",
        "\r.\r",
        "\r\n.\r\r\n",
        "\r\r\n.\r\r\n",
        "\r\n\0.\r\n",
    ] {
        let smuggled = format!(
            "Subject: outer\r\n\r\nouter{end}MAIL FROM:<ceo@reject.test>\r\nRCPT TO:<{ALICE}>\r\n\
             DATA\r\nSubject: smuggled\r\n\r\ninner\r\n.\r\n"
        );
        let mut client = daemon.client();
        assert!(client.command("EHLO mail.plain.test").starts_with("250"));
        let reply = raw_data(&mut client, smuggled.as_bytes());
        if end != "\r\n\0.\r\n" {
            assert!(reply.starts_with("550 5.6.0"), "{end:?}: {reply}");
        }
        assert!(client.command("NOOP").starts_with("250"), "{end:?}: one reply, no more");
    }
    assert!(daemon.folders("alice", "smuggled").is_empty());
    let events = daemon.events();
    assert!(events.iter().all(|line| line["event"]["subject"] != "smuggled"), "{events:#?}");
}

#[test]
fn a_forged_field_of_ours_is_removed_and_nothing_else() {
    let daemon = Setup::default().start();
    let forged = "Authentication-Results: mx.example.test;\r\n spf=pass smtp.mailfrom=bank.test;\r\n\
                  \tdkim=pass header.d=bank.test\r\n";
    let others = "Received: from somewhere by elsewhere; Sat, 21 Nov 2026 09:00:00 +0000\r\n\
                  Authentication-Results: mx.other.test; spf=pass smtp.mailfrom=bank.test\r\n\
                  X-SESAME: open\r\n";
    let rest = "From: a@plain.test\r\nSubject: forged\r\n\r\nAuthentication-Results: mx.example.test; spf=pass\r\n";
    let variants = [
        forged.to_owned(),
        forged.replace("mx.example.test", "MX.Example.TEST"),
        forged.replace("mx.example.test", "(a comment) mx.example.test 1"),
        forged.replace("Results: ", "Results:\r\n "),
        forged.replace("Authentication-Results", "AUTHENTICATION-RESULTS"),
        forged.replace("mx.example.test", "\"mx.example.test\""),
        "X-SES-Spam-Verdict: PASS\r\n".to_owned(),
        "x-ses-anything :\r\n PASS\r\n".to_owned(),
        "RECEIVED-SPF: pass\r\n (of ours)\r\n".to_owned(),
        "X-MS-Journal-Report: \r\n".to_owned(),
        "X-WM-Journal-Report: journal\r\n".to_owned(),
    ];
    for forged in variants {
        let reply = mail_by_data(&daemon, format!("{others}{forged}{rest}").as_bytes());
        let stored = stored(&daemon, &reply);
        assert_eq!(text(below_our_headers(&stored)), format!("{others}{rest}"), "{forged}");
    }
}

/// A message that begins with a folded line does not go on in our `Authentication-Results`: an empty
/// line stands between.
#[test]
fn a_message_cannot_add_to_our_results() {
    let daemon = Setup::default().start();
    for start in [" ", "\t"] {
        let content = format!(
            "{start}dkim=pass header.d=bank.test\r\nFrom: {SENDER}\r\nSubject: x\r\n\r\nbody\r\n"
        );
        for reply in
            [mail_by_data(&daemon, content.as_bytes()), mail_by_bdat(&daemon, content.as_bytes())]
        {
            let stored = text(&stored(&daemon, &reply));
            let (ours, theirs) = stored.split_once("\r\n\r\n").expect("two sections");
            assert!(ours.contains("Authentication-Results: mx.example.test;"), "{stored}");
            assert!(!ours.contains("bank.test"), "{stored}");
            assert_eq!(theirs, content);
        }
    }
}

/// `ulimit -f` stands for a full disk: writing past it fails. Blocks are of 512 octets.
fn with_little_room(blocks: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh", BINARY]);
    command
}

#[test]
fn a_full_disk_defers_mail_and_loses_none() {
    let mut daemon = Setup::default().start();
    let subject = |number: usize| format!("number {number}");
    for number in 0..3 {
        let reply = mail_by_data(&daemon, &message(SENDER, &subject(number)));
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(daemon.stop().success());
    daemon.launch(with_little_room(4096));
    let mut accepted = 3;
    let refusal = loop {
        let mut large = message(SENDER, &subject(accepted));
        large.extend(b"a line that fills the disk\r\n".repeat(10_000));
        let reply = mail_by_data(&daemon, &large);
        if !reply.starts_with("250") {
            break reply;
        }
        accepted += 1;
        assert!(accepted < 100, "the limit has no effect");
    };
    assert!(refusal.starts_with("452 4.3.1"), "{refusal}");
    assert!(refusal.contains("[store-failure "), "{refusal}");
    // It goes on to serve: to defer, or to take what still fits.
    let reply = mail_by_data(&daemon, &message(SENDER, "after"));
    assert!(reply.starts_with("250") || reply.starts_with("452 4.3.1"), "{reply}");
    let is_after_accepted = reply.starts_with("250");
    daemon.kill();
    daemon.launch(Command::new(BINARY));
    let reply = mail_by_data(&daemon, &message(SENDER, "with room again"));
    assert!(reply.starts_with("250"), "{reply}");
    let mut expected: Vec<String> = (0..accepted).map(subject).collect();
    expected.extend(is_after_accepted.then(|| "after".to_owned()));
    expected.push("with room again".into());
    assert_eq!(daemon.mailbox("alice").len(), expected.len());
    for subject in &expected {
        assert_eq!(daemon.folders("alice", subject), ["INBOX"], "{subject}");
        assert_eq!(daemon.names(subject).len(), 2, "{subject}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn two_hundred_signatures_cost_no_more_than_ten() {
    let daemon = Setup::default().start();
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=good.test; s=demo; \
                     h=from; bh=AAAA; b=AAAA\r\n";
    let content =
        format!("{}From: a@plain.test\r\nSubject: signed\r\n\r\nx\r\n", signature.repeat(200));
    assert!(mail_by_data(&daemon, content.as_bytes()).starts_with("250"));
    let story = daemon.succeeds(&["events", "trace", ALICE, "--json"]);
    let story: serde_json::Value = serde_json::from_str(&story).expect("JSON");
    let signatures = story["story"]["authentication"]["dkim"].as_array().expect("a list").len();
    assert!(signatures <= 10, "{signatures}");
    assert_eq!(daemon.trace("signed")[0]["dkimVerdict"], "FAIL");
}

#[test]
fn loops_are_refused() {
    let daemon = Setup::default().start();
    let content = "Received: from a by b\r\n".repeat(101) + "\r\nx\r\n";
    let reply = mail_by_data(&daemon, content.as_bytes());
    assert!(reply.starts_with("554 5.4.6") && reply.contains("[too-many-hops "), "{reply}");
}

#[test]
fn a_client_that_talks_first_is_refused() {
    let sections = "[limits]\nbanner_delay_ms = 300\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut early = Client::open(daemon.address());
    early.send(b"EHLO early.test\r\n");
    let reply = early.reply();
    assert!(reply.starts_with("554 5.5.0") && reply.contains("[early-talker "), "{reply}");
}

#[test]
fn the_end_of_data_is_found_however_it_is_cut() {
    let daemon = Setup::default().start();
    let content = b"From: bob@good.test\r\nSubject: cut end\r\n\r\n.\r\nx\r\n";
    let wire = stuffed(content);
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for cut in 1..wire.len() {
        client.transaction(BOB, &[ALICE]);
        assert!(client.command("DATA").starts_with("354"));
        client.send(&wire[..cut]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        client.send(&wire[cut..]);
        assert!(client.reply().starts_with("250"), "cut at {cut}");
    }
    let stored = daemon.mailbox("alice");
    assert!(stored.iter().all(|(_, bytes)| below_our_headers(bytes) == content));
}
