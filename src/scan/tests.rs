//! Scanners on loopback ports that speak the exact wire formats, well and badly.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const MESSAGE: &[u8] = b"From: a@example.test\r\n\r\nHello.\r\n";
const GTUBE: &str =
    concat!("XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X");

/// What the scanner does once it has the question.
enum Behaviour {
    Answer(Vec<u8>),
    /// Answers, and goes on sending the last octet for ever.
    Endless(Vec<u8>),
    HangUp,
    Silence,
}

/// A scanner that serves one connection and returns the question that it was asked.
async fn scanner(behaviour: Behaviour) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let question = read_question(&mut stream).await;
        match behaviour {
            Behaviour::Answer(answer) => stream.write_all(&answer).await.unwrap(),
            Behaviour::Endless(answer) => {
                stream.write_all(&answer).await.unwrap();
                while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
            }
            Behaviour::HangUp => {}
            Behaviour::Silence => std::future::pending().await,
        }
        question
    });
    (address, served)
}

/// Reads until the message has come: both protocols send it last, and it ends with this text.
async fn read_question(stream: &mut TcpStream) -> Vec<u8> {
    let mut question = Vec::new();
    let mut buffer = [0; 4096];
    while !question.ends_with(b"Hello.\r\n") {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the question broke off");
        question.extend_from_slice(&buffer[..length]);
    }
    question
}

fn http(status: &str, body: &str) -> Behaviour {
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nServer: rspamd/3.8\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Behaviour::Answer(answer.into_bytes())
}

fn spamd(head: &str, symbols: &str) -> Behaviour {
    let length = symbols.len();
    Behaviour::Answer(format!("{head}Content-length: {length}\r\n\r\n{symbols}").into_bytes())
}

async fn ask(kind: ScannerKind, behaviour: Behaviour) -> (ScanOutcome, JoinHandle<Vec<u8>>) {
    let (address, served) = scanner(behaviour).await;
    let settings = Settings { timeout: Duration::from_secs(2), ..Settings::new(kind, address) };
    (scan_with(Some(&settings), MESSAGE).await, served)
}

async fn scan_with(settings: Option<&Settings>, message: &[u8]) -> ScanOutcome {
    let peer = Peer {
        ip: "192.0.2.1".parse().unwrap(),
        port: 40_000,
        helo: "mail.example.test".to_owned(),
        esmtp: true,
        tls: None,
        login: None,
    };
    let reverse_path = ReversePath::Address(Address::parse("a@example.test").unwrap());
    let [bob, eve] = ["bob@example.org", "eve@example.org"].map(|it| Address::parse(it).unwrap());
    let request = Request {
        message,
        peer: &peer,
        reverse_path: &reverse_path,
        recipients: &[&bob, &eve],
        trace_id: "01935a2f-0000-7000-8000-000000000001".parse().unwrap(),
    };
    scan(settings, &request).await
}

async fn check(kind: ScannerKind, behaviour: Behaviour, verdict: Verdict, detail: &str) {
    let (outcome, _) = ask(kind, behaviour).await;
    assert_eq!(outcome.verdict, verdict, "{outcome:?}");
    assert!(outcome.detail.contains(detail), "{outcome:?}");
}

#[tokio::test]
async fn without_a_scanner_only_gtube_is_spam() {
    let body = format!("Subject: x\r\n\r\nThe test is {GTUBE}\r\n");
    assert_eq!(scan_with(None, body.as_bytes()).await.verdict, Verdict::Fail);
    let header = format!("Subject: {GTUBE}\r\n\r\nThe body has it not.\r\n");
    assert_eq!(scan_with(None, header.as_bytes()).await.verdict, Verdict::Disabled);
    assert_eq!(scan_with(None, b"").await.verdict, Verdict::Disabled);
}

#[tokio::test]
async fn rspamd_is_asked_in_its_own_words() {
    let body = r#"{"score":1.5,"required_score":15.0,"action":"no action","symbols":{}}"#;
    let (outcome, served) = ask(ScannerKind::Rspamd, http("200 OK", body)).await;
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!((outcome.score, outcome.required), (Some(1.5), Some(15.0)));
    let question = String::from_utf8(served.await.unwrap()).unwrap();
    let (head, message) = question.split_once("\r\n\r\n").unwrap();
    assert_eq!(message.as_bytes(), MESSAGE);
    let mut lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
    assert_eq!(lines.remove(0), "post /checkv2 http/1.1");
    for line in [
        "ip: 192.0.2.1",
        "helo: mail.example.test",
        "from: a@example.test",
        "rcpt: bob@example.org",
        "rcpt: eve@example.org",
        "queue-id: 01935a2f-0000-7000-8000-000000000001",
        "content-length: 32",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line} is not in {lines:?}");
    }
}

#[tokio::test]
async fn rspamd_actions_become_verdicts() {
    for (action, verdict) in [
        ("reject", Verdict::Fail),
        ("add header", Verdict::Fail),
        ("rewrite subject", Verdict::Fail),
        ("greylist", Verdict::Gray),
        ("soft reject", Verdict::Gray),
        ("no action", Verdict::Pass),
        ("quarantine", Verdict::ProcessingFailed),
    ] {
        let body = format!(r#"{{"action":"{action}","score":7}}"#);
        check(ScannerKind::Rspamd, http("200 OK", &body), verdict, action).await;
    }
}

#[tokio::test]
async fn a_broken_rspamd_is_processing_failed() {
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{".to_vec();
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}".to_vec();
    for (behaviour, detail) in [
        (http("500 Internal Server Error", "{}"), "500"),
        (http("200 OK", "nonsense"), "cannot be read"),
        (http("200 OK", r#"{"error":"no"}"#), "cannot be read"),
        (http("200 OK", ""), "cannot be read"),
        (Behaviour::Answer(b"SPAMD/1.1 0 EX_OK\r\n\r\n".to_vec()), "broke off"),
        (Behaviour::Answer(short), "broke off"),
        (Behaviour::Endless(endless), "longer than"),
        (Behaviour::HangUp, "broke off"),
        (Behaviour::Silence, "in time"),
    ] {
        check(ScannerKind::Rspamd, behaviour, Verdict::ProcessingFailed, detail).await;
    }
}

#[tokio::test]
async fn spamd_is_asked_in_its_own_words() {
    let answer = spamd("SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.2 / 5.0\r\n", "BAYES_99,GTUBE\r\n");
    let (outcome, served) = ask(ScannerKind::Spamd, answer).await;
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!((outcome.score, outcome.required), (Some(15.2), Some(5.0)));
    assert_eq!(outcome.detail, "spamd: BAYES_99,GTUBE");
    let question = String::from_utf8(served.await.unwrap()).unwrap();
    let expected = "SYMBOLS SPAMC/1.5\r\nContent-length: 32\r\nUser: mailweir\r\n\r\n";
    assert_eq!(question.strip_prefix(expected).unwrap().as_bytes(), MESSAGE);
}

#[tokio::test]
async fn spamd_answers_become_verdicts() {
    for (line, verdict) in [
        ("Spam: True ; 15 / 5", Verdict::Fail),
        ("Spam: Yes ; 5.0 / 5.0", Verdict::Fail),
        ("Spam: False ; -2.1 / 5.0", Verdict::Pass),
        ("spam: False ; 0 / 5", Verdict::Pass),
        ("Spam: Maybe ; 1 / 5", Verdict::ProcessingFailed),
        ("Spam: True ; NaN / inf", Verdict::ProcessingFailed),
        ("Spam: True", Verdict::ProcessingFailed),
        ("X: y", Verdict::ProcessingFailed),
    ] {
        let answer = spamd(&format!("SPAMD/1.1 0 EX_OK\r\n{line}\r\n"), "");
        check(ScannerKind::Spamd, answer, verdict, "").await;
    }
}

#[tokio::test]
async fn a_broken_spamd_is_processing_failed() {
    for (behaviour, detail) in [
        (spamd("SPAMD/1.1 76 Bad header line\r\n", ""), "76"),
        (Behaviour::Answer(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), "cannot be read"),
        (Behaviour::Answer(b"SPAMD/1.1 0 EX_OK\r\nSpam: Tr".to_vec()), "cannot be read"),
        (Behaviour::Answer(vec![0xff; 100]), "cannot be read"),
        (Behaviour::Endless(b"SPAMD/1.1 0 EX_OK\r\n".to_vec()), "longer than"),
        (Behaviour::HangUp, "cannot be read"),
        (Behaviour::Silence, "in time"),
    ] {
        check(ScannerKind::Spamd, behaviour, Verdict::ProcessingFailed, detail).await;
    }
}

#[tokio::test]
async fn a_scanner_that_is_not_there_is_processing_failed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for kind in [ScannerKind::Rspamd, ScannerKind::Spamd] {
        let started = Instant::now();
        let outcome = scan_with(Some(&Settings::new(kind, address.clone())), MESSAGE).await;
        assert_eq!(outcome.verdict, Verdict::ProcessingFailed);
        assert!(outcome.detail.contains("cannot be reached"), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn messages_above_the_limit_are_not_scanned() {
    let settings =
        Settings { max_bytes: 10, ..Settings::new(ScannerKind::Rspamd, "127.0.0.1:1".to_owned()) };
    assert_eq!(scan_with(Some(&settings), MESSAGE).await.verdict, Verdict::Disabled);
}

#[tokio::test]
async fn what_is_kept_reads_back_the_same() {
    let outcome = scan_with(None, MESSAGE).await;
    let json = serde_json::to_string(&outcome).unwrap();
    assert_eq!(serde_json::from_str::<ScanOutcome>(&json).unwrap(), outcome);
}
