//! Quotas, recipients, PROXY.

use crate::support::daemon::{Daemon, Setup, zone_of_senders_here};
use crate::support::smtp::{Client, message};
use crate::support::swaks::swaks;

const BOB: &str = "bob@good.test";

fn of_size(subject: &str, bytes: usize) -> Vec<u8> {
    let mut content = message(BOB, subject);
    while content.len() < bytes {
        content.extend_from_slice(
            b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n",
        );
    }
    content
}

#[test]
fn a_full_mailbox_bounces_with_an_event_and_its_user_was_warned() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope(BOB, &["small@example.test"]);
    assert!(client.data(&of_size("most of it", 960_000)).starts_with("250"));
    assert_eq!(daemon.folders("small", "Your mailbox is almost full"), ["INBOX"]);

    client.transaction(BOB, &["small@example.test"]);
    let reply = client.data(&of_size("too much", 200_000));
    assert!(reply.starts_with("552 5.2.2") && reply.contains("[mailbox-full "), "{reply}");
    let trace = daemon.trace("too much");
    assert_eq!(trace[1]["eventName"], "INCOMING_EMAIL_BOUNCED");
    assert_eq!(trace[1]["bouncedRecipient"]["emailAddress"], "small@example.test");
    assert_eq!(trace[1]["bouncedRecipient"]["status"], "5.2.2");
    assert_eq!(trace[1]["bouncedRecipient"]["reason"], "Mailbox full");

    assert!(client.command(&format!("MAIL FROM:<{BOB}> SIZE=200000")).starts_with("250"));
    let reply = client.command("RCPT TO:<small@example.test>");
    assert!(reply.starts_with("552 5.2.2"), "the declared size is enough to know: {reply}");
    assert!(client.command("RCPT TO:<alice@example.test>").starts_with("250"));
    assert!(client.data(&of_size("for one of two", 200_000)).starts_with("250"));
    let names = daemon.names("for one of two");
    assert_eq!(
        names,
        ["ORGANIZATION_EMAIL_RECEIVED", "MAILBOX_EMAIL_DELIVERED", "INCOMING_EMAIL_BOUNCED"]
    );
    assert_eq!(daemon.mailbox("small").len(), 2, "the first message and the warning");
    let small = daemon.id("small");
    assert_eq!(without_room(&daemon, 2), [&*small, &*small], "at the end, and at RCPT");
}

/// Mail that fails SPF, as a forwarder's does, is never reported: it goes over the quota of a mailbox
/// that is not full yet.
#[test]
fn nothing_is_lost_where_nobody_may_be_told() {
    let daemon = Setup::default().start();
    let from = "list@none.test";
    let content = |subject: &str| {
        let text = String::from_utf8(of_size(subject, 1_300_000)).expect("ASCII");
        text.replace(BOB, from).into_bytes()
    };
    let both = ["alice@example.test", "small@example.test"];
    let mut later = daemon.client();
    later.envelope(from, &both);
    let mut client = daemon.client();
    client.envelope(from, &both);
    assert!(client.data(&content("over quota")).starts_with("250"));
    assert_eq!(daemon.folders("small", "over quota"), ["INBOX"]);
    let mut events = daemon.names("over quota");
    events.dedup();
    let dmarc = "DMARC_POLICY_APPLIED";
    assert_eq!(events, ["ORGANIZATION_EMAIL_RECEIVED", dmarc, "MAILBOX_EMAIL_DELIVERED"]);

    assert!(client.command(&format!("MAIL FROM:<{from}>")).starts_with("250"));
    let reply = client.command("RCPT TO:<small@example.test>");
    assert!(reply.starts_with("552 5.2.2"), "once, then it is full: {reply}");
    let reply = later.data(&content("too late"));
    assert!(reply.starts_with("452"), "there was room at RCPT: {reply}");
    assert!(daemon.folders("small", "too late").is_empty());
}

/// Mail that is never reported, for one whose mailbox fills up between RCPT and the final dot: it is
/// refused as a whole, and the next try gets to the others and is told of the one.
#[test]
fn a_mailbox_that_fills_up_after_rcpt_loses_nothing_without_a_word() {
    let more = "[[user]]\nname = \"tiny\"\nquota_mb = 1\n\
                [[group]]\nname = \"crowd\"\nmembers = [\"alice\", \"small\"]\n";
    let daemon = Setup::with(more).start();
    for (number, from) in ["list@none.test", ""].into_iter().enumerate() {
        // The first to end takes the mailbox over its quota, once.
        let small = ["small@example.test", "tiny@example.test"][number];
        let recipients = ["alice@example.test", small];
        let content = |subject: &str| {
            let text = String::from_utf8(of_size(subject, 1_300_000)).expect("ASCII");
            text.replace(BOB, "list@none.test").into_bytes()
        };
        let mut first = daemon.client();
        let mut second = daemon.client();
        let mut group = daemon.client();
        first.envelope(from, &recipients);
        second.envelope(from, &recipients);
        assert!(first.data(&content(&format!("first {number}"))).starts_with("250"));
        assert_eq!(daemon.folders("alice", &format!("first {number}")), ["INBOX"]);

        let subject = format!("second {number}");
        let reply = second.data(&content(&subject));
        assert!(
            reply.starts_with("452 4.2.2") && reply.contains("[mailbox-full-grace "),
            "{reply}"
        );
        assert!(daemon.folders("alice", &subject).is_empty(), "its client still has it");
        let is_told = |event: &serde_json::Value| event["event"]["subject"] == subject.as_str();
        assert!(!daemon.events().iter().any(is_told), "a deferral is no event");

        assert!(second.command(&format!("MAIL FROM:<{from}>")).starts_with("250"));
        assert!(second.command("RCPT TO:<alice@example.test>").starts_with("250"));
        let reply = second.command(&format!("RCPT TO:<{small}>"));
        assert!(reply.starts_with("552 5.2.2"), "{reply}");
        assert!(second.data(&content(&subject)).starts_with("250"));
        assert_eq!(daemon.folders("alice", &subject), ["INBOX"]);
        let names = daemon.names(&subject);
        assert_eq!(names.last().map(String::as_str), Some("INCOMING_EMAIL_BOUNCED"), "{names:?}");

        // A group is refused for no member of it, or it would get no such mail any more.
        let subject = format!("group {number}");
        group.envelope(from, &["crowd@example.test"]);
        assert!(group.data(&content(&subject)).starts_with("250"));
        assert_eq!(daemon.folders("alice", &subject), ["INBOX"]);
    }
}

/// Whose mailboxes the audit log says have had no room, once there are so many of its lines.
fn without_room(daemon: &Daemon, count: usize) -> Vec<String> {
    let path = daemon.data().join("audit/mailbox-access.jsonl");
    crate::support::wait_for("the audit lines", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let parse = |line| serde_json::from_str(line).expect("JSON");
        let mut lines: Vec<serde_json::Value> = text.lines().map(parse).collect();
        lines.retain(|line| line["action"] == "create" && line["action_allowed"] == false);
        let owners = lines.iter().map(|line| {
            assert_eq!(
                (&line["protocol"], &line["source_ip"]),
                (&"IncomingEmail".into(), &"127.0.0.1".into())
            );
            line["owner_id"].as_str().expect("an id").to_owned()
        });
        let owners: Vec<_> = owners.collect();
        (owners.len() >= count).then_some(owners)
    })
}

#[test]
fn a_bounce_at_rcpt_is_recorded_even_if_no_message_follows() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    assert!(client.command(&format!("MAIL FROM:<{BOB}> SIZE=2000000")).starts_with("250"));
    assert!(client.command("RCPT TO:<small@example.test>").starts_with("552 5.2.2"));
    assert!(client.command("QUIT").starts_with("221"));
    let events = crate::support::wait_for("the bounce", || {
        let events = daemon.events();
        (!events.is_empty()).then_some(events)
    });
    assert_eq!(events[0]["event"]["eventName"], "INCOMING_EMAIL_BOUNCED");
}

#[test]
fn a_grace_defers_before_it_bounces() {
    let sections = "[store]\nmailbox_full_grace_s = 3600\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    assert!(client.command(&format!("MAIL FROM:<{BOB}> SIZE=2000000")).starts_with("250"));
    let reply = client.command("RCPT TO:<small@example.test>");
    assert!(reply.starts_with("452 4.2.2") && reply.contains("[mailbox-full-grace "), "{reply}");
    assert!(client.command("QUIT").starts_with("221"));
    assert!(daemon.events().is_empty(), "a deferral is no event");
    assert_eq!(without_room(&daemon, 1), [daemon.id("small")], "but it was tried");
}

#[test]
fn quota_survives_a_restart() {
    let mut daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope(BOB, &["small@example.test"]);
    assert!(client.data(&of_size("most of it", 900_000)).starts_with("250"));
    daemon.kill();
    daemon.launch(std::process::Command::new(crate::support::daemon::BINARY));
    let mut client = daemon.client();
    client.envelope(BOB, &["small@example.test"]);
    assert!(client.data(&of_size("too much", 200_000)).starts_with("552 5.2.2"));
}

#[test]
fn the_five_hundred_and_first_recipient_is_deferred() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    assert!(client.command("EHLO mail.good.test").contains("RCPTMAX=500"));
    assert!(client.command(&format!("MAIL FROM:<{BOB}>")).starts_with("250"));
    for number in 0..500 {
        let reply = client.command(&format!("RCPT TO:<alice+{number}@example.test>"));
        assert!(reply.starts_with("250"), "{number}: {reply}");
    }
    let reply = client.command("RCPT TO:<bob@example.test>");
    assert!(reply.starts_with("452 4.5.3") && reply.contains("[too-many-recipients "), "{reply}");
    assert!(client.data(&message(BOB, "many")).starts_with("250"));
    assert_eq!(daemon.folders("alice", "many"), ["INBOX"], "one mailbox, one copy");
}

fn v1_header(addresses: &str) -> Vec<u8> {
    format!("PROXY {addresses} 12345 25\r\n").into_bytes()
}

fn v2_header(ip: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend_from_slice(&ip);
    header.extend_from_slice(&[127, 0, 0, 1, 0x30, 0x39, 0, 25]);
    header
}

#[test]
fn the_proxys_client_is_the_one_that_is_judged() {
    let listener = "proxy_protocol_from = [\"127.0.0.0/8\"]".to_owned();
    let daemon = Setup { listener, ..Setup::default() }.start();
    let headers: [(&str, Vec<u8>, &str, &str); 5] = [
        ("v1 ours", v1_header("TCP4 127.0.0.1 127.0.0.1"), "PASS", "[127.0.0.1]"),
        ("v1 other", v1_header("TCP4 192.0.2.7 127.0.0.1"), "FAIL", "[192.0.2.7]"),
        ("v1 sixth", v1_header("TCP6 2001:db8::7 ::1"), "FAIL", "[IPv6:2001:db8::7]"),
        ("v2 ours", v2_header([127, 0, 0, 77]), "PASS", "[127.0.0.77]"),
        ("v2 other", v2_header([192, 0, 2, 9]), "FAIL", "[192.0.2.9]"),
    ];
    for (subject, header, verdict, literal) in headers {
        let mut client = Client::connect_through_proxy(daemon.address(), &header);
        client.envelope("bob@partner.test", &["alice@example.test"]);
        let reply = client.data(&message("bob@partner.test", subject));
        assert!(reply.starts_with("250"), "{subject}: {reply}");
        assert_eq!(daemon.trace(subject)[0]["spfVerdict"], verdict, "{subject}");
        let is_told = daemon.mailbox("alice").iter().any(|(_, bytes)| {
            let has = |what: &str| memchr::memmem::find(bytes, what.as_bytes()).is_some();
            has(&format!("Subject: {subject}\r\n")) && has(&format!(" {literal})\r\n\tby "))
        });
        assert!(is_told, "{subject}: Received does not tell of {literal}");
    }
    let mut without = Client::open(daemon.address());
    without.send(b"EHLO mail.good.test\r\n");
    let reply = without.reply();
    assert!(!reply.starts_with("2"), "a header is required from here: {reply}");
}

#[test]
fn without_the_setting_a_proxy_header_is_just_early_talk() {
    let sections = "[limits]\nbanner_delay_ms = 200\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut client = Client::open(daemon.address());
    client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\r\n");
    assert!(client.reply().starts_with("554"));
    swaks(&daemon, BOB, "alice@example.test", "plain", &[]).accepted();
}

#[test]
fn a_full_group_member_bounces_alone_and_the_sender_is_told() {
    let group = "[[group]]\nname = \"mixed\"\nmembers = [\"small\", \"alice\"]\n";
    let daemon = Setup { zone: zone_of_senders_here(), ..Setup::with(group) }.start();
    let mut client = daemon.client();
    client.envelope("admin@example.test", &["mixed@example.test", "small@example.test"]);
    let content = [b"From: x@example.org\r\n".to_vec(), of_size("x", 1_100_000)].concat();
    let content =
        String::from_utf8(content).expect("UTF-8").replacen("From: <bob@good.test>\r\n", "", 1);
    let content = content.replacen("Subject: x\r\n", "Subject: to a group\r\n", 1);
    let reply = client.data(content.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(daemon.folders("alice", "to a group"), ["INBOX"]);
    let trace = daemon.trace("to a group");
    let bounced: Vec<_> =
        trace.iter().filter(|event| event["eventName"] == "INCOMING_EMAIL_BOUNCED").collect();
    assert_eq!(bounced.len(), 1, "{trace:#?}");
    assert_eq!(bounced[0]["bouncedRecipient"]["emailAddress"], "small@example.test");
    assert_eq!(daemon.folders("admin", "Undelivered mail"), ["INBOX"]);
    assert_eq!(without_room(&daemon, 1), [daemon.id("small")]);
}

#[test]
fn an_alias_of_a_full_mailbox_bounces_once() {
    let users = "[[user]]\nname = \"tiny\"\naliases = [\"t@example.test\"]\nquota_mb = 1\n";
    let daemon = Setup::with(users).start();
    let mut client = daemon.client();
    client.envelope(BOB, &["t@example.test"]);
    assert!(client.data(&of_size("too much", 1_100_000)).starts_with("552 5.2.2"));
    let names = daemon.names("too much");
    assert_eq!(names, ["ORGANIZATION_EMAIL_RECEIVED", "INCOMING_EMAIL_BOUNCED"]);
}

/// The refusal comes after the end of the message, as everybody expects, but most of it is not held in
/// memory for that: only so much as may be in flight.
#[test]
fn a_header_section_that_is_too_long_is_not_kept() {
    let limits = "[limits]\nbanner_delay_ms = 0\nheader_bytes = 16384\nin_flight_bytes = 1048576\n";
    let daemon = Setup { sections: limits.into(), ..Setup::default() }.start();
    let mut client = daemon.client();
    let fields = |octets: usize| b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(octets / 33);
    let message = |octets: usize| [fields(octets), message(BOB, "long")].concat();
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    for octets in [17_000, 4_000_000] {
        client.transaction(BOB, &["alice@example.test"]);
        let reply = client.data(&message(octets));
        assert!(reply.starts_with("552 5.3.4") && reply.contains("[header-too-big "), "{reply}");
        client.transaction(BOB, &["alice@example.test"]);
        let reply = client.bdat(&message(octets), &[octets / 2]);
        assert!(reply.starts_with("552 5.3.4") && reply.contains("[header-too-big "), "{reply}");
    }
    client.transaction(BOB, &["alice@example.test"]);
    let reply = client.data(&[fields(10_000), of_size("short enough", 900_000)].concat());
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(daemon.mailbox("alice").len(), 1);
}

/// A few recipients may be large groups; what they lead to together has a limit, and the client sends
/// the rest in another message.
#[test]
fn recipients_after_expansion_have_a_limit() {
    let mut organization = "[[group]]\nname = \"all\"\nmembers = [".to_owned();
    let users: Vec<String> = (0..30).map(|number| format!("u{number}")).collect();
    organization.push_str(&users.iter().map(|user| format!("\"{user}\",")).collect::<String>());
    organization.push_str("]\n");
    for user in &users {
        organization.push_str(&format!("[[user]]\nname = \"{user}\"\n"));
    }
    let sections = "[limits]\nbanner_delay_ms = 0\nexpanded_recipients = 70\n".to_owned();
    let daemon = Setup { sections, ..Setup::with(&organization) }.start();
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["all+1@example.test", "all+2@example.test"]);
    let reply = client.command("RCPT TO:<all+3@example.test>");
    assert!(reply.starts_with("452 4.5.3") && reply.contains("[too-many-recipients "), "{reply}");
    let reply = client.command("RCPT TO:<alice@example.test>");
    assert!(reply.starts_with("452 4.5.3"), "the rest is for another message: {reply}");
    // Nothing more is looked up or opened: what would be refused for good is told the same.
    for unasked in ["nobody@example.test", "a@elsewhere.test"] {
        let reply = client.command(&format!("RCPT TO:<{unasked}>"));
        assert!(reply.starts_with("452 4.5.3"), "{unasked}: {reply}");
    }
    let reply = client.data(&crate::support::smtp::message("bob@good.test", "to all"));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(daemon.folders("u7", "to all"), ["INBOX"]);
}
