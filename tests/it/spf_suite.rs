//! The public RFC 7208 suite through the daemon: PROXY names the client, EHLO and MAIL the rest, and
//! a DNS server of our own answers with the case's records.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::support::daemon::{Daemon, Setup, text};
use crate::support::dns::{Responder, encode, reply};
use crate::support::smtp::{Client, message};
use crate::support::spf_suite::{Case, Entry, Scenario, scenarios};

const SUITE: &str = include_str!("../../fixtures/spf/rfc7208-tests.yml");

/// Cases that no SMTP client can bring about, and what is answered to one that tries (RFC 5321
/// §4.1.2 has no such addresses). The evaluator's own run of the suite has them.
const UNSAYABLE: [(&str, &str); 4] = [
    ("dorky-sentinel", "501 5.1.7"), // a space in the local-part
    ("emptylabel", "501 5.1.7"),     // a domain with an empty label
    ("nolocalpart", "501 5.1.7"),    // a reverse-path without a local-part
    ("toolonglabel", "501 5.1.7"),   // a label of 64 octets
];

/// The zone of a scenario, as a server has it.
struct Zone(BTreeMap<String, Vec<Entry>>);

impl Zone {
    /// The answer to a query; `None` is silence, which the suite calls TIMEOUT.
    fn answer(&self, query: &Message) -> Option<Vec<u8>> {
        let question = query.queries.first()?;
        let kind = question.query_type();
        let mut owner = question.name().clone();
        let mut answers = Vec::new();
        for _ in 0..10 {
            let Some(entries) = self.0.get(&key(&owner)) else {
                return encode(reply(query, ResponseCode::NXDomain, answers));
            };
            let found: Vec<_> = entries.iter().filter_map(|entry| data(entry, kind)).collect();
            if found.is_empty() && entries.contains(&Entry::Timeout) {
                return None;
            }
            let alias = entries.iter().find_map(|entry| data(entry, RecordType::CNAME));
            let has_found = !found.is_empty();
            answers
                .extend(found.into_iter().map(|data| Record::from_rdata(owner.clone(), 60, data)));
            match alias {
                Some(RData::CNAME(target)) if !has_found => {
                    let cname = RData::CNAME(target.clone());
                    answers.push(Record::from_rdata(owner, 60, cname));
                    owner = target.0;
                }
                _ => return encode(reply(query, ResponseCode::NoError, answers)),
            }
        }
        encode(reply(query, ResponseCode::ServFail, vec![]))
    }
}

/// A name as the suite writes it.
fn key(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(text).collect();
    labels.join(".").to_lowercase()
}

/// Some names in the suite have labels that no master file could write.
fn name(of: &str) -> Name {
    let labels = of.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = Name::from_labels(labels).expect("a name");
    name.set_fqdn(true);
    name
}

fn data(entry: &Entry, kind: RecordType) -> Option<RData> {
    Some(match (entry, kind) {
        (Entry::A(ip), RecordType::A) => RData::A(A(ip.parse().expect("an address"))),
        (Entry::Aaaa(ip), RecordType::AAAA) => RData::AAAA(AAAA(ip.parse().expect("an address"))),
        (Entry::Mx(preference, host), RecordType::MX) => {
            RData::MX(MX::new(*preference, name(host)))
        }
        (Entry::Ptr(host), RecordType::PTR) => RData::PTR(PTR(name(host))),
        (Entry::Cname(host), RecordType::CNAME) => RData::CNAME(CNAME(name(host))),
        (Entry::Txt(bytes), RecordType::TXT) => RData::TXT(TXT::from_bytes(if bytes.is_empty() {
            vec![b""]
        } else {
            bytes.chunks(255).collect()
        })),
        _ => return None,
    })
}

/// Sends a message as the case has it; the reply that refused it, if one did.
fn send(daemon: &Daemon, case_name: &str, case: &Case) -> Result<(), String> {
    let client_ip: IpAddr = case.host.parse().expect("an address");
    let (family, ours) = match client_ip.to_canonical() {
        IpAddr::V4(_) => ("TCP4", IpAddr::from(Ipv4Addr::LOCALHOST).to_string()),
        IpAddr::V6(_) => ("TCP6", "::1".to_owned()),
    };
    let header = format!("PROXY {family} {} {ours} 4711 25\r\n", client_ip.to_canonical());
    let mut client = Client::connect_through_proxy(daemon.address(), header.as_bytes());
    let utf8 = if case.mailfrom.is_ascii() { "" } else { " SMTPUTF8" };
    for command in [
        format!("EHLO {}", case.helo),
        format!("MAIL FROM:<{}>{utf8}", case.mailfrom),
        "RCPT TO:<alice@example.test>".to_owned(),
    ] {
        let reply = client.command(&command);
        if !reply.starts_with("250") {
            return Err(reply);
        }
    }
    // An author without DNS of its own, so that nothing but SPF is asked for.
    let reply = client.data(&message("author@author.invalid", case_name));
    assert!(reply.starts_with("250"), "{case_name}: {reply}");
    Ok(())
}

fn verdict_of(result: &str) -> &'static str {
    match result {
        "pass" => "PASS",
        "fail" | "softfail" => "FAIL",
        "none" | "neutral" => "GRAY",
        "temperror" | "permerror" => "PROCESSING_FAILED",
        other => panic!("{other} is no result of RFC 7208"),
    }
}

/// The result in `Received-SPF` of each delivered case.
fn results(daemon: &Daemon) -> BTreeMap<String, String> {
    let stored = daemon.mailbox("alice").into_iter().map(|(_, bytes)| text(&bytes));
    stored
        .map(|stored| {
            let field = |name: &str| {
                let line = stored.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("no {name} in {stored}")).to_owned()
            };
            let result = field("Received-SPF: ");
            let result = result.split_whitespace().next().expect("a result").to_owned();
            (field("Subject: "), result)
        })
        .collect()
}

#[derive(Default)]
struct Outcome {
    count: usize,
    /// The refused cases, with the first two words of the reply.
    unsaid: Vec<(String, String)>,
    failures: Vec<String>,
}

fn run(scenario: &Scenario, outcome: &mut Outcome) {
    let zone = Zone(scenario.zone.clone());
    let server = Responder::start(move |query| zone.answer(query));
    let setup = Setup {
        listener: "proxy_protocol_from = [\"127.0.0.0/8\"]".to_owned(),
        dns: format!("servers = [\"{}\"]\ntimeout_ms = 1000\nattempts = 1", server.address),
        ..Setup::with_keys("dmarc_enforcement = false")
    };
    let daemon = setup.start();
    let mut said = Vec::new();
    for (name, case) in &scenario.cases {
        match send(&daemon, name, case) {
            Ok(()) => said.push((name, case)),
            Err(reply) => {
                let words: Vec<_> = reply.split_whitespace().take(2).collect();
                outcome.unsaid.push((name.clone(), words.join(" ")));
            }
        }
    }
    let results = results(&daemon);
    for (name, case) in said {
        outcome.count += 1;
        let result = results[name].as_str();
        let event = daemon.trace(name)[0]["spfVerdict"].as_str().expect("a verdict").to_owned();
        let is_right = case.results().contains(&result) && event == verdict_of(result);
        if !is_right {
            let expected = case.results();
            outcome.failures.push(format!(
                "{}: {name}: expected {expected:?}, got {result} and {event}",
                scenario.description
            ));
        }
    }
}

#[test]
fn the_suite_holds_through_the_daemon() {
    let mut outcome = Outcome::default();
    for scenario in &scenarios(SUITE) {
        run(scenario, &mut outcome);
    }
    assert!(outcome.failures.is_empty(), "{}", outcome.failures.join("\n"));
    outcome.unsaid.sort();
    let unsaid = outcome.unsaid.iter().map(|(name, reply)| (name.as_str(), reply.as_str()));
    assert_eq!(unsaid.collect::<Vec<_>>(), UNSAYABLE);
    assert_eq!(outcome.count, 203 - UNSAYABLE.len(), "the whole suite was run");
}
