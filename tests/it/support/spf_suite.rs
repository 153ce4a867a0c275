//! The public RFC 7208 test suite (`fixtures/spf/rfc7208-tests.yml`) as plain values, for the
//! evaluator's own tests and for the daemon's.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml_ng::Value;

/// A zone and the cases that are run against it.
#[derive(Debug)]
pub struct Scenario {
    /// What it is about.
    pub description: String,
    /// By name, in lower case.
    pub zone: BTreeMap<String, Vec<Entry>>,
    /// By the case's name.
    pub cases: BTreeMap<String, Case>,
}

/// What a zone has at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    A(String),
    Aaaa(String),
    Mx(u16, String),
    Ptr(String),
    Cname(String),
    Txt(Vec<u8>),
    /// Queries for types that the name has no entry for are never answered.
    Timeout,
}

/// One check; the daemon does not repeat explanations.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "each user of the suite reads what it needs")]
pub struct Case {
    pub helo: String,
    pub host: String,
    #[serde(default)]
    pub mailfrom: String,
    result: OneOrMore,
    pub explanation: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Case {
    /// The results of which any is right.
    pub fn results(&self) -> Vec<&str> {
        match &self.result {
            OneOrMore::One(result) => vec![result],
            OneOrMore::More(results) => results.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct RawScenario {
    description: String,
    tests: BTreeMap<String, Case>,
    zonedata: BTreeMap<String, Vec<Value>>,
}

/// Reads the suite.
pub fn scenarios(yaml: &str) -> Vec<Scenario> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| RawScenario::deserialize(document).expect("the suite's form"))
        .map(|raw| Scenario {
            description: raw.description,
            zone: raw
                .zonedata
                .into_iter()
                .map(|(name, entries)| (name.to_lowercase(), read_entries(&entries)))
                .collect(),
            cases: raw.tests,
        })
        .collect()
}

/// The suite writes most policies as type SPF; they stand for TXT too, unless the name has TXT
/// entries of its own, of which `NONE` is one that says so.
fn read_entries(values: &[Value]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut spf = Vec::new();
    let mut has_txt = false;
    for value in values {
        let Value::Mapping(mapping) = value else {
            entries.push(Entry::Timeout);
            continue;
        };
        for (kind, data) in mapping {
            match kind.as_str().expect("a type") {
                "A" => entries.push(Entry::A(text(data))),
                "AAAA" => entries.push(Entry::Aaaa(text(data))),
                "PTR" => entries.push(Entry::Ptr(text(data))),
                "CNAME" => entries.push(Entry::Cname(text(data))),
                "MX" => {
                    let preference = data[0].as_u64().expect("a preference");
                    entries.push(Entry::Mx(
                        u16::try_from(preference).expect("16 bits"),
                        text(&data[1]),
                    ));
                }
                "SPF" => spf.push(Entry::Txt(joined(data))),
                "TXT" => {
                    has_txt = true;
                    if data.as_str() != Some("NONE") {
                        entries.push(Entry::Txt(joined(data)));
                    }
                }
                other => panic!("the suite has no type {other}"),
            }
        }
    }
    if !has_txt {
        entries.extend(spf);
    }
    entries
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A text, or several that make one; characters stand for octets.
fn joined(value: &Value) -> Vec<u8> {
    let parts = match value {
        Value::Sequence(parts) => parts.iter().map(text).collect(),
        value => text(value),
    };
    parts.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}
