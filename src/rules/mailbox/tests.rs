use proptest::prelude::*;

use super::*;
use crate::rules::forwarding;

const SECTION: &str = "To: Team <team@example.test>\r\nCc: eve@partner.test\r\n\
                       List-Id: =?utf-8?q?B=C3=BCcher?= <books.list.test>\r\n\
                       X-Flag: no\r\nX-Flag:\r\n YES\r\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

fn rule(name: &str, conditions: Vec<Condition>, action: MailboxAction) -> MailboxRule {
    MailboxRule { name: name.into(), conditions, action, stop: false }
}

fn apply_to(rules: Vec<MailboxRule>, section: &str, folder: Folder) -> MailboxOutcome {
    let (mailbox, recipient) = (address("alice@example.test"), address("Sales@example.test"));
    let (from, sender) = (address("Bob@Good.test"), address("assistant@good.test"));
    let incoming = Incoming {
        recipient: &recipient,
        authors: std::slice::from_ref(&from),
        sender: Some(&sender),
        subject: Some("Re: Grüße"),
        more_subjects: &["secret".to_owned()],
        header_section: section.as_bytes(),
        folder,
    };
    let may_go_to = |_: &Address| forwarding::may_go_on(section.as_bytes(), &mailbox, 0);
    MailboxRules::new(rules).expect("good rules").apply(&incoming, may_go_to)
}

fn apply(actions: &[MailboxAction]) -> MailboxOutcome {
    let rules = actions.iter().enumerate();
    let rules = rules.map(|(place, action)| rule(&format!("r{place}"), vec![], action.clone()));
    apply_to(rules.collect(), SECTION, Folder::Inbox)
}

#[test]
fn conditions_hold_for_what_they_say() {
    let check = |condition: Condition, expected: bool| {
        let rules = vec![rule("r", vec![condition.clone()], MailboxAction::Delete)];
        let found = apply_to(rules, SECTION, Folder::Inbox);
        assert_eq!(!found.applied.is_empty(), expected, "{condition:?}");
    };
    let contains = |text: &str| AddressTest::Contains(Fold::new(text));
    check(Condition::Sender(contains("BOB@")), true);
    check(Condition::Sender(contains("assistant")), true);
    check(Condition::Sender(contains("sales")), false);
    check(Condition::Sender(AddressTest::Equals(address("bob@good.test"))), true);
    check(Condition::Sender(AddressTest::Equals(address("ob@good.test"))), false);
    check(Condition::Sender(AddressTest::Domain(domain("GOOD.test"))), true);
    check(Condition::Sender(AddressTest::Domain(domain("test"))), false);
    check(Condition::Recipient(AddressTest::Equals(address("sales@example.test"))), true);
    check(Condition::Recipient(AddressTest::Equals(address("team@example.test"))), true);
    check(Condition::Recipient(AddressTest::Domain(domain("partner.test"))), true);
    check(Condition::Recipient(AddressTest::Domain(domain("good.test"))), false);
    check(Condition::Subject(TextTest::Contains(Fold::new("GRÜSSE"))), false);
    check(Condition::Subject(TextTest::Contains(Fold::new("GRÜßE"))), true);
    check(Condition::Subject(TextTest::Equals(Fold::new("re: grüße"))), true);
    check(Condition::Subject(TextTest::Equals(Fold::new("grüße"))), false);
    let header = |name: &str, test| Condition::Header(name.into(), test);
    check(header("list-id", TextTest::Contains(Fold::new("bücher <books"))), true);
    check(header("X-Flag", TextTest::Equals(Fold::new("yes"))), true);
    check(header("X-Flag", TextTest::Equals(Fold::new("maybe"))), false);
    check(header("X-None", TextTest::Contains(Fold::new(""))), false);
}

#[test]
fn a_swarm_of_fields_and_a_long_one_are_not_read_to_their_end() {
    let needle = || TextTest::Contains(Fold::new("needle"));
    let rules = || {
        let condition = Condition::Header("X-Flag".into(), needle());
        vec![rule("r", vec![condition], MailboxAction::Delete)]
    };
    let found = |section: &str| apply_to(rules(), section, Folder::Inbox).applied.len();
    let padded = |count: usize| format!("{}X-Flag: needle\r\n", "X: y\r\n".repeat(count));
    assert_eq!((found(&padded(1000)), found(&padded(MAX_SECTION))), (1, 0));
    let long = |count: usize| format!("X-Flag: {}needle\r\n", "x".repeat(count));
    assert_eq!((found(&long(1000)), found(&long(MAX_VALUE))), (1, 0));
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let sender = Condition::Sender(AddressTest::Domain(domain("good.test")));
    let subject = |text: &str| Condition::Subject(TextTest::Contains(Fold::new(text)));
    for (conditions, applies) in [
        (vec![], true),
        (vec![sender.clone()], true),
        (vec![sender.clone(), subject("re:")], true),
        (vec![sender.clone(), subject("secret")], true),
        (vec![sender, subject("fwd:")], false),
    ] {
        let rules = vec![rule("r", conditions.clone(), MailboxAction::Delete)];
        let found = apply_to(rules, SECTION, Folder::Inbox);
        assert_eq!(!found.applied.is_empty(), applies, "{conditions:?}");
    }
}

#[test]
fn actions_add_up_in_their_order() {
    use MailboxAction::{Copy, Delete, Forward, Move, Redirect};
    let check =
        |actions: &[MailboxAction], folder: Option<Folder>, copies: &[Folder], sent: &[&str]| {
            let found = apply(actions);
            assert_eq!(found.folder, folder, "{actions:?}");
            assert_eq!(found.copies, copies, "{actions:?}");
            let all: Vec<_> =
                found.forwards.iter().chain(&found.redirects).map(Address::to_string).collect();
            assert_eq!(all, sent, "{actions:?}");
            let applied: Vec<_> = found.applied.into_iter().map(|rule| rule.action).collect();
            assert_eq!(applied, actions, "each is told");
        };
    let (inbox, drafts, sent) = (Folder::Inbox, Folder::Drafts, Folder::SentItems);
    let forward = |text: &str| Forward(address(text));
    let redirect = |text: &str| Redirect(address(text));
    check(&[], Some(inbox), &[], &[]);
    check(&[Move(drafts)], Some(drafts), &[], &[]);
    check(&[Move(drafts), Move(sent)], Some(sent), &[], &[]);
    check(&[Copy(drafts), Copy(drafts), Copy(inbox)], Some(inbox), &[drafts], &[]);
    check(&[Copy(drafts), Move(drafts)], Some(drafts), &[], &[]);
    check(&[Delete], None, &[], &[]);
    check(&[Delete, Copy(drafts)], None, &[drafts], &[]);
    check(&[Delete, Move(drafts)], Some(drafts), &[], &[]);
    check(&[Move(drafts), Delete], None, &[], &[]);
    check(&[forward("a@x.test"), forward("A@X.test")], Some(inbox), &[], &["a@x.test"]);
    check(&[redirect("a@x.test")], None, &[], &["a@x.test"]);
    check(&[redirect("a@x.test"), Move(drafts)], Some(drafts), &[], &["a@x.test"]);
    check(&[redirect("a@x.test"), forward("b@x.test")], None, &[], &["b@x.test", "a@x.test"]);
    check(&[forward("a@x.test"), redirect("a@x.test")], None, &[], &["a@x.test"]);
}

#[test]
fn a_rule_that_stops_is_the_last() {
    let stopping = MailboxRule { stop: true, ..rule("first", vec![], MailboxAction::Delete) };
    let rules = vec![stopping, rule("second", vec![], MailboxAction::Move(Folder::Drafts))];
    assert_eq!(apply_to(rules, SECTION, Folder::Inbox).folder, None);
    let other = Condition::Subject(TextTest::Equals(Fold::new("other")));
    let stopping = MailboxRule { stop: true, ..rule("first", vec![other], MailboxAction::Delete) };
    let rules = vec![stopping, rule("second", vec![], MailboxAction::Move(Folder::Drafts))];
    let found = apply_to(rules, SECTION, Folder::Inbox);
    assert_eq!(found.folder, Some(Folder::Drafts), "a rule that does not apply stops nothing");
}

#[test]
fn junk_is_left_alone() {
    let rules = vec![rule("r", vec![], MailboxAction::Redirect(address("a@x.test")))];
    let found = apply_to(rules, SECTION, Folder::JunkEmail);
    let junk = MailboxOutcome { folder: Some(Folder::JunkEmail), ..MailboxOutcome::default() };
    assert_eq!(found, junk);
}

#[test]
fn what_comes_back_is_kept_and_not_sent_on() {
    let section = format!("{}{SECTION}", crate::mail::delivered_to(&address("alice@example.test")));
    let rules = vec![
        rule("out", vec![], MailboxAction::Redirect(address("a@x.test"))),
        rule("copy", vec![], MailboxAction::Copy(Folder::Drafts)),
    ];
    let found = apply_to(rules, &section, Folder::Inbox);
    assert_eq!(found.withheld, Some(Withheld::Loop));
    assert_eq!((found.folder, found.copies.len()), (Some(Folder::Inbox), 1));
    assert!(found.redirects.is_empty());
    let names: Vec<_> = found.applied.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["copy"]);
}

#[test]
fn too_many_rules_are_refused() {
    let many = |count| (0..count).map(|n| rule(&format!("r{n}"), vec![], MailboxAction::Delete));
    assert!(MailboxRules::new(many(MAX_RULES).collect()).is_ok());
    let errors = MailboxRules::new(many(101).collect()).expect_err("too many");
    assert_eq!(errors, [MailboxRuleError::TooMany(101)]);
    let condition = Condition::Subject(TextTest::Contains(Fold::new("x")));
    let full = rule("r", vec![condition.clone(); 20], MailboxAction::Delete);
    assert!(MailboxRules::new(vec![full]).is_ok());
    let twice = vec![
        rule("r", vec![condition; 21], MailboxAction::Delete),
        rule("r", vec![], MailboxAction::Delete),
    ];
    let errors = MailboxRules::new(twice).expect_err("two problems");
    let expected = [
        MailboxRuleError::TooManyConditions("r".into(), 21),
        MailboxRuleError::SameName("r".into()),
    ];
    assert_eq!(errors, expected);
}

fn any_action() -> impl Strategy<Value = MailboxAction> {
    let folder = || proptest::sample::select(Folder::ALL.to_vec());
    let to = || "[a-c]@[xy]\\.test".prop_map(|text| address(&text));
    prop_oneof![
        folder().prop_map(MailboxAction::Move),
        folder().prop_map(MailboxAction::Copy),
        to().prop_map(MailboxAction::Forward),
        to().prop_map(MailboxAction::Redirect),
        Just(MailboxAction::Delete),
    ]
}

proptest! {
    #[test]
    fn no_message_is_lost_without_a_rule_that_says_so(
        actions in proptest::collection::vec(any_action(), 0..8),
    ) {
        let found = apply(&actions);
        let deletes = actions.contains(&MailboxAction::Delete);
        let is_somewhere = found.folder.is_some()
            || !found.copies.is_empty()
            || !found.redirects.is_empty()
            || !found.forwards.is_empty();
        prop_assert!(is_somewhere || deletes);
        prop_assert_eq!(found.applied.len(), actions.len());
        let mut folders: Vec<_> = found.folder.iter().chain(&found.copies).collect();
        folders.sort();
        folders.dedup();
        prop_assert_eq!(folders.len(), usize::from(found.folder.is_some()) + found.copies.len());
    }
}
