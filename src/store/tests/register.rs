//! Who is who stays so, whatever happens to the store.

use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock};

const USER: EntityKind = EntityKind::User;

/// Somebody of organization `m-1`, under a name.
fn is(id: &EntityId, name: &str) -> Fact {
    let (organization, name) = ("m-1".into(), name.into());
    Fact::Entity { organization, id: id.clone(), kind: USER, name, at: NOW }
}

fn gone(id: &EntityId) -> Fact {
    Fact::Gone { organization: "m-1".into(), id: id.clone(), at: NOW }
}

fn called(alias: &str) -> Fact {
    Fact::Organization { id: "m-1".into(), alias: alias.into(), at: NOW }
}

fn tomorrow() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(86_400))
}

/// A store in which a leaver's name was given to somebody else, and another was renamed; and what is
/// known of all of them.
async fn town(scratch: &Scratch) -> Register {
    let store = scratch.open();
    let [leaver, renamed, newcomer] = [0; 3].map(|_| EntityId::generate(USER));
    let facts = vec![called("one"), is(&leaver, "bob"), is(&renamed, "carl")];
    store.state(facts, None).await.expect("is durable");
    store.state(vec![gone(&leaver)], None).await.expect("is durable");
    store
        .state(vec![is(&newcomer, "bob"), is(&renamed, "carla"), called("two")], None)
        .await
        .expect("is durable");
    store.state(Vec::new(), None).await.expect("is nothing");
    let known = Register::clone(&store.register());
    store.close();
    let who = |name: &str| known.entity_called("m-1", name).map(|(id, _)| id.clone());
    assert_eq!([who("bob"), who("carla"), who("carl")], [Some(newcomer), Some(renamed), None]);
    assert_eq!(known.organization_called("two").map(|id| &**id), Some("m-1"));
    assert_eq!(known.organization_called("one"), None);
    assert_eq!(known.entity("m-1", &leaver).and_then(|it| it.gone_at), Some(NOW));
    known
}

#[tokio::test]
async fn who_is_who_is_known_after_a_restart_and_without_the_index() {
    let scratch = Scratch::new();
    let known = town(&scratch).await;
    assert_eq!(reader::register(&scratch.settings).expect("reads"), known);
    forget_index_and_events(&scratch.settings.data_dir);
    assert_eq!(reader::register(&scratch.settings).expect("reads the log"), known);
    let store = scratch.open();
    assert_eq!(*store.register(), known, "the index is made again");
    assert_eq!(Reader::open(&scratch.settings).expect("opens").register(), &known, "beside it");
    store.close();
}

#[tokio::test]
async fn a_reader_knows_what_the_index_does_not() {
    let scratch = Scratch::new();
    scratch.open().close();
    let id = EntityId::generate(USER);
    scratch
        .without_the_index(async |store: &Store| {
            store.state(vec![is(&id, "bob")], None).await.expect("is durable");
        })
        .await;
    for register in [
        reader::register(&scratch.settings).expect("reads"),
        Reader::open(&scratch.settings).expect("opens").register().clone(),
    ] {
        assert_eq!(register.entity_called("m-1", "bob").map(|(id, _)| id), Some(&id));
    }
}

#[test]
fn nobody_is_known_where_there_is_no_store() {
    let scratch = Scratch::new();
    assert_eq!(reader::register(&scratch.settings).expect("reads"), Register::default());
}

/// What is said of somebody who is gone is kept as long as what is said of those who are there.
#[tokio::test]
async fn compaction_forgets_nobody() {
    let mut scratch = Scratch::with_small_segments(1); // A segment for each commit.
    let known = town(&scratch).await;
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    scratch.settings.segment_bytes = 100_000;
    assert!(!scratch.compact(tomorrow()).is_empty());
    let first = scratch.log_files().remove(0);
    assert!(first.base == 0 && first.pack.is_some(), "what was said is in a pack: {first:?}");
    forget_index_and_events(&scratch.settings.data_dir);
    assert_eq!(reader::register(&scratch.settings).expect("reads the pack"), known);
}

/// An index that says otherwise than the log would let somebody in as somebody else.
#[tokio::test]
async fn fsck_tells_of_an_index_that_says_otherwise() {
    let scratch = Scratch::new();
    town(&scratch).await;
    let problems = || {
        let report =
            fsck::check(&scratch.settings, &EventSettings::default(), fsck::Depth::Contents);
        report.expect("checks").problems
    };
    assert_eq!(problems(), Vec::<String>::new());
    let index = rusqlite::Connection::open(scratch.settings.data_dir.join("index.sqlite"));
    let changed =
        index.expect("opens").execute("UPDATE entity SET name = 'x' WHERE name = 'bob'", []);
    assert_eq!(changed, Ok(2));
    assert_eq!(problems(), ["the index says otherwise than the log who is who"]);
}
