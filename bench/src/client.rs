//! SMTP from the other side, one blocking connection each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// The name in every EHLO.
const HELLO: &str = "EHLO mail.good.test\r\n";

/// One connection that has said EHLO.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

/// What a session goes over: TCP, or TLS on it.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Client {
    /// Connects, reads the banner and says EHLO.
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Self::greet(tcp(address)?)
    }

    /// The same as a user who submits: under TLS, after STARTTLS, and logged in with what AUTH
    /// PLAIN says.
    pub(crate) fn log_in(
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        login: &str,
    ) -> anyhow::Result<Self> {
        let stream = tcp(address)?;
        let mut plain = Self::greet(stream.try_clone()?)?;
        plain.say("STARTTLS\r\n", "220")?;
        let session = ClientConnection::new(Arc::clone(tls), "mx.example.test".try_into()?)?;
        let mut client = Self::over(StreamOwned::new(session, stream));
        client.say(HELLO, "250")?;
        client.say(&format!("AUTH PLAIN {login}\r\n"), "235")?;
        Ok(client)
    }

    fn greet(stream: TcpStream) -> anyhow::Result<Self> {
        let mut client = Self::over(stream);
        client.expect("220")?;
        client.say(HELLO, "250")?;
        Ok(client)
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Sends a message; `wire` is dot-stuffed and ends in `CRLF.CRLF`. Returns the time from its
    /// last octet to the 250.
    pub(crate) fn send(
        &mut self,
        from: &str,
        to: &[&str],
        wire: &[u8],
    ) -> anyhow::Result<Duration> {
        let mut commands = format!("MAIL FROM:<{from}>\r\n");
        for address in to {
            commands.push_str(&format!("RCPT TO:<{address}>\r\n"));
        }
        commands.push_str("DATA\r\n");
        self.write(commands.as_bytes())?;
        for _ in 0..=to.len() {
            self.expect("250")?;
        }
        self.expect("354")?;
        self.write(wire)?;
        let sent = Instant::now();
        self.expect("250")?;
        Ok(sent.elapsed())
    }

    /// Says QUIT and waits for the answer.
    pub(crate) fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT\r\n", "221")
    }

    fn say(&mut self, line: &str, code: &str) -> anyhow::Result<()> {
        self.write(line.as_bytes())?;
        self.expect(code)
    }

    fn write(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(octets)?;
        Ok(stream.flush()?)
    }

    fn expect(&mut self, code: &str) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if !line.starts_with(code) {
                bail!("expected {code}, got {line:?}");
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    }
}

fn tcp(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    Ok(stream)
}
