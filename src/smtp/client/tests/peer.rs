//! A server that follows a script, and what the client makes of it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fuzz::Cuts;
use crate::mail::{
    Address, Domain, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath, Secret,
};
use crate::smtp::client::channel::Stream;
use crate::smtp::client::connection::{Dial, Opening};
use crate::smtp::client::{
    ClientError, Connection, Endpoint, Outcome, OutgoingTransaction, Timeouts, TlsDemand,
};
use crate::smtp::tests::connection::tls;

/// Lines of a dialogue. `S: ` is said, with CR LF; `S= ` is said without a line end; `C: ` is what
/// the client must say. `!close` ends the connection, `!stall` reads on and never answers,
/// `!accept` answers 250 to every line from there on, `!tls` begins TLS. Consecutive lines of the
/// server go out at once.
async fn follow(script: String, stream: Box<dyn Stream>, cuts: Option<Cuts>) {
    let mut peer = Peer { stream, said: Vec::new(), cuts };
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("S: ") {
            peer.said.extend_from_slice(format!("{text}\r\n").as_bytes());
            continue;
        }
        if let Some(text) = line.strip_prefix("S= ") {
            peer.said.extend_from_slice(text.as_bytes());
            continue;
        }
        peer.speak().await;
        match line {
            "!close" => return,
            "!stall" => while peer.line().await.is_some() {},
            "!accept" => {
                while peer.line().await.is_some() {
                    peer.said = b"250 ok\r\n".to_vec();
                    peer.speak().await;
                }
            }
            "!dot" => while peer.line().await.is_some_and(|line| line != ".") {},
            "!sleep" => std::future::pending().await,
            "!wait" => tokio::time::sleep(Duration::from_secs(240)).await,
            "!drip" => loop {
                tokio::time::sleep(Duration::from_secs(60)).await;
                peer.said = b"250-more\r\n".to_vec();
                peer.speak().await;
            },
            "!tls" => {
                let accepted = tls().0.acceptor().accept(peer.stream).await;
                let Ok(stream) = accepted else { return };
                peer = Peer { stream: Box::new(stream), said: Vec::new(), cuts: peer.cuts };
            }
            line => {
                let expected = line.strip_prefix("C:").expect("a line of a script").trim_start();
                assert_eq!(peer.line().await.as_deref(), Some(expected), "in {script}");
            }
        }
    }
    peer.speak().await;
}

struct Peer {
    stream: Box<dyn Stream>,
    said: Vec<u8>,
    cuts: Option<Cuts>,
}

impl Peer {
    /// Says what waits to be said; the client may be gone.
    async fn speak(&mut self) {
        let said = std::mem::take(&mut self.said);
        let mut rest = said.as_slice();
        while !rest.is_empty() {
            let length = self.cuts.as_mut().map_or(rest.len(), Cuts::next_length);
            let (piece, after) = rest.split_at(length.min(rest.len()));
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
            self.stream.flush().await.ok();
            rest = after;
            if self.cuts.is_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await.ok()?);
        }
        line.truncate(line.len() - 2);
        Some(String::from_utf8(line).expect("UTF-8"))
    }
}

/// A scripted peer for each connection, in order.
pub(super) struct Peers {
    scripts: Mutex<VecDeque<String>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    cuts: Option<Cuts>,
}

impl Peers {
    pub(super) fn new(scripts: &[&str]) -> Self {
        let scripts = scripts.iter().map(|script| (*script).to_owned()).collect();
        Self { scripts: Mutex::new(scripts), tasks: Mutex::default(), cuts: None }
    }

    /// The same, with everything that the server says cut into pieces.
    pub(super) fn cut(self, seed: [u8; 4]) -> Self {
        Self { cuts: Some(Cuts::of(seed)), ..self }
    }

    /// Fails unless every script was followed to its end.
    pub(super) async fn finish(self) {
        assert!(self.scripts.into_inner().expect("whole").is_empty(), "a connection is missing");
        for task in self.tasks.into_inner().expect("whole") {
            // A peer that sleeps or drips has no end of its own.
            let ended = tokio::time::timeout(Duration::from_secs(1), task).await;
            ended.unwrap_or(Ok(())).expect("the client says what the script says");
        }
    }
}

impl Dial for Peers {
    async fn dial(&self, _: &Endpoint) -> io::Result<Box<dyn Stream>> {
        let script = self.scripts.lock().expect("whole").pop_front();
        let script = script.ok_or_else(|| io::Error::other("connection refused"))?;
        let (ours, theirs) = duplex(256 * 1024);
        let task = tokio::spawn(follow(script, Box::new(theirs), self.cuts.clone()));
        self.tasks.lock().expect("whole").push(task);
        Ok(Box::new(ours))
    }
}

pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        address: "192.0.2.25:25".parse().expect("valid"),
        name: "mx.example.test".to_owned(),
        implicit_tls: false,
    }
}

/// Opens a connection to the next peer.
pub(super) async fn open(
    peers: &Peers,
    endpoint: &Endpoint,
    demand: &TlsDemand,
    credentials: Option<&(String, Secret)>,
) -> Result<Connection, ClientError> {
    let hello_name = Domain::parse("client.test").expect("valid");
    let timeouts = Timeouts::default();
    let opening =
        Opening { endpoint, demand, hello_name: &hello_name, timeouts: &timeouts, credentials };
    // Whatever a peer does, there is an end, long after each wait's own.
    let all = Duration::from_secs(24 * 3600);
    tokio::time::timeout(all, opening.over(peers)).await.expect("ends")
}

/// A message that is to be sent.
pub(super) struct Message {
    pub(super) reverse_path: ReversePath,
    pub(super) parameters: MailParameters,
    pub(super) recipients: Vec<EnvelopeRecipient>,
    pub(super) content: Vec<u8>,
}

impl Message {
    pub(super) fn to(recipients: &[&str]) -> Self {
        let recipient = |text: &&str| EnvelopeRecipient {
            address: Address::parse(text).expect("valid"),
            parameters: RcptParameters::default(),
        };
        Self {
            reverse_path: ReversePath::Address(Address::parse("a@client.test").expect("valid")),
            parameters: MailParameters::default(),
            recipients: recipients.iter().map(recipient).collect(),
            content: b"Subject: x\r\n\r\nhello\r\n.\r\nbye".to_vec(),
        }
    }

    pub(super) async fn send(
        &self,
        connection: &mut Connection,
    ) -> Result<Vec<Outcome>, ClientError> {
        let transaction = OutgoingTransaction {
            reverse_path: &self.reverse_path,
            parameters: &self.parameters,
            recipients: self.recipients.iter().collect(),
        };
        let (header, body) = self.content.split_at(self.content.len() / 2);
        connection.send(&transaction, &[header, body]).await
    }
}

/// Outcomes, each in a line.
pub(crate) fn told(outcomes: &[Outcome]) -> Vec<String> {
    let maybe = |maybe| if maybe { " maybe delivered" } else { "" };
    let line = |outcome: &Outcome| match outcome {
        Outcome::Sent(receipt) => format!("sent: {}", receipt.reply),
        Outcome::Deferred(failure) => {
            format!("deferred: {failure}{}", maybe(failure.maybe_delivered))
        }
        Outcome::Failed(failure) => format!("failed: {failure}{}", maybe(failure.maybe_delivered)),
    };
    outcomes.iter().map(line).collect()
}

/// What comes of a message to some recipients, over one connection to scripted peers; a client's
/// error is one line.
pub(super) async fn outcome(peers: Peers, message: &Message) -> Vec<String> {
    let told = match open(&peers, &endpoint(), &TlsDemand::Opportunistic, None).await {
        Err(error) => vec![error.to_string()],
        Ok(mut connection) => {
            let sent = message.send(&mut connection).await;
            let lines = sent.map_or_else(|error| vec![error.to_string()], |sent| told(&sent));
            connection.quit().await;
            lines
        }
    };
    peers.finish().await;
    told
}

/// Scripted peers on a loopback address, one connection after the other.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    pub(crate) async fn on(ip: IpAddr, scripts: &[&str]) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let scripts: Vec<String> = scripts.iter().map(|script| (*script).to_owned()).collect();
        let task = tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.expect("accepts");
                follow(script, Box::new(stream), None).await;
            }
        });
        Self { address, task }
    }

    /// Fails unless every script was followed to its end.
    pub(crate) async fn finish(self) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("a connection is missing").expect("the client says what the script says");
    }
}
