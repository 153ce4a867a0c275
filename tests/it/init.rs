//! `mailweir init`: from nothing to a daemon that takes mail.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::swaks::swaks;

const HOST: &str = "mx.example.test";
const ADMIN: &str = "ada@example.test";
const ANSWERS: [&str; 6] = ["--hostname", HOST, "--domain", "example.test", "--admin", ADMIN];
/// Whom every system has beside root.
const NOBODY: &str = "nobody";

/// A folder with a zone file and nothing else.
fn nothing() -> Daemon {
    let daemon = Setup::default().prepare();
    for file in ["mailweir.toml", "org.toml"] {
        fs::remove_file(daemon.path(file)).expect("removes");
    }
    daemon
}

fn organization(daemon: &Daemon) -> PathBuf {
    daemon.path("example.test.toml")
}

/// A command whose DNS is the zone file, whatever the configuration says.
fn command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--config").arg(daemon.config());
    command.env("MAILWEIR__DNS__ZONE_FILE", daemon.path("demo.zone")).stdin(Stdio::null());
    command
}

fn init(daemon: &Daemon, more: &[&str]) -> Output {
    let data = daemon.data().display().to_string();
    let arguments = [&["init", "--data-dir", &data], more].concat();
    command(daemon, &arguments).output().expect("runs")
}

#[track_caller]
fn made(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o7777
}

/// Every file below a folder, and every folder.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(all_below(&path)) } else { found.push(path) }
    }
    found
}

/// Lets the tests run beside each other, and with a DNS of their own: what an administrator would
/// write for a trial on loopback.
fn on_loopback(daemon: &Daemon) {
    let mut text = fs::read_to_string(daemon.config()).expect("reads");
    for port in ["25", "587", "465"] {
        text = text.replace(&format!("\"0.0.0.0:{port}\""), "\"127.0.0.1:0\"");
    }
    assert_eq!(text.matches("127.0.0.1:0").count(), 3, "{text}");
    text.push_str("[dns]\nzone_file = \"demo.zone\"\n");
    fs::write(daemon.config(), text).expect("writes");
}

#[test]
fn from_nothing_to_mail_for_the_administrator() {
    let mut daemon = nothing();
    let made = made(&init(&daemon, &[&ANSWERS[..], &["--json"]].concat()));
    assert_eq!(made["address"], ADMIN);
    let password = made["password"].as_str().expect("a password");
    let records = made["records"].as_array().expect("a list");
    for name in ["_dmarc.example.test", "mw1r._domainkey.example.test", HOST] {
        assert!(records.iter().any(|record| record["hostname"] == name), "{name}: {made}");
    }
    let main = fs::read_to_string(daemon.config()).expect("reads");
    assert!(main.lines().count() < 45, "the lines that matter, not every key: {main}");

    for path in all_below(&daemon.data()) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert_eq!((mode(&daemon.config()), mode(&organization(&daemon))), (0o600, 0o600));
    let left = fs::read_dir(daemon.dir.path()).expect("lists").count();
    assert_eq!(left, 4, "zone, data, two files");

    let checked = command(&daemon, &["check-config", "--json"]).output().expect("runs");
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let warnings: Vec<_> = checked["warnings"].as_array().expect("a list").iter().collect();
    let keys: Vec<_> = warnings.iter().map(|warning| warning["key"].as_str()).collect();
    let expected = [Some("tls.certificate"), Some("domains")];
    assert_eq!(keys, expected, "certificate and records are still to do: {checked}");

    on_loopback(&daemon);
    daemon.succeeds(&["domain", "keys", "example.test", "--use-next", "--unseen"]);
    assert!(daemon.succeeds(&["check-config"]).contains(" is fine"), "on loopback, all is done");
    daemon.launch(Command::new(BINARY));
    swaks(&daemon, "bob@good.test", ADMIN, "to the administrator", &[]).accepted();
    swaks(&daemon, "bob@good.test", "postmaster@example.test", "to postmaster", &[]).accepted();
    for subject in ["to the administrator", "to postmaster"] {
        assert_eq!(daemon.folders("ada", subject), ["INBOX"]);
    }
    let port = daemon.listener("submissions").port().to_string();
    let login = ["--port", &port, "--tls-on-connect", "--auth", "PLAIN", "--auth-user", ADMIN];
    let login = [&login[..], &["--auth-password", password]].concat();
    swaks(&daemon, ADMIN, ADMIN, "by the password", &login).accepted();
    assert!(!daemon.log().contains(" WARN "), "{}", daemon.log());
}

#[test]
fn the_text_tells_files_password_records_and_steps_in_order() {
    let daemon = nothing();
    let output = init(&daemon, &ANSWERS);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let mut rest = told.as_str();
    for expected in [
        "mailweir.toml is written",
        "example.test.toml is written",
        "ada@example.test's password, which is not shown again: ",
        "_dmarc.example.test. 3600 IN TXT \"v=DMARC1;",
        "\n1. Get a certificate for mx.example.test",
        "\n2. Add users to ",
        "mailweir check-config --config ",
        "mailweir user set-password NAME --config ",
        "\n5. Publish the records above, all but the MX",
        "mailweir domain check example.test --before-cutover",
        "\n6. Start the daemon: mailweir serve --config ",
        "\n7. Make mx.example.test the only MX record",
    ] {
        let at = rest.find(expected).unwrap_or_else(|| panic!("no {expected} next in\n{told}"));
        rest = &rest[at + expected.len()..];
    }
}

#[test]
fn without_dns_nothing_that_is_told_moves_a_domain() {
    let daemon = nothing();
    let data = daemon.data().display().to_string();
    let arguments = [&["init", "--data-dir", &data], &ANSWERS[..]].concat();
    let mut command = command(&daemon, &arguments);
    command.env("MAILWEIR__DNS__ZONE_FILE", daemon.path("no.zone"));
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("warning: DNS did not say all that stands there now"));
    let told = text(&output.stdout);
    assert!(told.contains("\n;example.test. 3600 IN MX 10 mx.example.test.\n"), "{told}");
    assert!(told.contains("\n;_dmarc.example.test. "), "{told}");
}

#[test]
fn without_a_terminal_what_is_missing_is_named() {
    let daemon = nothing();
    for (given, missing) in [
        (&ANSWERS[..2], "--domain, --admin"),
        (&ANSWERS[2..], "--hostname"),
        (&[][..], "--hostname, --domain, --admin"),
    ] {
        let output = init(&daemon, given);
        assert_eq!(output.status.code(), Some(2), "wrong usage");
        let told = text(&output.stderr);
        assert!(told.contains(&format!("give {missing}\n")), "{told}");
    }
    for (name, value, problem) in [
        ("--hostname", "localhost", "\"localhost\" means nothing to other servers"),
        ("--hostname", "mx.internal", "\"mx.internal\" means nothing to other servers"),
        ("--hostname", "192.0.2.1", "\"192.0.2.1\" means nothing to other servers"),
        ("--hostname", "mx_1.example.test", "\"mx_1.example.test\" means nothing to other"),
        ("--admin", "a@b.test", "a@b.test must be an address at example.test"),
        ("--admin", "\"a b\"@example.test", "'\"' cannot stand in a name"),
    ] {
        let at = ANSWERS.iter().position(|answer| *answer == name).expect("is there");
        let mut answers = ANSWERS;
        answers[at + 1] = value;
        let output = init(&daemon, &answers);
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains(problem), "{told}");
        assert!(!told.contains(".mailweir-init"), "{told}");
    }
    assert!(!daemon.data().exists() && !daemon.config().exists(), "nothing is half done");
}

#[test]
fn on_a_terminal_what_is_missing_is_asked_for() {
    let daemon = nothing();
    let (told, is_success) =
        on_a_terminal(&daemon, "", b"localhost\n\nada@else.test\nada@example.test\nyes\n");
    assert!(is_success, "{told}");
    assert!(told.contains("The domain of the mail [example.test]: "), "{told}");
    assert!(told.contains("The administrator's address [admin@example.test]: "), "{told}");
    assert!(told.contains("\"localhost\" means nothing to other servers"), "{told}");
    assert!(told.contains("ada@else.test must be an address at example.test"), "{told}");
    assert!(told.contains("ada@example.test's password, which is not shown again: "), "{told}");
}

/// Runs `init` on a terminal, on which this is typed.
fn on_a_terminal(daemon: &Daemon, more: &str, typed: &[u8]) -> (String, bool) {
    let line = format!(
        "{BINARY} init --hostname {HOST} --config {} --data-dir {} {more}",
        daemon.config().display(),
        daemon.data().display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("MAILWEIR__DNS__ZONE_FILE", daemon.path("demo.zone"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is part of Debian's base");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(typed).expect("writes");
    let output = child.wait_with_output().expect("ends");
    (text(&output.stdout), output.status.success())
}

/// Who has given all answers may still have meant other places.
#[test]
fn on_a_terminal_it_is_told_what_is_written_where_before_it_is() {
    let daemon = nothing();
    let answers = format!("--domain example.test --admin {ADMIN}");
    let (told, is_success) = on_a_terminal(&daemon, &answers, b"no\n");
    assert!(!is_success && told.contains("nothing is written"), "{told}");
    for path in [daemon.config(), organization(&daemon), daemon.data()] {
        assert!(told.contains(&format!("\n  {}\r\n", path.display())), "{told}");
        assert!(!path.exists(), "{}", path.display());
    }
    let (told, is_success) = on_a_terminal(&daemon, &format!("{answers} --yes"), b"");
    assert!(is_success && !told.contains("Go on [yes]"), "{told}");
}

/// Where nothing is made, no new folder is left for it either.
#[test]
fn what_fails_leaves_no_folder() {
    let daemon = nothing();
    let inside = daemon.path("new/etc/mailweir.toml");
    let data = daemon.path("data").display().to_string();
    let arguments = [&["init", "--data-dir", &data, "--ask-password"], &ANSWERS[..]].concat();
    let run = |arguments: &[&str], password: &str| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(&inside).stdin(Stdio::piped());
        command.env("MAILWEIR__DNS__ZONE_FILE", daemon.path("demo.zone"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(password.as_bytes()).expect("writes");
        drop(stdin);
        child.wait().expect("ends").success()
    };
    assert!(!run(&arguments, "weak\n"));
    assert!(!daemon.path("new").exists() && !daemon.data().exists());
    fs::create_dir(daemon.path("new")).expect("makes");
    assert!(!run(&arguments, "weak\n"));
    let left = fs::read_dir(daemon.path("new")).expect("was there before").count();
    assert_eq!(left, 0, "what was made for it alone");
    assert!(run(&arguments, "Lemon-tree1\n"));
    assert!(inside.exists());
}

#[test]
fn nothing_is_overwritten() {
    let daemon = nothing();
    for path in [daemon.config(), organization(&daemon)] {
        fs::write(&path, "# somebody's\n").expect("writes");
        let output = init(&daemon, &ANSWERS);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let expected = format!("{} is there already, and is not overwritten", path.display());
        assert!(told.contains(&expected), "{told}");
        assert!(!daemon.data().exists(), "nothing else is made");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "# somebody's\n");
        fs::remove_file(&path).expect("removes");
    }
    fs::create_dir_all(daemon.data().join("log")).expect("makes");
    let told = text(&init(&daemon, &ANSWERS).stderr);
    assert!(told.contains("has mail already"), "{told}");
    assert!(!daemon.config().exists());
}

/// A password that is in force stays so, keys are for nobody else, and a link is no free name.
#[test]
fn a_folder_that_is_in_use_or_open_to_others_is_refused_before_anything_is_made() {
    let daemon = nothing();
    made(&init(&daemon, &[&ANSWERS[..], &["--json"]].concat()));
    for path in [daemon.config(), organization(&daemon)] {
        fs::remove_file(path).expect("removes");
    }
    let told = text(&init(&daemon, &ANSWERS).stderr);
    assert!(told.contains("has passwords already: name another folder"), "{told}");

    let daemon = nothing();
    for open in [daemon.data(), daemon.data().join("keys"), daemon.data().join("keys/dkim")] {
        fs::create_dir_all(&open).expect("makes");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opens");
        let output = init(&daemon, &ANSWERS);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let expected = format!("others can write in {} (mode 777)", open.display());
        assert!(told.contains(&expected), "{told}");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).expect("closes");
    }
    assert_eq!(all_below(&daemon.data()).len(), 3, "folders and nothing else");
    fs::remove_dir_all(daemon.data()).expect("removes");

    symlink(daemon.path("nowhere/mailweir.toml"), daemon.config()).expect("links");
    let told = text(&init(&daemon, &ANSWERS).stderr);
    assert!(told.contains("mailweir.toml is there already, and is not overwritten"), "{told}");
    assert!(!daemon.data().exists() && !organization(&daemon).exists(), "nothing is left behind");
}

/// Whatever a run that was cut off has left, the next makes of it what the first would have.
#[test]
fn what_was_cut_off_is_finished_by_a_second_run() {
    let daemon = nothing();
    let json = [&ANSWERS[..], &["--json"]].concat();
    let first = made(&init(&daemon, &json));
    fs::remove_file(daemon.config()).expect("removes");
    fs::create_dir(daemon.path(".mailweir-init")).expect("makes");
    fs::write(daemon.path(".mailweir-init/mailweir.toml"), "half").expect("writes");
    let output = init(&daemon, &json);
    let told = text(&output.stderr);
    assert!(told.contains("has set a password for ada@example.test: the one below"), "{told}");
    let second = made(&output);
    assert_eq!(first["records"], second["records"], "the keys are the same");
    assert_ne!(first["password"], second["password"]);
    assert!(!daemon.path(".mailweir-init").exists());
    let again = init(&daemon, &json);
    assert!(text(&again.stderr).contains("mailweir.toml is there already"), "all is done");

    // Nothing can be written: nothing is left behind.
    let daemon = nothing();
    fs::write(daemon.path("file"), "").expect("writes");
    let data = daemon.path("file/data").display().to_string();
    let arguments = [&["init"], &ANSWERS[..], &["--data-dir", &data]].concat();
    let output = command(&daemon, &arguments).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!daemon.config().exists() && !organization(&daemon).exists());
    assert!(!daemon.path(".mailweir-init").exists());
}

#[test]
fn a_password_of_ones_own_is_read_and_checked() {
    let daemon = nothing();
    let ask = |password: &str| {
        let data = daemon.data().display().to_string();
        let more = ["--data-dir", &data, "--ask-password", "--json"];
        let mut child = command(&daemon, &[&["init"], &ANSWERS[..], &more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(password.as_bytes()).expect("writes");
        drop(stdin);
        child.wait_with_output().expect("ends")
    };
    let weak = ask("lemon\n");
    assert!(text(&weak.stderr).contains("does not meet the password policy"));
    assert!(!daemon.data().exists() && !daemon.config().exists());
    assert!(made(&ask("Lemon-tree1\n")).get("password").is_none(), "it is known already");
}

/// Root prepares, and a daemon that is not root reads and writes.
#[test]
fn what_root_writes_serves_a_daemon_that_is_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let mut daemon = nothing();
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    let output = init(&daemon, &[&ANSWERS[..], &["--user", "no-such-user"]].concat());
    assert!(text(&output.stderr).contains("there is no user no-such-user"));
    let output = init(&daemon, &[&ANSWERS[..], &["--user", NOBODY]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let nobody = fs::metadata(daemon.data()).expect("is there");
    assert_ne!(nobody.uid(), 0);
    for path in all_below(&daemon.data()) {
        let metadata = fs::metadata(&path).expect("is there");
        assert_eq!(metadata.uid(), nobody.uid(), "{}", path.display());
        assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
    }
    for path in [daemon.config(), organization(&daemon)] {
        let metadata = fs::metadata(&path).expect("is there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, nobody.gid()), "{}", path.display());
        assert_eq!(mode(&path), 0o640);
    }
    let checked = command(&daemon, &["check-config"]).output().expect("runs");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    on_loopback(&daemon);
    let mut command = Command::new(BINARY);
    command.uid(nobody.uid()).gid(nobody.gid());
    daemon.launch(command);
    swaks(&daemon, "bob@good.test", ADMIN, "as nobody", &[]).accepted();
    assert_eq!(daemon.folders("ada", "as nobody"), ["INBOX"]);
}
