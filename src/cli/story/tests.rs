use std::fs;

use serde_json::json;

use super::*;
use crate::pipeline::TransportStory;
use crate::pipeline::story::AnyStory;

/// A story as it is written, with other fields in the place of some of its own.
fn fields(fixture: &str, other: Value) -> Value {
    let path = format!("{}/fixtures/stories/{fixture}.json", env!("CARGO_MANIFEST_DIR"));
    let mut story: Value =
        serde_json::from_slice(&fs::read(path).expect("reads")).expect("is JSON");
    let story_fields = story.as_object_mut().expect("an object");
    for rare in [
        "dmarcApplied",
        "mailboxRules",
        "withheld",
        "sentOn",
        "sentOnFrom",
        "submittedIn",
        "signatures",
        "journaledTo",
        "notJournaled",
        "refused",
        "refusedFor",
        "senderProof",
    ] {
        story_fields.remove(rare);
    }
    for list in ["recipients", "deliveries", "outboundRecipients"] {
        story_fields.entry(list).and_modify(|list| *list = json!([]));
    }
    story_fields.extend(other.as_object().expect("an object").clone());
    story
}

/// A story of a message that came.
pub(in crate::cli) fn received(other: Value) -> AnyStory {
    let story = fields("received", other);
    AnyStory::Received(serde_json::from_value(story).expect("is one"))
}

/// A story of a message that a user submits.
pub(in crate::cli) fn leaving(other: Value) -> AnyStory {
    let story = fields("submitted", other);
    AnyStory::Leaving(serde_json::from_value(story).expect("is one"))
}

/// A story of mail of our own.
pub(in crate::cli) fn own(story: Value) -> AnyStory {
    AnyStory::Own(serde_json::from_value(story).expect("is one"))
}

fn told(story: AnyStory, joined: Vec<Joined>) -> String {
    tell(&Trace { story: Some(story), joined, ..Trace::new("1") })
}

const TRACE: &str = "019b0000-0000-7000-8000-000000000002";
const ENTITY: &str = "019b0000-0000-7000-8000-00000000000a";

/// What decided where no rule did.
fn not_spam() -> Value {
    json!({ "spam": { "because": "not-spam" } })
}

#[test]
fn what_mailbox_rules_did_is_told() {
    let (alice, bob) = ("alice@example.test", "bob@example.test");
    let story = json!({
        "mailboxRules": [
            { "mailbox": alice, "rule": "lists", "action": "MOVE", "targetFolder": "DRAFTS" },
            { "mailbox": alice, "rule": "out", "action": "FORWARD",
              "targetRecipient": "erin@elsewhere.test" },
            { "mailbox": bob, "rule": "noise", "action": "DELETE" },
        ],
        "withheld": [{ "mailbox": bob, "reason": "loop" }],
        "sentOn": [{ "from": alice, "entity": ENTITY, "to": "erin@elsewhere.test",
                     "trace": TRACE }],
    });
    let relation = Relation::SentOn;
    let trace_id = TRACE.into();
    let on = Joined { relation, trace_id, to: Vec::new(), became: None };
    let told = told(received(story), vec![on]);
    for expected in [
        "\n  mailbox alice@example.test: its rule \"lists\" says MOVE to folder DRAFTS\n",
        "\n  mailbox alice@example.test: its rule \"out\" says FORWARD to erin@elsewhere.test\n",
        "\n  mailbox bob@example.test: its rule \"noise\" says DELETE\n",
        "\n  mailbox bob@example.test: not sent on [loop]\n",
        "\n  sent on from alice@example.test to erin@elsewhere.test in trace 019b0000-",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
    assert_eq!(told.matches(TRACE).count(), 1, "{told}");
}

/// A client of another server, or a user.
fn peer(user: Option<&str>) -> Value {
    let mut peer = json!({ "ip": "192.0.2.1", "port": 40_000, "helo": "client.test",
                           "esmtp": true, "tls": null });
    if let Some(user) = user {
        peer["login"] = json!({ "organization": "m-1", "id": ENTITY, "user": user });
    }
    peer
}

#[test]
fn a_refusal_is_reported_by_whoever_was_told() {
    let refused = |user| json!({ "peer": peer(user), "refused": "blocked-attachment" });
    for (story, expected) in [
        (received(refused(None)), "the sender's server reports it"),
        (leaving(refused(Some("bob"))), "the user's mail program was told"),
    ] {
        let told = told(story, vec![]);
        let expected = format!("\n  refused in session [blocked-attachment]: {expected}\n");
        assert!(told.contains(&expected), "no {expected} in\n{told}");
    }
}

#[test]
fn a_bounce_has_the_reason_that_it_has() {
    let inbound = |reason: &str, basis: &Value| {
        let recipient = json!({ "address": "a@x.test", "disposition": { "bounce": reason },
                                "basis": basis });
        told(received(json!({ "recipients": [recipient] })), vec![])
    };
    let full = inbound("mailbox-full", &not_spam());
    assert!(full.contains("bounced [mailbox-full], because the mailbox is full\n"), "{full}");
    let dmarc = inbound("dmarc-reject", &json!("dmarc"));
    assert!(dmarc.contains("[dmarc-reject], because the DMARC policy of"), "{dmarc}");
    for (reason, expected) in [
        ("sender-not-allowed", ", because the user may not send as the message's author"),
        ("too-many-hops", ""),
        ("outbound-rule-bounce", ", because no rule matches"),
    ] {
        let recipient = json!({ "address": "a@x.test", "disposition": { "bounce": reason } });
        let told = told(leaving(json!({ "outboundRecipients": [recipient] })), vec![]);
        let expected = format!("\n  a@x.test: bounced [{reason}]{expected}\n");
        assert!(told.contains(&expected), "no {expected} in\n{told}");
    }
}

#[test]
fn which_field_counted_is_told_and_why() {
    let rule = |name: &str, action: &str, author: &str| {
        json!({ "name": name, "action": action, "author": author, "senderPattern": "s.test",
                "destinationPattern": "*" })
    };
    let check = |proof: Option<&str>, basis: Value, passed_over: Option<Value>, expected: &str| {
        let mut recipient = json!({ "address": "a@x.test", "disposition": { "deliver": "INBOX" },
                                    "basis": basis });
        let mut story = json!({ "headers": { "from": "a@s.test", "sender": "s@s.test" } });
        passed_over.into_iter().for_each(|rule| recipient["passedOver"] = rule);
        proof.into_iter().for_each(|proof| story["senderProof"] = proof.into());
        story["recipients"] = json!([recipient]);
        let told = told(received(story), vec![]);
        assert!(told.contains(expected), "no {expected} in\n{told}");
    };
    let by_sender = json!({ "rule": rule("never", "BYPASS_SPAM_CHECK", "Sender") });
    check(Some("dkim"), by_sender, None, "\n    Sender authenticated by DKIM\n");
    let never = Some(rule("never", "BYPASS_SPAM_CHECK", "Sender"));
    check(None, not_spam(), never.clone(), "\n    Sender not authenticated: a rule");
    check(
        None,
        not_spam(),
        never,
        "because no rule matches, and it is not spam; rule \"never\" (BYPASS_SPAM_CHECK) matches \
         Sender s.test and *, but the Sender is not authenticated and may not relax this\n",
    );
    let junk = json!({ "rule": rule("junk", "MOVE_TO_JUNK", "Sender") });
    let mild = Some(rule("mild", "DEFAULT", "From"));
    check(
        None,
        junk,
        mild,
        "because rule \"junk\" (MOVE_TO_JUNK) matches Sender s.test and *; rule \"mild\" (DEFAULT) \
         matches From s.test and *, but the rule for the Sender is at least as strict\n",
    );
}

#[test]
fn a_scanner_that_failed_is_told_with_its_error() {
    let told = |verdict: &str| {
        let spam = json!({ "verdict": verdict, "detail": "it is down" });
        told(received(json!({ "spam": spam })), vec![])
    };
    let failed = told("PROCESSING_FAILED");
    assert!(failed.contains("  spam PROCESSING_FAILED: it is down\n"), "{failed}");
    let passed = told("PASS");
    assert!(passed.contains("  spam PASS\n"), "{passed}");
}

#[test]
fn a_story_without_mailbox_rules_says_nothing_of_them() {
    let delivery = json!({ "mailbox": "alice", "entity": ENTITY, "folder": "INBOX" });
    let told = told(received(json!({ "deliveries": [delivery] })), vec![]);
    assert!(told.contains("mailbox alice: INBOX"), "{told}");
    assert!(!told.contains("its rule") && !told.contains("sent on"), "{told}");
}

#[test]
fn what_belongs_to_a_trace_is_told() {
    for (relation, to, expected) in [
        (Relation::Outbound, "", "submitted in trace 2"),
        (Relation::Inbound, "bob@x.test", "received here in trace 2 for bob@x.test"),
        (Relation::SentOnFrom, "", "sent on from trace 2"),
        (Relation::Report, "ann@x.test", "reported to ann@x.test in trace 2"),
        (Relation::Notice, "ann@x.test", "notice to ann@x.test in trace 2"),
        (Relation::JournalRecord, "ann@x.test", "journal record to ann@x.test in trace 2"),
        (Relation::About, "", "about trace 2"),
    ] {
        let to = Some(to.to_owned()).filter(|to| !to.is_empty()).into_iter().collect();
        let joined = Joined { relation, trace_id: "2".into(), to, became: None };
        let told = told(received(json!({})), vec![joined]);
        assert!(told.contains(&format!("\n  {expected}\n")), "no {expected} in\n{told}");
    }
}

#[test]
fn a_story_of_another_version_is_told_to_be_one() {
    let unread_story = Some("the story of trace 1 is not one that".to_owned());
    let told = tell(&Trace { unread_story, ..Trace::new("1") });
    assert_eq!(
        told,
        "trace 1\n  its story is not told here: the story of trace 1 is not one that\n"
    );
}

/// All authors of a message stand beside its story where there are several.
#[test]
fn json_shows_all_authors() {
    let shown = |story: AnyStory| {
        let trace = Trace { story: Some(story), ..Trace::new("1") };
        let shown = serde_json::to_value(&trace).expect("is JSON");
        shown["story"].clone()
    };
    let headers = json!({ "from": "a@x.test", "moreAuthors": ["b@x.test"] });
    let several = json!(["a@x.test", "b@x.test"]);
    for story in [received(json!({ "headers": headers })), leaving(json!({ "headers": headers }))] {
        let shown = shown(story);
        assert_eq!((&shown["authors"], &shown["headers"]["from"]), (&several, &"a@x.test".into()));
    }
    let one = shown(received(json!({ "headers": { "from": "a@x.test" } })));
    assert_eq!(one.get("authors"), None);
}

#[test]
fn who_took_it_and_who_did_not_is_told() {
    let server = r#""server":"mx.far.test","address":"192.0.2.25:25""#;
    let bob = r#""at":1,"recipients":["bob@far.test"]"#;
    let many: Vec<_> = (0..12).map(|number| format!("\"u{number}@far.test\"")).collect();
    let many = format!(r#""at":1,"recipients":[{}]"#, many.join(","));
    let told_of = |fields: &str| {
        let story = format!(r#"{{"entry":"1f40.0.0.0","transport":[{{{fields}}}]}}"#);
        let TransportStory { transport, .. } = serde_json::from_str(&story).expect("reads");
        tell(&Trace { transport, ..Trace::new("1") })
    };
    for (fields, expected) in [
        (
            format!(r#"{bob},"result":"sent",{server},"reply":"250 2.0.0 4X","tls":"TLSv1.3 A""#),
            "bob@far.test: sent to mx.far.test (192.0.2.25:25), TLSv1.3 A: 250 2.0.0 4X",
        ),
        (
            format!(r#"{bob},"result":"sent",{server},"reply":"250 4X""#),
            "bob@far.test: sent to mx.far.test (192.0.2.25:25), no TLS: 250 4X",
        ),
        (
            format!(r#"{bob},"result":"sent",{server},"reply":"250 4X","noTls":"it is old""#),
            "sent to mx.far.test (192.0.2.25:25), in plain text because it is old: 250 4X",
        ),
        (
            format!(r#"{bob},"result":"bounced",{server},"reply":"550 5.1.1 no","stage":"rcpt""#),
            "bob@far.test: bounced, mx.far.test (192.0.2.25:25), RCPT: 550 5.1.1 no",
        ),
        (
            format!(r#"{bob},"result":"bounced","reply":"5.1.2 no such domain""#),
            "bob@far.test: bounced: 5.1.2 no such domain",
        ),
        (
            format!(r#"{bob},"result":"givenUp","reply":"5.7.1 given up""#),
            "bob@far.test: taken out of the queue: 5.7.1 given up",
        ),
        (
            format!(r#"{many},"result":"sent",{server},"reply":"250 4X""#),
            "u8@far.test, u9@far.test, and 2 more: sent to mx.far.test (192.0.2.25:25), no TLS",
        ),
    ] {
        let told = told_of(&fields);
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
}

#[test]
fn who_signed_what_leaves_is_told_and_why_nobody_did() {
    let queued = json!([{ "address": "x@far.test",
                          "disposition": { "queue": { "domain": "far.test" } } }]);
    let by = |selectors: Value| json!([{ "domain": "x.test", "selectors": selectors }]);
    let told = |story: Value| told(leaving(story), vec![]);
    let signatures = by(json!(["mw1r", "mw1e"]));
    let signed = told(json!({ "outboundRecipients": queued, "signatures": signatures }));
    assert!(signed.contains("\n  signed by x.test (selector mw1r, mw1e)\n"), "{signed}");
    let unsigned = told(json!({ "outboundRecipients": queued, "signatures": by(json!([])) }));
    assert!(unsigned.contains("\n  not signed by x.test, which has no keys"), "{unsigned}");
    let sent_on = told(json!({ "outboundRecipients": queued, "sentOnFrom": TRACE }));
    assert!(sent_on.contains("\n  not signed here: it is sent on with"), "{sent_on}");
    let here = told(json!({ "outboundRecipients": [
        { "address": "x@x.test", "disposition": "here" }] }));
    assert!(!here.contains("signed"), "{here}");
}

#[test]
fn mail_of_our_own_is_told_as_what_it_is() {
    let own = own(json!({ "ownMail": "journalRecord", "about": TRACE, "to": "vault@far.test",
                          "signatures": { "domain": "x.test", "selectors": ["mw1r"] } }));
    let told = told(own, vec![]);
    let expected = "trace 1\n  a journal record of ours to vault@far.test\n  signed by x.test";
    assert!(told.starts_with(expected), "{told}");
    assert!(!told.contains("DMARC") && !told.contains("organization"), "{told}");
}
