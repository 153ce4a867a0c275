//! What races with a backup, a check or a restart, and what is found there by chance.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::store::backup::{backup, restore};
use crate::store::fsck::{Depth, check};
use crate::store::index::{Cursor, Index};

const DAY: Duration = Duration::from_secs(86_400);

fn restored(scratch: &Scratch, copy: &Path) -> Scratch {
    let other = Scratch::new();
    fs::create_dir_all(other.settings.data_dir.join("keys")).expect("creates");
    let key = |scratch: &Scratch| scratch.settings.data_dir.join("keys/master.key");
    fs::copy(key(scratch), key(&other)).expect("copies");
    restore(copy, &other.settings).expect("restores");
    other
}

fn copy_of(scratch: &Scratch) -> PathBuf {
    scratch.settings.data_dir.with_file_name("copy")
}

/// The event files are copied before the index, which may say more of them than the copies have.
#[tokio::test]
async fn events_synced_while_a_backup_is_made_are_in_what_is_restored() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    deliver(&store, &["alice"], "two").await;
    store.close();
    let events = scratch.settings.data_dir.join("events/email-events.jsonl");
    let whole = fs::read(&events).expect("reads");
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    // As if the second event had been written and synced between the two copies.
    fs::write(&events, lines[0]).expect("writes");
    backup(&scratch.settings, &copy_of(&scratch)).expect("is made");
    let other = restored(&scratch, &copy_of(&scratch));
    other.open().close();
    assert_eq!(other.event_lines().len(), 2);
}

/// Everything that a backup consists of is for its owner alone.
#[tokio::test]
async fn nobody_else_can_read_a_backup() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    let copy = copy_of(&scratch);
    fs::create_dir(&copy).expect("creates");
    for file in backup(&scratch.settings, &copy).expect("is made").files {
        let mode = fs::metadata(copy.join(&file.path)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.path.display());
    }
}

/// Event ids would stand twice, and new events would be taken for those that are there.
#[tokio::test]
async fn a_log_that_ends_before_its_events_do_is_not_opened() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    let whole = fs::metadata(scratch.last_segment()).expect("is there").len();
    deliver(&store, &["alice"], "two").await;
    store.close();
    forget_index(&scratch.settings.data_dir);
    let log = OpenOptions::new().write(true).open(scratch.last_segment()).expect("opens");
    log.set_len(whole).expect("cuts");
    let opened = Store::open(&scratch.settings, &crate::events::Settings::default());
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
}

/// Files rotate away under who lists them.
#[tokio::test]
async fn rotation_beside_a_check_or_a_backup_is_no_damage() {
    let scratch = Scratch::new();
    let small = crate::events::Settings { max_file_bytes: 1, ..Default::default() };
    let store = Store::open(&scratch.settings, &small).expect("opens");
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..400 {
                deliver(&store, &["alice"], &format!("number {number}")).await;
            }
        })
    };
    let mut number = 0;
    while !writer.is_finished() {
        let settings = scratch.settings.clone();
        let report = tokio::task::spawn_blocking(move || {
            check(&settings, &EventSettings::default(), Depth::Records)
        });
        let report = report.await.expect("ends").expect("can be read");
        assert_eq!(report.problems, Vec::<String>::new(), "check {number}");
        number += 1;
        if number % 4 != 0 {
            continue;
        }
        let copy = scratch.settings.data_dir.with_file_name(format!("copy-{number}"));
        let (settings, to) = (scratch.settings.clone(), copy.clone());
        let made = tokio::task::spawn_blocking(move || backup(&settings, &to)).await;
        made.expect("ends").expect("is made");
        let other = restored(&scratch, &copy);
        other.open().close();
        assert_eq!(other.event_lines().len(), other.contents("alice").len(), "backup {number}");
        fs::remove_dir_all(copy).expect("removes");
    }
    writer.await.expect("ends");
    store.close();
}

/// The store's own lock file is there before any command could make one that it may not open.
#[tokio::test]
async fn what_keeps_the_log_in_place_is_made_by_the_daemon() {
    let scratch = Scratch::new();
    scratch.open().close();
    assert!(scratch.settings.data_dir.join("log/lock").exists());
}

/// Nothing may start on a folder that is being filled.
#[tokio::test]
async fn no_restore_beside_a_daemon() {
    let scratch = Scratch::new();
    scratch.open().close();
    backup(&scratch.settings, &copy_of(&scratch)).expect("is made");
    let other = Scratch::new();
    fs::create_dir_all(&other.settings.data_dir).expect("creates");
    let held = layout::lock_folder(&other.settings.data_dir).expect("is free");
    let error = restore(&copy_of(&scratch), &other.settings).expect_err("somebody has it");
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    drop(held);
    restore(&copy_of(&scratch), &other.settings).expect("restores");
    let index = Index::open(&other.settings.data_dir.join("index.sqlite")).expect("opens");
    assert_eq!(index.cursor(Cursor::EventsSynced).expect("reads"), Lsn(0));
}

fn now() -> Timestamp {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after the epoch");
    Timestamp::from_millis(now.as_millis() as u64)
}

/// What is older than a day is deleted: from the inbox into its folder, from junk for good.
fn a_day_each() -> Vec<FolderRetention> {
    let policy = |folder, action| FolderRetention {
        organization: "m-1".into(),
        folder,
        action,
        period_days: 1,
    };
    vec![
        policy(Folder::Inbox, RetentionAction::Delete),
        policy(Folder::JunkEmail, RetentionAction::PermanentlyDelete),
    ]
}

fn assert_sound(scratch: &Scratch, about: &str) {
    let report =
        check(&scratch.settings, &EventSettings::default(), Depth::Contents).expect("can be read");
    assert_eq!(report.problems, Vec::<String>::new(), "{about}");
}

/// Delivers forty messages to two, every second as junk, every third as one that is old; what
/// retention will leave of them to alice.
async fn deliver_a_round(store: &Store, scratch: &Scratch, round: usize) -> Vec<String> {
    let mut kept = Vec::new();
    for number in 0..40 {
        let text = format!("{round} {number:02} {}", "x".repeat(number * 7));
        let (is_junk, is_old) = (number % 2 == 0, number % 3 == 0);
        let mut commit = commit_of(store, &["alice", "bob"], &text);
        commit.events[0].event_timestamp = now();
        let mail = &mut commit.blobs[0].mails[0];
        mail.received_at = if is_old { now().minus(2 * DAY) } else { now() };
        if is_junk {
            mail.deliveries[0].folder = Folder::JunkEmail;
        }
        store.commit(commit).await.expect("commits");
        if !(is_old && is_junk) {
            kept.push(format!("P: {text}"));
        }
        if number % 10 == 9 {
            assert_sound(scratch, &format!("{round} {number}"));
            tokio::time::sleep(Duration::from_millis(130)).await;
        }
    }
    kept
}

fn sorted_contents(scratch: &Scratch, user: &str) -> Vec<String> {
    let mut contents = scratch.contents(user);
    contents.sort();
    contents
}

/// Retention, compaction, checks, restarts and lost indexes at once, in many orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_every_message_is_there_once() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 4000;
    scratch.settings.housekeeping_interval = Duration::from_millis(15);
    let mut kept = Vec::new();
    for round in 0..8 {
        let store = scratch.open();
        store.set_retention(a_day_each());
        kept.extend(deliver_a_round(&store, &scratch, round).await);
        if round % 3 == 2 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        store.close();
        assert_sound(&scratch, &round.to_string());
        if round % 2 == 1 {
            forget_index(&scratch.settings.data_dir);
        }
    }
    let store = scratch.open();
    store.set_retention(a_day_each());
    kept.sort();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if sorted_contents(&scratch, "alice") == kept {
            break;
        }
    }
    assert_eq!(sorted_contents(&scratch, "alice"), kept);
    assert_eq!(scratch.contents("bob").len(), 8 * 40);
    let octets: usize = kept.iter().map(String::len).sum();
    assert_eq!(store.mailbox(&name("alice")).expect("a mailbox").used_bytes(), octets as u64);
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    scratch.open().close();
    assert_eq!(sorted_contents(&scratch, "alice"), kept, "the log alone says the same");
    assert_eq!(scratch.event_lines().len(), 8 * 40);
}

/// A listing of many files takes long enough for a new one to be in it that its elder ends before.
#[tokio::test]
async fn the_log_grows_beside_who_lists_it() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 1; // A segment for each commit.
    let store = scratch.open();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..2500 {
                let mut commit = commit_of(&store, &["alice"], &format!("number {number}"));
                commit.events.clear();
                store.commit(commit).await.expect("commits");
            }
        })
    };
    let log = scratch.settings.data_dir.join("log");
    while !writer.is_finished() {
        let log = log.clone();
        let listed = tokio::task::spawn_blocking(move || segment::Catalog::read(&log)).await;
        listed.expect("ends").expect("is whole");
    }
    writer.await.expect("ends");
    store.close();
}

/// A reader that stays keeps the log's files, and neither retention nor the end of the store.
#[tokio::test]
async fn who_reads_for_long_stops_neither_retention_nor_the_end() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 1;
    scratch.settings.housekeeping_interval = Duration::from_millis(20);
    let store = scratch.open();
    store.set_retention(vec![FolderRetention {
        organization: "m-1".into(),
        folder: Folder::Inbox,
        action: RetentionAction::PermanentlyDelete,
        period_days: 1,
    }]);
    let old = now().minus(2 * DAY);
    let reader = Reader::open(&scratch.settings).expect("opens");
    let alice = store.mailbox(&name("alice")).expect("a mailbox");
    for round in 0..3 {
        let mut commit = commit_of(&store, &["alice"], &"old".repeat(3000));
        commit.blobs[0].mails[0].received_at = old;
        store.commit(commit).await.expect("commits");
        for _ in 0..150 {
            if alice.used_bytes() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(alice.used_bytes(), 0, "round {round}");
    }
    let closing = tokio::task::spawn_blocking(move || store.close());
    tokio::time::timeout(Duration::from_secs(5), closing).await.expect("in time").expect("ends");
    drop(reader);
}
