//! What is known of a message once its verdicts are made: what every later stage goes by.

use std::sync::Arc;

use super::headers::Headers;
use super::outgoing::Outgoing;
use super::snapshot::Snapshot;
use super::transaction::FullMailbox;
use super::verdicts::{Proof, Verdicts};
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, MailParameters, Peer, ReversePath, Srs, Verdict};
use crate::rules::{Authors, Party, Sender};

/// What is the same for all recipients of a message.
#[derive(Debug)]
pub(in crate::pipeline) struct Judged {
    pub(in crate::pipeline) trace_id: TraceId,
    pub(in crate::pipeline) snapshot: Arc<Snapshot>,
    pub(in crate::pipeline) peer: Peer,
    pub(in crate::pipeline) reverse_path: ReversePath,
    pub(in crate::pipeline) parameters: MailParameters,
    pub(in crate::pipeline) content: Vec<u8>,
    pub(in crate::pipeline) headers: Headers,
    pub(in crate::pipeline) received_at: Timestamp,
    pub(in crate::pipeline) verdicts: Verdicts,
    /// What proves that the `Sender` field, if there is one, tells the truth.
    pub(in crate::pipeline) sender_proof: Option<Proof>,
    pub(in crate::pipeline) full: Vec<FullMailbox>,
    /// The outbound half of a submitted message.
    pub(in crate::pipeline) outgoing: Option<Box<Outgoing>>,
}

impl Judged {
    /// Whom the header says that it is from, as inbound rules know them.
    pub(in crate::pipeline) fn authors(&self) -> Authors<'_> {
        let directory = &self.snapshot.directory;
        let sender = self.headers.sender.as_ref().map(|sender| Sender {
            party: Party::of(sender, directory),
            is_proven: self.sender_proof.is_some(),
        });
        let authors = self.headers.authors.iter();
        let from = authors.map(|author| Party::of(author, directory)).collect();
        Authors { sender, from }
    }

    /// Whether the sender may be told of what becomes of it: not if the author or the reverse-path
    /// is found to be forged, because then somebody else would be told.
    pub(in crate::pipeline) fn may_tell_sender(&self) -> bool {
        self.verdicts.dmarc() != Verdict::Fail && self.verdicts.spf() != Verdict::Fail
    }

    /// Whether no report of it is ever sent (RFC 5321 §6.1 for the null path).
    pub(in crate::pipeline) fn is_never_reported(&self) -> bool {
        self.reverse_path == ReversePath::Null || !self.may_tell_sender()
    }

    /// What a mailbox that keeps it may hold afterwards. What would be lost without a word, because
    /// nobody may be told that there is no room, goes over the quota of a mailbox that is not full
    /// yet: once, since then it is.
    pub(in crate::pipeline) fn room_in(&self, used_bytes: u64, quota_bytes: u64) -> u64 {
        if self.is_never_reported() && used_bytes < quota_bytes { u64::MAX } else { quota_bytes }
    }

    /// Whether the reverse-path is known to be the sender's: of a user who has logged in, or by SPF.
    pub(in crate::pipeline) fn is_sender_proven(&self) -> bool {
        self.outgoing.is_some() || self.verdicts.spf() == Verdict::Pass
    }

    /// Whether it says that it is from a domain here, or from another domain of an organization that
    /// has one here, without proof. Sent on from here it would have one, because it would come from
    /// our servers with an envelope sender of ours (RFC 9989 §4.4.1: domains of one organization are
    /// aligned).
    pub(in crate::pipeline) fn is_author_unproven(&self) -> bool {
        let directory = &self.snapshot.directory;
        let is_related = |author: &Address| directory.is_related(author.domain());
        self.outgoing.is_none()
            && self.verdicts.dmarc() != Verdict::Pass
            && (self.headers.authors.iter().any(is_related)
                || self
                    .verdicts
                    .organizational_domain()
                    .is_some_and(|it| directory.is_above_ours(it)))
    }

    /// Whether it is a bounce of what was forwarded, on its way back through `from` to who sent that.
    /// It is sent to nobody inside (guide 3703) and written by nobody here, so rules that drop or
    /// bounce are not for it, as they are not for reports of ours (`Sending::destination`): else who
    /// has sent the message would never learn that it was not delivered.
    pub(in crate::pipeline) fn is_led_back(&self, from: &Address) -> bool {
        self.reverse_path == ReversePath::Null && Srs::is_rewritten(from)
    }
}
