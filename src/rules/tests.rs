use proptest::prelude::*;

use super::fuzz::{INBOUND, OUTBOUND, assert_evaluates};
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
    for text in ["", "@", "a b", "exa mple.com", "*."] {
        assert!(Pattern::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn what_is_no_pattern_is_told_which_one_is_meant() {
    let star = "\"*\" may stand alone, or at the front of a domain as in *.example.com";
    let plus = "\"+\" is not valid in a pattern";
    let empty = "the part before the @ is empty, or not quoted as it must be";
    for (text, problem, meant) in [
        ("a+b@example.com", plus, "a@example.com"),
        ("+b@example.com", plus, ""),
        ("a+b", plus, ""),
        ("a.*.com", star, ""),
        ("*@bad.test", star, "bad.test"),
        ("*@*.bad.test", star, "*.bad.test"),
        ("*@.bad.test", star, "*.bad.test"),
        ("*bad.test", star, "*.bad.test"),
        ("*.*.bad.test", star, "*.bad.test"),
        ("*.a@bad.test", star, ""),
        ("bob*@bad.test", star, ""),
        ("**", star, "*"),
        ("*@*", star, "*"),
        ("*.*", star, "*"),
        ("@bad.test", empty, "bad.test"),
        (".bad.test", "\".bad.test\" is not a valid domain name", "*.bad.test"),
        ("bad..test", "\"bad..test\" is not a valid domain name", ""),
    ] {
        let told = Pattern::parse(text).expect_err(text).to_string();
        let hint = if meant.is_empty() { String::new() } else { format!("; write {meant}") };
        assert_eq!(told, format!("{problem}{hint}"), "{text}");
        assert!(meant.is_empty() || Pattern::parse(meant).is_ok(), "{meant}");
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
        assert_eq!(pattern.matches(&Party::new(&address(text))), matches, "{text}");
    }
}

/// A message whose `Sender`, if it has one, is who it says.
fn authors<'a>(sender: Option<&'a Address>, from: &'a [Address]) -> Authors<'a> {
    let sender = sender.map(|sender| Sender { party: Party::new(sender), is_proven: true });
    Authors { sender, from: from.iter().map(Party::new).collect() }
}

/// The same, if nothing proves it.
fn forged<'a>(sender: Option<&'a Address>, from: &'a [Address]) -> Authors<'a> {
    let sender = sender.map(|sender| Sender { party: Party::new(sender), is_proven: false });
    Authors { sender, from: from.iter().map(Party::new).collect() }
}

fn winner<A: Action>(
    rules: &[Rule<A>],
    sender: Option<&str>,
    from: &str,
    to: &str,
) -> Option<String> {
    let set = RuleSet::new(rules.to_vec()).expect("valid");
    let sender = sender.map(address);
    let from = [address(from)];
    let to = address(to);
    let evaluation = set.evaluate(&authors(sender.as_ref(), &from), &Party::new(&to));
    evaluation.winner.map(|winner| winner.name.to_string())
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
    let from = [address("a@o.test")];
    let authors = authors(None, &from);
    let to = address("x@c.test");
    let to = Party::new(&to);
    let outbound = RuleSet::new(vec![
        rule("via-filter", via("filter"), &["o.test"], &["*"]),
        rule("other", via("other"), &["*"], &["*"]),
    ])
    .expect("valid");
    let explanation = outbound.explain(&authors, &to);
    assert_eq!(
        serde_json::to_string(&explanation).expect("serializes"),
        r#"{"winner":{"name":"via-filter","action":"ROUTE_TO_SMTP_GATEWAY","gateway":"filter","author":"From","senderPattern":"o.test","destinationPattern":"*"},"lost":[{"name":"other","action":"ROUTE_TO_SMTP_GATEWAY","gateway":"other","loss":"less-specific-sender"}]}"#
    );
    let written = serde_json::to_string(&explanation.winner).expect("serializes");
    let read: Option<Winner<OutboundAction>> = serde_json::from_str(&written).expect("reads");
    assert_eq!(read, explanation.winner);

    let inbound = RuleSet::new(vec![rule("junk", InboundAction::MoveToJunk, &["*"], &["c.test"])]);
    let winner = inbound.expect("valid").evaluate(&authors, &to).winner;
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
fn a_sender_that_nothing_proves_restricts_and_does_not_relax() {
    use InboundAction::{Bounce, BypassSpamCheck, Default, Drop, MoveToJunk};
    let rules: Vec<_> = [
        ("drop", Drop),
        ("bounce", Bounce),
        ("junk", MoveToJunk),
        ("default", Default),
        ("never", BypassSpamCheck),
    ]
    .map(|(name, action)| rule(name, action, &[&format!("{name}.test")], &["*"]))
    .into();
    let set = RuleSet::new(rules).expect("valid");
    let to = address("x@o.test");
    let check = |sender: &str, from: &str, winner: Option<&str>, passed_over: Option<&str>| {
        let sender = address(&format!("s@{sender}.test"));
        let from = [address(&format!("f@{from}.test"))];
        let evaluation = set.evaluate(&forged(Some(&sender), &from), &Party::new(&to));
        let name = |winner: &Winner<InboundAction>| winner.name.to_string();
        assert_eq!(evaluation.winner.as_ref().map(name).as_deref(), winner, "{sender} {from:?}");
        let told = evaluation.passed_over.as_ref().map(name);
        assert_eq!(told.as_deref(), passed_over, "{sender} {from:?}");
        // If something proves it, it comes first.
        let proven = set.evaluate(&authors(Some(&sender), &from), &Party::new(&to)).winner;
        let first = set.evaluate(&authors(None, std::slice::from_ref(&sender)), &Party::new(&to));
        let first = first.winner.or_else(|| evaluation.winner.clone());
        assert_eq!(proven.map(|it| it.name), first.map(|it| it.name), "{sender}");
    };
    let names = ["drop", "bounce", "junk", "default", "never"];
    for (strictness, sender) in names.iter().enumerate() {
        for (other, from) in names.iter().enumerate() {
            let (winner, passed_over) =
                if strictness <= other { (sender, from) } else { (from, sender) };
            check(sender, from, Some(winner), Some(passed_over));
        }
        check("else", sender, Some(sender), None);
    }
    // Where no rule matches From, it is as if it were *Default*.
    for sender in ["drop", "bounce", "junk", "default"] {
        check(sender, "else", Some(sender), None);
    }
    check("never", "else", None, Some("never"));
}

#[test]
fn all_authors_are_matched_and_a_star_also_nobody() {
    use InboundAction::{Drop, MoveToJunk};
    let domain = rule("domain", Drop, &["b.test"], &["*"]);
    let set = RuleSet::new(vec![domain.clone(), rule("star", MoveToJunk, &["*"], &["*"])]);
    let set = set.expect("valid");
    let to = address("x@o.test");
    let check = |from: &[&str], expected: Option<&str>| {
        let from: Vec<_> = from.iter().map(|text| address(text)).collect();
        let winner = set.evaluate(&authors(None, &from), &Party::new(&to)).winner;
        assert_eq!(winner.as_ref().map(|winner| &*winner.name), expected, "{from:?}");
    };
    check(&["x@a.test", "x@b.test"], Some("domain"));
    check(&["x@b.test", "x@a.test"], Some("domain"));
    check(&["x@a.test"], Some("star"));
    check(&[], Some("star"));
    let set = RuleSet::new(vec![domain]).expect("valid");
    assert_eq!(set.evaluate(&authors(None, &[]), &Party::new(&to)).winner, None);
}

#[test]
fn an_outbound_rule_matches_either_field_and_the_most_specific_wins() {
    use OutboundAction::{Bounce, Default, Drop};
    let rules = [
        rule("catch-all", Default, &["*"], &["*"]),
        rule("domain", Bounce, &["o.test"], &["*"]),
        rule("boss", Drop, &["boss@o.test"], &["*"]),
    ];
    let check = |sender: Option<&str>, from: &str, expected: &str| {
        assert_eq!(winner(&rules, sender, from, "x@c.test").as_deref(), Some(expected));
    };
    check(Some("bob@o.test"), "boss@o.test", "boss");
    check(Some("boss@o.test"), "bob@o.test", "boss");
    check(Some("bob@else.test"), "boss@o.test", "boss");
    check(Some("bob@o.test"), "x@else.test", "domain");
    check(Some("bob@else.test"), "x@else.test", "catch-all");
    // Of equally specific ones the action decides, whichever field they match.
    let rules = [
        rule("by-sender", Bounce, &["bob@o.test"], &["*"]),
        rule("by-from", Drop, &["boss@o.test"], &["*"]),
    ];
    let found = winner(&rules, Some("bob@o.test"), "boss@o.test", "x@c.test");
    assert_eq!(found.as_deref(), Some("by-from"));
}

#[test]
fn a_gateway_for_all_is_not_for_mail_between_users_here() {
    let rules = |to: &str| {
        RuleSet::new(vec![
            rule("via", via("filter"), &["boss@o.test"], &["far.test", to]),
            rule("block", OutboundAction::Drop, &["*"], &["bob@o.test"]),
        ])
        .expect("valid")
    };
    let from = [address("boss@o.test")];
    let check = |destination: &str, to: &str, is_here: bool, winner: &str, loss: Loss| {
        let to = address(to);
        let to = Party::placed(&to, is_here);
        let explanation = rules(destination).explain(&authors(None, &from), &to);
        assert_eq!(explanation.winner.map(|it| it.name.to_string()).as_deref(), Some(winner));
        assert_eq!(explanation.lost[0].loss, loss, "{destination}");
    };
    check("*", "bob@o.test", true, "block", Loss::NotBetweenUsersHere);
    check("*", "bob@o.test", false, "via", Loss::LessSpecificSender);
    check("o.test", "bob@o.test", true, "via", Loss::LessSpecificSender);
    check("*.o.test", "bob@o.test", true, "via", Loss::LessSpecificSender);
}

#[test]
fn a_pattern_that_is_an_address_means_whoever_has_it() {
    let pattern = |text: &str| Pattern::parse(text).expect("a pattern");
    let alias = address("chief+x@other.test");
    let others = ["chief@other.test", "boss@o.test"];
    let party = Party::named(&alias, &others);
    for (text, matches) in [
        ("boss@o.test", true),
        ("BOSS@O.test", true),
        ("chief@other.test", true),
        ("other.test", true),
        ("*", true),
        ("bob@o.test", false),
        // A domain is that of the address as it is written.
        ("o.test", false),
        ("*.o.test", false),
    ] {
        assert_eq!(pattern(text).matches(&party), matches, "{text}");
    }
    let rules = vec![
        rule("domain", InboundAction::BypassSpamCheck, &["other.test"], &["*"]),
        rule("boss", InboundAction::Drop, &["boss@o.test"], &["*"]),
    ];
    let set = RuleSet::new(rules).expect("valid");
    let authors = Authors { sender: None, from: vec![party] };
    let to = address("x@o.test");
    let winner = set.evaluate(&authors, &Party::new(&to)).winner.expect("one");
    assert_eq!(&*winner.name, "boss");
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
    let from = [address("a@b.com")];
    let to = address("y@o.test");
    let explanation = set.explain(&authors(None, &from), &Party::new(&to));
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
    let sender = address("s@sender.test");
    let from = [address("a@from.test")];
    let authors = authors(Some(&sender), &from);
    let check = |to: &str, expected: &[(&str, Loss)]| {
        let to = address(to);
        let lost = set.explain(&authors, &Party::new(&to)).lost;
        let lost: Vec<_> = lost.iter().map(|lost| (&*lost.name, lost.loss)).collect();
        assert_eq!(lost, expected, "{to}");
    };
    check("x@o.test", &[("by-from", Loss::DestinationDoesNotMatch)]);
    check("y@o.test", &[("by-sender", Loss::DestinationDoesNotMatch)]);
    check(
        "z@o.test",
        &[("by-sender", Loss::DestinationDoesNotMatch), ("by-from", Loss::DestinationDoesNotMatch)],
    );
}

/// Why each rule but the winner lost.
fn losses<A: Action>(rules: Vec<Rule<A>>, authors: &Authors<'_>) -> Vec<(String, Loss)> {
    let to = address("x@o.test");
    let set = RuleSet::new(rules).expect("valid");
    let lost = set.explain(authors, &Party::new(&to)).lost;
    lost.iter().map(|lost| (lost.name.to_string(), lost.loss)).collect()
}

#[test]
fn what_lost_to_the_rule_of_another_field_says_so() {
    use InboundAction::{BypassSpamCheck, Drop, MoveToJunk};
    let (sender, from) = (address("s@a.sender.test"), [address("f@from.test")]);
    let forged = forged(Some(&sender), &from);
    let check = |rules: Vec<Rule<InboundAction>>, expected: &[(&str, Loss)]| {
        let lost = losses(rules, &forged);
        let lost: Vec<_> = lost.iter().map(|(name, loss)| (name.as_str(), *loss)).collect();
        assert_eq!(lost, expected);
    };
    let never = || rule("never", BypassSpamCheck, &["a.sender.test"], &["*"]);
    let junk = || rule("junk", MoveToJunk, &["from.test"], &["*"]);
    check(
        vec![rule("drop", Drop, &["a.sender.test"], &["*"]), junk()],
        &[("junk", Loss::SenderIsStricter)],
    );
    check(vec![never(), junk()], &[("never", Loss::UnprovenSender)]);
    check(vec![never()], &[("never", Loss::UnprovenSender)]);
    // One of the same field lost to the one that was passed over.
    let wide = rule("wide", BypassSpamCheck, &["*.sender.test"], &["*"]);
    check(
        vec![never(), wide, junk()],
        &[("never", Loss::UnprovenSender), ("wide", Loss::LessSpecificSender)],
    );
}

#[test]
fn a_rule_lost_by_its_best_match() {
    use InboundAction::{Drop, MoveToJunk};
    // It is as specific as the winner for the second author.
    let from = [address("p@y.test"), address("a@x.test")];
    let rules = vec![
        rule("wins", Drop, &["a@x.test"], &["*"]),
        rule("both", MoveToJunk, &["a@x.test", "y.test"], &["*"]),
    ];
    let lost = losses(rules, &authors(None, &from));
    assert_eq!(lost, [("both".into(), Loss::LessRestrictiveAction)]);
    // Where nobody has written it, stars match.
    let rules = vec![rule("wins", Drop, &["*"], &["*"]), rule("star", MoveToJunk, &["*"], &["*"])];
    assert_eq!(losses(rules, &authors(None, &[])), [("star".into(), Loss::LessRestrictiveAction)]);
}

#[test]
fn an_outbound_rule_lost_by_whichever_field_it_matches() {
    use OutboundAction::{Bounce, Drop};
    let (sender, from) = (address("s@sender.test"), [address("f@from.test")]);
    let rules = vec![
        rule("by-from", Drop, &["from.test"], &["*"]),
        rule("wins", Bounce, &["s@sender.test"], &["*"]),
        rule("neither", Drop, &["else.test"], &["*"]),
    ];
    assert_eq!(
        losses(rules, &authors(Some(&sender), &from)),
        [
            ("by-from".into(), Loss::LessSpecificSender),
            ("neither".into(), Loss::SenderDoesNotMatch)
        ]
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
    let full = rule("a", InboundAction::Drop, &many[..250], &["*"]);
    assert!(RuleSet::new(vec![full]).is_ok());
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

fn people() -> impl Strategy<Value = Vec<Address>> {
    proptest::collection::vec("[xy]@([ab]\\.){0,3}test", 0..3)
        .prop_map(|texts| texts.iter().map(|text| address(text)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// By the plain definition too, an unproven `Sender` never makes the outcome weaker than it is
    /// by `From` alone.
    #[test]
    fn the_index_agrees_with_the_plain_definition(
        inbound in rules(InboundAction::ALL.to_vec()),
        outbound in rules(outbound_actions()),
        sender in people(),
        from in people(),
        to in "[xy]@([ab]\\.){0,3}test",
        is_here: bool,
    ) {
        let to = address(&to);
        let to = Party::placed(&to, is_here);
        let inbound = RuleSet::new(inbound).expect("valid");
        let outbound = RuleSet::new(outbound).expect("valid");
        for authors in [authors(sender.first(), &from), forged(sender.first(), &from)] {
            assert_evaluates(&inbound, INBOUND, &authors, &to);
            assert_evaluates(&outbound, OUTBOUND, &authors, &to);
        }
    }

    #[test]
    fn an_address_pattern_matches_what_has_its_key(
        one in "[xXσΣ]{1,2}@([aA]\\.){0,2}test",
        other in "[xXσΣ]{1,2}@([aA]\\.){0,2}test",
    ) {
        let (one, other) = (address(&one), address(&other));
        let pattern = Pattern::parse(&one.to_string()).expect("a pattern");
        prop_assert_eq!(pattern.matches(&Party::new(&other)), one.key() == other.key());
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
