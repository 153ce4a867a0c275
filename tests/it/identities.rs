//! A name is a label: what belongs to somebody stays theirs whatever they are called, and whoever
//! comes after them has none of it.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::credentials::set_password;
use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::remote::{Manners, Remote};
use crate::support::sending;
use crate::support::smtp::message;
use crate::support::swaks::{Transcript, swaks};
use crate::support::wait_for;

const PASSWORD: &str = "Lemon-tree1";
const LISTENER: &str = "[[listener]]\nname = \"submissions\"\nprotocol = \"submissions\"\n\
                        bind = \"127.0.0.1:0\"\n";

/// A daemon with some users beside its own; `users` is a part of its organization's file.
fn daemon(users: &str) -> Daemon {
    Setup { listener: LISTENER.to_owned(), ..Setup::with(users) }.start()
}

fn user(name: &str, more: &str) -> String {
    format!("[[user]]\nname = \"{name}\"\n{more}")
}

/// Puts something else in the place of a part of the organization's file.
fn write(daemon: &Daemon, part: &str, instead: &str) {
    let file = daemon.path("org.toml");
    let before = fs::read_to_string(&file).expect("reads");
    assert!(before.contains(part), "no {part} in {before}");
    fs::write(&file, before.replace(part, instead)).expect("writes");
}

/// The same, and a reload; what it says.
fn reload_with(daemon: &Daemon, part: &str, instead: &str) -> String {
    write(daemon, part, instead);
    daemon.succeeds(&["reload"])
}

fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.command(arguments);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn deliver(daemon: &Daemon, to: &str, subject: &str) {
    let mut client = daemon.client();
    client.envelope("bob@good.test", &[to]);
    let reply = client.data(&message("bob@good.test", subject));
    assert!(reply.starts_with("250"), "{reply}");
}

fn log_in(daemon: &Daemon, user: &str, password: &str) -> Transcript {
    let port = daemon.listener("submissions").port().to_string();
    let login = ["--auth", "PLAIN", "--auth-user", user, "--auth-password", password];
    let more = ["--port", port.as_str(), "--tls-on-connect", "--quit-after", "AUTH"];
    swaks(daemon, user, user, "never sent", &[&more[..], &login].concat())
}

fn messages(daemon: &Daemon, user: &str) -> usize {
    daemon.lists(&["mailbox", "list", user]).len()
}

/// The line of `mailbox list` about an id.
fn mailbox_of(daemon: &Daemon, id: &str) -> Value {
    let mailboxes = daemon.lists(&["mailbox", "list"]);
    let found = mailboxes.iter().find(|line| line["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {mailboxes:#?}")).clone()
}

#[test]
fn whoever_is_renamed_keeps_mail_password_and_tokens() {
    let mut daemon = daemon(&user("carl", ""));
    deliver(&daemon, "carl@example.test", "before");
    assert!(set_password(&daemon, "carl", PASSWORD).status.success());
    let token = daemon.lists(&["token", "create", "carl", "--name", "phone"]);
    let token = token[0]["token"].as_str().expect("the token").to_owned();
    let id = daemon.id("carl");

    let told = reload_with(&daemon, "name = \"carl\"\n", "name = \"carla\"\nwas = \"carl\"\n");
    let renamed = "reloaded: organization example: users renamed: carl to carla\n";
    assert!(told.starts_with(renamed), "{told}");
    assert!(told.contains("mail for carl@example.test is refused from now on"), "{told}");
    deliver(&daemon, "carla@example.test", "after");
    for restarted in [false, true] {
        if restarted {
            daemon.stop();
            daemon.launch(Command::new(BINARY));
        }
        assert_eq!(daemon.id("carla"), id);
        assert_eq!(messages(&daemon, "carla"), 2);
        log_in(&daemon, "carla@example.test", PASSWORD).accepted();
        log_in(&daemon, "carla@example.test", &token).accepted();
    }
    assert!(refused(&daemon, &["mailbox", "list", "carl"]).contains("no user or resource carl"));
    // What says who she was may stay, or go.
    assert_eq!(reload_with(&daemon, "was = \"carl\"\n", ""), "reloaded: nothing has changed\n");
    assert_eq!(daemon.id("carla"), id);
}

#[test]
fn whoever_gets_the_name_of_somebody_who_is_gone_is_somebody_else() {
    let mut daemon = daemon(&user("erin", ""));
    deliver(&daemon, "erin@example.test", "private");
    assert!(set_password(&daemon, "erin", PASSWORD).status.success());
    let token = daemon.lists(&["token", "create", "erin", "--name", "phone"]);
    let token = token[0]["token"].as_str().expect("the token").to_owned();
    let first = daemon.id("erin");

    let told = reload_with(&daemon, &user("erin", ""), "");
    assert!(told.contains("users removed: erin\n"), "{told}");
    log_in(&daemon, "erin@example.test", PASSWORD).refused("535", "bad-credentials");
    let told = refused(&daemon, &["mailbox", "list", "erin"]);
    assert!(told.contains(&first), "it says how to find the mailbox: {told}");
    // However the daemon ends: that she is gone is durable.
    daemon.kill();
    // Nothing can be kept for somebody whose id nobody knows yet.
    write(&daemon, "[[user]]\nname = \"bob\"\n", &(user("erin", "") + &user("bob", "")));
    let output = set_password(&daemon, "erin", PASSWORD);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("erin is somebody new, whom the daemon does not know yet")
    );
    daemon.launch(Command::new(BINARY));

    let second = daemon.id("erin");
    assert_ne!(first, second);
    assert_eq!(messages(&daemon, "erin"), 0);
    log_in(&daemon, "erin@example.test", PASSWORD).refused("535", "bad-credentials");
    log_in(&daemon, "erin@example.test", &token).refused("535", "bad-credentials");
    assert_eq!(daemon.lists(&["token", "list", "erin"]), Vec::<Value>::new());
    deliver(&daemon, "erin@example.test", "hers");
    assert_eq!((messages(&daemon, "erin"), messages(&daemon, &first)), (1, 1));
    let (closed, open) = (mailbox_of(&daemon, &first), mailbox_of(&daemon, &second));
    assert!(closed["closedAt"].is_u64() && open.get("closedAt").is_none(), "{closed} {open}");
    assert_eq!((&closed["user"], &open["user"]), (&"erin".into(), &"erin".into()));

    // The first comes back, under a name that is free, when the file says who that is.
    reload_with(
        &daemon,
        &user("bob", ""),
        &(user("bob", "") + &user("erin2", &format!("id = \"{first}\"\n"))),
    );
    assert_eq!((daemon.id("erin2"), messages(&daemon, "erin2")), (first.clone(), 1));
    log_in(&daemon, "erin2@example.test", PASSWORD).accepted();
    log_in(&daemon, "erin2@example.test", &token).accepted();
    assert!(mailbox_of(&daemon, &first).get("closedAt").is_none());
}

#[test]
fn who_is_who_can_be_said_in_the_file() {
    let daemon = daemon(&(user("dan", "") + &user("eve", "")));
    deliver(&daemon, "dan@example.test", "to dan");
    let (dan, eve) = (daemon.id("dan"), daemon.id("eve"));
    // The two have each other's names from now on.
    let swapped = [("dan", &eve), ("eve", &dan)];
    let swapped = swapped.map(|(name, id)| user(name, &format!("id = \"{id}\"\n"))).concat();
    let told = reload_with(&daemon, &(user("dan", "") + &user("eve", "")), &swapped);
    assert!(told.contains("users renamed: eve to dan, dan to eve\n"), "{told}");
    assert_eq!((messages(&daemon, "dan"), messages(&daemon, "eve")), (0, 1));

    // What cannot be is told with its line, and nothing of it is taken.
    for (section, problem) in [
        (user("x", &format!("id = \"{dan}\"\n")), "that is said of somebody else too, at "),
        (user("x", "id = \"dan\"\n"), "is not a UUID, S-1-1-12-…, or r- and 32 hexadecimal digits"),
        (user("x", "id = \"r-0123456789abcdef0123456789abcdef\"\n"), "cannot be the id of a user"),
        (
            format!("[[group]]\nname = \"x\"\nmembers = [\"bob\"]\nid = \"{dan}\"\n"),
            "is the id of user eve",
        ),
        (user("x", "was = \"eve\"\n"), "that is said of somebody else too, at "),
    ] {
        let whole = swapped.clone() + &section;
        write(&daemon, &swapped, &whole);
        let told = refused(&daemon, &["reload"]);
        assert!(told.contains(problem) && told.contains("org.toml:"), "{section}: {told}");
        write(&daemon, &whole, &swapped);
    }
    let told =
        reload_with(&daemon, &swapped, &(swapped.clone() + &user("fay", "was = \"nobody\"\n")));
    assert!(told.contains("users added: fay"), "{told}");
    let told = daemon.command(&["check-config"]);
    assert!(!text(&told.stderr).contains("was:"), "she is there by now: {told:?}");
}

#[test]
fn an_organization_that_gets_another_alias_is_the_same() {
    let daemon = daemon("");
    deliver(&daemon, "alice@example.test", "before");
    let told =
        reload_with(&daemon, "alias = \"example\"\n", "alias = \"wonder\"\nwas = \"example\"\n");
    assert_eq!(told, "reloaded: organization wonder: alias changed\n");
    assert_eq!(messages(&daemon, "wonder/alice"), 1);
    // Without a word of who it was, it is another; the first one rests.
    let told =
        reload_with(&daemon, "alias = \"wonder\"\nwas = \"example\"\n", "alias = \"example\"\n");
    assert!(told.contains("organization wonder is gone; its mail and passwords stay"), "{told}");
    assert!(told.contains("organization example is new"), "{told}");
    assert_eq!(messages(&daemon, "example/alice"), 0);
    let told = reload_with(&daemon, "alias = \"example\"\n", "alias = \"wonder\"\n");
    let users = daemon.lists(&["user", "list"]).len();
    let back = format!("organization wonder is back, with the mail and passwords of {users} users");
    assert!(told.contains(&back), "{told}");
    assert_eq!(messages(&daemon, "wonder/alice"), 1);
}

/// Whoever was in the file only between two reloads was nobody for the daemon, and the next of that
/// name gets nothing that was set for the first.
#[test]
fn a_password_of_somebody_whom_the_daemon_never_met_is_not_for_the_next_of_that_name() {
    let mut daemon = daemon("");
    let bob = "[[user]]\nname = \"bob\"\n";
    for (name, is_restarted) in [("dave", false), ("dora", true)] {
        let with_dave = user(name, "") + bob;
        write(&daemon, bob, &with_dave);
        assert!(set_password(&daemon, name, PASSWORD).status.success());
        let token = daemon.lists(&["token", "create", name, "--name", "phone"]);
        let token = token[0]["token"].as_str().expect("the token").to_owned();
        write(&daemon, &with_dave, bob);
        if is_restarted {
            daemon.stop();
            daemon.launch(Command::new(BINARY));
        } else {
            daemon.succeeds(&["reload"]);
        }
        assert!(daemon.log().contains("somebody who was taken out of the file again"));
        reload_with(&daemon, bob, &with_dave);
        for secret in [PASSWORD, &token] {
            log_in(&daemon, &format!("{name}@example.test"), secret)
                .refused("535", "bad-credentials");
        }
        // One whom it has met keeps both.
        assert!(set_password(&daemon, name, PASSWORD).status.success());
        daemon.succeeds(&["reload"]);
        log_in(&daemon, &format!("{name}@example.test"), PASSWORD).accepted();
        reload_with(&daemon, &with_dave, bob);
    }
}

#[test]
fn all_of_a_few_users_do_not_go_by_mistake() {
    let daemon = daemon("");
    let known = daemon.lists(&["user", "list"]).len();
    assert!(known >= 3, "{known}");
    let file = fs::read_to_string(daemon.path("org.toml")).expect("reads");
    let other = "alias = \"example\"\ndomains = [\"example.test\"]\npostmaster = \"zoe\"\n";
    fs::write(daemon.path("org.toml"), other.to_owned() + &user("zoe", "")).expect("writes");
    let told = refused(&daemon, &["reload"]);
    assert!(
        told.contains(&format!("{known} of the {known} users of organization example")),
        "{told}"
    );
    fs::write(daemon.path("org.toml"), file).expect("writes");
    assert_eq!(daemon.succeeds(&["reload"]), "reloaded: nothing has changed\n");
}

/// A file that is not the one that was meant must not close everybody's mailbox.
#[test]
fn most_users_do_not_go_by_mistake() {
    let many: String = (0..12).map(|number| user(&format!("u{number}"), "")).collect();
    let mut daemon = daemon(&many);
    deliver(&daemon, "u3@example.test", "kept");
    let (before, known) = (daemon.id("u3"), daemon.lists(&["user", "list"]).len());
    write(&daemon, &many, "");
    let told = refused(&daemon, &["reload"]);
    let expected =
        format!("12 of the {known} users of organization example are not in it any more");
    assert!(told.contains(&expected) && told.contains("write removes_users = 12"), "{told}");
    daemon.stop();
    let output = Command::new(BINARY).args(["serve", "--config"]).arg(daemon.config()).output();
    let output = output.expect("runs");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));

    // The right file is back, and nothing has happened.
    write(&daemon, "alias = \"example\"\n", "alias = \"example\"\nremoves_users = 12\n");
    let file = fs::read_to_string(daemon.path("org.toml")).expect("reads");
    fs::write(daemon.path("org.toml"), format!("{file}{many}")).expect("writes");
    daemon.launch(Command::new(BINARY));
    assert_eq!((daemon.id("u3"), messages(&daemon, "u3")), (before.clone(), 1));
    // Who means it says so.
    let told = reload_with(&daemon, &many, "");
    assert!(told.contains("users removed: u0, u1, "), "{told}");
    assert!(mailbox_of(&daemon, &before)["closedAt"].is_u64());
}

/// A server that never takes mail keeps alice's message waiting, until her address is another's.
fn waiting_message(users: &str) -> (Remote, Daemon) {
    let busy = Remote::start(Manners { rcpt: |_, _| "450 4.2.1 busy", ..Manners::default() });
    let sections = format!(
        "[queue]\nfirst_retry_s = 3600\nlongest_retry_s = 3600\n{}",
        sending::route("busy.test", busy.address.port())
    );
    let setup = Setup { sections, ..Setup::with(users) };
    let mut daemon = sending::prepared(setup);
    daemon.launch(Command::new(BINARY));
    sending::submit(&daemon, &["bob@busy.test"], "waits");
    sending::waiting(&daemon, "450 4.2.1 busy");
    (busy, daemon)
}

#[test]
fn a_report_is_for_who_sent_the_message_and_for_nobody_who_has_the_address_later() {
    // Her address goes to bob, and she has another.
    let (_busy, daemon) = waiting_message("");
    write(&daemon, "name = \"bob\"\n", "name = \"bob\"\naliases = [\"alice@example.test\"]\n");
    let told = reload_with(
        &daemon,
        "name = \"alice\"\naliases = [\"a.liddell@example.test\"]\n",
        "name = \"alice\"\nemail = \"a.liddell@example.test\"\n",
    );
    assert!(told.contains("users changed: alice, bob\n"), "{told}");
    daemon.succeeds(&["queue", "drop", "--to", "busy.test", "--bounce"]);
    assert!(sending::delivered(&daemon, "alice", "busy.test").contains("a.liddell@example.test"));
    assert_eq!(messages(&daemon, "bob"), 0);

    // She is gone, and somebody else has name and address.
    let (_busy, daemon) = waiting_message("");
    let first = daemon.id("alice");
    let alice = "[[user]]\nname = \"alice\"\naliases = [\"a.liddell@example.test\"]\n";
    write(&daemon, "members = [\"alice\", ", "members = [");
    reload_with(&daemon, alice, "");
    reload_with(&daemon, "[[user]]\nname = \"bob\"\n", &(user("bob", "") + &user("alice", "")));
    daemon.succeeds(&["queue", "drop", "--to", "busy.test", "--bounce"]);
    wait_for("the outcome", || {
        let log = daemon.log();
        log.contains("nobody is told what came of a message: who sent it is no more").then_some(())
    });
    assert_eq!((messages(&daemon, "alice"), messages(&daemon, &first)), (0, 0));
    let outcomes = sending::outcomes(&daemon, "waits", 1);
    assert_eq!(outcomes, ["bounced bob@busy.test 5.7.1"], "it is recorded");
}
