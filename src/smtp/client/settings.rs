//! Whom the client talks to, and how long it waits.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The server's name: a domain, or an address as text. Sent as SNI where TLS does not demand
    /// another name, and named by every error.
    pub name: String,
    /// TLS begins with the first octet (RFC 8314 §3, port 465), not with STARTTLS.
    pub implicit_tls: bool,
}

/// As `mx.example.test[192.0.2.1]:25`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]:{}", self.name, self.address.ip(), self.address.port())
    }
}

/// How long the client waits for each thing. Each is for a whole reply, so a server that drips
/// has no more time than one that is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection.
    pub connect: Duration,
    /// For the banner (RFC 5321 §4.5.3.2.1).
    pub banner: Duration,
    /// For the answers to EHLO, HELO, STARTTLS and AUTH.
    pub hello: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the answer to MAIL (§4.5.3.2.2), and to RSET.
    pub mail: Duration,
    /// For the answer to RCPT (§4.5.3.2.3).
    pub rcpt: Duration,
    /// For the answer to DATA (§4.5.3.2.4).
    pub data: Duration,
    /// For the server to take a block of content, of at most 64 KiB (§4.5.3.2.5).
    pub block: Duration,
    /// For the answer to the final dot (§4.5.3.2.6).
    pub end_of_data: Duration,
    /// For the answer to QUIT, on which nothing depends.
    pub quit: Duration,
    /// For a whole transaction, however steadily it drips.
    pub transaction: Duration,
}

impl Timeouts {
    /// For reports: a minute for the banner and for the answers that follow it, where RFC 5321
    /// §4.5.3.2 says that it should be five. Strangers choose whom reports go to, and a server that
    /// accepts and stays silent would have a connection of ours for as long; who is slower than
    /// that gets the report by a later attempt, or loses nothing but a report. Users' mail keeps
    /// the five minutes, also to a server that has never answered: those exist that delay their
    /// banner on purpose.
    pub fn for_reports() -> Self {
        let minute = Duration::from_secs(60);
        Self { banner: minute, hello: minute, ..Self::default() }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            connect: Duration::from_secs(30), // as Postfix's smtp_connect_timeout
            banner: minutes(5),
            hello: minutes(5),
            handshake: minutes(1),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end_of_data: minutes(10),
            quit: Duration::from_secs(5),
            transaction: minutes(60), // 40 MB at 12 KB a second
        }
    }
}
