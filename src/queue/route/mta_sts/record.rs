//! The TXT record that says that there is a policy, and which (RFC 8461 §3.1).

use crate::dns::{RecordData, RecordType, Resolver};
use crate::mail::Domain;

/// The id of a domain's present policy; `None` if it says that there is none, or nothing that
/// can be understood, or does not answer.
pub(super) async fn id(domain: &Domain, resolver: &dyn Resolver) -> Option<String> {
    let answer = resolver.lookup(&format!("_mta-sts.{domain}"), RecordType::Txt).await.ok()?;
    let mut records = answer.records.iter().filter_map(|record| match record {
        RecordData::Txt(text) => std::str::from_utf8(text).ok().filter(|text| is_ours(text)),
        _ => None,
    });
    // RFC 8461 §3.1: with more than one, there is no policy.
    let (record, None) = (records.next()?, records.next()) else { return None };
    parse(record)
}

fn is_ours(text: &str) -> bool {
    let rest = text.strip_prefix("v=STSv1");
    rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(';'))
}

/// The id of a record that is right as a whole.
fn parse(record: &str) -> Option<String> {
    let is_blank = [' ', '\t'];
    let record = record.trim_end_matches(is_blank);
    let mut fields = record.strip_suffix(';').unwrap_or(record).split(';').skip(1);
    let mut id = None;
    fields.try_for_each(|field| {
        let (name, value) = field.trim_matches(is_blank).split_once('=')?;
        if name == "id" {
            id = id.take().or(Some(value));
        }
        is_value(value).then_some(())
    })?;
    let is_id = |id: &&str| id.len() <= 32 && id.bytes().all(|octet| octet.is_ascii_alphanumeric());
    id.filter(is_id).map(str::to_owned)
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'=')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dns::ZoneResolver;

    async fn check(records: &[&str], expected: Option<&str>) {
        let lines = records.iter().map(|text| format!("_mta-sts.a.test. 60 IN TXT \"{text}\"\n"));
        let zone = ZoneResolver::parse(&lines.collect::<String>(), Path::new("test.zone")).unwrap();
        let domain = Domain::parse("a.test").unwrap();
        assert_eq!(id(&domain, &zone).await.as_deref(), expected, "{records:?}");
    }

    #[tokio::test]
    async fn a_record_is_read_as_the_grammar_has_it() {
        check(&["v=STSv1; id=20160831085700Z;"], Some("20160831085700Z")).await;
        check(&["v=STSv1;id=1"], Some("1")).await;
        check(&["v=STSv1 ; x=y ; id=1 ; "], Some("1")).await;
        check(&["v=STSv1; id=1; id=2"], Some("1")).await;
        check(&["other text", "v=STSv1; id=1;"], Some("1")).await;
        check(&["v=STSv10; id=1"], None).await;
        check(&["v=STSv1; id=1;", "v=STSv1; id=2;"], None).await;
        check(&["v=STSv1"], None).await;
        check(&["v=STSv1;"], None).await;
        check(&["v=STSv1; id="], None).await;
        check(&["v=STSv1; id=a-b"], None).await;
        check(&["v=STSv1; id=123456789012345678901234567890123"], None).await;
        check(&["v=STSv1; id=1; nonsense"], None).await;
        check(&["V=STSv1; id=1"], None).await;
        check(&[], None).await;
    }
}
