//! What DNS has for a domain today: a domain that moves here is served by others until it has, and
//! their records go on to count. What we would publish is merged with it.

use std::collections::HashMap;

use tokio::time::{Instant, timeout_at};

use super::names::of_texts;
use crate::dns::{
    Answer, Lookup, LookupError, LookupResult, RecordData, RecordType, Resolver, lookup_all,
};
use crate::mail::Domain;
use crate::msgauth::published::{self, Published};
use crate::msgauth::spf::{Merged, Query, SpfResult, check_host, merge};

/// An address that nobody sends from, so that every term of a record is looked at.
const NOBODY: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// What a domain has in DNS, as far as it matters for what is to be published.
#[derive(Debug, Default)]
pub struct Today {
    texts: HashMap<String, Vec<RecordData>>,
    exchangers: Vec<(u16, String)>,
    /// Why DNS has not said where mail goes now, if it has not.
    exchangers_unsaid: Option<String>,
    /// Names of whose texts DNS has said nothing, and why.
    silent: HashMap<String, String>,
    /// SPF records, merged with ours, that receivers cannot evaluate, and why.
    unusable: HashMap<String, String>,
}

/// A text to publish, and what the administrator should know of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) value: String,
    pub(super) notes: Vec<String>,
}

impl Today {
    /// What is known where nobody can be asked: that nothing is.
    pub fn unsaid(domain: &Domain, hostname: &str, problem: &str) -> Self {
        let names = of_texts(domain, hostname).into_iter();
        let silent = names.map(|name| (name, problem.to_owned())).collect();
        Self { silent, exchangers_unsaid: Some(problem.to_owned()), ..Self::default() }
    }

    /// Asks DNS. What has not been answered by `deadline` is told as that.
    pub async fn look_up(
        resolver: &dyn Resolver,
        domain: &Domain,
        hostname: &str,
        deadline: Instant,
    ) -> Self {
        let names = of_texts(domain, hostname);
        let mut questions: Vec<_> =
            names.iter().map(|name| (name.as_str(), RecordType::Txt)).collect();
        questions.push((domain.as_str(), RecordType::Mx));
        let mut answers = lookup_all(resolver, &questions, deadline).await;
        let mut today = Self::default();
        if let Some(exchangers) = answers.pop() {
            today.take_exchangers(exchangers);
        }
        for (name, answer) in names.iter().zip(answers) {
            today.take_texts(name, answer);
        }
        for name in [domain.as_str(), hostname] {
            let Proposal { value, .. } = today.spf(name, hostname, "v=spf1 -all");
            let overlay = Overlay { resolver, name, record: &value };
            let trial = tried(&overlay, name, hostname);
            if let Ok(Some(problem)) = timeout_at(deadline, trial).await {
                today.unusable.insert(name.to_owned(), problem);
            }
        }
        today
    }

    fn take_texts(&mut self, name: &str, answer: LookupResult) {
        match answer {
            Ok(answer) => drop(self.texts.insert(name.to_owned(), answer.records.to_vec())),
            Err(LookupError::Transient(problem)) => {
                self.silent.insert(name.to_owned(), problem);
            }
            Err(LookupError::NoSuchName | LookupError::NoData) => {}
        }
    }

    fn take_exchangers(&mut self, answer: LookupResult) {
        match answer {
            Ok(answer) => {
                for record in &*answer.records {
                    if let RecordData::Mx { preference, exchange } = record {
                        self.exchangers.push((*preference, exchange.to_string()));
                    }
                }
                self.exchangers.sort_unstable();
            }
            Err(LookupError::Transient(problem)) => {
                self.exchangers_unsaid = Some(problem);
            }
            Err(LookupError::NoSuchName | LookupError::NoData) => {}
        }
    }

    /// The first thing that DNS has not said, if it has not said all.
    pub fn first_unsaid(&self) -> Option<&str> {
        self.exchangers_unsaid.as_deref().or(self.silent.values().next().map(String::as_str))
    }

    /// Whether DNS has not said what texts stand at a name.
    pub(super) fn is_silent_on(&self, name: &str) -> bool {
        self.silent.contains_key(name)
    }

    /// Whether an MX record of ours may take mail from somebody: also where DNS does not say.
    pub(super) fn may_move_mail(&self, hostname: &str) -> bool {
        self.exchangers_unsaid.is_some() || self.elsewhere(hostname).is_some()
    }

    /// What to know before the MX record is published.
    pub(super) fn mx_notes(&self, hostname: &str) -> Vec<String> {
        let unsaid = self.exchangers_unsaid.iter().map(|problem| {
            format!("warning: DNS did not say where mail goes now, so this may move it: {problem}")
        });
        let elsewhere = self.elsewhere(hostname).into_iter();
        unsaid.chain(elsewhere.map(|host| format!("mail goes to {host} now"))).collect()
    }

    fn records(&self, name: &str) -> &[RecordData] {
        self.texts.get(name).map_or(&[], Vec::as_slice)
    }

    /// Where mail goes now, if that is not `hostname` alone.
    fn elsewhere(&self, hostname: &str) -> Option<&str> {
        let mut others = self.exchangers.iter().map(|(_, name)| name.as_str());
        others.find(|name| !name.is_empty() && !name.eq_ignore_ascii_case(hostname))
    }

    /// The SPF record of a name: what stands there, and our host.
    pub(super) fn spf(&self, name: &str, hostname: &str, otherwise: &str) -> Proposal {
        let texts = self.records(name).iter().filter_map(|record| match record {
            RecordData::Txt(text) => Some(&**text),
            _ => None,
        });
        let texts: Vec<&[u8]> = texts.collect();
        let Merged { record, kept, left_out } = merge(&texts, hostname, otherwise);
        let mut notes = self.silence(name);
        for (text, problem) in left_out {
            notes.push(format!("in place of \"{text}\", which nobody can use: {problem}"));
        }
        let replaced = kept.iter().filter(|kept| **kept != record);
        notes.extend(replaced.map(|kept| format!("in place of \"{kept}\", which is part of it")));
        if kept.iter().any(|kept| lets_all(kept)) {
            notes.push("warning: +all in it lets everybody send as the domain".to_owned());
        }
        if let Some(problem) = self.unusable.get(name) {
            notes.push(format!("warning: receivers cannot evaluate it: {problem}"));
        }
        Proposal { value: record, notes }
    }

    /// The DMARC record: what stands there, or one that asks for reports and no policy yet.
    pub(super) fn dmarc(&self, name: &str, otherwise: String) -> Proposal {
        let mut notes = self.silence(name);
        let value = match published::dmarc(self.records(name)) {
            Published::Right => {
                notes.push("it stands there already: what is neither is kept out at once".into());
                self.only(name, b"v=DMARC1")
            }
            Published::Other(_) => {
                notes.push("it stands there already".into());
                self.only(name, b"v=DMARC1")
            }
            Published::Absent => None,
            Published::Unusable(problem) => {
                notes.push(format!("in place of what nobody can use: {problem}"));
                None
            }
        };
        Proposal { value: value.unwrap_or(otherwise), notes }
    }

    /// A record of another kind that stands there already and can be used, as `judge` says; else
    /// `otherwise`.
    pub(super) fn kept(
        &self,
        name: &str,
        version: &[u8],
        judge: impl Fn(&[RecordData]) -> Published,
        otherwise: String,
    ) -> String {
        match judge(self.records(name)) {
            Published::Right => self.only(name, version).unwrap_or(otherwise),
            Published::Absent | Published::Other(_) | Published::Unusable(_) => otherwise,
        }
    }

    fn only(&self, name: &str, version: &[u8]) -> Option<String> {
        self.records(name).iter().find_map(|record| match record {
            RecordData::Txt(text) if text.starts_with(version) => {
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        })
    }

    pub(super) fn silence(&self, name: &str) -> Vec<String> {
        let problem = self.silent.get(name);
        let told = problem.map(|problem| {
            format!(
                "warning: DNS did not say what stands there now, so merge it by hand: {problem}"
            )
        });
        told.into_iter().collect()
    }
}

fn lets_all(record: &str) -> bool {
    record.split(' ').any(|term| matches!(term.to_ascii_lowercase().as_str(), "all" | "+all"))
}

/// Why receivers cannot evaluate a record, if they cannot: too many lookups (RFC 7208 §4.6.4), or
/// something wrong in a record that it leads to.
pub(super) async fn tried(resolver: &dyn Resolver, name: &str, hostname: &str) -> Option<String> {
    let sender = format!("postmaster@{name}");
    let query = Query {
        ip: NOBODY,
        helo: hostname,
        sender: Some(&sender),
        receiver: hostname,
        now_secs: 0,
    };
    let outcome = check_host(resolver, &query).await;
    outcome.problem.filter(|_| outcome.result == SpfResult::PermError)
}

/// DNS as it will be with one more SPF record in it.
struct Overlay<'a> {
    resolver: &'a dyn Resolver,
    name: &'a str,
    record: &'a str,
}

impl Resolver for Overlay<'_> {
    fn lookup<'a>(&'a self, name: &'a str, kind: RecordType) -> Lookup<'a> {
        if kind != RecordType::Txt || !name.eq_ignore_ascii_case(self.name) {
            return self.resolver.lookup(name, kind);
        }
        let record = RecordData::Txt(self.record.as_bytes().into());
        let answer = Answer {
            records: vec![record].into(),
            ttl: std::time::Duration::ZERO,
            is_secure: false,
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}
