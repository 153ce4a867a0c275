//! Users that submit, and what becomes of their mail.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mailweir::smtp::client::any_certificate;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::daemon::{BINARY, Daemon, Setup};
use super::wait_for;
use crate::credentials::set_password;

pub const ALICE: &str = "alice@example.test";
const PASSWORD: &str = "Lemon-tree1";
/// `printf '\0alice@example.test\0Lemon-tree1' | base64`
const LOGIN: &str = "AGFsaWNlQGV4YW1wbGUudGVzdABMZW1vbi10cmVlMQ==";

/// Mail for a domain goes to this port.
pub fn route(domain: &str, port: u16) -> String {
    format!("[[queue_route]]\ndomain = \"{domain}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
}

/// A daemon that is not running yet, with sections in its configuration, where alice can log in.
pub fn prepared(setup: Setup) -> Daemon {
    let listener = "[[listener]]\nname = \"submissions\"\nprotocol = \"submissions\"\n\
                    bind = \"127.0.0.1:0\"\n";
    let daemon = Setup { listener: listener.into(), ..setup }.prepare();
    daemon.keys_that_sign("example.test");
    assert!(set_password(&daemon, "alice", PASSWORD).status.success());
    daemon
}

/// The same, running.
pub fn started(sections: &str) -> Daemon {
    let mut daemon = prepared(Setup { sections: sections.into(), ..Setup::default() });
    daemon.launch(Command::new(BINARY));
    daemon
}

/// Alice, who has logged in.
pub struct Submitter {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Submitter {
    /// `None` if the daemon ends meanwhile.
    pub fn log_in(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.set_nodelay(true).ok()?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("has versions")
            .dangerous()
            .with_custom_certificate_verifier(any_certificate())
            .with_no_client_auth();
        let name = "mx.example.test".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a session");
        let mut submitter = Self { reader: BufReader::new(StreamOwned::new(tls, stream)) };
        submitter.reply("220")?;
        submitter.say("EHLO desk.example.test\r\n", "250")?;
        submitter.say(&format!("AUTH PLAIN {LOGIN}\r\n"), "235")?;
        Some(submitter)
    }

    /// Submits a message; the last reply, or `None` if the daemon ends meanwhile.
    pub fn submit(&mut self, recipients: &[&str], subject: &str) -> Option<String> {
        self.say(&format!("MAIL FROM:<{ALICE}>\r\n"), "250")?;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>\r\n"), "250")?;
        }
        self.say("DATA\r\n", "354")?;
        self.say(&format!("From: <{ALICE}>\r\nSubject: {subject}\r\n\r\nHello.\r\n.\r\n"), "")
    }

    /// Says a line; the reply if it begins with `code`.
    pub fn say(&mut self, text: &str, code: &str) -> Option<String> {
        let stream = self.reader.get_mut();
        stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).ok()?;
        self.reply(code)
    }

    /// The last line of a reply that begins with `code`; `None` if there is none, or it says that
    /// the daemon stops.
    fn reply(&mut self, code: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            let has_ended = self.reader.read_line(&mut line).ok()? == 0 || !line.ends_with('\n');
            if has_ended || line.starts_with("421 4.3.2") {
                return None;
            }
            assert!(line.starts_with(code), "expected {code}: {line}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(line);
            }
        }
    }
}

/// Submits one message as alice; it is taken.
#[track_caller]
pub fn submit(daemon: &Daemon, recipients: &[&str], subject: &str) {
    let mut alice = Submitter::log_in(daemon.listener("submissions")).expect("logs in");
    let reply = alice.submit(recipients, subject).expect("a reply");
    assert!(reply.starts_with("250"), "{reply}");
}

/// What waits, as `queue list` tells it.
pub fn queue(daemon: &Daemon) -> Vec<Value> {
    daemon.lists(&["queue", "list"])
}

/// The only entry of the queue, once its last failure has this in it.
pub fn waiting(daemon: &Daemon, failure: &str) -> Value {
    wait_for(&format!("\"{failure}\" in the queue"), || {
        let mut queue = queue(daemon);
        let entry = queue.pop()?;
        assert!(queue.is_empty(), "another entry: {queue:#?}");
        entry["lastFailure"].as_str()?.contains(failure).then_some(entry)
    })
}

/// The events of a message's recipients outside, each as name, address and status, in order,
/// once there are so many.
pub fn outcomes(daemon: &Daemon, subject: &str, count: usize) -> Vec<String> {
    wait_for("the outcomes", || {
        let outcomes: Vec<_> = daemon.trace(subject).iter().filter_map(outcome).collect();
        (outcomes.len() >= count).then_some(outcomes)
    })
}

/// `sent ADDRESS`, or `bounced ADDRESS STATUS`; `None` for other events.
pub fn outcome(event: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match event["eventName"].as_str()? {
        "OUTGOING_EMAIL_SENT" => Some(format!("sent {}", text(&event["recipient"]))),
        "OUTGOING_EMAIL_BOUNCED" => {
            let bounced = &event["bouncedRecipient"];
            let (address, status) = (text(&bounced["emailAddress"]), text(&bounced["status"]));
            Some(format!("bounced {address} {status}"))
        }
        _ => None,
    }
}

/// The one message in a mailbox with this in its text, once it is there.
pub fn delivered(daemon: &Daemon, user: &str, part: &str) -> String {
    wait_for(&format!("a message with \"{part}\""), || {
        let texts = daemon.mailbox(user).into_iter();
        let mut texts = texts.map(|(_, bytes)| super::daemon::text(&bytes));
        texts.find(|text| text.contains(part))
    })
}
