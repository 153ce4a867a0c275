//! The fuzzers' door: a message, and whatever DNS says of those who vouch for it.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::spf::SpfResult;
use super::{
    Authentication, Authenticator, DkimResult, DmarcResult, IprevResult, Ours, Request, Settings,
    forged_fields,
};
use crate::clock::Timestamp;
use crate::dns::{Answer, Lookup, LookupError, RecordData, RecordType, Resolver};
use crate::fuzz::{assert_field, pieces, run, with_crlf};
use crate::heavy::Weight;
use crate::mail::{Address, Authors, DeliveryMarks, Peer, ReversePath, Verdict};

const OURS: &str = "mx.example.test";
const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_000);

/// Lines with a HELO name, a reverse-path and an exchange's or reverse name; then, apart, the TXT
/// records of every name, of every key and of every policy, one a line; then a message.
///
/// There is a result, the results agree with each other, and the fields made of them are whole
/// and ours.
pub fn authenticate(input: &[u8]) {
    let [names, records, keys, policies, message] = pieces(input);
    let mut lines = std::str::from_utf8(names).unwrap_or_default().lines();
    let helo = lines.next().filter(|helo| helo.is_ascii()).unwrap_or("client.test");
    let sender = lines.next().and_then(|line| Address::parse(line).ok());
    let reverse_path = sender.map_or(ReversePath::Null, ReversePath::Address);
    let host = lines.next().unwrap_or("client.test").to_ascii_lowercase();
    let zone = Zone { host, records: txt(records), keys: txt(keys), policies: txt(policies) };
    *DNS.0.lock().expect("no lookup panics") = zone;
    let peer = Peer {
        ip: "192.0.2.1".parse().expect("valid"),
        port: 45000,
        helo: helo.to_owned(),
        esmtp: true,
        tls: None,
        login: None,
    };
    let message = with_crlf(message);
    let authors = Authors::of(&message).map(Authors::into_addresses).unwrap_or_default();
    let request = Request {
        message: &message,
        weight: Weight::of(&message),
        peer: &peer,
        reverse_path: &reverse_path,
        authors: &authors,
        trace_id: "019b0000-0000-7000-8000-000000000000".parse().expect("valid"),
        now: NOW,
    };
    let found = run(AUTHENTICATOR.authenticate(&request));
    assert_agrees(&found);
    assert_field(found.received_spf(&peer, &reverse_path).as_bytes());
    let results = found.authentication_results(OURS);
    assert_field(results.as_bytes());
    let marks = DeliveryMarks::new(&[7; 32]);
    let ours = Ours { authserv_id: OURS, is_local: &|_| false, marks: &marks };
    assert_eq!(forged_fields(results.as_bytes(), &ours).len(), 1, "our results are not ours");
}

fn txt(lines: &[u8]) -> Vec<RecordData> {
    let lines = lines.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| RecordData::Txt(line.into())).collect()
}

/// RFC 9989: DMARC passes by an aligned SPF or DKIM pass and by nothing else.
fn assert_agrees(found: &Authentication) {
    let signed = found.dkim.iter().any(|signature| signature.result == DkimResult::Pass);
    let sent = found.spf.result == SpfResult::Pass;
    assert!(found.dmarc.result != DmarcResult::Pass || signed || sent, "DMARC passes on its own");
    assert!(found.dmarc.applied.is_none() || found.dmarc.policy.is_some(), "applies no policy");
    assert!(found.dmarc.pct <= 100);
    assert_eq!(found.iprev.name.is_some(), found.iprev.result == IprevResult::Pass);
    assert!(found.dkim.len() <= Settings::default().max_signatures, "too many signatures read");
    assert_eq!(found.spf_verdict() == Verdict::Pass, sent);
    assert_eq!(found.dkim_verdict() == Verdict::Pass, signed);
}

static DNS: LazyLock<Arc<Dns>> = LazyLock::new(Arc::default);

/// One for all inputs: it takes longer to make than to use.
static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let settings = Settings { authserv_id: OURS.to_owned(), ..Settings::default() };
    Authenticator::new(Arc::<Dns>::clone(&DNS), settings)
});

/// DNS in which a name's kind alone decides on its records.
#[derive(Default)]
struct Dns(Mutex<Zone>);

#[derive(Default)]
struct Zone {
    host: String,
    records: Vec<RecordData>,
    keys: Vec<RecordData>,
    policies: Vec<RecordData>,
}

impl Resolver for Dns {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        let zone = self.0.lock().expect("no lookup panics");
        let records = match record_type {
            RecordType::Txt if name.starts_with("_dmarc.") => zone.policies.clone(),
            RecordType::Txt if name.contains("._domainkey.") => zone.keys.clone(),
            RecordType::Txt => zone.records.clone(),
            RecordType::A if name == zone.host => vec![RecordData::A([192, 0, 2, 1].into())],
            RecordType::A | RecordType::Aaaa | RecordType::Tlsa => Vec::new(),
            RecordType::Mx => {
                vec![RecordData::Mx { preference: 10, exchange: zone.host.as_str().into() }]
            }
            RecordType::Ptr => vec![RecordData::Ptr(zone.host.as_str().into())],
        };
        let ttl = Duration::from_secs(60);
        let answer = Answer { records: records.into(), ttl, is_secure: false };
        let found = !answer.records.is_empty();
        Box::pin(std::future::ready(found.then_some(answer).ok_or(LookupError::NoData)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authentications_hold() {
        crate::fuzz::replay("auth", authenticate);
    }
}
