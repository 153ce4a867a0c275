//! ARC: chains are read and reported.

use mail_auth::arc::ArcSealer;
use mail_auth::{ArcOutput, ArcResult as WireResult, AuthenticatedMessage, AuthenticationResults};

use super::*;

/// `message` with one ARC set on top, sealed by `domain`.
fn sealed(domain: &str, message: &str) -> String {
    let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
    let results = AuthenticationResults::new("mx.forwarder.test");
    let chain = ArcOutput::from(WireResult::None);
    let sealer = ArcSealer::from_key(rsa_key()).domain(domain).selector("rsa");
    let set = sealer.headers(["From", "To", "Subject"]).seal(&parsed, &results, &chain).unwrap();
    set.to_header() + message
}

async fn check(dns: Dns, message: &str, result: ArcResult, instances: usize) {
    let arc = dns.authenticate(message).await.arc;
    assert_eq!(arc.result, result, "{arc:?}");
    assert_eq!(arc.instances, instances, "{arc:?}");
    assert_eq!(arc.reason.is_none(), matches!(result, ArcResult::Pass | ArcResult::None));
}

#[tokio::test]
async fn chains_pass_fail_or_are_not_there() {
    let message = sealed("example.test", MESSAGE);
    check(Dns::default().keys(), MESSAGE, ArcResult::None, 0).await;
    check(Dns::default().keys(), &message, ArcResult::Pass, 1).await;
    let changed = message.replace("at five", "at six");
    check(Dns::default().keys(), &changed, ArcResult::Fail, 1).await;
    let changed = message.replace("Subject: Tea", "Subject: Coffee");
    check(Dns::default().keys(), &changed, ArcResult::Fail, 1).await;
    let half = message.replace("ARC-Message-Signature:", "X-Was-Signature:");
    check(Dns::default().keys(), &half, ArcResult::Fail, 1).await;
    let unreadable = format!("ARC-Seal: nonsense\r\n{message}");
    check(Dns::default().keys(), &unreadable, ArcResult::Fail, 1).await;
}

#[tokio::test]
async fn keys_that_are_missing_or_out_of_reach_are_told_apart() {
    let message = sealed("example.test", MESSAGE);
    check(Dns::default(), &message, ArcResult::PermError, 1).await;
    let broken = Dns::default().broken("rsa._domainkey.example.test");
    check(broken, &message, ArcResult::TempError, 1).await;
}

#[tokio::test]
async fn an_endless_chain_is_not_followed() {
    let set = sealed("example.test", MESSAGE);
    let set = set.get(..set.find("From:").unwrap()).unwrap();
    let message = set.repeat(60) + MESSAGE;
    let dns = Dns::default().keys();
    let asked = Arc::clone(&dns.asked);
    check(dns, &message, ArcResult::Fail, 60).await;
    assert!(!asked.lock().unwrap().iter().any(|name| name.contains("_domainkey")));
}

#[tokio::test]
async fn rsa_sha1_is_not_accepted_in_a_chain() {
    let message = sealed("example.test", MESSAGE).replacen("a=rsa-sha256", "a=rsa-sha1", 1);
    check(Dns::default().keys(), &message, ArcResult::Fail, 1).await;
}

#[tokio::test]
async fn a_set_that_breaks_the_grammar_fails_the_chain() {
    let message = sealed("example.test", MESSAGE);
    let seal = message.find("ARC-Seal:").unwrap();
    let signature = message.find("ARC-Message-Signature:").unwrap();
    for (at, from, to, reason) in [
        (seal, "a=rsa-sha256; ", "", "a required tag is missing"),
        (seal, "cv=none;", "cv=none; cv=none;", "a duplicate tag"),
        (signature, "a=rsa-sha256; ", "", "a required tag is missing"),
        (signature, "i=1;", "i=1; i=1;", "a duplicate tag"),
        (signature, "\th=", "\th=arc-seal:", "h= covers ARC-Seal"),
    ] {
        let (before, after) = message.split_at(at);
        let changed = format!("{before}{}", after.replacen(from, to, 1));
        assert_ne!(changed, message, "{from}");
        let arc = Dns::default().keys().authenticate(&changed).await.arc;
        assert_eq!((arc.result, arc.reason.as_deref()), (ArcResult::Fail, Some(reason)), "{to}");
    }
}

/// RFC 6376 §3.5, which RFC 8617 §4.1.2 inherits.
#[tokio::test]
async fn a_signature_that_does_not_say_how_is_simple() {
    for (canonicalization, expected) in [
        ("", ArcResult::Pass),
        ("c=simple/simple; ", ArcResult::Pass),
        ("c=simple; ", ArcResult::Pass),
        ("c=relaxed; ", ArcResult::Fail),
    ] {
        let message = by_hand::arc_set(MESSAGE, canonicalization);
        let arc = Dns::default().keys().authenticate(&message).await.arc;
        assert_eq!(arc.result, expected, "{canonicalization:?}: {arc:?}");
    }
}
