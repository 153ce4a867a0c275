//! The rule that wins for one recipient, found through an index; for both directions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::loss::Loss;
use super::order::{Breadth, Rank};
use super::pattern::{Party, Pattern};
use super::rule::{Action, FieldOrder, Rule, RuleError};
use crate::mail::Domain;

/// Sender patterns of a rule, and of an organization's rules of both directions together (product
/// contract §7, guide 3436–3437).
const MAX_SENDERS: usize = 250;
const MAX_SENDERS_IN_ALL: usize = 1000;

/// Whom a message says it is from. Never the envelope's sender (product contract §7).
#[derive(Debug)]
pub struct Authors<'a> {
    /// The `Sender` field's address, if the field is there.
    pub sender: Option<Sender<'a>>,
    /// All addresses of the `From` field. Where there is none, `*` alone matches.
    pub from: Vec<Party<'a>>,
}

/// Who a `Sender` field says has sent the message.
#[derive(Debug)]
pub struct Sender<'a> {
    /// Who it is.
    pub party: Party<'a>,
    /// Whether it is known that the field tells the truth: the guide's order is for senders who
    /// are who they say. Else anybody could choose the rule by a line in the header.
    pub is_proven: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner<A> {
    /// The rule's name.
    pub name: Arc<str>,
    /// What it does.
    pub action: A,
    /// Which field matched.
    pub author: AuthorField,
    /// The most specific of its sender patterns that matched.
    pub sender_pattern: Pattern,
    /// The most specific of its destination patterns that matched.
    pub destination_pattern: Pattern,
}

/// A [`Winner`] as it is written: the action is a word, with its gateway beside it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written<'a> {
    name: Cow<'a, str>,
    action: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<Cow<'a, str>>,
    author: AuthorField,
    sender_pattern: Cow<'a, Pattern>,
    destination_pattern: Cow<'a, Pattern>,
}

impl<A: Action> Serialize for Winner<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            name: Cow::Borrowed(&self.name),
            action: Cow::Borrowed(self.action.as_str()),
            gateway: self.action.gateway().map(Cow::Borrowed),
            author: self.author,
            sender_pattern: Cow::Borrowed(&self.sender_pattern),
            destination_pattern: Cow::Borrowed(&self.destination_pattern),
        };
        written.serialize(serializer)
    }
}

impl<'de, A: Action> Deserialize<'de> for Winner<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let action = A::of(&written.action, written.gateway.as_deref().map(Into::into));
        let no_action = || de::Error::custom(format!("there is no action `{}`", written.action));
        Ok(Self {
            action: action.ok_or_else(no_action)?,
            name: written.name.into(),
            author: written.author,
            sender_pattern: written.sender_pattern.into_owned(),
            destination_pattern: written.destination_pattern.into_owned(),
        })
    }
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

    /// Whether there are no rules, so that nobody need be held against them.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that wins for a recipient.
    ///
    /// Inbound (guide 3774): the `Sender` field is matched first, the `From` field if there is none
    /// or it matches no rule. A rule matches when both its sides do, so a `Sender` that only matches
    /// rules for other recipients leaves it to `From`. A `Sender` that nothing proves may make the
    /// outcome stricter than it is by `From` alone, and not milder.
    ///
    /// Outbound: the most specific rule that matches either.
    pub fn evaluate(&self, authors: &Authors<'_>, recipient: &Party<'_>) -> Evaluation<A> {
        let from = || self.of_authors(&authors.from, recipient);
        let Some(sender) = &authors.sender else {
            return Evaluation::of(from(), AuthorField::From);
        };
        let by_sender = self.of_author(&sender.party, recipient);
        let Some(by_sender) = by_sender else {
            return Evaluation::of(from(), AuthorField::From);
        };
        match A::FIELDS {
            FieldOrder::Either => match from() {
                Some(by_from) if by_from.rank < by_sender.rank => {
                    Evaluation::of(Some(by_from), AuthorField::From)
                }
                Some(_) | None => Evaluation::of(Some(by_sender), AuthorField::Sender),
            },
            FieldOrder::SenderFirst { .. } if sender.is_proven => {
                Evaluation::of(Some(by_sender), AuthorField::Sender)
            }
            FieldOrder::SenderFirst { without_rule } => {
                Evaluation::weighed(by_sender, from(), without_rule)
            }
        }
    }

    /// The most specific rule for any of several authors.
    pub(super) fn of_authors(
        &self,
        authors: &[Party<'_>],
        recipient: &Party<'_>,
    ) -> Option<Match<'_, A>> {
        if authors.is_empty() {
            return self.best(&self.by_star, None, recipient);
        }
        let matching = authors.iter().filter_map(|author| self.of_author(author, recipient));
        matching.min_by_key(|found| found.rank)
    }

    /// From the most specific kind of sender pattern to the least: the first kind of which a rule's
    /// destination matches too has the winner, since that comes first in the order.
    pub(super) fn of_author(
        &self,
        author: &Party<'_>,
        recipient: &Party<'_>,
    ) -> Option<Match<'_, A>> {
        if !self.by_address.is_empty() {
            let keys = author.keys().iter();
            let named = keys.filter_map(|key| self.by_address.get(key.as_str())).flatten();
            if let Some(found) = self.best(named, Some(author), recipient) {
                return Some(found);
            }
        }
        let domain = author.address().domain();
        let by_domain = self.by_domain.get(domain);
        let parents =
            std::iter::successors(Some(domain.as_str()), |name| Some(name.split_once('.')?.1));
        let by_wildcard = parents.filter_map(|name| self.by_wildcard.get(name));
        let mut groups = by_domain.into_iter().chain(by_wildcard).chain([&self.by_star]);
        groups.find_map(|places| self.best(places, Some(author), recipient))
    }

    fn best<'p>(
        &self,
        places: impl IntoIterator<Item = &'p usize>,
        author: Option<&Party<'_>>,
        recipient: &Party<'_>,
    ) -> Option<Match<'_, A>> {
        let matching =
            places.into_iter().filter_map(|place| self.match_of(*place, author, recipient).ok());
        matching.min_by_key(|found| found.rank)
    }

    /// Whether a rule matches; a message without an author has `None`.
    ///
    /// # Errors
    /// Which side does not match.
    pub(super) fn match_of(
        &self,
        place: usize,
        author: Option<&Party<'_>>,
        recipient: &Party<'_>,
    ) -> Result<Match<'_, A>, Loss> {
        let rule = self.rules.get(place).ok_or(Loss::SenderDoesNotMatch)?;
        let sender = most_specific(&rule.senders, author).ok_or(Loss::SenderDoesNotMatch)?;
        let destination = most_specific(&rule.destinations, Some(recipient));
        let destination = destination.ok_or(Loss::DestinationDoesNotMatch)?;
        // Mail between users here has no need to leave. Who wants it to, names the domain.
        if recipient.is_here() && *destination == Pattern::Star && rule.action.gateway().is_some() {
            return Err(Loss::NotBetweenUsersHere);
        }
        let rank = Rank {
            sender: Breadth::of(sender),
            destination: Breadth::of(destination),
            action: rule.action.precedence(),
            place,
        };
        Ok(Match { rule, sender, destination, rank })
    }
}

/// What rules say of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation<A> {
    /// The rule that wins, if one matches.
    pub winner: Option<Winner<A>>,
    /// Where nothing proves the `Sender`: the rule of the other field, which would have won if its
    /// field had counted.
    pub passed_over: Option<Winner<A>>,
}

impl<A: Action> Evaluation<A> {
    fn of(winner: Option<Match<'_, A>>, field: AuthorField) -> Self {
        Self { winner: winner.map(|found| found.winner(field)), passed_over: None }
    }

    /// The stricter of what an unproven `Sender` and `From` come to.
    fn weighed(by_sender: Match<'_, A>, by_from: Option<Match<'_, A>>, without_rule: u8) -> Self {
        let of_from = by_from.as_ref().map_or(without_rule, |found| found.rank.action);
        let may_count = by_sender.rank.action <= of_from;
        let by_sender = Some(by_sender.winner(AuthorField::Sender));
        let by_from = by_from.map(|found| found.winner(AuthorField::From));
        if may_count {
            Self { winner: by_sender, passed_over: by_from }
        } else {
            Self { winner: by_from, passed_over: by_sender }
        }
    }
}

/// A rule of which both sides match.
pub(super) struct Match<'a, A> {
    rule: &'a Rule<A>,
    pub(super) sender: &'a Pattern,
    pub(super) destination: &'a Pattern,
    pub(super) rank: Rank,
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

fn most_specific<'a>(patterns: &'a [Pattern], party: Option<&Party<'_>>) -> Option<&'a Pattern> {
    let matches = |pattern: &&Pattern| match party {
        Some(party) => pattern.matches(party),
        None => **pattern == Pattern::Star,
    };
    patterns.iter().filter(matches).min_by_key(|pattern| Breadth::of(pattern))
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
