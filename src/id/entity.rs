//! The ids of users, groups and resources.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::{Builder, Uuid};

/// The longest id, in characters (the API's `EntityIdentifier`).
const MAX_LENGTH: usize = 256;
/// How the ids begin that WorkMail takes from a directory.
const OF_A_DIRECTORY: &str = "S-1-1-12-";

/// What somebody in an organization is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntityKind {
    /// A user.
    User,
    /// A group.
    Group,
    /// A room or equipment.
    Resource,
}

impl EntityKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Group, Self::Resource];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Resource => "resource",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a user, group or resource of an organization for ever, whatever it is called, and never
/// anybody else. As WorkMail has it (`contracts.md` §5.1): a UUID or `S-1-1-12-…` for users and
/// groups, `r-` and 32 hexadecimal digits for resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(Form);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    UserOrGroup(Uuid),
    Resource(Uuid),
    OfDirectory(Arc<str>),
}

impl EntityId {
    /// A new id, unique without coordination.
    pub fn generate(kind: EntityKind) -> Self {
        Self::of(kind, Uuid::now_v7())
    }

    /// The id of whoever has a name first: always the same for the same organization, kind and name,
    /// so that a command may speak of somebody whom no daemon has seen yet.
    pub fn of_first(kind: EntityKind, organization: &str, name: &str) -> Self {
        let text = format!("mailweir {kind} {organization}/{name}");
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let mut octets = [0; 16];
        octets.iter_mut().zip(hash.as_ref()).for_each(|(octet, hashed)| *octet = *hashed);
        Self::of(kind, Builder::from_custom_bytes(octets).into_uuid())
    }

    fn of(kind: EntityKind, uuid: Uuid) -> Self {
        match kind {
            EntityKind::User | EntityKind::Group => Self(Form::UserOrGroup(uuid)),
            EntityKind::Resource => Self(Form::Resource(uuid)),
        }
    }

    /// Whether an entity of this kind can have it.
    pub fn is_for(&self, kind: EntityKind) -> bool {
        matches!(self.0, Form::Resource(_)) == (kind == EntityKind::Resource)
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::UserOrGroup(uuid) => uuid.hyphenated().fmt(f),
            Form::Resource(uuid) => write!(f, "r-{}", uuid.simple()),
            Form::OfDirectory(text) => f.write_str(text),
        }
    }
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a UUID, S-1-1-12-…, or r- and 32 hexadecimal digits")]
pub struct NotAnEntityId;

impl FromStr for EntityId {
    type Err = NotAnEntityId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_lower = |text: &str| !text.bytes().any(|octet| octet.is_ascii_uppercase());
        let uuid = |text: &str, length| {
            let is_one = text.len() == length && is_lower(text);
            is_one.then(|| Uuid::parse_str(text).ok()).flatten().ok_or(NotAnEntityId)
        };
        if let Some(digits) = text.strip_prefix("r-") {
            return uuid(digits, 32).map(|uuid| Self(Form::Resource(uuid)));
        }
        if let Some(rest) = text.strip_prefix(OF_A_DIRECTORY) {
            let is_good = |c: char| c.is_ascii_digit() || c == '-';
            let is_one = !rest.is_empty() && rest.chars().all(is_good) && text.len() <= MAX_LENGTH;
            return is_one.then(|| Self(Form::OfDirectory(text.into()))).ok_or(NotAnEntityId);
        }
        uuid(text, 36).map(|uuid| Self(Form::UserOrGroup(uuid)))
    }
}

impl Serialize for EntityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_prints_and_in_one_spelling_alone() {
        for text in [
            "018f2c6e-6f2a-7c3e-9d1b-2f0c5b1a9e77",
            "S-1-1-12-1234567890-123456789-12",
            "r-0123456789abcdef0123456789abcdef",
        ] {
            let id: EntityId = text.parse().expect("an id");
            assert_eq!(id.to_string(), text);
            let json = serde_json::to_string(&id).expect("JSON");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<EntityId>(&json).expect("reads"), id);
        }
        for text in [
            "",
            "alice",
            "018F2C6E-6F2A-7C3E-9D1B-2F0C5B1A9E77",
            "018f2c6e6f2a7c3e9d1b2f0c5b1a9e77",
            "{018f2c6e-6f2a-7c3e-9d1b-2f0c5b1a9e77}",
            "S-1-1-12-",
            "S-1-1-12-12x",
            "S-1-5-21-1",
            "r-0123456789ABCDEF0123456789abcdef",
            "r-01234567-89ab-cdef-0123-456789abcdef",
            "r-0123",
        ] {
            assert_eq!(text.parse::<EntityId>(), Err(NotAnEntityId), "{text}");
        }
        assert!(serde_json::from_str::<EntityId>("\"alice\"").is_err());
    }

    #[test]
    fn the_first_of_a_name_is_known_and_everybody_else_is_new() {
        let first = |kind, organization, name| EntityId::of_first(kind, organization, name);
        let alice = first(EntityKind::User, "m-1", "alice");
        assert_eq!(alice, first(EntityKind::User, "m-1", "alice"));
        for other in [
            first(EntityKind::User, "m-1", "bob"),
            first(EntityKind::User, "m-2", "alice"),
            first(EntityKind::Group, "m-1", "alice"),
            EntityId::generate(EntityKind::User),
        ] {
            assert_ne!(alice, other);
        }
        for kind in EntityKind::ALL {
            for id in [first(kind, "m-1", "alice"), EntityId::generate(kind)] {
                assert_eq!(id.to_string().parse(), Ok(id.clone()));
                assert!(id.is_for(kind));
                assert_eq!(id.is_for(EntityKind::Resource), kind == EntityKind::Resource);
            }
        }
    }
}
