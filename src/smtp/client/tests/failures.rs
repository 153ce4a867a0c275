//! Every failure at every stage: what a bad server does, and what is told of the recipient.

use std::time::Duration;

use tokio::time::Instant;

use super::peer::{Message, Peers, endpoint, open, outcome};
use crate::smtp::client::TlsDemand;

/// What leads to each stage, at a server that offers nothing.
const STAGES: [(&str, &str); 6] = [
    ("banner", ""),
    ("EHLO", "S: 220 mx.example.test\nC: EHLO client.test\n"),
    ("MAIL", "S: 250 mx.example.test\nC: MAIL FROM:<a@client.test>\n"),
    ("RCPT", "S: 250 ok\nC: RCPT TO:<b@example.test>\n"),
    ("DATA", "S: 250 ok\nC: DATA\n"),
    ("end of DATA", "S: 354 go on\n!dot\n"),
];

/// The dialogue up to where the server is to answer at this stage.
fn up_to(stage: &str) -> String {
    let last = STAGES.iter().position(|(name, _)| *name == stage).expect("a stage");
    STAGES[..=last].iter().map(|(_, lines)| *lines).collect()
}

async fn told(stage: &str, server: &str) -> String {
    let script = format!("{}{server}", up_to(stage));
    let told = outcome(Peers::new(&[&script]), &Message::to(&["b@example.test"])).await;
    assert_eq!(told.len(), 1);
    told.concat()
}

/// What the server does at each stage but the last, what the client says of it, and how long that
/// takes at most.
const FAULTS: [(&str, &str, &str); 7] = [
    ("!close", "4.4.2", "the server closed the connection"),
    ("!stall", "4.4.2", "the server took too long"),
    ("S: hello?\n!stall", "4.5.0", "the server does not speak SMTP: a line is not a reply"),
    ("S: 25O ok\n!stall", "4.5.0", "the server does not speak SMTP: a line is not a reply"),
    (
        "S: 250-ok\nS: 251 ok\n!stall",
        "4.5.0",
        "the server does not speak SMTP: a reply has two codes",
    ),
    (
        "S= LONG\n!stall",
        "4.5.0",
        "the server does not speak SMTP: a line is longer than 4096 octets",
    ),
    ("S: MANY\n!stall", "4.5.0", "the server does not speak SMTP: a reply has more than 100 lines"),
];

fn expanded(server: &str) -> String {
    let many = vec!["250-more"; 101].join("\nS: ");
    server.replace("LONG", &format!("250 {}", "x".repeat(5000))).replace("MANY", &many)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_before_the_envelope_is_an_error() {
    for stage in ["banner", "EHLO", "MAIL"] {
        for (server, _, text) in FAULTS {
            assert_eq!(
                told(stage, &expanded(server)).await,
                format!("{stage}: {text}"),
                "{server}"
            );
        }
        let closing = "S: 421 4.3.2 not now\n!close";
        assert_eq!(told(stage, closing).await, format!("{stage}: 421 4.3.2 not now"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_within_the_transaction_defers() {
    for (stage, maybe) in [("RCPT", ""), ("DATA", ""), ("end of DATA", " maybe delivered")] {
        for (server, status, text) in FAULTS {
            let expected = format!("deferred: {status} {text} (mx.example.test, {stage}){maybe}");
            assert_eq!(told(stage, &expanded(server)).await, expected, "{server}");
        }
        // Whoever says 421 has not taken the message.
        let expected = format!("deferred: 421 4.3.2 not now (mx.example.test, {stage})");
        assert_eq!(told(stage, "S: 421 4.3.2 not now\n!close").await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_as_the_server_said_them() {
    for (stage, server, expected) in [
        ("banner", "S: 554 5.7.1 not you\n!close", "banner: 554 5.7.1 not you"),
        ("banner", "S: 450 later\nC: QUIT\nS: 221 bye", "banner: 450 later"),
        ("EHLO", "S: 451 4.7.1 later\nC: QUIT\nS: 221 bye", "EHLO: 451 4.7.1 later"),
        (
            "EHLO",
            "S: 550 no\nC: HELO client.test\nS: 550 never\nC: QUIT\nS: 221 bye",
            "EHLO: 550 never",
        ),
        ("MAIL", "S: 450 x\n!accept", "deferred: 450 x (mx.example.test, MAIL)"),
        ("MAIL", "S: 550 x\n!accept", "failed: 550 x (mx.example.test, MAIL)"),
        ("RCPT", "S: 450 4.2.2 x\n!accept", "deferred: 450 4.2.2 x (mx.example.test, RCPT)"),
        ("RCPT", "S: 550 4.2.2 x\n!accept", "failed: 550 4.2.2 x (mx.example.test, RCPT)"),
        ("DATA", "S: 450 4.3.0 x\n!accept", "deferred: 450 4.3.0 x (mx.example.test, DATA)"),
        ("DATA", "S: 554 5.5.1 x\n!accept", "failed: 554 5.5.1 x (mx.example.test, DATA)"),
        (
            "end of DATA",
            "S: 452 4.3.1 x\n!accept",
            "deferred: 452 4.3.1 x (mx.example.test, end of DATA)",
        ),
        (
            "end of DATA",
            "S: 552 5.3.4 x\n!accept",
            "failed: 552 5.3.4 x (mx.example.test, end of DATA)",
        ),
        (
            "end of DATA",
            "S: 550-5.7.1 \x07bad\r\nS: 550 5.7.1 w\u{f6}rds\n!accept",
            "failed: 550 5.7.1 ?bad w\u{f6}rds (mx.example.test, end of DATA)",
        ),
    ] {
        assert_eq!(told(stage, server).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_mean_nothing_are_neither_yes_nor_no() {
    let text = "the server gave an answer that means nothing here";
    for stage in ["banner", "EHLO", "MAIL"] {
        assert_eq!(told(stage, "S: 334 x\n!accept").await, format!("{stage}: {text}: 334 x"));
    }
    for (stage, code, maybe) in
        [("RCPT", 354, ""), ("DATA", 250, ""), ("end of DATA", 354, " maybe delivered")]
    {
        let expected =
            format!("deferred: 4.5.0 {text}: {code} x (mx.example.test, {stage}){maybe}");
        assert_eq!(told(stage, &format!("S: {code} x\n!accept")).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_before_it_is_asked_is_not_believed() {
    let text = "the server spoke before it was asked";
    let early = "S: 220 mx.example.test\nS: 250 mx.example.test\n!stall";
    assert_eq!(told("banner", early).await, format!("EHLO: {text}"));
    // A 250 that comes before the content would else be taken for the answer to it.
    let early = "S: 354 go on\nS: 250 queued\n!stall";
    let expected = format!("deferred: 4.5.0 {text} (mx.example.test, content)");
    assert_eq!(told("DATA", early).await, expected);
    let refused = "S: 354 go on\nS: 554 5.7.1 on second thoughts\n!close";
    let expected = "failed: 554 5.7.1 on second thoughts (mx.example.test, content)";
    assert_eq!(told("DATA", refused).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_within_the_content_delivers_nothing() {
    let mut message = Message::to(&["b@example.test"]);
    message.content = b"Subject: large\r\n\r\n".repeat(50_000);
    let script = format!("{}S: 354 go on\nC: Subject: large\n!close", up_to("DATA"));
    let told = outcome(Peers::new(&[&script]), &message).await;
    let closed = "the server closed the connection";
    assert_eq!(told, [format!("deferred: 4.4.2 {closed} (mx.example.test, content)")]);
    // It has enough of it, says so and closes: what it said counts.
    let enough = "S: 354 go on\nC: Subject: large\nS: 552 5.3.4 too large\n!close";
    let told = outcome(Peers::new(&[&format!("{}{enough}", up_to("DATA"))]), &message).await;
    assert_eq!(told, ["failed: 552 5.3.4 too large (mx.example.test, content)"]);
    let script = format!("{}S: 354 go on\n!sleep", up_to("DATA"));
    let told = outcome(Peers::new(&[&script]), &message).await;
    assert_eq!(told, ["deferred: 4.4.2 the server took too long (mx.example.test, content)"]);
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_the_length_that_rfc_5321_gives_it() {
    for (stage, expected) in [
        ("banner", 5 * 60),
        ("EHLO", 5 * 60),
        ("MAIL", 5 * 60),
        ("RCPT", 5 * 60),
        ("DATA", 2 * 60),
        ("end of DATA", 10 * 60),
    ] {
        let start = Instant::now();
        told(stage, "!stall").await;
        assert_eq!(start.elapsed().as_secs(), expected, "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drips_has_no_more_time_for_it() {
    let start = Instant::now();
    assert_eq!(told("MAIL", "!drip").await, "MAIL: the server took too long");
    assert!(start.elapsed() < Duration::from_secs(5 * 60 + 2), "took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_has_an_end_however_each_answer_comes_in_time() {
    let names: Vec<String> = (0..20).map(|number| format!("r{number}@example.test")).collect();
    let rcpt = |name: &String| format!("C: RCPT TO:<{name}>\n!wait\nS: 250 ok\n");
    let rcpt: String = names.iter().map(rcpt).collect();
    let peers = Peers::new(&[&format!("{}S: 250 ok\n{rcpt}", up_to("MAIL"))]);
    let opened = open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await;
    let mut connection = opened.expect("opens");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let start = Instant::now();
    let outcomes = Message::to(&names).send(&mut connection).await.expect("MAIL is answered");
    assert_eq!(start.elapsed().as_secs(), 3600);
    let late = "deferred: 4.4.2 the server took too long (mx.example.test, RCPT)";
    assert_eq!(super::peer::told(&outcomes), [late; 20]);
    assert!(!connection.can_be_reused());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_named_as_such() {
    let error = open(&Peers::new(&[]), &endpoint(), &TlsDemand::Opportunistic, None)
        .await
        .expect_err("nobody is there");
    assert_eq!(error.to_string(), "connection: cannot connect: connection refused");
    let failure = error.failure(&endpoint());
    assert_eq!((failure.enhanced.to_string().as_str(), failure.code), ("4.4.1", None));
    assert!(!error.is_permanent());
}
