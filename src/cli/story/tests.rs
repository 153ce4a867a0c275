use serde_json::json;

use super::*;
use crate::pipeline::TransportStory;

fn told(story: Value, joined: Vec<Joined>) -> String {
    tell(&Trace { story: Some(story), joined, ..Trace::new("1") })
}

#[test]
fn what_mailbox_rules_did_is_told() {
    let story = json!({
        "mailboxRules": [
            { "mailbox": "alice", "rule": "lists", "action": "MOVE", "targetFolder": "DRAFTS" },
            { "mailbox": "alice", "rule": "out", "action": "FORWARD",
              "targetRecipient": "erin@elsewhere.test" },
            { "mailbox": "bob", "rule": "noise", "action": "DELETE" },
        ],
        "withheld": [{ "mailbox": "bob", "reason": "loop" }],
        "sentOn": [{ "from": "alice@example.test", "to": "erin@elsewhere.test", "trace": "2" }],
    });
    let on =
        Joined { relation: Relation::SentOn, trace_id: "2".into(), to: Vec::new(), became: None };
    let told = told(story, vec![on]);
    for expected in [
        "\n  mailbox alice: its rule \"lists\" says MOVE to folder DRAFTS\n",
        "\n  mailbox alice: its rule \"out\" says FORWARD to erin@elsewhere.test\n",
        "\n  mailbox bob: its rule \"noise\" says DELETE\n",
        "\n  mailbox bob: not sent on [loop]\n",
        "\n  sent on from alice@example.test to erin@elsewhere.test in trace 2\n",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
    assert_eq!(told.matches("trace 2").count(), 1, "{told}");
}

#[test]
fn a_refusal_is_reported_by_whoever_was_told() {
    for (peer, expected) in [
        (json!({}), "the sender's server reports it"),
        (json!({ "login": { "user": "bob" } }), "the user's mail program was told"),
    ] {
        let told = told(json!({ "peer": peer, "refused": "blocked-attachment" }), vec![]);
        let expected = format!("\n  refused in session [blocked-attachment]: {expected}\n");
        assert!(told.contains(&expected), "no {expected} in\n{told}");
    }
}

#[test]
fn a_bounce_has_the_reason_that_it_has() {
    let spam = json!({ "spam": { "because": "not-spam" } });
    let inbound = |reason: &str, basis: &Value| {
        let recipient = json!({ "address": "a@x.test", "disposition": { "bounce": reason },
                                "basis": basis });
        told(json!({ "recipients": [recipient] }), vec![])
    };
    let full = inbound("mailbox-full", &spam);
    assert!(full.contains("bounced [mailbox-full], because the mailbox is full\n"), "{full}");
    let dmarc = inbound("dmarc-reject", &json!("dmarc"));
    assert!(dmarc.contains("[dmarc-reject], because the DMARC policy of"), "{dmarc}");
    let outbound = |reason: &str, detail: Option<&str>| {
        let recipient = json!({ "address": "a@x.test", "disposition": { "bounce": reason },
                                "detail": detail });
        told(json!({ "outboundRecipients": [recipient] }), vec![])
    };
    for (reason, detail, expected) in [
        ("sender-not-allowed", None, ", because the user may not send as the message's author"),
        ("blocked-attachment", Some("a.exe is one"), ", because a.exe is one"),
        ("too-many-hops", None, ""),
        ("outbound-rule-bounce", None, ", because no rule matches"),
    ] {
        let told = outbound(reason, detail);
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
        let mut story = json!({ "headers": { "sender": "s@s.test" } });
        passed_over.into_iter().for_each(|rule| recipient["passedOver"] = rule);
        proof.into_iter().for_each(|proof| story["senderProof"] = proof.into());
        story["recipients"] = json!([recipient]);
        let told = told(story, vec![]);
        assert!(told.contains(expected), "no {expected} in\n{told}");
    };
    let by_sender = json!({ "rule": rule("never", "BYPASS_SPAM_CHECK", "Sender") });
    check(Some("dkim"), by_sender, None, "\n    Sender authenticated by DKIM\n");
    let no_rule = json!({ "spam": { "because": "not-spam" } });
    let never = Some(rule("never", "BYPASS_SPAM_CHECK", "Sender"));
    check(None, no_rule.clone(), never.clone(), "\n    Sender not authenticated: a rule");
    check(
        None,
        no_rule,
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
    let story = |verdict: &str| json!({ "spam": { "verdict": verdict, "detail": "it is down" } });
    let failed = told(story("PROCESSING_FAILED"), vec![]);
    assert!(failed.contains("  spam PROCESSING_FAILED: it is down\n"), "{failed}");
    let passed = told(story("PASS"), vec![]);
    assert!(passed.contains("  spam PASS\n"), "{passed}");
}

#[test]
fn a_story_without_mailbox_rules_says_nothing_of_them() {
    let told = told(json!({ "deliveries": [{ "mailbox": "alice", "folder": "INBOX" }] }), vec![]);
    assert!(told.contains("mailbox alice: INBOX"), "{told}");
    assert!(!told.contains("rule") && !told.contains("sent on"), "{told}");
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
        let told =
            told(json!({}), vec![Joined { relation, trace_id: "2".into(), to, became: None }]);
        assert!(told.contains(&format!("\n  {expected}\n")), "no {expected} in\n{told}");
    }
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
    let submitted = |story: Value, user: &str| {
        let mut story = story;
        story["submittedAt"] = 1.into();
        story["peer"] = json!({ "login": { "user": user } });
        told(story, vec![])
    };
    let by = |selectors: Value| json!([{ "domain": "x.test", "selectors": selectors }]);
    let signed = json!({ "outboundRecipients": queued, "signatures": by(json!(["mw1r", "mw1e"])) });
    let signed = submitted(signed, "bob");
    assert!(signed.contains("\n  signed by x.test (selector mw1r, mw1e)\n"), "{signed}");
    let unsigned = json!({ "outboundRecipients": queued, "signatures": by(json!([])) });
    let unsigned = submitted(unsigned, "bob");
    assert!(unsigned.contains("\n  not signed by x.test, which has no keys"), "{unsigned}");
    let sent_on = submitted(json!({ "outboundRecipients": queued }), "");
    assert!(sent_on.contains("\n  not signed here: it is sent on with"), "{sent_on}");
    let here = json!([{ "address": "x@x.test", "disposition": "here" }]);
    let here = submitted(json!({ "outboundRecipients": here }), "bob");
    assert!(!here.contains("signed"), "{here}");
}

#[test]
fn mail_of_our_own_is_told_as_what_it_is() {
    let own = json!({ "ownMail": "journalRecord", "about": "1", "to": "vault@far.test",
                      "signatures": { "domain": "x.test", "selectors": ["mw1r"] } });
    let told = told(own, vec![]);
    let expected = "trace 1\n  a journal record of ours to vault@far.test\n  signed by x.test";
    assert!(told.starts_with(expected), "{told}");
    assert!(!told.contains("DMARC") && !told.contains("organization"), "{told}");
}
