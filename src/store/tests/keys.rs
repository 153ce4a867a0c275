//! Keys in their slots: whose they are, and that nothing else opens what they seal.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::queue::entry;
use super::*;
use crate::id::MailboxId;
use crate::store::backup::{backup, restore};
use crate::store::fsck::{Depth, Report, check};
use crate::store::index::Index;
use crate::store::keyring::Keyring;
use crate::store::keys::{Key, MasterKey};
use crate::store::layout::Layout;
use crate::store::mailbox::NewMailbox;
use crate::store::slots::{Content, Purpose, Slot, SlotFile};

const MASTER: &str = "keys/master.key";
const KEYS: &str = "keys/m-1.keys";
/// Octets of a slot.
const SLOT: usize = 128;

impl Scratch {
    fn at(&self, path: &str) -> PathBuf {
        self.settings.data_dir.join(path)
    }

    /// A folder with a master key, and that key.
    fn with_master(digits: &str) -> (Self, MasterKey) {
        let scratch = Self::new();
        fs::create_dir_all(scratch.at("keys")).expect("creates");
        fs::write(scratch.at(MASTER), digits.repeat(32)).expect("writes");
        let master = MasterKey::load(&scratch.at(MASTER)).expect("loads");
        (scratch, master)
    }

    fn keyring(&self) -> Keyring {
        Layout(&self.settings).keyring().expect("a master key")
    }

    fn checked(&self) -> Report {
        check(&self.settings, &EventSettings::default(), Depth::Contents).expect("can be read")
    }

    /// The mailboxes of the index, by the slots of their keys.
    fn births(&self) -> BTreeMap<Slot, NewMailbox> {
        let index = Index::open_to_read(&self.at("index.sqlite")).expect("opens");
        let births = index.mailboxes().expect("lists").into_iter();
        births.map(|(birth, _)| (birth.slot, birth)).collect()
    }
}

fn slot_file(scratch: &Scratch, organization: &str, under: &Key) -> SlotFile {
    let path = scratch.at(&format!("keys/{organization}.keys"));
    SlotFile::create(&scratch.settings.data_dir, &path, organization, under, &[]).expect("is made")
}

/// All files of a folder and what is in them.
fn octets_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.append(&mut octets_of(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).expect("reads"))),
        }
    }
    found
}

#[test]
fn a_slot_opens_in_its_place_alone() {
    let (scratch, master) = Scratch::with_master("ab");
    let under = master.organizations();
    let file = slot_file(&scratch, "m-1", &under);
    let other_file = slot_file(&scratch, "m-2", &under);
    let ids = [MailboxId::generate(), MailboxId::generate()];
    let purposes = ids.map(Purpose::Mailbox);
    let slots = file.append(&under, &purposes).expect("appends");
    assert_eq!(slots, [Slot::numbered(3), Slot::numbered(4)]);
    assert_eq!(other_file.append(&under, &purposes).expect("appends"), slots);
    let other_master = Scratch::with_master("cd").1.organizations();
    for (what, file, slot, purpose, under, opens) in [
        ("its place", &file, slots[0], purposes[0], &under, true),
        ("another file", &other_file, slots[0], purposes[1], &under, false),
        ("another number", &file, slots[1], purposes[0], &under, false),
        ("another purpose", &file, slots[0], Purpose::Leaving, &under, false),
        ("another owner", &file, slots[0], purposes[1], &under, false),
        ("another master key", &file, slots[0], purposes[0], &other_master, false),
    ] {
        assert_eq!(file.key(slot, purpose, under).is_ok(), opens, "{what}");
    }
    // Octets that are moved to another place or into another file open nowhere.
    let (path, other_path) = (scratch.at(KEYS), scratch.at("keys/m-2.keys"));
    let whole = fs::read(&path).expect("reads");
    let mut moved = whole.clone();
    moved.copy_within(3 * SLOT..4 * SLOT, 4 * SLOT);
    fs::write(&path, &moved).expect("writes");
    assert!(file.key(slots[1], purposes[0], &under).is_err(), "moved within the file");
    let mut other = fs::read(&other_path).expect("reads");
    other[3 * SLOT..4 * SLOT].copy_from_slice(&whole[3 * SLOT..4 * SLOT]);
    fs::write(&other_path, &other).expect("writes");
    assert!(other_file.key(slots[0], purposes[0], &under).is_err(), "moved to another file");
    // Any octet that is another is found.
    for at in 3 * SLOT..4 * SLOT {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        fs::write(&path, &altered).expect("writes");
        assert!(file.key(slots[0], purposes[0], &under).is_err(), "octet {at}");
    }
    fs::write(&path, &whole).expect("writes");
    assert!(file.key(slots[0], purposes[0], &under).is_ok());
}

#[test]
fn an_organization_whose_id_is_no_plain_name_gets_no_file() {
    let (scratch, _) = Scratch::with_master("ab");
    let keyring = scratch.keyring();
    let long = "m".repeat(65);
    let longest = "m".repeat(64);
    for organization in ["", "..", "../m-1", "a/b", "m.1", "m 1", "mé", &long] {
        let error = keyring.take_mailbox(organization).expect_err("no file");
        assert!(matches!(error, StoreError::Key(_)), "{organization}: {error}");
    }
    assert!(keyring.take_mailbox(&longest).is_ok());
}

#[test]
fn a_purpose_of_another_version_is_refused() {
    let (scratch, _) = Scratch::with_master("ab");
    scratch.keyring().take_mailbox("m-1").expect("makes keys");
    let whole = fs::read(scratch.at(KEYS)).expect("reads");
    for (at, told) in [(0, "a key for purpose 77 in version 1"), (1, "for purpose 2 in version 77")]
    {
        let mut bytes = whole.clone();
        let slot = &mut bytes[4 * SLOT..5 * SLOT];
        slot[at] = 77;
        let checksum = crc32fast::hash(&slot[..SLOT - 4]).to_le_bytes();
        slot[SLOT - 4..].copy_from_slice(&checksum);
        fs::write(scratch.at(KEYS), &bytes).expect("writes");
        let opened = Store::open(&scratch.settings, &EventSettings::default());
        let error = opened.map(|store| store.close()).expect_err("unknown").to_string();
        assert!(error.contains("m-1.keys has a record at byte 512"), "{error}");
        assert!(error.contains(told), "{error}");
    }
}

/// With its master key alone, nobody can make an organization's keys again.
#[test]
fn two_organizations_keys_do_not_follow_from_the_master_key() {
    let leaving =
        |scratch: &Scratch, organization| scratch.keyring().leaving(organization).expect("is made");
    let (one, _) = Scratch::with_master("ab");
    let (other, _) = Scratch::with_master("ab");
    let first = leaving(&one, "m-1");
    assert_ne!(first, leaving(&other, "m-1"), "the same organization in another folder");
    assert_ne!(first, leaving(&one, "m-2"), "another organization");
    let reader = Layout(&one.settings).known_keyring().expect("a master key");
    assert_eq!(first, reader.leaving("m-1").expect("opens"), "and it is the same again");
    // Another file of the same organization, under the same master key, opens none of it.
    let (id, slot) = one.keyring_of_all().take_mailbox("m-1").expect("has some");
    fs::copy(other.at(KEYS), one.at(KEYS)).expect("copies");
    let birth = NewMailbox { id, owner: name("alice"), slot };
    let reader = Layout(&one.settings).known_keyring().expect("a master key");
    assert!(reader.mailbox(&birth).is_err());
}

impl Scratch {
    /// A keyring that knows what is there, and that no mailbox has a key of it.
    fn keyring_of_all(&self) -> Keyring {
        let keyring = self.keyring();
        keyring.open_all().expect("opens");
        keyring.adopt(&[]).expect("adopts");
        keyring
    }
}

/// A crash leaves part of an append: no whole key, zeros, or half of one.
#[tokio::test]
async fn a_torn_slot_at_the_end_is_nobodys() {
    let whole_slots = |octets: u64| (octets / SLOT as u64 * SLOT as u64) as usize;
    for torn in [&[7; 50][..], &[7; SLOT], &[0; SLOT], &[7; 3 * SLOT + 1], &[0; 20]] {
        let scratch = Scratch::new();
        let store = scratch.open();
        deliver(&store, &["user0"], "one").await;
        store.close();
        let mut bytes = fs::read(scratch.at(KEYS)).expect("reads");
        let end = bytes.len();
        bytes.extend_from_slice(torn);
        fs::write(scratch.at(KEYS), &bytes).expect("writes");
        let store = scratch.open();
        // More than were made beforehand.
        let users: Vec<_> = (0..40).map(|number| format!("user{number}")).collect();
        for user in &users {
            deliver(&store, &[user], "two").await;
        }
        store.close();
        let births = scratch.births();
        assert_eq!(births.len(), 40, "no two have the same slot");
        let after = end as u64 + torn.len() as u64;
        for slot in births.keys().map(|slot| slot.offset()) {
            let is_behind = slot >= after && slot as usize >= whole_slots(after);
            assert!(slot < end as u64 || is_behind, "{slot} is within {end} to {after}");
        }
        let report = scratch.checked();
        assert!(report.is_sound(), "{report:?}");
        let is_seen = torn.iter().any(|octet| *octet != 0);
        assert_eq!(report.leftovers.len(), usize::from(is_seen), "{report:?}");
        assert_eq!(scratch.contents("user0"), ["P: one", "P: two"]);
        assert_eq!(scratch.contents("user39"), ["P: two"]);
    }
}

/// A key that somebody has and that is not whole is no leftover.
#[tokio::test]
async fn a_damaged_key_of_a_mailbox_is_told() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice", "bob"], "one").await;
    store.close();
    let births = scratch.births();
    let whole = fs::read(scratch.at(KEYS)).expect("reads");
    for birth in births.values() {
        let mut bytes = whole.clone();
        bytes[birth.slot.offset() as usize + 40] ^= 1;
        fs::write(scratch.at(KEYS), &bytes).expect("writes");
        let problems = scratch.checked().problems.join("\n");
        assert!(problems.contains("the key that stands there is not whole"), "{problems}");
        let opened = Store::open(&scratch.settings, &EventSettings::default());
        let error = opened.map(|store| store.close()).expect_err("damaged").to_string();
        let expected = format!("m-1.keys is damaged at byte {}", birth.slot.offset());
        assert!(error.contains(&expected), "{error}");
    }
    fs::write(scratch.at(KEYS), &whole).expect("writes");
    fs::remove_file(scratch.at("keys/m-1.keys")).expect("removes");
    let opened = Store::open(&scratch.settings, &EventSettings::default());
    let error = opened.map(|store| store.close()).expect_err("is gone").to_string();
    assert!(
        error.contains("m-1.keys: there is no such file; put the organization's keys"),
        "{error}"
    );
    assert!(!scratch.at(KEYS).exists(), "none are made in their place");
}

/// What is delivered to a mailbox that had nothing yet takes a key that is there.
#[tokio::test]
async fn a_delivery_makes_no_key() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    let before = fs::read(scratch.at(KEYS)).expect("reads");
    for user in ["bob", "carol", "dave"] {
        deliver(&store, &[user], "two").await;
    }
    assert!(fs::read(scratch.at(KEYS)).expect("reads") == before, "keys were made");
    store.close();
    // Nor is one given twice, whether its first mail came or not.
    let store = scratch.open();
    let [eve, _] = ["eve", "alice"].map(|user| store.mailbox(&name(user)).expect("a mailbox"));
    let taken = eve.birth.clone();
    assert!(!scratch.births().contains_key(&taken.slot));
    store.close();
    let store = scratch.open();
    deliver(&store, &["frank"], "three").await;
    store.close();
    let births = scratch.births();
    assert_eq!(births.len(), 5);
    assert_eq!(births.get(&taken.slot).map(|birth| &birth.owner), Some(&name("frank")));
}

#[tokio::test]
async fn many_new_mailboxes_have_keys_of_their_own() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let users: Vec<_> = (0..3000).map(|number| format!("user{number}")).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    deliver(&store, &users, "one").await;
    store.close();
    assert_eq!(scratch.births().len(), users.len());
    let path = scratch.at(KEYS);
    let file = SlotFile::open(&path).expect("opens");
    let contents = file.contents().expect("reads");
    assert!(contents.len() < 3 * users.len(), "{} keys", contents.len());
    assert!(contents.iter().all(|it| matches!(it, (_, Content::Whole(Purpose::Mailbox(_))))));
    let report = scratch.checked();
    assert!(report.is_sound() && report.mailboxes == 3000, "{report:?}");
}

/// A mailbox that came after the backup is gone with its log; its key is nobody else's.
#[tokio::test]
async fn a_lost_lifes_slots_are_nobody_elses() {
    for keeps_keys in [true, false] {
        let scratch = Scratch::new();
        let store = scratch.open();
        deliver(&store, &["alice"], "one").await;
        let copy = scratch.settings.data_dir.with_file_name("copy");
        backup(&scratch.settings, &copy).expect("is made");
        for user in ["bob", "carol", "dave"] {
            deliver(&store, &[user], "lost").await;
        }
        store.close();
        let lost = scratch.births();
        assert_eq!(lost.len(), 4);
        let other = Scratch::new();
        fs::create_dir_all(other.at("keys")).expect("creates");
        fs::copy(scratch.at(MASTER), other.at(MASTER)).expect("copies");
        if keeps_keys {
            fs::copy(scratch.at(KEYS), other.at(KEYS)).expect("copies");
        }
        restore(&copy, &other.settings).expect("restores");
        let store = other.open();
        for user in ["eve", "frank", "grace"] {
            deliver(&store, &[user], "new").await;
        }
        store.close();
        assert_eq!(other.contents("alice"), ["P: one"]);
        assert_eq!(other.contents("eve"), ["P: new"]);
        let births = other.births();
        assert_eq!(births.len(), 4);
        let ids: Vec<_> = lost.values().map(|birth| birth.id).collect();
        for birth in births.values().filter(|birth| birth.owner != name("alice")) {
            assert!(!ids.contains(&birth.id), "{birth:?} was somebody else's");
            assert!(!lost.contains_key(&birth.slot), "{birth:?} was somebody else's");
        }
        let report = other.checked();
        assert!(report.is_sound(), "{report:?}");
    }
}

/// Keys that are there are not written over by others, nor by fewer.
#[tokio::test]
async fn a_restore_stops_before_the_keys_of_another_folder() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    let copy = scratch.settings.data_dir.with_file_name("copy");
    backup(&scratch.settings, &copy).expect("is made");
    let whole = fs::read(scratch.at(KEYS)).expect("reads");
    let (foreign, _) = Scratch::with_master("ab");
    foreign.keyring().take_mailbox("m-1").expect("makes keys");
    for there in [&whole[..whole.len() - SLOT], &fs::read(foreign.at(KEYS)).expect("reads")] {
        let other = Scratch::new();
        fs::create_dir_all(other.at("keys")).expect("creates");
        fs::write(other.at(KEYS), there).expect("writes");
        let error = restore(&copy, &other.settings).expect_err("is in the way");
        assert!(matches!(&error, StoreError::InTheWay(path) if *path == other.at(KEYS)), "{error}");
        assert!(!other.at("log").exists(), "nothing is written");
        assert_eq!(fs::read(other.at(KEYS)).expect("reads"), there);
    }
}

/// A backup opens with the master key, and with nothing less.
#[tokio::test]
async fn a_backup_has_the_keys_under_the_master_key() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut commit = commit_of(&store, &["alice"], "one");
    commit.blobs[0].mails[0].queued = vec![entry("far.test", &["bob"])];
    store.commit(commit).await.expect("commits");
    store.close();
    let copy = scratch.settings.data_dir.with_file_name("copy");
    let manifest = backup(&scratch.settings, &copy).expect("is made");
    let of_keys = |file: &&backup::BackupFile| file.path.starts_with("keys");
    let files: Vec<_> = manifest.files.iter().filter(of_keys).map(|file| &file.path).collect();
    assert_eq!(files, [Path::new(KEYS)]);
    let other = Scratch::new();
    restore(&copy, &other.settings).expect("restores");
    fs::copy(scratch.at(MASTER), other.at(MASTER)).expect("copies");
    let store = other.open();
    let waiting = store.take_queue().expect("a queue").waiting;
    assert_eq!(store.read_queued(waiting[0].id).expect("opens").content, b"one");
    store.close();
    assert_eq!(other.contents("alice"), ["P: one"]);
}

/// Whoever meets a folder of another version says so, and leaves all of it as it is.
#[tokio::test]
async fn an_old_folder_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    let copy = scratch.settings.data_dir.with_file_name("copy");
    backup(&scratch.settings, &copy).expect("is made");
    let segment = scratch.last_segment();
    let mut bytes = fs::read(&segment).expect("reads");
    bytes[..8].copy_from_slice(b"mwlog-3\n");
    fs::write(&segment, &bytes).expect("writes");
    // As such a folder has it.
    fs::remove_file(scratch.at(KEYS)).expect("removes");
    let index = rusqlite::Connection::open(scratch.at("index.sqlite")).expect("opens");
    index.execute_batch("ALTER TABLE mailbox RENAME COLUMN slot TO wrapped_key").expect("alters");
    index.pragma_update(None, "user_version", 5).expect("is set");
    drop(index);
    fs::write(scratch.at("log/0000000000001000.new"), "unfinished").expect("writes");
    let before = octets_of(&scratch.settings.data_dir);
    let settings = &scratch.settings;
    let refusals: [(&str, Result<(), StoreError>); 5] = [
        ("open", Store::open(settings, &EventSettings::default()).map(|store| store.close())),
        ("reader", Reader::open(settings).map(drop)),
        ("fsck", check(settings, &EventSettings::default(), Depth::Records).map(drop)),
        ("backup", backup(settings, &copy.with_file_name("second")).map(drop)),
        ("check-config", settings.check_key()),
    ];
    for (who, refused) in refusals {
        let error = refused.expect_err(who).to_string();
        assert!(error.contains("is of log format 3, which builds"), "{who}: {error}");
        assert!(
            error.ends_with("put that program back, or move the data folder away"),
            "{who}: {error}"
        );
    }
    assert!(octets_of(&scratch.settings.data_dir) == before, "it is as it was");
    // And so is a backup that such a version has made.
    let path = copy.join("manifest.json");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, text.replacen("\"version\": 4", "\"version\": 1", 1)).expect("writes");
    let error = restore(&copy, &Scratch::new().settings).expect_err("is older").to_string();
    assert!(error.contains("is of a backup of format 1, which another version"), "{error}");
}
