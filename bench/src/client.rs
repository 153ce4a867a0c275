//! SMTP from the other side, one blocking connection each.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;

/// One connection that has said EHLO.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, reads the banner and says EHLO.
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.expect("220")?;
        client.say("EHLO mail.good.test\r\n", "250")?;
        Ok(client)
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
        self.stream.get_mut().write_all(commands.as_bytes())?;
        for _ in 0..=to.len() {
            self.expect("250")?;
        }
        self.expect("354")?;
        self.stream.get_mut().write_all(wire)?;
        let sent = Instant::now();
        self.expect("250")?;
        Ok(sent.elapsed())
    }

    /// Says QUIT and waits for the answer.
    pub(crate) fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT\r\n", "221")
    }

    fn say(&mut self, line: &str, code: &str) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        self.expect(code)
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
