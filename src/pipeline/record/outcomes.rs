//! What came of mail that left: the events of it, the reports to its sender, and the entry's own
//! change, made durable in one step.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Timestamp;
use crate::directory::{Directory, OrganizationId};
use crate::domains::DomainKeys;
use crate::events::{BouncedRecipient, Event, EventLine, MailboxDelivered, OutgoingBounced};
use crate::heavy::{self, Turn, Weight};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, DsnReturn, EnvelopeRecipient, ReversePath};
use crate::pipeline::facts::outgoing::sent;
use crate::pipeline::facts::snapshot::Snapshot;
use crate::pipeline::record::internal::{self, About, Content, InternalMail, Outlets, Sending};
use crate::pipeline::record::mail_log::OwnDelivery;
use crate::pipeline::record::mail_log_writer::MailLogWriter;
use crate::pipeline::record::notice::Letterhead;
use crate::pipeline::record::own_mail::OwnMailKind;
use crate::pipeline::record::postmasters::{self, Postmasters};
use crate::pipeline::record::report::{
    DecidedBy, Original, Outcome, ReportedRecipient, StatusReport, wants,
};
use crate::pipeline::record::room;
use crate::pipeline::record::transport;
use crate::queue::{Ledger, Settlement};
use crate::smtp::client::{Failure, Receipt};
use crate::store::{
    Authorship, Blob, Commit, Delivery, Destination, Folder, Keeper, Mail, MailboxOwner, Purpose,
    QueueChange, QueueEntry, QueuedContent, QueuedMail, SettledOutcome, Store, StoreError,
};

/// Makes outcomes durable.
pub struct Outcomes {
    store: Arc<Store>,
    domain_keys: Arc<DomainKeys>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    mail_log: Arc<MailLogWriter>,
    /// Bounced messages that nobody else has.
    postmasters: Postmasters,
}

impl Outcomes {
    /// Outcomes of mail in this store, told as the newest snapshot wants it.
    pub fn new(
        store: Arc<Store>,
        domain_keys: Arc<DomainKeys>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        mail_log: Arc<MailLogWriter>,
    ) -> Self {
        Self { store, domain_keys, snapshot, mail_log, postmasters: Postmasters::default() }
    }
}

impl Ledger for Outcomes {
    async fn record(
        &self,
        settlement: &Settlement,
        content: Option<&QueuedContent>,
    ) -> Result<(), StoreError> {
        let mut commit = Commit::default();
        commit.queue_changes.push(QueueChange {
            entry: settlement.mail.id,
            state: settlement.state.clone(),
            at: settlement.at,
        });
        commit.stories.extend(transport::story(settlement));
        push_events(&mut commit.events, settlement);
        let snapshot = self.snapshot.load_full();
        let telling = Telling::about(settlement, &snapshot.directory);
        let keeper = keeper(settlement);
        let mut delivered = Vec::new();
        if !telling.is_empty() || keeper.is_some() {
            let read;
            let original = match content {
                Some(content) => content,
                None => {
                    read = self.original(settlement).await;
                    &read
                }
            };
            let weight = Weight::of(&original.content);
            let tell = |turn: &Turn| {
                let mut changes = Changes { commit: &mut commit, delivered: &mut delivered };
                for mail in telling.compose(settlement, &snapshot, original) {
                    self.place(turn, mail, settlement, &snapshot, &mut changes);
                }
                if let Some(keeper) = keeper {
                    self.keep(turn, keeper, settlement, &snapshot, original, &mut changes);
                }
            };
            heavy::in_turn(weight, tell).await;
        }
        self.store.commit(commit).await?;
        if snapshot.settings.logs_mail {
            self.mail_log.write_settlement(settlement, &delivered);
        }
        Ok(())
    }
}

/// What an outcome changes beside the entry, and which of it is in mailboxes here, for the log.
struct Changes<'a> {
    commit: &'a mut Commit,
    delivered: &'a mut Vec<OwnDelivery>,
}

impl Outcomes {
    /// The message; nothing of it where it cannot be read, which never holds up the outcome.
    async fn original(&self, settlement: &Settlement) -> QueuedContent {
        let (store, id) = (Arc::clone(&self.store), settlement.mail.id);
        let read = tokio::task::spawn_blocking(move || store.read_queued(id)).await;
        read.unwrap_or(Err(StoreError::Closed)).unwrap_or_else(|error| {
            tracing::error!(%error, %id, "a report goes without the message that it is about");
            QueuedContent::default()
        })
    }

    /// Keeps a message here that was sent on, and that its destination has not taken.
    fn keep(
        &self,
        turn: &Turn,
        keeper: &Keeper,
        settlement: &Settlement,
        snapshot: &Snapshot,
        original: &QueuedContent,
        changes: &mut Changes<'_>,
    ) {
        if let Keeper::Mailbox { entity, address, folder } = keeper
            && !original.content.is_empty()
        {
            let place = KeptIn { entity, address, folder: *folder };
            if let Some(kept) = place.keep(settlement, snapshot, original, &self.store) {
                let trace_id = settlement.mail.trace_id;
                changes.delivered.push(OwnDelivery::kept(trace_id, address, *folder));
                changes.commit.events.push(kept.event);
                let content = original.content.clone();
                changes.commit.blobs.push(Blob { content, mails: vec![kept.mail] });
                return;
            }
        }
        if !self.postmasters.count(&settlement.mail.entry.organization) {
            tracing::warn!(trace_id = %settlement.mail.trace_id,
                "a bounced message is not kept: the postmaster has had enough of them this hour");
            return;
        }
        if let Some(mail) = for_postmaster(settlement, snapshot, original) {
            self.place(turn, mail, settlement, snapshot, changes);
        }
    }

    /// What finds no place is logged; it never holds up the outcome.
    fn place(
        &self,
        turn: &Turn,
        mail: InternalMail,
        settlement: &Settlement,
        snapshot: &Snapshot,
        changes: &mut Changes<'_>,
    ) {
        let Some(organization) = OrganizationId::parse(&settlement.mail.entry.organization) else {
            return;
        };
        let sending = Sending {
            organization: &organization,
            purpose: Purpose::Report,
            about: Authorship::default(),
            about_trace: settlement.mail.trace_id,
        };
        let about = About { snapshot, at: settlement.at, original: &[] };
        let outlets = Outlets { store: &self.store, keys: &self.domain_keys, turn };
        match internal::place(mail, sending, about, outlets) {
            Ok(mut placed) => {
                placed.mails.retain(|mail| {
                    let has_room =
                        room::has_room_for_report(mail, &snapshot.settings, &self.store, |_| true);
                    if !has_room {
                        let trace_id = settlement.mail.trace_id;
                        tracing::warn!(%trace_id, "no room for a report in the queue");
                    }
                    has_room
                });
                if placed.mails.is_empty() {
                    return;
                }
                changes.delivered.extend(OwnDelivery::of(&placed));
                let commit = &mut *changes.commit;
                commit.stories.push(placed.story());
                commit.events.extend(placed.events);
                let content = placed.own.unwrap_or_default();
                commit.blobs.push(Blob { content, mails: placed.mails });
            }
            Err(problem) => {
                tracing::warn!(trace_id = %settlement.mail.trace_id, %problem,
                    "nobody can be told what came of a message");
            }
        }
    }
}

/// Who keeps a message because of this outcome: the first failure of an entry is enough, and what
/// an operator gives up in silence is gone.
fn keeper(settlement: &Settlement) -> Option<&Keeper> {
    let has_failed_before = settlement
        .mail
        .state
        .settled
        .iter()
        .any(|settled| matches!(settled.outcome, SettledOutcome::Bounced(_)));
    let is_first = !settlement.failed.is_empty() && !has_failed_before && settlement.is_told;
    settlement.mail.entry.keeper.as_ref().filter(|_| is_first)
}

/// The mailbox that keeps a message after all.
struct KeptIn<'a> {
    entity: &'a EntityId,
    address: &'a Address,
    folder: Folder,
}

/// A message that a mailbox keeps after all.
struct Kept {
    mail: Mail,
    event: EventLine,
}

impl KeptIn<'_> {
    /// `None` if the mailbox is no more, or full.
    fn keep(
        &self,
        settlement: &Settlement,
        snapshot: &Snapshot,
        original: &QueuedContent,
        store: &Store,
    ) -> Option<Kept> {
        let QueuedMail { trace_id, entry, .. } = &settlement.mail;
        let organization = Arc::clone(&entry.organization);
        let member = snapshot.directory.mailbox_of(&organization, self.entity)?;
        let owner = MailboxOwner { organization, entity: self.entity.clone() };
        let mut prefix = format!("Return-Path: {}\r\n", entry.reverse_path).into_bytes();
        prefix.extend_from_slice(&original.prefix);
        let size = (prefix.len() + original.content.len()) as u64;
        let mailbox = store.mailbox(&owner).inspect_err(|error| {
            tracing::error!(%error, %trace_id, "a bounced message has no mailbox to be kept in");
        });
        let room = mailbox.ok()?.reserve(size, member.quota_bytes)?;
        let event = Event::MailboxDelivered(MailboxDelivered {
            recipient: self.address.to_string(),
            folder: self.folder.to_string(),
        });
        let mail = Mail {
            id: *trace_id,
            received_at: settlement.at,
            prefix,
            suffix: Vec::new(),
            deliveries: vec![Delivery { room, folder: self.folder }],
            queued: Vec::new(),
        };
        let organization_id = entry.organization.to_string();
        let event_timestamp = settlement.at;
        let event = EventLine { trace_id: *trace_id, event, event_timestamp, organization_id };
        Some(Kept { mail, event })
    }
}

/// The whole message with what became of it, for whoever looks after the organization's mail.
fn for_postmaster(
    settlement: &Settlement,
    snapshot: &Snapshot,
    original: &QueuedContent,
) -> Option<InternalMail> {
    let QueuedMail { entry, queued_at, .. } = &settlement.mail;
    let mut organizations = snapshot.directory.organizations();
    let organization = organizations.find(|known| known.id.as_str() == &*entry.organization)?;
    let to = postmasters::address(organization)?;
    let failures = settlement.failed.iter().filter_map(|(place, failure)| {
        Some(failed(recipient(entry, *place)?, failure, Outcome::Failed, settlement))
    });
    let id = TraceId::generate();
    let parts = [original.prefix.as_slice(), &original.content, &original.suffix];
    let report = StatusReport {
        id,
        hostname: &snapshot.settings.hostname,
        at: settlement.at,
        to: &to,
        envid: entry.parameters.envid.as_deref(),
        arrived_at: *queued_at,
        ret: Some(DsnReturn::Full),
        original: Original(&parts),
        recipients: failures.collect(),
    };
    let content = Content::Own(report.compose());
    Some(InternalMail { id, kind: OwnMailKind::Report, to, content })
}

fn recipient(entry: &QueueEntry, place: usize) -> Option<&EnvelopeRecipient> {
    entry.recipients.get(place)
}

/// OUTGOING_EMAIL_SENT and OUTGOING_EMAIL_BOUNCED, for users' messages alone.
fn push_events(events: &mut Vec<EventLine>, settlement: &Settlement) {
    let entry = &settlement.mail.entry;
    if entry.purpose != Purpose::Message {
        return;
    }
    let line = |event| EventLine {
        trace_id: settlement.mail.trace_id,
        event,
        event_timestamp: settlement.at,
        organization_id: entry.organization.to_string(),
    };
    for (place, _) in &settlement.sent {
        let address = recipient(entry, *place).map(|it| &it.address);
        events.extend(address.map(|address| line(sent(address, &entry.authorship))));
    }
    for (place, failure) in &settlement.failed {
        let bounced = recipient(entry, *place).map(|it| BouncedRecipient {
            email_address: it.address.to_string(),
            reason: failure.text.clone(),
            status: failure.enhanced.to_string(),
        });
        events.extend(bounced.map(|it| line(Event::OutgoingBounced(OutgoingBounced::new(it)))));
    }
}

/// Where whoever had the reverse-path of a message is told of it now; `None` if that is nobody any
/// more. Somebody elsewhere is who has the address.
fn told_at<'a>(
    entry: &'a QueueEntry,
    path: &'a Address,
    directory: &'a Directory,
) -> Option<&'a Address> {
    let Some(MailboxOwner { organization, entity }) = &entry.returns_to else { return Some(path) };
    let is_still_theirs = directory
        .entity_of(path)
        .is_some_and(|(whose, found)| *whose.as_str() == **organization && found == entity);
    if is_still_theirs { Some(path) } else { directory.email_of(organization, entity) }
}

/// Who is to be told of what.
struct Telling<'a> {
    /// Each group is one report.
    reports: Vec<Vec<ReportedRecipient>>,
    to: Option<&'a Address>,
    /// A journal record that was not delivered: the report address, and why.
    journal: Option<(&'a Address, &'a Address, String)>,
}

impl<'a> Telling<'a> {
    fn about(settlement: &'a Settlement, directory: &'a Directory) -> Self {
        let entry = &settlement.mail.entry;
        let nobody = Self { reports: Vec::new(), to: None, journal: None };
        match (&entry.purpose, &entry.reverse_path) {
            (Purpose::Message, ReversePath::Address(path)) if settlement.is_told => {
                let reports = reports(settlement).into_iter();
                let reports: Vec<_> = reports.filter(|report| !report.is_empty()).collect();
                let to = told_at(entry, path, directory);
                if to.is_none() && !reports.is_empty() {
                    tracing::warn!(trace_id = %settlement.mail.trace_id, path = %path,
                        "nobody is told what came of a message: who sent it is no more");
                }
                Self { reports: if to.is_some() { reports } else { Vec::new() }, to, journal: None }
            }
            (Purpose::JournalRecord { report_to }, _) => Self {
                journal: settlement.failed.first().and_then(|(place, failure)| {
                    Some((report_to, &recipient(entry, *place)?.address, failure.to_string()))
                }),
                ..nobody
            },
            (Purpose::Report, _) => {
                if let Some((_, failure)) = settlement.failed.first() {
                    tracing::warn!(trace_id = %settlement.mail.trace_id, %failure,
                        "a report could not be delivered");
                }
                nobody
            }
            (Purpose::Message, _) => nobody,
        }
    }

    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.journal.is_none()
    }

    fn compose(
        self,
        settlement: &Settlement,
        snapshot: &Snapshot,
        original: &QueuedContent,
    ) -> Vec<InternalMail> {
        let hostname = snapshot.settings.hostname.as_str();
        let mut mails = Vec::new();
        let parts = [original.prefix.as_slice(), &original.content, &original.suffix];
        for (recipients, to) in self.reports.into_iter().zip(self.to.into_iter().cycle()) {
            let id = TraceId::generate();
            let parameters = &settlement.mail.entry.parameters;
            let report = StatusReport {
                id,
                hostname,
                at: settlement.at,
                to,
                envid: parameters.envid.as_deref(),
                arrived_at: settlement.mail.queued_at,
                ret: parameters.ret,
                original: Original(&parts),
                recipients,
            };
            let content = Content::Own(report.compose());
            let kind = OwnMailKind::Report;
            mails.push(InternalMail { id, kind, to: to.clone(), content });
        }
        if let Some((report_to, journaling_address, problem)) = self.journal {
            let letterhead = Letterhead { hostname, at: settlement.at };
            let Authorship { from, message_id, subject, .. } = &settlement.mail.entry.authorship;
            let mut facts = vec![("Record", settlement.mail.trace_id.to_string())];
            facts.extend(from.as_ref().map(|from| ("From", from.to_string())));
            facts.extend(message_id.clone().map(|id| ("Message-ID", id)));
            facts.extend(subject.clone().map(|subject| ("Subject", subject)));
            mails.push(letterhead.journal_failed(report_to, journaling_address, &problem, &facts));
        }
        mails
    }
}

/// A report on failures, one on delays, one on successes, each of those who want it.
fn reports(settlement: &Settlement) -> [Vec<ReportedRecipient>; 3] {
    let until = settlement.delayed_until;
    let failures = |list: &[(usize, Failure)], outcome: Outcome| {
        let of = |(place, failure): &(usize, Failure)| {
            let recipient = wanting(&settlement.mail.entry, *place, outcome)?;
            Some(failed(recipient, failure, outcome, settlement))
        };
        list.iter().filter_map(of).collect::<Vec<_>>()
    };
    let relayed = settlement.sent.iter().filter(|(_, receipt)| !receipt.dsn_passed_on);
    let relayed = relayed.filter_map(|(place, receipt)| {
        let recipient = wanting(&settlement.mail.entry, *place, Outcome::Relayed)?;
        Some(relayed_to(recipient, receipt, settlement.at))
    });
    [
        failures(&settlement.failed, Outcome::Failed),
        failures(&settlement.delayed, Outcome::Delayed { until }),
        relayed.collect(),
    ]
}

fn wanting(entry: &QueueEntry, place: usize, outcome: Outcome) -> Option<&EnvelopeRecipient> {
    recipient(entry, place).filter(|it| wants(it.parameters.notify, outcome))
}

fn failed(
    recipient: &EnvelopeRecipient,
    failure: &Failure,
    outcome: Outcome,
    settlement: &Settlement,
) -> ReportedRecipient {
    let decided_by = match &settlement.mail.entry.destination {
        _ if settlement.is_given_up => DecidedBy::OurAdministratorInQueue,
        Destination::Gateway(_) => DecidedBy::OurGateway,
        Destination::Domain(_) => DecidedBy::Their,
    };
    ReportedRecipient {
        address: recipient.address.clone(),
        orcpt: recipient.parameters.orcpt.clone(),
        outcome,
        status: failure.enhanced.to_string(),
        diagnostic: Some(match failure.code {
            Some(_) => failure.words(),
            None => failure.text.clone(),
        }),
        remote_mta: failure.code.map(|_| failure.remote.clone()),
        decided_by,
        last_attempt: settlement.at,
    }
}

fn relayed_to(
    recipient: &EnvelopeRecipient,
    receipt: &Receipt,
    at: Timestamp,
) -> ReportedRecipient {
    ReportedRecipient {
        address: recipient.address.clone(),
        orcpt: recipient.parameters.orcpt.clone(),
        outcome: Outcome::Relayed,
        status: receipt.reply.enhanced().map_or("2.0.0".to_owned(), |it| it.to_string()),
        diagnostic: Some(receipt.reply.to_string()),
        remote_mta: Some(receipt.remote.clone()),
        decided_by: DecidedBy::Their,
        last_attempt: at,
    }
}
