//! DMARC: finding the policy, alignment, and what is asked for.

use proptest::prelude::*;

use super::*;
use crate::mail::{Authors, DmarcPolicy, Verdict};

use DmarcPolicy::{Quarantine, Reject};

/// A message from `author`, with what DNS says of the policies, authenticated by nothing.
async fn unauthenticated(author: &str, dns: Dns) -> Authentication {
    let message = MESSAGE.replace("alice@example.test", author);
    dns.authenticate_from(&message, "bounce@elsewhere.test").await
}

async fn check(author: &str, dns: Dns, result: DmarcResult, policy: Option<DmarcPolicy>) {
    let authentication = unauthenticated(author, dns).await;
    assert_eq!(authentication.dmarc.result, result, "{:?}", authentication.dmarc);
    assert_eq!(authentication.dmarc.policy, policy, "{:?}", authentication.dmarc);
    let verdict = match result {
        DmarcResult::Pass => Verdict::Pass,
        DmarcResult::Fail => Verdict::Fail,
        DmarcResult::None => Verdict::Gray,
        DmarcResult::TempError | DmarcResult::PermError => Verdict::ProcessingFailed,
    };
    assert_eq!(authentication.dmarc_verdict(), verdict);
}

fn policy(text: &str) -> Dns {
    Dns::default().txt("_dmarc.example.test", text)
}

#[tokio::test]
async fn the_published_policy_is_asked_for_when_nothing_aligns() {
    let alice = "alice@example.test";
    for (text, expected) in [
        ("v=DMARC1; p=none", DmarcPolicy::None),
        ("v=DMARC1; p=quarantine", Quarantine),
        ("v=DMARC1; p=reject", Reject),
        ("v=DMARC1; p=reject; t=y", Quarantine),
        ("v=DMARC1; rua=mailto:a@example.test", DmarcPolicy::None),
    ] {
        check(alice, policy(text), DmarcResult::Fail, Some(expected)).await;
        let requested = unauthenticated(alice, policy(text)).await.dmarc.requested();
        assert_eq!(requested, expected, "{text}");
    }
}

#[tokio::test]
async fn subdomains_have_policies_of_their_own() {
    let sub = "alice@news.example.test";
    let exists = |dns: Dns| dns.a("news.example.test", "192.0.2.7");
    for (text, existing, missing) in [
        ("v=DMARC1; p=reject", Reject, Reject),
        ("v=DMARC1; p=reject; sp=none", DmarcPolicy::None, DmarcPolicy::None),
        ("v=DMARC1; p=none; sp=quarantine", Quarantine, Quarantine),
        ("v=DMARC1; p=none; np=reject", DmarcPolicy::None, Reject),
        ("v=DMARC1; p=none; sp=quarantine; np=reject", Quarantine, Reject),
    ] {
        check(sub, exists(policy(text)), DmarcResult::Fail, Some(existing)).await;
        check(sub, policy(text), DmarcResult::Fail, Some(missing)).await;
    }
    let own = policy("v=DMARC1; p=reject").txt("_dmarc.news.example.test", "v=DMARC1; p=none");
    check(sub, own, DmarcResult::Fail, Some(DmarcPolicy::None)).await;
    // Whether the domain exists cannot be found out: the milder reading.
    let unknown = policy("v=DMARC1; p=none; np=reject").broken("news.example.test");
    check(sub, unknown, DmarcResult::Fail, Some(DmarcPolicy::None)).await;
}

#[tokio::test]
async fn a_domain_without_a_usable_record_is_gray() {
    let alice = "alice@example.test";
    for dns in [
        Dns::default(),
        policy("nonsense"),
        policy("v=DMARC2; p=reject"),
        policy("p=reject; v=DMARC1"),
        policy("v=DMARC1; sp=reject"),
        policy("v=DMARC1; p=reject").txt("_dmarc.example.test", "v=DMARC1; p=none"),
    ] {
        check(alice, dns, DmarcResult::None, None).await;
    }
}

#[tokio::test]
async fn two_records_at_a_level_are_no_record_there() {
    let two = || {
        policy("v=DMARC1; p=reject; np=none").txt("_dmarc.news.example.test", "v=DMARC1; p=none")
    };
    let two = || {
        two()
            .txt("_dmarc.news.example.test", "v=DMARC1; p=quarantine")
            .a("news.example.test", "192.0.2.7")
    };
    check("alice@news.example.test", two(), DmarcResult::Fail, Some(Reject)).await;
}

#[tokio::test]
async fn the_order_of_records_does_not_matter() {
    let alice = "alice@example.test";
    for texts in [["v=DMARC1; p=reject", "v=spf1 -all"], ["v=spf1 -all", "v=DMARC1; p=reject"]] {
        let dns = policy(texts[0]).txt("_dmarc.example.test", texts[1]);
        check(alice, dns, DmarcResult::Fail, Some(Reject)).await;
    }
}

#[tokio::test]
async fn trouble_is_not_taken_for_absence() {
    let alice = "alice@example.test";
    let broken = Dns::default().broken("_dmarc.example.test");
    check(alice, broken, DmarcResult::TempError, None).await;
}

#[tokio::test]
async fn a_wrong_word_in_a_record_switches_no_policy_off() {
    let alice = "alice@example.test";
    for text in ["v=DMARC1; p=reject; adkim=relaxed; aspf=strict", "v=DMARC1; p=reject; aspf=x"] {
        check(alice, policy(text), DmarcResult::Fail, Some(Reject)).await;
    }
    let reported = policy("v=DMARC1; p=rejected; rua=mailto:r@b.test");
    check(alice, reported, DmarcResult::Fail, Some(DmarcPolicy::None)).await;
    for text in ["v=DMARC1; p=", "v=DMARC1; p=banana", "V=DMARC1; p=reject", " v=DMARC1; p=reject"]
    {
        check(alice, policy(text), DmarcResult::None, None).await;
    }
}

#[tokio::test]
async fn what_a_parent_publishes_wrongly_does_not_spoil_a_policy() {
    let dns = policy("v=DMARC1; p=reject").txt("_dmarc.test", "v=DMARC1; p=banana");
    check("alice@example.test", dns, DmarcResult::Fail, Some(Reject)).await;
}

async fn check_alignment(policy: &str, domain: &str, aligned: bool) {
    let expected = if aligned { DmarcResult::Pass } else { DmarcResult::Fail };
    let dns = || Dns::default().txt("_dmarc.example.test", policy);
    let by_spf = dns().spf_pass(domain);
    let by_spf = by_spf.authenticate_from(MESSAGE, &format!("bounce@{domain}")).await;
    assert_eq!(by_spf.dmarc.result, expected, "SPF, {domain}, {policy}");
    let key = include_str!("../../../fixtures/keys/rsa2048.txt");
    let by_dkim = dns().txt(&format!("rsa._domainkey.{domain}"), key);
    let signed = signed_by(domain, MESSAGE);
    let by_dkim = by_dkim.authenticate_from(&signed, "bounce@elsewhere.test").await;
    assert_eq!(by_dkim.dmarc.result, expected, "DKIM, {domain}, {policy}");
}

#[tokio::test]
async fn identifiers_align_by_mode() {
    let relaxed = "v=DMARC1; p=reject";
    let strict = "v=DMARC1; p=reject; aspf=s; adkim=s";
    check_alignment(relaxed, "example.test", true).await;
    check_alignment(strict, "example.test", true).await;
    check_alignment(relaxed, "mail.example.test", true).await;
    check_alignment(strict, "mail.example.test", false).await;
    for mode in [relaxed, strict] {
        check_alignment(mode, "elsewhere.test", false).await;
        check_alignment(mode, "notexample.test", false).await;
        check_alignment(mode, "test", false).await;
    }
}

#[tokio::test]
async fn an_organization_of_its_own_below_does_not_align() {
    let dns = policy("v=DMARC1; p=reject")
        .txt("_dmarc.tenant.example.test", "v=DMARC1; p=none; psd=n")
        .spf_pass("tenant.example.test");
    let authentication = dns.authenticate_from(MESSAGE, "x@tenant.example.test").await;
    assert_eq!(authentication.dmarc.result, DmarcResult::Fail);
}

#[tokio::test]
async fn siblings_below_a_public_suffix_do_not_align() {
    let dns = Dns::default().txt("_dmarc.test", "v=DMARC1; p=reject; psd=y").spf_pass("other.test");
    let authentication = dns.authenticate_from(MESSAGE, "x@other.test").await;
    assert_eq!(authentication.dmarc.result, DmarcResult::Fail);
    assert_eq!(authentication.dmarc.policy, Some(Reject));
}

#[tokio::test]
async fn a_null_reverse_path_aligns_by_its_helo_name() {
    let dns = policy("v=DMARC1; p=reject").spf_pass("mail.example.test");
    let authentication = dns.authenticate_from(MESSAGE, "").await;
    assert_eq!(authentication.spf.identity, spf::Identity::Helo);
    assert_eq!(authentication.dmarc.result, DmarcResult::Pass);
}

#[tokio::test]
async fn a_key_or_record_that_cannot_be_looked_up_may_have_aligned() {
    let dns = policy("v=DMARC1; p=reject").broken("rsa._domainkey.example.test");
    let signed = signed_by("example.test", MESSAGE);
    let authentication = dns.authenticate_from(&signed, "x@elsewhere.test").await;
    assert_eq!(authentication.dmarc.result, DmarcResult::TempError);
    let dns = policy("v=DMARC1; p=reject").broken("example.test");
    let authentication = dns.authenticate(MESSAGE).await;
    assert_eq!(authentication.dmarc.result, DmarcResult::TempError);
    assert_eq!(authentication.dmarc.requested(), DmarcPolicy::None);
}

#[tokio::test]
async fn authors_of_several_domains_never_pass() {
    for from in ["a@example.test, b@other.test", "a@example.test>, <b@other.test"] {
        let message = MESSAGE.replace("alice@example.test", from);
        let dns = policy("v=DMARC1; p=reject").spf_pass("example.test");
        let authentication = dns.authenticate(&message).await;
        assert_eq!(authentication.dmarc.result, DmarcResult::None, "{from}");
    }
    let twice = format!("From: b@other.test\r\n{MESSAGE}");
    let authentication = policy("v=DMARC1; p=reject").spf_pass("example.test");
    let authentication = authentication.authenticate(&twice).await;
    assert_eq!(authentication.dmarc.result, DmarcResult::None);
    assert_eq!(authentication.dmarc.reason.as_deref(), Some("no author"));
}

/// What several authors have in common, and what is found for them.
async fn check_several(from: &str, dns: Dns, organization: Option<&str>, result: DmarcResult) {
    let message = MESSAGE.replace("alice@example.test", from);
    let found = dns.authenticate_from(&message, "x@mail.example.test").await.dmarc;
    assert_eq!(found.organization.shared(), organization, "{from}: {found:?}");
    assert_eq!(found.result, result, "{from}: {found:?}");
}

#[tokio::test]
async fn several_domains_are_of_the_organization_that_dns_says() {
    let siblings = "a@one.example.test>, <b@two.example.test";
    let parent = "a@example.test>, <b@two.example.test";
    let record = "v=DMARC1; p=reject";
    for from in [siblings, parent] {
        check_several(from, policy(record), Some("example.test"), DmarcResult::Fail).await;
        let aligned = policy(record).spf_pass("mail.example.test");
        check_several(from, aligned, Some("example.test"), DmarcResult::Pass).await;
        // Nobody says that the one is the other's.
        check_several(from, Dns::default(), None, DmarcResult::None).await;
        // One of them says that it is by itself, or somebody above that those below are.
        let alone = policy(record).txt("_dmarc.two.example.test", "v=DMARC1; p=reject; psd=n");
        check_several(from, alone, None, DmarcResult::Fail).await;
        let suffix = policy("v=DMARC1; p=none; psd=y");
        check_several(from, suffix, None, DmarcResult::Fail).await;
        // It cannot be told.
        let broken = policy(record).broken("_dmarc.two.example.test");
        check_several(from, broken, None, DmarcResult::Fail).await;
        for (name, expected) in [("_dmarc.two.example.test", true), ("_dmarc.x.test", false)] {
            let message = MESSAGE.replace("alice@example.test", from);
            let found = policy(record).broken(name).authenticate(&message).await.dmarc;
            let is_untold = found.organization == Organization::Untold;
            assert_eq!(is_untold, expected, "{from}, {name}: {found:?}");
        }
        // What stands above the end of the walk does not count.
        let ended = policy("v=DMARC1; p=reject; psd=n").broken("_dmarc.test");
        let ended = ended.spf_pass("mail.example.test");
        check_several(from, ended, Some("example.test"), DmarcResult::Pass).await;
    }
    // Below a public suffix that says so.
    let suffix = || policy(record).txt("_dmarc.test", "v=DMARC1; p=reject; psd=y");
    check_several(siblings, suffix(), Some("example.test"), DmarcResult::Fail).await;
    let deeper = "a@x.one.example.test>, <b@y.one.example.test";
    let below = policy("v=DMARC1; p=none; psd=y");
    check_several(deeper, below, Some("one.example.test"), DmarcResult::Fail).await;
    let records = policy(record).txt("_dmarc.one.example.test", record);
    check_several(deeper, records, Some("example.test"), DmarcResult::Fail).await;
    // A single domain needs no organization.
    check_several("a@example.test>, <b@example.test", policy(record), None, DmarcResult::Fail)
        .await;
}

#[tokio::test]
async fn the_strictest_policy_of_several_authors_counts() {
    for from in [
        "a@one.example.test>, <b@two.example.test",
        "b@two.example.test>, <a@one.example.test",
        "b@two.example.test>, <a@example.test",
    ] {
        let message = MESSAGE.replace("alice@example.test", from);
        let dns = policy("v=DMARC1; p=none; sp=none")
            .txt("_dmarc.two.example.test", "v=DMARC1; p=reject");
        let found = dns.authenticate_from(&message, "x@elsewhere.test").await.dmarc;
        assert_eq!(found.requested(), Reject, "{from}");
        assert_eq!(found.domain.as_deref(), Some("two.example.test"), "{from}");
    }
}

#[tokio::test]
async fn odd_authors_do_no_harm() {
    for from in ["", "<>", "nobody", "a@", "a@.", "a@..", "a@x", "a@example..test", "a@[192.0.2.1]"]
    {
        let message = MESSAGE.replace("Alice <alice@example.test>", from);
        let dns = policy("v=DMARC1; p=reject").spf_pass("example.test");
        let authentication = dns.authenticate(&message).await;
        assert_ne!(authentication.dmarc.result, DmarcResult::Pass, "{from}");
    }
    let none = Dns::default().authenticate("").await;
    assert_eq!(none.dmarc.result, DmarcResult::None);
}

#[tokio::test]
async fn a_final_dot_does_not_evade_the_policy() {
    check("alice@example.test.", policy("v=DMARC1; p=reject"), DmarcResult::Fail, Some(Reject))
        .await;
}

#[tokio::test]
async fn authors_are_compared_as_a_labels() {
    let dns = Dns::default().txt("_dmarc.xn--bro-hoa.test", "v=DMARC1; p=reject");
    check("alice@B\u{dc}RO.test", dns, DmarcResult::Fail, Some(Reject)).await;
}

#[tokio::test]
async fn a_walk_has_at_most_eight_questions() {
    let author = "a@l11.l10.l9.l8.l7.l6.l5.l4.example.test";
    let dns = policy("v=DMARC1; p=reject");
    let asked = Arc::clone(&dns.asked);
    check(author, dns, DmarcResult::Fail, Some(Reject)).await;
    let asked = asked.lock().unwrap();
    let walk: Vec<_> = asked.iter().filter_map(|name| name.strip_prefix("_dmarc.")).collect();
    assert_eq!(
        walk,
        [
            "l11.l10.l9.l8.l7.l6.l5.l4.example.test",
            "l8.l7.l6.l5.l4.example.test",
            "l7.l6.l5.l4.example.test",
            "l6.l5.l4.example.test",
            "l5.l4.example.test",
            "l4.example.test",
            "example.test",
            "test",
        ]
    );
}

#[tokio::test]
async fn strangers_are_not_walked_for() {
    let dns = policy("v=DMARC1; p=reject").spf_pass("elsewhere.test");
    let asked = Arc::clone(&dns.asked);
    dns.authenticate_from(MESSAGE, "x@elsewhere.test").await;
    assert!(!asked.lock().unwrap().contains(&"_dmarc.elsewhere.test".to_owned()));
}

/// Of 400 messages, to how many `text` is applied in full, and what the others get.
async fn sampled(text: &str) -> (usize, Vec<DmarcPolicy>) {
    let authenticator = Authenticator::new(Arc::new(policy(text)), settings());
    let (peer, path) = (peer(), reverse_path("x@elsewhere.test"));
    let mut full = 0;
    let mut others = Vec::new();
    let authors = Authors::of(MESSAGE.as_bytes()).expect("has an author").into_addresses();
    for _ in 0..400 {
        let request = Request {
            message: MESSAGE.as_bytes(),
            weight: Weight::of(MESSAGE.as_bytes()),
            peer: &peer,
            reverse_path: &path,
            authors: &authors,
            trace_id: TraceId::generate(),
            now: NOW,
        };
        let outcome = authenticator.authenticate(&request).await.dmarc;
        if outcome.applied == outcome.policy {
            full += 1;
        } else if let Some(applied) = outcome.applied.filter(|it| !others.contains(it)) {
            others.push(applied);
        }
    }
    (full, others)
}

#[tokio::test]
async fn pct_chooses_a_share_of_the_messages() {
    assert_eq!(sampled("v=DMARC1; p=reject; pct=100").await, (400, vec![]));
    assert_eq!(sampled("v=DMARC1; p=reject").await, (400, vec![]));
    assert_eq!(sampled("v=DMARC1; p=reject; pct=0").await, (0, vec![Quarantine]));
    assert_eq!(sampled("v=DMARC1; p=quarantine; pct=0").await, (0, vec![DmarcPolicy::None]));
    assert_eq!(sampled("v=DMARC1; p=none; pct=0").await, (400, vec![]));
    assert_eq!(sampled("v=DMARC1; p=reject; pct=101").await, (400, vec![]));
    assert_eq!(sampled("v=DMARC1; p=reject; pct=x").await, (400, vec![]));
    let (full, others) = sampled("v=DMARC1; p=reject; PCT = 30").await;
    assert!((60..=180).contains(&full), "{full} of 400");
    assert_eq!(others, [Quarantine]);
}

#[tokio::test]
async fn pct_decides_the_same_for_the_same_message() {
    let trace_id = TraceId::generate();
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let dns = policy("v=DMARC1; p=reject; pct=50");
        outcomes.push(authenticate_with(dns, MESSAGE, "x@elsewhere.test", trace_id).await.dmarc);
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Names close to each other, so that walks meet.
fn name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "c.a", "a.b.c", "a.b.c.a.b.c.a"]);
    let top = prop::sample::select(vec!["example.test", "test", "co.test", "b.co.test"]);
    (label, top).prop_map(|(label, top)| format!("{label}.{top}"))
}

fn record() -> impl Strategy<Value = String> {
    let tag = |values: Vec<&'static str>| prop::sample::select(values);
    let parts = (
        tag(vec!["p=none", "p=reject", "sp=none; p=reject", "np=reject; p=none", "p=banana"]),
        tag(vec!["", "; psd=y", "; psd=n", "; t=y"]),
        tag(vec!["", "; aspf=s", "; adkim=s"]),
    );
    parts.prop_map(|(policy, psd, mode)| format!("v=DMARC1; {policy}{psd}{mode}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// All that mail-auth asks for was looked up before: with DNS in order, nothing is transient.
    #[test]
    fn whatever_evaluation_needs_is_looked_up_first(
        author in name(),
        sender in name(),
        signer in name(),
        records in prop::collection::vec((name(), 0_usize..4, record()), 0..6),
    ) {
        let key = include_str!("../../../fixtures/keys/rsa2048.txt");
        let dns = Dns::default().spf_pass(&sender);
        let dns = dns.txt(&format!("rsa._domainkey.{signer}"), key);
        let dns = records.iter().fold(dns, |dns, (name, depth, text)| {
            let at = name.splitn(depth + 1, '.').last().unwrap();
            dns.txt(&format!("_dmarc.{at}"), text)
        });
        let message = MESSAGE.replace("alice@example.test", &format!("alice@{author}"));
        let message = signed_by(&signer, &message);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(dns.authenticate_from(&message, &format!("x@{sender}")));
        prop_assert_eq!(outcome.dkim_verdict(), Verdict::Pass);
        prop_assert_ne!(outcome.dmarc.result, DmarcResult::TempError, "{:?}", outcome.dmarc);
    }
}
