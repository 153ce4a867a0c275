//! `check_host()` (RFC 7208 §4 and §5).

use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::macros::{MacroString, Usage, Values};
use super::outcome::{Identity, SpfOutcome, SpfResult};
use super::record::{Mechanism, Prefixes, Record, is_spf};
use crate::dns::{Answer, LookupError, RecordData, RecordType, Resolver, reverse_name};
use crate::mail::is_name_within;

/// Terms that cause lookups (RFC 7208 §4.6.4).
const MAX_LOOKUPS: u32 = 10;
/// Terms whose lookups find nothing (RFC 7208 §4.6.4).
const MAX_VOID_LOOKUPS: u32 = 2;
/// Names that an MX or PTR answer may lead to (RFC 7208 §4.6.4).
const MAX_NAMES: usize = 10;
/// Octets of an explanation that are kept.
const MAX_EXPLANATION: usize = 255;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The client's address; an IPv4-mapped one counts as IPv4.
    pub ip: IpAddr,
    /// The argument of EHLO or HELO.
    pub helo: &'a str,
    /// The reverse-path's address; for a null path `postmaster@<helo>` is checked (§2.4).
    pub sender: Option<&'a str>,
    /// Our hostname, for `%{r}`.
    pub receiver: &'a str,
    /// The time in seconds since the Unix epoch, for `%{t}`.
    pub now_secs: u64,
}

/// Checks a client against its domain's policy. Sets no deadline: that is the caller's.
pub async fn check_host(resolver: &dyn Resolver, query: &Query<'_>) -> SpfOutcome {
    let (identity, local_part, domain) = match query.sender {
        None => (Identity::Helo, "postmaster", query.helo),
        Some(sender) => match sender.rsplit_once('@') {
            // RFC 7208 §4.3: without a local-part, postmaster.
            Some(("", domain)) => (Identity::MailFrom, "postmaster", domain),
            Some((local_part, domain)) => (Identity::MailFrom, local_part, domain),
            None => (Identity::MailFrom, "postmaster", sender),
        },
    };
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
    let mut check = Check {
        resolver,
        query,
        ip: query.ip.to_canonical(),
        local_part,
        sender_domain: domain.clone(),
        lookups: 0,
        void_lookups: 0,
        explain: None,
    };
    let mut outcome = SpfOutcome {
        result: SpfResult::None,
        identity,
        domain: domain.clone(),
        mechanism: None,
        explanation: None,
        problem: None,
    };
    if !is_name(&domain) || !domain.contains('.') {
        return outcome; // RFC 7208 §4.3: malformed, or not a multi-label name.
    }
    match check.domain(domain).await {
        Ok((result, mechanism)) => {
            outcome.result = result;
            outcome.mechanism = mechanism;
            if result == SpfResult::Fail {
                outcome.explanation = check.explanation().await;
            }
        }
        Err(Stop::Temporary(problem)) => {
            outcome.result = SpfResult::TempError;
            outcome.problem = Some(problem);
        }
        Err(Stop::Permanent(problem)) => {
            outcome.result = SpfResult::PermError;
            outcome.problem = Some(problem);
        }
    }
    outcome
}

/// Whether DNS could have such a name: labels of 1 to 63 octets, 253 in all.
fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// What ends an evaluation.
enum Stop {
    Temporary(String),
    Permanent(String),
}

/// A result, and the term that made it; none if the domain has no record.
type Verdict = (SpfResult, Option<String>);
type Evaluation<'a> = Pin<Box<dyn Future<Output = Result<Verdict, Stop>> + Send + 'a>>;

struct Check<'a> {
    resolver: &'a dyn Resolver,
    query: &'a Query<'a>,
    ip: IpAddr,
    local_part: &'a str,
    sender_domain: String,
    lookups: u32,
    void_lookups: u32,
    /// The `exp` of the record whose result counts, and its domain.
    explain: Option<(MacroString, String)>,
}

impl<'a> Check<'a> {
    /// `check_host()` for one domain; included and redirected ones come here too.
    fn domain<'b>(&'b mut self, domain: String) -> Evaluation<'b>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let Some(record) = self.record(&domain).await? else {
                return Ok((SpfResult::None, None));
            };
            for directive in &record.directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    self.explain = record.exp.map(|exp| (exp, domain));
                    return Ok((directive.result, Some(directive.text.clone())));
                }
            }
            let Some(redirect) = record.redirect else {
                return Ok((SpfResult::Neutral, Some("default".to_owned())));
            };
            self.count_lookup()?;
            let target = self.expand(&redirect, &domain).await;
            let verdict = if is_name(&target) {
                self.domain(target.clone()).await?
            } else {
                (SpfResult::None, None)
            };
            match verdict {
                (SpfResult::None, _) => {
                    Err(Stop::Permanent(format!("redirect to {target}, which has no record")))
                }
                verdict => Ok(verdict),
            }
        })
    }

    /// The domain's record (RFC 7208 §4.4, §4.5).
    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let answer = match self.resolver.lookup(domain, RecordType::Txt).await {
            Ok(answer) => answer,
            Err(error) if error.is_void() => return Ok(None),
            Err(error) => return Err(temporary(domain, &error)),
        };
        let mut records = answer.records.iter().filter_map(|record| match record {
            RecordData::Txt(txt) if is_spf(txt) => Some(txt),
            _ => None,
        });
        let Some(record) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(Stop::Permanent(format!("{domain} has more than one SPF record")));
        }
        let record = Record::parse(record)
            .map_err(|problem| Stop::Permanent(format!("{domain}: {problem}")))?;
        Ok(Some(record))
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network) => Ok(IpNet::V4(*network).contains(&self.ip)),
            Mechanism::Ip6(network) => Ok(IpNet::V6(*network).contains(&self.ip)),
            Mechanism::Include(target) => self.include(target, domain).await,
            Mechanism::A(target, prefixes) => {
                self.count_lookup()?;
                let name = self.target(target.as_ref(), domain).await;
                self.has_address(&name, *prefixes).await
            }
            Mechanism::Mx(target, prefixes) => {
                self.count_lookup()?;
                let name = self.target(target.as_ref(), domain).await;
                self.has_exchanger(&name, *prefixes).await
            }
            Mechanism::Ptr(target) => {
                self.count_lookup()?;
                let name = self.target(target.as_ref(), domain).await;
                let names = self.validated_names().await;
                Ok(names.iter().any(|validated| is_name_within(validated, &name)))
            }
            Mechanism::Exists(target) => {
                self.count_lookup()?;
                let name = self.expand(target, domain).await;
                let exists = self.lookup(&name, RecordType::A).await?.is_some();
                if !exists {
                    self.count_void()?;
                }
                Ok(exists)
            }
        }
    }

    /// RFC 7208 §5.2: only a pass matches; a missing record is an error.
    async fn include(&mut self, target: &MacroString, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let name = self.expand(target, domain).await;
        let verdict =
            if is_name(&name) { self.domain(name.clone()).await?.0 } else { SpfResult::None };
        self.explain = None; // RFC 7208 §6.2: an included domain does not explain.
        match verdict {
            SpfResult::Pass => Ok(true),
            SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(false),
            SpfResult::TempError => Err(Stop::Temporary(format!("include of {name}"))),
            SpfResult::None | SpfResult::PermError => {
                Err(Stop::Permanent(format!("include of {name}, which has no record")))
            }
        }
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return Err(Stop::Permanent(format!("more than {MAX_LOOKUPS} terms need lookups")));
        }
        Ok(())
    }

    async fn target(&self, target: Option<&MacroString>, domain: &str) -> String {
        match target {
            Some(target) => self.expand(target, domain).await,
            None => domain.to_owned(),
        }
    }

    async fn expand(&self, text: &MacroString, domain: &str) -> String {
        let validated_name = self.validated_name_for(text, domain).await;
        text.expand_to_name(&self.values(domain, &validated_name))
    }

    fn values<'v>(&'v self, domain: &'v str, validated_name: &'v str) -> Values<'v> {
        Values {
            local_part: self.local_part,
            sender_domain: &self.sender_domain,
            domain,
            ip: self.ip,
            helo: self.query.helo,
            receiver: self.query.receiver,
            now_secs: self.query.now_secs,
            validated_name,
        }
    }

    /// `%{p}` (RFC 7208 §7.3): the domain itself, else one below it, else any, else `unknown`.
    async fn validated_name_for(&self, text: &MacroString, domain: &str) -> String {
        if !text.needs_validated_name() {
            return String::new();
        }
        let names = self.validated_names().await;
        names
            .iter()
            .find(|name| *name == domain)
            .or_else(|| names.iter().find(|name| is_name_within(name, domain)))
            .or(names.first())
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned())
    }

    /// The client's names that lead back to its address (RFC 7208 §5.5). DNS errors make a name
    /// one that does not.
    async fn validated_names(&self) -> Vec<String> {
        let Ok(answer) = self.resolver.lookup(&reverse_name(self.ip), RecordType::Ptr).await else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for record in answer.records.iter().take(MAX_NAMES) {
            let RecordData::Ptr(name) = record else { continue };
            let name = name.to_ascii_lowercase();
            if let Ok(addresses) = self.resolver.lookup(&name, self.address_type()).await
                && addresses
                    .records
                    .iter()
                    .any(|record| self.is_client(record, Prefixes { v4: 32, v6: 128 }))
            {
                names.push(name);
            }
        }
        names
    }

    fn address_type(&self) -> RecordType {
        if self.ip.is_ipv4() { RecordType::A } else { RecordType::Aaaa }
    }

    async fn has_address(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let answer = self.lookup(name, self.address_type()).await?;
        if answer.is_none() && !self.has_other_family(name).await {
            self.count_void()?;
        }
        Ok(answer.is_some_and(|answer| self.has_client(&answer, prefixes)))
    }

    fn has_client(&self, answer: &Answer, prefixes: Prefixes) -> bool {
        answer.records.iter().any(|record| self.is_client(record, prefixes))
    }

    /// Whether a host that has no addresses of the client's family has some of the other, or may
    /// have, since DNS does not answer: then its name leads somewhere, and is no void lookup.
    async fn has_other_family(&self, name: &str) -> bool {
        let other = if self.ip.is_ipv4() { RecordType::Aaaa } else { RecordType::A };
        let found = if is_name(name) {
            self.resolver.lookup(name, other).await
        } else {
            Err(LookupError::NoSuchName)
        };
        !found.is_err_and(|error| error.is_void())
    }

    async fn has_exchanger(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let Some(answer) = self.lookup(name, RecordType::Mx).await? else {
            self.count_void()?;
            return Ok(false);
        };
        if answer.records.len() > MAX_NAMES {
            return Err(Stop::Permanent(format!("{name} has more than {MAX_NAMES} MX records")));
        }
        // RFC 7208 §4.6.4 counts terms: however many hosts there are, they are void once, and only
        // if none of them leads anywhere.
        let mut is_void = true;
        for record in answer.records.iter() {
            let RecordData::Mx { exchange, .. } = record else { continue };
            match self.lookup(exchange, self.address_type()).await? {
                Some(answer) if self.has_client(&answer, prefixes) => return Ok(true),
                Some(_) => is_void = false,
                None => is_void = is_void && !self.has_other_family(exchange).await,
            }
        }
        if is_void {
            self.count_void()?;
        }
        Ok(false)
    }

    fn is_client(&self, record: &RecordData, prefixes: Prefixes) -> bool {
        match (record, self.ip) {
            (RecordData::A(address), IpAddr::V4(ip)) => {
                Ipv4Net::new(*address, prefixes.v4).is_ok_and(|network| network.contains(&ip))
            }
            (RecordData::Aaaa(address), IpAddr::V6(ip)) => contains_v6(*address, prefixes.v6, ip),
            _ => false,
        }
    }

    /// A term found nothing.
    fn count_void(&mut self) -> Result<(), Stop> {
        self.void_lookups += 1;
        if self.void_lookups > MAX_VOID_LOOKUPS {
            let problem = format!("lookups of more than {MAX_VOID_LOOKUPS} terms found nothing");
            return Err(Stop::Permanent(problem));
        }
        Ok(())
    }

    /// A lookup of a term; nothing there, which a name that DNS cannot carry is too, is `None`.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Option<Answer>, Stop> {
        let found = if is_name(name) {
            self.resolver.lookup(name, kind).await
        } else {
            Err(LookupError::NoSuchName)
        };
        match found {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_void() => Ok(None),
            Err(error) => Err(temporary(name, &error)),
        }
    }

    /// The explanation of a fail (RFC 7208 §6.2); any trouble means that there is none.
    async fn explanation(&self) -> Option<String> {
        let (target, domain) = self.explain.as_ref()?;
        let name = self.expand(target, domain).await;
        let answer = self.resolver.lookup(&name, RecordType::Txt).await.ok()?;
        let [RecordData::Txt(text)] = &*answer.records else { return None };
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let text = MacroString::parse(text, Usage::Explanation)?;
        let validated_name = self.validated_name_for(&text, domain).await;
        let text = text.expand(&self.values(domain, &validated_name));
        let printable = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        Some(printable.take(MAX_EXPLANATION).collect())
    }
}

fn contains_v6(address: Ipv6Addr, length: u8, ip: Ipv6Addr) -> bool {
    Ipv6Net::new(address, length).is_ok_and(|network| network.contains(&ip))
}

fn temporary(name: &str, error: &LookupError) -> Stop {
    Stop::Temporary(format!("{name}: {error}"))
}
