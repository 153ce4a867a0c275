//! `mailweir events tail`, `trace`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use memchr::{memchr, memmem, memrchr};
use serde_json::Value;

use super::story::{self, Trace};
use super::{ConfigArgument, output};
use crate::events::{EventId, sink};
use crate::pipeline::refusals::{self, RefusalLine};
use crate::store::Settings;
use crate::store::reader::{self, Reader};

/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Traces that one search shows at most, the newest ones.
const MAX_TRACES: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// The newest events, as they stand in the file
    Tail(TailArguments),
    /// The story of a message, by trace id, Message-ID or recipient
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
    /// Print JSON, a line for each trace: its events and what they were decided from
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &EventsCommand) -> anyhow::Result<()> {
    match command {
        EventsCommand::Tail(arguments) => tail(arguments),
        EventsCommand::Trace(arguments) => {
            trace(&arguments.config.load()?.store, &arguments.id, arguments.json)
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

/// Prints the stories of all messages that an id means.
pub(super) fn trace(settings: &Settings, id: &str, json: bool) -> anyhow::Result<()> {
    let traces = find(settings, id)?;
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
    Ok(())
}

fn find(settings: &Settings, id: &str) -> anyhow::Result<Vec<Trace>> {
    let mut traces = find_events(settings, id)?;
    find_refusals(settings, id, &mut traces)?;
    let skipped = traces.len().saturating_sub(MAX_TRACES);
    let mut traces: Vec<_> = traces.into_values().skip(skipped).collect();
    if reader::exists(settings) {
        let reader = Reader::open(settings)?;
        for trace in &mut traces {
            trace.story = find_story(&reader, trace);
        }
    }
    Ok(traces)
}

/// The events of every trace that has one which mentions the id. Trace ids sort by age.
fn find_events(settings: &Settings, id: &str) -> anyhow::Result<BTreeMap<String, Trace>> {
    let dir = settings.data_dir.join("events");
    let mut traces = BTreeMap::new();
    if !dir.exists() {
        return Ok(traces);
    }
    let files = sink::files(&dir)?;
    // In the file, a text is escaped as JSON escapes it.
    let needle = serde_json::to_string(id.trim_matches(['<', '>']))?;
    let needle = needle.trim_matches('"').to_ascii_lowercase();
    for path in &files {
        for line in lines_with(&read(path)?, &needle) {
            if mentions(&line, id)
                && let Some(trace_id) = line.get("traceId").and_then(Value::as_str)
            {
                traces.entry(trace_id.to_owned()).or_insert_with(|| Trace::new(trace_id));
            }
        }
    }
    for path in &files {
        for line in read(path)?.split(|&byte| byte == b'\n') {
            if let Some(trace) = trace_id_of(line).and_then(|id| traces.get_mut(id)) {
                trace.events.extend(serde_json::from_slice::<Value>(line));
            }
        }
    }
    Ok(traces)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// The lines that have a text (in lower case) somewhere, whatever its case, as JSON.
fn lines_with(bytes: &[u8], needle: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    if needle.is_empty() {
        return lines; // It is in every line, and asked for by mistake.
    }
    let lower = bytes.to_ascii_lowercase();
    let mut position = 0;
    while let Some(found) =
        memmem::find(lower.get(position..).unwrap_or_default(), needle.as_bytes())
    {
        let at = position + found;
        let start = memrchr(b'\n', &bytes[..at]).map_or(0, |newline| newline + 1);
        let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |newline| at + newline);
        lines.extend(serde_json::from_slice::<Value>(&bytes[start..end]));
        position = end + 1;
    }
    lines
}

/// The trace id of a line, which begins with it, without reading the rest.
fn trace_id_of(line: &[u8]) -> Option<&str> {
    let id = line.strip_prefix(b"{\"traceId\":\"")?.get(..36)?;
    std::str::from_utf8(id).ok()
}

/// Whether an event's trace id, Message-ID or a recipient is the one that is looked for.
fn mentions(line: &Value, id: &str) -> bool {
    let bare = |text: &str| text.trim_matches(['<', '>']).to_owned();
    let is_id = |value: Option<&Value>| {
        value.and_then(Value::as_str).is_some_and(|text| bare(text).eq_ignore_ascii_case(&bare(id)))
    };
    let event = line.get("event").unwrap_or(&Value::Null);
    let recipients = event.get("recipients").and_then(Value::as_array);
    is_id(line.get("traceId"))
        || is_id(event.get("messageId"))
        || is_id(event.get("recipient"))
        || is_id(event.pointer("/bouncedRecipient/emailAddress"))
        || recipients.is_some_and(|all| all.iter().any(|recipient| is_id(Some(recipient))))
}

fn find_refusals(
    settings: &Settings,
    id: &str,
    traces: &mut BTreeMap<String, Trace>,
) -> anyhow::Result<()> {
    let bare = id.trim_matches(['<', '>']).to_lowercase();
    for path in refusals::files(&settings.data_dir.join("refusals")) {
        for line in read_lines(&path)? {
            let Ok(refusal) = serde_json::from_str::<RefusalLine>(&line) else { continue };
            let is_meant = refusal.trace_id.eq_ignore_ascii_case(id)
                || refusal.about.to_lowercase().contains(&format!("<{bare}>"))
                || traces.contains_key(&refusal.trace_id);
            if is_meant {
                let trace_id = refusal.trace_id.clone();
                let trace = traces.entry(trace_id.clone()).or_insert_with(|| Trace::new(&trace_id));
                trace.refusals.push(refusal);
            }
        }
    }
    Ok(())
}

/// An event's id leads to the durable record, which has the story.
fn find_story(reader: &Reader, trace: &Trace) -> Option<Value> {
    let id: EventId = trace.events.first()?.get("eventId")?.as_str()?.parse().ok()?;
    let stories = reader.stories(id.lsn).ok()?;
    let story = stories.into_iter().find(|story| story.trace_id.to_string() == trace.trace_id);
    serde_json::from_str(story?.told.get()).ok()
}
