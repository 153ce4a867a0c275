//! Each rule action, and what the operator reads of it.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup, rule, zone_of_senders_here};
use crate::support::smtp::message;
use crate::support::swaks::swaks;

const ALICE: &str = "alice@example.test";
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

fn daemon(rules: &[String]) -> Daemon {
    Setup { zone: zone_of_senders_here(), ..Setup::with(&rules.concat()) }.start()
}

fn applied(name: &str, action: &str, recipients: &[&str]) -> Value {
    json!({
        "eventName": "RULE_APPLIED", "ruleName": name, "ruleType": "INBOUND_RULE",
        "ruleActions": [{ "action": action, "recipients": recipients }],
    })
}

#[test]
fn drop_is_accepted_and_goes_nowhere() {
    let daemon = daemon(&[rule("quiet", "DROP", "good.test", "*")]);
    swaks(&daemon, "bob@good.test", ALICE, "dropped", &[]).accepted();
    assert_eq!(daemon.trace("dropped")[1..], [applied("quiet", "DROP", &[ALICE])]);
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn bounce_for_all_is_refused_in_session() {
    let daemon = daemon(&[rule("loud", "BOUNCE", "good.test", "*")]);
    swaks(&daemon, "bob@good.test", ALICE, "bounced", &[]).refused("550 5.7.1", "rule-bounce");
    let trace = daemon.trace("bounced");
    assert_eq!(trace[1], applied("loud", "BOUNCE", &[ALICE]));
    assert_eq!(trace[2]["eventName"], "INCOMING_EMAIL_BOUNCED");
    assert_eq!(trace[2]["bouncedRecipient"]["emailAddress"], ALICE);
    assert_eq!(trace[2]["bouncedRecipient"]["status"], "5.7.1");
    assert!(trace[2]["bouncedRecipient"]["reason"].is_string());
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn bounce_for_some_is_accepted_and_told() {
    let daemon = daemon(&[rule("loud", "BOUNCE", "example.org", "bob@example.test")]);
    let to = "alice@example.test,bob@example.test";
    // The sender is local here, so that the report can be read.
    swaks(&daemon, "admin@example.test", to, "half", &["--h-From", "x@example.org"]).accepted();
    assert_eq!(daemon.folders("alice", "half"), ["INBOX"]);
    assert!(daemon.mailbox("bob").is_empty());
    let names = daemon.names("half");
    assert!(names.contains(&"INCOMING_EMAIL_BOUNCED".to_owned()), "{names:?}");
    let reports = daemon.mailbox("admin");
    let [(_, report)] = reports.as_slice() else { panic!("{} reports", reports.len()) };
    let report = String::from_utf8_lossy(report);
    for expected in [
        "Return-Path: <>\r\n",
        "multipart/report",
        "Final-Recipient: rfc822; bob@example.test\r\nAction: failed\r\nStatus: 5.7.1\r\n",
        "Subject: half\r\n",
    ] {
        assert!(report.contains(expected), "{expected:?} is not in {report}");
    }
}

#[test]
fn nobody_is_told_where_there_is_nobody_to_tell() {
    let daemon = daemon(&[rule("loud", "BOUNCE", "example.org", "bob@example.test")]);
    let to = "alice@example.test,bob@example.test";
    swaks(&daemon, "<>", to, "null path", &["--h-From", "admin@example.org"]).accepted();
    let bounced = daemon.trace("null path").pop().expect("an event");
    assert_eq!(bounced["eventName"], "INCOMING_EMAIL_BOUNCED", "the event says so either way");
    assert_eq!(bounced["bouncedRecipient"]["emailAddress"], "bob@example.test");
    assert_eq!(daemon.mailbox("alice").len(), 1);
    for user in ["admin", "bob"] {
        assert!(daemon.mailbox(user).is_empty(), "{user}: a null path gets no report");
    }
}

#[test]
fn junk_default_and_bypass_choose_the_folder() {
    let daemon = daemon(&[
        rule("junk", "MOVE_TO_JUNK", "newsletter.test", "*"),
        rule("default", "DEFAULT", "partner.test", "*"),
        rule("never", "BYPASS_SPAM_CHECK", "good.test", "*"),
    ]);
    for (from, body, folder, action) in [
        ("a@newsletter.test", "hello", "JUNK_EMAIL", "MOVE_TO_JUNK"),
        ("a@partner.test", "hello", "INBOX", "DEFAULT"),
        ("a@partner.test", GTUBE, "JUNK_EMAIL", "DEFAULT"),
        ("a@good.test", GTUBE, "INBOX", "BYPASS_SPAM_CHECK"),
    ] {
        let subject = format!("{action} {}", body.len());
        swaks(&daemon, from, ALICE, &subject, &["--body", body]).accepted();
        assert_eq!(daemon.folders("alice", &subject), [folder], "{subject}");
        let trace = daemon.trace(&subject);
        let spam = if body == GTUBE { "FAIL" } else { "DISABLED" };
        assert_eq!(trace[0]["spamVerdict"], spam);
        assert_eq!(trace[1]["ruleActions"][0]["action"], action);
        assert_eq!(trace[2]["folder"], folder);
    }
}

#[test]
fn spam_without_a_rule_goes_to_junk() {
    let daemon = daemon(&[]);
    swaks(&daemon, "bob@good.test", ALICE, "spam", &["--body", GTUBE]).accepted();
    assert_eq!(daemon.folders("alice", "spam"), ["JUNK_EMAIL"]);
}

#[test]
fn each_recipient_has_its_own_rule() {
    let daemon = daemon(&[
        rule("drop-bob", "DROP", "*", "bob@example.test"),
        rule("junk-all", "MOVE_TO_JUNK", "*", "*"),
    ]);
    swaks(&daemon, "x@good.test", "alice@example.test,bob@example.test", "two rules", &[])
        .accepted();
    assert_eq!(daemon.folders("alice", "two rules"), ["JUNK_EMAIL"]);
    assert!(daemon.mailbox("bob").is_empty());
    let trace = daemon.trace("two rules");
    assert_eq!(trace[1], applied("junk-all", "MOVE_TO_JUNK", &[ALICE]));
    assert_eq!(trace[2], applied("drop-bob", "DROP", &["bob@example.test"]));
}

#[test]
fn the_header_decides_not_the_envelope() {
    let daemon = daemon(&[
        rule("by-sender", "DROP", "sender.test", "*"),
        rule("by-envelope", "DROP", "good.test", "*"),
    ]);
    let from = ["--h-From", "x@plain.test"];
    swaks(&daemon, "bob@good.test", ALICE, "envelope", &from).accepted();
    assert_eq!(daemon.folders("alice", "envelope"), ["INBOX"]);
    let sender = ["--h-From", "x@plain.test", "--add-header", "Sender: s@sender.test"];
    swaks(&daemon, "bob@good.test", ALICE, "sender", &sender).accepted();
    assert!(daemon.folders("alice", "sender").is_empty());
    assert_eq!(daemon.trace("sender")[0]["sender"], "s@sender.test");
}

/// From, Sender, MAIL FROM, and where it ends: MAIL FROM passes SPF, and proves the Sender only if
/// it is of the Sender's domain.
#[test]
fn a_sender_that_nothing_proves_may_restrict_and_not_relax() {
    let daemon = daemon(&[
        rule("drop", "DROP", "evil.test", "*"),
        rule("never", "BYPASS_SPAM_CHECK", "good.test", "*"),
        rule("junk", "MOVE_TO_JUNK", "newsletter.test", "*"),
        rule("lifted", "BYPASS_SPAM_CHECK", "boss@quarantine.test", "*"),
    ]);
    let (forger, proven) = ("x@bad.test", "bounce@good.test");
    for (from, sender, path, folder) in [
        // One line does not turn a drop into an inbox, nor lift a quarantine.
        ("x@evil.test", "s@good.test", forger, None),
        ("x@quarantine.test", "s@good.test", forger, Some("JUNK_EMAIL")),
        ("x@quarantine.test", "s@sub.good.test", forger, Some("JUNK_EMAIL")),
        ("x@quarantine.test", "boss@quarantine.test", forger, Some("JUNK_EMAIL")),
        ("x@newsletter.test", "s@good.test", forger, Some("JUNK_EMAIL")),
        // It may make things stricter.
        ("x@good.test", "s@newsletter.test", proven, Some("JUNK_EMAIL")),
        ("x@plain.test", "s@evil.test", forger, None),
        // Who is who it says comes first.
        ("x@evil.test", "s@good.test", proven, Some("INBOX")),
        ("x@quarantine.test", "s@good.test", proven, Some("INBOX")),
        ("x@newsletter.test", "s@good.test", proven, Some("INBOX")),
        ("x@quarantine.test", "s@good.test", "b@mail.good.test", Some("JUNK_EMAIL")),
        // The guide lets BYPASS_SPAM_CHECK lift a quarantine.
        ("boss@quarantine.test", "s@plain.test", forger, Some("INBOX")),
    ] {
        let subject = format!("{from} {sender} {path}");
        let sender = format!("Sender: {sender}");
        let more = ["--h-From", from, "--add-header", &sender];
        swaks(&daemon, path, ALICE, &subject, &more).accepted();
        assert_eq!(daemon.folders("alice", &subject), Vec::from_iter(folder), "{subject}");
    }
    // No policy of DMARC gives way to either.
    let more = ["--h-From", "x@reject.test", "--add-header", "Sender: s@good.test"];
    swaks(&daemon, proven, ALICE, "refused", &more).refused("550 5.7.1", "dmarc-reject");
}

#[test]
fn the_trace_tells_which_field_counted() {
    let daemon = daemon(&[rule("never", "BYPASS_SPAM_CHECK", "good.test", "*")]);
    let more = ["--h-From", "x@quarantine.test", "--add-header", "Sender: s@good.test"];
    let told = |path: &str, id: &str| {
        let id = format!("<{id}@x.test>");
        let more = [&more[..], &["--h-Message-Id", &id]].concat();
        swaks(&daemon, path, ALICE, "which field", &more).accepted();
        daemon.succeeds(&["events", "trace", &id])
    };
    let forged = told("x@bad.test", "forged");
    for expected in [
        "Sender not authenticated: a rule for it may restrict, and not relax",
        "rule \"never\" (BYPASS_SPAM_CHECK) matches Sender good.test and *, but the Sender is not \
         authenticated and may not relax this",
    ] {
        assert!(forged.contains(expected), "no {expected} in\n{forged}");
    }
    let proven = told("bounce@good.test", "proven");
    for expected in [
        "Sender authenticated by SPF",
        "because rule \"never\" (BYPASS_SPAM_CHECK) matches Sender good.test and *\n",
    ] {
        assert!(proven.contains(expected), "no {expected} in\n{proven}");
    }
}

#[test]
fn a_tag_and_an_alias_do_not_lead_past_a_rule_for_the_mailbox() {
    let daemon = daemon(&[
        rule("to", "DROP", "*", "alice@example.test"),
        rule("group", "DROP", "*", "sales@example.test"),
        rule("from", "DROP", "spam@plain.test", "*"),
        rule("postmaster", "DROP", "*", "admin@example.test"),
    ]);
    for to in [
        "alice+a@example.test",
        "ALICE+a+b@example.test",
        "a.liddell@example.test",
        "a.liddell+x@example.test",
        "sales+x@example.test",
        "verkauf@example.org",
        "postmaster@example.org",
        "abuse@example.test",
        "postmaster",
    ] {
        swaks(&daemon, "bob@good.test", to, to, &[]).accepted();
        let action = &daemon.trace(to)[1]["ruleActions"];
        // Whoever is postmaster of no domain is so of this host.
        let to = if to == "postmaster" { "postmaster@mx.example.test" } else { to };
        assert_eq!(*action, json!([{ "action": "DROP", "recipients": [to] }]), "{to}");
        let test = ["rules", "test", "--json", "--sender", "bob@good.test", "--recipient", to];
        let told: Value = serde_json::from_str(&daemon.succeeds(&test)).expect("JSON");
        assert_eq!(told["action"], "DROP", "{to}");
    }
    let from = ["--h-From", "spam+1@plain.test"];
    swaks(&daemon, "x@good.test", "bob@example.test", "tagged author", &from).accepted();
    assert!(daemon.mailbox("bob").is_empty());
    assert!(daemon.mailbox("alice").is_empty() && daemon.mailbox("admin").is_empty());
}

#[test]
fn a_rule_that_names_an_address_or_an_alias_is_asked_alike_in_both_directions() {
    let both = |name: &str, to: &str| {
        let inbound = rule(name, "DROP", "*", to);
        inbound.clone() + &inbound.replace("inbound_rule", "outbound_rule")
    };
    let rules = both("mailbox", ALICE) + &both("alias", "verkauf@example.org");
    let daemon = Setup::with(&rules).prepare();
    let action = |direction: &str, to: &str| {
        let addresses = ["--sender", "bob@example.test", "--recipient", to];
        let test = ["rules", "test", "--json", "--direction", direction];
        let told = daemon.succeeds(&[test.as_slice(), &addresses].concat());
        serde_json::from_str::<Value>(&told).expect("JSON")["action"].clone()
    };
    for direction in ["inbound", "outbound"] {
        for to in
            [ALICE, "a.liddell@example.test", "a.liddell+x@example.test", "alice+x@example.test"]
        {
            assert_eq!(action(direction, to), "DROP", "{direction} {to}");
        }
        // A rule that names an alias is for that alias, with its tags.
        for to in ["verkauf@example.org", "Verkauf+x@example.org"] {
            assert_eq!(action(direction, to), "DROP", "{direction} {to}");
        }
        assert_eq!(action(direction, "sales@example.test"), "DEFAULT", "{direction}");
    }
}

#[test]
fn a_mailbox_that_has_the_message_is_not_told_to_have_bounced() {
    let daemon = daemon(&[rule("loud", "BOUNCE", "*", "alice@example.test")]);
    for to in ["alice@example.test,sales@example.test", "sales@example.test,a.liddell@example.test"]
    {
        swaks(&daemon, "x@good.test", to, to, &[]).accepted();
        assert_eq!(daemon.folders("alice", to), ["INBOX"], "through the group");
        let trace = daemon.trace(to);
        let is_alice = |event: &&Value| {
            event["recipient"] == ALICE || event["eventName"] == "INCOMING_EMAIL_BOUNCED"
        };
        let told: Vec<_> = trace.iter().filter(is_alice).map(|it| &it["eventName"]).collect();
        assert_eq!(told, ["MAILBOX_EMAIL_DELIVERED"], "{trace:#?}");
    }
    // Whom nobody else leads to bounces.
    let to = "alice@example.test,bob@example.test";
    swaks(&daemon, "x@good.test", to, "one bounces", &[]).accepted();
    assert!(daemon.names("one bounces").contains(&"INCOMING_EMAIL_BOUNCED".to_owned()));
}

#[test]
fn a_message_keeps_the_rules_and_checks_that_it_began_with() {
    let daemon = daemon(&[rule("junk", "MOVE_TO_JUNK", "good.test", "*")]);
    let mut client = daemon.client();
    client.envelope("bob@good.test", &[ALICE]);
    // Now the rule is gone, and the sender's domain says that this is forged.
    let organization = std::fs::read_to_string(daemon.path("org.toml")).expect("reads");
    let changed = organization.replace("MOVE_TO_JUNK", "DROP");
    assert_ne!(changed, organization);
    std::fs::write(daemon.path("org.toml"), changed).expect("writes");
    let zone = std::fs::read_to_string(daemon.path("demo.zone")).expect("reads");
    let changed = zone.replace(
        "good.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 ip6:::1 -all\"",
        "good.test. IN TXT \"v=spf1 -all\"",
    );
    assert_ne!(changed, zone);
    std::fs::write(daemon.path("demo.zone"), changed).expect("writes");
    daemon.succeeds(&["reload"]);
    assert!(client.data(&message("bob@good.test", "as it began")).starts_with("250"));
    assert_eq!(daemon.folders("alice", "as it began"), ["JUNK_EMAIL"]);
    assert_eq!(daemon.trace("as it began")[0]["spfVerdict"], "PASS");
    client.envelope("bob@good.test", &[ALICE]);
    assert!(client.data(&message("bob@good.test", "the next")).starts_with("550"));
}

#[test]
fn a_mailbox_that_was_full_and_has_the_message_after_all_is_told_once() {
    let group = "[[group]]\nname = \"tiny\"\nmembers = [\"small\", \"alice\"]\n";
    let daemon = daemon(&[group.to_owned()]);
    let mut client = daemon.client();
    client.command("EHLO client.test");
    // More than the mailbox takes is declared, and less is sent.
    assert!(client.command("MAIL FROM:<x@good.test> SIZE=2000000").starts_with("250"));
    assert!(client.command("RCPT TO:<small@example.test>").starts_with("552 5.2.2"));
    assert!(client.command("RCPT TO:<tiny@example.test>").starts_with("250"));
    assert!(client.data(&message("x@good.test", "after all")).starts_with("250"));
    assert_eq!(daemon.folders("small", "after all"), ["INBOX"]);
    let names = daemon.names("after all");
    assert!(!names.contains(&"INCOMING_EMAIL_BOUNCED".to_owned()), "{names:?}");
}
