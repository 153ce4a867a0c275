//! Follows the event files as they grow and are rotated: every event once, in its order, however
//! often the file was rotated between two looks.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use super::dated::{leads_to, named};
use super::line::EventId;
use super::sink::{FilesAtOnce, files_at_once, id_of};

/// Where a follower has come to.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    /// The file that had the current name when it was opened, its path then, and how much of it
    /// has been read.
    open: Option<Open>,
    /// The last event that was told.
    last: Option<EventId>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    position: u64,
}

impl Follower {
    /// Follows the files of a folder from the first event after `last` on.
    pub fn after(dir: PathBuf, last: Option<EventId>) -> Self {
        Self { dir, open: None, last }
    }

    /// Tells each line that has come since the last look.
    ///
    /// # Errors
    /// Those of the file system, and of `tell`.
    pub fn look(&mut self, mut tell: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            open.read_on(&mut self.last, &mut tell)?;
            if leads_to(&open.path, &open.file)? {
                return Ok(());
            }
            // Its name leads elsewhere now, so nothing more is written to it: this is its end.
            open.read_on(&mut self.last, &mut tell)?;
        }
        let FilesAtOnce { rotated, current } = files_at_once(&self.dir)?;
        for mut open in self.unread(rotated)? {
            open.read_on(&mut self.last, &mut tell)?;
        }
        let Some((path, file)) = current else { return Ok(()) };
        let mut open = Open { path, file, position: 0 };
        open.read_on(&mut self.last, &mut tell)?;
        self.open = Some(open);
        Ok(())
    }

    /// The rotated files that have events after the last one that was told, oldest first.
    fn unread(&self, rotated: Vec<PathBuf>) -> io::Result<Vec<Open>> {
        let mut unread = Vec::new();
        for path in rotated.into_iter().rev() {
            let file = match File::open(&path) {
                // It was deleted since it was listed, and so were all older ones.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                file => file.map_err(|error| named(&path, error))?,
            };
            let mut open = Open { path, file, position: 0 };
            let is_begun = open.first()? <= self.last;
            unread.push(open);
            if is_begun && self.last.is_some() {
                break;
            }
        }
        unread.reverse();
        Ok(unread)
    }
}

impl Open {
    /// Tells whole lines from where reading ended, and passes over those told before.
    fn read_on(
        &mut self,
        last: &mut Option<EventId>,
        tell: &mut impl FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        // Somebody may have copied it and cut it to nothing.
        let length = self.file.metadata().map_err(|error| named(&self.path, error))?.len();
        if length < self.position {
            self.position = 0;
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.position += line.len() as u64;
            let id = id_of(&line);
            if id.is_some() && id > *last {
                tell(String::from_utf8_lossy(&line).trim_end())?;
                *last = id;
            }
            line.clear();
        }
        Ok(())
    }

    /// The file's first event.
    fn first(&mut self) -> io::Result<Option<EventId>> {
        let mut line = Vec::new();
        BufReader::new(&self.file).read_until(b'\n', &mut line)?;
        Ok(id_of(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Timestamp;
    use crate::events::sink::{EventSink, RecordedEvents};
    use crate::events::{Event, EventLine, Lsn, MailboxDelivered, Settings};
    use crate::id::TraceId;

    const MORNING: Timestamp = Timestamp::from_millis(1_795_235_486_123);

    /// A log that is rotated with each record, if it has more than one line.
    fn sink(dir: &Path) -> EventSink {
        let settings = Settings { max_file_bytes: 150, retention_days: 30 };
        EventSink::open(dir.into(), settings, Lsn(0)).expect("opens")
    }

    fn write(sink: &mut EventSink, records: std::ops::RangeInclusive<u64>) {
        for lsn in records {
            let (recipient, folder) = (format!("{lsn}@b.test"), "INBOX".to_owned());
            let event = EventLine {
                trace_id: TraceId::generate(),
                event: Event::MailboxDelivered(MailboxDelivered { recipient, folder }),
                event_timestamp: MORNING,
                organization_id: "m-1".into(),
            };
            let mut lines = event.encode();
            lines.push(b'\n');
            let record = RecordedEvents { lsn: Lsn(lsn), at: MORNING, lines: &lines };
            sink.append([record]).expect("appends");
        }
    }

    fn told(follower: &mut Follower) -> Vec<u64> {
        let mut told = Vec::new();
        let tell = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let recipient = value["event"]["recipient"].as_str().expect("a recipient");
            let number = recipient.split('@').next().expect("a local-part");
            told.push(number.parse().expect("a number"));
            Ok(())
        };
        follower.look(tell).expect("looks");
        told
    }

    #[test]
    fn no_rotation_takes_an_event_away() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut sink = sink(dir.path());
        let mut follower = Follower::after(dir.path().into(), None);
        assert!(told(&mut follower).is_empty());
        write(&mut sink, 1..=1);
        assert_eq!(told(&mut follower), [1]);
        for (records, expected) in
            [(2..=2, vec![2]), (3..=9, (3..=9).collect()), (10..=10, vec![10])]
        {
            write(&mut sink, records);
            assert_eq!(told(&mut follower), expected);
            assert!(told(&mut follower).is_empty());
        }
        let last = Some(EventId { lsn: Lsn(7), index: 0 });
        let mut late = Follower::after(dir.path().into(), last);
        assert_eq!(told(&mut late), [8, 9, 10], "begun behind a rotation");
        // Rotated files may be deleted meanwhile.
        write(&mut sink, 11..=13);
        std::fs::remove_file(dir.path().join("email-events.2026-11-21.jsonl")).expect("removes");
        assert_eq!(told(&mut late), [11, 12, 13]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
    fn a_file_that_others_move_or_cut_is_followed_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let current = dir.path().join("email-events.jsonl");
        let settings = Settings::default();
        let mut sink = EventSink::open(dir.path().into(), settings, Lsn(0)).expect("opens");
        let mut follower = Follower::after(dir.path().into(), None);
        write(&mut sink, 1..=1);
        assert_eq!(told(&mut follower), [1]);
        std::fs::rename(&current, dir.path().join("email-events.jsonl.1")).expect("moves");
        assert!(told(&mut follower).is_empty());
        assert!(sink.reopen_if_moved().expect("reopens"));
        assert!(!sink.reopen_if_moved().expect("looks"));
        write(&mut sink, 2..=3);
        assert_eq!(told(&mut follower), [2, 3]);
        // copytruncate
        std::fs::File::options()
            .write(true)
            .open(&current)
            .expect("opens")
            .set_len(0)
            .expect("cuts");
        assert!(told(&mut follower).is_empty());
        write(&mut sink, 4..=4);
        assert_eq!(told(&mut follower), [4]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
    fn the_rest_of_a_moved_file_is_told_before_the_new_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut sink = sink(dir.path());
        let mut follower = Follower::after(dir.path().into(), None);
        write(&mut sink, 1..=1);
        assert_eq!(told(&mut follower), [1]);
        let moved = dir.path().join("old");
        std::fs::rename(dir.path().join("email-events.jsonl"), &moved).expect("moves");
        // The daemon has the file open still.
        let line = std::fs::read_to_string(&moved).expect("reads");
        let line = line.replace("1@b.test", "2@b.test").replace("0001-0000", "0002-0000");
        let mut file = std::fs::File::options().append(true).open(&moved).expect("opens");
        std::io::Write::write_all(&mut file, line.as_bytes()).expect("writes");
        sink.reopen_if_moved().expect("reopens");
        write(&mut sink, 3..=4);
        assert_eq!(told(&mut follower), [2, 3, 4]);
    }
}
