//! Verdicts from real name servers, and from servers that are dead, slow or lying: the mail flows
//! within the deadline, and no verdict is made up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup, ZONE, text};
use crate::support::dns::{HickoryServer, Nsd, Responder, encode, permission, reply, servers};
use crate::support::refusing_port;
use crate::support::smtp::{Client, message};
use crate::support::swaks::swaks;

const ALICE: &str = "alice@example.test";
const SIGNED: &[u8] = include_bytes!("../../fixtures/messages/demo-good.eml");
const SIGNED_SUBJECT: &str = "Lunch on Friday?";

fn asking(address: SocketAddr) -> Daemon {
    Setup { dns: servers(address), ..Setup::default() }.start()
}

fn verdict(daemon: &Daemon, subject: &str, name: &str) -> String {
    let trace = daemon.trace(subject);
    trace[0][name].as_str().unwrap_or_else(|| panic!("no {name} in {trace:#?}")).to_owned()
}

fn send_signed(daemon: &Daemon) -> String {
    let mut client = daemon.client();
    client.envelope("bob@good.test", &[ALICE]);
    client.data(SIGNED)
}

#[track_caller]
fn check_verdicts_from(address: SocketAddr) {
    let daemon = asking(address);
    assert!(send_signed(&daemon).starts_with("250"));
    for name in ["spfVerdict", "dkimVerdict", "dmarcVerdict"] {
        assert_eq!(verdict(&daemon, SIGNED_SUBJECT, name), "PASS", "{name}");
    }
    swaks(&daemon, "ceo@reject.test", ALICE, "spoofed", &[]).refused("550 5.7.1", "dmarc-reject");
    assert_eq!(verdict(&daemon, "spoofed", "spfVerdict"), "FAIL");
    assert_eq!(verdict(&daemon, "spoofed", "dmarcVerdict"), "FAIL");
    swaks(&daemon, "a@plain.test", ALICE, "no records", &[]).accepted();
    assert_eq!(verdict(&daemon, "no records", "spfVerdict"), "GRAY");
    assert_eq!(verdict(&daemon, "no records", "dmarcVerdict"), "GRAY");
}

/// The reverse name and SPF of a client that is not on this machine.
#[track_caller]
fn check_client_behind_proxy(start: impl FnOnce(&str) -> SocketAddr) {
    let zone = format!(
        "{ZONE}far.test. IN TXT \"v=spf1 a:mail.far.test -all\"\nmail.far.test. IN A 192.0.2.7\n\
         7.2.0.192.in-addr.arpa. IN PTR mail.far.test.\n\
         8.2.0.192.in-addr.arpa. IN PTR mail.far.test.\n"
    );
    let setup = Setup {
        dns: servers(start(&zone)),
        listener: "proxy_protocol_from = [\"127.0.0.0/8\"]".into(),
        ..Setup::default()
    };
    let daemon = setup.start();
    for (ip, spf, iprev) in
        [("192.0.2.7", "PASS", "iprev=pass"), ("192.0.2.8", "FAIL", "iprev=fail")]
    {
        let header = format!("PROXY TCP4 {ip} 127.0.0.1 40000 25\r\n");
        let mut client = Client::connect_through_proxy(daemon.address(), header.as_bytes());
        client.envelope("a@far.test", &[ALICE]);
        assert!(client.data(&message("a@far.test", ip)).starts_with("250"));
        assert_eq!(verdict(&daemon, ip, "spfVerdict"), spf);
        let needle = format!("\r\nSubject: {ip}\r\n");
        let messages = daemon.mailbox("alice").into_iter().map(|(_, bytes)| text(&bytes));
        let stored = messages.into_iter().find(|stored| stored.contains(&needle));
        let stored = stored.expect("is delivered");
        assert!(stored.contains(iprev) && stored.contains(ip), "{stored}");
    }
}

#[test]
fn hickory_server_gives_the_verdicts() {
    let server = HickoryServer::start(ZONE);
    check_verdicts_from(server.address);
    let mut server = None;
    check_client_behind_proxy(|zone| server.insert(HickoryServer::start(zone)).address);
}

#[test]
fn nsd_gives_the_verdicts() {
    let server = Nsd::start(ZONE);
    check_verdicts_from(server.address);
    let mut server = None;
    check_client_behind_proxy(|zone| server.insert(Nsd::start(zone)).address);
}

/// A record that does not fit into a UDP answer is asked for again over TCP.
#[test]
fn an_answer_too_long_for_udp_comes_over_tcp() {
    let long: String = (0..40).map(|n| format!("\"{n:>3} {}\" ", "x".repeat(200))).collect();
    let zone = format!(
        "{ZONE}long.test. IN TXT {long}\n\
         long.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n"
    );
    let hickory = HickoryServer::start(&zone);
    let nsd = Nsd::start(&zone);
    for address in [hickory.address, nsd.address] {
        let daemon = asking(address);
        swaks(&daemon, "a@long.test", ALICE, "long", &[]).accepted();
        assert_eq!(verdict(&daemon, "long", "spfVerdict"), "PASS");
    }
}

/// With this server: the signed message and a spoofed one are delivered before `within`, and
/// every verdict says that it could not be made.
#[track_caller]
fn check_failing(what: &str, address: SocketAddr, keys: &str, sections: &str, within: Duration) {
    let setup = Setup {
        dns: format!("servers = [\"{address}\"]\n{keys}"),
        sections: sections.into(),
        ..Setup::default()
    };
    let daemon = setup.start();
    let began = Instant::now();
    let reply = send_signed(&daemon);
    let took = began.elapsed();
    assert!(reply.starts_with("250"), "{what}: {reply}");
    assert!(took < within, "{what}: took {took:?}");
    let mut client = daemon.client();
    client.envelope("ceo@reject.test", &[ALICE]);
    let reply = client.data(&message("ceo@reject.test", "spoofed"));
    assert!(reply.starts_with("250"), "{what}: {reply}");
    for (subject, dkim) in [(SIGNED_SUBJECT, "PROCESSING_FAILED"), ("spoofed", "GRAY")] {
        let trace = daemon.trace(subject);
        let received = &trace[0];
        assert_eq!(received["spfVerdict"], "PROCESSING_FAILED", "{what}: {received}");
        assert_eq!(received["dmarcVerdict"], "PROCESSING_FAILED", "{what}: {received}");
        assert_eq!(received["dkimVerdict"], dkim, "{what}: {received}");
        assert_eq!(received["dmarcPolicy"], Value::Null, "{what}: {received}");
        assert_eq!(daemon.folders("alice", subject), ["INBOX"], "{what}");
    }
}

const QUICKLY: &str = "timeout_ms = 300\nattempts = 1";
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_dead_server_makes_no_verdict() {
    let address = SocketAddr::from(([127, 0, 0, 1], refusing_port()));
    check_failing("dead", address, QUICKLY, "", SOON);
    // Its host says that nobody listens there, so nobody waits.
    let patient = "timeout_ms = 60000\nattempts = 10";
    check_failing("refused", address, patient, "[verdicts]\ndeadline_ms = 60000\n", SOON);
}

#[test]
fn a_failing_server_makes_no_verdict() {
    check_failing("SERVFAIL", Responder::servfail().address, QUICKLY, "", SOON);
}

#[test]
fn a_silent_server_makes_no_verdict() {
    check_failing("silent", Responder::silent().address, QUICKLY, "", SOON);
}

#[test]
fn a_slow_server_is_waited_for_until_the_deadline_and_no_longer() {
    let server = Responder::slow(Duration::from_secs(30));
    check_failing(
        "slow",
        server.address,
        "timeout_ms = 20000\nattempts = 5",
        "[verdicts]\ndeadline_ms = 500\n",
        Duration::from_secs(3),
    );
}

#[test]
fn a_lying_server_is_not_believed() {
    check_failing("wrong id", Responder::wrong_id().address, QUICKLY, "", SOON);
    check_failing("wrong question", Responder::wrong_question().address, QUICKLY, "", SOON);
    check_failing("garbage", Responder::garbage().address, QUICKLY, "", SOON);
}

/// A server from before EDNS says FORMERR to all that has it, and permits everything otherwise.
#[test]
fn a_server_from_before_edns_gives_verdicts() {
    let server = Responder::start(|query| {
        let refuses = query.edns.is_some();
        let code = if refuses { ResponseCode::FormErr } else { ResponseCode::NoError };
        encode(reply(query, code, vec![permission(query)]))
    });
    let daemon = asking(server.address);
    swaks(&daemon, "a@old.test", ALICE, "old", &[]).accepted();
    assert_eq!(verdict(&daemon, "old", "spfVerdict"), "PASS");
}

#[test]
fn where_the_first_server_refuses_the_next_is_asked() {
    let good = HickoryServer::start(ZONE);
    let lost = Responder::start(|query| encode(reply(query, ResponseCode::Refused, vec![])));
    let other = Responder::servfail();
    let addresses = [lost.address, other.address, good.address];
    let addresses = addresses.map(|address| format!("\"{address}\"")).join(", ");
    let daemon = Setup {
        dns: format!("servers = [{addresses}]\ntimeout_ms = 1000\nattempts = 1"),
        ..Setup::default()
    };
    let daemon = daemon.start();
    assert!(send_signed(&daemon).starts_with("250"));
    for name in ["spfVerdict", "dkimVerdict", "dmarcVerdict"] {
        assert_eq!(verdict(&daemon, SIGNED_SUBJECT, name), "PASS", "{name}");
    }
}

#[test]
fn a_reload_keeps_what_dns_has_answered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = Responder::start(move |query| {
        let question = query.queries.first().expect("a question");
        if question.name().to_string() == "kept.test." && question.query_type() == RecordType::TXT {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        encode(reply(query, ResponseCode::NoError, vec![permission(query)]))
    });
    let daemon = asking(server.address);
    let send = |subject: &str| {
        swaks(&daemon, "a@kept.test", ALICE, subject, &[]).accepted();
        assert_eq!(verdict(&daemon, subject, "spfVerdict"), "PASS");
        asked.load(Ordering::SeqCst)
    };
    let first = send("before");
    daemon.succeeds(&["reload"]);
    assert_eq!(send("after a reload"), first, "the cache is lost");
    let file = std::fs::read_to_string(daemon.config()).expect("reads");
    std::fs::write(daemon.config(), file.replace("attempts = 1", "attempts = 2")).expect("writes");
    daemon.succeeds(&["reload"]);
    assert!(send("after a change") > first, "the new settings are not in force");
}
