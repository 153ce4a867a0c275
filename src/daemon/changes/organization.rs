//! What is another in an organization whose file was read again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::listed;
use crate::config::OrganizationConfig;
use crate::id::EntityId;

/// Every difference, in words; none where the file says what it said.
pub(super) fn changes(before: &OrganizationConfig, now: &OrganizationConfig) -> Vec<String> {
    let mut changed = keys(before, now);
    changed.extend(members(before, now));
    let is_inbound = ("inbound rules", Order::Tells);
    let is_outbound = ("outbound rules", Order::Tells);
    let inbound = (before.rules.rules(), now.rules.rules());
    let outbound = (before.outbound.rules(), now.outbound.rules());
    changed.extend(named(is_inbound, inbound, |rule| &rule.name));
    changed.extend(named(is_outbound, outbound, |rule| &rule.name));
    let gateways = (&*before.gateways, &*now.gateways);
    changed.extend(named(("SMTP gateways", Order::Idle), gateways, |gateway| &gateway.name));
    let access = (before.access.rules(), now.access.rules());
    changed.extend(named(("access rules", Order::Idle), access, |rule| &rule.name));
    changed
}

/// What the organization says once.
fn keys(before: &OrganizationConfig, now: &OrganizationConfig) -> Vec<String> {
    let known = &before.organization;
    let organization = &now.organization;
    let differing = [
        ("alias", known.alias != organization.alias),
        ("domains", known.domains != organization.domains),
        ("plus_addressing", known.plus_addressing != organization.plus_addressing),
        ("postmaster", known.postmaster != organization.postmaster),
        ("dmarc_enforcement", before.dmarc_enforcement != now.dmarc_enforcement),
        ("dmarc_on_reject", before.on_reject != now.on_reject),
        ("blocked_attachments", before.blocked_attachments != now.blocked_attachments),
        ("quotas of recipients", before.quotas != now.quotas),
        ("[journaling]", before.journaling != now.journaling),
        ("[[permission]]", known.permissions != organization.permissions),
        ("[[retention]]", before.retention != now.retention),
    ];
    let differing = differing.iter().filter(|(_, is_another)| *is_another);
    differing.map(|(key, _)| format!("{key} changed")).collect()
}

/// Who is there, and what their mailboxes do with mail.
fn members(before: &OrganizationConfig, now: &OrganizationConfig) -> Vec<String> {
    let known = &before.organization;
    let organization = &now.organization;
    let users = (&*known.users, &*organization.users);
    let users = Entities::between(users, |user| (&user.id, &user.name));
    let groups = (&*known.groups, &*organization.groups);
    let groups = Entities::between(groups, |group| (&group.id, &group.name));
    let resources = (&*known.resources, &*organization.resources);
    let resources = Entities::between(resources, |it| (&it.mailbox.id, &it.mailbox.name));
    let mut changed = users.told("users");
    changed.extend(groups.told("groups"));
    changed.extend(resources.told("resources"));
    if !users.removed.is_empty() || !resources.removed.is_empty() {
        changed.push(
            "mailboxes of those who were removed are closed, and stay: whoever gets one of their names \
             is somebody else, and mailbox list tells the ids by which they can come back"
                .into(),
        );
    }
    let mut users_with_other_rules: Vec<String> = Vec::new();
    for (user, rules) in now.mailbox_rules.iter() {
        if before.mailbox_rules.get(user) != Some(rules) {
            users_with_other_rules.push(user.to_string());
        }
    }
    for user in before.mailbox_rules.keys() {
        if !now.mailbox_rules.contains_key(user) {
            users_with_other_rules.push(user.to_string());
        }
    }
    if !users_with_other_rules.is_empty() {
        users_with_other_rules.sort_unstable();
        changed.push(format!("mailbox rules of {} changed", listed(&users_with_other_rules)));
    }
    changed
}

/// What became of users, groups or resources; a name is not who has it.
#[derive(Default)]
struct Entities {
    added: Vec<String>,
    renamed: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Entities {
    fn between<T: PartialEq>(
        (before, now): (&[T], &[T]),
        who: impl Fn(&T) -> (&EntityId, &Arc<str>),
    ) -> Self {
        let known: HashMap<_, _> = before.iter().map(|thing| (who(thing).0, thing)).collect();
        let mut found = Self::default();
        let mut present = HashSet::new();
        for thing in now {
            let (id, name) = who(thing);
            present.insert(id);
            match known.get(id) {
                None => found.added.push(name.to_string()),
                Some(known) if who(known).1 != name => {
                    found.renamed.push(format!("{} to {name}", who(known).1));
                }
                Some(known) if *known != thing => found.changed.push(name.to_string()),
                Some(_) => {}
            }
        }
        let removed = before.iter().map(who).filter(|(id, _)| !present.contains(id));
        found.removed = removed.map(|(_, name)| name.to_string()).collect();
        found
    }

    fn told(&self, kind: &str) -> Vec<String> {
        let Self { added, renamed, changed, removed } = self;
        let mut told = Vec::new();
        for (names, what) in
            [(added, "added"), (renamed, "renamed"), (changed, "changed"), (removed, "removed")]
        {
            if !names.is_empty() {
                told.push(format!("{kind} {what}: {}", listed(names)));
            }
        }
        told
    }
}

/// Whether it means something in which order things stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Tells,
    Idle,
}

/// What of a kind that has names is new, gone or another.
fn named<T: PartialEq>(
    (kind, order): (&str, Order),
    (before, now): (&[T], &[T]),
    name: impl Fn(&T) -> &str,
) -> Vec<String> {
    let known: HashMap<_, _> = before.iter().map(|thing| (name(thing), thing)).collect();
    let present: HashMap<_, _> = now.iter().map(|thing| (name(thing), thing)).collect();
    let mut new = Vec::new();
    let mut others = Vec::new();
    for thing in now {
        match known.get(name(thing)) {
            None => new.push(name(thing).to_owned()),
            Some(known) if *known != thing => others.push(name(thing).to_owned()),
            Some(_) => {}
        }
    }
    let gone = before.iter().map(&name).filter(|name| !present.contains_key(name));
    let gone: Vec<_> = gone.map(str::to_owned).collect();
    let names = |things: &[T]| -> Vec<String> {
        things.iter().map(|thing| name(thing).to_owned()).collect()
    };
    let mut changed = Vec::new();
    for (names, what) in [(&new, "added"), (&others, "changed"), (&gone, "removed")] {
        if !names.is_empty() {
            changed.push(format!("{kind} {what}: {}", listed(names)));
        }
    }
    if order == Order::Tells && changed.is_empty() && names(before) != names(now) {
        changed.push(format!("{kind} in another order"));
    }
    changed
}
