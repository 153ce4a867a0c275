//! Readers of a store whose index is behind its log.

use super::*;

impl Scratch {
    fn index_files(&self) -> Vec<std::path::PathBuf> {
        ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"]
            .map(|file| self.settings.data_dir.join(file))
            .to_vec()
    }

    /// Does `work` with an open store, and gives the index back as it was before.
    pub(super) async fn without_the_index(&self, work: impl AsyncFnOnce(&Store)) {
        let before: Vec<_> =
            self.index_files().into_iter().map(|path| (fs::read(&path).ok(), path)).collect();
        let store = self.open();
        work(&store).await;
        store.close();
        for (content, path) in before {
            match content {
                Some(content) => fs::write(path, content).expect("writes"),
                None => drop(fs::remove_file(path)), // It may not be there.
            }
        }
    }

    fn mailboxes(&self) -> Vec<(MailboxOwner, u64)> {
        let reader = Reader::open(&self.settings).expect("opens");
        let mailboxes = reader.mailboxes().into_iter();
        mailboxes.map(|mailbox| (mailbox.owner, mailbox.used_bytes)).collect()
    }
}

#[tokio::test]
async fn each_mailbox_has_what_the_index_does_not_know() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice"], "one").await;
    store.close();
    scratch
        .without_the_index(async |store: &Store| {
            deliver(store, &["alice"], "second").await;
            deliver(store, &["bob"], "to bob alone").await;
        })
        .await;
    assert_eq!(scratch.mailboxes(), [(name("alice"), 6 + 9), (name("bob"), 15)]);
    assert_eq!(scratch.contents("alice"), ["P: one", "P: second"]);
    assert_eq!(scratch.contents("bob"), ["P: to bob alone"]);
}

/// Who follows the event file has lines of records that came after the reader was opened.
#[tokio::test]
async fn a_record_that_came_after_the_reader_was_opened_is_read() {
    let mut scratch = Scratch::new();
    scratch.settings.segment_bytes = 1; // A segment for each commit.
    let store = scratch.open();
    deliver(&store, &["alice"], "before").await;
    let reader = Reader::open(&scratch.settings).expect("opens");
    let mut later = Vec::new();
    for text in ["in a segment that it knows, or in the next", "in one that came later"] {
        later.push(store.commit(commit_of(&store, &["alice"], text)).await.expect("commits"));
    }
    for lsn in &later {
        let contents = reader.contents(*lsn).expect("is there");
        assert_eq!((contents.messages.len(), contents.stories.len()), (1, 1), "{lsn}");
    }
    let beyond = reader.contents(Lsn(u64::MAX / 2)).map(drop);
    assert!(matches!(beyond, Err(StoreError::NotFound(_))), "{beyond:?}");
    store.close();
}

/// The first message of alice goes to another folder, and is not where it would be moved a second
/// time; her second is removed; bob has the same two.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_are_where_the_log_says_and_not_the_index() {
    let scratch = Scratch::new();
    let store = scratch.open();
    deliver(&store, &["alice", "bob"], "moved").await;
    deliver(&store, &["alice", "bob"], "removed").await;
    deliver(&store, &["alice", "bob"], "kept").await;
    store.close();
    let index = index::Index::open(&scratch.index_files()[0]).expect("opens");
    scratch
        .without_the_index(async |store: &Store| {
            let alice = store.mailbox(&name("alice")).expect("a mailbox");
            let messages = index.messages(alice.birth.id).expect("lists");
            let change = |number: usize, to| {
                let index::IndexedMessage { at, folder, size, .. } = messages[number].clone();
                entry::Change { message: at, from: folder, to, size, at: NOW }
            };
            let changes = vec![
                change(0, Some(Folder::DeletedItems)),
                change(0, Some(Folder::JunkEmail)),
                change(1, None),
            ];
            let encoded = codec::encode_changes(changes, Vec::new()).expect("encodes");
            tokio::task::block_in_place(|| store.commit_blocking(encoded)).expect("commits");
        })
        .await;
    let reader = Reader::open(&scratch.settings).expect("opens");
    let found = |user: &str| {
        let messages = reader.messages(&name(user)).expect("lists");
        let places = messages.iter().map(|message| {
            let content = reader.read(message).expect("reads");
            (message.folder, String::from_utf8(content).expect("is UTF-8"))
        });
        places.collect::<Vec<_>>()
    };
    let inbox = |text: &str| (Folder::Inbox, format!("P: {text}"));
    assert_eq!(found("alice"), [inbox("kept"), (Folder::DeletedItems, "P: moved".into())]);
    assert_eq!(found("bob"), [inbox("moved"), inbox("removed"), inbox("kept")]);
    let [alice, bob] = [8 + 10 + 7 - 10, 8 + 10 + 7];
    assert_eq!(scratch.mailboxes(), [(name("alice"), alice), (name("bob"), bob)]);
}
