//! The path of a message, from MAIL to the 250; a file for each stage. Implements the SMTP room's
//! [`Handler`] and joins all rooms above it.

mod conversation;
mod delivery;
mod facts;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inbound;
mod outbound;
mod record;
#[cfg(test)]
mod way_tests;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use conversation::MailTransaction;
pub use facts::extensions::Extensions;
pub use facts::headers::Headers;
pub use facts::outgoing::OutgoingDisposition;
pub use facts::settings::{BounceLimits, RecipientQuotas, Settings};
pub use facts::signatures::Signatures;
pub use facts::snapshot;
pub use facts::transaction::Transaction;
pub use facts::verdicts::Proof;
pub use inbound::decide::{Basis, Disposition, SpamBasis};
pub use outbound::submission::Submission;
pub use outbound::{attachments, login};
pub use record::commit::Committed;
pub use record::mail_log::TARGET as MAIL_LOG;
pub use record::mail_log_writer::MailLogWriter;
pub use record::own_mail::{OwnMail, OwnMailKind};
pub use record::transport::{TransportOutcome, TransportResult, TransportStory};
pub use record::{outcomes, refusals, story};

use crate::clock::Clock;
use crate::directory::{Directory, ResolveError, Resolved};
use crate::dns::Resolver;
use crate::domains::DomainKeys;
use crate::events::audit::AuditLog;
use crate::heavy::{self, NoWay, Owner, Turn, Weight};
use crate::id::TraceId;
use crate::mail::{Address, EnvelopeRecipient, Login, MailParameters, Peer, ReversePath, Srs};
use crate::msgauth::SignError;
use crate::smtp::handler::{Credentials, Handler, MessageRefusal, Refusal, SessionRefusal};
use crate::smtp::network_of;
use crate::smtp::reason::Reason;
use crate::store::{MailboxOwner, Store, StoreError};
use conversation::{Relayed, TransactionKind};
use delivery::admit::{self, Admitted};
use delivery::{onward, sign};
use facts::begun::Begun;
use facts::headers;
use facts::rejection::Rejection;
use facts::snapshot::Snapshot;
use facts::transaction::{FullRecipient, reason_of};
use inbound::authenticate::{Authenticated, Checks};
use inbound::decide;
use login::Logins;
use outbound::{dispatch, submission};
use record::audit::{self, Accesses, NoRoom};
use record::bounces::Bounces;
use record::commit::{self, Change};
use record::internal::Outlets;
use record::mail_log::MailLog;
use record::postmasters::Postmasters;
use record::{claim, journal};
use refusals::RefusalLog;

/// The path of a message, with all it needs.
pub struct Pipeline {
    snapshot: Arc<ArcSwap<Snapshot>>,
    checks: ArcSwap<Checks>,
    store: Arc<Store>,
    logins: Logins,
    audit: Arc<AuditLog>,
    domain_keys: Arc<DomainKeys>,
    refusals: RefusalLog,
    mail_log: Arc<MailLogWriter>,
    /// Of what was forwarded.
    bounces: Bounces,
    /// Reports that client networks have caused.
    reports: Bounces,
    /// What nobody may be told of but a postmaster.
    postmasters: Postmasters,
    clock: Arc<dyn Clock>,
}

/// What the path leads through, beside what a reload changes.
pub struct Parts {
    /// Where mail lasts.
    pub store: Arc<Store>,
    /// Who may log in.
    pub logins: Logins,
    /// Where it is told who used what.
    pub audit: Arc<AuditLog>,
    /// What outgoing mail is signed with.
    pub domain_keys: Arc<DomainKeys>,
    /// Where refusals are told.
    pub refusals: RefusalLog,
    /// Where the log tells of accepted mail.
    pub mail_log: Arc<MailLogWriter>,
}

/// What is left to be done for a message.
struct Ready {
    change: Change,
    /// To be told when it is durable.
    accesses: Accesses,
    log: Option<MailLog>,
}

impl Pipeline {
    /// A pipeline over a snapshot that others may watch.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        resolver: Arc<dyn Resolver>,
        msgauth: crate::msgauth::Settings,
        parts: Parts,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Parts { store, logins, audit, domain_keys, refusals, mail_log } = parts;
        Self {
            snapshot,
            checks: ArcSwap::from_pointee(Checks::new(resolver, msgauth)),
            store,
            logins,
            audit,
            domain_keys,
            refusals,
            mail_log,
            bounces: Bounces::default(),
            reports: Bounces::default(),
            postmasters: Postmasters::default(),
            clock,
        }
    }

    /// Takes a new snapshot, and new checks, for messages that begin from now on.
    pub fn reload(
        &self,
        snapshot: Snapshot,
        resolver: Arc<dyn Resolver>,
        msgauth: crate::msgauth::Settings,
    ) {
        self.checks.store(Arc::new(Checks::new(resolver, msgauth)));
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Forgets a user's failed logins; whether some network was kept from trying.
    pub fn lift_throttle(&self, user: &MailboxOwner) -> bool {
        self.logins.lift_throttle(user)
    }

    /// What people call the owner of a mailbox.
    pub fn called(&self, owner: &MailboxOwner) -> String {
        self.store.register().describe(owner)
    }

    /// The users whom some network is kept from, for having failed to log in too often.
    pub fn throttled(&self) -> Vec<MailboxOwner> {
        self.logins.throttled(&self.snapshot.load().directory)
    }

    /// Opens the audit logs again that somebody has moved away.
    pub fn reopen_logs(&self) {
        self.audit.reopen();
    }

    /// The snapshot that the next message begins with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The whole path: what arrived is inspected, judged, decided on, given room, journaled and
    /// made durable. Only then is it accepted.
    async fn accept(&self, relayed: Relayed, content: Vec<u8>) -> Result<Committed, Rejection> {
        let Relayed { transaction, checks } = relayed;
        let weight = Weight::of(&content).owned_by(owner_at(transaction.peer()));
        let settings = &transaction.snapshot().settings;
        let inspect = |turn: &Turn| headers::inspect(turn, &content, settings);
        let headers = heavy::permit_for(weight).await.run(inspect)?;
        check_authors(&headers, &transaction.snapshot().directory)?;
        let now = self.clock.now();
        let authenticated = checks.authenticate(transaction, content, headers, weight, now).await;
        authenticated.check_organization()?;
        self.carry_through(authenticated, weight).await
    }

    /// The path of a message that a user submits: completed, its author's right checked, and decided
    /// for each recipient. From there recipients here are on the path of all mail.
    async fn submit(
        &self,
        submission: Submission,
        content: Vec<u8>,
    ) -> Result<Committed, Rejection> {
        let weight = Weight::of(&content).owned_by(owner_at(submission.peer()));
        let parts = Weight::of_parts(&content);
        let compose =
            |turn: &Turn| submission::compose(turn, submission, content, self.clock.now());
        let composed = heavy::in_turn(weight.and(parts), compose).await?;
        let weight = weight.and(Weight::of_deliveries(composed.submission().expanded()));
        let dispatch = |turn: &Turn| dispatch::dispatch(turn, composed, &self.store);
        let dispatched = heavy::in_turn(weight, dispatch).await;
        self.carry_through(Authenticated::submitted(dispatched), weight).await
    }

    /// The second half of the path, which is the same for all mail.
    async fn carry_through(
        &self,
        authenticated: Authenticated,
        weight: Weight,
    ) -> Result<Committed, Rejection> {
        let expanded = authenticated.expanded();
        let weight = weight.and(Weight::of_deliveries(expanded));
        // What follows needs memory for each mailbox, until all is durable.
        let mut way = heavy::way_to(expanded).await?;
        let permit = heavy::permit_for(weight).await;
        let admit = |turn: &Turn| admit::admit(turn, decide::decide(authenticated), &self.store);
        let admitted = permit.run(admit).map_err(store_failure)?;
        let weight = weight.and(Weight::of_deliveries(admitted.deliveries()));
        // Mailboxes may have sent it on to many.
        if !way.is_taken() {
            way = heavy::way_to(admitted.deliveries()).await?;
        }
        if let Some(reason) = admitted.deferral() {
            self.audit.record_all(audit::without_room(&admitted));
            return Err(reason.into());
        }
        if let Some(rejection) = admitted.refusal() {
            let accesses = audit::without_room(&admitted);
            let refusal = commit::commit_refusal(admitted, &rejection, &self.store, weight.owner());
            Box::pin(refusal).await.map_err(store_failure)?;
            self.audit.record_all(accesses);
            return Err(rejection);
        }
        let mut without_room = Vec::new();
        if admitted.is_partly_unheard() {
            without_room = audit::without_room(&admitted);
        }
        let permit = heavy::permit_for(weight).await;
        let ready = permit.run(|turn| self.make_ready(turn, admitted));
        let Ready { change, accesses, log } = ready.inspect_err(|_| {
            self.audit.record_all(without_room);
        })?;
        let committed = change.commit(&self.store, weight.owner()).await.map_err(store_failure)?;
        let tell_accesses = || accesses.tell(&committed, &self.audit);
        tell(log, tell_accesses, &self.mail_log, weight).await;
        drop(way);
        Ok(committed)
    }

    /// Signs what leaves, adds the journal record, claims room in the queue, and finds out what is
    /// to be told of it then.
    fn make_ready(&self, turn: &Turn, admitted: Admitted) -> Result<Ready, Reason> {
        let signed = sign::sign(turn, admitted, &self.domain_keys).map_err(unsigned)?;
        let outlets = Outlets { store: &self.store, keys: &self.domain_keys, turn };
        let journaled = journal::journal(signed, outlets, &self.postmasters)?;
        let claimed = claim::claim(journaled, &self.store, &self.reports)?;
        let accesses = audit::audit(&claimed);
        let log = MailLog::of(&claimed);
        Ok(Ready { change: Change::of(claimed), accesses, log })
    }

    /// Refuses a recipient whose mailbox has no room for what the client declared. A mailbox that
    /// fills up between now and the end of the message is caught by the admission stage.
    fn check_room(
        &self,
        transaction: &mut Transaction,
        resolved: &Resolved,
        recipient: &EnvelopeRecipient,
    ) -> Result<(), Reason> {
        let ([member], []) = (&*resolved.members, &*resolved.remote) else {
            return Ok(());
        };
        let owner = MailboxOwner {
            organization: resolved.organization.id.as_str().into(),
            entity: member.id.clone(),
        };
        let mailbox = self.store.mailbox(&owner).map_err(store_failure)?;
        let size = transaction.parameters().declared_size.unwrap_or(0).max(1);
        if mailbox.used_bytes().saturating_add(size) <= member.quota_bytes {
            return Ok(());
        }
        let now = self.clock.now();
        let trace_id = transaction.trace_id_for(&resolved.organization);
        let refused = NoRoom::new(trace_id, owner.organization, owner.entity);
        self.audit.record(refused.access(transaction.peer(), now));
        let grace = transaction.snapshot().settings.mailbox_full_grace;
        if now < mailbox.full_since(now).plus(grace) {
            return Err(Reason::MailboxFullGrace);
        }
        let full = FullRecipient { address: recipient.address.clone(), id: member.id.clone() };
        transaction.refuse_full(resolved, full);
        Err(Reason::MailboxFull)
    }

    async fn admit_recipient(
        &self,
        transaction: &mut Transaction,
        recipient: EnvelopeRecipient,
    ) -> Result<(), Reason> {
        transaction.check_open()?;
        let snapshot = Arc::clone(transaction.snapshot());
        let resolved = match snapshot.resolve(&recipient.address) {
            Err(ResolveError::Unknown) if *transaction.reverse_path() == ReversePath::Null => {
                self.bounced_forward(&snapshot, transaction.peer(), &recipient.address).await?
            }
            resolved => resolved.map_err(|error| reason_of(&error))?,
        };
        transaction.check_expansion(&resolved)?;
        self.check_room(transaction, &resolved, &recipient)?;
        transaction.add(recipient, resolved);
        Ok(())
    }

    /// Where a bounce of what was forwarded belongs. There may be so many of them: whoever has one
    /// such address could otherwise write to its sender through us without end.
    async fn bounced_forward(
        &self,
        snapshot: &Arc<Snapshot>,
        peer: &Peer,
        address: &Address,
    ) -> Result<Resolved, Reason> {
        if !Srs::is_rewritten(address) {
            return Err(reason_of(&ResolveError::Unknown));
        }
        let (snapshot, store) = (Arc::clone(snapshot), Arc::clone(&self.store));
        let (settings, now, ip) = (snapshot.settings.bounces, self.clock.now(), peer.ip);
        // Asked first, because to look a sender up may mean to read the log.
        if !self.bounces.has_room(ip, settings) {
            return Err(Reason::TooManyBounces);
        }
        let address = address.clone();
        let found = tokio::task::spawn_blocking(move || {
            onward::first_sender(&snapshot.directory, &address, &store, now)
        });
        let found = found.await.unwrap_or(Err(StoreError::Closed)).map_err(store_failure)?;
        let resolved = found.ok_or_else(|| reason_of(&ResolveError::Unknown))?;
        for remote in resolved.remote.iter() {
            if !self.bounces.count(ip, &remote.forward_to, settings) {
                return Err(Reason::TooManyBounces);
            }
        }
        Ok(resolved)
    }
}

/// Tells of a message that is durable.
async fn tell(
    log: Option<MailLog>,
    tell_accesses: impl FnOnce(),
    mail_log: &MailLogWriter,
    weight: Weight,
) {
    match log {
        Some(log) if log.is_long() => {
            heavy::in_turn(weight, |_: &Turn| mail_log.write(&log)).await;
        }
        Some(log) => mail_log.add(log),
        None => {}
    }
    // Not in a turn: this takes as long as the disk of the audit logs hangs.
    tell_accesses();
}

/// Whether a message of another server says who wrote it, and is from nobody whose address is ours
/// alone.
fn check_authors(headers: &Headers, directory: &Directory) -> Result<(), Reason> {
    if headers.authors().is_empty() {
        return Err(Reason::NoAuthor);
    }
    let mut named = headers.authors().iter().chain(headers.sender());
    if named.any(|it| directory.is_reserved(it))
        || headers.unread_sender().is_some_and(|it| directory.names_reserved(it))
    {
        return Err(Reason::ReservedAddress);
    }
    Ok(())
}

impl Pipeline {
    /// A refusal, and its record.
    fn refuse(&self, reason: Reason, trace_id: TraceId, peer: &Peer, about: &str) -> Refusal {
        let refusal = Refusal { reason, trace_id };
        self.refused(SessionRefusal { refusal, peer, about });
        refusal
    }
}

impl From<NoWay> for Rejection {
    fn from(_: NoWay) -> Self {
        Reason::Overloaded.into()
    }
}

/// For whom heavy work on a client's message is done.
fn owner_at(peer: &Peer) -> Owner {
    Owner::Network(network_of(peer.ip))
}

/// Why a message is refused that cannot be signed.
fn unsigned(error: SignError) -> Reason {
    if let SignError::TooManyFields = error {
        return Reason::TooManyFields;
    }
    tracing::error!(%error, "a message cannot be signed");
    Reason::InternalError
}

fn store_failure(error: StoreError) -> Reason {
    tracing::error!(%error, "the store refuses a message");
    Reason::StoreFailure
}

impl Handler for Pipeline {
    type Transaction = MailTransaction;
    type Accepted = Committed;

    async fn connect(&self, ip: IpAddr) -> Result<(), Reason> {
        let snapshot = self.snapshot.load();
        let settings = &snapshot.settings;
        let allowed =
            settings.allow.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&ip)));
        let denied = settings.deny.iter().any(|net| net.contains(&ip));
        if allowed && !denied { Ok(()) } else { Err(Reason::NetworkDenied) }
    }

    async fn authenticate(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        credentials: Credentials,
    ) -> Result<Login, Refusal> {
        let snapshot = self.snapshot.load_full();
        let login = self.logins.authenticate(&snapshot, trace_id, peer, credentials).await;
        login.map_err(|denied| self.refuse(denied.reason, trace_id, peer, &denied.about))
    }

    fn login_throttled(&self, trace_id: TraceId, peer: &Peer, user_name: &str) {
        self.logins.not_asked(&self.snapshot.load(), trace_id, peer, user_name);
    }

    async fn mail(
        &self,
        trace_id: TraceId,
        peer: &Peer,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<MailTransaction, Refusal> {
        let snapshot = self.snapshot.load_full();
        if !self.store.has_room_on_disk(parameters.declared_size.unwrap_or(0)) {
            let about = format!("MAIL FROM:{reverse_path}");
            return Err(self.refuse(Reason::DiskLow, trace_id, peer, &about));
        }
        let coming = self.store.expect_commit();
        let Some(login) = &peer.login else {
            if reverse_path.address().is_some_and(|path| snapshot.directory.is_reserved(path)) {
                let about = format!("MAIL FROM:{reverse_path}");
                return Err(self.refuse(Reason::ReservedAddress, trace_id, peer, &about));
            }
            let checks = self.checks.load_full();
            let begun = Begun { trace_id, snapshot, peer: peer.clone(), reverse_path, parameters };
            let transaction = Transaction::begin(begun);
            let kind = TransactionKind::Relayed(Relayed { transaction, checks });
            return Ok(MailTransaction { kind, coming });
        };
        let about = format!("MAIL FROM:{reverse_path} by user {}", login.user);
        let begun = Begun { trace_id, snapshot, peer: peer.clone(), reverse_path, parameters };
        Submission::begin(begun, login)
            .map(|submission| MailTransaction {
                kind: TransactionKind::Submitted(submission),
                coming,
            })
            .map_err(|reason| {
                self.audit.record(audit::denied(trace_id, peer, login, self.clock.now()));
                self.refuse(reason, trace_id, peer, &about)
            })
    }

    async fn rcpt(
        &self,
        transaction: &mut MailTransaction,
        recipient: EnvelopeRecipient,
    ) -> Result<(), Refusal> {
        let address = recipient.address.clone();
        let added = match &mut transaction.kind {
            TransactionKind::Relayed(relayed) => {
                self.admit_recipient(&mut relayed.transaction, recipient).await
            }
            TransactionKind::Submitted(submitted) => submitted.add(recipient),
        };
        added.map_err(|reason| {
            let about = format!("RCPT TO:<{address}> from {}", transaction.reverse_path());
            self.refuse(reason, transaction.trace_id(), transaction.peer(), &about)
        })
    }

    async fn message(
        &self,
        transaction: MailTransaction,
        content: Vec<u8>,
    ) -> Result<Committed, MessageRefusal> {
        let (trace_id, peer) = (transaction.trace_id(), transaction.peer().clone());
        let about = format!("message from {}", transaction.reverse_path());
        let room = self.store.room_on_disk(content.len() as u64);
        let MailTransaction { kind, coming } = transaction;
        let accepted = match (&room, kind) {
            (None, _) => Err(Reason::DiskLow.into()),
            (Some(_), TransactionKind::Relayed(relayed)) => self.accept(relayed, content).await,
            (Some(_), TransactionKind::Submitted(submitted)) => {
                self.submit(submitted, content).await
            }
        };
        drop(room);
        drop(coming);
        accepted.map_err(|Rejection { reason, place }| {
            if let Some(login) = &peer.login {
                self.audit.record(audit::denied(trace_id, &peer, login, self.clock.now()));
            }
            let about = match &place {
                Some(place) => format!("{about}: {place}"),
                None => about,
            };
            let refusal = self.refuse(reason, trace_id, &peer, &about);
            MessageRefusal { refusal, place }
        })
    }

    async fn abandon(&self, transaction: MailTransaction) {
        let TransactionKind::Relayed(Relayed { transaction, .. }) = transaction.kind else {
            return;
        };
        if transaction.full().is_empty() {
            return;
        }
        let now = self.clock.now();
        if let Err(error) = commit::commit_full(transaction.full(), now, &self.store).await {
            tracing::error!(%error, trace_id = %transaction.trace_id(), "bounces are not recorded");
        }
    }

    fn refused(&self, refusal: SessionRefusal<'_>) {
        self.refusals.record(&refusal, self.clock.now());
    }
}

#[cfg(test)]
mod tests;
