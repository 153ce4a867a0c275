//! More than the daemon wants: floods, guesses, clients that drip or do not read. Short forms of
//! what `mailweir-bench stress` plays at length.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::daemon::{Daemon, Setup};
use crate::support::smtp::{Client, message};
use crate::support::wait_for;

const BOB: &str = "bob@good.test";
const ALICE: &str = "alice@example.test";

fn daemon(limits: &str) -> Daemon {
    let sections = format!("[limits]\nbanner_delay_ms = 0\n{limits}");
    Setup { sections, ..Setup::default() }.start()
}

/// A scanner on loopback that answers one request after the other, each after a while.
fn slow_scanner(pause: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::sleep(pause);
            drop(stream); // No answer: PROCESSING_FAILED, and the mail flows.
        }
    });
    address
}

fn can_send(daemon: &Daemon, from: Ipv4Addr) -> bool {
    let mut client = Client::open_from(from, daemon.address());
    client.expect("220");
    client.envelope(BOB, &[ALICE]);
    client.data(&message(BOB, "service")).starts_with("250")
}

#[test]
fn connections_that_drop_leave_nothing_behind() {
    let daemon = daemon("");
    let descriptors = || {
        let path = format!("/proc/{}/fd", daemon.pid());
        std::fs::read_dir(path).expect("lists").count()
    };
    assert!(can_send(&daemon, Ipv4Addr::LOCALHOST));
    let before = wait_for("the first client's end", || {
        let now = descriptors();
        std::thread::sleep(Duration::from_millis(20));
        (now == descriptors()).then_some(now)
    });
    for _ in 0..300 {
        drop(std::net::TcpStream::connect(daemon.address()).expect("connects"));
    }
    wait_for("all descriptors", || (descriptors() <= before).then_some(()));
    assert!(can_send(&daemon, Ipv4Addr::LOCALHOST));
}

#[test]
fn a_client_that_drips_or_does_not_read_is_timed_out() {
    let daemon = daemon("command_timeout_s = 1\nmessage_timeout_s = 1\n");
    let began = Instant::now();
    let mut dripping = daemon.client();
    dripping.envelope(BOB, &[ALICE]);
    assert!(dripping.command("DATA").starts_with("354"));
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.set_recv_buffer_size(4096).expect("sets"); // Full soon.
    deaf.connect(&daemon.address().into()).expect("connects");
    let deaf = std::net::TcpStream::from(deaf);
    deaf.set_write_timeout(Some(Duration::from_secs(10))).expect("sets");
    let mut writer = deaf.try_clone().expect("clones");
    let deaf_end = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100)); // Past the banner.
        writer.write_all(b"EHLO mail.good.test\r\nMAIL FROM:<>\r\n").expect("sends");
        let commands = format!("RCPT TO:<{ALICE}>\r\n").into_bytes().repeat(1000);
        while writer.write_all(&commands).is_ok() {}
        began.elapsed()
    });
    let mut reply = String::new();
    while reply.is_empty() && began.elapsed() < Duration::from_secs(8) {
        if dripping.try_send(b"x").is_err() || began.elapsed() > Duration::from_secs(1) {
            reply = dripping.reply();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(reply.starts_with("421 4.4.2") && reply.contains("[timed-out "), "{reply}");
    assert!(deaf_end.join().expect("ends") < Duration::from_secs(9), "a deaf client is let go");
    drop(deaf);
    assert!(can_send(&daemon, Ipv4Addr::LOCALHOST));
}

#[test]
fn a_network_that_floods_waits_for_itself() {
    let scanner = slow_scanner(Duration::from_millis(300));
    let sections = format!(
        "[limits]\nbanner_delay_ms = 0\nprocessing_per_network = 1\n[spam]\nscanner = \"spamd\"\n\
         address = \"{scanner}\"\n"
    );
    let daemon = Setup { sections, ..Setup::default() }.start();
    std::thread::scope(|scope| {
        let flood: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| can_send(&daemon, Ipv4Addr::new(127, 0, 1, 1))))
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        assert!(can_send(&daemon, Ipv4Addr::new(127, 0, 2, 1)));
        let other = began.elapsed();
        let all = flood.into_iter().map(|client| client.join().expect("ends"));
        assert!(all.fold(true, |all, is_sent| all & is_sent), "the flood is slow, not refused");
        assert!(began.elapsed() > other, "the other network is done before the flood is");
    });
}

#[test]
fn what_cannot_wait_is_refused_before_it_comes() {
    let scanner = slow_scanner(Duration::from_millis(500));
    let sections = format!(
        "[limits]\nbanner_delay_ms = 0\nprocessing = 1\nwaiting = 1\n[spam]\nscanner = \"spamd\"\n\
         address = \"{scanner}\"\n"
    );
    let daemon = Setup { sections, ..Setup::default() }.start();
    std::thread::scope(|scope| {
        let daemon = &daemon;
        let sent: Vec<_> = (1..=2)
            .map(|network| {
                let from = Ipv4Addr::new(127, 0, network, 1);
                let client = scope.spawn(move || can_send(daemon, from));
                std::thread::sleep(Duration::from_millis(100));
                client
            })
            .collect();
        let mut third = Client::open_from(Ipv4Addr::new(127, 0, 3, 1), daemon.address());
        third.expect("220");
        assert!(third.command("EHLO mail.good.test").starts_with("250"));
        let asked = Instant::now();
        let reply = third.command(&format!("MAIL FROM:<{BOB}>"));
        assert!(reply.starts_with("421 4.3.2") && reply.contains("[overloaded "), "{reply}");
        assert!(asked.elapsed() < Duration::from_millis(200), "at once");
        for client in sent {
            assert!(client.join().expect("ends"), "what was taken is accepted");
        }
    });
    assert!(can_send(&daemon, Ipv4Addr::new(127, 0, 3, 1)), "and then all is as before");
}

#[test]
fn a_network_that_guesses_is_deferred_and_no_other() {
    let daemon = daemon("unknown_users_per_network = 5\n");
    let network = Ipv4Addr::new(127, 0, 1, 1);
    let mut guesser = Client::open_from(network, daemon.address());
    guesser.expect("220");
    guesser.envelope(BOB, &[]);
    for guess in 0..5 {
        let reply = guesser.command(&format!("RCPT TO:<guess{guess}@example.test>"));
        assert!(reply.starts_with("550 5.1.1"), "{reply}");
    }
    let reply = guesser.command(&format!("RCPT TO:<{ALICE}>"));
    assert!(reply.starts_with("421 4.7.0"), "nothing more is told: {reply}");
    assert!(reply.contains("[too-many-unknown-users "), "{reply}");
    let reply = Client::open_from(Ipv4Addr::new(127, 0, 1, 77), daemon.address()).reply();
    assert!(reply.contains("[too-many-unknown-users "), "its neighbours too: {reply}");
    assert!(can_send(&daemon, Ipv4Addr::new(127, 0, 2, 1)));
}
