//! What the operator sets for the path of a message.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::organization::{OnReject, OwnQuotas};
use crate::smtp::Limits;
use crate::store::QueueBounds;

/// Settings of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `hostname`: in `Received` and in what we send.
    pub hostname: String,
    /// `access.allow`: if present, only these networks may connect.
    pub allow: Option<Vec<IpNet>>,
    /// `access.deny`: these networks may not connect; deny wins.
    pub deny: Vec<IpNet>,
    /// `dmarc.on_reject`; an organization's own `dmarc_on_reject` wins.
    pub on_reject: OnReject,
    /// `limits.attachments` of a message (guide 3460).
    pub max_attachments: usize,
    /// `limits.header_bytes`: octets of the header section.
    pub max_header_bytes: usize,
    /// `limits.header_fields`: fields of the header section.
    pub max_header_fields: usize,
    /// `limits.hops`: `Received` fields of a message (RFC 5321 §6.3 asks for at least 100).
    pub max_hops: usize,
    /// `limits.group_members`: mailboxes that one recipient address may expand to.
    pub max_group_members: usize,
    /// `limits.expanded_recipients`: mailboxes that all recipients of a message together may expand
    /// to.
    pub max_expanded_recipients: usize,
    /// `store.mailbox_full_grace_s`: for this long after a mailbox became full its mail is
    /// deferred with 452 instead of refused with 552; zero refuses at once.
    pub mailbox_full_grace: Duration,
    /// `[outbound]`; an organization's own numbers win.
    pub recipient_quotas: RecipientQuotas,
    /// Of what was forwarded, back to its first senders.
    pub bounces: BounceLimits,
    /// How much mail may wait in the queue.
    pub queue: QueueBounds,
    /// `limits.reports_per_network`: reports that leave because of a client network's mail, in an
    /// hour.
    pub reports_per_network: usize,
    /// `log.mail`: a line for each accepted message and for each outcome.
    pub logs_mail: bool,
}

/// How many bounces of forwarded mail are led back to its senders in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BounceLimits {
    /// `limits.bounces_per_network`: from a client network.
    pub per_network: usize,
    /// `limits.bounces_per_sender`: to one address.
    pub per_sender: usize,
}

impl Default for BounceLimits {
    /// A large provider that refuses a newsletter after having taken it, and whose sender has an
    /// address for all copies; what is too much comes again later.
    fn default() -> Self {
        Self { per_network: 1000, per_sender: 200 }
    }
}

/// How many recipients users may write to in a day (UTC), counting each recipient of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipientQuotas {
    /// A user, outside the organization (guide 3449).
    pub per_user: u64,
    /// All users of an organization together, outside of it (guide 3426).
    pub per_organization: u64,
    /// A user, mailboxes of the organization. The guide has no such bound; this one only keeps a
    /// program that has gone wild from filling the disk.
    pub inside_per_user: u64,
}

impl Default for RecipientQuotas {
    fn default() -> Self {
        Self { per_user: 10_000, per_organization: 100_000, inside_per_user: 100_000 }
    }
}

impl RecipientQuotas {
    /// An organization's own numbers, or else these.
    #[must_use]
    pub fn unless(self, own: OwnQuotas) -> Self {
        Self {
            per_user: own.per_user.unwrap_or(self.per_user),
            per_organization: own.per_organization.unwrap_or(self.per_organization),
            inside_per_user: own.inside_per_user.unwrap_or(self.inside_per_user),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            allow: None,
            deny: Vec::new(),
            on_reject: OnReject::Reject,
            max_attachments: 500,
            max_header_bytes: Limits::default().header_bytes,
            max_header_fields: 2000,
            max_hops: 100,
            max_group_members: 10_000,
            max_expanded_recipients: 20_000,
            mailbox_full_grace: Duration::ZERO,
            recipient_quotas: RecipientQuotas::default(),
            queue: QueueBounds::default(),
            reports_per_network: 500,
            bounces: BounceLimits::default(),
            logs_mail: true,
        }
    }
}
