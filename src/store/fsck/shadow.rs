//! The index, built anew from the log as it is read, and compared with the one on disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::StoreError;
use super::super::entry::RecordHead;
use super::super::index::{Index, Row};
use super::Report;
use crate::events::Lsn;

/// Rows of records that are applied together.
const BATCH: usize = 10_000;

/// An index in a temporary file of SQLite's.
pub(super) struct Shadow {
    index: Index,
    /// Records from here on are not in the index on disk.
    indexed: Lsn,
    batch: Vec<(Lsn, RecordHead)>,
    rows: usize,
    next: Lsn,
}

impl Shadow {
    pub(super) fn new(indexed: Lsn) -> Result<Self, StoreError> {
        // An empty name is a private file that SQLite removes.
        let index = Index::open(Path::new(""))?;
        Ok(Self { index, indexed, batch: Vec::new(), rows: 0, next: Lsn(0) })
    }

    /// Up to where the index on disk knows the log.
    pub(super) fn indexed(&self) -> Lsn {
        self.indexed
    }

    pub(super) fn record(&mut self, lsn: Lsn, next: Lsn, head: &RecordHead, report: &mut Report) {
        if lsn >= self.indexed {
            report.records_to_index += 1;
            return;
        }
        self.next = next;
        self.rows += head.rows();
        self.batch.push((lsn, head.clone().for_the_index()));
        if self.rows >= BATCH {
            self.flush(report);
        }
    }

    fn flush(&mut self, report: &mut Report) {
        let batch = std::mem::take(&mut self.batch);
        self.rows = 0;
        let applied = self.index.apply(batch.iter().map(|(lsn, head)| (*lsn, head)), self.next);
        if let Err(error) = applied {
            report.problem(format!("records before {} cannot be indexed: {error}", self.next));
        }
    }

    /// Compares message by message and mailbox by mailbox.
    pub(super) fn compare(
        mut self,
        index: &Index,
        log_end: Lsn,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        self.flush(report);
        if self.indexed > log_end {
            report.problem(format!(
                "the index knows records up to {}, the log ends at {log_end}",
                self.indexed
            ));
            return Ok(());
        }
        self.compare_messages(index, report)?;
        self.compare_queues(index, report)?;
        if index.register()? != self.index.register()? {
            report.problem("the index says otherwise than the log who is who".to_owned());
        }
        if index.statements(None)? != self.index.statements(None)? {
            let problem = "the index says otherwise than the log what was said of organizations";
            report.problem(problem.to_owned());
        }
        if index.erasures()? != self.index.erasures()? {
            let problem = "the index says otherwise than the log which mailboxes are erased";
            report.problem(problem.to_owned());
        }
        let used = |index: &Index| -> Result<BTreeMap<_, _>, StoreError> {
            let mailboxes = index.mailboxes()?.into_iter();
            Ok(mailboxes.map(|(birth, used)| (birth.id, (birth.owner, used))).collect())
        };
        let (theirs, ours) = (used(index)?, used(&self.index)?);
        for (id, (owner, used)) in &ours {
            match theirs.get(id) {
                Some((_, theirs)) if theirs == used => {}
                Some((_, theirs)) => report.problem(format!(
                    "mailbox {owner}: the index counts {theirs} octets, the log {used}"
                )),
                None => report.problem(format!("mailbox {owner} is not in the index")),
            }
        }
        for (owner, _) in theirs.iter().filter(|(id, _)| !ours.contains_key(id)).map(|it| it.1) {
            report.problem(format!("mailbox {owner} is in the index alone"));
        }
        Ok(())
    }

    fn compare_queues(&self, index: &Index, report: &mut Report) -> Result<(), StoreError> {
        let by_id = |index: &Index| -> Result<BTreeMap<_, _>, StoreError> {
            Ok(index.queue()?.into_iter().map(|mail| (mail.id, mail)).collect())
        };
        let (theirs, ours) = (by_id(index)?, by_id(&self.index)?);
        for (id, mail) in &ours {
            match theirs.get(id) {
                Some(known) if known == mail => report.queued += 1,
                Some(_) => report.problem(format!("queue entry {id} is another in the index")),
                None => report.problem(format!("queue entry {id} is not in the index")),
            }
        }
        for id in theirs.keys().filter(|id| !ours.contains_key(id)) {
            report.problem(format!("queue entry {id} is in the index alone"));
        }
        Ok(())
    }

    fn compare_messages(&self, index: &Index, report: &mut Report) -> Result<(), StoreError> {
        let mut ours = Rows::of(&self.index)?;
        let mut theirs = Rows::of(index)?;
        loop {
            match (ours.peek(), theirs.peek()) {
                (None, None) => return Ok(()),
                (Some(one), Some(other)) if one == other => {
                    report.messages += 1;
                    ours.take();
                    theirs.take();
                }
                (Some(one), other) if other.is_none_or(|other| one < other) => {
                    report.problem(format!("{one} is not in the index"));
                    ours.take();
                }
                (_, other) => {
                    let other = other.map(ToString::to_string).unwrap_or_default();
                    report.problem(format!("{other} is in the index alone"));
                    theirs.take();
                }
            }
        }
    }
}

/// An index's messages in order, read some at a time.
struct Rows<'a> {
    index: &'a Index,
    read: std::collections::VecDeque<Row>,
    last: Option<Row>,
}

impl<'a> Rows<'a> {
    fn of(index: &'a Index) -> Result<Self, StoreError> {
        let read = index.rows_after(None)?.into();
        Ok(Self { index, read, last: None })
    }

    fn peek(&self) -> Option<&Row> {
        self.read.front()
    }

    fn take(&mut self) {
        self.last = self.read.pop_front().or(self.last.take());
        if self.read.is_empty() {
            // What cannot be read is missing, and told so.
            self.read = self.index.rows_after(self.last.as_ref()).unwrap_or_default().into();
        }
    }
}
