//! Mail that Mailweir makes itself: journal records, notices and DSNs. It carries a null
//! reverse-path and is never judged, ruled, journaled or bounced, so it cannot loop.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::directory::{OrganizationId, Resolved};
use crate::domains::DomainKeys;
use crate::events::{Event, EventLine, MailboxDelivered};
use crate::heavy::Turn;
use crate::id::TraceId;
use crate::journal::Wrapping;
use crate::mail::{Address, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath};
use crate::pipeline::delivery::onward;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::signatures::Signatures;
use crate::pipeline::facts::snapshot::Snapshot;
use crate::pipeline::record::own_mail::{OwnMail, OwnMailKind};
use crate::rules::{Authors, OutboundAction, Party};
use crate::store::{
    Authorship, Delivery, Destination, Folder, Mail, MailboxOwner, Purpose, QueueEntry, QueueFull,
    Store, StoreError, Story,
};

/// A composed message and where it goes.
#[derive(Debug)]
pub(in crate::pipeline) struct InternalMail {
    pub(in crate::pipeline) id: TraceId,
    pub(in crate::pipeline) kind: OwnMailKind,
    pub(in crate::pipeline) to: Address,
    pub(in crate::pipeline) content: Content,
}

/// What internal mail consists of.
#[derive(Debug)]
pub(in crate::pipeline) enum Content {
    /// Octets of its own.
    Own(Vec<u8>),
    /// The message that it is about, wrapped; never copied, because it may be large.
    Around(Wrapping),
}

/// Internal mail, ready for the commit.
#[derive(Debug)]
pub(in crate::pipeline) struct Placed {
    pub(in crate::pipeline) id: TraceId,
    /// What it is, and which message it is about.
    pub(in crate::pipeline) told: OwnMail,
    /// What stays here, and what leaves.
    pub(in crate::pipeline) mails: Vec<Mail>,
    /// Its content; `None` if that is the original, around which it stands.
    pub(in crate::pipeline) own: Option<Vec<u8>>,
    pub(in crate::pipeline) events: Vec<EventLine>,
    /// Whether the message that it is about waits at its sender's until there is room for this.
    pub(in crate::pipeline) is_needed: bool,
}

/// Why internal mail has no place.
#[derive(Debug, thiserror::Error)]
pub(in crate::pipeline) enum Unplaced {
    #[error("{0} is not a deliverable address here: {1}")]
    Unresolved(Address, String),
    #[error("the mailbox of {0} is full")]
    Full(Address),
    #[error("too many journal records wait to leave")]
    QueueFull,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<QueueFull> for Unplaced {
    fn from(_: QueueFull) -> Self {
        Self::QueueFull
    }
}

/// For whom internal mail is sent, and what it is, if it leaves.
#[derive(Debug)]
pub(in crate::pipeline) struct Sending<'a> {
    pub(in crate::pipeline) organization: &'a OrganizationId,
    pub(in crate::pipeline) purpose: Purpose,
    /// Of the message that it is about, for whoever is told that it could not be delivered.
    pub(in crate::pipeline) about: Authorship,
    /// The trace of that message.
    pub(in crate::pipeline) about_trace: TraceId,
}

impl Placed {
    /// Whether some of it leaves.
    fn leaves(&self) -> bool {
        self.mails.iter().any(|mail| !mail.queued.is_empty())
    }

    /// The mailboxes that have it, as the events say: whose, and the folder.
    pub(in crate::pipeline) fn deliveries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.events.iter().filter_map(|line| match &line.event {
            Event::MailboxDelivered(delivered) => Some((&*delivered.recipient, &*delivered.folder)),
            _ => None,
        })
    }

    /// What its trace is told from.
    pub(in crate::pipeline) fn story(&self) -> Story {
        self.told.story(self.id, self.leaves())
    }
}

impl Sending<'_> {
    /// The domain in its From field.
    fn author<'a>(&self, snapshot: &'a Snapshot) -> &'a str {
        let policy = match self.purpose {
            Purpose::JournalRecord { .. } => snapshot.policies.get(self.organization),
            Purpose::Message | Purpose::Report => None,
        };
        let journaling = policy.and_then(|policy| policy.journaling.as_ref());
        match journaling {
            Some(journaling) => journaling.sender_address.domain().as_str(),
            None => &snapshot.settings.hostname,
        }
    }

    /// Where mail for `to` goes: through the gateway that the organization's outbound rules say, as
    /// its users' mail does. Rules that drop or bounce are for what users write.
    fn destination(&self, to: &Address, snapshot: &Snapshot) -> Destination {
        let directly = || Destination::Domain(to.domain().clone());
        let Some(policy) = snapshot.policies.get(self.organization) else { return directly() };
        if policy.outbound_rules.is_empty() {
            return directly();
        }
        let author = match (&self.purpose, &policy.journaling) {
            (Purpose::JournalRecord { .. }, Some(journaling)) => {
                Some(journaling.sender_address.clone())
            }
            _ => Address::parse(&format!("postmaster@{}", snapshot.settings.hostname)).ok(),
        };
        let directory = &snapshot.directory;
        let from = author.iter().map(|author| Party::of(author, directory)).collect();
        let authors = Authors { sender: None, from };
        let rule = policy.outbound_rules.evaluate(&authors, &Party::of(to, directory)).winner;
        match rule.map(|rule| rule.action) {
            Some(OutboundAction::RouteToSmtpGateway { gateway }) => Destination::Gateway(gateway),
            Some(OutboundAction::Default | OutboundAction::Drop | OutboundAction::Bounce)
            | None => directly(),
        }
    }

    fn entry(&self, to: Address, snapshot: &Snapshot) -> QueueEntry {
        QueueEntry {
            organization: self.organization.as_str().into(),
            purpose: self.purpose.clone(),
            destination: self.destination(&to, snapshot),
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: vec![EnvelopeRecipient {
                address: to,
                parameters: RcptParameters::default(),
            }],
            authorship: self.about.clone(),
            sender: None,
            returns_to: None,
            token_domain: None,
            keeper: None,
        }
    }
}

/// What a message is about, as far as its place depends on it.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct About<'a> {
    pub(in crate::pipeline) snapshot: &'a Snapshot,
    pub(in crate::pipeline) at: Timestamp,
    /// The original, around which a journal record stands.
    pub(in crate::pipeline) original: &'a [u8],
}

impl<'a> About<'a> {
    pub(in crate::pipeline) fn message(original: &'a Judged) -> Self {
        let snapshot = original.snapshot();
        let at = original.received_at();
        Self { snapshot, at, original: original.content() }
    }
}

/// Where internal mail goes, and what it is signed with on the way out.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Outlets<'a> {
    pub(in crate::pipeline) store: &'a Store,
    pub(in crate::pipeline) keys: &'a DomainKeys,
    /// Signing takes long for a large message.
    pub(in crate::pipeline) turn: &'a Turn,
}

/// Finds a place for internal mail: mailboxes for a local address, else the queue. What leaves is
/// signed.
pub(in crate::pipeline) fn place(
    mail: InternalMail,
    sending: Sending<'_>,
    about: About<'_>,
    outlets: Outlets<'_>,
) -> Result<Placed, Unplaced> {
    let (snapshot, store) = (about.snapshot, outlets.store);
    let Ways { here, elsewhere } = ways(&mail.to, &sending, about, store)?;
    // A sender whose address we have rewritten is told by the address that it stands for.
    let to = elsewhere.first().unwrap_or(&mail.to).clone();
    let queued: Vec<QueueEntry> =
        elsewhere.into_iter().map(|to| sending.entry(to, snapshot)).collect();
    let leaves = !queued.is_empty();
    let signature = leaves.then(|| signature(&mail, &sending, about, outlets));
    let told = OwnMail {
        own_mail: mail.kind,
        about: sending.about_trace,
        to,
        signatures: signature.as_ref().map(|it| it.told.clone()),
    };
    let received = format!(
        "Received: by {} (mailweir) id {};\r\n\t{} (UTC)\r\n",
        snapshot.settings.hostname,
        mail.id,
        about.at.to_rfc5322()
    );
    let id = mail.id;
    let (own, before, suffix) = match mail.content {
        Content::Own(content) => (Some(content), Vec::new(), Vec::new()),
        Content::Around(Wrapping { before, after }) => (None, before, after),
    };
    let mail_with = |prefix: Vec<u8>, queued: Vec<QueueEntry>| Mail {
        id,
        received_at: about.at,
        prefix,
        suffix: suffix.clone(),
        deliveries: Vec::new(),
        queued,
    };
    // Only who delivers a message at last tells its path (RFC 5321 §4.4).
    let path = format!("Return-Path: <>\r\n{received}");
    let mut kept = mail_with([path.as_bytes(), &before].concat(), Vec::new());
    let mut placed =
        Placed { id, told, mails: Vec::new(), own, events: Vec::new(), is_needed: false };
    let content_length = placed.own.as_ref().map_or(about.original.len(), Vec::len);
    let size = (kept.prefix.len() + content_length + suffix.len()) as u64;
    for resolved in &here {
        placed.events.extend(deliver(&mut kept, size, resolved, store)?);
    }
    if !kept.deliveries.is_empty() {
        placed.mails.push(kept);
    }
    if let Some(signature) = signature {
        let prefix = [received.as_bytes(), &signature.fields, &before].concat();
        placed.mails.push(mail_with(prefix, queued));
    }
    if placed.mails.is_empty() { Err(Unplaced::Full(mail.to)) } else { Ok(placed) }
}

/// Takes room for mail in the mailboxes behind its address; those that have none are left out.
fn deliver(
    mail: &mut Mail,
    size: u64,
    resolved: &Resolved,
    store: &Store,
) -> Result<Vec<EventLine>, StoreError> {
    let mut events = Vec::new();
    for member in resolved.members.iter() {
        let owner = MailboxOwner {
            organization: resolved.organization.id.as_str().into(),
            entity: member.id.clone(),
        };
        if mail.deliveries.iter().any(|delivery| delivery.room.mailbox().owner() == &owner) {
            continue;
        }
        let Some(room) = store.mailbox(&owner)?.reserve(size, member.quota_bytes) else {
            continue;
        };
        mail.deliveries.push(Delivery { room, folder: Folder::Inbox });
        events.push(EventLine {
            trace_id: mail.id,
            event: Event::MailboxDelivered(MailboxDelivered {
                recipient: member.address.to_string(),
                folder: Folder::Inbox.to_string(),
            }),
            event_timestamp: mail.received_at,
            organization_id: resolved.organization.id.to_string(),
        });
    }
    Ok(events)
}

/// The signatures of internal mail, and what is told of them.
struct Signature {
    fields: Vec<u8>,
    told: Signatures,
}

/// Signs internal mail; not if nobody has keys, or if it cannot be signed: a report that a server
/// may take for forged is better than none.
fn signature(
    mail: &InternalMail,
    sending: &Sending<'_>,
    about: About<'_>,
    outlets: Outlets<'_>,
) -> Signature {
    let organizations = about.snapshot.directory.organizations();
    let domains = organizations
        .filter(|organization| organization.id == *sending.organization)
        .flat_map(|organization| organization.domains.iter().cloned())
        .collect::<Vec<_>>();
    let author = sending.author(about.snapshot);
    let signer = outlets.keys.signer_of_our_own_mail(author, &domains);
    let unsigned = || Signature { fields: Vec::new(), told: Signatures::missing(author) };
    let Some(signer) = signer else { return unsigned() };
    let parts: [&[u8]; 3] = match &mail.content {
        Content::Own(content) => [content, &[], &[]],
        Content::Around(Wrapping { before, after }) => [before, about.original, after],
    };
    match signer.sign(outlets.turn, &parts, about.at) {
        Ok(fields) => Signature { fields: fields.into_bytes(), told: Signatures::by(&signer) },
        Err(error) => {
            tracing::error!(%error, id = %mail.id, "mail of our own leaves unsigned");
            unsigned()
        }
    }
}

/// Everybody whom internal mail reaches.
#[derive(Default)]
struct Ways {
    here: Vec<Resolved>,
    /// Addresses on other servers, or here if a gateway is to get what is for them.
    elsewhere: Vec<Address>,
}

/// All ways from an address. A remote user of an organization here may be somebody in another one
/// here, and so on: what is for them stays here, since our MX would only lead it back, or nowhere.
/// Only the first address has to lead anywhere.
fn ways(
    to: &Address,
    sending: &Sending<'_>,
    about: About<'_>,
    store: &Store,
) -> Result<Ways, Unplaced> {
    let directory = &about.snapshot.directory;
    let mut ways = Ways::default();
    if !directory.is_local(to.domain()) {
        ways.elsewhere.push(to.clone());
        return Ok(ways);
    }
    ways.here.push(resolve(to, about, store)?);
    let mut known = HashSet::from([to.key()]);
    let mut next = 0;
    while let Some(resolved) = ways.here.get(next) {
        next += 1;
        let remote: Vec<Address> =
            resolved.remote.iter().map(|remote| remote.forward_to.clone()).collect();
        for to in remote {
            if !known.insert(to.key()) {
                continue;
            }
            let leaves = !directory.is_local(to.domain())
                || matches!(sending.destination(&to, about.snapshot), Destination::Gateway(_));
            if leaves {
                ways.elsewhere.push(to);
                continue;
            }
            match resolve(&to, about, store) {
                Ok(resolved) => ways.here.push(resolved),
                Err(problem) => {
                    tracing::warn!(%problem, "mail of our own does not reach a remote user")
                }
            }
        }
    }
    Ok(ways)
}

/// The mailboxes and remote users behind an address here, or whoever sent first what was forwarded
/// under it.
fn resolve(to: &Address, about: About<'_>, store: &Store) -> Result<Resolved, Unplaced> {
    let directory = &about.snapshot.directory;
    let error = match directory.resolve(to, about.snapshot.settings.max_group_members) {
        Ok(resolved) => return Ok(resolved),
        Err(error) => error,
    };
    let first = onward::first_sender(directory, to, store, about.at)?;
    first.ok_or_else(|| Unplaced::Unresolved(to.clone(), error.to_string()))
}
