//! The commands, as an administrator types them.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{BINARY, Setup, rule, text};
use crate::support::smtp::message;
use crate::support::swaks::swaks;
use crate::support::wait_for;

const ALICE: &str = "alice@example.test";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn check_config_tells_every_problem_and_exits_78() {
    let daemon = Setup::default().start();
    assert!(daemon.succeeds(&["check-config"]).contains("organization example: 7 users"));
    assert_eq!(json(&daemon.succeeds(&["check-config", "--json"]))["ok"], true);
    let bad = daemon.path("bad.toml");
    std::fs::write(&bad, "hostname = 3\nnonsense = 1\n[limits]\nerrors = 0\n").expect("writes");
    let output =
        Command::new(BINARY).args(["check-config", "--config"]).arg(&bad).output().expect("runs");
    let problems = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{problems}");
    for expected in [
        "bad.toml:1: hostname: expected a text, found a number",
        "bad.toml:2: nonsense: unknown key",
        "bad.toml:4: limits.errors: 0 is not between 1 and 10000",
        "organization: is missing",
    ] {
        assert!(problems.contains(expected), "{expected} is not in\n{problems}");
    }
    let serve = Command::new(BINARY).args(["serve", "--config"]).arg(&bad).output().expect("runs");
    assert_eq!(serve.status.code(), Some(78), "the daemon does not start on it");
    let usage = Command::new(BINARY).arg("nonsense").output();
    assert_eq!(usage.expect("runs").status.code(), Some(2));
}

#[test]
fn a_bad_zone_file_or_certificate_is_bad_configuration() {
    let daemon = Setup::default().start();
    std::fs::write(daemon.path("demo.zone"), "$TTL 60\nx.test. IN A 300.1.1.1\n").expect("writes");
    let output = daemon.command(&["check-config"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("demo.zone:2: "), "{}", text(&output.stderr));
}

#[test]
fn every_file_that_cannot_be_used_is_told_with_its_key() {
    let daemon = Setup::default().prepare();
    let config = daemon.path("files.toml");
    let organization = daemon.path("org.toml");
    std::fs::write(
        &organization,
        "alias = \"a\"\ndomains = [\"a.test\"]\n[[user]]\nname = \"u\"\n",
    )
    .expect("writes");
    std::fs::write(daemon.path("short.key"), "0123\n").expect("writes");
    let main = "hostname = \"mx.a.test\"\n[[organization]]\nfile = \"org.toml\"\n\
                [dns]\nzone_file = \"none.zone\"\n\
                [tls]\ncertificate = \"none.pem\"\nprivate_key = \"none.key\"\n\
                [store]\nmaster_key_file = \"short.key\"\n";
    std::fs::write(&config, main).expect("writes");
    for command in ["check-config", "serve"] {
        let output =
            Command::new(BINARY).args([command, "--config"]).arg(&config).output().expect("runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{command}: {told}");
        for expected in [
            "files.toml:5: dns.zone_file: ",
            "none.zone: cannot be read: ",
            "files.toml:7: tls.certificate: ",
            "files.toml:10: store.master_key_file: ",
            "short.key: a master key is 64 hexadecimal digits",
        ] {
            assert!(told.contains(expected), "{command}: {expected} is not in\n{told}");
        }
    }
}

#[test]
fn rules_test_tells_who_wins_and_why_the_others_lost() {
    let rules = [
        rule("spoofers", "DROP", "*.bad.test", "*"),
        rule("partner", "BYPASS_SPAM_CHECK", "ok.bad.test", "*"),
    ];
    let daemon = Setup::with(&rules.concat()).start();
    let ask = |sender: &str| {
        let arguments = ["rules", "test", "--sender", sender, "--recipient", ALICE, "--json"];
        json(&daemon.succeeds(&arguments))
    };
    let answer = ask("x@deep.bad.test");
    assert_eq!(answer["action"], "DROP");
    assert_eq!(answer["winner"]["name"], "spoofers");
    assert_eq!(answer["lost"][0]["loss"], "sender-does-not-match");
    let answer = ask("x@ok.bad.test");
    assert_eq!(answer["action"], "BYPASS_SPAM_CHECK");
    assert_eq!(answer["lost"][0]["loss"], "less-specific-sender");
    assert_eq!(ask("x@other.test")["action"], "DEFAULT");
    let told =
        daemon.succeeds(&["rules", "test", "--sender", "x@ok.bad.test", "--recipient", ALICE]);
    assert!(told.starts_with("BYPASS_SPAM_CHECK: rule \"partner\" wins"), "{told}");
    assert!(
        told.contains("not \"spoofers\" (DROP): its sender pattern is less specific"),
        "{told}"
    );
}

#[test]
fn rules_test_tells_of_outbound_rules_too() {
    let rules = "[[smtp_gateway]]\nname = \"filter\"\naddress = \"127.0.0.1\"\nport = 2526\n\
                 [[outbound_rule]]\nname = \"via-filter\"\naction = \"ROUTE_TO_SMTP_GATEWAY\"\n\
                 gateway = \"filter\"\nsenders = [\"*\"]\ndestinations = [\"partner.test\"]\n\
                 [[outbound_rule]]\nname = \"not-bob\"\naction = \"BOUNCE\"\n\
                 senders = [\"bob@example.test\"]\ndestinations = [\"*\"]\n";
    let daemon = Setup::with(&format!("{rules}{}", rule("in", "DROP", "*", "*"))).prepare();
    let told = daemon.succeeds(&["check-config"]);
    assert!(told.contains("1 inbound rule, 2 outbound rules, 1 SMTP gateway,"), "{told}");
    let ask = |sender: &str, recipient: &str, more: &[&str]| {
        let direction = ["rules", "test", "--direction", "outbound"];
        let addresses = ["--sender", sender, "--recipient", recipient];
        daemon.command(&[&direction, addresses.as_slice(), more].concat())
    };
    let answer = json(&text(&ask(ALICE, "x@partner.test", &["--json"]).stdout));
    assert_eq!(answer["action"], "ROUTE_TO_SMTP_GATEWAY");
    assert_eq!(answer["winner"]["name"], "via-filter");
    assert_eq!(answer["winner"]["gateway"], "filter");
    assert_eq!(answer["lost"][0]["action"], "BOUNCE");
    assert_eq!(answer["lost"][0]["loss"], "sender-does-not-match");
    let bob = "bob@example.test";
    let told = text(&ask(bob, "x@partner.test", &[]).stdout);
    assert_eq!(
        told,
        "BOUNCE: rule \"not-bob\" wins, its sender pattern bob@example.test matches From, its \
         destination pattern * the recipient\n  \
         not \"via-filter\" (ROUTE_TO_SMTP_GATEWAY \"filter\"): its sender pattern is less \
         specific\n"
    );
    let told = text(&ask(ALICE, "x@partner.test", &["--sender-field", bob]).stdout);
    assert!(told.starts_with("BOUNCE: rule \"not-bob\" wins"), "the Sender is asked first: {told}");
    let told = text(&ask(ALICE, "x@else.test", &[]).stdout);
    assert!(told.starts_with("DEFAULT: no rule matches\n"), "{told}");
    for (sender, why) in [
        ("x@else.test", "else.test is no organization's domain"),
        ("nobody@example.test", "there is no such user"),
        ("carol@example.test", "the user is disabled"),
    ] {
        let refused = ask(sender, ALICE, &[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
}

#[test]
fn rules_test_takes_both_fields() {
    let rules = rule("never", "BYPASS_SPAM_CHECK", "good.test", "*")
        + &rule("drop", "DROP", "evil.test", "*");
    let daemon = Setup::with(&rules).prepare();
    let ask = |more: &[&str]| {
        let command = ["rules", "test", "--recipient", ALICE];
        daemon.command(&[&command, more].concat())
    };
    let told = |more: &[&str]| text(&ask(more).stdout);
    let both = ["--sender", "s@good.test", "--from", "x@evil.test"];
    let forged = told(&both);
    assert!(
        forged.starts_with("DROP: rule \"drop\" wins, its sender pattern evil.test matches From")
    );
    assert!(
        forged.contains(
            "not \"never\" (BYPASS_SPAM_CHECK): it matches Sender, which is not authenticated, and \
             so may not relax what From comes to\n"
        ),
        "{forged}"
    );
    let other = "If the Sender is authenticated: BYPASS_SPAM_CHECK, rule \"never\" wins\n";
    assert!(forged.ends_with(other), "{forged}");
    let proven = told(&[&both[..], &["--sender-authenticated"]].concat());
    assert!(proven.starts_with("BYPASS_SPAM_CHECK: rule \"never\" wins"), "{proven}");
    assert!(proven.contains("not \"drop\" (DROP): it matches From, and Sender is matched first\n"));
    let other = "If the Sender is not authenticated: DROP, rule \"drop\" wins\n";
    assert!(proven.ends_with(other), "{proven}");
    // One author of several is enough; a single address is the author's.
    let several = told(&["--from", "x@plain.test", "--from", "x@evil.test"]);
    assert!(several.starts_with("DROP: rule \"drop\" wins"), "{several}");
    assert!(
        several.ends_with("because their domains are not one organization's [several-authors]\n")
    );
    let siblings = told(&["--from", "x@a.evil.test", "--from", "x@b.evil.test"]);
    assert!(siblings.ends_with("organizational domain for all of them [several-authors]\n"));
    let same = told(&["--from", "x@evil.test", "--from", "y@evil.test"]);
    assert!(!same.contains("several-authors"), "{same}");
    let one = told(&["--sender", "s@good.test"]);
    assert!(
        one.starts_with(
            "BYPASS_SPAM_CHECK: rule \"never\" wins, its sender pattern good.test matches From"
        ),
        "{one}"
    );
    assert!(!one.contains("If the Sender"), "{one}");
    assert_eq!(ask(&[]).status.code(), Some(2), "somebody must have written it");
}

#[test]
fn a_message_can_be_traced_by_id_message_id_and_recipient() {
    let daemon = Setup::with(&rule("junk", "MOVE_TO_JUNK", "good.test", "*")).start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["sales@example.test"]);
    assert!(client.data(&message("bob@good.test", "traced")).starts_with("250"));
    let trace_id = daemon.events()[0]["traceId"].as_str().expect("an id").to_owned();
    for id in
        [trace_id.as_str(), "<traced@good.test>", "traced@good.test", "SALES@example.test", ALICE]
    {
        let told = daemon.succeeds(&["events", "trace", id]);
        for expected in [
            trace_id.as_str(),
            "Subject: traced",
            "SPF pass for good.test",
            "rule \"junk\" (MOVE_TO_JUNK) matches From good.test and *",
            "mailbox alice through sales@example.test: JUNK_EMAIL",
            "MAILBOX_EMAIL_DELIVERED  alice@example.test JUNK_EMAIL",
        ] {
            assert!(told.contains(expected), "{id}: {expected} is not in\n{told}");
        }
        let trace = json(&daemon.succeeds(&["events", "trace", id, "--json"]));
        assert_eq!(trace["traceId"], trace_id);
        assert_eq!(trace["story"]["recipients"][0]["basis"]["rule"]["name"], "junk");
        assert_eq!(trace["events"].as_array().expect("a list").len(), 5);
    }
    let nothing = daemon.command(&["events", "trace", "nobody@nowhere.test"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn a_refusal_can_be_traced_by_the_id_in_its_reply() {
    let daemon = Setup::default().start();
    let refused = swaks(&daemon, "bob@good.test", "nobody@example.test", "x", &[]);
    let at = refused.text.find("[unknown-user ").expect("a refusal") + 14;
    let id = &refused.text[at..at + 36];
    let told = wait_for("the refusal's line", || {
        let output = daemon.command(&["events", "trace", id]);
        output.status.success().then(|| text(&output.stdout))
    });
    assert!(told.contains("RCPT TO:<nobody@example.test> from <bob@good.test>"), "{told}");
    assert!(told.contains("[unknown-user]"), "{told}");
}

#[test]
fn tail_prints_the_newest_events_and_follows() {
    let daemon = Setup::default().start();
    for number in 0..4 {
        swaks(&daemon, "bob@good.test", ALICE, &format!("s{number}"), &[]).accepted();
    }
    let all = daemon.events();
    let tail = daemon.succeeds(&["events", "tail", "-n", "3"]);
    let lines: Vec<Value> = tail.lines().map(json).collect();
    assert_eq!(lines, all[all.len() - 3..]);

    let out = daemon.path("followed");
    let mut follower = Command::new(BINARY)
        .args(["events", "tail", "-n", "0", "--follow", "--config"])
        .arg(daemon.config())
        .stdout(std::fs::File::create(&out).expect("creates"))
        .spawn()
        .expect("starts");
    std::thread::sleep(std::time::Duration::from_millis(500));
    swaks(&daemon, "bob@good.test", ALICE, "followed", &[]).accepted();
    wait_for("the followed events", || {
        let text = std::fs::read_to_string(&out).expect("reads");
        (text.lines().count() >= 2).then_some(())
    });
    follower.kill().expect("kills");
    follower.wait().expect("waits");
    let text = std::fs::read_to_string(&out).expect("reads");
    assert!(text.contains("\"followed\"") && text.lines().count() == 2, "{text}");
}

#[test]
fn a_mailbox_can_be_listed_shown_and_exported() {
    let daemon = Setup::default().start();
    swaks(&daemon, "bob@good.test", ALICE, "listed", &["--body", "the body"]).accepted();
    let list = daemon.succeeds(&["mailbox", "list", "alice"]);
    let inbox_line = list.lines().next().expect("a line");
    assert_eq!(inbox_line, "INBOX: 1 message");
    assert!(list.contains("listed") && list.contains("DELETED_ITEMS: 0 messages"), "{list}");
    let message = json(&daemon.succeeds(&["mailbox", "list", ALICE, "--json"]));
    assert_eq!(message["folder"], "INBOX");
    assert_eq!(message["subject"], "listed");
    let id = message["id"].as_str().expect("an id");
    let shown = daemon.succeeds(&["mailbox", "show", "example/alice", id]);
    for (wrong, expected) in [
        ("1f40.0.0.0", "it is not the id of a message, as `mailbox list` shows them"),
        ("<a@b.test>", "`events trace` finds a message by its Message-ID or its recipient"),
        (
            "01a1fcc6-f495-7318-b41b-e7a0da567d4f",
            "mailweir mailbox list alice shows which there are",
        ),
    ] {
        let told = text(&daemon.command(&["mailbox", "show", "alice", wrong]).stderr);
        assert!(told.contains(expected), "{wrong}: {told}");
    }
    assert!(
        shown.starts_with("Return-Path: <bob@good.test>\r\nReceived: from mail.good.test "),
        "{shown}"
    );
    assert!(shown.contains("the body"));
    assert_eq!(message["sizeBytes"].as_u64(), Some(shown.len() as u64));
    let mailboxes = daemon.succeeds(&["mailbox", "list"]);
    let first = mailboxes.lines().next().expect("a line");
    assert_eq!(first, format!("example/alice: {} bytes", shown.len()));
    assert_eq!(daemon.mailbox("alice")[0].1, shown.as_bytes());
    assert_eq!(daemon.command(&["mailbox", "list", "nobody"]).status.code(), Some(1));
}

#[test]
fn a_subject_begins_no_line_of_a_list() {
    let daemon = Setup::default().start();
    let subject = "=?utf-8?q?one=0D=0AINBOX:_9_messages=1B[2J?=";
    swaks(&daemon, "bob@good.test", "alice@example.test", subject, &[]).accepted();
    let list = daemon.succeeds(&["mailbox", "list", "alice"]);
    assert_eq!(list.lines().count(), 6, "five folders and a message: {list}");
    assert!(list.contains("bytes  one  INBOX: 9 messages [2J\n"), "{list}");
    let list = daemon.succeeds(&["mailbox", "list", "alice", "--json"]);
    assert_eq!(json(list.trim())["subject"], "one\r\nINBOX: 9 messages\u{1b}[2J");
}

#[test]
fn all_mailboxes_are_listed_also_those_without_mail() {
    let daemon = Setup::with("[[user]]\nname = \"dave\"\nremote = \"dave@else.test\"\n").start();
    swaks(&daemon, "bob@good.test", ALICE, "one", &[]).accepted();
    let list = daemon.succeeds(&["mailbox", "list"]);
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("example/alice: ") && lines[0] != "example/alice: 0 bytes");
    for expected in ["example/bob: 0 bytes", "example/carol: 0 bytes", "example/room: 0 bytes"] {
        assert!(lines.contains(&expected), "no {expected} in\n{list}");
    }
    assert!(!list.contains("dave"), "the mailbox is elsewhere: {list}");
    assert_eq!(lines.len(), 8, "each once: {list}");
}

#[test]
fn a_damaged_message_keeps_no_other_from_being_read() {
    let mut daemon = Setup::default().start();
    swaks(&daemon, "bob@good.test", ALICE, "harmed", &[]).accepted();
    swaks(&daemon, "bob@good.test", ALICE, "whole", &[]).accepted();
    assert!(daemon.stop().success());
    let segments = std::fs::read_dir(daemon.data().join("log")).expect("lists");
    let segment = segments.map(|it| it.expect("an entry").path()).min().expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("reads");
    let subject = bytes.windows(6).position(|it| it == b"harmed").expect("its event");
    bytes[subject..subject + 200].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(&segment, bytes).expect("writes");
    let out = daemon.path("out").display().to_string();
    for arguments in [&["mailbox", "list", "alice"][..], &["mailbox", "export", "alice", &out]] {
        let output = daemon.command(arguments);
        let (shown, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{shown}{told}");
        assert!(told.contains(": cannot be read: "), "{told}");
        assert!(told.contains("1 message cannot be read"), "{told}");
        assert!(shown.contains("whole") || shown.contains("1 message written"), "{shown}");
    }
    let files = std::fs::read_dir(daemon.path("out/INBOX")).expect("lists").count();
    assert_eq!(files, 1, "the other one is written");
}

#[test]
fn verify_gives_the_daemons_verdicts() {
    let daemon = Setup::default().start();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/messages/demo-good.eml");
    let arguments = |ip: &'static str| {
        ["verify", file, "--ip", ip, "--helo", "mail.good.test", "--mail-from", "bob@good.test"]
    };
    let told = daemon.succeeds(&arguments("127.0.0.1"));
    assert!(told.starts_with("SPF    PASS\nDKIM   PASS\nDMARC  PASS\n"), "{told}");
    assert!(told.contains("Authentication-Results: mx.example.test;"), "{told}");
    let told = daemon.succeeds(&arguments("192.0.2.1"));
    assert!(told.starts_with("SPF    FAIL\nDKIM   PASS\nDMARC  PASS\n"), "{told}");
}

#[test]
fn a_long_list_of_messages_is_written_at_once() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    for number in 0..30 {
        client.envelope("bob@good.test", &[ALICE]);
        let reply = client.data(&message("bob@good.test", &format!("m{number}")));
        assert!(reply.starts_with("250"), "{reply}");
    }
    let calls = daemon.path("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=write", "-o"]).arg(&calls).arg(BINARY);
    strace.args(["mailbox", "list", "alice", "--config"]).arg(daemon.config());
    let output = strace.output().expect("strace is installed by tests/setup.sh");
    let list = text(&output.stdout);
    assert_eq!(list.lines().count(), 35, "{list}{}", text(&output.stderr));
    let calls = std::fs::read_to_string(calls).expect("reads");
    let writes = calls.lines().filter(|call| call.contains("write(1,")).count();
    assert_eq!(writes, 1, "{calls}");
}

/// Runs the demo; what it prints, and what is left in its folder of temporary files.
fn demo(more: &[&str]) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().expect("a folder");
    let output = Command::new(BINARY)
        .arg("demo")
        .args(more)
        .env("TMPDIR", dir.path())
        .output()
        .expect("runs");
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    let left = std::fs::read_dir(dir.path())
        .expect("lists")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    (told, left.collect())
}

#[test]
fn the_demo_shows_all_it_promises() {
    let (told, _) = demo(&["--full"]);
    for expected in [
        "250 2.0.0 Accepted",
        "DKIM pass for good.test",
        "[dmarc-reject ",
        "alice    JUNK_EMAIL  Your parcel",
        "rule \"no-spoofers\" (DROP)",
        "[rule-bounce ",
        "mailbox bob through verkauf@example.org: INBOX",
    ] {
        assert!(told.contains(expected), "{expected} is not in\n{told}");
    }
}

#[test]
fn the_demo_ends_with_a_summary_and_leaves_nothing() {
    let (told, left) = demo(&[]);
    assert!(left.is_empty(), "{left:?} is left");
    assert!(!told.contains("\ntrace "), "whole stories are for --full:\n{told}");
    let (_, summary) = told.split_once("\nWhat became of each message\n").expect("a summary");
    let mut titles = summary.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    for number in 1..=9 {
        let title = titles.next().expect("a title for each message");
        assert!(title.starts_with(&format!("{number}. ")), "{title}");
    }
    assert_eq!(titles.next(), None);
    for expected in [
        "   alice@example.test: bounced [dmarc-reject], because ",
        "   erin@elsewhere.test: sent\n",
        "   nobody@elsewhere.test: bounced, 5.1.1 No such user here",
    ] {
        assert!(summary.contains(expected), "{expected} is not in\n{summary}");
    }
    assert!(told.ends_with("The demo's files are removed; --keep leaves them to look at.\n"));
    let (told, left) = demo(&["--keep"]);
    let log = told.lines().find_map(|line| line.strip_prefix("Event log: ")).expect("a path");
    assert!(log.contains(&left[0]), "{log} is not in {left:?}");
}

#[test]
fn the_demo_leaves_a_folder_that_is_named_and_none_that_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = dir.path().join("own");
    demo(&["--dir", &own.display().to_string()]);
    assert!(own.join("data/events/email-events.jsonl").exists());
    // A folder of temporary files that is none: nothing is made, and the reason is told.
    let output = Command::new(BINARY).arg("demo").env("TMPDIR", dir.path().join("none")).output();
    let output = output.expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No such file"), "{}", text(&output.stderr));
}

#[test]
fn the_demo_shows_mail_that_leaves() {
    let (told, _) = demo(&["--full"]);
    let (told, _) = told.split_once("\nMailboxes\n").expect("the stories come before");
    let stories: Vec<_> = ["\n7. ", "\n8. ", "\n9. "]
        .map(|title| told.rfind(title).unwrap_or_else(|| panic!("no {title} in\n{told}")))
        .into_iter()
        .chain([told.len()])
        .collect();
    let check = |number: usize, expected: &[&str]| {
        let story = &told[stories[number]..stories[number + 1]];
        for expected in expected {
            assert!(story.contains(expected), "{expected} is not in\n{story}");
        }
    };
    assert!(told.contains("alice@example.test logs in at 127.0.0.1:"), "{told}");
    check(
        0,
        &[
            "logged in as alice",
            "received here in trace ",
            "mailbox bob: INBOX",
            "OUTGOING_EMAIL_SENT  erin@elsewhere.test",
            "SPF pass for example.test",
            "DKIM pass for example.test",
            "mailbox erin: INBOX",
        ],
    );
    check(
        1,
        &[
            "OUTGOING_EMAIL_BOUNCED  nobody@elsewhere.test 5.1.1",
            "reported to alice@example.test in trace ",
            "Your message \"Are you there?\" could not be delivered to:",
            "Final-Recipient: rfc822; nobody@elsewhere.test",
            "Action: failed",
        ],
    );
    check(
        2,
        &[
            "queued for SMTP gateway filter, because rule \"via-filter\"",
            "OUTGOING_EMAIL_SENT  buyer@partner.test",
            "mailbox buyer: INBOX",
        ],
    );
}

#[test]
fn the_demo_can_print_traces_alone() {
    let (told, _) = demo(&["--json"]);
    let traces: Vec<Value> = told.lines().map(json).collect();
    let has = |name: &str| {
        let mut events = traces.iter().filter_map(|trace| trace["events"].as_array()).flatten();
        events.any(|event| event["event"]["eventName"] == name)
    };
    assert!(traces.iter().all(|trace| trace["traceId"].is_string()), "{told}");
    for name in ["DMARC_POLICY_APPLIED", "OUTGOING_EMAIL_SENT", "OUTGOING_EMAIL_BOUNCED"] {
        assert!(has(name), "no {name} in\n{told}");
    }
}

/// Other servers' words lead to ours, and what was given does not look like what has to be.
#[test]
fn wrong_usage_says_what_is_right() {
    let daemon = Setup::default().prepare();
    let output = daemon.command(&["queue", "flush"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let usage =
        "Usage: mailweir queue retry [--config <FILE>] <IDS|--all|--to <ADDRESS-OR-DOMAIN>>\n";
    assert!(told.contains(usage), "{told}");
    let output = daemon.command(&["queue", "list", "--nonsense"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("unexpected argument '--nonsense' found"), "{told}");
}
