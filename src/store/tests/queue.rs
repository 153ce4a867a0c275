//! What leaves waits until every recipient has an outcome, whatever happens between.

use super::*;
use crate::mail::{
    Address, EnvelopeRecipient, FirstSender, MailParameters, RcptParameters, ReversePath,
};
use crate::soon::soon;

impl Scratch {
    fn queue(&self) -> Vec<QueuedMail> {
        Reader::open(&self.settings).expect("opens").queue().expect("lists")
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

pub(super) fn entry(domain: &str, recipients: &[&str]) -> QueueEntry {
    let recipient = |name: &&str| EnvelopeRecipient {
        address: address(&format!("{name}@{domain}")),
        parameters: RcptParameters::default(),
    };
    QueueEntry {
        organization: "m-1".into(),
        purpose: Purpose::Message,
        destination: Destination::Domain(address(&format!("x@{domain}")).domain().clone()),
        reverse_path: ReversePath::Address(address("alice@example.test")),
        parameters: MailParameters::default(),
        recipients: recipients.iter().map(recipient).collect(),
        authorship: Authorship::default(),
        sender: None,
        returns_to: None,
        token_domain: None,
        keeper: None,
    }
}

/// Commits a message with a journal record's suffix for two destinations.
async fn queue(store: &Store, users: &[&str], text: &str) {
    let mut commit = commit_of(store, users, text);
    let mail = &mut commit.blobs[0].mails[0];
    mail.suffix = b"--end--".to_vec();
    mail.queued = vec![entry("far.test", &["bob", "carol"]), entry("near.test", &["dan"])];
    store.commit(commit).await.expect("commits");
}

/// The next entry that the committer tells the queue of.
async fn next(feed: &mut QueueFeed) -> QueuedMail {
    soon("an entry of the queue", feed.new.recv()).await.expect("the store is open")
}

async fn change(store: &Store, entry: QueueId, state: Option<QueueState>) {
    let queue_changes = vec![QueueChange { entry, state, at: NOW }];
    store.commit(Commit { queue_changes, ..Commit::default() }).await.expect("commits");
}

fn attempted(settled: &[usize]) -> QueueState {
    QueueState {
        attempts: 1,
        next_attempt: NOW.plus(std::time::Duration::from_secs(300)),
        settled: settled
            .iter()
            .map(|place| Settled { place: *place, outcome: SettledOutcome::Sent("250 ok".into()) })
            .collect(),
        is_delay_told: false,
        last_failure: Some("450 later".into()),
        is_servers_fault: false,
        last_attempt: Some(NOW),
    }
}

#[tokio::test]
async fn an_entry_waits_across_restarts_until_it_is_gone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut feed = store.take_queue().expect("the queue");
    assert!(store.take_queue().is_none(), "there is one queue");
    assert!(feed.waiting.is_empty());
    queue(&store, &["alice"], "one").await;
    let far = next(&mut feed).await;
    let near = next(&mut feed).await;
    assert_eq!(far.entry.recipients.len(), 2);
    assert_eq!(near.entry.destination.to_string(), "near.test");
    let content = store.read_queued(near.id).expect("reads");
    assert_eq!(
        (content.prefix.as_slice(), content.content.as_slice(), content.suffix.as_slice()),
        (b"P: ".as_slice(), b"one".as_slice(), b"--end--".as_slice())
    );
    change(&store, far.id, Some(attempted(&[1]))).await;
    change(&store, near.id, None).await;
    store.close();
    let waiting = vec![QueuedMail { state: attempted(&[1]), ..far.clone() }];
    assert_eq!(scratch.queue(), waiting);
    let store = scratch.open();
    assert_eq!(store.take_queue().expect("the queue").waiting, waiting);
    store.close();

    forget_index_and_events(&scratch.settings.data_dir);
    let store = scratch.open();
    assert_eq!(store.take_queue().expect("the queue").waiting, waiting, "the log alone says it");
    change(&store, far.id, None).await;
    store.close();
    assert_eq!(scratch.queue(), []);
    assert_eq!(scratch.contents("alice"), ["P: one--end--"], "the mailbox keeps it");
}

#[tokio::test]
async fn a_reader_sees_what_the_index_does_not_have_yet() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut feed = store.take_queue().expect("the queue");
    queue(&store, &[], "one").await;
    let far = next(&mut feed).await;
    let near = next(&mut feed).await;
    assert_eq!(scratch.queue(), [far.clone(), near.clone()]);
    change(&store, far.id, None).await;
    change(&store, near.id, Some(attempted(&[]))).await;
    assert_eq!(scratch.queue(), [QueuedMail { state: attempted(&[]), ..near }]);
    store.close();
}

#[tokio::test]
async fn compaction_drops_what_has_left_and_keeps_what_waits() {
    let scratch = Scratch::with_small_segments(1); // A segment for each commit.
    let store = scratch.open();
    let mut feed = store.take_queue().expect("the queue");
    let body = "x".repeat(10_000);
    let mut queued = Vec::new();
    for number in 0..4 {
        queue(&store, &[], &format!("{number} {body}")).await;
        for _ in 0..2 {
            queued.push(next(&mut feed).await);
        }
    }
    // Of 0 and 2 all is gone, of 1 a part; 3 was tried twice, the second time as a record says that
    // has a content which is gone.
    for gone in [0, 1, 2, 4, 5] {
        change(&store, queued[gone].id, None).await;
    }
    change(&store, queued[6].id, Some(attempted(&[]))).await;
    let mut beside = commit_of(&store, &[], &body);
    beside.blobs[0].mails[0].queued = vec![entry("far.test", &["a"])];
    let state = Some(attempted(&[0]));
    let tried = QueueChange { entry: queued[6].id, state, at: NOW };
    beside.queue_changes.push(tried);
    store.commit(beside).await.expect("commits");
    let beside = next(&mut feed).await;
    change(&store, beside.id, None).await;
    deliver(&store, &["alice"], "the open segment").await;
    store.close();
    let before = scratch.queue();
    assert_eq!(before.len(), 3);
    let bytes = |scratch: &Scratch| scratch.log_files().iter().map(|it| it.bytes).sum::<u64>();
    let bytes_before = bytes(&scratch);
    assert!(!scratch.compact(NOW.minus(std::time::Duration::from_secs(1))).is_empty());
    assert!(bytes(&scratch) < bytes_before - 19_000, "two contents have gone");
    assert_eq!(scratch.queue(), before);
    forget_index_and_events(&scratch.settings.data_dir);
    let store = scratch.open();
    let waiting = store.take_queue().expect("the queue").waiting;
    assert_eq!(waiting, before, "what is left of the log says the same");
    for mail in waiting {
        assert!(store.read_queued(mail.id).expect("reads").content.len() > 10_000);
    }
    assert!(store.read_queued(queued[0].id).is_err());
    store.close();
    let report = fsck::check(&scratch.settings, &EventSettings::default(), fsck::Depth::Contents)
        .expect("checks");
    assert_eq!((report.problems, report.queued), (vec![], 3));
}

#[tokio::test]
async fn counted_recipients_are_durable_with_their_message() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let limits = UsageLimits { user: 10, organization: 100, inside: 5 };
    let written =
        |store: &Store, written| store.count_recipients(&name("alice"), 20_000, written, limits);
    let count = |store: &Store, outside| written(store, Written { outside, inside: 0 });
    let both = Written { outside: 7, inside: 5 };
    let usage = vec![written(&store, both).expect("is free")];
    store.commit(Commit { usage, ..commit_of(&store, &[], "one") }).await.expect("commits");
    drop(count(&store, 3).expect("is free"));
    store.close();
    for _ in 0..2 {
        let store = scratch.open();
        assert_eq!(count(&store, 4).err(), Some(UsageExceeded::User));
        count(&store, 3).expect("is free");
        let inside = written(&store, Written { outside: 0, inside: 1 });
        assert_eq!(inside.err(), Some(UsageExceeded::Inside));
        store.close();
        forget_index_and_events(&scratch.settings.data_dir);
    }
}

#[tokio::test]
async fn a_token_stands_for_a_sender_until_it_is_too_old() {
    let scratch = Scratch::with_small_segments(1);
    let store = scratch.open();
    let mut feed = store.take_queue().expect("the queue");
    let far = || QueueEntry {
        token_domain: Some(address("x@example.test").domain().clone()),
        ..entry("far.test", &["bob"])
    };
    let mut commit = commit_of(&store, &[], "one");
    commit.blobs[0].mails[0].queued = vec![far()];
    commit.first_sender = Some(address("bounce-1@lists.test"));
    store.commit(commit).await.expect("commits");
    queue(&store, &["alice"], "two").await;
    let mail = next(&mut feed).await;
    let token = store.read_queued(mail.id).expect("reads").token.expect("has one");
    let srs = store.sender_rewriting(token.domain());
    let place = match srs.reverse(&token, NOW) {
        Ok(FirstSender::KeptAt(place)) => place,
        other => panic!("{other:?}"),
    };
    let kept = |store: &Store| store.first_sender(place).expect("reads");
    assert_eq!(kept(&store), Some(address("bounce-1@lists.test")));
    change(&store, mail.id, None).await;
    queue(&store, &["alice"], "three").await;
    store.close();
    drop(store);

    // The message is gone and its events have expired; its sender has not.
    let later = NOW.plus(std::time::Duration::from_secs(100 * 365 * 86_400));
    scratch.compact_senders(later, NOW);
    let store = scratch.open();
    assert_eq!(kept(&store), Some(address("bounce-1@lists.test")));
    store.close();
    drop(store);
    let last = later.plus(std::time::Duration::from_secs(1));
    scratch.compact_senders(last, last);
    let store = scratch.open();
    assert_eq!(kept(&store), None);
    store.close();
}

/// What servers said of mail of our own has no event that leads to it.
#[tokio::test]
async fn stories_that_the_index_lists_are_kept_as_long_as_events() {
    let scratch = Scratch::with_small_segments(15_000);
    let store = scratch.open();
    let mut feed = store.take_queue().expect("the queue");
    let id = TraceId::generate();
    let listed = |told: &str| Story { is_listed: true, ..story(id, &serde_json::json!(told)) };
    let mut commit = commit_of(&store, &[], &"x".repeat(10_000));
    commit.events.clear();
    commit.blobs[0].mails[0].id = id;
    commit.blobs[0].mails[0].queued = vec![entry("far.test", &["bob"])];
    commit.stories = vec![listed("a report"), story(TraceId::generate(), &serde_json::json!(1))];
    store.commit(commit).await.expect("commits");
    let mail = feed.new.recv().await.expect("comes");
    let queue_changes = vec![QueueChange { entry: mail.id, state: None, at: NOW }];
    let stories = vec![listed("its server has it")];
    store.commit(Commit { queue_changes, stories, ..Commit::default() }).await.expect("commits");
    let told = || {
        let reader = Reader::open(&scratch.settings).expect("opens");
        let records = reader.listed(id).expect("lists").into_iter();
        let contents = records.filter_map(|record| reader.contents(record).ok());
        let own = contents.flat_map(|it| it.stories).filter(|story| story.trace_id == id);
        own.map(|story| story.told.get().to_owned()).collect::<Vec<_>>()
    };
    let expected = ["\"a report\"", "\"its server has it\""];
    assert_eq!(told(), expected, "before the index has them, or after");
    deliver(&store, &["alice"], &"y".repeat(5000)).await;
    deliver(&store, &["alice"], "the open segment").await;
    store.close();
    assert_eq!(told(), expected);
    let before = NOW.minus(std::time::Duration::from_secs(1));
    assert!(!scratch.compact(before).is_empty(), "the message goes");
    assert_eq!(told(), expected, "what became of it stays");
    for _ in 0..2 {
        forget_index(&scratch.settings.data_dir);
        let store = scratch.open();
        deliver(&store, &["alice"], &"z".repeat(5000)).await;
        store.close();
        assert_eq!(told(), expected, "in an index that is built again");
        scratch.compact(before);
    }
    assert_eq!(told(), expected);

    let later = NOW.plus(std::time::Duration::from_secs(100 * 365 * 86_400));
    scratch.compact(later);
    assert_eq!(told(), [""; 0], "until they expire");
    let path = scratch.settings.data_dir.join("index.sqlite");
    let mut index = crate::store::index::Index::open(&path).expect("opens");
    index.forget_listed(before).expect("forgets");
    assert_eq!(index.listed(id).expect("lists").len(), 2, "it is younger");
    index.forget_listed(later).expect("forgets");
    assert_eq!(index.listed(id).expect("lists"), []);
}
