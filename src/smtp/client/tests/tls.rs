//! TLS and AUTH: what each demand takes and refuses, and our own listener as the other side.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::CertificateDer;

use tokio::sync::watch;

use super::peer::{Message, Peers, endpoint, open, told};
use crate::mail::{Domain, Secret};
use crate::smtp::client::{
    ClientError, Connection, Endpoint, Fault, Outcome, Stage, Timeouts, TlsDemand, any_certificate,
};
use crate::smtp::tests::connection::{shared, tls};
use crate::smtp::tests::scripted::Scripted;
use crate::smtp::{Limits, Listener, ListenerSettings, Protocol, Shared};

/// Up to the answer to STARTTLS.
const START_TLS: &str = "
    S: 220 mx.example.test
    C: EHLO client.test
    S: 250-mx.example.test
    S: 250 STARTTLS
    C: STARTTLS
";
/// The same, and under TLS up to the next answer to EHLO.
const UNDER_TLS: &str = "
    S: 220 go on
    !tls
    C: EHLO client.test
";
/// In plain text, with STARTTLS offered and not made use of.
const PLAIN: &str = "
    S: 220 mx.example.test
    C: EHLO client.test
    S: 250-mx.example.test
    S: 250 STARTTLS
";
const TRANSACTION: &str = "
    C: MAIL FROM:<a@client.test>
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C: DATA
    S: 354 go on
    !dot
    S: 250 2.0.0 queued
    C: QUIT
    S: 221 bye
";

/// Trusts one certificate and no other.
fn trusting(certificate: CertificateDer<'static>) -> Arc<dyn ServerCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().expect("has a root")
}

/// The scripted peers' certificate, for this name.
fn verified(name: &str) -> TlsDemand {
    TlsDemand::Verified(trusting(tls().1), name.to_owned())
}

/// TLS with whomever.
fn encrypted() -> TlsDemand {
    TlsDemand::Verified(any_certificate(), "mx.example.test".to_owned())
}

fn credentials() -> (String, Secret) {
    ("mailweir".to_owned(), Secret::new("p:ä\u{df}".to_owned()))
}

async fn sent(connection: &mut Connection) -> Vec<String> {
    let outcomes = Message::to(&["b@example.test"]).send(connection).await.expect("sends");
    told(&outcomes)
}

/// Opens, sends and leaves; whether it was under TLS.
async fn sends(scripts: &[&str], demand: &TlsDemand) -> bool {
    let peers = Peers::new(scripts);
    let mut connection = open(&peers, &endpoint(), demand, None).await.expect("opens");
    assert_eq!(sent(&mut connection).await, ["sent: 250 2.0.0 queued"]);
    let secured = connection.tls().is_some();
    connection.quit().await;
    peers.finish().await;
    secured
}

/// Why a message went in plain text.
async fn reason(scripts: &[&str]) -> Option<String> {
    let peers = Peers::new(scripts);
    let mut connection =
        open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await.expect("opens");
    let outcomes = Message::to(&["b@example.test"]).send(&mut connection).await.expect("sends");
    connection.quit().await;
    peers.finish().await;
    match outcomes.as_slice() {
        [Outcome::Sent(receipt)] => receipt.no_tls.clone(),
        outcomes => panic!("{outcomes:?}"),
    }
}

#[tokio::test]
async fn a_receipt_says_why_there_was_no_tls() {
    let failing = [START_TLS, "S: 220 go on\n!close"].concat();
    let plain = [PLAIN, TRANSACTION].concat();
    let why = reason(&[&failing, &plain]).await.expect("a reason");
    assert!(why.starts_with("the TLS handshake failed: "), "{why}");
    let refusing = [START_TLS, "S: 454 4.7.0 not now\n", TRANSACTION].concat();
    let why = reason(&[&refusing]).await;
    assert_eq!(why.as_deref(), Some("STARTTLS was refused: 454 4.7.0 not now"));
    let under_tls = [START_TLS, UNDER_TLS, "S: 250 mx.example.test\n", TRANSACTION].concat();
    assert_eq!(reason(&[&under_tls]).await, None);
    let without = "S: 220 mx.example.test\nC: EHLO client.test\nS: 250 mx.example.test\n";
    assert_eq!(reason(&[&[without, TRANSACTION].concat()]).await, None, "none was offered");
}

async fn error(scripts: &[&str], demand: &TlsDemand) -> String {
    let peers = Peers::new(scripts);
    let error = open(&peers, &endpoint(), demand, None).await.expect_err("is refused");
    assert!(!error.is_permanent(), "{error}");
    peers.finish().await;
    error.to_string()
}

#[tokio::test]
async fn an_offer_of_tls_is_taken_whatever_the_certificate() {
    let script = [START_TLS, UNDER_TLS, "S: 250 mx.example.test\n", TRANSACTION].concat();
    assert!(sends(&[&script], &TlsDemand::Opportunistic).await);
    assert!(sends(&[&script], &encrypted()).await);
    assert!(sends(&[&script], &verified("mx.example.test")).await);
}

#[tokio::test]
async fn the_extensions_before_tls_are_forgotten() {
    let before =
        START_TLS.replace("250 STARTTLS", "250-STARTTLS\nS: 250-PIPELINING\nS: 250 SIZE 1");
    let script = [&before, UNDER_TLS, "S: 250 mx.example.test\n", TRANSACTION].concat();
    assert!(sends(&[&script], &TlsDemand::Opportunistic).await);
}

#[tokio::test]
async fn after_a_failed_handshake_there_is_one_connection_in_plain_text() {
    let plain = [PLAIN, TRANSACTION].concat();
    for failing in [
        "S: 220 go on\nS: I do not know how\n!stall",
        "S: 220 go on\n!close",
        "S: 220 go on\nS: 250 injected\n!stall",
    ] {
        let failing = [START_TLS, failing].concat();
        assert!(!sends(&[&failing, &plain], &TlsDemand::Opportunistic).await);
        // And only one, and only where nothing more is demanded.
        for demand in [encrypted(), verified("mx.example.test")] {
            let said = error(&[&failing], &demand).await;
            assert!(said.starts_with("STARTTLS: the TLS handshake failed: "), "{said}");
        }
    }
}

#[tokio::test]
async fn what_is_said_in_plain_text_before_the_handshake_is_not_taken_for_what_is_said_under_tls() {
    let script = [START_TLS, "S: 220 go on\nS: 250 injected\n!tls\n"].concat();
    let said = error(&[&script], &encrypted()).await;
    assert_eq!(said, "STARTTLS: the TLS handshake failed: the server went on in plain text");
}

#[tokio::test]
async fn a_server_that_cannot_begin_tls_now_gets_plain_text_where_that_may_be() {
    let script = [START_TLS, "S: 454 4.7.0 not now\n"].concat();
    let goes_on = [&script, TRANSACTION].concat();
    assert!(!sends(&[&goes_on], &TlsDemand::Opportunistic).await);
    let demand = verified("mx.example.test");
    assert_eq!(error(&[&script], &demand).await, "STARTTLS: 454 4.7.0 not now");
    let closing = [START_TLS, "S: 421 4.3.2 closing\n!close"].concat();
    let said = error(&[&closing], &TlsDemand::Opportunistic).await;
    assert_eq!(said, "STARTTLS: 421 4.3.2 closing");
}

#[tokio::test]
async fn where_tls_is_demanded_a_server_without_it_gets_nothing() {
    let script = "S: 220 mx.example.test\nC: EHLO client.test\nS: 250 mx.example.test";
    for demand in [encrypted(), verified("mx.example.test")] {
        assert_eq!(
            error(&[script], &demand).await,
            "STARTTLS: TLS is required, and the server does not offer it"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_as_demanded_is_named() {
    let script = [START_TLS, "S: 220 go on\n!tls\n"].concat();
    let said = error(&[&script], &verified("other.example.test")).await;
    assert!(said.contains("certificate not valid for name \"other.example.test\""), "{said}");
    let said = error(&[&[START_TLS, "S: 220 go on\n"].concat()], &verified("no name")).await;
    assert!(said.ends_with("no certificate can have the name \"no name\""), "{said}");
    let strangers = rcgen::generate_simple_self_signed(["mx.example.test".to_owned()]);
    let strangers = trusting(strangers.expect("made").cert.der().clone());
    let demand = TlsDemand::Verified(strangers, "mx.example.test".to_owned());
    let said = error(&[&script], &demand).await;
    assert!(said.contains("invalid peer certificate"), "{said}");
}

#[tokio::test]
async fn logins_are_sent_under_tls() {
    let plain = "
        S: 250-mx.example.test
        S: 250 AUTH CRAM-MD5 LOGIN PLAIN
        C: AUTH PLAIN AG1haWx3ZWlyAHA6w6TDnw==
        S: 235 2.7.0 welcome
    ";
    let login = "
        S: 250-mx.example.test
        S: 250 AUTH=LOGIN
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: bWFpbHdlaXI=
        S: 334 UGFzc3dvcmQ6
        C: cDrDpMOf
        S: 235 2.7.0 welcome
    ";
    let demand = verified("mx.example.test");
    for auth in [plain, login] {
        let peers = Peers::new(&[&[START_TLS, UNDER_TLS, auth, TRANSACTION].concat()]);
        let opened = open(&peers, &endpoint(), &demand, Some(&credentials())).await;
        let mut connection = opened.expect("opens");
        assert_eq!(sent(&mut connection).await, ["sent: 250 2.0.0 queued"]);
        connection.quit().await;
        peers.finish().await;
    }
}

async fn login_error(scripts: &[&str], demand: &TlsDemand) -> ClientError {
    let peers = Peers::new(scripts);
    let error = open(&peers, &endpoint(), demand, Some(&credentials())).await;
    let error = error.expect_err("is refused");
    peers.finish().await;
    error
}

#[tokio::test]
async fn a_login_that_cannot_be_made_is_an_error() {
    let under_tls = [START_TLS, UNDER_TLS].concat();
    let refused =
        "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AG1haWx3ZWlyAHA6w6TDnw==\nS: 535 5.7.8 no";
    let demand = encrypted();
    let error = login_error(&[&[&under_tls, refused].concat()], &demand).await;
    assert_eq!(error.to_string(), "AUTH: 535 5.7.8 no");
    assert!(error.is_permanent());
    let none = [&under_tls, "S: 250-mx\nS: 250 AUTH GSSAPI"].concat();
    let error = login_error(&[&none], &demand).await;
    assert_eq!((error.stage, error.fault), (Stage::Auth, Fault::AuthNotOffered));
}

#[tokio::test]
async fn a_login_is_never_sent_in_plain_text() {
    let offered = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 AUTH PLAIN";
    let error = login_error(&[offered], &TlsDemand::Opportunistic).await;
    assert_eq!((error.stage, error.fault), (Stage::StartTls, Fault::TlsNotOffered));
    // A failed handshake is not followed by a connection in plain text.
    let failing = [START_TLS, "S: 220 go on\n!close"].concat();
    let error = login_error(&[&failing], &TlsDemand::Opportunistic).await;
    assert!(matches!(error.fault, Fault::Handshake(_)), "{error}");
}

#[tokio::test]
async fn implicit_tls_begins_with_the_first_octet() {
    let script = [
        "!tls\nS: 220 mx.example.test\nC: EHLO client.test\nS: 250-mx.example.test\nS: 250 STARTTLS\n",
        TRANSACTION,
    ]
    .concat();
    let endpoint = Endpoint { implicit_tls: true, ..endpoint() };
    let peers = Peers::new(&[&script]);
    let demand = verified("mx.example.test");
    let mut connection = open(&peers, &endpoint, &demand, None).await.expect("opens");
    assert_eq!(sent(&mut connection).await, ["sent: 250 2.0.0 queued"]);
    connection.quit().await;
    peers.finish().await;
    let plain = Peers::new(&["S: 220 mx.example.test\n!stall"]);
    let error = open(&plain, &endpoint, &TlsDemand::Opportunistic, None).await;
    let error = error.expect_err("no TLS, and no second connection");
    assert!(matches!(error.fault, Fault::Handshake(_)), "{error}");
}

/// Our own listener on loopback, and the demand that trusts it.
async fn listening() -> (Arc<Shared<Scripted>>, Endpoint, watch::Sender<bool>) {
    let limits = Limits { banner_delay: std::time::Duration::ZERO, ..Limits::default() };
    let shared = shared(limits);
    let settings = ListenerSettings {
        name: "mx".to_owned(),
        protocol: Protocol::Mx,
        bind: "127.0.0.1:0".parse().expect("valid"),
        proxy_protocol_from: None,
        normalize_line_ends_from: Arc::default(),
    };
    let listener = Listener::bind(settings, Arc::clone(&shared)).await.expect("binds");
    let endpoint = Endpoint { address: listener.local_addr(), ..endpoint() };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listener.run(stopped));
    (shared, endpoint, stop)
}

#[tokio::test]
async fn our_own_listener_takes_what_the_client_sends() {
    let (shared, endpoint, _stop) = listening().await;
    let hello = Domain::parse("client.test").expect("valid");
    let timeouts = Timeouts::default();
    let demand = verified("mx.example.test");
    let mut connection =
        Connection::open(&endpoint, &demand, &hello, &timeouts, None).await.expect("opens");
    assert!(connection.tls().is_some_and(|tls| tls.starts_with("TLSv1.3 ")));
    let mut message = Message::to(&["alice@example.test", "nobody@example.test"]);
    // Larger than what both sides' systems hold, with dots at the start of many lines.
    message.content = b"Subject: large\r\n\r\n.\r\n..a\r\n".repeat(100_000);
    let outcomes = message.send(&mut connection).await.expect("sends");
    let told = told(&outcomes);
    assert_eq!(told[0], "sent: 250 2.0.0 Message stored");
    assert!(told[1].starts_with("failed: 550 5.1.1 "), "{told:?}");
    assert!(connection.can_be_reused());
    message.content = b"Subject: small\r\n\r\nhello\r\n".to_vec();
    message.send(&mut connection).await.expect("sends");
    connection.quit().await;
    let messages = shared.handler().messages();
    assert_eq!(messages.len(), 2);
    assert!(messages[0] == b"Subject: large\r\n\r\n.\r\n..a\r\n".repeat(100_000));
    assert_eq!(messages[1], message.content);
}
