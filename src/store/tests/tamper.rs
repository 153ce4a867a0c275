//! Whoever can write the disk and lacks the master key can alter, move, swap, replay or leave out no
//! record unseen: the check tells it, and so does a start that reads it.

use std::path::PathBuf;

use serde_json::Value;

use super::queue::entry;
use super::*;
use crate::mail::Address;
use crate::store::codec::{self, encode_changes};
use crate::store::entry::Change;
use crate::store::fsck::{Depth, check};
use crate::store::segment::{Catalog, FRAME_HEADER, Scanned, Scanner};
use crate::store::{By, FACT_FORMAT, Said, Stated};

/// A whole frame of a segment.
#[derive(Clone)]
struct Written {
    path: PathBuf,
    offset: usize,
    /// All of its octets.
    octets: Vec<u8>,
}

impl Written {
    fn end(&self) -> usize {
        self.offset + self.octets.len()
    }

    fn payload(&self) -> &[u8] {
        &self.octets[FRAME_HEADER as usize..]
    }

    /// What of the payload is JSON: its head.
    fn head(&self) -> &[u8] {
        let length = u32::from_le_bytes(self.payload()[..4].try_into().expect("four octets"));
        &self.payload()[4..4 + length as usize]
    }

    /// With another octet in its payload, and the checksum that is right then.
    fn with(&self, at: usize, octet: u8) -> Vec<u8> {
        let mut octets = self.octets.clone();
        octets[FRAME_HEADER as usize + at] = octet;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&octets[FRAME_HEADER as usize..]);
        crc.update(&octets[8..FRAME_HEADER as usize]);
        octets[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        octets
    }
}

impl Scratch {
    /// A closed store that has every kind of record, in one segment.
    async fn with_every_kind() -> Self {
        let scratch = Self::new();
        scratch.write_every_kind().await;
        scratch
    }

    async fn write_every_kind(&self) {
        let store = self.open();
        let organization: Arc<str> = "m-1".into();
        let (alias, at) = ("first".into(), NOW);
        let fact = Fact::Organization { id: Arc::clone(&organization), alias, at };
        let id = name("alice").entity;
        let kind = EntityKind::User;
        let said = Said {
            organization: Arc::clone(&organization),
            about: "alias".into(),
            format: FACT_FORMAT,
            fact: raw(&serde_json::json!({"alias": "first"})),
        };
        let by = By::Operator { uid: Some(7), name: "ann".into() };
        let stated = Stated { at, by, command: "reload".into(), said: vec![said] };
        let entity = Fact::Entity { organization, id, kind, name: "alice".into(), at };
        store.state(vec![fact, entity], Some(stated)).await.expect("states");
        let limits = UsageLimits { user: 10, organization: 10, inside: 10 };
        let written = crate::store::Written { outside: 1, inside: 1 };
        let hold = store.count_recipients(&name("alice"), 1, written, limits).expect("in limits");
        let mut commit = commit_of(&store, &["alice", "bob"], "one");
        commit.blobs[0].mails[0].queued = vec![entry("far.test", &["bob"])];
        commit.usage = vec![hold];
        commit.first_sender = Address::parse("carol@far.test").ok();
        commit.stories[0].is_listed = true;
        store.commit(commit).await.expect("commits");
        let mut feed = store.take_queue().expect("a queue");
        let queued = feed.new.recv().await.expect("an entry");
        let state = QueueState { attempts: 1, next_attempt: NOW, ..QueueState::default() };
        for state in [Some(state), None] {
            let queue_changes = vec![QueueChange { entry: queued.id, state, at: NOW }];
            store.commit(Commit { queue_changes, ..Commit::default() }).await.expect("commits");
        }
        deliver(&store, &["alice"], "two").await;
        let reader = Reader::open(&self.settings).expect("opens");
        let first = reader.messages(&name("bob")).expect("lists").remove(0);
        let message = first.place();
        let from = Folder::Inbox;
        let size = first.size;
        let moved = Change { message, from, to: Some(Folder::JunkEmail), size, at: NOW };
        let gone = Change { from: Folder::JunkEmail, to: None, ..moved.clone() };
        let changes = encode_changes(vec![moved, gone], Vec::new()).expect("frames");
        store.write(changes).await.expect("commits");
        deliver(&store, &["dave"], "three").await;
        store.erase(&name("dave")).await.expect("erases");
        store.close();
    }

    /// All frames of the log, in order.
    fn frames(&self) -> Vec<Written> {
        let catalog = Catalog::read(&self.settings.data_dir.join("log")).expect("lists");
        let mut frames = Vec::new();
        for segment in catalog.segments {
            let file = fs::read(&segment.path).expect("reads");
            let mut scanner = Scanner::over(vec![segment], Lsn(0)).expect("opens");
            while let Some(Scanned::Frame(frame)) = scanner.next().expect("reads") {
                let offset = frame.offset as usize;
                let end = offset + FRAME_HEADER as usize + frame.payload.len();
                let octets = file[offset..end].to_vec();
                frames.push(Written { path: frame.path.to_path_buf(), offset, octets });
            }
        }
        frames
    }

    /// Puts other octets in the place of some of a file's, asks check and start, and puts back what was
    /// there.
    fn assert_told(&self, path: &Path, range: std::ops::Range<usize>, octets: &[u8], case: &str) {
        let whole = fs::read(path).expect("reads");
        let altered = [&whole[..range.start], octets, &whole[range.end..]].concat();
        assert!(altered != whole, "{case}: nothing is altered");
        fs::write(path, altered).expect("writes");
        self.assert_all_told(case);
        fs::write(path, whole).expect("writes");
    }

    /// Check and start tell that something is not as it was.
    fn assert_all_told(&self, case: &str) -> String {
        let checked = check(&self.settings, &EventSettings::default(), Depth::Records);
        let problems = checked.expect("checks").problems.join("\n");
        assert!(
            problems.contains("was altered at byte") || problems.contains("is damaged at byte"),
            "{case}: {problems:?}"
        );
        // What the index has is not read again at a start.
        forget_index(&self.settings.data_dir);
        let opened = Store::open(&self.settings, &EventSettings::default());
        let error = opened.map(|store| store.close()).expect_err(case);
        assert!(
            matches!(error, StoreError::Tampered { .. } | StoreError::Damaged { .. }),
            "{case}: {error}"
        );
        problems
    }

    fn assert_sound(&self) {
        forget_index(&self.settings.data_dir);
        self.open().close();
        let checked = check(&self.settings, &EventSettings::default(), Depth::Contents);
        assert_eq!(checked.expect("checks").problems, Vec::<String>::new());
    }
}

/// The paths of all values in one that are neither lists nor objects.
fn leaves(value: &Value, path: String, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, format!("{path}/{name}"), found));
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                leaves(item, format!("{path}/{number}"), found);
            }
        }
        leaf => found.push((path, leaf.clone())),
    }
}

fn leaves_of(head: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut found = Vec::new();
    leaves(&serde_json::from_slice(head).ok()?, String::new(), &mut found);
    Some(found)
}

/// For each field of a head that one octet makes another field of the same kind: which octet.
fn alterations(frame: &Written) -> Vec<(String, usize, u8)> {
    let before = leaves_of(frame.head()).expect("JSON");
    let mut found: Vec<(String, usize, u8)> = Vec::new();
    for (at, octet) in frame.head().iter().enumerate() {
        let other = match octet {
            b'0' => b'1',
            b'1'..=b'9' | b'b'..=b'z' | b'B'..=b'Z' => octet - 1,
            b'a' | b'A' => octet + 1,
            _ => continue,
        };
        let mut head = frame.head().to_vec();
        head[at] = other;
        let Some(after) = leaves_of(&head) else { continue };
        let mut differ = before.iter().zip(&after).filter(|(one, other)| one != other);
        let Some((one, another)) = differ.next() else { continue };
        if one.0 != another.0 || found.iter().any(|(path, ..)| *path == one.0) {
            continue;
        }
        // What cannot be read is told for another reason.
        let altered = frame.with(4 + at, other);
        if codec::decode(&altered[FRAME_HEADER as usize..]).is_ok() {
            found.push((one.0.clone(), 4 + at, other));
        }
    }
    found
}

#[tokio::test]
async fn an_altered_field_of_any_head_is_told_though_its_checksum_is_right() {
    let scratch = Scratch::with_every_kind().await;
    scratch.assert_sound();
    let mut fields = std::collections::BTreeSet::new();
    let mut known = std::collections::BTreeSet::new();
    for frame in scratch.frames() {
        for (path, value) in leaves_of(frame.head()).expect("JSON") {
            // No octet makes one of the other, or something of nothing.
            if !value.is_boolean() && !value.is_null() {
                known.insert(path);
            }
        }
        for (path, at, octet) in alterations(&frame) {
            let range = frame.offset..frame.end();
            scratch.assert_told(&frame.path, range, &frame.with(at, octet), &path);
            fields.insert(path);
        }
    }
    for kind in [
        "/new_mailboxes/0/slot",
        "/new_mailboxes/0/owner/organization",
        "/facts/1/entity/name",
        "/erasing/0/owner/organization",
        "/erased/0",
        "/stated/by/operator/name",
        "/stated/said/0/organization",
        "/stated/said/0/fact/alias",
        "/blobs/0/mails/0/deliveries/0/mailbox",
        "/blobs/0/mails/0/deliveries/0/wrapped_key",
        "/blobs/0/mails/0/queued/entries/0/entry/recipients/0/address",
        "/blobs/0/mails/0/queued/entries/0/entry/destination/domain",
        "/changes/0/message/mailbox",
        "/queue_changes/0/entry",
        "/queue_changes/0/state/attempts",
        "/usage/0/recipients",
        "/first_sender/address",
        "/stories/0/told/text",
        "/events_at",
    ] {
        assert!(fields.contains(kind), "{kind} is not among {fields:#?}");
    }
    let missed: Vec<_> = known.difference(&fields).collect();
    // Names of variants and folders: another letter makes none that is known.
    let fixed = |path: &&&String| {
        ["/kind", "/folder", "/from", "/to", "/purpose", "/body"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    let missed: Vec<_> = missed.into_iter().filter(|path| !fixed(&path)).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    scratch.assert_sound();
}

#[tokio::test]
async fn an_altered_event_or_sealed_piece_is_told() {
    let scratch = Scratch::with_every_kind().await;
    for frame in scratch.frames() {
        let events = 4 + frame.head().len() + 4;
        for at in [events + 20, frame.payload().len() - 1] {
            let Some(octet) = frame.payload().get(at) else { continue };
            let case = format!("octet {at} of the record at {}", frame.offset);
            let altered = frame.with(at, octet ^ 1);
            scratch.assert_told(&frame.path, frame.offset..frame.end(), &altered, &case);
        }
    }
    scratch.assert_sound();
}

#[tokio::test]
async fn swapped_replayed_moved_and_left_out_records_are_told() {
    let scratch = Scratch::with_every_kind().await;
    let frames = scratch.frames();
    assert!(frames.len() >= 6);
    for pair in frames.windows(2) {
        let [one, other] = pair else { unreachable!() };
        let swapped = [&other.octets[..], &one.octets].concat();
        scratch.assert_told(&one.path, one.offset..other.end(), &swapped, "two are swapped");
        let case = format!("the one at {} is left out", one.offset);
        scratch.assert_told(&one.path, one.offset..one.end(), &[], &case);
    }
    let last = frames.last().expect("has some");
    for frame in &frames {
        let case = format!("the one at {} comes again", frame.offset);
        scratch.assert_told(&frame.path, last.end()..last.end(), &frame.octets, &case);
    }
    scratch.assert_sound();
}

/// Every file says where it stands, and in which life of which folder.
#[tokio::test]
async fn files_of_another_folder_or_life_or_place_are_told() {
    let mut ours = Scratch::with_small_segments(1);
    ours.write_every_kind().await;
    let key = ours.settings.data_dir.join("keys/master.key");
    let mut theirs = Scratch::with_small_segments(1);
    theirs.settings.master_key_file = Some(key.clone());
    theirs.write_every_kind().await;
    let copy = ours.settings.data_dir.with_file_name("copy");
    backup::backup(&ours.settings, &copy).expect("is made");
    ours.settings.master_key_file = Some(key.clone());
    let mut lives = Vec::new();
    for _ in 0..2 {
        let mut life = Scratch::with_small_segments(1);
        life.settings.master_key_file = Some(key.clone());
        backup::restore(&copy, &life.settings).expect("restores");
        life.write_every_kind().await;
        lives.push(life);
    }
    for (one, other) in [(&ours, &theirs), (&lives[0], &lives[1])] {
        let mut exchanged = 0;
        for file in one.log_files() {
            let name = file.path.file_name().expect("a name");
            let Ok(octets) = fs::read(other.settings.data_dir.join("log").join(name)) else {
                continue;
            };
            if octets == fs::read(&file.path).expect("reads") {
                continue; // Both have it from the backup.
            }
            let case = format!("{} is another's", file.path.display());
            one.assert_told(&file.path, 0..file.bytes as usize, &octets, &case);
            exchanged += 1;
        }
        assert!(exchanged > 4, "{exchanged} files");
        one.assert_sound();
    }
    // A record of one segment in the place of that of another.
    let frames = ours.frames();
    for pair in frames.windows(2) {
        let [one, other] = pair else { unreachable!() };
        ours.assert_told(&one.path, one.offset..one.end(), &other.octets, "of another segment");
    }
    ours.assert_sound();
}

/// All of what a file says of itself is under its MAC.
#[tokio::test]
async fn an_altered_header_is_told() {
    let scratch = Scratch::with_every_kind().await;
    let path = scratch.last_segment();
    let length = crate::store::header::HEADER as usize;
    for at in 16..length - 4 {
        let mut header = fs::read(&path).expect("reads")[..length].to_vec();
        // Kinds that are known are none that this version could refuse.
        header[at] ^= if (136..200).contains(&at) { header[at] } else { 1 };
        let crc = crc32fast::hash(&header[..length - 4]).to_le_bytes();
        header[length - 4..].copy_from_slice(&crc);
        if header != fs::read(&path).expect("reads")[..length] {
            scratch.assert_told(&path, 0..length, &header, &format!("octet {at}"));
        }
    }
    scratch.assert_sound();
}

/// What was cut off cannot be put back where another record stands.
#[tokio::test]
async fn a_record_of_before_a_torn_end_is_told() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    deliver(&store, &["alice"], "two").await;
    store.close();
    let path = scratch.last_segment();
    let whole = fs::read(&path).expect("reads");
    let last = scratch.frames().pop().expect("has two");
    fs::write(&path, &whole[..last.end() - 3]).expect("writes");
    forget_index_and_events(&scratch.settings.data_dir);
    let store = scratch.open();
    deliver(&store, &["alice"], "new").await;
    store.close();
    assert_eq!(scratch.contents("alice"), ["P: one", "P: new"]);
    scratch.assert_sound();
    scratch.assert_told(&path, last.offset..last.offset, &last.octets, "it is back");
    let next = scratch.frames().pop().expect("has two");
    scratch.assert_told(&next.path, next.offset..next.end(), &last.octets, "it is another");
    scratch.assert_sound();
}

/// What a pack leaves out is told by its table, and that by its MAC.
#[tokio::test]
async fn an_altered_pack_is_told() {
    let scratch = Scratch::with_small_segments(1);
    scratch.write_every_kind().await;
    let far = Timestamp::from_millis(u64::MAX / 4);
    assert!(!scratch.compact(far).is_empty());
    scratch.assert_sound();
    let packs: Vec<_> = scratch.log_files().into_iter().filter(|it| it.pack.is_some()).collect();
    assert!(packs.len() > 2);
    for pack in packs {
        let trailer = pack.pack.clone().expect("is a pack");
        let whole = fs::read(&pack.path).expect("reads");
        let frames = crate::store::header::HEADER as usize..trailer.table as usize;
        if frames.is_empty() {
            continue;
        }
        // Without its only record, with a table and a checksum that are right.
        let without = crate::store::pack::Trailer {
            table: frames.start as u64,
            count: 0,
            table_crc: crc32fast::hash(&[]),
            ..trailer.clone()
        };
        let emptied = [&whole[..frames.start], &without.encode()].concat();
        scratch.assert_told(&pack.path, 0..whole.len(), &emptied, "a record is left out");
        // Its head says something else.
        let mut altered = whole.clone();
        let payload = frames.start + crate::store::pack::PACK_HEADER as usize;
        let digit = (payload..frames.end).find(|at| whole[*at].is_ascii_digit()).expect("a digit");
        altered[digit] ^= 1;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&altered[frames.start + 8..frames.end]);
        altered[frames.start + 4..frames.start + 8].copy_from_slice(&crc.finalize().to_le_bytes());
        scratch.assert_told(&pack.path, 0..whole.len(), &altered, "a head says something else");
        // More is said to be worked in.
        let more = crate::store::pack::Trailer { considered: trailer.considered + 1, ..trailer };
        let end = whole.len() - more.encode().len();
        let more = [&whole[..end], &more.encode()].concat();
        scratch.assert_told(&pack.path, 0..whole.len(), &more, "a number");
    }
    scratch.assert_sound();
}
