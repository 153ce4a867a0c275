//! Listeners for users over in-memory streams: TLS from the first octet, and logging in.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection::{Client, limits, shared};
use super::scripted::{Scripted, Told};
use crate::smtp::Shared;
use crate::smtp::reason::Reason;
use crate::smtp::settings::{Limits, Protocol};

/// `\0alice\0secret`
const RIGHT: &str = "AUTH PLAIN AGFsaWNlAHNlY3JldA==";
/// `\0alice\0wrong`
const WRONG: &str = "AUTH PLAIN AGFsaWNlAHdyb25n";

async fn open(shared: &Arc<Shared<Scripted>>) -> Client {
    let client = Client::connect_speaking(shared, Protocol::Submissions);
    let mut client = client.start_tls().await;
    assert_eq!(client.reply().await, "220 mx.example.test ESMTP Mailweir\r\n");
    client.ask("EHLO client.test").await;
    client
}

#[tokio::test(start_paused = true)]
async fn a_user_submits_over_tls_from_the_first_octet() {
    let shared = shared(limits());
    let mut client = open(&shared).await;
    assert!(client.ask(RIGHT).await.starts_with("235 2.7.0 "));
    client.ask("MAIL FROM:<alice@example.test>").await;
    client.ask("RCPT TO:<alice@example.test>").await;
    client.ask("DATA").await;
    assert_eq!(client.ask("Subject: x\r\n\r\n.").await, "250 2.0.0 Message stored\r\n");
    client.gone().await;
    let told = shared.handler().told();
    let [Told::Authenticate(user), Told::Mail(peer, ..), ..] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(user, "alice");
    assert!(peer.tls.as_deref().is_some_and(|tls| tls.starts_with("TLSv1.3 ")), "{peer:?}");
    assert_eq!(peer.login.as_ref().map(|login| &*login.user), Some("alice"));
    shared.handler().assert_balanced();
}

/// The header comes before TLS, and the handshake may have come with it.
#[tokio::test(start_paused = true)]
async fn a_proxy_header_comes_before_the_handshake() {
    for pause in [Duration::ZERO, Duration::from_secs(1)] {
        let shared = shared(limits());
        let mut client = Client::through_proxy_speaking(&shared, Protocol::Submissions);
        client.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 465\r\n").await;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let mut client = client.start_tls().await;
        client.reply().await;
        client.ask("EHLO client.test").await;
        client.ask(RIGHT).await;
        client.ask("MAIL FROM:<alice@example.test>").await;
        client.gone().await;
        let told = shared.handler().told();
        let Some(Told::Mail(peer, ..)) = told.get(1) else { panic!("{told:?}") };
        assert_eq!(peer.ip.to_string(), "203.0.113.9");
    }
}

/// Who cannot be told why in TLS is not told in plain text either, but it is recorded.
#[tokio::test(start_paused = true)]
async fn a_refusal_before_the_handshake_is_recorded_and_not_said() {
    for (header, reason) in [
        (b"PROXY TCP4 192.0.2.66 127.0.0.1 12345 465\r\n".as_slice(), Reason::NetworkDenied),
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 12345 465\r\n", Reason::TooManyFromNetwork),
        (b"EHLO client.test\r\n", Reason::BadProxyHeader),
    ] {
        let shared = shared(Limits { connections_per_network: 1, ..limits() });
        let mut first = Client::through_proxy_speaking(&shared, Protocol::Submissions);
        first.send(b"PROXY TCP4 203.0.113.8 127.0.0.1 12345 465\r\n").await;
        let first = first.start_tls().await;
        let mut second = Client::through_proxy_speaking(&shared, Protocol::Submissions);
        second.send(header).await;
        assert_eq!(second.rest().await, "", "{reason}");
        second.gone().await;
        first.gone().await;
        assert_eq!(shared.handler().refusals(), [reason]);
    }
}

#[tokio::test(start_paused = true)]
async fn plain_text_is_no_handshake() {
    let shared = shared(limits());
    let mut client = Client::connect_speaking(&shared, Protocol::Submissions);
    client.send(format!("EHLO client.test\r\n{RIGHT}\r\n").as_bytes()).await;
    let answer = client.octets().await;
    assert!(!answer.starts_with(b"220") && answer.len() < 16, "an alert at most: {answer:?}");
    client.gone().await;
    assert_eq!(shared.handler().told(), []);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_not_waited_for_long() {
    for stop_after in [None, Some(Duration::from_secs(7))] {
        let shared = shared(limits());
        let mut client = Client::connect_speaking(&shared, Protocol::Submissions);
        let began = Instant::now();
        if let Some(delay) = stop_after {
            sleep(delay).await;
            client.stop();
        }
        assert_eq!(client.rest().await, "");
        assert_eq!(began.elapsed(), stop_after.unwrap_or(Duration::from_secs(300)));
        client.gone().await;
    }
}

/// TLS begins with the client; SMTP does not.
#[tokio::test(start_paused = true)]
async fn an_early_talker_is_one_under_tls_too() {
    let shared = shared(Limits { banner_delay: Duration::from_secs(1), ..Limits::default() });
    let client = Client::connect_speaking(&shared, Protocol::Submissions);
    let mut client = client.start_tls().await;
    client.send(b"EHLO hurry.test\r\n").await;
    assert!(client.rest().await.contains("[early-talker <id>]"));
    client.gone().await;
}

#[tokio::test(start_paused = true)]
async fn guessing_passwords_takes_time_and_the_connection() {
    let shared = shared(limits());
    let mut client = open(&shared).await;
    for (seconds, code) in [(1, "535 5.7.8 "), (2, "535 5.7.8 "), (4, "421 4.7.0 ")] {
        let began = Instant::now();
        let said = client.ask(WRONG).await;
        assert!(said.starts_with(code), "{said}");
        assert_eq!(began.elapsed(), Duration::from_secs(seconds));
    }
    assert_eq!(client.rest().await, "");
    client.gone().await;
}

/// Past its failures, no password of the network is looked at, not even the right one.
#[tokio::test(start_paused = true)]
async fn a_network_that_guesses_passwords_is_deferred() {
    let shared = shared(Limits { failed_logins_per_network: 3, ..limits() });
    for _ in 0..2 {
        let mut client = open(&shared).await;
        client.ask(WRONG).await;
        assert!(client.ask(RIGHT).await.starts_with("235 "), "no failure, so not counted");
        client.gone().await;
    }
    let mut client = open(&shared).await;
    client.ask(WRONG).await;
    let asked = || shared.handler().told().iter().filter(|told| is_asked(told)).count();
    let before = asked();
    for line in [RIGHT, WRONG] {
        let began = Instant::now();
        let said = client.ask(line).await;
        assert!(said.starts_with("454 4.7.0 ") && said.contains("[logins-throttled "), "{said}");
        assert_eq!(began.elapsed(), Duration::from_secs(1), "lines in the logs grow at its pace");
    }
    assert_eq!(asked(), before);
    client.gone().await;
    let told = shared.handler().told();
    assert!(told.contains(&Told::Refused(Reason::LoginsThrottled, "AUTH ...".to_owned())));
    let throttled = told.iter().filter(|told| **told == Told::Throttled("alice".to_owned()));
    assert_eq!(throttled.count(), 2, "each attempt is told");
}

fn is_asked(told: &Told) -> bool {
    matches!(told, Told::Authenticate(_))
}

/// Somebody in the office has an old mailing list; the others still send.
#[tokio::test(start_paused = true)]
async fn unknown_recipients_are_no_guesses_of_users() {
    let shared = shared(Limits { unknown_users_per_network: 1, ..limits() });
    let mut stranger = Client::connect(&shared);
    stranger.envelope().await;
    assert!(stranger.ask("RCPT TO:<nobody@example.test>").await.starts_with("550 5.1.1 "));
    stranger.gone().await;
    let mut user = open(&shared).await;
    user.ask(RIGHT).await;
    user.ask("MAIL FROM:<alice@example.test>").await;
    for _ in 0..3 {
        assert!(user.ask("RCPT TO:<nobody@example.test>").await.starts_with("550 5.1.1 "));
    }
    assert!(user.ask("RCPT TO:<alice@example.test>").await.starts_with("250 "));
    user.gone().await;
    let refused =
        shared.take_in_network("192.0.2.9".parse().expect("valid"), Protocol::Mx, &shared.limits());
    assert_eq!(refused.err(), Some(Reason::TooManyUnknownUsers), "other MTAs are still deferred");
}
