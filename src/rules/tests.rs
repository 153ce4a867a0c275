use proptest::prelude::*;

use super::fuzz::{INBOUND, OUTBOUND, naive};
use super::*;
use crate::mail::Address;

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn rule<A>(name: &str, action: A, senders: &[&str], destinations: &[&str]) -> Rule<A> {
    let patterns = |texts: &[&str]| {
        texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
    };
    Rule {
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

fn winner<A: Action>(
    rules: &[Rule<A>],
    sender: Option<&str>,
    from: &str,
    to: &str,
) -> Option<String> {
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

fn via(gateway: &str) -> OutboundAction {
    OutboundAction::RouteToSmtpGateway { gateway: gateway.into() }
}

#[test]
fn an_outbound_rule_wins_in_the_order_of_its_own_list() {
    use OutboundAction::{Bounce, Default, Drop};
    let rules = [
        rule("route", via("z"), &["o.test"], &["*"]),
        rule("bounce", Bounce, &["o.test"], &["*.b.test"]),
        rule("drop", Drop, &["o.test"], &["*.b.test"]),
        rule("drop-c", Drop, &["o.test"], &["c.test"]),
        rule("default-c", Default, &["o.test"], &["c.test"]),
        rule("bounce-d", Bounce, &["o.test"], &["d.test"]),
        rule("route-d", via("a"), &["o.test"], &["d.test"]),
        rule("route-e", via("z"), &["o.test"], &["e.test"]),
        rule("route-e-too", via("a"), &["o.test"], &["e.test"]),
        rule("alice", via("a"), &["alice@o.test"], &["*"]),
    ];
    let check = |from, to, expected| {
        assert_eq!(winner(&rules, None, from, to).as_deref(), Some(expected), "{from} {to}");
    };
    check("bob@o.test", "x@a.test", "route");
    check("bob@o.test", "x@s.b.test", "drop");
    check("bob@o.test", "x@c.test", "default-c");
    check("bob@o.test", "x@d.test", "bounce-d");
    // The gateway's name has no say.
    check("bob@o.test", "x@e.test", "route-e");
    check("Alice@o.test", "x@c.test", "alice");
    assert_eq!(winner(&rules, None, "x@else.test", "x@c.test"), None);
}

#[test]
fn a_winner_reads_as_it_is_written() {
    let from = address("a@o.test");
    let authors = Authors { sender: None, from: Some(&from) };
    let outbound = RuleSet::new(vec![
        rule("via-filter", via("filter"), &["o.test"], &["*"]),
        rule("other", via("other"), &["*"], &["*"]),
    ])
    .expect("valid");
    let explanation = outbound.explain(&authors, &address("x@c.test"));
    assert_eq!(
        serde_json::to_string(&explanation).expect("serializes"),
        r#"{"winner":{"name":"via-filter","action":"ROUTE_TO_SMTP_GATEWAY","gateway":"filter","author":"From","senderPattern":"o.test","destinationPattern":"*"},"lost":[{"name":"other","action":"ROUTE_TO_SMTP_GATEWAY","gateway":"other","loss":"less-specific-sender"}]}"#
    );
    let written = serde_json::to_string(&explanation.winner).expect("serializes");
    let read: Option<Winner<OutboundAction>> = serde_json::from_str(&written).expect("reads");
    assert_eq!(read, explanation.winner);

    let inbound = RuleSet::new(vec![rule("junk", InboundAction::MoveToJunk, &["*"], &["c.test"])]);
    let winner = inbound.expect("valid").evaluate(&authors, &address("x@c.test"));
    let written = serde_json::to_string(&winner).expect("serializes");
    assert_eq!(
        written,
        r#"{"name":"junk","action":"MOVE_TO_JUNK","author":"From","senderPattern":"*","destinationPattern":"c.test"}"#
    );
    let read: Option<Winner<InboundAction>> = serde_json::from_str(&written).expect("reads");
    assert_eq!(read, winner);
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
}

#[test]
fn both_directions_share_the_organizations_quota() {
    let senders: Vec<_> = (0..250).map(|number| format!("d{number}.test")).collect();
    let senders: Vec<_> = senders.iter().map(String::as_str).collect();
    let full = |name: &str| rule(name, InboundAction::Drop, &senders, &["*"]);
    let inbound = [full("a"), full("b"), full("c")];
    let outbound = |more: usize| {
        [
            rule("d", OutboundAction::Drop, &senders[..249], &["*"]),
            rule("e", OutboundAction::Drop, &senders[..more], &["*"]),
        ]
    };
    assert_eq!(check_together(&inbound, &outbound(1)), Ok(()));
    let too_many = check_together(&inbound, &outbound(2));
    assert_eq!(too_many, Err(RuleError::TooManyInAll(1001)));
    assert_eq!(check_together(&outbound(2), &inbound), too_many);
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

fn outbound_actions() -> Vec<OutboundAction> {
    use OutboundAction::{Bounce, Default, Drop};
    vec![Default, Drop, Bounce, via("one"), via("two")]
}

fn rules<A: Action + 'static>(actions: Vec<A>) -> impl Strategy<Value = Vec<Rule<A>>> {
    let patterns = || proptest::collection::vec(pattern(), 1..4);
    let action = proptest::sample::select(actions);
    proptest::collection::vec((action, patterns(), patterns()), 0..12).prop_map(|rules| {
        let strs = |texts: &[String]| -> Vec<Pattern> {
            texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
        };
        rules
            .into_iter()
            .enumerate()
            .map(|(place, (action, senders, destinations))| Rule {
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
        inbound in rules(InboundAction::ALL.to_vec()),
        outbound in rules(outbound_actions()),
        author in "[xy]@([ab]\\.){0,3}test",
        to in "[xy]@([ab]\\.){0,3}test",
    ) {
        let (author, to) = (address(&author), address(&to));
        let authors = Authors { sender: None, from: Some(&author) };
        let expected = naive(&inbound, INBOUND, &author, &to).map(|rule| rule.name.clone());
        let set = RuleSet::new(inbound).expect("valid");
        prop_assert_eq!(set.evaluate(&authors, &to).map(|winner| winner.name), expected);
        let expected = naive(&outbound, OUTBOUND, &author, &to).map(|rule| rule.name.clone());
        let set = RuleSet::new(outbound).expect("valid");
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
