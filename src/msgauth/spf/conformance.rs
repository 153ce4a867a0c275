//! The public RFC 7208 test suite, run on the evaluator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Query, check_host};
use crate::dns::{Answer, Lookup, LookupError, LookupResult, RecordData, RecordType, Resolver};

#[allow(unreachable_pub, reason = "shared with the integration tests")]
#[path = "../../../tests/it/support/spf_suite.rs"]
mod spf_suite;
use spf_suite::Entry;

const SUITE: &str = include_str!("../../../fixtures/spf/rfc7208-tests.yml");

struct SuiteResolver<'a>(&'a BTreeMap<String, Vec<Entry>>);

impl SuiteResolver<'_> {
    fn answer(&self, name: &str, kind: RecordType) -> LookupResult {
        let mut name = name.to_lowercase();
        for _ in 0..10 {
            let Some(entries) = self.0.get(&name) else { return Err(LookupError::NoSuchName) };
            let records: Vec<_> = entries.iter().filter_map(|entry| data(entry, kind)).collect();
            if !records.is_empty() {
                let records = Arc::from(records);
                return Ok(Answer { records, ttl: Duration::from_secs(60), is_secure: false });
            }
            if entries.contains(&Entry::Timeout) {
                return Err(LookupError::Transient("timed out".into()));
            }
            match entries.iter().find_map(|entry| match entry {
                Entry::Cname(target) => Some(target.to_lowercase()),
                _ => None,
            }) {
                Some(target) => name = target,
                None => return Err(LookupError::NoData),
            }
        }
        Err(LookupError::Transient("CNAME loop".into()))
    }
}

fn data(entry: &Entry, kind: RecordType) -> Option<RecordData> {
    let bare = |name: &str| name.trim_end_matches('.').into();
    Some(match (entry, kind) {
        (Entry::A(ip), RecordType::A) => RecordData::A(ip.parse().expect("an address")),
        (Entry::Aaaa(ip), RecordType::Aaaa) => RecordData::Aaaa(ip.parse().expect("an address")),
        (Entry::Mx(preference, name), RecordType::Mx) => {
            RecordData::Mx { preference: *preference, exchange: bare(name) }
        }
        (Entry::Ptr(name), RecordType::Ptr) => RecordData::Ptr(bare(name)),
        (Entry::Txt(text), RecordType::Txt) => RecordData::Txt(text.clone().into()),
        _ => return None,
    })
}

impl Resolver for SuiteResolver<'_> {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        Box::pin(async move { self.answer(name, record_type) })
    }
}

#[tokio::test]
async fn every_case_of_the_public_suite_passes() {
    let scenarios = spf_suite::scenarios(SUITE);
    let mut failures = Vec::new();
    let mut count = 0;
    for scenario in &scenarios {
        let resolver = SuiteResolver(&scenario.zone);
        for (name, case) in &scenario.cases {
            count += 1;
            let query = Query {
                ip: case.host.parse().expect("an address"),
                helo: &case.helo,
                sender: Some(case.mailfrom.as_str()).filter(|sender| !sender.is_empty()),
                receiver: "mx.example.test",
                now_secs: 1_795_235_486,
            };
            let outcome = check_host(&resolver, &query).await;
            let explained = case.explanation.as_deref().is_none_or(|expected| {
                // The suite's word for "no explanation of the domain's own".
                outcome.explanation.as_deref().unwrap_or("DEFAULT") == expected
            });
            if !case.results().contains(&outcome.result.as_str()) || !explained {
                failures.push(format!(
                    "{}: {name}: expected {:?} {:?}, got {outcome:?}",
                    scenario.description,
                    case.results(),
                    case.explanation
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert_eq!((scenarios.len(), count), (16, 203), "the whole suite was run");
}
