//! What is accepted for somebody whose mailbox is full is delivered, or somebody is told of it, or the
//! message is refused as a whole.

use std::process::Command;

use crate::support::daemon::{BINARY, Daemon, Setup, text, zone_of_senders_here};
use crate::support::sending::{ALICE, Submitter, prepared, queue, route};
use crate::support::smtp::{Client, message};
use crate::support::wait_for;

/// How a message comes to the full mailbox.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Directly,
    Group,
    AliasAndGroup,
    Forward,
    Redirect,
    RedirectToGroup,
    RemoteUser,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sender {
    /// Nobody is told (RFC 5321 §6.1).
    Null,
    /// SPF fails, and DMARC's policy is none.
    Forged,
    Proven,
    LoggedIn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Full {
    AtRcpt,
    BeforeTheDot,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    sender: Sender,
    full: Full,
    is_alone: bool,
    /// In the names of its own users.
    number: usize,
}

const WAYS: [Way; 7] = [
    Way::Directly,
    Way::Group,
    Way::AliasAndGroup,
    Way::Forward,
    Way::Redirect,
    Way::RedirectToGroup,
    Way::RemoteUser,
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for sender in [Sender::Null, Sender::Forged, Sender::Proven, Sender::LoggedIn] {
            for full in [Full::AtRcpt, Full::BeforeTheDot] {
                for is_alone in [true, false] {
                    let number = cases.len();
                    cases.push(Case { way, sender, full, is_alone, number });
                }
            }
        }
    }
    cases
}

impl Case {
    fn subject(self) -> String {
        format!("case {}", self.number)
    }

    fn full_mailbox(self) -> String {
        format!("f{}@example.test", self.number)
    }

    /// Its users and groups.
    fn organization(self) -> String {
        let n = self.number;
        let rule = |name: &str, action: &str, to: &str| {
            format!(
                "[[user]]\nname = \"{name}{n}\"\n[[user.mailbox_rule]]\nname = \"r\"\n\
                 action = \"{action}\"\nto = \"{to}{n}@example.test\"\n"
            )
        };
        let full =
            format!("[[user]]\nname = \"f{n}\"\nquota_mb = 1\naliases = [\"a{n}@example.test\"]\n");
        let group = format!("[[group]]\nname = \"g{n}\"\nmembers = [\"bob\", \"f{n}\"]\n");
        let own = match self.way {
            Way::Directly => String::new(),
            Way::Group | Way::AliasAndGroup => group,
            Way::Forward => rule("w", "FORWARD", "f"),
            Way::Redirect => rule("w", "REDIRECT", "f"),
            Way::RedirectToGroup => group + &rule("w", "REDIRECT", "g"),
            Way::RemoteUser => String::new(),
        };
        full + &own
    }

    /// Its users in another organization here, who have their mail in this one.
    fn remote_user(self) -> String {
        if self.way != Way::RemoteUser {
            return String::new();
        }
        let n = self.number;
        format!("[[user]]\nname = \"w{n}\"\nremote = \"f{n}@example.test\"\n")
    }

    fn recipients(self) -> Vec<String> {
        let name = |letter: &str| format!("{letter}{}@example.test", self.number);
        let mut recipients = match self.way {
            Way::Directly => vec![name("f")],
            Way::Group => vec![name("g")],
            Way::AliasAndGroup => vec![name("a"), name("g")],
            Way::Forward | Way::Redirect | Way::RedirectToGroup => vec![name("w")],
            Way::RemoteUser => vec![format!("w{}@other.test", self.number)],
        };
        if !self.is_alone {
            recipients.push("admin@example.test".to_owned());
        }
        recipients
    }

    fn reverse_path(self) -> &'static str {
        match self.sender {
            Sender::Null => "",
            Sender::Forged => "list@none.test",
            Sender::Proven => "bob@good.test",
            Sender::LoggedIn => ALICE,
        }
    }

    fn content(self) -> Vec<u8> {
        let author = match self.sender {
            Sender::Null => "list@none.test",
            _ => self.reverse_path(),
        };
        message(author, &self.subject())
    }
}

/// Sends the content; the reply to its end.
type End = Box<dyn FnOnce(&[u8]) -> String>;

/// A transaction whose recipients are named: those that were accepted, and how it ends.
struct Open {
    case: Case,
    accepted: Vec<String>,
    end: End,
}

fn open(daemon: &Daemon, case: Case) -> Open {
    let mut accepted = Vec::new();
    if case.sender == Sender::LoggedIn {
        let mut alice = Submitter::log_in(daemon.listener("submissions")).expect("logs in");
        alice.say(&format!("MAIL FROM:<{ALICE}>\r\n"), "250").expect("is taken");
        for recipient in case.recipients() {
            alice.say(&format!("RCPT TO:<{recipient}>\r\n"), "250").expect("is taken");
            accepted.push(recipient);
        }
        let end = Box::new(move |content: &[u8]| {
            let content = text(content);
            alice.say("DATA\r\n", "354").expect("goes on");
            alice.say(&format!("{content}.\r\n"), "").expect("answers")
        });
        return Open { case, accepted, end };
    }
    let mut client = Client::connect(daemon.address());
    assert!(client.command("EHLO mail.good.test").starts_with("250"));
    assert!(client.command(&format!("MAIL FROM:<{}>", case.reverse_path())).starts_with("250"));
    for recipient in case.recipients() {
        if client.command(&format!("RCPT TO:<{recipient}>")).starts_with("250") {
            accepted.push(recipient);
        }
    }
    Open { case, accepted, end: Box::new(move |content: &[u8]| client.data(content)) }
}

/// Mail of which nobody may be told takes a mailbox over its quota, once.
fn fill(daemon: &Daemon, mailboxes: &[String]) {
    let mut content = message("list@none.test", "filler");
    while content.len() < 1_200_000 {
        content.extend_from_slice(&[b"0123456789".repeat(7).as_slice(), b"\r\n"].concat());
    }
    let mut client = daemon.client();
    let mailboxes: Vec<_> = mailboxes.iter().map(String::as_str).collect();
    client.envelope("", &mailboxes);
    assert!(client.data(&content).starts_with("250"));
}

fn fill_those(daemon: &Daemon, cases: &[Case], full: Full) {
    let wanted = cases.iter().filter(|case| case.full == full);
    let mailboxes: Vec<_> = wanted.map(|case| case.full_mailbox()).collect();
    fill(daemon, &mailboxes);
}

fn texts(daemon: &Daemon, user: &str) -> Vec<String> {
    daemon.mailbox(user).iter().map(|(_, bytes)| text(bytes)).collect()
}

/// Whether some report tells that a message did not get to this address.
fn tells(reports: &[String], case: Case, address: &str) -> bool {
    let subject = format!("Subject: {}\r\n", case.subject());
    reports.iter().any(|report| {
        report.contains("Subject: Undelivered mail\r\n")
            && report.contains(&subject)
            && report.contains(&format!("rfc822; {address}\r\n"))
    })
}

/// Whether one of these messages has this subject itself, and not one that it returns.
fn has(messages: &[String], subject: &str) -> bool {
    let line = format!("Subject: {subject}\r\n");
    let heads = messages.iter().filter_map(|message| message.split("\r\n\r\n").next());
    heads.map(|head| format!("{head}\r\n")).any(|head| head.contains(&line))
}

#[test]
fn whatever_is_accepted_is_delivered_or_somebody_is_told() {
    let good = "alias = \"good\"\ndomains = [\"good.test\"]\n[[user]]\nname = \"bob\"\n";
    let good = Setup { organization: good.into(), ..Setup::default() }.start();
    let cases = cases();
    let organization: String = cases.iter().map(|case| case.organization()).collect();
    let other: String = cases.iter().map(|case| case.remote_user()).collect();
    let other = format!(
        "alias = \"other\"\ndomains = [\"other.test\"]\npostmaster = \"eve\"\n\
         [[user]]\nname = \"eve\"\n{other}"
    );
    let sections = route("good.test", good.address().port());
    let more_organizations = vec![other];
    let setup = Setup { sections, more_organizations, ..Setup::with(&organization) };
    let mut daemon = prepared(setup);
    daemon.launch(Command::new(BINARY));
    fill_those(&daemon, &cases, Full::AtRcpt);
    let open: Vec<_> = cases.iter().map(|case| open(&daemon, *case)).collect();
    fill_those(&daemon, &cases, Full::BeforeTheDot);
    let mut taken = Vec::new();
    for Open { case, accepted, end } in open {
        if accepted.is_empty() {
            continue;
        }
        let reply = end(&case.content());
        if reply.starts_with("250") {
            taken.push((case, accepted));
        } else {
            assert!(reply.contains("[mailbox-full"), "{case:?}: {reply}");
        }
    }
    wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));
    let originators = [texts(&good, "bob"), texts(&daemon, "alice")].concat();
    let admin = texts(&daemon, "admin");
    let postmasters = [admin.clone(), texts(&daemon, "eve")].concat();
    let bob = texts(&daemon, "bob");
    for (case, accepted) in taken {
        let subject = case.subject();
        let is_silent = matches!(case.sender, Sender::Null | Sender::Forged);
        for address in accepted {
            if address.starts_with("admin") {
                assert!(has(&admin, &subject), "{case:?}: admin has it");
                continue;
            }
            if address.starts_with('g') || case.way == Way::RedirectToGroup {
                assert!(has(&bob, &subject), "{case:?}: the others of the group have it");
            }
            let full = case.full_mailbox();
            // Who is named twice is told of once.
            let alias = full.replacen('f', "a", 1);
            let names = [&address, &full, &alias];
            let is_told = |reports: &[String]| names.iter().any(|it| tells(reports, case, it));
            let by_postmaster = is_told(&postmasters);
            // Of those to whom it goes on, the sender knows nothing.
            let is_expected = is_silent || case.way == Way::RedirectToGroup;
            assert!(!by_postmaster || is_expected, "{case:?}: its sender is told");
            if by_postmaster || is_told(&originators) {
                continue;
            }
            assert!(!address.starts_with('g'), "{case:?}: somebody has to hear of it");
            let owner = if address.starts_with('w') { 'w' } else { 'f' };
            assert!(case.way != Way::RemoteUser, "{case:?}: nobody hears of it");
            let mailbox = texts(&daemon, &format!("{owner}{}", case.number));
            assert!(has(&mailbox, &subject), "{case:?}: {address} has it, or somebody hears of it");
        }
    }
}

/// Where the postmaster has no room either, the client keeps the message; whoever may be told has it
/// taken as before.
#[test]
fn a_postmaster_without_room_defers_what_nobody_else_may_be_told_of() {
    let group = "[[user]]\nname = \"tiny\"\nquota_mb = 1\n\
                 [[group]]\nname = \"crowd\"\nmembers = [\"alice\", \"tiny\"]\n";
    let mut setup = Setup::with(group);
    setup.organization =
        setup.organization.replace("postmaster = \"admin\"", "postmaster = \"small\"");
    let daemon = setup.start();
    fill(&daemon, &["tiny@example.test".to_owned()]);
    let send = |from: &str, subject: &str| {
        let mut client = daemon.client();
        client.envelope(from, &["crowd@example.test"]);
        client.data(&message("list@none.test", subject))
    };
    let reply = send("", "with room");
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(daemon.folders("alice", "with room"), ["INBOX"]);
    assert_eq!(daemon.folders("small", "Undelivered mail"), ["INBOX"]);
    fill(&daemon, &["small@example.test".to_owned()]);
    for from in ["", "list@none.test"] {
        let reply = send(from, "without");
        let is_deferred = reply.starts_with("452 4.2.2") && reply.contains("[mailbox-full-grace ");
        assert!(is_deferred, "{from}: {reply}");
    }
    assert!(daemon.folders("alice", "without").is_empty());
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["crowd@example.test"]);
    assert!(client.data(&message("bob@good.test", "told")).starts_with("250"));
    assert_eq!(daemon.folders("alice", "told"), ["INBOX"]);
}

/// What leaves for a postmaster elsewhere is bounded as all reports are that a network causes.
#[test]
fn a_postmaster_elsewhere_hears_of_it_or_the_client_keeps_it() {
    let users = "[[user]]\nname = \"tiny\"\nquota_mb = 1\n\
                 [[user]]\nname = \"away\"\nremote = \"away@far.test\"\n\
                 [[group]]\nname = \"crowd\"\nmembers = [\"alice\", \"tiny\"]\n";
    let mut setup = Setup::with(users);
    setup.organization =
        setup.organization.replace("postmaster = \"admin\"", "postmaster = \"away\"");
    setup.sections = "[limits]\nbanner_delay_ms = 0\nreports_per_network = 1\n".to_owned()
        + &route("far.test", crate::support::refusing_port());
    let daemon = setup.start();
    fill(&daemon, &["tiny@example.test".to_owned()]);
    for (subject, expected) in [("first", "250"), ("second", "452 4.2.2")] {
        let mut client = daemon.client();
        client.envelope("", &["crowd@example.test"]);
        let reply = client.data(&message("list@none.test", subject));
        assert!(reply.starts_with(expected), "{subject}: {reply}");
        assert_eq!(daemon.folders("alice", subject).is_empty(), expected != "250", "{subject}");
    }
    assert_eq!(queue(&daemon).len(), 1);
}

/// Whoever writes from here may be told, but has no room for it.
#[test]
fn a_sender_without_room_for_the_report_leaves_it_to_the_postmaster() {
    let group = "[[user]]\nname = \"tiny\"\nquota_mb = 1\n\
                 [[group]]\nname = \"crowd\"\nmembers = [\"alice\", \"tiny\"]\n";
    let daemon = Setup { zone: zone_of_senders_here(), ..Setup::with(group) }.start();
    fill(&daemon, &["tiny@example.test".to_owned(), "small@example.test".to_owned()]);
    let mut client = daemon.client();
    client.envelope("small@example.test", &["crowd@example.test"]);
    assert!(client.data(&message("x@example.org", "half")).starts_with("250"));
    assert_eq!(daemon.folders("alice", "half"), ["INBOX"]);
    assert!(daemon.folders("small", "Undelivered mail").is_empty());
    let reports = texts(&daemon, "admin");
    assert!(reports.iter().any(|it| it.contains("rfc822; tiny@example.test\r\n")), "{reports:?}");
}
