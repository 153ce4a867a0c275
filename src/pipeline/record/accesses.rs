//! Who used which mailbox, for the audit logs: a line for each delivery, one for a submission, and one
//! for each mailbox that has no room.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::events::audit::{MailboxAccess, Occasion};
use crate::id::{EntityId, TraceId};
use crate::mail::{Login, Peer};
use crate::pipeline::delivery::admit::Admitted;
use crate::pipeline::record::journal::Journaled;

/// The uses of mailboxes that a message comes to once it is durable.
pub(in crate::pipeline) fn accesses(message: &Journaled) -> Vec<MailboxAccess> {
    let admitted = &message.admitted;
    let mail = &admitted.mail;
    let ip = mail.peer.ip.to_canonical();
    let deliveries = message.admitted.shares.iter().map(|share| share.deliveries.len());
    let mut accesses = Vec::with_capacity(deliveries.sum::<usize>() + 1);
    if let (Some(outgoing), Some(login)) = (&mail.outgoing, &mail.peer.login) {
        let organization = (&outgoing.organization.id).into();
        let (at, id) = (mail.received_at, outgoing.trace_id);
        let occasion = Occasion::new(at, id, Some(organization), Some(login.id.clone()));
        accesses.push(MailboxAccess::submitted(occasion, ip, login.id.clone(), true));
    }
    for share in &message.admitted.shares {
        let organization = (&share.decided.organization.id).into();
        let (at, id) = (mail.received_at, share.decided.trace_id);
        let occasion = Occasion::new(at, id, Some(organization), None);
        accesses.extend(share.deliveries.iter().map(|delivery| {
            let owner = delivery.member.id.clone();
            MailboxAccess::delivered(occasion.clone(), Some(ip), owner, delivery.folder.as_str())
        }));
    }
    accesses.extend(without_room(admitted));
    accesses
}

/// The mailboxes that have no room for a message.
pub(in crate::pipeline) fn without_room(admitted: &Admitted) -> Vec<MailboxAccess> {
    let mail = &admitted.mail;
    let mut accesses = Vec::new();
    for share in &admitted.shares {
        let decided = &share.decided;
        for full in &share.full {
            let refused = NoRoom {
                id: decided.trace_id,
                organization: (&decided.organization.id).into(),
                owner: full.id.clone(),
            };
            accesses.push(refused.access(&mail.peer, mail.received_at));
        }
    }
    accesses
}

/// A mailbox that has no room for what a peer would send.
pub(in crate::pipeline) struct NoRoom {
    /// The organization's trace of the message.
    pub(in crate::pipeline) id: TraceId,
    pub(in crate::pipeline) organization: Arc<str>,
    /// Whose mailbox it is.
    pub(in crate::pipeline) owner: EntityId,
}

impl NoRoom {
    pub(in crate::pipeline) fn access(self, peer: &Peer, at: Timestamp) -> MailboxAccess {
        let occasion = Occasion::new(at, self.id, Some(self.organization), None);
        MailboxAccess::without_room(occasion, peer.ip.to_canonical(), self.owner)
    }
}

/// A message that a user may not submit.
pub(in crate::pipeline) fn denied(
    id: TraceId,
    peer: &Peer,
    login: &Login,
    at: Timestamp,
) -> MailboxAccess {
    let organization = Arc::clone(&login.organization);
    let occasion = Occasion::new(at, id, Some(organization), Some(login.id.clone()));
    MailboxAccess::submitted(occasion, peer.ip.to_canonical(), login.id.clone(), false)
}
