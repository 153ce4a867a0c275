//! Who the entities of an organization file are: by the `id` that stands there; by the name, which
//! somebody has already; by the name that somebody had, which `was` says; or somebody new.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::reader::Section;
use crate::directory::OrganizationId;
use crate::id::{EntityId, EntityKind};
use crate::store::Register;

/// The id of the organization in a file; `None` where neither `id` nor `alias` can be read.
pub(super) fn organization(
    root: &Section<'_>,
    alias: Option<&str>,
    register: &Register,
) -> Option<OrganizationId> {
    let was = root.text("was");
    if let Some(text) = root.text("id") {
        let id = OrganizationId::parse(&text);
        if id.is_none() {
            root.problem("id", format!("\"{text}\" is not m- and 32 hexadecimal digits"));
        }
        return id;
    }
    let alias = alias?;
    let called =
        |alias: &str| register.organization_called(alias).and_then(|id| OrganizationId::parse(id));
    let known = called(alias);
    let before = was.as_deref().and_then(called);
    if let (Some(known), Some(before)) = (&known, &before)
        && known != before
    {
        // Both have mail, and users of one name: a guess would give the one what is the other's.
        let message = format!(
            "\"{alias}\" is another organization, and the one that was has id = \"{before}\": say which \
             id it is, or take was out"
        );
        root.problem("was", message);
    }
    let known = known.or(before);
    Some(known.unwrap_or_else(|| {
        let first = OrganizationId::of_alias(alias);
        // Whoever had the alias first has another now.
        let is_taken = register.alias_of(first.as_str()).is_some();
        if is_taken { OrganizationId::generate() } else { first }
    }))
}

/// The entities of an organization that have an id so far.
pub(super) struct Identities<'a> {
    /// `None` if the file does not say it in a way that can be read.
    organization: Option<&'a OrganizationId>,
    register: &'a Register,
    /// Where each id is claimed.
    claimed: HashMap<EntityId, String>,
    /// Who is gone, by name and kind.
    gone: OnceCell<HashMap<Arc<str>, HashMap<EntityKind, EntityId>>>,
}

impl<'a> Identities<'a> {
    pub(super) fn new(organization: Option<&'a OrganizationId>, register: &'a Register) -> Self {
        Self { organization, register, claimed: HashMap::new(), gone: OnceCell::new() }
    }

    /// Who a section is about.
    pub(super) fn of(&mut self, section: &Section<'_>, kind: EntityKind, name: &str) -> EntityId {
        let stated: Option<EntityId> = section.parsed("id");
        let was = section.text("was");
        let id = match stated {
            Some(id) => {
                self.check(section, kind, &id);
                id
            }
            None => self.known_or_new(section, kind, name, was.as_deref()),
        };
        let place = section.place_of("name");
        if let Some(first) = self.claimed.insert(id.clone(), place) {
            let key = if section.has("id") { "id" } else { "was" };
            let message = format!("that is said of somebody else too, at {first}");
            section.problem(key, message);
        }
        id
    }

    /// An id that stands in the file is of the right kind; who has had it before is this one.
    fn check(&self, section: &Section<'_>, kind: EntityKind, id: &EntityId) {
        let known = self.organization.and_then(|it| self.register.entity(it.as_str(), id));
        let elsewhere = self.register.organization_with(id).filter(|_| known.is_none());
        let is_other =
            |other: &&Arc<str>| self.organization.is_none_or(|it| ***other != *it.as_str());
        if let Some(other) = elsewhere.filter(is_other) {
            let alias = self.register.alias_of(other).map_or("", |alias| &**alias);
            section
                .problem("id", format!("{id} is somebody of the organization {alias} ({other})"));
            return;
        }
        match known {
            Some(known) if known.kind != kind => {
                let name = &known.name;
                section.problem("id", format!("{id} is the id of {} {name}", known.kind));
            }
            _ if !id.is_for(kind) => {
                section.problem("id", format!("{id} cannot be the id of a {kind}"));
            }
            _ => {}
        }
    }

    /// Whoever has gone under a name last. All of them are looked up at once, when one is asked for.
    fn gone(&self, organization: &str, kind: EntityKind, name: &str) -> Option<&EntityId> {
        let gone = self.gone.get_or_init(|| {
            let mut all: Vec<_> = self.register.entities(organization).collect();
            all.retain(|(_, known)| known.gone_at.is_some());
            all.sort_unstable_by_key(|(_, known)| known.gone_at);
            let mut gone: HashMap<Arc<str>, HashMap<EntityKind, EntityId>> = HashMap::new();
            for (id, known) in all {
                let of_name = gone.entry(Arc::clone(&known.name)).or_default();
                of_name.insert(known.kind, id.clone());
            }
            gone
        });
        gone.get(name)?.get(&kind)
    }

    fn known_or_new(
        &self,
        section: &Section<'_>,
        kind: EntityKind,
        name: &str,
        was: Option<&str>,
    ) -> EntityId {
        let Some(organization) = self.organization else { return EntityId::generate(kind) };
        let organization = organization.as_str();
        let called = |name: &str| {
            let (id, known) = self.register.entity_called(organization, name)?;
            (known.kind == kind).then(|| id.clone())
        };
        if let Some(id) = called(name) {
            if let Some(other) = was.and_then(called).filter(|other| *other != id) {
                let message = format!(
                    "\"{name}\" is somebody else, and who has that name has id = \"{other}\": say which id it is, or take was out"
                );
                section.problem("was", message);
            }
            if let Some(gone) = was.and_then(|was| self.gone(organization, kind, was)) {
                let message =
                    format!("\"{name}\" is somebody else by now; who is gone has id = \"{gone}\"");
                section.warning("was", message);
            }
            return id;
        }
        let gone = self.gone(organization, kind, name);
        if let Some(id) = was.and_then(called) {
            if let Some(gone) = gone {
                let message = format!(
                    "somebody called \"{name}\" is gone and has id = \"{gone}\", and who was has id = \
                     \"{id}\": say which id it is"
                );
                section.problem("was", message);
            }
            return id;
        }
        if let Some(gone) = gone {
            let message = format!(
                "somebody called \"{name}\" is gone; this is somebody new, with an empty mailbox; \
                 id = \"{gone}\" would bring back who is gone"
            );
            section.warning("name", message);
        }
        if let Some(was) = was
            && self.register.alias_of(organization).is_some()
        {
            let message = format!("there is no {kind} \"{was}\", so \"{name}\" is somebody new");
            section.warning("was", message);
        }
        let first = EntityId::of_first(kind, organization, name);
        let is_taken = self.register.entity(organization, &first).is_some();
        if is_taken { EntityId::generate(kind) } else { first }
    }
}
