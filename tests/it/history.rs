//! What the files say is recorded: who changed what, when, and which version a message saw.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::smtp::message;
use crate::support::wait_for;

const OTHER: &str = "alias = \"other\"\ndomains = [\"other.test\", \"second.test\"]\n\
                     [[user]]\nname = \"zoe\"\n";

fn history(daemon: &Daemon) -> Vec<Value> {
    daemon.lists(&["org", "history"])
}

/// The words of the last step, and its JSON.
fn last(daemon: &Daemon) -> (Vec<String>, Value) {
    let step = history(daemon).pop().expect("something is recorded");
    let words = step["changes"].as_array().expect("a list").iter();
    let words = words.map(|word| word.as_str().expect("a text").to_owned()).collect();
    (words, step)
}

fn write(daemon: &Daemon, file: &str, part: &str, instead: &str) {
    let file = daemon.path(file);
    let before = fs::read_to_string(&file).expect("reads");
    assert!(before.contains(part), "no {part} in {before}");
    fs::write(&file, before.replace(part, instead)).expect("writes");
}

fn restart(daemon: &mut Daemon) {
    assert!(daemon.stop().success());
    daemon.launch(Command::new(BINARY));
}

/// Delivers a message; the version of the rules by which that was decided, as its trace tells it.
fn version_of_a_message(daemon: &Daemon, subject: &str) -> u64 {
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["alice@example.test"]);
    let reply = client.data(&message("bob@good.test", subject));
    assert!(reply.starts_with("250"), "{reply}");
    let events = daemon.events();
    let line = events.iter().find(|line| line["event"]["subject"] == subject).expect("an event");
    let id = line["traceId"].as_str().expect("an id");
    let trace = &daemon.lists(&["events", "trace", id])[0];
    trace["story"]["ruleVersion"].as_u64().unwrap_or_else(|| panic!("{trace}"))
}

#[test]
fn a_version_is_the_same_after_a_restart() {
    let mut daemon = Setup::default().start();
    let first = version_of_a_message(&daemon, "first");
    let recorded = history(&daemon);
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0]["position"], first);
    for number in 0..4 {
        restart(&mut daemon);
        assert_eq!(version_of_a_message(&daemon, &format!("start {number}")), first);
        assert_eq!(daemon.succeeds(&["reload"]), "reloaded: nothing has changed\n");
    }
    // What means nothing is no change: a comment, an order, a default written out.
    write(&daemon, "org.toml", "[[user]]\nname = \"bob\"\n", "");
    let file = daemon.path("org.toml");
    let text = fs::read_to_string(&file).expect("reads");
    let bob = "# last\n[[user]]\nname = \"bob\"\nemail = \"bob@example.test\"\nenabled = true\n";
    fs::write(&file, format!("{text}{bob}")).expect("writes");
    daemon.succeeds(&["reload"]);
    restart(&mut daemon);
    assert_eq!(version_of_a_message(&daemon, "means nothing"), first);
    assert_eq!(history(&daemon), recorded);

    write(
        &daemon,
        "org.toml",
        "# last\n[[user]]\nname = \"bob\"\n",
        "[[user]]\nname = \"bob\"\naliases = [\"b@example.test\"]\n",
    );
    daemon.succeeds(&["reload"]);
    let second = version_of_a_message(&daemon, "second");
    assert!(second > first, "{second} {first}");
    // However the daemon ends, and whatever becomes of the index.
    daemon.kill();
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(fs::remove_file(daemon.data().join(name)));
    }
    daemon.launch(Command::new(BINARY));
    assert_eq!(version_of_a_message(&daemon, "third"), second);
    let (words, step) = last(&daemon);
    assert_eq!(words, ["user bob changed: aliases"]);
    assert_eq!((&step["position"], history(&daemon).len()), (&json!(second), 2));
}

#[test]
fn history_says_who_by_what_and_what() {
    let mut daemon = Setup::with("[[user]]\nname = \"erin\"\n").start();
    let (words, step) = last(&daemon);
    assert_eq!(words.len(), 1);
    let counted = "first recorded: 8 users, 2 groups, 1 resource, 2 domains";
    assert!(words[0].starts_with(counted), "{words:?}");
    assert_eq!((&step["by"], &step["command"]), (&json!("daemon"), &json!("start")));

    write(&daemon, "org.toml", "name = \"erin\"\n", "name = \"erica\"\nwas = \"erin\"\n");
    daemon.succeeds(&["reload"]);
    let (words, step) = last(&daemon);
    assert_eq!(words, ["user erica changed: was erin; email"]);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((&step["by"]["operator"]["uid"], &step["command"]), (&json!(uid), &json!("reload")));
    let name = step["by"]["operator"]["name"].as_str().expect("a name").to_owned();

    write(&daemon, "org.toml", "[[user]]\nname = \"erica\"\nwas = \"erin\"\n", "");
    daemon.signal("HUP");
    let step = wait_for("the third step", || history(&daemon).into_iter().nth(2));
    assert_eq!((&step["by"], &step["changes"]), (&json!("daemon"), &json!(["user erica left"])));

    // While no daemon runs, the file says another thing: the next start records it.
    assert!(daemon.stop().success());
    write(&daemon, "org.toml", "quota_mb = 1\n", "quota_mb = 2\n");
    let rule = "[[inbound_rule]]\nname = \"drop\"\naction = \"DROP\"\nsenders = [\"bad.test\"]\n\
                destinations = [\"*\"]\n";
    write(&daemon, "org.toml", "[[resource]]", &format!("{rule}[[resource]]"));
    daemon.launch(Command::new(BINARY));
    let (words, step) = last(&daemon);
    assert_eq!(words, ["user small changed: quota 2 MB, was 1 MB", "inbound rules: drop added"]);
    assert_eq!(step["command"], "start");
    let told = daemon.succeeds(&["org", "history", "example"]);
    assert_eq!(told.lines().filter(|line| line.contains(" example: ")).count(), 4, "{told}");
    assert!(told.contains(&format!(" example: reload by {name}, version ")), "{told}");
    assert!(told.contains("\n  inbound rules: drop added\n"), "{told}");
    let unknown = daemon.command(&["org", "history", "nobody"]);
    assert!(text(&unknown.stderr).contains("the store knows no organization \"nobody\""));
}

#[test]
fn a_reload_that_is_refused_leaves_no_record() {
    let mut daemon = Setup::default().start();
    let before = history(&daemon);
    let whole = fs::read_to_string(daemon.path("org.toml")).expect("reads");
    let main = fs::read_to_string(daemon.path("mailweir.toml")).expect("reads");
    let of_nobody = "alias = \"example\"\ndomains = [\"example.test\", \"example.org\"]\n\
                     [[user]]\nname = \"alice\"\n";
    let no_authorities = format!("{main}\n[queue]\nca_file = \"nothing.pem\"\n");
    for (organization, changed) in [
        (of_nobody.to_owned(), main.clone()),
        (whole.replace("quota_mb = 1\n", "quota_mb = 3\n"), no_authorities),
        (whole.replace("quota_mb = 1\n", "quota_mb = 0\n"), main.clone()),
    ] {
        fs::write(daemon.path("org.toml"), organization).expect("writes");
        fs::write(daemon.path("mailweir.toml"), changed).expect("writes");
        assert!(!daemon.command(&["reload"]).status.success());
        assert!(daemon.stop().success());
        // Nor does a start.
        assert!(!daemon.launch_doomed(Command::new(BINARY)), "it starts");
        fs::write(daemon.path("org.toml"), &whole).expect("writes");
        fs::write(daemon.path("mailweir.toml"), &main).expect("writes");
        daemon.launch(Command::new(BINARY));
        assert_eq!(history(&daemon), before);
    }
}

/// What a start says is written when it is sure to serve.
#[test]
fn a_start_that_fails_leaves_no_record() {
    let mut daemon = Setup::default().start();
    let before = history(&daemon);
    assert!(daemon.stop().success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let bind = format!("\"{}\"", taken.local_addr().expect("has one"));
    write(&daemon, "mailweir.toml", "\"127.0.0.1:0\"", &bind);
    write(&daemon, "org.toml", "quota_mb = 1\n", "quota_mb = 2\n");
    assert!(!daemon.launch_doomed(Command::new(BINARY)), "it starts");
    assert!(daemon.log().contains("cannot listen on"), "{}", daemon.log());
    assert_eq!(history(&daemon), before);
    drop(taken);
    daemon.launch(Command::new(BINARY));
    assert_eq!(last(&daemon).0, ["user small changed: quota 2 MB, was 1 MB"]);
}

#[test]
fn an_organization_swaps_a_domain_with_another_in_one_record() {
    let setup = Setup { more_organizations: vec![OTHER.to_owned()], ..Setup::default() };
    let daemon = setup.start();
    write(
        &daemon,
        "org.toml",
        "domains = [\"example.test\", \"example.org\"]",
        "domains = [\"example.test\", \"second.test\"]",
    );
    write(&daemon, "org.toml", "verkauf@example.org", "verkauf@second.test");
    write(&daemon, "org0.toml", "\"second.test\"]", "\"example.org\"]");
    daemon.succeeds(&["reload"]);
    let steps = history(&daemon);
    let positions: BTreeSet<_> = steps.iter().map(|step| step["position"].as_u64()).collect();
    assert_eq!((steps.len(), positions.len()), (4, 2), "{steps:#?}");
    let domains = |gets: &str, gives: &str| format!("domains: {gets} added; {gives} removed");
    assert_eq!(steps[2]["changes"][0], domains("second.test", "example.org"));
    assert_eq!(steps[3]["changes"][0], domains("example.org", "second.test"));
    assert_eq!(daemon.lists(&["org", "history", "other"]).len(), 2);
}

#[test]
fn a_file_that_moves_is_told_and_what_it_says_is_shown() {
    let daemon = Setup::default().start();
    let shown = daemon.lists(&["org", "show", "example"]);
    let facts = &history(&daemon)[0]["facts"];
    let fact = |about: &str| {
        let mut facts = facts.as_array().expect("a list").iter();
        facts.find(|fact| fact["about"] == about).unwrap_or_else(|| panic!("no {about}"))
    };
    // What is shown is what is recorded, by the same ids.
    let state = &shown[0];
    for (id, entity) in state["entities"].as_object().expect("a map") {
        assert_eq!(&fact(&format!("entity/{id}"))["fact"]["entity"]["entity"], entity);
    }
    assert_eq!(fact("access")["fact"]["access"], state["access"]);
    assert_eq!(fact("mail")["fact"]["mail"], state["mail"]);
    let told = daemon.succeeds(&["org", "show"]);
    assert!(told.contains("\n  user small ("), "{told}");
    assert!(told.contains("small@example.test; 1 MB\n"), "{told}");

    fs::rename(daemon.path("org.toml"), daemon.path("moved.toml")).expect("renames");
    write(&daemon, "mailweir.toml", "\"org.toml\"", "\"moved.toml\"");
    daemon.succeeds(&["reload"]);
    let moved = format!("said by {}", daemon.path("moved.toml").display());
    assert_eq!(last(&daemon).0, [moved]);
}

/// What a plan says of an edited file is what a reload then records, and nothing happens before.
#[test]
fn a_plan_tells_what_a_reload_then_does() {
    let daemon = Setup::with("[[user]]\nname = \"carl\"\naliases = [\"c@example.org\"]\n").start();
    let before = history(&daemon);
    let draft = daemon.path("drafts/draft.toml").display().to_string();
    fs::create_dir(daemon.path("drafts")).expect("makes a folder");
    let text = fs::read_to_string(daemon.path("org.toml")).expect("reads");
    let same = text.clone() + "# a comment\n";
    fs::write(&draft, &same).expect("writes");
    assert_eq!(daemon.succeeds(&["org", "plan", &draft]), "nothing would change\n");

    let carl = "[[user]]\nname = \"carl\"\naliases = [\"c@example.org\"]\n";
    let dora = "[[user]]\nname = \"dora\"\naliases = [\"carl@example.test\"]\n";
    let gateway = "[[smtp_gateway]]\nname = \"filter\"\naddress = \"192.0.2.1\"\nport = 25\n\
                   user_name = \"me\"\npassword_file = \"password\"\n";
    let edited = text.replace(carl, dora).replace("quota_mb = 1\n", "quota_mb = 2\n") + gateway;
    fs::write(&draft, &edited).expect("writes");
    let problem = daemon.command(&["org", "plan", &draft]);
    assert!(text_of(&problem).contains("password cannot be read"), "{problem:?}");
    // A relative path is beside the file whose place the draft takes.
    fs::write(daemon.path("password"), "open sesame\n").expect("writes");
    let told = daemon.succeeds(&["org", "plan", &draft]);
    for line in [
        "user carl left",
        "user dora added: dora@example.test",
        "user small changed: quota 2 MB, was 1 MB",
        "SMTP gateways: filter added",
        "mail is refused for c@example.org",
        "a mailbox is closed: carl",
    ] {
        assert!(told.lines().any(|shown| shown.trim() == line), "no {line} in {told}");
    }
    let planned = daemon.lists(&["org", "plan", &draft]).remove(0);
    assert_eq!(history(&daemon), before, "a plan changes nothing");
    fs::write(daemon.path("org.toml"), &edited).expect("writes");
    daemon.succeeds(&["reload"]);
    let done = history(&daemon).pop().expect("a step");
    assert_eq!((&planned["facts"], &planned["changes"]), (&done["facts"], &done["changes"]));

    // What is recorded can be had as a file, which changes nothing.
    fs::write(&draft, daemon.succeeds(&["org", "export", "example"])).expect("writes");
    assert_eq!(daemon.succeeds(&["org", "plan", &draft]), "nothing would change\n");
    fs::copy(&draft, daemon.path("org.toml")).expect("copies");
    daemon.succeeds(&["reload"]);
    assert_eq!(history(&daemon).pop(), Some(done), "nor does a reload of it");

    // What is another's is refused, with the line, and so is a file that lacks most users.
    let few = "alias = \"example\"\ndomains = [\"example.test\"]\n[[user]]\nname = \"alice\"\n";
    fs::write(&draft, few).expect("writes");
    let told = daemon.command(&["org", "plan", &draft]);
    assert!(text_of(&told).contains("removes_users = "), "{told:?}");
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stderr)
}

#[test]
fn a_plan_refuses_what_another_organization_has() {
    let setup = Setup { more_organizations: vec![OTHER.to_owned()], ..Setup::default() };
    let daemon = setup.start();
    let draft = daemon.path("draft.toml").display().to_string();
    let taken = "alias = \"new\"\ndomains = [\"new.test\", \"other.test\"]\n\
                 [[user]]\nname = \"nora\"\n";
    fs::write(&draft, taken).expect("writes");
    let told = daemon.command(&["org", "plan", &draft]);
    assert!(text_of(&told).contains("draft.toml:2: domains: other.test is taken"), "{told:?}");
    fs::write(&draft, taken.replace(", \"other.test\"", "")).expect("writes");
    let told = daemon.succeeds(&["org", "plan", &draft]);
    assert!(told.contains("first recorded: 1 user, 1 domain, 1 access rule\n"), "{told}");
}
