//! Passwords, personal access tokens and access control rules, from the command line.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::smtp::message;

const PASSWORD: &str = "Lemon-tree1";

fn with_input(daemon: &Daemon, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(daemon.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("writes");
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

pub fn set_password(daemon: &Daemon, user: &str, password: &str) -> Output {
    with_input(daemon, &["user", "set-password", user], password)
}

fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.command(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    assert!(output.stdout.is_empty(), "{}", said(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn audit(daemon: &Daemon) -> Vec<Value> {
    let path = daemon.data().join("audit/personal-access-token.jsonl");
    json(&fs::read_to_string(path).expect("reads"))
}

#[test]
fn a_password_is_set_from_standard_input() {
    let daemon = Setup::default().prepare();
    for user in ["alice", "a.liddell@example.test", "example/bob", "carol"] {
        let output = set_password(&daemon, user, &format!("{PASSWORD}\n"));
        assert!(output.status.success(), "{user}: {}", said(&output));
        let is_disabled = said(&output).contains("carol is disabled, and cannot log in until");
        assert_eq!(is_disabled, user == "carol", "{}", said(&output));
        assert!(text(&output.stdout).ends_with(" is set\n"), "{}", said(&output));
    }
    let file = daemon.data().join("credentials.sqlite");
    let database = rusqlite::Connection::open(&file).expect("opens");
    let mut rows = database.prepare("SELECT entity, hash FROM password").expect("prepares");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("queries");
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>().expect("reads");
    let mut owners: Vec<_> = ["alice", "bob", "carol"].map(|user| daemon.id(user)).into();
    owners.sort();
    assert_eq!(rows.iter().map(|row| &*row.0).collect::<Vec<_>>(), owners);
    let is_argon2id = |hash: &str| hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$");
    assert!(rows.iter().all(|row| is_argon2id(&row.1)), "{rows:?}");
}

#[test]
fn a_password_that_breaks_the_policy_is_refused_with_every_reason() {
    let daemon = Setup::default().prepare();
    for (password, reasons) in [
        ("\n", &["it is empty"][..]),
        ("", &["it is empty"]),
        ("abc\n", &["it has 3 characters; at least 8 are needed", "three are needed"]),
        (&format!("aB3{}\n", "x".repeat(61)), &["less than 64 are allowed"]),
        ("Lemon-tree1\u{20ac}\n", &["it has the character U+20AC"]),
    ] {
        let output = set_password(&daemon, "alice", password);
        assert_eq!(output.status.code(), Some(1), "{password:?}");
        for reason in reasons {
            assert!(said(&output).contains(reason), "{password:?}: {}", said(&output));
        }
    }
    assert!(!daemon.data().join("credentials.sqlite").exists(), "nothing was written");
}

#[test]
fn who_has_no_password_is_told_why() {
    let organization = "[[user]]\nname = \"dave\"\nremote = \"dave@else.test\"\n";
    let daemon = Setup::with(organization).prepare();
    for (user, reason) in [
        ("nobody", "there is no user nobody"),
        ("other/alice", "there is no user other/alice"),
        ("nobody@example.test", "no user has the address nobody@example.test"),
        ("alice+tag@example.test", "no user has the address alice+tag@example.test"),
        ("sales@example.test", "no user has the address sales@example.test"),
        ("room", "there is no user room"),
        ("dave", "dave cannot log in here: the mailbox is elsewhere, at dave@else.test"),
    ] {
        let output = set_password(&daemon, user, PASSWORD);
        assert_eq!(output.status.code(), Some(1), "{user}");
        assert!(said(&output).contains(reason), "{user}: {}", said(&output));
        assert!(refused(&daemon, &["token", "list", user]).contains(reason));
        assert!(refused(&daemon, &["token", "revoke", user, "x"]).contains(reason));
        assert!(refused(&daemon, &["token", "create", user, "--name", "x"]).contains(reason));
        let test = ["access", "test", "--ip", "192.0.2.1", "--user", user];
        assert!(refused(&daemon, &test).contains(reason));
    }
}

#[test]
fn a_token_is_made_listed_and_revoked() {
    let daemon = Setup::default().prepare();
    assert_eq!(
        daemon.succeeds(&["token", "list", "alice"]),
        "example/alice has no personal access tokens\n"
    );
    let made = daemon.succeeds(&["token", "create", "alice", "--name", "phone"]);
    let secret = made.lines().next().expect("a line").to_owned();
    assert!(secret.starts_with("mwpat_") && secret.len() == 58, "{made}");
    assert!(made.contains("keep the token now: it is not shown again"), "{made}");
    let create =
        ["token", "create", "alice@example.test", "--name", "printer", "--expires", "never"];
    let printer = &json(&daemon.succeeds(&[&create[..], &["--json"]].concat()))[0];
    assert!(printer["token"].as_str().is_some_and(|token| token.starts_with("mwpat_")));

    let listed = daemon.succeeds(&["token", "list", "alice"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains("  phone  expires "), "{listed}");
    assert!(listed.contains("  printer  never expires, last used never"), "{listed}");
    assert!(!listed.contains("mwpat_"), "{listed}");
    let tokens = json(&daemon.succeeds(&["token", "list", "alice", "--json"]));
    let [phone, other] = tokens.as_slice() else { panic!("{tokens:?}") };
    let time = |key: &str| phone[key].as_u64().expect("a number");
    assert_eq!(time("expiresAt") - time("createdAt"), 365 * 86_400_000);
    assert_eq!((&phone["name"], &phone["scopes"][0]), (&"phone".into(), &"mailbox".into()));
    assert_eq!(other["id"], printer["id"]);
    assert!(other.get("expiresAt").is_none() && other.get("token").is_none(), "{other}");

    let id = phone["id"].as_str().expect("an id");
    let told = refused(&daemon, &["token", "revoke", "bob", id]);
    assert!(told.contains(&format!("example/bob has no token {id}")), "{told}");
    let told = daemon.succeeds(&["token", "revoke", "alice", id]);
    assert_eq!(told, format!("token {id} of example/alice (phone) is revoked\n"));
    assert!(refused(&daemon, &["token", "revoke", "alice", id]).contains("has no token"));
    assert_eq!(daemon.succeeds(&["token", "list", "alice"]).lines().count(), 1);

    let bytes = fs::read(daemon.data().join("credentials.sqlite")).expect("reads");
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!has(&secret) && has("printer"), "tokens are kept as hashes");
}

#[test]
fn tokens_made_and_revoked_are_audited() {
    let daemon = Setup::default().prepare();
    let made = json(&daemon.succeeds(&["token", "create", "alice", "--name", "phone", "--json"]));
    let id = made[0]["id"].as_str().expect("an id");
    daemon.succeeds(&["token", "revoke", "alice", id]);
    let lines = audit(&daemon);
    assert_eq!(lines.iter().map(|line| &line["action"]).collect::<Vec<_>>(), ["create", "delete"]);
    let id_of_alice = Value::from(daemon.id("alice"));
    for line in &lines {
        assert_eq!((&line["user_id"], &line["name"]), (&id_of_alice, &"phone".into()));
        assert_eq!(line["user"], "alice@example.test");
        assert_eq!(line["expires_time"], made[0]["expiresAt"]);
        assert_eq!(line["scopes"], made[0]["scopes"]);
        let arn = line["organization_arn"].as_str().expect("a name");
        assert!(arn.starts_with("arn:aws:workmail:local:000000000000:organization/m-"), "{arn}");
        assert!(line["request_id"].is_string() && line["event_timestamp"].is_u64(), "{line}");
    }
}

#[test]
fn daemon_and_commands_name_an_organization_alike() {
    let sections = "[arn]\nregion = \"eu-west-1\"\naccount_id = \"111122223333\"\n".to_owned();
    let mut daemon = Setup { sections, ..Setup::default() }.start();
    daemon.succeeds(&["token", "create", "alice", "--name", "phone"]);
    let mut client = daemon.client();
    client.envelope("bob@good.test", &["alice@example.test"]);
    assert!(client.data(&message("bob@good.test", "audited")).starts_with("250"));
    assert!(daemon.stop().success());
    let delivered = fs::read_to_string(daemon.data().join("audit/mailbox-access.jsonl"));
    let lines = [audit(&daemon), json(&delivered.expect("reads"))].concat();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        let arn = line["organization_arn"].as_str().expect("a name");
        let start = "arn:aws:workmail:eu-west-1:111122223333:organization/m-";
        assert!(arn.starts_with(start), "{arn}");
    }
}

#[test]
fn odd_token_arguments_are_usage_errors() {
    let daemon = Setup::default().prepare();
    for (argument, value) in
        [("--expires", "0"), ("--expires", "soon"), ("--expires", "40000"), ("--name", "")]
    {
        let arguments = match argument {
            "--name" => vec!["token", "create", "alice", argument, value],
            _ => vec!["token", "create", "alice", "--name", "x", argument, value],
        };
        assert_eq!(daemon.command(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn access_rules_are_tried_out() {
    let rules = "[[access_rule]]\nname = \"all\"\neffect = \"ALLOW\"\n\
                 [[access_rule]]\nname = \"bob-in-office\"\neffect = \"DENY\"\nusers = [\"bob\"]\n\
                 not_ip_ranges = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n";
    let daemon = Setup::with(rules).prepare();
    for (user, ip, expected) in [
        ("alice", "198.51.100.1", "ALLOW: by all\n"),
        ("bob", "192.0.2.1", "ALLOW: by all\n"),
        ("bob@example.test", "2001:db8::1", "ALLOW: by all\n"),
        ("bob", "198.51.100.1", "DENY: by bob-in-office\n"),
    ] {
        let output = daemon.command(&["access", "test", "--user", user, "--ip", ip]);
        assert_eq!(text(&output.stdout), expected, "{user} from {ip}");
        let status = if expected.starts_with("ALLOW") { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(status), "{user} from {ip}");
    }
    let arguments =
        ["access", "test", "--user", "bob", "--ip", "::1", "--protocol", "IMAP", "--json"];
    let output = daemon.command(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let denied = "bob is denied access over IMAP from ::1\n";
    assert_eq!(text(&output.stderr), denied);
    let told = &json(&text(&output.stdout))[0];
    let expected = serde_json::json!({
        "organization": "example", "user": "bob", "protocol": "IMAP", "effect": "DENY",
        "matchedRules": ["bob-in-office"],
    });
    assert_eq!(*told, expected);

    let closed = Setup::with_keys("access_rules = []").prepare();
    let output = closed.command(&["access", "test", "--user", "alice", "--ip", "192.0.2.1"]);
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("DENY: no rule applies\n".into(), Some(1))
    );
    let open = Setup::default().prepare();
    let of_carol = ["access", "test", "--user", "carol", "--ip", "192.0.2.1"];
    let output = open.command(&of_carol);
    assert_eq!(text(&output.stdout), "DENY: carol cannot log in: disabled\n");
    assert_eq!(output.status.code(), Some(1));
    let of_carol = open.command(&[&of_carol[..], &["--json"]].concat());
    assert_eq!(of_carol.status.code(), Some(1));
    let of_carol = &json(&text(&of_carol.stdout))[0];
    assert_eq!((&of_carol["effect"], &of_carol["disabled"]), (&"DENY".into(), &true.into()));
    let told = open.succeeds(&["access", "test", "--user", "alice", "--ip", "192.0.2.1"]);
    assert_eq!(told, "ALLOW: by default\n");
    let remote = Setup::with("[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n").prepare();
    let of_dave = remote.command(&["access", "test", "--user", "dave", "--ip", "192.0.2.1"]);
    assert_eq!((text(&of_dave.stdout), of_dave.status.code()), (String::new(), Some(1)));
    assert!(text(&of_dave.stderr).contains("dave"), "who has no mailbox here logs in nowhere");
}

#[test]
fn a_backup_has_passwords_and_tokens() {
    let mut daemon = Setup::default().start();
    assert!(set_password(&daemon, "alice", PASSWORD).status.success(), "beside the daemon");
    daemon.succeeds(&["token", "create", "alice", "--name", "phone"]);
    let counts = "credentials: 1 password and 1 token, readable\n";
    assert!(daemon.succeeds(&["fsck"]).contains(counts));
    let copy = daemon.path("copy").display().to_string();
    daemon.succeeds(&["backup", &copy]);
    assert!(daemon.stop().success());

    let other = Setup::default().prepare();
    daemon_key(&daemon, &other);
    other.succeeds(&["restore", &copy]);
    assert!(other.succeeds(&["fsck"]).contains(counts));
    assert_eq!(audit(&other), audit(&daemon), "and the audit logs");
    let listed = |daemon: &Daemon| daemon.succeeds(&["token", "list", "alice"]);
    assert_eq!(listed(&other), listed(&daemon));

    let taken = Setup::default().prepare();
    assert!(set_password(&taken, "alice", PASSWORD).status.success());
    let told = refused(&taken, &["restore", &copy]);
    let data = taken.data().display().to_string();
    assert!(told.contains(&format!("{data} has mail or passwords already")), "{told}");
    assert!(told.contains(&format!("(mv {data} {data}.old)")), "{told}");
    assert!(told.contains("keys/master.key into the new one"), "{told}");

    fs::write(other.data().join("credentials.sqlite"), "rubbish ".repeat(1000)).expect("writes");
    let output = other.command(&["fsck"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("credentials.sqlite: file is not a database"),
        "{}",
        said(&output)
    );
}

/// A store is checked with the key that it was made with.
fn daemon_key(from: &Daemon, to: &Daemon) {
    fs::create_dir_all(to.data().join("keys")).expect("creates");
    let key = |daemon: &Daemon| daemon.data().join("keys/master.key");
    fs::copy(key(from), key(to)).expect("copies");
}

#[test]
fn every_attempt_of_a_command_leaves_its_audit_line() {
    let daemon = Setup::default().start();
    let log = |kind: &str| {
        let path = daemon.data().join(format!("audit/{kind}.jsonl"));
        json(&fs::read_to_string(path).expect("reads"))
    };
    assert!(set_password(&daemon, "alice", PASSWORD).status.success());
    assert!(!set_password(&daemon, "alice", "weak").status.success());
    assert!(!set_password(&daemon, "nobody", PASSWORD).status.success());
    let lines = log("authentication");
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(
                (&line["protocol"], &line["method"]),
                (&"cli".into(), &"set-password".into())
            );
            line["auth_failed_reason"].as_str().unwrap_or("set")
        })
        .collect();
    assert_eq!(told, ["set", "weak-password", "unknown-user"]);
    assert_eq!(lines[0]["user_id"], daemon.id("alice"));

    refused(&daemon, &["token", "revoke", "alice", "none"]);
    refused(&daemon, &["token", "create", "nobody", "--name", "phone"]);
    let lines = audit(&daemon);
    assert_eq!((&lines[0]["action"], &lines[1]["action"]), (&"delete".into(), &"create".into()));
    assert!(lines.iter().all(|line| line["failed_reason"].is_string()), "{lines:?}");

    let mut client = daemon.client();
    client.command("EHLO good.test");
    client.transaction("bob@good.test", &["alice@example.test"]);
    let accepted = client.data(&message("bob@good.test", "private"));
    let id = accepted.split_whitespace().last().expect("an id").to_owned();
    daemon.succeeds(&["mailbox", "list", "alice"]);
    daemon.succeeds(&["mailbox", "show", "alice", &id]);
    daemon.mailbox("alice");
    let lines = log("mailbox-access");
    let by_command: Vec<_> = lines.iter().filter(|line| line["protocol"] == "cli").collect();
    let actions: Vec<_> = by_command.iter().filter_map(|line| line["action"].as_str()).collect();
    assert_eq!(actions[..5], ["read_summary"; 5]);
    assert_eq!(actions[5..], ["read"; 2]);
    let id_of_alice = daemon.id("alice");
    assert!(by_command.iter().all(|line| line["owner_id"] == id_of_alice), "{lines:?}");
    assert_eq!(
        (&by_command[5]["item_id"], &by_command[5]["folder_path"]),
        (&id.into(), &"INBOX".into())
    );
}
