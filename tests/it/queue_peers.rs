//! Mail that leaves for servers that defer, refuse, hang up, stay silent or break their TLS: events,
//! queue and reports as users and operators see them.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::postfix::{Postfix, certificate};
use crate::support::remote::{Manners, Remote};
use crate::support::sending::{
    delivered, outcomes, prepared, queue, route, started, submit, waiting,
};
use crate::support::swaks::swaks;
use crate::support::wait_for;

const RETRY_SOON: &str = "[queue]\nfirst_retry_s = 1\nlongest_retry_s = 1\n";

/// What the remote server has: subject and recipient.
fn taken(remote: &Remote) -> Vec<(String, String)> {
    remote.taken().into_iter().map(|taken| (taken.subject, taken.recipient)).collect()
}

/// Postfix as it defers one recipient and refuses another.
fn destination(dir: &Path) -> String {
    let access = "inline:{ {nobody@far.test=550 5.1.1 no such user} \
                  {busy@far.test=450 4.2.1 busy} }";
    certificate(dir, "relay.good.test")
        + &format!("smtpd_recipient_restrictions = check_recipient_access {access}\n")
}

#[test]
fn each_recipient_at_a_postfix_has_an_outcome_of_its_own() {
    let organization = "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n";
    let far = Setup { organization: organization.into(), ..Setup::default() }.start();
    let postfix = Postfix::start_with(far.address(), "", destination);
    let daemon = started(&route("far.test", postfix.address().port()));
    submit(&daemon, &["carol@far.test", "nobody@far.test", "busy@far.test"], "for three");

    let told = outcomes(&daemon, "for three", 2);
    assert_eq!(told, ["sent carol@far.test", "bounced nobody@far.test 5.1.1"]);
    delivered(&far, "carol", "Subject: for three\r\n");
    postfix.wait_for_line(&["disconnect from", "starttls=1", "data=1"]);
    let report = delivered(&daemon, "alice", "Subject: Undelivered mail");
    for expected in [
        "Final-Recipient: rfc822; nobody@far.test\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Remote-MTA: dns; [127.0.0.1]\r\n",
        "no such user",
    ] {
        assert!(report.contains(expected), "no {expected} in\n{report}");
    }
    for absent in ["busy@far.test", "carol@far.test"] {
        let part = format!("Final-Recipient: rfc822; {absent}");
        assert!(!report.contains(&part), "{report}");
    }

    let entry = waiting(&daemon, "450 4.2.1");
    assert_eq!((&entry["recipients"], &entry["attempts"]), (&json!(["busy@far.test"]), &json!(1)));
    let settled = entry["settled"].as_array().expect("a list");
    let shown: Vec<_> = settled.iter().map(|it| (&it["recipient"], &it["outcome"])).collect();
    let (sent, bounced) = (json!("sent"), json!("bounced"));
    let (carol, nobody) = (json!("carol@far.test"), json!("nobody@far.test"));
    assert_eq!(shown, [(&carol, &sent), (&nobody, &bounced)]);
    let id = entry["id"].as_str().expect("an id");
    let shown = daemon.succeeds(&["queue", "show", id]);
    for expected in [
        "recipients that wait  busy@far.test",
        "carol@far.test: sent, 250 2.0.0 Ok: queued as",
        "nobody@far.test: bounced, 550 5.1.1",
    ] {
        assert!(shown.contains(expected), "no {expected} in\n{shown}");
    }

    daemon.succeeds(&["queue", "drop", id, "--bounce"]);
    let told = outcomes(&daemon, "for three", 3);
    assert_eq!(told[2], "bounced busy@far.test 5.7.1");
    assert!(queue(&daemon).is_empty());
}

#[test]
fn a_connection_lost_after_the_final_dot_is_tried_again() {
    let remote = Remote::start(Manners {
        dot: |number| (number > 1).then_some("250 2.0.0 taken"),
        ..Manners::default()
    });
    let daemon = started(&(RETRY_SOON.to_owned() + &route("far.test", remote.address.port())));
    submit(&daemon, &["carol@far.test"], "who knows");
    let told = outcomes(&daemon, "who knows", 1);
    assert_eq!(told, ["sent carol@far.test"]);
    let once = ("who knows".to_owned(), "carol@far.test".to_owned());
    assert_eq!(taken(&remote), [once.clone(), once], "the server had it both times");
    wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));
    assert!(daemon.mailbox("alice").is_empty(), "nobody is told of a failure");
}

/// RFC 7435 §3: what cannot be encrypted goes as it would without the offer (RFC 3207 §4.1 leaves
/// the decision to the client).
#[test]
fn an_offer_of_tls_that_cannot_be_taken_up_is_passed_over() {
    let remote = Remote::start(Manners { offers: "STARTTLS", ..Manners::default() });
    let daemon = started(&route("far.test", remote.address.port()));
    submit(&daemon, &["carol@far.test"], "in the clear");
    assert_eq!(outcomes(&daemon, "in the clear", 1), ["sent carol@far.test"]);
    assert_eq!(taken(&remote), [("in the clear".to_owned(), "carol@far.test".to_owned())]);
    assert_eq!(remote.connections(), 2, "one for the handshake, one without");
    assert!(daemon.log().contains("no TLS: the handshake fails"), "{}", daemon.log());
}

/// Exchange 2013 on Windows 2012 R2 and many appliances: rustls has no CBC.
#[test]
fn a_server_with_only_old_cipher_suites_is_told_as_such() {
    let organization = "alias = \"far\"\ndomains = [\"far.test\"]\n[[user]]\nname = \"carol\"\n";
    let far = Setup { organization: organization.into(), ..Setup::default() }.start();
    let postfix = Postfix::start_with(far.address(), "", |dir| {
        certificate(dir, "relay.good.test")
            + "smtpd_tls_protocols = TLSv1.2\nsmtpd_tls_ciphers = high\n\
               tls_high_cipherlist = ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA256\n"
    });
    let daemon = started(&route("far.test", postfix.address().port()));
    submit(&daemon, &["carol@far.test"], "old suites");
    assert_eq!(outcomes(&daemon, "old suites", 1), ["sent carol@far.test"]);
    let told = "no TLS version and cipher suite in common, the server may know only old ones";
    assert!(daemon.log().contains(told), "{}", daemon.log());
}

#[test]
fn a_server_that_stays_silent_holds_up_nobody_elses_mail() {
    let silent = Remote::start(Manners { is_silent: true, ..Manners::default() });
    let works = Remote::start(Manners::default());
    let routes = format!(
        "[queue]\nconnections = 4\n{}{}",
        route("silent.test", silent.address.port()),
        route("far.test", works.address.port())
    );
    let daemon = started(&routes);
    submit(&daemon, &["a@silent.test"], "first");
    wait_for("a connection", || (silent.connections() == 1).then_some(()));
    for number in 0..3 {
        submit(&daemon, &["b@silent.test", "carol@far.test"], &format!("more {number}"));
    }
    for number in 0..3 {
        assert_eq!(outcomes(&daemon, &format!("more {number}"), 1), ["sent carol@far.test"]);
    }
    assert_eq!((queue(&daemon).len(), silent.connections()), (4, 1), "one until it answers");
    drop(silent);
    wait_for("a deferral", || {
        let queue = queue(&daemon);
        let failure = |entry: &Value| entry["lastFailure"].as_str().map(str::to_owned);
        let failure = queue.iter().find_map(failure)?;
        assert!(failure.starts_with("4.4.2 the server closed the connection"), "{failure}");
        Some(())
    });
}

/// A daemon with remote users at far.test, at which alice's mail has been taken.
fn with_remote_users(names: &[&str], far: &Remote) -> Daemon {
    let user = |name: &&str| format!("[[user]]\nname = \"{name}\"\nremote = \"{name}@far.test\"\n");
    let users: String = names.iter().map(user).collect();
    let sections = route("far.test", far.address.port());
    let mut daemon = prepared(Setup { sections, ..Setup::with(&users) });
    daemon.launch(Command::new(BINARY));
    submit(&daemon, &["carol@far.test"], "the first");
    assert_eq!(outcomes(&daemon, "the first", 1), ["sent carol@far.test"]);
    daemon
}

#[test]
fn what_strangers_have_sent_on_to_a_server_that_stays_silent_then_holds_up_no_users_mail() {
    static SILENCE: Mutex<()> = Mutex::new(());
    let rcpt = |address: &str, _| {
        if address.starts_with("away") {
            drop(SILENCE.lock());
        }
        "250 2.1.5 ok"
    };
    let far = Remote::start(Manners { rcpt, ..Manners::default() });
    let silence = SILENCE.lock().expect("no test panics with it");
    let daemon = with_remote_users(&["away0", "away1", "away2"], &far);
    for number in 0..10 {
        let to = format!("away{}@example.test", number % 3);
        swaks(&daemon, &format!("a{number}@good.test"), &to, "sent on", &[]).accepted();
    }
    let waits_for = |entry: &Value| entry["waitsFor"]["text"].as_str().map(str::to_owned);
    let told = "waits for one of the connections to its destination that mail which is sent on may \
                have";
    wait_for("connections that are silent", || {
        let queue = queue(&daemon);
        let waiting = queue.iter().filter(|entry| waits_for(entry).is_some_and(|it| it == told));
        (queue.len() == 10 && waiting.count() == 3).then_some(())
    });
    for subject in ["second", "third"] {
        submit(&daemon, &["carol@far.test"], subject);
        assert_eq!(outcomes(&daemon, subject, 1), ["sent carol@far.test"]);
    }
    assert_eq!(queue(&daemon).len(), 10, "nobody has been answered to");
    drop(silence);
    wait_for("an empty queue", || queue(&daemon).is_empty().then_some(()));
}

#[test]
fn what_strangers_have_sent_on_and_is_turned_away_holds_up_no_users_mail() {
    let rcpt = |address: &str, _| {
        if address.starts_with("away") { "421 4.7.0 not such mail" } else { "250 2.1.5 ok" }
    };
    let far = Remote::start(Manners { rcpt, ..Manners::default() });
    let daemon = with_remote_users(&["away0", "away1", "away2"], &far);
    for number in 0..3 {
        let to = format!("away{number}@example.test");
        swaks(&daemon, "a@good.test", &to, "sent on", &[]).accepted();
    }
    wait_for("three that were turned away", || {
        let queue = queue(&daemon);
        let failure = |entry: &Value| entry["lastFailure"].as_str().map(str::to_owned);
        let turned_away = queue.iter().filter_map(failure).filter(|it| it.contains("421"));
        (turned_away.count() == 3).then_some(())
    });
    submit(&daemon, &["carol@far.test"], "welcome");
    assert_eq!(outcomes(&daemon, "welcome", 1), ["sent carol@far.test"]);
    assert_eq!(queue(&daemon).len(), 3);
}

#[test]
fn a_recipient_who_is_deferred_for_too_long_bounces_with_the_last_reason() {
    let remote =
        Remote::start(Manners { rcpt: |_, _| "451 4.7.1 come back later", ..Manners::default() });
    let queue_section = format!("{RETRY_SOON}delay_warning_s = 1\nlifetime_s = 5\n");
    let daemon = started(&(queue_section + &route("far.test", remote.address.port())));
    submit(&daemon, &["carol@far.test"], "never");
    assert_eq!(outcomes(&daemon, "never", 1), ["bounced carol@far.test 4.7.1"]);
    let delayed = delivered(&daemon, "alice", "Subject: Delayed mail");
    assert!(delayed.contains("Action: delayed\r\nStatus: 4.7.1\r\n"), "{delayed}");
    let failed = delivered(&daemon, "alice", "Subject: Undelivered mail");
    assert!(failed.contains("451 4.7.1 come back later"), "{failed}");
    assert_eq!(daemon.mailbox("alice").len(), 2, "one report of each kind");
    assert!(queue(&daemon).is_empty());
}

/// What was submitted before anything could leave is sent by the daemon that comes next, whatever
/// its routes are then.
#[test]
fn what_waits_goes_by_the_routes_of_the_next_daemon() {
    let mut daemon = prepared(Setup {
        sections: route("far.test", crate::support::refusing_port()),
        ..Setup::default()
    });
    daemon.launch(Command::new(BINARY));
    submit(&daemon, &["carol@far.test"], "patience");
    waiting(&daemon, "4.4.1 cannot connect");
    assert!(daemon.stop().success());
    let remote = Remote::start(Manners::default());
    let file = std::fs::read(daemon.config()).expect("reads");
    let other = text(&file).replace(
        &text(&file).lines().rfind(|line| line.starts_with("port = ")).expect("a route").to_owned(),
        &format!("port = {}", remote.address.port()),
    );
    std::fs::write(daemon.config(), other).expect("writes");
    daemon.launch(Command::new(BINARY));
    daemon.succeeds(&["queue", "retry", "--all"]);
    assert_eq!(outcomes(&daemon, "patience", 1), ["sent carol@far.test"]);
}
