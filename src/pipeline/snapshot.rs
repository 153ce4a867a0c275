//! Everything reloadable, as one immutable value: a message keeps the one it began with.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Extensions, OnReject, RecipientQuotas, Settings};
use crate::directory::{AccessRules, Directory, OrganizationId, ResolveError, Resolved};
use crate::mail::{Address, Gateway};
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
    /// The mailboxes and remote users behind an address. Who writes to `postmaster` alone, which is
    /// the daemon's own (RFC 5321 §4.5.1), reaches the first organization's.
    ///
    /// # Errors
    /// [`ResolveError`]
    pub(super) fn resolve(&self, address: &Address) -> Result<Resolved, ResolveError> {
        let most = self.settings.max_group_members;
        let resolve = |address: &Address| self.directory.resolve(address, most);
        let found = resolve(address);
        let is_own = address.local_part().eq_ignore_ascii_case("postmaster")
            && address.domain().as_str().eq_ignore_ascii_case(&self.settings.hostname);
        match self.directory.organizations().next().and_then(|first| first.domains.first()) {
            Some(domain) if is_own && found.is_err() => {
                let own = Address::from_parts("postmaster", domain.as_str());
                own.map_or(found, |address| resolve(&address))
            }
            _ => found,
        }
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
