//! A policy as it stands on the domain's web server (RFC 8461 §3.2).

use std::fmt;
use std::time::Duration;

use crate::mail::Domain;

/// RFC 8461 §3.2, about a year; a longer time counts as this.
const MAX_AGE: Duration = Duration::from_secs(31_557_600);
/// Patterns of a policy; no domain has as many mail hosts under as many names.
const MAX_PATTERNS: usize = 64;

/// What a sender does about a host that fails the policy (RFC 8461 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sends it no mail.
    Enforce,
    /// Reports it.
    Testing,
    /// Nothing: the domain has withdrawn its policy.
    None,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.word() == word)
    }
}

/// The names of mail hosts that a policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exactly(Domain),
    /// `*.` and this name: any one label below it (RFC 8461 §4.1).
    Below(Domain),
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        let (name, pattern): (_, fn(Domain) -> Self) = match text.strip_prefix("*.") {
            Some(parent) => (parent, Self::Below),
            None => (text, Self::Exactly),
        };
        let domain = Domain::parse(name).ok().filter(|domain| !domain.is_literal())?;
        Some(pattern(domain))
    }

    /// `host` is in lower case.
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exactly(domain) => host == domain.as_str(),
            Self::Below(parent) => {
                let rest = host.split_once('.').filter(|(label, _)| !label.is_empty());
                rest.is_some_and(|(_, rest)| rest == parent.as_str())
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// A domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of hosts that fail it.
    pub mode: Mode,
    /// Which hosts may take the domain's mail; empty only where the mode is none.
    pub hosts: Vec<HostPattern>,
    /// For how long a sender keeps to it after having got it.
    pub max_age: Duration,
}

/// Why a text is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A line is no field.
    #[error("line {0} is not a field")]
    Line(usize),
    /// A field that must be there is not.
    #[error("there is no {0} field")]
    Missing(&'static str),
    /// A field's value is wrong.
    #[error("\"{value}\" is no value for {field}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// More patterns than any domain needs.
    #[error("there are more than {MAX_PATTERNS} mx fields")]
    TooManyHosts,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let fields = fields(text)?;
        required(&fields, "version", |value| (value == "STSv1").then_some(()))?;
        let mode = required(&fields, "mode", Mode::parse)?;
        let max_age = required(&fields, "max_age", seconds)?.min(MAX_AGE);
        let values = || fields.iter().filter(|(name, _)| *name == "mx").map(|(_, value)| *value);
        if values().nth(MAX_PATTERNS).is_some() {
            return Err(PolicyError::TooManyHosts);
        }
        let hosts = values()
            .map(|value| HostPattern::parse(value).ok_or_else(|| wrong("mx", value)))
            .collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() && mode != Mode::None {
            return Err(PolicyError::Missing("mx"));
        }
        Ok(Self { mode, hosts, max_age })
    }

    /// Whether the domain's mail may go to this host; its name is in lower case.
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version: STSv1\r\nmode: {}\r\n", self.mode.word())?;
        for host in &self.hosts {
            write!(f, "mx: {host}\r\n")?;
        }
        write!(f, "max_age: {}\r\n", self.max_age.as_secs())
    }
}

/// The fields in their order, unknown ones too, whose form is that of a field.
fn fields(text: &str) -> Result<Vec<(&str, &str)>, PolicyError> {
    let mut fields = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t']);
        // The grammar has no empty lines; files that end in several are common all the same.
        if line.is_empty() {
            continue;
        }
        let field = line.split_once(':').filter(|(name, _)| is_field_name(name));
        let (name, value) = field.ok_or(PolicyError::Line(number + 1))?;
        let value = value.trim_start_matches([' ', '\t']);
        if value.is_empty() || value.contains(char::is_control) {
            return Err(PolicyError::Line(number + 1));
        }
        fields.push((name, value));
    }
    Ok(fields)
}

fn is_field_name(name: &str) -> bool {
    let mut octets = name.bytes();
    name.len() <= 32
        && octets.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && octets.all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet))
}

/// The value of a field; of several, the first (RFC 8461 §3.2).
fn required<T>(
    fields: &[(&str, &str)],
    field: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, PolicyError> {
    let found = fields.iter().find(|(name, _)| *name == field);
    let (_, value) = found.ok_or(PolicyError::Missing(field))?;
    read(value).ok_or_else(|| wrong(field, value))
}

fn wrong(field: &'static str, value: &str) -> PolicyError {
    // It goes to the log, and a peer has chosen it.
    PolicyError::Value { field, value: value.chars().take(80).collect() }
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number =
        (1..=10).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Policy::parse(text).map(|policy| policy.to_string());
        let found = found.map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text:?}");
    }

    #[test]
    fn policies_are_read_as_the_grammar_has_them() {
        let whole = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.test\r\n\
                     mx: *.example.net\r\nmax_age: 604800\r\n";
        check(whole, Ok(whole));
        check(&whole.replace("\r\n", "\n"), Ok(whole));
        check(whole.trim_end(), Ok(whole));
        check(&whole.replace(": ", ":"), Ok(whole));
        check(&whole.replace(": ", ":\t ").replace("\r\n", " \t\n"), Ok(whole));
        check(&format!("{whole}\n\n"), Ok(whole));
        // Of several, the first; what is unknown is passed over.
        check(&format!("{whole}mode: none\nmax_age: 1\nversion: 2\nx-1.y_z: ü =;\n"), Ok(whole));
        check(&whole.replace("mail.example", "MAIL.Example"), Ok(whole));
        let none = "version: STSv1\r\nmode: none\r\nmax_age: 0\r\n";
        check(none, Ok(none));
        check(
            "version: STSv1\nmode: none\nmax_age: 9999999999",
            Ok("version: STSv1\r\nmode: none\r\nmax_age: 31557600\r\n"),
        );
    }

    #[test]
    fn what_is_not_a_policy_is_told_why() {
        let with = |rest: &str| format!("version: STSv1\nmode: enforce\nmax_age: 1\n{rest}");
        check("", Err("there is no version field"));
        check("<html>", Err("line 1 is not a field"));
        check("version: STSv2", Err("\"STSv2\" is no value for version"));
        check("Version: STSv1", Err("there is no version field"));
        check("version: STSv1\nmode: Enforce", Err("\"Enforce\" is no value for mode"));
        check("version: STSv1\nmode: none", Err("there is no max_age field"));
        check("version: STSv1\nmode: none\nmax_age: -1", Err("\"-1\" is no value for max_age"));
        check(
            "version: STSv1\nmode: none\nmax_age: 12345678901",
            Err("\"12345678901\" is no value for max_age"),
        );
        check(&with(""), Err("there is no mx field"));
        check(&with("mx: *"), Err("\"*\" is no value for mx"));
        check(&with("mx: *.*.test"), Err("\"*.*.test\" is no value for mx"));
        check(&with("mx: a.*.test"), Err("\"a.*.test\" is no value for mx"));
        check(&with("mx: [192.0.2.1]"), Err("\"[192.0.2.1]\" is no value for mx"));
        check(&with("mx:"), Err("line 4 is not a field"));
        check(&with("mx: a\u{7}b"), Err("line 4 is not a field"));
        check(&with("-x: a"), Err("line 4 is not a field"));
        check(&with(&"mx: a.test\n".repeat(65)), Err("there are more than 64 mx fields"));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let policy = "version: STSv1\nmode: enforce\nmax_age: 1\nmx: mx.one.test\nmx: *.two.test";
        let policy = Policy::parse(policy).unwrap();
        for (host, expected) in [
            ("mx.one.test", true),
            ("a.two.test", true),
            ("two.test", false),
            ("a.b.two.test", false),
            (".two.test", false),
            ("atwo.test", false),
            ("a.mx.one.test", false),
            ("one.test", false),
        ] {
            assert_eq!(policy.allows(host), expected, "{host}");
        }
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let label = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?";
        let name = proptest::collection::vec(label, 1..4)
            .prop_filter_map("not a domain", |labels| Domain::parse(&labels.join(".")).ok());
        let host = (any::<bool>(), name).prop_map(|(is_exact, name)| {
            if is_exact { HostPattern::Exactly(name) } else { HostPattern::Below(name) }
        });
        let hosts = proptest::collection::vec(host, 1..5);
        let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Testing), Just(Mode::None)];
        (mode, hosts, 0..=31_557_600_u64).prop_map(|(mode, hosts, max_age)| Policy {
            mode,
            hosts,
            max_age: Duration::from_secs(max_age),
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(policy in policies()) {
            prop_assert_eq!(Policy::parse(&policy.to_string()), Ok(policy));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,200}") {
            if let Ok(policy) = Policy::parse(&text) {
                prop_assert_eq!(Policy::parse(&policy.to_string()), Ok(policy));
            }
        }
    }
}
