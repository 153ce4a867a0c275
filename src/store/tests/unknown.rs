//! What a record says that this version does not know stops whoever reads it: passed over, it would be
//! gone when the record is written anew.

use serde_json::{Value, json};

use super::queue::entry;
use super::*;
use crate::id::MailboxId;
use crate::mail::{Address, BodyType, DsnNotify, DsnReturn, MailParameters, RcptParameters};
use crate::store::codec::{Unreadable, decode};
use crate::store::entry::{
    Change, KeptSender, MessageRef, RecordHead, SealedBlob, SealedDelivery, SealedMail,
};
use crate::store::fsck::{Depth, check};
use crate::store::header::{HEADER, KNOWN};
use crate::store::mailbox::NewMailbox;
use crate::store::queued::{SealedEntry, SealedQueued};
use crate::store::segment::FRAME_HEADER;
use crate::store::slots::Slot;
use crate::store::usage::Used;

/// An entry that says all that one can say.
fn full_entry() -> QueueEntry {
    let address: Address = Address::parse("alice@example.test").expect("an address");
    let mut entry = entry("far.test", &["bob"]);
    entry.recipients[0].parameters =
        RcptParameters { notify: Some(DsnNotify::default()), orcpt: Some("rfc822;b".into()) };
    let parameters = MailParameters {
        declared_size: Some(1),
        body: BodyType::EightBitMime,
        smtputf8: true,
        ret: Some(DsnReturn::Full),
        envid: Some("e".into()),
    };
    let authorship = Authorship {
        from: Some(address.clone()),
        sender: Some(address.clone()),
        message_id: Some("<1@a>".into()),
        subject: Some("s".into()),
    };
    let entity = name("alice").entity;
    QueueEntry {
        purpose: Purpose::JournalRecord { report_to: address.clone() },
        parameters,
        authorship,
        sender: Some(address.clone()),
        returns_to: Some(name("alice")),
        token_domain: Some(address.domain().clone()),
        keeper: Some(Keeper::Mailbox { entity, address, folder: Folder::Inbox }),
        ..entry
    }
}

/// A head that has everything in it; what is added to the types is asked for here.
fn full_head() -> RecordHead {
    let (mailbox, owner) = (MailboxId::generate(), name("alice"));
    let message = MessageRef { lsn: Lsn(8), blob: 0, mail: 0, mailbox };
    let delivery = SealedDelivery {
        mailbox,
        folder: Folder::Inbox,
        since: Some(NOW),
        wrapped_key: "key".into(),
    };
    let entries = vec![SealedEntry { entry: Arc::new(full_entry()), is_gone: true }];
    let mail = SealedMail {
        id: TraceId::generate(),
        received_at: NOW,
        prefix_length: 1,
        suffix_length: 1,
        size: 1,
        deliveries: vec![delivery],
        queued: Some(SealedQueued { entries, wrapped_key: "key".into() }),
    };
    let state = QueueState {
        attempts: 1,
        next_attempt: NOW,
        settled: vec![Settled { place: 0, outcome: SettledOutcome::Sent("250 ok".into()) }],
        is_delay_told: true,
        last_failure: Some("421".into()),
        is_servers_fault: true,
        last_attempt: Some(NOW),
    };
    let (organization, id) = (Arc::clone(&owner.organization), owner.entity.clone());
    RecordHead {
        new_mailboxes: vec![NewMailbox {
            id: mailbox,
            owner: owner.clone(),
            slot: Slot::numbered(3),
        }],
        erasing: vec![NewMailbox { id: mailbox, owner: owner.clone(), slot: Slot::numbered(3) }],
        erased: vec![mailbox],
        facts: vec![Fact::Gone { organization: Arc::clone(&organization), id, at: NOW }],
        stated: Some(Stated {
            at: NOW,
            by: By::Operator { uid: Some(0), name: "root".into() },
            command: "reload".into(),
            said: vec![Said {
                organization,
                about: "alias".into(),
                format: FACT_FORMAT,
                fact: raw(&json!("told")),
            }],
        }),
        blobs: vec![SealedBlob { length: 1, mails: vec![mail] }],
        stories: vec![Story { is_listed: true, ..story(TraceId::generate(), &json!("told")) }],
        changes: vec![Change {
            message,
            from: Folder::Inbox,
            to: Some(Folder::JunkEmail),
            size: 1,
            at: NOW,
        }],
        queue_changes: vec![QueueChange {
            entry: "1f40.0.0.0".parse().expect("an id"),
            state: Some(state),
            at: NOW,
        }],
        usage: vec![Used { by: owner, day: 1, recipients: 1, inside: 1 }],
        first_sender: Some(KeptSender {
            address: Address::parse("bob@far.test").expect("an address"),
            at: NOW,
        }),
        events_at: Some(NOW),
    }
}

fn decoded(head: &Value) -> Result<RecordHead, Unreadable> {
    let text = head.to_string();
    let mut payload = u32::try_from(text.len()).expect("is short").to_le_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    payload.extend_from_slice(&[0; 4]);
    decode(&payload).map(|record| record.head)
}

/// The paths of all objects in a value.
fn objects(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                objects(value, format!("{path}/{name}"), found);
            }
            found.push(path);
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                objects(item, format!("{path}/{number}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn a_field_that_is_not_known_is_refused_wherever_it_stands() {
    let head = serde_json::to_value(full_head()).expect("JSON");
    let read = decoded(&head).expect("is known");
    assert_eq!(serde_json::to_value(read).expect("JSON"), head);
    let mut paths = Vec::new();
    objects(&head, String::new(), &mut paths);
    assert!(paths.len() > 30, "{paths:#?}");
    for path in paths {
        let mut later = head.clone();
        let fields = later.pointer_mut(&path).and_then(Value::as_object_mut).expect("an object");
        fields.insert("later".into(), json!(1));
        let told = decoded(&later).map(|_| ()).expect_err(&path);
        // One of several forms, as a destination is, has no room for another.
        if told != Unreadable::Damaged {
            let Unreadable::Unknown(problem) = told else { panic!("{path}: {told:?}") };
            assert!(problem.contains("`later`"), "{path}: {problem}");
        }
    }
    let told = decoded(&json!({ "later": [] })).map(|_| ()).expect_err("a kind of record");
    assert!(matches!(&told, Unreadable::Unknown(it) if it.starts_with("unknown field `later`")));
}

/// Neither start nor check take it, and what is on disk stays as it is.
#[tokio::test]
async fn a_record_of_another_version_stops_the_start_and_the_check_tells_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    let segment = scratch.last_segment();
    let mut bytes = fs::read(&segment).expect("reads");
    let field = memchr::memmem::find(&bytes, b"\"events_at\"").expect("its head");
    bytes[field..field + 11].copy_from_slice(b"\"later_one\"");
    let header = (HEADER + FRAME_HEADER) as usize;
    let mac = HEADER as usize + 8;
    let checksum = crc32fast::hash(&[&bytes[header..], &bytes[mac..header]].concat());
    bytes[mac - 4..mac].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&segment, &bytes).expect("writes");
    let error = Store::open(&scratch.settings, &EventSettings::default()).expect_err("unknown");
    let told = error.to_string();
    assert!(matches!(error, StoreError::UnknownRecord { .. }), "{told}");
    let expected = format!(
        "has a record at byte 256 that this version of mailweir, {}, does not know: unknown field \
         `later_one`",
        env!("CARGO_PKG_VERSION")
    );
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains("another version has written it"), "{told}");
    assert_eq!(fs::read(&segment).expect("reads"), bytes);
    let checked = check(&scratch.settings, &EventSettings::default(), Depth::Contents);
    let problems = checked.expect("checks").problems.join("\n");
    assert!(problems.contains("does not know: unknown field `later_one`"), "{problems}");
}

/// A later version begins a segment of its own format behind those that it found.
#[tokio::test]
async fn any_segment_of_another_format_stops_the_start_before_anything_is_written() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    let last = scratch.last_segment();
    let mut bytes = fs::read(&last).expect("reads");
    bytes[..8].copy_from_slice(b"mwlog-5\n");
    fs::write(&last, &bytes).expect("writes");
    let index = fs::read(scratch.settings.data_dir.join("index.sqlite")).expect("reads");
    let error = Store::open(&scratch.settings, &EventSettings::default()).expect_err("later");
    assert!(
        error.to_string().contains("is of log format 5, which a later mailweir has"),
        "{error}"
    );
    assert_eq!(fs::read(&last).expect("reads"), bytes);
    let after = fs::read(scratch.settings.data_dir.join("index.sqlite")).expect("reads");
    assert!(after == index, "the index is as it was");
}

/// Nothing of what is behind the cursor is read at a start, and compaction would meet it weeks later.
#[tokio::test]
async fn a_kind_of_a_later_version_behind_the_cursor_stops_whoever_opens_the_log() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    let second = scratch.log_files()[1].path.clone();
    let mut bytes = fs::read(&second).expect("reads");
    // Behind the kinds that this version writes.
    let kinds = memchr::memmem::find(&bytes, &[11, 1, 12, 1]).expect("kinds") + 4;
    bytes[kinds..kinds + 2].copy_from_slice(&[32, 1]);
    let crc = crc32fast::hash(&bytes[..HEADER as usize - 4]).to_le_bytes();
    bytes[HEADER as usize - 4..HEADER as usize].copy_from_slice(&crc);
    fs::write(&second, &bytes).expect("writes");
    let index = scratch.settings.data_dir.join("index.sqlite");
    let before = fs::read(&index).expect("reads");
    let told = "may hold records of kind 32, which this mailweir";
    let error = Store::open(&scratch.settings, &EventSettings::default()).expect_err("later");
    assert!(error.to_string().contains(told), "{error}");
    assert!(error.to_string().contains(&*second.to_string_lossy()), "{error}");
    assert!(fs::read(&index).expect("reads") == before, "the index is as it was");
    let error = check(&scratch.settings, &EventSettings::default(), Depth::Contents);
    let error = error.expect_err("later").to_string();
    assert!(error.contains(told), "{error}");
    let error = Reader::open(&scratch.settings).expect_err("later").to_string();
    assert!(error.contains(told), "{error}");
    let copy = scratch.settings.data_dir.with_file_name("copy");
    let error = crate::store::backup::backup(&scratch.settings, &copy).expect_err("later");
    assert!(error.to_string().contains(told), "{error}");
}

/// Whoever adds a field to a head says in the header of files that it may stand there.
#[test]
fn the_header_names_every_kind_that_a_head_may_have() {
    let kinds = [
        ("new_mailboxes", "births of mailboxes"),
        ("facts", "facts of who is who"),
        ("stated", "what is said of organizations"),
        ("blobs", "deliveries"),
        ("stories", "stories"),
        ("changes", "changes of messages"),
        ("queue_changes", "changes of queue entries"),
        ("usage", "recipients that were counted"),
        ("first_sender", "senders of what was forwarded"),
        ("events_at", "events"),
        ("erasing", "erasures of mailboxes"),
        ("erased", "erasures of mailboxes"),
    ];
    let head = serde_json::to_value(full_head()).expect("JSON");
    for field in head.as_object().expect("an object").keys() {
        let kind = kinds.iter().find(|(known, _)| known == field);
        let (_, kind) = kind.unwrap_or_else(|| panic!("of which kind is {field}?"));
        assert!(KNOWN.iter().any(|(.., known)| known == kind), "{kind}");
    }
}
