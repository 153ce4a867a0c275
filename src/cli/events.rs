//! `mailweir events tail`, `trace`

mod files;
mod joins;
mod search;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use serde_json::Value;

use super::{ConfigArgument, output, story};
use crate::events::follow::Follower;
use crate::events::{EventId, sink};
use crate::store::{Settings, is_there};
use search::Found;

/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Traces that one search shows at most, unless it asks for more,
pub(super) const MAX_TRACES: usize = 100;
/// or for more still: all are held in memory, and each is held against each.
const MOST_TRACES: u64 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// The newest events, as they stand in the file
    Tail(TailArguments),
    /// The story of a message, by trace id, Message-ID or recipient, with what belongs to it: the
    /// other half of a submission, what was sent on, reports
    Trace(TraceArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct TailArguments {
    /// How many events
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: usize,
    /// Go on as events come, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Events are JSON lines anyway; accepted for uniformity
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct TraceArguments {
    /// A trace id, a Message-ID (with or without angle brackets), or a recipient's address
    id: String,
    /// How many traces at most, the newest ones; up to 100 more that belong to them come with them
    #[arg(long, value_name = "COUNT", default_value_t = MAX_TRACES, value_parser = limit())]
    limit: usize,
    /// Print JSON, a line for each trace: its events, what they were decided from, and which
    /// traces it is joined to
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

fn limit() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST_TRACES)
}

pub(super) fn run(command: &EventsCommand) -> anyhow::Result<()> {
    match command {
        EventsCommand::Tail(arguments) => tail(arguments),
        EventsCommand::Trace(arguments) => {
            let settings = arguments.config.load()?.store;
            trace(&settings, &arguments.id, arguments.limit, arguments.json)
        }
    }
}

fn tail(arguments: &TailArguments) -> anyhow::Result<()> {
    let settings = arguments.config.load()?.store;
    let dir = settings.data_dir.join("events");
    if !is_there(&dir)? {
        bail!("{} holds no events yet", settings.data_dir.display());
    }
    let mut lines: Vec<String> = Vec::new();
    let sink::FilesAtOnce { rotated, current } = sink::files_at_once(&dir)?;
    if let Some((path, file)) = current {
        lines = read_lines(&path, file)?;
    }
    for path in rotated.into_iter().rev() {
        if lines.len() >= arguments.lines {
            break;
        }
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let mut older: Vec<_> = read_lines(&path, file)?;
        older.append(&mut lines);
        lines = older;
    }
    for line in lines.iter().skip(lines.len().saturating_sub(arguments.lines)) {
        output::line(line)?;
    }
    if arguments.follow { follow(&dir, lines.last()) } else { Ok(()) }
}

/// The whole lines of a file: the last one may still be written.
fn read_lines(path: &Path, file: File) -> anyhow::Result<Vec<String>> {
    let mut reader = BufReader::new(file);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).with_context(|| path.display().to_string())? > 0
        && line.ends_with(b"\n")
    {
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    Ok(lines)
}

/// Prints whole lines as they come, also where they are written to other files meanwhile.
fn follow(dir: &Path, last: Option<&String>) -> anyhow::Result<()> {
    let mut follower = Follower::after(dir.into(), last.and_then(|line| event_id(line)));
    loop {
        follower.look(output::line)?;
        pause(FOLLOW_EVERY);
    }
}

#[expect(clippy::disallowed_methods, reason = "a command that follows a file until interrupted")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn event_id(line: &str) -> Option<EventId> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("eventId")?.as_str()?.parse().ok()
}

/// What became of the message that an id means, a line for each decision and outcome.
pub(super) fn outcomes(settings: &Settings, id: &str) -> anyhow::Result<Vec<String>> {
    let Found { traces, .. } = search::find(settings, id, 1)?;
    let trace = traces.first().with_context(|| format!("no event mentions {id}"))?;
    Ok(story::outcomes(trace))
}

/// Prints the stories of all messages that an id means, and of what belongs to them.
pub(super) fn trace(settings: &Settings, id: &str, limit: usize, json: bool) -> anyhow::Result<()> {
    let Found { traces, left_out } = search::find(settings, id, limit)?;
    if traces.is_empty() {
        bail!("no event and no refusal mentions {id}");
    }
    for (number, trace) in traces.iter().enumerate() {
        if json {
            output::json(trace)?;
        } else {
            if number > 0 {
                output::line("")?;
            }
            output::line(story::tell(trace).trim_end())?;
        }
    }
    if left_out > 0 {
        let older = output::counted(left_out as u64, "older trace");
        output::note(&format!("{older} not shown; see --limit"));
    }
    Ok(())
}
