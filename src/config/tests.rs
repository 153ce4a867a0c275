mod access;
mod meant;
mod outbound;
mod state;
mod who;

use std::fs;
use std::path::PathBuf;

// The store of a daemon that is installed here says nothing of these files.
use super::load_without_store as load;
use super::*;
use crate::directory::EntityState;
use crate::queue::route::{FixedRoute, RouteTls};
use crate::smtp::Protocol;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(main: &str, organization: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("main.toml"), main).expect("writes");
        fs::write(dir.path().join("org.toml"), organization).expect("writes");
        Self(dir)
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("main.toml")
    }

    fn problems(&self, environment: &[(&str, &str)]) -> Vec<String> {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let problems = load(&self.main(), environment).expect_err("has problems");
        let dir = format!("{}/", self.0.path().display());
        problems.to_string().replace(&dir, "").lines().map(str::to_owned).collect()
    }
}

const MAIN: &str = "hostname = \"mx.example.test\"\n[[organization]]\nfile = \"org.toml\"\n";
const ORGANIZATION: &str =
    "alias = \"example\"\ndomains = [\"example.test\"]\n[[user]]\nname = \"alice\"\n";

/// In whichever order.
fn check(main: &str, organization: &str, expected: &[&str]) {
    let mut problems = Scratch::new(main, organization).problems(&[]);
    let mut expected = expected.to_vec();
    problems.sort_unstable();
    expected.sort_unstable();
    assert_eq!(problems, expected);
}

const BROKEN_MAIN: &str = "hostname = \"bad name\"\n\
     hostnam = \"x\"\n\
     [[listener]]\n\
     name = \"mx\"\n\
     protocol = \"smtp\"\n\
     bind = \"localhost\"\n\
     proxy_protocol_from = [\"127.0.0.0/8\", \"10.0.0.0/40\"]\n\
     [tls]\n\
     certificate = \"c.pem\"\n\
     [limits]\n\
     recipients = 0\n\
     errors = \"many\"\n\
     [dns]\n\
     servers = []\n\
     zone_file = \"z\"\n\
     [spam]\n\
     scanner = \"clamav\"\n\
     [log]\n\
     level = \"lo=ud=er\"\n\
     [[organization]]\n\
     file = \"org.toml\"\n";
const BROKEN_ORGANIZATION: &str = "alias = \"example\"\n\
     domains = [\"example.test\"]\n\
     plus_addressing = 1\n\
     [[user]]\n\
     name = \"alice\"\n\
     email = \"alice@other.test\"\n\
     quota_mb = 51201\n\
     [[user]]\n\
     name = \"alice\"\n\
     [[group]]\n\
     name = \"sales\"\n\
     members = [\"nobody\"]\n\
     [[inbound_rule]]\n\
     name = \"r\"\n\
     action = \"DELETE\"\n\
     senders = [\"a+b@x.test\", \"*\"]\n\
     destinations = [\"*\"]\n\
     [[inbound_rule]]\n\
     name = \"lambda\"\n\
     action = \"RUN_LAMBDA\"\n\
     senders = [\"*\"]\n\
     destinations = [\"*\"]\n\
     [[outbound_rule]]\n\
     name = \"out\"\n\
     action = \"MOVE_TO_JUNK\"\n\
     senders = [\"*\"]\n\
     destinations = [\"*\"]\n";

#[test]
fn every_problem_of_all_files_is_found_in_one_run() {
    let problems = Scratch::new(BROKEN_MAIN, BROKEN_ORGANIZATION).problems(&[]);
    assert_eq!(
        problems,
        [
            "main.toml:1: hostname: \"bad name\": \"bad name\" is not a valid domain name",
            "main.toml:2: hostnam: unknown key, did you mean \"hostname\"?",
            "main.toml:5: listener[0].protocol: \"smtp\" is not one of mx, submission, \
             submissions, did you mean \"mx\"?",
            "main.toml:6: listener[0].bind: \"localhost\": is not an IP address and a port, \
             such as 127.0.0.1:25 or [::1]:25",
            "main.toml:7: listener[0].proxy_protocol_from[1]: \"10.0.0.0/40\": is not a network, \
             such as 192.0.2.0/24 or 2001:db8::/32, nor an IP address",
            "main.toml:9: tls.certificate: needs a private_key beside it",
            "main.toml:11: limits.recipients: 0 is not between 1 and 100000",
            "main.toml:12: limits.errors: expected a number, found a text",
            "main.toml:14: dns.servers: is empty; leave it out for the system's servers",
            "main.toml:15: dns.zone_file: cannot stand beside servers: answers come from one of them",
            "main.toml:16: spam.address: is missing",
            "main.toml:17: spam.scanner: \"clamav\" is not one of rspamd, spamd",
            "main.toml:19: log.level: \"lo=ud=er\": invalid filter directive: too many '=' in filter \
             directive, expected 0 or 1",
            "org.toml:3: plus_addressing: expected true or false, found a number: write \
             plus_addressing = true",
            "org.toml:6: user[0].email: alice@other.test is in no domain of the organization",
            "org.toml:7: user[0].quota_mb: 51201 is not between 1 and 51200",
            "org.toml:9: user[1].name: \"alice\" is taken, at org.toml:5",
            "org.toml:12: group[0].members: there is no user, resource or group \"nobody\"",
            "org.toml:15: inbound_rule[0].action: \"DELETE\" is not one of DROP, BOUNCE, \
             MOVE_TO_JUNK, DEFAULT, BYPASS_SPAM_CHECK, did you mean \"DROP\"?",
            "org.toml:16: inbound_rule[0].senders[0]: \"a+b@x.test\": \"+\" is not valid in a pattern; \
             write a@x.test",
            "org.toml:20: inbound_rule[1].action: RUN_LAMBDA is not supported by this version",
            "org.toml:25: outbound_rule[0].action: \"MOVE_TO_JUNK\" is not one of DEFAULT, DROP, \
             BOUNCE, ROUTE_TO_SMTP_GATEWAY",
        ],
    );
}

/// File by file, and line by line, whatever has found them in which order.
#[test]
fn problems_stand_in_the_order_in_which_they_are_mended() {
    let problem = |place: &str| Problem {
        place: place.to_owned(),
        key: String::new(),
        message: String::new(),
    };
    let places = [
        "a.toml:10",
        "environment X",
        "b.toml:2",
        "a.toml:9",
        "",
        "b.toml",
        "a.toml:100",
        "b.toml:1",
    ];
    let mut problems = places.map(problem);
    Problem::sort(&mut problems);
    let sorted = problems.map(|problem| problem.place);
    let expected = [
        "a.toml:9",
        "a.toml:10",
        "a.toml:100",
        "environment X",
        "b.toml",
        "b.toml:1",
        "b.toml:2",
        "",
    ];
    assert_eq!(sorted, expected);
}

#[test]
fn a_name_can_be_told_and_typed() {
    let organization = |kind: &str, name: &str| {
        format!("{ORGANIZATION}[[{kind}]]\nname = {name}\nemail = \"x@example.test\"\n")
    };
    let long = |length: usize| format!("\"{}\"", "ü".repeat(length));
    for (name, problem) in [
        ("\"\"", "a name has 1 to 64 characters"),
        (long(65).as_str(), "a name has 1 to 64 characters"),
        ("\"../etc\"", "'/' cannot stand in a name"),
        ("\"a\\\\b\"", "'\\\\' cannot stand in a name"),
        ("\"a\\nb\"", "'\\n' cannot stand in a name"),
        ("\"a\\u0000b\"", "'\\0' cannot stand in a name"),
        ("\"\\u001b[31m\"", "'\\u{1b}' cannot stand in a name"),
        ("\"*\"", "'*' cannot stand in a name"),
        ("'\"'", "'\"' cannot stand in a name"),
        ("\"<a\"", "'<' cannot stand in a name"),
        ("\"a>\"", "'>' cannot stand in a name"),
        ("\"a@b\"", "'@' cannot stand in a name"),
        ("\"a:b\"", "':' cannot stand in a name"),
        ("\" a\"", "a name neither begins nor ends with a space"),
        ("\"a\\u00a0\"", "a name neither begins nor ends with a space"),
    ] {
        for kind in ["user", "resource", "group"] {
            let at = usize::from(kind == "user");
            let problems = Scratch::new(MAIN, &organization(kind, name)).problems(&[]);
            let expected = format!("org.toml:6: {kind}[{at}].name: {problem}");
            assert!(problems.contains(&expected), "{name}: {problems:?}");
        }
    }
    for name in [long(64).as_str(), "\"用户\"", "\"Ann O'Hara (2)\""] {
        let scratch = Scratch::new(MAIN, &organization("user", name));
        assert!(load(&scratch.main(), []).is_ok(), "{name}");
    }
}

#[test]
fn one_problem_hides_no_other() {
    // Three lines that differ, then the same mistakes each time.
    let check = |head: [&str; 3], first: &str| {
        let organization = format!(
            "{}\nbogus = 1\ndmarc_enforcement = 3\n\
             [journaling]\n\
             [[user]]\nname = \"alice\"\n\
             [[inbound_rule]]\nname = \"r\"\naction = \"EXPLODE\"\nsenders = [\"a+b@x.test\"]\n\
             destinations = [\"*\"]\n\
             [[outbound_rule]]\naction = \"DROP\"\nsenders = [\"*\"]\n\
             destinations = [\"*\"]\n",
            head.join("\n")
        );
        let problems = Scratch::new(MAIN, &organization).problems(&[]);
        let expected = [
            first,
            "org.toml:4: bogus: unknown key",
            "org.toml:5: dmarc_enforcement: expected true or false, found a number",
            "org.toml:6: journaling.journaling_address: is missing",
            "org.toml:6: journaling.report_address: is missing",
            "org.toml:11: inbound_rule[0].action: \"EXPLODE\" is not one of DROP, BOUNCE, \
             MOVE_TO_JUNK, DEFAULT, BYPASS_SPAM_CHECK",
            "org.toml:12: inbound_rule[0].senders[0]: \"a+b@x.test\": \"+\" is not valid in a \
             pattern; write a@x.test",
            "org.toml:14: outbound_rule[0].name: is missing",
        ];
        assert_eq!(problems, expected);
    };
    let (alias, domains) = ("alias = \"a\"", "domains = [\"a.test\"]");
    check(["", domains, ""], "org.toml:1: alias: is missing");
    check([alias, "", ""], "org.toml:1: domains: is missing");
    check(
        [alias, "domains = []", ""],
        "org.toml:2: domains: an organization has at least one domain",
    );
    check(
        [alias, "domains = [\"a b\"]", ""],
        "org.toml:2: domains[0]: \"a b\": \"a b\" is not a valid domain name",
    );
    check(
        [alias, domains, "id = \"m-1\""],
        "org.toml:3: id: \"m-1\" is not m- and 32 hexadecimal digits",
    );
    check([alias, domains, "postmaster = \"x\""], "org.toml:3: postmaster: there is no \"x\"");
}

#[test]
fn a_problem_of_a_group_is_told_where_the_group_is() {
    let groups = "[[group]]\nname = \"alice\"\nmembers = [\"alice\"]\n\
                  [[group]]\nname = \"g\"\nmembers = [\"nobody\"]\n";
    check(
        MAIN,
        &format!("{ORGANIZATION}{groups}"),
        &[
            "org.toml:6: group[0].name: \"alice\" is taken, at org.toml:4",
            "org.toml:10: group[1].members: there is no user, resource or group \"nobody\"",
        ],
    );
}

#[test]
fn somebody_gets_the_mail_for_postmaster() {
    let head = "alias = \"a\"\ndomains = [\"a.test\", \"b.test\"]\n";
    let users = "[[user]]\nname = \"alice\"\n[[user]]\nname = \"carol\"\nenabled = false\n";
    let told = |domain: &str, line: usize, why: &str| {
        format!("org.toml:{line}: postmaster: nobody gets mail for postmaster@{domain}: {why}")
    };
    let check = |organization: String, expected: &[String]| {
        assert_eq!(Scratch::new(MAIN, &organization).problems(&[]), expected);
    };
    check(
        format!("{head}postmaster = \"carol\"\n{users}"),
        &["a.test", "b.test"].map(|domain| told(domain, 3, "the user is disabled")),
    );
    check(
        format!("{head}{users}aliases = [\"postmaster@b.test\"]\n"),
        &[told("b.test", 1, "the user is disabled")],
    );
    check(
        format!(
            "{head}postmaster = \"g\"\n{users}[[group]]\nname = \"g\"\nmembers = [\"carol\"]\n"
        ),
        &["a.test", "b.test"].map(|domain| told(domain, 3, "the group has no members")),
    );
}

#[test]
fn syntax_errors_are_told_with_the_rest() {
    let problems = Scratch::new("hostname = \"mx.test\nlimits = 3\n", "").problems(&[]);
    assert!(problems[0].starts_with("main.toml:1: "), "{problems:?}");
}

/// The slips of who writes such a file for the first time: each is told with what to write instead.
#[test]
fn what_is_no_toml_or_of_another_kind_is_told_how_to_be() {
    let rest = "[[organization]]\nfile = \"org.toml\"\n";
    for (line, expected) in [
        ("hostname = mx.example.test", "a text stands in quotes: hostname = \"mx.example.test\""),
        ("hostname: mx.example.test", "a line is KEY = VALUE: hostname = \"mx.example.test\""),
        ("hostname \"mx.example.test\"", "a line is KEY = VALUE, a [section], or begins with #"),
        ("hostname = \"mx.example.test", "the text lacks the \" at its end"),
        ("hostname = \u{201c}mx.example.test\u{201d}", "quotes are \" or ', not typographic ones"),
        ("hostname =", "the value is missing"),
        (
            "data_dir = /var/lib/mailweir",
            "a text stands in quotes: data_dir = \"/var/lib/mailweir\"",
        ),
        ("hostname = 25", "expected a text, found a number"),
        ("limits = 3", "expected a table, found a number"),
        ("[limits]\nhops = \"100\"", "expected a number, found a text: write hops = 100"),
        ("[limits]\nhops = 10\nhops = 20", "duplicate key; hops stands further up already"),
        ("[limits]\nhops = 10\n[limits]", "duplicate key; limits stands further up already"),
        (
            "[access]\ndeny = \"192.0.2.1\"",
            "a list of texts, found a text: write deny = [\"192.0.2.1\"]",
        ),
        ("[log]\nmail = \"no\"", "expected true or false, found a text: write mail = false"),
        ("[log]\nmail = no", "write mail = false"),
        ("[log]\nformat = \"JSON\"", "is not one of text, json, did you mean \"json\"?"),
        (
            "[limits]\nhostname = \"mx.test\"",
            "limits.hostname: unknown key; it belongs before the first [section]",
        ),
        ("[limit]\nhops = 10", "limit: unknown key, did you mean \"limits\"?"),
        ("[dns]\nca_file = \"x\"", "dns.ca_file: unknown key; it belongs under [queue]"),
        (
            "alias = \"a\"",
            "alias: unknown key; it belongs before the first [section] of an organization's file",
        ),
        (
            "[dns]\norganization = \"o.toml\"",
            "dns.organization: unknown key; it is a section of its own: [[organization]]",
        ),
        (
            "[journaling]\nreport_address = \"a\"",
            "journaling: unknown key; it is a section of an organization's file: [journaling]",
        ),
        (
            "data_dir = \"~/mail\"",
            "data_dir: \"~/mail\": ~ means nothing here: write the whole path",
        ),
        ("[limits]\nhops = 10M", "a number stands without a unit, and a text in quotes"),
        (
            "[dns]\nservers = [\"127.0.0.53\"]",
            "\"127.0.0.53\": has no port, such as 53 in 127.0.0.53:53",
        ),
        (
            "[[queue_route]]\ndomain = \"*\"\nhost = \"relay.test:587\"",
            "write host = \"relay.test\" and port = 587",
        ),
        (
            "[listener]\nname = \"mx\"",
            "listener: expected a list of tables, each beginning with [[listener]]",
        ),
    ] {
        let scratch = Scratch::new(&format!("{line}\n{rest}"), ORGANIZATION);
        let problems = scratch.problems(&[]);
        let is_told =
            |problem: &String| problem.starts_with("main.toml:") && problem.contains(expected);
        assert!(problems.iter().any(is_told), "{line}: {problems:?}");
    }
    let tabs = format!("\thostname\t=\t\"mx.example.test\"\n{rest}");
    assert!(load(&Scratch::new(&tabs, ORGANIZATION).main(), []).is_ok(), "tabs are spaces");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let scratch = Scratch::new(&MAIN.replace("org.toml", "none.toml"), "");
    let problems = scratch.problems(&[]);
    let expected = "main.toml:3: organization[0].file: none.toml: there is no such file";
    assert_eq!(problems, [expected]);
    fs::remove_file(scratch.main()).expect("removes");
    let hint = "there is no such file: name the configuration with --config FILE, or make one with \
                mailweir init";
    assert_eq!(scratch.problems(&[]), [format!("main.toml: {hint}")]);
}

#[test]
fn what_belongs_to_two_is_told() {
    let main = format!("{MAIN}[[organization]]\nfile = \"other.toml\"\n");
    let scratch = Scratch::new(&main, ORGANIZATION);
    let other = ORGANIZATION.replace("alias = \"example\"", "alias = \"other\"");
    fs::write(scratch.0.path().join("other.toml"), other).expect("writes");
    assert_eq!(
        scratch.problems(&[]),
        ["other.toml:2: domains: example.test is taken, at org.toml:2"]
    );
    let same = ORGANIZATION.replace("[\"example.test", "[\"else.test");
    fs::write(scratch.0.path().join("other.toml"), same).expect("writes");
    assert_eq!(scratch.problems(&[]), ["other.toml:1: alias: \"example\" is taken, at org.toml:1"]);
    let id = "id = \"m-0123456789abcdef0123456789abcdef\"\n";
    fs::write(scratch.0.path().join("org.toml"), format!("{id}{ORGANIZATION}")).expect("writes");
    let other =
        format!("alias = \"other\"\n{id}domains = [\"else.test\"]\n[[user]]\nname = \"a\"\n");
    fs::write(scratch.0.path().join("other.toml"), other).expect("writes");
    assert_eq!(
        scratch.problems(&[]),
        ["other.toml:2: id: m-0123456789abcdef0123456789abcdef is taken, at org.toml:1"]
    );
    check(
        MAIN,
        "alias = \"a\"\ndomains = [\n\"a.test\",\n\"A.test\"]\n[[user]]\nname = \"u\"\n",
        &["org.toml:4: domains: a.test is taken, at org.toml:3"],
    );
    check(
        &format!("{MAIN}[[organization]]\nfile = \"org.toml\"\n"),
        ORGANIZATION,
        &["main.toml:5: organization[1].file: org.toml is named twice"],
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let scratch = Scratch::new(MAIN, ORGANIZATION);
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let configuration = load(
        &scratch.main(),
        [
            set("MAILWEIR__LIMITS__RECIPIENTS", "7"),
            set("MAILWEIR__LIMITS__FAILED_LOGINS_PER_NETWORK", "8"),
            set("MAILWEIR__HOSTNAME", "other.example.test"),
            set("MAILWEIR__DMARC__ON_REJECT", "drop"),
            set("HOME", "/"),
        ],
    )
    .expect("loads");
    assert_eq!(configuration.limits.recipients, 7);
    assert_eq!(configuration.limits.failed_logins_per_network, 8);
    assert_eq!(configuration.pipeline.hostname, "other.example.test");
    assert_eq!(configuration.pipeline.on_reject, OnReject::Drop);
    assert_eq!(
        scratch.problems(&[("MAILWEIR__LIMITS__RECIPIENTS", "x"), ("MAILWEIR__NO__SUCH", "1")]),
        [
            "environment MAILWEIR__LIMITS__RECIPIENTS: limits.recipients: expected a number, found a text",
            "environment MAILWEIR__NO__SUCH: no: unknown key",
        ]
    );
}

#[test]
fn a_listener_says_what_it_speaks() {
    let listener = |protocol: &str| {
        let head = "hostname = \"mx.example.test\"\n[[organization]]\nfile = \"org.toml\"\n";
        let bind = "bind = \"127.0.0.1:0\"";
        format!("{head}[[listener]]\nname = \"users\"\nprotocol = \"{protocol}\"\n{bind}\n")
    };
    for (word, protocol) in [
        ("mx", Protocol::Mx),
        ("submission", Protocol::Submission),
        ("submissions", Protocol::Submissions),
    ] {
        let scratch = Scratch::new(&listener(word), ORGANIZATION);
        let listeners = load(&scratch.main(), []).expect("loads").listeners;
        assert_eq!(listeners.len(), 1);
        assert_eq!((&*listeners[0].name, listeners[0].protocol), ("users", protocol));
    }
    check(
        &listener("lmtp"),
        ORGANIZATION,
        &["main.toml:6: listener[0].protocol: \"lmtp\" is not served by this version, \
           which has mx, submission, submissions"],
    );
}

#[test]
fn an_organization_is_read_whole() {
    let scratch = Scratch::new(MAIN, include_str!("../../config/example-org.toml"));
    let configuration = load(&scratch.main(), []).expect("loads");
    let config = &configuration.organizations[0];
    let organization = &config.organization;
    let state = |name: &str| {
        let user = organization.users.iter().find(|user| &*user.name == name);
        user.map(|user| user.state.clone())
    };
    assert_eq!(organization.alias, "example");
    assert_eq!(state("alice"), Some(EntityState::Enabled));
    assert_eq!(state("carol"), Some(EntityState::Disabled));
    assert!(matches!(state("dave"), Some(EntityState::Remote(_))));
    assert_eq!(organization.reserved.to_string(), "amazonjournaling@example.test");
    assert!(config.dmarc_enforcement && config.journaling.is_some());
    assert_eq!(config.rules.rules().len(), 5);
    assert_eq!(config.outbound.rules().len(), 2);
    assert_eq!((config.gateways.len(), organization.permissions.len()), (1, 2));
    assert_eq!(config.mailbox_rules.keys().map(|name| &**name).collect::<Vec<_>>(), ["bob"]);
    assert_eq!(organization.resources.len(), 1);
}

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipe = dir.path().join("org.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("runs");
    assert!(made.success());
    for path in [pipe, PathBuf::from("/dev/zero")] {
        let refused = load(&path, []).expect_err("it is no file").to_string();
        assert!(refused.contains("it is a device, pipe or socket, not a file"), "{refused}");
    }
}

#[test]
fn the_shipped_files_load() {
    for file in ["mailweir.toml", "dev.toml"] {
        let loaded = load(&shipped().join(file), []);
        assert!(
            loaded.is_ok(),
            "{file}: {}",
            loaded.err().map(|e| e.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = shipped().join("mailweir.toml");
    let reader = reader::Reader::default();
    let nobody = |_: &store::Settings| Arc::default();
    let shown = daemon_file::read(&path, std::collections::HashMap::new(), &[], &nobody, &reader);
    let shown = shown.expect("reads");
    let text = fs::read_to_string(&path).expect("reads");
    for key in reader.known() {
        let key = key.replace("listener[0].", "").replace("organization[0].", "");
        let name = key.rsplit('.').next().expect("a name");
        let is_organization_key = ["alias", "domains", "user", "group", "inbound_rule"];
        let shows = |line: &str| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("{name} ="))
                || line.starts_with(&format!("[{name}]"))
                || line.starts_with(&format!("[[{name}]]"))
        };
        let is_main_key = daemon_keys().contains(&key.as_str()) || key.contains('.');
        if is_main_key && !is_organization_key.contains(&name) && !is_in_organization(&key) {
            assert!(text.lines().any(shows), "{key} is not shown");
        }
    }
    let bare = Scratch::new(MAIN, ORGANIZATION);
    let default = load(&bare.main(), []).expect("loads");
    assert_eq!(shown.limits, default.limits);
    assert_eq!(shown.dns, default.dns);
    assert_eq!(shown.msgauth, default.msgauth);
    assert_eq!(shown.scan, default.scan);
    assert_eq!(shown.store, default.store);
    assert_eq!(shown.events, default.events);
    assert_eq!(shown.arns, default.arns);
    assert_eq!(shown.pipeline, default.pipeline);
    assert_eq!(shown.routes, default.routes);
    assert_eq!(shown.log, default.log);
    assert_eq!(shown.tls, default.tls);
    assert_eq!(shown.listeners, default.listeners);
}

fn daemon_keys() -> [&'static str; 4] {
    ["data_dir", "hostname", "listener", "organization"]
}

/// Keys of the organization file, which the same reader has seen.
fn is_in_organization(key: &str) -> bool {
    [
        "user[",
        "group[",
        "resource[",
        "inbound_rule[",
        "journaling",
        "retention[",
        "outbound_rule[",
        "smtp_gateway[",
        "permission[",
        "access_rule",
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}

#[test]
fn what_stands_in_arns_is_read_and_checked() {
    let arn = |region: &str, account: &str| {
        format!("{MAIN}[arn]\nregion = \"{region}\"\naccount_id = \"{account}\"\n")
    };
    let scratch = Scratch::new(&arn("eu-west-1", "111122223333"), ORGANIZATION);
    let arns = load(&scratch.main(), []).expect("loads").arns;
    assert_eq!(arns.region, "eu-west-1".parse().expect("a region"));
    assert_eq!(arns.account_id, "111122223333".parse().expect("an account"));
    for (region, account) in [("eu west", "1111-2222-3333"), ("", "11112222333"), ("EU", "x")] {
        check(
            &arn(region, account),
            ORGANIZATION,
            &[
                &format!(
                    "main.toml:5: arn.region: \"{region}\": a region is 1 to 32 lower-case \
                     letters, digits and hyphens"
                ),
                &format!(
                    "main.toml:6: arn.account_id: \"{account}\": an account's id is 12 digits, \
                     as a text"
                ),
            ],
        );
    }
}

#[test]
fn routes_are_read_and_checked() {
    let main = "[queue]\nport = 2525\naddresses = \"ipv4-only\"\nca_file = \"ca.pem\"\n\
                private_networks = true\n\
                [[queue_route]]\ndomain = \"Partner.test\"\nhost = \"2001:DB8::1\"\n\
                [[queue_route]]\ndomain = \"other.test\"\nhost = \"MX.other.test\"\nport = 26\n";
    let scratch = Scratch::new(&format!("{MAIN}{main}"), ORGANIZATION);
    let routes = load(&scratch.main(), []).expect("loads").routes;
    assert_eq!((routes.port, routes.private_networks), (2525, true));
    assert_eq!(routes.addresses, queue::route::AddressOrder::Ipv4Only);
    assert_eq!(routes.ca_file, Some(scratch.0.path().join("ca.pem")));
    let fixed: Vec<_> =
        routes.fixed.iter().map(|(domain, route)| (domain.as_str(), route)).collect();
    let route = FixedRoute::to;
    let expected = [
        ("other.test", &route("mx.other.test", Some(26))),
        ("partner.test", &route("2001:db8::1", None)),
    ];
    assert_eq!(fixed, expected);

    let relay = "[[queue_route]]\ndomain = \"*\"\nhost = \"relay.test\"\nport = 587\n\
                 user_name = \"mailweir\"\npassword_file = \"secret\"\n";
    for (more, tls) in [
        ("", RouteTls::StartTls),
        ("tls = \"implicit\"\n", RouteTls::Implicit),
        ("[[queue_route]]\ndomain = \"a.test\"\nhost = \"b.test\"\n", RouteTls::StartTls),
    ] {
        let scratch = Scratch::new(&format!("{MAIN}{relay}{more}"), ORGANIZATION);
        fs::write(scratch.0.path().join("secret"), "pass word\n").expect("writes");
        let configuration = load(&scratch.main(), []).expect("loads");
        let relay = configuration.routes.relay.as_ref().expect("a relay");
        assert_eq!((relay.host.as_str(), relay.port, relay.tls), ("relay.test", Some(587), tls));
        let login = relay.login.as_ref().expect("a login");
        assert_eq!((login.user_name.as_str(), login.password.expose()), ("mailweir", "pass word"));
        assert!(!format!("{configuration:?}").contains("pass word"), "it is never printed");
        assert_eq!(configuration.routes.fixed.len(), usize::from(more.contains("a.test")));
    }
    let submissions = "[[queue_route]]\ndomain = \"*\"\nhost = \"relay.test\"\nport = 465\n";
    let scratch = Scratch::new(&format!("{MAIN}{submissions}"), ORGANIZATION);
    let routes = load(&scratch.main(), []).expect("loads").routes;
    assert_eq!(routes.relay.map(|relay| relay.tls), Some(RouteTls::Implicit));
    check(
        &format!("{MAIN}{relay}tls = \"opportunistic\"\n{submissions}"),
        ORGANIZATION,
        &[
            "main.toml:9: queue_route[0].password_file: secret cannot be read: No such file or \
             directory (os error 2)",
            "main.toml:10: queue_route[0].tls: must be \"starttls\" or \"implicit\" where there is \
             a login",
            "main.toml:12: queue_route[1].domain: * has its route already",
        ],
    );

    let bad = "[queue]\nport = 65536\naddresses = \"ipv5\"\nca-file = \"x\"\n\
               [[queue_route]]\ndomain = \"a b\"\nhost = \"mx.test:25\"\n\
               [[queue_route]]\nprot = 1\n\
               [[queue_route]]\ndomain = \"a.test\"\nhost = \"mx.test\"\n\
               [[queue_route]]\ndomain = \"A.test\"\nhost = \"mx.test\"\n";
    check(
        &format!("{MAIN}{bad}"),
        ORGANIZATION,
        &[
            "main.toml:5: queue.port: 65536 is not between 1 and 65535",
            "main.toml:6: queue.addresses: \"ipv5\" is not one of ipv6-first, ipv4-first, \
             ipv6-only, ipv4-only",
            "main.toml:9: queue_route[0].domain: \"a b\": \"a b\" is not a valid domain name",
            "main.toml:10: queue_route[0].host: \"mx.test:25\": write host = \"mx.test\" and \
             port = 25",
            "main.toml:11: queue_route[1].domain: is missing",
            "main.toml:11: queue_route[1].host: is missing",
            "main.toml:12: queue_route[1].prot: unknown key, did you mean \"port\"?",
            "main.toml:17: queue_route[3].domain: a.test has its route already",
            "main.toml:7: queue.ca-file: unknown key, did you mean \"ca_file\"?",
        ],
    );
}

#[test]
fn the_first_pause_of_the_queue_is_no_longer_than_the_longest() {
    for (pauses, expected) in [
        (
            "lifetime_s = 9\nfirst_retry_s = 61\nlongest_retry_s = 60\n",
            "main.toml:6: queue.first_retry_s: 61 is more than longest_retry_s, which is 60",
        ),
        (
            "first_retry_s = 14401\n",
            "main.toml:5: queue.first_retry_s: 14401 is more than longest_retry_s, which is 14400",
        ),
        (
            "longest_retry_s = 299\n",
            "main.toml:5: queue.longest_retry_s: 299 is less than first_retry_s, which is 300",
        ),
    ] {
        check(&format!("{MAIN}[queue]\n{pauses}"), ORGANIZATION, &[expected]);
    }
    let same = format!("{MAIN}[queue]\nfirst_retry_s = 60\nlongest_retry_s = 60\n");
    let scratch = Scratch::new(&same, ORGANIZATION);
    let queue = load(&scratch.main(), []).expect("loads").queue;
    assert_eq!(queue.first_retry, queue.longest_retry);
}

#[test]
fn retention_is_read_and_checked() {
    let retention = |folder: &str, action: &str, days: u32| {
        format!(
            "[[retention]]\nfolder = \"{folder}\"\naction = \"{action}\"\nperiod_days = {days}\n"
        )
    };
    let good = [
        retention("JUNK_EMAIL", "PERMANENTLY_DELETE", 30),
        retention("INBOX", "DELETE", 730),
        retention("DRAFTS", "NONE", 1),
    ];
    let scratch = Scratch::new(MAIN, &format!("{ORGANIZATION}{}", good.concat()));
    let read = &load(&scratch.main(), []).expect("loads").organizations[0].retention;
    assert_eq!(read.len(), 2, "NONE keeps everything");
    // By folder, in whichever order they stand in the file.
    assert_eq!(read[0].action, store::RetentionAction::Delete);
    assert_eq!((read[1].folder, read[1].period_days), (store::Folder::JunkEmail, 30));

    let bad = [
        retention("SPAM", "DELETE", 731),
        retention("INBOX", "DELETE", 7),
        retention("INBOX", "PERMANENTLY_DELETE", 7),
        retention("DELETED_ITEMS", "DELETE", 7),
        "[[retention]]\nfolder = \"DRAFTS\"\n".into(),
    ];
    check(
        MAIN,
        &format!("{ORGANIZATION}{}", bad.concat()),
        &[
            "org.toml:6: retention[0].folder: \"SPAM\" is not one of INBOX, JUNK_EMAIL, \
             SENT_ITEMS, DRAFTS, DELETED_ITEMS, did you mean \"JUNK_EMAIL\"?",
            "org.toml:8: retention[0].period_days: 731 is not between 1 and 730",
            "org.toml:14: retention[2].folder: INBOX has its retention already, at org.toml:10",
            "org.toml:19: retention[3].action: what is in DELETED_ITEMS can only be \
             PERMANENTLY_DELETE",
            "org.toml:21: retention[4].action: is missing",
            "org.toml:21: retention[4].period_days: is missing",
        ],
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a file must have been left alone for a while")]
fn only_changed_organization_files_are_read_again() {
    let scratch = Scratch::new(MAIN, ORGANIZATION);
    let dir = scratch.0.path();
    let main = format!("{MAIN}[[organization]]\nfile = \"two.toml\"\n");
    fs::write(scratch.main(), main).expect("writes");
    let two = dir.join("two.toml");
    let two_of =
        |domain: &str| ORGANIZATION.replacen("example", "two", 1).replace("example.test", domain);
    fs::write(&two, two_of("two.test")).expect("writes");
    std::thread::sleep(std::time::Duration::from_millis(2 * stamp::SETTLED_AFTER_MS as u64));
    let first = load(&scratch.main(), []).expect("loads").organizations;
    fs::write(&two, two_of("zwei.test")).expect("writes");
    let again =
        load_again(&scratch.main(), [], &first, &Arc::default()).expect("loads").organizations;
    assert!(Arc::ptr_eq(&first[0], &again[0]), "it is as it was");
    assert_eq!(again[1].organization.domains[0].as_str(), "zwei.test");
    let third =
        load_again(&scratch.main(), [], &again, &Arc::default()).expect("loads").organizations;
    assert!(!Arc::ptr_eq(&again[1], &third[1]), "just written, it may change unseen");

    fs::write(&two, two_of("example.test")).expect("writes");
    let problems = load_again(&scratch.main(), [], &first, &Arc::default())
        .expect_err("a conflict")
        .to_string();
    assert!(problems.ends_with("org.toml:2"), "{problems}");
    assert!(problems.contains("two.toml:2: domains: example.test is taken, at "), "{problems}");
}
