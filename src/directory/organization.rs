//! An organization and what it consists of.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

use crate::id::EntityId;
use crate::mail::{Address, Domain};

/// `m-` and 32 hexadecimal digits, as in WorkMail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct OrganizationId(Arc<str>);

impl<'de> Deserialize<'de> for OrganizationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let not_an_id = || de::Error::custom(format!("\"{text}\" is no id of an organization"));
        Self::parse(&text).ok_or_else(not_an_id)
    }
}

impl OrganizationId {
    /// Reads an id; `None` if it has not the form.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("m-")?;
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (digits.len() == 32 && digits.chars().all(is_hex)).then(|| Self(text.into()))
    }

    /// A new id, unique without coordination.
    pub fn generate() -> Self {
        Self(format!("m-{}", Uuid::now_v7().simple()).into())
    }

    /// The id of the first organization of an alias, unless it says another: always the same for the
    /// same alias.
    pub fn of_alias(alias: &str) -> Self {
        let hash =
            digest::digest(&digest::SHA256, format!("mailweir organization {alias}").as_bytes());
        let digits: String =
            hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("m-{digits}").into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hash and equality are those of the text.
impl Borrow<str> for OrganizationId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text, shared with the id.
impl From<&OrganizationId> for Arc<str> {
    fn from(id: &OrganizationId) -> Self {
        Arc::clone(&id.0)
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether mail for an entity is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityState {
    /// It is.
    Enabled,
    /// It is refused.
    Disabled,
    /// Mail is taken and routed on: the mailbox is elsewhere, at this address (guide 290).
    Remote(Address),
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who it is, whatever it is called.
    pub id: EntityId,
    /// Unique among users, groups and resources of the organization.
    pub name: Arc<str>,
    /// The primary address.
    pub email: Address,
    /// Further addresses (guide 3441: at most 100).
    pub aliases: Vec<Address>,
    /// Whether mail is taken.
    pub state: EntityState,
    /// What the mailbox may hold, in MB of 1,048,576 bytes.
    pub quota_mb: u64,
}

/// A group: mail for it is mail for its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Who it is, whatever it is called.
    pub id: EntityId,
    /// Unique among users, groups and resources of the organization.
    pub name: Arc<str>,
    /// The primary address.
    pub email: Address,
    /// Further addresses.
    pub aliases: Vec<Address>,
    /// Names of users, resources and groups.
    pub members: Vec<Arc<str>>,
    /// Whether mail is taken.
    pub is_enabled: bool,
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResourceKind {
    /// A room.
    Room,
    /// Equipment.
    Equipment,
}

impl ResourceKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Equipment => "equipment",
        }
    }
}

/// A resource: a mailbox that belongs to a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The mailbox; a resource is a user of another kind.
    pub mailbox: User,
    /// What it is.
    pub kind: ResourceKind,
}

/// What the owner of a mailbox, or a group, lets somebody do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The name of the user, resource or group whose mailbox or address it is.
    pub owner: Arc<str>,
    /// The name of the user or group who may. A group stands for all its members, those of groups
    /// in it too (guide 6701).
    pub grantee: Arc<str>,
    /// *Full Access* to the mailbox; of users to users only (guide 6691). It gives no right to
    /// send.
    pub full_access: bool,
    /// *Send As*: the owner alone appears.
    pub send_as: bool,
    /// *Send On Behalf*: the owner is the author, and the grantee the `Sender`.
    pub send_on_behalf: bool,
}

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id in events.
    pub id: OrganizationId,
    /// Its short name.
    pub alias: String,
    /// Its domains; the first is the default.
    pub domains: Vec<Domain>,
    /// Whether `user+tag@` reaches `user@`.
    pub plus_addressing: bool,
    /// Who gets mail for `postmaster@` each domain (RFC 5321 §4.5.1): a user's or group's name.
    pub postmaster: Arc<str>,
    /// The address from which journal records come; it may be nobody's.
    pub reserved: Address,
    /// Its users.
    pub users: Vec<User>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// Its resources.
    pub resources: Vec<Resource>,
    /// Its mailbox permissions.
    pub permissions: Vec<Permission>,
}

/// Whom a name, an address or an id means.
pub(super) enum Found<'a> {
    /// A user or resource.
    Mailbox(&'a User),
    /// A group.
    Group(&'a Group),
}
