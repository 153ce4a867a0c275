//! The event files, read for what belongs to certain messages. They are read as bytes first: of
//! millions of lines only those that matter are parsed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use memchr::{memchr, memmem, memrchr};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::trace::Trace;
use crate::events::{EventId, Lsn, sink};
use crate::store::{Settings, is_there};

/// In the line of a submission, and nowhere else: in texts, JSON escapes quotation marks.
const SUBMITTED: &[u8] = b"\"eventName\":\"OUTGOING_EMAIL_SUBMITTED\"";

/// The event files of a data folder.
pub(super) struct EventFiles(Vec<PathBuf>);

/// As much of a line as leads to its record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Glance<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
}

impl EventFiles {
    /// None where there was no event yet.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let dir = settings.data_dir.join("events");
        Ok(Self(if is_there(&dir)? { sink::files(&dir)? } else { Vec::new() }))
    }

    /// The ids of the traces that have an event which mentions `id`: as its trace id, Message-ID
    /// or a recipient.
    pub(super) fn mentioning(&self, id: &str) -> anyhow::Result<BTreeSet<String>> {
        // In the file, a text is escaped as JSON escapes it.
        let needle = serde_json::to_string(id.trim_matches(['<', '>']))?;
        let needle = needle.trim_matches('"').to_ascii_lowercase();
        let mut traces = BTreeSet::new();
        for path in &self.0 {
            let lines = lines_with(&read(path)?, &needle).into_iter();
            traces.extend(
                lines
                    .filter(|line| mentions(line, id))
                    .filter_map(|line| Some(line.get("traceId")?.as_str()?.to_owned())),
            );
        }
        Ok(traces)
    }

    /// The newest messages that users submitted, newest first: the trace, and the record that
    /// holds its story.
    pub(super) fn submissions(&self, most: usize) -> anyhow::Result<Vec<(String, Lsn)>> {
        let mut found = Vec::new();
        for path in self.0.iter().rev() {
            let bytes = read(path)?;
            let lines = bytes.rsplit(|&byte| byte == b'\n');
            let submitted = lines.filter(|line| memmem::find(line, SUBMITTED).is_some());
            found.extend(submitted.take(most - found.len()).filter_map(|line| {
                let glance: Glance<'_> = serde_json::from_slice(line).ok()?;
                let id: EventId = glance.event_id.parse().ok()?;
                Some((glance.trace_id.into_owned(), id.lsn))
            }));
        }
        Ok(found)
    }

    /// Gives each trace its events, in their order.
    pub(super) fn collect(&self, traces: &mut BTreeMap<String, Trace>) -> anyhow::Result<()> {
        if traces.is_empty() {
            return Ok(());
        }
        for path in &self.0 {
            for line in read(path)?.split(|&byte| byte == b'\n') {
                if let Some(trace) = trace_id_of(line).and_then(|id| traces.get_mut(id)) {
                    trace.events.extend(serde_json::from_slice::<Value>(line));
                }
            }
        }
        Ok(())
    }
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
