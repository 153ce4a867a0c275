//! Authenticates a message: all lookups side by side under one deadline, then the verdicts.

use std::sync::Arc;

use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, MessageAuthenticator, TxtRecord};
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::answers::{
    Answers, Parsed, Policy, a_label, key_record, parse_key, parse_policy, question,
};
use super::body_length::Lengths;
use super::dmarc::{Author, Evaluator, Identifiers};
use super::outcome::{Authentication, DkimOutcome};
use super::spf::{self, Identity, SpfOutcome, SpfResult};
use super::{arc, dkim, iprev};
use crate::clock::Timestamp;
use crate::dns::{RecordType, Resolver, lookup_all};
use crate::heavy::{self, Turn, Weight};
use crate::id::TraceId;
use crate::mail::{Address, Peer, ReversePath};

/// A message to authenticate.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The message as it came.
    pub message: &'a [u8],
    /// The message's.
    pub weight: Weight,
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
        let max = self.settings.max_signatures;
        let read = |turn: &Turn| Signatures::read(turn, request, max);
        let signatures = heavy::in_turn(request.weight, read).await;
        let Signatures { message, lengths, mut refused } = signatures;
        let room = max.saturating_sub(message.dkim_signatures().len());
        let (covered, refused_by_length) = read_covered(&lengths, request, room).await;
        refused.extend(refused_by_length);
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
            let verify =
                async |turn: &Turn| dkim::verify(turn, &self.verifier, message, &keys).await;
            outputs.append(&mut heavy::complete_in_turn(request.weight, verify).await);
        }
        let identifiers = Identifiers { message: &message, dkim: &outputs, spf: &spf };
        let dmarc = evaluator.judge_all(authors, walks, identifiers, request.trace_id).await;
        let check_arc = async |turn: &Turn| arc::check(turn, &self.verifier, &message, &keys).await;
        let arc = heavy::complete_in_turn(request.weight, check_arc).await;
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

/// A message with its signatures, as far as they can be read without DNS.
struct Signatures<'a> {
    message: AuthenticatedMessage<'a>,
    lengths: Lengths<'a>,
    /// Those that are not verified, and why.
    refused: Vec<DkimOutcome>,
}

impl<'a> Signatures<'a> {
    fn read(turn: &Turn, request: &Request<'a>, max: usize) -> Self {
        // A message without a single header field has nothing to verify, but came from someone.
        let mut message = AuthenticatedMessage::parse(request.message).unwrap_or_default();
        let lengths = Lengths::measure(turn, request.message, &message, max);
        let mut refused = dkim::unread(&message, &lengths, max);
        refused.append(&mut dkim::screen(&mut message, request.now, max));
        Self { message, lengths, refused }
    }
}

/// The message as signatures see it that cover the whole body by their `l=`, and those of them that
/// are not verified; `room` is how many may be.
async fn read_covered<'a>(
    lengths: &'a Lengths<'_>,
    request: &Request<'_>,
    room: usize,
) -> (Vec<AuthenticatedMessage<'a>>, Vec<DkimOutcome>) {
    if !lengths.any_covers() {
        return (Vec::new(), Vec::new());
    }
    let screen = |message: &mut AuthenticatedMessage<'_>| dkim::screen(message, request.now, room);
    heavy::in_turn(request.weight, |turn| lengths.covered(turn, screen)).await
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
