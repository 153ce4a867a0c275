//! What authentication found out, as header fields.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::outcome::{Authentication, DkimOutcome, DmarcResult};
use super::spf::{Identity, SpfResult};
use crate::mail::{Peer, ReversePath};

/// The longest value printed, in octets; a domain has at most 255.
const MAX_VALUE: usize = 256;
/// Above this many octets a value has a line of its own.
const LONG_VALUE: usize = 60;

impl Authentication {
    /// The `Received-SPF` field (RFC 7208 §9.1) with its CRLF, in the spelling of Amazon SES
    /// (`contracts.md` §7).
    ///
    /// Deviation: RFC 7208 wants values that are no dot-atom quoted; SES, and with it the filters
    /// that read this field, leaves plain addresses bare.
    pub fn received_spf(&self, peer: &Peer, reverse_path: &ReversePath) -> String {
        let identity = match self.spf.identity {
            Identity::MailFrom => "mailfrom",
            Identity::Helo => "helo",
        };
        let envelope_from = match reverse_path {
            ReversePath::Null => "\"\"".to_owned(),
            ReversePath::Address(address) => {
                bare_or_quoted(&address.to_string(), "-._+@:[]/").into_owned()
            }
        };
        let mut field = format!(
            "Received-SPF: {} (spfCheck: {})\r\n client-ip={}; envelope-from={envelope_from};\r\n \
             helo={}; identity={identity};",
            self.spf.result.as_str(),
            self.spf_comment(peer),
            peer.ip,
            bare_or_quoted(&peer.helo, "-._:[]"),
        );
        if let Some(mechanism) = &self.spf.mechanism {
            let (space, value) = (space_before(mechanism), bare_or_quoted(mechanism, "-._:/"));
            push(&mut field, format_args!("{space}mechanism={value};"));
        }
        if let Some(problem) = &self.spf.problem {
            push(&mut field, format_args!("\r\n problem={};", quoted(problem)));
        }
        field.push_str("\r\n");
        field
    }

    fn spf_comment(&self, peer: &Peer) -> String {
        let (domain, ip) = (comment(&self.spf.domain), peer.ip);
        match self.spf.result {
            SpfResult::Pass => format!("domain of {domain} designates {ip} as permitted sender"),
            SpfResult::Fail => {
                format!("domain of {domain} does not designate {ip} as permitted sender")
            }
            SpfResult::SoftFail => {
                format!(
                    "domain of transitioning {domain} does not designate {ip} as permitted sender"
                )
            }
            SpfResult::None | SpfResult::Neutral => {
                format!("{ip} is neither permitted nor denied by domain of {domain}")
            }
            SpfResult::TempError => format!("error in processing during lookup of {domain}"),
            SpfResult::PermError => format!("the record of {domain} cannot be interpreted"),
        }
    }

    /// The `Authentication-Results` field (RFC 8601) with its CRLF, one result a line.
    pub fn authentication_results(&self, authserv_id: &str) -> String {
        let mut field = format!(
            "Authentication-Results: {};\r\n spf={} {}={}",
            token_or_quoted(authserv_id),
            self.spf.result.as_str(),
            match self.spf.identity {
                Identity::MailFrom => "smtp.mailfrom",
                Identity::Helo => "smtp.helo",
            },
            token_or_quoted(&self.spf.domain),
        );
        if self.dkim.is_empty() {
            field.push_str(";\r\n dkim=none");
        }
        for signature in &self.dkim {
            push_dkim(&mut field, signature);
        }
        self.push_dmarc(&mut field);
        push(&mut field, format_args!(";\r\n arc={}", self.arc.result.as_str()));
        if let Some(sealer) = &self.arc.sealer {
            push(&mut field, format_args!(" (i={} d={})", self.arc.instances, comment(sealer)));
        }
        push(&mut field, format_args!(";\r\n iprev={}", self.iprev.result.as_str()));
        if let Some(name) = &self.iprev.name {
            push(&mut field, format_args!(" ({})", comment(name)));
        }
        let ip = self.iprev.ip.to_string();
        push(&mut field, format_args!(" policy.iprev={}\r\n", token_or_quoted(&ip)));
        field
    }

    fn push_dmarc(&self, field: &mut String) {
        push(field, format_args!(";\r\n dmarc={}", self.dmarc.result.as_str()));
        if let (Some(policy), true) = (self.dmarc.policy, self.dmarc.result != DmarcResult::None) {
            push(field, format_args!(" (p={}", policy.as_str().to_ascii_lowercase()));
            if self.dmarc.pct != 100 {
                push(field, format_args!(" pct={}", self.dmarc.pct));
            }
            field.push(')');
        }
        if let Some(domain) = &self.dmarc.domain {
            push(field, format_args!(" header.from={}", token_or_quoted(domain)));
        }
    }
}

fn push_dkim(field: &mut String, signature: &DkimOutcome) {
    push(field, format_args!(";\r\n dkim={}", signature.result.as_str()));
    if let Some(reason) = &signature.reason {
        push(field, format_args!(" ({})", comment(reason)));
    }
    for (property, value) in [
        ("header.i", &signature.identity),
        ("header.d", &signature.domain),
        ("header.s", &signature.selector),
        ("header.a", &signature.algorithm),
    ] {
        if !value.is_empty() {
            let space = space_before(value);
            push(field, format_args!("{space}{property}={}", token_or_quoted(value)));
        }
    }
}

/// A long value begins a line of its own, so that no line grows past 998 octets (RFC 5322
/// §2.1.1).
fn space_before(value: &str) -> &'static str {
    if value.len() > LONG_VALUE { "\r\n  " } else { " " }
}

fn push(field: &mut String, text: std::fmt::Arguments<'_>) {
    field.write_fmt(text).expect("writing to a String does not fail");
}

/// A value as RFC 8601 §2.2 spells it: domain names, addresses and tokens bare, all else quoted.
fn token_or_quoted(value: &str) -> Cow<'_, str> {
    bare_or_quoted(value, "-._+@")
}

/// Peers choose these values: whatever is not a letter, a digit or one of `plain` is quoted.
fn bare_or_quoted<'v>(value: &'v str, plain: &str) -> Cow<'v, str> {
    let bare = !value.is_empty()
        && value.len() <= MAX_VALUE
        && value.chars().all(|c| c.is_ascii_alphanumeric() || plain.contains(c));
    if bare { Cow::Borrowed(value) } else { Cow::Owned(quoted(value)) }
}

/// A quoted-string (RFC 5322 §3.2.4, with the UTF-8 of RFC 6532), without control characters.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in beginning(value) {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

/// The content of a comment (RFC 5322 §3.2.2), without what would end it or open another.
fn comment(text: &str) -> String {
    let safe = |c| if is_printable(c) && !matches!(c, '(' | ')' | '\\') { c } else { '?' };
    beginning(text).map(safe).collect()
}

/// The characters that fit into [`MAX_VALUE`] octets.
fn beginning(text: &str) -> impl Iterator<Item = char> {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_VALUE).map(|(_, c)| c)
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || c >= '\u{a0}'
}
