//! Whether DNS says what a domain needs, in the guide's words (4684–4765).

use std::net::IpAddr;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::keys::ManagedKey;
use super::records::{DnsRecord, Purpose};
use super::today::tried;
use crate::clock::Timestamp;
use crate::dns::{LookupError, LookupResult, RecordData, RecordType, Resolver, lookup_all};
use crate::msgauth::published::{self, Published};
use crate::msgauth::spf::{Query, SpfResult, check_host};

/// What became of a record. The guide has Missing and Inconsistent for MX, SPF and DMARC, and
/// Pending and Failed for what proves that a domain is one's own: DKIM, and the SPF record of a
/// custom MAIL FROM domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is published, or what is published does the same.
    Verified,
    /// There is no record of the kind (not for DKIM and the MAIL FROM domain's SPF).
    Missing,
    /// There is one, but it does something else, or nobody can use it (not for DKIM and the MAIL
    /// FROM domain's SPF).
    Inconsistent,
    /// DNS gave no answer just now; for DKIM and the MAIL FROM domain's SPF also: there is no
    /// record yet.
    Pending,
    /// DKIM and the MAIL FROM domain's SPF: there is one, but with another key or meaning, or
    /// nobody can use it.
    Failed,
}

impl Status {
    /// The guide's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "Verified",
            Self::Missing => "Missing",
            Self::Inconsistent => "Inconsistent",
            Self::Pending => "Pending",
            Self::Failed => "Failed",
        }
    }
}

/// A record and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What should be published.
    #[serde(flatten)]
    pub record: DnsRecord,
    /// What is.
    pub status: Status,
    /// Why it is not verified, or what is still to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether mail is to come here already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutover {
    /// It may still go elsewhere; all else has to be ready.
    Before,
    /// It comes here.
    Done,
}

/// Who handles the domain's mail.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Our hostname.
    pub name: &'a str,
    /// The present moment, which SPF may ask for.
    pub now: Timestamp,
    /// Whether the domain's mail is to come to it already.
    pub cutover: Cutover,
}

/// What a lookup came to.
enum Outcome {
    Right,
    /// It does what it must, and more can be done.
    RightSoFar(String),
    /// It is not to be there yet.
    NotYet(String),
    Absent,
    Wrong(String),
    NoAnswer(String),
}

impl Outcome {
    fn in_the_guides_words(self, purpose: Purpose) -> (Status, Option<String>) {
        let is_proof = matches!(purpose, Purpose::Dkim | Purpose::MailFromSpf);
        match self {
            Self::Right => (Status::Verified, None),
            Self::RightSoFar(next) => (Status::Verified, Some(next)),
            Self::NotYet(why) => (Status::Pending, Some(why)),
            Self::Absent if is_proof => (Status::Pending, Some("there is no record yet".into())),
            Self::Absent => (Status::Missing, None),
            Self::Wrong(why) if is_proof => (Status::Failed, Some(why)),
            Self::Wrong(why) => (Status::Inconsistent, Some(why)),
            Self::NoAnswer(why) => (Status::Pending, Some(why)),
        }
    }
}

impl From<Published> for Outcome {
    fn from(published: Published) -> Self {
        match published {
            Published::Right => Self::Right,
            Published::Absent => Self::Absent,
            Published::Other(what) | Published::Unusable(what) => Self::Wrong(what),
        }
    }
}

impl From<LookupError> for Outcome {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchName | LookupError::NoData => Self::Absent,
            LookupError::Transient(problem) => Self::NoAnswer(problem),
        }
    }
}

/// Looks up each of `records` and compares it, DKIM's with `keys`. Lookups that have not ended by
/// `deadline` are pending.
pub async fn check(
    resolver: &dyn Resolver,
    records: Vec<DnsRecord>,
    keys: &[ManagedKey],
    host: Host<'_>,
    deadline: Instant,
) -> Vec<Finding> {
    let mut questions: Vec<(&str, RecordType)> =
        records.iter().map(|record| (record.hostname.as_str(), record_type(record))).collect();
    questions.extend([(host.name, RecordType::A), (host.name, RecordType::Aaaa)]);
    let mut answers = lookup_all(resolver, &questions, deadline).await;
    let addresses = Addresses::of(&answers.split_off(records.len()));
    let checker = Checker { resolver, keys, host, addresses, deadline };
    let mut findings = Vec::new();
    for (mut record, answer) in records.into_iter().zip(answers) {
        let outcome = match answer {
            Ok(answer) => checker.judge(&record, &answer.records).await,
            Err(error) => error.into(),
        };
        let outcome = match record.purpose {
            Purpose::Mx if host.cutover == Cutover::Before => checker.before_cutover(outcome),
            _ => outcome,
        };
        record.required &= !matches!(outcome, Outcome::NotYet(_));
        let (status, reason) = outcome.in_the_guides_words(record.purpose);
        findings.push(Finding { record, status, reason });
    }
    findings
}

fn record_type(record: &DnsRecord) -> RecordType {
    if record.r#type == "MX" { RecordType::Mx } else { RecordType::Txt }
}

/// The addresses of our host, as DNS tells them.
enum Addresses {
    Known(Vec<IpAddr>),
    /// DNS gave no answer, for this reason.
    Unknown(String),
}

impl Addresses {
    fn of(answers: &[LookupResult]) -> Self {
        let mut found = Vec::new();
        for answer in answers {
            match answer {
                Ok(answer) => found.extend(answer.records.iter().filter_map(address)),
                Err(LookupError::Transient(problem)) => return Self::Unknown(problem.clone()),
                Err(_) => {}
            }
        }
        Self::Known(found)
    }
}

fn address(record: &RecordData) -> Option<IpAddr> {
    match record {
        RecordData::A(address) => Some((*address).into()),
        RecordData::Aaaa(address) => Some((*address).into()),
        _ => None,
    }
}

struct Checker<'a> {
    resolver: &'a dyn Resolver,
    keys: &'a [ManagedKey],
    host: Host<'a>,
    addresses: Addresses,
    deadline: Instant,
}

impl Checker<'_> {
    async fn judge(&self, wanted: &DnsRecord, found: &[RecordData]) -> Outcome {
        match wanted.purpose {
            Purpose::Mx | Purpose::MailFromMx => self.mail_exchangers(found),
            Purpose::Spf | Purpose::HeloSpf | Purpose::MailFromSpf => {
                let outcome = match published::spf(found, &wanted.value) {
                    Published::Other(record) => self.permits(&wanted.hostname, &record).await,
                    published => published.into(),
                };
                self.evaluated(&wanted.hostname, outcome).await
            }
            Purpose::Dkim => self.key(wanted, found).into(),
            Purpose::Dmarc => match published::dmarc(found) {
                // Where a domain begins, so that reports show what a policy would do.
                Published::Other(record) => {
                    Outcome::RightSoFar(format!("{record} asks for no policy yet"))
                }
                published => published.into(),
            },
            Purpose::TlsRpt => published::tls_reporting(found).into(),
            Purpose::MtaSts => published::mta_sts(found).into(),
        }
    }

    fn key(&self, wanted: &DnsRecord, found: &[RecordData]) -> Published {
        let selector = wanted.hostname.split('.').next();
        match self.keys.iter().find(|key| selector == Some(&key.selector)) {
            Some(key) => published::dkim(found, &key.key),
            None => Published::Absent,
        }
    }

    /// Verified if our host is the only entry (guide 7267), and can be reached: whatever stands
    /// beside it takes mail too when ours does not answer, and from spammers at all times.
    fn mail_exchangers(&self, found: &[RecordData]) -> Outcome {
        let mut hosts: Vec<(u16, &str)> = found.iter().filter_map(exchanger).collect();
        hosts.sort_unstable();
        let Some((best, first)) = hosts.first().copied() else { return Outcome::Absent };
        let is_ours = |name: &str| name.eq_ignore_ascii_case(self.host.name);
        let Some((preference, other)) = hosts.iter().find(|(_, name)| !is_ours(name)) else {
            return self.reachable();
        };
        let has_ours = hosts.iter().any(|(at, name)| *at == best && is_ours(name));
        Outcome::Wrong(match *other {
            "" if hosts.len() == 1 => "the domain takes no mail (a null MX)".into(),
            _ if !has_ours => format!("mail goes to {first} first"),
            "" => format!("a null MX stands beside {}", self.host.name),
            other => format!(
                "{other} is an entry too, with preference {preference}; {} should be the only one",
                self.host.name
            ),
        })
    }

    /// Before mail comes here it is right for the MX to name others, as long as ours can be named.
    fn before_cutover(&self, outcome: Outcome) -> Outcome {
        let why = match outcome {
            Outcome::Absent => "there is no record yet".to_owned(),
            Outcome::Wrong(why) => why,
            Outcome::Right | Outcome::RightSoFar(_) | Outcome::NotYet(_) | Outcome::NoAnswer(_) => {
                return outcome;
            }
        };
        match self.reachable() {
            Outcome::Right => Outcome::NotYet(why),
            unreachable => unreachable,
        }
    }

    /// A record that permits our host may still be one that fails for all others.
    async fn evaluated(&self, domain: &str, outcome: Outcome) -> Outcome {
        if !matches!(outcome, Outcome::Right) {
            return outcome;
        }
        let trial = tried(self.resolver, domain, self.host.name);
        match timeout_at(self.deadline, trial).await {
            Ok(Some(problem)) => {
                Outcome::RightSoFar(format!("for others it cannot be evaluated: {problem}"))
            }
            Ok(None) | Err(_) => outcome,
        }
    }

    fn reachable(&self) -> Outcome {
        let name = self.host.name;
        match &self.addresses {
            Addresses::Known(found) if found.is_empty() => {
                Outcome::Wrong(format!("{name} has no address"))
            }
            Addresses::Known(_) => Outcome::Right,
            Addresses::Unknown(problem) => {
                Outcome::NoAnswer(format!("the address of {name}: {problem}"))
            }
        }
    }

    /// Evaluates an SPF record that is not the one we would write, for each address of our host.
    async fn permits(&self, domain: &str, record: &str) -> Outcome {
        let Addresses::Known(ips) = &self.addresses else { return self.reachable() };
        if ips.is_empty() {
            return self.reachable();
        }
        let sender = format!("postmaster@{domain}");
        for ip in ips {
            let query = Query {
                ip: *ip,
                helo: self.host.name,
                sender: Some(&sender),
                receiver: self.host.name,
                now_secs: self.host.now.as_secs(),
            };
            let check = check_host(self.resolver, &query);
            let Ok(outcome) = timeout_at(self.deadline, check).await else {
                return Outcome::NoAnswer("no answer within the deadline".into());
            };
            let problem = outcome.problem.unwrap_or_default();
            match outcome.result {
                SpfResult::Pass => {}
                SpfResult::TempError => return Outcome::NoAnswer(problem),
                SpfResult::PermError => return Outcome::Wrong(problem),
                result => {
                    return Outcome::Wrong(format!("{record} is {} for {ip}", result.as_str()));
                }
            }
        }
        Outcome::Right
    }
}

/// Whether DNS has a key's record, as a receiver of mail would find it.
pub(super) fn is_published(key: &ManagedKey, answer: &LookupResult) -> bool {
    let right = |records| published::dkim(records, &key.key) == Published::Right;
    answer.as_ref().is_ok_and(|answer| right(&answer.records))
}

fn exchanger(record: &RecordData) -> Option<(u16, &str)> {
    match record {
        RecordData::Mx { preference, exchange } => Some((*preference, exchange)),
        _ => None,
    }
}
