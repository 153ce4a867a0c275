//! What a fact changes, in words for people.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use super::fact::Fact;
use super::state::{AccessSaid, Entity, MailDomain, MailSettings, Resource, Rights, State, User};
use crate::id::{EntityId, EntityKind};
use crate::rules::mailbox::MailboxRules;
use crate::rules::{Action, Rule};

/// What people are called: before some facts, and after them.
#[derive(Debug)]
pub struct Names<'a> {
    before: &'a State,
    after: HashMap<&'a EntityId, &'a Entity>,
}

impl<'a> Names<'a> {
    /// Those of a state and of facts that are said together.
    pub fn new(before: &'a State, facts: &'a [Fact]) -> Self {
        let mut after = HashMap::new();
        for fact in facts {
            if let Fact::Entity { id, entity } = fact {
                after.insert(id, &**entity);
            }
        }
        Self { before, after }
    }

    /// What somebody is called, or else the id.
    fn of(&self, id: &EntityId) -> String {
        let entity = self.after.get(id).copied();
        let entity = entity.or_else(|| self.before.entities.get(id).map(|entity| &**entity));
        entity.map_or_else(|| id.to_string(), |entity| entity.name().to_string())
    }
}

/// What becomes another by a fact; `names` have the state before it.
pub fn words(fact: &Fact, names: &Names<'_>) -> String {
    let before = names.before;
    match fact {
        Fact::Alias(alias) if before.alias.is_empty() => format!("called {alias}"),
        Fact::Alias(alias) => format!("called {alias}, not {} any more", before.alias),
        Fact::Domains(domains) => domain_words(&before.domains, domains),
        Fact::Entity { id, entity } => entity_words(before.entities.get(id), entity, names),
        Fact::Left { id } => match before.entities.get(id) {
            Some(entity) => format!("{} {} left", entity.kind(), entity.name()),
            None => format!("{id} left"),
        },
        Fact::MailboxRules { id, rules } => {
            let none = MailboxRules::default();
            let old = before.mailbox_rules.get(id).map_or(&none, |rules| &**rules);
            let by_name = |rules: &MailboxRules| -> Vec<_> {
                rules.rules().iter().map(|rule| (rule.name.to_string(), rule.clone())).collect()
            };
            let told = in_order(&by_name(old), &by_name(rules));
            format!("mailbox rules of {}: {told}", names.of(id))
        }
        Fact::Postmaster(Some(id)) => format!("postmaster: {}", names.of(id)),
        Fact::Postmaster(None) => "postmaster: nobody".to_owned(),
        Fact::Permissions { owner, granted } => {
            let none = BTreeMap::new();
            let old = before.permissions.get(owner).unwrap_or(&none);
            let told = listed(&rights(old, names), &rights(granted, names));
            format!("permissions of {}: {told}", names.of(owner))
        }
        Fact::InboundRules(rules) => {
            format!("inbound rules: {}", flow_rules(&before.inbound_rules, rules))
        }
        Fact::OutboundRules(rules) => {
            format!("outbound rules: {}", flow_rules(&before.outbound_rules, rules))
        }
        Fact::Gateways(gateways) => {
            format!("SMTP gateways: {}", listed(&texts(&before.gateways), &texts(gateways)))
        }
        Fact::Access(rules) => {
            let by_name = |rules: &[AccessSaid]| -> Vec<_> {
                rules.iter().map(|rule| (rule.name.to_string(), rule.clone())).collect()
            };
            format!("access rules: {}", in_order(&by_name(&before.access), &by_name(rules)))
        }
        Fact::Retention(retention) => {
            format!("retention: {}", listed(&texts(&before.retention), &texts(retention)))
        }
        Fact::Journaling(Some(journaling)) => match before.journaling {
            None => format!("journaling on, to {}", journaling.journaling_address),
            Some(_) => "journaling changed".to_owned(),
        },
        Fact::Journaling(None) => "journaling off".to_owned(),
        Fact::Mail(mail) => format!("settings: {}", settings(&before.mail, mail)),
        Fact::Managed(Some(file)) => format!("said by {}", file.display()),
        Fact::Managed(None) => "said by no file".to_owned(),
    }
}

fn domain_words(old: &[MailDomain], new: &[MailDomain]) -> String {
    let named = |domains: &[MailDomain]| -> Vec<_> {
        domains.iter().map(|domain| (domain.name.to_string(), ())).collect()
    };
    let mut told = changes(&named(old), &named(new));
    if let Some(default) = new.first().filter(|it| old.first() != Some(it)) {
        told.push(format!("the default is {}", default.name));
    }
    format!("domains: {}", or_else(&told, "in another order"))
}

/// How much a state says, in words.
pub fn summary(state: &State) -> String {
    let of_kind = |kind| state.entities.iter().filter(|(_, entity)| entity.kind() == kind).count();
    let counts = [
        (of_kind(EntityKind::User), "user"),
        (of_kind(EntityKind::Group), "group"),
        (of_kind(EntityKind::Resource), "resource"),
        (state.domains.len(), "domain"),
        (state.inbound_rules.len(), "inbound rule"),
        (state.outbound_rules.len(), "outbound rule"),
        (state.gateways.len(), "SMTP gateway"),
        (state.access.len(), "access rule"),
        (state.permissions.values().map(BTreeMap::len).sum(), "permission"),
        (state.mailbox_rules.values().map(|rules| rules.rules().len()).sum(), "mailbox rule"),
    ];
    let mut told = Vec::new();
    for (count, what) in counts {
        match count {
            0 => {}
            1 => told.push(format!("1 {what}")),
            _ => told.push(format!("{count} {what}s")),
        }
    }
    told.join(", ")
}

fn entity_words(old: Option<&Arc<Entity>>, new: &Entity, names: &Names<'_>) -> String {
    let kind = new.kind();
    let name = new.name();
    let Some(old) = old else {
        let email = new.email().map(ToString::to_string).unwrap_or_default();
        return format!("{kind} {name} added: {email}");
    };
    let mut told = Vec::new();
    if old.name() != name {
        told.push(format!("was {}", old.name()));
    }
    if let (Some(old), Some(new)) = (mailbox(old), mailbox(new)) {
        user_words(old, new, &mut told);
    }
    match (&**old, new) {
        (Entity::Resource(old), Entity::Resource(new)) if old.kind != new.kind => {
            told.push("kind".to_owned());
        }
        (Entity::Group(old), Entity::Group(new)) => {
            note(&mut told, "email", &old.email, &new.email);
            note(&mut told, "aliases", &old.aliases, &new.aliases);
            if old.enabled != new.enabled {
                told.push(if new.enabled { "enabled" } else { "disabled" }.to_owned());
            }
            let named = |members: &[EntityId]| -> Vec<(String, ())> {
                members.iter().map(|id| (names.of(id), ())).collect()
            };
            if old.members != new.members {
                told.push(format!(
                    "members {}",
                    in_order(&named(&old.members), &named(&new.members))
                ));
            }
        }
        _ => {}
    }
    format!("{kind} {name} changed: {}", told.join("; "))
}

fn mailbox(entity: &Entity) -> Option<&User> {
    match entity {
        Entity::User(user) | Entity::Resource(Resource { mailbox: user, .. }) => Some(user),
        Entity::Group(_) => None,
    }
}

fn user_words(old: &User, new: &User, told: &mut Vec<String>) {
    note(told, "email", &old.email, &new.email);
    note(told, "aliases", &old.aliases, &new.aliases);
    if old.enabled != new.enabled {
        told.push(if new.enabled { "enabled" } else { "disabled" }.to_owned());
    }
    note(told, "remote", &old.remote, &new.remote);
    if old.quota_mb != new.quota_mb {
        told.push(format!("quota {} MB, was {} MB", new.quota_mb, old.quota_mb));
    }
}

/// Notes that something is another.
fn note<T: PartialEq>(told: &mut Vec<String>, what: &str, old: &T, new: &T) {
    if old != new {
        told.push(what.to_owned());
    }
}

fn rights(granted: &BTreeMap<EntityId, Rights>, names: &Names<'_>) -> Vec<(String, Rights)> {
    granted.iter().map(|(grantee, rights)| (names.of(grantee), *rights)).collect()
}

fn texts<K: Display, V: Clone>(map: &BTreeMap<K, V>) -> Vec<(String, V)> {
    map.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

fn flow_rules<A: Action>(old: &[Rule<A>], new: &[Rule<A>]) -> String {
    let by_name = |rules: &[Rule<A>]| -> Vec<_> {
        rules.iter().map(|rule| (rule.name.to_string(), rule.clone())).collect()
    };
    in_order(&by_name(old), &by_name(new))
}

/// What was added, has changed and is gone, by name.
fn changes<T: PartialEq>(old: &[(String, T)], new: &[(String, T)]) -> Vec<String> {
    let before: HashMap<_, _> = old.iter().map(|(name, value)| (name, value)).collect();
    let after: HashMap<_, _> = new.iter().map(|(name, value)| (name, value)).collect();
    let mut added = Vec::new();
    let mut changed = Vec::new();
    for (name, value) in new {
        match before.get(name) {
            None => added.push(name.as_str()),
            Some(old) if *old != value => changed.push(name.as_str()),
            Some(_) => {}
        }
    }
    let gone = old.iter().map(|(name, _)| name).filter(|name| !after.contains_key(name));
    let gone = gone.map(String::as_str).collect();
    let mut told = Vec::new();
    for (word, names) in [("added", added), ("changed", changed), ("removed", gone)] {
        if !names.is_empty() {
            told.push(format!("{} {word}", names.join(", ")));
        }
    }
    told
}

/// The same as one text.
fn listed<T: PartialEq>(old: &[(String, T)], new: &[(String, T)]) -> String {
    or_else(&changes(old, new), "changed")
}

/// The same of what has an order; if nothing else is told, that is what changed.
fn in_order<T: PartialEq>(old: &[(String, T)], new: &[(String, T)]) -> String {
    or_else(&changes(old, new), "in another order")
}

fn or_else(told: &[String], otherwise: &str) -> String {
    if told.is_empty() { otherwise.to_owned() } else { told.join("; ") }
}

fn settings(old: &MailSettings, new: &MailSettings) -> String {
    let mut told = Vec::new();
    note(&mut told, "plus_addressing", &old.plus_addressing, &new.plus_addressing);
    note(&mut told, "dmarc_enforcement", &old.dmarc_enforcement, &new.dmarc_enforcement);
    note(&mut told, "dmarc_on_reject", &old.on_reject, &new.on_reject);
    note(&mut told, "recipient quotas", &old.quotas, &new.quotas);
    note(&mut told, "blocked_attachments", &old.blocked_attachments, &new.blocked_attachments);
    told.join("; ")
}
