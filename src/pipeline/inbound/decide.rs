//! Stage: what becomes of the message for each recipient, and why. Pure.

use std::sync::Arc;

use serde::Serialize;

use crate::directory::Organization;
use crate::id::TraceId;
use crate::mail::{Address, DmarcPolicy, Verdict};
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::settings::OnReject;
use crate::pipeline::facts::snapshot::{Policy, Snapshot};
use crate::pipeline::facts::transaction::{Addressee, Share};
use crate::pipeline::facts::verdicts::Verdicts;
use crate::pipeline::inbound::authenticate::Authenticated;
use crate::rules::{Authors, Evaluation, InboundAction, Party, RuleSet, Winner};
use crate::smtp::reason::Reason;
use crate::store::Folder;

/// A message for which every recipient has exactly one disposition. Nothing but this file makes
/// one.
#[derive(Debug)]
pub(in crate::pipeline) struct Decided {
    pub(in crate::pipeline) mail: Judged,
    pub(in crate::pipeline) shares: Vec<DecidedShare>,
}

/// One organization's part of a decided message.
#[derive(Debug)]
pub(in crate::pipeline) struct DecidedShare {
    pub(in crate::pipeline) organization: Arc<Organization>,
    pub(in crate::pipeline) trace_id: TraceId,
    /// The mailboxes and remote users that have sent it on since it came, the last one first.
    pub(in crate::pipeline) forwarders: Vec<Address>,
    /// The DMARC policy that was applied, if enforcement is on and the check failed.
    pub(in crate::pipeline) dmarc: Option<DmarcPolicy>,
    pub(in crate::pipeline) recipients: Vec<DecidedRecipient>,
}

/// A recipient with its disposition.
#[derive(Debug)]
pub(in crate::pipeline) struct DecidedRecipient {
    pub(in crate::pipeline) addressee: Addressee,
    pub(in crate::pipeline) disposition: Disposition,
    pub(in crate::pipeline) basis: Basis,
    /// The rule of the other field, where nothing proves the `Sender` and it changes the outcome.
    pub(in crate::pipeline) passed_over: Option<Winner<InboundAction>>,
}

/// What becomes of the message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::pipeline) enum Disposition {
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
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::pipeline) enum Basis {
    /// This rule.
    Rule(Winner<InboundAction>),
    /// A rule that leaves it to the spam verdict, or none: the verdict, or a DMARC quarantine.
    Spam {
        /// The *Default* rule, if one matched.
        #[serde(skip_serializing_if = "Option::is_none")]
        rule: Option<Winner<InboundAction>>,
        /// Whether the spam verdict or the DMARC policy says junk.
        because: SpamBasis,
    },
    /// The DMARC policy of the author's domain.
    Dmarc,
}

/// Why a message without a decisive rule is junk, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::pipeline) enum SpamBasis {
    /// Nothing speaks against it.
    NotSpam,
    /// The scanner's verdict is FAIL.
    SpamVerdict,
    /// The policy of the author's domain is quarantine.
    DmarcQuarantine,
}

impl Basis {
    /// The rule that won, if one did.
    pub(in crate::pipeline) fn rule(&self) -> Option<&Winner<InboundAction>> {
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
    let Authenticated { transaction, content, headers, received_at, verdicts, outgoing } = message;
    let sender = headers.sender.as_ref();
    let sender_proof = sender.and_then(|sender| verdicts.proof_of(sender.domain()));
    let mail = Judged {
        trace_id: transaction.trace_id,
        snapshot: transaction.snapshot,
        peer: transaction.peer,
        reverse_path: transaction.reverse_path,
        parameters: transaction.parameters,
        content,
        headers,
        received_at,
        verdicts,
        sender_proof,
        full: transaction.full,
        outgoing,
    };
    let shares = transaction.shares.into_iter().map(|share| decide_share(share, &mail)).collect();
    Decided { mail, shares }
}

/// Decides for the recipients of one organization.
pub(in crate::pipeline) fn decide_share(share: Share, mail: &Judged) -> DecidedShare {
    let Judged { snapshot, verdicts, .. } = mail;
    let policy = snapshot.policies.get(&share.organization.id);
    let dmarc = policy.and_then(|policy| applied_dmarc(policy, verdicts));
    let refused = (dmarc == Some(DmarcPolicy::Reject)).then(|| {
        let own = policy.and_then(|policy| policy.on_reject);
        match own.unwrap_or(snapshot.settings.on_reject) {
            OnReject::Reject => Disposition::Bounce(Reason::DmarcReject),
            OnReject::Drop => Disposition::Drop,
        }
    });
    let spam = match dmarc {
        _ if verdicts.is_spam() => SpamBasis::SpamVerdict,
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
    let Share { organization, trace_id, forwarders, .. } = share;
    DecidedShare { organization, trace_id, forwarders, dmarc, recipients }
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

/// The policy that applies to this message, `pct` taken into account, if it is enforced.
fn applied_dmarc(policy: &Policy, verdicts: &Verdicts) -> Option<DmarcPolicy> {
    let failed = verdicts.dmarc() == Verdict::Fail;
    (policy.dmarc_enforcement && failed).then_some(())?;
    verdicts.authentication.as_ref()?.dmarc.applied
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
