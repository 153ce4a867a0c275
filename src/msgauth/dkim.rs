//! DKIM (RFC 6376): which signatures are verified at all, and what the results mean.

use mail_auth::crypto::{Algorithm, CryptoError};
use mail_auth::dkim::{DkimError, Signature, VerifySignature};
use mail_auth::dns::ToFqdn;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DnsError, Error, MessageAuthenticator, Parameters, TxtRecord,
};

use super::answers::Answers;
use super::body_length::{Lengths, Reach};
use super::outcome::{DkimOutcome, DkimResult};
use super::tags::signature_problem;
use crate::clock::Timestamp;
use crate::heavy::Turn;

/// Header fields to look through for all the names in one `h=`: names times fields. Real
/// signatures stay below ten thousand; without a bound one message could cost minutes.
const MAX_FIELD_COMPARISONS: usize = 2_000_000;
/// Names in one `h=`.
const MAX_SIGNED_FIELDS: usize = 1000;

/// What mail-auth has not taken for signatures, less those that cover the whole body by their `l=`.
pub(super) fn unread(
    message: &AuthenticatedMessage<'_>,
    lengths: &Lengths<'_>,
    max: usize,
) -> Vec<DkimOutcome> {
    message
        .errors()
        .iter()
        .filter(|field| field.name.trim_ascii_end().eq_ignore_ascii_case(b"DKIM-Signature"))
        .take(max)
        .filter_map(|field| unreadable(field.value, &field.header, lengths))
        .collect()
}

/// Takes the signatures out of `message` that are not to be verified, and says why. Those beyond
/// the first `max` are ignored.
pub(super) fn screen(
    message: &mut AuthenticatedMessage<'_>,
    now: Timestamp,
    max: usize,
) -> Vec<DkimOutcome> {
    let fields = message.headers().len();
    let problems: Vec<_> = message
        .dkim_signatures()
        .iter()
        .take(max)
        .map(|field| signature_problem(field.value))
        .collect();
    let mut refused = Vec::new();
    let mut seen = 0;
    message.retain_dkim_signatures(|signature| {
        let problem = problems.get(seen).copied().flatten();
        seen += 1;
        if seen > max {
            return Err(DkimError::UnsupportedAlgorithm);
        }
        let problem = problem.map(|problem| (DkimResult::PermError, problem));
        match problem.or_else(|| objection(signature, fields, now)) {
            None => Ok(()),
            Some((result, reason)) => {
                refused.push(outcome(signature, result, Some(reason.to_owned())));
                // Any error takes the signature out; ours is already noted.
                Err(DkimError::UnsupportedAlgorithm)
            }
        }
    });
    refused
}

fn objection(
    signature: &Signature,
    fields: usize,
    now: Timestamp,
) -> Option<(DkimResult, &'static str)> {
    if signature.a == Algorithm::RsaSha1 {
        // RFC 8301 §3.1.
        return Some((DkimResult::PermError, "rsa-sha1 is not accepted"));
    }
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        // RFC 6376 §5.4, §6.1.1.
        return Some((DkimResult::PermError, "From is not signed"));
    }
    if signature.x != 0 && signature.x <= now.as_secs() {
        // RFC 6376 §3.5, x=. mail-auth looks at the machine's clock as well.
        return Some((DkimResult::Fail, "the signature has expired"));
    }
    if too_many_fields(signature.h.len(), fields) {
        return Some((DkimResult::Policy, "too many header fields"));
    }
    None
}

/// Whether it would take too long to find the fields that a signature covers.
pub(super) fn too_many_fields(signed: usize, present: usize) -> bool {
    signed > MAX_SIGNED_FIELDS || signed.saturating_mul(present) > MAX_FIELD_COMPARISONS
}

fn unreadable(field: &[u8], error: &Error, lengths: &Lengths<'_>) -> Option<DkimOutcome> {
    let (result, reason) = match error {
        Error::Dkim(DkimError::BodyLengthTag) => match lengths.reach(field) {
            Reach::Whole => return None,
            Reach::Beyond => {
                (DkimResult::PermError, "l= is more than there is of the body".to_owned())
            }
            // RFC 8601 §2.7.1: what local policy does not accept is `policy`.
            Reach::Part => (DkimResult::Policy, reason(error)),
        },
        error => (DkimResult::PermError, reason(error)),
    };
    let domain = tag(field, "d").to_ascii_lowercase();
    Some(DkimOutcome {
        identity: if domain.is_empty() { String::new() } else { format!("@{domain}") },
        domain,
        selector: tag(field, "s"),
        algorithm: tag(field, "a"),
        result,
        reason: Some(reason),
    })
}

/// A tag of a signature that as a whole cannot be used; empty if it is not there.
pub(super) fn tag(field: &[u8], name: &str) -> String {
    String::from_utf8_lossy(field)
        .split(';')
        .filter_map(|tag| tag.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.split_whitespace().collect())
        .unwrap_or_default()
}

/// The name of the key of a signature or seal, as mail-auth asks for it.
pub(super) fn key_name(signature: &impl VerifySignature) -> String {
    signature.domain_key().to_fqdn().into_owned()
}

/// Verifies the signatures of a message that are left, with keys that were looked up before.
pub(super) async fn verify<'a>(
    _: &Turn,
    verifier: &MessageAuthenticator,
    message: &'a AuthenticatedMessage<'a>,
    keys: &'a Answers,
) -> Vec<DkimOutput<'a>> {
    verifier.verify_dkim(Parameters::new(message).with_cache(keys)).await
}

/// What mail-auth says of a signature, in our words; nothing of those taken out before.
pub(super) fn read(output: &DkimOutput<'_>, keys: &Answers) -> Option<DkimOutcome> {
    let signature = output.signature()?;
    let (result, error) = match output.result() {
        mail_auth::DkimResult::Pass => (DkimResult::Pass, None),
        // mail-auth calls a wrong body hash and expiry neutral; RFC 6376 §6.1.3 and §3.5 do not.
        mail_auth::DkimResult::Neutral(error) | mail_auth::DkimResult::Fail(error) => {
            (DkimResult::Fail, Some(error))
        }
        mail_auth::DkimResult::PermError(error) => (DkimResult::PermError, Some(error)),
        mail_auth::DkimResult::TempError(error) => (DkimResult::TempError, Some(error)),
        mail_auth::DkimResult::None => (DkimResult::Neutral, None),
    };
    let testing = || match keys.get(&key_name(signature)) {
        Some(TxtRecord::DomainKey(key)) => key.is_testing(),
        _ => false,
    };
    if result == DkimResult::Fail && testing() {
        let reason = "the signature failed, but its domain is only testing";
        return Some(outcome(signature, DkimResult::Neutral, Some(reason.to_owned())));
    }
    Some(outcome(signature, result, error.map(reason)))
}

fn outcome(signature: &Signature, result: DkimResult, reason: Option<String>) -> DkimOutcome {
    let identity = match signature.i.as_str() {
        "" => format!("@{}", signature.d),
        identity => identity.to_owned(),
    };
    DkimOutcome {
        domain: signature.d.clone(),
        selector: signature.s.clone(),
        identity,
        algorithm: signature.a.name().to_owned(),
        result,
        reason,
    }
}

/// Why something did not pass, for the header and the story of the message.
pub(super) fn reason(error: &Error) -> String {
    let text = match error {
        Error::Dkim(DkimError::BodyHashMismatch) => "the body hash did not verify",
        Error::Dkim(DkimError::SignatureExpired) => "the signature has expired",
        Error::Dkim(DkimError::BodyLengthTag) => "l= does not cover the whole body",
        Error::Dkim(DkimError::AuidMismatch) => "i= is not within d=",
        Error::Dkim(DkimError::PublicKeyRevoked) => "the key has been revoked",
        Error::Dkim(DkimError::UnsupportedVersion) => "unknown version",
        Error::Dkim(DkimError::UnsupportedAlgorithm) => "unknown algorithm",
        Error::Dkim(DkimError::UnsupportedCanonicalization) => "unknown canonicalization",
        Error::Dkim(DkimError::UnsupportedKeyType) => "unknown key type",
        Error::Crypto(CryptoError::FailedVerification) => "the signature did not verify",
        Error::Crypto(CryptoError::IncompatibleAlgorithms) => "the key is of another algorithm",
        Error::Crypto(CryptoError::MalformedPublicKey) => "the key cannot be read",
        Error::Dns(DnsError::RecordNotFound(_)) => "there is no key",
        Error::Dns(DnsError::InvalidRecordType) => "the key record cannot be read",
        Error::Dns(DnsError::Resolver(problem)) => problem,
        Error::MissingParameters => "a required tag is missing",
        Error::Parse | Error::Base64 => "it cannot be read",
        Error::Io(problem) => problem,
        other => return other.to_string(),
    };
    text.to_owned()
}
