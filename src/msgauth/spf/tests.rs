use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::macros::{MacroString, Usage};
use super::record::Record;
use super::*;
use crate::dns::{Answer, Lookup, LookupError, RecordData, RecordType, Resolver, ZoneResolver};

/// TXT records by name; `!` stands for a resolver failure.
struct Zone(&'static [(&'static str, &'static str)]);

impl Resolver for Zone {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        let records: Vec<_> = self
            .0
            .iter()
            .filter(|(owner, _)| *owner == name && record_type == RecordType::Txt)
            .map(|(_, text)| *text)
            .collect();
        Box::pin(async move {
            if records.contains(&"!") {
                return Err(LookupError::Transient("SERVFAIL".into()));
            }
            if records.is_empty() {
                return Err(LookupError::NoSuchName);
            }
            let records: Vec<_> =
                records.iter().map(|text| RecordData::Txt(text.as_bytes().into())).collect();
            Ok(Answer {
                records: Arc::from(records),
                ttl: Duration::from_secs(60),
                is_secure: false,
            })
        })
    }
}

async fn check(zone: &'static [(&'static str, &'static str)], expected: SpfResult) {
    let query = Query {
        ip: "192.0.2.1".parse().expect("an address"),
        helo: "mail.a.test",
        sender: Some("u@a.test"),
        receiver: "mx.test",
        now_secs: 0,
    };
    let outcome = check_host(&Zone(zone), &query).await;
    assert_eq!(outcome.result, expected, "{zone:?}: {outcome:?}");
}

#[tokio::test]
async fn what_a_lenient_evaluator_gets_wrong() {
    use SpfResult::{Fail, None, Pass, PermError, SoftFail, TempError};
    check(&[("a.test", "v=spf1 +all"), ("a.test", "v=spf1 -all")], PermError).await;
    check(&[("a.test", "v=spf1 ip4:999.1.1.1 -all")], PermError).await;
    check(&[("a.test", "v=spf1 ip4:192.0.2.0/33 -all")], PermError).await;
    check(&[("a.test", "v=spf1 foo:bar -all")], PermError).await;
    check(&[("a.test", "v=spf1 +all foo:bar")], PermError).await;
    check(&[("a.test", "v=spf1 a:x1.test a:x2.test a:x3.test +all")], PermError).await;
    check(&[("a.test", "v=spf1 a:x1.test a:x2.test +all")], Pass).await;
    check(&[("a.test", "v=spf1 redirect=b.test")], PermError).await;
    check(&[("a.test", "v=spf1 include:b.test +all")], PermError).await;
    check(&[("a.test", "v=spf1 include:b.test +all"), ("b.test", "!")], TempError).await;
    check(&[("a.test", "!")], TempError).await;
    check(&[("a.test", "v=spf10 +all"), ("a.test", "other")], None).await;
    check(&[("a.test", "google=1"), ("a.test", "V=SPF1 ip4:192.0.2.1 -ALL")], Pass).await;
    check(&[("a.test", "v=spf1 include:b.test ~all"), ("b.test", "v=spf1 -all")], SoftFail).await;
    check(&[("a.test", "v=spf1 redirect=a.test")], PermError).await;
    check(&[("a.test", "v=spf1 -all")], Fail).await;
}

#[tokio::test]
async fn a_void_lookup_is_a_term_and_no_host() {
    use SpfResult::{Pass, PermError};
    let hosts = "$TTL 60\n\
                 pool.test. IN MX 1 h1.test.\npool.test. IN MX 1 h2.test.\n\
                 pool.test. IN MX 1 h3.test.\n\
                 gone.test. IN MX 1 n1.test.\ngone.test. IN MX 1 n2.test.\n\
                 gone.test. IN MX 1 n3.test.\n\
                 half.test. IN MX 1 n1.test.\nhalf.test. IN MX 1 h1.test.\n\
                 h1.test. IN A 192.0.2.1\nh2.test. IN A 192.0.2.2\nh3.test. IN A 192.0.2.3\n\
                 h6.test. IN AAAA 2001:db8::9\n";
    for (terms, ip, expected) in [
        ("mx:pool.test", "2001:db8::5", Pass),
        ("a:h1.test a:h2.test a:h3.test", "2001:db8::5", Pass),
        ("a:h6.test a:h6.test a:h6.test", "198.51.100.1", Pass),
        // Three hosts without an address are one term.
        ("mx:gone.test", "198.51.100.1", Pass),
        ("mx:gone.test mx:gone.test", "2001:db8::5", Pass),
        ("mx:gone.test mx:gone.test mx:gone.test", "198.51.100.1", PermError),
        ("mx:half.test mx:half.test mx:half.test", "2001:db8::5", Pass),
        ("a:n1.test mx:n2.test exists:n3.test", "198.51.100.1", PermError),
        ("a:n1.test mx:gone.test a:n2.test", "2001:db8::5", PermError),
        ("exists:n1.test exists:n2.test exists:h1.test", "2001:db8::5", SpfResult::Fail),
    ] {
        let text = format!("{hosts}a.test. IN TXT \"v=spf1 -{} +all\"\n", terms.replace(' ', " -"));
        let zone = ZoneResolver::parse(&text, std::path::Path::new("z")).expect("a zone");
        let query = Query {
            ip: ip.parse().expect("an address"),
            helo: "mail.a.test",
            sender: Some("u@a.test"),
            receiver: "mx.test",
            now_secs: 0,
        };
        let outcome = check_host(&zone, &query).await;
        assert_eq!(outcome.result, expected, "{terms}: {outcome:?}");
    }
}

/// Hosts whose other family DNS does not tell: nobody knows that they lead nowhere.
struct HalfAnswered;

impl Resolver for HalfAnswered {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        let text = "v=spf1 -a:h1.test -a:h2.test -mx:m.test -a:h3.test +all";
        let records: Vec<RecordData> = match (name, record_type) {
            ("a.test", RecordType::Txt) => vec![RecordData::Txt(text.as_bytes().into())],
            ("m.test", RecordType::Mx) => {
                vec![RecordData::Mx { preference: 1, exchange: "h4.test".into() }]
            }
            _ => vec![],
        };
        Box::pin(async move {
            if record_type == RecordType::Aaaa {
                return Err(LookupError::Transient("SERVFAIL".into()));
            }
            if records.is_empty() {
                return Err(LookupError::NoData);
            }
            let ttl = Duration::from_secs(60);
            Ok(Answer { records: Arc::from(records), ttl, is_secure: false })
        })
    }
}

#[tokio::test]
async fn what_dns_does_not_tell_is_no_void_lookup() {
    let query = Query {
        ip: "192.0.2.1".parse().expect("an address"),
        helo: "mail.a.test",
        sender: Some("u@a.test"),
        receiver: "mx.test",
        now_secs: 0,
    };
    let outcome = check_host(&HalfAnswered, &query).await;
    assert_eq!(outcome.result, SpfResult::Pass, "{outcome:?}");
}

#[tokio::test]
async fn a_null_path_checks_the_helo_name() {
    let zone = Zone(&[("mail.a.test", "v=spf1 ip4:192.0.2.1 -all")]);
    let query = Query {
        ip: "::ffff:192.0.2.1".parse().expect("an address"),
        helo: "mail.a.test",
        sender: None,
        receiver: "mx.test",
        now_secs: 0,
    };
    let outcome = check_host(&zone, &query).await;
    assert_eq!((outcome.result, outcome.identity), (SpfResult::Pass, Identity::Helo));
    assert_eq!(outcome.mechanism.as_deref(), Some("ip4:192.0.2.1"));
}

proptest! {
    #[test]
    fn no_record_is_too_odd(text in "[ -~\u{e9}]{0,80}") {
        drop(Record::parse(format!("v=spf1 {text}").as_bytes())); // Must not panic.
    }

    #[test]
    fn no_term_is_too_odd(name in "(a|mx|ptr|ip4|ip6|include|exists|all|exp|redirect)",
                          argument in "[:/=.%{}a-z0-9-]{0,30}") {
        drop(Record::parse(format!("v=spf1 {name}{argument}").as_bytes())); // Must not panic.
    }

    #[test]
    fn no_macro_is_too_odd(text in "[%{}a-zA-Z0-9._ -]{0,60}") {
        drop(MacroString::parse(&text, Usage::Explanation)); // Must not panic.
    }
}
