//! Email flow rules (guide 3683–3790): patterns, rules, their order, and the one that wins. Pure.

mod evaluate;
mod order;
mod pattern;
mod rule;

pub use evaluate::{
    AuthorField, Authors, Explanation, Loss, Lost, RuleSet, Winner, check_together,
};
pub use pattern::{Pattern, PatternError};
pub use rule::{Action, InboundAction, InboundRule, OutboundAction, OutboundRule, Rule, RuleError};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
