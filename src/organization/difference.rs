//! What has to be said so that one state is another.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fact::Fact;
use super::state::State;

/// The facts that make the new state of the old one, or of nothing: at most one about each thing, so
/// their order means nothing. Of what stays as it was nothing is said.
pub fn difference(old: Option<&State>, new: &State) -> Vec<Fact> {
    let nothing = State::empty(new.id.clone());
    let before = old.unwrap_or(&nothing);
    let mut facts = Vec::new();
    // Said of whatever is there for the first time, so that its history has a beginning.
    if old.is_none() || before.alias != new.alias {
        facts.push(Fact::Alias(Arc::clone(&new.alias)));
    }
    if before.domains != new.domains {
        facts.push(Fact::Domains(new.domains.clone()));
    }
    entities(before, new, &mut facts);
    mailbox_rules(before, new, &mut facts);
    if before.postmaster != new.postmaster {
        facts.push(Fact::Postmaster(new.postmaster.clone()));
    }
    permissions(before, new, &mut facts);
    if before.inbound_rules != new.inbound_rules {
        facts.push(Fact::InboundRules(new.inbound_rules.clone()));
    }
    if before.outbound_rules != new.outbound_rules {
        facts.push(Fact::OutboundRules(new.outbound_rules.clone()));
    }
    if before.gateways != new.gateways {
        facts.push(Fact::Gateways(new.gateways.clone()));
    }
    if before.access != new.access {
        facts.push(Fact::Access(new.access.clone()));
    }
    if before.retention != new.retention {
        facts.push(Fact::Retention(new.retention.clone()));
    }
    if before.journaling != new.journaling {
        facts.push(Fact::Journaling(new.journaling.clone()));
    }
    if before.mail != new.mail {
        facts.push(Fact::Mail(new.mail.clone()));
    }
    if before.managed != new.managed {
        facts.push(Fact::Managed(new.managed.clone()));
    }
    facts
}

fn entities(before: &State, new: &State, facts: &mut Vec<Fact>) {
    for (id, _) in before.entities.iter() {
        if new.entities.get(id).is_none() {
            facts.push(Fact::Left { id: id.clone() });
        }
    }
    for (id, entity) in new.entities.iter() {
        if before.entities.get(id) != Some(entity) {
            facts.push(Fact::Entity { id: id.clone(), entity: Arc::clone(entity) });
        }
    }
}

fn mailbox_rules(before: &State, new: &State, facts: &mut Vec<Fact>) {
    for id in before.mailbox_rules.keys().filter(|id| !new.mailbox_rules.contains_key(id)) {
        facts.push(Fact::MailboxRules { id: id.clone(), rules: Arc::default() });
    }
    for (id, rules) in &new.mailbox_rules {
        if before.mailbox_rules.get(id) != Some(rules) {
            facts.push(Fact::MailboxRules { id: id.clone(), rules: Arc::clone(rules) });
        }
    }
}

fn permissions(before: &State, new: &State, facts: &mut Vec<Fact>) {
    for owner in before.permissions.keys().filter(|owner| !new.permissions.contains_key(owner)) {
        facts.push(Fact::Permissions { owner: owner.clone(), granted: BTreeMap::new() });
    }
    for (owner, granted) in &new.permissions {
        if before.permissions.get(owner) != Some(granted) {
            facts.push(Fact::Permissions { owner: owner.clone(), granted: granted.clone() });
        }
    }
}
