//! The event files, side by side with the events of the log.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use super::super::codec::Decoded;
use super::super::segment::Catalog;
use super::super::{StoreError, durable};
use super::Report;
use crate::clock::Timestamp;
use crate::events::{EventId, Lsn, sink};

/// The lines of all event files in order.
pub(super) struct EventCheck {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, BufReader<File>)>,
    line: Option<(EventId, Vec<u8>)>,
    last: Option<EventId>,
    /// The oldest event that the files have; older ones were deleted with their file.
    first: Option<EventId>,
    /// Positions whose expired events compaction took out of the log.
    compacted: Vec<std::ops::Range<u64>>,
    /// Opened at once: the daemon may rename it meanwhile.
    newest: Option<(PathBuf, File)>,
    problems: Vec<String>,
    bounds: Bounds,
    /// Events that are in no file though they should be, and the first of them.
    lost: Option<(EventId, u64)>,
}

/// Which events of the log must be in the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Those of records before this position were written once.
    pub(super) synced: Lsn,
    /// Files of days before this moment's are deleted.
    pub(super) kept_from: Timestamp,
}

impl EventCheck {
    pub(super) fn open(dir: &Path, catalog: &Catalog, bounds: Bounds) -> Result<Self, StoreError> {
        let (files, newest) = match durable::is_there(dir)? {
            true => {
                let files = sink::files_at_once(dir).map_err(StoreError::file(dir))?;
                (files.rotated, files.current)
            }
            false => (Vec::new(), None),
        };
        let packs = catalog.segments.iter().filter(|file| file.pack.is_some());
        let mut check = Self {
            files: files.into_iter(),
            current: None,
            line: None,
            last: None,
            first: None,
            compacted: packs.map(|file| file.base..file.end).collect(),
            newest,
            problems: Vec::new(),
            bounds,
            lost: None,
        };
        check.advance()?;
        Ok(check)
    }

    /// A record's events, which come next in the files.
    pub(super) fn record(
        &mut self,
        lsn: Lsn,
        record: &Decoded,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for (id, line) in sink::finished_lines(lsn, &record.events) {
            self.pass_to(id)?;
            match &self.line {
                Some((found, text)) if *found == id => {
                    if *text == line {
                        report.events += 1;
                    } else {
                        report.problem(format!("event {id} is not as the log has it"));
                    }
                    self.advance()?;
                }
                found if found.is_none() && lsn >= self.bounds.synced => {
                    report.events_to_write += 1;
                }
                found if found.is_none() || self.first.is_some_and(|first| id < first) => {
                    self.not_there(id, record);
                }
                Some(_) => report.problem(format!("event {id} is missing from the event files")),
                None => {}
            }
        }
        Ok(())
    }

    /// An event that is in no file, because its file was deleted when its time had come, or was
    /// moved away by somebody.
    fn not_there(&mut self, id: EventId, record: &Decoded) {
        let is_kept =
            record.head.events_at.is_some_and(|at| at.day() >= self.bounds.kept_from.day());
        if is_kept {
            let (_, count) = self.lost.get_or_insert((id, 0));
            *count += 1;
        }
    }

    /// Passes over lines that come before an event.
    fn pass_to(&mut self, id: EventId) -> Result<(), StoreError> {
        while self.line.as_ref().is_some_and(|(found, _)| *found < id) {
            self.pass()?;
        }
        Ok(())
    }

    /// A line that the log has no event for: right only where compaction took it out.
    fn pass(&mut self) -> Result<(), StoreError> {
        if let Some((id, _)) = &self.line
            && !self.compacted.iter().any(|positions| positions.contains(&id.lsn.0))
        {
            self.problems.push(format!("event {id} is in the event files alone"));
        }
        self.advance()
    }

    /// What is left in the files, and what was wrong with them. Events of records from `until`
    /// on may have come while the log was read.
    pub(super) fn finish(mut self, until: Lsn, report: &mut Report) -> Result<(), StoreError> {
        while self.line.as_ref().is_some_and(|(id, _)| id.lsn < until) {
            self.pass()?;
        }
        if let Some((first, count)) = self.lost {
            report.problem(format!(
                "events that no event file has and nothing writes again: {count}, from {first} on; \
                 a file was moved away, cut or deleted"
            ));
        }
        self.problems.into_iter().for_each(|problem| report.problem(problem));
        Ok(())
    }

    /// The next whole line. An unfinished one at the end is what the daemon is writing, or what
    /// it cuts off when it starts.
    fn advance(&mut self) -> Result<(), StoreError> {
        self.line = None;
        loop {
            let Some((path, file)) = &mut self.current else {
                let next = match self.files.next() {
                    Some(path) => match File::open(&path) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            // Deleted since it was listed, and all older ones with it.
                            self.first = None;
                            continue;
                        }
                        file => Some((path.clone(), file.map_err(StoreError::file(path))?)),
                    },
                    None => self.newest.take(),
                };
                let Some((path, file)) = next else { return Ok(()) };
                self.current = Some((path, BufReader::new(file)));
                continue;
            };
            let mut line = Vec::new();
            file.read_until(b'\n', &mut line).map_err(StoreError::file(&*path))?;
            let is_last_file = self.newest.is_none();
            match (line.is_empty(), sink::id_of(&line)) {
                (true, _) => self.current = None,
                (false, None) if is_last_file && !line.ends_with(b"\n") => self.current = None,
                (false, None) => {
                    self.problems.push(format!("{}: a line is not an event", path.display()));
                }
                (false, Some(id)) => {
                    if self.last.is_some_and(|last| id <= last) {
                        self.problems.push(format!("event {id} stands twice or out of order"));
                        continue;
                    }
                    self.last = Some(id);
                    self.first = self.first.or(Some(id));
                    self.line = Some((id, line));
                    return Ok(());
                }
            }
        }
    }
}
