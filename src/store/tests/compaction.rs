//! What is removed or has expired gives its room back; everything else stays as it was.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::soon::{done, joined};
use crate::store::compact::{self, Compacted, Compactor};
use crate::store::index::Index;
use crate::store::layout::Layout;
use crate::store::mac::LogKey;
use crate::store::segment::{Catalog, Segment};

const DAY: Duration = Duration::from_secs(86_400);

impl Scratch {
    /// A segment for every few commits, and a keeper that does not get in the way.
    pub(super) fn with_small_segments(segment_bytes: u64) -> Self {
        let mut scratch = Self::new();
        scratch.settings.segment_bytes = segment_bytes;
        scratch
    }

    /// One that keeps house all the time, and removes all from INBOX after a day.
    fn open_with_retention(&self, action: RetentionAction) -> Arc<Store> {
        let store = self.open();
        store.set_retention(vec![FolderRetention {
            organization: "m-1".into(),
            folder: Folder::Inbox,
            action,
            period_days: 1,
        }]);
        store
    }

    pub(super) fn log_key(&self) -> LogKey {
        Layout(&self.settings).known_master().expect("a key").log()
    }

    pub(super) fn log_files(&self) -> Vec<Segment> {
        let log = self.settings.data_dir.join("log");
        let _log_stays = compact::keep_files(&log);
        Catalog::read(&log).expect("reads").segments
    }

    /// Compacts until nothing is worth it, on a closed store.
    pub(super) fn compact(&self, expired_before: Timestamp) -> Vec<Compacted> {
        self.compact_senders(expired_before, expired_before)
    }

    /// The same, with another moment for the senders of what was forwarded.
    pub(super) fn compact_senders(
        &self,
        expired_before: Timestamp,
        senders_before: Timestamp,
    ) -> Vec<Compacted> {
        self.try_compact(expired_before, senders_before).expect("compacts")
    }

    fn try_compact(
        &self,
        expired_before: Timestamp,
        senders_before: Timestamp,
    ) -> Result<Vec<Compacted>, StoreError> {
        let mut index = Index::open(&self.settings.data_dir.join("index.sqlite")).expect("opens");
        let mut compactor = Compactor {
            log_dir: self.settings.data_dir.join("log"),
            wal: self.settings.data_dir.join("index.sqlite-wal"),
            index: &mut index,
            expired_before,
            senders_before,
            segment_bytes: self.settings.segment_bytes,
            key: &self.log_key(),
            stop: &AtomicBool::new(false),
        };
        std::iter::from_fn(|| compactor.compact_one().transpose()).collect()
    }

    fn folders(&self, user: &str) -> Vec<(Folder, String)> {
        let reader = Reader::open(&self.settings).expect("opens");
        let messages = reader.messages(&name(user)).expect("lists");
        let read = |message| String::from_utf8(reader.read(message).expect("reads"));
        messages.iter().map(|it| (it.folder, read(it).expect("is UTF-8"))).collect()
    }

    fn used_bytes(&self, user: &str) -> u64 {
        let reader = Reader::open(&self.settings).expect("opens");
        let mailboxes = reader.mailboxes();
        mailboxes.iter().find(|mailbox| mailbox.owner == name(user)).expect("is there").used_bytes
    }
}

/// Commits to INBOX as of `at`.
async fn deliver_at(store: &Store, users: &[&str], text: &str, at: Timestamp) {
    let mut commit = commit_of(store, users, text);
    commit.blobs[0].mails[0].received_at = at;
    commit.events[0].event_timestamp = at;
    commit.events[0].event = Event::MailboxDelivered(MailboxDelivered {
        recipient: "alice@example.test".into(),
        folder: "INBOX".into(),
    });
    commit.stories[0].told = raw(&serde_json::json!({}));
    store.commit(commit).await.expect("commits");
}

fn now() -> Timestamp {
    let now = UNIX_EPOCH.elapsed().expect("after the epoch");
    Timestamp::from_millis(now.as_millis() as u64)
}

/// Waits for the keeper; it has ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about");
}

#[tokio::test]
async fn retention_removes_and_moves_what_is_old_and_nothing_else() {
    let mut scratch = Scratch::new();
    scratch.settings.housekeeping_interval = Duration::from_millis(50);
    let store = scratch.open_with_retention(RetentionAction::Delete);
    let old = now().minus(2 * DAY);
    deliver_at(&store, &["alice", "bob"], "old", old).await;
    deliver_at(&store, &["alice"], "new", now()).await;
    let moved = (Folder::DeletedItems, "P: old".to_owned());
    until("the move", || scratch.folders("bob") == [moved.clone()]).await;
    until("the move", || scratch.folders("alice").contains(&moved)).await;
    assert_eq!(scratch.used_bytes("alice"), 12, "what is moved still takes room");
    store.close();

    let store = scratch.open_with_retention(RetentionAction::PermanentlyDelete);
    deliver_at(&store, &["alice"], "old too", old).await;
    let kept = [(Folder::Inbox, "P: new".to_owned()), moved.clone()];
    until("the removal", || scratch.folders("alice") == kept).await;
    let alice = store.mailbox(&name("alice")).expect("a mailbox");
    until("the room", || alice.used_bytes() == 12).await;
    store.close();
    assert_eq!(scratch.used_bytes("alice"), 12);

    forget_index_and_events(&scratch.settings.data_dir);
    scratch.open().close();
    assert_eq!(scratch.folders("alice"), kept, "the log alone says the same");
    assert_eq!(scratch.used_bytes("alice"), 12);
}

#[tokio::test]
async fn removed_messages_give_their_room_back_and_the_rest_stays_readable() {
    let mut scratch = Scratch::with_small_segments(20_000);
    scratch.settings.housekeeping_interval = Duration::from_millis(50);
    let store = scratch.open_with_retention(RetentionAction::PermanentlyDelete);
    let body = "x".repeat(2_000);
    let old = now().minus(2 * DAY);
    for number in 0..60 {
        let at = if number % 3 == 0 { now() } else { old };
        deliver_at(&store, &["alice", "bob"], &format!("{number} {body}"), at).await;
    }
    let expected: Vec<_> = (0..60).step_by(3).map(|number| format!("P: {number} {body}")).collect();
    until("the compaction", || {
        let bytes: u64 = scratch.log_files().iter().map(|file| file.bytes).sum();
        let are_gone = |user| scratch.contents(user) == expected;
        bytes < 150_000 && are_gone("alice") && are_gone("bob")
    })
    .await;
    deliver_at(&store, &["alice"], "one more", now()).await;
    store.close();
    assert_eq!(scratch.contents("bob"), expected);
    let lines = scratch.event_lines();
    assert_eq!(lines.len(), 61, "events outlive their message");

    forget_index_and_events(&scratch.settings.data_dir);
    scratch.open().close();
    assert_eq!(scratch.contents("bob"), expected, "packs and segments alone say the same");
    assert_eq!(scratch.contents("alice").len(), 21);
    assert_eq!(scratch.event_lines(), lines);
    let octets: usize = expected.iter().map(String::len).sum();
    assert_eq!(scratch.used_bytes("bob"), octets as u64);
}

#[tokio::test]
async fn expired_events_and_stories_leave_the_log_and_messages_do_not() {
    let mut scratch = Scratch::with_small_segments(1); // A segment for each commit.
    let store = scratch.open();
    let old = now().minus(40 * DAY);
    for number in 0..20 {
        deliver_at(&store, &["alice"], &format!("number {number:02}"), old).await;
    }
    store.close();
    scratch.settings.segment_bytes = 100_000;
    let contents = scratch.contents("alice");
    assert!(scratch.compact(now().minus(30 * DAY)).is_empty(), "the files are of today");
    let compacted = scratch.compact(now().plus(DAY));
    assert_eq!(compacted.iter().filter(|compacted| compacted.files == 1).count(), 20);
    assert!(compacted.iter().all(|compacted| compacted.files == 1 || compacted.files == 8));
    assert_eq!(scratch.log_files().len(), 7, "packs of 8, 8 and four of 1, and the open segment");
    assert_eq!(scratch.contents("alice"), contents);
    let reader = Reader::open(&scratch.settings).expect("opens");
    let messages = reader.messages(&name("alice")).expect("lists");
    let lsn = |line: &str| line.parse::<crate::events::EventId>().expect("an id").lsn;
    let id = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        lsn(value["eventId"].as_str().expect("an id"))
    };
    let lsns: Vec<_> = scratch.event_lines().iter().map(id).collect();
    assert_eq!(lsns.len(), messages.len());
    assert!(reader.contents(lsns[0]).expect("is there").stories.is_empty());
    let open = reader.contents(lsns[19]).expect("is there").stories;
    assert_eq!(open.len(), 1, "the open segment");
}

#[tokio::test]
async fn nothing_is_replaced_under_a_reader() {
    let scratch = Arc::new(Scratch::with_small_segments(1));
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    let reader = Reader::open(&scratch.settings).expect("opens");
    let messages = reader.messages(&name("alice")).expect("lists");
    let compacted = Arc::clone(&scratch);
    let compaction = std::thread::spawn(move || compacted.compact(now().plus(DAY)).len());
    // The first pack is ready, and waits for the reader to go.
    let ready = scratch.settings.data_dir.join("log/0000000000000000.pack.new");
    done("the first pack", move || {
        while !fs::metadata(&ready).is_ok_and(|ready| ready.len() >= 70) {
            std::thread::yield_now();
        }
    });
    for message in &messages {
        reader.read(message).expect("reads");
    }
    assert!(!compaction.is_finished());
    drop(reader);
    assert_eq!(joined("the end of the compaction", compaction), 3);
}

#[tokio::test]
async fn a_crash_at_any_moment_of_a_compaction_loses_nothing() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    let log = scratch.settings.data_dir.join("log");
    let segments: Vec<_> = scratch
        .log_files()
        .iter()
        .map(|file| (file.path.clone(), fs::read(&file.path).expect("reads")))
        .collect();
    scratch.compact(now().plus(DAY));
    let pack = scratch.log_files()[0].path.clone();
    let whole = fs::read(&pack).expect("reads");

    // Before the rename, at every length: the segment is there and the unfinished pack is not
    // looked at.
    fs::remove_file(&pack).expect("removes");
    fs::write(&segments[0].0, &segments[0].1).expect("writes");
    for cut in (0..whole.len()).step_by(11) {
        fs::write(pack.with_extension("pack.new"), &whole[..cut]).expect("writes");
        scratch.open().close();
        assert!(!pack.with_extension("pack.new").exists(), "its room is needed on a full disk");
        assert_eq!(scratch.contents("alice"), ["P: one", "P: two", "P: three"], "{cut}");
    }
    scratch.compact(now().plus(DAY));
    // After the rename, before the removal: the pack counts, and the segment goes.
    for (path, bytes) in &segments[..2] {
        fs::write(path, bytes).expect("writes");
    }
    scratch.open().close();
    assert_eq!(scratch.contents("alice"), ["P: one", "P: two", "P: three"]);
    assert!(!segments[0].0.exists() && !segments[1].0.exists());
    assert!(!log.join("0000000000000000.pack.new").exists());
}

#[tokio::test]
async fn damage_in_a_pack_is_told() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    deliver(&store, &["alice"], "two").await;
    store.close();
    scratch.compact(now().plus(DAY));
    let pack = scratch.log_files()[0].path.clone();
    let whole = fs::read(&pack).expect("reads");
    for at in 8..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&pack, bytes).expect("writes");
        forget_index(&scratch.settings.data_dir);
        let opened = Store::open(&scratch.settings, &crate::events::Settings::default());
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "byte {at}");
    }
}

/// Signed with the pack, it would be the truth from then on.
#[tokio::test]
async fn what_the_index_alone_says_is_gone_is_left_out_of_no_pack() {
    let lies = [
        "INSERT INTO change SELECT lsn, blob, mail, mailbox, lsn, NULL, size, received_at FROM message;
         DELETE FROM message",
        "INSERT INTO change SELECT lsn, blob, mail, mailbox, (SELECT max(lsn) FROM message), NULL, size,
                received_at FROM message",
        "INSERT INTO gone SELECT lsn, blob, mail, entry, lsn, size FROM queue; DELETE FROM queue",
    ];
    for lie in lies {
        let scratch = Scratch::with_small_segments(1);
        let store = scratch.open();
        for text in ["one", "two"] {
            let mut commit = commit_of(&store, &["alice"], text);
            commit.blobs[0].mails[0].queued = vec![super::queue::entry("far.test", &["bob"])];
            store.commit(commit).await.expect("commits");
        }
        store.close();
        let queue = || Reader::open(&scratch.settings).expect("opens").queue().expect("lists");
        let (contents, queued) = (scratch.contents("alice"), queue());
        assert_eq!((contents.len(), queued.len()), (2, 2));
        scratch.sql(lie);
        let day = now().plus(DAY);
        let error = scratch.try_compact(day, day).expect_err(lie).to_string();
        assert!(error.contains("and no record of the log does"), "{lie}: {error}");
        forget_index(&scratch.settings.data_dir);
        scratch.open().close();
        scratch.compact(day);
        assert_eq!((scratch.contents("alice"), queue()), (contents, queued), "{lie}");
    }
}

/// Else what was removed would come back, and who has a message would get it once more.
#[tokio::test]
async fn what_became_of_something_is_kept_until_it_shows_where_that_stands() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    let mut commit = commit_of(&store, &["alice"], "one");
    commit.blobs[0].mails[0].queued = vec![super::queue::entry("far.test", &["bob"])];
    store.commit(commit).await.expect("commits");
    let entry = store.take_queue().expect("a queue").new.recv().await.expect("an entry").id;
    let state = Some(QueueState { attempts: 3, next_attempt: NOW, ..QueueState::default() });
    let queue_changes = vec![QueueChange { entry, state, at: NOW }];
    store.commit(Commit { queue_changes, ..Commit::default() }).await.expect("commits");
    let reader = Reader::open(&scratch.settings).expect("opens");
    let message = reader.messages(&name("alice")).expect("lists").remove(0);
    drop(reader);
    let size = message.size;
    let at = NOW;
    let change =
        entry::Change { message: message.place(), from: Folder::Inbox, to: None, size, at };
    let removal = codec::encode_changes(vec![change], Vec::new()).expect("frames");
    store.write(removal).await.expect("commits");
    deliver(&store, &["bob"], "two").await;
    store.close();
    scratch.sql("DELETE FROM change; DELETE FROM queue");
    assert!(scratch.compact(now().plus(DAY)).len() > 2);
    forget_index(&scratch.settings.data_dir);
    scratch.open().close();
    assert!(scratch.contents("alice").is_empty());
    let queued = Reader::open(&scratch.settings).expect("opens").queue().expect("lists");
    assert_eq!(queued.iter().map(|mail| mail.state.attempts).collect::<Vec<_>>(), [3]);
    // Now that all is known, the removal is worked in.
    scratch.compact(now().plus(DAY));
    assert!(scratch.contents("alice").is_empty());
}
