//! The store as its users see it: what is committed is there, once, whatever happened between.

mod check;
mod committing;
mod compaction;
mod erasing;
mod keys;
mod queue;
mod races;
mod reading;
mod register;
mod stated;
mod tamper;
mod unknown;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::reader::Reader;
use super::*;
use crate::clock::Timestamp;
use crate::events::{Event, EventLine, Lsn, MailboxDelivered, Settings as EventSettings, sink};
use crate::id::{EntityId, EntityKind, TraceId};

const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);
const QUOTA: u64 = 1 << 30;

struct Scratch {
    _dir: tempfile::TempDir,
    settings: Settings,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::new(dir.path().join("data"));
        Self { _dir: dir, settings }
    }

    fn open(&self) -> Arc<Store> {
        Store::open(&self.settings, &crate::events::Settings::default()).expect("opens")
    }

    /// A store of three records in one segment, closed, the second of them damaged; and the segment.
    async fn damaged() -> (Self, Vec<u8>) {
        let scratch = Scratch::new();
        let store = scratch.open();
        for text in ["one", "two", "three"] {
            deliver(&store, &["alice"], text).await;
        }
        store.close();
        let segment = scratch.last_segment();
        let mut bytes = fs::read(&segment).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, &bytes).expect("writes");
        (scratch, bytes)
    }

    fn event_lines(&self) -> Vec<String> {
        sink::files(&self.settings.data_dir.join("events"))
            .expect("lists")
            .iter()
            .flat_map(|path| {
                let text = fs::read_to_string(path).expect("reads");
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn contents(&self, user: &str) -> Vec<String> {
        let reader = Reader::open(&self.settings).expect("opens");
        let messages = reader.messages(&name(user)).expect("lists");
        messages
            .iter()
            .map(|message| {
                String::from_utf8(reader.read(message).expect("reads")).expect("is UTF-8")
            })
            .collect()
    }

    fn last_segment(&self) -> std::path::PathBuf {
        let mut paths: Vec<_> = fs::read_dir(self.settings.data_dir.join("log"))
            .expect("lists")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        paths.sort();
        paths.pop().expect("a segment")
    }
}

fn name(user: &str) -> MailboxOwner {
    let entity = EntityId::of_first(EntityKind::User, "m-1", user);
    MailboxOwner { organization: "m-1".into(), entity }
}

fn commit_of(store: &Store, users: &[&str], text: &str) -> Commit {
    let id = TraceId::generate();
    let deliveries = users
        .iter()
        .map(|user| {
            let mailbox = store.mailbox(&name(user)).expect("a mailbox");
            let room = mailbox.reserve(text.len() as u64 + 3, QUOTA).expect("room");
            Delivery { room, folder: Folder::Inbox }
        })
        .collect();
    let event = EventLine {
        trace_id: id,
        event: Event::MailboxDelivered(MailboxDelivered {
            recipient: text.into(),
            folder: "INBOX".into(),
        }),
        event_timestamp: NOW,
        organization_id: "m-1".into(),
    };
    let (prefix, suffix) = (b"P: ".to_vec(), Vec::new());
    let mail = Mail { id, received_at: NOW, prefix, suffix, deliveries, queued: Vec::new() };
    Commit {
        blobs: vec![Blob { content: text.as_bytes().to_vec(), mails: vec![mail] }],
        events: vec![event],
        stories: vec![story(id, &serde_json::json!({ "text": text }))],
        ..Commit::default()
    }
}

fn story(trace_id: TraceId, told: &serde_json::Value) -> Story {
    let kind = StoryKind::Received;
    let version = 1;
    Story { trace_id, kind, version, told: raw(told), is_listed: false }
}

fn raw(value: &serde_json::Value) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(value).expect("is JSON")
}

async fn deliver(store: &Store, users: &[&str], text: &str) {
    store.commit(commit_of(store, users, text)).await.expect("commits");
}

#[tokio::test]
async fn a_committed_message_can_be_read_at_once_and_after_a_restart() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice", "bob"], "one").await;
    assert_eq!(scratch.contents("alice"), ["P: one"], "beside the running store");
    store.close();
    assert_eq!(scratch.contents("bob"), ["P: one"], "without one");
    let store = scratch.open();
    deliver(&store, &["alice"], "two").await;
    store.close();
    assert_eq!(scratch.contents("alice"), ["P: one", "P: two"]);
    assert_eq!(scratch.event_lines().len(), 2);
    assert!(scratch.contents("nobody").is_empty());
}

#[tokio::test]
async fn one_content_is_stored_once_and_sealed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let text = "needle ".repeat(3000);
    let commit = commit_of(&store, &["a", "b", "c", "d"], &text);
    let commit = Commit { events: vec![], stories: vec![], ..commit };
    store.commit(commit).await.expect("commits");
    store.close();
    let log = fs::read(scratch.last_segment()).expect("reads");
    assert!(log.len() < text.len() * 2, "{} bytes", log.len());
    assert_eq!(memchr::memmem::find(&log, b"needle"), None, "readable in the log");
}

#[tokio::test]
async fn mails_of_one_content_may_stand_around_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut commit = commit_of(&store, &["alice"], "one");
    let mut record = commit_of(&store, &["archive"], "one").blobs.remove(0).mails.remove(0);
    record.suffix = b" :S".to_vec();
    commit.blobs[0].mails.push(record);
    store.commit(commit).await.expect("commits");
    store.close();
    assert_eq!(scratch.contents("alice"), ["P: one"]);
    assert_eq!(scratch.contents("archive"), ["P: one :S"]);
}

#[tokio::test]
async fn a_torn_last_write_is_cut_at_every_byte() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "kept").await;
    let before = fs::metadata(scratch.last_segment()).expect("metadata").len();
    deliver(&store, &["alice"], "torn").await;
    store.close();
    let segment = scratch.last_segment();
    let whole = fs::read(&segment).expect("reads");
    let log = scratch.settings.data_dir.join("log");
    for cut in before..whole.len() as u64 {
        // The cut before began an epoch, in a segment of its own.
        for file in scratch.log_files().iter().filter(|file| file.path != segment) {
            fs::remove_file(&file.path).expect("removes");
        }
        fs::write(&segment, whole.get(..cut as usize).expect("a prefix")).expect("writes");
        // Every cut is found; what follows is the same for all of them, and slower to try.
        if !(cut - before).is_multiple_of(40) {
            let bytes = scratch.settings.segment_bytes;
            let opened = log::Log::open(&log, bytes, Lsn(0), Lsn(0), &scratch.log_key());
            let end = Lsn(before - header::HEADER + segment::FIRST);
            assert_eq!(opened.expect("opens").end(), end, "cut at {cut}");
            continue;
        }
        forget_index_and_events(&scratch.settings.data_dir);
        let store = scratch.open();
        deliver(&store, &["alice"], "new").await;
        store.close();
        assert_eq!(scratch.contents("alice"), ["P: kept", "P: new"], "cut at {cut}");
        assert_eq!(scratch.event_lines().len(), 2, "cut at {cut}");
    }
}

/// What was cut off could else be put back where another record stands by then.
#[tokio::test]
async fn a_torn_end_and_a_restore_begin_the_next_epoch_and_a_restart_does_not() {
    let epoch = |scratch: &Scratch| {
        let log = scratch.settings.data_dir.join("log");
        segment::Catalog::read(&log).expect("lists").chain().expect("is whole").epoch
    };
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "kept").await;
    store.close();
    let first = epoch(&scratch);
    scratch.open().close();
    assert_eq!(epoch(&scratch), first);

    let segment = scratch.last_segment();
    let whole = fs::read(&segment).expect("reads");
    fs::write(&segment, [&whole[..], b"torn"].concat()).expect("writes");
    // A crash before anything is written does not make it forgotten.
    scratch.open().close();
    let store = scratch.open();
    deliver(&store, &["alice"], "next").await;
    store.close();
    let second = epoch(&scratch);
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(fs::read(&segment).expect("reads"), whole, "it goes on in another segment");
    assert_eq!(scratch.contents("alice"), ["P: kept", "P: next"]);

    let copy = scratch.settings.data_dir.with_file_name("copy");
    backup::backup(&scratch.settings, &copy).expect("is made");
    let mut restored = Vec::new();
    for _ in 0..2 {
        let other = Scratch::new();
        backup::restore(&copy, &other.settings).expect("restores");
        let key = other.settings.data_dir.join("keys/master.key");
        fs::copy(scratch.settings.data_dir.join("keys/master.key"), key).expect("copies");
        let store = other.open();
        deliver(&store, &["alice"], "new").await;
        store.close();
        assert_eq!(other.contents("alice"), ["P: kept", "P: next", "P: new"]);
        restored.push(epoch(&other));
    }
    assert_eq!((restored[0].number, restored[1].number), (3, 3));
    assert_ne!(restored[0], restored[1], "of two restores each has a life of its own");
}

fn forget_index_and_events(data_dir: &Path) {
    forget_index(data_dir);
    fs::remove_dir_all(data_dir.join("events")).expect("removes");
}

fn forget_index(data_dir: &Path) {
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(fs::remove_file(data_dir.join(file))); // The side files may not be there.
    }
}

#[tokio::test]
async fn a_lost_index_is_built_again_from_the_log() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    let store = scratch.open();
    let used = store.mailbox(&name("alice")).expect("a mailbox").used_bytes();
    store.close();
    assert_eq!(scratch.contents("alice"), ["P: one", "P: two", "P: three"]);
    assert_eq!(used, 11 + 9);
    assert_eq!(scratch.event_lines().len(), 3);
}

#[tokio::test]
async fn events_that_a_power_loss_took_are_written_again_and_no_others() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    let lines = scratch.event_lines();
    let mut index =
        index::Index::open(&scratch.settings.data_dir.join("index.sqlite")).expect("opens");
    index.set_cursor(index::Cursor::EventsSynced, crate::events::Lsn(0)).expect("sets");
    drop(index);
    let path = scratch.settings.data_dir.join("events/email-events.jsonl");
    let kept = lines[0].len() + 1 + lines[1].len() / 2;
    OpenOptions::new().write(true).open(path).expect("opens").set_len(kept as u64).expect("cuts");
    scratch.open().close();
    assert_eq!(scratch.event_lines(), lines);
}

#[tokio::test]
async fn damage_before_the_end_is_told_not_skipped() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 1; // A segment for each commit.
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    let first = scratch.last_segment();
    deliver(&store, &["alice"], "two").await;
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    let mut bytes = fs::read(&first).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    OpenOptions::new().write(true).open(&first).expect("opens").write_all(&bytes).expect("writes");
    let error = Store::open(&scratch.settings, &crate::events::Settings::default())
        .expect_err("damaged")
        .to_string();
    assert!(error.contains("checksum is wrong"), "{error}");
}

#[tokio::test]
async fn a_piece_past_the_end_of_numbers_is_damage() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    let log = segment::Catalog::read(&scratch.settings.data_dir.join("log")).expect("reads");
    let frame = log.frame(crate::events::Lsn(8)).expect("is there");
    for range in [u64::MAX - 20..u64::MAX - 16, 4..u64::MAX - 16, 0..1_000_000] {
        let error = frame.read(range.clone());
        assert!(matches!(error, Err(StoreError::Damaged { .. })), "{range:?}: {error:?}");
    }
}

/// Else the records of a foreign or later format would be taken for a torn end, and cut off.
#[tokio::test]
async fn a_segment_without_our_magic_number_is_told_not_cut() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    let segment = scratch.last_segment();
    let mut bytes = fs::read(&segment).expect("reads");
    for (magic, told) in [
        (
            b"mwlog-1\n",
            "is of log format 1, which builds of mailweir from before 2 December 2026 wrote",
        ),
        (b"mwlog-9\n", "is of log format 9, which a later mailweir has written"),
        (
            b"mwlog-2\n",
            "is of log format 2, which builds of mailweir from before 2 December 2026 wrote",
        ),
        (
            b"mwlog-3\n",
            "is of log format 3, which builds of mailweir from before 2 December 2026 wrote",
        ),
        (b"mwlog-4 ", "is damaged at byte 0"),
        (b"\0\0\0\0\0\0\0\0", "is damaged at byte 0"),
    ] {
        bytes[..8].copy_from_slice(magic);
        fs::write(&segment, &bytes).expect("writes");
        let error = Store::open(&scratch.settings, &crate::events::Settings::default())
            .expect_err("another format")
            .to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(fs::read(&segment).expect("reads"), bytes, "nothing is cut off");
    }
}

/// A damaged record that was acknowledged looks like a write that did not end, and must not be cut
/// off with all that came after it.
#[tokio::test]
async fn damage_of_what_was_acknowledged_is_told_not_cut() {
    for is_index_lost in [false, true] {
        let (scratch, bytes) = Scratch::damaged().await;
        let segment = scratch.last_segment();
        if is_index_lost {
            forget_index(&scratch.settings.data_dir);
            let error = Store::open(&scratch.settings, &crate::events::Settings::default());
            let error = error.expect_err("the events speak of it").to_string();
            assert!(error.contains("acknowledged is not whole"), "{error}");
        } else {
            // Nothing needs to be read of what the index has; fsck reads it.
            scratch.open().close();
        }
        assert_eq!(fs::read(&segment).expect("reads"), bytes, "nothing is cut off");
    }
}

#[tokio::test]
async fn many_writers_share_syncs_and_every_message_is_there_once() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 20_000;
    let store = scratch.open();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                deliver(&store, &["alice"], &format!("message {number:03}")).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("ends");
    }
    store.close();
    let mut contents = scratch.contents("alice");
    contents.sort();
    let expected: Vec<_> = (0..200).map(|number| format!("P: message {number:03}")).collect();
    assert_eq!(contents, expected);
    assert_eq!(scratch.event_lines().len(), 200);
}

#[test]
fn a_second_daemon_is_kept_out() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let second = Store::open(&scratch.settings, &crate::events::Settings::default());
    assert!(matches!(second, Err(StoreError::Locked(_))));
    store.close();
}

#[tokio::test]
async fn room_is_kept_by_commits_and_given_back_by_failures() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mailbox = store.mailbox(&name("alice")).expect("a mailbox");
    let room = mailbox.reserve(60, 100).expect("room");
    assert!(mailbox.reserve(60, 100).is_none(), "full");
    assert_eq!(mailbox.full_since(NOW), NOW);
    drop(room);
    assert_eq!(mailbox.used_bytes(), 0);
    assert!(!mailbox.reserve(85, 100).expect("room").crosses(90, 100));
    assert!(mailbox.reserve(90, 100).expect("room").crosses(90, 100));
    deliver(&store, &["alice"], "0123456").await;
    assert_eq!(mailbox.used_bytes(), 10);
    store.close();
    let commit = commit_of(&store, &["alice"], "late");
    assert!(matches!(store.commit(commit).await, Err(StoreError::Closed)));
    assert_eq!(mailbox.used_bytes(), 10, "the failed commit gave its room back");
}

#[tokio::test]
async fn the_master_key_may_stand_elsewhere_and_nothing_opens_without_it() {
    let mut scratch = Scratch::new();
    let key = scratch.settings.data_dir.with_file_name("elsewhere.key");
    scratch.settings.master_key_file = Some(key.clone());
    let missing = Store::open(&scratch.settings, &crate::events::Settings::default());
    let missing = missing.expect_err("there is no key yet").to_string();
    assert!(missing.contains("elsewhere.key"), "{missing}");
    fs::write(&key, format!("{}\n", "ab".repeat(32))).expect("writes");
    let store = scratch.open();
    deliver(&store, &["alice"], "sealed").await;
    store.close();
    let made = scratch.settings.data_dir.join("keys/master.key");
    assert!(!made.exists(), "no second key is made");
    assert_eq!(scratch.contents("alice"), ["P: sealed"]);

    fs::write(&key, "cd".repeat(32)).expect("writes");
    let error = Reader::open(&scratch.settings).expect_err("another key").to_string();
    assert!(error.contains("elsewhere.key is not the key that this data folder"), "{error}");
}

/// What is under a key must not get another one, whichever part of it is left.
#[test]
fn a_master_key_is_made_for_an_empty_data_folder_alone() {
    let makes_key = |leftover: &str, is_named: bool| {
        let mut scratch = Scratch::new();
        if is_named {
            scratch.settings.master_key_file = Some(scratch.settings.data_dir.join("named.key"));
        }
        let place = scratch.settings.data_dir.join(leftover);
        fs::create_dir_all(&place).expect("is made");
        layout::Layout(&scratch.settings).makes_key().expect("can be told")
    };
    assert!(makes_key("", false));
    assert!(makes_key("events", false), "events are under no key");
    for leftover in ["keys/master.key", "log", "index.sqlite", "keys/master.check", "keys/m-1.keys"]
    {
        assert!(!makes_key(leftover, false), "{leftover}");
    }
    assert!(!makes_key("", true), "whoever names a file makes it");
}

/// The event file speaks of the last record, of which the log has a part or nothing.
#[tokio::test]
async fn a_last_record_that_was_told_is_missed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    let before = fs::metadata(scratch.last_segment()).expect("metadata").len();
    let store = scratch.open();
    deliver(&store, &["alice"], "two").await;
    store.close();
    forget_index(&scratch.settings.data_dir);
    let segment = scratch.last_segment();
    let whole = fs::read(&segment).expect("reads");
    let opened = || Store::open(&scratch.settings, &crate::events::Settings::default());
    for (length, problem) in
        [(before + 20, "acknowledged is not whole"), (before, "the log ends before")]
    {
        fs::write(&segment, &whole[..length as usize]).expect("writes");
        let error = opened().expect_err("the events speak of it").to_string();
        assert!(error.contains(problem), "{error}");
    }
    fs::write(&segment, &whole).expect("writes");
    opened().expect("is whole").close();
    assert_eq!(scratch.contents("alice"), ["P: one", "P: two"]);
}
