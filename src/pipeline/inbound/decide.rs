//! Stage: what becomes of the message for each recipient, and why. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::directory::Organization;
use crate::id::TraceId;
use crate::mail::{Address, DmarcPolicy, Verdict};
use crate::organization::OnReject;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::snapshot::Snapshot;
use crate::pipeline::facts::transaction::{Addressee, Share};
use crate::pipeline::inbound::authenticate::Authenticated;
use crate::rules::{Authors, Evaluation, InboundAction, Party, RuleSet, Winner};
use crate::smtp::reason::Reason;
use crate::store::Folder;

/// A message for which every recipient has exactly one disposition. Nothing but this file makes
/// one.
#[derive(Debug)]
pub(in crate::pipeline) struct Decided {
    mail: Judged,
    shares: Vec<DecidedShare>,
}

impl Decided {
    pub(in crate::pipeline) fn into_parts(self) -> (Judged, Vec<DecidedShare>) {
        (self.mail, self.shares)
    }
}

/// One organization's part of a decided message.
#[derive(Debug)]
pub(in crate::pipeline) struct DecidedShare {
    organization: Arc<Organization>,
    trace_id: TraceId,
    /// The mailboxes and remote users that have sent it on since it came, the last one first.
    forwarders: Vec<Address>,
    sent_on_from: Option<TraceId>,
    /// The DMARC policy that was applied, if enforcement is on and the check failed.
    dmarc: Option<DmarcPolicy>,
    recipients: Vec<DecidedRecipient>,
}

impl DecidedShare {
    pub(in crate::pipeline) fn organization(&self) -> &Arc<Organization> {
        &self.organization
    }

    pub(in crate::pipeline) fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    pub(in crate::pipeline) fn forwarders(&self) -> &[Address] {
        &self.forwarders
    }

    /// The trace that it was sent on from.
    pub(in crate::pipeline) fn sent_on_from(&self) -> Option<TraceId> {
        self.sent_on_from
    }

    /// Whether it came for the organization, and nobody here has sent it on.
    pub(in crate::pipeline) fn is_first(&self) -> bool {
        self.forwarders.is_empty()
    }

    pub(in crate::pipeline) fn dmarc(&self) -> Option<DmarcPolicy> {
        self.dmarc
    }

    pub(in crate::pipeline) fn recipients(&self) -> &[DecidedRecipient] {
        &self.recipients
    }
}

/// A recipient with its disposition.
#[derive(Debug)]
pub(in crate::pipeline) struct DecidedRecipient {
    addressee: Addressee,
    disposition: Disposition,
    basis: Basis,
    /// The rule of the other field, where nothing proves the `Sender` and it changes the outcome.
    passed_over: Option<Winner<InboundAction>>,
}

impl DecidedRecipient {
    pub(in crate::pipeline) fn addressee(&self) -> &Addressee {
        &self.addressee
    }

    /// The envelope's address.
    pub(in crate::pipeline) fn address(&self) -> &Address {
        &self.addressee.recipient.address
    }

    pub(in crate::pipeline) fn disposition(&self) -> Disposition {
        self.disposition
    }

    pub(in crate::pipeline) fn basis(&self) -> &Basis {
        &self.basis
    }

    pub(in crate::pipeline) fn passed_over(&self) -> Option<&Winner<InboundAction>> {
        self.passed_over.as_ref()
    }
}

/// What becomes of the message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Disposition {
    /// It goes into this folder.
    Deliver(Folder),
    /// It is accepted and discarded.
    Drop,
    /// It is refused if all recipients refuse it, else the sender is told.
    Bounce(Reason),
    /// It would bounce, but its mailbox has the message by another recipient.
    ReachedAnyway,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Basis {
    /// This rule.
    Rule(Winner<InboundAction>),
    /// A rule that leaves it to the spam verdict, or none: the verdict, or a DMARC quarantine.
    Spam {
        /// The *Default* rule, if one matched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<Winner<InboundAction>>,
        /// Whether the spam verdict or the DMARC policy says junk.
        because: SpamBasis,
    },
    /// The DMARC policy of the author's domain.
    Dmarc,
}

/// Why a message without a decisive rule is junk, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SpamBasis {
    /// Nothing speaks against it.
    NotSpam,
    /// The scanner's verdict is FAIL.
    SpamVerdict,
    /// The policy of the author's domain is quarantine.
    DmarcQuarantine,
}

impl Basis {
    /// The rule that won, if one did.
    pub fn rule(&self) -> Option<&Winner<InboundAction>> {
        match self {
            Self::Rule(rule) => Some(rule),
            Self::Spam { rule, .. } => rule.as_ref(),
            Self::Dmarc => None,
        }
    }

    /// Whether it delivers, and not as spam.
    pub(in crate::pipeline) fn leads_to_inbox(&self) -> bool {
        match self {
            Self::Rule(rule) => rule.action == InboundAction::BypassSpamCheck,
            Self::Spam { because, .. } => *because == SpamBasis::NotSpam,
            Self::Dmarc => false,
        }
    }
}

/// Decides for every recipient.
pub(in crate::pipeline) fn decide(message: Authenticated) -> Decided {
    let (mail, shares) = message.into_parts();
    let shares = shares.into_iter().map(|share| decide_share(share, &mail)).collect();
    Decided { mail, shares }
}

/// Decides for the recipients of one organization.
pub(in crate::pipeline) fn decide_share(share: Share, mail: &Judged) -> DecidedShare {
    let snapshot = mail.snapshot();
    let policy = snapshot.policies.get(&share.organization.id);
    let is_enforced = policy.is_some_and(|policy| policy.dmarc_enforcement);
    let dmarc = mail.road().failed_policy().filter(|_| is_enforced);
    let refused = (dmarc == Some(DmarcPolicy::Reject)).then(|| {
        let own = policy.and_then(|policy| policy.on_reject);
        match own.unwrap_or(snapshot.settings.on_reject) {
            OnReject::Reject => Disposition::Bounce(Reason::DmarcReject),
            OnReject::Drop => Disposition::Drop,
        }
    });
    let spam = match dmarc {
        _ if mail.road().spam() == Verdict::Fail => SpamBasis::SpamVerdict,
        Some(DmarcPolicy::Quarantine) => SpamBasis::DmarcQuarantine,
        _ => SpamBasis::NotSpam,
    };
    let rules = policy.map(|policy| &*policy.rules).filter(|rules| !rules.is_empty());
    let rules = rules.filter(|_| refused.is_none()).map(|rules| (rules, mail.authors()));
    let mut recipients = Vec::with_capacity(share.addressees.len());
    for addressee in share.addressees {
        recipients.push(match (refused, &rules) {
            (Some(disposition), _) => {
                DecidedRecipient { addressee, disposition, basis: Basis::Dmarc, passed_over: None }
            }
            (None, None) => by_rule(addressee, None, spam),
            (None, Some(_)) if leads_back(&addressee, mail) => by_rule(addressee, None, spam),
            (None, Some((rules, authors))) => {
                let Evaluation { winner, passed_over } =
                    evaluate(rules, authors, &addressee, snapshot);
                DecidedRecipient { passed_over, ..by_rule(addressee, winner, spam) }
            }
        });
    }
    let Share { organization, trace_id, forwarders, sent_on_from, .. } = share;
    DecidedShare { organization, trace_id, forwarders, sent_on_from, dmarc, recipients }
}

fn leads_back(addressee: &Addressee, mail: &Judged) -> bool {
    addressee.remote.iter().any(|remote| mail.is_led_back(&remote.address))
}

/// The rule that wins for a recipient; one is passed over only if it is another.
fn evaluate(
    rules: &RuleSet<InboundAction>,
    authors: &Authors<'_>,
    addressee: &Addressee,
    snapshot: &Snapshot,
) -> Evaluation<InboundAction> {
    let meant = snapshot.meant(&addressee.recipient.address);
    let recipient = Party::of(&meant, &snapshot.directory);
    let mut evaluation = rules.evaluate(authors, &recipient);
    let won = evaluation.winner.as_ref().map(|winner| &winner.name);
    evaluation.passed_over.take_if(|other| Some(&other.name) == won);
    evaluation
}

fn by_rule(
    addressee: Addressee,
    winner: Option<Winner<InboundAction>>,
    spam: SpamBasis,
) -> DecidedRecipient {
    let by_spam = match spam {
        SpamBasis::NotSpam => Folder::Inbox,
        SpamBasis::SpamVerdict | SpamBasis::DmarcQuarantine => Folder::JunkEmail,
    };
    let (disposition, basis) = match winner {
        None => (Disposition::Deliver(by_spam), Basis::Spam { rule: None, because: spam }),
        Some(winner) => match winner.action {
            InboundAction::Drop => (Disposition::Drop, Basis::Rule(winner)),
            InboundAction::Bounce => (Disposition::Bounce(Reason::RuleBounce), Basis::Rule(winner)),
            InboundAction::MoveToJunk => {
                (Disposition::Deliver(Folder::JunkEmail), Basis::Rule(winner))
            }
            InboundAction::BypassSpamCheck => {
                (Disposition::Deliver(Folder::Inbox), Basis::Rule(winner))
            }
            InboundAction::Default => {
                (Disposition::Deliver(by_spam), Basis::Spam { rule: Some(winner), because: spam })
            }
        },
    };
    DecidedRecipient { addressee, disposition, basis, passed_over: None }
}
