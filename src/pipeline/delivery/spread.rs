//! Stage: where a message goes. Pure. A mailbox gets a message once, however many ways lead to it, and
//! does with it what its user's rules say; what mailboxes and remote users send on to users here goes
//! the same way. All rooms and counts that it takes are taken to be given, but for those that are
//! known to be refused: a full mailbox's delivery turns into a bounce, and what a mailbox has sent on
//! in vain it keeps.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::directory::{Member, RemoteMember};
use crate::id::EntityId;
use crate::mail::{Address, ReversePath, Srs};
use crate::pipeline::delivery::onward::{self, Forwarder, Keys, SentOn, Target};
use crate::pipeline::delivery::prefix;
use crate::pipeline::delivery::sort::{AskedCount, Counted, Ruled, Sorted, Sorter};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::inbound::decide::{DecidedShare, Disposition, decide_share};
use crate::rules::Withheld;
use crate::smtp::reason::Reason;
use crate::store::{CountAsk, Folder, Keeper, MailboxOwner, RoomAsk};

/// Where a message goes, and what that takes. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Spread {
    shares: Vec<SpreadShare>,
    leaving: Vec<Outgoing>,
    rooms: Vec<RoomAsk>,
    counts: Vec<AskedCount>,
    ways: Ways,
}

/// One organization's part of it.
#[derive(Debug)]
pub(in crate::pipeline) struct SpreadShare {
    decided: Arc<DecidedShare>,
    prefix: Vec<u8>,
    deliveries: Vec<SpreadDelivery>,
    full: Vec<FullMember>,
    ruled: Vec<Ruled>,
    sent_on: Vec<SentOn>,
}

/// A delivery for which room is asked.
#[derive(Debug)]
pub(in crate::pipeline) struct SpreadDelivery {
    member: Member,
    expanded_from: Option<Address>,
    folder: Folder,
    copy: usize,
    /// The place of its room among those that are asked for.
    room: usize,
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

    /// The mailbox's primary address.
    pub(in crate::pipeline) fn address(&self) -> &Address {
        &self.address
    }

    pub(in crate::pipeline) fn recipient(&self) -> &Address {
        &self.recipient
    }
}

impl SpreadDelivery {
    /// The mailbox, the group that led to it, the folder, which copy it is, and its room's place.
    pub(in crate::pipeline) fn into_parts(self) -> (Member, Option<Address>, Folder, usize, usize) {
        (self.member, self.expanded_from, self.folder, self.copy, self.room)
    }
}

/// What is known not to be given.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Refused {
    /// Rooms of a message in a mailbox: the first, and those of copies.
    rooms: HashSet<(MailboxOwner, usize)>,
    counts: HashSet<Counted>,
}

impl Refused {
    /// Notes what was refused of all that was asked for; whether there is something.
    pub(in crate::pipeline) fn note(
        &mut self,
        spread: &Spread,
        rooms: impl Iterator<Item = bool>,
        counts: impl Iterator<Item = bool>,
    ) -> bool {
        let before = self.rooms.len() + self.counts.len();
        let is_refused: Vec<bool> = rooms.map(|is_given| !is_given).collect();
        for delivery in spread.shares.iter().flat_map(|share| &share.deliveries) {
            if is_refused.get(delivery.room) == Some(&true) {
                let owner = spread.rooms[delivery.room].owner.clone();
                self.rooms.insert((owner, delivery.copy));
            }
        }
        for (asked, is_given) in spread.counts.iter().zip(counts) {
            if !is_given {
                self.counts.insert(asked.counted.clone());
            }
        }
        self.rooms.len() + self.counts.len() > before
    }

    /// Whether a count is known to be refused.
    pub(in crate::pipeline) fn has_count(&self, counted: &Counted) -> bool {
        self.counts.contains(counted)
    }
}

/// Who is reached on which ways.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Ways {
    /// The mailboxes and remote users that some way has led to.
    seen: HashMap<MailboxOwner, Reach>,
    /// Those of them that send the message on, in the order in which they were reached.
    onward: Vec<Sender>,
}

impl Ways {
    /// Whether those behind a recipient are reached; `None` of whoever no way has led to.
    pub(in crate::pipeline) fn reaches<'a>(
        &'a self,
        decided: &'a DecidedShare,
        addressee: &'a Addressee,
    ) -> impl Iterator<Item = Option<Reach>> + 'a {
        let members = addressee.members.iter().map(|member| &member.id);
        let remote = addressee.remote.iter().map(|remote| &remote.id);
        members.chain(remote).map(move |id| self.seen.get(&one_of(decided, id)).copied())
    }

    /// The shares that the message went on as, with whether somebody hears of those who do not get it
    /// there: whoever has sent it on and keeps it, or has bounced, knows of them.
    pub(in crate::pipeline) fn heard(&self) -> impl Iterator<Item = (Range<usize>, bool)> {
        self.onward.iter().map(|sender| {
            let has_bounced = matches!(self.seen.get(&sender.who), Some(Reach::Not(_)));
            (sender.further.clone(), sender.keeps_it || has_bounced)
        })
    }
}

/// Somebody of a share's organization.
fn one_of(decided: &DecidedShare, id: &EntityId) -> MailboxOwner {
    let organization = (&decided.organization().id).into();
    MailboxOwner { organization, entity: id.clone() }
}

impl Spread {
    pub(in crate::pipeline) fn rooms(&self) -> &[RoomAsk] {
        &self.rooms
    }

    pub(in crate::pipeline) fn counts(&self) -> Vec<CountAsk> {
        self.counts.iter().map(|asked| asked.ask.clone()).collect()
    }

    #[cfg(test)]
    pub(in crate::pipeline) fn shares(&self) -> &[SpreadShare] {
        &self.shares
    }

    /// The shares, what leaves, and who is reached.
    pub(in crate::pipeline) fn into_parts(self) -> (Vec<SpreadShare>, Vec<Outgoing>, Ways) {
        (self.shares, self.leaving, self.ways)
    }
}

impl SpreadShare {
    fn new(decided: Arc<DecidedShare>, prefix: Vec<u8>) -> Self {
        let deliveries = Vec::new();
        let full = Vec::new();
        Self { decided, prefix, deliveries, full, ruled: Vec::new(), sent_on: Vec::new() }
    }

    pub(in crate::pipeline) fn decided(&self) -> &Arc<DecidedShare> {
        &self.decided
    }

    #[cfg(test)]
    pub(in crate::pipeline) fn full(&self) -> &[FullMember] {
        &self.full
    }

    pub(in crate::pipeline) fn take_deliveries(&mut self) -> Vec<SpreadDelivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// The headers on top, who is full, what rules did, and to whom it goes on.
    pub(in crate::pipeline) fn into_parts(
        self,
    ) -> (Vec<u8>, Vec<FullMember>, Vec<Ruled>, Vec<SentOn>) {
        (self.prefix, self.full, self.ruled, self.sent_on)
    }
}

/// Finds out where a message goes, and follows it to wherever it goes on to here.
pub(in crate::pipeline) fn spread(
    mail: &Judged,
    shares: &[Arc<DecidedShare>],
    forged: &[Range<usize>],
    keys: Keys<'_>,
    refused: &Refused,
) -> Spread {
    let sorter = Sorter::new(mail, forged, refused);
    let mut spreading = Spreading { mail, keys, refused, sorter, found: Spread::default() };
    for share in shares {
        spreading.arrive(Arc::clone(share));
    }
    let mut next = 0;
    while next < spreading.found.ways.onward.len() {
        spreading.follow(next);
        next += 1;
    }
    spreading.keep_what_nobody_takes();
    spreading.found
}

impl Default for Spread {
    fn default() -> Self {
        let shares = Vec::new();
        let leaving = Vec::new();
        Self { shares, leaving, rooms: Vec::new(), counts: Vec::new(), ways: Ways::default() }
    }
}

struct Spreading<'a> {
    mail: &'a Judged,
    keys: Keys<'a>,
    refused: &'a Refused,
    sorter: Sorter<'a>,
    found: Spread,
}

/// Whether a mailbox or remote user has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Reach {
    Has,
    /// It is sent on and not kept, and it is not known yet whether somebody takes it.
    Open,
    Not(Reason),
}

/// A mailbox or remote user that sends the message on.
#[derive(Debug)]
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
#[derive(Debug)]
struct Fallback {
    delivery: Undelivered,
    /// What its rules did: the place in the share's list.
    ruled: Option<usize>,
}

/// What a mailbox may keep, and where.
#[derive(Debug)]
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

impl Spreading<'_> {
    /// Leads a share's recipients to their mailboxes.
    fn arrive(&mut self, decided: Arc<DecidedShare>) {
        let prefix = prefix::prefix(self.mail, &decided);
        self.found.shares.push(SpreadShare::new(Arc::clone(&decided), prefix));
        let share = self.found.shares.len() - 1;
        for recipient in decided.recipients() {
            let Disposition::Deliver(folder) = recipient.disposition() else { continue };
            let addressee = recipient.addressee();
            for member in addressee.members.iter() {
                self.reach_mailbox(share, member, addressee, folder);
            }
            for remote in addressee.remote.iter() {
                self.reach_remote(share, remote, addressee, folder);
            }
        }
    }

    /// Delivers to a mailbox as its rules say, unless the message has been there. The first
    /// recipient in RCPT order that leads to a mailbox decides its folder.
    fn reach_mailbox(
        &mut self,
        share: usize,
        member: &Member,
        came_for: &Addressee,
        folder: Folder,
    ) {
        let owner = one_of(&self.found.shares[share].decided, &member.id);
        if self.found.ways.seen.contains_key(&owner) {
            return;
        }
        let decided = &self.found.shares[share].decided;
        let sorted = self.sorter.sort(decided, member, came_for, folder);
        let Sorted { folder: kept, copies, targets, ruled, counts } = sorted;
        let mut delivery = Undelivered {
            member: member.clone(),
            recipient: came_for.recipient.address.clone(),
            expanded_from: came_for.expanded_from.clone(),
            folders: kept.into_iter().chain(copies).collect(),
        };
        let reach = if delivery.folders.is_empty() && !targets.is_empty() {
            Reach::Open
        } else if self.keep(share, &owner, &delivery) {
            Reach::Has
        } else {
            self.found.shares[share].is_full(&delivery);
            Reach::Not(Reason::MailboxFull)
        };
        if !matches!(reach, Reach::Not(_)) {
            let spread = &mut self.found.shares[share];
            let ruled_at = ruled.is_some().then_some(spread.ruled.len());
            spread.ruled.extend(ruled);
            self.found.counts.extend(counts);
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
        self.found.ways.seen.insert(owner, reach);
    }

    /// Routes the message on to a remote user.
    fn reach_remote(
        &mut self,
        share: usize,
        remote: &RemoteMember,
        came_for: &Addressee,
        folder: Folder,
    ) {
        let user = one_of(&self.found.shares[share].decided, &remote.id);
        if self.found.ways.seen.contains_key(&user) {
            return;
        }
        let reach = match self.sorter.route_on(&self.found.shares[share].decided, remote, came_for)
        {
            Ok(target) => {
                let mut sender = Sender::new(user.clone(), &remote.address, share, vec![target]);
                sender.keeper = self.keeper_for_remote(remote, folder);
                self.goes_on(sender);
                Reach::Open
            }
            Err(withheld) => Reach::Not(reason_of(withheld)),
        };
        self.found.ways.seen.insert(user, reach);
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
            self.found.ways.onward.push(sender);
        }
    }

    /// Sends the message on to where one of those who send it on want it.
    fn follow(&mut self, place: usize) {
        let sender = &mut self.found.ways.onward[place];
        let targets = std::mem::take(&mut sender.targets);
        let share = sender.share;
        let from = Forwarder { address: &sender.from, entity: &sender.who.entity };
        let decided = &self.found.shares[share].decided;
        let onward = onward::send_on(self.mail, decided, from, targets, self.keys);
        sender.leaves = onward.leaving.is_some();
        let keeper = sender.keeper.take();
        self.found.shares[share].sent_on.extend(onward.told);
        self.found.leaving.extend(onward.leaving.map(|leaving| Outgoing { keeper, ..leaving }));
        let first = self.found.shares.len();
        for share in onward.here {
            self.arrive(Arc::new(decide_share(share, self.mail)));
        }
        self.found.ways.onward[place].further = first..self.found.shares.len();
    }

    /// Whoever sent the message on and finds that nobody takes it, keeps it; nobody is found to take
    /// it who waits for that himself, so nothing is lost in a circle. What was sent on last is
    /// settled first. Then everybody is known to be reached or not.
    fn keep_what_nobody_takes(&mut self) {
        for place in (0..self.found.ways.onward.len()).rev() {
            let sender = &mut self.found.ways.onward[place];
            let Sender { who, fallback, further, leaves, share, .. } = sender;
            let who = who.clone();
            let fallback = fallback.take();
            let share = *share;
            let leaves = *leaves;
            let further = further.clone();
            if self.found.ways.seen.get(&who) != Some(&Reach::Open) {
                continue;
            }
            let is_taken = leaves || further.clone().any(|further| self.is_taken(further));
            let reach = match fallback {
                _ if is_taken => Reach::Has,
                Some(fallback) => self.take_back(share, &who, &fallback),
                None => Reach::Not(self.why_not_taken(further)),
            };
            self.found.ways.onward[place].keeps_it = reach == Reach::Has && !is_taken;
            self.found.ways.seen.insert(who, reach);
        }
    }

    /// Why nobody has taken what went on as these shares.
    fn why_not_taken(&self, further: Range<usize>) -> Reason {
        for share in further {
            let decided = &self.found.shares[share].decided;
            for recipient in decided.recipients() {
                let mut reaches = self.found.ways.reaches(decided, recipient.addressee());
                if reaches.any(|reach| reach == Some(Reach::Not(Reason::MailboxFull))) {
                    return Reason::MailboxFull;
                }
            }
        }
        Reason::TooManyHops
    }

    /// Whether a share that the message went on as has reached somebody.
    fn is_taken(&self, share: usize) -> bool {
        let decided = &self.found.shares[share].decided;
        let has_it = |reach: Option<Reach>| reach == Some(Reach::Has);
        decided.recipients().iter().any(|recipient| match recipient.disposition() {
            Disposition::Deliver(_) => {
                self.found.ways.reaches(decided, recipient.addressee()).any(has_it)
            }
            Disposition::Drop | Disposition::ReachedAnyway => true,
            Disposition::Bounce(_) => false,
        })
    }

    /// Keeps in its mailbox what nobody takes to whom it was sent on.
    fn take_back(&mut self, share: usize, owner: &MailboxOwner, fallback: &Fallback) -> Reach {
        let is_kept = self.keep(share, owner, &fallback.delivery);
        let share = &mut self.found.shares[share];
        if !is_kept {
            share.is_full(&fallback.delivery);
            return Reach::Not(Reason::MailboxFull);
        }
        if let Some(ruled) = fallback.ruled.and_then(|place| share.ruled.get_mut(place)) {
            ruled.withheld = Some(Withheld::NotTaken);
        }
        Reach::Has
    }

    /// Asks for room for what a mailbox keeps; false if it is known to have none. A copy that finds no
    /// room is left out where the message itself has found some.
    fn keep(&mut self, share: usize, owner: &MailboxOwner, delivery: &Undelivered) -> bool {
        let Undelivered { member, expanded_from, folders, .. } = delivery;
        let came_for = self.found.shares[share].decided.is_first();
        let size = self.size(share);
        for (copy, folder) in folders.iter().enumerate() {
            if self.refused.rooms.contains(&(owner.clone(), copy)) {
                if copy == 0 {
                    return false;
                }
                tracing::warn!(mailbox = %member.address, %folder, "no room for a rule's copy");
                continue;
            }
            self.found.rooms.push(RoomAsk {
                owner: owner.clone(),
                size,
                quota: member.quota_bytes,
                // Where somebody has sent it on, they keep what finds no room.
                may_exceed: copy == 0 && came_for && self.mail.is_never_reported(),
            });
            self.found.shares[share].deliveries.push(SpreadDelivery {
                member: member.clone(),
                expanded_from: expanded_from.clone(),
                folder: *folder,
                copy,
                room: self.found.rooms.len() - 1,
            });
        }
        true
    }

    /// Octets that the message takes in a mailbox.
    fn size(&self, share: usize) -> u64 {
        (self.found.shares[share].prefix.len() + self.mail.content().len()) as u64
    }
}

impl SpreadShare {
    fn is_full(&mut self, delivery: &Undelivered) {
        let Undelivered { member, recipient, .. } = delivery;
        self.full.push(FullMember {
            id: member.id.clone(),
            address: member.address.clone(),
            recipient: recipient.clone(),
        });
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
