//! What is known of a message once its verdicts are made: what every later stage goes by.

use super::begun::Begun;
use super::headers::Headers;
use super::outgoing::Outgoing;
use super::road::{Arrival, Road};
use super::snapshot::Snapshot;
use super::transaction::{Share, Transaction};
use super::verdicts::{Proof, Verdicts};
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, MailParameters, Peer, ReversePath, Srs, Verdict};
use crate::rules::{Authors, Party, Sender};

/// What is the same for all recipients of a message.
#[derive(Debug)]
pub(in crate::pipeline) struct Judged {
    begun: Begun,
    content: Vec<u8>,
    headers: Headers,
    received_at: Timestamp,
    /// What proves that the `Sender` field, if there is one, tells the truth.
    sender_proof: Option<Proof>,
    road: Road,
}

impl Judged {
    /// A message that another server has brought, and the organizations' shares of it.
    pub(in crate::pipeline) fn received(
        transaction: Transaction,
        content: Vec<u8>,
        headers: Headers,
        verdicts: Verdicts,
        received_at: Timestamp,
    ) -> (Self, Vec<Share>) {
        let (begun, shares, full) = transaction.into_parts();
        let road = Road::Received(Box::new(Arrival { verdicts, full }));
        (Self::new(begun, content, headers, road, received_at), shares)
    }

    /// A message that a user here has submitted.
    pub(in crate::pipeline) fn submitted(
        begun: Begun,
        content: Vec<u8>,
        headers: Headers,
        outgoing: Outgoing,
        received_at: Timestamp,
    ) -> Self {
        let road = Road::Submitted(Box::new(outgoing));
        Self::new(begun, content, headers, road, received_at)
    }

    fn new(
        begun: Begun,
        content: Vec<u8>,
        headers: Headers,
        road: Road,
        received_at: Timestamp,
    ) -> Self {
        let sender = headers.sender();
        let sender_proof = sender.and_then(|sender| road.proof_of(sender.domain()));
        Self { begun, content, headers, received_at, sender_proof, road }
    }

    pub(in crate::pipeline) fn trace_id(&self) -> TraceId {
        self.begun.trace_id
    }

    pub(in crate::pipeline) fn snapshot(&self) -> &Snapshot {
        &self.begun.snapshot
    }

    pub(in crate::pipeline) fn peer(&self) -> &Peer {
        &self.begun.peer
    }

    pub(in crate::pipeline) fn reverse_path(&self) -> &ReversePath {
        &self.begun.reverse_path
    }

    pub(in crate::pipeline) fn parameters(&self) -> &MailParameters {
        &self.begun.parameters
    }

    pub(in crate::pipeline) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(in crate::pipeline) fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(in crate::pipeline) fn received_at(&self) -> Timestamp {
        self.received_at
    }

    pub(in crate::pipeline) fn sender_proof(&self) -> Option<Proof> {
        self.sender_proof
    }

    pub(in crate::pipeline) fn road(&self) -> &Road {
        &self.road
    }

    /// What is made durable of it as it is: its content, and what was counted on its road.
    pub(in crate::pipeline) fn into_parts(self) -> (Vec<u8>, Road) {
        (self.content, self.road)
    }

    /// Whom the header says that it is from, as inbound rules know them.
    pub(in crate::pipeline) fn authors(&self) -> Authors<'_> {
        let directory = &self.snapshot().directory;
        let sender = self.headers.sender().map(|sender| Sender {
            party: Party::of(sender, directory),
            is_proven: self.sender_proof.is_some(),
        });
        let authors = self.headers.authors().iter();
        let from = authors.map(|author| Party::of(author, directory)).collect();
        Authors { sender, from }
    }

    /// Whether the sender may be told of what becomes of it: not if the author or the reverse-path
    /// is found to be forged, because then somebody else would be told.
    pub(in crate::pipeline) fn may_tell_sender(&self) -> bool {
        self.road.dmarc() != Verdict::Fail && self.road.spf() != Verdict::Fail
    }

    /// Whether no report of it is ever sent (RFC 5321 §6.1 for the null path). What would be lost
    /// without a word, because nobody may be told that there is no room, goes over the quota of a
    /// mailbox that is not full yet: once, since then it is.
    pub(in crate::pipeline) fn is_never_reported(&self) -> bool {
        *self.reverse_path() == ReversePath::Null || !self.may_tell_sender()
    }

    /// Whether the reverse-path is known to be the sender's: of a user who has logged in, or by SPF.
    pub(in crate::pipeline) fn is_sender_proven(&self) -> bool {
        match &self.road {
            Road::Received(_) => self.road.spf() == Verdict::Pass,
            Road::Submitted(_) => true,
        }
    }

    /// Whether it says that it is from a domain here, or from another domain of an organization that
    /// has one here, without proof. Sent on from here it would have one, because it would come from
    /// our servers with an envelope sender of ours (RFC 9989 §4.4.1: domains of one organization are
    /// aligned).
    pub(in crate::pipeline) fn is_author_unproven(&self) -> bool {
        let Road::Received(arrival) = &self.road else { return false };
        let directory = &self.snapshot().directory;
        let dmarc = &arrival.verdicts.authentication.dmarc;
        let is_related = |author: &Address| directory.is_related(author.domain());
        self.road.dmarc() != Verdict::Pass
            && (self.headers.authors().iter().any(is_related)
                || dmarc.organizational_domain().is_some_and(|it| directory.is_above_ours(it)))
    }

    /// Whether it is a bounce of what was forwarded, on its way back through `from` to who sent that.
    /// It is sent to nobody inside (guide 3703) and written by nobody here, so rules that drop or
    /// bounce are not for it, as they are not for reports of ours (`Sending::destination`): else who
    /// has sent the message would never learn that it was not delivered.
    pub(in crate::pipeline) fn is_led_back(&self, from: &Address) -> bool {
        *self.reverse_path() == ReversePath::Null && Srs::is_rewritten(from)
    }
}
