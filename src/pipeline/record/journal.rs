//! Stage: the journal record of each organization that keeps one stands beside the message, and
//! so do the other messages that its handling makes.

use std::collections::{HashMap, HashSet};

use crate::clock::Timestamp;
use crate::directory::{Member, Organization, OrganizationId};
use crate::id::{EntityId, TraceId};
use crate::journal::{JournaledRecipient, Named, Record, Settings, Wrapping};
use crate::mail::{Address, Addressees, DsnReturn, EnvelopeRecipient, ReversePath, body_offset};
use crate::pipeline::delivery::admit::{Admitted, AdmittedShare};
use crate::pipeline::delivery::sign::Signed;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition, authorship};
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::inbound::decide::Disposition;
use crate::pipeline::record::internal::{
    self, About, Content, InternalMail, Outlets, Placed, Sending,
};
use crate::pipeline::record::notice::Letterhead;
use crate::pipeline::record::own_mail::OwnMailKind;
use crate::pipeline::record::postmasters::{self, Postmasters};
use crate::pipeline::record::report::{
    DecidedBy, Original, Outcome, ReportedRecipient, StatusReport, wants,
};
use crate::pipeline::record::room;
use crate::smtp::reason::Reason;
use crate::store::{Authorship, Purpose, QueueHold};

/// A message with everything that goes beside it. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Journaled {
    signed: Signed,
    records: Records,
    /// Journal records, notices, DSNs.
    beside: Vec<Placed>,
    /// The queue's room for the records.
    journal_room: Option<QueueHold>,
}

impl Journaled {
    pub(in crate::pipeline) fn into_parts(
        self,
    ) -> (Signed, Records, Vec<Placed>, Option<QueueHold>) {
        (self.signed, self.records, self.beside, self.journal_room)
    }
}

/// What became of all journal records of a message.
#[derive(Debug)]
pub(in crate::pipeline) struct Records {
    of_shares: Vec<Option<Initiated>>,
    of_outgoing: Option<Initiated>,
}

impl Records {
    /// Each share's, in the shares' order.
    pub(in crate::pipeline) fn of_shares(&self) -> &[Option<Initiated>] {
        &self.of_shares
    }

    /// That of a submitted message.
    pub(in crate::pipeline) fn of_outgoing(&self) -> Option<&Initiated> {
        self.of_outgoing.as_ref()
    }
}

/// What became of a message's journal record.
#[derive(Debug)]
pub(in crate::pipeline) enum Initiated {
    /// It goes there.
    To(Address),
    /// There is none, and the report address is told why.
    Not(String),
}

impl Initiated {
    /// Where it goes.
    pub(in crate::pipeline) fn to(&self) -> Option<&Address> {
        match self {
            Self::To(address) => Some(address),
            Self::Not(_) => None,
        }
    }

    /// Why there is none.
    pub(in crate::pipeline) fn problem(&self) -> Option<&str> {
        match self {
            Self::To(_) => None,
            Self::Not(problem) => Some(problem),
        }
    }
}

/// Composes and places what goes beside an accepted message. What finds no place is logged and
/// told to the report address; it holds up the message only where nobody else would hear of it.
///
/// # Errors
/// A mailbox is full, nobody may be told, and the postmaster has no room for it either.
pub(in crate::pipeline) fn journal(
    signed: Signed,
    outlets: Outlets<'_>,
    postmasters: &Postmasters,
) -> Result<Journaled, Reason> {
    let admitted = signed.admitted();
    let mail = admitted.mail();
    let mut beside = Beside { mail, outlets, placed: Vec::new(), journal_room: None };
    let of_shares = admitted.shares().iter().map(|share| beside.record_of(share, admitted));
    let of_shares = of_shares.collect();
    let of_outgoing = match mail.road() {
        Road::Received(_) => None,
        Road::Submitted(outgoing) => beside.record_of_outgoing(outgoing, admitted),
    };
    for share in admitted.shares() {
        beside.warn_users(share);
    }
    beside.bounce(admitted.shares(), postmasters)?;
    beside.confirm(admitted.shares());
    for share in admitted.shares().iter().filter(|share| !share.unheard().is_empty()) {
        let decided = share.decided();
        let about = (&**decided.organization(), decided.trace_id());
        let unheard = share.unheard().iter();
        let at = mail.received_at();
        let unheard = unheard.map(|it| failed(it.address(), None, it.reason(), at)).collect();
        beside.tell_postmaster(about, unheard, postmasters)?;
    }
    let Beside { placed, journal_room, .. } = beside;
    let records = Records { of_shares, of_outgoing };
    Ok(Journaled { signed, records, beside: placed, journal_room })
}

struct Beside<'a> {
    mail: &'a Judged,
    outlets: Outlets<'a>,
    placed: Vec<Placed>,
    journal_room: Option<QueueHold>,
}

impl<'a> Beside<'a> {
    fn letterhead(&self) -> Letterhead<'a> {
        let hostname = &self.mail.snapshot().settings.hostname;
        Letterhead { hostname, at: self.mail.received_at() }
    }

    /// Places mail of our own about the message that this trace tells of.
    fn place(
        &mut self,
        mail: InternalMail,
        organization: &OrganizationId,
        about_trace: TraceId,
        purpose: Purpose,
    ) -> Result<(), internal::Unplaced> {
        let is_record = matches!(purpose, Purpose::JournalRecord { .. });
        let about = match is_record {
            true => authorship(self.mail.headers()),
            false => Authorship::default(),
        };
        let sending = Sending { organization, purpose, about, about_trace };
        let placed = internal::place(mail, sending, About::message(self.mail), self.outlets)?;
        // Reports have theirs when it is known whether the message is accepted.
        for record in placed.mails.iter().filter(|_| is_record) {
            let content = self.mail.content().len();
            let settings = &self.mail.snapshot().settings;
            let room = room::claim_for_record(record, content, settings, self.outlets.store)?;
            self.journal_room = room::both(self.journal_room.take(), room);
        }
        self.placed.push(placed);
        Ok(())
    }

    /// One record for a message that is for a user of an organization, however many it is for and
    /// on whatever ways, also if a rule discards it (guide 7280, 7306): with the organization's
    /// first share. A message from a user of the same organization has its record as an outgoing one.
    fn record_of(&mut self, share: &AdmittedShare, admitted: &Admitted) -> Option<Initiated> {
        let id = &share.decided().organization().id;
        let settings = self.settings_of(id)?;
        let is_authors = match self.mail.road() {
            Road::Received(_) => false,
            Road::Submitted(outgoing) => outgoing.organization.id == *id,
        };
        let mut shares =
            admitted.shares().iter().filter(|share| share.decided().organization().id == *id);
        let is_it = |it: &AdmittedShare| it.decided().trace_id() == share.decided().trace_id();
        if is_authors || !shares.next().is_some_and(is_it) {
            return None;
        }
        let received = |address: &Address, group: Option<&Address>| {
            JournaledRecipient::received(address.clone(), group.cloned())
        };
        let mut recipients = Recipients::default();
        for share in std::iter::once(share).chain(shares) {
            recipients.add_users(share, received);
        }
        recipients.add_onward(id, admitted);
        self.record(settings, id, share.decided().trace_id(), recipients)
    }

    /// One record for a message that a user sends, whoever gets it, also if a rule discards it; none
    /// if it bounces for all.
    fn record_of_outgoing(
        &mut self,
        outgoing: &Outgoing,
        admitted: &Admitted,
    ) -> Option<Initiated> {
        let settings = self.settings_of(&outgoing.organization.id)?;
        let content = self.mail.content();
        let section = content.get(..body_offset(content)).unwrap_or_default();
        let named = Named::by(&Addressees::of(section));
        let submitted = |address: &Address, group: Option<&Address>| {
            JournaledRecipient::submitted(&named, address.clone(), group.cloned())
        };
        let own = |organization: &Organization| organization.id == outgoing.organization.id;
        let mut recipients = Recipients::default();
        for share in admitted.shares().iter().filter(|share| own(share.decided().organization())) {
            recipients.add_users(share, submitted);
        }
        // Of another organization's groups and forwards nobody here learns.
        for share in admitted.shares().iter().filter(|share| !own(share.decided().organization())) {
            came_for(share).for_each(|to| recipients.add(submitted(&to.address, None)));
        }
        recipients.add_onward(&outgoing.organization.id, admitted);
        for recipient in &outgoing.recipients {
            match recipient.disposition {
                OutgoingDisposition::Queue(_) | OutgoingDisposition::Drop => {
                    recipients.add(submitted(&recipient.recipient.address, None));
                }
                OutgoingDisposition::Here | OutgoingDisposition::Bounce(_) => {}
            }
        }
        self.record(settings, &outgoing.organization.id, outgoing.trace_id, recipients)
    }

    fn settings_of(&self, organization: &OrganizationId) -> Option<&'a Settings> {
        self.mail.snapshot().policies.get(organization)?.journaling.as_ref()
    }

    fn record(
        &mut self,
        settings: &Settings,
        organization: &OrganizationId,
        trace_id: TraceId,
        recipients: Recipients,
    ) -> Option<Initiated> {
        if recipients.lines.is_empty() {
            return None;
        }
        let id = TraceId::generate();
        let content = Content::Around(self.compose(id, settings, recipients.lines));
        let to = settings.journaling_address.clone();
        let kind = OwnMailKind::JournalRecord;
        let record = InternalMail { id, kind, to: to.clone(), content };
        let purpose = Purpose::JournalRecord { report_to: settings.report_address.clone() };
        if let Err(problem) = self.place(record, organization, trace_id, purpose) {
            tracing::warn!(%trace_id, %problem, "no journal record");
            let problem = problem.to_string();
            self.report_failure(settings, organization, trace_id, &problem);
            return Some(Initiated::Not(problem));
        }
        Some(Initiated::To(to))
    }

    fn compose(
        &self,
        id: TraceId,
        settings: &Settings,
        recipients: Vec<JournaledRecipient>,
    ) -> Wrapping {
        let headers = self.mail.headers();
        let mut wrapping = Record {
            id,
            at: self.mail.received_at(),
            hostname: &self.mail.snapshot().settings.hostname,
            settings,
            reverse_path: self.mail.reverse_path(),
            header_from: headers.from(),
            header_sender: headers.on_behalf_sender(),
            subject: headers.subject(),
            message_id: headers.message_id(),
            recipients,
        }
        .compose();
        wrapping.before.extend_from_slice(self.mail.road().added());
        wrapping
    }

    fn report_failure(
        &mut self,
        settings: &Settings,
        organization: &OrganizationId,
        trace_id: TraceId,
        problem: &str,
    ) {
        let headers = self.mail.headers();
        let mut facts = vec![
            ("Trace", trace_id.to_string()),
            ("Envelope sender", self.mail.reverse_path().to_string()),
        ];
        facts.extend(headers.message_id().map(|id| ("Message-ID", id.to_owned())));
        facts.extend(headers.subject().map(|subject| ("Subject", subject.to_owned())));
        let notice = self.letterhead().journal_failed(
            &settings.report_address,
            &settings.journaling_address,
            problem,
            &facts,
        );
        if let Err(problem) = self.place(notice, organization, trace_id, Purpose::Report) {
            tracing::error!(%trace_id, %problem,
                "the journaling failure cannot be reported");
        }
    }

    fn warn_users(&mut self, share: &AdmittedShare) {
        for delivery in share.deliveries().iter().filter(|delivery| delivery.warns()) {
            let member = delivery.member();
            let used = delivery.room().mailbox().used_bytes();
            let notice = self.letterhead().nearly_full(&member.address, used, member.quota_bytes);
            let organization = &share.decided().organization().id;
            let about = share.decided().trace_id();
            if let Err(problem) = self.place(notice, organization, about, Purpose::Report) {
                tracing::warn!(%problem, "the user cannot be warned of a nearly full mailbox");
            }
        }
    }

    /// Tells the sender of the recipients that bounced; the postmaster, where the sender is somebody
    /// here whose own mailbox is full.
    fn bounce(
        &mut self,
        shares: &[AdmittedShare],
        postmasters: &Postmasters,
    ) -> Result<(), Reason> {
        let at = self.mail.received_at();
        let mut recipients: Vec<_> =
            shares.iter().flat_map(|share| failed_recipients(share, at)).collect();
        if let Road::Submitted(outgoing) = self.mail.road() {
            let wanting =
                outgoing.bounced().filter(|(it, _)| wants(it.parameters.notify, Outcome::Failed));
            let bounced = wanting.map(|(it, reason)| failed(&it.address, Some(it), reason, at));
            recipients.extend(bounced);
        }
        let Some(about) = self.reported_by(shares).filter(|_| !recipients.is_empty()) else {
            return Ok(());
        };
        if self.report(recipients.clone(), about) {
            return Ok(());
        }
        self.tell_postmaster(about, recipients, postmasters)
    }

    /// Gives the postmaster what somebody does not get of whom nobody else is told: as Internet
    /// mail does with what bounces and may not be reported. Where the postmaster has no room either,
    /// the client keeps the message and comes again.
    fn tell_postmaster(
        &mut self,
        (organization, about): (&Organization, TraceId),
        recipients: Vec<ReportedRecipient>,
        postmasters: &Postmasters,
    ) -> Result<(), Reason> {
        let to = postmasters::address(organization).ok_or(Reason::MailboxFullGrace)?;
        if !postmasters.count(organization.id.as_str()) {
            return Err(Reason::MailboxFullGrace);
        }
        let at = self.mail.received_at();
        let id = TraceId::generate();
        let report = StatusReport {
            id,
            hostname: &self.mail.snapshot().settings.hostname,
            at,
            to: &to,
            envid: self.mail.parameters().envid.as_deref(),
            arrived_at: at,
            ret: Some(DsnReturn::Full),
            original: Original(&[self.mail.content()]),
            recipients,
        };
        let content = Content::Own(report.compose());
        let mail = InternalMail { id, kind: OwnMailKind::Report, to, content };
        self.place(mail, &organization.id, about, Purpose::Report).map_err(|problem| {
            tracing::warn!(trace_id = %about, %problem,
                "a message is deferred: nobody may be told of a full mailbox but the postmaster");
            Reason::MailboxFullGrace
        })?;
        if let Some(placed) = self.placed.last_mut() {
            placed.is_needed = true;
        }
        Ok(())
    }

    /// Tells the sender who asked for it whom the message has reached here (RFC 3461 §5.2.3, §5.2.7),
    /// if that is known to be the sender: anybody can ask.
    fn confirm(&mut self, shares: &[AdmittedShare]) {
        let at = self.mail.received_at();
        if self.mail.is_sender_proven() {
            let reached = shares.iter().flat_map(|share| reached_recipients(share, at));
            let reached: Vec<_> = reached.collect();
            if let Some(about) = self.reported_by(shares).filter(|_| !reached.is_empty()) {
                self.report(reached, about);
            }
        }
    }

    /// By whom the sender is told, and of which trace.
    fn reported_by<'b>(&self, shares: &'b [AdmittedShare]) -> Option<(&'b Organization, TraceId)>
    where
        'a: 'b,
    {
        if let Road::Submitted(outgoing) = self.mail.road() {
            return Some((&*outgoing.organization, outgoing.trace_id));
        }
        let first = shares.first()?.decided();
        Some((&**first.organization(), first.trace_id()))
    }

    /// Reports to the sender, once for all these recipients; never to a null reverse-path (RFC 5321
    /// §6.1), nor to an author who may be forged. False if the report finds no place.
    fn report(
        &mut self,
        recipients: Vec<ReportedRecipient>,
        (organization, about): (&Organization, TraceId),
    ) -> bool {
        let ReversePath::Address(to) = self.mail.reverse_path() else { return true };
        if !self.mail.may_tell_sender() {
            return true;
        }
        let at = self.mail.received_at();
        let id = TraceId::generate();
        let report = StatusReport {
            id,
            hostname: &self.mail.snapshot().settings.hostname,
            at,
            to,
            envid: self.mail.parameters().envid.as_deref(),
            arrived_at: at,
            ret: self.mail.parameters().ret.filter(|_| self.mail.is_sender_proven()),
            original: Original(&[self.mail.content()]),
            recipients,
        };
        let organization = &organization.id;
        let content = Content::Own(report.compose());
        let bounce = InternalMail { id, kind: OwnMailKind::Report, to: to.clone(), content };
        let placed = self.place(bounce, organization, about, Purpose::Report);
        if let Err(problem) = &placed {
            tracing::warn!(trace_id = %self.mail.trace_id(), %problem, "the sender cannot be told");
        }
        placed.is_ok()
    }
}

/// The recipient lines of a record, each once.
#[derive(Default)]
struct Recipients {
    lines: Vec<JournaledRecipient>,
    known: HashSet<JournaledRecipient>,
}

impl Recipients {
    fn add(&mut self, recipient: JournaledRecipient) {
        if self.known.insert(recipient.clone()) {
            self.lines.push(recipient);
        }
    }

    /// Those outside an organization to whom its mailboxes and remote users send the message on: on
    /// other servers, and in other organizations here.
    fn add_onward(&mut self, organization: &OrganizationId, admitted: &Admitted) {
        let leaving = admitted.leaving().iter().filter(|it| it.organization.id == *organization);
        leaving.flat_map(sent_on).for_each(|to| self.add(to));
        let own = |share: &&AdmittedShare| share.decided().organization().id == *organization;
        let told = admitted.shares().iter().filter(own).flat_map(AdmittedShare::sent_on);
        let traces: HashSet<TraceId> = told.map(|onward| onward.trace_id).collect();
        if traces.is_empty() {
            return;
        }
        for share in admitted.shares().iter().filter(|share| !own(share)) {
            let forwarder = share.decided().forwarders().first();
            let forwarder = forwarder.filter(|_| traces.contains(&share.decided().trace_id()));
            let Some(forwarder) = forwarder else { continue };
            for to in taken(share) {
                let to = to.address.clone();
                self.add(JournaledRecipient::forwarded(to, forwarder.clone()));
            }
        }
    }

    /// The users of a share, on every way that leads to them: those whose mailbox it has reached, and
    /// those for whom a rule, of the organization or of their own, discards it. Whoever has it by a
    /// mailbox rule is told so, others as `otherwise` says.
    fn add_users(
        &mut self,
        share: &AdmittedShare,
        otherwise: impl Fn(&Address, Option<&Address>) -> JournaledRecipient,
    ) {
        let forwarder = share.decided().forwarders().first();
        let mut line = |address: &Address, group: Option<&Address>| {
            self.add(match forwarder {
                Some(forwarder) => {
                    JournaledRecipient::forwarded(address.clone(), forwarder.clone())
                }
                None => otherwise(address, group),
            });
        };
        let delivered: HashSet<&EntityId> =
            share.deliveries().iter().map(|delivery| &delivery.member().id).collect();
        let deleted: HashSet<&Address> = share.deleted().collect();
        for (recipient, becomes) in share.recipients() {
            let is_dropped = match becomes {
                Disposition::Deliver(_) | Disposition::ReachedAnyway => false,
                Disposition::Drop => true,
                Disposition::Bounce(_) => continue,
            };
            let Addressee { members, remote, expanded_from, .. } = recipient.addressee();
            for member in members.iter() {
                let has_it = delivered.contains(&member.id);
                if is_dropped || has_it || deleted.contains(&member.address) {
                    line(&member.address, expanded_from.as_ref());
                }
            }
            for remote in remote.iter().filter(|_| is_dropped) {
                line(&remote.address, expanded_from.as_ref());
            }
        }
    }
}

/// The envelope's recipients whom a share is for, unless it was sent on to them.
fn came_for(share: &AdmittedShare) -> impl Iterator<Item = &EnvelopeRecipient> {
    let is_original = share.decided().is_first();
    taken(share).filter(move |_| is_original)
}

/// The addresses that a share is for, and that do not bounce.
fn taken(share: &AdmittedShare) -> impl Iterator<Item = &EnvelopeRecipient> {
    let bounces = |becomes: Disposition| matches!(becomes, Disposition::Bounce(_));
    let recipients = share.recipients().filter(move |(_, becomes)| !bounces(*becomes));
    recipients.map(|(recipient, _)| &recipient.addressee().recipient)
}

/// Those elsewhere to whom a mailbox or remote user sends the message on.
fn sent_on(onward: &Outgoing) -> impl Iterator<Item = JournaledRecipient> {
    onward
        .recipients
        .iter()
        .map(|to| JournaledRecipient::forwarded(to.recipient.address.clone(), onward.email.clone()))
}

/// The recipients of a share that a DSN names: those that bounced, unless the client wants none
/// (RFC 3461 §4.1). Of an organization that refused by DMARC none is named: another one took the
/// message, and the author's own domain asked for the refusal.
fn failed_recipients(share: &AdmittedShare, at: Timestamp) -> Vec<ReportedRecipient> {
    let mut reported = Vec::new();
    if !share.decided().is_first() {
        return reported; // Whoever has sent it on has it.
    }
    let bounced = share.bounced();
    if bounced.is_empty() {
        return reported;
    }
    let recipients = share.decided().recipients().iter().map(|it| &it.addressee().recipient);
    let recipients: HashMap<&Address, &EnvelopeRecipient> =
        recipients.map(|recipient| (&recipient.address, recipient)).collect();
    for (address, reason) in bounced {
        let recipient = recipients.get(address).copied();
        let notify = recipient.and_then(|recipient| recipient.parameters.notify);
        if reason != Reason::DmarcReject && wants(notify, Outcome::Failed) {
            reported.push(failed(address, recipient, reason, at));
        }
    }
    reported
}

/// Recipients whose sender wants to know that they have the message: a mailbox that keeps it, or a
/// group that it was opened for. Where it is sent on without being kept, the next server tells.
fn reached_recipients(
    share: &AdmittedShare,
    at: Timestamp,
) -> impl Iterator<Item = ReportedRecipient> {
    let recipients = share.recipients().filter(|(recipient, becomes)| {
        matches!(becomes, Disposition::Deliver(_))
            && wants(recipient.addressee().recipient.parameters.notify, Outcome::Delivered)
    });
    recipients.filter_map(move |(recipient, _)| {
        let Addressee { recipient, members, expanded_from, .. } = recipient.addressee();
        let is_sent_on = |from: &Address| share.sent_on().iter().any(|onward| onward.from == *from);
        let has_it = |member: &Member| {
            !is_sent_on(&member.address)
                || share.deliveries().iter().any(|it| it.member().id == member.id)
        };
        let outcome = match &**members {
            _ if expanded_from.is_some() => Outcome::Expanded,
            [member] if has_it(member) => Outcome::Delivered,
            _ => return None,
        };
        Some(ReportedRecipient {
            address: recipient.address.clone(),
            orcpt: recipient.parameters.orcpt.clone(),
            outcome,
            status: "2.0.0".to_owned(),
            diagnostic: None,
            remote_mta: None,
            decided_by: DecidedBy::Their,
            last_attempt: at,
        })
    })
}

fn failed(
    address: &Address,
    recipient: Option<&EnvelopeRecipient>,
    reason: Reason,
    at: Timestamp,
) -> ReportedRecipient {
    let (code, enhanced, text) = (reason.code(), reason.enhanced(), reason.text());
    ReportedRecipient {
        address: address.clone(),
        orcpt: recipient.and_then(|recipient| recipient.parameters.orcpt.clone()),
        outcome: Outcome::Failed,
        status: enhanced.to_owned(),
        diagnostic: Some(format!("{code} {enhanced} {text}")),
        remote_mta: None,
        decided_by: match reason {
            Reason::OutboundRuleBounce => DecidedBy::OurAdministrator,
            _ => DecidedBy::Their,
        },
        last_attempt: at,
    }
}
