//! ARC (RFC 8617): read and reported.

use mail_auth::crypto::Algorithm;
use mail_auth::{AuthenticatedMessage, MessageAuthenticator, Parameters};

use super::answers::Answers;
use super::dkim::{key_name, reason, too_many_fields};
use super::outcome::{ArcOutcome, ArcResult};
use super::tags::{arc_signature_problem, seal_problem};
use crate::heavy::Turn;

/// RFC 8617 §4.2.1: the highest instance number.
const MAX_SETS: usize = 50;

/// The names of the keys that the chain needs; none for a chain that fails without them.
pub(super) fn key_names(message: &AuthenticatedMessage<'_>) -> Vec<String> {
    if objection(message).is_some() {
        return Vec::new();
    }
    let newest = message.arc_message_signatures().last();
    let newest = newest.map(|field| key_name(&field.header));
    let seals = message.arc_seals().iter().map(|field| key_name(&field.header));
    newest.into_iter().chain(seals).collect()
}

/// Validates the chain with keys that were looked up before.
pub(super) async fn check(
    _: &Turn,
    verifier: &MessageAuthenticator,
    message: &AuthenticatedMessage<'_>,
    keys: &Answers,
) -> ArcOutcome {
    let instances = message.arc_seals().len();
    let sealer = message.arc_seals().last().map(|field| field.header.d.clone());
    if instances == 0 && message.arc_message_signatures().is_empty() && !message.has_arc_errors() {
        return ArcOutcome { result: ArcResult::None, instances, sealer, reason: None };
    }
    if let Some(objection) = objection(message) {
        let reason = Some(objection.to_owned());
        return ArcOutcome { result: ArcResult::Fail, instances, sealer, reason };
    }
    let output = verifier.verify_arc(Parameters::new(message).with_cache(keys)).await;
    let (result, error) = match output.result() {
        mail_auth::ArcResult::Pass => (ArcResult::Pass, None),
        mail_auth::ArcResult::None => (ArcResult::None, None),
        mail_auth::ArcResult::Neutral(error) | mail_auth::ArcResult::Fail(error) => {
            (ArcResult::Fail, Some(error))
        }
        mail_auth::ArcResult::PermError(error) => (ArcResult::PermError, Some(error)),
        mail_auth::ArcResult::TempError(error) => (ArcResult::TempError, Some(error)),
    };
    ArcOutcome { result, instances, sealer, reason: error.map(reason) }
}

fn objection(message: &AuthenticatedMessage<'_>) -> Option<&'static str> {
    let (seals, signatures) = (message.arc_seals(), message.arc_message_signatures());
    if seals.len().max(signatures.len()) > MAX_SETS {
        return Some("more than 50 sets");
    }
    if seals.len() != signatures.len() {
        return Some("a set is not complete");
    }
    let mut algorithms = seals.iter().map(|field| field.header.a);
    let mut signatures_algorithms = signatures.iter().map(|field| field.header.a);
    if algorithms.any(is_sha1) || signatures_algorithms.any(is_sha1) {
        return Some("rsa-sha1 is not accepted");
    }
    // RFC 8617 §5.2: a chain with a set that cannot be read fails.
    let mut problems = seals
        .iter()
        .map(|field| seal_problem(field.value))
        .chain(signatures.iter().map(|field| arc_signature_problem(field.value)));
    if let Some(problem) = problems.find_map(|problem| problem) {
        return Some(problem);
    }
    let fields = message.headers().len();
    signatures
        .iter()
        .any(|field| too_many_fields(field.header.h.len(), fields))
        .then_some("too many header fields")
}

fn is_sha1(algorithm: Algorithm) -> bool {
    algorithm == Algorithm::RsaSha1
}
