//! `mailweir verify`

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

use super::{ConfigArgument, output, runtime, start_failure};
use crate::clock::{Clock, SystemClock};
use crate::daemon;
use crate::heavy::Weight;
use crate::id::TraceId;
use crate::mail::{Address, Authors, Peer, ReversePath, Verdict, author_domains};
use crate::msgauth::{Authenticator, Request};

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArguments {
    /// The message
    file: PathBuf,
    /// The client's address
    #[arg(long)]
    ip: IpAddr,
    /// The client's EHLO name
    #[arg(long)]
    helo: String,
    /// The envelope's sender; empty or <> for the null reverse-path
    #[arg(long, value_name = "ADDRESS")]
    mail_from: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &VerifyArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load()?;
    let resolver = daemon::resolver(&configuration).map_err(start_failure)?;
    let file = arguments.file.display().to_string();
    let message = with_crlf(std::fs::read(&arguments.file).context(file)?);
    let reverse_path = match arguments.mail_from.as_str() {
        "" | "<>" => ReversePath::Null,
        address => ReversePath::Address(Address::parse(address).context("--mail-from")?),
    };
    let peer = Peer {
        ip: arguments.ip,
        port: 0,
        helo: arguments.helo.clone(),
        esmtp: true,
        tls: None,
        login: None,
    };
    let read = Authors::of(&message);
    let authors = read.clone().map(Authors::into_addresses).unwrap_or_default();
    let request = Request {
        message: &message,
        weight: Weight::of(&message),
        authors: &authors,
        peer: &peer,
        reverse_path: &reverse_path,
        trace_id: TraceId::generate(),
        now: SystemClock.now(),
    };
    let hostname = configuration.msgauth.authserv_id.clone();
    let authentication = runtime()?.block_on(async {
        Authenticator::new(resolver, configuration.msgauth).authenticate(&request).await
    });
    if arguments.json {
        return output::json(&authentication);
    }
    let is_of_several = author_domains(&authors).len() > 1;
    if let Err(error) = read {
        output::line(&format!("The message is refused from outside: {error}"))?;
    } else if is_of_several && authentication.dmarc.organization.shared().is_none() {
        output::line(
            "The message is refused from outside: its authors are of several organizations",
        )?;
    }
    output::line(&format!("SPF    {}", authentication.spf_verdict()))?;
    output::line(&format!("DKIM   {}", authentication.dkim_verdict()))?;
    let dmarc = authentication.dmarc_verdict();
    let policy = authentication.dmarc.applied.filter(|_| dmarc == Verdict::Fail);
    let policy = policy.map(|policy| format!(", policy {}", policy.as_str()));
    output::line(&format!("DMARC  {dmarc}{}", policy.unwrap_or_default()))?;
    let fields = authentication.received_spf(&peer, &reverse_path)
        + &authentication.authentication_results(&hostname);
    Ok(output::bytes(fields.replace("\r\n", "\n").as_bytes())?)
}

/// A file saved with bare LF was a message with CR LF when it was signed.
fn with_crlf(message: Vec<u8>) -> Vec<u8> {
    if memchr::memmem::find(&message, b"\r\n").is_some() {
        return message;
    }
    message.split_inclusive(|&byte| byte == b'\n').fold(Vec::new(), |mut out, line| {
        match line.split_last() {
            Some((b'\n', text)) => out.extend_from_slice(&[text, b"\r\n"].concat()),
            _ => out.extend_from_slice(line),
        }
        out
    })
}
