//! From an address to mailboxes, here and elsewhere.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::expansion::{Expansion, Expansions, Member, NotExpanded, RemoteMember};
use super::organization::{Found, Organization, OrganizationId, Permission, User};
use crate::id::EntityId;
use crate::mail::{Address, Domain, is_name_within};

/// What a recipient's address comes to: at least one mailbox or remote user, each once.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Whose address it is.
    pub organization: Arc<Organization>,
    /// The recipient's own address, if it is a group's.
    pub expanded_from: Option<Address>,
    /// The mailboxes; shared by all recipients and transactions that mean the same group.
    pub members: Arc<[Member]>,
    /// The remote users, shared in the same way.
    pub remote: Arc<[RemoteMember]>,
}

/// Why an address leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The domain is no organization's.
    #[error("the domain is not local")]
    NotOurDomain,
    /// There is nobody of that name.
    #[error("there is no such user")]
    Unknown,
    /// The entity is disabled.
    #[error("the user is disabled")]
    Disabled,
    /// The group expands to more members than allowed.
    #[error("the group has too many members")]
    GroupTooLarge,
    /// The group has no member that takes mail.
    #[error("the group has no members")]
    EmptyGroup,
}

impl From<NotExpanded> for ResolveError {
    fn from(why: NotExpanded) -> Self {
        match why {
            NotExpanded::TooLarge => Self::GroupTooLarge,
            NotExpanded::Empty => Self::EmptyGroup,
        }
    }
}

/// Something that two claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} belongs to {first} and to {second}")]
pub struct Conflict {
    /// The address, domain, name or alias.
    pub what: String,
    /// Who has it first.
    pub first: String,
    /// Who claims it too.
    pub second: String,
    /// Whether the two are organizations, or of one.
    pub scope: ConflictScope,
}

/// Where two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictScope {
    /// Two organizations claim it.
    BetweenOrganizations,
    /// Two of one organization claim it.
    WithinOrganization,
}

/// All organizations, indexed by domain and address.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    organizations: Vec<Arc<IndexedOrganization>>,
    ids: HashMap<OrganizationId, usize>,
    domains: HashMap<Domain, usize>,
}

/// An organization, indexed by address and name; shared by the directories of all configurations
/// in which it is the same.
#[derive(Debug)]
pub struct IndexedOrganization {
    organization: Arc<Organization>,
    /// By [`Address::key`].
    addresses: HashMap<Box<str>, Entity>,
    /// By name.
    names: HashMap<Arc<str>, Entity>,
    entities: HashMap<EntityId, Entity>,
    /// The names of users in lower case, of those that have capitals.
    lowered: HashSet<Box<str>>,
    /// Places of permissions, by their owner's name.
    permissions: HashMap<Arc<str>, Vec<usize>>,
    /// What groups come to, once somebody has written to them.
    expansions: Expansions,
}

/// A place in the organization's lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entity {
    User(usize),
    Resource(usize),
    Group(usize),
}

impl Directory {
    /// The other keys by which rules may name whom an address leads to: the address without its tag,
    /// and the main address of the user, resource or group here that it is an alias of, or of the
    /// postmaster. No pattern has a `+` (guide 3771), so whatever means an address with its tag
    /// means it without; how mail systems elsewhere see it is not known, and most have tags.
    pub fn other_keys(&self, address: &Address) -> Vec<String> {
        match self.of_domain(address.domain()) {
            Some(organization) => organization.other_keys(address),
            None => address.without_tag().iter().map(Address::key).collect(),
        }
    }

    /// Brings organizations together.
    ///
    /// # Errors
    /// Everything that two organizations claim: domains, aliases, ids.
    pub fn new(organizations: Vec<Arc<IndexedOrganization>>) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let (mut aliases, mut ids, mut domains) = (HashMap::new(), HashMap::new(), HashMap::new());
        let described = |place: usize| {
            let alias = organizations.get(place).map(|indexed| &indexed.organization.alias);
            format!("organization {}", alias.map_or("?", |alias| alias))
        };
        for (place, indexed) in organizations.iter().enumerate() {
            let organization = &indexed.organization;
            let mut conflict = |what, known| {
                let (first, second) = (described(known), described(place));
                let scope = ConflictScope::BetweenOrganizations;
                conflicts.push(Conflict { what, first, second, scope });
            };
            let named = aliases.insert(organization.alias.clone(), place);
            if let Some(known) = ids.insert(organization.id.clone(), place).or(named) {
                conflict(format!("the alias or id of {}", organization.alias), known);
            }
            for domain in &organization.domains {
                if let Some(known) = domains.insert(domain.clone(), place) {
                    conflict(format!("domain {domain}"), known);
                }
            }
        }
        if conflicts.is_empty() { Ok(Self { organizations, ids, domains }) } else { Err(conflicts) }
    }

    /// All organizations.
    pub fn organizations(&self) -> impl Iterator<Item = &Arc<Organization>> {
        self.organizations.iter().map(|indexed| &indexed.organization)
    }

    /// The organization with this id.
    pub(super) fn organization(&self, id: &str) -> Option<&IndexedOrganization> {
        self.organizations.get(*self.ids.get(id)?).map(|indexed| &**indexed)
    }

    /// Who has an address here, and of which organization: with a tag, and as postmaster, as mail for
    /// it goes.
    pub fn entity_of(&self, address: &Address) -> Option<(&OrganizationId, &EntityId)> {
        let indexed = self.of_domain(address.domain())?;
        let entity = match indexed.entity(indexed.find(address)?)? {
            Found::Mailbox(user) => &user.id,
            Found::Group(group) => &group.id,
        };
        Some((&indexed.organization.id, entity))
    }

    /// The primary address of somebody of an organization.
    pub fn email_of(&self, organization: &str, id: &EntityId) -> Option<&Address> {
        Some(match self.organization(organization)?.identified(id)? {
            Found::Mailbox(user) => &user.email,
            Found::Group(group) => &group.email,
        })
    }

    /// The mailbox of somebody of an organization; `None` if it is elsewhere, or takes no mail.
    pub fn mailbox_of(&self, organization: &str, id: &EntityId) -> Option<Member> {
        match self.organization(organization)?.identified(id)? {
            Found::Mailbox(user) => Member::of(user),
            Found::Group(_) => None,
        }
    }

    /// Whether a domain is some organization's.
    pub fn is_local(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
    }

    /// Whether some organization's domain is this one or stands above it or below it, so that what
    /// is proven for the one may count as proven for the other (RFC 9989 §4.4.1). Takes time linear
    /// in the number of domains.
    pub fn is_related(&self, domain: &Domain) -> bool {
        let mut domains = self.domains.keys();
        domains.any(|ours| ours.is_within(domain) || domain.is_within(ours))
    }

    /// Whether some organization's domain is this one or stands below it. Takes time linear in the
    /// number of domains.
    pub fn is_above_ours(&self, domain: &str) -> bool {
        self.domains.keys().any(|ours| is_name_within(ours.as_str(), domain))
    }

    /// The address that an envelope's recipient stands for, in rules as well. Who writes to
    /// `postmaster` alone, which is the postmaster of the host itself (RFC 5321 §4.5.1), means the
    /// first organization's; everything else is meant as it is written.
    pub fn meant<'a>(&self, address: &'a Address, hostname: &str) -> Cow<'a, Address> {
        let is_own = address.local_part().eq_ignore_ascii_case("postmaster")
            && address.domain().as_str().eq_ignore_ascii_case(hostname)
            && !self.is_local(address.domain());
        let first = self.organizations().next().filter(|_| is_own);
        let domain = first.and_then(|first| first.domains.first());
        let meant = domain.and_then(|it| Address::from_parts("postmaster", it.as_str()).ok());
        meant.map_or(Cow::Borrowed(address), Cow::Owned)
    }

    /// Whether an address is the one from which an organization's journal records come, with a tag or
    /// without. Nobody else writes as it.
    pub fn is_reserved(&self, address: &Address) -> bool {
        let Some(organization) = self.organization_of(address.domain()) else { return false };
        let reserved = organization.reserved.key();
        let is_reserved = |address: &Address| address.key() == reserved;
        is_reserved(address) || address.without_tag().as_ref().is_some_and(is_reserved)
    }

    /// Whether a text has such an address in it, however it is put.
    pub fn names_reserved(&self, text: &str) -> bool {
        let is_delimiter = |c: char| c.is_whitespace() || r#"<>()[],;:"\'"#.contains(c);
        let mut words = text.split(is_delimiter).filter_map(|word| Address::parse(word).ok());
        words.any(|address| self.is_reserved(&address))
    }

    /// The organization whose domain it is.
    pub fn organization_of(&self, domain: &Domain) -> Option<&Arc<Organization>> {
        self.of_domain(domain).map(|indexed| &indexed.organization)
    }

    /// Whether an address is somebody's, who may be disabled; with a tag too, where there are tags.
    pub fn has_address(&self, address: &Address) -> bool {
        self.entity_of(address).is_some()
    }

    /// The mailboxes and remote users behind an address: its own, or those of a group's members,
    /// nested groups opened, each once, disabled ones left out.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::GroupTooLarge`] past `max_members` of them.
    pub fn resolve(&self, address: &Address, max_members: usize) -> Result<Resolved, ResolveError> {
        let place = self.domains.get(address.domain()).ok_or(ResolveError::NotOurDomain)?;
        let indexed = self.organizations.get(*place).ok_or(ResolveError::NotOurDomain)?;
        let entity = indexed.find(address).ok_or(ResolveError::Unknown)?;
        let (expansion, expanded_from) = match indexed.entity(entity) {
            Some(Found::Mailbox(user)) => {
                (Expansion::of_user(user).ok_or(ResolveError::Disabled)?, None)
            }
            Some(Found::Group(group)) if group.is_enabled => {
                let named = |name: &str| indexed.named(name);
                let expansion = indexed.expansions.of_group(group, named, max_members)?;
                (expansion, Some(address.clone()))
            }
            Some(Found::Group(_)) => return Err(ResolveError::Disabled),
            None => return Err(ResolveError::Unknown),
        };
        let Expansion { members, remote } = expansion;
        let organization = Arc::clone(&indexed.organization);
        Ok(Resolved { organization, expanded_from, members, remote })
    }
}

impl Resolved {
    /// How many mailboxes and remote users it comes to.
    pub fn count(&self) -> usize {
        self.members.len() + self.remote.len()
    }

    /// The primary addresses of all of them.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let members = self.members.iter().map(|member| &member.address);
        members.chain(self.remote.iter().map(|remote| &remote.address))
    }
}

/// A login's name: [`Directory::resolve`] is for mail, this for people.
impl Directory {
    /// The user whom a login names by an address of the user's own, exactly; or by the bare name,
    /// where only one organization has a user of that name, however it is capitalized: a name that
    /// may mean two logs nobody in, so that nobody gets into a namesake's account by a password that
    /// happens to be the same. Groups and resources have no password, and nobody logs in with a tag
    /// or as postmaster.
    pub fn user_for_login(&self, name: &str) -> Option<(&Arc<Organization>, &User)> {
        let by_address = || {
            let address = Address::parse(name).ok()?;
            let indexed = self.of_domain(address.domain())?;
            Some((indexed, *indexed.addresses.get(address.key().as_str())?))
        };
        let by_name = || {
            let lowered = name.to_lowercase();
            let mut having = self.organizations.iter().filter(|it| it.has_user_called(&lowered));
            match (having.next(), having.next()) {
                (Some(indexed), None) => Some((indexed, *indexed.names.get(name)?)),
                _ => None,
            }
        };
        let (indexed, entity) = by_address().or_else(by_name)?;
        match entity {
            Entity::User(at) => Some((&indexed.organization, indexed.organization.users.get(at)?)),
            Entity::Resource(_) | Entity::Group(_) => None,
        }
    }

    /// The organization to which a login belongs by its domain, whoever it names there.
    pub fn organization_for_login(&self, name: &str) -> Option<&Arc<Organization>> {
        let domain = Domain::parse(name.rsplit_once('@')?.1).ok()?;
        self.of_domain(&domain).map(|indexed| &indexed.organization)
    }

    /// Whether another organization than this one has a user of that name, so that the bare name logs
    /// nobody in.
    pub fn has_namesake(&self, organization: &OrganizationId, name: &str) -> bool {
        let lowered = name.to_lowercase();
        let mut others = self.organizations.iter();
        others.any(|it| it.organization.id != *organization && it.has_user_called(&lowered))
    }

    /// The names, in lower case, that users of several organizations have, each with the aliases of
    /// these organizations. Takes time linear in the number of users.
    pub fn shared_names(&self) -> BTreeMap<String, Vec<&str>> {
        let mut first: HashMap<String, &str> = HashMap::new();
        let mut shared: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        if self.organizations.len() < 2 {
            return shared;
        }
        for organization in self.organizations() {
            let alias = organization.alias.as_str();
            for user in &organization.users {
                let name = user.name.to_lowercase();
                let known = *first.entry(name.clone()).or_insert(alias);
                let aliases =
                    if known == alias { continue } else { shared.entry(name).or_default() };
                if aliases.is_empty() {
                    aliases.push(known);
                }
                if aliases.last() != Some(&alias) {
                    aliases.push(alias);
                }
            }
        }
        shared
    }

    fn of_domain(&self, domain: &Domain) -> Option<&Arc<IndexedOrganization>> {
        self.organizations.get(*self.domains.get(domain)?)
    }
}

impl IndexedOrganization {
    /// Indexes an organization.
    ///
    /// # Errors
    /// Everything that two in it claim: addresses and names.
    pub fn new(organization: Arc<Organization>) -> Result<Arc<Self>, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let indexed = Self::index(organization, &mut conflicts);
        if conflicts.is_empty() { Ok(Arc::new(indexed)) } else { Err(conflicts) }
    }

    pub(super) fn itself(&self) -> &Arc<Organization> {
        &self.organization
    }

    /// The organization's domains.
    pub fn domains(&self) -> &[Domain] {
        &self.organization.domains
    }

    fn index(organization: Arc<Organization>, conflicts: &mut Vec<Conflict>) -> Self {
        let mut indexed = Self {
            organization: Arc::clone(&organization),
            addresses: HashMap::new(),
            names: HashMap::new(),
            entities: HashMap::new(),
            lowered: HashSet::new(),
            permissions: HashMap::new(),
            expansions: Expansions::default(),
        };
        for (place, user) in organization.users.iter().enumerate() {
            indexed.add(Entity::User(place), &user.name, &user.email, &user.aliases, conflicts);
            indexed.identify(Entity::User(place), &user.id, conflicts);
            let lowered = user.name.to_lowercase();
            if *lowered != *user.name {
                indexed.lowered.insert(lowered.into());
            }
        }
        for (place, resource) in organization.resources.iter().enumerate() {
            let user = &resource.mailbox;
            indexed.add(Entity::Resource(place), &user.name, &user.email, &user.aliases, conflicts);
            indexed.identify(Entity::Resource(place), &user.id, conflicts);
        }
        for (place, group) in organization.groups.iter().enumerate() {
            indexed.add(Entity::Group(place), &group.name, &group.email, &group.aliases, conflicts);
            indexed.identify(Entity::Group(place), &group.id, conflicts);
        }
        for (place, permission) in organization.permissions.iter().enumerate() {
            indexed.permissions.entry(Arc::clone(&permission.owner)).or_default().push(place);
        }
        if let Some(owner) = indexed.addresses.get(organization.reserved.key().as_str()) {
            conflicts.push(Conflict {
                what: format!("the reserved journaling address {}", organization.reserved),
                first: "the organization".into(),
                second: indexed.name_of(*owner),
                scope: ConflictScope::WithinOrganization,
            });
        }
        indexed
    }

    fn add(
        &mut self,
        entity: Entity,
        name: &Arc<str>,
        email: &Address,
        aliases: &[Address],
        conflicts: &mut Vec<Conflict>,
    ) {
        if let Some(known) = self.names.insert(Arc::clone(name), entity) {
            conflicts.push(Conflict {
                what: format!("the name {name}"),
                first: self.name_of(known),
                second: self.name_of(entity),
                scope: ConflictScope::WithinOrganization,
            });
        }
        for address in std::iter::once(email).chain(aliases) {
            if let Some(known) = self.addresses.insert(address.key().into(), entity) {
                conflicts.push(Conflict {
                    what: format!("the address {address}"),
                    first: self.name_of(known),
                    second: self.name_of(entity),
                    scope: ConflictScope::WithinOrganization,
                });
            }
        }
    }

    fn identify(&mut self, entity: Entity, id: &EntityId, conflicts: &mut Vec<Conflict>) {
        if let Some(known) = self.entities.insert(id.clone(), entity) {
            conflicts.push(Conflict {
                what: format!("the id {id}"),
                first: self.name_of(known),
                second: self.name_of(entity),
                scope: ConflictScope::WithinOrganization,
            });
        }
    }

    fn name_of(&self, entity: Entity) -> String {
        let name = |kind: &str, name: Option<&Arc<str>>| {
            format!("{kind} {}", name.map_or("?", |name| name))
        };
        let organization = &self.organization;
        match entity {
            Entity::User(at) => name("user", organization.users.get(at).map(|user| &user.name)),
            Entity::Resource(at) => {
                let resource = organization.resources.get(at);
                name("resource", resource.map(|resource| &resource.mailbox.name))
            }
            Entity::Group(at) => {
                name("group", organization.groups.get(at).map(|group| &group.name))
            }
        }
    }

    fn other_keys(&self, address: &Address) -> Vec<String> {
        let own = address.key();
        let is_tagged =
            self.organization.plus_addressing && !self.addresses.contains_key(own.as_str());
        let untagged = address.without_tag().filter(|_| is_tagged).map(|it| it.key());
        let main =
            self.find(address).and_then(|entity| self.entity(entity)).map(|found| match found {
                Found::Mailbox(user) => user.email.key(),
                Found::Group(group) => group.email.key(),
            });
        let mut others: Vec<String> = untagged.into_iter().chain(main).collect();
        others.dedup();
        others.retain(|other| *other != own);
        others
    }

    /// The exact address first; then without its tag, if the organization wants that; then
    /// `postmaster` of any domain (RFC 5321 §4.5.1), and `abuse` (RFC 2142 §2), where complaints go.
    pub(super) fn find(&self, address: &Address) -> Option<Entity> {
        let key = address.key();
        if let Some(entity) = self.addresses.get(key.as_str()) {
            return Some(*entity);
        }
        let (local_part, domain) = key.rsplit_once('@')?;
        if let Some((user, _tag)) =
            local_part.split_once('+').filter(|_| self.organization.plus_addressing)
            && let Some(entity) = self.addresses.get(format!("{user}@{domain}").as_str())
        {
            return Some(*entity);
        }
        matches!(local_part, "postmaster" | "abuse")
            .then(|| self.names.get(&self.organization.postmaster).copied())
            .flatten()
    }

    /// Whether it has a user whose name is this one in lower case.
    fn has_user_called(&self, lowered: &str) -> bool {
        matches!(self.names.get(lowered), Some(Entity::User(_))) || self.lowered.contains(lowered)
    }

    /// The user, resource or group of that name.
    pub(super) fn named(&self, name: &str) -> Option<Found<'_>> {
        self.entity(*self.names.get(name)?)
    }

    /// The user, resource or group of that id.
    pub(super) fn identified(&self, id: &EntityId) -> Option<Found<'_>> {
        self.entity(*self.entities.get(id)?)
    }

    /// What the owner of that name lets others do.
    pub(super) fn permissions_of(&self, owner: &str) -> impl Iterator<Item = &Permission> {
        let places = self.permissions.get(owner).into_iter().flatten();
        places.filter_map(|place| self.organization.permissions.get(*place))
    }

    pub(super) fn entity(&self, entity: Entity) -> Option<Found<'_>> {
        let organization = &self.organization;
        Some(match entity {
            Entity::User(at) => Found::Mailbox(organization.users.get(at)?),
            Entity::Resource(at) => Found::Mailbox(&organization.resources.get(at)?.mailbox),
            Entity::Group(at) => Found::Group(organization.groups.get(at)?),
        })
    }
}
