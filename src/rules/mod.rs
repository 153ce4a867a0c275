//! Email flow rules (guide 3683–3790): patterns, rules, their order, and the one that wins; and the
//! rules that users have for their mailboxes. Pure.

mod evaluate;
mod explain;
mod forwarding;
mod loss;
pub mod mailbox;
mod order;
mod pattern;
mod rule;

pub use evaluate::{AuthorField, Authors, Evaluation, RuleSet, Sender, Winner, check_together};
pub use explain::{Explanation, Lost};
pub use forwarding::{Withheld, may_go_on};
pub use loss::Loss;
pub use pattern::{Party, Pattern, PatternError};
pub use rule::{
    Action, FieldOrder, InboundAction, InboundRule, OutboundAction, OutboundRule, Rule, RuleError,
};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
