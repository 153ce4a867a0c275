//! RULE_APPLIED for email flow rules, of both directions.

use std::fmt::Display;

use crate::events::{RuleActionApplied, RuleApplied, RuleType};
use crate::mail::Address;
use crate::rules::Winner;

/// One event for each rule that won for somebody, with the recipients it won for.
pub(in crate::pipeline) fn rules_applied<'a, A: Display + 'a>(
    rule_type: RuleType,
    won: impl Iterator<Item = (&'a Winner<A>, &'a Address)>,
) -> Vec<RuleApplied> {
    let mut applied: Vec<RuleApplied> = Vec::new();
    for (rule, recipient) in won {
        let recipient = recipient.to_string();
        match applied.iter_mut().find(|known| known.rule_name == *rule.name) {
            Some(known) => {
                for action in &mut known.rule_actions {
                    action.recipients.push(recipient.clone());
                }
            }
            None => applied.push(RuleApplied {
                rule_name: rule.name.to_string(),
                rule_type,
                rule_actions: vec![RuleActionApplied {
                    action: rule.action.to_string(),
                    recipients: vec![recipient],
                }],
                target_folder: None,
                target_recipient: None,
            }),
        }
    }
    applied
}
