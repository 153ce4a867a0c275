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
    for (records, expected) in [(2..=2, vec![2]), (3..=9, (3..=9).collect()), (10..=10, vec![10])] {
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
    std::fs::File::options().write(true).open(&current).expect("opens").set_len(0).expect("cuts");
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
