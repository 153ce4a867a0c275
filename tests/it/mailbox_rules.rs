//! What users' own rules do with their mail, mail of users whose mailbox is elsewhere, and what
//! senders learn of it.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup, ZONE, rule, text};
use crate::support::journal_record::read;
use crate::support::smtp::message;
use crate::support::swaks::swaks;
use crate::support::{refusing_port, wait_for};

const CAROL: &str = "carol@far.test";

/// Another organization's daemon.
fn far() -> Daemon {
    let organization = "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n\
                        [[user]]\nname = \"dave\"\n";
    Setup { organization: organization.into(), ..Setup::default() }.start()
}

/// A daemon with more in its organization, whose mail for far.test goes there.
fn daemon(organization: &str, far: &Daemon) -> Daemon {
    setup(organization, far).start()
}

fn setup(organization: &str, far: &Daemon) -> Setup {
    let listener = route("far.test", far);
    let zone = format!("{ZONE}far.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n");
    Setup { listener, zone, ..Setup::with(organization) }
}

fn route(domain: &str, far: &Daemon) -> String {
    let port = far.address().port();
    format!("[[queue_route]]\ndomain = \"{domain}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
}

fn user(name: &str, rules: &[&str]) -> String {
    let mut user = format!("[[user]]\nname = \"{name}\"\n");
    for (place, rule) in rules.iter().enumerate() {
        user.push_str(&format!("[[user.mailbox_rule]]\nname = \"{name}-{place}\"\n{rule}\n"));
    }
    user
}

/// A message of that subject in a mailbox, once it is there.
fn delivered(daemon: &Daemon, user: &str, subject: &str) -> String {
    wait_for("the delivery", || {
        let needle = format!("Subject: {subject}\r\n");
        let mut texts = daemon.mailbox(user).into_iter().map(|(_, bytes)| text(&bytes));
        texts.find(|text| text.contains(&needle))
    })
}

fn events_named(daemon: &Daemon, name: &str) -> Vec<Value> {
    let mut events = daemon.events();
    events.retain(|line| line["event"]["eventName"] == name);
    events
}

#[test]
fn rules_move_copy_and_delete() {
    let far = far();
    let organization = user(
        "sorter",
        &[
            "action = \"MOVE\"\nfolder = \"DELETED_ITEMS\"\n\
             condition = [{ field = \"subject\", contains = \"report\" }]",
            "action = \"COPY\"\nfolder = \"SENT_ITEMS\"\n\
             condition = [{ field = \"sender\", domain = \"good.test\" }]",
            "action = \"DELETE\"\ncondition = [{ field = \"header\", name = \"X-Kind\", equals = \"noise\" }]",
        ],
    );
    let daemon = daemon(&organization, &far);
    let send = |subject: &str, more: &[&str]| {
        swaks(&daemon, "bob@good.test", "sorter@example.test", subject, more).accepted()
    };
    send("a report", &[]);
    let mut folders = daemon.folders("sorter", "a report");
    folders.sort();
    assert_eq!(folders, ["DELETED_ITEMS", "SENT_ITEMS"]);
    let trace = daemon.trace("a report");
    let expected = ["ORGANIZATION_EMAIL_RECEIVED", "RULE_APPLIED", "RULE_APPLIED"];
    let names: Vec<_> = trace.iter().filter_map(|event| event["eventName"].as_str()).collect();
    assert_eq!(names[..3], expected);
    assert_eq!(names[3..], ["MAILBOX_EMAIL_DELIVERED"], "one for the mailbox, copies and all");
    assert_eq!(trace[1]["ruleType"], "MAILBOX_RULE");
    assert_eq!(trace[1]["ruleName"], "sorter-0");
    assert_eq!(trace[1]["targetFolder"], "DELETED_ITEMS");
    let actions = json!([{ "action": "MOVE", "recipients": ["sorter@example.test"] }]);
    assert_eq!(trace[1]["ruleActions"], actions);
    assert_eq!(trace[2]["targetFolder"], "SENT_ITEMS");
    send("nothing of it", &["--header", "X-Kind: noise"]);
    assert_eq!(daemon.folders("sorter", "nothing of it"), ["SENT_ITEMS"]);
    swaks(
        &daemon,
        "carol@far.test",
        "sorter@example.test",
        "all gone",
        &["--header", "X-Kind: noise"],
    )
    .accepted();
    assert!(daemon.folders("sorter", "all gone").is_empty());
    assert_eq!(daemon.names("all gone"), ["ORGANIZATION_EMAIL_RECEIVED", "RULE_APPLIED"]);
}

/// What a rule sees of the header section is what the mailbox gets: our fields, and none that pass
/// for them.
#[test]
fn rules_look_at_the_fields_that_are_stored() {
    let far = far();
    let moves = |name: &str, value: &str, folder: &str| {
        format!(
            "action = \"MOVE\"\nfolder = \"{folder}\"\n\
             condition = [{{ field = \"header\", name = \"{name}\", contains = \"{value}\" }}]"
        )
    };
    let forged = moves("X-SES-Spam-Verdict", "forged", "DELETED_ITEMS");
    let results = moves("Authentication-Results", "spf=forged", "DELETED_ITEMS");
    let report = moves("X-MS-Journal-Report", "forged", "DELETED_ITEMS");
    let ours = moves("Authentication-Results", "mx.example.test", "SENT_ITEMS");
    let organization = user("sorter", &[&forged, &results, &report, &ours]);
    let daemon = daemon(&organization, &far);
    for (subject, field) in [
        ("verdict", "X-SES-Spam-Verdict: forged"),
        ("results", "Authentication-Results: mx.example.test; spf=forged"),
        ("report", "X-MS-Journal-Report: forged"),
        ("nothing forged", "X-Kind: forged"),
    ] {
        let more = ["--header", field];
        swaks(&daemon, "bob@good.test", "sorter@example.test", subject, &more).accepted();
        assert_eq!(daemon.folders("sorter", subject), ["SENT_ITEMS"], "{subject}");
    }
}

#[test]
fn a_forward_leaves_under_a_sender_of_ours_and_its_bounces_come_back() {
    let far = far();
    let daemon = daemon(&user("fwd", &["action = \"FORWARD\"\nto = \"dave@far.test\""]), &far);
    swaks(&daemon, CAROL, "fwd@example.test", "passed on", &[]).accepted();
    assert_eq!(daemon.folders("fwd", "passed on"), ["INBOX"]);
    let there = delivered(&far, "dave", "passed on");
    assert!(there.contains("Delivered-To: fwd@example.test\r\n"), "{there}");
    assert_eq!(there.matches("Return-Path:").count(), 1, "{there}");
    let path = there.strip_prefix("Return-Path: <").and_then(|rest| rest.split_once('>'));
    let path = path.expect("a path").0.to_owned();
    assert!(path.starts_with("SRS0=") && path.ends_with("=far.test=carol@example.test"), "{path}");
    let rule = &daemon.trace("passed on")[1];
    assert_eq!(rule["targetRecipient"], "dave@far.test");
    let sent = wait_for("the outcome", || events_named(&daemon, "OUTGOING_EMAIL_SENT").pop());
    let received = &events_named(&daemon, "ORGANIZATION_EMAIL_RECEIVED")[0];
    assert_eq!(sent["event"]["messageId"], received["event"]["messageId"]);
    assert_ne!(sent["traceId"], received["traceId"]);
    // Nobody here has submitted it.
    assert!(events_named(&daemon, "OUTGOING_EMAIL_SUBMITTED").is_empty());
    let trace = sent["traceId"].as_str().expect("an id");
    let told = daemon.succeeds(&["events", "trace", trace]);
    assert!(told.contains("  sent on by organization example: "), "{told}");

    // What bounces there comes back to us, and goes on to who sent it first.
    let mut client = daemon.client();
    client.command("EHLO far.test");
    client.command("MAIL FROM:<>");
    assert!(client.command(&format!("RCPT TO:<{path}>")).starts_with("250"));
    let altered = path.replace("=carol@", "=eve@");
    assert!(client.command(&format!("RCPT TO:<{altered}>")).starts_with("550"));
    assert!(client.data(&message("postmaster@far.test", "a bounce")).starts_with("250"));
    delivered(&far, "carol", "a bounce");
    client.command("MAIL FROM:<spammer@bad.test>");
    assert!(client.command(&format!("RCPT TO:<{path}>")).starts_with("550"));
}

#[test]
fn a_redirect_that_fails_tells_the_sender_and_is_kept() {
    let far = far();
    let organization = user("red", &["action = \"REDIRECT\"\nto = \"nobody@far.test\""]);
    let daemon = daemon(&organization, &far);
    swaks(&daemon, CAROL, "red@example.test", "to nobody", &[]).accepted();
    wait_for("the bounce", || events_named(&daemon, "OUTGOING_EMAIL_BOUNCED").pop());
    assert_eq!(daemon.folders("red", "to nobody"), ["INBOX"], "kept after all");
    let report = delivered(&far, "carol", "Undelivered mail");
    assert!(report.contains("Final-Recipient: rfc822; nobody@far.test"), "{report}");
    assert!(report.contains("Status: 5.1.1"), "{report}");
    assert_eq!(report.matches("Return-Path:").count(), 1, "of its last server only: {report}");
}

#[test]
fn what_goes_on_to_users_here_is_inbound_mail_with_one_journal_record() {
    let far = far();
    let journaling = "[journaling]\njournaling_address = \"archive@example.test\"\n\
                      report_address = \"admin@example.test\"\n";
    let organization = journaling.to_owned()
        + &user("red", &["action = \"REDIRECT\"\nto = \"bob@example.test\""])
        + &user("lost", &["action = \"REDIRECT\"\nto = \"carol@example.test\""]);
    let daemon = daemon(&organization, &far);
    swaks(&daemon, CAROL, "red@example.test", "over to bob", &[]).accepted();
    assert!(daemon.mailbox("red").is_empty());
    assert_eq!(daemon.folders("bob", "over to bob"), ["INBOX"]);
    let bobs = text(&daemon.mailbox("bob")[0].1);
    let head = "Return-Path: <carol@far.test>\r\nDelivered-To: red@example.test\r\nReceived:";
    assert!(bobs.starts_with(head), "{bobs}");
    let received = events_named(&daemon, "ORGANIZATION_EMAIL_RECEIVED");
    assert_eq!(received.len(), 2);
    assert_ne!(received[0]["traceId"], received[1]["traceId"]);
    let delivered = &events_named(&daemon, "MAILBOX_EMAIL_DELIVERED");
    let to_bob = delivered.iter().find(|line| line["event"]["recipient"] == "bob@example.test");
    assert_eq!(to_bob.expect("one")["traceId"], received[1]["traceId"]);
    let records = daemon.mailbox("archive");
    let [(_, record)] = records.as_slice() else { panic!("{} records", records.len()) };
    let record = read(record).expect("a journal record");
    let [bob] = record.recipients.as_slice() else { panic!("{:?}", record.recipients) };
    assert_eq!(bob.address, "bob@example.test");
    assert_eq!(bob.forwarded.as_deref(), Some("red@example.test"));
    // What has nowhere to go stays.
    swaks(&daemon, CAROL, "lost@example.test", "stays here", &[]).accepted();
    assert_eq!(daemon.folders("lost", "stays here"), ["INBOX"]);
}

#[test]
fn what_rules_send_outside_counts_towards_the_quotas() {
    let far = far();
    let rules = user("fwd", &["action = \"REDIRECT\"\nto = \"dave@far.test\""]);
    let mut setup = setup(&rules, &far);
    setup.organization.insert_str(0, "recipients_per_user_per_day = 1\n");
    let daemon = setup.start();
    swaks(&daemon, CAROL, "fwd@example.test", "the first", &[]).accepted();
    swaks(&daemon, CAROL, "fwd@example.test", "one too many", &[]).accepted();
    assert!(daemon.folders("fwd", "the first").is_empty());
    assert_eq!(daemon.folders("fwd", "one too many"), ["INBOX"]);
    delivered(&far, "dave", "the first");
}

#[test]
fn forwards_do_not_go_round() {
    let far = far();
    let organization = user("ping", &["action = \"FORWARD\"\nto = \"pong@example.test\""])
        + &user("pong", &["action = \"FORWARD\"\nto = \"ping@example.test\""]);
    let daemon = daemon(&organization, &far);
    swaks(&daemon, CAROL, "ping@example.test", "round", &[]).accepted();
    assert_eq!(daemon.folders("ping", "round"), ["INBOX"]);
    assert_eq!(daemon.folders("pong", "round"), ["INBOX"]);
    // A stranger says that it has been there before.
    let forged = ["--header", "Delivered-To: ping@example.test"];
    swaks(&daemon, CAROL, "ping@example.test", "not yet", &forged).accepted();
    assert_eq!(daemon.folders("pong", "not yet"), ["INBOX"]);
}

/// The fields on top of a stored message that `mailbox` has sent on, for a server that sends it back.
fn marked(there: &str, mailbox: &str) -> String {
    let marked = "X-Mailweir-Delivered-To: ";
    let lines = there.lines().filter(|line| {
        line.strip_prefix("Delivered-To: ").or(line.strip_prefix(marked)).is_some_and(|rest| {
            rest.strip_prefix(mailbox).is_some_and(|end| end.is_empty() || end.starts_with("; "))
        })
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 2, "{there}");
    lines.join("\n")
}

/// What has left and comes back has our mark; what a stranger writes has none, and counts for
/// nothing.
#[test]
fn what_comes_back_from_another_server_is_not_sent_again() {
    let far = far();
    let organization = user("ping", &["action = \"FORWARD\"\nto = \"dave@far.test\""])
        + &user(
            "sorter",
            &["action = \"MOVE\"\nfolder = \"DELETED_ITEMS\"\n\
              condition = [{ field = \"header\", name = \"Delivered-To\", contains = \"ping\" }]"],
        );
    let daemon = daemon(&organization, &far);
    swaks(&daemon, CAROL, "ping@example.test", "first", &[]).accepted();
    let back = marked(&delivered(&far, "dave", "first"), "ping@example.test");
    // Servers may take one of the two fields out.
    let (standard, mark) = back.split_once('\n').expect("two fields");
    for (subject, header) in [("back again", back.as_str()), ("half of it", mark)] {
        swaks(&daemon, CAROL, "ping@example.test", subject, &["--header", header]).accepted();
        assert_eq!(daemon.folders("ping", subject), ["INBOX"], "{subject}");
    }
    let forged_mark = back.rsplit_once("mark=").expect("a mark").0.to_owned() + "mark=aaaaaaaa";
    for (subject, header) in [
        ("plain", standard.to_owned()),
        ("in odd form", "Delivered-To: Ping <ping@example.test>".to_owned()),
        ("forged mark", forged_mark),
        ("another's mark", back.replace("ping@", "sorter@")),
        ("theirs", "Delivered-To: ping@their.test".to_owned()),
    ] {
        let to = "ping@example.test,sorter@example.test";
        swaks(&daemon, CAROL, to, subject, &["--header", &header]).accepted();
        let there = delivered(&far, "dave", subject);
        assert_eq!(
            there.matches("Delivered-To: ").count(),
            if subject == "theirs" { 3 } else { 2 }
        );
        // What is stored, and seen by rules, is what is true.
        let kept = daemon.mailbox("ping").into_iter().map(|(_, bytes)| text(&bytes));
        let kept = kept.filter(|text| text.contains(&format!("Subject: {subject}\r\n")));
        let kept = kept.map(|text| text.matches("Delivered-To: ").count()).collect::<Vec<_>>();
        assert_eq!(kept, [usize::from(subject == "theirs")], "{subject}");
        let folder = if subject == "theirs" { "DELETED_ITEMS" } else { "INBOX" };
        assert_eq!(daemon.folders("sorter", subject), [folder], "{subject}");
    }
    let far_has = far.mailbox("dave").into_iter().map(|(_, bytes)| text(&bytes));
    let again = |text: &String| text.contains("back again") || text.contains("half of it");
    assert!(!far_has.into_iter().any(|text| again(&text)), "it was sent on twice");
    let id = daemon.events();
    let id = id.iter().find(|line| line["event"]["subject"] == "back again").expect("received");
    let told =
        daemon.succeeds(&["events", "trace", id["traceId"].as_str().expect("an id"), "--json"]);
    assert!(
        told.contains("\"reason\":\"loop\"") || told.contains("\"reason\": \"loop\""),
        "{told}"
    );
}

#[test]
fn nothing_is_lost_where_redirects_lead_nowhere() {
    let far = far();
    let to = |to: &str| format!("action = \"REDIRECT\"\nto = \"{to}@example.test\"");
    let organization = user("ping", &[&to("pong")])
        + &user("pong", &[&to("ping")])
        + &user("one", &[&to("two")])
        + &user("two", &[&to("three")])
        + &user("three", &[&to("one")])
        + &user("tofull", &[&to("small")])
        + &user("torefused", &[&to("bob")])
        + &rule("not-to-bob", "BOUNCE", "*", "bob@example.test");
    let daemon = daemon(&organization, &far);
    let big = format!("{}\r\n", "x".repeat(76)).repeat(13_000).into_bytes();
    let mut client = daemon.client();
    client.envelope(CAROL, &["small@example.test"]);
    client.data(&[message(CAROL, "fills it"), big.clone()].concat());
    let kept = |names: &[&str], subject: &str| {
        let found = names.iter().filter(|name| !daemon.folders(name, subject).is_empty());
        found.map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    let send = |to: &str, subject: &str| {
        swaks(&daemon, "", &format!("{to}@example.test"), subject, &[]).accepted();
    };
    send("ping", "to and fro");
    assert_eq!(kept(&["ping", "pong"], "to and fro"), ["pong"]);
    send("one", "round");
    assert_eq!(kept(&["one", "two", "three"], "round"), ["three"]);
    send("torefused", "refused there");
    assert_eq!(kept(&["torefused", "bob"], "refused there"), ["torefused"]);
    let mut client = daemon.client();
    client.envelope("", &["tofull@example.test"]);
    assert!(client.data(&[message(CAROL, "no room"), big].concat()).starts_with("250"));
    assert_eq!(kept(&["tofull", "small"], "no room"), ["tofull"]);
    for to in ["ping@example.test,pong@example.test", "pong@example.test,ping@example.test"] {
        swaks(&daemon, CAROL, to, to, &[]).accepted();
        assert_eq!(kept(&["ping", "pong"], to).len(), 1, "{to}");
    }
}

#[test]
fn forged_mail_of_our_own_does_not_leave_as_ours() {
    let far = far();
    let remote = "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n";
    let rules = user("fwd", &["action = \"REDIRECT\"\nto = \"dave@far.test\""]);
    let daemon = daemon(&(remote.to_owned() + &rules), &far);
    for from in [
        "alice@example.org",
        "alice(x)@example.org",
        "Alice <alice @ example. org>",
        "carol@far.test <alice@example.org>",
    ] {
        let from = ["--header", &format!("From: {from}")];
        swaks(&daemon, CAROL, "dave@example.test", "forged", &from)
            .refused("550 5.7.1", "dmarc-reject");
    }
    let from = ["--header", "From: alice@example.org"];
    swaks(&daemon, CAROL, "fwd@example.test", "forged too", &from).accepted();
    assert_eq!(daemon.folders("fwd", "forged too"), ["INBOX"]);
    // What is proven for our domain is proven for its relatives.
    let parent = ["--header", "From: alice@test"];
    let child = ["--header", "From: alice@hr.example.org"];
    for (number, from) in [parent, child].into_iter().enumerate() {
        swaks(&daemon, CAROL, "dave@example.test", "of a relative", &from)
            .refused("550 5.7.1", "dmarc-reject");
        let subject = format!("relative {number}");
        swaks(&daemon, CAROL, "fwd@example.test", &subject, &from).accepted();
        assert_eq!(daemon.folders("fwd", &subject), ["INBOX"]);
    }
    // A forged reverse-path does not get our name either.
    swaks(
        &daemon,
        "alice@example.org",
        "fwd@example.test",
        "envelope",
        &["--header", "From: x@far.test"],
    )
    .accepted();
    let there = delivered(&far, "dave", "envelope");
    assert!(there.starts_with("Return-Path: <SRS0="), "{there}");
}

/// RFC 9989 §4.4.1: domains of one organization are aligned, so that what is proven for ours would be
/// proven for one beside it.
#[test]
fn forged_mail_of_a_sibling_of_our_domain_does_not_leave_as_ours() {
    let far = far();
    let mut setup = setup("[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n", &far);
    assert!(setup.organization.contains("\"example.org\""));
    setup.organization = setup.organization.replace("example.org", "one.corp.test");
    for domain in ["corp.test", "apart.test"] {
        setup.zone += &format!("_dmarc.{domain}. IN TXT \"v=DMARC1; p=none\"\n");
    }
    setup.zone += "_dmarc.own.corp.test. IN TXT \"v=DMARC1; p=none; psd=n\"\n";
    let daemon = setup.start();
    for domain in ["two.corp.test", "x.two.corp.test"] {
        let from = format!("From: ceo@{domain}");
        swaks(&daemon, CAROL, "dave@example.test", domain, &["--header", &from])
            .refused("550 5.7.1", "dmarc-reject");
    }
    // Others are: of another organization, and who says that it is one by itself.
    for domain in ["two.apart.test", "own.corp.test"] {
        let from = format!("From: ceo@{domain}");
        swaks(&daemon, CAROL, "dave@example.test", domain, &["--header", &from]).accepted();
        delivered(&far, "dave", domain);
    }
}

#[test]
fn remote_users_of_each_other_bounce() {
    let far = far();
    let remote = "[[user]]\nname = \"loop\"\nremote = \"loop@orgb.test\"\n";
    let mut setup = setup(remote, &far);
    setup.more_organizations.push(
        "alias = \"orgb\"\ndomains = [\"orgb.test\"]\n[[user]]\nname = \"eve\"\n[[user]]\nname = \"loop\"\n\
         remote = \"loop@example.test\"\n"
            .into(),
    );
    let daemon = setup.start();
    swaks(&daemon, CAROL, "loop@example.test", "never there", &[])
        .refused("554 5.4.6", "too-many-hops");
}

#[test]
fn who_may_be_forged_is_told_nothing() {
    let far = far();
    let mut setup = setup("", &far);
    setup.zone.push_str("forged.test. IN TXT \"v=spf1 -all\"\n");
    // A report to them would come here, and be refused.
    for domain in ["forged.test", "unknown.test"] {
        setup.listener.push_str(&route(domain, &far));
    }
    let daemon = setup.start();
    let mut client = daemon.client();
    client.command("EHLO far.test");
    for (sender, is_told) in [("x@forged.test", false), ("x@unknown.test", false), (CAROL, true)] {
        client.command(&format!("MAIL FROM:<{sender}>"));
        client.command("RCPT TO:<alice@example.test> NOTIFY=SUCCESS");
        assert!(client.data(&message(CAROL, sender)).starts_with("250"));
        let queue = daemon.succeeds(&["queue", "list", "--json"]);
        assert!(is_told || !queue.contains(sender), "{sender} is told");
    }
    delivered(&far, "carol", "Delivered mail");
    let log = daemon.log();
    assert!(!log.contains("a report could not be delivered"), "{log}");
}

#[test]
fn mail_for_remote_users_is_routed_on() {
    let far = far();
    let remote = "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n\
                  [[group]]\nname = \"team\"\nmembers = [\"alice\", \"dave\"]\n";
    let rules = "[[outbound_rule]]\nname = \"not-noisy\"\naction = \"BOUNCE\"\n\
                 senders = [\"noisy@bad.test\"]\ndestinations = [\"*\"]\n";
    let daemon = daemon(&(remote.to_owned() + rules), &far);
    swaks(&daemon, CAROL, "dave@example.test", "for dave", &[]).accepted();
    let there = delivered(&far, "dave", "for dave");
    assert!(there.contains("Delivered-To: dave@example.test\r\n"), "{there}");
    swaks(&daemon, CAROL, "team@example.test", "for all", &[]).accepted();
    delivered(&far, "dave", "for all");
    assert_eq!(daemon.folders("alice", "for all"), ["INBOX"]);
    let names = daemon.names("for dave");
    assert_eq!(names[0], "ORGANIZATION_EMAIL_RECEIVED");
    let sent = wait_for("both are sent", || {
        let sent = events_named(&daemon, "OUTGOING_EMAIL_SENT");
        (sent.len() == 2).then_some(sent)
    });
    assert_eq!(sent[0]["event"]["recipient"], "dave@far.test");
    // An outbound rule that says no, and mail that has been there before.
    swaks(&daemon, "noisy@bad.test", "dave@example.test", "noise", &[])
        .refused("550 5.7.1", "outbound-rule-bounce");
    let back = ["--header", &marked(&there, "dave@example.test")];
    swaks(&daemon, CAROL, "dave@example.test", "again", &back)
        .refused("554 5.4.6", "too-many-hops");
    let forged = ["--header", "Delivered-To: dave@example.test"];
    swaks(&daemon, CAROL, "dave@example.test", "not yet", &forged).accepted();
}

#[test]
fn senders_who_ask_learn_of_success() {
    let far = far();
    let organization = user("red", &["action = \"REDIRECT\"\nto = \"dave@far.test\""]);
    let daemon = daemon(&organization, &far);
    let mut client = daemon.client();
    client.command("EHLO far.test");
    client.command(&format!("MAIL FROM:<{CAROL}> ENVID=here-1"));
    for recipient in [
        "RCPT TO:<alice@example.test> NOTIFY=SUCCESS ORCPT=rfc822;alice@old.test",
        "RCPT TO:<sales@example.test> NOTIFY=SUCCESS,FAILURE",
        "RCPT TO:<bob@example.test> NOTIFY=FAILURE",
        "RCPT TO:<red@example.test> NOTIFY=SUCCESS",
    ] {
        assert!(client.command(recipient).starts_with("250"), "{recipient}");
    }
    assert!(client.data(&message(CAROL, "asked for")).starts_with("250"));
    let report = delivered(&far, "carol", "Delivered mail");
    for expected in [
        "Original-Envelope-Id: here-1",
        "Original-Recipient: rfc822;alice@old.test\r\nFinal-Recipient: rfc822; alice@example.test\r\n\
         Action: delivered\r\nStatus: 2.0.0",
        "Final-Recipient: rfc822; sales@example.test\r\nAction: expanded\r\nStatus: 2.0.0",
    ] {
        assert!(report.contains(expected), "no {expected} in\n{report}");
    }
    assert!(!report.contains("bob@example.test"), "{report}");
    assert!(!report.contains("red@example.test"), "the next server tells\n{report}");
    delivered(&far, "dave", "asked for");
}

#[test]
fn what_is_sent_on_and_waits_is_told() {
    let far = far();
    let organization = user("fwd", &["action = \"FORWARD\"\nto = \"dave@down.test\""]);
    let down = route("down.test", &far)
        .replace(&far.address().port().to_string(), &refusing_port().to_string());
    let setup = setup(&organization, &far);
    let daemon = Setup { listener: setup.listener + &down, ..setup }.start();
    swaks(&daemon, CAROL, "fwd@example.test", "waits", &["--h-Message-Id", "<w@far.test>"])
        .accepted();
    let queued = daemon.lists(&["queue", "list"]);
    let trace = queued[0]["traceId"].as_str().expect("an id").to_owned();
    for id in [trace.as_str(), "<w@far.test>"] {
        let told = daemon.succeeds(&["events", "trace", id]);
        assert!(told.contains(&format!("trace {trace}\n")), "{told}");
        assert!(told.contains("  sent on by organization example: "), "{told}");
        assert!(told.contains("  waits: queue entry "), "{told}");
    }
}

#[test]
fn a_copy_is_one_delivery_to_a_mailbox() {
    let far = far();
    let rules =
        ["action = \"COPY\"\nfolder = \"SENT_ITEMS\"", "action = \"COPY\"\nfolder = \"DRAFTS\""];
    let daemon = daemon(&user("copier", &rules), &far);
    swaks(&daemon, CAROL, "copier@example.test", "copied", &[]).accepted();
    let mut folders = daemon.folders("copier", "copied");
    folders.sort();
    assert_eq!(folders, ["DRAFTS", "INBOX", "SENT_ITEMS"]);
    let delivered = events_named(&daemon, "MAILBOX_EMAIL_DELIVERED");
    let [event] = delivered.as_slice() else { panic!("{delivered:#?}") };
    assert_eq!(event["event"]["folder"], "INBOX");
}
