//! Stage: what leaves bears the signatures of its authors' domains.

use crate::domains::DomainKeys;
use crate::heavy::Turn;
use crate::mail::author_domains;
use crate::msgauth::SignError;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::Outgoing;
use crate::pipeline::facts::received::Received;
use crate::pipeline::facts::signatures::Signatures;

/// Makes the fields on top of a submitted message that leaves, also from a mailbox that sends
/// it on: `Received`, then the signatures of each author's domain over everything below them, if it
/// has keys.
///
/// # Errors
/// The message cannot be signed; it must not leave unsigned then.
pub(in crate::pipeline) fn sign(
    turn: &Turn,
    mail: &mut Judged,
    leaving: &mut [Outgoing],
    keys: &DomainKeys,
) -> Result<(), SignError> {
    let snapshot = &mail.snapshot;
    let peer = &mail.peer;
    let at = mail.received_at;
    let Some(outgoing) = mail.outgoing.as_deref_mut() else { return Ok(()) };
    if !outgoing.leaves() && leaving.is_empty() {
        return Ok(());
    }
    let hostname = &snapshot.settings.hostname;
    let id = outgoing.trace_id;
    let mut prefix = Received { peer, name: None, hostname, id, recipient: None }.at(at);
    for domain in author_domains(&mail.headers.authors) {
        let Some(signer) = keys.signer_for(domain) else {
            outgoing.signatures.push(Signatures::missing(domain.as_str()));
            continue;
        };
        prefix.push_str(&signer.sign(turn, &[&outgoing.added, &mail.content], at)?);
        outgoing.signatures.push(Signatures::by(&signer));
    }
    outgoing.prefix = [prefix.as_bytes(), &outgoing.added].concat();
    for onward in leaving {
        onward.prefix.extend_from_slice(&outgoing.prefix);
        onward.signatures.clone_from(&outgoing.signatures);
    }
    Ok(())
}
