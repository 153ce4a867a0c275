//! Stage: what becomes of a message, now that it is known what of all that it takes is given. Where
//! something is refused, it is asked again where the message goes without that.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::directory::Member;
use crate::heavy::Turn;
use crate::id::EntityId;
use crate::mail::{Address, Domain};
use crate::pipeline::delivery::genuine;
use crate::pipeline::delivery::onward::{Keys, SentOn};
use crate::pipeline::delivery::sort::Ruled;
use crate::pipeline::delivery::spread::{
    self, FullMember, Reach, Refused, Spread, SpreadShare, Ways,
};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::road::Road;
use crate::pipeline::inbound::decide::{Decided, DecidedRecipient, DecidedShare, Disposition};
use crate::rules::mailbox::MailboxAction;
use crate::smtp::reason::Reason;
use crate::store::{Folder, Reservation, Reserved, Store, StoreError, UsageHold};

/// How full a mailbox is when its user is warned, in percent of its quota.
const WARN_PERCENT: u64 = 90;

/// A message whose deliveries have room. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Admitted {
    mail: Judged,
    /// Those of the organizations that it came for, then those that it goes on to.
    shares: Vec<AdmittedShare>,
    /// What mailboxes and remote users send on to other servers.
    leaving: Vec<Outgoing>,
    /// Recipients outside whom mailboxes send it on to, counted.
    usage: Vec<UsageHold>,
    /// Where fields of the content stand that pass for ours.
    forged: Vec<Range<usize>>,
}

/// One organization's part of an admitted message.
#[derive(Debug)]
pub(in crate::pipeline) struct AdmittedShare {
    decided: Arc<DecidedShare>,
    /// What becomes of it in the end for each of its recipients, in their order.
    becomes: Vec<Disposition>,
    /// The headers that are put on top.
    prefix: Vec<u8>,
    deliveries: Vec<AdmittedDelivery>,
    /// Mailboxes that are full: one bounce each.
    full: Vec<FullMember>,
    /// What users' own rules did.
    ruled: Vec<Ruled>,
    /// To whom mailboxes and remote users send it on.
    sent_on: Vec<SentOn>,
    /// Who does not get it without anybody being told, so that the postmaster is.
    unheard: Vec<Unheard>,
}

/// An address that a message does not come to, and why.
#[derive(Debug)]
pub(in crate::pipeline) struct Unheard {
    address: Address,
    reason: Reason,
}

impl Unheard {
    pub(in crate::pipeline) fn address(&self) -> &Address {
        &self.address
    }

    pub(in crate::pipeline) fn reason(&self) -> Reason {
        self.reason
    }
}

impl AdmittedShare {
    /// Gives the deliveries of a share their rooms; what becomes of its recipients is as it was decided
    /// as yet.
    fn new(mut share: SpreadShare, rooms: &mut [Option<Reservation>]) -> Self {
        let decided = Arc::clone(share.decided());
        let mut deliveries = Vec::new();
        for delivery in share.take_deliveries() {
            let (member, expanded_from, folder, copy, room) = delivery.into_parts();
            let Some(room) = rooms.get_mut(room).and_then(Option::take) else { continue };
            let warns = room.crosses(WARN_PERCENT, member.quota_bytes);
            deliveries.push(AdmittedDelivery { member, expanded_from, folder, room, copy, warns });
        }
        let (prefix, full, ruled, sent_on) = share.into_parts();
        let becomes = decided.recipients().iter().map(DecidedRecipient::disposition).collect();
        let unheard = Vec::new();
        Self { decided, becomes, prefix, deliveries, full, ruled, sent_on, unheard }
    }

    /// What was decided before room was looked for.
    pub(in crate::pipeline) fn decided(&self) -> &DecidedShare {
        &self.decided
    }

    /// Its recipients, with what becomes of it for each in the end.
    pub(in crate::pipeline) fn recipients(
        &self,
    ) -> impl Iterator<Item = (&DecidedRecipient, Disposition)> {
        self.decided.recipients().iter().zip(self.becomes.iter().copied())
    }

    pub(in crate::pipeline) fn deliveries(&self) -> &[AdmittedDelivery] {
        &self.deliveries
    }

    pub(in crate::pipeline) fn full(&self) -> &[FullMember] {
        &self.full
    }

    pub(in crate::pipeline) fn ruled(&self) -> &[Ruled] {
        &self.ruled
    }

    pub(in crate::pipeline) fn sent_on(&self) -> &[SentOn] {
        &self.sent_on
    }

    pub(in crate::pipeline) fn unheard(&self) -> &[Unheard] {
        &self.unheard
    }

    /// The headers that are put on top, and the deliveries with their rooms.
    pub(in crate::pipeline) fn into_parts(self) -> (Vec<u8>, Vec<AdmittedDelivery>) {
        (self.prefix, self.deliveries)
    }

    /// Who did not get it: recipients that bounce, and full mailboxes behind recipients that others
    /// got it through.
    pub(in crate::pipeline) fn bounced(&self) -> Vec<(&Address, Reason)> {
        let mut bounced = Vec::new();
        for (recipient, becomes) in self.recipients() {
            if let Disposition::Bounce(reason) = becomes {
                bounced.push((recipient.address(), reason));
            }
        }
        if self.full.is_empty() {
            return bounced;
        }
        let told: HashSet<String> = bounced.iter().map(|(address, _)| address.key()).collect();
        for full in &self.full {
            let keys = [full.recipient().key(), full.address().key()];
            if !keys.iter().any(|key| told.contains(key)) {
                bounced.push((full.address(), Reason::MailboxFull));
            }
        }
        bounced
    }
}

/// A delivery with its room.
#[derive(Debug)]
pub(in crate::pipeline) struct AdmittedDelivery {
    member: Member,
    /// The group's address that led to it, if one did.
    expanded_from: Option<Address>,
    folder: Folder,
    room: Reservation,
    /// Further placements in the same mailbox, by rules that copy, count from 1.
    copy: usize,
    /// The delivery takes the mailbox past 90 percent.
    warns: bool,
}

impl AdmittedDelivery {
    pub(in crate::pipeline) fn member(&self) -> &Member {
        &self.member
    }

    pub(in crate::pipeline) fn expanded_from(&self) -> Option<&Address> {
        self.expanded_from.as_ref()
    }

    pub(in crate::pipeline) fn folder(&self) -> Folder {
        self.folder
    }

    pub(in crate::pipeline) fn room(&self) -> &Reservation {
        &self.room
    }

    pub(in crate::pipeline) fn into_room(self) -> Reservation {
        self.room
    }

    pub(in crate::pipeline) fn copy(&self) -> usize {
        self.copy
    }

    pub(in crate::pipeline) fn warns(&self) -> bool {
        self.warns
    }
}

impl Admitted {
    pub(in crate::pipeline) fn mail(&self) -> &Judged {
        &self.mail
    }

    pub(in crate::pipeline) fn shares(&self) -> &[AdmittedShare] {
        &self.shares
    }

    pub(in crate::pipeline) fn leaving(&self) -> &[Outgoing] {
        &self.leaving
    }

    pub(in crate::pipeline) fn forged(&self) -> &[Range<usize>] {
        &self.forged
    }

    /// What is made durable as it is: the message, the shares with their rooms, and what was counted.
    pub(in crate::pipeline) fn into_parts(self) -> (Judged, Vec<AdmittedShare>, Vec<UsageHold>) {
        (self.mail, self.shares, self.usage)
    }

    /// How many deliveries it comes to.
    pub(in crate::pipeline) fn deliveries(&self) -> usize {
        self.shares.iter().map(|share| share.deliveries.len()).sum()
    }

    /// Whether the postmaster has to hear of somebody who does not get it.
    pub(in crate::pipeline) fn is_partly_unheard(&self) -> bool {
        self.shares.iter().any(|share| !share.unheard.is_empty())
    }

    /// Why the message is deferred for all of its recipients: the mailbox of one has filled up since
    /// RCPT, others would get it, and nobody may be told of the one. At the next try that one is
    /// refused where its client learns of it, at RCPT, and the others get it. A group's members who
    /// are full keep it from nobody: a group is not refused at RCPT for one of them, and the
    /// postmaster gets what they have no room for.
    pub(in crate::pipeline) fn deferral(&self) -> Option<Reason> {
        if !self.mail.is_never_reported() || self.refusal().is_some() {
            return None;
        }
        let mut came_for = self.shares.iter().filter(|share| share.decided.is_first());
        let has_filled_up = came_for.any(|share| {
            share.recipients().any(|(recipient, becomes)| {
                becomes == Disposition::Bounce(Reason::MailboxFull)
                    && recipient.addressee().only_mailbox().is_some()
            })
        });
        has_filled_up.then_some(Reason::MailboxFullGrace)
    }

    /// Why the message is refused, if it neither reaches anybody nor is dropped for anybody.
    /// What becomes of it where it goes on to does not count.
    pub(in crate::pipeline) fn refusal(&self) -> Option<Rejection> {
        let mut first = None;
        let mut place = None;
        if let Road::Submitted(outgoing) = self.mail.road() {
            if outgoing.is_taken() {
                return None;
            }
            first = outgoing.bounced().next().map(|(_, reason)| reason);
            place.clone_from(&outgoing.objected_to);
        }
        for share in self.shares.iter().filter(|share| share.decided.is_first()) {
            for becomes in &share.becomes {
                match becomes {
                    Disposition::Bounce(reason) => first = first.or(Some(*reason)),
                    Disposition::Deliver(_) | Disposition::Drop | Disposition::ReachedAnyway => {
                        return None;
                    }
                }
            }
        }
        first.map(|reason| Rejection { reason, place })
    }
}

/// Takes all that a message needs at once, and finds out what becomes of it then. What was given while
/// something else was refused is given back before it is asked again: in that moment others may take
/// it, as they may a moment before or after.
pub(in crate::pipeline) fn admit(
    _: &Turn,
    decided: Decided,
    store: &Store,
) -> Result<Admitted, StoreError> {
    let (mail, shares) = decided.into_parts();
    let forged = genuine::forged(&mail, store.delivery_marks());
    let shares: Vec<_> = shares.into_iter().map(Arc::new).collect();
    let rewriting = |domain: &Domain| store.sender_rewriting(domain);
    let keys = Keys { marks: store.delivery_marks(), rewriting: &rewriting };
    let mut refused = Refused::default();
    loop {
        let spread = spread::spread(&mail, &shares, &forged, keys, &refused);
        let Reserved { rooms, counts } = store.reserve(spread.rooms(), &spread.counts())?;
        let given_rooms = rooms.iter().map(Option::is_some);
        // Each turn more is known to be refused, so there is a last one.
        if !refused.note(&spread, given_rooms, counts.iter().map(Result::is_ok)) {
            let usage = counts.into_iter().flatten().collect();
            return Ok(becomes(mail, spread, rooms, usage, forged));
        }
    }
}

/// What becomes of a message for which all this is given. Pure.
fn becomes(
    mail: Judged,
    spread: Spread,
    mut rooms: Vec<Option<Reservation>>,
    usage: Vec<UsageHold>,
    forged: Vec<Range<usize>>,
) -> Admitted {
    let (shares, leaving, ways) = spread.into_parts();
    let mut are_heard = vec![!mail.is_never_reported(); shares.len()];
    for (further, is_heard) in ways.heard() {
        are_heard[further].fill(is_heard);
    }
    let mut admitted = Vec::with_capacity(shares.len());
    for (share, is_heard) in shares.into_iter().zip(are_heard) {
        let mut share = AdmittedShare::new(share, &mut rooms);
        share.bounce_unreached(&ways);
        share.keep_quiet_of_reached();
        // Of whom nobody is told: where no report may be sent, and where it was sent on by somebody
        // who does not keep it, because the sender knows nothing of those to whom it goes on.
        if !is_heard {
            share.unheard = share.missing(&mail);
        }
        admitted.push(share);
    }
    Admitted { mail, shares: admitted, leaving, usage, forged }
}

impl AdmittedShare {
    /// The mailboxes of which a rule deletes it.
    pub(in crate::pipeline) fn deleted(&self) -> impl Iterator<Item = &Address> {
        let deletes =
            |ruled: &&Ruled| ruled.applied.iter().any(|rule| rule.action == MailboxAction::Delete);
        self.ruled.iter().filter(deletes).map(|ruled| &ruled.mailbox)
    }

    /// Every recipient that reaches nobody bounces.
    fn bounce_unreached(&mut self, ways: &Ways) {
        for (recipient, becomes) in self.decided.recipients().iter().zip(&mut self.becomes) {
            let Disposition::Deliver(_) = recipient.disposition() else { continue };
            let mut reason = None;
            let mut reaches = ways.reaches(&self.decided, recipient.addressee());
            let is_reached = reaches.any(|reach| match reach {
                Some(Reach::Not(why)) => {
                    reason = reason.or(Some(why));
                    false
                }
                Some(Reach::Open) | None => false,
                Some(Reach::Has) => true,
            });
            if !is_reached {
                *becomes = Disposition::Bounce(reason.unwrap_or(Reason::TooManyHops));
            }
        }
    }

    /// An address that bounces, while its mailbox has the message by another recipient: nobody is
    /// told that it was not delivered.
    fn keep_quiet_of_reached(&mut self) {
        let bounces = |becomes: &Disposition| matches!(becomes, Disposition::Bounce(_));
        if !self.becomes.iter().any(bounces) {
            return;
        }
        let reached: HashSet<&EntityId> =
            self.deliveries.iter().map(|delivery| &delivery.member.id).collect();
        let recipients = self.decided.recipients().iter().zip(&mut self.becomes);
        for (recipient, becomes) in recipients.filter(|(_, becomes)| bounces(becomes)) {
            if let Some(member) = recipient.addressee().only_mailbox()
                && recipient.addressee().expanded_from.is_none()
                && reached.contains(&member.id)
            {
                *becomes = Disposition::ReachedAnyway;
            }
        }
    }

    /// Who does not get a message that they would have in INBOX, though no rule and no policy says
    /// so. Spam is worth nobody's trouble, nor is a bounce on its way back.
    fn missing(&self, mail: &Judged) -> Vec<Unheard> {
        let bounced = self.bounced();
        if bounced.is_empty() {
            return Vec::new();
        }
        let mut wanting = HashSet::new();
        for recipient in self.decided.recipients().iter().filter(|it| it.basis().leads_to_inbox()) {
            wanting.insert(recipient.address());
        }
        for full in &self.full {
            if wanting.contains(full.recipient()) {
                wanting.insert(full.address());
            }
        }
        let mut missing = Vec::new();
        for (address, reason) in bounced {
            let is_meant = matches!(reason, Reason::DmarcReject | Reason::OutboundRuleBounce);
            if wanting.contains(address) && !is_meant && !mail.is_led_back(address) {
                missing.push(Unheard { address: address.clone(), reason });
            }
        }
        missing
    }
}
