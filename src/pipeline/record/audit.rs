//! Stage: who uses which mailbox, for the audit logs: a line for each delivery, one for a submission,
//! and one for each mailbox that has no room. Found out before the commit, told after it.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::events::audit::{AuditLog, MailboxAccess, Occasion};
use crate::id::{EntityId, TraceId};
use crate::mail::{Login, Peer};
use crate::pipeline::delivery::admit::Admitted;
use crate::pipeline::facts::road::Road;
use crate::pipeline::record::claim::Claimed;
use crate::pipeline::record::commit::Committed;

/// The uses of mailboxes that a message comes to. Nothing but this file makes them.
#[derive(Debug)]
pub(in crate::pipeline) struct Accesses {
    accesses: Vec<MailboxAccess>,
}

impl Accesses {
    /// Tells of them, now that they are so.
    pub(in crate::pipeline) fn tell(self, _: &Committed, audit: &AuditLog) {
        audit.record_all(self.accesses);
    }
}

/// Finds out who uses which mailbox once a message is durable.
pub(in crate::pipeline) fn audit(message: &Claimed) -> Accesses {
    let admitted = message.signed().admitted();
    let mail = admitted.mail();
    let ip = mail.peer().ip.to_canonical();
    let at = mail.received_at();
    let mut accesses = Vec::with_capacity(admitted.deliveries() + 1);
    if let (Road::Submitted(outgoing), Some(login)) = (mail.road(), &mail.peer().login) {
        let organization = (&outgoing.organization.id).into();
        let id = outgoing.trace_id;
        let occasion = Occasion::new(at, id, Some(organization), Some(login.id.clone()));
        accesses.push(MailboxAccess::submitted(occasion, ip, login.id.clone(), true));
    }
    for share in admitted.shares() {
        let organization = (&share.decided().organization().id).into();
        let occasion = Occasion::new(at, share.decided().trace_id(), Some(organization), None);
        accesses.extend(share.deliveries().iter().map(|delivery| {
            let owner = delivery.member().id.clone();
            let folder = delivery.folder().as_str();
            MailboxAccess::delivered(occasion.clone(), Some(ip), owner, folder)
        }));
    }
    accesses.extend(without_room(admitted));
    Accesses { accesses }
}

/// The mailboxes that have no room for a message.
pub(in crate::pipeline) fn without_room(admitted: &Admitted) -> Vec<MailboxAccess> {
    let mail = admitted.mail();
    let mut accesses = Vec::new();
    for share in admitted.shares() {
        let decided = share.decided();
        for full in share.full() {
            let id = decided.trace_id();
            let organization = (&decided.organization().id).into();
            let refused = NoRoom::new(id, organization, full.id().clone());
            accesses.push(refused.access(mail.peer(), mail.received_at()));
        }
    }
    accesses
}

/// A mailbox that has no room for what a peer would send.
pub(in crate::pipeline) struct NoRoom {
    id: TraceId,
    organization: Arc<str>,
    owner: EntityId,
}

impl NoRoom {
    /// Under the organization's trace of the message, in the mailbox of `owner`.
    pub(in crate::pipeline) fn new(id: TraceId, organization: Arc<str>, owner: EntityId) -> Self {
        Self { id, organization, owner }
    }

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
