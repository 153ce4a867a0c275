//! `mailweir events tail`, `trace`

mod files;
pub(super) mod joins;
mod search;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use serde_json::Value;

use super::{ConfigArgument, output, story};
use crate::events::{EventId, sink};
use crate::store::Settings;
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
    if !dir.exists() {
        bail!("{} holds no events yet", settings.data_dir.display());
    }
    let mut lines: Vec<String> = Vec::new();
    for path in sink::files(&dir)?.into_iter().rev() {
        let mut older: Vec<_> = read_lines(&path)?;
        older.append(&mut lines);
        lines = older;
        if lines.len() >= arguments.lines {
            break;
        }
    }
    for line in lines.iter().skip(lines.len().saturating_sub(arguments.lines)) {
        output::line(line)?;
    }
    if arguments.follow { follow(&dir, lines.last()) } else { Ok(()) }
}

fn read_lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(BufReader::new(file).lines().collect::<Result<_, _>>()?)
}

/// Prints whole lines as they come; a rotated file is read to its end before the new one.
fn follow(dir: &Path, last: Option<&String>) -> anyhow::Result<()> {
    let current = dir.join("email-events.jsonl");
    let mut printed = last.and_then(|line| event_id(line));
    let mut position = 0;
    loop {
        let mut file = File::open(&current).with_context(|| current.display().to_string())?;
        if file.metadata()?.len() < position {
            position = 0;
        }
        file.seek(SeekFrom::Start(position))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            position += line.len() as u64;
            let id = event_id(&line);
            if id > printed {
                output::line(line.trim_end())?;
                printed = id;
            }
            line.clear();
        }
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
