//! What a reload changes, in words.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use crate::config::{Configuration, OrganizationConfig};

/// What is another in a new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// What is in force now.
    pub in_force: Vec<String>,
    /// What only a restart brings.
    pub after_restart: Vec<String>,
}

impl Changes {
    /// From one configuration to the next, in a daemon that started with `fixed`. Where an
    /// organization's file was read again, the numbers tell what became more or less; a rule that
    /// was rewritten is no more than "read again".
    pub(super) fn between(fixed: &Fixed, before: &Configuration, now: &Configuration) -> Self {
        let in_force = [
            ("[limits]", before.limits != now.limits),
            ("[dns]", before.dns != now.dns),
            ("[verdicts]", before.msgauth != now.msgauth),
            ("[spam]", before.scan != now.scan),
            ("[queue]", before.queue != now.queue),
            ("[[queue_route]] and [outbound]", before.routes != now.routes),
            ("[access], [dmarc] and quotas", before.pipeline != now.pipeline),
        ];
        let after_restart = fixed.differences(&Fixed::of(now));
        let mut changes = Self { in_force: named(&in_force), after_restart };
        changes.organizations(&before.organizations, &now.organizations);
        changes
    }

    fn organizations(
        &mut self,
        before: &[Arc<OrganizationConfig>],
        now: &[Arc<OrganizationConfig>],
    ) {
        for config in now {
            let id = &config.organization.id;
            let alias = &config.organization.alias;
            let known = before.iter().find(|known| known.organization.id == *id);
            let change = match known {
                None => "is new".to_owned(),
                // A file that looks as it did is not read again.
                Some(known) if Arc::ptr_eq(known, config) => continue,
                Some(known) => read_again(known, config),
            };
            self.in_force.push(format!("organization {alias} {change}"));
        }
        for known in before {
            let id = &known.organization.id;
            if !now.iter().any(|config| config.organization.id == *id) {
                self.in_force.push(format!("organization {} is gone", known.organization.alias));
            }
        }
    }
}

pub(super) fn named(parts: &[(&str, bool)]) -> Vec<String> {
    let changed = parts.iter().filter(|(_, is_changed)| *is_changed);
    changed.map(|(name, _)| (*name).to_owned()).collect()
}

fn read_again(before: &OrganizationConfig, now: &OrganizationConfig) -> String {
    let counts = |config: &OrganizationConfig| {
        [
            ("users", config.organization.users.len()),
            ("groups", config.organization.groups.len()),
            ("resources", config.organization.resources.len()),
            ("inbound rules", config.rules.rules().len()),
            ("outbound rules", config.outbound.rules().len()),
            ("gateways", config.gateways.len()),
        ]
    };
    let mut text = "was read again".to_owned();
    for ((what, earlier), (_, later)) in counts(before).into_iter().zip(counts(now)) {
        if earlier != later {
            text.push_str(&format!(", {later} {what} after {earlier}"));
        }
    }
    text
}
