//! `fsck` finds a sound store sound and tells every kind of damage; a backup is whole.

use std::path::PathBuf;

use super::*;
use crate::store::backup::{backup, restore};
use crate::store::fsck::{Depth, Report, check};
use crate::store::segment::FRAME_HEADER;

impl Scratch {
    fn check(&self) -> Report {
        // The events of these tests are of one day, and never expire.
        let events = EventSettings { retention_days: 36_500, ..EventSettings::default() };
        check(&self.settings, &events, Depth::Contents).expect("can be read")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.data_dir.join(name)
    }

    /// A store with a few messages in several segments, closed.
    async fn filled() -> Self {
        let mut scratch = Self::new();
        scratch.settings.segment_bytes = 1500;
        let store = scratch.open();
        for text in ["one", "two", "three", "four"] {
            deliver(&store, &["alice", "bob"], text).await;
        }
        store.close();
        scratch
    }

    pub(super) fn sql(&self, statement: &str) {
        let index = rusqlite::Connection::open(self.path("index.sqlite")).expect("opens");
        index.execute_batch(statement).expect("executes");
    }

    fn problems(&self) -> String {
        let report = self.check();
        assert!(!report.is_sound());
        report.problems.join("\n")
    }
}

#[tokio::test]
async fn a_sound_store_is_found_sound_and_counted() {
    let scratch = Scratch::filled().await;
    let report = scratch.check();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.records, report.contents, report.mailboxes), (4, 4, 2));
    assert_eq!((report.messages, report.events), (8, 4));
    assert_eq!((report.records_to_index, report.events_to_write), (0, 0));
    assert!(report.segments > 1 && report.leftovers.is_empty());
}

#[tokio::test]
async fn a_check_leaves_the_passwords_as_they_are() {
    let scratch = Scratch::filled().await;
    let dir = &scratch.settings.data_dir;
    drop(crate::store::CredentialStore::open(dir).expect("opens"));
    let path = scratch.path(crate::store::CREDENTIALS_FILE);
    let plain = rusqlite::Connection::open(&path).expect("opens");
    plain.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).expect("is set");
    drop(plain);
    let before = fs::read(&path).expect("reads");
    let report = scratch.check();
    assert!(report.is_sound() && report.credentials.is_some(), "{report:?}");
    assert_eq!(fs::read(&path).expect("reads"), before, "a full disk would refuse the change");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
async fn events_whose_file_was_moved_away_are_missing_and_not_to_come() {
    let scratch = Scratch::filled().await;
    let current = scratch.path("events/email-events.jsonl");
    let moved = scratch.path("events/email-events.jsonl.1");
    fs::rename(&current, &moved).expect("moves");
    let expected = "events that no event file has and nothing writes again: 4, from \
                    0000000000000008-0000 on";
    assert!(scratch.problems().starts_with(expected), "{}", scratch.problems());
    // Newer events do not hide it.
    let store = scratch.open();
    deliver(&store, &["alice"], "five").await;
    store.close();
    assert!(scratch.problems().starts_with(expected), "{}", scratch.problems());
    assert_eq!(scratch.check().events, 1);
    let expired = EventSettings { retention_days: 1, ..EventSettings::default() };
    let report = check(&scratch.settings, &expired, Depth::Contents).expect("can be read");
    assert_eq!(report.problems, Vec::<String>::new(), "files of that day were deleted");
}

#[tokio::test]
async fn a_store_is_checked_while_it_is_written() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..300 {
                deliver(&store, &["alice"], &format!("number {number}")).await;
            }
        })
    };
    let mut checks = 0;
    while !writer.is_finished() {
        let settings = scratch.settings.clone();
        let report = tokio::task::spawn_blocking(move || {
            check(&settings, &EventSettings::default(), Depth::Contents)
        });
        let report = report.await.expect("ends").expect("can be read");
        assert_eq!(report.problems, Vec::<String>::new());
        checks += 1;
    }
    assert!(checks > 0);
    writer.await.expect("ends");
    store.close();
    assert_eq!(scratch.check().messages, 300);
}

#[tokio::test]
async fn every_altered_byte_of_the_log_is_found() {
    let scratch = Scratch::filled().await;
    let log = scratch.path("log");
    let first = fs::read_dir(&log)
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .min()
        .expect("a segment");
    let whole = fs::read(&first).expect("reads");
    for at in (8..whole.len()).step_by(5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&first, bytes).expect("writes");
        assert!(!scratch.check().is_sound(), "byte {at}");
    }
    fs::write(&first, &whole).expect("writes");
    assert!(scratch.check().is_sound());
    fs::remove_file(&first).expect("removes");
    assert!(!scratch.check().is_sound(), "a missing segment");
}

#[tokio::test]
async fn an_index_that_differs_is_told() {
    let statements = [
        ("DELETE FROM message WHERE lsn = (SELECT min(lsn) FROM message)", "is not in the index"),
        ("UPDATE message SET size = size + 1 WHERE mailbox = 1", "is in the index alone"),
        ("UPDATE mailbox SET used_bytes = 7 WHERE number = 1", "the index counts 7 octets"),
        ("UPDATE cursor SET lsn = lsn + 5 WHERE name = 'indexed'", "the log ends at"),
    ];
    for (statement, expected) in statements {
        let scratch = Scratch::filled().await;
        scratch.sql(statement);
        let problems = scratch.problems();
        assert!(problems.contains(expected), "{statement}: {problems}");
    }
}

#[tokio::test]
async fn event_files_that_differ_are_told() {
    let scratch = Scratch::filled().await;
    let path = scratch.path("events/email-events.jsonl");
    let text = fs::read_to_string(&path).expect("reads");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let altered = text.replacen("INBOX", "OTHER", 1);
    let cases = [
        ([lines[0], lines[2], lines[3]].concat(), "is missing from the event files"),
        ([lines[0], lines[1], lines[1], lines[2]].concat(), "stands twice or out of order"),
        (altered, "is not as the log has it"),
        (text.replacen("-0000\"", "-0009\"", 1), "is in the event files alone"),
        (["nonsense\n", &text].concat(), "a line is not an event"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).expect("writes");
        let problems = scratch.problems();
        assert!(problems.contains(expected), "expected {expected}: {problems}");
    }
    fs::write(&path, lines[..3].concat()).expect("writes");
    // It was synced there, so no start of the daemon writes it again.
    assert!(scratch.problems().contains("nothing writes again: 1,"), "{}", scratch.problems());
    scratch.sql("DELETE FROM cursor WHERE name = 'events-synced'");
    assert_eq!(scratch.check().events_to_write, 1, "the daemon writes it when it starts");
}

#[tokio::test]
async fn another_master_key_is_told_and_nothing_else() {
    let scratch = Scratch::filled().await;
    fs::write(scratch.path("keys/master.key"), "cd".repeat(32)).expect("writes");
    let checked = || {
        check(&scratch.settings, &EventSettings::default(), Depth::Contents)
            .expect_err("no key")
            .to_string()
    };
    assert!(
        checked().contains("master.key is not the key that this data folder is sealed with"),
        "{}",
        checked()
    );
    fs::remove_file(scratch.path("keys/master.key")).expect("removes");
    assert!(checked().contains("master.key: there is no such file; put"), "{}", checked());
}

#[tokio::test]
async fn a_backup_made_under_load_has_all_that_was_acknowledged_before_it() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 20_000;
    let store = scratch.open();
    for number in 0..50 {
        deliver(&store, &["alice"], &format!("before {number:02}")).await;
    }
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..500 {
                deliver(&store, &["alice"], &format!("during {number:03}")).await;
            }
        })
    };
    let copy = scratch.settings.data_dir.with_file_name("copy");
    let (settings, to) = (scratch.settings.clone(), copy.clone());
    let made = tokio::task::spawn_blocking(move || backup(&settings, &to)).await.expect("ends");
    made.expect("is made");
    writer.await.expect("ends");
    store.close();

    let other = Scratch::new();
    fs::create_dir_all(other.path("keys")).expect("creates");
    fs::copy(scratch.path("keys/master.key"), other.path("keys/master.key")).expect("copies");
    restore(&copy, &other.settings).expect("restores");
    assert!(other.check().is_sound(), "{:?}", other.check());
    other.open().close();
    let contents = other.contents("alice");
    assert!(contents.len() >= 50);
    assert_eq!(contents, scratch.contents("alice")[..contents.len()]);
    assert_eq!(other.event_lines().len(), contents.len());
    let report = other.check();
    assert_eq!((report.problems.len(), report.records_to_index, report.events_to_write), (0, 0, 0));
}

/// Where the record begins that has an octet of a segment.
fn record_around(segment: &[u8], at: usize) -> usize {
    // Behind the header, each after its length and checksum.
    let mut start = crate::store::header::HEADER as usize;
    loop {
        let length: [u8; 4] = segment[start..start + 4].try_into().expect("four octets");
        let end = start + FRAME_HEADER as usize + u32::from_le_bytes(length) as usize;
        if at < end {
            return start;
        }
        start = end;
    }
}

#[tokio::test]
async fn only_a_whole_backup_is_restored_and_only_where_nothing_is() {
    let scratch = Scratch::filled().await;
    let copy = scratch.settings.data_dir.with_file_name("copy");
    let manifest = backup(&scratch.settings, &copy).expect("is made");
    assert!(matches!(backup(&scratch.settings, &copy), Err(StoreError::InTheWay(_))));
    assert!(matches!(restore(&copy, &scratch.settings), Err(StoreError::InTheWay(_))));
    let keys = fs::read_dir(copy.join("keys")).expect("lists");
    let keys: Vec<_> = keys.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(keys, ["m-1.keys"], "the master key is not in it");

    let other = Scratch::new();
    fs::create_dir_all(other.path("keys")).expect("creates");
    fs::write(other.path("keys/master.key"), "ab".repeat(32)).expect("writes");
    let error = restore(&copy, &other.settings).expect_err("another key").to_string();
    assert!(error.contains("is not the key that this backup was made with"), "{error}");
    fs::remove_dir_all(other.path("keys")).expect("removes");

    for file in &manifest.files {
        let path = copy.join(&file.path);
        let whole = fs::read(&path).expect("reads");
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let middle = whole.len() / 2;
        let half = &whole[..middle];
        let mut flipped = whole.clone();
        flipped[middle] ^= 1;
        let length = format!("it has {} octets where there were {}", half.len(), whole.len());
        for (damaged, problem) in
            [(half, length.as_str()), (&flipped, "it is as long, and says something else")]
        {
            fs::write(&path, damaged).expect("writes");
            let error = restore(&copy, &other.settings).expect_err("is damaged").to_string();
            let expected = match is_log {
                true => format!(
                    "is damaged at byte {}: the record that begins there is not whole",
                    record_around(&whole, middle)
                ),
                false => format!("is not what the manifest says: {problem}"),
            };
            assert_eq!(error, format!("{} {expected}", path.display()));
        }
        fs::write(&path, whole).expect("writes");
    }
    assert!(!other.path("log").exists(), "all of it is checked before anything is written");
    restore(&copy, &other.settings).expect("whole again");
    let outward = Scratch::new();
    let path = copy.join("manifest.json");
    let text = fs::read_to_string(&path).expect("reads").replacen("events/", "../events/", 1);
    fs::write(&path, text).expect("writes");
    assert!(matches!(restore(&copy, &outward.settings), Err(StoreError::Damaged { .. })));
    fs::remove_file(&path).expect("removes");
    for (folder, what) in
        [(copy.clone(), "is not a whole backup"), (copy.join("none"), "is not there")]
    {
        let error = restore(&folder, &outward.settings).expect_err("no backup");
        assert!(matches!(error, StoreError::NotFound(_)), "{error:?}");
        assert_eq!(error.to_string(), format!("{} {what}", folder.display()));
    }
}

#[tokio::test]
async fn a_store_without_its_master_key_is_not_opened_with_a_new_one() {
    let scratch = Scratch::filled().await;
    let key = scratch.path("keys/master.key");
    let right = fs::read(&key).expect("reads");
    fs::remove_file(&key).expect("removes");
    let open = || Store::open(&scratch.settings, &crate::events::Settings::default());
    let error = open().expect_err("no key").to_string();
    assert!(error.contains("master.key"), "{error}");
    assert!(!key.exists(), "none is made");
    fs::write(&key, "cd".repeat(32)).expect("writes");
    let error = open().expect_err("another key").to_string();
    assert!(error.contains("is not the key that this data folder is sealed with"), "{error}");
    fs::write(&key, right).expect("writes");
    scratch.open().close();
}

/// Whose key a folder is sealed with is known from the first start on, before anybody has mail; a
/// folder of an older version says it by its mailboxes and by what waits in the queue.
#[tokio::test]
async fn another_master_key_is_found_out_also_where_there_is_no_mailbox() {
    let refusal = "is not the key that this data folder is sealed with";
    for (mailboxes, waits, has_check) in
        [(false, false, true), (false, true, true), (false, true, false), (true, false, false)]
    {
        let scratch = Scratch::new();
        let store = scratch.open();
        let users: &[&str] = if mailboxes { &["alice"] } else { &[] };
        let mut commit = commit_of(&store, users, "one");
        if waits {
            commit.blobs[0].mails[0].queued = vec![super::queue::entry("far.test", &["bob"])];
        }
        if mailboxes || waits {
            store.commit(commit).await.expect("commits");
        }
        store.close();
        let file = scratch.path("keys/master.check");
        if !has_check {
            fs::remove_file(&file).expect("removes");
        }
        scratch.open().close();
        assert!(file.exists(), "the right key is written down");
        if !has_check {
            fs::remove_file(&file).expect("removes");
        }
        fs::write(scratch.path("keys/master.key"), "cd".repeat(32)).expect("writes");
        let opened = Store::open(&scratch.settings, &EventSettings::default());
        let error = opened.map(|store| store.close()).expect_err("another key").to_string();
        assert!(error.contains(refusal), "{mailboxes} {waits} {has_check}: {error}");
        assert_eq!(file.exists(), has_check, "the wrong key is not written down");
    }
}

#[tokio::test]
async fn a_restored_folder_knows_its_key_and_who_asks_before_the_start_is_told() {
    let scratch = Scratch::new();
    scratch.open().close();
    let copy = scratch.settings.data_dir.with_file_name("copy");
    backup(&scratch.settings, &copy).expect("is made");
    let mut other = Scratch::new();
    assert!(other.settings.check_key().is_ok(), "one is to be made");
    restore(&copy, &other.settings).expect("restores");
    let told = |settings: &Settings| settings.check_key().expect_err("no key").to_string();
    assert!(told(&other.settings).contains("there is no such file; put the master key there"));
    fs::write(other.path("keys/master.key"), "cd".repeat(32)).expect("writes");
    assert!(told(&other.settings).contains("is not the key that this data folder"));
    other.settings.master_key_file = Some(scratch.path("keys/master.key"));
    assert!(other.settings.check_key().is_ok(), "the right one, elsewhere");
    other.open().close();
    other.settings.master_key_file = Some(other.path("keys/master.key"));
    assert!(told(&other.settings).contains("is not the key that this data folder"));
    let error = backup(&other.settings, &copy.with_file_name("second")).expect_err("no backup");
    assert!(error.to_string().contains("is not the key that this data folder"), "{error}");
}

#[tokio::test]
async fn damage_in_the_last_segment_is_neither_backed_up_nor_called_harmless() {
    let (scratch, _) = Scratch::damaged().await;
    let report = scratch.check();
    assert!(report.leftovers.is_empty(), "{report:?}");
    assert!(report.problems[0].contains("acknowledged is not whole"), "{report:?}");
    let copy = scratch.settings.data_dir.with_file_name("copy");
    let error = backup(&scratch.settings, &copy).expect_err("is damaged").to_string();
    assert!(error.contains("acknowledged is not whole"), "{error}");
    assert!(!copy.exists(), "half a backup is in nobody's way");
}

#[tokio::test]
async fn a_backup_cannot_lie_inside_the_data_folder() {
    let (scratch, _) = Scratch::damaged().await;
    let data_dir = &scratch.settings.data_dir;
    let link = data_dir.with_file_name("link");
    std::os::unix::fs::symlink(data_dir, &link).expect("links");
    let around = data_dir.with_file_name("none").join("../data/log");
    std::fs::create_dir(data_dir.with_file_name("none")).expect("is made");
    for inside in [data_dir.clone(), data_dir.join("log"), data_dir.join("a/b"), link, around] {
        let error = backup(&scratch.settings, &inside).expect_err("is inside").to_string();
        let expected = format!("{} lies inside the data folder", inside.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    let beside = data_dir.join("../copy");
    let error = backup(&scratch.settings, &beside).expect_err("is damaged").to_string();
    assert!(error.contains("acknowledged is not whole"), "{error}");
}
