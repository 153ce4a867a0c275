use std::fs;

use serde_json::{Value, json};

use super::*;

/// All fixtures, with their kinds.
fn fixtures() -> Vec<(String, store::Story)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/stories");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let kind = match name.as_str() {
            "submitted" | "submitted-refused" | "sent-on" => StoryKind::Leaving,
            "settled" => StoryKind::Settled,
            "reported" | "notice" | "journal-record" => StoryKind::Own,
            _ => StoryKind::Received,
        };
        let text = fs::read_to_string(&path).expect("reads");
        found.push((name, story(kind, text.trim_end())));
    }
    found
}

fn story(kind: StoryKind, text: &str) -> store::Story {
    let told = serde_json::from_str(text).expect("is JSON");
    let trace_id = TraceId::generate();
    store::Story { trace_id, kind, version: VERSION, told, is_listed: false }
}

/// A story that was read, as it is written again.
fn again(story: &AnyStory) -> String {
    let written = match story {
        AnyStory::Received(story) => serde_json::to_string(story),
        AnyStory::Leaving(story) => serde_json::to_string(story),
        AnyStory::Settled(story) => serde_json::to_string(story),
        AnyStory::Own(story) => serde_json::to_string(story),
    };
    written.expect("is written")
}

#[test]
fn a_story_is_read_as_it_was_written() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 10, "{} fixtures", fixtures.len());
    for (name, story) in fixtures {
        let read = AnyStory::read(&story).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again(&read), story.told.get(), "{name}");
    }
}

/// The places of all objects in a value.
fn objects(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                objects(field, format!("{path}/{name}"), found);
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
fn what_a_story_says_that_is_not_known_is_refused_wherever_it_stands() {
    for (name, story) in fixtures() {
        let value: Value = serde_json::from_str(story.told.get()).expect("is JSON");
        let mut paths = Vec::new();
        objects(&value, String::new(), &mut paths);
        for path in paths {
            let mut later = value.clone();
            let fields = later.pointer_mut(&path).and_then(Value::as_object_mut);
            fields.expect("an object").insert("later".into(), json!(1));
            let told = serde_json::value::to_raw_value(&later).expect("is JSON");
            let read = AnyStory::read(&store::Story { told, ..story.clone() });
            assert!(read.is_err(), "{name} takes another field in {path:?}");
        }
        for version in [0, VERSION + 1] {
            let other = store::Story { version, ..story.clone() };
            let error = AnyStory::read(&other).expect_err("another version").to_string();
            assert!(error.contains(&format!("it is of version {version}")), "{error}");
        }
    }
    for (kind, field, value) in [
        (StoryKind::Received, "/recipients/0/disposition", json!("later")),
        (StoryKind::Received, "/recipients/0/basis", json!("later")),
        (StoryKind::Received, "/recipients/0/passedOver/action", json!("LATER")),
        (StoryKind::Received, "/mailboxRules/0/action", json!("LATER")),
        (StoryKind::Received, "/withheld/0/reason", json!("later")),
        (StoryKind::Received, "/senderProof", json!("later")),
        (StoryKind::Leaving, "/outboundRecipients/0/disposition", json!("later")),
        (StoryKind::Leaving, "/outboundRecipients/1/rule/gateway", Value::Null),
        (StoryKind::Settled, "/transport/0/result", json!("later")),
        (StoryKind::Own, "/ownMail", json!("later")),
    ] {
        let is_full = |(name, _): &(String, store::Story)| {
            ["received", "submitted", "settled", "reported"].contains(&name.as_str())
        };
        let mut all = fixtures().into_iter().filter(is_full);
        let (_, story) = all.find(|(_, story)| story.kind == kind).expect("there is one");
        let mut later: Value = serde_json::from_str(story.told.get()).expect("is JSON");
        *later.pointer_mut(field).expect("is there") = value;
        let told = serde_json::value::to_raw_value(&later).expect("is JSON");
        assert!(AnyStory::read(&store::Story { told, ..story }).is_err(), "{field}");
    }
}

/// What is not told in the place where others look for it is not lost.
#[test]
fn headers_lose_nothing() {
    let message = "From: a@b.test, c@b.test\r\nSender: nobody\r\nSubject: one\r\nSubject: two\r\n\
                   Message-ID: <1@b.test>\r\n\r\n";
    let settings = crate::pipeline::Settings::default();
    let turn = crate::heavy::Turn::of_a_test();
    let inspect = crate::pipeline::facts::headers::inspect;
    let headers = inspect(&turn, message.as_bytes(), &settings).expect("is taken");
    assert_eq!((headers.authors().len(), headers.more_subjects().len()), (2, 1));
    assert!(headers.unread_sender().is_some());
    let written = serde_json::to_string(&headers).expect("is written");
    assert_eq!(serde_json::from_str::<Headers>(&written).expect("is read"), headers);
}
