//! Whole dialogues: what the client says, and what it makes of the answers.

use proptest::prelude::*;

use super::peer::{Message, Peers, endpoint, open, outcome, told};
use crate::mail::{Address, DsnNotify, DsnReturn, ReversePath};
use crate::smtp::client::{Outcome, TlsDemand};

/// Up to the transaction, at a server that offers nothing.
const PLAIN: &str = "
    S: 220 mx.example.test ESMTP
    C: EHLO client.test
    S: 250 mx.example.test
";
/// Up to the transaction, at a server that offers everything but TLS.
const FULL: &str = "
    S: 220 mx.example.test ESMTP
    C: EHLO client.test
    S: 250-mx.example.test at your service
    S: 250-PIPELINING
    S: 250-SIZE 10000
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-ENHANCEDSTATUSCODES
    S: 250-LIMITS MAILMAX=10 RCPTMAX=2
    S: 250 DSN
";
/// The message's content, and leave.
const CONTENT: &str = "
    C: Subject: x
    C:
    C: hello
    C: ..
    C: bye
    C: .
";
const QUIT: &str = "
    C: QUIT
    S: 221 bye
";

async fn check(script: &[&str], message: &Message, expected: &[&str]) {
    let script = script.concat();
    assert_eq!(outcome(Peers::new(&[&script]), message).await, expected, "{script}");
}

#[tokio::test(start_paused = true)]
async fn without_extensions_each_command_waits_for_its_answer() {
    let envelope = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: RCPT TO:<c@example.test>
        S: 550 5.1.1 no such user
        C: RCPT TO:<d@example.test>
        S: 451 4.7.1 come back later
        C: DATA
        S: 354 go on
    ";
    let message = Message::to(&["b@example.test", "c@example.test", "d@example.test"]);
    check(
        &[PLAIN, envelope, CONTENT, "S: 250 2.0.0 queued as 17\n", QUIT],
        &message,
        &[
            "sent: 250 2.0.0 queued as 17",
            "failed: 550 5.1.1 no such user (mx.example.test, RCPT)",
            "deferred: 451 4.7.1 come back later (mx.example.test, RCPT)",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_pipelining_the_envelope_is_said_at_once() {
    let envelope = "
        C: MAIL FROM:<a@client.test> SIZE=29
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C: DATA
        S: 250 2.1.0 ok
        S: 550 5.1.1 no such user
        S: 250 2.1.5 ok
        S: 354 go on
    ";
    let message = Message::to(&["b@example.test", "c@example.test"]);
    check(
        &[FULL, envelope, CONTENT, "S: 250-2.0.0 queued\nS: 250 2.0.0 as 17\n", QUIT],
        &message,
        &["failed: 550 5.1.1 no such user (mx.example.test, RCPT)", "sent: 250 2.0.0 queued as 17"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn helo_follows_where_ehlo_is_not_known() {
    let hello = "
        S: 220 old.example.test
        C: EHLO client.test
        S: 500 what?
        C: HELO client.test
        S: 250 hello
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 251 will forward
        C: DATA
        S: 354 go on
    ";
    let message = Message::to(&["b@example.test"]);
    check(&[hello, CONTENT, "S: 250 ok\n", QUIT], &message, &["sent: 250 ok"]).await;
}

#[tokio::test(start_paused = true)]
async fn when_nobody_is_accepted_no_content_is_sent() {
    let message = Message::to(&["b@example.test"]);
    let refused = &["failed: 550 5.1.1 no (mx.example.test, RCPT)"];
    let alone = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 550 5.1.1 no
        C: RSET
        S: 250 ok
    ";
    check(&[PLAIN, alone, QUIT], &message, refused).await;
    let pipelined = "
        C: MAIL FROM:<a@client.test> SIZE=29
        C: RCPT TO:<b@example.test>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 no
    ";
    let data_refused = "
        S: 503 5.5.1 no recipients
        C: RSET
        S: 250 ok
    ";
    check(&[FULL, pipelined, data_refused, QUIT], &message, refused).await;
    // RFC 2920 §3.1
    let data_accepted = "
        S: 354 go on
        C: .
        S: 554 5.5.1 no recipients
        C: RSET
        S: 250 ok
    ";
    check(&[FULL, pipelined, data_accepted, QUIT], &message, refused).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_is_refused_for_everybody() {
    let message = Message::to(&["b@example.test", "c@example.test"]);
    let refused = &["failed: 550 5.7.1 go away (mx.example.test, MAIL)"; 2];
    let alone = "
        C: MAIL FROM:<a@client.test>
        S: 550 5.7.1 go away
        C: RSET
        S: 250 ok
    ";
    check(&[PLAIN, alone, QUIT], &message, refused).await;
    let pipelined = "
        C: MAIL FROM:<a@client.test> SIZE=29
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C: DATA
        S: 550 5.7.1 go away
        S: 503 5.5.1 MAIL first
        S: 503 5.5.1 MAIL first
        S: 503 5.5.1 MAIL first
        C: RSET
        S: 250 ok
    ";
    check(&[FULL, pipelined, QUIT], &message, refused).await;
}

#[tokio::test(start_paused = true)]
async fn refused_content_is_refused_for_those_who_were_accepted() {
    let message = Message::to(&["b@example.test", "c@example.test"]);
    let envelope = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 450 4.2.1 later
        C: RCPT TO:<c@example.test>
        S: 250 ok
        C: DATA
    ";
    let later = "deferred: 450 4.2.1 later (mx.example.test, RCPT)";
    check(
        &[PLAIN, envelope, "S: 354 go on\n", CONTENT, "S: 554 5.7.1 spam\n", QUIT],
        &message,
        &[later, "failed: 554 5.7.1 spam (mx.example.test, end of DATA)"],
    )
    .await;
    check(
        &[PLAIN, envelope, "S: 451 4.3.0 not now\nC: RSET\nS: 250 ok\n", QUIT],
        &message,
        &[later, "deferred: 451 4.3.0 not now (mx.example.test, DATA)"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn beyond_the_servers_number_of_recipients_everybody_is_deferred() {
    let message = Message::to(&["b@example.test", "c@example.test", "d@example.test"]);
    for (answer, text) in [
        ("452 4.5.3 enough", "452 4.5.3 enough"),
        ("452 enough", "452 enough"),
        ("552 enough", "552 enough"),
        ("552 5.5.3 enough", "552 5.5.3 enough"),
    ] {
        let envelope = format!(
            "
            C: MAIL FROM:<a@client.test>
            S: 250 ok
            C: RCPT TO:<b@example.test>
            S: 250 ok
            C: RCPT TO:<c@example.test>
            S: {answer}
            C: DATA
            S: 354 go on
        "
        );
        let enough = format!("deferred: {text} (mx.example.test, RCPT)");
        check(
            &[PLAIN, &envelope, CONTENT, "S: 250 ok\n", QUIT],
            &message,
            &["sent: 250 ok", &enough, &enough],
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_not_too_many_recipients() {
    let message = Message::to(&["b@example.test"]);
    for (answer, expected) in [
        ("552 5.2.2 full", "failed: 552 5.2.2 full (mx.example.test, RCPT)"),
        ("552 full", "failed: 552 full (mx.example.test, RCPT)"),
        ("452 4.2.2 full", "deferred: 452 4.2.2 full (mx.example.test, RCPT)"),
    ] {
        let envelope = format!(
            "
            C: MAIL FROM:<a@client.test>
            S: 250 ok
            C: RCPT TO:<b@example.test>
            S: {answer}
            C: RSET
            S: 250 ok
        "
        );
        check(&[PLAIN, &envelope, QUIT], &message, &[expected]).await;
    }
}

fn with_dsn(mut message: Message) -> Message {
    message.parameters.ret = Some(DsnReturn::Headers);
    message.parameters.envid = Some("id+1 =".to_owned());
    let recipient = &mut message.recipients[0].parameters;
    recipient.notify = Some(DsnNotify { success: true, delay: true, ..DsnNotify::default() });
    recipient.orcpt = Some("rfc822;b+c@old.test".to_owned());
    message
}

#[tokio::test(start_paused = true)]
async fn dsn_requests_go_to_servers_that_know_them_and_the_caller_learns_it() {
    let mut message = with_dsn(Message::to(&["b@example.test", "c@example.test"]));
    let never = DsnNotify { never: true, ..DsnNotify::default() };
    message.recipients[1].parameters.notify = Some(never);
    message.recipients[1].parameters.orcpt = Some("utf-8;ü\\@old.test".to_owned());
    let full = "
        C: MAIL FROM:<a@client.test> SIZE=29 RET=HDRS ENVID=id+2B1+20+3D
        C: RCPT TO:<b@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@old.test
        C: RCPT TO:<c@example.test> NOTIFY=NEVER ORCPT=utf-8;\\x{FC}\\x{5C}@old.test
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go on
    ";
    let plain = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: RCPT TO:<c@example.test>
        S: 250 ok
        C: DATA
        S: 354 go on
    ";
    for (hello, envelope, passed_on) in [(FULL, full, true), (PLAIN, plain, false)] {
        let script = [hello, envelope, CONTENT, "S: 250 ok\n"].concat();
        let peers = Peers::new(&[&script]);
        let mut connection =
            open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
        let outcomes = message.send(&mut connection).await.expect("sends");
        let Outcome::Sent(receipt) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(receipt.dsn_passed_on, passed_on);
        assert_eq!((receipt.remote.as_str(), &receipt.tls), ("mx.example.test", &None));
        peers.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn eight_bit_content_is_declared_where_that_is_known_and_sent_anywhere() {
    let mut message = Message::to(&["b@example.test"]);
    message.content = "Subject: x\r\n\r\né\r\n".as_bytes().to_vec();
    let content = "
        C: Subject: x
        C:
        C: é
        C: .
        S: 250 ok
    ";
    let full = "
        C: MAIL FROM:<a@client.test> SIZE=18 BODY=8BITMIME
        C: RCPT TO:<b@example.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go on
    ";
    check(&[FULL, full, content, QUIT], &message, &["sent: 250 ok"]).await;
    let plain = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: DATA
        S: 354 go on
    ";
    check(&[PLAIN, plain, content, QUIT], &message, &["sent: 250 ok"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_needs_smtputf8_fails_at_servers_without_it() {
    let text = "5.6.7 an address or a header is in UTF-8, which the server does not support";
    let failed = format!("failed: {text} (mx.example.test, MAIL)");
    // A recipient in UTF-8 concerns nobody else.
    let message = Message::to(&["ü@example.test", "b@example.test"]);
    let other = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: DATA
        S: 354 go on
    ";
    let other = [PLAIN, other, CONTENT, "S: 250 ok\n", QUIT];
    check(&other, &message, &[&failed, "sent: 250 ok"]).await;
    // The sender and the header concern everybody, and nothing need be asked.
    let mut sender = Message::to(&["b@example.test"]);
    sender.reverse_path = ReversePath::Address(Address::parse("ä@client.test").expect("valid"));
    check(&[PLAIN, QUIT], &sender, &[&failed]).await;
    let mut header = Message::to(&["b@example.test"]);
    header.content = "Subject: ö\r\n\r\nhello\r\n".as_bytes().to_vec();
    header.parameters.smtputf8 = true;
    check(&[PLAIN, QUIT], &header, &[&failed]).await;

    let with = "
        C: MAIL FROM:<ä@client.test> SIZE=29 SMTPUTF8
        C: RCPT TO:<b@example.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go on
    ";
    check(&[FULL, with, CONTENT, "S: 250 ok\n", QUIT], &sender, &["sent: 250 ok"]).await;
}

#[tokio::test(start_paused = true)]
async fn smtputf8_that_is_not_needed_is_not_asked_for() {
    let mut message = Message::to(&["b@example.test"]);
    message.parameters.smtputf8 = true;
    let envelope = "
        C: MAIL FROM:<a@client.test>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: DATA
        S: 354 go on
    ";
    check(&[PLAIN, envelope, CONTENT, "S: 250 ok\n", QUIT], &message, &["sent: 250 ok"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_servers_limit_is_not_sent() {
    let mut message = Message::to(&["b@example.test"]);
    message.content = vec![b'x'; 9_999];
    let text = "the message of 10001 octets is larger than the server's limit of 10000";
    let failed = format!("failed: 5.3.4 {text} (mx.example.test, MAIL)");
    check(&[FULL, QUIT], &message, &[&failed]).await;
}

#[tokio::test(start_paused = true)]
async fn the_null_path_is_said_as_such() {
    let mut message = Message::to(&["b@example.test"]);
    message.reverse_path = ReversePath::Null;
    let envelope = "
        C: MAIL FROM:<>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 250 ok
        C: DATA
        S: 354 go on
    ";
    check(&[PLAIN, envelope, CONTENT, "S: 250 ok\n", QUIT], &message, &["sent: 250 ok"]).await;
}

/// A transaction that goes well without extensions.
const GOOD: &str = "
    C: MAIL FROM:<a@client.test>
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C: DATA
    S: 354 go on
    C: Subject: x
    C:
    C: hello
    C: ..
    C: bye
    C: .
    S: 250 ok
";

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_after_success_and_after_failure() {
    let refused = "
        C: MAIL FROM:<a@client.test>
        S: 450 4.0.0 no
        C: RSET
        S: 250 ok
    ";
    let script = [PLAIN, GOOD, refused, GOOD, QUIT].concat();
    let peers = Peers::new(&[&script]);
    let mut connection =
        open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
    let message = Message::to(&["b@example.test"]);
    for expected in
        ["sent: 250 ok", "deferred: 450 4.0.0 no (mx.example.test, MAIL)", "sent: 250 ok"]
    {
        assert!(connection.can_be_reused());
        let outcomes = message.send(&mut connection).await.expect("sends");
        assert_eq!(told(&outcomes), [expected]);
    }
    connection.quit().await;
    peers.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_meanwhile_hands_nothing_over() {
    for (end, expected) in [
        ("!close", "MAIL: the server closed the connection"),
        ("S: 421 4.4.2 idle for too long\n!close", "MAIL: 421 4.4.2 idle for too long"),
        ("S: 250 whatever\n!stall", "MAIL: the server spoke before it was asked"),
    ] {
        let peers = Peers::new(&[&[PLAIN, GOOD, end].concat()]);
        let mut connection =
            open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
        let message = Message::to(&["b@example.test"]);
        message.send(&mut connection).await.expect("sends");
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let error = message.send(&mut connection).await.expect_err("nothing is handed over");
        assert_eq!(error.to_string(), expected);
        assert!(!connection.can_be_reused());
        drop(connection);
        peers.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_many_transactions_there_is_a_new_connection() {
    let script = [PLAIN, &GOOD.repeat(100)].concat();
    let peers = Peers::new(&[&script]);
    let mut connection =
        open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
    let message = Message::to(&["b@example.test"]);
    for _ in 0..100 {
        assert!(connection.can_be_reused());
        message.send(&mut connection).await.expect("sends");
    }
    assert!(!connection.can_be_reused());
    peers.finish().await;
    let few = PLAIN.replace("250 mx.example.test", "250-mx.example.test\nS: 250 LIMITS MAILMAX=1");
    let peers = Peers::new(&[&[&few, GOOD].concat()]);
    let mut connection =
        open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
    message.send(&mut connection).await.expect("sends");
    assert!(!connection.can_be_reused());
    peers.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn however_the_servers_bytes_are_cut_the_same_comes_of_it(
        seed in any::<[u8; 4]>(),
        answers in prop::collection::vec(
            prop::sample::select(vec![
                "250 ok", "250-2.1.5 a\r\nS: 250 2.1.5 b", "550 5.1.1 no", "452 4.5.3 enough",
                "451-later\r\nS: 451 later", "421 4.3.2 closing", "bad", "354 what", "250-a\r\nS: 251 b",
            ]),
            5,
        ),
    ) {
        let [mail, first, second, data, end] = answers.try_into().expect("five");
        // What nobody asked for comes in time to be seen, or does not.
        let data = data.lines().next().unwrap_or_default();
        let script = [
            FULL,
            "C: MAIL FROM:<a@client.test> SIZE=29\nC: RCPT TO:<b@example.test>\n",
            "C: RCPT TO:<c@example.test>\nC: DATA\n",
            &format!("S: {mail}\nS: {first}\nS: {second}\nS: 354 {data}\n!dot\nS: {end}\n!close"),
        ]
        .concat();
        let message = Message::to(&["b@example.test", "c@example.test"]);
        let told = |peers| crate::fuzz::run(async { outcome(peers, &message).await });
        let whole = told(Peers::new(&[&script]));
        prop_assert_eq!(told(Peers::new(&[&script]).cut(seed)), whole);
    }
}
