//! What the operator sets for the listeners; defaults are the only place of each number.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Mail from other MTAs to local domains (port 25).
    Mx,
    /// Mail from users who log in (RFC 6409, port 587); STARTTLS comes first.
    Submission,
    /// The same under TLS from the first octet (RFC 8314 §3.3, port 465).
    Submissions,
}

impl Protocol {
    /// Whether it is for users, who log in, not for other MTAs.
    pub fn is_submission(self) -> bool {
        match self {
            Self::Mx => false,
            Self::Submission | Self::Submissions => true,
        }
    }
}

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Its name in logs.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Networks that must speak PROXY protocol v1 or v2 first; absent: it is not spoken.
    pub proxy_protocol_from: Option<Vec<IpNet>>,
    /// Networks of clients whose bare LF in DATA becomes CR LF, where others are refused.
    pub normalize_line_ends_from: Arc<[IpNet]>,
}

/// `[tls]`: both files, or neither for a self-signed pair in the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// PEM private key (PKCS#8, PKCS#1 or SEC1).
    pub private_key: PathBuf,
}

/// `[limits]`: what one peer may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a message as it arrives, before our headers; announced in SIZE.
    pub message_bytes: u64,
    /// Octets of a message's header section.
    pub header_bytes: usize,
    /// Recipients of a message; announced in LIMITS RCPTMAX (RFC 9422).
    pub recipients: usize,
    /// Transactions on a connection; announced in LIMITS MAILMAX (RFC 9422).
    pub transactions: usize,
    /// Octets of a command line with its CR LF (RFC 5321 §4.5.3.1.4 asks for 512, and the
    /// parameters of RFC 3461, 1870 and 6531 for more).
    pub command_line_bytes: usize,
    /// Refused commands and recipients on a connection, after which it is closed.
    pub errors: usize,
    /// NOOP, RSET, VRFY, HELP, EHLO and HELO since the last message; each further one is charged
    /// as an error.
    pub idle_commands: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one client network: an IPv4 /24 or an IPv6 /56.
    pub connections_per_network: usize,
    /// Recipients who do not exist that one client network may ask for in a minute; past them it
    /// is deferred until the minute is over.
    pub unknown_users_per_network: usize,
    /// Logins that fail from one client network in a minute; past them it is told to come back
    /// when the minute is over, and no password is looked at.
    pub failed_logins_per_network: usize,
    /// Messages worked on at once, from their last octet to the answer: verdicts, rules, storing.
    pub processing: usize,
    /// Of those, messages from one client network.
    pub processing_per_network: usize,
    /// Messages that may wait to be worked on; past them MAIL is deferred, past half of them MAIL
    /// from networks of which a message waits already.
    pub waiting: usize,
    /// Octets of messages being received at once on all connections.
    pub in_flight_bytes: u64,
    /// Wait for the next command (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub command_timeout: Duration,
    /// Wait for the next bytes of a message (RFC 5321 §4.5.3.2.5: at least 3 minutes).
    pub data_timeout: Duration,
    /// For a whole message, however steadily it drips.
    pub message_timeout: Duration,
    /// For a whole connection.
    pub session_timeout: Duration,
    /// How long to watch for early talkers before the banner.
    pub banner_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 41_943_040, // WorkMail guide 3453: 40 MB
            header_bytes: 512 * 1024,  // mail systems stop between 64 KiB and 1 MiB
            recipients: 500,           // WorkMail guide 3459
            transactions: 1000,
            command_line_bytes: 4096,
            errors: 20,
            idle_commands: 100, // as Postfix's smtpd_junk_command_limit
            connections: 10_000,
            connections_per_network: 200,
            unknown_users_per_network: 100, // a minute's worth of an old mailing list
            failed_logins_per_network: 20,  // an office that has just changed its passwords
            processing: 500,                // many, because slow DNS is most of the time of some
            processing_per_network: 20,     // 200 messages a second at 100 ms of DNS for each
            waiting: 500,
            in_flight_bytes: 512 * 1024 * 1024,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            message_timeout: Duration::from_secs(1800),
            session_timeout: Duration::from_secs(4 * 3600),
            banner_delay: Duration::from_millis(100),
        }
    }
}
