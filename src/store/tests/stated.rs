//! What is said of organizations stays said, whatever happens to the store.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::clock::{Clock, SystemClock};

fn said(organization: &str, about: &str, fact: &serde_json::Value) -> Said {
    let organization = organization.into();
    let about = about.into();
    Said { organization, about, format: FACT_FORMAT, fact: raw(fact) }
}

fn stated(said: Vec<Said>) -> Option<Stated> {
    let by = By::Operator { uid: Some(0), name: "root".into() };
    Some(Stated { at: NOW, by, command: "reload".into(), said })
}

/// A store in which something was said three times, of two organizations; and where.
async fn town(scratch: &Scratch) -> Vec<u64> {
    let store = scratch.open();
    assert_eq!(store.version(), 0, "nothing was said yet");
    let mut versions = Vec::new();
    for said in [
        vec![said("m-1", "alias", &json!("one")), said("m-2", "alias", &json!("two"))],
        vec![said("m-1", "alias", &json!("other")), said("m-1", "domains", &json!(["a.test"]))],
        vec![said("m-2", "domains", &json!(["b.test"]))],
    ] {
        store.state(Vec::new(), stated(said)).await.expect("is durable");
        versions.push(store.version());
    }
    store.state(Vec::new(), None).await.expect("is nothing");
    store.state(Vec::new(), stated(Vec::new())).await.expect("is nothing");
    assert_eq!(store.version(), versions[2], "of nothing there is no version");
    assert!(versions.is_sorted_by(|one, other| one < other), "{versions:?}");
    store.close();
    versions
}

/// All that is known, as it can be asked for.
fn known(scratch: &Scratch) -> (BTreeMap<Lsn, Stated>, Vec<String>) {
    let statements = reader::statements(&scratch.settings, None).expect("reads");
    let mut now = Vec::new();
    for organization in ["m-1", "m-2"] {
        let of_one = reader::statements(&scratch.settings, Some(organization)).expect("reads");
        let said = of_one.values().flat_map(|stated| &stated.said);
        assert!(
            said.clone().count() > 0 && said.clone().all(|it| &*it.organization == organization)
        );
        for (about, said) in reader::said(&scratch.settings, organization).expect("reads") {
            now.push(format!("{organization} {about} {}", said.fact));
        }
    }
    (statements, now)
}

const NOW_SAID: [&str; 4] = [
    r#"m-1 alias "other""#,
    r#"m-1 domains ["a.test"]"#,
    r#"m-2 alias "two""#,
    r#"m-2 domains ["b.test"]"#,
];

#[tokio::test]
async fn what_was_said_is_known_after_a_restart_and_without_the_index() {
    let scratch = Scratch::new();
    let versions = town(&scratch).await;
    let (statements, now) = known(&scratch);
    assert_eq!(now, NOW_SAID);
    assert_eq!(statements.keys().map(|lsn| lsn.0).collect::<Vec<_>>(), versions);
    let first = &statements[&Lsn(versions[0])];
    assert_eq!(Some(first.clone()), stated(first.said.clone()), "with who, when and by what");
    forget_index_and_events(&scratch.settings.data_dir);
    assert_eq!(known(&scratch), (statements.clone(), now.clone()), "the log says so");
    let store = scratch.open();
    assert_eq!(store.version(), versions[2], "a version is the same after a restart");
    assert_eq!(known(&scratch), (statements, now), "the index is made again");
    store.close();
}

#[tokio::test]
async fn a_reader_knows_what_was_said_that_the_index_does_not() {
    let scratch = Scratch::new();
    scratch.open().close();
    scratch
        .without_the_index(async |store: &Store| {
            for alias in ["one", "other"] {
                let said = vec![said("m-1", "alias", &json!(alias)), said("m-2", "a", &json!(1))];
                store.state(Vec::new(), stated(said)).await.expect("is durable");
            }
        })
        .await;
    let (statements, now) = known(&scratch);
    assert_eq!(
        (statements.len(), now),
        (2, vec![r#"m-1 alias "other""#.to_owned(), "m-2 a 1".to_owned()])
    );
}

#[tokio::test]
async fn compaction_keeps_what_was_said() {
    let mut scratch = Scratch::with_small_segments(1); // A segment for each commit.
    let versions = town(&scratch).await;
    let before = known(&scratch);
    let store = scratch.open();
    for text in ["one", "two", "three"] {
        deliver(&store, &["alice"], text).await;
    }
    store.close();
    scratch.settings.segment_bytes = 100_000;
    let tomorrow = SystemClock.now().plus(Duration::from_secs(86_400));
    assert!(!scratch.compact(tomorrow).is_empty());
    let first = scratch.log_files().remove(0);
    assert!(first.base == 0 && first.pack.is_some(), "what was said is in a pack: {first:?}");
    forget_index_and_events(&scratch.settings.data_dir);
    assert_eq!(known(&scratch), before);
    let store = scratch.open();
    assert_eq!(store.version(), versions[2]);
    store.close();
}

#[tokio::test]
async fn fsck_tells_of_an_index_that_says_otherwise_what_was_said() {
    let scratch = Scratch::new();
    town(&scratch).await;
    let problems = || {
        let report =
            fsck::check(&scratch.settings, &EventSettings::default(), fsck::Depth::Contents);
        report.expect("checks").problems
    };
    assert_eq!(problems(), Vec::<String>::new());
    let index = rusqlite::Connection::open(scratch.settings.data_dir.join("index.sqlite"));
    let index = index.expect("opens");
    assert_eq!(index.execute("UPDATE said SET fact = '1' WHERE about = 'domains'", []), Ok(2));
    assert_eq!(
        problems(),
        ["the index says otherwise than the log what was said of organizations"]
    );
}

/// A later version may say of something what this one would take for something else.
#[tokio::test]
async fn a_later_form_of_a_fact_stops_the_start() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let later = Said { format: FACT_FORMAT + 1, ..said("m-1", "alias", &json!("one")) };
    store.state(Vec::new(), stated(vec![later])).await.expect("is durable");
    store.close();
    forget_index_and_events(&scratch.settings.data_dir);
    let error = Store::open(&scratch.settings, &EventSettings::default()).expect_err("is later");
    let told = error.to_string();
    assert!(matches!(error, StoreError::UnknownRecord { .. }), "{told}");
    assert!(told.contains("a fact of form 2; this version knows 1"), "{told}");
}
