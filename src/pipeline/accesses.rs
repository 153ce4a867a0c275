//! Who used which mailbox, for the audit logs: a line for each delivery, and one for a submission.

use std::sync::Arc;

use super::journal::Journaled;
use crate::clock::Timestamp;
use crate::events::audit::{MailboxAccess, Occasion};
use crate::id::TraceId;
use crate::mail::{Login, Peer};

/// The uses of mailboxes that a message comes to once it is durable.
pub(super) fn accesses(message: &Journaled) -> Vec<MailboxAccess> {
    let mail = &message.admitted.mail;
    let ip = mail.peer.ip.to_canonical();
    let deliveries = message.admitted.shares.iter().map(|share| share.deliveries.len());
    let mut accesses = Vec::with_capacity(deliveries.sum::<usize>() + 1);
    if let (Some(outgoing), Some(login)) = (&mail.outgoing, &mail.peer.login) {
        let (organization, user) = ((&outgoing.organization.id).into(), Arc::clone(&login.user));
        let (at, id) = (mail.received_at, outgoing.trace_id);
        let occasion = Occasion::new(at, id, Some(organization), Some(Arc::clone(&user)));
        accesses.push(MailboxAccess::submitted(occasion, ip, user, true));
    }
    for share in &message.admitted.shares {
        let organization = (&share.decided.organization.id).into();
        let (at, id) = (mail.received_at, share.decided.trace_id);
        let occasion = Occasion::new(at, id, Some(organization), None);
        accesses.extend(share.deliveries.iter().map(|delivery| {
            let owner = Arc::clone(&delivery.member.mailbox);
            MailboxAccess::delivered(occasion.clone(), Some(ip), owner, delivery.folder.as_str())
        }));
    }
    accesses
}

/// A message that a user may not submit.
pub(super) fn denied(id: TraceId, peer: &Peer, login: &Login, at: Timestamp) -> MailboxAccess {
    let (organization, user) = (Arc::clone(&login.organization), Arc::clone(&login.user));
    let occasion = Occasion::new(at, id, Some(organization), Some(Arc::clone(&user)));
    MailboxAccess::submitted(occasion, peer.ip.to_canonical(), user, false)
}
