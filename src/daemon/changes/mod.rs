//! What a reload changes, in words.

mod aftermath;
mod contents;
mod organization;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use crate::config::{Configuration, OrganizationConfig};
use crate::directory::OrganizationId;
use crate::id::EntityKind;
use crate::store::Register;

pub(super) use contents::Contents;

/// What is another in a new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// What is in force now.
    pub in_force: Vec<String>,
    /// What only a restart brings.
    pub after_restart: Vec<String>,
}

/// What a reload has read beside the configuration.
pub(super) struct BesideFiles {
    /// What the files hold that it names.
    pub(super) contents: Contents,
    /// The certificate is another.
    pub(super) has_new_certificate: bool,
    /// The keys of domains are others, or others of them sign.
    pub(super) has_new_domain_keys: bool,
    /// Who was who before.
    pub(super) met_before: Arc<Register>,
}

impl Changes {
    /// From one configuration to the next, which has what `fixed` keeps from the start.
    pub(super) fn between(
        before: (&Configuration, &Contents),
        now: &Configuration,
        beside: &BesideFiles,
    ) -> Self {
        let (before, contents) = before;
        let mut changes = Self::default();
        changes.keys(before, now);
        changes.in_force.extend(contents.changed(&beside.contents));
        if beside.has_new_certificate {
            changes.in_force.push("the certificate".to_owned());
        }
        if beside.has_new_domain_keys {
            changes.in_force.push("the keys of mail domains".to_owned());
        }
        changes.organizations(before, now, &beside.met_before);
        changes
    }

    /// What waits for a restart.
    pub(super) fn waiting(mut self, fixed: &Fixed, asked_for: &Fixed) -> Self {
        self.after_restart = fixed.differences(asked_for);
        self
    }

    /// The keys of the main file and of the environment by which a section is another than it was.
    /// A default that is written down changes nothing.
    fn keys(&mut self, before: &Configuration, now: &Configuration) {
        let is_path_of_mail_another = before.pipeline != now.pipeline;
        let are_limits_others = before.limits != now.limits || is_path_of_mail_another;
        let is_queue_another =
            before.queue != now.queue || before.routes != now.routes || is_path_of_mail_another;
        for (prefix, is_another) in [
            ("access.", is_path_of_mail_another),
            ("dmarc.", is_path_of_mail_another),
            ("dns.", before.dns != now.dns),
            ("limits.", are_limits_others),
            ("log.mail", is_path_of_mail_another),
            ("outbound.", is_path_of_mail_another),
            ("queue.", is_queue_another),
            ("spam.", before.scan != now.scan),
            ("store.mailbox_full_grace_s", is_path_of_mail_another),
            ("verdicts.", before.msgauth != now.msgauth),
        ] {
            if is_another {
                self.in_force.extend(before.keys.differing(&now.keys, prefix));
            }
        }
        match (before.queue.paused, now.queue.paused) {
            (false, true) => self.in_force.push("the queue is paused: no mail leaves".to_owned()),
            (true, false) => self.in_force.push("the queue goes on: mail leaves".to_owned()),
            (true, true) | (false, false) => {}
        }
        let mut routes = Vec::new();
        for (domain, route) in &now.routes.fixed {
            if before.routes.fixed.get(domain) != Some(route) {
                routes.push(domain.to_string());
            }
        }
        for domain in before.routes.fixed.keys() {
            if !now.routes.fixed.contains_key(domain) {
                routes.push(domain.to_string());
            }
        }
        if before.routes.relay != now.routes.relay {
            routes.push("*".to_owned());
        }
        if !routes.is_empty() {
            self.in_force.push(format!("[[queue_route]] of {}", listed(&routes)));
        }
    }

    fn organizations(
        &mut self,
        before: &Configuration,
        now: &Configuration,
        met_before: &Register,
    ) {
        let directory = &now.directory;
        let before = &before.organizations;
        let now = &now.organizations;
        for config in now {
            let organization = &config.organization;
            let alias = &organization.alias;
            let known = before.iter().find(|known| known.organization.id == organization.id);
            let mut told = Vec::new();
            match known {
                None => {
                    let come = come(met_before, &organization.id);
                    self.in_force.push(format!("organization {alias} is {come}"));
                    told.extend(aftermath::of_logins(None, organization, directory));
                }
                // A file that looks as it did is not read again.
                Some(known) if Arc::ptr_eq(known, config) => {}
                Some(known) => {
                    let known_members = &known.organization;
                    told.extend(organization::changes(known, config));
                    told.extend(aftermath::of_addresses(known_members, directory));
                    told.extend(aftermath::of_logins(Some(known_members), organization, directory));
                }
            }
            let told = told.iter().map(|what| format!("organization {alias}: {what}"));
            self.in_force.extend(told);
        }
        for known in before {
            let organization = &known.organization;
            if !now.iter().any(|config| config.organization.id == organization.id) {
                let alias = &organization.alias;
                let id = &organization.id;
                self.in_force.push(format!(
                    "organization {alias} is gone; its mail and passwords stay, for when an organization \
                     has this alias or its id {id} again"
                ));
                let refused = aftermath::of_addresses(organization, directory);
                self.in_force
                    .extend(refused.map(|refused| format!("organization {alias}: {refused}")));
            }
        }
        let order = |configs: &[Arc<OrganizationConfig>]| -> Vec<String> {
            configs.iter().map(|config| config.organization.id.to_string()).collect()
        };
        let has_same = before.len() == now.len();
        let first = |configs: &[Arc<OrganizationConfig>]| order(configs).into_iter().next();
        if has_same && first(before) != first(now) {
            self.in_force.push("another organization is the first".to_owned());
        }
    }
}

/// How an organization has come that was not there.
fn come(met_before: &Register, id: &OrganizationId) -> String {
    if met_before.alias_of(id.as_str()).is_none() {
        return "new".to_owned();
    }
    let met = met_before.entities(id.as_str());
    let here = met.filter(|(_, it)| it.kind == EntityKind::User && it.gone_at.is_none()).count();
    format!("back, with the mail and passwords of {here} users who were in it")
}

/// Names that one line tells; more are only counted.
const NAMED: usize = 10;

/// Names, as a sentence has them.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}
