//! Mail that was accepted for somebody elsewhere, and that the other server does not take: it is
//! delivered, or its originator is told, or somebody here has it. And mail that is sent on to another
//! organization here, for which it is outside all the same.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::Value;

use crate::outbound::{BOB, prepared, submit_as};
use crate::support::daemon::{BINARY, Daemon, Setup, ZONE, rule, text};
use crate::support::journal_record::read;
use crate::support::smtp::{Client, message};
use crate::support::swaks::{Transcript, swaks};
use crate::support::{refusing_port, wait_for};

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
    // The network's bound is asked before the log is read for a token's sender.
    let log = daemon.data().join("log");
    std::fs::rename(&log, log.with_extension("away")).expect("is moved");
    bounce(1, 0, false);
    std::fs::rename(log.with_extension("away"), &log).expect("is moved back");
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

const STRANGER: &str = "carol@good.test";

fn journaled(alias: &str) -> String {
    format!(
        "[journaling]\njournaling_address = \"archive@{alias}.test\"\n\
         report_address = \"archive@{alias}.test\"\n"
    )
}

fn with_rule(user: &str, action: &str, to: &str) -> String {
    format!(
        "[[user]]\nname = \"{user}\"\n[[user.mailbox_rule]]\nname = \"{user}\"\n\
         action = \"{action}\"\nto = \"{to}\"\n"
    )
}

/// Three organizations: of the first, users send on to the second, and of that to the third and back.
fn neighbours(organization: &str) -> Daemon {
    neighbours_beside(refusing_port(), organization)
}

/// The same, beside another daemon.
fn neighbours_beside(port: u16, organization: &str) -> Daemon {
    let senders = with_rule("hop", "REDIRECT", "zoe@other.test")
        + &with_rule("fw", "FORWARD", "zoe@other.test")
        + "[[user]]\nname = \"rem\"\nremote = \"zoe@other.test\"\n"
        + "[[user]]\nname = \"twice\"\nremote = \"on@other.test\"\n"
        + &with_rule("inside", "REDIRECT", "alice@example.test")
        + &with_rule("excepted", "REDIRECT", "ann@other.test")
        + &with_rule("tagged", "REDIRECT", "zoe+tag@other.example")
        + &with_rule("chain", "REDIRECT", "relay@other.test")
        + &with_rule("round", "REDIRECT", "back@other.test")
        + &with_rule("grouped", "REDIRECT", "staff@other.test")
        + &with_rule("refused", "REDIRECT", "shut@other.test")
        + &with_rule("dropped", "REDIRECT", "hole@other.test");
    let other = "alias = \"other\"\ndomains = [\"other.test\", \"other.example\"]\n[[user]]\nname = \"zoe\"\n\
                 [[user]]\nname = \"ann\"\n[[user]]\nname = \"shut\"\n[[user]]\nname = \"hole\"\n\
                 [[user]]\nname = \"archive\"\n\
                 [[user]]\nname = \"on\"\nremote = \"yan@third.test\"\n\
                 [[group]]\nname = \"staff\"\nmembers = [\"zoe\", \"ann\"]\n"
        .to_owned()
        + &with_rule("relay", "REDIRECT", "yan@third.test")
        + &with_rule("back", "REDIRECT", "alice@example.test")
        + &rule("shut", "BOUNCE", "*", "shut@other.test")
        + &rule("hole", "DROP", "*", "hole@other.test")
        + &journaled("other");
    let third = "alias = \"third\"\ndomains = [\"third.test\"]\n[[user]]\nname = \"yan\"\n\
                 [[user]]\nname = \"archive\"\n"
        .to_owned()
        + &journaled("third");
    let setup = Setup {
        more_organizations: vec![other, third],
        ..Setup::with(&format!("{senders}{organization}"))
    };
    let mut daemon = prepared(setup, port);
    daemon.launch(Command::new(BINARY));
    daemon
}

fn send(daemon: &Daemon, from: &str, to: &str, subject: &str) -> Transcript {
    match from {
        BOB => submit_as(daemon, from, to, subject, &[]),
        _ => swaks(daemon, from, to, subject, &[]),
    }
}

/// Who the only record of this message names in an organization's archive, and by whom each has it.
fn named(daemon: &Daemon, alias: &str, subject: &str) -> Vec<(String, Option<String>)> {
    let records = daemon.mailbox(&format!("{alias}/archive"));
    let records = records.iter().map(|(_, bytes)| read(bytes).expect("a journal record"));
    let mut records = records.filter(|record| record.subject == subject);
    let record = records.next().unwrap_or_else(|| panic!("no record of {subject} in {alias}"));
    assert!(records.next().is_none(), "two records of {subject} in {alias}");
    record.recipients.into_iter().map(|it| (it.address, it.forwarded)).collect()
}

fn sent_on_by(to: &str, from: &str) -> (String, Option<String>) {
    (to.to_owned(), Some(from.to_owned()))
}

/// Guide 7280, 7306: each message that comes or goes.
#[test]
fn an_organization_journals_what_goes_on_to_another_one_here() {
    let daemon = neighbours(&journaled("example"));
    let here = |user: &str| format!("{user}@example.test");
    for from in [STRANGER, BOB] {
        for user in ["hop", "rem", "fw"] {
            let subject = format!("{user} of {from}");
            send(&daemon, from, &here(user), &subject).accepted();
            assert_eq!(daemon.folders("other/zoe", &subject), ["INBOX"]);
            let mut expected = vec![sent_on_by("zoe@other.test", &here(user))];
            if user == "fw" {
                expected.insert(0, (here(user), None));
            }
            assert_eq!(named(&daemon, "example", &subject), expected, "{subject}");
            assert_eq!(named(&daemon, "other", &subject), expected[expected.len() - 1..]);
            assert!(daemon.names(&subject).contains(&"JOURNALING_INITIATED".to_owned()));
        }
    }
    let events = daemon.events();
    let count = |name: &str| {
        let names = events.iter().filter(|line| line["event"]["eventName"] == name);
        names.count()
    };
    assert_eq!(count("JOURNALING_INITIATED"), 12, "one for each message and organization");
    assert_eq!(count("OUTGOING_EMAIL_SUBMITTED"), 3, "what bob has submitted");
}

#[test]
fn each_organization_on_the_way_has_a_record_of_its_own_part() {
    let daemon = neighbours(&journaled("example"));
    let plain = |address: &str| (address.to_owned(), None);
    for from in [STRANGER, BOB] {
        let sent = |user: &str| {
            let subject = format!("{user} of {from}");
            send(&daemon, from, &format!("{user}@example.test"), &subject).accepted();
            subject
        };
        let chain = sent("chain");
        let first = sent_on_by("relay@other.test", "chain@example.test");
        assert_eq!(named(&daemon, "example", &chain), [first]);
        let second = sent_on_by("yan@third.test", "relay@other.test");
        assert_eq!(named(&daemon, "other", &chain), std::slice::from_ref(&second));
        assert_eq!(named(&daemon, "third", &chain), [second]);

        let round = sent("round");
        let back = sent_on_by("alice@example.test", "back@other.test");
        let there = sent_on_by("back@other.test", "round@example.test");
        assert_eq!(named(&daemon, "example", &round), [back.clone(), there]);
        assert_eq!(named(&daemon, "other", &round), [back]);

        // Of another organization's groups nobody learns, nor of a user who has not got it.
        let grouped = sent("grouped");
        let staff = sent_on_by("staff@other.test", "grouped@example.test");
        assert_eq!(named(&daemon, "example", &grouped), [staff]);
        let refused = sent("refused");
        assert_eq!(named(&daemon, "example", &refused), [plain("refused@example.test")]);
        let dropped = sent("dropped");
        let hole = sent_on_by("hole@other.test", "dropped@example.test");
        assert_eq!(named(&daemon, "example", &dropped), [hole]);
    }
    send(&daemon, BOB, "relay@other.test", "directly").accepted();
    assert_eq!(named(&daemon, "example", "directly"), [plain("relay@other.test")]);
    let onward = sent_on_by("yan@third.test", "relay@other.test");
    assert_eq!(named(&daemon, "other", "directly"), [onward]);
}

fn outbound_rule(name: &str, action: &str, destination: &str) -> String {
    rule(name, action, "*", destination).replace("inbound_rule", "outbound_rule")
}

#[test]
fn outbound_rules_are_for_what_goes_on_to_another_organization_here() {
    for action in ["BOUNCE", "DROP"] {
        let daemon = neighbours(
            &(outbound_rule("none", action, "*")
                + &outbound_rule("but", "DEFAULT", "ann@other.test")
                + &outbound_rule("us", "DEFAULT", "example.test")),
        );
        for from in [STRANGER, BOB] {
            for user in ["hop", "fw", "chain", "grouped", "tagged"] {
                let subject = format!("{user} of {from}");
                send(&daemon, from, &format!("{user}@example.test"), &subject).accepted();
                assert_eq!(daemon.folders(user, &subject), ["INBOX"], "{action}");
            }
            send(&daemon, from, "rem@example.test", "refused")
                .refused("550", "outbound-rule-bounce");
            send(&daemon, from, "excepted@example.test", from).accepted();
            assert_eq!(daemon.folders("other/ann", from), ["INBOX"]);
        }
        assert!(daemon.mailbox("other/zoe").is_empty(), "{action}");
    }
}

/// The recipients of each rule for what goes out that applied, by its name.
fn outbound_rules_applied(daemon: &Daemon) -> Vec<(String, Value)> {
    let mut applied = Vec::new();
    for line in daemon.events() {
        let event = &line["event"];
        if event["ruleType"] == "OUTBOUND_RULE" {
            let name = event["ruleName"].as_str().expect("a name").to_owned();
            applied.push((name, event["ruleActions"][0]["recipients"].clone()));
        }
    }
    applied
}

/// Another organization here is outside, so the rule that lets mail out to it is told, also by the
/// trace.
#[test]
fn a_rule_by_which_mail_goes_on_to_another_organization_here_is_told() {
    let daemon = neighbours(&outbound_rule("lets-out", "DEFAULT", "other.test"));
    for from in [STRANGER, BOB] {
        for user in ["hop", "fw", "rem"] {
            let subject = format!("{user} of {from}");
            send(&daemon, from, &format!("{user}@example.test"), &subject).accepted();
            assert_eq!(daemon.folders("other/zoe", &subject), ["INBOX"]);
        }
        send(&daemon, from, "tagged@example.test", "no rule matches").accepted();
        send(&daemon, from, "inside@example.test", "within").accepted();
    }
    let zoe: Value = ["zoe@other.test"].into_iter().collect();
    assert_eq!(outbound_rules_applied(&daemon), vec![("lets-out".to_owned(), zoe); 6]);
    let told = format!("hop of {STRANGER}");
    let lines = daemon.events();
    let line = lines.iter().find(|line| line["event"]["subject"] == *told).expect("received");
    let trace = daemon.succeeds(&["events", "trace", line["traceId"].as_str().expect("an id")]);
    let sent_on = "sent on from hop@example.test to zoe@other.test by outbound rule \"lets-out\"";
    assert!(trace.contains(sent_on), "{trace}");
}

/// A remote user in another organization here, and one behind that: our MX would lead mail of our own
/// for them only back to us, or nowhere.
#[test]
fn mail_of_our_own_for_a_remote_user_who_is_in_another_organization_here_stays_here() {
    for (archive, reader) in [("rem", "other/zoe"), ("twice", "third/yan")] {
        let daemon = neighbours(&format!(
            "[journaling]\njournaling_address = \"{archive}@example.test\"\n\
             report_address = \"alice@example.test\"\n"
        ));
        swaks(&daemon, STRANGER, "alice@example.test", "recorded", &[]).accepted();
        let record = with_line(&daemon, reader, "Subject: recorded");
        assert!(record.contains("amazonjournaling@example.test"), "{record}");
        assert!(daemon.lists(&["queue", "list"]).is_empty(), "{archive}");
    }
}

/// Whatever may go out or come in, who sent what was forwarded learns that it was not delivered.
/// Nobody writes a bounce, and it is for nobody inside (guide 3703).
#[test]
fn rules_that_drop_or_bounce_are_not_for_a_bounce_that_is_led_back() {
    let far = far();
    for action in ["BOUNCE", "DROP"] {
        let daemon = neighbours_beside(
            far.address().port(),
            &("[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n".to_owned()
                + &outbound_rule("none", action, "*")
                + &outbound_rule("but", "DEFAULT", "dave@far.test")
                + &rule("nobody", action, "*", "*")
                + &rule("but", "DEFAULT", "*", "dave@example.test")),
        );
        for (sender, is_here) in [("carol@far.test", false), ("zoe@other.test", true)] {
            let subject = format!("{action} {sender}");
            let author = ["--h-From", "carol@plain.test"];
            swaks(&daemon, sender, "dave@example.test", &subject, &author).accepted();
            let path = return_path(&with_line(&far, "dave", &format!("Subject: {subject}")));
            let back = format!("back {subject}");
            assert!(bounce_to(&daemon, &path, &back).starts_with("250"), "{subject}");
            match is_here {
                true => assert_eq!(daemon.folders("other/zoe", &back), ["INBOX"]),
                false => drop(with_line(&far, "carol", &format!("Subject: {back}"))),
            }
        }
        // Mail for users, also with a null sender, is what the rules are for.
        let mut client = daemon.client();
        client.command("EHLO far.test");
        client.command("MAIL FROM:<>");
        client.command("RCPT TO:<alice@example.test>");
        let reply = client.data(&message("postmaster@far.test", "for alice"));
        assert_eq!(reply.starts_with("550"), action == "BOUNCE", "{reply}");
        assert!(daemon.mailbox("alice").is_empty());
    }
}

/// Within the organization nothing goes out, and its rules are not asked.
#[test]
fn outbound_rules_are_not_for_what_goes_on_within_the_organization() {
    let daemon = neighbours(&outbound_rule("none", "BOUNCE", "*"));
    swaks(&daemon, STRANGER, "inside@example.test", "within", &[]).accepted();
    assert_eq!(daemon.folders("alice", "within"), ["INBOX"]);
}

#[test]
fn a_gateway_gets_what_goes_on_to_another_organization_here_if_its_rule_names_it() {
    let gateway = |to: &str| {
        "[[smtp_gateway]]\nname = \"filter\"\naddress = \"127.0.0.1\"\nport = 1\n".to_owned()
            + &outbound_rule("via", "ROUTE_TO_SMTP_GATEWAY\"\ngateway = \"filter", to)
            + &journaled("example")
    };
    let all = neighbours(&gateway("*"));
    swaks(&all, STRANGER, "hop@example.test", "for all", &[]).accepted();
    assert_eq!(all.folders("other/zoe", "for all"), ["INBOX"]);
    let theirs = neighbours(&gateway("other.test"));
    for from in [STRANGER, BOB] {
        send(&theirs, from, "hop@example.test", from).accepted();
        let expected = [sent_on_by("zoe@other.test", "hop@example.test")];
        assert_eq!(named(&theirs, "example", from), expected);
        send(&theirs, from, "inside@example.test", from).accepted();
        assert_eq!(theirs.folders("alice", from), ["INBOX"]);
    }
    // From here it would look proven.
    swaks(
        &theirs,
        "boss@example.test",
        "hop@example.test",
        "unproven",
        &["--h-From", "alice@example.test"],
    )
    .accepted();
    assert_eq!(theirs.folders("hop", "unproven"), ["INBOX"]);
    let is_sent_on = |subject| theirs.names(subject).contains(&"RULE_APPLIED".to_owned());
    assert!(is_sent_on(STRANGER) && !is_sent_on("unproven"));
    assert!(theirs.mailbox("other/zoe").is_empty());
    wait_for("the gateway's failure for both", || {
        let mut bounced = bounced(&theirs);
        bounced.retain(|line| line.to_string().contains("SMTP gateway filter"));
        let told = bounced.iter().filter(|line| line.to_string().contains("zoe@other.test"));
        (told.count() == 2).then_some(())
    });
}

/// A bounce on its way back is mail of the organization that leads it, as it is to somebody elsewhere.
#[test]
fn a_bounce_led_back_to_another_organization_here_is_journaled() {
    let far = far();
    let dave = "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n";
    let port = far.address().port();
    let daemon = neighbours_beside(port, &format!("{dave}{}", journaled("example")));
    let author = ["--h-From", "carol@plain.test"];
    swaks(&daemon, "zoe@other.test", "dave@example.test", "there", &author).accepted();
    let token = return_path(&with_line(&far, "dave", "Subject: there"));
    assert!(token.ends_with("@example.test"), "{token}");
    assert!(bounce_to(&daemon, &token, "led back").starts_with("250"));
    assert_eq!(daemon.folders("other/zoe", "led back"), ["INBOX"]);
    let back = sent_on_by("zoe@other.test", &token);
    assert_eq!(named(&daemon, "example", "led back"), [back]);
}
