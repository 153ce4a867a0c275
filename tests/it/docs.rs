//! The documentation is true: every command on a page runs, and prints what the page shows.

use std::collections::BTreeSet;
use std::fs;

use crate::support::pages::{Block, blocks, commands, normalized, page, pages, spans};
use crate::support::sandbox::{SHIMS, Sandbox};
use crate::support::wait_for;

/// Whether what a command has printed, or done, shows that it works.
type Shows = fn(&Sandbox, &str) -> bool;
/// Asks the sandbox for an id.
type Ask = fn(&Sandbox) -> String;
/// Does something with what a command has printed.
type Act = fn(&Sandbox, &str);

/// Commands that no test runs, and why.
const OUTSIDE: &[(&str, &str, &str)] = &[
    ("README.md", "tests/run.sh", "it runs these tests"),
    ("docs/cost.md", "bench/run.sh", "40 minutes as root; tests/run.sh runs it with --quick"),
];

/// Commands that run until they are stopped, and what shows that they work.
const ENDLESS: &[(&str, Shows)] = &[
    ("cargo serve", |sandbox, _| {
        sandbox.path("checkout/.mailweir-dev/run/listeners.json").exists()
    }),
    ("mailweir events tail --follow", |_, printed| printed.contains("\"eventName\"")),
    ("sudo mailweir events tail --follow", |_, printed| printed.contains("\"eventName\"")),
];

/// What a command reads from standard input, where it would ask somebody.
const INPUT: &[(&str, &str)] = &[
    ("mailweir user set-password", "Correct-Horse-9\n"),
    ("sudo mailweir user set-password", "Correct-Horse-9\n"),
    ("swaks --server mx.example.test:465", "Correct-Horse-9\n"),
];

/// What `ID` stands for on a page, by the command that it is an argument of: what a command before
/// it has printed, as a reader would copy it from there.
const IDS: &[(&str, Ask)] = &[
    ("mailweir queue", |sandbox| first(sandbox, "mailweir queue list --json", "id")),
    ("mailweir mailbox show", |sandbox| first(sandbox, "mailweir mailbox list alice --json", "id")),
    ("mailweir token revoke", |sandbox| first(sandbox, "mailweir token list alice --json", "id")),
    ("mailweir events trace", |sandbox| first(sandbox, "mailweir events tail -n 1", "traceId")),
];

/// What a reader does after a command, before the next.
const MEANWHILE: &[(&str, Act)] = &[
    ("mailweir domain records example.test", |sandbox, printed| {
        sandbox.publish("example.test", printed);
    }),
    ("sudo mailweir domain records example.com", |sandbox, printed| {
        let host = "mx.example.com. 60 IN A 127.0.0.1\n";
        sandbox.publish("example.com", &format!("{host}{printed}"));
    }),
    ("sudo mailweir check-config", |sandbox, _| {
        let file = "etc/mailweir/example.com.toml";
        let alice = "[[user]]\nname = \"alice\"\n";
        let text = sandbox.read(file) + alice;
        fs::write(sandbox.path(file), text).expect("writes");
    }),
];

/// Text blocks that show no command's output.
const NO_OUTPUT: &[(&str, &str)] =
    &[("docs/budgets.md", "bench/run.sh has written the whole page")];

/// A value of the first line of JSON that a command prints.
fn first(sandbox: &Sandbox, command: &str, key: &str) -> String {
    let printed = sandbox.succeeds(command);
    let line = printed.lines().next().unwrap_or_else(|| panic!("{command} prints nothing"));
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
}

/// The commands of a page that run here.
fn is_outside(name: &str, command: &str) -> bool {
    OUTSIDE.iter().any(|(page, outside, _)| *page == name && *outside == command)
}

/// A page as it is being followed.
struct Reader {
    name: String,
    sandbox: Sandbox,
    /// Everything that its commands have printed so far.
    printed: String,
}

impl Reader {
    fn follow(mut self) {
        for Block { language, text } in blocks(&page(&self.name)) {
            match language.as_str() {
                "sh" => commands(&text).iter().for_each(|command| self.run(command)),
                "text" | "json" => self.compare(&text),
                "toml" => {}
                _ => panic!("{}: a block of {language:?}", self.name),
            }
        }
    }

    fn run(&mut self, command: &str) {
        let Self { name, sandbox, printed } = self;
        if is_outside(name, command) {
            return;
        }
        let begins = |(start, _): &&(&str, Ask)| command.starts_with(start);
        let command = match IDS.iter().find(begins).filter(|_| command.contains(" ID")) {
            Some((_, id)) => command.replace(" ID", &format!(" {}", id(sandbox))),
            None => command.to_owned(),
        };
        if let Some((_, is_there)) = ENDLESS.iter().find(|(endless, _)| *endless == command) {
            *printed += &sandbox.begin(&command, is_there);
            return;
        }
        let input = INPUT.iter().find(|(start, _)| command.starts_with(start));
        let output = sandbox.run(&command, input.map_or("", |(_, input)| input));
        assert!(output.is_success, "{name}: {command}\n{}", output.text);
        *printed += &output.text;
        if let Some((_, act)) = MEANWHILE.iter().find(|(after, _)| *after == command) {
            act(sandbox, &output.text);
        }
    }

    /// What the page shows is a part of what its commands have printed, of the event file, or of the
    /// daemon's log.
    fn compare(&self, shown: &str) {
        if NO_OUTPUT.iter().any(|(page, _)| *page == self.name) {
            return;
        }
        let events = ["checkout/.mailweir-dev", "var/lib/mailweir"].map(|dir| {
            let file = self.sandbox.path(dir).join("events/email-events.jsonl");
            fs::read_to_string(file).unwrap_or_default()
        });
        let log = fs::read_to_string(self.sandbox.path("daemon.log")).unwrap_or_default();
        let found = normalized(&(self.printed.clone() + &events.concat() + &log));
        let shown = normalized(shown);
        assert!(found.contains(&shown), "{} shows\n{shown}\nwhich is not in\n{found}", self.name);
    }
}

/// Follows a page in a checkout, as whoever tries it out does.
fn try_out(name: &str) {
    Reader { name: name.into(), sandbox: Sandbox::new(), printed: String::new() }.follow();
}

/// Follows the page of the installation on a machine that has nothing yet.
fn set_up(name: &str) {
    let sandbox = Sandbox::new();
    sandbox.remove_installed();
    Reader { name: name.into(), sandbox, printed: String::new() }.follow();
}

/// Follows a page beside an installed daemon that has had some mail: one message for alice, and one
/// of hers that waits for a server that is not there.
fn administer(name: &str) {
    let sandbox = Sandbox::new();
    sandbox.succeeds("systemctl start mailweir");
    let from_bob = "swaks --server mx.example.test:25 --helo mail.good.test --from bob@good.test \
                    --to alice@example.test --header 'Subject: Hello'";
    sandbox.succeeds(from_bob);
    let set = sandbox.run("mailweir user set-password alice", "Correct-Horse-9\n");
    assert!(set.is_success, "{}", set.text);
    let from_alice = "swaks --server mx.example.test:465 --tls-on-connect --auth PLAIN --auth-user \
                      alice@example.test --auth-password Correct-Horse-9 --from \
                      alice@example.test --to you@elsewhere.test";
    sandbox.succeeds(from_alice);
    wait_for("the first attempt", || {
        let waits = sandbox.succeeds("mailweir queue list --json");
        waits.contains("\"attempts\":1").then_some(())
    });
    wait_for("the index", || {
        let sound = sandbox.succeeds("mailweir fsck");
        sound.contains(" 0 records still to come").then_some(())
    });
    Reader { name: name.into(), sandbox, printed: String::new() }.follow();
}

/// A test for each page that has commands, and what it begins with.
macro_rules! pages {
    ($($test:ident: $follow:ident $name:literal,)*) => {
        const FOLLOWED: &[&str] = &[$($name),*];
        $(#[test] fn $test() { $follow($name); })*
    };
}

pages! {
    readme: set_up "README.md",
    trying_it: try_out "docs/try.md",
    backup: administer "docs/backup.md",
    configure: administer "docs/configure.md",
    cost: try_out "docs/cost.md",
    domains: administer "docs/domains.md",
    install: set_up "docs/install.md",
    inbound_rules: administer "docs/inbound-rules.md",
    mailboxes: administer "docs/mailboxes.md",
    outbound_rules: administer "docs/outbound-rules.md",
    queue: administer "docs/queue.md",
    sending: administer "docs/sending.md",
    spam_and_dmarc: administer "docs/spam-and-dmarc.md",
    tls_and_keys: administer "docs/tls-and-keys.md",
    traces: administer "docs/traces.md",
    upgrade: administer "docs/upgrade.md",
}

/// Every command on every page, with the page.
fn all_commands() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for name in pages() {
        for block in blocks(&page(&name)).iter().filter(|block| block.language == "sh") {
            all.extend(commands(&block.text).into_iter().map(|command| (name.clone(), command)));
        }
    }
    all
}

#[test]
fn every_page_with_commands_is_followed() {
    let with_commands: BTreeSet<_> = all_commands().into_iter().map(|(name, _)| name).collect();
    let followed: BTreeSet<_> = FOLLOWED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(with_commands, followed);
}

#[test]
fn every_exception_is_needed() {
    let all = all_commands();
    for (name, command, why) in OUTSIDE {
        let is_there = all.iter().any(|(page, found)| page == name && found == command);
        assert!(is_there, "{name} has no {command}, which no test runs since {why}");
    }
    let begins = |start: &str| all.iter().any(|(_, command)| command.starts_with(start));
    let starts = ENDLESS.iter().map(|(start, _)| start);
    let starts = starts.chain(MEANWHILE.iter().map(|(start, _)| start));
    let starts = starts.chain(INPUT.iter().map(|(start, _)| start));
    for start in starts.chain(IDS.iter().map(|(start, _)| start)) {
        assert!(begins(start), "no page has {start}");
    }
    for shim in SHIMS {
        let mut commands = all.iter().map(|(_, command)| command.split_whitespace());
        let is_used = commands.any(|mut words| words.any(|word| word == shim.name));
        assert!(is_used, "no page has {}, of which there is a shim: {}", shim.name, shim.why);
    }
    for (name, why) in NO_OUTPUT {
        let shows = blocks(&page(name)).iter().any(|block| block.language == "text");
        assert!(shows, "{name} shows no output, which is not compared since {why}");
    }
}

/// Sections of the daemon's own file; all others are an organization's.
const OF_THE_DAEMON: &[&str] = &["[spam]", "[[listener]]", "[queue]", "[[queue_route]]", "[tls]"];

#[test]
fn every_configuration_on_a_page_is_taken() {
    let sandbox = Sandbox::new();
    let write = |name: &str, text: &str| {
        fs::write(sandbox.path(&format!("checkout/{name}")), text).expect("writes");
    };
    write("filter.password", "secret\n");
    write("relay.password", "secret\n");
    let mut count = 0;
    for name in pages() {
        for block in blocks(&page(&name)).iter().filter(|block| block.language == "toml") {
            let is_daemons = OF_THE_DAEMON.iter().any(|section| block.text.contains(section));
            let of_daemon = if is_daemons { block.text.as_str() } else { "" };
            let of_organization = if is_daemons { "" } else { block.text.as_str() };
            let organization = "alias = \"example\"\ndomains = [\"example.test\"]\n";
            let user = "[[user]]\nname = \"admin\"\n";
            write("organization.toml", &format!("{organization}{of_organization}{user}"));
            write(
                "page.toml",
                &format!(
                    "data_dir = \"data\"\nhostname = \"mx.example.test\"\n[[organization]]\nfile = \
                     \"organization.toml\"\n[dns]\nzone_file = \"fixtures/dns/demo.zone\"\n{of_daemon}"
                ),
            );
            let checked = sandbox.run("mailweir check-config --config page.toml", "");
            assert!(checked.is_success, "{name}:\n{}\n{}", block.text, checked.text);
            count += 1;
        }
    }
    assert!(count > 0, "no page has one");
}

/// Programs whose commands stand in prose.
const PROGRAMS: &[&str] = &["mailweir", "cargo", "systemctl", "journalctl", "swaks", "openssl"];

/// Commands in prose that no page has as a block and `--help` cannot answer for, and why they are
/// right.
const IN_PROSE: &[(&str, &str)] = &[
    ("cargo test", "it runs these tests"),
    ("journalctl -u mailweir", "there is no journal in a test"),
    ("systemctl daemon-reload", "there is no service manager in a test"),
];

#[test]
fn commands_in_prose_are_commands() {
    let sandbox = Sandbox::new();
    let all = all_commands();
    let mut used = BTreeSet::new();
    for name in pages() {
        for span in spans(&page(&name)) {
            let command = commands(&span).concat();
            let mut words = command.split_whitespace();
            if !words.next().is_some_and(|word| PROGRAMS.contains(&word)) || words.next().is_none()
            {
                continue;
            }
            if all.iter().any(|(_, found)| found.starts_with(&command)) {
                continue;
            }
            if let Some((known, _)) = IN_PROSE.iter().find(|(known, _)| *known == command) {
                used.insert(*known);
                continue;
            }
            assert!(command.starts_with("mailweir "), "{name}: nothing shows that {span} works");
            knows(&sandbox, &name, &command);
        }
    }
    assert_eq!(used.len(), IN_PROSE.len(), "of {IN_PROSE:?} only {used:?} stand on a page");
}

#[test]
fn options_in_comments_are_options() {
    let sandbox = Sandbox::new();
    let mut count = 0;
    for name in pages() {
        for block in blocks(&page(&name)).iter().filter(|block| block.language == "sh") {
            for line in block.text.lines().map(str::trim) {
                let Some((command, comment)) = line.split_once(" #") else { continue };
                let options: Vec<_> = comment
                    .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                    .filter(|word| word.starts_with("--"))
                    .collect();
                let command = command.trim_start_matches("sudo ").trim();
                if command.starts_with("mailweir ") && !options.is_empty() {
                    knows(&sandbox, &name, &format!("{command} {}", options.join(" ")));
                    count += 1;
                }
            }
        }
    }
    assert!(count > 0, "no comment has one");
}

/// Asks the binary whether there is such a command, with these options.
fn knows(sandbox: &Sandbox, name: &str, command: &str) {
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let mut words = command.split_whitespace().take_while(|word| !word.starts_with("--"));
    let called: Vec<_> = words.by_ref().take_while(is_name).collect();
    let help = sandbox.run(&format!("{} --help", called.join(" ")), "");
    assert!(help.is_success, "{name}: {command}\n{}", help.text);
    for option in command.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(help.text.contains(option), "{name}: {command} has no {option}\n{}", help.text);
    }
}

#[test]
fn the_names_of_subcommands_in_prose_are_right() {
    let sandbox = Sandbox::new();
    let help = sandbox.succeeds("mailweir --help");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let subcommands: Vec<&str> = listed
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .collect();
    assert!(subcommands.contains(&"events"), "{help}");
    let mut asked = BTreeSet::new();
    for name in pages() {
        for span in spans(&page(&name)) {
            let mut words = span.split_whitespace();
            let is_subcommand = words.next().is_some_and(|word| subcommands.contains(&word));
            if is_subcommand && words.next().is_some() && asked.insert(span.clone()) {
                knows(&sandbox, &name, &format!("mailweir {span}"));
            }
        }
    }
    assert!(!asked.is_empty());
}

#[test]
fn what_is_compared_is_what_stays() {
    for (text, expected) in [
        ("trace 01a1fcc6-f495-7318-b41b-e7a0da567d4f", "trace ID"),
        ("in trace 01a1fcc6-f495-7318-b41b-e7a0da567d4f.", "in trace ID."),
        ("  2026-11-21T06:24:19.606Z  received: 228 bytes", "  TIME  received: SIZE bytes"),
        ("{\"a\":1795242259606,\"b\":1}", "{\"a\":MILLISECONDS,\"b\":1}"),
        ("<20261121062419.029531@vm>", "<MESSAGE@HOST>"),
        ("id=1f40.0.0.0 size=4096 to=", "id=VALUE size=VALUE to="),
        ("at 127.0.0.1:35113 (TLS)", "at 127.0.0.1:PORT (TLS)"),
        ("m-5da3381ced335dc4845927223e1a23b7", "ORGANIZATION"),
        ("\"eventId\":\"0000000000000008-0002\"", "\"eventId\":\"EVENT\""),
        ("5.1.1 No such user, 3 records, 250 2.0.0", "5.1.1 No such user, 3 records, 250 2.0.0"),
    ] {
        assert_eq!(normalized(text), expected);
    }
    let block = "a  # why\nb \\\n  c='#1' # x\n# nothing\n";
    assert_eq!(commands(block), ["a", "b c='#1'"]);
}
