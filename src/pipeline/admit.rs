//! Stage: room in the mailboxes. A mailbox gets a message once, however many ways lead to it,
//! and one that is full turns its delivery into a bounce.

use std::collections::HashMap;
use std::sync::Arc;

use super::decide::{Decided, DecidedRecipient, DecidedShare, Disposition, Judged};
use super::headers;
use crate::directory::Member;
use crate::mail::Address;
use crate::smtp::reason::Reason;
use crate::store::{Folder, MailboxName, Reservation, Store, StoreError};

/// How full a mailbox is when its user is warned, in percent of its quota.
const WARN_PERCENT: u64 = 90;

/// A message whose deliveries have room. Nothing but this file makes one.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) mail: Judged,
    pub(super) shares: Vec<AdmittedShare>,
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
    /// The delivery takes the mailbox past 90 percent.
    pub(super) warns: bool,
}

impl Admitted {
    /// Why the message is refused, if it neither reaches anybody nor is dropped for anybody.
    pub(super) fn refusal(&self) -> Option<Reason> {
        let outgoing = self.mail.outgoing.as_ref();
        if outgoing.is_some_and(|outgoing| outgoing.is_taken()) {
            return None;
        }
        let mut first = outgoing.and_then(|outgoing| Some(outgoing.bounced().next()?.1));
        for share in &self.shares {
            if !share.deliveries.is_empty() {
                return None;
            }
            for recipient in &share.decided.recipients {
                match recipient.disposition {
                    Disposition::Bounce(reason) => first = first.or(Some(reason)),
                    Disposition::Deliver(_) => first = first.or(Some(Reason::MailboxFull)),
                    Disposition::Drop => return None,
                }
            }
        }
        first
    }
}

/// Takes room for every delivery.
pub(super) fn admit(decided: Decided, store: &Store) -> Result<Admitted, StoreError> {
    let Decided { mail, shares } = decided;
    let shares = shares
        .into_iter()
        .map(|share| admit_share(share, &mail, store))
        .collect::<Result<_, _>>()?;
    Ok(Admitted { mail, shares })
}

fn admit_share(
    decided: DecidedShare,
    mail: &Judged,
    store: &Store,
) -> Result<AdmittedShare, StoreError> {
    let prefix = headers::prefix(mail, &decided);
    let size = (prefix.len() + mail.content.len()) as u64;
    let mut seen = HashMap::new();
    let mut share = AdmittedShare { prefix, deliveries: vec![], full: vec![], decided };
    let mut recipients = std::mem::take(&mut share.decided.recipients);
    for recipient in &mut recipients {
        if let Disposition::Deliver(folder) = recipient.disposition {
            admit_recipient(recipient, folder, size, &mut seen, &mut share, store)?;
        }
    }
    share.decided.recipients = recipients;
    Ok(share)
}

/// The first recipient in RCPT order that leads to a mailbox decides its folder.
fn admit_recipient(
    recipient: &mut DecidedRecipient,
    folder: Folder,
    size: u64,
    seen: &mut HashMap<Arc<str>, bool>,
    share: &mut AdmittedShare,
    store: &Store,
) -> Result<(), StoreError> {
    let mut reaches_any = false;
    for member in &recipient.addressee.members {
        if let Some(has_room) = seen.get(&member.mailbox) {
            reaches_any |= has_room;
            continue;
        }
        let name = MailboxName {
            organization: share.decided.organization.id.as_str().into(),
            user: Arc::clone(&member.mailbox),
        };
        let room = store.mailbox(&name)?.reserve(size, member.quota_bytes);
        seen.insert(Arc::clone(&member.mailbox), room.is_some());
        match room {
            Some(room) => {
                reaches_any = true;
                let warns = room.crosses(WARN_PERCENT, member.quota_bytes);
                let member = member.clone();
                share.deliveries.push(AdmittedDelivery { member, folder, room, warns });
            }
            None => share.full.push(FullMember {
                address: member.address.clone(),
                recipient: recipient.addressee.recipient.address.clone(),
            }),
        }
    }
    if !reaches_any {
        recipient.disposition = Disposition::Bounce(Reason::MailboxFull);
    }
    Ok(())
}
