//! What is another in an organization whose file was read again.

use std::collections::HashMap;

use super::listed;
use crate::config::OrganizationConfig;

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
    let mut changed = named(("users", Order::Idle), users, |user| &user.name);
    let groups = (&*known.groups, &*organization.groups);
    changed.extend(named(("groups", Order::Idle), groups, |group| &group.name));
    let resources = (&*known.resources, &*organization.resources);
    changed.extend(named(("resources", Order::Idle), resources, |it| &it.mailbox.name));
    let is_there = |name: &str| organization.users.iter().any(|user| *user.name == *name);
    if known.users.iter().any(|user| !is_there(&user.name)) {
        changed.push(
            "mail and passwords of users who were removed stay, for users with their names".into(),
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
