//! Listeners on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::shared;
use super::scripted::{Scripted, Told, normalized};
use crate::smtp::reason::Reason;
use crate::smtp::{Limits, Listener, ListenerSettings, Protocol, Shared};

struct Running {
    shared: Arc<Shared<Scripted>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn run(limits: Limits, proxies: Option<&str>) -> Running {
    run_speaking(Protocol::Mx, limits, proxies).await
}

async fn run_speaking(protocol: Protocol, limits: Limits, proxies: Option<&str>) -> Running {
    run_mending(protocol, limits, proxies, &[]).await
}

async fn run_mending(
    protocol: Protocol,
    limits: Limits,
    proxies: Option<&str>,
    mended: &[&str],
) -> Running {
    let shared = shared(Limits { banner_delay: Duration::ZERO, ..limits });
    let settings = ListenerSettings {
        name: "mx".to_owned(),
        protocol,
        bind: "127.0.0.1:0".parse().expect("valid"),
        proxy_protocol_from: proxies.map(|network| vec![network.parse().expect("valid")]),
        normalize_line_ends_from: mended.iter().map(|n| n.parse().expect("valid")).collect(),
    };
    let listener = Listener::bind(settings, Arc::clone(&shared)).await.expect("bound");
    let address = listener.local_addr();
    let (stop, stopped) = watch::channel(false);
    Running { shared, address, stop, task: tokio::spawn(listener.run(stopped)) }
}

async fn connect(running: &Running) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(running.address).await.expect("open"))
}

async fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).await.expect("readable");
    normalized(&line)
}

#[tokio::test]
async fn serves_and_stops() {
    let running = run(Limits::default(), None).await;
    let mut client = connect(&running).await;
    assert_eq!(line(&mut client).await, "220 mx.example.test ESMTP Mailweir\r\n");
    let mail = b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n";
    client.write_all(mail).await.expect("open");
    for _ in 0..4 {
        line(&mut client).await;
    }
    running.stop.send_replace(true);
    client.write_all(b"x\r\n.\r\n").await.expect("still open");
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.expect("readable");
    assert!(normalized(&rest).starts_with("250 2.0.0 Message stored\r\n421 4.3.2 "), "{rest}");
    drop(client);
    running.task.await.expect("no panic");
    assert_eq!(running.shared.handler().messages(), [b"x\r\n"]);
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    for (limits, words) in [
        (Limits { connections: 1, ..Limits::default() }, "[too-many-connections <id>]"),
        (
            Limits { connections_per_network: 1, ..Limits::default() },
            "[too-many-from-network <id>]",
        ),
    ] {
        let running = run(limits, None).await;
        let mut first = connect(&running).await;
        assert!(line(&mut first).await.starts_with("220 "));
        let mut second = connect(&running).await;
        let said = line(&mut second).await;
        assert!(said.starts_with("421 ") && said.contains(words), "{said}");
        assert_eq!(line(&mut second).await, "");
        first.write_all(b"QUIT\r\n").await.expect("open");
        line(&mut first).await;
        drop(first);
        // The place is free once the server has seen the end of the first connection.
        let again = async {
            loop {
                let mut third = connect(&running).await;
                if line(&mut third).await.starts_with("220 ") {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("free again");
    }
}

#[tokio::test]
async fn proxies_are_believed_from_their_networks_only() {
    let header = b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 25\r\n";
    let begin = b"HELO a\r\nMAIL FROM:<>\r\n";
    let trusting = run(Limits::default(), Some("127.0.0.0/8")).await;
    let mut client = connect(&trusting).await;
    client.write_all(header).await.expect("open");
    assert!(line(&mut client).await.starts_with("220 "));
    client.write_all(begin).await.expect("open");
    line(&mut client).await;
    line(&mut client).await;
    let told = trusting.shared.handler().told();
    let Some(Told::Mail(peer, ..)) = told.first() else { panic!("{told:?}") };
    assert_eq!(peer.ip.to_string(), "203.0.113.9");

    // Absent, or from elsewhere: not spoken, so the header is only a bad command.
    for proxies in [None, Some("192.0.2.0/24")] {
        let running = run(Limits::default(), proxies).await;
        let mut client = connect(&running).await;
        assert!(line(&mut client).await.starts_with("220 "));
        client.write_all(&[header.as_slice(), begin].concat()).await.expect("open");
        assert!(line(&mut client).await.starts_with("500 5.5.2 "));
        line(&mut client).await;
        line(&mut client).await;
        let told = running.shared.handler().told();
        let Some(Told::Mail(peer, ..)) = told.get(1) else { panic!("{told:?}") };
        assert_eq!(peer.ip.to_string(), "127.0.0.1");
        assert_eq!(running.shared.handler().refusals(), [Reason::UnknownCommand]);
    }
}

/// Whose line ends are mended depends on the client, not on the proxy that brings it.
#[tokio::test]
async fn line_ends_are_mended_for_the_networks_that_are_named() {
    let message = b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\na\nb\r\n.\r\n";
    let check = async |client: &str, mended: &[&str], is_mended: bool| {
        let proxies = Some("127.0.0.0/8");
        let running = run_mending(Protocol::Mx, Limits::default(), proxies, mended).await;
        let mut stream = connect(&running).await;
        let header = format!("PROXY TCP4 {client} 127.0.0.1 12345 25\r\n");
        stream.write_all(header.as_bytes()).await.expect("open");
        assert!(line(&mut stream).await.starts_with("220 "));
        stream.write_all(message).await.expect("open");
        for _ in 0..4 {
            line(&mut stream).await;
        }
        let reply = line(&mut stream).await;
        let expected = if is_mended { "250 " } else { "550 5.6.0 " };
        assert!(reply.starts_with(expected), "{client} {mended:?}: {reply}");
    };
    check("203.0.113.9", &["203.0.113.0/24"], true).await;
    check("203.0.113.9", &["192.0.2.0/24", "203.0.113.9/32"], true).await;
    check("203.0.113.9", &["127.0.0.0/8"], false).await;
    check("203.0.113.9", &[], false).await;
}

/// A client that waits for TLS could not read why, so it is only closed.
#[tokio::test]
async fn where_tls_comes_first_nothing_is_said_in_plain_text() {
    let limits = Limits { connections: 0, ..Limits::default() };
    let running = run_speaking(Protocol::Submissions, limits, None).await;
    assert_eq!(line(&mut connect(&running).await).await, "");
    assert_eq!(running.shared.handler().refusals(), [Reason::TooManyConnections]);
}

/// New limits hold for connections from then on.
#[tokio::test]
async fn limits_can_be_changed_while_it_runs() {
    let running = run(Limits::default(), None).await;
    running.shared.set_limits(Limits { connections: 0, ..Limits::default() });
    assert!(line(&mut connect(&running).await).await.starts_with("421 "));
}
