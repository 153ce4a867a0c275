//! DMARC (RFC 9989): finding the policy, and `pct` of RFC 7489.

use std::sync::Arc;

use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{DmarcRecord, Policy as WirePolicy};
use mail_auth::dns::ToFqdn;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcOutput, MessageAuthenticator, Parameters, SpfOutput,
};
use tokio::time::Instant;

use super::answers::{Answers, Parsed, Policy, a_label, question};
use super::dkim::reason;
use super::outcome::{DmarcOutcome, DmarcResult, Organization};
use super::spf::{SpfOutcome, SpfResult};
use super::tree_walk::{TreeWalk, walk_names};
use crate::dns::{LookupError, RecordType, Resolver, lookup_all};
use crate::id::TraceId;
use crate::mail::{Address, DmarcPolicy, author_domains, is_name_within};

/// Who wrote the message, as far as DMARC is concerned (RFC 9989 §4.10.1): one domain.
pub(super) enum Author {
    /// Nobody whose domain could have a policy.
    Nobody,
    /// In lower-case A-label form.
    One(String),
}

impl Author {
    /// The domain of each author, once; nobody has a policy for an address literal.
    pub(super) fn all_of(addresses: &[Address]) -> Vec<Self> {
        let mut domains = author_domains(addresses);
        domains.retain(|domain| !domain.is_literal());
        match domains.as_slice() {
            [] => vec![Self::Nobody],
            domains => domains.iter().map(|domain| Self::One(domain.to_string())).collect(),
        }
    }

    /// Whether mail-auth takes this for the author of a message, and for the only one.
    fn is_sole_author_of(&self, message: &AuthenticatedMessage<'_>) -> bool {
        let Self::One(domain) = self else { return false };
        match message.from_addresses() {
            [address] => address.rsplit_once('@').is_some_and(|(_, found)| found == domain),
            _ => false,
        }
    }

    fn without_policy(&self) -> DmarcOutcome {
        let (domain, reason) = match self {
            Self::Nobody => (None, Some("no author")),
            Self::One(domain) => (Some(domain.clone()), None),
        };
        DmarcOutcome {
            result: DmarcResult::None,
            domain,
            policy: None,
            applied: None,
            pct: 100,
            reason: reason.map(str::to_owned),
            organization: Organization::default(),
        }
    }
}

/// Looks policies up, and judges by them.
pub(super) struct Evaluator<'a> {
    pub(super) resolver: &'a dyn Resolver,
    pub(super) verifier: &'a MessageAuthenticator,
    pub(super) policies: &'a Parsed<Policy>,
    pub(super) deadline: Instant,
}

/// The records on the way from the author's domain to the top, nearest first.
pub(super) struct Walk {
    answers: Answers,
    records: Vec<(String, Arc<DmarcRecord>, u8)>,
    tree: TreeWalk,
}

/// What a message passed, for alignment.
pub(super) struct Identifiers<'a> {
    pub(super) message: &'a AuthenticatedMessage<'a>,
    pub(super) dkim: &'a [DkimOutput<'a>],
    pub(super) spf: &'a SpfOutcome,
}

impl Evaluator<'_> {
    /// The walk of each author.
    pub(super) async fn walk_all(&self, authors: &[Author]) -> Vec<Walk> {
        let mut walks = Vec::with_capacity(authors.len());
        for author in authors {
            walks.push(self.walk(author).await);
        }
        walks
    }

    /// Judges the message by the policy of each author's domain; the strictest outcome counts.
    pub(super) async fn judge_all(
        &self,
        authors: Vec<Author>,
        walks: Vec<Walk>,
        identifiers: Identifiers<'_>,
        trace_id: TraceId,
    ) -> DmarcOutcome {
        let organization = organization(&authors, &walks);
        let mut strictest: Option<DmarcOutcome> = None;
        for (author, walk) in authors.iter().zip(walks) {
            let outcome = self.judge(author, walk, &identifiers, trace_id).await;
            if strictest.as_ref().is_none_or(|known| strictness(known) < strictness(&outcome)) {
                strictest = Some(outcome);
            }
        }
        let outcome = strictest.unwrap_or_else(|| Author::Nobody.without_policy());
        DmarcOutcome { organization, ..outcome }
    }

    /// The author's tree walk (RFC 9989 §4.10), all its queries side by side.
    async fn walk(&self, author: &Author) -> Walk {
        let answers = Answers::for_policies();
        let mut walk = Walk { answers, records: Vec::new(), tree: TreeWalk::default() };
        let Author::One(domain) = author else { return walk };
        let names = walk_names(domain);
        for (name, policy) in names.iter().zip(self.look_up(&mut walk.answers, &names).await) {
            walk.tree.add(&policy.record);
            if let Some(record) = policy.parsed() {
                walk.records.push(((*name).to_owned(), Arc::clone(record), policy.pct));
            }
        }
        walk
    }

    /// The policies at names, which become answers too.
    async fn look_up(&self, answers: &mut Answers, names: &[&str]) -> Vec<Policy> {
        let keys: Vec<String> = names.iter().map(|name| key(name)).collect();
        let questions: Vec<_> = keys.iter().map(|key| (question(key), RecordType::Txt)).collect();
        let results = lookup_all(self.resolver, &questions, self.deadline).await;
        let mut policies = Vec::with_capacity(keys.len());
        for (key, result) in keys.iter().zip(results) {
            let policy = match result {
                Ok(answer) => self.policies.read(key, &answer.records),
                Err(error) => Policy::absent(&error),
            };
            answers.add(key, policy.record.clone());
            policies.push(policy);
        }
        policies
    }

    /// Judges the message by the policy found.
    async fn judge(
        &self,
        author: &Author,
        mut walk: Walk,
        identifiers: &Identifiers<'_>,
        trace_id: TraceId,
    ) -> DmarcOutcome {
        let Author::One(domain) = author else { return author.without_policy() };
        self.prepare(domain, &mut walk, identifiers).await;
        let spf = SpfOutput::new(identifiers.spf.domain.clone())
            .with_result(wire_result(identifiers.spf.result));
        // mail-auth reads the author by itself, and not always as we do: then it is given a message
        // that says no more than who that is.
        let stand_in = format!("From: author@{domain}\r\n\r\n");
        let stand_in = match author.is_sole_author_of(identifiers.message) {
            true => None,
            false => AuthenticatedMessage::parse(stand_in.as_bytes()),
        };
        let parameters = DmarcParameters::new(
            stand_in.as_ref().unwrap_or(identifiers.message),
            identifiers.dkim,
            &identifiers.spf.domain,
            &spf,
        );
        let parameters = Parameters::new(parameters).with_cache(&walk.answers);
        let output = self.verifier.verify_dmarc(parameters).await;
        outcome(author, &walk, &output, trace_id)
    }

    /// Looks up what alignment and `np` still need: the walks of identifiers within the reach
    /// of the policies found, and whether the author's domain exists.
    async fn prepare(&self, author: &str, walk: &mut Walk, identifiers: &Identifiers<'_>) {
        let Some((widest, _, _)) = walk.records.last().cloned() else { return };
        let mut domains: Vec<String> = identifiers
            .dkim
            .iter()
            .filter(|output| may_align(output))
            .filter_map(|output| output.signature())
            .map(|signature| a_label(&signature.d))
            .collect();
        if matches!(identifiers.spf.result, SpfResult::Pass | SpfResult::TempError) {
            domains.push(a_label(&identifiers.spf.domain));
        }
        domains.retain(|domain| domain != author && is_name_within(domain, &widest));
        domains.sort_unstable();
        domains.dedup();
        let mut names: Vec<&str> = domains.iter().flat_map(|domain| walk_names(domain)).collect();
        names.retain(|name| walk.answers.get(&key(name)).is_none());
        names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
        names.dedup();
        if !names.is_empty() {
            self.look_up(&mut walk.answers, &names).await;
        }
        let inherited = walk.records.iter().all(|(name, _, _)| name != author);
        if inherited && walk.records.iter().any(|(_, record, _)| record.np != record.sp) {
            let question = [(author, RecordType::A)];
            let results = lookup_all(self.resolver, &question, self.deadline).await;
            if results.contains(&Err(LookupError::NoSuchName)) {
                walk.answers.deny_addresses();
            }
        }
    }
}

fn outcome(author: &Author, walk: &Walk, output: &DmarcOutput, trace_id: TraceId) -> DmarcOutcome {
    let (result, error) = match output.result() {
        mail_auth::DmarcResult::None => return author.without_policy(),
        mail_auth::DmarcResult::Pass => (DmarcResult::Pass, None),
        mail_auth::DmarcResult::Fail(_) => (DmarcResult::Fail, None),
        mail_auth::DmarcResult::TempError(error) => (DmarcResult::TempError, Some(error)),
        mail_auth::DmarcResult::PermError(error) => (DmarcResult::PermError, Some(error)),
    };
    let reason = error.map(|error: mail_auth::Error| reason(&error));
    let policy = output.record().map(|_| policy(output.policy()));
    let pct = output.record().and_then(|applied| {
        walk.records.iter().find(|(_, record, _)| Arc::ptr_eq(record, applied)).map(|found| found.2)
    });
    let pct = pct.unwrap_or(100);
    let applied =
        policy.map(|policy| if is_sampled(trace_id, pct) { policy } else { milder(policy) });
    DmarcOutcome { result, policy, applied, pct, reason, ..author.without_policy() }
}

/// Whose the authors' domains are. Of one domain it is not asked here: few need to know.
fn organization(authors: &[Author], walks: &[Walk]) -> Organization {
    if let [walk] = walks {
        return Organization::OfOneDomain(walk.tree.clone());
    }
    let mut shared = None;
    for (author, walk) in authors.iter().zip(walks) {
        let Author::One(domain) = author else { return Organization::Several };
        let Some(found) = walk.tree.organizational_domain(domain) else {
            return Organization::Untold;
        };
        if *shared.get_or_insert(found) != found {
            return Organization::Several;
        }
    }
    shared.map_or(Organization::Several, |shared| Organization::Shared(shared.to_owned()))
}

/// Which of the outcomes for several authors counts: what is done about it first, then the words.
fn strictness(outcome: &DmarcOutcome) -> u8 {
    match (outcome.result, outcome.applied) {
        (DmarcResult::Fail, Some(DmarcPolicy::Reject)) => 6,
        (DmarcResult::Fail, Some(DmarcPolicy::Quarantine)) => 5,
        (DmarcResult::Fail, Some(DmarcPolicy::None) | None) => 4,
        (DmarcResult::TempError, _) => 3,
        (DmarcResult::PermError, _) => 2,
        (DmarcResult::None, _) => 1,
        (DmarcResult::Pass, _) => 0,
    }
}

/// RFC 7489 §6.6.4: whether this message is of the share to which the policy applies. The same
/// message always is, or never; a trace id ends in random bits.
fn is_sampled(trace_id: TraceId, pct: u8) -> bool {
    let id = trace_id.to_string();
    let tail = id.rsplit('-').next().and_then(|tail| u64::from_str_radix(tail, 16).ok());
    tail.is_none_or(|tail| tail % 100 < u64::from(pct))
}

/// RFC 7489 §6.6.4: the next milder policy applies to the others.
fn milder(policy: DmarcPolicy) -> DmarcPolicy {
    match policy {
        DmarcPolicy::Reject => DmarcPolicy::Quarantine,
        DmarcPolicy::Quarantine | DmarcPolicy::None => DmarcPolicy::None,
    }
}

fn policy(policy: WirePolicy) -> DmarcPolicy {
    match policy {
        WirePolicy::None | WirePolicy::Unspecified => DmarcPolicy::None,
        WirePolicy::Quarantine => DmarcPolicy::Quarantine,
        WirePolicy::Reject => DmarcPolicy::Reject,
    }
}

fn wire_result(result: SpfResult) -> mail_auth::SpfResult {
    match result {
        SpfResult::None => mail_auth::SpfResult::None,
        SpfResult::Neutral => mail_auth::SpfResult::Neutral,
        SpfResult::Pass => mail_auth::SpfResult::Pass,
        SpfResult::Fail => mail_auth::SpfResult::Fail,
        SpfResult::SoftFail => mail_auth::SpfResult::SoftFail,
        SpfResult::TempError => mail_auth::SpfResult::TempError,
        SpfResult::PermError => mail_auth::SpfResult::PermError,
    }
}

fn may_align(output: &DkimOutput<'_>) -> bool {
    matches!(output.result(), mail_auth::DkimResult::Pass | mail_auth::DkimResult::TempError(_))
}

/// The key of a policy, as mail-auth asks for it.
fn key(name: &str) -> String {
    format!("_dmarc.{name}.").to_fqdn().into_owned()
}
