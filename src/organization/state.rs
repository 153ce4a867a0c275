//! All that is said of an organization.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::texts;
use super::values::{Extension, FolderAction, OnReject, OwnQuotas};
use crate::directory::{AccessEffect, AccessProtocol, OrganizationId, ResourceKind};
use crate::id::{EntityId, EntityKind};
use crate::mail::{Address, Domain, GatewayHost};
use crate::rules::mailbox::MailboxRules;
use crate::rules::{InboundRule, OutboundRule};
use crate::store::Folder;

/// One organization. Who is meant is said by id; names stand where somebody is called so. No secret
/// is in it, only where one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct State {
    /// Who it is, whatever it is called.
    pub id: OrganizationId,
    /// Its short name.
    pub alias: Arc<str>,
    /// The first is the default; the order of the others means nothing, and is that of their names.
    pub domains: Vec<MailDomain>,
    /// Users, groups and resources.
    pub entities: Entities,
    /// The mailbox rules of users and resources. They stand apart: they are the largest part of
    /// what is said of somebody.
    pub mailbox_rules: BTreeMap<EntityId, Arc<MailboxRules>>,
    /// Who gets mail for `postmaster@` its domains.
    pub postmaster: Option<EntityId>,
    /// Who may use whose mailbox or address: by owner, and then by grantee.
    pub permissions: BTreeMap<EntityId, BTreeMap<EntityId, Rights>>,
    /// In the order in which they stand, which counts where all else is the same.
    pub inbound_rules: Vec<InboundRule>,
    /// The same of mail that users send.
    pub outbound_rules: Vec<OutboundRule>,
    /// SMTP gateways, by name.
    pub gateways: BTreeMap<Arc<str>, GatewaySaid>,
    /// Access control rules; without any nobody gets in.
    pub access: Vec<AccessSaid>,
    /// What becomes of messages that have been in a folder for long.
    pub retention: BTreeMap<Folder, FolderRule>,
    /// Journaling, where it is on.
    pub journaling: Option<JournalingSaid>,
    /// What is said of its mail as a whole.
    pub mail: MailSettings,
    /// The file that says all of this, by its whole path.
    pub managed: Option<PathBuf>,
}

impl State {
    /// An organization of which nothing is said yet.
    pub fn empty(id: OrganizationId) -> Self {
        Self {
            id,
            alias: "".into(),
            domains: Vec::new(),
            entities: Entities::default(),
            mailbox_rules: BTreeMap::new(),
            postmaster: None,
            permissions: BTreeMap::new(),
            inbound_rules: Vec::new(),
            outbound_rules: Vec::new(),
            gateways: BTreeMap::new(),
            access: Vec::new(),
            retention: BTreeMap::new(),
            journaling: None,
            mail: MailSettings::default(),
            managed: None,
        }
    }
}

/// A domain of the organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MailDomain {
    /// Its name.
    pub name: Domain,
}

/// Users, groups and resources, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Entities(BTreeMap<EntityId, Arc<Entity>>);

impl Entities {
    /// Who has an id.
    pub fn get(&self, id: &EntityId) -> Option<&Arc<Entity>> {
        self.0.get(id)
    }

    /// Whoever has this id is so from now on.
    pub fn insert(&mut self, id: EntityId, entity: Arc<Entity>) {
        self.0.insert(id, entity);
    }

    /// Somebody leaves.
    pub fn remove(&mut self, id: &EntityId) {
        self.0.remove(id);
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&EntityId, &Arc<Entity>)> {
        self.0.iter()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Somebody in the organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entity {
    /// A user.
    User(User),
    /// A group.
    Group(Group),
    /// A resource.
    Resource(Resource),
}

impl Entity {
    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::User(user) | Self::Resource(Resource { mailbox: user, .. }) => &user.name,
            Self::Group(group) => &group.name,
        }
    }

    /// Its primary address.
    pub fn email(&self) -> Option<&Address> {
        match self {
            Self::User(user) | Self::Resource(Resource { mailbox: user, .. }) => {
                user.email.as_ref()
            }
            Self::Group(group) => group.email.as_ref(),
        }
    }

    /// All of its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let aliases = match self {
            Self::User(user) | Self::Resource(Resource { mailbox: user, .. }) => &user.aliases,
            Self::Group(group) => &group.aliases,
        };
        self.email().into_iter().chain(aliases)
    }

    /// What it is.
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::User(_) => EntityKind::User,
            Self::Group(_) => EntityKind::Group,
            Self::Resource(_) => EntityKind::Resource,
        }
    }
}

/// A user, or the mailbox of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct User {
    /// Unique in the organization.
    pub name: Arc<str>,
    /// The primary address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Address>,
    /// Further addresses, in the order of their texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Address>,
    /// Whether mail and logins are taken.
    pub enabled: bool,
    /// Where the mailbox is, if it is elsewhere. Said of a disabled user, it counts again when the
    /// user is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Address>,
    /// What the mailbox may hold, in MB of 1,048,576 bytes.
    pub quota_mb: u64,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Group {
    /// Unique in the organization.
    pub name: Arc<str>,
    /// The primary address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Address>,
    /// Further addresses, in the order of their texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Address>,
    /// Whether mail is taken.
    pub enabled: bool,
    /// In the order in which they get mail.
    pub members: Vec<EntityId>,
}

/// A room or equipment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    /// Its mailbox.
    pub mailbox: User,
    /// What it is.
    pub kind: ResourceKind,
}

/// What somebody may do with the mailbox or address of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rights {
    /// *Full Access* to the mailbox.
    pub full_access: bool,
    /// *Send As*
    pub send_as: bool,
    /// *Send On Behalf*
    pub send_on_behalf: bool,
}

/// An SMTP gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewaySaid {
    /// Where it is.
    pub host: GatewayHost,
    /// Its TCP port.
    pub port: u16,
    /// Whether TLS begins with the connection.
    pub implicit_tls: bool,
    /// What it is logged in to with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginSaid>,
    /// The authorities that its certificate may come from; absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Authorities>,
}

/// A login, whose password stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LoginSaid {
    /// The user name.
    pub user_name: String,
    /// Where the password is.
    pub password: SecretAt,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretAt {
    /// In a file, by its whole path.
    File(PathBuf),
}

/// Where certificates of authorities are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authorities {
    /// In a file, by its whole path.
    File(PathBuf),
}

/// An access control rule. An empty list is no condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessSaid {
    /// Unique in the organization.
    pub name: Arc<str>,
    /// What it does where it applies.
    pub effect: AccessEffect,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Box<str>>,
    /// The protocol is one of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub protocols: BTreeSet<AccessProtocol>,
    /// The protocol is none of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub not_protocols: BTreeSet<AccessProtocol>,
    /// The client's address is in one of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", with = "texts")]
    pub ip_ranges: BTreeSet<IpNet>,
    /// The client's address is in none of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", with = "texts")]
    pub not_ip_ranges: BTreeSet<IpNet>,
    /// The user is one of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<EntityId>,
    /// The user is none of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub not_users: BTreeSet<EntityId>,
}

/// What becomes of messages that have been in a folder for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FolderRule {
    /// What.
    pub action: FolderAction,
    /// After how many days in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_days: Option<u16>,
}

/// Journaling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JournalingSaid {
    /// Where records go.
    pub journaling_address: Address,
    /// Who is told when a record cannot be made or delivered.
    pub report_address: Address,
    /// Where records come from, if that is not the address that is reserved in the default domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_address: Option<Address>,
}

/// What is said of an organization's mail as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MailSettings {
    /// Whether `user+tag@` reaches `user@`.
    pub plus_addressing: bool,
    /// Whether DMARC policies are enforced.
    pub dmarc_enforcement: bool,
    /// Its own answer to `p=reject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_reject: Option<OnReject>,
    /// Its own quotas.
    pub quotas: OwnQuotas,
    /// The extensions of files that its users may not send; absent: those of the guide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_attachments: Option<Blocked>,
}

/// Extensions of files that are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blocked(#[serde(with = "texts")] pub BTreeSet<Extension>);
