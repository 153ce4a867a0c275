//! Stage: where a submitted message goes for each recipient, and why. The way of recipients here
//! continues on the path that all inbound mail takes, under a trace of its own.

use std::collections::HashSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::directory::{Directory, Organization, Resolved};
use crate::heavy::Turn;
use crate::id::TraceId;
use crate::mail::{Address, EnvelopeRecipient};
use crate::pipeline::facts::completed::Completed;
use crate::pipeline::facts::headers::Headers;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{
    Outgoing, OutgoingDisposition, OutgoingRecipient, authorship, owner_of,
};
use crate::pipeline::facts::snapshot::{Policy, Snapshot};
use crate::pipeline::facts::transaction::{Addressee, Share};
use crate::pipeline::outbound::submission::{Composed, Submission, SubmittedRecipient, Way};
use crate::rules::{Authors, OutboundAction, Party, Sender, Winner};
use crate::smtp::reason::Reason;
use crate::store::{
    CountAsk, Destination, MailboxOwner, Store, UsageExceeded, UsageHold, UsageLimits, Written,
};

/// A submitted message of which each recipient has one way, and the shares of those who are here.
/// Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Dispatched {
    mail: Judged,
    shares: Vec<Share>,
}

impl Dispatched {
    #[cfg(any(test, fuzzing))]
    pub(in crate::pipeline) fn mail(&self) -> &Judged {
        &self.mail
    }

    #[cfg(any(test, fuzzing))]
    pub(in crate::pipeline) fn shares(&self) -> &[Share] {
        &self.shares
    }

    pub(in crate::pipeline) fn into_parts(self) -> (Judged, Vec<Share>) {
        (self.mail, self.shares)
    }
}

/// Decides for every recipient, and counts those outside.
pub(in crate::pipeline) fn dispatch(_: &Turn, composed: Composed, store: &Store) -> Dispatched {
    let (submission, message) = composed.into_parts();
    let Completed { content, added, headers, submitted_at, veto } = message;
    let objected_to = veto.as_ref().and_then(|veto| veto.place.clone());
    let veto = veto.map(|veto| veto.reason);
    let quota = count_submitted(&submission, veto, submitted_at, store);
    let veto = veto.or(quota.as_ref().err().copied());
    let organization = Arc::clone(submission.organization());
    let entity = submission.login().id.clone();
    let (begun, email, submitted) = submission.into_parts();
    let Ways { recipients, here } = ways(&begun.snapshot, &organization, &headers, veto, submitted);
    let outgoing = Outgoing {
        trace_id: begun.trace_id,
        organization,
        email,
        entity,
        sent_on_from: None,
        authorship: authorship(&headers),
        returns_to: owner_of(&begun.reverse_path, &begun.snapshot.directory),
        reverse_path: begun.reverse_path.clone(),
        token_domain: None,
        keeper: None,
        parameters: begun.parameters.clone(),
        recipients,
        prefix: Vec::new(),
        added,
        objected_to,
        usage: quota.ok().flatten(),
    };
    let shares = shares(here);
    let mail = Judged::submitted(begun, content, headers, outgoing, submitted_at);
    Dispatched { mail, shares }
}

/// What becomes of all recipients, and those of them who are here.
struct Ways {
    recipients: Vec<OutgoingRecipient>,
    here: Vec<(EnvelopeRecipient, Resolved)>,
}

fn ways(
    snapshot: &Snapshot,
    organization: &Organization,
    headers: &Headers,
    veto: Option<Reason>,
    submitted: Vec<SubmittedRecipient>,
) -> Ways {
    let mut ways = Ways { recipients: Vec::with_capacity(submitted.len()), here: Vec::new() };
    let directory = &snapshot.directory;
    let policy = snapshot.policies.get(&organization.id);
    let rules = policy.map(|policy| &*policy.outbound_rules);
    let rules = rules.filter(|rules| veto.is_none() && !rules.is_empty());
    let rules = rules.map(|rules| (rules, authors(headers, directory)));
    for submitted in submitted {
        let (recipient, way) = submitted.into_parts();
        let rule = rules.as_ref().and_then(|(rules, authors)| {
            let meant = snapshot.meant(&recipient.address);
            rules.evaluate(authors, &Party::of(&meant, directory)).winner
        });
        let disposition = match veto {
            Some(reason) => OutgoingDisposition::Bounce(reason),
            None => disposition(rule.as_ref(), &recipient.address, &way),
        };
        if let (OutgoingDisposition::Here, Way::Here(resolved)) = (&disposition, way) {
            ways.here.push((recipient.clone(), resolved));
        }
        ways.recipients.push(OutgoingRecipient { recipient, disposition, rule });
    }
    ways
}

/// The count of recipients that a user writes to (guide 3425–3450), also by a rule of the mailbox
/// (3416).
pub(in crate::pipeline) fn count(
    policy: &Policy,
    by: &MailboxOwner,
    written: Written,
    at: Timestamp,
) -> CountAsk {
    let limits = UsageLimits {
        user: policy.recipient_quotas.per_user,
        organization: policy.recipient_quotas.per_organization,
        inside: policy.recipient_quotas.inside_per_user,
    };
    CountAsk { by: by.clone(), day: at.as_secs() / 86_400, written, limits }
}

/// How many mailboxes of its own organization, and remote users, a message is for: each is counted
/// once, however many recipients lead to it.
fn count_inside(recipients: &[&Resolved]) -> u64 {
    let count = match recipients {
        [only] => only.count(),
        all => all.iter().flat_map(|it| it.addresses()).collect::<HashSet<_>>().len(),
    };
    count as u64
}

fn count_submitted(
    submission: &Submission,
    veto: Option<Reason>,
    now: Timestamp,
    store: &Store,
) -> Result<Option<UsageHold>, Reason> {
    let own = submission.organization().id.as_str();
    let mut written = Written::default();
    let mut inside = Vec::new();
    for recipient in submission.recipients() {
        match recipient.way() {
            Way::Here(resolved) if resolved.organization.id.as_str() == own => {
                inside.push(resolved);
            }
            Way::Here(_) | Way::Elsewhere => written.outside += 1,
        }
    }
    written.inside = count_inside(&inside);
    let Some(policy) = submission.policy().filter(|_| veto.is_none()) else { return Ok(None) };
    let by = MailboxOwner { organization: own.into(), entity: submission.login().id.clone() };
    let CountAsk { by, day, written, limits } = count(policy, &by, written, now);
    match store.count_recipients(&by, day, written, limits) {
        Ok(hold) => Ok(Some(hold)),
        Err(UsageExceeded::User) => Err(Reason::UserQuotaExceeded),
        Err(UsageExceeded::Organization) => Err(Reason::OrganizationQuotaExceeded),
        Err(UsageExceeded::Inside) => Err(Reason::InsideQuotaExceeded),
    }
}

/// Whom a submitted message says it is from, as outbound rules know them.
fn authors<'a>(headers: &'a Headers, directory: &'a Directory) -> Authors<'a> {
    let party = |address: &'a Address| Party::of(address, directory);
    Authors {
        // Who may send as whom was asked before.
        sender: headers.sender().map(|it| Sender { party: party(it), is_proven: true }),
        from: headers.authors().iter().map(party).collect(),
    }
}

fn disposition(
    rule: Option<&Winner<OutboundAction>>,
    address: &Address,
    way: &Way,
) -> OutgoingDisposition {
    match (rule.map(|rule| &rule.action), way) {
        (Some(OutboundAction::Drop), _) => OutgoingDisposition::Drop,
        (Some(OutboundAction::Bounce), _) => {
            OutgoingDisposition::Bounce(Reason::OutboundRuleBounce)
        }
        (Some(OutboundAction::RouteToSmtpGateway { gateway }), _) => {
            OutgoingDisposition::Queue(Destination::Gateway(Arc::clone(gateway)))
        }
        (Some(OutboundAction::Default) | None, Way::Here(_)) => OutgoingDisposition::Here,
        (Some(OutboundAction::Default) | None, Way::Elsewhere) => {
            OutgoingDisposition::Queue(Destination::Domain(address.domain().clone()))
        }
    }
}

/// The shares of the recipients here. Each organization's share has an id of its own: it is
/// another trace than the outbound one (guide 1736–1773).
fn shares(here: Vec<(EnvelopeRecipient, Resolved)>) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for (recipient, resolved) in here {
        let organization = Arc::clone(&resolved.organization);
        let addressee = Addressee::new(recipient, resolved);
        match shares.iter_mut().find(|share| share.organization.id == organization.id) {
            Some(share) => share.addressees.push(addressee),
            None => shares.push(Share {
                organization,
                trace_id: TraceId::generate(),
                addressees: vec![addressee],
                forwarders: Vec::new(),
                sent_on_from: None,
            }),
        }
    }
    shares
}
