//! Everything reloadable, as one immutable value: a message keeps the one it began with.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::extensions::Extensions;
use super::settings::{RecipientQuotas, Settings};
use crate::directory::{AccessRules, Directory, OrganizationId, ResolveError, Resolved};
use crate::mail::{Address, Gateway};
use crate::organization::OnReject;
use crate::rules::mailbox::MailboxRules;
use crate::rules::{InboundAction, OutboundAction, RuleSet};
use crate::{journal, scan};

/// What one organization wants done with its mail.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its inbound email flow rules.
    pub rules: Arc<RuleSet<InboundAction>>,
    /// Its outbound email flow rules.
    pub outbound_rules: Arc<RuleSet<OutboundAction>>,
    /// Its SMTP gateways by name; all that its outbound rules name are there.
    pub gateways: HashMap<Arc<str>, Arc<Gateway>>,
    /// The extensions of files that its users may not send.
    pub blocked_attachments: Arc<Extensions>,
    /// How many recipients outside the organization a day may have.
    pub recipient_quotas: RecipientQuotas,
    /// Its users' mailbox rules, by user name; who has none is not there.
    pub mailbox_rules: Arc<HashMap<Arc<str>, Arc<MailboxRules>>>,
    /// Its journaling, if it is on.
    pub journaling: Option<journal::Settings>,
    /// Whether DMARC policies are enforced (guide 4432: on by default).
    pub dmarc_enforcement: bool,
    /// Its own answer to `p=reject`, if it has one.
    pub on_reject: Option<OnReject>,
    /// Who may log in, over what and from where.
    pub access: Arc<AccessRules>,
}

impl Snapshot {
    /// The mailboxes and remote users behind an address.
    ///
    /// # Errors
    /// [`ResolveError`]
    pub(in crate::pipeline) fn resolve(&self, address: &Address) -> Result<Resolved, ResolveError> {
        self.directory.resolve(&self.meant(address), self.settings.max_group_members)
    }

    /// The address that an envelope's recipient stands for: [`Directory::meant`].
    pub(in crate::pipeline) fn meant<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        self.directory.meant(address, &self.settings.hostname)
    }
}

/// Directory, rules and settings at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts reloads; events and stories name it.
    pub version: u64,
    /// All organizations.
    pub directory: Directory,
    /// What each wants.
    pub policies: HashMap<OrganizationId, Policy>,
    /// The daemon's own settings.
    pub settings: Settings,
    /// The spam scanner, if there is one.
    pub scanner: Option<scan::Settings>,
}
