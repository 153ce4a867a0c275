//! Stage: room in the mailboxes. A mailbox gets a message once, however many ways lead to it,
//! and one that is full turns its delivery into a bounce.

use std::collections::HashSet;
use std::sync::Arc;

use super::decide::{Decided, DecidedRecipient, DecidedShare, Disposition, Judged};
use super::headers;
use crate::directory::Member;
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
    pub(super) full: Vec<Member>,
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
        let mut first = None;
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
    mut decided: DecidedShare,
    mail: &Judged,
    store: &Store,
) -> Result<AdmittedShare, StoreError> {
    let prefix = headers::prefix(mail, &decided);
    let size = (prefix.len() + mail.content.len()) as u64;
    let mut seen = HashSet::new();
    let mut share = AdmittedShare {
        prefix,
        deliveries: vec![],
        full: vec![],
        decided: DecidedShare {
            recipients: Vec::new(),
            organization: Arc::clone(&decided.organization),
            trace_id: decided.trace_id,
            dmarc: decided.dmarc,
        },
    };
    for recipient in &mut decided.recipients {
        if let Disposition::Deliver(folder) = recipient.disposition {
            admit_recipient(recipient, folder, size, &mut seen, &mut share, store)?;
        }
    }
    share.decided.recipients = decided.recipients;
    Ok(share)
}

/// The first recipient in RCPT order that leads to a mailbox decides its folder.
fn admit_recipient(
    recipient: &mut DecidedRecipient,
    folder: Folder,
    size: u64,
    seen: &mut HashSet<Arc<str>>,
    share: &mut AdmittedShare,
    store: &Store,
) -> Result<(), StoreError> {
    let mut reaches_any = false;
    for member in &recipient.addressee.members {
        if !seen.insert(Arc::clone(&member.mailbox)) {
            reaches_any = true;
            continue;
        }
        let name = MailboxName {
            organization: share.decided.organization.id.as_str().into(),
            user: Arc::clone(&member.mailbox),
        };
        match store.mailbox(&name)?.reserve(size, member.quota_bytes) {
            Some(room) => {
                reaches_any = true;
                let warns = room.crosses(WARN_PERCENT, member.quota_bytes);
                let member = member.clone();
                share.deliveries.push(AdmittedDelivery { member, folder, room, warns });
            }
            None => share.full.push(member.clone()),
        }
    }
    if !reaches_any {
        recipient.disposition = Disposition::Bounce(Reason::MailboxFull);
    }
    Ok(())
}
