//! Which of several matching rules wins, defined once.
//!
//! Product contract §7, after guide 3776–3781: the most specific sender pattern (address, then
//! domain, then longer wildcard, then shorter wildcard, then star), then the most specific
//! destination pattern, then the action that stands first in the guide's list, then the rule
//! that stands first in the organization's file, so that the order is total.

use super::pattern::Pattern;

/// How specific a pattern is; smaller is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Breadth {
    Address,
    Domain,
    /// Wildcards that match one address are nested, so the one with more labels is the longer;
    /// `usize::MAX` minus its labels sorts it first.
    Wildcard(usize),
    Star,
}

impl Breadth {
    pub(super) fn of(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Address(_) => Self::Address,
            Pattern::Domain(_) => Self::Domain,
            Pattern::Wildcard(domain) => {
                Self::Wildcard(usize::MAX - domain.as_str().split('.').count())
            }
            Pattern::Star => Self::Star,
        }
    }
}

/// The sort key: among matching rules, the smallest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) sender: Breadth,
    pub(super) destination: Breadth,
    /// The action's precedence.
    pub(super) action: u8,
    /// The rule's place in the file.
    pub(super) place: usize,
}
