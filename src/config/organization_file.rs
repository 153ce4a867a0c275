//! An organization's file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::OrganizationConfig;
use super::reader::{Reader, Section, read_file};
use super::tree::{Node, Place};
use crate::directory::{
    Directory, EntityState, Group, Organization, OrganizationId, QUOTA_MB, Resource, ResourceKind,
    User,
};
use crate::journal;
use crate::mail::{Address, Domain};
use crate::pipeline::OnReject;
use crate::rules::{InboundAction, InboundRule, Pattern, RuleError, RuleSet};

/// Aliases of a user (guide 3441).
const MAX_ALIASES: usize = 100;
/// The local-part of the address from which journal records come (guide 7298).
const JOURNALING_SENDER: &str = "amazonjournaling";

/// What the organizations read so far have taken, each with the place where it stands.
#[derive(Debug, Default)]
pub(super) struct Claims {
    aliases: HashMap<String, String>,
    ids: HashMap<OrganizationId, String>,
    domains: HashMap<Domain, String>,
}

impl Claims {
    fn alias(&mut self, root: &Section<'_>, alias: &str) {
        if let Some(first) = self.aliases.insert(alias.to_owned(), root.place_of("alias")) {
            root.problem("alias", format!("\"{alias}\" is taken, at {first}"));
        }
    }

    /// An id that is made from the alias is the same only where the alias is.
    fn id(&mut self, root: &Section<'_>, id: &OrganizationId) {
        let taken = self.ids.insert(id.clone(), root.place_of("id"));
        if let Some(first) = taken.filter(|_| root.has("id")) {
            root.problem("id", format!("{id} is taken, at {first}"));
        }
    }

    fn domain(&mut self, root: &Section<'_>, domain: &Domain, place: &Place) {
        if let Some(first) = self.domains.insert(domain.clone(), place.to_string()) {
            root.problem_at(place, "domains", format!("{domain} is taken, at {first}"));
        }
    }
}

/// Reads an organization; `None` where a problem leaves too little to go on with. Every part is
/// read before that is decided, so that no problem hides another.
pub(super) fn read(
    path: &Path,
    reader: &Reader,
    claims: &mut Claims,
) -> Option<OrganizationConfig> {
    organization(path, &read_file(path, reader)?, reader, claims)
}

pub(super) fn organization(
    path: &Path,
    node: &Node,
    reader: &Reader,
    claims: &mut Claims,
) -> Option<OrganizationConfig> {
    let root = reader.root(node);
    let alias = root.text("alias");
    let alias = root.required("alias", alias);
    let id = id(&root, alias.as_deref());
    alias.iter().for_each(|alias| claims.alias(&root, alias));
    id.iter().for_each(|id| claims.id(&root, id));
    let domains = domains(&root, claims);
    let mut entities = Entities::new(&root, domains.as_deref());
    let users: Vec<_> =
        root.sections("user").iter().filter_map(|user| entities.user(user)).collect();
    let resources: Vec<_> =
        root.sections("resource").iter().filter_map(|section| entities.resource(section)).collect();
    let groups = entities.groups();
    let postmaster = entities.postmaster(&users);
    let journaling = journaling(&root, domains.as_deref());
    let reserved = reserved(journaling.as_ref(), domains.as_deref());
    reserved.iter().for_each(|reserved| entities.check_reserved(reserved));
    let plus_addressing = root.bool("plus_addressing").unwrap_or(false);
    let rules = rules(&root);
    let dmarc_enforcement = root.bool("dmarc_enforcement").unwrap_or(true);
    let on_reject = on_reject(&root, "dmarc_on_reject");
    not_yet(&root);
    root.finish();
    let organization = Arc::new(Organization {
        id: id?,
        alias: alias?,
        plus_addressing,
        postmaster: postmaster?,
        reserved: reserved?,
        domains: domains?,
        users,
        groups,
        resources,
    });
    check_postmaster(&root, &organization);
    Some(OrganizationConfig {
        file: path.into(),
        organization,
        rules: Arc::new(rules),
        journaling,
        dmarc_enforcement,
        on_reject,
    })
}

/// At least one domain, none of them taken; `None` if that cannot be said.
fn domains(root: &Section<'_>, claims: &mut Claims) -> Option<Vec<Domain>> {
    let domains: Option<Vec<(Domain, Place)>> = root.list("domains");
    let domains = root.required("domains", domains)?;
    if domains.is_empty() {
        root.problem("domains", "an organization has at least one domain");
        return None;
    }
    domains.iter().for_each(|(domain, place)| claims.domain(root, domain, place));
    Some(domains.into_iter().map(|(domain, _)| domain).collect())
}

/// RFC 5321 §4.5.1: mail for postmaster of every domain is taken. Whoever gets it, by the
/// `postmaster` key or by an address of that name, must be able to.
fn check_postmaster(root: &Section<'_>, organization: &Arc<Organization>) {
    // With conflicts, which are told already, there is no saying who gets it.
    let Ok(directory) = Directory::new(vec![Arc::clone(organization)]) else { return };
    for domain in &organization.domains {
        let Ok(address) = Address::from_parts("postmaster", domain.as_str()) else { continue };
        if let Err(error) = directory.resolve(&address, usize::MAX) {
            root.problem("postmaster", format!("nobody gets mail for {address}: {error}"));
        }
    }
}

/// `on_reject` of the daemon, or of an organization.
pub(super) fn on_reject(section: &Section<'_>, key: &'static str) -> Option<OnReject> {
    section.word(key, &[("reject", OnReject::Reject), ("drop", OnReject::Drop)])
}

fn id(root: &Section<'_>, alias: Option<&str>) -> Option<OrganizationId> {
    match root.text("id") {
        None => alias.map(OrganizationId::of_alias),
        Some(text) => {
            let id = OrganizationId::parse(&text);
            if id.is_none() {
                root.problem("id", format!("\"{text}\" is not m- and 32 hexadecimal digits"));
            }
            id
        }
    }
}

/// The entities of an organization on the way from its file.
struct Entities<'a> {
    root: &'a Section<'a>,
    /// `None` if the file does not say them in a way that can be read.
    domains: Option<&'a [Domain]>,
    /// Every name that is taken, and the place of its `name` key.
    names: HashMap<Arc<str>, String>,
    /// Every address that is taken, by its key, and the place where it is.
    addresses: HashMap<String, String>,
}

struct Identity {
    name: Arc<str>,
    email: Address,
    aliases: Vec<Address>,
}

impl<'a> Entities<'a> {
    fn new(root: &'a Section<'a>, domains: Option<&'a [Domain]>) -> Self {
        Self { root, domains, names: HashMap::new(), addresses: HashMap::new() }
    }

    /// Name, email and aliases, which users, resources and groups have alike.
    fn identity(&mut self, section: &Section<'_>) -> Option<Identity> {
        let name = section.text("name");
        let name: Option<Arc<str>> = section.required("name", name).map(Into::into);
        let email = section.parsed("email").or_else(|| {
            // A wrong email has been told; one that is missing is made from the name.
            let domain = self.domains?.first().filter(|_| !section.has("email"))?;
            Address::from_parts(name.as_deref()?, domain.as_str())
                .map_err(|_| section.problem("email", "is missing, and the name makes none"))
                .ok()
        });
        let aliases: Vec<(Address, Place)> = section.list("aliases").unwrap_or_default();
        let aliases: Vec<_> = aliases.into_iter().map(|(alias, _)| alias).collect();
        if aliases.len() > MAX_ALIASES {
            section.problem("aliases", format!("{} aliases; at most 100", aliases.len()));
        }
        let name = name?;
        let place = section.place_of("name");
        if let Some(first) = self.names.get(&name) {
            section.problem("name", format!("\"{name}\" is taken, at {first}"));
            return None;
        }
        self.names.insert(Arc::clone(&name), place);
        email.iter().for_each(|email| self.claim(section, "email", email));
        aliases.iter().for_each(|alias| self.claim(section, "aliases", alias));
        Some(Identity { name, email: email?, aliases })
    }

    /// Takes an address: it is in a domain of the organization, and nobody else has it.
    fn claim(&mut self, section: &Section<'_>, key: &str, address: &Address) {
        if self.domains.is_some_and(|domains| !domains.contains(address.domain())) {
            section.problem(key, format!("{address} is in no domain of the organization"));
        }
        if let Some(first) = self.addresses.insert(address.key(), section.place_of(key)) {
            section.problem(key, format!("{address} is taken, at {first}"));
        }
    }

    /// Guide 7303: there is no mailbox with the address that journal records come from.
    fn check_reserved(&self, reserved: &Address) {
        if let Some(taken) = self.addresses.get(&reserved.key()) {
            let message =
                format!("{reserved} is reserved for journal records, but taken, at {taken}");
            self.root.problem("journaling", message);
        }
    }

    fn user(&mut self, section: &Section<'_>) -> Option<User> {
        let identity = self.identity(section);
        let enabled = section.bool("enabled").unwrap_or(true);
        let remote: Option<Address> = section.parsed("remote");
        let quota_mb = section.number("quota_mb", QUOTA_MB).unwrap_or(*QUOTA_MB.end());
        section.finish();
        let Identity { name, email, aliases } = identity?;
        let state = match (enabled, remote) {
            (false, _) => EntityState::Disabled,
            (true, Some(elsewhere)) => EntityState::Remote(elsewhere),
            (true, None) => EntityState::Enabled,
        };
        Some(User { name, email, aliases, state, quota_mb })
    }

    fn resource(&mut self, section: &Section<'_>) -> Option<Resource> {
        let kinds = [("room", ResourceKind::Room), ("equipment", ResourceKind::Equipment)];
        let kind = section.word("kind", &kinds);
        let mailbox = self.user(section);
        Some(Resource { mailbox: mailbox?, kind: section.required("kind", kind)? })
    }

    fn group(&mut self, section: &Section<'_>) -> Option<Group> {
        let identity = self.identity(section);
        let members: Option<Vec<(String, Place)>> = section.list("members");
        let members = section.required("members", members).unwrap_or_default();
        let is_enabled = section.bool("enabled").unwrap_or(true);
        section.finish();
        let Identity { name, email, aliases } = identity?;
        let members = members.into_iter().map(|(member, _)| member.into()).collect();
        Some(Group { name, email, aliases, members, is_enabled })
    }

    /// Groups may name each other, so members are looked for when all names are known.
    fn groups(&mut self) -> Vec<Group> {
        let sections = self.root.sections("group");
        let read: Vec<_> = sections.iter().map(|section| (section, self.group(section))).collect();
        let known = read.into_iter().filter_map(|(section, group)| Some((section, group?)));
        known
            .map(|(section, group)| {
                for member in group.members.iter().filter(|name| !self.names.contains_key(*name)) {
                    section.problem(
                        "members",
                        format!("there is no user, resource or group \"{member}\""),
                    );
                }
                group
            })
            .collect()
    }

    /// RFC 5321 §4.5.1: mail for postmaster is always taken, so somebody gets it.
    fn postmaster(&self, users: &[User]) -> Option<Arc<str>> {
        match self.root.text("postmaster") {
            Some(name) if self.names.contains_key(name.as_str()) => Some(name.into()),
            Some(name) => {
                self.root.problem("postmaster", format!("there is no \"{name}\""));
                None
            }
            None => {
                let first = users.iter().find(|user| user.state == EntityState::Enabled);
                // One that could not be read may be enabled.
                if first.is_none() && users.len() == self.root.sections("user").len() {
                    self.root.problem("postmaster", "is missing, and there is no enabled user");
                }
                first.map(|user| Arc::clone(&user.name))
            }
        }
    }
}

/// The address that nobody may have, whether or not journaling is on (guide 7303).
fn reserved(journaling: Option<&journal::Settings>, domains: Option<&[Domain]>) -> Option<Address> {
    let named = journaling.map(|settings| settings.sender_address.clone());
    named.or_else(|| journaling_sender(domains?.first()?))
}

fn journaling_sender(default_domain: &Domain) -> Option<Address> {
    Address::from_parts(JOURNALING_SENDER, default_domain.as_str()).ok()
}

fn journaling(root: &Section<'_>, domains: Option<&[Domain]>) -> Option<journal::Settings> {
    let section = root.section("journaling");
    let journaling_address = section.parsed("journaling_address");
    let report_address = section.parsed("report_address");
    let sender_address: Option<Address> = section.parsed("sender_address");
    section.finish();
    if !section.is_present() {
        return None;
    }
    let (journaling_address, report_address) = (
        section.required("journaling_address", journaling_address),
        section.required("report_address", report_address),
    );
    Some(journal::Settings {
        journaling_address: journaling_address?,
        report_address: report_address?,
        sender_address: sender_address.or_else(|| journaling_sender(domains?.first()?))?,
    })
}

/// An action as the file spells it: one of this version's, or one that it does not have.
#[derive(Clone, Copy)]
enum ActionWord {
    Known(InboundAction),
    RunLambda,
}

fn rules(root: &Section<'_>) -> RuleSet {
    let sections = root.sections("inbound_rule");
    let mut rules = Vec::with_capacity(sections.len());
    for section in &sections {
        rules.extend(rule(section));
    }
    RuleSet::new(rules).unwrap_or_else(|errors| {
        for error in errors {
            let section = match &error {
                RuleError::TooManySenders(name, _)
                | RuleError::NoPatterns(name, _)
                | RuleError::SameName(name) => sections
                    .iter()
                    .rfind(|section| section.text("name").as_deref() == Some(&**name)),
                RuleError::TooManyInAll(_) => None,
            };
            match section {
                Some(section) => section.problem("name", error),
                None => root.problem("inbound_rule", error),
            }
        }
        RuleSet::default()
    })
}

fn rule(section: &Section<'_>) -> Option<InboundRule> {
    let name = section.text("name");
    let words: Vec<_> = InboundAction::ALL
        .iter()
        .map(|action| (action.as_str(), ActionWord::Known(*action)))
        .chain([("RUN_LAMBDA", ActionWord::RunLambda)])
        .collect();
    let action = section.word("action", &words);
    let action = match section.required("action", action) {
        Some(ActionWord::Known(action)) => Some(action),
        Some(ActionWord::RunLambda) => {
            section.problem("action", "RUN_LAMBDA is not supported by this version");
            None
        }
        None => None,
    };
    let patterns = |key| -> Option<Vec<Pattern>> {
        let list: Option<Vec<(Pattern, Place)>> = section.list(key);
        let list = section.required(key, list)?;
        Some(list.into_iter().map(|(pattern, _)| pattern).collect())
    };
    let (senders, destinations) = (patterns("senders"), patterns("destinations"));
    section.finish();
    let name = section.required("name", name)?.into();
    Some(InboundRule { name, action: action?, senders: senders?, destinations: destinations? })
}

/// What a later version reads: said aloud, never silently passed over.
fn not_yet(root: &Section<'_>) {
    for (key, what) in
        [("outbound_rule", "outbound rules are"), ("smtp_gateway", "SMTP gateways are")]
    {
        for section in root.sections(key) {
            section.problem("name", format!("{what} not supported by this version"));
        }
    }
}
