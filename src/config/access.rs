//! `[[access_rule]]` of an organization.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::endpoint::Network;
use super::hints;
use super::permissions::Names;
use super::reader::Section;
use crate::directory::{
    AccessEffect, AccessProtocol, AccessRule, AccessRules, UnknownProtocol, User,
};
use crate::id::EntityId;
use crate::organization::AccessSaid;

/// What the API has for rules (`contracts.md` §5.3): how many an organization has, of how many
/// address ranges and users, and how long their names and descriptions are.
const MAX_RULES: usize = 10;
const MAX_RANGES: usize = 1024;
const MAX_USERS: usize = 10;
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 255;

/// An organization's access control rules.
#[derive(Debug)]
pub(super) struct AccessRead {
    pub(super) rules: AccessRules,
    /// The same as they are said, with ids in place of names.
    pub(super) said: Vec<AccessSaid>,
}

impl AccessRead {
    fn new(rules: AccessRules, descriptions: Vec<Option<Box<str>>>, known: &Names) -> Self {
        let descriptions = descriptions.into_iter().chain(std::iter::repeat(None));
        let said = rules.rules().iter().zip(descriptions);
        let said = said.map(|(rule, description)| said_of(rule, description, known)).collect();
        Self { rules, said }
    }
}

fn said_of(rule: &AccessRule, description: Option<Box<str>>, known: &Names) -> AccessSaid {
    let ids = |users: &[Arc<str>]| -> BTreeSet<EntityId> {
        users.iter().filter_map(|name| Some(known.get(name)?.id.clone())).collect()
    };
    AccessSaid {
        name: Arc::clone(&rule.name),
        effect: rule.effect,
        description,
        protocols: rule.protocols.iter().copied().collect(),
        not_protocols: rule.not_protocols.iter().copied().collect(),
        ip_ranges: rule.ip_ranges.iter().copied().collect(),
        not_ip_ranges: rule.not_ip_ranges.iter().copied().collect(),
        users: ids(&rule.users),
        not_users: ids(&rule.not_users),
    }
}

/// The organization's rules. Without any there is the one that allows all, unless the file says
/// `access_rules = []`: then there is none, and nobody gets in (guide 4517).
pub(super) fn access_rules(root: &Section<'_>, users: &[User], known: &Names) -> AccessRead {
    let sections = root.sections("access_rule");
    let none: Option<Vec<(Nothing, _)>> = root.list("access_rules");
    if none.is_some() && !sections.is_empty() {
        root.problem("access_rules", "says that there is no rule, and there is one");
    }
    if let Some(section) = sections.get(MAX_RULES) {
        let message = format!("{} rules; at most {MAX_RULES} are allowed", sections.len());
        section.problem("name", message);
    }
    let mut names = HashMap::new();
    let users = Users { root, read: users };
    let read = sections.iter().filter_map(|section| rule(section, &users, &mut names));
    let read: (Vec<_>, Vec<_>) = read.unzip();
    let rules = match (sections.is_empty(), none) {
        (true, None) => AccessRules::default(),
        _ => AccessRules::new(read.0),
    };
    AccessRead::new(rules, read.1, known)
}

/// What the list that must be empty holds.
struct Nothing;

impl FromStr for Nothing {
    type Err = &'static str;

    fn from_str(_: &str) -> Result<Self, Self::Err> {
        Err("this list is only for saying that there is no rule; write one as [[access_rule]]")
    }
}

/// The organization's users, and the file that has them.
struct Users<'a> {
    root: &'a Section<'a>,
    read: &'a [User],
}

impl Users<'_> {
    /// Whether there is such a user, even one of whom something else could not be read.
    fn has(&self, name: &str) -> bool {
        let is_read = self.read.iter().any(|user| &*user.name == name);
        let in_file = || self.root.sections("user");
        is_read || in_file().iter().any(|user| user.text("name").as_deref() == Some(name))
    }
}

fn rule(
    section: &Section<'_>,
    users: &Users<'_>,
    names: &mut HashMap<Arc<str>, String>,
) -> Option<(AccessRule, Option<Box<str>>)> {
    let name = section.text("name");
    let effects = [AccessEffect::Allow, AccessEffect::Deny].map(|effect| (effect.as_str(), effect));
    let effect = section.word("effect", &effects);
    let description = description(section);
    let rule = AccessRule {
        name: name.clone().unwrap_or_default().into(),
        effect: effect.unwrap_or(AccessEffect::Deny),
        protocols: protocols(section, "protocols"),
        not_protocols: protocols(section, "not_protocols"),
        ip_ranges: networks(section, "ip_ranges"),
        not_ip_ranges: networks(section, "not_ip_ranges"),
        users: named(section, "users", users),
        not_users: named(section, "not_users", users),
    };
    section.finish();
    let (name, effect) = (section.required("name", name), section.required("effect", effect));
    check_name(section, &name?, names);
    effect.map(|_| (rule, description))
}

fn check_name(section: &Section<'_>, name: &str, names: &mut HashMap<Arc<str>, String>) {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(is_valid) {
        let message = format!("\"{name}\" is not 1 to 64 letters, digits, hyphens and underscores");
        section.problem("name", message);
    }
    if let Some(first) = names.insert(name.into(), section.place_of("name")) {
        section.problem("name", format!("\"{name}\" is taken, at {first}"));
    }
}

/// For people alone; a rule is known by its name.
fn description(section: &Section<'_>) -> Option<Box<str>> {
    let description = section.text("description")?;
    let length = description.chars().count();
    if length > MAX_DESCRIPTION || !description.chars().all(|c| matches!(c, ' '..='\u{ff}')) {
        section.problem("description", "is not at most 255 characters of Latin-1");
    }
    Some(description.into())
}

/// A protocol, with an error that says which may be meant.
struct Named(AccessProtocol);

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|error: UnknownProtocol| {
            let known = AccessProtocol::ALL.into_iter().map(AccessProtocol::as_str);
            format!("{error}{}", hints::value(text, known))
        })
    }
}

fn protocols(section: &Section<'_>, key: &'static str) -> Vec<AccessProtocol> {
    let protocols: Vec<Named> = list(section, key, usize::MAX);
    protocols.into_iter().map(|Named(protocol)| protocol).collect()
}

/// One of a rule's conditions: absent or not readable, it is empty. An empty one in the file is a
/// mistake: it reads as "nobody", but would be no condition at all.
fn list<T: FromStr<Err: fmt::Display>>(
    section: &Section<'_>,
    key: &'static str,
    max: usize,
) -> Vec<T> {
    let Some(list) = section.list(key) else { return Vec::new() };
    if list.is_empty() {
        section.problem(key, "is empty; leave it out where it is no condition");
    }
    if list.len() > max {
        section.problem(key, format!("{} entries; at most {max} are allowed", list.len()));
    }
    list.into_iter().map(|(value, _)| value).collect()
}

fn networks(section: &Section<'_>, key: &'static str) -> Vec<IpNet> {
    let networks: Vec<Network> = list(section, key, MAX_RANGES);
    networks.into_iter().map(|Network(network)| network).collect()
}

fn named(section: &Section<'_>, key: &'static str, users: &Users<'_>) -> Vec<Arc<str>> {
    let names: Vec<String> = list(section, key, MAX_USERS);
    for name in names.iter().filter(|name| !users.has(name)) {
        section.problem(key, format!("there is no user \"{name}\""));
    }
    names.into_iter().map(Into::into).collect()
}
