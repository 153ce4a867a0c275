//! Verdicts over real DNS servers, and over those that fail.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, Setup};
use crate::support::dns::{BadServer, Hickory, Manner, Nsd};
use crate::support::smtp::message;
use crate::support::swaks::swaks;

const ZONE: &str = "$TTL 60\n\
@ IN SOA ns.real.test. hostmaster.real.test. 1 3600 600 86400 60\n\
@ IN NS ns.real.test.\n\
ns IN A 127.0.0.1\n\
@ IN TXT \"v=spf1 include:inc.real.test -all\"\n\
inc IN TXT \"v=spf1 ip4:127.0.0.0/8\"\n\
_dmarc IN TXT \"v=DMARC1; p=reject\"\n\
spoofed IN TXT \"v=spf1 -all\"\n";

fn daemon(server: std::net::SocketAddr, more: &str) -> Daemon {
    let dns = format!("servers = [\"{server}\"]\ntimeout_ms = 500\nattempts = 1");
    Setup { dns, sections: more.into(), ..Setup::default() }.start()
}

fn check(server: std::net::SocketAddr) {
    let daemon = daemon(server, "");
    swaks(&daemon, "a@real.test", "alice@example.test", "real", &[]).accepted();
    let received = &daemon.trace("real")[0];
    assert_eq!(received["spfVerdict"], "PASS", "{received}");
    assert_eq!(received["dmarcVerdict"], "PASS", "{received}");
    swaks(&daemon, "a@spoofed.real.test", "alice@example.test", "spoofed", &[])
        .refused("550 5.7.1", "dmarc-reject");
}

#[test]
fn hickory_server_is_understood() {
    let server = Hickory::start("real.test.", ZONE);
    check(server.address);
}

#[test]
fn nsd_is_understood() {
    let server = Nsd::start("real.test", ZONE);
    check(server.address);
}

/// Mail flows within the deadline, and the verdicts say that they could not be made.
fn check_bad(server: std::net::SocketAddr, what: &str) {
    let daemon = daemon(server, "[verdicts]\ndeadline_ms = 1500\n");
    let mut client = daemon.client();
    client.envelope("a@real.test", &["alice@example.test"]);
    let signed = [
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=real.test; s=s; h=from; \
          bh=g3zLYH4xKxcPrHOD18z9YfpQcnk/GaJedfustWU5uGs=; b=AAAA\r\n"
            .to_vec(),
        message("a@real.test", "flows"),
    ]
    .concat();
    let started = Instant::now();
    let reply = client.data(&signed);
    assert!(reply.starts_with("250"), "{what}: {reply}");
    assert!(started.elapsed() < Duration::from_secs(4), "{what}: {:?}", started.elapsed());
    let received = &daemon.trace("flows")[0];
    assert_eq!(received["spfVerdict"], "PROCESSING_FAILED", "{what}: {received}");
    assert_eq!(received["dmarcVerdict"], "PROCESSING_FAILED", "{what}: {received}");
    assert_eq!(daemon.folders("alice", "flows"), ["INBOX"], "{what}");
}

#[test]
fn dns_that_fails_delays_mail_no_longer_than_the_deadline() {
    for manner in [Manner::ServFail, Manner::Silent, Manner::Garbage, Manner::WrongId] {
        let server = BadServer::start(manner);
        check_bad(server.address, &format!("{manner:?}"));
    }
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::free_port()));
    check_bad(nobody, "a dead server");
}
