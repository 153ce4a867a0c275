//! An SMTP client of our own: says exactly what it is told, and can speak BDAT and PROXY.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects and reads the banner.
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open(address);
        client.expect("220");
        client
    }

    /// Connects and says EHLO to a server that may end at any moment.
    pub fn greeted(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Self { reader: BufReader::new(stream) };
        let banner = client.reply();
        client.try_send(b"EHLO mail.good.test\r\n").ok()?;
        (banner.starts_with("220") && client.reply().starts_with("250")).then_some(client)
    }

    /// Connects, after a PROXY header, and reads the banner.
    pub fn connect_through_proxy(address: SocketAddr, header: &[u8]) -> Self {
        let mut client = Self::open(address);
        client.send(header);
        client.expect("220");
        client
    }

    pub fn open(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("connects"))
    }

    /// Connects from an address of 127.0.0.0/8.
    pub fn open_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("binds");
        socket.connect(&address.into()).expect("connects");
        Self::new(socket.into())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("sets");
        stream.set_nodelay(true).expect("sets");
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("sends");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// A whole reply; empty if the connection ended.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return reply;
            }
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            reply.push_str(&line);
            if is_last {
                return reply;
            }
        }
    }

    pub fn expect(&mut self, code: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(code), "expected {code}, got {reply:?}");
        reply
    }

    /// Sends a command and returns the reply.
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// EHLO, MAIL and RCPT, which must succeed.
    pub fn envelope(&mut self, sender: &str, recipients: &[&str]) {
        assert!(self.command("EHLO mail.good.test").starts_with("250"));
        self.transaction(sender, recipients);
    }

    pub fn transaction(&mut self, sender: &str, recipients: &[&str]) {
        let reply = self.command(&format!("MAIL FROM:<{sender}>"));
        assert!(reply.starts_with("250"), "{reply}");
        for recipient in recipients {
            let reply = self.command(&format!("RCPT TO:<{recipient}>"));
            assert!(reply.starts_with("250"), "{reply}");
        }
    }

    /// The message by DATA, dot-stuffed; the final reply.
    pub fn data(&mut self, message: &[u8]) -> String {
        let reply = self.command("DATA");
        assert!(reply.starts_with("354"), "{reply}");
        self.send(&stuffed(message));
        self.reply()
    }

    /// The message by BDAT in chunks of these sizes, the rest in a last one; the final reply.
    pub fn bdat(&mut self, message: &[u8], sizes: &[usize]) -> String {
        let mut rest = message;
        for size in sizes {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            self.send(format!("BDAT {}\r\n", chunk.len()).as_bytes());
            self.send(chunk);
            let reply = self.reply();
            if !reply.starts_with("250") {
                return reply;
            }
            rest = after;
        }
        self.send(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
        self.send(rest);
        self.reply()
    }
}

pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// A small message.
pub fn message(from: &str, subject: &str) -> Vec<u8> {
    format!(
        "From: <{from}>\r\nTo: <alice@example.test>\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 \
         09:00:00 +0000\r\nMessage-ID: <{}@good.test>\r\n\r\nHello.\r\n",
        subject.replace(' ', "-")
    )
    .into_bytes()
}
