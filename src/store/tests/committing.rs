//! The committer and the indexer: which commits share a sync, in which order they become durable,
//! and what becomes of index and event file when they are behind.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::*;
use crate::events::sink::EventSink;
use crate::heavy::Turn;
use crate::id::MailboxId;
use crate::soon::{answered, done, joined, soon};
use crate::store::backlog::Backlog;
use crate::store::codec::{encode, encode_changes};
use crate::store::committer::{Committer, Followers, LARGE_INDEX_LAG, MAX_INDEX_LAG, Request};
use crate::store::company::Company;
use crate::store::entry::{Change, MessageRef, RecordHead, SealedBlob, SealedDelivery, SealedMail};
use crate::store::index::{Cursor, Index};
use crate::store::indexer::{Indexable, Indexer, Lag};
use crate::store::keyring::Keyring;
use crate::store::layout::Layout;
use crate::store::log::Log;
use crate::store::queued::{SealedEntry, SealedQueued};
use crate::store::recovery::{Recovered, Ties};
use crate::store::segment::{Catalog, Scanner};
use crate::store::slots::Slot;
use crate::store::tests::queue::entry;

const MIB: usize = 1024 * 1024;
/// Octets that sealing adds to a content.
const TAG: u64 = 16;

/// A commit whose only content has so many octets.
fn request_of(octets: usize, keyring: &Keyring) -> (Request, committer::Answer) {
    let blobs = vec![Blob { content: vec![0; octets], mails: Vec::new() }];
    let commit = Commit { blobs, ..Commit::default() };
    Request::commit(encode(&Turn::of_a_test(), commit, keyring).expect("encodes"))
}

/// What was written with one call, for commits with these octets of content that all wait when the
/// committer begins. Every write begins a segment of its own here.
fn batches(octets: &[usize]) -> Vec<Vec<u64>> {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 1;
    let layout = Layout(&scratch.settings);
    durable::create_dir(&scratch.settings.data_dir).expect("a folder");
    let keyring = layout.keyring().expect("a key");
    let key = keyring.master().log();
    let recovered = Recovered::open(&layout, &scratch.settings, &EventSettings::default(), &key);
    let (requests, waiting) = mpsc::channel(octets.len());
    let mut answers = Vec::new();
    for octets in octets {
        let (request, answer) = request_of(*octets, &keyring);
        requests.try_send(request).expect("has room");
        answers.push(answer);
    }
    let ties = Ties {
        requests: waiting,
        to_committer: requests.downgrade(),
        queue: mpsc::unbounded_channel().0,
        backlog: Backlog::new(&[]),
        company: Company::default(),
        is_closing: Arc::default(),
    };
    drop(requests);
    for thread in recovered.expect("recovers").start_writing(ties).expect("starts") {
        joined("the end of a thread of the store", thread);
    }
    let catalog = Catalog::read(&layout.log()).expect("lists");
    for (answer, octets) in answers.into_iter().zip(octets) {
        let lsn = answered("the committer's answer", answer).expect("commits");
        let record = catalog.frame(lsn).and_then(|frame| frame.record()).expect("reads");
        let sealed = *octets as u64 + TAG;
        assert_eq!(record.head.blobs[0].length, sealed, "the answer is another commit's");
    }
    let mut batches = Vec::new();
    for segment in catalog.segments {
        let from = Lsn(segment.base);
        let mut scanner = Scanner::over(vec![segment], from).expect("opens");
        let mut batch = Vec::new();
        while let Some(logged) = scanner.next_record(&key).expect("reads") {
            batch.push(logged.record.head.blobs[0].length - TAG);
        }
        batches.push(batch);
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[test]
fn a_large_record_is_synced_by_itself_between_batches_of_small_ones() {
    let large = |number: usize| MIB + number;
    let check = |octets: &[usize], expected: &[&[usize]]| {
        let expected: Vec<Vec<u64>> =
            expected.iter().map(|batch| batch.iter().map(|it| *it as u64).collect()).collect();
        assert_eq!(batches(octets), expected, "{octets:?}");
    };
    check(&[1, 2, 3], &[&[1, 2, 3]]);
    check(&[1, large(2), 3], &[&[1, 3], &[large(2)]]);
    check(&[large(1), large(2), 3], &[&[3], &[large(1)], &[large(2)]]);
    let small: Vec<usize> = (1..=300).collect();
    let crowd = [&[large(1), large(2)], small.as_slice()].concat();
    check(&crowd, &[&small[..256], &[large(1)], &small[256..], &[large(2)]]);
}

/// A data folder in which one committer after the other serves what it is asked for.
struct DataFolder {
    scratch: Scratch,
    keyring: Keyring,
}

impl DataFolder {
    fn new() -> Self {
        let scratch = Scratch::new();
        durable::create_dir(&scratch.settings.data_dir).expect("a folder");
        let keyring = Layout(&scratch.settings).keyring().expect("a key");
        Self { scratch, keyring }
    }

    fn events(&self, name: &str) -> PathBuf {
        self.scratch.settings.data_dir.join(name)
    }

    /// How many events a folder has.
    fn count(&self, events: &str) -> usize {
        let text = fs::read_to_string(self.events(events).join("email-events.jsonl"));
        text.expect("reads").lines().count()
    }

    /// Serves requests to their end, with the event file in a folder of this name.
    fn serve(&self, events: &str, lag: &Arc<Lag>, requests: Vec<Request>) {
        let (ask, asked) = mpsc::channel(requests.len());
        for request in requests {
            ask.try_send(request).expect("has room");
        }
        drop(ask);
        let committer = self.committer(events, lag);
        done("the committer's end", move || committer.run(asked));
    }

    fn committer(&self, events: &str, lag: &Arc<Lag>) -> Committer {
        let log_dir = Layout(&self.scratch.settings).log();
        let log = Log::open(&log_dir, 1 << 20, Lsn(0), Lsn(0), &self.keyring.master().log())
            .expect("opens");
        let sink = EventSink::open(self.events(events), EventSettings::default(), Lsn(0));
        let followers = Followers {
            // Nobody indexes here.
            indexer: std::sync::mpsc::channel().0,
            queue: mpsc::unbounded_channel().0,
            backlog: Backlog::new(&[]),
        };
        Committer::new(log, sink.expect("opens"), followers, Arc::clone(lag), Company::default())
    }

    /// A commit of one event.
    fn request(&self) -> (Request, committer::Answer) {
        let event = EventLine {
            trace_id: TraceId::generate(),
            event: Event::MailboxDelivered(MailboxDelivered {
                recipient: "alice@example.test".into(),
                folder: "INBOX".into(),
            }),
            event_timestamp: NOW,
            organization_id: "m-1".into(),
        };
        let commit = Commit { events: vec![event], ..Commit::default() };
        let encoded = encode(&Turn::of_a_test(), commit, &self.keyring).expect("encodes");
        Request::commit(encoded)
    }
}

#[test]
fn mail_is_deferred_while_the_index_is_too_far_behind() {
    for (unindexed, is_taken) in [(MAX_INDEX_LAG, true), (MAX_INDEX_LAG + 1, false)] {
        let folder = DataFolder::new();
        let lag = Arc::new(Lag::default());
        lag.add_unindexed(unindexed);
        let (request, answer) = folder.request();
        folder.serve("events", &lag, vec![request]);
        let outcome = answered("the committer's answer", answer);
        assert_eq!(outcome.is_ok(), is_taken, "{unindexed}: {outcome:?}");
        assert_eq!(folder.count("events"), usize::from(is_taken));
        assert_eq!(lag.unindexed(), unindexed + usize::from(is_taken));
    }
}

/// A change of a message that is not there.
fn change() -> Change {
    let message = MessageRef { lsn: Lsn(0), blob: 0, mail: 0, mailbox: MailboxId::generate() };
    Change { message, from: Folder::Inbox, to: None, size: 1, at: NOW }
}

/// A record that gives the index much to do.
fn wide() -> (Request, committer::Answer) {
    Request::commit(encode_changes(vec![change(); 21], Vec::new()).expect("encodes"))
}

#[test]
fn while_the_index_is_behind_records_for_many_mailboxes_wait_and_small_ones_go_on() {
    let folder = DataFolder::new();
    let lag = Arc::new(Lag::default());
    lag.add_unindexed(LARGE_INDEX_LAG + 1);
    let committer = folder.committer("events", &lag);
    let (ask, asked) = mpsc::channel(10);
    let serving = std::thread::spawn(move || committer.run(asked));
    let send = |(request, answer): (Request, committer::Answer)| {
        ask.blocking_send(request).expect("is served");
        answer
    };
    let committed = |answer: committer::Answer| answered("the committer's answer", answer);
    let mut waiting = send(wide());
    let small = committed(send(folder.request())).expect("commits");
    assert!(waiting.try_recv().is_err(), "the large one waits");
    // The index comes up, and says so.
    lag.take_indexed(2);
    ask.blocking_send(Request::Indexed).expect("is served");
    assert!(committed(waiting).expect("commits") > small);
    // It cannot be written: to wait for it would be in vain.
    assert!(lag.unindexed() > LARGE_INDEX_LAG, "by the large one");
    lag.set_stuck(true);
    let refused = committed(send(wide())).expect_err("is deferred").to_string();
    assert_eq!(refused, StoreError::IndexBehind.to_string());
    committed(send(folder.request())).expect("commits");
    // At the end, what has come is written.
    lag.set_stuck(false);
    let last = send(wide());
    drop(ask);
    committed(last).expect("commits");
    joined("the committer's end", serving);
}

#[test]
fn events_that_are_missing_are_written_from_the_log() {
    let folder = DataFolder::new();
    let lag = Arc::new(Lag::default());
    let requests = vec![folder.request().0, folder.request().0];
    folder.serve("events", &lag, requests);
    assert_eq!(folder.count("events"), 2);
    // Another file lacks them. Who is only asked to look does not read the log for nothing.
    folder.serve("others", &lag, vec![Request::CatchUp]);
    assert_eq!(folder.count("others"), 0);
    lag.set_events_missing(true);
    folder.serve("others", &lag, vec![Request::CatchUp]);
    assert_eq!(folder.count("others"), 2);
    assert!(!lag.are_events_missing());
    // A further message brings the file up as well, and is in it once.
    lag.set_events_missing(true);
    folder.serve("third", &lag, vec![folder.request().0]);
    assert_eq!(folder.count("third"), 3);
}

#[test]
fn what_is_indexed_is_no_longer_behind() {
    let folder = DataFolder::new();
    let path = folder.events("index.sqlite");
    let lag = Arc::new(Lag::default());
    let (records, indexed) = std::sync::mpsc::channel();
    for lsn in 0..3 {
        let head = Arc::new(RecordHead { changes: vec![change(); 21], ..RecordHead::default() });
        lag.add_unindexed(head.rows());
        let record = Indexable { lsn: Lsn(lsn), next: Lsn(lsn + 1), head, events: None };
        records.send(record).expect("has room");
    }
    drop(records);
    let (committer, mut asked) = mpsc::channel(1);
    let is_closing = Arc::new(AtomicBool::new(false));
    let index = Index::open(&path).expect("opens");
    lag.set_stuck(true);
    let indexer = Indexer::new(index, Arc::clone(&lag), committer.downgrade(), is_closing);
    done("the indexer's end", move || indexer.run(&indexed));
    assert!(matches!(asked.try_recv(), Ok(Request::Indexed)), "who waits for it learns of it");
    assert_eq!(lag.unindexed(), 0);
    assert!(!lag.is_stuck());
    let index = Index::open(&path).expect("opens");
    assert_eq!(index.cursor(Cursor::Indexed).expect("reads"), Lsn(3));
}

/// Large records that wait for an index which cannot be written are refused, once the committer
/// knows.
#[tokio::test]
async fn an_index_that_cannot_be_written_is_told_until_it_can() {
    let folder = DataFolder::new();
    let path = folder.events("index.sqlite");
    let lag = Arc::new(Lag::default());
    let (records, indexed) = std::sync::mpsc::channel();
    let head = Arc::new(RecordHead { changes: vec![change(); 21], ..RecordHead::default() });
    lag.add_unindexed(head.rows());
    let record = Indexable { lsn: Lsn(0), next: Lsn(1), head, events: None };
    records.send(record).expect("has room");
    drop(records);
    let (committer, mut asked) = mpsc::channel(10);
    let to_committer = committer.downgrade();
    let indexer = Index::open(&path).expect("opens");
    let other = rusqlite::Connection::open(&path).expect("opens");
    other.execute_batch("ALTER TABLE cursor RENAME TO away").expect("renames");
    let (seen, is_closing) = (Arc::clone(&lag), Arc::new(AtomicBool::new(false)));
    let indexer = Indexer::new(indexer, seen, to_committer, is_closing);
    let indexing = std::thread::spawn(move || indexer.run(&indexed));
    let told = soon("the indexer's word", asked.recv()).await;
    assert!(matches!(told, Some(Request::Indexed)), "{told:?}");
    assert!(lag.is_stuck());
    other.execute_batch("ALTER TABLE away RENAME TO cursor").expect("renames");
    joined("the indexer's end", indexing);
    assert!(!lag.is_stuck());
    assert_eq!(lag.unindexed(), 0);
}

fn delivery(mailbox: MailboxId) -> SealedDelivery {
    SealedDelivery { mailbox, folder: Folder::Inbox, since: None, wrapped_key: "key".into() }
}

/// A record of one mail for these mailboxes.
fn head_of(mailboxes: &[MailboxId], size: u64) -> RecordHead {
    let mail = SealedMail {
        id: TraceId::generate(),
        received_at: NOW,
        prefix_length: 1,
        suffix_length: 0,
        size,
        deliveries: mailboxes.iter().copied().map(delivery).collect(),
        queued: None,
    };
    let blobs = vec![SealedBlob { length: 1, mails: vec![mail] }];
    let stories = vec![story(TraceId::generate(), &serde_json::json!(1))];
    RecordHead { blobs, stories, ..RecordHead::default() }
}

#[test]
fn a_record_weighs_what_the_index_has_to_do_for_it() {
    let mailbox = MailboxId::generate();
    assert_eq!(RecordHead::default().rows(), 1);
    assert_eq!(head_of(&[mailbox], 1).rows(), 1);
    let mut head = head_of(&[mailbox; 2000], 1);
    assert_eq!(head.rows(), 2000);
    head.blobs.push(head_of(&[mailbox; 3], 1).blobs.remove(0));
    let message = MessageRef { lsn: Lsn(0), blob: 0, mail: 0, mailbox };
    head.changes = vec![Change { message, from: Folder::Inbox, to: None, size: 1, at: NOW }];
    let entry = || SealedEntry { entry: Arc::new(entry("far.test", &["a", "b"])), is_gone: false };
    let queued = SealedQueued { entries: vec![entry(), entry()], wrapped_key: "key".into() };
    head.blobs[1].mails[0].queued = Some(queued);
    assert_eq!(head.rows(), 2006, "entries, however many recipients they have");
    let kept = head.for_the_index();
    assert_eq!(kept.rows(), 2006);
    assert!(kept.stories.is_empty());
    let mut deliveries = kept.blobs.iter().flat_map(|it| &it.mails).flat_map(|it| &it.deliveries);
    assert!(deliveries.all(|delivery| delivery.wrapped_key.is_empty()));
}

/// An index with what records come to that are applied in groups of so many, each so many times.
fn indexed_in_groups(
    group: usize,
    times: usize,
    records: &[(Lsn, RecordHead)],
) -> (Vec<index::Row>, Vec<u64>) {
    let mut index = Index::open(Path::new("")).expect("opens");
    for group in records.chunks(group) {
        let next = Lsn(group.last().expect("is not empty").0.0 + 1);
        for _ in 0..times {
            index.apply(group.iter().map(|(lsn, head)| (*lsn, head)), next).expect("applies");
        }
    }
    let used = index.mailboxes().expect("lists").into_iter().map(|(_, used)| used);
    (index.rows_after(None).expect("lists"), used.collect())
}

#[test]
fn records_that_are_indexed_together_come_to_the_same_as_one_by_one() {
    let ids: Vec<_> = (0..5).map(|_| MailboxId::generate()).collect();
    let birth = |number: usize| mailbox::NewMailbox {
        id: ids[number],
        owner: name(&format!("user{number}")),
        slot: Slot::numbered(3),
    };
    let born = |head: RecordHead, births: &[usize]| {
        let new_mailboxes = births.iter().map(|number| birth(*number)).collect();
        RecordHead { new_mailboxes, ..head }
    };
    let change = |lsn: u64, number: usize, to: Option<Folder>, size: u64| {
        let message = MessageRef { lsn: Lsn(lsn), blob: 0, mail: 0, mailbox: ids[number] };
        let change = Change { message, from: Folder::Inbox, to, size, at: NOW };
        RecordHead { changes: vec![change], ..RecordHead::default() }
    };
    let records: Vec<_> = [
        born(head_of(&[ids[3], ids[0], ids[4]], 10), &[3, 0, 4]),
        head_of(&[ids[0]], 7),
        change(1, 0, Some(Folder::DeletedItems), 10),
        born(head_of(&[ids[2], ids[1], ids[0]], 100), &[2, 1]),
        change(2, 0, None, 7),
        change(1, 4, None, 10),
        born(head_of(&[ids[1], ids[4]], 1000), &[1]),
    ]
    .into_iter()
    .zip(1..)
    .map(|(head, lsn)| (Lsn(lsn), head))
    .collect();
    let (rows, used) = indexed_in_groups(1, 1, &records);
    assert_eq!(rows.len(), 7);
    // In the order in which the mailboxes were born.
    assert_eq!(used.iter().sum::<u64>(), 20 + 300 + 2000);
    for group in [2, 3, 4, records.len()] {
        assert_eq!(indexed_in_groups(group, 1, &records), (rows.clone(), used.clone()), "{group}");
    }
    // What the index has already changes nothing.
    assert_eq!(indexed_in_groups(1, 2, &records), (rows, used));
}

/// What is worked into a pack is forgotten; what changed meanwhile is not, nor what stands elsewhere.
#[test]
fn only_changes_that_a_pack_has_are_forgotten() {
    let id = MailboxId::generate();
    let birth = mailbox::NewMailbox { id, owner: name("alice"), slot: Slot::numbered(3) };
    let born = RecordHead { new_mailboxes: vec![birth], ..head_of(&[id], 10) };
    let change = |lsn: u64, to: Option<Folder>, size: u64| {
        let message = MessageRef { lsn: Lsn(lsn), blob: 0, mail: 0, mailbox: id };
        let change = Change { message, from: Folder::Inbox, to, size, at: NOW };
        RecordHead { changes: vec![change], ..RecordHead::default() }
    };
    let records = [
        born,
        head_of(&[id], 100),
        head_of(&[id], 1000),
        head_of(&[id], 10_000),
        change(0, None, 10),
        change(1, None, 100),
        change(2, Some(Folder::JunkEmail), 1000),
        change(3, None, 10_000),
    ];
    let mut index = Index::open(Path::new("")).expect("opens");
    let records = || records.iter().zip(0..).map(|(head, lsn)| (Lsn(lsn), head));
    index.apply(records(), Lsn(8)).expect("applies");
    let removed = |index: &Index, end: u64| index.removed_bytes(&(0..end)).expect("sums");
    assert_eq!((removed(&index, 3), removed(&index, 4)), (110, 10_110));
    let changes = index.changes(&(0..3)).expect("reads");
    assert_eq!((changes.messages.len(), changes.considered), (3, Lsn(8)));
    let moved = changes.messages.iter().map(|it| it.1).find(|it| it.folder.is_some());
    let moved = moved.expect("is moved");
    assert_eq!((moved.folder, moved.since), (Some(Folder::JunkEmail), NOW));
    index.forget_changes(&(0..3), Lsn(5)).expect("forgets");
    assert_eq!((removed(&index, 3), removed(&index, 4)), (100, 10_100));
    index.forget_changes(&(0..3), Lsn(8)).expect("forgets");
    assert_eq!((removed(&index, 3), removed(&index, 4)), (0, 10_000));
}

#[test]
fn a_transaction_of_the_index_has_so_many_rows() {
    let (records, indexed) = std::sync::mpsc::channel();
    let mailboxes = vec![MailboxId::generate(); indexer::INDEX_BATCH];
    let batches = |rows: &[usize]| {
        for (rows, lsn) in rows.iter().zip(0..) {
            let head = Arc::new(head_of(&mailboxes[..*rows], 5));
            let next = Lsn(lsn + 1);
            records.send(Indexable { lsn: Lsn(lsn), next, head, events: None }).expect("has room");
        }
        let mut batches = Vec::new();
        while let Ok(first) = indexed.try_recv() {
            batches.push(indexer::gather(&indexed, first).len());
        }
        batches
    };
    let all = indexer::INDEX_BATCH;
    assert_eq!(batches(&[1, 1, 1]), [3]);
    assert_eq!(batches(&[all, 1, 1]), [1, 2]);
    assert_eq!(batches(&[all - 1, 1, 1]), [2, 1]);
    assert_eq!(batches(&[1, all, all, 1]), [2, 1, 1]);
}
