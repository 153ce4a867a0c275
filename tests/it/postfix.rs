//! Postfix as the server that hands mail to us.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::daemon::{Setup, text};
use crate::support::{free_port, wait_for};

/// An instance of its own, below a scratch folder, that relays everything to one port.
struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
}

impl Postfix {
    fn start(relay: std::net::SocketAddr) -> Self {
        let dir = tempfile::Builder::new().prefix("mailweir-postfix").tempdir().expect("a folder");
        let port = free_port();
        for name in ["etc", "spool", "lib"] {
            fs::create_dir(dir.path().join(name)).expect("creates");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let root = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/spool\ndata_directory = {root}/lib\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
             mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = mail.good.test\n\
             mydestination =\nrelayhost = [127.0.0.1]:{}\ninet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
             smtp_host_lookup = native\nsmtp_tls_security_level = may\nmaillog_file = {root}/spool/log\n\
             maillog_file_prefixes = {root}\nalias_maps =\nalias_database =\nsmtputf8_enable = yes\n\
             smtp_dns_support_level = disabled\nminimal_backoff_time = 1s\nqueue_run_delay = 1s\n",
            relay.port()
        );
        fs::write(dir.path().join("etc/main.cf"), main).expect("writes");
        let services = [
            ("pickup", "unix"),
            ("cleanup", "unix"),
            ("qmgr", "unix"),
            ("rewrite", "unix"),
            ("bounce", "unix"),
            ("defer", "unix"),
            ("trace", "unix"),
            ("smtp", "unix"),
            ("error", "unix"),
            ("retry", "unix"),
            ("proxymap", "unix"),
            ("tlsmgr", "unix"),
            ("anvil", "unix"),
            ("scache", "unix"),
        ];
        let mut master = format!(
            "127.0.0.1:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n"
        );
        for (name, kind) in services {
            let program = match name {
                "rewrite" => "trivial-rewrite",
                "defer" | "trace" => "bounce",
                "retry" => "error",
                name => name,
            };
            let private = if matches!(name, "pickup" | "cleanup" | "qmgr") { "n" } else { "-" };
            let wake = match name {
                "pickup" => "1",
                "qmgr" => "1",
                "tlsmgr" => "1000?",
                _ => "-",
            };
            let limit = match name {
                "pickup" | "qmgr" | "tlsmgr" | "anvil" | "scache" => "1",
                _ => "-",
            };
            let limit =
                if matches!(name, "cleanup" | "bounce" | "defer" | "trace") { "0" } else { limit };
            master.push_str(&format!("{name} {kind} {private} - n {wake} {limit} {program}\n"));
        }
        fs::write(dir.path().join("etc/master.cf"), master).expect("writes");
        let owned = Command::new("chown").arg("postfix").arg(dir.path().join("lib")).status();
        assert!(owned.expect("runs").success(), "Postfix needs root to start");
        let postfix = Self { dir, port };
        postfix.run("start");
        wait_for("Postfix", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        postfix
    }

    fn run(&self, command: &str) {
        let output = Command::new("/usr/sbin/postfix")
            .args(["-c", &self.dir.path().join("etc").display().to_string(), command])
            .output()
            .expect("Postfix is installed by tests/setup.sh");
        assert!(output.status.success(), "{}{}", text(&output.stderr), self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("spool/log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Postfix: {}", self.log());
        }
        self.run("stop");
    }
}

#[test]
fn postfix_relays_to_us() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start(daemon.address());
    for (subject, to) in [
        ("through Postfix", "alice@example.test"),
        ("to several", "alice@example.test,bob@example.test,sales@example.test"),
    ] {
        let sent = Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", &postfix.port.to_string(), "--to", to])
            .args(["--from", "bob@good.test", "--header", &format!("Subject: {subject}")])
            .args(["--body", "line one\\n.\\n..dots\\n"])
            .output()
            .expect("swaks is installed by tests/setup.sh");
        assert!(sent.status.success(), "{}", text(&sent.stdout));
        wait_for(subject, || {
            let events = daemon.data().join("events/email-events.jsonl");
            let text = fs::read_to_string(events).ok()?;
            (text.contains(subject) && text.contains("MAILBOX_EMAIL_DELIVERED")).then_some(())
        });
        assert_eq!(daemon.folders("alice", subject), ["INBOX"], "{}", postfix.log());
        let received = &daemon.trace(subject)[0];
        assert_eq!(received["spfVerdict"], "PASS");
        assert_eq!(received["dmarcVerdict"], "PASS");
    }
    let stored = daemon.mailbox("alice");
    let all = stored.iter().map(|(_, bytes)| text(bytes)).collect::<String>();
    assert!(all.contains("line one\r\n.\r\n..dots\r\n"), "{all}");
    assert!(all.contains("with ESMTPS id"), "Postfix used STARTTLS: {all}");
}
