//! DNS answers in the form in which mail-auth takes them.
//!
//! mail-auth asks a cache before it asks the network. The caches here hold what was looked up
//! through our own resolver beforehand, and have an answer to everything, so that it never asks.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use mail_auth::dmarc::DmarcRecord;
use mail_auth::dns::TxtRecordParser;
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::{
    DnsCache, DnsError, DnssecStatus, Error, Negative, NoCache, RecordSet, ResolverCache,
    TxtRecord, dkim,
};
use moka::sync::Cache;

use super::policy_record::PolicyRecord;
use super::tags::{self, KeyRecord};
use crate::dns::{LookupError, LookupResult, RecordData};

/// Parsed records kept in memory, for each kind.
const MAX_PARSED: u64 = 20_000;
/// Answers above this many octets are parsed each time.
const MAX_PARSED_OCTETS: usize = 2 * 1024;

/// The answers for one evaluation.
pub(super) struct Answers {
    txt: TxtAnswers,
    ipv4: Ipv4Answers,
}

pub(super) struct TxtAnswers {
    /// Under names in lower case with the trailing dot. A handful, so it is searched in order.
    records: Vec<(Box<str>, TxtRecord)>,
    otherwise: TxtRecord,
}

pub(super) struct Ipv4Answers {
    exists: bool,
}

impl Answers {
    /// For signatures. What is asked for beyond the keys given is an ATPS record (RFC 6541),
    /// which does not decide whether a signature is valid, so the answer is yes.
    pub(super) fn for_keys() -> Self {
        let atps = dkim::AtpsRecord::parse(b"v=ATPS1");
        Self::new(TxtRecord::from(atps))
    }

    /// For policies. Asking for one that was not looked up is a transient failure.
    pub(super) fn for_policies() -> Self {
        Self::new(transient("not looked up"))
    }

    fn new(otherwise: TxtRecord) -> Self {
        let txt = TxtAnswers { records: Vec::new(), otherwise };
        Self { txt, ipv4: Ipv4Answers { exists: true } }
    }

    /// Adds what stands at `name`, which is in lower case and ends with a dot.
    pub(super) fn add(&mut self, name: &str, record: TxtRecord) {
        self.txt.records.push((name.into(), record));
    }

    pub(super) fn get(&self, name: &str) -> Option<&TxtRecord> {
        let found = |(key, _): &&(Box<str>, TxtRecord)| **key == *name;
        self.txt.records.iter().find(found).map(|(_, record)| record)
    }

    /// Says that the one name whose addresses are asked for does not exist.
    pub(super) fn deny_addresses(&mut self) {
        self.ipv4.exists = false;
    }
}

impl DnsCache for Answers {
    type Txt = TxtAnswers;
    type Mx = NoCache;
    type Ipv4 = Ipv4Answers;
    type Ipv6 = NoCache;
    type Ptr = NoCache;

    fn txt(&self) -> Option<&TxtAnswers> {
        Some(&self.txt)
    }

    fn ipv4(&self) -> Option<&Ipv4Answers> {
        Some(&self.ipv4)
    }

    // The verifiers of DKIM, ARC and DMARC ask for nothing else.
    fn mx(&self) -> Option<&NoCache> {
        None
    }

    fn ipv6(&self) -> Option<&NoCache> {
        None
    }

    fn ptr(&self) -> Option<&NoCache> {
        None
    }
}

impl ResolverCache<Box<str>, TxtRecord> for TxtAnswers {
    fn get<Q>(&self, name: &Q) -> Option<TxtRecord>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let record = self.records.iter().find(|(key, _)| Borrow::<Q>::borrow(key) == name);
        Some(record.map_or_else(|| self.otherwise.clone(), |(_, record)| record.clone()))
    }

    fn remove<Q>(&self, _name: &Q) -> Option<TxtRecord>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _key: Box<str>, _value: TxtRecord, _valid_until: Instant) {}
}

type Ipv4Answer = Result<RecordSet<Ipv4Addr>, Negative>;

impl ResolverCache<Box<str>, Ipv4Answer> for Ipv4Answers {
    fn get<Q>(&self, _name: &Q) -> Option<Ipv4Answer>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(if self.exists {
            let records = Arc::from([]);
            Ok(RecordSet { records, dnssec_status: DnssecStatus::Indeterminate })
        } else {
            Err(Negative { code: ResponseCode::NXDomain })
        })
    }

    fn remove<Q>(&self, _name: &Q) -> Option<Ipv4Answer>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _key: Box<str>, _value: Ipv4Answer, _valid_until: Instant) {}
}

/// Records parsed from answers, kept for as long as the answer is the same: the resolver's cache
/// hands out one allocation until the answer expires.
pub(super) struct Parsed<T> {
    entries: Cache<Box<str>, (Arc<[RecordData]>, T)>,
    parse: fn(&[RecordData]) -> T,
}

impl<T: Clone + Send + Sync + 'static> Parsed<T> {
    pub(super) fn new(parse: fn(&[RecordData]) -> T) -> Self {
        Self { entries: Cache::new(MAX_PARSED), parse }
    }

    /// What `records`, which stand at `name`, mean.
    pub(super) fn read(&self, name: &str, records: &Arc<[RecordData]>) -> T {
        match self.entries.get(name) {
            Some((source, parsed)) if Arc::ptr_eq(&source, records) => parsed,
            _ => {
                let parsed = (self.parse)(records);
                if texts(records).map(<[u8]>::len).sum::<usize>() <= MAX_PARSED_OCTETS {
                    self.entries.insert(name.into(), (Arc::clone(records), parsed.clone()));
                }
                parsed
            }
        }
    }
}

/// The key at a name. RFC 6376 §3.6.2.2 leaves several keys at one name undefined; here they are
/// an error, whatever their order.
pub(super) fn parse_key(records: &[RecordData]) -> TxtRecord {
    let mut keys = texts(records)
        .map(|text| (text, tags::key_record(text)))
        .filter(|(_, kind)| *kind != KeyRecord::Unrelated);
    match (keys.next(), keys.next()) {
        (None, _) => TxtRecord::Error(Error::Dns(DnsError::InvalidRecordType)),
        (Some((_, KeyRecord::Unusable(problem))), None) => {
            TxtRecord::Error(Error::Io(problem.to_owned()))
        }
        (Some((text, _)), None) => TxtRecord::from(dkim::DomainKey::parse(text)),
        (Some(_), Some(_)) => {
            TxtRecord::Error(Error::Io("several keys under one selector".to_owned()))
        }
    }
}

/// A DMARC record with the tag that RFC 9989 no longer has.
#[derive(Clone)]
pub(super) struct Policy {
    pub(super) record: TxtRecord,
    pub(super) pct: u8,
}

impl Policy {
    /// What a lookup without an answer means for the tree walk.
    pub(super) fn absent(error: &LookupError) -> Self {
        Self { record: without_answer(error), pct: 100 }
    }

    pub(super) fn parsed(&self) -> Option<&Arc<DmarcRecord>> {
        match &self.record {
            TxtRecord::Dmarc(record) => Some(record),
            _ => None,
        }
    }
}

/// The policy at a name: RFC 9989 §4.10, records that are not DMARC's are discarded, and if more
/// than one is left, all are.
pub(super) fn parse_policy(records: &[RecordData]) -> Policy {
    let mut policies = texts(records).filter_map(PolicyRecord::parse);
    match (policies.next(), policies.next()) {
        (Some(PolicyRecord { record, pct }), None) => {
            Policy { record: TxtRecord::from(record), pct }
        }
        _ => Policy::absent(&LookupError::NoData),
    }
}

/// What a lookup without an answer means to mail-auth.
pub(super) fn without_answer(error: &LookupError) -> TxtRecord {
    match error {
        LookupError::NoSuchName => not_found(ResponseCode::NXDomain),
        LookupError::NoData => not_found(ResponseCode::NoError),
        LookupError::Transient(problem) => transient(problem),
    }
}

/// A key record as mail-auth takes it.
pub(super) fn key_record(
    parsed: &Parsed<TxtRecord>,
    name: &str,
    result: LookupResult,
) -> TxtRecord {
    match result {
        Ok(answer) => parsed.read(name, &answer.records),
        Err(error) => without_answer(&error),
    }
}

fn not_found(code: ResponseCode) -> TxtRecord {
    TxtRecord::Error(Error::Dns(DnsError::RecordNotFound(code)))
}

fn transient(problem: &str) -> TxtRecord {
    TxtRecord::Error(Error::Dns(DnsError::Resolver(problem.to_owned())))
}

fn texts(records: &[RecordData]) -> impl Iterator<Item = &[u8]> {
    records.iter().filter_map(|record| match record {
        RecordData::Txt(text) => Some(&**text),
        _ => None,
    })
}

/// A name in lower case and A-labels, as mail-auth compares names.
pub(super) fn a_label(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned())
}

/// A key of mail-auth's as a DNS question: without the trailing dot.
pub(super) fn question(key: &str) -> &str {
    key.trim_end_matches('.')
}
