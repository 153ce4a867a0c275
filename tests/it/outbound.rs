//! Users submit with swaks; mail leaves for another daemon of ours, and everybody is told what came
//! of it.

use std::net::TcpListener;
use std::process::Command;

use mail_parser::MessageParser;
use serde_json::Value;

use crate::credentials::set_password;
use crate::support::daemon::{BINARY, Daemon, Setup, rule, text, zone_of_senders_here};
use crate::support::remote::{Manners, Remote};
use crate::support::swaks::{Transcript, swaks};
use crate::support::{refusing_port, wait_for};

pub const ALICE: &str = "alice@example.test";
pub const BOB: &str = "bob@example.test";
const PASSWORD: &str = "Lemon-tree1";

/// Another organization's daemon.
pub fn far() -> Daemon {
    let organization = "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n\
                        [[user]]\nname = \"dave\"\n";
    Setup { organization: organization.into(), ..Setup::default() }.start()
}

fn listener(name: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\nprotocol = \"{name}\"\nbind = \"127.0.0.1:0\"\n")
}

/// A daemon that does not run yet, whose users have a password, and whose mail for far.test goes to
/// this port.
pub fn prepared(setup: Setup, port: u16) -> Daemon {
    let daemon = prepared_without_keys(setup, port);
    daemon.keys_that_sign("example.test");
    daemon
}

/// The usual one of them, whose keys wait for their records.
pub fn prepared_with_waiting_keys(port: u16) -> Daemon {
    let daemon = prepared_without_keys(Setup::default(), port);
    daemon.succeeds(&["domain", "keys", "example.test"]);
    daemon
}

fn prepared_without_keys(setup: Setup, port: u16) -> Daemon {
    let route =
        format!("[[queue_route]]\ndomain = \"far.test\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let listener = listener("submission") + &listener("submissions") + &route;
    let daemon = Setup { listener, ..setup }.prepare();
    for user in ["alice", "bob"] {
        assert!(set_password(&daemon, user, PASSWORD).status.success());
    }
    daemon
}

/// The same, running, with more to its organization.
pub fn daemon(organization: &str, port: u16) -> Daemon {
    let mut daemon = prepared(Setup::with(organization), port);
    daemon.launch(Command::new(BINARY));
    daemon
}

/// Submits as alice.
pub fn submit(daemon: &Daemon, to: &str, subject: &str, more: &[&str]) -> Transcript {
    submit_as(daemon, ALICE, to, subject, more)
}

/// Submits as alice or bob.
pub fn submit_as(
    daemon: &Daemon,
    user: &str,
    to: &str,
    subject: &str,
    more: &[&str],
) -> Transcript {
    let port = daemon.listener("submissions").port().to_string();
    let login = ["--auth", "PLAIN", "--auth-user", user, "--auth-password", PASSWORD];
    let more = [&["--port", port.as_str(), "--tls-on-connect"][..], &login, more].concat();
    swaks(daemon, user, to, subject, &more)
}

/// The events of a submitted message, once the last is there.
pub fn told(daemon: &Daemon, subject: &str, last: &str) -> Vec<Value> {
    wait_for("the last event", || {
        let trace = daemon.trace(subject);
        trace.iter().any(|event| event["eventName"] == last).then_some(trace)
    })
}

pub fn delivered(daemon: &Daemon, user: &str, subject: &str) -> String {
    wait_for("the delivery", || {
        let needle = format!("Subject: {subject}\r\n");
        let texts = daemon.mailbox(user).into_iter();
        let mut texts = texts.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
        texts.find(|text| text.contains(&needle))
    })
}

/// Nobody is asked what an organization is: who may write as each of the authors has written it.
#[test]
fn authors_of_sibling_domains_need_the_right_for_each() {
    let far_organization =
        "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n";
    let record = "_dmarc.example.test. IN TXT \"v=DMARC1; p=reject\"\n";
    let zone = zone_of_senders_here() + record;
    let far = Setup { organization: far_organization.into(), zone, ..Setup::default() }.start();
    let mut setup = Setup::default();
    for (old, new) in [
        ("\"example.org\"]", "\"example.org\", \"one.example.test\", \"two.example.test\"]"),
        ("\"a.liddell@example.test\"", "\"alice@one.example.test\", \"alice@two.example.test\""),
        ("name = \"bob\"", "name = \"bob\"\naliases = [\"bob@two.example.test\"]"),
    ] {
        setup.organization = setup.organization.replacen(old, new, 1);
    }
    let mut daemon = prepared(setup, far.address().port());
    daemon.keys_that_sign("one.example.test");
    daemon.keys_that_sign("two.example.test");
    daemon.launch(Command::new(BINARY));
    let siblings = "From: alice@one.example.test, alice@two.example.test";
    let to = format!("carol@far.test,{BOB}");
    submit(&daemon, &to, "as both", &["--header", siblings]).accepted();
    let there = delivered(&far, "carol", "as both");
    for domain in ["one.example.test", "two.example.test"] {
        assert_eq!(there.matches(&format!("d={domain};")).count(), 2, "{there}");
    }
    delivered(&daemon, "bob", "as both");
    let foreign = "From: alice@one.example.test, bob@two.example.test";
    submit(&daemon, &to, "as bob too", &["--header", foreign])
        .refused("550 5.7.1", "sender-not-allowed");
    let apart = "From: alice@example.test, alice@example.org";
    submit(&daemon, &to, "as two", &["--header", apart]).refused("550 5.7.1", "several-authors");
}

#[test]
fn a_submitted_message_reaches_users_here_and_elsewhere() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let to = format!("carol@far.test,{BOB}");
    let more = ["--header", "Bcc: hidden@far.test", "--header", "To: carol@far.test"];
    submit(&daemon, &to, "hello both", &more).accepted();
    let trace = told(&daemon, "hello both", "OUTGOING_EMAIL_SENT");
    assert_eq!(trace[0]["eventName"], "OUTGOING_EMAIL_SUBMITTED");
    assert_eq!(trace[0]["recipients"], serde_json::json!(["carol@far.test", BOB]));
    let there = delivered(&far, "carol", "hello both");
    for expected in ["with ESMTP", "From: alice@example.test", "DKIM-Signature: v=1; a=rsa-sha256"]
    {
        assert!(there.contains(expected), "no {expected} in\n{there}");
    }
    assert!(!there.contains("hidden@"), "{there}");
    let here = delivered(&daemon, "bob", "hello both");
    assert!(here.contains("auth=pass smtp.auth=alice@example.test"), "{here}");
    let events = wait_for("both are sent", || {
        let events = daemon.events();
        let sent = |line: &&Value| line["event"]["eventName"] == "OUTGOING_EMAIL_SENT";
        (events.iter().filter(sent).count() == 2).then_some(events)
    });
    let of = |name: &str| {
        let found = events.iter().find(|line| line["event"]["eventName"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {events:#?}")).clone()
    };
    let (received, sent) = (of("ORGANIZATION_EMAIL_RECEIVED"), of("OUTGOING_EMAIL_SENT"));
    assert_eq!(received["event"]["messageId"], sent["event"]["messageId"]);
    assert_ne!(received["traceId"], sent["traceId"]);
    let id = sent["traceId"].as_str().expect("an id");
    assert!(daemon.succeeds(&["events", "trace", id]).contains("OUTGOING_EMAIL_SENT"));
    assert!(daemon.succeeds(&["queue", "list"]).contains("queue is empty"));
    let owner = format!("\"owner_id\":\"{}\"", daemon.id("bob"));
    let accesses = wait_for("the audit lines", || {
        let path = daemon.data().join("audit/mailbox-access.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.contains(&owner).then_some(text)
    });
    assert!(accesses.contains("\"action\":\"submit_email_for_sending\""), "{accesses}");
}

#[test]
fn who_does_not_exist_there_bounces_with_a_report() {
    let far = far();
    let daemon = daemon("", far.address().port());
    submit(&daemon, "nobody@far.test", "to nobody", &[]).accepted();
    let trace = told(&daemon, "to nobody", "OUTGOING_EMAIL_BOUNCED");
    let bounced = trace.last().expect("one");
    assert_eq!(bounced["bouncedRecipient"]["emailAddress"], "nobody@far.test");
    assert_eq!(
        (&bounced["destination"], &bounced["bouncedRecipient"]["status"]),
        (&"nobody@far.test".into(), &"5.1.1".into())
    );
    let report = delivered(&daemon, "alice", "Undelivered mail");
    for expected in ["Action: failed", "Status: 5.1.1", "rfc822; nobody@far.test", "to nobody"] {
        assert!(report.contains(expected), "no {expected} in\n{report}");
    }
}

/// RFC 3464 §2.3.6: the code and text of the other server as they came, in events and reports.
#[test]
fn the_other_servers_words_stay_as_they_came() {
    let manners = Manners {
        rcpt: |address, _| match address {
            "post@far.test" => "550-5.7.1 Почта\r\n550 5.7.1 заблокирована",
            "quota@far.test" => "550 4.2.2 over quota",
            _ => "552 mailbox full",
        },
        ..Manners::default()
    };
    let remote = Remote::start(manners);
    let daemon = daemon("", remote.address.port());
    let to = "post@far.test,quota@far.test,full@far.test";
    submit(&daemon, to, "other words", &[]).accepted();
    let bounced = wait_for("the bounces", || {
        let trace = daemon.trace("other words").into_iter();
        let bounced: Vec<_> =
            trace.filter(|it| it["eventName"] == "OUTGOING_EMAIL_BOUNCED").collect();
        (bounced.len() == 3).then_some(bounced)
    });
    let told = |address: &str| {
        let mut recipients = bounced.iter().map(|event| &event["bouncedRecipient"]);
        let found = recipients.find(|it| it["emailAddress"] == address).expect("is told");
        let text = |key: &str| found[key].as_str().expect("a text").to_owned();
        (text("status"), text("reason"))
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(told("post@far.test"), pair("5.7.1", "Почта заблокирована"));
    assert_eq!(told("quota@far.test"), pair("5.0.0", "4.2.2 over quota"));
    assert_eq!(told("full@far.test"), pair("5.0.0", "mailbox full"));

    let report = wait_for("the report", || {
        let mails = daemon.mailbox("alice").into_iter().map(|(_, bytes)| bytes);
        mails.into_iter().find(|bytes| text(bytes).contains("delivery-status"))
    });
    let report = MessageParser::new().parse(&report).expect("a message");
    let for_people = report.body_text(0).expect("a text");
    let for_people = for_people.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = report.attachments().next().expect("the status").decoded();
    let status = text(&status).replace("\r\n ", "");
    for words in ["550 5.7.1 Почта заблокирована", "550 4.2.2 over quota", "552 mailbox full"]
    {
        assert!(for_people.contains(words), "no {words} in {for_people}");
        let escape = |c: char| match c {
            ' '..='~' => c.to_string(),
            _ => format!("\\x{{{:02X}}}", u32::from(c)),
        };
        let escaped: String = words.chars().map(escape).collect();
        let line = format!("Diagnostic-Code: smtp; {escaped}");
        assert!(status.replace(' ', "").contains(&line.replace(' ', "")), "no {line} in {status}");
    }
    assert!(status.is_ascii(), "{status}");
    assert_eq!(status.matches("Status: 5.0.0").count(), 2, "{status}");
}

#[test]
fn what_cannot_be_signed_is_refused_for_good() {
    let far = far();
    let daemon = daemon("", far.address().port());
    let fields = "List-Id: <many.example.test>\\n".repeat(201);
    let data = format!("From: {ALICE}\\nSubject: many fields\\n{fields}\\nbody\\n");
    submit(&daemon, "carol@far.test", "many fields", &["--data", &data])
        .refused("550 5.6.0", "too-many-fields");
}

/// Journal records come from this address, and from nobody else under any of its spellings.
#[test]
fn nobody_submits_from_the_reserved_address() {
    let far = far();
    let daemon = daemon("", far.address().port());
    for reserved in [
        "amazonjournaling@example.test",
        "AmazonJournaling@EXAMPLE.test",
        "amazonjournaling+tag@example.test",
        "\"amazonjournaling\"@example.test",
    ] {
        submit(&daemon, "carol@far.test", "reserved", &["--from", reserved])
            .refused("550 5.7.1", "reserved-address");
    }
    assert!(far.mailbox("carol").is_empty());
}

#[test]
fn nobody_writes_as_somebody_else() {
    let far = far();
    let daemon = daemon("", far.address().port());
    submit(&daemon, "carol@far.test", "as bob", &["--header", &format!("From: {BOB}")])
        .refused("550 5.7.1", "sender-not-allowed");
    submit(&daemon, "carol@far.test", "from bob", &["--from", BOB])
        .refused("550 5.7.1", "sender-not-allowed");
    let told = wait_for("the refusal", || {
        let output = daemon.command(&["events", "trace", BOB]);
        output.status.success().then(|| text(&output.stdout))
    });
    let expected = format!("refused MAIL FROM:<{BOB}> by user alice: 550");
    assert!(told.contains(&expected), "{told}");
    let names = daemon.names("as bob");
    assert_eq!(names, ["OUTGOING_EMAIL_SUBMITTED", "OUTGOING_EMAIL_BOUNCED"]);
    assert!(far.mailbox("carol").is_empty());
}

#[test]
fn outbound_rules_decide_for_each_recipient() {
    let far = far();
    let rule = |name: &str, action: &str, to: &str| {
        format!(
            "[[outbound_rule]]\nname = \"{name}\"\naction = \"{action}\"\nsenders = [\"*\"]\n\
             destinations = [\"{to}\"]\n"
        )
    };
    let rules = rule("quiet", "DROP", "dropped@far.test") + &rule("no", "BOUNCE", "not@far.test");
    let daemon = daemon(&rules, far.address().port());
    submit(&daemon, "not@far.test", "all refused", &[])
        .refused("550 5.7.1", "outbound-rule-bounce");
    let to = "carol@far.test,dropped@far.test,not@far.test";
    submit(&daemon, to, "one by one", &[]).accepted();
    delivered(&far, "carol", "one by one");
    let trace = told(&daemon, "one by one", "OUTGOING_EMAIL_SENT");
    let names: Vec<_> = trace.iter().filter_map(|event| event["eventName"].as_str()).collect();
    let expected = [
        "OUTGOING_EMAIL_SUBMITTED",
        "RULE_APPLIED",
        "RULE_APPLIED",
        "OUTGOING_EMAIL_BOUNCED",
        "OUTGOING_EMAIL_SENT",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (&trace[1]["ruleType"], &trace[1]["ruleName"]),
        (&"OUTBOUND_RULE".into(), &"quiet".into())
    );
    let report = delivered(&daemon, "alice", "Undelivered mail");
    assert!(report.contains("Your administrator has blocked this"), "{report}");
}

#[test]
fn what_cannot_leave_now_waits_and_an_operator_decides() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let daemon = daemon("", port.port());
    submit(&daemon, "carol@far.test", "later", &[]).accepted();
    submit(&daemon, "dave@far.test", "never", &[]).accepted();
    let queue = wait_for("an attempt", || {
        let queue = daemon.lists(&["queue", "list"]);
        queue.iter().any(|entry| entry["lastFailure"].is_string()).then_some(queue)
    });
    assert_eq!(queue.len(), 2, "{queue:#?}");
    let id = |subject: &str| {
        let trace = daemon.events();
        let of = trace.iter().find(|line| line["event"]["subject"] == subject).expect("submitted");
        let entry = queue.iter().find(|entry| entry["traceId"] == of["traceId"]).expect("waits");
        entry["id"].as_str().expect("an id").to_owned()
    };
    let (later, never) = (id("later"), id("never"));
    assert!(daemon.succeeds(&["queue", "show", &later]).contains("carol@far.test"));
    let others = daemon.succeeds(&["queue", "list", "--to", "nothing.test"]);
    assert_eq!(others, "nothing waits for nothing.test; for others, 2 entries\n");
    check_that_it_waits(&daemon, &queue, &later);
    daemon.succeeds(&["queue", "drop", &never, "--bounce"]);
    let bounced = told(&daemon, "never", "OUTGOING_EMAIL_BOUNCED");
    assert_eq!(bounced.last().expect("one")["reason"], "given up by the administrator");
    let report = delivered(&daemon, "alice", "Undelivered mail");
    assert!(report.contains("Your administrator has removed this message"), "{report}");
    daemon.succeeds(&["queue", "retry", "--all"]);
    let output = daemon.command(&["queue", "drop", &never]);
    assert!(!output.status.success(), "it is gone");
    assert!(daemon.succeeds(&["queue", "list"]).contains("1 entry"));
}

/// The trace of an entry says that it waits, and for what.
fn check_that_it_waits(daemon: &Daemon, queue: &[Value], id: &str) {
    let entry = queue.iter().find(|entry| entry["id"] == id).expect("waits");
    let trace = entry["traceId"].as_str().expect("an id");
    let told = daemon.succeeds(&["events", "trace", trace]);
    let expected = format!("\n  waits: queue entry {id} for far.test, attempts ");
    assert!(told.contains(&expected), "{told}");
    let told = daemon.succeeds(&["events", "trace", trace, "--json"]);
    let first = told.lines().next().expect("a trace");
    let told: Value = serde_json::from_str(first).expect("JSON");
    assert_eq!(told["waiting"][0]["id"], id, "{told:#}");
    assert!(told["waiting"][0]["nextAttempt"].is_u64(), "{told:#}");
}

#[test]
fn a_record_tells_nothing_of_another_organizations_groups() {
    let far = far();
    let journaling = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                      report_address = \"admin@example.test\"\n";
    let other = "alias = \"orgb\"\ndomains = [\"orgb.test\"]\n[[user]]\nname = \"m1\"\n\
                 [[user]]\nname = \"m2\"\n[[user.mailbox_rule]]\nname = \"r\"\naction = \"FORWARD\"\n\
                 to = \"private@far.test\"\n[[group]]\nname = \"layoffs\"\nmembers = [\"m1\", \"m2\"]\n";
    let setup = Setup { more_organizations: vec![other.into()], ..Setup::with(journaling) };
    let mut daemon = prepared(setup, far.address().port());
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "layoffs@orgb.test", "between us", &[]).accepted();
    assert_eq!(daemon.folders("orgb/m1", "between us"), ["INBOX"]);
    let record = delivered(&daemon, "example/archive", "between us");
    assert!(record.contains("To: layoffs@orgb.test\r\n"), "{record}");
    for hidden in ["m1@orgb.test", "m2@orgb.test", "private@far.test", "Expanded"] {
        assert!(!record.contains(hidden), "{hidden} is in\n{record}");
    }
}

/// What was sent before is sent again in the name of who has logged in.
#[test]
fn nobody_sends_again_as_somebody_else() {
    let far = far();
    let daemon = daemon("", far.address().port());
    for (field, is_taken) in [
        ("Resent-From: Alice <alice@example.test>", true),
        ("Resent-To: x@good.test", true),
        ("Resent-From: bob@example.test", false),
        ("RESENT-SENDER : ceo@evil.test", false),
        ("Resent-From: alice@example.test, ceo@evil.test", false),
        ("Resent-Sender: \"", false),
    ] {
        let sent = submit(&daemon, BOB, "again", &["--add-header", field]);
        assert_eq!(sent.is_success, is_taken, "{field}: {}", sent.text);
    }
}

#[test]
fn journal_records_leave_for_an_archive_elsewhere() {
    let far = far();
    let journaling = format!(
        "[journaling]\njournaling_address = \"carol@far.test\"\nreport_address = \"{BOB}\"\n"
    );
    let daemon = daemon(&journaling, far.address().port());
    submit(&daemon, &format!("dave@far.test,{BOB}"), "for the archive", &[]).accepted();
    let record = delivered(&far, "carol", "for the archive");
    for expected in
        ["Sender: alice@example.test", "To: bob@example.test\r\n", "To: dave@far.test\r\n"]
    {
        assert!(record.contains(expected), "no {expected} in\n{record}");
    }
    let records = far.mailbox("carol").len();
    assert_eq!(records, 1, "one record, though a recipient is here");
}

#[test]
fn the_report_of_a_lost_record_says_which_message_it_is_about() {
    let far = far();
    let journaling = format!(
        "[journaling]\njournaling_address = \"nobody@far.test\"\nreport_address = \"{BOB}\"\n"
    );
    let daemon = daemon(&journaling, far.address().port());
    submit(&daemon, BOB, "not archived", &[]).accepted();
    let report = delivered(&daemon, "bob", "Journal record not delivered");
    for expected in ["Subject: not archived", "From: alice@example.test", "Message-ID: <"] {
        assert!(report.contains(expected), "no {expected} in\n{report}");
    }
}

fn outbound_rule(name: &str, action: &str, sender: &str, destination: &str) -> String {
    rule(name, action, sender, destination).replace("inbound_rule", "outbound_rule")
}

/// What a trace says of the rule that an outbound recipient had.
fn outbound_rule_of(daemon: &Daemon, subject: &str) -> Value {
    daemon.trace(subject)[1]["ruleName"].clone()
}

#[test]
fn neither_an_alias_nor_a_tag_leads_past_an_outbound_rule() {
    let rules = outbound_rule("mute", "DROP", ALICE, "*")
        + &outbound_rule("never-to", "BOUNCE", "*", "boss@far.test")
        + &outbound_rule("catch-all", "DEFAULT", "*", "*");
    let daemon = daemon(&rules, refusing_port());
    for author in ["a.liddell@example.test", "alice+x@example.test", "A.Liddell+y@example.test"] {
        submit(&daemon, "carol@far.test", author, &["--h-From", author]).accepted();
        assert_eq!(outbound_rule_of(&daemon, author), "mute", "{author}");
    }
    let to = "boss+x@far.test";
    submit_as(&daemon, BOB, to, "tagged", &[]).refused("550 5.7.1", "outbound-rule-bounce");
    let sender = ["--sender", "a.liddell@example.test", "--recipient", "x@far.test"];
    let test = [&["rules", "test", "--direction", "outbound"][..], &sender].concat();
    assert!(daemon.succeeds(&test).starts_with("DROP: rule \"mute\" wins"));
}

#[test]
fn a_catch_all_does_not_switch_off_rules_on_the_author_of_delegated_mail() {
    let rules = "[[permission]]\nowner = \"alice\"\ngrantee = \"bob\"\nsend_on_behalf = true\n"
        .to_owned()
        + &outbound_rule("mute", "DROP", ALICE, "*")
        + &outbound_rule("catch-all", "DEFAULT", "*", "*");
    let daemon = daemon(&rules, refusing_port());
    submit_as(&daemon, BOB, "carol@far.test", "delegated", &["--h-From", ALICE]).accepted();
    assert_eq!(outbound_rule_of(&daemon, "delegated"), "mute");
    assert_eq!(daemon.trace("delegated")[0]["sender"], BOB);
    submit_as(&daemon, BOB, BOB, "my own", &[]).accepted();
    assert_eq!(outbound_rule_of(&daemon, "my own"), "catch-all");
}

#[test]
fn a_gateway_for_all_leaves_users_here_alone() {
    let gateway = |to: &str| {
        "[[smtp_gateway]]\nname = \"filter\"\naddress = \"127.0.0.1\"\nport = 1\n".to_owned()
            + &outbound_rule("via", "ROUTE_TO_SMTP_GATEWAY\"\ngateway = \"filter", "*", to)
    };
    let all = daemon(&gateway("*"), refusing_port());
    submit(&all, &format!("{BOB},carol@far.test"), "for all", &[]).accepted();
    assert_eq!(all.folders("bob", "for all"), ["INBOX"]);
    let applied = &all.trace("for all")[1]["ruleActions"][0]["recipients"];
    assert_eq!(*applied, serde_json::json!(["carol@far.test"]));
    let ours = daemon(&gateway("example.test"), refusing_port());
    submit(&ours, BOB, "for ours", &[]).accepted();
    assert!(ours.folders("bob", "for ours").is_empty());
    assert_eq!(outbound_rule_of(&ours, "for ours"), "via");
}
