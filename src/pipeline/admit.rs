//! Stage: room in the mailboxes. A mailbox gets a message once, however many ways lead to it, does
//! with it what its user's rules say, and if it is full, its delivery turns into a bounce. What
//! mailboxes and remote users send on to users here goes through the same stage.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::decide::{Decided, DecidedRecipient, DecidedShare, Disposition, Judged, decide_share};
use super::headers;
use super::onward::{self, SentOn, Target};
use super::outgoing::Outgoing;
use super::sort::{Sorted, Sorter};
use crate::directory::{Member, RemoteMember};
use crate::mail::{Address, EnvelopeRecipient};
use crate::rules::Withheld;
use crate::rules::mailbox::AppliedMailboxRule;
use crate::smtp::reason::Reason;
use crate::store::{Folder, MailboxHandle, MailboxName, Reservation, Store, StoreError};

/// How full a mailbox is when its user is warned, in percent of its quota.
const WARN_PERCENT: u64 = 90;

/// A message whose deliveries have room. Nothing but this file makes one.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) mail: Judged,
    /// Those of the organizations that it came for, then those that it goes on to.
    pub(super) shares: Vec<AdmittedShare>,
    /// What mailboxes and remote users send on to other servers.
    pub(super) leaving: Vec<Outgoing>,
}

/// One organization's part of an admitted message.
#[derive(Debug)]
pub(super) struct AdmittedShare {
    pub(super) decided: DecidedShare,
    /// The headers that are put on top.
    pub(super) prefix: Vec<u8>,
    pub(super) deliveries: Vec<AdmittedDelivery>,
    /// Mailboxes that are full: one bounce each.
    pub(super) full: Vec<FullMember>,
    /// What users' own rules did.
    pub(super) ruled: Vec<Ruled>,
    /// To whom mailboxes and remote users send it on.
    pub(super) sent_on: Vec<SentOn>,
}

/// What the rules of a mailbox did.
#[derive(Debug)]
pub(super) struct Ruled {
    /// The mailbox's primary address.
    pub(super) mailbox: Address,
    /// The rules that applied, in their order.
    pub(super) applied: Vec<AppliedMailboxRule>,
    /// Why the message does not go on, though a rule says so; then the mailbox keeps it.
    pub(super) withheld: Option<Withheld>,
}

/// A mailbox without room, and the recipient that led to it.
#[derive(Debug)]
pub(super) struct FullMember {
    pub(super) address: Address,
    pub(super) recipient: Address,
}

impl AdmittedShare {
    /// Who did not get it: recipients that bounce, and full mailboxes behind recipients that others
    /// got it through.
    pub(super) fn bounced(&self) -> Vec<(&Address, Reason)> {
        let mut bounced = Vec::new();
        for recipient in &self.decided.recipients {
            if let Disposition::Bounce(reason) = recipient.disposition {
                bounced.push((&recipient.addressee.recipient.address, reason));
            }
        }
        let is_told = |full: &FullMember| {
            let told = |(address, _): &(&Address, Reason)| address.key();
            bounced
                .iter()
                .map(told)
                .any(|key| key == full.recipient.key() || key == full.address.key())
        };
        let of_reached = self.full.iter().filter(|full| !is_told(full));
        let full: Vec<_> = of_reached.map(|full| (&full.address, Reason::MailboxFull)).collect();
        bounced.extend(full);
        bounced
    }
}

/// A delivery with its room.
#[derive(Debug)]
pub(super) struct AdmittedDelivery {
    pub(super) member: Member,
    pub(super) folder: Folder,
    pub(super) room: Reservation,
    /// Further placements in the same mailbox, by rules that copy, count from 1.
    pub(super) copy: usize,
    /// The delivery takes the mailbox past 90 percent.
    pub(super) warns: bool,
}

impl Admitted {
    /// Why the message is refused, if it neither reaches anybody nor is dropped for anybody.
    /// What becomes of it where it goes on to does not count.
    pub(super) fn refusal(&self) -> Option<Reason> {
        let outgoing = self.mail.outgoing.as_ref();
        if outgoing.is_some_and(|outgoing| outgoing.is_taken()) {
            return None;
        }
        let mut first = outgoing.and_then(|outgoing| Some(outgoing.bounced().next()?.1));
        for share in self.shares.iter().filter(|share| share.decided.forwarders.is_empty()) {
            for recipient in &share.decided.recipients {
                match recipient.disposition {
                    Disposition::Bounce(reason) => first = first.or(Some(reason)),
                    Disposition::Deliver(_) | Disposition::Drop => return None,
                }
            }
        }
        first
    }
}

/// Takes room for every delivery, and follows the message to wherever it goes on to here.
pub(super) fn admit(decided: Decided, store: &Store) -> Result<Admitted, StoreError> {
    let Decided { mail, shares } = decided;
    let mut admission = Admission::new(&mail, store);
    let mut waiting = VecDeque::from(shares);
    let mut shares = Vec::with_capacity(waiting.len());
    while let Some(share) = waiting.pop_front() {
        shares.push(admission.admit(share, &mut waiting)?);
    }
    let leaving = admission.leaving;
    Ok(Admitted { mail, shares, leaving })
}

struct Admission<'a> {
    mail: &'a Judged,
    store: &'a Store,
    sorter: Sorter<'a>,
    /// Mailboxes and remote users that ways have led to, and why it does not reach them.
    seen: HashMap<MailboxName, Option<Reason>>,
    leaving: Vec<Outgoing>,
}

/// The message on its way for one recipient of one organization.
struct Arriving<'a> {
    came_for: &'a EnvelopeRecipient,
    folder: Folder,
    /// Octets that it takes in a mailbox.
    size: u64,
}

impl<'a> Admission<'a> {
    fn new(mail: &'a Judged, store: &'a Store) -> Self {
        let sorter = Sorter::new(mail);
        Self { mail, store, sorter, seen: HashMap::new(), leaving: Vec::new() }
    }

    fn admit(
        &mut self,
        mut decided: DecidedShare,
        waiting: &mut VecDeque<DecidedShare>,
    ) -> Result<AdmittedShare, StoreError> {
        let prefix = headers::prefix(self.mail, &decided);
        let size = (prefix.len() + self.mail.content.len()) as u64;
        let mut recipients = std::mem::take(&mut decided.recipients);
        let mut share = AdmittedShare {
            decided,
            prefix,
            deliveries: vec![],
            full: vec![],
            ruled: vec![],
            sent_on: vec![],
        };
        for recipient in &mut recipients {
            if let Disposition::Deliver(folder) = recipient.disposition {
                self.admit_recipient(recipient, folder, size, &mut share, waiting)?;
            }
        }
        share.decided.recipients = recipients;
        Ok(share)
    }

    /// The first recipient in RCPT order that leads to a mailbox decides its folder.
    fn admit_recipient(
        &mut self,
        recipient: &mut DecidedRecipient,
        folder: Folder,
        size: u64,
        share: &mut AdmittedShare,
        waiting: &mut VecDeque<DecidedShare>,
    ) -> Result<(), StoreError> {
        let addressee = &recipient.addressee;
        let arriving = Arriving { came_for: &addressee.recipient, folder, size };
        let mut outcomes = Vec::with_capacity(addressee.members.len() + addressee.remote.len());
        for member in &addressee.members {
            outcomes.push(self.reach_mailbox(member, &arriving, share, waiting)?);
        }
        for remote in &addressee.remote {
            outcomes.push(self.reach_remote(remote, &arriving, share, waiting));
        }
        if let Some(reason) = outcomes.into_iter().collect::<Option<Vec<_>>>() {
            let reason = reason.first().copied().unwrap_or(Reason::MailboxFull);
            recipient.disposition = Disposition::Bounce(reason);
        }
        Ok(())
    }

    /// Delivers to a mailbox as its rules say, unless it has the message already. Says why the
    /// mailbox does not get it.
    fn reach_mailbox(
        &mut self,
        member: &Member,
        arriving: &Arriving<'_>,
        share: &mut AdmittedShare,
        waiting: &mut VecDeque<DecidedShare>,
    ) -> Result<Option<Reason>, StoreError> {
        let name = MailboxName {
            organization: share.decided.organization.id.as_str().into(),
            user: Arc::clone(&member.mailbox),
        };
        if let Some(known) = self.seen.get(&name) {
            return Ok(*known);
        }
        let sorted = self.sorter.sort(&share.decided, member, arriving.came_for, arriving.folder);
        let mailbox = self.store.mailbox(&name)?;
        let failure = if share.keep(&mailbox, member, &sorted, arriving.size) {
            share.ruled.extend(sorted.ruled);
            self.send_on(&member.address, sorted.targets, share, waiting);
            None
        } else {
            share.full.push(FullMember {
                address: member.address.clone(),
                recipient: arriving.came_for.address.clone(),
            });
            Some(Reason::MailboxFull)
        };
        self.seen.insert(name, failure);
        Ok(failure)
    }

    /// Routes the message on to a remote user. Says why it cannot be.
    fn reach_remote(
        &mut self,
        remote: &RemoteMember,
        arriving: &Arriving<'_>,
        share: &mut AdmittedShare,
        waiting: &mut VecDeque<DecidedShare>,
    ) -> Option<Reason> {
        let name = MailboxName {
            organization: share.decided.organization.id.as_str().into(),
            user: remote.address.key().into(),
        };
        if let Some(known) = self.seen.get(&name) {
            return *known;
        }
        let failure = match self.sorter.route_on(&share.decided, remote, arriving.came_for) {
            Ok(target) => {
                self.send_on(&remote.address, vec![target], share, waiting);
                None
            }
            Err(withheld) => Some(reason_of(withheld)),
        };
        self.seen.insert(name, failure);
        failure
    }

    fn send_on(
        &mut self,
        from: &Address,
        targets: Vec<Target>,
        share: &mut AdmittedShare,
        waiting: &mut VecDeque<DecidedShare>,
    ) {
        if targets.is_empty() {
            return;
        }
        let onward = onward::send_on(self.mail, &share.decided, from, targets, self.store);
        share.sent_on.extend(onward.told);
        self.leaving.extend(onward.leaving);
        waiting.extend(onward.here.into_iter().map(|share| decide_share(share, self.mail)));
    }
}

impl AdmittedShare {
    /// Takes room for what a mailbox keeps; false if it has none. A copy that finds no room is left
    /// out where the message itself has found some.
    fn keep(
        &mut self,
        mailbox: &Arc<MailboxHandle>,
        member: &Member,
        sorted: &Sorted,
        size: u64,
    ) -> bool {
        let mut copy = 0;
        let mut is_kept = sorted.folder.is_none() && sorted.copies.is_empty();
        for folder in sorted.folder.iter().chain(&sorted.copies) {
            if let Some(room) = mailbox.reserve(size, member.quota_bytes) {
                is_kept = true;
                let warns = room.crosses(WARN_PERCENT, member.quota_bytes);
                let (member, folder) = (member.clone(), *folder);
                self.deliveries.push(AdmittedDelivery { member, folder, room, copy, warns });
                copy += 1;
            } else if !is_kept {
                return false;
            } else {
                tracing::warn!(mailbox = %member.address, %folder, "no room for a rule's copy");
            }
        }
        is_kept
    }
}

/// Why a remote user does not get a message.
fn reason_of(withheld: Withheld) -> Reason {
    match withheld {
        Withheld::Loop | Withheld::TooManyForwards | Withheld::TooManyTargets => {
            Reason::TooManyHops
        }
        Withheld::NobodyThere => Reason::RemoteUser,
        Withheld::OutboundRule => Reason::OutboundRuleBounce,
    }
}
