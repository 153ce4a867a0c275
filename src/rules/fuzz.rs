//! The fuzzers' door: whichever rules an organization has, the index finds what the contract says.

use super::{Action, Authors, FieldOrder, Party, Pattern, Rule, RuleSet};

/// The guide's lists of actions (3716–3726, 3737–3742), in their order.
pub(crate) const INBOUND: &[&str] =
    &["DROP", "BOUNCE", "MOVE_TO_JUNK", "DEFAULT", "BYPASS_SPAM_CHECK"];
pub(crate) const OUTBOUND: &[&str] = &["DEFAULT", "DROP", "BOUNCE", "ROUTE_TO_SMTP_GATEWAY"];

/// Fails unless the rule that wins is the one that the plain definition chooses, and every other
/// rule is explained. `order` is the direction's list of actions.
pub(crate) fn assert_evaluates<A: Action>(
    rules: &RuleSet<A>,
    order: &[&str],
    authors: &Authors<'_>,
    recipient: &Party<'_>,
) {
    let expected = expected(rules.rules(), order, authors, recipient).map(|rule| &rule.name);
    let evaluation = rules.evaluate(authors, recipient);
    let winner = evaluation.winner;
    assert_eq!(winner.as_ref().map(|winner| &winner.name), expected);
    if let FieldOrder::SenderFirst { .. } = A::FIELDS {
        let by_from = naive(rules.rules(), order, &from(authors), recipient);
        let is_forged = authors.sender.as_ref().is_some_and(|sender| !sender.is_proven);
        let outcome = winner.as_ref().map(|winner| winner.action.as_str());
        let by_from = by_from.map(|rule| rule.action.as_str());
        let is_weaker = strictness(order, outcome) > strictness(order, by_from);
        assert!(!is_forged || !is_weaker, "a Sender that nothing proves relaxes");
    }
    let explanation = rules.explain(authors, recipient);
    assert_eq!(explanation.winner, winner);
    let explained = explanation.lost.len() + usize::from(winner.is_some());
    assert_eq!(explained, rules.rules().len(), "a rule has no explanation");
}

fn from<'a>(authors: &'a Authors<'a>) -> Vec<Option<&'a Party<'a>>> {
    if authors.from.is_empty() { vec![None] } else { authors.from.iter().map(Some).collect() }
}

/// Where an action stands in the list; where no rule matches it is as with *Default*.
fn strictness(order: &[&str], action: Option<&str>) -> Option<usize> {
    let action = action.unwrap_or("DEFAULT");
    order.iter().position(|other| *other == action)
}

/// The rule that the contract's sentences choose.
pub(super) fn expected<'a, A: Action>(
    rules: &'a [Rule<A>],
    order: &[&str],
    authors: &Authors<'_>,
    to: &Party<'_>,
) -> Option<&'a Rule<A>> {
    let mut all = from(authors);
    let Some(sender) = &authors.sender else { return naive(rules, order, &all, to) };
    if A::FIELDS == FieldOrder::Either {
        all.push(Some(&sender.party));
        return naive(rules, order, &all, to);
    }
    let by_sender = naive(rules, order, &[Some(&sender.party)], to);
    let by_from = naive(rules, order, &all, to);
    if sender.is_proven {
        return by_sender.or(by_from);
    }
    let of = |rule: Option<&Rule<A>>| strictness(order, rule.map(|rule| rule.action.as_str()));
    match by_sender {
        Some(_) if of(by_sender) <= of(by_from) => by_sender,
        _ => by_from,
    }
}

/// The order as the contract's sentence has it, without an index: each criterion in turn keeps
/// the best of what is left. `None` is the author of a message without one.
fn naive<'a, A: Action>(
    rules: &'a [Rule<A>],
    order: &[&str],
    authors: &[Option<&Party<'_>>],
    to: &Party<'_>,
) -> Option<&'a Rule<A>> {
    let specificity = |patterns: &[Pattern], party: Option<&Party<'_>>| {
        let matching = patterns.iter().filter(|pattern| match party {
            Some(party) => pattern.matches(party),
            None => matches!(pattern, Pattern::Star),
        });
        let specificity = matching.map(|pattern| match pattern {
            Pattern::Address(_) => 2000,
            Pattern::Domain(_) => 1000,
            Pattern::Wildcard(domain) => domain.as_str().len(),
            Pattern::Star => 0,
        });
        specificity.max()
    };
    let mut left: Vec<(usize, usize, &Rule<A>)> = Vec::new();
    for rule in rules {
        for author in authors {
            let sender = specificity(&rule.senders, *author);
            let destination = specificity(&rule.destinations, Some(to));
            let stays_here =
                to.is_here() && destination == Some(0) && rule.action.gateway().is_some();
            if let (Some(sender), Some(destination), false) = (sender, destination, stays_here) {
                left.push((sender, destination, rule));
            }
        }
    }
    let best = left.iter().map(|(sender, ..)| *sender).max()?;
    left.retain(|(sender, ..)| *sender == best);
    let best = left.iter().map(|(_, destination, _)| *destination).max()?;
    left.retain(|(_, destination, _)| *destination == best);
    order
        .iter()
        .find_map(|action| left.iter().find(|(.., rule)| rule.action.as_str() == *action))
        .map(|(.., rule)| *rule)
}
