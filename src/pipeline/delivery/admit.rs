//! Stage: room in the mailboxes. A mailbox gets a message once, however many ways lead to it, does
//! with it what its user's rules say, and if it is full, its delivery turns into a bounce. What
//! mailboxes and remote users send on to users here goes through the same stage.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::directory::{Member, RemoteMember};
use crate::heavy::Turn;
use crate::id::EntityId;
use crate::mail::{Address, ReversePath, Srs};
use crate::pipeline::delivery::genuine;
use crate::pipeline::delivery::onward::{self, Forwarder, SentOn, Target};
use crate::pipeline::delivery::prefix;
use crate::pipeline::delivery::sort::{Ruled, Sorted, Sorter};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::inbound::decide::{
    Decided, DecidedRecipient, DecidedShare, Disposition, decide_share,
};
use crate::rules::Withheld;
use crate::rules::mailbox::MailboxAction;
use crate::smtp::reason::Reason;
use crate::store::{
    Folder, Keeper, MailboxHandle, MailboxOwner, Reservation, Store, StoreError, UsageHold,
};

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

/// A mailbox without room, and the recipient that led to it.
#[derive(Debug)]
pub(in crate::pipeline) struct FullMember {
    id: EntityId,
    address: Address,
    recipient: Address,
}

impl FullMember {
    /// Whose mailbox it is.
    pub(in crate::pipeline) fn id(&self) -> &EntityId {
        &self.id
    }
}

impl AdmittedShare {
    fn new(decided: DecidedShare, prefix: Vec<u8>) -> Self {
        Self {
            becomes: decided.recipients().iter().map(DecidedRecipient::disposition).collect(),
            decided: Arc::new(decided),
            prefix,
            deliveries: vec![],
            full: vec![],
            ruled: vec![],
            sent_on: vec![],
            unheard: vec![],
        }
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
            if !told.contains(&full.recipient.key()) && !told.contains(&full.address.key()) {
                bounced.push((&full.address, Reason::MailboxFull));
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

/// Takes room for every delivery, and follows the message to wherever it goes on to here.
pub(in crate::pipeline) fn admit(
    _: &Turn,
    decided: Decided,
    store: &Store,
) -> Result<Admitted, StoreError> {
    let (mail, shares) = decided.into_parts();
    let forged = genuine::forged(&mail, store.delivery_marks());
    let mut admission = Admission::new(&mail, &forged, store);
    for share in shares {
        admission.arrive(share)?;
    }
    let mut next = 0;
    while next < admission.onward.len() {
        admission.follow(next)?;
        next += 1;
    }
    admission.settle()?;
    let Admission { shares, leaving, usage, .. } = admission;
    Ok(Admitted { mail, shares, leaving, usage, forged })
}

struct Admission<'a> {
    mail: &'a Judged,
    store: &'a Store,
    sorter: Sorter<'a>,
    shares: Vec<AdmittedShare>,
    /// The mailboxes and remote users that some way has led to.
    seen: HashMap<MailboxOwner, Reach>,
    /// Those of them that send the message on, in the order in which they were reached.
    onward: Vec<Sender>,
    leaving: Vec<Outgoing>,
    usage: Vec<UsageHold>,
}

/// Whether a mailbox or remote user has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Has,
    /// It is sent on and not kept, and it is not known yet whether somebody takes it.
    Open,
    Not(Reason),
}

/// A mailbox or remote user that sends the message on.
struct Sender {
    who: MailboxOwner,
    from: Address,
    /// The share that it has the message by.
    share: usize,
    targets: Vec<Target>,
    /// How the message is kept if nobody takes it, unless it is kept anyhow.
    fallback: Option<Fallback>,
    /// Who keeps it if it comes back from elsewhere.
    keeper: Option<Keeper>,
    /// Whether the message is in its mailbox.
    keeps_it: bool,
    /// The shares that it went on as.
    further: Range<usize>,
    /// Whether it has left for somebody elsewhere.
    leaves: bool,
}

/// How a mailbox keeps a message that it has sent on in vain.
struct Fallback {
    delivery: Undelivered,
    /// What its rules did: the place in the share's list.
    ruled: Option<usize>,
}

/// What a mailbox may keep, and where.
struct Undelivered {
    member: Member,
    /// The recipient that led to it.
    recipient: Address,
    expanded_from: Option<Address>,
    folders: Vec<Folder>,
}

impl Sender {
    fn new(who: MailboxOwner, from: &Address, share: usize, targets: Vec<Target>) -> Self {
        let from = from.clone();
        Self {
            who,
            from,
            share,
            targets,
            fallback: None,
            keeper: None,
            keeps_it: false,
            further: 0..0,
            leaves: false,
        }
    }
}

impl<'a> Admission<'a> {
    fn new(mail: &'a Judged, forged: &'a [Range<usize>], store: &'a Store) -> Self {
        Self {
            mail,
            store,
            sorter: Sorter::new(mail, forged, store),
            shares: Vec::new(),
            seen: HashMap::new(),
            onward: Vec::new(),
            leaving: Vec::new(),
            usage: Vec::new(),
        }
    }

    /// Leads a share's recipients to their mailboxes.
    fn arrive(&mut self, decided: DecidedShare) -> Result<(), StoreError> {
        let prefix = prefix::prefix(self.mail, &decided);
        let admitted = AdmittedShare::new(decided, prefix);
        let decided = Arc::clone(&admitted.decided);
        self.shares.push(admitted);
        let share = self.shares.len() - 1;
        for recipient in decided.recipients() {
            let Disposition::Deliver(folder) = recipient.disposition() else { continue };
            let addressee = recipient.addressee();
            for member in addressee.members.iter() {
                self.reach_mailbox(share, member, addressee, folder)?;
            }
            for remote in addressee.remote.iter() {
                self.reach_remote(share, remote, addressee, folder);
            }
        }
        Ok(())
    }

    /// Somebody of a share's organization.
    fn one_of(&self, share: usize, id: &EntityId) -> MailboxOwner {
        let organization = (&self.shares[share].decided.organization().id).into();
        MailboxOwner { organization, entity: id.clone() }
    }

    /// Delivers to a mailbox as its rules say, unless the message has been there. The first
    /// recipient in RCPT order that leads to a mailbox decides its folder.
    fn reach_mailbox(
        &mut self,
        share: usize,
        member: &Member,
        came_for: &Addressee,
        folder: Folder,
    ) -> Result<(), StoreError> {
        let owner = self.one_of(share, &member.id);
        if self.seen.contains_key(&owner) {
            return Ok(());
        }
        let sorted = self.sorter.sort(&self.shares[share].decided, member, came_for, folder);
        let Sorted { folder: kept, copies, targets, ruled, usage } = sorted;
        let mut delivery = Undelivered {
            member: member.clone(),
            recipient: came_for.recipient.address.clone(),
            expanded_from: came_for.expanded_from.clone(),
            folders: kept.into_iter().chain(copies).collect(),
        };
        let mailbox = self.store.mailbox(&owner)?;
        let size = self.size(share);
        let reach = if delivery.folders.is_empty() && !targets.is_empty() {
            Reach::Open
        } else if self.shares[share].keep(self.mail, &mailbox, &delivery, size) {
            Reach::Has
        } else {
            self.shares[share].is_full(&delivery);
            Reach::Not(Reason::MailboxFull)
        };
        if !matches!(reach, Reach::Not(_)) {
            let ruled_at = ruled.is_some().then_some(self.shares[share].ruled.len());
            self.shares[share].ruled.extend(ruled);
            self.usage.extend(usage);
            let mut sender = Sender::new(owner.clone(), &member.address, share, targets);
            sender.keeps_it = reach == Reach::Has;
            if reach == Reach::Open {
                delivery.folders = vec![folder];
                sender.fallback = Some(Fallback { delivery, ruled: ruled_at });
                sender.keeper = Some(Keeper::Mailbox {
                    entity: member.id.clone(),
                    address: member.address.clone(),
                    folder,
                });
            }
            self.goes_on(sender);
        }
        self.seen.insert(owner, reach);
        Ok(())
    }

    /// Routes the message on to a remote user.
    fn reach_remote(
        &mut self,
        share: usize,
        remote: &RemoteMember,
        came_for: &Addressee,
        folder: Folder,
    ) {
        let user = self.one_of(share, &remote.id);
        if self.seen.contains_key(&user) {
            return;
        }
        let reach = match self.sorter.route_on(&self.shares[share].decided, remote, came_for) {
            Ok(target) => {
                let mut sender = Sender::new(user.clone(), &remote.address, share, vec![target]);
                sender.keeper = self.keeper_for_remote(remote, folder);
                self.goes_on(sender);
                Reach::Open
            }
            Err(withheld) => Reach::Not(reason_of(withheld)),
        };
        self.seen.insert(user, reach);
    }

    /// Who keeps what a remote user's server refuses: usually its sender is told, and nobody here
    /// has to. Spam, and a bounce on its way back, are worth nobody's trouble.
    fn keeper_for_remote(&self, remote: &RemoteMember, folder: Folder) -> Option<Keeper> {
        let is_bounce = *self.mail.reverse_path() == ReversePath::Null;
        let is_told = !is_bounce && self.mail.may_tell_sender();
        let is_wanted = folder == Folder::Inbox && !Srs::is_rewritten(&remote.address);
        (!is_told && is_wanted).then_some(Keeper::Postmaster)
    }

    fn goes_on(&mut self, sender: Sender) {
        if !sender.targets.is_empty() {
            self.onward.push(sender);
        }
    }

    /// Sends the message on to where one of those who send it on want it.
    fn follow(&mut self, place: usize) -> Result<(), StoreError> {
        let sender = &mut self.onward[place];
        let (targets, share) = (std::mem::take(&mut sender.targets), sender.share);
        let from = Forwarder { address: &sender.from, entity: &sender.who.entity };
        let decided = &self.shares[share].decided;
        let onward = onward::send_on(self.mail, decided, from, targets, self.store);
        sender.leaves = onward.leaving.is_some();
        let keeper = sender.keeper.take();
        self.shares[share].sent_on.extend(onward.told);
        self.leaving.extend(onward.leaving.map(|leaving| Outgoing { keeper, ..leaving }));
        let first = self.shares.len();
        for share in onward.here {
            self.arrive(decide_share(share, self.mail))?;
        }
        self.onward[place].further = first..self.shares.len();
        Ok(())
    }

    /// Whoever sent the message on and finds that nobody takes it, keeps it; nobody is found to take
    /// it who waits for that himself, so nothing is lost in a circle. What was sent on last is
    /// settled first. Then every recipient is known to be reached or not.
    fn settle(&mut self) -> Result<(), StoreError> {
        for place in (0..self.onward.len()).rev() {
            let Sender { who, fallback, further, leaves, share, .. } = &mut self.onward[place];
            let (who, fallback, share) = (who.clone(), fallback.take(), *share);
            if self.seen.get(&who) != Some(&Reach::Open) {
                continue;
            }
            let is_taken = *leaves || further.clone().any(|further| self.is_taken(further));
            let reach = match fallback {
                _ if is_taken => Reach::Has,
                Some(fallback) => self.take_back(share, &who, &fallback)?,
                None => Reach::Not(self.why_not_taken(self.onward[place].further.clone())),
            };
            self.onward[place].keeps_it = reach == Reach::Has && !is_taken;
            self.seen.insert(who, reach);
        }
        for share in 0..self.shares.len() {
            self.bounce_unreached(share);
            self.shares[share].keep_quiet_of_reached();
        }
        self.note_unheard();
        Ok(())
    }

    /// Why nobody has taken what went on as these shares.
    fn why_not_taken(&self, further: Range<usize>) -> Reason {
        for share in further {
            for recipient in self.shares[share].decided.recipients() {
                let mut reaches = self.reaches(share, recipient.addressee());
                if reaches.any(|reach| reach == Some(Reach::Not(Reason::MailboxFull))) {
                    return Reason::MailboxFull;
                }
            }
        }
        Reason::TooManyHops
    }

    /// Notes who does not get the message and of whom nobody is told: where no report may be sent,
    /// and where it was sent on by somebody who does not keep it, because the sender knows nothing
    /// of those to whom it goes on.
    fn note_unheard(&mut self) {
        let mut are_heard = vec![!self.mail.is_never_reported(); self.shares.len()];
        for sender in &self.onward {
            let has_bounced = matches!(self.seen.get(&sender.who), Some(Reach::Not(_)));
            for share in sender.further.clone() {
                are_heard[share] = sender.keeps_it || has_bounced;
            }
        }
        for (share, _) in self.shares.iter_mut().zip(are_heard).filter(|(_, is_heard)| !is_heard) {
            share.unheard = share.missing(self.mail);
        }
    }

    /// Whether a share that the message went on as has reached somebody.
    fn is_taken(&self, share: usize) -> bool {
        self.shares[share].recipients().any(|(recipient, becomes)| match becomes {
            Disposition::Deliver(_) => {
                self.reaches(share, recipient.addressee()).any(|reach| reach == Some(Reach::Has))
            }
            Disposition::Drop | Disposition::ReachedAnyway => true,
            Disposition::Bounce(_) => false,
        })
    }

    fn reaches<'b>(
        &'b self,
        share: usize,
        addressee: &'b Addressee,
    ) -> impl Iterator<Item = Option<Reach>> + 'b {
        let members = addressee.members.iter().map(|member| &member.id);
        let remote = addressee.remote.iter().map(|remote| &remote.id);
        members.chain(remote).map(move |id| self.seen.get(&self.one_of(share, id)).copied())
    }

    /// Keeps in its mailbox what nobody takes to whom it was sent on.
    fn take_back(
        &mut self,
        share: usize,
        owner: &MailboxOwner,
        fallback: &Fallback,
    ) -> Result<Reach, StoreError> {
        let (mailbox, size) = (self.store.mailbox(owner)?, self.size(share));
        let share = &mut self.shares[share];
        if !share.keep(self.mail, &mailbox, &fallback.delivery, size) {
            share.is_full(&fallback.delivery);
            return Ok(Reach::Not(Reason::MailboxFull));
        }
        if let Some(ruled) = fallback.ruled.and_then(|place| share.ruled.get_mut(place)) {
            ruled.withheld = Some(Withheld::NotTaken);
        }
        Ok(Reach::Has)
    }

    fn bounce_unreached(&mut self, share: usize) {
        let decided = Arc::clone(&self.shares[share].decided);
        for (place, recipient) in decided.recipients().iter().enumerate() {
            let Disposition::Deliver(_) = recipient.disposition() else { continue };
            let mut reason = None;
            let is_reached = self.reaches(share, recipient.addressee()).any(|reach| match reach {
                Some(Reach::Not(why)) => {
                    reason = reason.or(Some(why));
                    false
                }
                Some(Reach::Open) | None => false,
                Some(Reach::Has) => true,
            });
            if !is_reached {
                let reason = reason.unwrap_or(Reason::TooManyHops);
                self.shares[share].becomes[place] = Disposition::Bounce(reason);
            }
        }
    }

    /// Octets that the message takes in a mailbox.
    fn size(&self, share: usize) -> u64 {
        (self.shares[share].prefix.len() + self.mail.content().len()) as u64
    }
}

impl AdmittedShare {
    /// The mailboxes of which a rule deletes it.
    pub(in crate::pipeline) fn deleted(&self) -> impl Iterator<Item = &Address> {
        let deletes =
            |ruled: &&Ruled| ruled.applied.iter().any(|rule| rule.action == MailboxAction::Delete);
        self.ruled.iter().filter(deletes).map(|ruled| &ruled.mailbox)
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

    /// Takes room for what a mailbox keeps; false if it has none. A copy that finds no room is left
    /// out where the message itself has found some.
    fn keep(
        &mut self,
        mail: &Judged,
        mailbox: &Arc<MailboxHandle>,
        delivery: &Undelivered,
        size: u64,
    ) -> bool {
        let Undelivered { member, expanded_from, folders, .. } = delivery;
        let came_for = self.decided.is_first();
        let mut copy = 0;
        for folder in folders {
            let quota = match copy {
                // Where somebody has sent it on, they keep what finds no room.
                0 if came_for => mail.room_in(mailbox.used_bytes(), member.quota_bytes),
                _ => member.quota_bytes,
            };
            if let Some(room) = mailbox.reserve(size, quota) {
                let warns = room.crosses(WARN_PERCENT, member.quota_bytes);
                self.deliveries.push(AdmittedDelivery {
                    member: member.clone(),
                    expanded_from: expanded_from.clone(),
                    folder: *folder,
                    room,
                    copy,
                    warns,
                });
                copy += 1;
            } else if copy == 0 {
                return false;
            } else {
                tracing::warn!(mailbox = %member.address, %folder, "no room for a rule's copy");
            }
        }
        true
    }

    fn is_full(&mut self, delivery: &Undelivered) {
        let Undelivered { member, recipient, .. } = delivery;
        self.full.push(FullMember {
            id: member.id.clone(),
            address: member.address.clone(),
            recipient: recipient.clone(),
        });
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
            if wanting.contains(&full.recipient) {
                wanting.insert(&full.address);
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

/// Why a remote user does not get a message.
fn reason_of(withheld: Withheld) -> Reason {
    match withheld {
        Withheld::Loop
        | Withheld::TooManyForwards
        | Withheld::TooManyTargets
        | Withheld::Quota
        | Withheld::NotTaken => Reason::TooManyHops,
        Withheld::NobodyThere => Reason::RemoteUser,
        Withheld::OutboundRule => Reason::OutboundRuleBounce,
        Withheld::DoubtfulAuthor => Reason::DmarcReject,
    }
}
