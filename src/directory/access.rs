//! Access control rules: who may use a mailbox, over which protocol and from where (guide
//! 4511–4600). Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Whether access is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessEffect {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

impl AccessEffect {
    /// The API's `AccessControlRuleEffect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        }
    }
}

impl fmt::Display for AccessEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The protocol by which a mailbox is used: the API's `AccessControlRuleAction` (`contracts.md`
/// §5.3). Rules may name all of them, since an organization brings its rules along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AccessProtocol {
    /// Exchange ActiveSync.
    ActiveSync,
    /// Autodiscover.
    AutoDiscover,
    /// Exchange Web Services.
    #[serde(rename = "EWS")]
    Ews,
    /// IMAP.
    #[serde(rename = "IMAP")]
    Imap,
    /// Submission over SMTP.
    #[serde(rename = "SMTP")]
    Smtp,
    /// Outlook for Windows.
    WindowsOutlook,
    /// The web application.
    WebMail,
}

impl AccessProtocol {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ActiveSync,
        Self::AutoDiscover,
        Self::Ews,
        Self::Imap,
        Self::Smtp,
        Self::WindowsOutlook,
        Self::WebMail,
    ];

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActiveSync => "ActiveSync",
            Self::AutoDiscover => "AutoDiscover",
            Self::Ews => "EWS",
            Self::Imap => "IMAP",
            Self::Smtp => "SMTP",
            Self::WindowsOutlook => "WindowsOutlook",
            Self::WebMail => "WebMail",
        }
    }
}

impl fmt::Display for AccessProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of the protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not one of ActiveSync, AutoDiscover, EWS, IMAP, SMTP, WindowsOutlook, WebMail")]
pub struct UnknownProtocol;

impl std::str::FromStr for AccessProtocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.as_str() == text);
        found.ok_or(UnknownProtocol)
    }
}

/// A rule. It applies where all of its conditions hold; an empty list is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Unique in the organization.
    pub name: Arc<str>,
    /// What it does where it applies.
    pub effect: AccessEffect,
    /// `Actions`: the protocol is one of these.
    pub protocols: Vec<AccessProtocol>,
    /// `NotActions`: the protocol is none of these.
    pub not_protocols: Vec<AccessProtocol>,
    /// `IpRanges`: the client's address is in one of these.
    pub ip_ranges: Vec<IpNet>,
    /// `NotIpRanges`: the client's address is in none of these.
    pub not_ip_ranges: Vec<IpNet>,
    /// `UserIds`: the user has one of these names.
    pub users: Vec<Arc<str>>,
    /// `NotUserIds`: the user has none of these names.
    pub not_users: Vec<Arc<str>>,
}

/// Somebody who wants in.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// By which protocol.
    pub protocol: AccessProtocol,
    /// From where.
    pub ip: IpAddr,
    /// The user's name.
    pub user: &'a str,
}

/// What the rules say to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessDecision {
    /// Whether access is given.
    pub effect: AccessEffect,
    /// The rules that led to it, in their order; none where no rule applies.
    pub matched: Vec<Arc<str>>,
}

impl AccessRule {
    fn applies(&self, request: &AccessRequest<'_>) -> bool {
        let AccessRequest { protocol, ip, user } = request;
        let is_in = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(ip));
        let is_named = |users: &[Arc<str>]| users.iter().any(|name| **name == **user);
        (self.protocols.is_empty() || self.protocols.contains(protocol))
            && !self.not_protocols.contains(protocol)
            && (self.ip_ranges.is_empty() || is_in(&self.ip_ranges))
            && !is_in(&self.not_ip_ranges)
            && (self.users.is_empty() || is_named(&self.users))
            && !is_named(&self.not_users)
    }
}

/// The rules of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRules(Vec<AccessRule>);

/// The rule that every organization begins with (guide 4513): it allows all.
impl Default for AccessRules {
    fn default() -> Self {
        Self(vec![AccessRule {
            name: "default".into(),
            effect: AccessEffect::Allow,
            protocols: Vec::new(),
            not_protocols: Vec::new(),
            ip_ranges: Vec::new(),
            not_ip_ranges: Vec::new(),
            users: Vec::new(),
            not_users: Vec::new(),
        }])
    }
}

impl AccessRules {
    /// These rules and no other; without any, all access is denied (guide 4517).
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// The rules.
    pub fn rules(&self) -> &[AccessRule] {
        &self.0
    }

    /// Decides: a rule that denies wins over all that allow, and where none applies access is
    /// denied.
    pub fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        // An IPv4 client on an IPv6 socket is an IPv4 client.
        let request = AccessRequest { ip: request.ip.to_canonical(), ..*request };
        let matched = |effect| -> Vec<Arc<str>> {
            let rules = self.0.iter().filter(|rule| rule.effect == effect);
            rules.filter(|rule| rule.applies(&request)).map(|rule| Arc::clone(&rule.name)).collect()
        };
        let (denying, allowing) = (matched(AccessEffect::Deny), matched(AccessEffect::Allow));
        match denying.is_empty() && !allowing.is_empty() {
            true => AccessDecision { effect: AccessEffect::Allow, matched: allowing },
            false => AccessDecision { effect: AccessEffect::Deny, matched: denying },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(name: &str, effect: AccessEffect) -> AccessRule {
        let all = AccessRules::default().0.remove(0);
        AccessRule { name: name.into(), effect, ..all }
    }

    fn net(text: &str) -> Vec<IpNet> {
        vec![text.parse().expect("a network")]
    }

    fn check(rules: &[AccessRule], user: &str, ip: &str, expected: (AccessEffect, &[&str])) {
        let ip = ip.parse().expect("an address");
        let request = AccessRequest { protocol: AccessProtocol::Smtp, ip, user };
        let decision = AccessRules::new(rules.to_vec()).decide(&request);
        let matched: Vec<_> = decision.matched.iter().map(|name| &**name).collect();
        assert_eq!((decision.effect, matched.as_slice()), expected, "{user} from {ip}");
    }

    #[test]
    fn rules_decide_by_protocol_address_and_user() {
        use AccessEffect::{Allow, Deny};
        let allow = rule("all", Allow);
        check(&[], "alice", "192.0.2.1", (Deny, &[]));
        check(std::slice::from_ref(&allow), "alice", "192.0.2.1", (Allow, &["all"]));

        let office = AccessRule { ip_ranges: net("192.0.2.0/24"), ..rule("office", Allow) };
        let office6 = AccessRule { ip_ranges: net("2001:db8::/32"), ..rule("office6", Allow) };
        let both = [office, office6];
        check(&both, "alice", "192.0.2.200", (Allow, &["office"]));
        check(&both, "alice", "::ffff:192.0.2.200", (Allow, &["office"]));
        check(&both, "alice", "2001:db8:1::1", (Allow, &["office6"]));
        check(&both, "alice", "198.51.100.1", (Deny, &[]));
        check(&both, "alice", "2001:db9::1", (Deny, &[]));

        let outside = AccessRule { not_ip_ranges: net("192.0.2.0/24"), ..rule("outside", Deny) };
        let rules = [allow.clone(), outside];
        check(&rules, "alice", "192.0.2.1", (Allow, &["all"]));
        check(&rules, "alice", "198.51.100.1", (Deny, &["outside"]));
        check(&rules, "alice", "2001:db8::1", (Deny, &["outside"]));

        let not_bob = AccessRule { users: vec!["bob".into()], ..rule("not-bob", Deny) };
        let rules = [allow.clone(), not_bob];
        check(&rules, "alice", "192.0.2.1", (Allow, &["all"]));
        check(&rules, "bob", "192.0.2.1", (Deny, &["not-bob"]));
        let but_bob = AccessRule { not_users: vec!["bob".into()], ..rule("but-bob", Allow) };
        check(std::slice::from_ref(&but_bob), "bob", "192.0.2.1", (Deny, &[]));

        let imap = AccessRule { protocols: vec![AccessProtocol::Imap], ..rule("imap", Deny) };
        let others = vec![AccessProtocol::Imap, AccessProtocol::Ews];
        let no_imap = AccessRule { not_protocols: others, ..rule("no-imap", Deny) };
        check(&[allow.clone(), imap], "alice", "192.0.2.1", (Allow, &["all"]));
        check(&[allow, no_imap], "alice", "192.0.2.1", (Deny, &["no-imap"]));
    }

    #[test]
    fn protocols_have_the_words_of_the_api() {
        for protocol in AccessProtocol::ALL {
            assert_eq!(protocol.as_str().parse(), Ok(protocol));
            let json = serde_json::to_string(&protocol).expect("serializes");
            assert_eq!(json, format!("\"{protocol}\""));
        }
        assert_eq!("smtp".parse::<AccessProtocol>(), Err(UnknownProtocol));
    }

    fn any_rule() -> impl Strategy<Value = AccessRule> {
        let users = || prop::sample::subsequence(vec!["alice", "bob"], 0..=1);
        let nets = || prop::sample::subsequence(vec!["192.0.2.0/24", "2001:db8::/32"], 0..=1);
        (any::<bool>(), users(), users(), nets(), nets()).prop_map(
            |(is_allow, users, not_users, ranges, not_ranges)| {
                let named = |names: Vec<&str>| names.into_iter().map(Into::into).collect();
                let nets = |texts: Vec<&str>| texts.into_iter().flat_map(net).collect();
                let effect = if is_allow { AccessEffect::Allow } else { AccessEffect::Deny };
                AccessRule {
                    users: named(users),
                    not_users: named(not_users),
                    ip_ranges: nets(ranges),
                    not_ip_ranges: nets(not_ranges),
                    ..rule("any", effect)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_a_denial_is_never_overruled(
            rules in prop::collection::vec(any_rule(), 0..5),
            user in prop::sample::select(vec!["alice", "bob", "eve"]),
            ip in prop::sample::select(vec!["192.0.2.1", "198.51.100.1", "2001:db8::1"]),
        ) {
            let ip = ip.parse().expect("an address");
            let request = AccessRequest { protocol: AccessProtocol::Smtp, ip, user };
            let decide = |rules: &[AccessRule]| {
                AccessRules::new(rules.to_vec()).decide(&request).effect
            };
            let effect = decide(&rules);
            let reversed: Vec<_> = rules.iter().rev().cloned().collect();
            prop_assert_eq!(effect, decide(&reversed));
            let with_denial = [rules.clone(), vec![rule("deny", AccessEffect::Deny)]].concat();
            prop_assert_eq!(decide(&with_denial), AccessEffect::Deny);
            if !rules.is_empty() {
                let with_allow = [rules, vec![rule("allow", AccessEffect::Allow)]].concat();
                prop_assert!(effect == AccessEffect::Deny || decide(&with_allow) == effect);
            }
        }
    }
}
