//! The committer: which commits share a sync, and in which order they become durable.

use tokio::sync::mpsc;

use super::*;
use crate::heavy::Turn;
use crate::store::backlog::Backlog;
use crate::store::codec::encode;
use crate::store::committer::Request;
use crate::store::keys::Keyring;
use crate::store::layout::Layout;
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
