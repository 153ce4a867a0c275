//! A real `mailweir serve` with a scratch folder, and what an operator sees of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::smtp::Client;
use super::wait_for;

pub const BINARY: &str = env!("CARGO_BIN_EXE_mailweir");

const ORGANIZATION: &str = r#"
alias = "example"
domains = ["example.test", "example.org"]
plus_addressing = true
postmaster = "admin"
[[user]]
name = "alice"
aliases = ["a.liddell@example.test"]
[[user]]
name = "bob"
[[user]]
name = "用户"
[[user]]
name = "carol"
enabled = false
[[user]]
name = "archive"
[[user]]
name = "admin"
[[user]]
name = "small"
quota_mb = 1
[[resource]]
name = "room"
kind = "room"
[[group]]
name = "sales"
aliases = ["verkauf@example.org"]
members = ["alice", "bob", "emea"]
[[group]]
name = "emea"
members = ["bob", "sales", "room"]
"#;

pub const ZONE: &str = include_str!("../../../fixtures/dns/demo.zone");

/// A zone in which senders of the organization's own domain pass SPF, so that they are told of what
/// bounces.
pub fn zone_of_senders_here() -> String {
    let (closed, open) = ("\"v=spf1 -all\"", "\"v=spf1 ip4:127.0.0.0/8 -all\"");
    let name = "\nexample.test. IN TXT ";
    ZONE.replace(&format!("{name}{closed}"), &format!("{name}{open}"))
}

/// What a daemon is started with.
pub struct Setup {
    pub organization: String,
    pub more_organizations: Vec<String>,
    /// Lines of the main file before its first section, and sections.
    pub keys: String,
    pub sections: String,
    pub zone: String,
    pub dns: String,
    pub listener: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            organization: ORGANIZATION.into(),
            more_organizations: Vec::new(),
            keys: String::new(),
            sections: String::new(),
            zone: ZONE.into(),
            dns: "zone_file = \"demo.zone\"".into(),
            listener: String::new(),
        }
    }
}

impl Setup {
    /// The usual organization with more to it.
    pub fn with(organization: &str) -> Self {
        Self { organization: format!("{ORGANIZATION}{organization}"), ..Self::default() }
    }

    /// The usual organization with keys before its first table.
    pub fn with_keys(keys: &str) -> Self {
        Self { organization: format!("{keys}\n{ORGANIZATION}"), ..Self::default() }
    }

    /// The configuration alone; nothing runs yet.
    pub fn prepare(self) -> Daemon {
        Daemon::prepare(&self)
    }

    pub fn start(self) -> Daemon {
        Daemon::start(&self)
    }
}

pub struct Daemon {
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    address: SocketAddr,
}

/// A rule of an organization file.
pub fn rule(name: &str, action: &str, sender: &str, destination: &str) -> String {
    format!(
        "[[inbound_rule]]\nname = \"{name}\"\naction = \"{action}\"\nsenders = [\"{sender}\"]\n\
         destinations = [\"{destination}\"]\n"
    )
}

impl Daemon {
    fn start(setup: &Setup) -> Self {
        let mut daemon = Self::prepare(setup);
        daemon.launch(Command::new(BINARY));
        daemon
    }

    fn prepare(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("writes");
        write("demo.zone", &setup.zone);
        write("org.toml", &setup.organization);
        let mut organizations = "[[organization]]\nfile = \"org.toml\"\n".to_owned();
        for (number, text) in setup.more_organizations.iter().enumerate() {
            write(&format!("org{number}.toml"), text);
            organizations.push_str(&format!("[[organization]]\nfile = \"org{number}.toml\"\n"));
        }
        let limits = if setup.sections.contains("[limits]") {
            ""
        } else {
            "[limits]\nbanner_delay_ms = 0\n"
        };
        let main = format!(
            "data_dir = \"data\"\nhostname = \"mx.example.test\"\n{}\n[[listener]]\nname = \"mx\"\n\
             protocol = \"mx\"\nbind = \"127.0.0.1:0\"\n{}\n{organizations}[dns]\n{}\n{limits}{}\n",
            setup.keys, setup.listener, setup.dns, setup.sections
        );
        write("mailweir.toml", &main);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { dir, child: None, address }
    }

    /// Starts the daemon and stops it, so that the next one knows everybody and writes no record at
    /// its start.
    pub fn introduce(&mut self) {
        self.launch(Command::new(BINARY));
        assert!(self.stop().success());
    }

    /// Starts the daemon again on the same data, through `command` if that is not the daemon.
    pub fn launch(&mut self, command: Command) {
        assert!(self.launch_doomed(command), "the daemon ended: {}", self.log());
    }

    /// The same for a daemon that may end before it listens; whether it listens.
    pub fn launch_doomed(&mut self, mut command: Command) -> bool {
        let run = self.data().join("run/listeners.json");
        drop(fs::remove_file(&run)); // It may not be there yet.
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("stderr.log"))
            .expect("opens");
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        let address = wait_for("the daemon's listener", || {
            if child.try_wait().expect("waits").is_some() {
                return Some(None);
            }
            let text = fs::read_to_string(&run).ok()?;
            let addresses: BTreeMap<String, SocketAddr> = serde_json::from_str(&text).ok()?;
            addresses.get("mx").copied().map(Some)
        });
        self.address = address.unwrap_or(self.address);
        self.child = address.map(|_| child);
        self.child.is_some()
    }

    /// Whether the daemon ends by itself; if not, it is killed.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        let until = Instant::now() + time;
        while Instant::now() < until {
            if child.try_wait().expect("waits").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("kills");
        child.wait().expect("waits");
        false
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn config(&self) -> PathBuf {
        self.path("mailweir.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("stderr.log")).unwrap_or_default()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the listener of that name listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let text = fs::read_to_string(self.data().join("run/listeners.json")).expect("reads");
        let addresses: BTreeMap<String, SocketAddr> = serde_json::from_str(&text).expect("JSON");
        addresses[name]
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("runs kill").success());
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("kills");
        child.wait().expect("waits");
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        let mut child = self.child.take().expect("runs");
        wait_for("the daemon's end", || child.try_wait().expect("waits"))
    }

    /// A command of the same binary on the same configuration.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        Command::new(BINARY).args(arguments).arg("--config").arg(config).output().expect("runs")
    }

    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
        out
    }

    /// The items of a list that a command prints as JSON: one a line.
    pub fn lists(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.succeeds(&[arguments, &["--json"]].concat());
        let item = |line| serde_json::from_str(line).expect("a line is whole JSON");
        printed.lines().map(item).collect()
    }

    /// Gives a domain keys that sign, whether or not DNS here has their records.
    /// The id of a user, by the user's name.
    pub fn id(&self, user: &str) -> String {
        let users = self.lists(&["user", "list"]);
        let line = users.iter().find(|line| line["user"] == user);
        let id = line.and_then(|line| line["id"].as_str());
        id.unwrap_or_else(|| panic!("no {user} in {users:#?}")).to_owned()
    }

    pub fn keys_that_sign(&self, domain: &str) -> String {
        self.succeeds(&["domain", "keys", domain]);
        self.succeeds(&["domain", "keys", domain, "--use-next", "--unseen"])
    }

    /// All lines of the event files, oldest first, as an operator reads them.
    pub fn events(&self) -> Vec<Value> {
        let mut files: Vec<_> = fs::read_dir(self.data().join("events"))
            .expect("lists")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort_by_key(|path| (path.ends_with("email-events.jsonl"), path.clone()));
        let mut events = Vec::new();
        for file in files {
            for line in fs::read_to_string(file).expect("reads").lines() {
                let line = serde_json::from_str(line).expect("a line is whole JSON");
                has_known_fields(&line);
                events.push(line);
            }
        }
        events
    }

    /// The events of the message with this subject, in order.
    pub fn trace(&self, subject: &str) -> Vec<Value> {
        let events = self.events();
        let trace = events
            .iter()
            .find(|line| line["event"]["subject"] == subject)
            .map(|line| line["traceId"].clone())
            .unwrap_or_else(|| panic!("no event for {subject:?} in {events:#?}\n{}", self.log()));
        events
            .into_iter()
            .filter(|line| line["traceId"] == trace)
            .map(|mut line| line["event"].take())
            .collect()
    }

    /// The names of those events.
    pub fn names(&self, subject: &str) -> Vec<String> {
        let name = |event: &Value| event["eventName"].as_str().expect("a name").to_owned();
        self.trace(subject).iter().map(name).collect()
    }

    /// Every message of a mailbox: folder and stored bytes.
    pub fn mailbox(&self, user: &str) -> Vec<(String, Vec<u8>)> {
        let dir = tempfile::tempdir().expect("a folder");
        self.succeeds(&["mailbox", "export", user, &dir.path().display().to_string()]);
        let mut messages = Vec::new();
        for folder in fs::read_dir(dir.path()).expect("lists") {
            let folder = folder.expect("an entry").path();
            let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
            for file in fs::read_dir(&folder).expect("lists") {
                let bytes = fs::read(file.expect("an entry").path()).expect("reads");
                messages.push((name.clone(), bytes));
            }
        }
        messages
    }

    /// The folders in which a mailbox has a message with this subject.
    pub fn folders(&self, user: &str, subject: &str) -> Vec<String> {
        let needle = format!("Subject: {subject}\r\n");
        let messages = self.mailbox(user).into_iter();
        messages
            .filter(|(_, bytes)| {
                let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
                let head = &bytes[..head.map_or(bytes.len(), |at| at + 4)];
                memchr::memmem::find(head, needle.as_bytes()).is_some()
            })
            .map(|(folder, _)| folder)
            .collect()
    }
}

/// Every field of an event is in the schema; whether all else is as it says, `schemas.rs` asks.
fn has_known_fields(line: &Value) {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../docs/schema/email-event.json")).expect("JSON")
    });
    let name = line["event"]["eventName"].as_str().expect("a name");
    let known = &SCHEMA["$defs"][name]["properties"];
    for field in line["event"].as_object().expect("an object").keys() {
        assert!(known[field].is_object(), "docs/schema says nothing of {field} of {name}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let has_drained = self.child.take().is_none_or(end);
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        } else {
            assert!(has_drained, "the daemon does not stop:\n{}", self.log());
        }
    }
}

/// SIGTERM, and SIGKILL ten seconds later; whether the first was enough. A test that has failed
/// already does not wait.
fn end(mut child: Child) -> bool {
    if !std::thread::panicking() {
        drop(Command::new("kill").args(["-TERM", &child.id().to_string()]).status());
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if child.try_wait().expect("waits").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(child.kill()); // It may have ended by itself.
    drop(child.wait());
    false
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes below the headers that the daemon puts on top.
pub fn below_our_headers(stored: &[u8]) -> &[u8] {
    const OURS: [&[u8]; 6] = [
        b"Return-Path:",
        b"Received:",
        b"X-SES-Spam-Verdict:",
        b"X-SES-Virus-Verdict:",
        b"Received-SPF:",
        b"Authentication-Results:",
    ];
    let mut rest = stored;
    for name in OURS {
        assert!(rest.starts_with(name), "{} is not next", text(name));
        let mut end = 0;
        loop {
            end += memchr::memchr(b'\n', &rest[end..]).expect("a line end") + 1;
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        rest = &rest[end..];
    }
    rest
}
