//! Postfix as a relaying client: a message that swaks hands to it arrives in the mailbox.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::daemon::{Daemon, Setup, below_our_headers, text};
use crate::support::{free_port, wait_for};

/// A Postfix of our own, with configuration, queue and state in a folder of its own, that relays
/// everything to one address. It only runs as root, so it is started through sudo otherwise.
struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

/// Only what an SMTP relay needs; nothing is chrooted.
const SERVICES: &str = "\
pickup    unix  n - n 60  1 pickup
cleanup   unix  n - n -   0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -   - trivial-rewrite
bounce    unix  - - n -   0 bounce
defer     unix  - - n -   0 bounce
trace     unix  - - n -   0 bounce
verify    unix  - - n -   1 verify
proxymap  unix  - - n -   - proxymap
smtp      unix  - - n -   - smtp
relay     unix  - - n -   - smtp
showq     unix  n - n -   - showq
error     unix  - - n -   - error
retry     unix  - - n -   - error
discard   unix  - - n -   - discard
anvil     unix  - - n -   1 anvil
scache    unix  - - n -   1 scache
postlog   unix-dgram n - n - 1 postlogd
";

impl Postfix {
    fn start(next_hop: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Postfix's own user must be able to reach what is inside.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let port = free_port();
        for name in ["etc", "queue", "state"] {
            fs::create_dir(dir.path().join(name)).expect("creates");
        }
        let root = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {root}/queue\n\
             data_directory = {root}/state\n\
             maillog_file = {root}/postfix.log\n\
             maillog_file_prefixes = {root}\n\
             mail_owner = postfix\n\
             myhostname = relay.good.test\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             mydestination =\n\
             mynetworks = 127.0.0.0/8\n\
             alias_maps =\n\
             alias_database =\n\
             local_recipient_maps =\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             smtpd_recipient_restrictions =\n\
             disable_dns_lookups = yes\n\
             smtp_host_lookup = native\n\
             relayhost = [{}]:{}\n\
             smtp_tls_security_level = may\n\
             smtputf8_enable = yes\n\
             message_size_limit = 60000000\n\
             minimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\n\
             queue_run_delay = 1s\n\
             smtp_connect_timeout = 5s\n\
             notify_classes =\n",
            next_hop.ip(),
            next_hop.port()
        );
        let services = format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}");
        fs::write(dir.path().join("etc/main.cf"), main).expect("writes");
        fs::write(dir.path().join("etc/master.cf"), services).expect("writes");
        let status = as_root("chown").arg("postfix").arg(dir.path().join("state")).status();
        assert!(status.expect("runs").success(), "the user postfix exists");
        let child = control(dir.path(), "start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut postfix = Self { dir, port, child };
        postfix.wait_until_ready();
        postfix
    }

    fn wait_until_ready(&mut self) {
        wait_for("postfix", || {
            if let Some(status) = self.child.try_wait().expect("waits") {
                panic!("postfix ended with {status}: {}", self.log());
            }
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    fn log(&self) -> String {
        fs::read(self.dir.path().join("postfix.log")).map(|log| text(&log)).unwrap_or_default()
    }

    /// Waits for a line of the log that has all of `parts`.
    fn wait_for_line(&self, parts: &[&str]) -> String {
        wait_for(&format!("{parts:?} in Postfix's log"), || {
            let log = self.log();
            let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        })
    }

    fn swaks(&self, from: &str, to: &str, subject: &str, more: &[&str]) {
        let output = Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--helo", "desk.good.test", "--from", from, "--to", to])
            .args(["--header", &format!("Subject: {subject}"), "--timeout", "20"])
            .args(more)
            .output()
            .expect("swaks is installed by tests/setup.sh");
        assert!(output.status.success(), "{}", text(&output.stdout));
    }
}

fn as_root(program: &str) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn control(dir: &Path, action: &str) -> Command {
    let mut command = as_root("/usr/sbin/postfix");
    command.arg("-c").arg(dir.join("etc")).arg(action);
    command
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop =
            control(self.dir.path(), "stop").stdout(Stdio::null()).stderr(Stdio::null()).status();
        drop(stop); // It may have ended by itself.
        drop(self.child.wait());
        // Its queue belongs to its own user.
        drop(as_root("rm").arg("-rf").arg(self.dir.path().join("queue")).status());
        drop(as_root("rm").arg("-rf").arg(self.dir.path().join("state")).status());
        if std::thread::panicking() {
            eprintln!("Postfix's log:\n{}", self.log());
        }
    }
}

fn delivered(daemon: &Daemon, user: &str, subject: &str) {
    let path = daemon.data().join("events/email-events.jsonl");
    let needle = format!("\"subject\":\"{subject}\"");
    wait_for(subject, || fs::read_to_string(&path).ok().filter(|log| log.contains(&needle)));
    assert_eq!(daemon.folders(user, subject), ["INBOX"]);
}

#[test]
fn postfix_relays_into_the_mailbox() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    let body = ["--body", "line one\\n.\\n..dots\\n"];
    postfix.swaks("bob@good.test", "alice@example.test", "through postfix", &body);
    let line = postfix.wait_for_line(&["to=<alice@example.test>", "status=sent", "250 2.0.0"]);
    delivered(&daemon, "alice", "through postfix");
    let trace = daemon.events()[0]["traceId"].as_str().expect("an id").to_owned();
    assert!(line.contains(&trace), "Postfix's log and our trace can be joined: {line}");
    assert_eq!(
        daemon.names("through postfix"),
        ["ORGANIZATION_EMAIL_RECEIVED", "MAILBOX_EMAIL_DELIVERED"]
    );
    let event = &daemon.trace("through postfix")[0];
    assert_eq!(event["spfVerdict"], "PASS");
    assert_eq!(event["dmarcVerdict"], "PASS");
    let stored = text(&daemon.mailbox("alice")[0].1);
    assert!(
        stored.contains("with ESMTPS id"),
        "Postfix takes STARTTLS where it is offered: {stored}"
    );
    assert!(
        stored.contains("Received: from desk.good.test"),
        "Postfix's own trace stays: {stored}"
    );
}

#[test]
fn postfix_relays_to_many_a_large_message_and_utf8() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    let to = "alice@example.test,bob@example.test,a.liddell@example.test";
    let attachment = daemon.path("large.bin");
    fs::write(&attachment, vec![7; 8 << 20]).expect("writes");
    let attach = format!("@{}", attachment.display());
    postfix.swaks("bob@good.test", to, "large", &["--attach", &attach]);
    postfix.wait_for_line(&["to=<bob@example.test>", "status=sent"]);
    delivered(&daemon, "alice", "large");
    delivered(&daemon, "bob", "large");
    let stored = &daemon.mailbox("bob")[0].1;
    assert!(below_our_headers(stored).len() > 8 << 20, "the whole of it");
    assert_eq!(daemon.trace("large").len(), 3, "one reception, two mailboxes");
}

#[test]
fn postfix_reports_what_is_refused() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    postfix.swaks("bob@good.test", "nobody@example.test", "unknown", &[]);
    postfix.wait_for_line(&[
        "to=<nobody@example.test>",
        "status=bounced",
        "550 5.1.1",
        "[unknown-user ",
    ]);
    postfix.swaks("ceo@reject.test", "alice@example.test", "spoofed", &[]);
    postfix.wait_for_line(&[
        "to=<alice@example.test>",
        "status=bounced",
        "550 5.7.1",
        "[dmarc-reject ",
    ]);
    assert!(daemon.mailbox("alice").is_empty());
}
