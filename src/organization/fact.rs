//! What is so from a moment on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{
    AccessSaid, Entity, FolderRule, GatewaySaid, JournalingSaid, MailDomain, MailSettings, Rights,
    State,
};
use crate::id::EntityId;
use crate::rules::mailbox::MailboxRules;
use crate::rules::{InboundRule, OutboundRule};
use crate::store::Folder;

/// All of one thing of an organization, as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact {
    /// What the organization is called.
    Alias(Arc<str>),
    /// Its domains.
    Domains(Vec<MailDomain>),
    /// Somebody is there, and so.
    Entity {
        /// Who.
        id: EntityId,
        /// How.
        entity: Arc<Entity>,
    },
    /// Somebody is there no more.
    Left {
        /// Who.
        id: EntityId,
    },
    /// The rules of a mailbox; none, if it has none any more.
    MailboxRules {
        /// Whose.
        id: EntityId,
        /// Which.
        rules: Arc<MailboxRules>,
    },
    /// Who gets mail for `postmaster@` its domains.
    Postmaster(Option<EntityId>),
    /// What an owner lets others do.
    Permissions {
        /// The owner.
        owner: EntityId,
        /// The others; nobody, if nobody may any more.
        granted: BTreeMap<EntityId, Rights>,
    },
    /// The rules for mail that comes in.
    InboundRules(Vec<InboundRule>),
    /// The rules for mail that users send.
    OutboundRules(Vec<OutboundRule>),
    /// The SMTP gateways.
    Gateways(BTreeMap<Arc<str>, GatewaySaid>),
    /// The access control rules.
    Access(Vec<AccessSaid>),
    /// What becomes of messages that have been in a folder for long.
    Retention(BTreeMap<Folder, FolderRule>),
    /// Journaling; absent where it is off.
    Journaling(Option<JournalingSaid>),
    /// What is said of its mail as a whole.
    Mail(MailSettings),
    /// Which file says all of it.
    Managed(Option<PathBuf>),
}

impl Fact {
    /// What it is about: of all facts about one thing the last one counts.
    pub fn about(&self) -> Box<str> {
        let fixed = match self {
            Self::Entity { id, .. } | Self::Left { id } => return format!("entity/{id}").into(),
            Self::MailboxRules { id, .. } => return format!("mailboxRules/{id}").into(),
            Self::Permissions { owner, .. } => return format!("permissions/{owner}").into(),
            Self::Alias(_) => "alias",
            Self::Domains(_) => "domains",
            Self::Postmaster(_) => "postmaster",
            Self::InboundRules(_) => "inboundRules",
            Self::OutboundRules(_) => "outboundRules",
            Self::Gateways(_) => "gateways",
            Self::Access(_) => "access",
            Self::Retention(_) => "retention",
            Self::Journaling(_) => "journaling",
            Self::Mail(_) => "mail",
            Self::Managed(_) => "managed",
        };
        fixed.into()
    }
}

/// Makes a state what a fact says. It never fails: who checks does so before something is a fact.
pub fn assign(state: &mut State, fact: Fact) {
    match fact {
        Fact::Alias(alias) => state.alias = alias,
        Fact::Domains(domains) => state.domains = domains,
        Fact::Entity { id, entity } => state.entities.insert(id, entity),
        Fact::Left { id } => state.entities.remove(&id),
        Fact::MailboxRules { id, rules } => {
            if rules.rules().is_empty() {
                state.mailbox_rules.remove(&id);
            } else {
                state.mailbox_rules.insert(id, rules);
            }
        }
        Fact::Postmaster(postmaster) => state.postmaster = postmaster,
        Fact::Permissions { owner, granted } => {
            if granted.is_empty() {
                state.permissions.remove(&owner);
            } else {
                state.permissions.insert(owner, granted);
            }
        }
        Fact::InboundRules(rules) => state.inbound_rules = rules,
        Fact::OutboundRules(rules) => state.outbound_rules = rules,
        Fact::Gateways(gateways) => state.gateways = gateways,
        Fact::Access(rules) => state.access = rules,
        Fact::Retention(retention) => state.retention = retention,
        Fact::Journaling(journaling) => state.journaling = journaling,
        Fact::Mail(mail) => state.mail = mail,
        Fact::Managed(file) => state.managed = file,
    }
}
