//! `--json` has one form: a list is an object a line and nothing where it is empty; one thing is one
//! line with an object.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::refusing_port;
use crate::support::sending::{prepared, route, submit};
use crate::support::wait_for;

/// What a command prints with `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// At least two items here.
    List,
    /// The list is empty here.
    Nothing,
    One,
}
use Form::{List, Nothing, One};

/// Every command with `--json`, as it is called here. ID is an entry of the queue, MAIL a message of
/// alice's, TRACE a trace.
const COMMANDS: &[(Form, &str)] = &[
    (One, "check-config"),
    (One, "reload"),
    (One, "rules test --sender x@else.test --recipient alice@example.test"),
    (One, "access test --user alice --ip 192.0.2.1"),
    (List, "domain keys example.test"),
    (List, "domain check example.test --before-cutover"),
    (One, "domain records example.test"),
    (List, "events tail"),
    (List, "events trace alice@example.test"),
    (List, "user list"),
    (List, "mailbox list"),
    (List, "mailbox list alice"),
    (Nothing, "mailbox list admin"),
    (One, "mailbox show alice MAIL"),
    (List, "mailbox export alice DIR/mails"),
    (Nothing, "mailbox export admin DIR/none"),
    (One, "token create alice --name phone"),
    (One, "token create alice --name laptop"),
    (List, "token list alice"),
    (Nothing, "token list bob"),
    (List, "queue list"),
    (Nothing, "queue list --to nowhere.test"),
    (List, "queue summary"),
    (One, "queue show ID"),
    (One, "queue retry ID"),
    (One, "verify DIR/message.eml --ip 192.0.2.1 --helo a.test --mail-from a@b.test"),
    (One, "fsck"),
    (One, "backup DIR/copy"),
    (One, "queue drop --to down.test"),
    (One, "queue drop --to gone.test"),
    (Nothing, "queue list"),
    (Nothing, "queue summary"),
];

/// Commands with tests of their own that look at what they print.
const ELSEWHERE: &[(&str, &str)] = &[
    ("demo", "commands.rs"),
    ("init", "init.rs"),
    ("org history", "history.rs"),
    ("org plan", "history.rs"),
    ("org show", "history.rs"),
    ("restore", "needs a data folder that is empty; prints what backup prints"),
];

/// The names of all commands that have no commands below them, with their help.
fn leaves(words: &[String]) -> Vec<(String, String)> {
    let output = Command::new(BINARY).args(words).arg("--help").output().expect("runs");
    let help = text(&output.stdout);
    let Some((_, listed)) = help.split_once("\nCommands:\n") else {
        return vec![(words.join(" "), help)];
    };
    let lines = listed.lines().take_while(|line| line.starts_with("  "));
    let named = lines.filter(|line| !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    let below = names.filter(|name| *name != "help");
    below.flat_map(|name| leaves(&[words, &[name.to_owned()]].concat())).collect()
}

fn daemon_with_something_of_everything() -> Daemon {
    let down = refusing_port();
    let routes = route("down.test", down) + &route("gone.test", down);
    let mut daemon = prepared(Setup { sections: routes, ..Setup::default() });
    std::fs::write(daemon.path("message.eml"), "From: a@b.test\r\n\r\n").expect("writes");
    let printed = daemon.succeeds(&["domain", "records", "example.test"]);
    let zone = crate::support::daemon::ZONE;
    let ours = |line: &&str| {
        !line.starts_with("example.test.") && !line.starts_with("_dmarc.example.test.")
    };
    let kept: Vec<_> = zone.lines().filter(ours).collect();
    let zone = format!("{}\nmx.example.test. IN A 127.0.0.1\n{printed}", kept.join("\n"));
    std::fs::write(daemon.path("demo.zone"), zone).expect("writes");
    daemon.launch(Command::new(BINARY));
    for subject in ["one", "two"] {
        submit(&daemon, &["a@down.test", "a@gone.test", "alice@example.test"], subject);
    }
    wait_for("the index", || {
        let listed = daemon.lists(&["mailbox", "list", "alice"]);
        (listed.len() == 2).then_some(())
    });
    daemon
}

#[test]
fn a_list_is_an_object_a_line_whatever_the_command() {
    let daemon = daemon_with_something_of_everything();
    let first = |arguments: &[&str]| {
        let list = daemon.lists(arguments);
        list[0]["id"].as_str().expect("an id").to_owned()
    };
    let entry = first(&["queue", "list"]);
    let mail = first(&["mailbox", "list", "alice"]);
    let dir = daemon.dir.path().display().to_string();
    for (form, command) in COMMANDS {
        let command = command.replace("DIR", &dir).replace("MAIL", &mail).replace("ID", &entry);
        let words: Vec<_> = command.split(' ').chain(["--json"]).collect();
        let printed = daemon.succeeds(&words);
        let lines: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{command}: {line}")))
            .collect();
        assert!(lines.iter().all(Value::is_object), "{command} prints {printed}");
        let is_right = match form {
            List => lines.len() >= 2,
            Nothing => lines.is_empty(),
            One => lines.len() == 1,
        };
        assert!(is_right, "{command}, which should print {form:?}, prints {printed}");
    }
}

#[test]
fn every_command_with_json_is_tried() {
    let called = |name: &str| {
        COMMANDS.iter().any(|(_, command)| format!("{command} ").starts_with(&format!("{name} ")))
    };
    let all = leaves(&[]);
    let with_json: BTreeSet<_> =
        all.iter().filter(|(_, help)| help.contains("--json")).map(|(name, _)| name).collect();
    assert!(with_json.len() > 20, "{with_json:?}");
    for name in with_json {
        let is_elsewhere = ELSEWHERE.iter().any(|(elsewhere, _)| elsewhere == name);
        assert!(called(name) != is_elsewhere, "{name} is tried here, or elsewhere");
    }
}
