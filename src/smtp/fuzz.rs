//! The fuzzers' doors: what a client sends, and what a proxy says before it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::connection::{Arrival, Source, serve, serve_without_handshake};
use super::proxy::{self, Header};
use super::scripted::{Scripted, Told, hostname, normalized};
use super::{Limits, Protocol, Shared, Tls};
use crate::fuzz::{Cuts, assert_no_bare_line_ends, run, scratch};

/// What is said under TLS, or instead of a handshake, no longer depends on the client's lines.
const START_TLS: &[u8] = b"220 2.0.0 Ready to start TLS\r\n";
/// RFC 5321 §4.5.3.1.5.
const MAX_REPLY_LINE: usize = 512;

/// A client's whole side of a connection: an octet that says to which kind of listener and whether
/// it mends line ends, four that say how it is cut, then its bytes.
///
/// However they are cut, the replies are the same and well-formed, the handler hears the same,
/// a message holds what stands before its end and no bare CR or LF, and on a listener for users
/// none comes from who has not logged in.
pub fn conversation(input: &[u8]) {
    let Some((listener, input)) = input.split_first() else { return };
    let Some((seed, bytes)) = input.split_first_chunk::<4>() else { return };
    let protocol = match listener % 3 {
        0 => Protocol::Mx,
        1 => Protocol::Submission,
        _ => Protocol::Submissions,
    };
    let mends = *listener >= 0x80;
    let whole = Conversation::of(protocol, mends, bytes, None);
    let cut = Conversation::of(protocol, mends, bytes, Some(Cuts::of(*seed)));
    assert_eq!(whole.said, cut.said, "replies depend on how bytes are cut");
    assert_eq!(whole.told, cut.told, "what is accepted depends on how bytes are cut");
    assert_replies(&whole.said);
    for told in &whole.told {
        match told {
            Told::Message(content) => {
                assert_no_bare_line_ends(content);
                assert!(mends || is_sent(bytes, content), "accepted what was not sent");
            }
            Told::Mail(peer, ..) => {
                assert_eq!(peer.login.is_some(), protocol.is_submission(), "who may send");
            }
            Told::Authenticate(_) => assert!(protocol == Protocol::Submissions, "no TLS runs"),
            Told::Rcpt(_) | Told::Abandon | Told::Throttled(_) | Told::Refused(..) => {}
        }
    }
}

/// What came of a connection.
struct Conversation {
    /// All replies, up to the one that begins TLS.
    said: String,
    told: Vec<Told>,
}

impl Conversation {
    /// Serves a connection whose client sends everything and goes. On a listener with implicit
    /// TLS, the handshake is over.
    fn of(protocol: Protocol, mends: bool, bytes: &[u8], cuts: Option<Cuts>) -> Self {
        let limits = Limits {
            command_line_bytes: 200,
            message_bytes: 1000,
            recipients: 3,
            transactions: 4,
            banner_delay: std::time::Duration::ZERO,
            ..Limits::default()
        };
        let shared = Shared::new(Scripted::default(), hostname(), limits, TLS.clone());
        let address = "192.0.2.7:45000".parse().expect("valid");
        let place = shared
            .take_in_network("192.0.2.7".parse().expect("valid"), protocol, &shared.limits())
            .expect("the only connection");
        let mut said = Vec::new();
        let client = Client { rest: bytes, cuts, said: &mut said };
        let (_stop, stopped) = watch::channel(false);
        let mended: &[&str] = if mends { &["0.0.0.0/0"] } else { &[] };
        let mended_networks = mended.iter().map(|n| n.parse().expect("valid")).collect();
        let source = Source::Client(address, place);
        let arrival = Arrival { protocol, mended_networks, source };
        match protocol {
            Protocol::Mx | Protocol::Submission => {
                run(serve(client, arrival, Arc::clone(&shared), stopped));
            }
            Protocol::Submissions => {
                run(serve_without_handshake(client, arrival, Arc::clone(&shared), stopped));
            }
        }
        shared.handler().assert_balanced();
        let end = memchr::memmem::find(&said, START_TLS).map_or(said.len(), |at| at);
        said.truncate(end);
        let said = String::from_utf8(said).expect("replies are ASCII");
        Self { said: normalized(&said), told: shared.handler().told() }
    }
}

static TLS: LazyLock<Tls> = LazyLock::new(|| {
    let folder = scratch("tls");
    let tls = Tls::self_signed(&folder, &hostname()).expect("a pair can be made");
    std::fs::remove_dir_all(folder).expect("is there");
    tls
});

/// A client that never waits: its bytes are there at once, in pieces, and it takes every reply.
struct Client<'a> {
    rest: &'a [u8],
    cuts: Option<Cuts>,
    said: &'a mut Vec<u8>,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.cuts.as_mut().map_or(usize::MAX, Cuts::next_length);
        let (piece, rest) = self.rest.split_at(length.min(buffer.remaining()).min(self.rest.len()));
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().said.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// RFC 5321 §4.2: `ddd text` or `ddd-text` and another line with the same code, all printable.
fn assert_replies(said: &str) {
    let mut open: Option<&str> = None;
    for line in said.split_inclusive('\n') {
        let text = line.strip_suffix("\r\n").expect("a reply line ends in CR LF");
        assert!(line.len() <= MAX_REPLY_LINE, "too long: {line}");
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "unprintable: {line:?}");
        let (code, rest) = text.split_at_checked(3).expect("a reply line has a code");
        assert!(matches!(code.as_bytes(), [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']), "{line}");
        assert!(open.is_none_or(|open| open == code), "two codes in one reply: {line}");
        open = match rest.bytes().next() {
            Some(b'-') => Some(code),
            Some(b' ') | None => None,
            Some(_) => panic!("neither - nor space after the code: {line}"),
        };
    }
    assert_eq!(open, None, "a reply has no end");
}

/// Whether `content` is what RFC 5321 §4.5.2 makes of the bytes after a line that ends in `DATA`,
/// up to the first line that is a dot. Nothing is said where there may be a BDAT.
fn is_sent(bytes: &[u8], content: &[u8]) -> bool {
    let upper = bytes.to_ascii_uppercase();
    if memchr::memmem::find(&upper, b"BDAT").is_some() {
        return true;
    }
    let mut ends = memchr::memmem::find_iter(&upper, b"\r\n");
    ends.any(|end| {
        let is_data = upper[..end].trim_ascii_end().ends_with(b"DATA");
        is_data && unstuffed(&bytes[end + 2..]).is_some_and(|sent| sent == content)
    })
}

/// The message at the front of `rest`, line by line; `None` if it has no end.
fn unstuffed(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let line = &rest[..end];
        if line == b"." {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        content.extend_from_slice(b"\r\n");
        rest = &rest[end + 2..];
    }
}

/// The front of a connection from a proxy: a PROXY header and what follows it.
///
/// What stands at the front does not depend on what follows it, and nothing that could still
/// become a header is refused.
pub fn proxy_header(input: &[u8]) {
    let found = proxy::parse(input);
    let followed = proxy::parse(&[input, b"\r\nEHLO a\r\n\0"].concat());
    let decided = match found {
        Header::Incomplete => {
            assert!(input.len() <= proxy::MAX_HEADER, "waits for more than a header");
            return;
        }
        Header::Invalid => input,
        Header::Complete { length, client } => {
            let header = input.get(..length).expect("no longer than what came");
            assert!((1..=proxy::MAX_HEADER).contains(&length));
            assert_eq!(proxy::parse(header), found, "what follows changes the header");
            if let (true, Some(client)) = (header.starts_with(b"P"), client) {
                assert_eq!(naive_client(header), Some(client));
            }
            header
        }
    };
    assert_eq!(followed, found, "what follows changes the header");
    for end in 0..decided.len() {
        let earlier = proxy::parse(&decided[..end]);
        assert!(earlier == Header::Incomplete || earlier == found, "{end} octets: {earlier:?}");
    }
}

/// The client that a version 1 line names: `PROXY TCP4 source destination port port`.
fn naive_client(line: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let ["PROXY", "TCP4" | "TCP6", source, _, port, _] = *line.split(' ').collect::<Vec<_>>()
    else {
        return None;
    };
    Some(SocketAddr::new(source.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_hold() {
        crate::fuzz::replay("smtp", conversation);
    }

    #[test]
    fn proxy_headers_hold() {
        crate::fuzz::replay("proxy", proxy_header);
    }
}
