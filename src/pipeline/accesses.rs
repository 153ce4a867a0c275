//! Who used which mailbox, for the audit logs: a line for each delivery, and one for a submission.

use super::journal::Journaled;
use crate::events::audit::{MailboxAccess, Occasion};

/// The uses of mailboxes that a message comes to once it is durable.
pub(super) fn accesses(message: &Journaled) -> Vec<MailboxAccess> {
    let mail = &message.admitted.mail;
    let ip = mail.peer.ip.to_canonical();
    let mut accesses = Vec::new();
    if let Some(outgoing) = &mail.outgoing {
        let organization = Some(outgoing.organization.id.as_str());
        let user = mail.peer.login.as_ref().map(|login| &*login.user);
        let occasion = Occasion::new(mail.received_at, outgoing.trace_id, organization, user);
        accesses.push(MailboxAccess::submitted(occasion, ip, user.unwrap_or_default(), true));
    }
    for share in &message.admitted.shares {
        let organization = Some(share.decided.organization.id.as_str());
        for delivery in &share.deliveries {
            let id = share.decided.trace_id;
            let occasion = Occasion::new(mail.received_at, id, organization, None);
            let (owner, folder) = (&delivery.member.mailbox, delivery.folder.as_str());
            accesses.push(MailboxAccess::delivered(occasion, Some(ip), owner, folder));
        }
    }
    accesses
}
