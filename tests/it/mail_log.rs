//! The operational log: a line for each accepted message and for each outcome.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon, Setup, rule};
use crate::support::refusing_port;
use crate::support::remote::{Manners, Remote};
use crate::support::sending::{Submitter, prepared, queue, route, submit};
use crate::support::smtp::{Client, message};
use crate::support::wait_for;

const CAROL: &str = "carol@good.test";

const ORGANIZATION: &str = "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n\
     [[user]]\nname = \"red\"\n[[user.mailbox_rule]]\nname = \"r\"\naction = \"REDIRECT\"\n\
     to = \"bob@example.test\"\n";

fn daemon(log: &str, organization: &str, remote: &Remote) -> Daemon {
    let sections = log.to_owned()
        + "[queue]\nfirst_retry_s = 3600\nlongest_retry_s = 3600\n"
        + &route("far.test", remote.address.port())
        + &route("down.test", refusing_port());
    let mut daemon = prepared(Setup { sections, ..Setup::with(organization) });
    daemon.launch(Command::new(BINARY));
    daemon
}

fn send(daemon: &Daemon, to: &[&str], subject: &str) {
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, to);
    assert!(client.data(&message(CAROL, subject)).starts_with("250"));
}

/// The lines of mail without their time, once there are so many.
fn lines(daemon: &Daemon, count: usize) -> Vec<String> {
    wait_for(&format!("{count} lines"), || {
        let log = daemon.log();
        let of_mail = log.lines().filter_map(|line| Some(line.split_once(" mailweir::mail: ")?.1));
        let lines: Vec<_> = of_mail.map(str::to_owned).collect();
        assert!(lines.len() <= count, "{lines:#?}");
        (lines.len() == count).then_some(lines)
    })
}

/// A line that begins so and has all this in it.
#[track_caller]
fn check(lines: &[String], outcome: &str, parts: &[&str]) {
    let is_it = |line: &&String| {
        let begins = line.strip_prefix(outcome).is_some_and(|rest| rest.starts_with(" trace_id="));
        begins && parts.iter().all(|part| line.contains(part))
    };
    assert_eq!(lines.iter().filter(is_it).count(), 1, "{outcome} {parts:?} in {lines:#?}");
}

#[test]
fn accepted_messages_and_their_outcomes_are_lines() {
    let refuse = |address: &str, _| match address {
        "nobody@far.test" => "550 5.1.1 no such \x1b[2J user \u{202e}",
        "busy@far.test" => "450 4.2.1 busy",
        _ => "250 2.1.5 ok",
    };
    let remote = Remote::start(Manners { rcpt: refuse, ..Manners::default() });
    let organization =
        ORGANIZATION.to_owned() + &rule("no", "DROP", "good.test", "alice@example.test");
    let daemon = daemon("", &organization, &remote);
    send(&daemon, &["bob@example.test"], "one");
    let told = lines(&daemon, 2);
    let size = "size=";
    let id = "message_id=\"<one@good.test>\"";
    check(&told, "accepted", &["from=<carol@good.test>", "ip=127.0.0.1", "recipients=1", size, id]);
    assert!(!told[0].contains("user="), "{told:#?}");
    let from = "from=<carol@good.test>";
    check(&told, "delivered", &[from, "to=bob@example.test", size, "folder=INBOX"]);

    send(&daemon, &["alice@example.test", "bob@example.test"], "two");
    let told = lines(&daemon, 5);
    check(&told, "dropped", &[from, "to=alice@example.test", size, "rule=\"no\""]);

    // A redirect is sent on and not delivered, a remote user is not delivered to either.
    send(&daemon, &["red@example.test", "dave@example.test"], "three");
    let told = lines(&daemon, 11);
    check(
        &told,
        "sent on",
        &["to=red@example.test", "onward=bob@example.test", "onward_trace_id="],
    );
    check(&told, "sent on", &["to=dave@example.test", "onward=dave@far.test"]);
    check(&told, "queued", &["to=dave@far.test", "destination=\"far.test\""]);
    check(
        &told,
        "sent",
        &[
            "what=\"message\"",
            "id=",
            "to=dave@far.test",
            "remote=\"127.0.0.1\"",
            "reply=\"250 2.0.0 taken\"",
            "tls=\"none\"",
        ],
    );
    let place = |outcome: &str| told.iter().position(|line| line.starts_with(outcome));
    assert!(place("queued ") < place("sent trace_id"), "{told:#?}");
    let of_red = told.iter().filter(|line| line.contains("to=red@example.test"));
    assert!(of_red.clone().all(|line| line.starts_with("sent on")), "{told:#?}");

    submit(&daemon, &["nobody@far.test", "busy@far.test", "x@down.test"], "four");
    // Accepted, three queued, three outcomes, and a report that is not a message that came.
    let told = lines(&daemon, 19);
    let from = "from=<alice@example.test>";
    check(&told, "accepted", &[from, "recipients=3", "user=alice@example.test"]);
    let report = ["what=\"report\"", "about=", "to=alice@example.test", "folder=INBOX"];
    check(&told, "delivered", &report);
    check(&told, "bounced", &[from, "to=nobody@far.test", "failure=\"550 5.1.1 no such "]);
    check(&told, "deferred", &["to=busy@far.test", "failure=\"450 4.2.1 busy", "next_attempt=20"]);
    check(&told, "deferred", &["to=x@down.test", "failure=\"4.4.1 cannot connect"]);
    let log = daemon.log();
    assert!(!log.contains('\x1b') && !log.contains('\u{202e}'), "{log}");

    daemon.succeeds(&["queue", "drop", "--to", "busy@far.test"]);
    daemon.succeeds(&["queue", "drop", "--to", "down.test", "--bounce"]);
    let told = lines(&daemon, 22);
    check(&told, "dropped by the administrator", &["to=busy@far.test"]);
    check(&told, "bounced by the administrator", &["to=x@down.test", "failure=\"5.7.1 given up"]);
    assert!(queue(&daemon).is_empty());
}

#[test]
fn a_line_says_why_mail_is_junk_or_gone() {
    let remote = Remote::start(Manners::default());
    let organization = rule("junk", "MOVE_TO_JUNK", "good.test", "alice@example.test")
        + "[journaling]\njournaling_address = \"archive@example.test\"\n\
           report_address = \"admin@example.test\"\n"
        + &["MOVE", "DELETE"].map(|action| {
            let folder = if action == "MOVE" { "folder = \"JUNK_EMAIL\"\n" } else { "" };
            format!(
                "[[user]]\nname = \"{action}\"\n[[user.mailbox_rule]]\nname = \"own {action}\"\n\
                 action = \"{action}\"\n{folder}"
            )
        }).concat();
    let daemon = daemon("", &organization, &remote);
    let gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
    let to = ["alice@example.test", "move@example.test", "delete@example.test"];
    send(&daemon, &to, "one");
    let told = lines(&daemon, 5);
    let junk = "folder=JUNK_EMAIL";
    check(&told, "delivered", &["to=alice@example.test", junk, "rule=\"junk\""]);
    check(&told, "delivered", &["to=MOVE@example.test", junk, "rule=\"own MOVE\""]);
    check(&told, "dropped", &["to=DELETE@example.test", "rule=\"own DELETE\""]);
    let record = ["what=\"journal record\"", "about=", "to=archive@example.test", "folder=INBOX"];
    check(&told, "delivered", &record);
    let mut client = Client::connect(daemon.address());
    client.envelope(CAROL, &["bob@example.test"]);
    let spam = [message(CAROL, "two"), format!("{gtube}\r\n").into_bytes()].concat();
    assert!(client.data(&spam).starts_with("250"));
    let told = lines(&daemon, 8);
    check(&told, "delivered", &["to=bob@example.test", junk, "reason=\"spam-verdict\""]);
}

/// Also where a line says in words why something is refused.
#[test]
fn nobody_hides_in_a_line_of_text() {
    let remote = Remote::start(Manners::default());
    let daemon = daemon("", ORGANIZATION, &remote);
    let mut alice = Submitter::log_in(daemon.listener("submissions")).expect("logs in");
    alice.say("MAIL FROM:<\"a\u{202e}b\"@evil.test> SMTPUTF8\r\n", "550").expect("is refused");
    let log = wait_for("the refusal", || {
        let log = daemon.log();
        log.contains("MAIL is refused").then_some(log)
    });
    assert!(!log.contains('\u{202e}'), "{log}");
    assert!(log.contains(r"denied=a\u202eb@evil.test is in no domain"), "{log}");
}

#[test]
fn the_lines_have_the_same_fields_in_json() {
    let remote = Remote::start(Manners::default());
    let daemon = daemon("[log]\nformat = \"json\"\n", ORGANIZATION, &remote);
    let mut client = Client::connect(daemon.address());
    client.command("EHLO good.test");
    for command in [
        "MAIL FROM:<\"a \u{202e}b\"@good.test> SMTPUTF8",
        "RCPT TO:<nobody\u{202e}@example.test>",
        "RCPT TO:<bob@example.test>",
    ] {
        client.command(command);
    }
    assert!(client.data(&message(CAROL, "one")).starts_with("250"));
    send(&daemon, &["dave@example.test"], "two");
    let log = wait_for("the outcome", || {
        let log = daemon.log();
        log.contains("\"sent\"").then_some(log)
    });
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let fields = |what: &str| {
        let mut fields = lines.iter().map(|line| &line["fields"]);
        fields.find(|fields| fields["message"] == what).expect("a line")
    };
    assert_eq!(fields("accepted")["from"], "<\"a \\u{202e}b\"@good.test>");
    assert_eq!(fields("sent")["to"], "dave@far.test");
    assert_eq!(fields("sent")["reply"], "250 2.0.0 taken");
    assert!(fields("sent")["size"].is_u64(), "{lines:#?}");
    let about = fields("refused")["about"].as_str().expect("a text");
    assert!(about.starts_with("RCPT TO:<nobody\\u{202e}@example.test>"), "{about}");
    assert!(!log.contains('\u{202e}'), "{log}");
}

#[test]
fn the_lines_can_be_switched_off_with_a_reload() {
    let remote = Remote::start(Manners::default());
    let daemon = daemon("[log]\nmail = false\n", ORGANIZATION, &remote);
    send(&daemon, &["dave@example.test"], "one");
    wait_for("the message there", || (remote.taken().len() == 1).then_some(()));
    wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));
    assert!(!daemon.log().contains("mailweir::mail"), "{}", daemon.log());
    let file = std::fs::read_to_string(daemon.config()).expect("reads");
    let other = file.replace("mail = false", "mail = true");
    std::fs::write(daemon.config(), other).expect("writes");
    daemon.succeeds(&["reload"]);
    send(&daemon, &["bob@example.test"], "two");
    check(&lines(&daemon, 2), "delivered", &["to=bob@example.test"]);
}

/// Lines of mail wait a moment for others, and nobody is left to write them later.
#[test]
fn the_last_lines_are_there_when_the_daemon_has_ended() {
    for _ in 0..5 {
        let mut daemon = Setup::default().start();
        send(&daemon, &["bob@example.test"], "one");
        assert!(daemon.stop().success());
        let told = lines(&daemon, 2);
        check(&told, "accepted", &["recipients=1"]);
        check(&told, "delivered", &["to=bob@example.test"]);
    }
}

/// The log ends in a pipe that nobody reads, as behind a pager: mail is answered all the same, and the
/// daemon ends when it is told to.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut users = String::new();
    let mut recipients = Vec::new();
    for number in 0..90 {
        users.push_str(&format!("[[user]]\nname = \"u{number}\"\n"));
        recipients.push(format!("u{number}@example.test"));
    }
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let mut daemon = Setup::with(&users).prepare();
    let pipe = daemon.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("runs").success());
    let mut command = Command::new("sh");
    let redirected = format!("exec \"$0\" \"$@\" 2<>{}", pipe.display());
    command.args(["-c", &redirected, BINARY]);
    daemon.launch(command);
    // Some 150 octets for each recipient of each message: twice what pipe and daemon hold.
    for number in 0..60 {
        send(&daemon, &recipients, &format!("message {number}"));
    }
    assert_eq!(daemon.mailbox("u0").len(), 60);
    assert!(daemon.stop().success());
}
