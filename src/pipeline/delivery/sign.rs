//! Stage: what leaves bears the signatures of its authors' domains.

use crate::domains::DomainKeys;
use crate::heavy::Turn;
use crate::mail::author_domains;
use crate::msgauth::SignError;
use crate::pipeline::delivery::admit::Admitted;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::received::Received;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::signatures::Signatures;

/// A message whose authors' domains have signed what of it leaves. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Signed {
    admitted: Admitted,
    top: Top,
}

/// What stands on top of a submitted message where it leaves; of other mail, which leaves as it came,
/// nothing.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Top {
    fields: Vec<u8>,
    signatures: Vec<Signatures>,
}

impl Signed {
    pub(in crate::pipeline) fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    pub(in crate::pipeline) fn top(&self) -> &Top {
        &self.top
    }

    pub(in crate::pipeline) fn into_parts(self) -> (Admitted, Top) {
        (self.admitted, self.top)
    }
}

impl Top {
    pub(in crate::pipeline) fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Those of its authors' domains.
    pub(in crate::pipeline) fn signatures(&self) -> &[Signatures] {
        &self.signatures
    }

    /// Makes the fields on top of a message that is submitted: `Received`, then the signatures of each
    /// author's domain over everything below them, if it has keys.
    ///
    /// # Errors
    /// The message cannot be signed; it must not leave unsigned then.
    pub(in crate::pipeline) fn of(
        turn: &Turn,
        mail: &Judged,
        keys: &DomainKeys,
    ) -> Result<Self, SignError> {
        let Road::Submitted(outgoing) = mail.road() else { return Ok(Self::default()) };
        let peer = mail.peer();
        let at = mail.received_at();
        let id = outgoing.trace_id;
        let hostname = &mail.snapshot().settings.hostname;
        let mut fields = Received { peer, name: None, hostname, id, recipient: None }.at(at);
        let mut signatures = Vec::new();
        for domain in author_domains(mail.headers().authors()) {
            let Some(signer) = keys.signer_for(domain) else {
                signatures.push(Signatures::missing(domain.as_str()));
                continue;
            };
            fields.push_str(&signer.sign(turn, &[&outgoing.added, mail.content()], at)?);
            signatures.push(Signatures::by(&signer));
        }
        let fields = [fields.as_bytes(), &outgoing.added].concat();
        Ok(Self { fields, signatures })
    }
}

/// Signs a submitted message that leaves, also from a mailbox that sends it on.
///
/// # Errors
/// The message cannot be signed; it must not leave unsigned then.
pub(in crate::pipeline) fn sign(
    turn: &Turn,
    admitted: Admitted,
    keys: &DomainKeys,
) -> Result<Signed, SignError> {
    let leaves = match admitted.mail().road() {
        Road::Received(_) => false,
        Road::Submitted(outgoing) => outgoing.leaves() || !admitted.leaving().is_empty(),
    };
    let top = if leaves { Top::of(turn, admitted.mail(), keys)? } else { Top::default() };
    Ok(Signed { admitted, top })
}
