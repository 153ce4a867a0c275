//! Authenticates a message: all lookups side by side under one deadline, then the verdicts.

use std::sync::Arc;

use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, MessageAuthenticator, Parameters, TxtRecord};
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::answers::{
    Answers, Parsed, Policy, a_label, key_record, parse_key, parse_policy, question,
};
use super::body_length::Lengths;
use super::dmarc::{Author, Evaluator, Identifiers};
use super::outcome::Authentication;
use super::spf::{self, Identity, SpfOutcome, SpfResult};
use super::{arc, dkim, iprev};
use crate::clock::Timestamp;
use crate::dns::{RecordType, Resolver, lookup_all};
use crate::heavy::{self, Weight};
use crate::id::TraceId;
use crate::mail::{Address, Peer, ReversePath};

/// A message to authenticate.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The message as it came.
    pub message: &'a [u8],
    /// Who sent it.
    pub peer: &'a Peer,
    /// The envelope's sender.
    pub reverse_path: &'a ReversePath,
    /// Who wrote it, as [`Authors`](crate::mail::Authors) reads it.
    pub authors: &'a [Address],
    /// Chooses the messages to which a policy with `pct` applies.
    pub trace_id: TraceId,
    /// When it came; signatures that had expired by then do not count.
    pub now: Timestamp,
}

/// Authenticates messages. One serves the whole daemon: it keeps parsed keys and policies.
pub struct Authenticator {
    resolver: Arc<dyn Resolver>,
    settings: Settings,
    /// Has no name servers: all its answers are given to it.
    verifier: MessageAuthenticator,
    keys: Parsed<TxtRecord>,
    policies: Parsed<Policy>,
}

impl Authenticator {
    /// An authenticator that asks `resolver`, and nobody else.
    pub fn new(resolver: Arc<dyn Resolver>, settings: Settings) -> Self {
        let nobody = ResolverConfig::from_parts(None, vec![], vec![]);
        // Building fails only for a trust anchor file that cannot be read, and there is none.
        let verifier = MessageAuthenticator::new(nobody, ResolverOpts::default())
            .expect("a resolver without servers and files can be built");
        let (keys, policies) = (Parsed::new(parse_key), Parsed::new(parse_policy));
        Self { resolver, settings, verifier, keys, policies }
    }

    /// Finds out who vouches for a message. Never fails: what DNS does not answer within the
    /// deadline is a temperror.
    pub async fn authenticate(&self, request: &Request<'_>) -> Authentication {
        let deadline = Instant::now() + self.settings.deadline;
        let weight = Weight::of(request.message);
        let max = self.settings.max_signatures;
        let parse = || {
            // A message without a single header field has nothing to verify, but came from someone.
            let mut message = AuthenticatedMessage::parse(request.message).unwrap_or_default();
            let lengths = Lengths::measure(request.message, &message, max);
            let mut refused = dkim::unread(&message, &lengths, max);
            refused.append(&mut dkim::screen(&mut message, request.now, max));
            (message, lengths, refused)
        };
        let (message, lengths, mut refused) = heavy::in_turn(weight, parse).await;
        let room = max.saturating_sub(message.dkim_signatures().len());
        let weight_again = if lengths.any_covers() { weight } else { Weight::Light };
        let read_again = || lengths.covered(|message| dkim::screen(message, request.now, room));
        let (covered, mut refused_again) = heavy::in_turn(weight_again, read_again).await;
        refused.append(&mut refused_again);
        refused.truncate(max);
        let authors = Author::all_of(request.authors);
        let evaluator = Evaluator {
            resolver: &*self.resolver,
            verifier: &self.verifier,
            policies: &self.policies,
            deadline,
        };
        let (spf, keys, walks, iprev) = tokio::join!(
            self.check_spf(request, deadline),
            self.look_up_keys(&message, &covered, deadline),
            evaluator.walk_all(&authors),
            iprev::check(&*self.resolver, request.peer.ip, deadline),
        );
        let mut outputs = Vec::new();
        for message in std::iter::once(&message).chain(&covered) {
            let verification =
                self.verifier.verify_dkim(Parameters::new(message).with_cache(&keys));
            outputs.append(&mut heavy::complete_in_turn(weight, verification).await);
        }
        let identifiers = Identifiers { message: &message, dkim: &outputs, spf: &spf };
        let dmarc = evaluator.judge_all(authors, walks, identifiers, request.trace_id).await;
        let check_arc = arc::check(&self.verifier, &message, &keys);
        let arc = heavy::complete_in_turn(weight, check_arc).await;
        let verified = outputs.iter().filter_map(|output| dkim::read(output, &keys));
        let dkim = verified.chain(refused).collect();
        Authentication { spf, dkim, dmarc, arc, iprev }
    }

    async fn check_spf(&self, request: &Request<'_>, deadline: Instant) -> SpfOutcome {
        let sender = request.reverse_path.address().map(ToString::to_string);
        let query = spf::Query {
            ip: request.peer.ip,
            helo: &request.peer.helo,
            sender: sender.as_deref(),
            receiver: &self.settings.authserv_id,
            now_secs: request.now.as_secs(),
        };
        let check = spf::check_host(&*self.resolver, &query);
        timeout_at(deadline, check).await.unwrap_or_else(|_| spf_too_late(request))
    }

    /// The keys of all signatures and seals, side by side.
    async fn look_up_keys(
        &self,
        message: &AuthenticatedMessage<'_>,
        covered: &[AuthenticatedMessage<'_>],
        deadline: Instant,
    ) -> Answers {
        let messages = std::iter::once(message).chain(covered);
        let signatures = messages.flat_map(AuthenticatedMessage::dkim_signatures);
        let mut names: Vec<String> =
            signatures.map(|field| dkim::key_name(&field.header)).collect();
        names.extend(arc::key_names(message));
        names.sort_unstable();
        names.dedup();
        let questions: Vec<String> = names.iter().map(|name| a_label(question(name))).collect();
        let questions: Vec<_> =
            questions.iter().map(|name| (name.as_str(), RecordType::Txt)).collect();
        let results = lookup_all(&*self.resolver, &questions, deadline).await;
        let mut answers = Answers::for_keys();
        for (name, result) in names.iter().zip(results) {
            answers.add(name, key_record(&self.keys, name, result));
        }
        answers
    }
}

fn spf_too_late(request: &Request<'_>) -> SpfOutcome {
    let (identity, domain) = match request.reverse_path.address() {
        Some(address) => (Identity::MailFrom, address.domain().to_string()),
        None => (Identity::Helo, request.peer.helo.clone()),
    };
    SpfOutcome {
        result: SpfResult::TempError,
        identity,
        domain,
        mechanism: None,
        explanation: None,
        problem: Some("no answer within the deadline".to_owned()),
    }
}
