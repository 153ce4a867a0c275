//! Spam scanners as the daemon asks them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use crate::support::daemon::Setup;
use crate::support::swaks::swaks;

const ALICE: &str = "alice@example.test";

/// Answers every connection with these bytes once a question has come; gives the questions.
fn answering(answer: &'static str) -> (std::net::SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    let (questions, asked) = channel();
    // Ends with the test's process; it waits for connections that no longer come.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut question = Vec::new();
            let mut chunk = [0; 65_536];
            stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("sets");
            while let Ok(length) = stream.read(&mut chunk) {
                if length == 0 {
                    break;
                }
                question.extend_from_slice(&chunk[..length]);
            }
            drop(stream.write_all(answer.as_bytes())); // The daemon may have given up.
            if questions.send(String::from_utf8_lossy(&question).into_owned()).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

fn setup(scanner: &str, address: std::net::SocketAddr) -> Setup {
    let sections =
        format!("[spam]\nscanner = \"{scanner}\"\naddress = \"{address}\"\ntimeout_ms = 2000\n");
    Setup { sections, ..Setup::default() }
}

#[test]
fn rspamd_chooses_the_folder() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
                  {\"action\":\"add header\",\"score\":9.5,\"required_score\":15.0,\"symbols\":{}}";
    let (address, asked) = answering(answer);
    let daemon = setup("rspamd", address).start();
    swaks(&daemon, "bob@good.test", ALICE, "scanned", &[]).accepted();
    assert_eq!(daemon.folders("alice", "scanned"), ["JUNK_EMAIL"]);
    assert_eq!(daemon.trace("scanned")[0]["spamVerdict"], "FAIL");
    let question = asked.recv().expect("was asked").to_lowercase();
    assert!(question.starts_with("post /checkv2 http/1.1\r\n"), "{question}");
    for field in
        ["ip: 127.0.0.1", "helo: mail.good.test", "from: bob@good.test", "rcpt: alice@example.test"]
    {
        assert!(question.contains(field), "{field} is not in {question}");
    }
}

#[test]
fn spamd_chooses_the_folder() {
    let (address, asked) =
        answering("SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: True ; 15.0 / 5.0\r\n\r\nGTUBE");
    let daemon = setup("spamd", address).start();
    swaks(&daemon, "bob@good.test", ALICE, "scanned", &[]).accepted();
    assert_eq!(daemon.folders("alice", "scanned"), ["JUNK_EMAIL"]);
    assert!(asked.recv().expect("was asked").starts_with("SYMBOLS SPAMC/1."));
}

#[test]
fn a_scanner_that_fails_does_not_stop_mail() {
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::refusing_port()));
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let (nonsense, _asked) = answering("nonsense\r\n\r\n");
    for (scanner, address) in [
        ("rspamd", dead),
        ("rspamd", silent.local_addr().expect("has an address")),
        ("spamd", nonsense),
    ] {
        let daemon = setup(scanner, address).start();
        swaks(&daemon, "bob@good.test", ALICE, "flows", &[]).accepted();
        assert_eq!(daemon.folders("alice", "flows"), ["INBOX"], "{scanner} {address}");
        assert_eq!(daemon.trace("flows")[0]["spamVerdict"], "PROCESSING_FAILED");
        let told = daemon.succeeds(&["events", "trace", ALICE]);
        assert!(told.contains("  spam PROCESSING_FAILED: the scanner"), "{told}");
        let log = daemon.log();
        assert!(log.contains("WARN") && log.contains("mail is not scanned for spam"), "{log}");
    }
}
