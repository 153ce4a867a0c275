//! Why each of the other rules did not win: the guide's "Test configuration" (4397–4416).

use std::sync::Arc;

use serde::Serialize;

use super::evaluate::{AuthorField, Authors, Evaluation, Match, RuleSet, Winner};
use super::loss::Loss;
use super::order::Breadth;
use super::pattern::Party;
use super::rule::{Action, FieldOrder, Rule};

/// The outcome for a sender and a recipient, with every rule accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(bound = "A: Action + Serialize")]
pub struct Explanation<A> {
    /// The rule that wins, if one matches.
    pub winner: Option<Winner<A>>,
    /// The others, as they stand in the file.
    pub lost: Vec<Lost<A>>,
}

/// A rule that did not win.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost<A> {
    /// Its name.
    pub name: Arc<str>,
    /// What it would have done.
    #[serde(flatten)]
    pub action: A,
    /// Why it lost.
    pub loss: Loss,
}

impl<A: Action> RuleSet<A> {
    /// The winner, and for every other rule why it lost.
    pub fn explain(&self, authors: &Authors<'_>, recipient: &Party<'_>) -> Explanation<A> {
        let evaluation = self.evaluate(authors, recipient);
        let won = evaluation.winner.as_ref().map(|winner| &winner.name);
        let mut lost = Vec::new();
        for (place, rule) in self.rules().iter().enumerate() {
            if Some(&rule.name) != won {
                let loss = self.loss_of(place, rule, authors, recipient, &evaluation);
                lost.push(Lost { name: Arc::clone(&rule.name), action: rule.action.clone(), loss });
            }
        }
        Explanation { winner: evaluation.winner, lost }
    }

    fn loss_of(
        &self,
        place: usize,
        rule: &Rule<A>,
        authors: &Authors<'_>,
        recipient: &Party<'_>,
        evaluation: &Evaluation<A>,
    ) -> Loss {
        let Evaluation { winner, passed_over } = evaluation;
        let sender = authors.sender.as_ref().map(|sender| &sender.party);
        let by_sender = self.tried(place, sender.map(Some), recipient);
        let by_from = match authors.from.as_slice() {
            [] => self.tried(place, [None], recipient),
            from => self.tried(place, from.iter().map(Some), recipient),
        };
        if A::FIELDS == FieldOrder::Either {
            return match (nearer(by_sender, by_from), winner) {
                (Ok(found), Some(winner)) => lost_to(rule, &found, winner),
                (Err(loss), _) => loss,
                // Where a rule matches, one wins.
                (Ok(_), None) => Loss::SenderDoesNotMatch,
            };
        }
        let by_field = |field: AuthorField| match field {
            AuthorField::Sender => by_sender.as_ref(),
            AuthorField::From => by_from.as_ref(),
        };
        for ahead in winner.iter().chain(passed_over) {
            match by_field(ahead.author) {
                Ok(_) if ahead.name == rule.name => return passed_over_by(ahead.author),
                Ok(found) => return lost_to(rule, found, ahead),
                Err(_) => {}
            }
        }
        match (by_sender, by_from) {
            (Err(_), Ok(_)) => Loss::SenderComesFirst,
            (Err(one), Err(other)) => one.max(other),
            // Where a rule matches by `Sender`, one wins or is passed over.
            (Ok(_), _) => Loss::SenderDoesNotMatch,
        }
    }

    /// The best match of a rule for any of several authors.
    fn tried<'p>(
        &self,
        place: usize,
        authors: impl IntoIterator<Item = Option<&'p Party<'p>>>,
        recipient: &Party<'_>,
    ) -> Result<Match<'_, A>, Loss> {
        let mut tried = Err(Loss::SenderDoesNotMatch);
        for author in authors {
            tried = nearer(tried, self.match_of(place, author, recipient));
        }
        tried
    }
}

/// The more specific match, or the loss of a rule that was nearer to a match.
fn nearer<'a, A>(
    one: Result<Match<'a, A>, Loss>,
    other: Result<Match<'a, A>, Loss>,
) -> Result<Match<'a, A>, Loss> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(if other.rank < one.rank { other } else { one }),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(one), Err(other)) => Err(one.max(other)),
    }
}

/// Why the rule that was passed over, of this field, did not win.
fn passed_over_by(field: AuthorField) -> Loss {
    match field {
        AuthorField::Sender => Loss::UnprovenSender,
        AuthorField::From => Loss::SenderIsStricter,
    }
}

fn lost_to<A: Action>(rule: &Rule<A>, found: &Match<'_, A>, winner: &Winner<A>) -> Loss {
    if Breadth::of(found.sender) != Breadth::of(&winner.sender_pattern) {
        Loss::LessSpecificSender
    } else if Breadth::of(found.destination) != Breadth::of(&winner.destination_pattern) {
        Loss::LessSpecificDestination
    } else if rule.action.precedence() != winner.action.precedence() {
        Loss::LessRestrictiveAction
    } else {
        Loss::LaterInFile
    }
}
