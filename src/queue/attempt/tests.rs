//! Attempts against scripted peers on loopback: which servers are tried, and for whom.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::mail::{Address, MailParameters, RcptParameters, ReversePath};
use crate::smtp::client::tests::peer::{Listening, told};
use crate::smtp::client::{TlsDemand, any_certificate};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HELLO: &str = "S: 220 mx\nC: EHLO client.test\nS: 250 mx\n";
const PIPELINING: &str = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 PIPELINING\n";
const QUIT: &str = "C: QUIT\nS: 221 bye\n";
const CONTENT: &str = "C: hello\nC: .\n";

/// A transaction for one recipient that goes well.
fn good(recipient: &str) -> String {
    format!(
        "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<{recipient}@example.test>\n\
         S: 250 ok\nC: DATA\nS: 354 go on\n{CONTENT}S: 250 {recipient} queued\n"
    )
}

async fn server(scripts: &[&str]) -> Listening {
    Listening::on(LOOPBACK, scripts).await
}

fn hop(name: &str, listening: &Listening) -> Hop {
    Hop {
        name: name.to_owned(),
        addresses: vec![listening.address.ip()],
        port: listening.address.port(),
        tls: TlsDemand::Opportunistic,
        implicit_tls: false,
        credentials: None,
    }
}

/// A server at which nobody listens.
async fn dead(name: &str) -> Hop {
    hop(name, &server(&[]).await)
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |name: &&str| EnvelopeRecipient {
        address: Address::parse(&format!("{name}@example.test")).expect("valid"),
        parameters: RcptParameters::default(),
    };
    Envelope {
        reverse_path: ReversePath::Address(Address::parse("a@client.test").expect("valid")),
        parameters: MailParameters::default(),
        recipients: recipients.iter().map(recipient).collect(),
    }
}

/// The queue's worker runs attempts as tasks.
fn is_send<F: Future + Send>(future: F) -> F {
    future
}

async fn tried(route: &[Hop], recipients: &[&str], reuse: Option<Connection>) -> Attempt {
    tried_within(Timeouts::default(), route, recipients, reuse).await
}

async fn tried_within(
    timeouts: Timeouts,
    route: &[Hop],
    recipients: &[&str],
    reuse: Option<Connection>,
) -> Attempt {
    let envelope = envelope(recipients);
    let job = Job { envelope: &envelope, content: &[b"hello\r\n"] };
    let settings =
        ClientSettings { hello_name: Domain::parse("client.test").expect("valid"), timeouts };
    let route = Route::complete(route.to_vec());
    is_send(attempt(&route, &job, &settings, reuse)).await
}

/// What comes of `b` at these servers, each with its one script; every script is followed to its
/// end, and a server without one is not connected to.
async fn check(scripts: &[&str], expected: &str) {
    let (mut servers, mut route) = (Vec::new(), Vec::new());
    for (number, script) in scripts.iter().enumerate() {
        let listening =
            server(if script.is_empty() { &[] } else { std::slice::from_ref(script) }).await;
        route.push(hop(&format!("mx{}.test", number + 1), &listening));
        servers.push(listening);
    }
    let attempt = tried(&route, &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), [expected], "{scripts:?}");
    if let Some(connection) = attempt.connection {
        connection.quit().await;
    }
    for listening in servers {
        listening.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_is_of_no_use_is_followed_by_the_next() {
    let works = [HELLO, &good("b"), QUIT].concat();
    let refuses_sender =
        [HELLO, "C: MAIL FROM:<a@client.test>\nS: 451 4.3.2 busy\n!accept"].concat();
    let closes =
        [HELLO, "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<b@example.test>\n"].concat();
    let loses_content = [
        HELLO,
        "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<b@example.test>\nS: 250 ok\n",
        "C: DATA\nS: 421 4.3.2 closing\n",
    ]
    .concat();
    for useless in [
        "S: 450 4.3.2 busy\n!accept",
        "S: 554 5.7.1 not you\n!accept",
        "S: 421 4.3.2 closing",
        "S: this is not SMTP",
        "!close",
        "S: 220 mx\nC: EHLO client.test\nS: 451 later\n!accept",
        &refuses_sender,
        &closes,
        &loses_content,
    ] {
        check(&[useless, &works], "sent: 250 b queued").await;
    }
}

#[tokio::test]
async fn what_a_server_says_of_recipient_or_content_stands() {
    let rcpt = "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<b@example.test>\n";
    for (answer, expected) in [
        ("S: 550 5.1.1 no\n!accept", "failed: 550 5.1.1 no (mx1.test, RCPT)"),
        ("S: 450 4.2.2 full\n!accept", "deferred: 450 4.2.2 full (mx1.test, RCPT)"),
        (
            "S: 250 ok\nC: DATA\nS: 354 go on\n!dot\nS: 554 5.7.1 spam\n!accept",
            "failed: 554 5.7.1 spam (mx1.test, end of DATA)",
        ),
        // It may have the message, so nobody else gets it now.
        (
            "S: 250 ok\nC: DATA\nS: 354 go on\n!dot\n!close",
            "deferred: 4.4.2 the server closed the connection (mx1.test, end of DATA) maybe delivered",
        ),
    ] {
        check(&[&[HELLO, rcpt, answer].concat(), ""], expected).await;
    }
    let sender = [HELLO, "C: MAIL FROM:<a@client.test>\nS: 550 5.7.1 no\n!accept"].concat();
    check(&[&sender, ""], "failed: 550 5.7.1 no (mx1.test, MAIL)").await;
}

#[tokio::test]
async fn if_no_server_is_of_use_the_message_waits_unless_all_refuse_for_good() {
    let (never, later) = ("S: 554 5.7.1 never\n!accept", "S: 450 4.7.1 later\n!accept");
    check(&[never, never], "failed: 554 5.7.1 never (mx2.test, banner)").await;
    check(&[never, later], "deferred: 450 4.7.1 later (mx2.test, banner)").await;
    check(&[later, never], "deferred: 450 4.7.1 later (mx1.test, banner)").await;
    let attempt = tried(&[], &["b", "c"], None).await;
    let nobody = "deferred: 4.4.4 there is no server left to try (, connection)";
    assert_eq!(told(&attempt.outcomes), [nobody, nobody]);
}

#[tokio::test]
async fn a_dead_server_and_one_without_the_tls_that_is_demanded_are_passed_over() {
    let plain = server(&[HELLO]).await;
    let mut demanding = hop("plain.test", &plain);
    demanding.tls = TlsDemand::Verified(any_certificate(), "plain.test".to_owned());
    let works = server(&[&[HELLO, &good("b"), QUIT].concat()]).await;
    let route = [dead("dead.test").await, demanding, hop("works.test", &works)];
    let attempt = tried(&route, &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued"]);
    attempt.connection.expect("is kept").quit().await;
    plain.finish().await;
    works.finish().await;
    let attempt = tried(&route[..1], &["b"], None).await;
    let told = told(&attempt.outcomes);
    assert!(told[0].starts_with("deferred: 4.4.1 cannot connect: "), "{told:?}");
}

#[tokio::test]
async fn every_address_of_a_server_is_tried() {
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let works = Listening::on(other, &[&[HELLO, &good("b"), QUIT].concat()]).await;
    let mut route = hop("two.test", &works);
    route.addresses.insert(0, LOOPBACK);
    let attempt = tried(&[route], &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued"]);
    attempt.connection.expect("is kept").quit().await;
    works.finish().await;
}

#[tokio::test]
async fn a_kept_connection_is_used_and_one_that_ended_is_replaced() {
    let both = server(&[
        &[HELLO, &good("b"), &good("c"), "!close"].concat(),
        &[HELLO, &good("d"), QUIT].concat(),
    ])
    .await;
    let route = [hop("mx.test", &both)];
    let mut kept = None;
    for (name, expected) in
        [("b", "sent: 250 b queued"), ("c", "sent: 250 c queued"), ("d", "sent: 250 d queued")]
    {
        let attempt = tried(&route, &[name], kept).await;
        assert_eq!(told(&attempt.outcomes), [expected]);
        kept = attempt.connection;
        assert!(kept.is_some(), "after {name}");
    }
    kept.expect("is kept").quit().await;
    both.finish().await;
    // That it ended says nothing of the server, which refuses for good.
    let refuses =
        server(&[&[HELLO, &good("b"), "!close"].concat(), "S: 554 5.7.1 not you\n!accept"]).await;
    let route = [hop("mx.test", &refuses)];
    let kept = tried(&route, &["b"], None).await.connection;
    let outcomes = told(&tried(&route, &["c"], kept).await.outcomes);
    assert!(outcomes[0].starts_with("failed: 554 5.7.1 not you"), "{outcomes:?}");
    refuses.finish().await;
}

#[tokio::test]
async fn a_server_that_takes_few_recipients_gets_several_transactions() {
    let full = "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<b@example.test>\nS: 250 ok\n\
                C: RCPT TO:<c@example.test>\nS: 452 4.5.3 enough\nC: DATA\nS: 354 go on\n";
    let few =
        server(&[&[HELLO, full, CONTENT, "S: 250 b queued\n", &good("c"), QUIT].concat()]).await;
    let attempt = tried(&[hop("mx.test", &few)], &["b", "c"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued", "sent: 250 c queued"]);
    attempt.connection.expect("is kept").quit().await;
    few.finish().await;
    // A server that has enough before the first leads to nothing.
    let none = "C: MAIL FROM:<a@client.test>\nS: 250 ok\nC: RCPT TO:<b@example.test>\n\
                S: 452 4.5.3 enough\n!accept";
    check(&[&[HELLO, none].concat(), ""], "deferred: 452 4.5.3 enough (mx1.test, RCPT)").await;
    let announced = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 LIMITS RCPTMAX=1\n";
    let one = server(&[&[announced, &good("b"), &good("c"), QUIT].concat()]).await;
    let attempt = tried(&[hop("mx.test", &one)], &["b", "c"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued", "sent: 250 c queued"]);
    attempt.connection.expect("is kept").quit().await;
    one.finish().await;
}

/// RFC 9422: both limits at once make for a connection for each recipient.
#[tokio::test]
async fn a_server_that_takes_few_transactions_gets_several_connections() {
    let announced =
        "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 LIMITS MAILMAX=1 RCPTMAX=1\n";
    let names: Vec<String> = (0..12).map(|number| format!("b{number}")).collect();
    let scripts: Vec<String> =
        names.iter().map(|name| [announced, &good(name), QUIT].concat()).collect();
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let listening = server(&scripts).await;
    let recipients: Vec<&str> = names.iter().map(String::as_str).collect();
    let attempt = tried(&[hop("mx.test", &listening)], &recipients, None).await;
    let sent = |outcome: &&Outcome| matches!(outcome, Outcome::Sent(_));
    assert_eq!(attempt.outcomes.iter().filter(sent).count(), 12, "{:?}", told(&attempt.outcomes));
    listening.finish().await;
}

#[tokio::test]
async fn a_server_that_is_of_no_more_use_is_left_for_the_next() {
    let one = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 LIMITS RCPTMAX=1\n";
    let closes = "C: MAIL FROM:<a@client.test>\nS: 421 4.3.2 closing\n";
    let again = [HELLO, &good("c").replace("c queued", "c at the wrong one")].concat();
    let first = server(&[&[one, &good("b"), closes].concat(), &again]).await;
    let second = server(&[&[HELLO, &good("c"), QUIT].concat()]).await;
    let route = [hop("mx1.test", &first), hop("mx2.test", &second)];
    let attempt = tried(&route, &["b", "c"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued", "sent: 250 c queued"]);
    attempt.connection.expect("is kept").quit().await;
    second.finish().await;
}

#[tokio::test]
async fn a_transaction_has_at_most_a_hundred_recipients() {
    let names: Vec<String> = (0..150).map(|number| format!("r{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let transaction = |names: &[&str]| {
        let rcpt: String =
            names.iter().map(|name| format!("C: RCPT TO:<{name}@example.test>\n")).collect();
        let answers = "S: 250 ok\n".repeat(names.len() + 1);
        format!(
            "C: MAIL FROM:<a@client.test>\n{rcpt}C: DATA\n{answers}S: 354 go on\n{CONTENT}\
             S: 250 queued\n"
        )
    };
    let script =
        [PIPELINING, &transaction(&names[..100]), &transaction(&names[100..]), QUIT].concat();
    let many = server(&[&script]).await;
    let attempt = tried(&[hop("mx.test", &many)], &names, None).await;
    assert_eq!(told(&attempt.outcomes), vec!["sent: 250 queued"; 150]);
    attempt.connection.expect("is kept").quit().await;
    many.finish().await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_accept_and_stay_silent_do_not_hold_an_attempt_for_long() {
    let (mut servers, mut route) = (Vec::new(), Vec::new());
    for number in 1..=tries::MAX_TRIES {
        let listening = server(&["!stall"]).await;
        route.push(hop(&format!("mx{number}.test"), &listening));
        servers.push(listening);
    }
    let begun = Instant::now();
    let attempt = tried(&route, &["b"], None).await;
    let expected = "deferred: 4.4.2 the server took too long (mx3.test, banner)";
    assert_eq!(told(&attempt.outcomes), [expected], "each has the five minutes of RFC 5321");
    let minutes = begun.elapsed().as_secs() / 60;
    assert!((15..18).contains(&minutes), "{minutes}");

    let begun = Instant::now();
    let attempt = tried_within(Timeouts::for_reports(), &route[3..5], &["b"], None).await;
    let expected = "deferred: 4.4.2 the server took too long (mx5.test, banner)";
    assert_eq!(told(&attempt.outcomes), [expected], "a report has one minute for each");
    assert_eq!(begun.elapsed().as_secs() / 60, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_every_answer_takes_long_is_followed_by_the_next() {
    let slow = "!wait\nS: 220 mx\nC: EHLO client.test\n!wait\nS: 250-mx\nS: 250 STARTTLS\n\
                C: STARTTLS\n!wait\nS: 454 4.7.0 later\n!accept";
    let (first, second) = (server(&[slow]).await, server(&[slow]).await);
    let works = server(&[&[HELLO, &good("b")].concat()]).await;
    let route = [hop("slow.test", &first), hop("works.test", &works)];
    let begun = Instant::now();
    let attempt = tried(&route, &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued"]);
    let minutes = begun.elapsed().as_secs() / 60;
    assert!((10..12).contains(&minutes), "{minutes}");
    let attempt = tried(&[hop("slow.test", &second)], &["b"], None).await;
    let expected = "deferred: 4.4.2 the server took too long (slow.test, EHLO)";
    assert_eq!(told(&attempt.outcomes), [expected]);
}

#[tokio::test(start_paused = true)]
async fn after_a_quarter_of_an_hour_no_transaction_begins() {
    // Four minutes for each answer but those to the content.
    let slow = "!wait\nS: 220 mx\nC: EHLO client.test\n!wait\nS: 250-mx\nS: 250 LIMITS RCPTMAX=1\n\
                C: MAIL FROM:<a@client.test>\n!wait\nS: 250 ok\nC: RCPT TO:<b@example.test>\n\
                !wait\nS: 250 ok\nC: DATA\nS: 354 go on\n";
    let slow = server(&[&[slow, CONTENT, "S: 250 b queued\n", QUIT].concat()]).await;
    let attempt = tried(&[hop("mx.test", &slow)], &["b", "c"], None).await;
    let late = "deferred: 4.4.5 the server is too slow for all recipients in one attempt \
                (, connection)";
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued", late]);
    assert!(attempt.connection.is_none());
    slow.finish().await;
}

/// Addresses to which no route leads here: 240.0.0.0/4 is nobody's, and the kernel has none for it.
#[tokio::test]
async fn it_is_known_whether_all_servers_were_asked() {
    let closed = server(&[]).await;
    let mut there = hop("closed.test", &closed);
    closed.finish().await;
    // Nobody listens at the port for TCPMUX.
    there.port = 1;
    let mut nowhere = there.clone();
    nowhere.addresses = vec![IpAddr::V4(Ipv4Addr::BROADCAST)];
    for (route, asked) in [
        (vec![there.clone()], Asked::All),
        (vec![nowhere.clone()], Asked::Some),
        (vec![there, nowhere], Asked::Some),
    ] {
        assert_eq!(tried(&route, &["b"], None).await.asked, asked, "{route:?}");
    }
}

#[tokio::test]
async fn a_network_that_cannot_be_reached_uses_up_no_try_and_the_next_address_is_tried() {
    let works = server(&[&[HELLO, &good("b"), QUIT].concat()]).await;
    let mut first = hop("many.test", &works);
    let nowhere = |last| IpAddr::V4(Ipv4Addr::new(255, 255, 255, last));
    first.addresses = (1..=20).map(|_| nowhere(255)).collect();
    first.addresses.push(LOOPBACK);
    let attempt = tried(&[first], &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), ["sent: 250 b queued"]);
    attempt.connection.expect("is kept").quit().await;
    works.finish().await;
}

#[tokio::test]
async fn nothing_fails_for_good_while_a_server_was_not_asked() {
    let never = "S: 554 5.7.1 never\n!accept";
    let (first, second) = (server(&[never]).await, server(&[never]).await);
    let mut no_way = hop("far.test", &first);
    no_way.addresses = vec![IpAddr::V4(Ipv4Addr::BROADCAST)];
    let route = [hop("mx1.test", &first), no_way];
    let attempt = tried(&route, &["b"], None).await;
    let expected = ["deferred: 554 5.7.1 never (mx1.test, banner)"];
    assert_eq!(told(&attempt.outcomes), expected, "the other may take it");
    // The same server at an address that cannot be reached has been asked.
    let mut both = hop("mx2.test", &second);
    both.addresses.insert(0, IpAddr::V4(Ipv4Addr::BROADCAST));
    let attempt = tried(&[both], &["b"], None).await;
    assert_eq!(told(&attempt.outcomes), ["failed: 554 5.7.1 never (mx2.test, banner)"]);
}

#[tokio::test]
async fn nothing_fails_for_good_while_servers_are_unknown_or_too_many() {
    let never = "S: 554 5.7.1 never\n!accept";
    let envelope = envelope(&["b"]);
    let job = Job { envelope: &envelope, content: &[b"hello\r\n"] };
    let hello_name = Domain::parse("client.test").expect("valid");
    let settings = ClientSettings { hello_name, timeouts: Timeouts::default() };
    let mut servers = Vec::new();
    let mut hops = Vec::new();
    for _ in 0..=tries::MAX_TRIES {
        let listening = server(&[never, never]).await;
        hops.push(hop("mx.test", &listening));
        servers.push(listening);
    }
    let deferred = "deferred: 554 5.7.1 never (mx.test, banner)";
    let attempted = attempt(&Route::incomplete(vec![hops[0].clone()]), &job, &settings, None).await;
    assert_eq!(told(&attempted.outcomes), [deferred]);
    let others = Route::complete(hops[1..].to_vec());
    let attempted = attempt(&others, &job, &settings, None).await;
    assert_eq!(told(&attempted.outcomes), ["failed: 554 5.7.1 never (mx.test, banner)"]);
    let attempted = attempt(&Route::complete(hops), &job, &settings, None).await;
    assert_eq!(told(&attempted.outcomes), [deferred], "the ninth was not asked");
}
