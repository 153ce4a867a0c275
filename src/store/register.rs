//! Who is who: the ids of organizations, and of their users, groups and resources. Names and
//! addresses are labels that may change; what the log says of an id once holds for ever, so nobody
//! else ever gets it, and whoever is gone is remembered.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mailbox::MailboxOwner;
use crate::clock::Timestamp;
use crate::id::{EntityId, EntityKind};

/// Something that is so from its record on, whatever was so before. To read it back is to take it as
/// it is: nothing in it is checked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fact {
    /// An organization has this alias.
    #[serde(rename_all = "camelCase")]
    Organization {
        /// `m-` and 32 hexadecimal digits.
        id: Arc<str>,
        /// What it is called.
        alias: Arc<str>,
        /// Since when.
        at: Timestamp,
    },
    /// Somebody is there, under this name.
    #[serde(rename_all = "camelCase")]
    Entity {
        /// The organization's id.
        organization: Arc<str>,
        /// Whose name it is.
        id: EntityId,
        /// What it is; that never changes.
        kind: EntityKind,
        /// The name.
        name: Arc<str>,
        /// Since when.
        at: Timestamp,
    },
    /// Somebody is no more. Mailbox and passwords stay with the id.
    #[serde(rename_all = "camelCase")]
    Gone {
        /// The organization's id.
        organization: Arc<str>,
        /// Who it is.
        id: EntityId,
        /// Since when.
        at: Timestamp,
    },
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What it is.
    pub kind: EntityKind,
    /// The name; of somebody who is gone, the last one.
    pub name: Arc<str>,
    /// Since when it is no more, if it is no more.
    pub gone_at: Option<Timestamp>,
}

/// Everybody who is or was in an organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    alias: Arc<str>,
    /// Those who are there, by name.
    names: HashMap<Arc<str>, EntityId>,
    entities: HashMap<EntityId, Registered>,
}

/// All organizations that the log has heard of, and everybody in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    organizations: HashMap<Arc<str>, Members>,
    /// Ids of organizations, by alias.
    aliases: HashMap<Arc<str>, Arc<str>>,
}

/// An organization as somebody wants it to be.
#[derive(Debug)]
pub struct Declared<'a> {
    /// Its id.
    pub organization: &'a str,
    /// Its alias.
    pub alias: &'a str,
    /// Who is in it.
    pub entities: Vec<DeclaredEntity<'a>>,
}

/// Somebody who is to be there.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredEntity<'a> {
    /// The id.
    pub id: &'a EntityId,
    /// What it is.
    pub kind: EntityKind,
    /// The name.
    pub name: &'a Arc<str>,
}

impl Register {
    /// Takes a fact as it is.
    pub(super) fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Organization { id, alias, .. } => {
                let members = self.organizations.entry(Arc::clone(id)).or_default();
                if self.aliases.get(&members.alias) == Some(id) {
                    self.aliases.remove(&members.alias);
                }
                members.alias = Arc::clone(alias);
                self.aliases.insert(Arc::clone(alias), Arc::clone(id));
            }
            Fact::Entity { organization, id, kind, name, .. } => {
                let members = self.organizations.entry(Arc::clone(organization)).or_default();
                members.take_name_of(id);
                members.names.insert(Arc::clone(name), id.clone());
                let registered = Registered { kind: *kind, name: Arc::clone(name), gone_at: None };
                members.entities.insert(id.clone(), registered);
            }
            Fact::Gone { organization, id, at } => {
                let Some(members) = self.organizations.get_mut(organization) else { return };
                members.take_name_of(id);
                if let Some(registered) = members.entities.get_mut(id) {
                    registered.gone_at = Some(*at);
                }
            }
        }
    }

    /// The organization of that alias.
    pub fn organization_called(&self, alias: &str) -> Option<&Arc<str>> {
        self.aliases.get(alias)
    }

    /// The alias of an organization; `None` if nobody has heard of it.
    pub fn alias_of(&self, organization: &str) -> Option<&Arc<str>> {
        self.organizations.get(organization).map(|members| &members.alias)
    }

    /// Who has a name in an organization.
    pub fn entity_called(
        &self,
        organization: &str,
        name: &str,
    ) -> Option<(&EntityId, &Registered)> {
        let members = self.organizations.get(organization)?;
        members.entities.get_key_value(members.names.get(name)?)
    }

    /// What is known of an id.
    pub fn entity(&self, organization: &str, id: &EntityId) -> Option<&Registered> {
        self.organizations.get(organization)?.entities.get(id)
    }

    /// The organization in which somebody is or was.
    pub fn organization_with(&self, id: &EntityId) -> Option<&Arc<str>> {
        let mut organizations = self.organizations.iter();
        organizations.find(|(_, members)| members.entities.contains_key(id)).map(|(id, _)| id)
    }

    /// Whose something is, as people call them: `ALIAS/NAME`, as far as that is known.
    pub fn describe(&self, owner: &MailboxOwner) -> String {
        let MailboxOwner { organization, entity } = owner;
        match (self.alias_of(organization), self.entity(organization, entity)) {
            (Some(alias), Some(registered)) => format!("{alias}/{}", registered.name),
            _ => owner.to_string(),
        }
    }

    /// Everybody who is or was in an organization, in no order.
    pub fn entities(&self, organization: &str) -> impl Iterator<Item = (&EntityId, &Registered)> {
        self.organizations.get(organization).into_iter().flat_map(|members| &members.entities)
    }

    /// What has to be said so that all of these organizations are as they are declared. Of those that
    /// are not, nothing is said: they rest.
    pub fn difference(&self, declared: &[Declared<'_>], at: Timestamp) -> Vec<Fact> {
        let mut facts = Vec::new();
        for Declared { organization, alias, entities } in declared {
            let known = self.organizations.get(*organization);
            if known.is_none_or(|known| *known.alias != **alias) {
                let (id, alias) = ((*organization).into(), (*alias).into());
                facts.push(Fact::Organization { id, alias, at });
            }
            let none = Members::default();
            let known = known.unwrap_or(&none);
            let organization: Arc<str> = (*organization).into();
            facts.extend(known.gone(&organization, entities, at));
            facts.extend(known.called(&organization, entities, at));
        }
        facts
    }
}

impl FromIterator<Fact> for Register {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut register = Self::default();
        facts.into_iter().for_each(|fact| register.apply(&fact));
        register
    }
}

impl Members {
    /// Whatever name somebody has is free again.
    fn take_name_of(&mut self, id: &EntityId) {
        let Some(registered) = self.entities.get(id) else { return };
        if self.names.get(&registered.name) == Some(id) {
            self.names.remove(&registered.name);
        }
    }

    /// Those who are there and not declared.
    fn gone(
        &self,
        organization: &Arc<str>,
        declared: &[DeclaredEntity<'_>],
        at: Timestamp,
    ) -> Vec<Fact> {
        let mut missing: HashMap<&EntityId, &Arc<str>> =
            self.names.iter().map(|(name, id)| (id, name)).collect();
        for entity in declared {
            missing.remove(entity.id);
        }
        let mut missing: Vec<_> = missing.into_iter().collect();
        missing.sort_unstable_by_key(|(_, name)| *name);
        let gone = |(id, _): (&EntityId, _)| {
            let (organization, id) = (Arc::clone(organization), id.clone());
            Fact::Gone { organization, id, at }
        };
        missing.into_iter().map(gone).collect()
    }

    /// Those who are new, come back, or have another name.
    fn called(
        &self,
        organization: &Arc<str>,
        declared: &[DeclaredEntity<'_>],
        at: Timestamp,
    ) -> Vec<Fact> {
        let mut facts = Vec::new();
        for DeclaredEntity { id, kind, name } in declared {
            if self.names.get(*name) == Some(*id) {
                continue;
            }
            let (organization, id) = (Arc::clone(organization), (*id).clone());
            let (kind, name) = (*kind, Arc::clone(name));
            facts.push(Fact::Entity { organization, id, kind, name, at });
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_795_235_486_123);

    /// A register, and how an organization is declared in it: everybody with id, kind and name.
    #[derive(Default)]
    struct Town(Register);

    impl Town {
        fn declare(&mut self, alias: &str, wanted: &[(&EntityId, EntityKind, &str)]) -> usize {
            let names: Vec<Arc<str>> = wanted.iter().map(|(_, _, name)| (*name).into()).collect();
            let mut entities = Vec::new();
            for ((id, kind, _), name) in wanted.iter().zip(&names) {
                entities.push(DeclaredEntity { id, kind: *kind, name });
            }
            let declared = [Declared { organization: "m-1", alias, entities }];
            let facts = self.0.difference(&declared, AT);
            facts.iter().for_each(|fact| self.0.apply(fact));
            assert_eq!(self.0.difference(&declared, AT), [], "all of it is said");
            facts.len()
        }

        fn called(&self, name: &str) -> Option<EntityId> {
            self.0.entity_called("m-1", name).map(|(id, _)| id.clone())
        }
    }

    const USER: EntityKind = EntityKind::User;

    fn new() -> EntityId {
        EntityId::generate(USER)
    }

    #[test]
    fn what_is_declared_is_so_and_nothing_is_said_twice() {
        let mut town = Town::default();
        let (alice, bob) = (new(), new());
        assert_eq!(town.declare("one", &[(&alice, USER, "alice"), (&bob, USER, "bob")]), 3);
        assert_eq!(town.declare("one", &[(&bob, USER, "bob"), (&alice, USER, "alice")]), 0);
        assert_eq!(town.called("alice"), Some(alice.clone()));
        assert_eq!(town.0.organization_called("one").map(|id| &**id), Some("m-1"));
        assert_eq!(town.declare("two", &[(&alice, USER, "alice"), (&bob, USER, "bob")]), 1);
        assert_eq!(town.0.organization_called("one"), None, "the alias is free");
        assert_eq!(town.0.alias_of("m-1").map(|alias| &**alias), Some("two"));
    }

    #[test]
    fn whoever_is_gone_is_remembered_and_a_name_is_given_again() {
        let mut town = Town::default();
        let (first, second) = (new(), new());
        town.declare("one", &[(&first, USER, "bob")]);
        assert_eq!(town.declare("one", &[]), 1);
        assert_eq!(town.called("bob"), None);
        let known = town.0.entity("m-1", &first).expect("is remembered").clone();
        assert_eq!((&*known.name, known.gone_at), ("bob", Some(AT)));
        town.declare("one", &[(&second, USER, "bob")]);
        assert_eq!(town.called("bob"), Some(second.clone()));
        assert_eq!(town.0.entity("m-1", &first), Some(&known), "and nobody took his place");
        assert_eq!(town.declare("one", &[(&first, USER, "bob"), (&second, USER, "rob")]), 2);
        assert_eq!(town.called("bob"), Some(first.clone()));
        assert_eq!(town.0.entity("m-1", &first).and_then(|known| known.gone_at), None);
        assert_eq!(town.0.entities("m-1").count(), 2);
    }

    #[test]
    fn names_can_be_changed_and_swapped_in_one_step() {
        let mut town = Town::default();
        let (one, other, third) = (new(), new(), new());
        town.declare("it", &[(&one, USER, "a"), (&other, USER, "b"), (&third, USER, "c")]);
        let swapped = [(&one, USER, "b"), (&other, USER, "a"), (&third, USER, "d")];
        assert_eq!(town.declare("it", &swapped), 3);
        for (id, _, name) in swapped {
            assert_eq!(town.called(name), Some(id.clone()), "{name}");
        }
        assert_eq!(town.called("c"), None);
    }

    #[test]
    fn an_organization_that_is_not_declared_rests() {
        let mut town = Town::default();
        let alice = new();
        town.declare("one", &[(&alice, USER, "alice")]);
        assert_eq!(town.0.difference(&[], AT), []);
        assert_eq!(town.called("alice"), Some(alice));
    }

    #[test]
    fn a_fact_is_read_as_it_was_written_and_what_is_unknown_in_it_is_refused() {
        let (organization, id): (Arc<str>, _) = ("m-1".into(), new());
        let facts = [
            Fact::Organization { id: "m-1".into(), alias: "one".into(), at: AT },
            Fact::Entity {
                organization: Arc::clone(&organization),
                id: id.clone(),
                kind: USER,
                name: "alice".into(),
                at: AT,
            },
            Fact::Gone { organization, id, at: AT },
        ];
        for fact in facts {
            let json = serde_json::to_value(&fact).expect("JSON");
            assert_eq!(serde_json::from_value::<Fact>(json.clone()).expect("reads"), fact);
            let mut later = json;
            let fields = later.as_object_mut().and_then(|it| it.values_mut().next());
            fields.expect("its fields")["later"] = serde_json::json!(1);
            assert!(serde_json::from_value::<Fact>(later).is_err(), "{fact:?}");
        }
        assert!(serde_json::from_str::<Fact>(r#"{"mailDomain":{}}"#).is_err());
    }
}
