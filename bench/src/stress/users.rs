//! Users who submit mail, one message after the other, whatever they are answered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::daemon::Daemon;
use crate::idle::trusting_connector;
use crate::peer::{Peer, connect};

const PASSWORD: &str = "Lemon-tree1";
/// Between two messages that were refused: a client comes back later, if seldom so soon.
const PAUSE: Duration = Duration::from_millis(10);
/// Messages on one connection, below what the daemon announces in LIMITS.
const MESSAGES: usize = 900;

/// A listener where users log in.
pub(super) const LISTENER: &str =
    "[[listener]]\nname = \"submissions\"\nprotocol = \"submissions\"\nbind = \"127.0.0.1:0\"\n";

/// Replies to messages by code and reason word.
pub(super) type Replies = BTreeMap<String, usize>;

/// Users, by an organization file's lines.
pub(super) fn named(names: &[&str]) -> String {
    names.iter().map(|name| format!("[[user]]\nname = \"{name}\"\n")).collect()
}

/// Gives users their password.
pub(super) fn let_in(daemon: &Daemon, binary: &Path, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        daemon.command(binary, &["user", "set-password", name], PASSWORD)?;
    }
    Ok(())
}

/// The section that leads mail for `dead.test` to a port that refuses; it does as long as this is
/// held.
pub(super) struct DeadDestination {
    _held: TcpSocket,
    /// Lines of the configuration.
    pub(super) route: String,
}

impl DeadDestination {
    /// A port that is bound and does not listen.
    pub(super) fn new() -> anyhow::Result<Self> {
        let held = TcpSocket::new_v4()?;
        held.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let port = held.local_addr()?.port();
        let route = format!(
            "[[queue_route]]\ndomain = \"dead.test\"\nhost = \"127.0.0.1\"\nport = {port}\n"
        );
        Ok(Self { _held: held, route })
    }
}

/// What came of a message.
struct Sent {
    /// The reply to it, or to what was refused before it.
    reply: String,
    /// Whether the connection goes on.
    goes_on: bool,
}

/// One user with one connection.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// The name, in `example.test`.
    pub(super) name: &'static str,
    /// Where the connection comes from.
    pub(super) from: Ipv4Addr,
    /// Where the daemon listens for users.
    pub(super) at: SocketAddr,
    /// Whom the user writes to.
    pub(super) to: &'static str,
    /// Octets of a message, about.
    pub(super) octets: usize,
}

impl User {
    /// Sends until the time is over.
    pub(super) async fn send_until(self, until: Instant) -> anyhow::Result<Replies> {
        let connector = trusting_connector();
        let message = self.message();
        let mut replies = Replies::new();
        while Instant::now() < until {
            let mut peer = self.log_in(&connector).await?;
            for _ in 0..MESSAGES {
                if Instant::now() >= until {
                    break;
                }
                let Sent { reply, goes_on } = self.send(&mut peer, &message).await?;
                if reply != "250" {
                    tokio::time::sleep(PAUSE).await;
                }
                *replies.entry(reply).or_default() += 1;
                if !goes_on {
                    break;
                }
            }
        }
        Ok(replies)
    }

    fn message(&self) -> String {
        let line = format!("{}\r\n", "x".repeat(76));
        let body = line.repeat(self.octets / line.len() + 1);
        format!("From: {}@example.test\r\nSubject: x\r\n\r\n{body}.\r\n", self.name)
    }

    async fn log_in(&self, connector: &TlsConnector) -> anyhow::Result<Peer<TlsStream<TcpStream>>> {
        let stream = connect(self.from, self.at).await?;
        let stream = connector.connect("mx.example.test".try_into()?, stream).await?;
        let mut peer = Peer::new(stream);
        peer.reply().await?.expect(220)?;
        peer.say("EHLO client.example.test\r\n").await?.expect(250)?;
        peer.say("AUTH LOGIN\r\n").await?.expect(334)?;
        let name = BASE64.encode(format!("{}@example.test", self.name));
        peer.say(&format!("{name}\r\n")).await?.expect(334)?;
        peer.say(&format!("{}\r\n", BASE64.encode(PASSWORD))).await?.expect(235)?;
        Ok(peer)
    }

    /// Sends a message, as far as nothing of it is refused.
    async fn send(
        &self,
        peer: &mut Peer<TlsStream<TcpStream>>,
        message: &str,
    ) -> anyhow::Result<Sent> {
        let mail = format!("MAIL FROM:<{}@example.test>\r\n", self.name);
        for (command, expected) in
            [(mail, 250), (format!("RCPT TO:<{}>\r\n", self.to), 250), ("DATA\r\n".into(), 354)]
        {
            let reply = peer.say(&command).await?;
            if reply.code() != expected {
                // Who is refused all the time is sent away with the RSET, and connects again.
                let goes_on = reply.code() != 421 && peer.say("RSET\r\n").await?.code() == 250;
                return Ok(Sent { reply: reply.reason(), goes_on });
            }
        }
        let reply = peer.say(message).await?;
        let goes_on = reply.code() != 421;
        Ok(Sent {
            reply: if reply.code() == 250 { "250".to_owned() } else { reply.reason() },
            goes_on,
        })
    }
}

/// Replies, counted, as one line.
pub(super) fn told(replies: &Replies) -> String {
    let told: Vec<_> = replies.iter().map(|(reply, count)| format!("{count} × {reply}")).collect();
    told.join(", ")
}
