//! Connections over in-memory streams, under a clock that stands still until nobody can go on.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::scripted::{Scripted, Told, hostname, normalized};
use crate::smtp::connection::{Arrival, Source, serve};
use crate::smtp::reason::Reason;
use crate::smtp::settings::{Limits, Protocol};
use crate::smtp::{Shared, Tls};

/// A self-signed pair, made once, and its certificate.
pub(crate) fn tls() -> (Tls, CertificateDer<'static>) {
    static PAIR: OnceLock<(Tls, CertificateDer<'static>)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().expect("made");
        let tls = Tls::self_signed(folder.path(), &hostname()).expect("made");
        let file = folder.path().join("certificate.pem");
        (tls, CertificateDer::from_pem_file(file).expect("readable"))
    };
    PAIR.get_or_init(make).clone()
}

pub(crate) fn shared(limits: Limits) -> Arc<Shared<Scripted>> {
    Shared::new(Scripted::default(), hostname(), limits, tls().0)
}

pub(crate) fn client_config(
    trusted: CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The client's end of a connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    server: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

fn direct(shared: &Arc<Shared<Scripted>>, protocol: Protocol) -> Arrival {
    let address: SocketAddr = "192.0.2.7:45000".parse().expect("valid");
    let place = shared.take_in_network(address.ip(), protocol, &shared.limits()).expect("free");
    Arrival { protocol, mended_networks: Arc::default(), source: Source::Client(address, place) }
}

/// How much the "network" holds.
const PIPE: usize = 64 * 1024;

impl Client {
    pub(crate) fn connect(shared: &Arc<Shared<Scripted>>) -> Self {
        Self::connect_over(shared, duplex(PIPE))
    }

    /// Connects to a listener of that protocol; the handshake of an implicit one is still to come.
    pub(crate) fn connect_speaking(shared: &Arc<Shared<Scripted>>, protocol: Protocol) -> Self {
        Self::arrive(shared, direct(shared, protocol), duplex(PIPE))
    }

    fn connect_over(
        shared: &Arc<Shared<Scripted>>,
        (stream, theirs): (DuplexStream, DuplexStream),
    ) -> Self {
        Self::arrive(shared, direct(shared, Protocol::Mx), (stream, theirs))
    }

    fn through_proxy(shared: &Arc<Shared<Scripted>>) -> Self {
        Self::through_proxy_speaking(shared, Protocol::Mx)
    }

    pub(crate) fn through_proxy_speaking(
        shared: &Arc<Shared<Scripted>>,
        protocol: Protocol,
    ) -> Self {
        let source = Source::Proxy("127.0.0.1:50000".parse().expect("valid"));
        let arrival = Arrival { protocol, mended_networks: Arc::default(), source };
        Self::arrive(shared, arrival, duplex(PIPE))
    }

    fn arrive(
        shared: &Arc<Shared<Scripted>>,
        arrival: Arrival,
        (stream, theirs): (DuplexStream, DuplexStream),
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(theirs, arrival, Arc::clone(shared), stopped));
        Self { stream: Box::new(stream), server, stop }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("open");
    }

    /// The next line, or less if the connection ends.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match self.stream.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => break,
            }
        }
        normalized(&String::from_utf8(line).expect("UTF-8"))
    }

    /// A reply with all its lines.
    pub(crate) async fn reply(&mut self) -> String {
        let mut reply = self.line().await;
        while reply.lines().last().is_some_and(|line| line.get(3..4) == Some("-")) {
            reply += &self.line().await;
        }
        reply
    }

    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Past the banner, EHLO, MAIL and RCPT.
    pub(crate) async fn envelope(&mut self) {
        assert!(self.reply().await.starts_with("220 "));
        for command in
            ["EHLO client.test", "MAIL FROM:<a@example.org>", "RCPT TO:<alice@example.test>"]
        {
            assert!(self.ask(command).await.starts_with("250"));
        }
    }

    /// All that still comes until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        normalized(&String::from_utf8(self.octets().await).expect("UTF-8"))
    }

    pub(crate) async fn octets(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.stream.read_to_end(&mut octets).await.expect("closed in order");
        octets
    }

    /// The daemon is stopping.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The client's side of a handshake.
    pub(crate) async fn start_tls(self) -> Self {
        self.try_start_tls().await.expect("TLS starts")
    }

    async fn try_start_tls(self) -> io::Result<Self> {
        let config = client_config(tls().1, rustls::ALL_VERSIONS);
        let name = ServerName::try_from("mx.example.test").expect("valid");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, self.stream).await?;
        Ok(Self { stream: Box::new(stream), ..self })
    }

    /// The client goes away; returns when the server has noticed.
    pub(crate) async fn gone(self) {
        drop(self.stream);
        self.server.await.expect("no panic");
    }
}

pub(crate) fn limits() -> Limits {
    Limits { banner_delay: Duration::ZERO, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_message_arrives_whole() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.envelope().await;
    assert!(client.ask("DATA").await.starts_with("354 "));
    client.send(b"Subject: x\r\n\r\n..dot\r\n\0\xff\r\n.\r\n").await;
    assert_eq!(client.reply().await, "250 2.0.0 Message stored\r\n");
    assert_eq!(client.ask("QUIT").await, "221 2.0.0 Bye\r\n");
    assert_eq!(client.rest().await, "");
    client.gone().await;
    assert_eq!(shared.handler().messages(), [b"Subject: x\r\n\r\n.dot\r\n\0\xff\r\n"]);
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn a_big_message_arrives_whole_by_data_and_by_bdat() {
    let shared = shared(limits());
    let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.\r\n";
    let content = [b"Subject: x\r\n\r\n".as_slice(), &line.repeat(60_000)].concat();
    let mut client = Client::connect(&shared);
    client.envelope().await;
    client.ask("DATA").await;
    client.send(&content).await;
    assert_eq!(client.ask(".").await, "250 2.0.0 Message stored\r\n");
    client.ask("MAIL FROM:<a@example.org>").await;
    client.ask("RCPT TO:<alice@example.test>").await;
    for chunk in content.chunks(1_000_001) {
        client.send(format!("BDAT {}\r\n", chunk.len()).as_bytes()).await;
        client.send(chunk).await;
        assert_eq!(client.reply().await, format!("250 2.0.0 {} octets received\r\n", chunk.len()));
    }
    assert_eq!(client.ask("BDAT 0 LAST").await, "250 2.0.0 Message stored\r\n");
    client.gone().await;
    assert!(shared.handler().messages() == [content.clone(), content]);
}

#[tokio::test(start_paused = true)]
async fn pipelined_replies_come_in_one_write() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.reply().await;
    client.send(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n").await;
    let mut buffer = [0; 4096];
    let length = client.stream.read(&mut buffer).await.expect("open");
    let replies = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(replies.starts_with("250-mx") && replies.contains("\r\n354 "), "{replies}");
    client.gone().await;
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn an_early_talker_never_sees_the_banner() {
    let shared = shared(Limits { banner_delay: Duration::from_secs(1), ..Limits::default() });
    let mut client = Client::connect(&shared);
    client.send(b"EHLO hurry.test\r\n").await;
    let said = client.rest().await;
    assert_eq!(said, "554 5.5.0 You spoke before the banner [early-talker <id>]\r\n");
    client.gone().await;
    assert_eq!(shared.handler().refusals(), [Reason::EarlyTalker]);

    let began = Instant::now();
    let mut patient = Client::connect(&shared);
    assert_eq!(patient.reply().await, "220 mx.example.test ESMTP Mailweir\r\n");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    patient.gone().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_the_banner_does_not_wait_again_for_hours() {
    let shared = shared(Limits { banner_delay: Duration::from_secs(1), ..Limits::default() });
    for (pause, expected) in [(0, 1), (0, 0), (3 * 3600, 0), (3600, 1), (0, 0)] {
        sleep(Duration::from_secs(pause)).await;
        let began = Instant::now();
        let mut client = Client::connect(&shared);
        assert_eq!(client.reply().await, "220 mx.example.test ESMTP Mailweir\r\n");
        assert_eq!(began.elapsed(), Duration::from_secs(expected));
        client.gone().await;
    }
    // It spoke first, so it has not waited.
    let shared = self::shared(Limits { banner_delay: Duration::from_secs(1), ..Limits::default() });
    for _ in 0..2 {
        let mut client = Client::connect(&shared);
        client.send(b"EHLO hurry.test\r\n").await;
        assert!(client.rest().await.contains("[early-talker <id>]"));
        client.gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn starttls_drops_what_was_pipelined_before_it() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.reply().await;
    client.ask("EHLO client.test").await;
    client.send(b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n").await;
    assert_eq!(client.reply().await, "220 2.0.0 Ready to start TLS\r\n");
    let mut client = client.start_tls().await;
    assert!(client.ask("MAIL FROM:<a@example.org>").await.starts_with("503 5.5.1 "));
    assert!(!client.ask("EHLO client.test").await.contains("STARTTLS"));
    assert!(client.ask("MAIL FROM:<a@example.org>").await.starts_with("250 "));
    client.gone().await;
    let told = shared.handler().told();
    let Some(Told::Mail(peer, path, _)) = told.iter().find(|told| matches!(told, Told::Mail(..)))
    else {
        panic!("{told:?}")
    };
    assert_eq!(path.to_string(), "<a@example.org>");
    let tls = peer.tls.as_deref().expect("under TLS");
    assert!(tls.starts_with("TLSv1.3 TLS13_"), "{tls}");
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_tls_handshake_ends_the_connection() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.reply().await;
    client.ask("STARTTLS").await;
    client.send(b"MAIL FROM:<injected@example.org>\r\n").await;
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.expect("closed");
    assert!(!rest.starts_with(b"250"), "{rest:?}");
    client.gone().await;
    assert_eq!(shared.handler().told(), []);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_not_waited_for_long() {
    for stop_after in [None, Some(Duration::from_secs(7))] {
        let shared = shared(limits());
        let mut client = Client::connect(&shared);
        client.reply().await;
        client.ask("STARTTLS").await;
        let began = Instant::now();
        if let Some(delay) = stop_after {
            sleep(delay).await;
            client.stop.send_replace(true);
        }
        assert_eq!(client.rest().await, "");
        assert_eq!(began.elapsed(), stop_after.unwrap_or(Duration::from_secs(300)));
        client.gone().await;
    }
}

/// Each wait has its own limit, and the peer is told which one it was.
#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection_in_time() {
    let limits = Limits {
        command_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(180),
        ..limits()
    };
    for (begin, seconds) in [(None, 300), (Some("DATA"), 180), (Some("BDAT 100"), 180)] {
        let shared = shared(limits.clone());
        let mut client = Client::connect(&shared);
        client.envelope().await;
        if let Some(command) = begin {
            client.send(format!("{command}\r\nabc").as_bytes()).await;
        }
        let began = Instant::now();
        let said = client.rest().await;
        assert!(said.ends_with("421 4.4.2 Timed out waiting for you [timed-out <id>]\r\n"));
        assert_eq!(began.elapsed(), Duration::from_secs(seconds), "{begin:?}");
        client.gone().await;
        assert_eq!(shared.handler().refusals(), [Reason::TimedOut]);
        shared.handler().assert_balanced();
    }
}

/// A client that never stops sending, but never gets anywhere.
#[tokio::test(start_paused = true)]
async fn a_slow_drip_does_not_extend_the_time() {
    for (begin, drip, seconds) in [
        (None, b"N", 300),
        (Some("DATA\r\n"), b"x", 1800),
        (Some("BDAT 1000000\r\n"), b"x", 1800),
        (None, b"\n", 300),
    ] {
        let shared = shared(limits());
        let mut client = Client::connect(&shared);
        client.envelope().await;
        client.send(begin.unwrap_or_default().as_bytes()).await;
        let began = Instant::now();
        while client.stream.write_all(drip).await.is_ok() && began.elapsed().as_secs() < 9999 {
            sleep(Duration::from_secs(60)).await;
        }
        let late = began.elapsed().as_secs().saturating_sub(seconds);
        assert!(late <= 61, "{begin:?} took {:?}", began.elapsed());
        client.gone().await;
        assert!(shared.handler().refusals().contains(&Reason::TimedOut), "{begin:?}");
        shared.handler().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_however_busy_it_is() {
    let shared = shared(Limits { session_timeout: Duration::from_secs(600), ..limits() });
    let mut client = Client::connect(&shared);
    client.reply().await;
    let began = Instant::now();
    while client.stream.write_all(b"NOOP\r\n").await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(700));
        sleep(Duration::from_secs(9)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(600));
    let said = client.rest().await;
    assert!(said.ends_with("421 4.4.2 Timed out waiting for you [timed-out <id>]\r\n"), "{said}");
    client.gone().await;
}

/// The client asks and asks but reads no answer: the server stops reading, waits and gives up.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    let shared = shared(limits());
    let mut client = Client::connect_over(&shared, duplex(1024));
    let began = Instant::now();
    while client.stream.write_all(&b"HELP\r\n".repeat(100)).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(600), "it reads on and on");
    }
    client.server.await.expect("no panic");
    assert!(began.elapsed() <= Duration::from_secs(302));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_abandons_its_transaction() {
    for begin in ["", "DATA\r\nhalf a line", "BDAT 100\r\nabc", "BDAT 3\r\nabc", "BDAT 3 LAST\r\n"]
    {
        let shared = shared(limits());
        let mut client = Client::connect(&shared);
        client.envelope().await;
        client.send(begin.as_bytes()).await;
        client.gone().await;
        assert_eq!(shared.handler().told().last(), Some(&Told::Abandon), "{begin}");
        shared.handler().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_idle_connections_at_once() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.envelope().await;
    client.stop.send_replace(true);
    let began = Instant::now();
    let goodbye = "421 4.3.2 Shutting down, try again later [shutting-down <id>]\r\n";
    assert_eq!(client.rest().await, goodbye);
    assert_eq!(began.elapsed(), Duration::ZERO);
    client.gone().await;
    shared.handler().assert_balanced();
}

/// A chunk that belongs to no message is no message in progress.
#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_after_a_stray_chunk() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.reply().await;
    assert!(client.ask("BDAT 2\r\n").await.starts_with("503 "));
    client.stop.send_replace(true);
    let began = Instant::now();
    assert!(client.rest().await.contains("[shutting-down <id>]"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    client.gone().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_a_message_in_progress_finish() {
    for (begin, end) in [("DATA", "c\r\n.\r\n"), ("BDAT 6", "abcd\r\nBDAT 0 LAST\r\n")] {
        let shared = shared(limits());
        let mut client = Client::connect(&shared);
        client.envelope().await;
        client.send(format!("{begin}\r\n").as_bytes()).await;
        sleep(Duration::from_secs(1)).await;
        client.stop.send_replace(true);
        sleep(Duration::from_secs(20)).await;
        client.send(end.as_bytes()).await;
        let said = client.rest().await;
        assert!(said.contains("250 2.0.0 Message stored\r\n421 4.3.2 "), "{said}");
        client.gone().await;
        assert_eq!(shared.handler().messages().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_ever() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.envelope().await;
    client.ask("DATA").await;
    client.stop.send_replace(true);
    let began = Instant::now();
    assert!(client.rest().await.contains("[shutting-down <id>]"));
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    client.gone().await;
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn memory_in_flight_is_shared_and_the_refused_message_is_still_consumed() {
    let shared = shared(Limits { in_flight_bytes: 256 * 1024, ..limits() });
    let big = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n".repeat(3000);
    let mut first = Client::connect(&shared);
    first.envelope().await;
    first.ask("DATA").await;
    first.send(&big).await;
    let mut second = Client::connect(&shared);
    second.envelope().await;
    second.ask("DATA").await;
    second.send(&big).await;
    let said = second.ask(".").await;
    assert_eq!(said, "421 4.3.2 Overloaded, try again later [overloaded <id>]\r\n");
    assert_eq!(second.rest().await, "");
    second.gone().await;
    assert_eq!(first.ask(".").await, "250 2.0.0 Message stored\r\n");
    first.gone().await;
    let mut third = Client::connect(&shared);
    third.envelope().await;
    third.ask("DATA").await;
    third.send(&big).await;
    assert_eq!(third.ask(".").await, "250 2.0.0 Message stored\r\n", "given back");
    third.gone().await;
    shared.handler().assert_balanced();
}

/// A transaction with many recipients is held before any message comes.
#[tokio::test(start_paused = true)]
async fn recipients_count_among_what_is_in_flight() {
    let shared = shared(Limits { in_flight_bytes: 160 * 1024, ..limits() });
    let orcpt = format!("rfc822;{}@example.test", "x".repeat(400));
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..3 {
        let mut client = Client::connect(&shared);
        client.envelope().await;
        for number in 0..120 {
            let said = client.ask(&format!("RCPT TO:<u{number}@example.test> ORCPT={orcpt}")).await;
            if !said.starts_with("250 ") {
                refused = Some(said);
                break;
            }
        }
        held.push(client);
    }
    let overloaded = "421 4.3.2 Overloaded, try again later [overloaded <id>]\r\n";
    assert_eq!(refused.as_deref(), Some(overloaded), "three times 60 KiB");
    let mut last = held.pop().expect("three");
    assert_eq!(last.rest().await, "");
    last.gone().await;
    // Who has an ordinary message is served meanwhile.
    let mut other = Client::connect(&shared);
    other.envelope().await;
    other.ask("DATA").await;
    other.send(b"Subject: x\r\n\r\nx\r\n").await;
    assert_eq!(other.ask(".").await, "250 2.0.0 Message stored\r\n");
    other.gone().await;
    assert_eq!(held[0].ask("RSET").await, "250 2.0.0 Reset\r\n");
    let mut third = Client::connect(&shared);
    third.envelope().await;
    for number in 0..120 {
        let said = third.ask(&format!("RCPT TO:<u{number}@example.test> ORCPT={orcpt}")).await;
        assert!(said.starts_with("250 "), "given back: {said}");
    }
    held.push(third);
    for client in held {
        client.gone().await;
    }
    shared.handler().assert_balanced();
}

/// What costs the client nothing else is bounded on a connection by a number of its own.
#[tokio::test(start_paused = true)]
async fn refusals_that_are_no_errors_come_to_an_end() {
    const CLOSED: &str = "421 4.7.0 ";
    let sender = ["EHLO client.test", "MAIL FROM:<a@example.org>"];
    let with_recipient = [sender[0], sender[1], "RCPT TO:<alice@example.test>"];
    let stray = [with_recipient.as_slice(), &["BDAT 5\r\nx\ry"]].concat();
    for (front, again, expected) in [
        (&sender[..], "DATA", "503 5.5.1 "),
        (&with_recipient[..], "RCPT TO:<later@example.test>", "452 4.2.2 "),
        (&stray[..], "BDAT 0", "503 5.5.1 "),
    ] {
        let shared = shared(limits());
        let mut client = Client::connect(&shared);
        client.reply().await;
        for command in front {
            client.ask(command).await;
        }
        let mut refusals = 0;
        let mut last = client.ask(again).await;
        while last.starts_with(expected) && refusals < 2000 {
            refusals += 1;
            last = client.ask(again).await;
        }
        assert!(last.starts_with(CLOSED) && last.contains("too-many-errors"), "{again}: {last}");
        assert!((1000..1030).contains(&refusals), "{again}: {refusals}");
        client.gone().await;
        shared.handler().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn small_chunks_of_a_message_come_to_an_end() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.envelope().await;
    let fields = "BDAT 4\r\nA:\r\n".repeat(10_000);
    let take = async |client: &mut Client, count: usize| {
        for _ in 0..count {
            assert_eq!(client.reply().await, "250 2.0.0 4 octets received\r\n");
        }
    };
    for part in fields.as_bytes().chunks(12 * 100) {
        client.send(part).await;
        take(&mut client, 100).await;
    }
    assert_eq!(client.ask("BDAT 0 LAST").await, "250 2.0.0 Message stored\r\n");
    client.ask("MAIL FROM:<a@example.org>").await;
    client.ask("RCPT TO:<alice@example.test>").await;
    for part in fields.as_bytes().chunks(12 * 100) {
        client.send(part).await;
        take(&mut client, 100).await;
    }
    let said = client.ask("BDAT 0").await;
    assert!(said.starts_with("421 ") && said.contains("too-many-errors"), "{said}");
    assert_eq!(client.rest().await, "");
    client.gone().await;
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn guessing_recipients_takes_longer_and_longer() {
    let shared = shared(limits());
    let mut client = Client::connect(&shared);
    client.envelope().await;
    let mut pauses = Vec::new();
    loop {
        let began = Instant::now();
        let said = client.ask("RCPT TO:<nobody@example.test>").await;
        pauses.push(began.elapsed());
        if said.starts_with("421 4.7.0 Too many errors [too-many-errors ") {
            break;
        }
        assert!(said.starts_with("550 5.1.1 "), "{said}");
    }
    assert_eq!(pauses.len(), 20);
    assert!(pauses.is_sorted());
    assert_eq!((pauses[4], pauses[19]), (Duration::ZERO, Duration::from_secs(2)));
    client.gone().await;
    shared.handler().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_says_who_the_client_is() {
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0, 25],
    ]
    .concat();
    for (header, ip, port) in [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 25\r\n".as_slice(), "203.0.113.9", 12345),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 12345 25\r\n", "203.0.113.9", 12345),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", 50000),
        (&v2, "203.0.113.9", 12345),
    ] {
        let shared = shared(limits());
        let mut client = Client::through_proxy(&shared);
        for piece in header.chunks(5) {
            client.send(piece).await;
            sleep(Duration::from_millis(1)).await;
        }
        client.envelope().await;
        client.gone().await;
        let told = shared.handler().told();
        let Some(Told::Mail(peer, ..)) = told.first() else { panic!("{told:?}") };
        assert_eq!((peer.ip.to_string().as_str(), peer.port), (ip, port));
    }
}

#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_must_say_it() {
    let refused = "421 4.3.0 PROXY protocol header missing or invalid [bad-proxy-header <id>]\r\n";
    for (header, seconds) in [
        (b"EHLO client.test\r\n".as_slice(), 0),
        (b"PROXY TCP4 203.0.113.900 127.0.0.1 12345 25\r\n", 0),
        (&[b'P'; 200], 0),
        (b"", 5),
        (b"PROXY TCP4 203", 5),
    ] {
        let shared = shared(limits());
        let mut client = Client::through_proxy(&shared);
        let began = Instant::now();
        client.send(header).await;
        assert_eq!(client.rest().await, refused, "{header:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(seconds), "{header:?}");
        client.gone().await;
        assert_eq!(shared.handler().refusals(), [Reason::BadProxyHeader]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxied_client_is_judged_by_its_own_address() {
    let one_each = Limits { connections_per_network: 1, ..limits() };
    let shared = shared(one_each);
    let mut denied = Client::through_proxy(&shared);
    denied.send(b"PROXY TCP4 192.0.2.66 127.0.0.1 12345 25\r\n").await;
    assert!(denied.rest().await.starts_with("554 5.7.1 Your network may not send here ["));
    denied.gone().await;

    let mut first = Client::through_proxy(&shared);
    first.send(b"PROXY TCP4 203.0.113.1 127.0.0.1 12345 25\r\n").await;
    assert!(first.reply().await.starts_with("220 "));
    let mut second = Client::through_proxy(&shared);
    second.send(b"PROXY TCP4 203.0.113.2 127.0.0.1 12345 25\r\n").await;
    assert!(second.rest().await.starts_with("421 4.7.0 Too many connections from your network"));
    let mut early = Client::through_proxy(&shared);
    early.send(b"PROXY TCP4 198.51.100.1 127.0.0.1 12345 25\r\nEHLO a\r\n").await;
    assert!(early.rest().await.contains("[early-talker <id>]"));
    for client in [first, second, early] {
        client.gone().await;
    }
}

/// What an idle connection keeps: its task, which is this future, and a small buffer.
#[test]
fn an_idle_connection_is_small() {
    let shared = shared(limits());
    let (_, stopped) = watch::channel(false);
    let (stream, _) = duplex(1);
    let future = serve(stream, direct(&shared, Protocol::Mx), shared, stopped);
    let size = size_of_val(&future);
    assert!(size <= 4 * 1024, "{size}");
}
