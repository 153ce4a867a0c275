//! `mailweir demo`: everything a newcomer wants to see, with nothing installed: a daemon on a free
//! loopback port, DNS from a fixture, six messages over real SMTP, and what became of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{events, output, runtime, start_failure, start_log};
use crate::config::{self, Configuration, LogFormat, LogSettings};
use crate::daemon::Daemon;
use crate::store::reader::Reader;
use crate::store::{Folder, MailboxName};

const ZONE: &str = include_str!("../../fixtures/dns/demo.zone");
const ORGANIZATION: &str = include_str!("../../config/example-org.toml");
const GOOD: &str = include_str!("../../fixtures/messages/demo-good.eml");

const CONFIGURATION: &str = "\
data_dir = \"data\"
hostname = \"mx.example.test\"
[[listener]]
name = \"mx\"
protocol = \"mx\"
bind = \"127.0.0.1:0\"
[[organization]]
file = \"example-org.toml\"
[dns]
zone_file = \"demo.zone\"
[limits]
banner_delay_ms = 0
";

#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// Where to put the demo's files; a new folder under the system's temporary one by default
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print only the traces, as JSON
    #[arg(long)]
    json: bool,
}

/// A message of the demo.
struct DemoMessage {
    what: &'static str,
    sender: &'static str,
    recipient: &'static str,
    content: String,
    message_id: &'static str,
}

pub(super) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    start_log(&LogSettings { format: LogFormat::Text, level: "warn".into() });
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("mailweir-demo-{}", std::process::id())),
    };
    let configuration = write_files(&dir)?;
    let store = configuration.store.clone();
    let organization =
        configuration.organizations.first().map(|config| config.organization.clone());
    let organization = organization.ok_or_else(|| anyhow!("the demo has no organization"))?;
    let messages = messages();
    runtime()?.block_on(async {
        let daemon = Daemon::start(configuration).await.map_err(start_failure)?;
        let address = daemon.addresses().get("mx").copied();
        let address = address.ok_or_else(|| anyhow!("the demo's listener has no address"))?;
        let sent = send_all(address, &messages, arguments.json).await;
        daemon.stop().await;
        sent
    })?;
    if !arguments.json {
        output::line("\nMailboxes\n")?;
        print_mailboxes(&Reader::open(&store)?, organization.id.as_str(), &organization.users)?;
        output::line("\nTraces")?;
    }
    for message in &messages {
        if !arguments.json {
            output::line(&format!("\n{}", message.what))?;
        }
        events::trace(&store, message.message_id, events::MAX_TRACES, arguments.json)?;
    }
    if !arguments.json {
        let log = store.data_dir.join("events/email-events.jsonl");
        output::line(&format!("\nEvent log: {}", log.display()))?;
        let config = dir.join("mailweir.toml");
        output::line(&format!(
            "Look further: mailweir mailbox list alice --config {}",
            config.display()
        ))?;
    }
    Ok(())
}

fn write_files(dir: &Path) -> anyhow::Result<Configuration> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    write("demo.zone", ZONE)?;
    write("example-org.toml", ORGANIZATION)?;
    write("mailweir.toml", CONFIGURATION)?;
    Ok(config::load(&dir.join("mailweir.toml"), [])?)
}

fn messages() -> Vec<DemoMessage> {
    let made = |what, sender, recipient, subject, message_id: &'static str| DemoMessage {
        what,
        sender,
        recipient,
        content: format!(
            "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 \
             09:00:00 +0000\r\nMessage-ID: <{message_id}>\r\n\r\nA demo message.\r\n"
        ),
        message_id,
    };
    let good = DemoMessage {
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

async fn send_all(
    address: SocketAddr,
    messages: &[DemoMessage],
    quiet: bool,
) -> anyhow::Result<()> {
    if !quiet {
        output::line(&format!("Sending {} messages to {address}\n", messages.len()))?;
    }
    for message in messages {
        let replies = send(address, message).await.context(message.what)?;
        if quiet {
            continue;
        }
        output::line(message.what)?;
        output::line(&format!("   {} -> {}", message.sender, message.recipient))?;
        output::line(&format!("   {}", replies.last().map_or("no reply", String::as_str)))?;
    }
    Ok(())
}

/// Sends a message as an MTA would; returns the replies, of which the last is the message's.
async fn send(address: SocketAddr, message: &DemoMessage) -> anyhow::Result<Vec<String>> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = BufReader::new(stream);
    let mut replies = vec![reply(&mut stream).await?];
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
        replies.push(reply(&mut stream).await?);
        if replies.last().is_some_and(|reply| reply.starts_with(['4', '5'])) {
            break;
        }
    }
    stream.write_all(b"QUIT\r\n").await?;
    Ok(replies)
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

fn print_mailboxes(
    reader: &Reader,
    organization: &str,
    users: &[crate::directory::User],
) -> anyhow::Result<()> {
    for user in users {
        let name = MailboxName { organization: organization.into(), user: user.name.clone() };
        let messages = reader.messages(&name)?;
        for folder in Folder::ALL {
            for message in messages.iter().filter(|message| message.folder == folder) {
                let bytes = reader.read(message)?;
                let parsed = mail_parser::MessageParser::new().parse_headers(&bytes);
                let subject =
                    parsed.as_ref().and_then(|parsed| parsed.subject()).unwrap_or_default();
                output::line(&format!("  {:8} {folder:11} {subject}", user.name))?;
            }
        }
    }
    Ok(())
}
