//! The SMTP client against a real Postfix: as a destination, and as a gateway that wants a login.

use std::net::IpAddr;

use mailweir::mail::{
    Address, Domain, DsnNotify, Envelope, EnvelopeRecipient, MailParameters, RcptParameters,
    ReversePath, Secret,
};
use mailweir::queue::attempt::{Attempt, ClientSettings, Job, attempt};
use mailweir::queue::hop::{Hop, Route};
use mailweir::queue::pki::authorities;
use mailweir::queue::route::Verifier;
use mailweir::smtp::client::{Outcome, Receipt, Timeouts, TlsDemand};

use crate::support::daemon::{Daemon, Setup, below_our_headers, text};
use crate::support::postfix::{Postfix, certificate, logins};
use crate::support::smtp::message;
use crate::support::wait_for;

/// `printf '\0mailweir\0secret' | base64`
const LOGIN: &str = "AG1haWx3ZWlyAHNlY3JldA==";

fn hop(postfix: &Postfix) -> Hop {
    let address = postfix.address();
    Hop {
        name: "relay.good.test".to_owned(),
        addresses: vec![address.ip()],
        port: address.port(),
        tls: TlsDemand::Opportunistic,
        implicit_tls: false,
        credentials: None,
    }
}

/// As a gateway of an organization: a verified certificate, and a login.
fn gateway(postfix: &Postfix, password: &str) -> Hop {
    let authorities = authorities(Some(&postfix.path("certificate.pem"))).expect("a certificate");
    let verifier = Verifier::web_pki(authorities);
    let credentials = ("mailweir".to_owned(), Secret::new(password.to_owned()));
    Hop {
        tls: TlsDemand::Verified(verifier, "relay.good.test".to_owned()),
        credentials: Some(credentials),
        ..hop(postfix)
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |address: &&str| EnvelopeRecipient {
        address: Address::parse(address).expect("valid"),
        parameters: RcptParameters::default(),
    };
    Envelope {
        reverse_path: ReversePath::Address(Address::parse("bob@good.test").expect("valid")),
        parameters: MailParameters::default(),
        recipients: recipients.iter().map(recipient).collect(),
    }
}

fn tried(route: &[Hop], envelope: &Envelope, content: &[&[u8]]) -> Attempt {
    let settings = ClientSettings {
        hello_name: Domain::parse("mx.example.test").expect("valid"),
        timeouts: Timeouts::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let job = Job { envelope, content };
        let mut tried = attempt(&Route::complete(route.to_vec()), &job, &settings, None).await;
        if let Some(connection) = tried.connection.take() {
            connection.quit().await;
        }
        tried
    })
}

fn receipt(outcome: &Outcome) -> &Receipt {
    let Outcome::Sent(receipt) = outcome else { panic!("not sent: {outcome:?}") };
    receipt
}

fn failed(outcome: &Outcome) -> String {
    let Outcome::Failed(failure) = outcome else { panic!("not failed: {outcome:?}") };
    failure.to_string()
}

fn deferred(outcome: &Outcome) -> String {
    let Outcome::Deferred(failure) = outcome else { panic!("not deferred: {outcome:?}") };
    failure.to_string()
}

/// What is stored below our headers and Postfix's `Received`, once it is there.
fn stored(daemon: &Daemon, user: &str) -> String {
    let stored = wait_for("the message", || daemon.mailbox(user).pop());
    let rest = text(below_our_headers(&stored.1));
    assert!(rest.starts_with("Received: from mx.example.test"), "Postfix's own: {rest}");
    let end = rest.find("\r\nFrom:").expect("the message") + 2;
    rest[end..].to_owned()
}

#[test]
fn a_gateway_gets_mail_after_a_login_under_verified_tls() {
    let daemon = Setup::default().start();
    let lines = |dir: &std::path::Path| certificate(dir, "relay.good.test") + &logins(LOGIN);
    let postfix = Postfix::start_with(daemon.address(), "", lines);
    let mut content = message("bob@good.test", "by the gateway");
    content.extend_from_slice(b".\r\n..dots\r\n.");
    let (head, tail) = content.split_at(40);
    let attempt =
        tried(&[gateway(&postfix, "secret")], &envelope(&["alice@example.test"]), &[head, tail]);
    let receipt = receipt(&attempt.outcomes[0]);
    assert!(receipt.tls.as_deref().is_some_and(|tls| tls.starts_with("TLSv1.3")), "{receipt:?}");
    assert!(receipt.reply.text().contains("queued as"), "{receipt:?}");
    assert_eq!(stored(&daemon, "alice"), text(&content) + "\r\n");
    postfix.wait_for_line(&["sasl_method=PLAIN", "sasl_username=mailweir"]);
}

#[test]
fn a_gateway_that_is_not_as_configured_gets_nothing() {
    let daemon = Setup::default().start();
    let lines = |dir: &std::path::Path| certificate(dir, "relay.good.test") + &logins(LOGIN);
    let postfix = Postfix::start_with(daemon.address(), "", lines);
    let envelope = envelope(&["alice@example.test"]);
    let content: &[&[u8]] = &[b"Subject: never\r\n\r\nhello\r\n"];

    let attempt = tried(&[gateway(&postfix, "wrong")], &envelope, content);
    let told = failed(&attempt.outcomes[0]);
    assert!(told.starts_with("535 5.7.8 "), "{told}");
    assert!(told.ends_with("(relay.good.test, AUTH)"), "{told}");

    let mut wrong_name = gateway(&postfix, "secret");
    if let TlsDemand::Verified(_, name) = &mut wrong_name.tls {
        *name = "other.good.test".to_owned();
    }
    let told = deferred(&tried(&[wrong_name], &envelope, content).outcomes[0]);
    assert!(told.contains("certificate not valid for name \"other.good.test\""), "{told}");

    let without_login = Hop { credentials: None, ..gateway(&postfix, "secret") };
    let told = failed(&tried(&[without_login], &envelope, content).outcomes[0]);
    assert!(told.starts_with("554 5.7.1 ") && told.ends_with("RCPT)"), "{told}");
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn implicit_tls_is_spoken_where_the_gateway_wants_it() {
    let daemon = Setup::default().start();
    let options = "-o smtpd_tls_wrappermode=yes";
    let lines = |dir: &std::path::Path| certificate(dir, "relay.good.test") + &logins(LOGIN);
    let postfix = Postfix::start_with(daemon.address(), options, lines);
    let hop = Hop { implicit_tls: true, ..gateway(&postfix, "secret") };
    let content = message("bob@good.test", "over smtps");
    let attempt = tried(&[hop], &envelope(&["alice@example.test"]), &[&content]);
    receipt(&attempt.outcomes[0]);
    assert_eq!(stored(&daemon, "alice"), text(&content));
}

/// Refuses one recipient, defers another, and takes messages of a megabyte.
fn destination(dir: &std::path::Path) -> String {
    let access = "inline:{ {nobody@example.test=550 5.1.1 no such user} \
                  {busy@example.test=450 4.2.1 busy} }";
    certificate(dir, "relay.good.test")
        + &format!(
            "smtpd_recipient_restrictions = check_recipient_access {access}\n\
             message_size_limit = 1000000\n"
        )
}

#[test]
fn each_recipient_at_a_destination_has_an_outcome_of_its_own() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start_with(daemon.address(), "", destination);
    let mut envelope = envelope(&[
        "alice@example.test",
        "nobody@example.test",
        "busy@example.test",
        "用户@example.test",
    ]);
    let success = DsnNotify { success: true, ..DsnNotify::default() };
    envelope.recipients[0].parameters.notify = Some(success);
    let content = message("bob@good.test", "for four");
    let outcomes = tried(&[hop(&postfix)], &envelope, &[&content]).outcomes;
    // Any certificate will do, and what the sender wants to be told was passed on.
    assert!(receipt(&outcomes[0]).tls.is_some());
    assert!(receipt(&outcomes[0]).dsn_passed_on);
    assert!(failed(&outcomes[1]).starts_with("550 5.1.1 "), "{outcomes:?}");
    assert!(deferred(&outcomes[2]).starts_with("450 4.2.1 "), "{outcomes:?}");
    receipt(&outcomes[3]);
    assert_eq!(stored(&daemon, "alice"), text(&content));
    assert_eq!(stored(&daemon, "用户"), text(&content));
}

#[test]
fn a_message_over_the_destinations_limit_fails_without_being_sent() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start_with(daemon.address(), "", destination);
    let large = vec![b'x'; 1_000_001];
    let outcomes = tried(&[hop(&postfix)], &envelope(&["alice@example.test"]), &[&large]).outcomes;
    assert!(failed(&outcomes[0]).starts_with("5.3.4 "), "{outcomes:?}");
}

#[test]
fn a_dead_server_is_followed_by_one_that_takes_a_large_message() {
    let daemon = Setup::default().start();
    let postfix = Postfix::start_with(daemon.address(), "", |_| String::new());
    let dead = Hop { addresses: vec![IpAddr::from([127, 0, 0, 9])], ..hop(&postfix) };
    let mut content = message("bob@good.test", "large");
    content.extend_from_slice(&b"..a line that begins with dots\r\n".repeat(200_000));
    let outcomes =
        tried(&[dead, hop(&postfix)], &envelope(&["alice@example.test"]), &[&content]).outcomes;
    // This Postfix has no certificate, so the message went in plain text.
    assert_eq!(receipt(&outcomes[0]).tls, None);
    assert!(stored(&daemon, "alice") == text(&content));
}
