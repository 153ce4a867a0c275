//! Mail that was accepted for somebody elsewhere, and that the other server does not take: it is
//! delivered, or its originator is told, or somebody here has it.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::support::daemon::{Daemon, Setup, ZONE, text};
use crate::support::smtp::{Client, message};
use crate::support::swaks::swaks;
use crate::support::wait_for;

/// As large services write them: too long for a rewritten address.
const LONG: &str = "bounce-12345678-1234-1234-1234-123456789abc-000000@far.test";
const ODD: [&str; 2] = [LONG, "\"carol at home\"@far.test"];

const ORGANIZATION: &str = "[[user]]\nname = \"gone\"\nremote = \"nobody@far.test\"\n\
     [[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n\
     [[user]]\nname = \"red\"\n[[user.mailbox_rule]]\nname = \"r\"\naction = \"REDIRECT\"\n\
     to = \"nobody@far.test\"\n";

/// Another organization's daemon, where carol has all senders' addresses.
fn far() -> Daemon {
    let organization = format!(
        "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n\
         aliases = [\"{}\", \"\\\"carol at home\\\"@far.test\"]\n[[user]]\nname = \"dave\"\n",
        LONG
    );
    Setup { organization, ..Setup::default() }.start()
}

fn daemon(far: &Daemon, sections: &str) -> Daemon {
    let port = far.address().port();
    let listener =
        format!("[[queue_route]]\ndomain = \"far.test\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let zone = format!(
        "{ZONE}far.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
         forged.test. IN TXT \"v=spf1 -all\"\n"
    );
    let sections = sections.into();
    Setup { listener, zone, sections, ..Setup::with(ORGANIZATION) }.start()
}

/// A message with that line in it, once it is in the mailbox.
fn with_line(daemon: &Daemon, user: &str, line: &str) -> String {
    wait_for("the message", || {
        let mut texts = daemon.mailbox(user).into_iter().map(|(_, bytes)| text(&bytes));
        texts.find(|text| text.contains(&format!("{line}\r\n")))
    })
}

fn return_path(there: &str) -> String {
    let path = there.strip_prefix("Return-Path: <").and_then(|rest| rest.split_once('>'));
    path.expect("a path").0.to_owned()
}

fn bounced(daemon: &Daemon) -> Vec<Value> {
    let mut events = daemon.events();
    events.retain(|line| line["event"]["eventName"] == "OUTGOING_EMAIL_BOUNCED");
    events
}

/// Sends a message with a null sender to an address; the reply to RCPT.
fn bounce_to(daemon: &Daemon, address: &str, subject: &str) -> String {
    bounce_from(Ipv4Addr::LOCALHOST, daemon, address, subject)
}

fn bounce_from(from: Ipv4Addr, daemon: &Daemon, address: &str, subject: &str) -> String {
    let mut client = Client::open_from(from, daemon.address());
    client.expect("220");
    client.command("EHLO far.test");
    client.command("MAIL FROM:<>");
    let reply = client.command(&format!("RCPT TO:<{address}>"));
    if reply.starts_with("250") {
        assert!(client.data(&message("postmaster@far.test", subject)).starts_with("250"));
    }
    reply
}

#[test]
fn the_originator_is_told_whatever_the_length_of_its_address() {
    let far = far();
    let daemon = daemon(&far, "");
    for (number, sender) in ODD.into_iter().enumerate() {
        let mut client = daemon.client();
        client.command("EHLO far.test");
        let subject = format!("for nobody {number}");
        client.transaction(sender, &["gone@example.test"]);
        assert!(client.data(&message("carol@far.test", &subject)).starts_with("250"));
        let report = with_line(&far, "carol", &format!("Subject: {subject}"));
        assert!(report.contains("Final-Recipient: rfc822; nobody@far.test"), "{report}");
        assert_eq!(bounced(&daemon).len(), number + 1);
    }
}

#[test]
fn a_token_leads_back_after_a_restart_without_the_index() {
    let far = far();
    let mut daemon = daemon(&far, "");
    swaks(&daemon, LONG, "dave@example.test", "passed on", &[]).accepted();
    let token = return_path(&with_line(&far, "dave", "Subject: passed on"));
    assert!(token.starts_with("SRS0=") && token.contains("=1="), "{token}");
    assert!(token.ends_with("@example.test") && token.len() < 64, "{token}");
    daemon.kill();
    for suffix in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(daemon.data().join(format!("index.sqlite{suffix}"))));
    }
    daemon.launch(std::process::Command::new(crate::support::daemon::BINARY));
    let altered = token.replace("=1=", "=1=1");
    assert!(bounce_to(&daemon, &altered, "no").starts_with("550"), "{altered}");
    assert!(bounce_to(&daemon, &token.to_uppercase(), "it is full").starts_with("250"));
    let there = with_line(&far, "carol", "Subject: it is full");
    assert!(there.starts_with("Return-Path: <>"), "{there}");
}

#[test]
fn what_a_redirect_could_not_deliver_is_in_the_mailbox() {
    let far = far();
    let daemon = daemon(&far, "");
    for (subject, sender) in [("short", "carol@far.test"), ("long", LONG)] {
        let body = ["--body", "the whole text\r\n"];
        swaks(&daemon, sender, "red@example.test", subject, &body).accepted();
        let kept = with_line(&daemon, "red", &format!("Subject: {subject}"));
        assert!(kept.contains("\r\n\r\nthe whole text"), "{kept}");
        assert_eq!(daemon.folders("red", subject), ["INBOX"]);
        with_line(&far, "carol", &format!("Subject: {subject}"));
    }
}

#[test]
fn the_postmaster_has_what_nobody_could_be_told_of() {
    let far = far();
    let daemon = daemon(&far, "");
    let body = ["--body", "the whole text\r\n"];
    swaks(&daemon, "x@forged.test", "gone@example.test", "not theirs", &body).accepted();
    let report = with_line(&daemon, "admin", "Subject: not theirs");
    assert!(report.contains("To: <postmaster@example.test>"), "{report}");
    assert!(report.contains("the whole text"), "{report}");
    assert!(report.contains("Final-Recipient: rfc822; nobody@far.test"), "{report}");
}

#[test]
fn a_sender_gets_so_many_bounces_and_no_more() {
    let far = far();
    let daemon = daemon(&far, "[limits]\nbanner_delay_ms = 0\nbounces_per_sender = 2\n");
    swaks(&daemon, LONG, "dave@example.test", "passed on", &[]).accepted();
    let token = return_path(&with_line(&far, "dave", "Subject: passed on"));
    for number in ["one", "two"] {
        assert!(bounce_to(&daemon, &token, number).starts_with("250"));
    }
    let reply = bounce_to(&daemon, &token, "three");
    assert!(reply.starts_with("450 4.7.1") && reply.contains("[too-many-bounces"), "{reply}");
}

/// One network for many senders, many networks for one sender; whether a token stands for the sender
/// or a rewritten address.
#[test]
fn bounces_are_bounded_for_a_network_and_for_a_sender() {
    let far = far();
    let limits = "[limits]\nbanner_delay_ms = 0\nbounces_per_network = 3\nbounces_per_sender = 2\n";
    let daemon = daemon(&far, limits);
    let paths: Vec<String> = [LONG, "carol@far.test", "dave@far.test"]
        .iter()
        .enumerate()
        .map(|(number, sender)| {
            let subject = format!("passed on {number}");
            swaks(&daemon, sender, "dave@example.test", &subject, &[]).accepted();
            return_path(&with_line(&far, "dave", &format!("Subject: {subject}")))
        })
        .collect();
    let network = |number: u8| Ipv4Addr::new(127, 0, number, 1);
    let bounce = |from: u8, to: usize, is_taken: bool| {
        let reply = bounce_from(network(from), &daemon, &paths[to], "bounce");
        let expected = if is_taken { "250" } else { "450 4.7.1" };
        assert!(reply.starts_with(expected), "network {from}, sender {to}: {reply}");
        assert_eq!(reply.contains("[too-many-bounces "), !is_taken, "{reply}");
    };
    bounce(1, 0, true);
    bounce(1, 1, true);
    bounce(1, 2, true);
    bounce(1, 2, false); // the network has had three
    bounce(2, 2, true);
    bounce(3, 2, false); // the sender has had two, from whatever networks
    bounce(3, 1, true);
    bounce(2, 1, false);
    bounce(2, 0, true);
}

#[test]
fn what_says_that_we_forwarded_it_before_is_checked() {
    let far = far();
    let daemon = daemon(&far, "");
    swaks(&daemon, "carol@far.test", "dave@example.test", "once", &[]).accepted();
    let ours = return_path(&with_line(&far, "dave", "Subject: once"));
    let (local_part, _) = ours.split_once('@').expect("an address");
    let again = format!("SRS1=AAAA=example.test={}@far.test", &local_part[4..]);
    swaks(&daemon, &again, "dave@example.test", "twice", &[]).accepted();
    let back = return_path(&with_line(&far, "dave", "Subject: twice"));
    assert_eq!(back, ours, "it is ours, and leads to carol");
    let forged = again.replace("=carol", "=victim");
    swaks(&daemon, &forged, "dave@example.test", "forged", &[]).accepted();
    let back = return_path(&with_line(&far, "dave", "Subject: forged"));
    assert!(back.contains("=1="), "a bounce goes to who sent it: {back}");
}
