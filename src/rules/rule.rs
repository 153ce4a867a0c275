//! A rule: who from, who to, and what then.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// What an inbound rule does, in the order of the guide's list (3716–3726), which is the order of
/// precedence among equally specific rules (guide 3780).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundAction {
    /// *Drop email*
    Drop,
    /// *Send bounce response*
    Bounce,
    /// *Deliver to junk folder*
    MoveToJunk,
    /// *Default*
    Default,
    /// *Never deliver to junk folder*
    BypassSpamCheck,
}

impl InboundAction {
    /// All actions, most restrictive first.
    pub const ALL: [Self; 5] =
        [Self::Drop, Self::Bounce, Self::MoveToJunk, Self::Default, Self::BypassSpamCheck];

    /// The action's name in configuration and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "DROP",
            Self::Bounce => "BOUNCE",
            Self::MoveToJunk => "MOVE_TO_JUNK",
            Self::Default => "DEFAULT",
            Self::BypassSpamCheck => "BYPASS_SPAM_CHECK",
        }
    }
}

impl fmt::Display for InboundAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An inbound email flow rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundRule {
    /// Unique in the organization.
    pub name: Arc<str>,
    /// What it does.
    pub action: InboundAction,
    /// Whose mail it is for.
    pub senders: Vec<Pattern>,
    /// Which recipients it is for.
    pub destinations: Vec<Pattern>,
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// More sender patterns than a rule may have (product contract §7).
    #[error("rule {0} has {1} sender patterns; at most 250 are allowed")]
    TooManySenders(Arc<str>, usize),
    /// More sender patterns than an organization may have (product contract §7).
    #[error("the rules have {0} sender patterns together; at most 1000 are allowed")]
    TooManyInAll(usize),
    /// A list that matches nobody.
    #[error("rule {0} has no {1}")]
    NoPatterns(Arc<str>, &'static str),
    /// Two rules of one name.
    #[error("there are two rules with the name {0}")]
    SameName(Arc<str>),
}
