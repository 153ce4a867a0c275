//! An organization's file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem::take;
use std::path::Path;
use std::sync::Arc;

use super::OrganizationConfig;
use super::access::{AccessRead, access_rules};
use super::flow_rules::FlowRules;
use super::mailbox_rules::{self, MailboxRulesByUser};
use super::outbound::{self, Gateways};
use super::permissions::{self, Named, Names};
use super::reader::{Reader, Section, read_file};
use super::stamp::Stamps;
use super::tree::{Node, Place};
use super::warnings::{self, Reach};
use super::who::{self, Identities};
use super::{flow_rules, hints};
use crate::directory::{
    Directory, EntityState, Group, IndexedOrganization, Organization, OrganizationId, Permission,
    QUOTA_MB, ResolveError, Resource, ResourceKind, User,
};
use crate::id::{EntityId, EntityKind};
use crate::journal;
use crate::mail::{Address, Domain};
use crate::organization::{
    self, Entity, FolderAction, FolderRule, JournalingSaid, MailDomain, MailSettings, OnReject,
    State,
};
use crate::pipeline::Extensions;
use crate::rules::mailbox::MailboxRules;
use crate::store::{Folder, FolderRetention, Register, RetentionAction};

/// The longest name of a user, resource or group (the API's `UserName`), in characters.
const MAX_NAME: usize = 64;
/// Aliases of a user (guide 3441).
const MAX_ALIASES: usize = 100;
/// Domains of an organization (guide 3431).
const MAX_DOMAINS: usize = 1000;
/// Days that retention may keep a message (the API's `RetentionPeriod`).
const RETENTION_DAYS: std::ops::RangeInclusive<u64> = 1..=730;
/// The local-part of the address from which journal records come (guide 7298).
const JOURNALING_SENDER: &str = "amazonjournaling";

/// Something that only one organization can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Unique {
    Alias(String),
    Id(OrganizationId),
    Domain(Domain),
}

/// An organization's word that something is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    what: Unique,
    place: String,
    /// It stands in the file; an id that is made from the alias is the same only where that is.
    is_stated: bool,
}

impl Claim {
    /// Where a domain is claimed, if this is its claim.
    pub(super) fn place_of(&self, domain: &Domain) -> Option<&str> {
        matches!(&self.what, Unique::Domain(claimed) if claimed == domain).then_some(&*self.place)
    }
}

/// What the organizations read so far have taken, each with the place where it stands.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<Unique, String>);

impl Claims {
    /// Adds an organization's claims; what is taken already is a problem.
    pub(super) fn add(&mut self, claims: &[Claim], reader: &Reader) {
        for Claim { what, place, is_stated } in claims {
            let Some(first) = self.0.insert(what.clone(), place.clone()) else { continue };
            let (key, what) = match what {
                Unique::Alias(alias) => ("alias", format!("\"{alias}\"")),
                Unique::Id(id) => ("id", id.to_string()),
                Unique::Domain(domain) => ("domains", domain.to_string()),
            };
            if *is_stated {
                reader.problem(place, key, format!("{what} is taken, at {first}"));
            }
        }
    }
}

/// Reads an organization; `None` where a problem leaves too little to go on with. Every part is
/// read before that is decided, so that no problem hides another.
pub(super) fn read(
    path: &Path,
    around: Around<'_>,
    reader: &Reader,
    claims: &mut Claims,
) -> Option<OrganizationConfig> {
    let stamps = Stamps::of(path);
    organization(path, stamps, &read_file(path, reader)?, around, reader, claims)
}

/// Reads an organization from a file that may come into the place of the one that is configured for
/// it, or beside those that are.
pub(super) fn read_instead(
    file: &Path,
    around: Around<'_>,
    reader: &Reader,
    configured: &[Arc<OrganizationConfig>],
) -> Option<OrganizationConfig> {
    let node = read_file(file, reader)?;
    let read = |path: &Path, reader: &Reader, claims: &mut Claims| {
        organization(path, Stamps::of(path), &node, around, reader, claims)
    };
    // Once to find out whose it is.
    let found = read(file, &Reader::default(), &mut Claims::default());
    let id = found.map(|found| found.state.id.clone());
    let mut claims = Claims::default();
    let mut place = file;
    for config in configured {
        if Some(&config.state.id) == id.as_ref() {
            // What it names by relative paths is beside the file that it comes in the place of.
            place = &config.file;
        } else if id.is_some() {
            claims.add(&config.claims, &Reader::default());
        }
    }
    read(place, reader, &mut claims)
}

/// What an organization's file is read in the light of.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The daemon's own name.
    pub(super) hostname: Option<&'a Domain>,
    /// Who is who so far.
    pub(super) register: &'a Register,
}

pub(super) fn organization(
    path: &Path,
    mut stamps: Stamps,
    node: &Node,
    around: Around<'_>,
    reader: &Reader,
    claims: &mut Claims,
) -> Option<OrganizationConfig> {
    let root = reader.root(node);
    let claimed = Claimed::read(&root, around.register);
    claims.add(&claimed.claims, reader);
    let identities = Identities::new(claimed.id.as_ref(), around.register);
    let mut members = Members::read(&root, claimed.domains.as_deref(), identities);
    let policies = Policies::read(&root, path, &mut stamps, &members);
    root.finish();
    let organization = Arc::new(Organization {
        id: claimed.id?,
        alias: claimed.alias?,
        plus_addressing: policies.mail.plus_addressing,
        postmaster: members.postmaster.clone()?,
        reserved: members.reserved.clone()?,
        domains: claimed.domains?,
        users: take(&mut members.users),
        groups: take(&mut members.groups),
        resources: take(&mut members.resources),
        permissions: policies.permissions.clone(),
    });
    let indexed = index(&root, &organization, reader)?;
    let journaling = members.journaling.as_ref();
    let flow_rules = (&policies.rules, around.hostname);
    check_targets(&root, &indexed, journaling, &members.mailbox_rules, flow_rules);
    Some(OrganizationConfig {
        file: path.into(),
        stamps,
        claims: claimed.claims,
        state: Arc::new(state(path, &organization, &mut members, &policies)),
        indexed,
        retention: folder_retention(&policies.retention, &organization.id),
        organization,
        rules: Arc::new(policies.rules.inbound),
        outbound: Arc::new(policies.rules.outbound),
        gateways: policies.gateways.read,
        blocked_attachments: Arc::new(extensions(&policies.mail)),
        quotas: policies.mail.quotas,
        mailbox_rules: Arc::new(members.mailbox_rules),
        journaling: members.journaling,
        dmarc_enforcement: policies.mail.dmarc_enforcement,
        on_reject: policies.mail.on_reject,
        access: Arc::new(policies.access.rules),
        removes_users: policies.removes_users,
    })
}

/// The extensions of files that are not sent: the guide's, where nothing is said.
fn extensions(mail: &MailSettings) -> Extensions {
    let said = mail.blocked_attachments.as_ref();
    said.map_or_else(Extensions::default, |blocked| blocked.0.iter().cloned().collect())
}

/// All that the file says, whole and by id. It is made of the same reading as what is compiled, so the
/// two cannot mean different people.
fn state(
    path: &Path,
    organization: &Organization,
    members: &mut Members,
    policies: &Policies,
) -> State {
    let domain = |name: &Domain| MailDomain { name: name.clone() };
    let mut domains: Vec<_> = organization.domains.iter().map(domain).collect();
    if let [_, others @ ..] = &mut *domains {
        others.sort_unstable();
    }
    State {
        id: organization.id.clone(),
        alias: organization.alias.as_str().into(),
        domains,
        entities: take(&mut members.said),
        mailbox_rules: take(&mut members.said_rules),
        postmaster: members.names.get(&organization.postmaster).map(|named| named.id.clone()),
        permissions: permissions::by_id(&policies.permissions, &members.names),
        inbound_rules: policies.rules.inbound.rules().to_vec(),
        outbound_rules: policies.rules.outbound.rules().to_vec(),
        gateways: policies.gateways.said.clone(),
        access: policies.access.said.clone(),
        retention: policies.retention.clone(),
        journaling: members.said_journaling.clone(),
        mail: policies.mail.clone(),
        managed: Some(outbound::whole_path(path)),
    }
}

/// What is done with an organization's mail, and who may do what.
struct Policies {
    permissions: Vec<Permission>,
    gateways: Gateways,
    rules: FlowRules,
    access: AccessRead,
    retention: BTreeMap<Folder, FolderRule>,
    mail: MailSettings,
    removes_users: Option<u64>,
}

impl Policies {
    fn read(root: &Section<'_>, path: &Path, stamps: &mut Stamps, members: &Members) -> Self {
        let gateways = outbound::gateways(root, path, stamps);
        Self {
            permissions: permissions::read(root, &members.names),
            rules: flow_rules::read(root, &gateways.names),
            gateways,
            access: access_rules(root, &members.users, &members.names),
            retention: retention(root),
            mail: MailSettings {
                plus_addressing: root.bool("plus_addressing").unwrap_or(false),
                dmarc_enforcement: root.bool("dmarc_enforcement").unwrap_or(true),
                on_reject: on_reject(root, "dmarc_on_reject"),
                quotas: outbound::own_quotas(root),
                blocked_attachments: outbound::blocked_attachments(root),
            },
            removes_users: root.number("removes_users", 1..=u64::MAX >> 1),
        }
    }
}

/// What is the organization's own among all; each is `None` if the file does not say it in a way
/// that can be read.
struct Claimed {
    alias: Option<String>,
    id: Option<OrganizationId>,
    domains: Option<Vec<Domain>>,
    claims: Vec<Claim>,
}

impl Claimed {
    fn read(root: &Section<'_>, register: &Register) -> Self {
        let alias = root.text("alias");
        let alias = root.required("alias", alias);
        let id = who::organization(root, alias.as_deref(), register);
        let domains = domains(root);
        let claims = own_claims(root, alias.as_deref(), id.as_ref(), domains.as_deref());
        let domains = domains.map(|domains| domains.into_iter().map(|(name, _)| name).collect());
        Self { alias, id, domains, claims }
    }
}

/// Who is in the organization, and the addresses that were checked against all of them.
struct Members {
    users: Vec<User>,
    resources: Vec<Resource>,
    groups: Vec<Group>,
    names: Names,
    postmaster: Option<Arc<str>>,
    journaling: Option<journal::Settings>,
    reserved: Option<Address>,
    mailbox_rules: MailboxRulesByUser,
    /// The same people as they are said.
    said: organization::Entities,
    said_rules: BTreeMap<EntityId, Arc<MailboxRules>>,
    said_journaling: Option<JournalingSaid>,
}

impl Members {
    fn read(root: &Section<'_>, domains: Option<&[Domain]>, identities: Identities<'_>) -> Self {
        let mut entities = Entities::new(root, domains, identities);
        let users = root.sections("user");
        let users: Vec<_> = users.iter().filter_map(|section| entities.person(section)).collect();
        let resources = root.sections("resource");
        let resources = resources.iter().filter_map(|section| entities.resource(section)).collect();
        let groups = entities.groups();
        let postmaster = entities.postmaster(&users);
        let said_journaling = journaling(root);
        let journaling = journaling_of(said_journaling.as_ref(), domains);
        let reserved = reserved(journaling.as_ref(), domains);
        reserved.iter().for_each(|reserved| entities.check_reserved(reserved));
        let Entities { names, mailbox_rules, said, said_rules, .. } = entities;
        Self {
            users,
            resources,
            groups,
            names,
            postmaster,
            journaling,
            reserved,
            mailbox_rules,
            said,
            said_rules,
            said_journaling,
        }
    }
}

/// At least one domain; `None` if that cannot be said.
fn domains(root: &Section<'_>) -> Option<Vec<(Domain, Place)>> {
    let domains: Option<Vec<(Domain, Place)>> = root.list("domains");
    let domains = root.required("domains", domains)?;
    if domains.is_empty() {
        root.problem("domains", "an organization has at least one domain");
        return None;
    }
    if domains.len() > MAX_DOMAINS {
        root.problem("domains", format!("{} domains; at most {MAX_DOMAINS}", domains.len()));
    }
    Some(domains)
}

fn own_claims(
    root: &Section<'_>,
    alias: Option<&str>,
    id: Option<&OrganizationId>,
    domains: Option<&[(Domain, Place)]>,
) -> Vec<Claim> {
    let claim = |what, place, is_stated| Claim { what, place, is_stated };
    let alias =
        alias.map(|alias| claim(Unique::Alias(alias.to_owned()), root.place_of("alias"), true));
    let id = id.map(|id| claim(Unique::Id(id.clone()), root.place_of("id"), root.has("id")));
    let domains = domains.unwrap_or_default().iter();
    let domains = domains
        .map(|(domain, place)| claim(Unique::Domain(domain.clone()), place.to_string(), true));
    alias.into_iter().chain(id).chain(domains).collect()
}

fn index(
    root: &Section<'_>,
    organization: &Arc<Organization>,
    reader: &Reader,
) -> Option<Arc<IndexedOrganization>> {
    match IndexedOrganization::new(Arc::clone(organization)) {
        Ok(indexed) => Some(indexed),
        // The reader has told them with their lines; what it missed must not pass.
        Err(conflicts) => {
            if reader.is_content() {
                conflicts.iter().for_each(|conflict| root.problem("alias", conflict));
            }
            None
        }
    }
}

/// Who is named in the file to get mail must be able to.
fn check_targets(
    root: &Section<'_>,
    organization: &Arc<IndexedOrganization>,
    journaling: Option<&journal::Settings>,
    rules: &MailboxRulesByUser,
    (flow_rules, hostname): (&FlowRules, Option<&Domain>),
) {
    // With conflicts, which are told already, there is no saying who gets it.
    let Ok(directory) = Directory::new(vec![Arc::clone(organization)]) else { return };
    check_postmaster(root, organization, &directory);
    check_groups(root, &directory);
    journaling.iter().for_each(|journaling| check_journaling(root, journaling, &directory));
    mailbox_rules::check_targets(root, rules, &directory);
    let reach = Reach::new(organization, &directory, rules, journaling, hostname);
    warnings::idle_rules(root, flow_rules, &reach);
}

/// Journal records and reports of a domain of the organization must not go to nobody (guide 7303).
fn check_journaling(root: &Section<'_>, journaling: &journal::Settings, directory: &Directory) {
    let section = root.section("journaling");
    for (key, address) in [
        ("journaling_address", &journaling.journaling_address),
        ("report_address", &journaling.report_address),
    ] {
        match directory.resolve(address, usize::MAX) {
            Ok(_) | Err(ResolveError::NotOurDomain) => {}
            Err(ResolveError::Unknown) => section.problem(key, format!("there is no {address}")),
            Err(error) => section.problem(key, format!("nobody gets mail for {address}: {error}")),
        }
    }
}

/// RFC 5321 §4.5.1: mail for postmaster of every domain is taken. Whoever gets it, by the
/// `postmaster` key or by an address of that name, must be able to.
fn check_postmaster(root: &Section<'_>, organization: &IndexedOrganization, directory: &Directory) {
    for domain in organization.domains() {
        let Ok(address) = Address::from_parts("postmaster", domain.as_str()) else { continue };
        if let Err(error) = directory.resolve(&address, usize::MAX) {
            root.problem("postmaster", format!("nobody gets mail for {address}: {error}"));
        }
    }
}

/// A group may be empty, also for now, but mail for it is refused then. It need not look empty: its
/// members may be disabled, or groups that contain only each other.
fn check_groups(root: &Section<'_>, directory: &Directory) {
    let organizations: Vec<_> = directory.organizations().cloned().collect();
    let groups = organizations.iter().flat_map(|organization| &organization.groups);
    let mut empty = HashSet::new();
    for group in groups.filter(|group| group.is_enabled) {
        let reached = directory.resolve(&group.email, usize::MAX);
        if matches!(reached, Err(ResolveError::EmptyGroup)) {
            empty.insert(&*group.name);
        }
    }
    for section in root.sections("group") {
        if section.text("name").is_some_and(|name| empty.contains(name.as_str())) {
            section.warning("members", "lead to nobody who takes mail, so mail for it is refused");
        }
    }
}

/// `on_reject` of the daemon, or of an organization.
pub(super) fn on_reject(section: &Section<'_>, key: &'static str) -> Option<OnReject> {
    section.word(key, &[("reject", OnReject::Reject), ("drop", OnReject::Drop)])
}

/// The entities of an organization on the way from its file.
struct Entities<'a> {
    root: &'a Section<'a>,
    /// `None` if the file does not say them in a way that can be read.
    domains: Option<&'a [Domain]>,
    /// Every name that is taken.
    names: Names,
    /// Every address that is taken, by its key, and the place where it is.
    addresses: HashMap<String, String>,
    mailbox_rules: MailboxRulesByUser,
    identities: Identities<'a>,
    /// Those who could be read, as they are said.
    said: organization::Entities,
    said_rules: BTreeMap<EntityId, Arc<MailboxRules>>,
}

struct Identity {
    id: EntityId,
    name: Arc<str>,
    email: Address,
    aliases: Vec<Address>,
}

impl<'a> Entities<'a> {
    fn new(
        root: &'a Section<'a>,
        domains: Option<&'a [Domain]>,
        identities: Identities<'a>,
    ) -> Self {
        Self {
            root,
            domains,
            names: HashMap::new(),
            addresses: HashMap::new(),
            mailbox_rules: HashMap::new(),
            identities,
            said: organization::Entities::default(),
            said_rules: BTreeMap::new(),
        }
    }

    /// Id, name, email and aliases, which users, resources and groups have alike.
    fn identity(&mut self, section: &Section<'_>, kind: EntityKind) -> Option<Identity> {
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
        if let Err(problem) = check_name(&name) {
            section.problem("name", problem);
            return None;
        }
        let place = section.place_of("name");
        if let Some(first) = self.names.get(&name) {
            section.problem("name", format!("\"{name}\" is taken, at {}", first.place));
            return None;
        }
        let is_group = kind == EntityKind::Group;
        let id = self.identities.of(section, kind, &name);
        self.names.insert(Arc::clone(&name), Named { id: id.clone(), is_group, place });
        email.iter().for_each(|email| self.claim(section, "email", email));
        aliases.iter().for_each(|alias| self.claim(section, "aliases", alias));
        Some(Identity { id, name, email: email?, aliases })
    }

    fn is_ours(&self, address: &Address) -> bool {
        self.domains.is_some_and(|domains| domains.contains(address.domain()))
    }

    /// Takes an address: it is in a domain of the organization, and nobody else has it.
    fn claim(&mut self, section: &Section<'_>, key: &str, address: &Address) {
        if self.domains.is_some() && !self.is_ours(address) {
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

    fn person(&mut self, section: &Section<'_>) -> Option<User> {
        let (user, said) = self.user(section, EntityKind::User)?;
        self.said.insert(user.id.clone(), Arc::new(Entity::User(said)));
        Some(user)
    }

    /// A user or the mailbox of a resource, and the same as it is said.
    fn user(
        &mut self,
        section: &Section<'_>,
        kind: EntityKind,
    ) -> Option<(User, organization::User)> {
        let identity = self.identity(section, kind);
        let enabled = section.bool("enabled").unwrap_or(true);
        let remote: Option<Address> = section.parsed("remote");
        if let Some(remote) = remote.as_ref().filter(|remote| self.is_ours(remote)) {
            section.problem("remote", format!("{remote} is in a domain of the organization"));
        }
        let quota_mb = section.number("quota_mb", QUOTA_MB).unwrap_or(*QUOTA_MB.end());
        let rules = mailbox_rules::read(section);
        section.finish();
        let Identity { id, name, email, aliases } = identity?;
        mailbox_rules::check(section, &rules, &email, &aliases, remote.as_ref());
        if !rules.rules().is_empty() {
            let rules = Arc::new(rules);
            self.said_rules.insert(id.clone(), Arc::clone(&rules));
            self.mailbox_rules.insert(Arc::clone(&name), rules);
        }
        let said = organization::User {
            name: Arc::clone(&name),
            email: Some(email.clone()),
            aliases: sorted(&aliases),
            enabled,
            remote: remote.clone(),
            quota_mb,
        };
        let state = match (enabled, remote) {
            (false, _) => EntityState::Disabled,
            (true, Some(elsewhere)) => EntityState::Remote(elsewhere),
            (true, None) => EntityState::Enabled,
        };
        Some((User { id, name, email, aliases, state, quota_mb }, said))
    }

    fn resource(&mut self, section: &Section<'_>) -> Option<Resource> {
        let kinds = [("room", ResourceKind::Room), ("equipment", ResourceKind::Equipment)];
        let kind = section.word("kind", &kinds);
        let read = self.user(section, EntityKind::Resource);
        let kind = section.required("kind", kind);
        let (mailbox, said) = read?;
        let kind = kind?;
        let said = Entity::Resource(organization::Resource { mailbox: said, kind });
        self.said.insert(mailbox.id.clone(), Arc::new(said));
        Some(Resource { mailbox, kind })
    }

    fn group(&mut self, section: &Section<'_>) -> Option<Group> {
        let identity = self.identity(section, EntityKind::Group);
        let members: Option<Vec<(String, Place)>> = section.list("members");
        let members = section.required("members", members).unwrap_or_default();
        let is_enabled = section.bool("enabled").unwrap_or(true);
        section.finish();
        let Identity { id, name, email, aliases } = identity?;
        let members = members.into_iter().map(|(member, _)| member.into()).collect();
        Some(Group { id, name, email, aliases, members, is_enabled })
    }

    /// Groups may name each other, so members are looked for when all names are known.
    fn groups(&mut self) -> Vec<Group> {
        let sections = self.root.sections("group");
        let read: Vec<_> = sections.iter().map(|section| (section, self.group(section))).collect();
        let mut groups = Vec::new();
        for (section, group) in read {
            let Some(group) = group else { continue };
            for member in group.members.iter().filter(|name| !self.names.contains_key(*name)) {
                let meant = hints::member(member, self.names.keys().map(|name| &**name));
                section.problem(
                    "members",
                    format!("there is no user, resource or group \"{member}\"{meant}"),
                );
            }
            let members = group.members.iter();
            let said = organization::Group {
                name: Arc::clone(&group.name),
                email: Some(group.email.clone()),
                aliases: sorted(&group.aliases),
                enabled: group.is_enabled,
                members: members
                    .filter_map(|name| Some(self.names.get(name)?.id.clone()))
                    .collect(),
            };
            self.said.insert(group.id.clone(), Arc::new(Entity::Group(said)));
            groups.push(group);
        }
        groups
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

/// Whether a user, resource or group can be called so: a name stands in commands, events and logs,
/// and users log in with it.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if !(1..=MAX_NAME).contains(&name.chars().count()) {
        return Err(format!("a name has 1 to {MAX_NAME} characters"));
    }
    let is_bad = |c: &char| c.is_control() || "/\\*\"<>@:".contains(*c);
    if let Some(bad) = name.chars().find(is_bad) {
        return Err(format!("{bad:?} cannot stand in a name"));
    }
    if name.trim() != name {
        return Err("a name neither begins nor ends with a space".to_owned());
    }
    Ok(())
}

/// The address that nobody may have, whether or not journaling is on (guide 7303).
fn reserved(journaling: Option<&journal::Settings>, domains: Option<&[Domain]>) -> Option<Address> {
    let named = journaling.map(|settings| settings.sender_address.clone());
    named.or_else(|| journaling_sender(domains?.first()?))
}

fn journaling_sender(default_domain: &Domain) -> Option<Address> {
    Address::from_parts(JOURNALING_SENDER, default_domain.as_str()).ok()
}

fn journaling(root: &Section<'_>) -> Option<JournalingSaid> {
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
    Some(JournalingSaid {
        journaling_address: journaling_address?,
        report_address: report_address?,
        sender_address,
    })
}

fn journaling_of(
    said: Option<&JournalingSaid>,
    domains: Option<&[Domain]>,
) -> Option<journal::Settings> {
    let JournalingSaid { journaling_address, report_address, sender_address } = said?.clone();
    Some(journal::Settings {
        journaling_address,
        report_address,
        sender_address: sender_address.or_else(|| journaling_sender(domains?.first()?))?,
    })
}

/// Mailbox retention, at most one entry for each folder (guide 4614–4633). `NONE`, as the API
/// has it, keeps a folder's messages.
fn retention(root: &Section<'_>) -> BTreeMap<Folder, FolderRule> {
    let mut taken = HashMap::new();
    let read = |section: &Section<'_>| {
        let folder = section.word("folder", &Folder::ALL.map(|folder| (folder.as_str(), folder)));
        let actions = FolderAction::ALL.map(|action| (action.as_str(), action));
        let action = section.word("action", &actions);
        let period = section.number("period_days", RETENTION_DAYS);
        section.finish();
        let (folder, action) =
            (section.required("folder", folder), section.required("action", action));
        let period = match action {
            Some(FolderAction::None) => period,
            _ => section.required("period_days", period),
        };
        let (folder, action) = (folder?, action?);
        if let Some(first) = taken.insert(folder, section.place_of("folder")) {
            section.problem("folder", format!("{folder} has its retention already, at {first}"));
        }
        if (folder, action) == (Folder::DeletedItems, FolderAction::Delete) {
            section.problem("action", "what is in DELETED_ITEMS can only be PERMANENTLY_DELETE");
        }
        let period_days = period.and_then(|days| u16::try_from(days).ok());
        Some((folder, FolderRule { action, period_days }))
    };
    root.sections("retention").iter().filter_map(read).collect()
}

/// What the store does of it; folders that keep their messages are not among it.
fn folder_retention(
    said: &BTreeMap<Folder, FolderRule>,
    organization: &OrganizationId,
) -> Vec<FolderRetention> {
    let mut retention = Vec::new();
    for (folder, FolderRule { action, period_days }) in said {
        let action = match action {
            FolderAction::None => continue,
            FolderAction::Delete => RetentionAction::Delete,
            FolderAction::PermanentlyDelete => RetentionAction::PermanentlyDelete,
        };
        // One without a period is a problem that has been told.
        let Some(period_days) = *period_days else { continue };
        let organization = organization.as_str().into();
        let folder = *folder;
        retention.push(FolderRetention { organization, folder, action, period_days });
    }
    retention
}

/// Addresses whose order means nothing.
fn sorted(addresses: &[Address]) -> Vec<Address> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted
}
