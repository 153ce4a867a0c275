//! The rule that wins for one recipient, found through an index, and the explanation of why the
//! others lost; for both directions alike.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::{Breadth, Rank};
use super::pattern::{Pattern, Subject};
use super::rule::{Action, Rule, RuleError};
use crate::mail::{Address, Domain};

/// Sender patterns of a rule, and of an organization's rules of both directions together (product
/// contract §7, guide 3436–3437).
const MAX_SENDERS: usize = 250;
const MAX_SENDERS_IN_ALL: usize = 1000;

/// Whom a message says it is from. Never the envelope's sender (product contract §7).
#[derive(Clone, Copy, Debug)]
pub struct Authors<'a> {
    /// The `Sender` field's address, if the field is there.
    pub sender: Option<&'a Address>,
    /// The `From` field's address.
    pub from: Option<&'a Address>,
}

/// Which field a rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorField {
    /// `Sender`
    Sender,
    /// `From`
    From,
}

/// The rule that wins for a recipient, and by which patterns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Winner<A> {
    /// The rule's name.
    pub name: Arc<str>,
    /// What it does.
    #[serde(flatten)]
    pub action: A,
    /// Which field matched.
    pub author: AuthorField,
    /// The most specific of its sender patterns that matched.
    pub sender_pattern: Pattern,
    /// The most specific of its destination patterns that matched.
    pub destination_pattern: Pattern,
}

/// An organization's rules of one direction, checked and indexed.
#[derive(Debug)]
pub struct RuleSet<A> {
    rules: Vec<Rule<A>>,
    /// Rules by the sender patterns that they have.
    by_address: HashMap<Box<str>, Vec<usize>>,
    by_domain: HashMap<Domain, Vec<usize>>,
    by_wildcard: HashMap<Box<str>, Vec<usize>>,
    by_star: Vec<usize>,
}

impl<A> Default for RuleSet<A> {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            by_address: HashMap::new(),
            by_domain: HashMap::new(),
            by_wildcard: HashMap::new(),
            by_star: Vec::new(),
        }
    }
}

impl<A: Action> RuleSet<A> {
    /// Checks and indexes rules. What the rules of both directions have together is checked by
    /// [`check_together`].
    ///
    /// # Errors
    /// Every [`RuleError`] there is, but [`RuleError::TooManyInAll`].
    pub fn new(rules: Vec<Rule<A>>) -> Result<Self, Vec<RuleError>> {
        let errors = check(&rules);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut set = Self::default();
        for (place, rule) in rules.iter().enumerate() {
            for sender in &rule.senders {
                let places = match sender {
                    Pattern::Address(key) => set.by_address.entry(key.clone()).or_default(),
                    Pattern::Domain(domain) => set.by_domain.entry(domain.clone()).or_default(),
                    Pattern::Wildcard(domain) => {
                        set.by_wildcard.entry(domain.as_str().into()).or_default()
                    }
                    Pattern::Star => &mut set.by_star,
                };
                places.push(place);
            }
        }
        set.rules = rules;
        Ok(set)
    }

    /// The rules, as they stand in the file.
    pub fn rules(&self) -> &[Rule<A>] {
        &self.rules
    }

    /// The rule that wins for a recipient. Guide 3774: the `Sender` field is matched first, the
    /// `From` field if there is none or it matches no rule. A rule matches when both its sides
    /// do, so a `Sender` that only matches rules for other recipients leaves it to `From`.
    pub fn evaluate(&self, authors: &Authors<'_>, recipient: &Address) -> Option<Winner<A>> {
        let recipient = Subject::new(recipient);
        self.by_author(authors.sender, AuthorField::Sender, &recipient)
            .or_else(|| self.by_author(authors.from, AuthorField::From, &recipient))
    }

    fn by_author(
        &self,
        author: Option<&Address>,
        field: AuthorField,
        recipient: &Subject<'_>,
    ) -> Option<Winner<A>> {
        let author = Subject::new(author?);
        // From the most specific kind of sender pattern to the least: the first kind of which a
        // rule's destination matches too has the winner, since that comes first in the order.
        self.candidates(&author).find_map(|places| {
            let matching =
                places.iter().filter_map(|place| self.match_of(*place, &author, recipient));
            matching.min_by_key(|found| found.rank).map(|found| found.winner(field))
        })
    }

    /// Rules that have a sender pattern for `author`, in groups of equally specific patterns, the
    /// most specific first.
    fn candidates<'a>(&'a self, author: &'a Subject<'_>) -> impl Iterator<Item = &'a [usize]> {
        let domain = author.address.domain();
        let by_address = self.by_address.get(author.key());
        let by_domain = self.by_domain.get(domain);
        let parents =
            std::iter::successors(Some(domain.as_str()), |name| Some(name.split_once('.')?.1));
        let by_wildcard = parents.filter_map(|name| self.by_wildcard.get(name));
        by_address
            .into_iter()
            .chain(by_domain)
            .chain(by_wildcard)
            .map(Vec::as_slice)
            .chain(std::iter::once(self.by_star.as_slice()))
    }

    fn match_of(
        &self,
        place: usize,
        author: &Subject<'_>,
        recipient: &Subject<'_>,
    ) -> Option<Match<'_, A>> {
        let rule = self.rules.get(place)?;
        let sender = most_specific(&rule.senders, author)?;
        let destination = most_specific(&rule.destinations, recipient)?;
        let rank = Rank {
            sender: Breadth::of(sender),
            destination: Breadth::of(destination),
            action: rule.action.precedence(),
            place,
        };
        Some(Match { rule, sender, destination, rank })
    }

    /// The winner, and for every other rule why it lost.
    pub fn explain(&self, authors: &Authors<'_>, recipient: &Address) -> Explanation<A> {
        let winner = self.evaluate(authors, recipient);
        // Where `From` was asked, `Sender` had been asked before: a rule that fits it by its sender
        // side lost by its destination.
        let asked = match winner.as_ref().map(|winner| winner.author) {
            Some(AuthorField::Sender) => [authors.sender, None],
            Some(AuthorField::From) | None => [authors.from, authors.sender],
        };
        let asked = asked.map(|author| author.map(Subject::new));
        let recipient = Subject::new(recipient);
        let lost = (0..self.rules.len())
            .filter(|place| {
                let name = self.rules.get(*place).map(|rule| &rule.name);
                name != winner.as_ref().map(|winner| &winner.name)
            })
            .filter_map(|place| self.loss_of(place, &asked, &recipient, winner.as_ref()))
            .collect();
        Explanation { winner, lost }
    }

    fn loss_of(
        &self,
        place: usize,
        asked: &[Option<Subject<'_>>; 2],
        recipient: &Subject<'_>,
        winner: Option<&Winner<A>>,
    ) -> Option<Lost<A>> {
        let rule = self.rules.get(place)?;
        let mut asked = asked.iter().flatten();
        let loss = match asked.find_map(|author| most_specific(&rule.senders, author)) {
            None => Loss::SenderDoesNotMatch,
            Some(sender) => match most_specific(&rule.destinations, recipient) {
                None => Loss::DestinationDoesNotMatch,
                Some(destination) => lost_to(rule, sender, destination, winner?),
            },
        };
        Some(Lost { name: Arc::clone(&rule.name), action: rule.action.clone(), loss })
    }
}

fn lost_to<A: Action>(
    rule: &Rule<A>,
    sender: &Pattern,
    destination: &Pattern,
    winner: &Winner<A>,
) -> Loss {
    if Breadth::of(sender) != Breadth::of(&winner.sender_pattern) {
        Loss::LessSpecificSender
    } else if Breadth::of(destination) != Breadth::of(&winner.destination_pattern) {
        Loss::LessSpecificDestination
    } else if rule.action.precedence() != winner.action.precedence() {
        Loss::LessRestrictiveAction
    } else {
        Loss::LaterInFile
    }
}

struct Match<'a, A> {
    rule: &'a Rule<A>,
    sender: &'a Pattern,
    destination: &'a Pattern,
    rank: Rank,
}

impl<A: Action> Match<'_, A> {
    fn winner(&self, author: AuthorField) -> Winner<A> {
        Winner {
            name: Arc::clone(&self.rule.name),
            action: self.rule.action.clone(),
            author,
            sender_pattern: self.sender.clone(),
            destination_pattern: self.destination.clone(),
        }
    }
}

fn most_specific<'a>(patterns: &'a [Pattern], subject: &Subject<'_>) -> Option<&'a Pattern> {
    let matching = patterns.iter().filter(|pattern| pattern.meets(subject));
    matching.min_by_key(|pattern| Breadth::of(pattern))
}

fn check<A>(rules: &[Rule<A>]) -> Vec<RuleError> {
    let mut errors = Vec::new();
    let mut names = std::collections::HashSet::new();
    for rule in rules {
        if rule.senders.len() > MAX_SENDERS {
            errors.push(RuleError::TooManySenders(Arc::clone(&rule.name), rule.senders.len()));
        }
        for (patterns, what) in [(&rule.senders, "senders"), (&rule.destinations, "destinations")] {
            if patterns.is_empty() {
                errors.push(RuleError::NoPatterns(Arc::clone(&rule.name), what));
            }
        }
        if !names.insert(&rule.name) {
            errors.push(RuleError::SameName(Arc::clone(&rule.name)));
        }
    }
    errors
}

/// Whether an organization's rules of both directions are few enough together (guide 3437).
///
/// # Errors
/// [`RuleError::TooManyInAll`]
pub fn check_together<A, B>(one: &[Rule<A>], other: &[Rule<B>]) -> Result<(), RuleError> {
    let senders = one.iter().map(|rule| rule.senders.len());
    let in_all = senders.chain(other.iter().map(|rule| rule.senders.len())).sum();
    if in_all > MAX_SENDERS_IN_ALL { Err(RuleError::TooManyInAll(in_all)) } else { Ok(()) }
}

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

/// Why a rule lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// No sender pattern matches.
    SenderDoesNotMatch,
    /// No destination pattern matches.
    DestinationDoesNotMatch,
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
            Self::LessSpecificSender => "its sender pattern is less specific",
            Self::LessSpecificDestination => "its destination pattern is less specific",
            Self::LessRestrictiveAction => "its action comes later in the order of precedence",
            Self::LaterInFile => "it stands later in the file",
        }
    }
}
