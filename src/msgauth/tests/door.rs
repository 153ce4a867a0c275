//! The whole: the header fields, the deadline, and what is kept.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::mail::Verdict;

fn good() -> Dns {
    Dns::default()
        .keys()
        .spf_pass("example.test")
        .txt("_dmarc.example.test", "v=DMARC1; p=reject; pct=50")
        .ptr(CLIENT, "mail.example.test")
        .a("mail.example.test", CLIENT)
}

#[tokio::test]
async fn a_good_message_has_good_header_fields() {
    let authentication = good().authenticate(&signed_by("example.test", MESSAGE)).await;
    let path = reverse_path("alice@example.test");
    assert_eq!(
        authentication.received_spf(&peer(), &path),
        "Received-SPF: pass (spfCheck: domain of example.test designates 192.0.2.1 as permitted \
         sender)\r\n client-ip=192.0.2.1; envelope-from=alice@example.test;\r\n \
         helo=mail.example.test; identity=mailfrom; mechanism=ip4:192.0.2.1;\r\n"
    );
    assert_eq!(
        authentication.authentication_results("mx.example.org"),
        "Authentication-Results: mx.example.org;\r\n spf=pass smtp.mailfrom=example.test;\r\n \
         dkim=pass header.i=@example.test header.d=example.test header.s=rsa \
         header.a=rsa-sha256;\r\n dmarc=pass (p=reject pct=50) header.from=example.test;\r\n \
         arc=none;\r\n iprev=pass (mail.example.test) policy.iprev=192.0.2.1\r\n"
    );
}

#[tokio::test]
async fn an_unknown_message_says_so_in_its_header_fields() {
    let authentication = Dns::default().authenticate_from(MESSAGE, "").await;
    assert_eq!(
        authentication.received_spf(&peer(), &ReversePath::Null),
        "Received-SPF: none (spfCheck: 192.0.2.1 is neither permitted nor denied by domain of \
         mail.example.test)\r\n client-ip=192.0.2.1; envelope-from=\"\";\r\n \
         helo=mail.example.test; identity=helo;\r\n"
    );
    assert_eq!(
        authentication.authentication_results("mx.example.org"),
        "Authentication-Results: mx.example.org;\r\n spf=none smtp.helo=mail.example.test;\r\n \
         dkim=none;\r\n dmarc=none header.from=example.test;\r\n arc=none;\r\n iprev=permerror \
         policy.iprev=192.0.2.1\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn dead_dns_is_processing_failed_within_the_deadline() {
    let dns = ["example.test", "rsa._domainkey.example.test", "_dmarc.example.test", "_dmarc.test"];
    let dns = dns.iter().fold(Dns::default(), |dns, name| dns.silent(name));
    let dns = dns.silent("1.2.0.192.in-addr.arpa");
    let started = tokio::time::Instant::now();
    let authentication = dns.authenticate(&signed_by("example.test", MESSAGE)).await;
    assert_eq!(started.elapsed().as_secs(), settings().deadline.as_secs());
    assert_eq!(authentication.spf_verdict(), Verdict::ProcessingFailed);
    assert_eq!(authentication.dkim_verdict(), Verdict::ProcessingFailed);
    assert_eq!(authentication.dmarc_verdict(), Verdict::ProcessingFailed);
    assert_eq!(authentication.iprev.result, IprevResult::TempError);
}

#[tokio::test(start_paused = true)]
async fn one_slow_lookup_does_not_spoil_the_others() {
    let authentication = good().silent("example.test");
    let authentication = authentication.authenticate(&signed_by("example.test", MESSAGE)).await;
    assert_eq!(authentication.spf_verdict(), Verdict::ProcessingFailed);
    assert_eq!(authentication.dkim_verdict(), Verdict::Pass);
    assert_eq!(authentication.dmarc_verdict(), Verdict::Pass);
    assert_eq!(authentication.iprev.result, IprevResult::Pass);
}

#[tokio::test]
async fn what_is_kept_reads_back_the_same() {
    let mut authentication = good().authenticate(&signed_by("example.test", MESSAGE)).await;
    let json = serde_json::to_string(&authentication).unwrap();
    // What the walk has found is for the message's path alone.
    authentication.dmarc.organization = Organization::default();
    assert_eq!(serde_json::from_str::<Authentication>(&json).unwrap(), authentication);
}

#[tokio::test]
async fn nothing_is_ever_asked_of_the_network_by_mail_auth() {
    // Every name asked for went through our resolver: a verifier of its own would have had
    // none to ask and would have said temperror.
    let authentication = good().authenticate(&signed_by("mail.example.test", MESSAGE)).await;
    assert_eq!(authentication.dkim[0].result, DkimResult::PermError);
    assert_eq!(authentication.dmarc.result, DmarcResult::Pass);
}

fn forged(text: &str) -> Authentication {
    let text = || text.to_owned();
    Authentication {
        spf: spf::SpfOutcome {
            result: spf::SpfResult::PermError,
            identity: spf::Identity::Helo,
            domain: text(),
            mechanism: Some(text()),
            explanation: Some(text()),
            problem: Some(text()),
        },
        dkim: vec![DkimOutcome {
            domain: text(),
            selector: text(),
            identity: text(),
            algorithm: text(),
            result: DkimResult::PermError,
            reason: Some(text()),
        }],
        dmarc: DmarcOutcome {
            result: DmarcResult::Fail,
            domain: Some(text()),
            policy: None,
            applied: None,
            pct: 100,
            reason: Some(text()),
            organization: Organization::Shared(text()),
        },
        arc: ArcOutcome {
            result: ArcResult::Fail,
            instances: 1,
            sealer: Some(text()),
            reason: Some(text()),
        },
        iprev: IprevOutcome {
            result: IprevResult::Pass,
            ip: CLIENT.parse().unwrap(),
            name: Some(text()),
        },
    }
}

/// One field, folded, within the length of a line, without a NUL.
fn is_one_field(field: &str) -> bool {
    let lines: Vec<&str> = field.split("\r\n").collect();
    let Some(([first, folded @ ..], [""])) = lines.split_last_chunk::<1>() else { return false };
    !first.starts_with([' ', '\t'])
        && folded.iter().all(|line| line.starts_with(' ') && !line.trim().is_empty())
        && lines.iter().all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0']))
}

proptest! {
    #[test]
    fn nothing_that_a_peer_says_escapes_from_its_field(text in "(\\PC|[\r\n\0\t\"\\\\();]){0,400}") {
        let peer = Peer { helo: text.clone(), ..peer() };
        let authentication = forged(&text);
        let received = authentication.received_spf(&peer, &ReversePath::Null);
        prop_assert!(is_one_field(&received), "{received}");
        let results = authentication.authentication_results(&text);
        prop_assert!(is_one_field(&results), "{results}");
    }

    #[test]
    fn no_message_is_a_reason_to_panic(header in "[ -~\r\n]{0,300}", body: Vec<u8>) {
        let mut message = format!("DKIM-Signature: {header}\r\nFrom: {header}\r\n{header}\r\n\r\n")
            .into_bytes();
        message.extend(body);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let authenticator = Authenticator::new(Arc::new(good()), settings());
        let request = Request {
            message: &message,
            weight: Weight::of(&message),
            peer: &peer(),
            reverse_path: &ReversePath::Null,
            authors: &[],
            trace_id: TraceId::generate(),
            now: NOW,
        };
        runtime.block_on(authenticator.authenticate(&request));
    }
}

/// Run by hand in release mode: the CPU time of a warm message of 4 KB.
#[tokio::test]
async fn warm_messages_are_cheap() {
    let message = signed_by("example.test", &format!("{MESSAGE}{}", "Line.\r\n".repeat(500)));
    let authenticator = Authenticator::new(Arc::new(good()), settings());
    let (peer, path) = (peer(), reverse_path("alice@example.test"));
    let request = Request {
        message: message.as_bytes(),
        weight: Weight::of(message.as_bytes()),
        peer: &peer,
        reverse_path: &path,
        authors: &[],
        trace_id: TraceId::generate(),
        now: NOW,
    };
    let started = Instant::now();
    for _ in 0..100 {
        let authentication = authenticator.authenticate(&request).await;
        assert_eq!(authentication.dkim_verdict(), Verdict::Pass);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?} for 100", started.elapsed());
}
