//! The client's reverse name, confirmed (RFC 8601 §2.7.3, RFC 1912 §2.1).

use std::net::IpAddr;

use tokio::time::Instant;

use super::outcome::{IprevOutcome, IprevResult};
use crate::dns::{
    LookupError, LookupResult, RecordData, RecordType, Resolver, lookup_all, reverse_name,
};

/// Names of one address that are looked at.
const MAX_NAMES: usize = 5;

pub(super) async fn check(resolver: &dyn Resolver, ip: IpAddr, deadline: Instant) -> IprevOutcome {
    let address = ip.to_canonical();
    let outcome = |result, name| IprevOutcome { result, ip, name };
    let reverse = reverse_name(address);
    let mut reverse = lookup_all(resolver, &[(&reverse, RecordType::Ptr)], deadline).await;
    let names: Vec<String> = match reverse.pop() {
        Some(Ok(answer)) => answer.records.iter().filter_map(host_name).take(MAX_NAMES).collect(),
        Some(Err(LookupError::Transient(_))) | None => {
            return outcome(IprevResult::TempError, None);
        }
        Some(Err(_)) => return outcome(IprevResult::PermError, None),
    };
    let record_type = if address.is_ipv4() { RecordType::A } else { RecordType::Aaaa };
    let questions: Vec<_> = names.iter().map(|name| (name.as_str(), record_type)).collect();
    let answers = lookup_all(resolver, &questions, deadline).await;
    if let Some((name, _)) = names.iter().zip(&answers).find(|(_, answer)| has(answer, address)) {
        return outcome(IprevResult::Pass, Some(name.clone()));
    }
    let transient = |answer: &LookupResult| matches!(answer, Err(LookupError::Transient(_)));
    let failed = answers.iter().any(transient);
    outcome(if failed { IprevResult::TempError } else { IprevResult::Fail }, None)
}

/// The owner of an address writes what it likes into its zone: only what looks like a host name
/// may reach a header.
fn host_name(record: &RecordData) -> Option<String> {
    let RecordData::Ptr(name) = record else { return None };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(plain)).then(|| name.to_ascii_lowercase())
}

fn has(answer: &LookupResult, address: IpAddr) -> bool {
    let Ok(answer) = answer else { return false };
    answer.records.iter().any(|record| match record {
        RecordData::A(v4) => IpAddr::V4(*v4) == address,
        RecordData::Aaaa(v6) => IpAddr::V6(*v6) == address,
        _ => false,
    })
}
