//! The outbound queue when the disk is full, when DNS does not answer, and when its settings change
//! while it waits.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::support::daemon::{BINARY, Daemon, Setup, ZONE};
use crate::support::dns::{Responder, encode, reply, servers};
use crate::support::postfix::{Postfix, certificate};
use crate::support::remote::{Manners, Remote};
use crate::support::sending::{
    Submitter, delivered, outcomes, prepared, queue, route, started, submit, waiting,
};
use crate::support::{refusing_port, strace, wait_for};

const CAROL: &str = "carol@far.test";

/// While the log cannot be written, submissions are deferred, and the outcome of what has left is
/// kept until there is room: it is not sent again because of that.
#[test]
fn a_full_disk_defers_submissions_and_doubles_nothing() {
    let remote = Remote::start(Manners::default());
    let sections = route("far.test", remote.address.port());
    let mut daemon = prepared(Setup { sections, ..Setup::default() });
    daemon.introduce();
    let log = daemon.data().join("log/0000000000000000.log");
    // The first record is a message, the next ones find no room: its outcome, and more messages.
    daemon.launch(strace::with_fault("writev", &[log], "error=ENOSPC", "2..8"));
    submit(&daemon, &[CAROL], "number 0");
    wait_for("an outcome without room", || {
        daemon.log().contains("an outcome cannot be recorded").then_some(())
    });
    let mut alice = Submitter::log_in(daemon.listener("submissions")).expect("logs in");
    let mut replies = Vec::new();
    for number in 1..20 {
        let subject = format!("number {number}");
        replies.push(alice.submit(&[CAROL], &subject).expect("a reply"));
        let taken = replies.iter().filter(|reply| reply.starts_with("250")).count();
        if taken == 2 {
            break;
        }
    }
    drop(alice);
    let deferred = replies.iter().filter(|reply| reply.starts_with("452 4.3.1")).count();
    assert!(deferred > 0 && deferred + 2 == replies.len(), "{replies:?}");
    wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));

    let mut expected = vec!["number 0".to_owned()];
    let numbered = replies.iter().zip(1..).filter(|(reply, _)| reply.starts_with("250"));
    expected.extend(numbered.map(|(_, number)| format!("number {number}")));
    let mut taken: Vec<_> = remote.taken().into_iter().map(|taken| taken.subject).collect();
    taken.sort_by_key(|subject| expected.iter().position(|expected| expected == subject));
    assert_eq!(taken, expected, "what was acknowledged left once, and nothing else");
    for subject in &expected {
        assert_eq!(outcomes(&daemon, subject, 1), [format!("sent {CAROL}")]);
    }
    assert!(daemon.stop().success());
    let report = daemon.succeeds(&["fsck"]);
    assert!(report.ends_with("sound\n"), "{report}");
}

/// An outcome is written, synced, then told. Whenever the daemon ends within that, the next one
/// tells it once, and sends again only what was not written.
#[test]
fn an_end_within_the_record_of_an_outcome_doubles_only_what_was_not_written() {
    for (call, times) in [("writev", 2), ("fdatasync", 1), ("write", 1)] {
        let remote = Remote::start(Manners::default());
        let sections = route("far.test", remote.address.port());
        let mut daemon = prepared(Setup { sections, ..Setup::default() });
        daemon.introduce();
        let files = ["log/0000000000000000.log", "events/email-events.jsonl"];
        let files = files.map(|file| daemon.data().join(file));
        // The first time is the message's own record.
        daemon.launch(strace::with_fault(call, &files, "signal=KILL", "2"));
        submit(&daemon, &[CAROL], "once");
        assert!(daemon.ends_within(Duration::from_secs(10)), "before {call}");
        daemon.launch(Command::new(BINARY));
        wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));
        assert!(daemon.stop().success());
        assert_eq!(remote.taken().len(), times, "before {call}");
        assert_eq!(outcomes(&daemon, "once", 1), [format!("sent {CAROL}")], "before {call}");
        let report = daemon.succeeds(&["fsck"]);
        assert!(report.ends_with("sound\n"), "{report}");
    }
}

/// A daemon that looks for far.test in DNS, where mail hosts listen at this port.
fn looking(dns: String, port: u16, zone: &str) -> Daemon {
    let setup = Setup {
        dns,
        zone: format!("{ZONE}{zone}"),
        sections: format!(
            "[queue]\nport = {port}\naddresses = \"ipv4-only\"\nprivate_networks = true\n"
        ),
        ..Setup::default()
    };
    let mut daemon = prepared(setup);
    daemon.launch(Command::new(BINARY));
    daemon
}

/// far.test, whose mail host is this machine.
fn far(query: &Message) -> Option<Vec<u8>> {
    let question = query.queries.first()?;
    let name = question.name();
    let record = |data| Record::from_rdata(name.clone(), 60, data);
    let is = |text: &str| Name::from_ascii(text).is_ok_and(|it| it == *name);
    let (code, answers) = match question.query_type() {
        RecordType::MX if is("far.test.") => {
            let host = Name::from_ascii("mx.far.test.").expect("a name");
            (ResponseCode::NoError, vec![record(RData::MX(MX::new(10, host)))])
        }
        RecordType::A if is("mx.far.test.") => {
            (ResponseCode::NoError, vec![record(RData::A(A::new(127, 0, 0, 1)))])
        }
        _ => (ResponseCode::NXDomain, Vec::new()),
    };
    encode(reply(query, code, answers))
}

#[test]
fn dns_that_fails_defers_until_it_answers() {
    let remote = Remote::start(Manners::default());
    let is_well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_well);
    let dns = Responder::start(move |query| {
        if answers.load(SeqCst) {
            return far(query);
        }
        encode(reply(query, ResponseCode::ServFail, Vec::new()))
    });
    let daemon = looking(servers(dns.address), remote.address.port(), "");
    submit(&daemon, &[CAROL], "where to");
    let entry = waiting(&daemon, "4.4.3 DNS has no answer for far.test");
    assert_eq!(entry["recipients"], serde_json::json!([CAROL]));
    assert_eq!(outcomes(&daemon, "where to", 0), [""; 0], "neither sent nor bounced");
    assert!(daemon.mailbox("alice").is_empty());
    is_well.store(true, SeqCst);
    // The answer that there is none is kept for a second.
    wait_for("an attempt after DNS has come back", || {
        daemon.command(&["queue", "retry", entry["id"].as_str().expect("an id")]);
        (!remote.taken().is_empty()).then_some(())
    });
    assert_eq!(outcomes(&daemon, "where to", 1), [format!("sent {CAROL}")]);
    assert_eq!(remote.taken().len(), 1);
}

#[test]
fn a_domain_that_does_not_exist_or_wants_no_mail_bounces_at_once() {
    let zone = "null.test. IN MX 0 .\nempty.test. IN TXT \"no host\"\n\
                homeless.test. IN MX 10 nowhere.homeless.test.\n";
    let daemon = looking("zone_file = \"demo.zone\"".into(), refusing_port(), zone);
    for (domain, status, reason) in [
        ("missing.test", "5.1.2", "the domain missing.test does not exist"),
        ("null.test", "5.1.10", "the domain null.test does not accept mail (null MX)"),
        ("empty.test", "5.4.4", "no mail host of empty.test has an address"),
        ("homeless.test", "5.4.4", "no mail host of homeless.test has an address"),
    ] {
        let (to, subject) = (format!("carol@{domain}"), format!("to {domain}"));
        submit(&daemon, &[&to], &subject);
        assert_eq!(outcomes(&daemon, &subject, 1), [format!("bounced {to} {status}")]);
        let report = delivered(&daemon, "alice", &format!("Final-Recipient: rfc822; {to}\r\n"));
        let report = report.replace("\r\n  ", " ");
        for expected in [format!("Status: {status}\r\n"), reason.to_owned()] {
            assert!(report.contains(&expected), "no {expected} in\n{report}");
        }
    }
    assert!(queue(&daemon).is_empty());
}

/// Writes the configuration anew with other text for some of it, and has it read.
fn reload(daemon: &Daemon, from: &str, to: &str) {
    let file = std::fs::read_to_string(daemon.config()).expect("reads");
    assert!(file.contains(from), "{from} is not in {file}");
    let reloads = || daemon.log().matches("configuration reloaded").count();
    let before = reloads();
    std::fs::write(daemon.config(), file.replace(from, to)).expect("writes");
    daemon.signal("HUP");
    wait_for("the reload", || (reloads() > before).then_some(()));
}

/// Seconds from the message's arrival to its next attempt, after so many.
fn next_after(daemon: &Daemon, attempts: u64) -> u64 {
    let entry = wait_for("an attempt", || {
        let entry = queue(daemon).pop()?;
        (entry["attempts"] == attempts).then_some(entry)
    });
    let at = |name: &str| entry[name].as_u64().expect("milliseconds");
    (at("nextAttempt") - at("queuedAt")) / 1000
}

#[test]
fn a_reload_changes_schedule_and_routes() {
    let remote = Remote::start(Manners::default());
    let nobody = route("far.test", refusing_port());
    let daemon = started(&format!("[queue]\nfirst_retry_s = 3600\n{nobody}"));
    submit(&daemon, &[CAROL], "by another way");
    let next = next_after(&daemon, 1);
    assert!((2880..4400).contains(&next), "an hour, more or less: {next}");

    reload(&daemon, "first_retry_s = 3600", "first_retry_s = 60");
    assert!(!daemon.log().contains("only a restart changes"), "{}", daemon.log());
    assert_eq!(next_after(&daemon, 1), next, "what waits keeps its time");
    daemon.succeeds(&["queue", "retry", "--all"]);
    let next = next_after(&daemon, 2);
    assert!((96..300).contains(&next), "two minutes, more or less: {next}");

    reload(&daemon, &nobody, &route("far.test", remote.address.port()));
    daemon.succeeds(&["queue", "retry", "--all"]);
    assert_eq!(outcomes(&daemon, "by another way", 1), [format!("sent {CAROL}")]);
    assert_eq!(remote.taken().len(), 1);
}

#[test]
fn a_message_that_cannot_be_read_bounces_without_it() {
    let remote = Remote::start(Manners { rcpt: |_, _| "451 4.7.1 later", ..Manners::default() });
    let route = route("far.test", remote.address.port());
    let daemon = started(&format!(
        "[queue]\nfirst_retry_s = 1\nlongest_retry_s = 1\nlifetime_s = 5\n{route}"
    ));
    let log = daemon.data().join("log/0000000000000000.log");
    let before = std::fs::metadata(&log).expect("is there").len();
    submit(&daemon, &[CAROL], &format!("damaged {}", "x".repeat(500)));
    waiting(&daemon, "451 4.7.1 later");
    let log = std::fs::OpenOptions::new().write(true).open(log).expect("opens");
    log.write_all_at(&[0; 64], before + 400).expect("writes into the message's record");
    let report = delivered(&daemon, "alice", "Subject: Undelivered mail").replace("\r\n  ", " ");
    for expected in [
        "Final-Recipient: rfc822; carol@far.test\r\n",
        "Status: 4.3.0\r\n",
        "Diagnostic-Code: x-mailweir; this server cannot read the message at present\r\n",
    ] {
        assert!(report.contains(expected), "no {expected} in\n{report}");
    }
    assert!(queue(&daemon).is_empty());
    // One line for each attempt that failed, with all that an operator needs.
    let log = daemon.log();
    let failed: Vec<_> = log.lines().filter(|it| it.contains(" deferred ")).collect();
    assert!(failed[0].contains("INFO"), "{}", failed[0]);
    for expected in
        ["id=", "destination=\"far.test\"", "failure=\"451 4.7.1 later", "next_attempt=20"]
    {
        assert!(failed[0].contains(expected), "no {expected} in {}", failed[0]);
    }
}

#[test]
fn a_literal_of_this_machine_is_no_destination() {
    let remote = Remote::start(Manners::default());
    let daemon = started(&format!("[queue]\nport = {}\n", remote.address.port()));
    submit(&daemon, &["carol@[127.0.0.1]"], "to ourselves");
    assert_eq!(outcomes(&daemon, "to ourselves", 1), ["bounced carol@[127.0.0.1] 5.4.4"]);
    let report = delivered(&daemon, "alice", "Subject: Undelivered mail").replace("\r\n  ", " ");
    assert!(report.contains("Diagnostic-Code: x-mailweir; mail for [127.0.0.1]"), "{report}");
    assert_eq!(remote.connections(), 0);
}

#[test]
fn a_reload_changes_whom_gateways_are_verified_by() {
    let remote = Remote::start(Manners::default());
    let postfix =
        Postfix::start_with(remote.address, "", |dir| certificate(dir, "relay.good.test"));
    let organization = format!(
        "[[smtp_gateway]]\nname = \"filter\"\naddress = \"relay.good.test\"\nport = {}\n\
         [[outbound_rule]]\nname = \"out\"\naction = \"ROUTE_TO_SMTP_GATEWAY\"\n\
         gateway = \"filter\"\nsenders = [\"*\"]\ndestinations = [\"far.test\"]\n",
        postfix.address().port()
    );
    let mut daemon = prepared(Setup {
        zone: format!("{ZONE}relay.good.test. IN A 127.0.0.1\n"),
        sections: "[queue]\nport = 25\n".into(),
        ..Setup::with(&organization)
    });
    daemon.launch(Command::new(BINARY));
    submit(&daemon, &[CAROL], "in vain");
    assert_eq!(outcomes(&daemon, "in vain", 1), [format!("bounced {CAROL} 5.7.5")]);
    let report = delivered(&daemon, "alice", "Subject: Undelivered mail").replace("\r\n  ", " ");
    assert!(report.contains("certificate"), "{report}");

    let authority = postfix.path("certificate.pem");
    reload(&daemon, "port = 25\n", &format!("port = 25\nca_file = \"{}\"\n", authority.display()));
    submit(&daemon, &[CAROL], "trusted");
    assert_eq!(outcomes(&daemon, "trusted", 1), [format!("sent {CAROL}")]);

    let missing = daemon.path("missing.pem").display().to_string();
    let file = std::fs::read_to_string(daemon.config()).expect("reads");
    let broken = file.replace(&authority.display().to_string(), &missing);
    std::fs::write(daemon.config(), broken).expect("writes");
    daemon.signal("HUP");
    wait_for("the refusal to reload", || daemon.log().contains("not reloaded").then_some(()));
    assert!(daemon.log().contains("missing.pem"), "{}", daemon.log());
    submit(&daemon, &[CAROL], "trusted still");
    assert_eq!(outcomes(&daemon, "trusted still", 1), [format!("sent {CAROL}")]);
}
