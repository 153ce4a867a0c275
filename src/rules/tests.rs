use proptest::prelude::*;

use super::fuzz::naive;
use super::*;
use crate::mail::Address;

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn rule(name: &str, action: InboundAction, senders: &[&str], destinations: &[&str]) -> InboundRule {
    let patterns = |texts: &[&str]| {
        texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
    };
    InboundRule {
        name: name.into(),
        action,
        senders: patterns(senders),
        destinations: patterns(destinations),
    }
}

#[test]
fn a_pattern_takes_one_of_four_forms() {
    for (text, printed) in [
        ("*", "*"),
        ("Example.COM", "example.com"),
        ("*.Bücher.test", "*.xn--bcher-kva.test"),
        ("Mailbox@Example.com", "mailbox@example.com"),
    ] {
        let pattern = Pattern::parse(text).expect(text);
        assert_eq!(pattern.to_string(), printed);
        assert_eq!(Pattern::parse(printed), Ok(pattern));
    }
    for (text, error) in [
        ("a+b@example.com", PatternError::Plus),
        ("a.*.com", PatternError::Wildcard),
        ("*@example.com", PatternError::Wildcard),
        ("*.a@example.com", PatternError::Wildcard),
        ("**", PatternError::Wildcard),
    ] {
        assert_eq!(Pattern::parse(text), Err(error), "{text}");
    }
    for text in ["", "@", "a b", "exa mple.com", "*."] {
        assert!(Pattern::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_wildcard_means_the_domain_and_all_below_it() {
    let pattern = Pattern::parse("*.example.com").expect("a pattern");
    for (text, matches) in [
        ("a@example.com", true),
        ("a@x.example.com", true),
        ("a@y.x.example.com", true),
        ("a@badexample.com", false),
        ("a@com", false),
    ] {
        assert_eq!(pattern.matches(&address(text)), matches, "{text}");
    }
}

fn winner(rules: &[InboundRule], sender: Option<&str>, from: &str, to: &str) -> Option<String> {
    let set = RuleSet::new(rules.to_vec()).expect("valid");
    let (sender, from) = (sender.map(address), address(from));
    let authors = Authors { sender: sender.as_ref(), from: Some(&from) };
    set.evaluate(&authors, &address(to)).map(|winner| winner.name.to_string())
}

#[test]
fn the_most_specific_rule_wins_then_the_most_restrictive() {
    use InboundAction::{Bounce, BypassSpamCheck, Default, Drop, MoveToJunk};
    let rules = [
        rule("star", Drop, &["*"], &["*"]),
        rule("short", Drop, &["*.com"], &["*"]),
        rule("long", Drop, &["*.b.com"], &["*"]),
        rule("domain", Bounce, &["b.com"], &["*"]),
        rule("domain-to-x", BypassSpamCheck, &["b.com"], &["x@o.test"]),
        rule("address", Default, &["a@b.com"], &["*"]),
        rule("junk", MoveToJunk, &["z.net"], &["*"]),
        rule("bounce", Bounce, &["z.net"], &["*"]),
        rule("bounce-later", Bounce, &["z.net"], &["*"]),
    ];
    let check = |from, to, expected| {
        assert_eq!(winner(&rules, None, from, to).as_deref(), Some(expected), "{from} {to}");
    };
    check("A@B.com", "y@o.test", "address");
    check("c@b.com", "y@o.test", "domain");
    check("c@b.com", "X@o.test", "domain-to-x");
    check("c@s.b.com", "y@o.test", "long");
    check("c@d.com", "y@o.test", "short");
    check("c@d.org", "y@o.test", "star");
    check("c@z.net", "y@o.test", "bounce");
}

#[test]
fn the_sender_field_is_matched_first() {
    use InboundAction::{Bounce, Drop};
    let rules = [
        rule("by-from", Drop, &["from.test"], &["*"]),
        rule("by-sender", Bounce, &["sender.test"], &["x@o.test"]),
    ];
    let check = |sender: Option<&str>, to: &str, expected: &str| {
        assert_eq!(winner(&rules, sender, "a@from.test", to).as_deref(), Some(expected));
    };
    check(Some("s@sender.test"), "x@o.test", "by-sender");
    check(Some("s@sender.test"), "y@o.test", "by-from");
    check(Some("s@else.test"), "x@o.test", "by-from");
    check(None, "x@o.test", "by-from");
}

#[test]
fn every_rule_is_accounted_for() {
    use InboundAction::{Default, Drop, MoveToJunk};
    let rules = vec![
        rule("star", Drop, &["*"], &["*"]),
        rule("other-sender", Drop, &["q.test"], &["*"]),
        rule("other-destination", Drop, &["*"], &["z@o.test"]),
        rule("wins", MoveToJunk, &["b.com"], &["o.test"]),
        rule("wide-destination", MoveToJunk, &["b.com"], &["*"]),
        rule("mild", Default, &["b.com"], &["o.test"]),
        rule("later", MoveToJunk, &["b.com"], &["o.test"]),
    ];
    let set = RuleSet::new(rules).expect("valid");
    let from = address("a@b.com");
    let authors = Authors { sender: None, from: Some(&from) };
    let explanation = set.explain(&authors, &address("y@o.test"));
    assert_eq!(explanation.winner.map(|winner| winner.name.to_string()).as_deref(), Some("wins"));
    let lost: Vec<_> = explanation.lost.iter().map(|lost| (&*lost.name, lost.loss)).collect();
    assert_eq!(
        lost,
        [
            ("star", Loss::LessSpecificSender),
            ("other-sender", Loss::SenderDoesNotMatch),
            ("other-destination", Loss::DestinationDoesNotMatch),
            ("wide-destination", Loss::LessSpecificDestination),
            ("mild", Loss::LessRestrictiveAction),
            ("later", Loss::LaterInFile),
        ]
    );
}

#[test]
fn a_rule_that_fits_only_the_sender_field_lost_by_its_destination() {
    use InboundAction::{Bounce, Drop};
    let rules = vec![
        rule("by-sender", Bounce, &["sender.test"], &["x@o.test"]),
        rule("by-from", Drop, &["from.test"], &["y@o.test"]),
    ];
    let set = RuleSet::new(rules).expect("valid");
    let (sender, from) = (address("s@sender.test"), address("a@from.test"));
    let authors = Authors { sender: Some(&sender), from: Some(&from) };
    let check = |to: &str, expected: &[(&str, Loss)]| {
        let lost = set.explain(&authors, &address(to)).lost;
        let lost: Vec<_> = lost.iter().map(|lost| (&*lost.name, lost.loss)).collect();
        assert_eq!(lost, expected, "{to}");
    };
    check("x@o.test", &[("by-from", Loss::SenderDoesNotMatch)]);
    check("y@o.test", &[("by-sender", Loss::DestinationDoesNotMatch)]);
    check(
        "z@o.test",
        &[("by-sender", Loss::DestinationDoesNotMatch), ("by-from", Loss::DestinationDoesNotMatch)],
    );
}

#[test]
fn limits_are_the_contracts() {
    let many: Vec<_> = (0..251).map(|number| format!("d{number}.test")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let errors = RuleSet::new(vec![
        rule("a", InboundAction::Drop, &many, &["*"]),
        rule("a", InboundAction::Drop, &[], &[]),
    ])
    .expect_err("too many");
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "rule a has 251 sender patterns; at most 250 are allowed",
            "rule a has no senders",
            "rule a has no destinations",
            "there are two rules with the name a",
        ]
    );
    let rules = (0..5).map(|n| rule(&format!("r{n}"), InboundAction::Drop, &many[..201], &["*"]));
    assert_eq!(RuleSet::new(rules.collect()).err(), Some(vec![RuleError::TooManyInAll(1005)]));
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        "[ab]\\.test",
        "[ab]\\.[ab]\\.test",
        "\\*\\.([ab]\\.){0,2}test",
        "[xy]@([ab]\\.){0,2}test",
    ]
}

fn rules() -> impl Strategy<Value = Vec<InboundRule>> {
    let patterns = || proptest::collection::vec(pattern(), 1..4);
    let action = proptest::sample::select(InboundAction::ALL.to_vec());
    proptest::collection::vec((action, patterns(), patterns()), 0..12).prop_map(|rules| {
        let strs = |texts: &[String]| -> Vec<Pattern> {
            texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
        };
        rules
            .into_iter()
            .enumerate()
            .map(|(place, (action, senders, destinations))| InboundRule {
                name: format!("r{place}").into(),
                action,
                senders: strs(&senders),
                destinations: strs(&destinations),
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_plain_definition(
        rules in rules(),
        author in "[xy]@([ab]\\.){0,3}test",
        to in "[xy]@([ab]\\.){0,3}test",
    ) {
        let (author, to) = (address(&author), address(&to));
        let expected = naive(&rules, &author, &to).map(|rule| rule.name.clone());
        let set = RuleSet::new(rules).expect("valid");
        let authors = Authors { sender: None, from: Some(&author) };
        prop_assert_eq!(set.evaluate(&authors, &to).map(|winner| winner.name), expected);
    }

    #[test]
    fn an_address_pattern_matches_what_has_its_key(
        one in "[xXσΣ]{1,2}@([aA]\\.){0,2}test",
        other in "[xXσΣ]{1,2}@([aA]\\.){0,2}test",
    ) {
        let (one, other) = (address(&one), address(&other));
        let pattern = Pattern::parse(&one.to_string()).expect("a pattern");
        prop_assert_eq!(pattern.matches(&other), one.key() == other.key());
    }

    #[test]
    fn a_pattern_prints_as_it_is_read(text in pattern()) {
        let pattern = Pattern::parse(&text).expect("a pattern");
        prop_assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern));
    }

    #[test]
    fn no_text_is_too_odd(text in ".{0,40}") {
        drop(Pattern::parse(&text)); // Must not panic; most texts are no patterns.
    }
}
