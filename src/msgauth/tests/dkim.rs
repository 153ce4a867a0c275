//! DKIM: which signatures count, and what the others are called.

use std::time::Instant;

use super::*;
use crate::mail::Verdict;

async fn check(dns: Dns, message: &str, expected: DkimResult, verdict: Verdict) -> DkimOutcome {
    let authentication = dns.authenticate(message).await;
    let [outcome] = &authentication.dkim[..] else { panic!("{:?}", authentication.dkim) };
    assert_eq!(outcome.result, expected, "{outcome:?}");
    assert_eq!(outcome.reason.is_none(), expected == DkimResult::Pass, "{outcome:?}");
    assert_eq!(authentication.dkim_verdict(), verdict);
    outcome.clone()
}

#[tokio::test]
async fn rsa_and_ed25519_signatures_pass() {
    let rsa = signed_by("example.test", MESSAGE);
    let outcome = check(Dns::default().keys(), &rsa, DkimResult::Pass, Verdict::Pass).await;
    assert_eq!(outcome.domain, "example.test");
    assert_eq!(outcome.selector, "rsa");
    assert_eq!(outcome.identity, "@example.test");
    assert_eq!(outcome.algorithm, "rsa-sha256");
    let ed25519 = signed_with_ed25519(MESSAGE);
    let outcome = check(Dns::default().keys(), &ed25519, DkimResult::Pass, Verdict::Pass).await;
    assert_eq!(outcome.algorithm, "ed25519-sha256");
}

#[tokio::test]
async fn an_unsigned_message_is_gray() {
    let authentication = Dns::default().authenticate(MESSAGE).await;
    assert!(authentication.dkim.is_empty());
    assert_eq!(authentication.dkim_verdict(), Verdict::Gray);
}

#[tokio::test]
async fn a_changed_body_is_a_fail_and_not_neutral() {
    let message = signed_by("example.test", MESSAGE).replace("at five", "at six");
    let outcome = check(Dns::default().keys(), &message, DkimResult::Fail, Verdict::Fail).await;
    assert_eq!(outcome.reason.as_deref(), Some("the body hash did not verify"));
}

#[tokio::test]
async fn a_changed_header_is_a_fail() {
    let message = signed_by("example.test", MESSAGE).replace("Subject: Tea", "Subject: Coffee");
    let outcome = check(Dns::default().keys(), &message, DkimResult::Fail, Verdict::Fail).await;
    assert_eq!(outcome.reason.as_deref(), Some("the signature did not verify"));
}

#[tokio::test]
async fn white_space_at_the_end_of_a_relaxed_body_does_not_matter() {
    let message = signed_by("example.test", MESSAGE) + " \r\n\t\r\n\r\n";
    check(Dns::default().keys(), &message, DkimResult::Pass, Verdict::Pass).await;
}

#[tokio::test]
async fn an_expired_signature_is_a_fail_and_not_neutral() {
    let signer = DkimSigner::from_key(rsa_key()).domain("example.test").selector("rsa");
    let signer = signer.headers(SIGNED_FIELDS).expiration(Duration::from_secs(1));
    let signature = signer.sign(MESSAGE.as_bytes()).unwrap();
    let message = signature.to_header() + MESSAGE;
    let authenticator = Authenticator::new(Arc::new(Dns::default().keys()), settings());
    let (peer, reverse_path) = (peer(), reverse_path("alice@example.test"));
    let request = Request {
        message: message.as_bytes(),
        weight: Weight::of(message.as_bytes()),
        peer: &peer,
        reverse_path: &reverse_path,
        authors: &[],
        trace_id: TraceId::generate(),
        now: Timestamp::from_millis((signature.x + 1) * 1000),
    };
    let authentication = authenticator.authenticate(&request).await;
    assert_eq!(authentication.dkim[0].result, DkimResult::Fail);
    assert_eq!(authentication.dkim[0].reason.as_deref(), Some("the signature has expired"));
    assert_eq!(authentication.dkim_verdict(), Verdict::Fail);
}

/// MESSAGE's header section with this body.
fn with_body(body: &str) -> String {
    let (header, _) = MESSAGE.split_once("\r\n\r\n").unwrap();
    format!("{header}\r\n\r\n{body}")
}

/// The canonical body that was signed, the body as it came, the canonicalization, the `l=`, and what
/// comes of it.
const LENGTHS: [(&str, &str, &str, u64, DkimResult); 21] = [
    ("Tea.\r\n", "Tea.\r\n", "relaxed/simple", 6, DkimResult::Pass),
    ("Tea.\r\n", "Tea.\r\n", "relaxed/relaxed", 6, DkimResult::Pass),
    ("Tea.\r\n", "Tea.\r\n", "simple/simple", 6, DkimResult::Pass),
    // What canonicalization takes away is not counted.
    ("Tea.\r\n", "Tea.\r\n\r\n\r\n", "relaxed/simple", 6, DkimResult::Pass),
    ("Tea.\r\n", "Tea.\r\n\r\n\r\n", "relaxed/relaxed", 6, DkimResult::Pass),
    ("Tea.\r\n", "Tea. \t\r\n \r\n\t\r\n", "relaxed/relaxed", 6, DkimResult::Pass),
    ("A tea.\r\n", "A \t tea. \r\n", "relaxed/relaxed", 8, DkimResult::Pass),
    (" A tea.\r\n\r\nB\r\n", "\tA tea.\r\n \r\nB", "relaxed/relaxed", 14, DkimResult::Pass),
    ("Tea.\r\n", "Tea.", "relaxed/relaxed", 6, DkimResult::Pass),
    ("Tea.\r\n", "Tea.", "relaxed/simple", 6, DkimResult::Pass),
    ("\r\n", "", "relaxed/simple", 2, DkimResult::Pass),
    ("\r\n", "\r\n\r\n", "relaxed/simple", 2, DkimResult::Pass),
    // What is longer than l= may have been appended.
    ("Tea.\r\n", "Tea.\r\nX\r\n", "relaxed/simple", 6, DkimResult::Policy),
    ("Tea.\r\n", "Tea.\r\nX\r\n", "relaxed/relaxed", 6, DkimResult::Policy),
    ("Tea.\r\n", "Tea.\r\n\r\n\r\nX", "relaxed/relaxed", 6, DkimResult::Policy),
    ("Tea.\r\n", "Tea.\r\n", "relaxed/simple", 4, DkimResult::Policy),
    ("Tea.\r\n", "Tea.\r\n \r\n", "relaxed/simple", 6, DkimResult::Policy),
    // RFC 6376 §3.5: nothing is shorter.
    ("Tea.\r\n", "Tea.\r\n", "relaxed/simple", 7, DkimResult::PermError),
    ("Tea.\r\n", "Tea.\r\n\r\n", "relaxed/relaxed", 8, DkimResult::PermError),
    // As long, and another.
    ("Tea.\r\n", "Mud.\r\n", "relaxed/simple", 6, DkimResult::Fail),
    ("Tea.\r\n", "Mud. \r\n", "relaxed/relaxed", 6, DkimResult::Fail),
];

#[tokio::test]
async fn a_body_length_counts_if_it_is_that_of_the_body() {
    for (signed, came, canonicalization, length, expected) in LENGTHS {
        let field = by_hand::sign(&with_body(signed), canonicalization, length);
        let message = field + &with_body(came);
        let authentication = Dns::default().keys().authenticate(&message).await;
        let [outcome] = &authentication.dkim[..] else { panic!("{:?}", authentication.dkim) };
        let what = format!("{came:?} {canonicalization} l={length}: {outcome:?}");
        assert_eq!(outcome.result, expected, "{what}");
        assert_eq!((&*outcome.domain, &*outcome.selector), ("example.test", "rsa"), "{what}");
        let verdict = if expected == DkimResult::Pass { Verdict::Pass } else { Verdict::Fail };
        assert_eq!(authentication.dkim_verdict(), verdict, "{what}");
    }
}

#[tokio::test]
async fn a_signature_with_a_length_is_judged_like_any_other() {
    let body = with_body("Tea.\r\n");
    let field = by_hand::sign(&body, "relaxed/simple", 6);
    let dns = || Dns::default().keys();
    // DMARC may rest on it.
    let authentication = dns().authenticate(&(field.clone() + &body)).await;
    assert_eq!(authentication.dkim_verdict(), Verdict::Pass);
    // A tag list that is not one, a header field that is another.
    for (from, to, expected) in [
        ("; s=rsa", "; s=rsa; s=rsa", DkimResult::PermError),
        ("; l=6", "; l=06", DkimResult::Fail),
    ] {
        let field = field.replace(from, to);
        let outcomes = dns().authenticate(&(field + &body)).await.dkim;
        assert_eq!(outcomes[0].result, expected, "{to}: {outcomes:?}");
    }
    let other = body.replace("Subject: Tea", "Subject: Coffee");
    let outcomes = dns().authenticate(&(field.clone() + &other)).await.dkim;
    assert_eq!(outcomes[0].result, DkimResult::Fail, "{outcomes:?}");
    // Beside one without a length, and beside one of the other canonicalization.
    let both = [
        by_hand::sign(&body, "relaxed/relaxed", 6),
        field.clone(),
        by_hand::sign(&body, "relaxed/simple", 4),
    ];
    let message = both.concat() + &signed_by("example.test", &body);
    let outcomes = dns().authenticate(&message).await.dkim;
    let results: Vec<_> = outcomes.iter().map(|outcome| outcome.result).collect();
    let passes = results.iter().filter(|result| **result == DkimResult::Pass).count();
    assert_eq!((results.len(), passes), (4, 3), "{outcomes:?}");
}

/// Each further length is another look at the whole body, and nobody needs many.
#[tokio::test]
async fn many_lengths_are_not_measured() {
    let body = with_body("Tea.\r\n");
    let fields: String =
        (2..=9).map(|length| by_hand::sign(&body, "relaxed/simple", length.min(6))).collect();
    let outcomes = Dns::default().keys().authenticate(&(fields.clone() + &body)).await.dkim;
    assert!(outcomes.iter().all(|outcome| outcome.result == DkimResult::Policy), "{outcomes:?}");
    let one = by_hand::sign(&body, "relaxed/simple", 6);
    let outcomes = Dns::default().keys().authenticate(&(one.repeat(30) + &body)).await.dkim;
    assert_eq!(outcomes.len(), settings().max_signatures, "{outcomes:?}");
    // In spellings that only a lenient reader takes for lengths.
    for spelling in ["L=", "l=1; l=", " l ="] {
        let odd = |length: usize| one.replace("l=6", &format!("{spelling}{length}"));
        let odd: String = (10..19).map(odd).collect();
        assert_ne!(odd, one.repeat(9), "{spelling}");
        let outcomes = Dns::default().keys().authenticate(&(one.clone() + &odd + &body)).await.dkim;
        assert_eq!(outcomes[0].result, DkimResult::Policy, "{spelling}: {outcomes:?}");
    }
}

#[tokio::test]
async fn a_signature_that_does_not_cover_from_is_not_accepted() {
    let signer = DkimSigner::from_key(rsa_key()).domain("example.test").selector("rsa");
    let signature = signer.headers(["To", "Subject", "Date"]).sign(MESSAGE.as_bytes()).unwrap();
    let message = signature.to_header() + MESSAGE;
    check(Dns::default().keys(), &message, DkimResult::PermError, Verdict::Fail).await;
}

#[tokio::test]
async fn rsa_keys_count_from_1024_bits() {
    let dns = || {
        let keys = |size| match size {
            512 => include_str!("../../../fixtures/keys/rsa512.txt"),
            _ => include_str!("../../../fixtures/keys/rsa1024.txt"),
        };
        Dns::default()
            .txt("rsa512._domainkey.example.test", keys(512))
            .txt("rsa1024._domainkey.example.test", keys(1024))
    };
    let enough = include_str!("../../../fixtures/messages/dkim-rsa1024.eml");
    check(dns(), enough, DkimResult::Pass, Verdict::Pass).await;
    let weak = include_str!("../../../fixtures/messages/dkim-rsa512.eml");
    check(dns(), weak, DkimResult::Fail, Verdict::Fail).await;
}

#[tokio::test]
async fn rsa_sha1_is_not_accepted() {
    let key = include_str!("../../../fixtures/keys/rsa2048.txt");
    let dns = Dns::default().txt("rsa2048._domainkey.example.test", key);
    let message = include_str!("../../../fixtures/messages/dkim-rsa-sha1.eml");
    let outcome = check(dns, message, DkimResult::PermError, Verdict::Fail).await;
    assert_eq!(outcome.algorithm, "rsa-sha1");
}

#[tokio::test]
async fn missing_broken_and_revoked_keys_are_told_apart() {
    const NAME: &str = "rsa._domainkey.example.test";
    for (dns, expected, verdict) in [
        (Dns::default(), DkimResult::PermError, Verdict::Fail),
        (Dns::default().broken(NAME), DkimResult::TempError, Verdict::ProcessingFailed),
        (Dns::default().txt(NAME, "v=DKIM1; p="), DkimResult::PermError, Verdict::Fail),
        (Dns::default().txt(NAME, "v=DKIM1; p=!!!"), DkimResult::PermError, Verdict::Fail),
        (Dns::default().txt(NAME, "nonsense"), DkimResult::PermError, Verdict::Fail),
        (Dns::default().txt(NAME, "v=DKIM1; p=QUJD"), DkimResult::Fail, Verdict::Fail),
    ] {
        check(dns, &signed_by("example.test", MESSAGE), expected, verdict).await;
    }
}

#[tokio::test]
async fn the_order_of_records_at_a_key_name_does_not_matter() {
    const NAME: &str = "rsa._domainkey.example.test";
    let key = include_str!("../../../fixtures/keys/rsa2048.txt");
    let message = signed_by("example.test", MESSAGE);
    for texts in [[key, "unrelated"], ["unrelated", key]] {
        let dns = Dns::default().txt(NAME, texts[0]).txt(NAME, texts[1]);
        check(dns, &message, DkimResult::Pass, Verdict::Pass).await;
    }
    for texts in [[key, "v=DKIM1; p="], ["v=DKIM1; p=", key], [key, key]] {
        let dns = Dns::default().txt(NAME, texts[0]).txt(NAME, texts[1]);
        check(dns, &message, DkimResult::PermError, Verdict::Fail).await;
    }
}

#[tokio::test]
async fn a_failed_signature_of_a_domain_that_is_testing_counts_as_none() {
    let key = include_str!("../../../fixtures/keys/rsa2048.txt").replace("k=rsa", "t=y; k=rsa");
    let dns = || Dns::default().txt("rsa._domainkey.example.test", &key);
    let signed = signed_by("example.test", MESSAGE);
    check(dns(), &signed, DkimResult::Pass, Verdict::Pass).await;
    let changed = signed.replace("Tea at", "Tee at");
    check(dns(), &changed, DkimResult::Neutral, Verdict::Gray).await;
}

#[tokio::test]
async fn an_unreadable_signature_is_signed_but_not_valid() {
    for field in ["v=1; a=rsa-sha256; d=example.test; s=x; bh=; b=", "nonsense", "v=2; d=a.test"] {
        let message = format!("DKIM-Signature: {field}\r\n{MESSAGE}");
        check(Dns::default(), &message, DkimResult::PermError, Verdict::Fail).await;
    }
}

#[tokio::test]
async fn one_valid_signature_among_bad_ones_is_enough() {
    let inner = signed_by("example.test", MESSAGE);
    let message = format!("DKIM-Signature: v=1; nonsense\r\n{}", signed_by("gone.test", &inner));
    let authentication = Dns::default().keys().authenticate(&message).await;
    assert_eq!(authentication.dkim.len(), 3);
    assert_eq!(authentication.dkim_verdict(), Verdict::Pass);
}

#[tokio::test]
async fn only_so_many_signatures_are_looked_at() {
    let mut message = signed_by("example.test", MESSAGE);
    for number in 0..200 {
        let field = message.lines().next().unwrap().to_owned();
        assert!(field.starts_with("DKIM-Signature:"));
        let copy = signed_by("example.test", MESSAGE);
        let copy = copy.get(..copy.find("From:").unwrap()).unwrap();
        message.insert_str(0, &copy.replace("s=rsa", &format!("s=n{number}")));
    }
    let dns = Dns::default().keys();
    let asked = Arc::clone(&dns.asked);
    let authentication = dns.authenticate(&message).await;
    let max = settings().max_signatures;
    assert_eq!(authentication.dkim.len(), max);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|name| name.contains("_domainkey")).count(), max);
}

#[tokio::test]
async fn a_signature_over_countless_fields_costs_no_time() {
    let names = vec!["x"; 900].join(":");
    let fields = "a:b\r\n".repeat(100_000);
    let signature = signed_by("example.test", MESSAGE);
    let signature = signature.replacen("\th=", &format!("\th={names}:"), 1);
    let message = signature.replacen("From: Alice", &format!("{fields}From: Alice"), 1);
    let started = Instant::now();
    let outcome = check(Dns::default().keys(), &message, DkimResult::Policy, Verdict::Fail).await;
    assert_eq!(outcome.reason.as_deref(), Some("too many header fields"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_missing_third_party_record_does_not_spoil_a_valid_signature() {
    let signer = DkimSigner::from_key(rsa_key()).domain("example.test").selector("rsa");
    let signer = signer.headers(SIGNED_FIELDS).atps("example.test");
    let message = signer.sign(MESSAGE.as_bytes()).unwrap().to_header() + MESSAGE;
    check(Dns::default().keys(), &message, DkimResult::Pass, Verdict::Pass).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_hashed_on_any_runtime() {
    large_message_passes().await;
}

#[tokio::test(flavor = "current_thread")]
async fn large_messages_are_hashed_on_a_runtime_of_one_thread() {
    large_message_passes().await;
}

async fn large_message_passes() {
    let body = "A line of a large message, again and again.\r\n".repeat(40_000);
    let message = signed_by("example.test", &format!("{MESSAGE}{body}"));
    check(Dns::default().keys(), &message, DkimResult::Pass, Verdict::Pass).await;
}

/// A signature made by mail-auth's signer, with `from` in it written as `to`. What is not read
/// strictly would pass as far as the grammar goes.
#[tokio::test]
async fn a_tag_list_that_breaks_the_grammar_is_a_permerror() {
    let signed = signed_by("example.test", MESSAGE);
    for (from, to, reason) in [
        ("v=1;", "", "a required tag is missing"),
        ("a=rsa-sha256;", "", "a required tag is missing"),
        ("v=1;", "v=1;;", "an empty tag"),
        ("v=1;", "v=1; v=1;", "a duplicate tag"),
        ("d=example.test", "D=example.test", "a tag name in the wrong case"),
        ("d=example.test", "d=example.test.", "d= is not a domain"),
        ("v=1;", "v=1; q=http;", "unknown query method"),
    ] {
        let message = signed.replacen(from, to, 1);
        assert_ne!(message, signed, "{from}");
        let outcome =
            check(Dns::default().keys(), &message, DkimResult::PermError, Verdict::Fail).await;
        assert_eq!(outcome.reason.as_deref(), Some(reason), "{to}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_for_this_use_is_a_permerror() {
    let key = include_str!("../../../fixtures/keys/rsa2048.txt");
    let signed = signed_by("example.test", MESSAGE);
    for (tags, reason) in [
        ("v=DKIM1; s=other; ", "the key is for another service"),
        ("v=DKIM1; h=sha1; ", "the key does not allow SHA-256"),
        ("v=DKIM1.0; ", "the key record cannot be read"),
        ("v=DKIM1;; ", "the key record cannot be read"),
    ] {
        let record = key.replacen("v=DKIM1; ", tags, 1);
        assert_ne!(record, key);
        let dns = Dns::default().txt("rsa._domainkey.example.test", &record);
        let outcome = check(dns, &signed, DkimResult::PermError, Verdict::Fail).await;
        assert_eq!(outcome.reason.as_deref(), Some(reason), "{tags}");
    }
}
