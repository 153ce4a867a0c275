//! Where sent mail ends: an SMTP server that takes everything, counts, and keeps one message.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it says to EHLO. It offers no TLS, as between servers of one network.
const EHLO: &str = "250-sink.good.test\r\n250-PIPELINING\r\n250-SIZE 60000000\r\n\
                    250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n";
/// A connection without a word for so long is closed; servers keep them open for later.
const PATIENCE: Duration = Duration::from_secs(300);

/// A listening sink; ended when dropped.
pub(super) struct Sink {
    address: SocketAddr,
    received: Arc<Received>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Received {
    count: AtomicUsize,
    first: OnceLock<Vec<u8>>,
    is_over: AtomicBool,
}

impl Sink {
    /// Listens on a free port of loopback.
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let received = Arc::new(Received::default());
        let shared = Arc::clone(&received);
        let acceptor = std::thread::Builder::new().name("sink".into());
        let acceptor = acceptor.spawn(move || accept(&listener, &shared))?;
        Ok(Self { address, received, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many messages it has taken.
    pub(super) fn count(&self) -> usize {
        self.received.count.load(Ordering::Acquire)
    }

    /// The first of them.
    pub(super) fn sample(&self) -> Option<String> {
        self.received.first.get().map(|message| String::from_utf8_lossy(message).into_owned())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.received.is_over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address)); // Wakes the thread that accepts.
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// A thread for each connection; it ends with its peer.
fn accept(listener: &TcpListener, received: &Arc<Received>) {
    for stream in listener.incoming() {
        if received.is_over.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let received = Arc::clone(received);
        std::thread::spawn(move || {
            drop(converse(stream, &received)); // Whoever hangs up sends again, or is missed.
        });
    }
}

fn converse(stream: TcpStream, received: &Received) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut replies = BufWriter::new(stream.try_clone()?);
    let mut commands = BufReader::new(stream);
    replies.write_all(b"220 sink.good.test ESMTP\r\n")?;
    let mut line = Vec::new();
    loop {
        // RFC 2920 §3.2: replies to pipelined commands go out together.
        if commands.buffer().is_empty() {
            replies.flush()?;
        }
        line.clear();
        if commands.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_slice() {
            b"EHLO" => replies.write_all(EHLO.as_bytes())?,
            b"HELO" | b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" => {
                replies.write_all(b"250 2.0.0 fine\r\n")?;
            }
            b"DATA" => {
                replies.write_all(b"354 go on\r\n")?;
                replies.flush()?;
                let message = content(&mut commands)?;
                received.first.get_or_init(|| message);
                received.count.fetch_add(1, Ordering::AcqRel);
                replies.write_all(b"250 2.0.0 taken\r\n")?;
            }
            b"QUIT" => {
                replies.write_all(b"221 2.0.0 until later\r\n")?;
                return replies.flush();
            }
            _ => replies.write_all(b"500 5.5.1 unknown\r\n")?,
        }
    }
}

/// A message up to the line with a lone dot.
fn content(commands: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let begin = message.len();
        if commands.read_until(b'\n', &mut message)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if message.get(begin..) == Some(b".\r\n") {
            message.truncate(begin);
            return Ok(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn it_counts_and_keeps_the_first() {
        let sink = Sink::start().expect("listens");
        assert_eq!(sink.sample(), None);
        let mut client = Client::connect(sink.address()).expect("connects");
        for text in ["Subject: one\r\n\r\n..\r\n.\r\n", "Subject: two\r\n\r\n.\r\n"] {
            let to = ["bob@good.test", "carol@good.test"];
            client.send("alice@example.test", &to, text.as_bytes()).expect("is taken");
        }
        client.quit().expect("ends");
        assert_eq!(sink.count(), 2);
        assert_eq!(sink.sample().as_deref(), Some("Subject: one\r\n\r\n..\r\n"));
    }
}
