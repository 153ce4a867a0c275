//! Why each of the other rules did not win: the guide's "Test configuration" (4397–4416).

use std::sync::Arc;

use serde::Serialize;

use super::evaluate::{AuthorField, Authors, Evaluation, Match, RuleSet, Winner};
use super::order::Breadth;
use super::pattern::Party;
use super::rule::{Action, FieldOrder, Rule};

/// The outcome for a sender and a recipient, with every rule accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// Why a rule lost. Of two reasons the later is that of the field that came nearer to a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// No sender pattern matches.
    SenderDoesNotMatch,
    /// No destination pattern matches.
    DestinationDoesNotMatch,
    /// A rule that sends mail for `*` to a gateway is for mail that leaves.
    NotBetweenUsersHere,
    /// It matches `From`, and a rule matches `Sender`, which comes first (guide 3774).
    SenderComesFirst,
    /// It matches `Sender` alone, which nothing proves, and would be milder than `From` is.
    UnprovenSender,
    /// It matches `From`, but a rule for `Sender` is at least as strict.
    SenderIsStricter,
    /// Both match, but the winner's sender pattern is more specific.
    LessSpecificSender,
    /// As specific in the sender, less so in the destination.
    LessSpecificDestination,
    /// As specific, but the winner's action stands earlier in the guide's list.
    LessRestrictiveAction,
    /// Equal in all, but later in the file.
    LaterInFile,
}

impl Loss {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SenderDoesNotMatch => "no sender pattern matches",
            Self::DestinationDoesNotMatch => "no destination pattern matches",
            Self::NotBetweenUsersHere => {
                "its destination pattern * sends no mail between users here to a gateway"
            }
            Self::SenderComesFirst => "it matches From, and Sender is matched first",
            Self::UnprovenSender => {
                "it matches Sender, which is not authenticated, and so may not relax what From \
                 comes to"
            }
            Self::SenderIsStricter => {
                "it matches From, and a rule for Sender is at least as strict"
            }
            Self::LessSpecificSender => "its sender pattern is less specific",
            Self::LessSpecificDestination => "its destination pattern is less specific",
            Self::LessRestrictiveAction => "its action comes later in the order of precedence",
            Self::LaterInFile => "it stands later in the file",
        }
    }
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
