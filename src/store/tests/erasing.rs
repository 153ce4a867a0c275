//! Erased mailboxes: their messages are noise for ever, and nobody else's are.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::heavy;
use crate::store::backup::{backup, restore};
use crate::store::fsck::{Depth, Report, check};
use crate::store::index::Index;
use crate::store::keyring::Keyring;
use crate::store::layout::Layout;
use crate::store::mailbox::NewMailbox;
use crate::store::slots::{Opened, SlotFile};

const KEYS: &str = "keys/m-1.keys";
const FOUR: [&str; 4] = ["P: one", "P: two", "P: three", "P: four"];

/// A store in which alice, the first, and bob have messages, closed; and alice's mailbox.
async fn of_alice_and_bob() -> (Scratch, NewMailbox) {
    let scratch = Scratch::with_small_segments(2000);
    let store = scratch.open();
    for text in ["one", "two", "three", "four"] {
        deliver(&store, &["alice"], text).await;
        deliver(&store, &["alice", "bob"], text).await;
    }
    let alice = store.mailbox(&name("alice")).expect("a mailbox").birth.clone();
    store.close();
    (scratch, alice)
}

impl Scratch {
    fn below(&self, path: &str) -> PathBuf {
        self.settings.data_dir.join(path)
    }

    fn report(&self) -> Report {
        check(&self.settings, &EventSettings::default(), Depth::Contents).expect("can be read")
    }

    fn sound_with_erased(&self, mailboxes: u64, erased: u64) {
        let report = self.report();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.mailboxes, report.erased), (mailboxes, erased), "{report:?}");
    }

    fn reading(&self) -> Keyring {
        Layout(&self.settings).known_keyring().expect("a master key")
    }

    /// What stands in the slot of a mailbox's key.
    fn slot_of(&self, mailbox: &NewMailbox) -> Vec<u8> {
        let at = mailbox.slot.offset() as usize;
        fs::read(self.below(KEYS)).expect("reads")[at..at + 128].to_vec()
    }

    fn owners(&self) -> BTreeSet<MailboxOwner> {
        let reader = Reader::open(&self.settings).expect("opens");
        reader.mailboxes().into_iter().map(|mailbox| mailbox.owner).collect()
    }

    fn index(&self) -> Index {
        Index::open_to_read(&self.below("index.sqlite")).expect("opens")
    }

    /// Looks twice: at what the index has been told, and at one that is built again from the log.
    fn with_both_indexes(&self, look: impl Fn(&Self)) {
        self.open().close();
        look(self);
        forget_index(&self.settings.data_dir);
        self.open().close();
        look(self);
    }
}

#[tokio::test]
async fn a_store_whose_first_mailbox_is_erased_opens() {
    let (scratch, alice) = of_alice_and_bob().await;
    let store = scratch.open();
    store.erase(&name("alice")).await.expect("erases");
    assert_eq!(scratch.slot_of(&alice), [0; 128]);
    assert!(scratch.contents("alice").is_empty(), "beside the running store");
    assert_eq!(scratch.contents("bob"), FOUR);
    let again = store.erase(&name("alice")).await.expect_err("is gone");
    assert!(matches!(again, StoreError::NotFound(_)), "{again}");
    store.close();
    scratch.with_both_indexes(|scratch| {
        scratch.sound_with_erased(1, 1);
        assert_eq!(scratch.owners(), [name("bob")].into());
        assert!(scratch.contents("alice").is_empty());
        assert_eq!(scratch.contents("bob"), FOUR);
    });
    // Who has mail again has another mailbox.
    let store = scratch.open();
    let new = store.mailbox(&name("alice")).expect("a mailbox");
    assert_ne!(new.birth.id, alice.id);
    assert_eq!(new.used_bytes(), 0);
    deliver(&store, &["alice"], "new").await;
    store.close();
    scratch.with_both_indexes(|scratch| {
        assert_eq!(scratch.contents("alice"), ["P: new"]);
        assert_eq!(scratch.owners().len(), 2);
        scratch.sound_with_erased(2, 1);
    });
}

/// All of it in one transaction of the index: birth, messages, erasure, and another birth.
#[tokio::test]
async fn a_mailbox_that_comes_after_an_erased_one_is_the_owners() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
        store.erase(&name("alice")).await.expect("erases");
        assert!(scratch.contents("alice").is_empty(), "{text}");
    }
    deliver(&store, &["alice"], "four").await;
    assert_eq!(scratch.contents("alice"), ["P: four"], "beside the running store");
    store.close();
    scratch.with_both_indexes(|scratch| {
        assert_eq!(scratch.contents("alice"), ["P: four"]);
        scratch.sound_with_erased(1, 3);
    });
}

/// Who has room when the mailbox is closed is waited for, and nobody gets room afterwards.
#[tokio::test]
async fn messages_on_their_way_come_before_the_erasure() {
    let (scratch, _) = of_alice_and_bob().await;
    let store = scratch.open();
    let on_its_way = commit_of(&store, &["alice"], "late");
    let mailbox = store.mailbox(&name("alice")).expect("a mailbox");
    let before = mailbox.used_bytes();
    let erasing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.erase(&name("alice")).await })
    };
    while mailbox.reserve(1, QUOTA).is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(mailbox.used_bytes(), before, "who gets no room takes none");
    assert!(!erasing.is_finished(), "a message is on its way");
    store.commit(on_its_way).await.expect("commits");
    erasing.await.expect("ends").expect("erases");
    store.close();
    scratch.with_both_indexes(|scratch| {
        assert!(scratch.contents("alice").is_empty());
        scratch.sound_with_erased(1, 1);
    });
}

/// A message that is late for one of its mailboxes is not for the others.
#[tokio::test(start_paused = true)]
async fn one_erased_mailbox_keeps_nobody_elses_mail_out() {
    let (scratch, _) = of_alice_and_bob().await;
    let store = scratch.open();
    let late = commit_of(&store, &["alice", "bob", "carol"], "late");
    let later = commit_of(&store, &["alice"], "later");
    store.erase(&name("alice")).await.expect("erases, after a while");
    store.commit(late).await.expect("commits");
    store.commit(later).await.expect("commits");
    store.close();
    scratch.with_both_indexes(|scratch| {
        assert_eq!(scratch.contents("bob").last().map(String::as_str), Some("P: late"));
        assert_eq!(scratch.contents("carol"), ["P: late"]);
        assert!(scratch.contents("alice").is_empty());
        scratch.sound_with_erased(2, 1);
    });
}

/// A record that was sealed before the key went and is written after it.
#[tokio::test]
async fn a_record_that_comes_late_is_noise_in_the_index_too() {
    let (scratch, alice) = of_alice_and_bob().await;
    let store = scratch.open();
    let late = commit_of(&store, &["alice", "bob"], "late");
    let turn = heavy::Turn::of_a_test();
    let encoded = codec::encode(&turn, late, &scratch.reading()).expect("seals");
    let erasing = codec::encode_erasures(vec![alice.clone()], Vec::new()).expect("frames");
    store.write(erasing).await.expect("writes");
    store.write(encoded).await.expect("writes");
    store.close();
    scratch.with_both_indexes(|scratch| {
        assert_eq!(scratch.contents("bob").last().map(String::as_str), Some("P: late"));
        assert!(scratch.contents("alice").is_empty());
        scratch.sound_with_erased(1, 1);
    });
}

/// A crash may come after each step; the next start goes on.
#[tokio::test]
async fn an_interrupted_erasure_is_ended_by_the_start() {
    for (is_zeroed, is_told, is_index_lost) in
        [(false, false, false), (false, false, true), (true, false, false), (true, true, true)]
    {
        let (scratch, alice) = of_alice_and_bob().await;
        let store = scratch.open();
        let erasing = codec::encode_erasures(vec![alice.clone()], Vec::new()).expect("frames");
        store.write(erasing).await.expect("writes");
        if is_zeroed {
            let keys = SlotFile::open(&scratch.below(KEYS)).expect("opens");
            keys.erase(alice.slot).expect("erases");
        }
        if is_told {
            let erased = codec::encode_erasures(Vec::new(), vec![alice.id]).expect("frames");
            store.write(erased).await.expect("writes");
        }
        store.close();
        assert!(scratch.contents("alice").is_empty(), "it is no more from the first record on");
        if is_index_lost {
            forget_index(&scratch.settings.data_dir);
        }
        scratch.open().close();
        assert_eq!(scratch.slot_of(&alice), [0; 128], "{is_zeroed} {is_told}");
        let erasures = scratch.index().erasures().expect("lists");
        assert!(erasures.iter().all(|it| it.is_done) && erasures.len() == 1, "{erasures:?}");
        scratch.sound_with_erased(1, 1);
        assert_eq!(scratch.contents("bob"), FOUR);
        // Nothing is left to be said.
        let end = scratch.log_files().last().expect("a segment").end;
        scratch.open().close();
        assert_eq!(scratch.log_files().last().expect("a segment").end, end);
    }
}

#[tokio::test]
async fn a_slot_put_back_is_zeroed_at_the_start() {
    let (scratch, alice) = of_alice_and_bob().await;
    let old = fs::read(scratch.below(KEYS)).expect("reads");
    let store = scratch.open();
    store.erase(&name("alice")).await.expect("erases");
    store.close();
    fs::write(scratch.below(KEYS), &old).expect("puts back");
    let problems = scratch.report().problems.join("\n");
    assert!(problems.contains("was erased, and its key is there again"), "{problems}");
    let store = scratch.open();
    deliver(&store, &["carol"], "one").await;
    let carol = store.mailbox(&name("carol")).expect("a mailbox").birth.clone();
    assert_ne!(carol.slot, alice.slot);
    store.close();
    assert_eq!(scratch.slot_of(&alice), [0; 128]);
    scratch.sound_with_erased(2, 1);
}

/// The index finds what is erased; it cannot have anything erased.
#[tokio::test]
async fn what_the_index_alone_calls_erased_is_not() {
    let (scratch, alice) = of_alice_and_bob().await;
    let key = scratch.slot_of(&alice);
    let index = rusqlite::Connection::open(scratch.below("index.sqlite")).expect("opens");
    let altered = "UPDATE mailbox SET erasing_at = 8 WHERE number = 1";
    index.execute_batch(altered).expect("alters");
    drop(index);
    let opened = Store::open(&scratch.settings, &EventSettings::default());
    let error = opened.map(|store| store.close()).expect_err("is no erasure").to_string();
    assert!(error.contains("erased, and the log does not; delete the index"), "{error}");
    assert_eq!(scratch.slot_of(&alice), key);
    let problems = scratch.report().problems.join("\n");
    assert!(problems.contains("which mailboxes are erased"), "{problems}");
    forget_index(&scratch.settings.data_dir);
    scratch.open().close();
    scratch.sound_with_erased(2, 0);
    assert_eq!(scratch.contents("alice").len(), 8);
}

/// The keys that are there win over an older log.
#[tokio::test]
async fn what_was_erased_since_the_backup_stays_erased_where_the_keys_are_kept() {
    let (scratch, alice) = of_alice_and_bob().await;
    let copy = scratch.settings.data_dir.with_file_name("copy");
    backup(&scratch.settings, &copy).expect("is made");
    let store = scratch.open();
    store.erase(&name("alice")).await.expect("erases");
    store.close();
    let other = Scratch::new();
    fs::create_dir_all(other.below("keys")).expect("creates");
    for file in ["keys/master.key", KEYS] {
        fs::copy(scratch.below(file), other.below(file)).expect("copies");
    }
    restore(&copy, &other.settings).expect("restores");
    let problems = other.report().problems.join("\n");
    assert!(problems.contains("its key is erased, and no record says so"), "{problems}");
    let store = other.open();
    deliver(&store, &["alice"], "new").await;
    store.close();
    assert_eq!(other.contents("alice"), ["P: new"]);
    assert_eq!(other.contents("bob"), FOUR);
    other.sound_with_erased(2, 1);
    assert_eq!(other.index().erasures().expect("lists")[0].birth, alice);
    // Without them, the backup brings it back.
    let third = Scratch::new();
    restore(&copy, &third.settings).expect("restores");
    fs::copy(scratch.below("keys/master.key"), third.below("keys/master.key")).expect("copies");
    third.open().close();
    assert_eq!(third.contents("alice").len(), 8);
}

/// Whoever has read the key before does not keep it afterwards.
#[tokio::test]
async fn a_reader_that_read_before_does_not_cache_after() {
    let (scratch, alice) = of_alice_and_bob().await;
    let keyring = Layout(&scratch.settings).keyring().expect("a master key");
    keyring.open_all().expect("opens");
    let is_there = || matches!(keyring.mailbox(&alice), Ok(Opened::Key(_)));
    assert!(is_there());
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..20_000).filter(|_| is_there()).count())).collect();
        keyring.erase(&alice).expect("erases");
        assert!(!is_there(), "it was in the cache");
        for reader in readers {
            reader.join().expect("ends");
        }
        assert!(!is_there(), "a reader put it back");
    });
    keyring.erase(&alice).expect("is erased already");
}

/// What nobody can open takes no room for ever.
#[tokio::test]
async fn compaction_takes_an_erased_mailboxs_messages_out() {
    let scratch = Scratch::with_small_segments(20_000);
    let store = scratch.open();
    deliver(&store, &["alice", "bob"], "one").await;
    for _ in 0..10 {
        deliver(&store, &["alice"], &"noise ".repeat(10_000)).await;
    }
    let alice = store.mailbox(&name("alice")).expect("a mailbox").birth.clone();
    store.erase(&name("alice")).await.expect("erases");
    // So that what was written is in closed segments.
    deliver(&store, &["bob"], &"last ".repeat(5000)).await;
    deliver(&store, &["bob"], "end").await;
    store.close();
    assert!(!scratch.compact(Timestamp::default()).is_empty());
    let mut records = 0;
    let mut scanner = segment::Scanner::new(&scratch.below("log"), Lsn(0)).expect("opens");
    while let Some(logged) = scanner.next_record(&scratch.log_key()).expect("reads") {
        let head = logged.record.head;
        records += usize::from(head.erasing.contains(&alice) || head.erased.contains(&alice.id));
        for delivery in head.blobs.iter().flat_map(|it| &it.mails).flat_map(|it| &it.deliveries) {
            assert_ne!(delivery.mailbox, alice.id, "at {}", logged.lsn);
        }
    }
    assert_eq!(records, 2, "what says that it is erased stays");
    scratch.with_both_indexes(|scratch| {
        assert_eq!(scratch.contents("bob").len(), 3);
        assert!(scratch.contents("alice").is_empty());
        scratch.sound_with_erased(1, 1);
    });
}
