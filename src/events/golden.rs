//! One golden line for each kind of event. `MAILWEIR_WRITE_GOLDEN=1` writes them anew, to be
//! reviewed as a diff.

use super::*;
use crate::clock::Timestamp;
use crate::mail::{DmarcPolicy, Verdict};

fn check(name: &str, event: Event) {
    let line = EventLine {
        trace_id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
        event,
        event_timestamp: Timestamp::from_millis(1_795_235_486_123),
        organization_id: "m-5da3381ced335dc4845927223e1a23b7".into(),
    };
    let mut found = Vec::new();
    line::finish_line(&line.encode(), EventId { lsn: Lsn(8), index: 0 }, &mut found);
    let path = format!("{}/fixtures/golden/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("writes");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&golden), "{name}");
}

fn received() -> EmailReceived {
    EmailReceived {
        recipients: vec!["alice@example.test".into(), "sales@example.test".into()],
        sender: Some("assistant@good.test".into()),
        from: Some("bob@good.test".into()),
        subject: Some("Lunch on \"Friday\"?".into()),
        message_id: Some("<1@good.test>".into()),
        spam_verdict: Verdict::Disabled,
        dkim_verdict: Verdict::Gray,
        dmarc_verdict: Verdict::Fail,
        dmarc_policy: Some(DmarcPolicy::Quarantine),
        spf_verdict: Verdict::ProcessingFailed,
        message_timestamp: Timestamp::from_millis(1_795_235_486_100),
    }
}

#[test]
fn every_kind_has_its_golden_line() {
    check("ORGANIZATION_EMAIL_RECEIVED", Event::EmailReceived(received()));
    let bare = EmailReceived {
        sender: None,
        from: None,
        subject: None,
        message_id: None,
        dmarc_verdict: Verdict::Pass,
        dmarc_policy: None,
        ..received()
    };
    check("ORGANIZATION_EMAIL_RECEIVED.bare", Event::EmailReceived(bare));
    check(
        "DMARC_POLICY_APPLIED",
        Event::DmarcPolicyApplied(DmarcPolicyApplied {
            from: Some("bob@good.test".into()),
            recipients: vec!["alice@example.test".into()],
            policy: DmarcPolicy::Reject,
        }),
    );
    let actions = vec![RuleActionApplied {
        action: "MOVE_TO_JUNK".into(),
        recipients: vec!["alice@example.test".into()],
    }];
    check(
        "RULE_APPLIED",
        Event::RuleApplied(RuleApplied {
            rule_name: "newsletters".into(),
            rule_type: RuleType::InboundRule,
            rule_actions: actions,
            target_folder: None,
            target_recipient: None,
        }),
    );
    mailbox_rules();
    let journaling_address = "archive@example.test".into();
    check(
        "JOURNALING_INITIATED",
        Event::JournalingInitiated(JournalingInitiated { journaling_address }),
    );
    check(
        "MAILBOX_EMAIL_DELIVERED",
        Event::MailboxDelivered(MailboxDelivered {
            recipient: "alice@example.test".into(),
            folder: "JUNK_EMAIL".into(),
        }),
    );
    let bounced_recipient = BouncedRecipient {
        email_address: "alice@example.test".into(),
        reason: "Mailbox full".into(),
        status: "5.2.2".into(),
    };
    check("INCOMING_EMAIL_BOUNCED", Event::IncomingBounced(IncomingBounced { bounced_recipient }));
}

#[test]
fn every_outgoing_kind_has_its_golden_line() {
    let (sender, from) = (Some("bob@example.test".into()), Some("alice@example.test".into()));
    check(
        "OUTGOING_EMAIL_SUBMITTED",
        Event::OutgoingSubmitted(OutgoingSubmitted {
            recipients: vec!["carol@far.test".into(), "dan@example.test".into()],
            sender: sender.clone(),
            from: from.clone(),
            subject: Some("Lunch on \"Friday\"?".into()),
        }),
    );
    check(
        "OUTGOING_EMAIL_SENT",
        Event::OutgoingSent(OutgoingSent {
            recipient: "carol@far.test".into(),
            sender,
            from,
            message_id: Some("<1@example.test>".into()),
        }),
    );
    check(
        "OUTGOING_EMAIL_BOUNCED",
        Event::OutgoingBounced(OutgoingBounced::new(BouncedRecipient {
            email_address: "carol@far.test".into(),
            reason: "no such user".into(),
            status: "5.1.1".into(),
        })),
    );
}

fn mailbox_rules() {
    let check = |name: &str, action: &str, target_folder: Option<&str>, to: Option<&str>| {
        let recipients = vec!["alice@example.test".into()];
        let applied = RuleApplied {
            rule_name: "invoices".into(),
            rule_type: RuleType::MailboxRule,
            rule_actions: vec![RuleActionApplied { action: action.into(), recipients }],
            target_folder: target_folder.map(Into::into),
            target_recipient: to.map(Into::into),
        };
        check(name, Event::RuleApplied(applied));
    };
    check("RULE_APPLIED.move", "MOVE", Some("DRAFTS"), None);
    check("RULE_APPLIED.redirect", "REDIRECT", None, Some("accounts@partner.test"));
    check("RULE_APPLIED.delete", "DELETE", None, None);
}
