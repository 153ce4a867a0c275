//! Finds the traces that an id means, and those that belong to them.

use std::collections::{BTreeMap, BTreeSet};

use super::files::EventFiles;
use super::joins::{belong_together, joined, named_by};
use super::read_lines;
use anyhow::Context;

use crate::cli::trace::{Trace, Waiting};
use crate::events::{EventId, Lsn};
use crate::id::TraceId;
use crate::pipeline::refusals::{self, RefusalLine};
use crate::pipeline::story::AnyStory;
use crate::store::reader::{self, Reader, RecordContents};
use crate::store::{Settings, Story, StoryKind};

/// Traces that are joined to those that were asked for, at most: a message may be sent on to many.
const MAX_JOINED: usize = 100;
/// Stories of submissions that are read for a Message-ID that no event has: the newest.
const MAX_STORIES: usize = 10_000;

/// What an id means.
pub(super) struct Found {
    /// Oldest first, what is joined among them.
    pub(super) traces: Vec<Trace>,
    /// How many older ones there are.
    pub(super) left_out: usize,
}

/// Finds what `id` means: the newest `limit` traces, and what belongs to them.
///
/// # Errors
/// Files and records that cannot be read.
pub(super) fn find(settings: &Settings, id: &str, limit: usize) -> anyhow::Result<Found> {
    let files = EventFiles::of(settings)?;
    let reader = reader::exists(settings).then(|| Reader::open(settings)).transpose()?;
    let mut ids = files.mentioning(id)?;
    if let (true, Some(reader)) = (ids.is_empty(), &reader) {
        ids = submitted_with(reader, &files, id)?;
        // Mail of our own that leaves has no event at all.
        if let Ok(trace_id) = id.parse::<TraceId>()
            && !reader.listed(trace_id)?.is_empty()
        {
            ids.insert(trace_id.to_string());
        }
        // What a mailbox sends on has no event before its outcome.
        let mut queue = reader.queue()?.into_iter();
        ids.extend(queue.find_map(|mail| {
            let trace_id = mail.trace_id.to_string();
            (trace_id == id).then_some(trace_id)
        }));
    }
    let refusals = refusals_of(settings, id, &ids)?;
    ids.extend(refusals.iter().map(|refusal| refusal.trace_id.clone()));
    // Trace ids sort by age.
    let left_out = ids.len().saturating_sub(limit);
    let mut search = Search { files, reader, traces: BTreeMap::new() };
    search.add(ids.into_iter().skip(left_out).collect())?;
    for refusal in refusals {
        if let Some(trace) = search.traces.get_mut(&refusal.trace_id) {
            trace.refusals.push(refusal);
        }
    }
    search.join()?;
    Ok(Found { traces: search.traces.into_values().collect(), left_out })
}

/// A message that only bounced has no event with its Message-ID (as in WorkMail), but a story.
fn submitted_with(
    reader: &Reader,
    files: &EventFiles,
    id: &str,
) -> anyhow::Result<BTreeSet<String>> {
    let bare = |id: &str| id.trim_matches(['<', '>']).to_lowercase();
    let wanted = bare(id);
    let mut found = BTreeSet::new();
    if !wanted.contains('@') {
        return Ok(found);
    }
    for (trace_id, record) in files.submissions(MAX_STORIES)? {
        let Ok(contents) = reader.contents(record) else { continue };
        let mut trace = Trace::new(&trace_id);
        read_story(&mut trace, &contents);
        if trace.message_id().map(bare).as_ref() == Some(&wanted) {
            found.insert(trace_id);
        }
    }
    Ok(found)
}

/// Reads what a trace's decision was made from, or what mail of our own is, if a record has it; not
/// what servers said of it.
fn read_story(trace: &mut Trace, contents: &RecordContents) {
    if trace.story.is_some() {
        return;
    }
    for story in &contents.stories {
        if !trace.is(story.trace_id) || story.kind == StoryKind::Settled {
            continue;
        }
        match AnyStory::read(story) {
            Ok(story) => trace.story = Some(story),
            Err(problem) => trace.unread_story = Some(problem.to_string()),
        }
    }
}

struct Search {
    files: EventFiles,
    reader: Option<Reader>,
    traces: BTreeMap<String, Trace>,
}

impl Search {
    /// Adds traces with all that is known of each.
    fn add(&mut self, ids: Vec<String>) -> anyhow::Result<()> {
        let mut new: BTreeMap<_, _> =
            ids.into_iter().map(|id| (id.clone(), Trace::new(&id))).collect();
        self.files.collect(&mut new)?;
        if let Some(reader) = &self.reader {
            new.values_mut().for_each(|trace| look_up(reader, trace));
        }
        self.traces.append(&mut new);
        self.look_up_elsewhere()
    }

    /// What is sent on has its story in the record of what it was sent on from, and in that of the
    /// queue's entry as long as it waits.
    fn look_up_elsewhere(&mut self) -> anyhow::Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let is_open = |trace: &&Trace| trace.story.is_none() && !trace.is_delivered_only();
        let open: Vec<_> =
            self.traces.values().filter(is_open).map(|trace| trace.trace_id.clone()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let queue = reader.queue()?;
        for id in open {
            let queued = queue.iter().filter(|mail| mail.trace_id.to_string() == id);
            let mut places: BTreeSet<Lsn> = queued.map(|mail| mail.id.record()).collect();
            for other in self.traces.values() {
                if other.sent_on().any(|(onward, _)| onward.to_string() == id) {
                    places.extend(records(other));
                }
            }
            let Some(trace) = self.traces.get_mut(&id) else { continue };
            for contents in places.into_iter().filter_map(|record| reader.contents(record).ok()) {
                read_story(trace, &contents);
            }
        }
        Ok(())
    }

    /// Adds what belongs to the traces that are there, and what belongs to that; then tells each
    /// what it is joined to.
    fn join(&mut self) -> anyhow::Result<()> {
        let mut fresh: Vec<String> = self.traces.keys().cloned().collect();
        let mut room = MAX_JOINED;
        while room > 0 && !fresh.is_empty() {
            let mut named = named_by(fresh.iter().filter_map(|id| self.traces.get(id)));
            named.retain(|id| !self.traces.contains_key(id));
            let known = self.traces.len();
            named.truncate(room);
            self.add(named.clone())?;
            fresh = named.into_iter().filter(|id| self.keep(id)).collect();
            room -= self.traces.len() - known;
        }
        self.look_up_elsewhere()?;
        self.add_waiting()?;
        let joins: Vec<_> = self.traces.values().map(|of| joined(of, self.others(of))).collect();
        for (trace, joins) in self.traces.values_mut().zip(joins) {
            trace.joined = joins;
        }
        Ok(())
    }

    /// Tells each trace what of it is in the queue.
    fn add_waiting(&mut self) -> anyhow::Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        for mail in reader.queue()? {
            if let Some(trace) = self.traces.get_mut(&mail.trace_id.to_string()) {
                trace.waiting.push(Waiting::of(&mail));
            }
        }
        Ok(())
    }

    fn others<'a>(&'a self, of: &'a Trace) -> impl Iterator<Item = &'a Trace> {
        self.traces.values().filter(|other| other.trace_id != of.trace_id)
    }

    /// Drops a trace of which nothing is known, or that belongs to none; whether it stays.
    fn keep(&mut self, id: &str) -> bool {
        let stays = self.traces.get(id).is_some_and(|trace| {
            (!trace.events.is_empty() || trace.story.is_some())
                && self.others(trace).any(|it| belong_together(trace, it))
        });
        if !stays {
            self.traces.remove(id);
        }
        stays
    }
}

/// The durable records that a trace has events in.
fn records(trace: &Trace) -> BTreeSet<Lsn> {
    let ids = trace.events.iter().filter_map(|event| event.get("eventId")?.as_str());
    ids.filter_map(|id| id.parse::<EventId>().ok()).map(|id| id.lsn).collect()
}

/// Events lead to durable records, the index does where there are none, and what servers said leads
/// to the record of what was sent: these have the story, and what belongs to it. What has left the
/// log is not told.
fn look_up(reader: &Reader, trace: &mut Trace) {
    let mut places = records(trace);
    let listed = trace.trace_id.parse::<TraceId>().ok().map(|id| reader.listed(id));
    places.extend(listed.and_then(Result::ok).unwrap_or_default());
    let mut seen = BTreeSet::new();
    while let Some(record) = places.pop_first() {
        let is_new = seen.insert(record);
        let Some(contents) = is_new.then(|| reader.contents(record).ok()).flatten() else {
            continue;
        };
        read_story(trace, &contents);
        for told in &contents.stories {
            if !trace.is(told.trace_id) {
                note_beside(trace, told);
            } else if told.kind == StoryKind::Settled {
                match AnyStory::read(told) {
                    Ok(AnyStory::Settled(story)) => {
                        trace.transport.extend(story.transport);
                        places.insert(story.entry.record());
                    }
                    Ok(_) => {}
                    Err(problem) => trace.unread_story = Some(problem.to_string()),
                }
            }
        }
    }
}

/// Notes another trace of a record that says that it belongs to this one.
fn note_beside(trace: &mut Trace, told: &Story) {
    let other = AnyStory::read(told).ok();
    let other = Trace { story: other, ..Trace::new(&told.trace_id.to_string()) };
    if belong_together(trace, &other) {
        trace.beside.push(other.trace_id);
    }
}

fn refusals_of(
    settings: &Settings,
    id: &str,
    traces: &BTreeSet<String>,
) -> anyhow::Result<Vec<RefusalLine>> {
    let bare = id.trim_matches(['<', '>']).to_lowercase();
    let is_meant = |refusal: &RefusalLine| {
        refusal.trace_id.eq_ignore_ascii_case(id)
            || refusal.about.to_lowercase().contains(&format!("<{bare}>"))
            || traces.contains(&refusal.trace_id)
    };
    let mut found = Vec::new();
    let dir = settings.data_dir.join("refusals");
    for path in refusals::files(&dir).with_context(|| dir.display().to_string())? {
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        let lines = read_lines(&path, file)?;
        let refusals = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        found.extend(refusals.filter(is_meant));
    }
    Ok(found)
}
