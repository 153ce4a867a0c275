//! What other servers send: over SMTP in the clear, as they would without TLS.

use std::net::SocketAddr;

use anyhow::anyhow;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const GOOD: &str = include_str!("../../../fixtures/messages/demo-good.eml");

/// A message from elsewhere.
pub(super) struct Arrival {
    pub(super) what: &'static str,
    pub(super) sender: &'static str,
    pub(super) recipient: &'static str,
    content: String,
    pub(super) message_id: &'static str,
}

/// Six messages, each with another end.
pub(super) fn arrivals() -> Vec<Arrival> {
    let made = |what, sender, recipient, subject, message_id: &'static str| Arrival {
        what,
        sender,
        recipient,
        content: format!(
            "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 \
             09:00:00 +0000\r\nMessage-ID: <{message_id}>\r\n\r\nA demo message.\r\n"
        ),
        message_id,
    };
    let good = Arrival {
        what: "1. Good: signed, from the right network",
        sender: "bob@good.test",
        recipient: "alice@example.test",
        content: GOOD.to_owned(),
        message_id: "demo-good@good.test",
    };
    vec![
        good,
        made(
            "2. Spoofed, and the author's domain says p=reject",
            "ceo@reject.test",
            "alice@example.test",
            "Transfer the money",
            "demo-reject@reject.test",
        ),
        made(
            "3. Spoofed, and the author's domain says p=quarantine",
            "ceo@quarantine.test",
            "alice@example.test",
            "Your parcel",
            "demo-quarantine@quarantine.test",
        ),
        made(
            "4. Dropped by the rule \"no-spoofers\"",
            "x@evil.test",
            "bob@example.test",
            "Hello my friend",
            "demo-drop@evil.test",
        ),
        made(
            "5. Bounced by the rule \"refuse-marketing\"",
            "news@marketing.test",
            "alice@example.test",
            "Our offers",
            "demo-bounce@marketing.test",
        ),
        made(
            "6. To a group, by its alias",
            "buyer@partner.test",
            "verkauf@example.org",
            "An order",
            "demo-group@partner.test",
        ),
    ]
}

/// Sends a message as an MTA would; the last reply that it got.
pub(super) async fn send(address: SocketAddr, message: &Arrival) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = BufReader::new(stream);
    let mut last = reply(&mut stream).await?;
    let domain = message.sender.rsplit('@').next().unwrap_or_default();
    let content = message.content.replace("\r\n.", "\r\n..");
    for command in [
        format!("EHLO mail.{domain}\r\n"),
        format!("MAIL FROM:<{}>\r\n", message.sender),
        format!("RCPT TO:<{}>\r\n", message.recipient),
        "DATA\r\n".to_owned(),
        format!("{content}.\r\n"),
    ] {
        stream.write_all(command.as_bytes()).await?;
        last = reply(&mut stream).await?;
        if last.starts_with(['4', '5']) {
            break;
        }
    }
    stream.write_all(b"QUIT\r\n").await?;
    Ok(last)
}

/// A reply's last line.
async fn reply(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(anyhow!("the daemon closed the connection"));
        }
        if line.get(3..4) != Some("-") {
            return Ok(line.trim_end().to_owned());
        }
    }
}
