//! What users may not send: to more people outside than their quotas allow in a day (guide
//! 3425–3450), and files of the kinds that are not sent (the guide of 2016, "Unsupported Attachment
//! Types").

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::outbound::{ALICE, BOB, prepared, submit, submit_as};
use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::swaks::{Transcript, swaks};
use crate::support::{faketime, refusing_port};

/// A daemon with keys of its organization before the first table, and with more after the last.
/// Mail for outside waits, which counts as well.
fn daemon(keys: &str, more: &str) -> Daemon {
    let mut setup = Setup::with_keys(keys);
    setup.organization.push_str(more);
    let mut daemon = prepared(setup, refusing_port());
    daemon.launch(Command::new(BINARY));
    daemon
}

const USERS_QUOTA: (&str, &str) =
    ("550 5.4.5 You have written to too many recipients today", "user-quota-exceeded");
const ORGANIZATIONS_QUOTA: (&str, &str) = (
    "550 5.4.5 Your organization has written to too many recipients today",
    "organization-quota-exceeded",
);
const BLOCKED: (&str, &str) =
    ("550 5.7.1 An attachment is of a kind that may not be sent", "blocked-attachment");

/// A refused message is told as submitted, and as bounced for each of its recipients.
fn is_told_as_bounced(daemon: &Daemon, subject: &str, to: &[&str], (reply, _): (&str, &str)) {
    let trace = daemon.trace(subject);
    assert_eq!(trace[0]["eventName"], "OUTGOING_EMAIL_SUBMITTED");
    let bounced: Vec<&Value> =
        trace[1..].iter().map(|event| &event["bouncedRecipient"]["emailAddress"]).collect();
    assert_eq!(bounced, to);
    for event in &trace[1..] {
        assert_eq!(event["eventName"], "OUTGOING_EMAIL_BOUNCED");
        let told = &event["bouncedRecipient"];
        let text = |key: &str| told[key].as_str().expect("a text").to_owned();
        assert_eq!(format!("550 {} {}", text("status"), text("reason")), reply);
    }
}

#[test]
fn a_user_writes_to_so_many_outside_in_a_day_and_no_more() {
    let rule = "[[outbound_rule]]\nname = \"no\"\naction = \"BOUNCE\"\nsenders = [\"*\"]\n\
                destinations = [\"not@far.test\"]\n";
    let mut daemon = daemon("recipients_per_user_per_day = 3", rule);
    let two = "carol@far.test,dave@far.test";
    submit(&daemon, &format!("{two},{BOB}"), "two of three", &[]).accepted();
    submit(&daemon, &format!("{two},{BOB}"), "one too many", &[])
        .refused(USERS_QUOTA.0, USERS_QUOTA.1);
    let all = ["carol@far.test", "dave@far.test", BOB];
    is_told_as_bounced(&daemon, "one too many", &all, USERS_QUOTA);
    assert!(daemon.folders("bob", "one too many").is_empty(), "it is refused for everybody");

    // Neither that one counts nor one refused by a rule, for its author or for its attachment.
    submit(&daemon, "not@far.test", "by a rule", &[]).refused("550 5.7.1", "outbound-rule-bounce");
    let as_bob = format!("From: {BOB}");
    submit(&daemon, "carol@far.test", "as bob", &["--header", &as_bob])
        .refused("550 5.7.1", "sender-not-allowed");
    let attach = ["--attach-name", "a.exe", "--attach", "x"];
    submit(&daemon, "carol@far.test", "a file", &attach).refused(BLOCKED.0, BLOCKED.1);
    submit(&daemon, "carol@far.test", "three of three", &[]).accepted();

    daemon.kill();
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "carol@far.test", "after a crash", &[]).refused(USERS_QUOTA.0, USERS_QUOTA.1);
    submit(&daemon, BOB, "inside", &[]).accepted();
    submit_as(&daemon, BOB, two, "from bob", &[]).accepted();
    assert_eq!(daemon.folders("bob", "inside"), ["INBOX"]);
}

#[test]
fn a_user_writes_to_so_many_mailboxes_here_in_a_day_and_no_more() {
    let group = "[[group]]\nname = \"all\"\nemail = \"all@example.test\"\n\
                 members = [\"alice\", \"bob\"]\n";
    let keys = "inside_recipients_per_user_per_day = 4\nrecipients_per_user_per_day = 3";
    let mut daemon = daemon(keys, group);
    let inside = (
        "550 5.4.5 You have written to too many mailboxes of your organization today",
        "inside-quota-exceeded",
    );
    // However many ways lead to a mailbox, a message is for it once.
    submit(&daemon, "all@example.test,bob@example.test,all+x@example.test", "two", &[]).accepted();
    submit(&daemon, "bob+y@example.test,bob@example.test", "for bob", &[]).accepted();
    submit(&daemon, "all@example.test", "two more", &[]).refused(inside.0, inside.1);
    is_told_as_bounced(&daemon, "two more", &["all@example.test"], inside);
    submit(&daemon, "carol@far.test", "outside", &[]).accepted();
    submit_as(&daemon, BOB, "all@example.test", "from bob", &[]).accepted();
    submit(&daemon, BOB, "the fourth", &[]).accepted();
    daemon.kill();
    daemon.launch(Command::new(BINARY));
    submit(&daemon, BOB, "after a crash", &[]).refused(inside.0, inside.1);
}

/// What rules send on of a user's message counts for that user, each mailbox once; what they send on
/// of a stranger's is nobody's, so nobody outside can use up what a user may write.
#[test]
fn what_rules_send_on_to_users_here_counts_for_the_user_who_wrote_it() {
    let forward = |name: &str, to: &str| {
        format!("[[user.mailbox_rule]]\nname = \"{name}\"\naction = \"FORWARD\"\nto = \"{to}\"\n")
    };
    let organization = format!(
        "[[user]]\nname = \"erin\"\n{}{}[[user]]\nname = \"frank\"\n\
         [[group]]\nname = \"all\"\nmembers = [\"alice\", \"bob\", \"frank\"]\n",
        forward("to-all", "all@example.test"),
        forward("to-frank", "frank@example.test"),
    );
    let daemon = daemon("inside_recipients_per_user_per_day = 5", &organization);
    let erin = "erin@example.test";
    for number in 0..3 {
        let subject = format!("stranger {number}");
        swaks(&daemon, "bob@good.test", erin, &subject, &[]).accepted();
        assert_eq!(daemon.folders("frank", &subject), ["INBOX"]);
    }
    // Erin and bob, to whom it is written; alice and frank, to whom it goes on.
    submit(&daemon, "erin@example.test,bob@example.test", "four", &[]).accepted();
    assert_eq!(daemon.folders("frank", "four"), ["INBOX"]);
    submit(&daemon, erin, "the fifth", &[]).accepted();
    assert_eq!(daemon.folders("erin", "the fifth"), ["INBOX"]);
    assert!(daemon.folders("frank", "the fifth").is_empty(), "no more is sent on");
    submit(&daemon, BOB, "the sixth", &[])
        .refused("550 5.4.5 You have written to too many mailboxes", "inside-quota-exceeded");
    submit_as(&daemon, BOB, erin, "of bob", &[]).accepted();
    assert_eq!(daemon.folders("frank", "of bob"), ["INBOX"]);
}

#[test]
fn an_organization_writes_to_so_many_outside_in_a_day_and_no_more() {
    let mut daemon = daemon("recipients_per_day = 3", "");
    submit(&daemon, "carol@far.test,dave@far.test", "from alice", &[]).accepted();
    submit_as(&daemon, BOB, "carol@far.test,dave@far.test", "too many", &[])
        .refused(ORGANIZATIONS_QUOTA.0, ORGANIZATIONS_QUOTA.1);
    let two = ["carol@far.test", "dave@far.test"];
    is_told_as_bounced(&daemon, "too many", &two, ORGANIZATIONS_QUOTA);
    submit_as(&daemon, BOB, "carol@far.test", "from bob", &[]).accepted();
    assert!(daemon.stop().success());
    daemon.launch(Command::new(BINARY));
    for user in [ALICE, BOB] {
        submit_as(&daemon, user, "carol@far.test", "after a restart", &[])
            .refused(ORGANIZATIONS_QUOTA.0, ORGANIZATIONS_QUOTA.1);
    }
    submit(&daemon, BOB, "inside", &[]).accepted();

    assert!(daemon.stop().success());
    let mut tomorrow = Command::new(BINARY);
    tomorrow.env("LD_PRELOAD", faketime()).env("FAKETIME", "+1d").env("DONT_FAKE_MONOTONIC", "1");
    daemon.launch(tomorrow);
    submit(&daemon, "carol@far.test,dave@far.test", "a new day", &[]).accepted();
}

#[test]
fn the_limits_of_every_message_hold_for_users_as_well() {
    let daemon = daemon("", "");
    let to: Vec<_> = (0..501).map(|number| format!("bob+{number}@example.test")).collect();
    let transcript = submit(&daemon, &to.join(","), "for many", &[]).accepted();
    let refused = |line: &&str| line.contains("452 4.5.3") && line.contains("too-many-recipients");
    assert_eq!(transcript.text.lines().filter(refused).count(), 1, "{}", transcript.text);
    assert!(transcript.text.contains("SIZE 41943040"), "{}", transcript.text);
    let recipients = daemon.trace("for many")[0]["recipients"].as_array().map(Vec::len);
    assert_eq!(recipients, Some(500));

    let files = |count: usize| {
        let part = "--b\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nx\r\n";
        let head = "Content-Type: multipart/mixed; boundary=b\r\n";
        format!("From: {ALICE}\r\nSubject: x\r\n{head}\r\n{}--b--\r\n", part.repeat(count))
    };
    send(&daemon, "few files", &files(500)).accepted();
    send(&daemon, "many files", &files(501)).refused("552 5.6.0", "too-many-attachments");
    assert!(daemon.folders("bob", "many files").is_empty());
}

#[test]
fn another_spelling_of_an_address_does_not_lead_past_a_rule() {
    let rule = |name: &str, sender: &str, destination: &str| {
        format!(
            "[[outbound_rule]]\nname = \"{name}\"\naction = \"BOUNCE\"\n\
             senders = [\"{sender}\"]\ndestinations = [\"{destination}\"]\n"
        )
    };
    let rules = [
        rule("alice", ALICE, "partner.test"),
        rule("boss", "*", "boss@competitor.test"),
        rule("bob", "*", BOB),
    ];
    let daemon = daemon("", &rules.concat());
    let from = |author: &str| format!("From: {author}");
    for (number, author) in
        [ALICE, "alice+x@example.test", "\"alice\"@example.test"].iter().enumerate()
    {
        let subject = format!("author {number}");
        submit(&daemon, "x@partner.test", &subject, &["--header", &from(author)])
            .refused("550 5.7.1", "outbound-rule-bounce");
        submit(&daemon, "x@far.test", &subject, &["--header", &from(author)]).accepted();
    }
    for (number, recipient) in
        [r#""\boss"@competitor.test"#, r#""b\oss"@competitor.test"#, "bob+x@example.test"]
            .iter()
            .enumerate()
    {
        submit(&daemon, recipient, &format!("recipient {number}"), &[])
            .refused("550 5.7.1", "outbound-rule-bounce");
    }
}

#[test]
fn a_message_that_others_take_for_somebody_elses_is_not_sent() {
    let daemon = daemon("", "");
    for author in [
        format!("ceo@example.test <> <{ALICE}>"),
        format!("ceo@example.test, {ALICE} <>"),
        format!("ceo@example.test: {ALICE};"),
        format!("=?utf-8?q?ceo=40example=2Etest=2C?= {ALICE}"),
        format!("\"ceo@example.test,\" {ALICE}"),
        format!("{ALICE} (<ceo@example.test>"),
    ] {
        submit(&daemon, BOB, "forged", &["--header", &format!("From: {author}")])
            .refused("550 5.7.1", "unreadable-author");
    }
    assert!(daemon.mailbox("bob").is_empty());
}

/// A message with one attachment whose header fields are these.
fn with_part(fields: &str, content: &str) -> String {
    format!(
        "From: <{ALICE}>\r\nTo: <{BOB}>\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee the file.\r\n--b\r\n\
         {fields}\r\n\r\n{content}\r\n--b--\r\n"
    )
}

fn named(parameter: &str) -> String {
    with_part(&format!("Content-Disposition: attachment; {parameter}"), "MZ")
}

fn send(daemon: &Daemon, subject: &str, message: &str) -> Transcript {
    let file = daemon.path("message.eml");
    fs::write(&file, message).expect("writes");
    let data = format!("@{}", file.display());
    submit(daemon, &format!("carol@far.test,{BOB}"), subject, &["--data", &data, "--suppress-data"])
}

#[test]
fn files_of_kinds_that_are_not_sent_go_nowhere_however_they_are_named() {
    let daemon = daemon("", "");
    let nested = with_part("Content-Type: message/rfc822", &named("filename=\"a.vbs\""));
    for (subject, message) in [
        ("plain", named("filename=tool.exe")),
        ("upper case", named("filename=\"My Tool.EXE\"")),
        ("last on the list", named("filename=a.xnk")),
        ("rfc 2231", named("filename*=utf-8''%C3%BCber%2Eexe")),
        ("continued", named("filename*0=\"long.\";\r\n filename*1=\"scr\"")),
        ("rfc 2047", named("filename=\"=?utf-8?b?YS5leGU=?=\"")),
        ("by type", with_part("Content-Type: application/octet-stream; name=a.js", "x")),
        ("nested", with_part("Content-Type: message/rfc822", &nested)),
    ] {
        send(&daemon, subject, &message).refused(BLOCKED.0, BLOCKED.1);
        is_told_as_bounced(&daemon, subject, &["carol@far.test", BOB], BLOCKED);
    }
    assert!(daemon.mailbox("bob").is_empty());
    assert!(daemon.succeeds(&["queue", "list"]).contains("queue is empty"));
    for (subject, message) in [
        ("a report", named("filename=report.pdf")),
        ("an archive", named("filename=exe.zip")),
        ("in words", with_part("Content-Type: text/plain", "begin with a.exe")),
    ] {
        send(&daemon, subject, &message).accepted();
        assert_eq!(daemon.folders("bob", subject), ["INBOX"]);
    }
    let attach = ["--attach-name", "a.exe", "--attach", "x"];
    swaks(&daemon, "bob@good.test", BOB, "from outside", &attach).accepted();
    assert_eq!(daemon.folders("bob", "from outside"), ["INBOX"], "the list is for senders");
}

#[test]
fn a_message_that_can_be_taken_apart_in_two_ways_goes_nowhere() {
    const MALFORMED: (&str, &str) =
        ("550 5.6.0 The parts of the message can be read in more than one way", "malformed-mime");
    let twice = with_part("Content-Type: text/plain\r\nContent-Type: text/html", "x");
    let encoded = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64";
    let encoded = with_part(encoded, "U3ViamVjdDogeA0KDQp4: no base64");
    let boundaries = named("filename=a.txt").replace("boundary=b", "boundary=c; boundary=b");
    let messages = [("twice", twice), ("encoded", encoded), ("boundaries", boundaries)];
    let blocking = daemon("", "");
    for (subject, message) in &messages {
        send(&blocking, subject, message).refused(MALFORMED.0, MALFORMED.1);
        is_told_as_bounced(&blocking, subject, &["carol@far.test", BOB], MALFORMED);
    }
    assert!(blocking.mailbox("bob").is_empty());
    let none = daemon("blocked_attachments = []", "");
    for (subject, message) in &messages {
        send(&none, subject, message).accepted();
    }
}

/// An attached `.eml` in base64, as ticket systems and PHPMailer write it, is looked into; and who
/// wrote the message is told which part is meant, and finds it in log and story.
#[test]
fn an_attached_message_in_base64_is_sent_unless_a_file_in_it_is_blocked() {
    let daemon = daemon("", "");
    let fields = "Content-Type: message/rfc822; name=\"mail.eml\"\r\n\
                  Content-Transfer-Encoding: base64\r\n\
                  Content-Disposition: attachment; filename=\"mail.eml\"";
    let ticket = with_part(fields, "RnJvbTogYUBiLnRlc3QNClN1YmplY3Q6IHgNCg0KaGVsbG8NCg==");
    send(&daemon, "ticket", &ticket).accepted();
    assert_eq!(daemon.folders("bob", "ticket"), ["INBOX"]);
    // printf 'Content-Type: application/x; name=a.exe\r\n\r\nMZ\r\n' | base64
    let hidden = "Q29udGVudC1UeXBlOiBhcHBsaWNhdGlvbi94OyBuYW1lPWEuZXhlDQoNCk1aDQo=";
    let broken = with_part("Content-Type: text/plain; name=a.txt\r\nContent-Type: x/y", "x");
    for (subject, message, (reply, word), place) in [
        ("hidden", with_part(fields, hidden), BLOCKED, "part 2.1 \"a.exe\""),
        ("plain", named("filename=b.exe"), BLOCKED, "part 2 \"b.exe\""),
        ("broken", broken, ("550 5.6.0", "malformed-mime"), "part 2"),
    ] {
        let transcript = send(&daemon, subject, &message).refused(reply, word);
        assert!(transcript.text.contains(&format!(": {place}")), "{}", transcript.text);
        let (_, rest) = transcript.text.split_once(&format!("[{word} ")).expect("a refusal");
        let (id, _) = rest.split_once(']').expect("an id");
        let story = daemon.succeeds(&["events", "trace", id]);
        assert!(story.contains(&format!("[{word}] for {place}")), "no {place} in {story}");
        let log = daemon.log().replace("\\\"", "\"");
        assert!(log.contains(&format!(": {place}")), "no {place} in {log}");
    }
    assert_eq!(daemon.mailbox("bob").len(), 1);
}

#[test]
fn what_mail_programs_write_is_sent_unless_a_file_in_it_is_blocked() {
    let daemon = daemon("", "");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/messages/clients");
    for program in ["outlook", "gmail", "nodemailer", "python-email", "scanner", "suffixed"] {
        let message = fs::read_to_string(format!("{folder}/{program}.eml")).expect("reads");
        send(&daemon, program, &message).accepted();
        assert_eq!(daemon.folders("bob", program), ["INBOX"]);
        // The German for overview, and everybody else's words.
        let blocked = message.replace("w5xiZXJzaWNodC5wZGY=", "w5xiZXJzaWNodC5leGU=");
        send(&daemon, "blocked", &blocked.replace(".pdf", ".exe")).refused(BLOCKED.0, BLOCKED.1);
    }
    assert!(daemon.folders("bob", "blocked").is_empty());
}

#[test]
fn an_organization_has_its_own_list_of_kinds_or_none() {
    let own = daemon("blocked_attachments = [\"zip\", \".Docm\"]", "");
    send(&own, "zip", &named("filename=a.zip")).refused(BLOCKED.0, BLOCKED.1);
    send(&own, "docm", &named("filename=a.DOCM")).refused(BLOCKED.0, BLOCKED.1);
    send(&own, "exe", &named("filename=a.exe")).accepted();
    let none = daemon("blocked_attachments = []", "");
    send(&none, "exe", &named("filename=a.exe")).accepted();
    assert_eq!(none.folders("bob", "exe"), ["INBOX"]);
}
