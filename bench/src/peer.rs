//! SMTP from the other side, thousands of connections on one thread, from any loopback address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// No reply takes longer than this, or the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// Loopback addresses to connect from: client networks (an IPv4 /24 each), some hosts in each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    /// The first network's number: 0 is 127.1.0.0/24, 1 is 127.1.1.0/24, up to 60,000.
    pub(crate) first: usize,
    /// How many networks.
    pub(crate) networks: usize,
}

impl Sources {
    /// The source of the `number`th connection: from network to network, then host to host.
    pub(crate) fn address(self, number: usize) -> Ipv4Addr {
        let network = self.first + number % self.networks;
        let host = 1 + number / self.networks % 250;
        let octet = |number: usize| u8::try_from(number % 256).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, octet(1 + network / 256), octet(network), octet(host))
    }
}

/// One connection.
pub(crate) struct Peer<S> {
    stream: BufReader<S>,
}

/// A whole reply's last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(String);

impl Reply {
    /// The reply code, 0 if there is none.
    pub(crate) fn code(&self) -> u16 {
        self.0.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The reply code and the reason word of a refusal: `421 overloaded`.
    pub(crate) fn reason(&self) -> String {
        let word = self.0.rsplit_once('[').and_then(|(_, rest)| rest.split(' ').next());
        format!("{} {}", self.code(), word.unwrap_or("without a reason"))
    }

    /// The reply, if it has this code.
    pub(crate) fn expect(self, code: u16) -> anyhow::Result<Self> {
        if self.code() == code { Ok(self) } else { anyhow::bail!("expected {code}: {:?}", self.0) }
    }
}

/// A TCP connection from a source address.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    connect_socket(TcpSocket::new_v4()?, from, to).await
}

/// The same with little room for what is not read, in octets.
pub(crate) async fn connect_narrow(
    from: Ipv4Addr,
    to: SocketAddr,
    room: u32,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(room)?;
    connect_socket(socket, from, to).await
}

async fn connect_socket(
    socket: TcpSocket,
    from: Ipv4Addr,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    socket.bind(SocketAddr::from((from, 0)))?;
    let stream = timeout(PATIENCE, socket.connect(to)).await.map_err(io::Error::other)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Peer<TcpStream> {
    /// Connects and says EHLO; the refusal if there is one.
    pub(crate) async fn greet(from: Ipv4Addr, to: SocketAddr) -> io::Result<Result<Self, Reply>> {
        let mut peer = Self::new(connect(from, to).await?);
        let banner = peer.reply().await?;
        if banner.code() != 220 {
            return Ok(Err(banner));
        }
        let hello = peer.say("EHLO mail.good.test\r\n").await?;
        Ok(if hello.code() == 250 { Ok(peer) } else { Err(hello) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// SMTP on a stream.
    pub(crate) fn new(stream: S) -> Self {
        // As small as replies are: ten thousand of these are held at once.
        Self { stream: BufReader::with_capacity(512, stream) }
    }

    /// The stream again; what was read ahead is lost.
    pub(crate) fn into_stream(self) -> S {
        self.stream.into_inner()
    }

    /// Sends octets.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        let sent = timeout(PATIENCE, async {
            stream.write_all(octets).await?;
            stream.flush().await
        });
        sent.await.map_err(io::Error::other)?
    }

    /// Sends a line or several and waits for one reply.
    pub(crate) async fn say(&mut self, lines: &str) -> io::Result<Reply> {
        self.send(lines.as_bytes()).await?;
        self.reply().await
    }

    /// The next reply; an error at the end of the connection.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
            if read.map_err(io::Error::other)?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply(line));
            }
        }
    }
}
