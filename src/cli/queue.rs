//! `mailweir queue`: what waits to leave, and an operator's word on it.

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Serialize;

use super::{ConfigArgument, output};
use crate::clock::Timestamp;
use crate::daemon::control::{self, Answer, Request};
use crate::mail::{Address, ReversePath};
use crate::store::reader::Reader;
use crate::store::{Purpose, QueueId, QueuedMail, SettledOutcome};

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// What waits, oldest first
    List(ListArguments),
    /// One entry: its recipients and what came of them, attempts and last failure
    Show(ShowArguments),
    /// Try entries now
    Retry(RetryArguments),
    /// Give entries up
    Drop(DropArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// Only mail to this domain, or through this gateway
    #[arg(long, value_name = "DESTINATION")]
    to: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// The entry's id, as `list` prints it
    id: QueueId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false, args = ["ids", "all"])]
pub(super) struct RetryArguments {
    /// The entries
    ids: Vec<QueueId>,
    /// Everything that waits
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct DropArguments {
    /// The entries
    #[arg(required = true)]
    ids: Vec<QueueId>,
    /// Tell the senders, as if the mail had failed
    #[arg(long)]
    bounce: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// An entry as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: QueueId,
    trace_id: String,
    organization_id: &'a str,
    destination: String,
    purpose: &'static str,
    reverse_path: &'a ReversePath,
    /// Those that wait for an outcome.
    recipients: Vec<String>,
    /// Those that have it.
    settled: Vec<ShownOutcome<'a>>,
    size: u64,
    queued_at: Timestamp,
    attempts: u32,
    next_attempt: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a str>,
}

/// What came of a recipient, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownOutcome<'a> {
    recipient: String,
    /// `sent` or `bounced`; absent where an older version did not record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> ShownOutcome<'a> {
    fn of(recipient: &Address, outcome: Option<&'a SettledOutcome>) -> Self {
        let (outcome, text) = match outcome {
            Some(SettledOutcome::Sent(text)) => (Some("sent"), Some(text.as_str())),
            Some(SettledOutcome::Bounced(text)) => (Some("bounced"), Some(text.as_str())),
            None => (None, None),
        };
        Self { recipient: recipient.to_string(), outcome, text }
    }

    fn line(&self) -> String {
        match (self.outcome, self.text) {
            (Some(outcome), Some(text)) => format!("{}: {outcome}, {text}", self.recipient),
            _ => format!("{}: sent or bounced, as `events trace` tells", self.recipient),
        }
    }
}

impl<'a> Shown<'a> {
    fn of(mail: &'a QueuedMail) -> Self {
        let (mut waiting, mut settled) = (Vec::new(), Vec::new());
        for (place, recipient) in mail.entry.recipients.iter().enumerate() {
            match mail.state.settled_at(place) {
                None => waiting.push(recipient.address.to_string()),
                Some(known) => {
                    settled.push(ShownOutcome::of(&recipient.address, known.outcome.as_ref()));
                }
            }
        }
        Self {
            id: mail.id,
            trace_id: mail.trace_id.to_string(),
            organization_id: &mail.entry.organization,
            destination: mail.entry.destination.to_string(),
            purpose: match mail.entry.purpose {
                Purpose::Message => "message",
                Purpose::Report => "report",
                Purpose::JournalRecord { .. } => "journal record",
            },
            reverse_path: &mail.entry.reverse_path,
            recipients: waiting,
            settled,
            size: mail.size,
            queued_at: mail.queued_at,
            attempts: mail.state.attempts,
            next_attempt: mail.state.next_attempt.max(mail.queued_at),
            last_failure: mail.state.last_failure.as_deref(),
        }
    }

    fn line(&self) -> String {
        format!(
            "{:<14} {} {:>9} bytes  {} -> {} ({}), attempts {}, next {}{}",
            self.id.to_string(),
            self.queued_at,
            self.size,
            self.reverse_path,
            self.destination,
            self.recipients.join(", "),
            self.attempts,
            self.next_attempt,
            self.last_failure.map(|failure| format!(": {failure}")).unwrap_or_default(),
        )
    }
}

pub(super) fn run(command: &QueueCommand) -> anyhow::Result<()> {
    match command {
        QueueCommand::List(arguments) => list(arguments),
        QueueCommand::Show(arguments) => show(arguments),
        QueueCommand::Retry(arguments) => retry(arguments),
        QueueCommand::Drop(arguments) => drop_entries(arguments),
    }
}

fn queue(config: &ConfigArgument) -> anyhow::Result<Vec<QueuedMail>> {
    Ok(Reader::open(&config.load()?.store)?.queue()?)
}

fn list(arguments: &ListArguments) -> anyhow::Result<()> {
    let queue = queue(&arguments.config)?;
    let is_wanted = |shown: &Shown<'_>| {
        let to = arguments.to.as_deref();
        to.is_none_or(|to| {
            let destination = shown.destination.strip_prefix("gateway ");
            destination.unwrap_or(&shown.destination).eq_ignore_ascii_case(to)
        })
    };
    let shown: Vec<_> = queue.iter().map(Shown::of).filter(is_wanted).collect();
    if arguments.json {
        return output::json(&shown);
    }
    for entry in &shown {
        output::line(&entry.line())?;
    }
    let entries = |count: usize| match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    output::line(&match (shown.len(), &arguments.to) {
        (0, Some(to)) if !queue.is_empty() => {
            format!("nothing waits for {to}; for others, {}", entries(queue.len()))
        }
        (0, _) => "the queue is empty".to_owned(),
        (count, _) => entries(count),
    })?;
    Ok(())
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let queue = queue(&arguments.config)?;
    let found = queue.iter().find(|mail| mail.id == arguments.id);
    let mail = found.with_context(|| format!("there is no entry {} in the queue", arguments.id))?;
    let shown = Shown::of(mail);
    if arguments.json {
        return output::json(&shown);
    }
    let subject = mail.entry.authorship.subject.as_deref().unwrap_or("(none)");
    for (name, value) in [
        ("entry", shown.id.to_string()),
        ("trace", shown.trace_id.clone()),
        ("what", shown.purpose.to_owned()),
        ("subject", subject.to_owned()),
        ("from", shown.reverse_path.to_string()),
        ("to", shown.destination.clone()),
        ("recipients that wait", shown.recipients.join(", ")),
        ("bytes", shown.size.to_string()),
        ("queued at", shown.queued_at.to_string()),
        ("attempts", shown.attempts.to_string()),
        ("next attempt", shown.next_attempt.to_string()),
        ("last failure", shown.last_failure.unwrap_or("(none)").to_owned()),
    ] {
        output::line(&format!("{name:<21} {value}"))?;
    }
    for settled in &shown.settled {
        output::line(&format!("{:<21} {}", "settled", settled.line()))?;
    }
    Ok(())
}

fn retry(arguments: &RetryArguments) -> anyhow::Result<()> {
    let ids = match arguments.all {
        true => queue(&arguments.config)?.iter().map(|mail| mail.id).collect(),
        false => arguments.ids.clone(),
    };
    tell(&arguments.config, &Request::QueueRetry { ids }, "tried now", arguments.json)
}

fn drop_entries(arguments: &DropArguments) -> anyhow::Result<()> {
    let request = Request::QueueDrop { ids: arguments.ids.clone(), bounces: arguments.bounce };
    tell(&arguments.config, &request, "given up", arguments.json)
}

/// Asks the daemon, and prints what came of it.
fn tell(config: &ConfigArgument, request: &Request, done: &str, json: bool) -> anyhow::Result<()> {
    let data_dir = config.load()?.store.data_dir;
    let answer: Answer = control::ask(&data_dir, request)?;
    if let Some(problem) = &answer.problem {
        bail!("the daemon says: {problem}");
    }
    if json {
        output::json(&answer)?;
    } else {
        for id in &answer.done {
            output::line(&format!("{id} {done}"))?;
        }
    }
    match answer.missed.as_slice() {
        [] => Ok(()),
        missed => {
            let ids: Vec<_> = missed.iter().map(ToString::to_string).collect();
            bail!("not waiting, or being sent at this moment: {}", ids.join(", "))
        }
    }
}
