//! A record as typed terms (RFC 7208 §4.6 and §12).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::macros::{MacroString, Usage};
use super::outcome::SpfResult;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<MacroString>,
    pub(super) exp: Option<MacroString>,
}

/// A mechanism and what its match means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
    /// As the record spells it.
    pub(super) text: String,
}

/// RFC 7208 §5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefixes),
    Mx(Option<MacroString>, Prefixes),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Net),
    Ip6(Ipv6Net),
    Exists(MacroString),
}

/// `/24//64`: how much of an address counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// Whether a TXT record is an SPF record (RFC 7208 §4.5): exactly this version, then a space or
/// nothing.
pub(super) fn is_spf(txt: &[u8]) -> bool {
    let version = txt.get(..6).is_some_and(|version| version.eq_ignore_ascii_case(b"v=spf1"));
    version && matches!(txt.get(6), None | Some(b' '))
}

impl Record {
    /// Reads a record for which [`is_spf`] holds; on an error says which term is wrong.
    pub(super) fn parse(txt: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(txt)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or("the record is not ASCII")?;
        let mut record = Self { directives: Vec::new(), redirect: None, exp: None };
        // Terms are separated by spaces alone; a tab is part of a term, and makes it invalid.
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record
                .add(term)
                .ok_or_else(|| format!("the term \"{}\" is invalid", printable(term)))?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Option<()> {
        match term.split_once('=') {
            Some((name, value)) if is_modifier_name(name) => self.add_modifier(name, value),
            _ => {
                self.directives.push(directive(term)?);
                Some(())
            }
        }
    }

    /// RFC 7208 §6: `redirect` and `exp` at most once; unknown ones are ignored if well-formed.
    fn add_modifier(&mut self, name: &str, value: &str) -> Option<()> {
        let slot = if name.eq_ignore_ascii_case("redirect") {
            &mut self.redirect
        } else if name.eq_ignore_ascii_case("exp") {
            &mut self.exp
        } else {
            return MacroString::parse(value, Usage::Domain).map(drop);
        };
        let domain = domain_spec(value)?;
        slot.replace(domain).is_none().then_some(())
    }
}

/// A term for a message to a person: without control characters, not too long.
fn printable(term: &str) -> String {
    term.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(80).collect()
}

fn is_modifier_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn directive(term: &str) -> Option<Directive> {
    let (result, rest) = match term.chars().next()? {
        '+' => (SpfResult::Pass, term.get(1..)?),
        '-' => (SpfResult::Fail, term.get(1..)?),
        '~' => (SpfResult::SoftFail, term.get(1..)?),
        '?' => (SpfResult::Neutral, term.get(1..)?),
        _ => (SpfResult::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, argument) = (rest.get(..end)?, rest.get(end..)?);
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if argument.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(argument.strip_prefix(':')?)?),
        "exists" => Mechanism::Exists(domain_spec(argument.strip_prefix(':')?)?),
        "a" => {
            let (domain, prefixes) = domain_and_prefixes(argument)?;
            Mechanism::A(domain, prefixes)
        }
        "mx" => {
            let (domain, prefixes) = domain_and_prefixes(argument)?;
            Mechanism::Mx(domain, prefixes)
        }
        "ptr" if argument.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(argument.strip_prefix(':')?)?)),
        "ip4" => Mechanism::Ip4(ip4(argument.strip_prefix(':')?)?),
        "ip6" => Mechanism::Ip6(ip6(argument.strip_prefix(':')?)?),
        _ => return None,
    };
    Some(Directive { result, mechanism, text: rest.to_owned() })
}

/// `domain-spec` (RFC 7208 §12): a macro-string that ends in a macro or a top label.
fn domain_spec(text: &str) -> Option<MacroString> {
    let spec = MacroString::parse(text, Usage::Domain)?;
    let ends_well = match spec.last_literal() {
        None => !text.is_empty(),
        Some(literal) => {
            let literal = literal.strip_suffix('.').unwrap_or(literal);
            literal.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label))
        }
    };
    ends_well.then_some(spec)
}

/// Letters, digits and inner hyphens, and not all digits.
fn is_top_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !label.chars().all(|c| c.is_ascii_digit())
}

/// `[":" domain-spec] ["/" ip4-cidr] ["//" ip6-cidr]`
fn domain_and_prefixes(argument: &str) -> Option<(Option<MacroString>, Prefixes)> {
    let (rest, v6) = take_prefix(argument, "//", 128)?;
    let (rest, v4) = take_prefix(rest, "/", 32)?;
    let domain = match rest {
        "" => None,
        _ => Some(domain_spec(rest.strip_prefix(':')?)?),
    };
    Some((domain, Prefixes { v4, v6 }))
}

/// Takes a prefix length off the end of a term; the full length if there is none. `None` if
/// there is one that is out of range.
fn take_prefix<'a>(text: &'a str, slash: &str, max: u8) -> Option<(&'a str, u8)> {
    let digits_from = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, digits) = text.split_at_checked(digits_from)?;
    match head.strip_suffix(slash) {
        Some(rest) if !digits.is_empty() => Some((rest, prefix_length(digits, max)?)),
        _ => Some((text, max)),
    }
}

fn prefix_length(digits: &str, max: u8) -> Option<u8> {
    let is_canonical = digits == "0" || !digits.starts_with('0');
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|length| is_canonical && is_number && *length <= max)
}

fn ip4(text: &str) -> Option<Ipv4Net> {
    let (address, length) = network(text, 32)?;
    Ipv4Net::new(address.parse::<Ipv4Addr>().ok()?, length).ok()
}

fn ip6(text: &str) -> Option<Ipv6Net> {
    let (address, length) = network(text, 128)?;
    Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, length).ok()
}

fn network(text: &str, max: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        None => Some((text, max)),
        Some((address, digits)) => Some((address, prefix_length(digits, max)?)),
    }
}
