//! How much mail may wait to leave, and how full the disk may be.

use std::fs;
use std::process::Command;

use crate::outbound::{BOB, prepared, submit, submit_as};
use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::refusing_port;
use crate::support::smtp::{Client, message};
use crate::support::swaks::swaks;

/// A daemon whose mail for far.test waits, with these keys in `[queue]`.
fn daemon(queue: &str, organization: &str) -> Daemon {
    let sections = format!("[queue]\n{queue}");
    let setup = Setup { sections, ..Setup::with(organization) };
    let mut daemon = prepared(setup, refusing_port());
    daemon.launch(Command::new(BINARY));
    daemon
}

const FULL_OF_SENDER: (&str, &str) = ("452 4.3.1", "sender-queue-full");

#[test]
fn what_waits_is_bounded_for_each_sender_and_for_the_organization_across_a_restart() {
    let mut daemon = daemon("messages_per_sender = 2\nmessages_per_organization = 3\n", "");
    submit(&daemon, "a@far.test,b@other.test", "first", &[]).accepted();
    submit(&daemon, "a@far.test", "second", &[]).accepted();
    submit(&daemon, "a@far.test", "third", &[]).refused(FULL_OF_SENDER.0, FULL_OF_SENDER.1);
    // Nobody else pays for it, nor does mail that stays here.
    submit(&daemon, BOB, "here", &[]).accepted();
    assert_eq!(daemon.folders("bob", "here"), ["INBOX"]);
    submit_as(&daemon, BOB, "a@far.test", "of bob", &[]).accepted();
    submit_as(&daemon, BOB, "a@far.test", "too much", &[])
        .refused("452 4.3.1", "organization-queue-full");
    // What is refused for now has left nothing: no event, no mail.
    let events = daemon.events();
    let is_told = |subject: &str| events.iter().any(|line| line["event"]["subject"] == subject);
    assert!(!is_told("third") && !is_told("too much") && is_told("of bob"));

    daemon.kill();
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "a@far.test", "third", &[]).refused(FULL_OF_SENDER.0, FULL_OF_SENDER.1);
    let list = daemon.lists(&["queue", "list"]);
    for entry in list {
        daemon.succeeds(&["queue", "drop", entry["id"].as_str().expect("an id")]);
    }
    submit(&daemon, "a@far.test", "third", &[]).accepted();
}

#[test]
fn octets_that_wait_and_all_messages_are_bounded() {
    let daemon = daemon("bytes_per_sender = 1048576\nmessages = 2\n", "");
    let file = daemon.path("message.eml");
    let line = "x".repeat(76) + "\r\n";
    let message = format!("From: <alice@example.test>\r\nSubject: x\r\n\r\n{}", line.repeat(9000));
    fs::write(&file, message).expect("writes");
    let data = format!("@{}", file.display());
    let large = ["--data", data.as_str(), "--suppress-data"];
    submit(&daemon, "a@far.test", "large", &large).accepted();
    submit(&daemon, "a@far.test", "large", &large).refused(FULL_OF_SENDER.0, FULL_OF_SENDER.1);
    submit(&daemon, "a@far.test", "small", &[]).accepted();
    submit_as(&daemon, BOB, "a@far.test", "last", &[]).refused("452 4.3.1", "queue-full");
}

#[test]
fn mail_that_is_sent_on_waits_outside_where_too_much_waits_here() {
    let remote = "[[user]]\nname = \"away\"\nremote = \"a@far.test\"\n";
    let daemon = daemon("messages_per_sender = 1\n", remote);
    let away = "away@example.test";
    swaks(&daemon, "bob@good.test", away, "first", &[]).accepted();
    swaks(&daemon, "bob@good.test", away, "second", &[])
        .refused(FULL_OF_SENDER.0, FULL_OF_SENDER.1);
    swaks(&daemon, "bob@good.test", BOB, "for bob", &[]).accepted();
}

#[test]
fn reports_that_strangers_cause_are_bounded_and_hold_up_no_mail() {
    let rule = crate::support::daemon::rule("no", "BOUNCE", "*", "alice@example.test");
    let to_two = format!("alice@example.test,{BOB}");
    let check = |limits: &str, queue: &str, senders: &[&str], expected: usize| {
        let limits = format!("[limits]\nbanner_delay_ms = 0\n{limits}[queue]\n{queue}");
        let port = refusing_port();
        let route = ["out.test", "off.test"].map(|domain| {
            format!("[[queue_route]]\ndomain = \"{domain}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
        });
        let sections = limits + &route.concat();
        let daemon = Setup { sections, ..Setup::with(&rule) }.start();
        for (number, sender) in senders.iter().enumerate() {
            swaks(&daemon, sender, &to_two, &format!("message {number}"), &[]).accepted();
            assert_eq!(daemon.folders("bob", &format!("message {number}")), ["INBOX"]);
        }
        let list = daemon.lists(&["queue", "list"]);
        assert_eq!(list.len(), expected, "{list:?}");
    };
    let senders = ["a@out.test", "b@out.test", "c@out.test", "d@off.test"];
    check("", "", &senders, 4);
    check("", "reports_per_destination = 2\n", &senders, 3);
    check("reports_per_network = 1\n", "", &senders, 1);
}

/// An archive that is away, whatever strangers send meanwhile (guide 7306: mail for which no record can
/// be made is told to the report address).
#[test]
fn records_for_an_archive_that_is_away_keep_no_mail_out() {
    let journaling = "[journaling]\njournaling_address = \"archive@far.test\"\n\
                      report_address = \"admin@example.test\"\n";
    let mut daemon = daemon("messages_per_organization = 2\n", journaling);
    for subject in ["first", "second", "third"] {
        swaks(&daemon, "carol@good.test", BOB, subject, &[]).accepted();
        assert_eq!(daemon.folders("bob", subject), ["INBOX"]);
    }
    let is_journaled = |daemon: &Daemon, subject: &str| {
        daemon.names(subject).contains(&"JOURNALING_INITIATED".to_owned())
    };
    assert!(is_journaled(&daemon, "first") && is_journaled(&daemon, "second"));
    assert!(!is_journaled(&daemon, "third"), "there is no room for its record");
    let told = |daemon: &Daemon, subject: &str| {
        let notices = daemon.mailbox("admin").into_iter().map(|(_, bytes)| text(&bytes));
        notices.filter(|it| it.contains(&format!("\r\nSubject: {subject}\r\n"))).collect::<Vec<_>>()
    };
    let notices = told(&daemon, "third");
    assert_eq!(notices.len(), 1);
    assert!(notices[0].contains("too many journal records wait to leave"), "{}", notices[0]);
    assert!(told(&daemon, "first").is_empty() && told(&daemon, "second").is_empty());

    // Users have room of their own, all of it, also after a restart.
    daemon.kill();
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "a@far.test", "of alice", &[]).accepted();
    submit_as(&daemon, BOB, "a@far.test", "of bob", &[]).accepted();
    submit_as(&daemon, BOB, "a@far.test", "too much", &[])
        .refused("452 4.3.1", "organization-queue-full");
    assert_eq!((told(&daemon, "of alice").len(), told(&daemon, "of bob").len()), (1, 1));
    // And where the records' room is free again, that of mail does not matter.
    for entry in daemon.lists(&["queue", "list"]) {
        if entry["recipients"].to_string().contains("archive@far.test") {
            daemon.succeeds(&["queue", "drop", entry["id"].as_str().expect("an id")]);
        }
    }
    swaks(&daemon, "carol@good.test", BOB, "fourth", &[]).accepted();
    assert!(is_journaled(&daemon, "fourth"));
}

/// Whether one network writes as many senders, or many networks as one: one sends what comes back to
/// one address, one what comes back to one domain, one what comes back to many.
#[test]
fn reports_are_bounded_however_their_causes_are_spread() {
    let rule = crate::support::daemon::rule("no", "BOUNCE", "*", "alice@example.test");
    let port = refusing_port();
    let domains = ["out.test", "off.test", "third.test", "fourth.test"];
    let routes = domains.map(|domain| {
        format!("[[queue_route]]\ndomain = \"{domain}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
    });
    let check = |limits: &str, queue: &str, causes: &[(u8, &str)], expected: usize| {
        let sections =
            format!("[limits]\nbanner_delay_ms = 0\n{limits}[queue]\n{queue}{}", routes.concat());
        let daemon = Setup { sections, ..Setup::with(&rule) }.start();
        for (number, (network, sender)) in causes.iter().enumerate() {
            let from = std::net::Ipv4Addr::new(127, 0, *network, 1);
            let mut client = Client::open_from(from, daemon.address());
            client.expect("220");
            client.envelope(sender, &["alice@example.test", BOB]);
            let subject = format!("message {number}");
            let reply = client.data(&message(sender, &subject));
            assert!(reply.starts_with("250"), "{reply}");
            assert_eq!(daemon.folders("bob", &subject), ["INBOX"]);
        }
        let list = daemon.lists(&["queue", "list"]);
        assert_eq!(list.len(), expected, "{limits}{queue}{causes:?}: {list:?}");
    };
    let of_one_network =
        [(1, "a@out.test"), (1, "a@off.test"), (1, "a@third.test"), (1, "b@fourth.test")];
    let to_one_address =
        [(1, "a@out.test"), (2, "a@out.test"), (3, "A@out.test"), (4, "a@out.test")];
    let to_one_domain =
        [(1, "a@out.test"), (2, "b@out.test"), (3, "c@out.test"), (4, "d@out.test")];
    check("", "", &of_one_network, 4);
    check("reports_per_network = 2\n", "", &of_one_network, 2);
    check("reports_per_network = 2\n", "", &to_one_domain, 4);
    check("bounces_per_sender = 3\n", "", &to_one_address, 3);
    check("bounces_per_sender = 1\n", "", &to_one_domain, 4);
    check("", "reports_per_destination = 3\n", &to_one_domain, 3);
    check("", "reports_per_destination = 1\n", &of_one_network, 4);
}

#[test]
fn below_the_floor_of_free_disk_mail_is_deferred() {
    let setup = Setup { sections: "[store]\nmin_free_bytes = 0\n".into(), ..Setup::default() };
    let mut daemon = prepared(setup, refusing_port());
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "a@far.test", "waits", &[]).accepted();
    swaks(&daemon, "bob@good.test", BOB, "before", &[]).accepted();
    daemon.stop();
    let config = fs::read_to_string(daemon.config()).expect("reads");
    let most = 1_u64 << 50;
    let config = config.replace("min_free_bytes = 0", &format!("min_free_bytes = {most}"));
    fs::write(daemon.config(), config).expect("writes");
    daemon.launch(Command::new(BINARY));
    swaks(&daemon, "bob@good.test", BOB, "after", &[]).refused("452 4.3.1", "disk-low");
    submit(&daemon, BOB, "after", &[]).refused("452 4.3.1", "disk-low");
    assert!(daemon.log().contains("too little of the disk is free"), "{}", daemon.log());
    // What waits still has its outcome.
    let list = daemon.lists(&["queue", "list"]);
    daemon.succeeds(&["queue", "drop", list[0]["id"].as_str().expect("an id")]);
    assert!(daemon.succeeds(&["queue", "list"]).contains("queue is empty"));
}
