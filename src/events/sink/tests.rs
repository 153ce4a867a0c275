use super::*;
use crate::events::{Event, EventLine, MailboxDelivered};
use crate::id::TraceId;
use std::time::Duration;

const MORNING: Timestamp = Timestamp::from_millis(1_795_235_486_123);

fn event(at: Timestamp) -> Vec<u8> {
    let delivered = MailboxDelivered { recipient: "a@b.test".into(), folder: "INBOX".into() };
    EventLine {
        trace_id: TraceId::generate(),
        event: Event::MailboxDelivered(delivered),
        event_timestamp: at,
        organization_id: "m-1".into(),
    }
    .encode()
}

fn append(sink: &mut EventSink, lsn: u64, at: Timestamp, count: usize) {
    let lines: Vec<u8> = std::iter::repeat_with(|| [event(at), b"\n".to_vec()].concat())
        .take(count)
        .flatten()
        .collect();
    sink.append([RecordedEvents { lsn: Lsn(lsn), at, lines: &lines }]).expect("appends");
}

fn ids(dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    for path in files(dir).expect("lists") {
        for line in fs::read(path).expect("reads").split_inclusive(|&byte| byte == b'\n') {
            ids.push(id_of_line(line).expect("a whole line").to_string());
        }
    }
    ids
}

#[test]
fn reopening_continues_after_the_last_whole_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    let mut sink = open();
    append(&mut sink, 1, MORNING, 2);
    drop(sink);
    let torn = event(MORNING);
    open_append(&dir.path().join(CURRENT)).expect("opens").write_all(&torn).expect("writes");

    let mut sink = open();
    assert_eq!(sink.last(), Some(EventId { lsn: Lsn(1), index: 1 }));
    append(&mut sink, 1, MORNING, 3); // Replayed: two are there, the third is new.
    append(&mut sink, 2, MORNING, 1);
    assert_eq!(
        ids(dir.path()),
        [
            "0000000000000001-0000",
            "0000000000000001-0001",
            "0000000000000001-0002",
            "0000000000000002-0000"
        ]
    );
}

#[test]
fn a_file_is_rotated_by_day_and_size_and_kept_thirty_days() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_file_bytes: 400, retention_days: 30 };
    let mut sink = EventSink::open(dir.path().into(), settings, Lsn(0)).expect("opens");
    for lsn in 1..=5 {
        append(&mut sink, lsn, MORNING, 1);
    }
    let day = |days: u64| MORNING.plus(Duration::from_secs(days * 86_400));
    append(&mut sink, 6, day(1), 1);
    let names: Vec<_> = files(dir.path())
        .expect("lists")
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "email-events.2026-11-21.jsonl",
            "email-events.2026-11-21.0001.jsonl",
            "email-events.2026-11-21.0002.jsonl",
            "email-events.jsonl"
        ]
    );
    assert_eq!(ids(dir.path()).len(), 6, "nothing is lost by rotation");

    append(&mut sink, 7, day(31), 1);
    assert_eq!(ids(dir.path()).len(), 2, "the first day is past the thirty, the second is not");
}

#[test]
fn an_empty_current_file_continues_the_rotated_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    let mut sink = open();
    append(&mut sink, 9, MORNING, 1);
    drop(sink);
    let rotated = dir.path().join("email-events.2026-11-21.jsonl");
    rename(&dir.path().join(CURRENT), &rotated).expect("renames");
    assert_eq!(open().last(), Some(EventId { lsn: Lsn(9), index: 0 }));
}

#[test]
fn what_a_power_loss_took_from_the_middle_ends_the_file_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(CURRENT);
    let mut sink = EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    for lsn in 1..=6000 {
        append(&mut sink, lsn, MORNING, 1); // More than a megabyte.
    }
    drop(sink);
    let whole = fs::read(&path).expect("reads");
    let line = whole.len() / 6000;
    for synced in [0, 1, 3000, 5950] {
        let mut bytes = whole.clone();
        bytes[5960 * line - 50..5961 * line + 30].fill(0);
        fs::write(&path, &bytes).expect("writes");
        let sink = EventSink::open(dir.path().into(), Settings::default(), Lsn(synced));
        let last = sink.expect("opens").last().expect("there are some").lsn;
        assert!((5955..5962).contains(&last.0), "{last} with {synced} synced");
        assert!(whole.starts_with(&fs::read(&path).expect("reads")));
    }
}

#[test]
fn a_file_whose_sync_failed_is_written_anew_and_never_synced_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut sink = EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    append(&mut sink, 1, MORNING, 2);
    let doubtful = sink.file();
    doubtful.is_doubtful.store(true, Ordering::Relaxed);
    assert!(doubtful.sync().is_err());
    append(&mut sink, 2, MORNING, 1);
    assert!(!Arc::ptr_eq(&doubtful, &sink.file()));
    assert!(sink.file().sync().is_ok());
    assert_eq!(ids(dir.path()).len(), 3);
}

#[test]
fn zeros_that_a_power_loss_left_are_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    let mut sink = open();
    append(&mut sink, 1, MORNING, 1);
    drop(sink);
    open_append(&dir.path().join(CURRENT)).expect("opens").write_all(&[0; 5000]).expect("writes");
    let mut sink = open();
    append(&mut sink, 2, MORNING, 1);
    assert_eq!(ids(dir.path()).len(), 2);
}

#[test]
fn a_clock_that_went_back_before_a_restart_puts_no_file_before_an_older_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_file_bytes: 400, retention_days: 30 };
    let open = || EventSink::open(dir.path().into(), settings, Lsn(0)).expect("opens");
    let mut sink = open();
    let next_day = MORNING.plus(Duration::from_secs(86_400));
    // Rotated by size; the new file begins with events of the day before.
    for (lsn, at) in [(1, next_day), (2, next_day), (3, MORNING)] {
        append(&mut sink, lsn, at, 2);
    }
    drop(sink);
    let mut sink = open();
    for (lsn, at) in [(4, MORNING), (5, next_day)] {
        append(&mut sink, lsn, at, 2);
    }
    let found = ids(dir.path());
    assert_eq!(found.len(), 10);
    assert!(found.is_sorted(), "{found:?}");
    drop(sink);
    fs::remove_file(dir.path().join(CURRENT)).expect("removes");
    let newest = files(dir.path()).expect("lists").pop().expect("a rotated file");
    let text = fs::read(newest).expect("reads");
    let last = text.split_inclusive(|&byte| byte == b'\n').next_back().and_then(id_of);
    assert_eq!(open().last(), last);
}

#[test]
fn the_ten_thousandth_file_of_a_day_is_after_the_one_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = ["2026-11-21", "2026-11-21.0001", "2026-11-21.9999", "2026-11-21.10000"];
    let paths = [&names[..], &["2026-11-22"]].concat();
    let paths = paths.iter().map(|day| dir.path().join(format!("email-events.{day}.jsonl")));
    let paths: Vec<_> = paths.collect();
    for path in &paths {
        fs::write(path, "").expect("writes");
    }
    assert_eq!(files(dir.path()).expect("lists"), paths);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
fn a_file_that_was_moved_away_is_begun_anew_and_its_events_are_not_written_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let (current, moved) = (dir.path().join(CURRENT), dir.path().join("email-events.jsonl.1"));
    let open = || EventSink::open(dir.path().into(), Settings::default(), Lsn(0)).expect("opens");
    let mut sink = open();
    append(&mut sink, 1, MORNING, 2);
    fs::rename(&current, &moved).expect("moves");
    // Noticed without being told, in the next second.
    append(&mut sink, 2, MORNING.plus(Duration::from_secs(1)), 1);
    assert_eq!(ids(dir.path()), ["0000000000000002-0000"]);
    append(&mut sink, 1, MORNING.plus(Duration::from_secs(1)), 2);
    assert_eq!(ids(dir.path()).len(), 1, "those are where they were moved to");
    assert_eq!(fs::read_to_string(&moved).expect("reads").lines().count(), 2);
    // With a new file in its place, as logrotate's `create` makes.
    fs::rename(&current, &moved).expect("moves");
    File::create(&current).expect("creates");
    assert!(sink.reopen_if_moved().expect("reopens"));
    append(&mut sink, 3, MORNING.plus(Duration::from_secs(1)), 1);
    assert_eq!(ids(dir.path()), ["0000000000000003-0000"]);
}

#[test]
fn the_files_of_an_idle_daemon_are_deleted_when_their_time_has_come() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_file_bytes: 400, retention_days: 30 };
    let mut sink = EventSink::open(dir.path().into(), settings, Lsn(0)).expect("opens");
    let day = |days: u64| MORNING.plus(Duration::from_secs(days * 86_400));
    (1..=3).for_each(|lsn| append(&mut sink, lsn, MORNING, 1));
    append(&mut sink, 4, day(1), 1);
    let left = |sink: &mut EventSink, now| {
        sink.delete_expired(now).expect("deletes");
        ids(dir.path()).len()
    };
    assert_eq!(left(&mut sink, day(30)), 4);
    assert_eq!(left(&mut sink, day(31)), 1);
    assert_eq!(left(&mut sink, day(32)), 0, "the current file too");
    append(&mut sink, 5, day(32), 1);
    assert_eq!(left(&mut sink, day(33)), 1);
    assert_eq!(sink.last(), Some(EventId { lsn: Lsn(5), index: 0 }));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the folder")]
fn a_folder_that_was_moved_away_is_made_again() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("events");
    let mut sink = EventSink::open(dir.clone(), Settings::default(), Lsn(0)).expect("opens");
    append(&mut sink, 1, MORNING, 1);
    fs::rename(&dir, parent.path().join("away")).expect("moves");
    assert!(sink.reopen_if_moved().expect("opens again"));
    append(&mut sink, 2, MORNING, 1);
    assert_eq!(ids(&dir), ["0000000000000002-0000"]);
    assert_eq!(ids(&parent.path().join("away")), ["0000000000000001-0000"]);
}
