//! The committer and the indexer: which commits share a sync, in which order they become durable,
//! and what becomes of index and event file when they are behind.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::*;
use crate::events::sink::EventSink;
use crate::heavy::Turn;
use crate::store::backlog::Backlog;
use crate::store::codec::encode;
use crate::store::committer::{Committer, Followers, MAX_INDEX_LAG, Request};
use crate::store::entry::RecordHead;
use crate::store::index::{Cursor, Index};
use crate::store::indexer::{Indexable, Indexer, Lag};
use crate::store::keys::Keyring;
use crate::store::layout::Layout;
use crate::store::log::Log;
use crate::store::recovery::{Recovered, Ties};
use crate::store::segment::{Catalog, Scanner};

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
    let recovered = Recovered::open(&layout, &scratch.settings, &EventSettings::default());
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
        is_closing: Arc::default(),
    };
    drop(requests);
    for thread in recovered.expect("recovers").start_writing(ties).expect("starts") {
        thread.join().expect("ends");
    }
    let catalog = Catalog::read(&layout.log()).expect("lists");
    for (answer, octets) in answers.into_iter().zip(octets) {
        let lsn = answer.blocking_recv().expect("answers").expect("commits");
        let record = catalog.frame(lsn).and_then(|frame| frame.record()).expect("reads");
        let sealed = *octets as u64 + TAG;
        assert_eq!(record.head.blobs[0].length, sealed, "the answer is another commit's");
    }
    let mut batches = Vec::new();
    for segment in catalog.segments {
        let from = Lsn(segment.base);
        let mut scanner = Scanner::over(vec![segment], from).expect("opens");
        let mut batch = Vec::new();
        while let Some(logged) = scanner.next_record().expect("reads") {
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
struct Folder {
    scratch: Scratch,
    keyring: Keyring,
}

impl Folder {
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
        let log_dir = Layout(&self.scratch.settings).log();
        let log = Log::open(&log_dir, 1 << 20, Lsn(0), Lsn(0)).expect("opens");
        let sink = EventSink::open(self.events(events), EventSettings::default(), Lsn(0));
        let followers = Followers {
            // Nobody indexes here.
            indexer: std::sync::mpsc::channel().0,
            queue: mpsc::unbounded_channel().0,
            backlog: Backlog::new(&[]),
        };
        let (ask, asked) = mpsc::channel(requests.len());
        for request in requests {
            ask.try_send(request).expect("has room");
        }
        drop(ask);
        Committer::new(log, sink.expect("opens"), followers, Arc::clone(lag)).run(asked);
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
        let folder = Folder::new();
        let lag = Arc::new(Lag::default());
        (0..unindexed).for_each(|_| lag.add_unindexed());
        let (request, answer) = folder.request();
        folder.serve("events", &lag, vec![request]);
        let outcome = answer.blocking_recv().expect("answers");
        assert_eq!(outcome.is_ok(), is_taken, "{unindexed}: {outcome:?}");
        assert_eq!(folder.count("events"), usize::from(is_taken));
        assert_eq!(lag.unindexed(), unindexed + usize::from(is_taken));
    }
}

#[test]
fn events_that_are_missing_are_written_from_the_log() {
    let folder = Folder::new();
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
    let folder = Folder::new();
    let path = folder.events("index.sqlite");
    let lag = Arc::new(Lag::default());
    let (records, indexed) = std::sync::mpsc::channel();
    for lsn in 0..3 {
        let head = Arc::new(RecordHead::default());
        let record = Indexable { lsn: Lsn(lsn), next: Lsn(lsn + 1), head, events: None };
        lag.add_unindexed();
        records.send(record).expect("has room");
    }
    drop(records);
    let (committer, _asked) = mpsc::channel(1);
    let is_closing = Arc::new(AtomicBool::new(false));
    let index = Index::open(&path).expect("opens");
    Indexer::new(index, Arc::clone(&lag), committer.downgrade(), is_closing).run(&indexed);
    assert_eq!(lag.unindexed(), 0);
    let index = Index::open(&path).expect("opens");
    assert_eq!(index.cursor(Cursor::Indexed).expect("reads"), Lsn(3));
}
