//! The fuzzers' door: whichever rules an organization has, the index finds what the contract says.

use super::{Action, Authors, Pattern, Rule, RuleSet};
use crate::mail::Address;

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
    recipient: &Address,
) {
    let asked = [authors.sender, authors.from];
    let asked = asked.iter().flatten();
    let mut expected = asked.map(|author| naive(rules.rules(), order, author, recipient));
    let expected = expected.find_map(|rule| rule).map(|rule| &rule.name);
    let winner = rules.evaluate(authors, recipient);
    assert_eq!(winner.as_ref().map(|winner| &winner.name), expected);
    let explanation = rules.explain(authors, recipient);
    assert_eq!(explanation.winner, winner);
    let explained = explanation.lost.len() + usize::from(winner.is_some());
    assert_eq!(explained, rules.rules().len(), "a rule has no explanation");
}

/// The order as the contract's sentence has it, without an index: each criterion in turn keeps
/// the best of what is left.
pub(super) fn naive<'a, A: Action>(
    rules: &'a [Rule<A>],
    order: &[&str],
    author: &Address,
    to: &Address,
) -> Option<&'a Rule<A>> {
    let specificity = |patterns: &[Pattern], address: &Address| {
        patterns
            .iter()
            .filter(|pattern| pattern.matches(address))
            .map(|pattern| match pattern {
                Pattern::Address(_) => 2000,
                Pattern::Domain(_) => 1000,
                Pattern::Wildcard(domain) => domain.as_str().len(),
                Pattern::Star => 0,
            })
            .max()
    };
    let mut left: Vec<(usize, usize, &Rule<A>)> = rules
        .iter()
        .filter_map(|rule| {
            Some((specificity(&rule.senders, author)?, specificity(&rule.destinations, to)?, rule))
        })
        .collect();
    let best = left.iter().map(|(sender, ..)| *sender).max()?;
    left.retain(|(sender, ..)| *sender == best);
    let best = left.iter().map(|(_, destination, _)| *destination).max()?;
    left.retain(|(_, destination, _)| *destination == best);
    order
        .iter()
        .find_map(|action| left.iter().find(|(.., rule)| rule.action.as_str() == *action))
        .map(|(.., rule)| *rule)
}
