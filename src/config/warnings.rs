//! What is valid, but hardly meant: told by `check-config` and at the start, and nothing more.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::OrganizationConfig;
use super::flow_rules::FlowRules;
use super::hints;
use super::mailbox_rules::MailboxRulesByUser;
use super::reader::{Reader, Section};
use crate::directory::{Directory, EntityState, IndexedOrganization, ResolveError};
use crate::files::open_to_everybody;
use crate::journal;
use crate::mail::{Address, Domain};
use crate::rules::{Action, Party, Pattern, Rule, RuleSet};

/// The sections of the main file that variables of the environment reach.
const SECTIONS: [&str; 13] = [
    "outbound", "verdicts", "access", "limits", "events", "store", "queue", "dmarc", "spam", "tls",
    "dns", "log", "arn",
];

/// Variables that look like the configuration's, but lack an underscore.
pub(super) fn misspelt_variables(environment: &HashMap<String, String>, reader: &Reader) {
    let ours = |name: &&String| name.starts_with("MAILWEIR_") && !name.starts_with("MAILWEIR__");
    let mut names: Vec<_> = environment.keys().filter(ours).collect();
    names.sort_unstable();
    for name in names {
        let rest = name.trim_start_matches("MAILWEIR_").to_lowercase();
        let meant = SECTIONS.iter().find_map(|section| {
            let key = rest.strip_prefix(section)?.trim_start_matches('_');
            Some(format!("MAILWEIR__{section}__{key}").to_uppercase())
        });
        let meant = meant.unwrap_or_else(|| format!("MAILWEIR__{}", rest.to_uppercase()));
        let place = format!("environment {name}");
        reader.warning(place, "", format!("is not read; did you mean {meant}?"));
    }
}

/// `[[queue_route]]` of a domain whose mail does not leave.
pub(super) fn own_routes(root: &Section<'_>, organizations: &[Arc<OrganizationConfig>]) {
    for section in root.sections("queue_route") {
        let domain = section.text("domain").and_then(|text| Domain::parse(&text).ok());
        let owner = domain.as_ref().and_then(|domain| {
            organizations.iter().find(|config| config.organization.domains.contains(domain))
        });
        if let (Some(domain), Some(owner)) = (domain, owner) {
            let alias = &owner.organization.alias;
            let why = "its mail stays here, and takes no route";
            section.warning("domain", format!("{domain} is organization {alias}'s own: {why}"));
        }
    }
}

/// A key or password that everybody on the machine can read, or put another in the place of.
pub(super) fn open_secret(section: &Section<'_>, key: &str, file: &Path) {
    if let Some(message) = open_to_everybody(file) {
        section.warning(key, message);
    }
}

/// Whom an organization's email flow rules can meet on its side.
pub(super) struct Reach<'a> {
    domains: &'a [Domain],
    directory: &'a Directory,
    /// Others whose mail outbound rules route: reports and journal records.
    writers: Vec<Address>,
    /// Mailboxes or remote users send mail on, whoever has written it.
    sends_on: bool,
}

impl<'a> Reach<'a> {
    /// `directory` has the organization alone.
    pub(super) fn new(
        organization: &'a IndexedOrganization,
        directory: &'a Directory,
        mailbox_rules: &MailboxRulesByUser,
        journaling: Option<&journal::Settings>,
        hostname: Option<&Domain>,
    ) -> Self {
        let postmaster =
            hostname.and_then(|host| Address::from_parts("postmaster", host.as_str()).ok());
        let records = journaling.map(|settings| settings.sender_address.clone());
        let is_remote = |state: &EntityState| matches!(state, EntityState::Remote(_));
        let mut of_users = mailbox_rules.values().flat_map(|rules| rules.rules());
        let sends_on = of_users.any(|rule| rule.action.target_recipient().is_some())
            || directory.organizations().any(|known| {
                known.users.iter().any(|user| is_remote(&user.state))
                    || known.resources.iter().any(|it| is_remote(&it.mailbox.state))
            });
        let writers = postmaster.into_iter().chain(records).collect();
        Self { domains: organization.domains(), directory, writers, sends_on }
    }

    /// Whether a pattern is for somebody in the organization.
    fn is_anybody(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Star => true,
            Pattern::Domain(domain) => self.domains.contains(domain),
            Pattern::Wildcard(above) => self.domains.iter().any(|own| own.is_within(above)),
            Pattern::Address(key) => Address::parse(key).map_or(true, |address| {
                let found = self.directory.resolve(&address, usize::MAX);
                !matches!(found, Err(ResolveError::Unknown | ResolveError::NotOurDomain))
            }),
        }
    }

    /// Whether a pattern is for somebody whose mail leaves.
    fn writes(&self, pattern: &Pattern) -> bool {
        let is_meant = |writer| pattern.matches(&Party::new(writer));
        self.sends_on || self.is_anybody(pattern) || self.writers.iter().any(is_meant)
    }

    /// An address that stands in a domain of the organization, and is nobody's.
    fn is_nobodys(&self, pattern: &Pattern) -> bool {
        let is_ours = |address: Address| self.domains.contains(address.domain());
        matches!(pattern, Pattern::Address(key) if Address::parse(key).is_ok_and(is_ours))
            && !self.is_anybody(pattern)
    }

    /// The domain of the organization that a mistyped one is like.
    fn meant(&self, patterns: &[Pattern]) -> String {
        let own = || self.domains.iter().map(Domain::as_str);
        let mut near = patterns.iter().filter_map(|pattern| {
            let text = pattern.to_string();
            let domain = text.rsplit_once('@').map_or(&*text, |(_, domain)| domain);
            let domain = domain.trim_start_matches("*.");
            hints::nearest(domain, own()).filter(|meant| *meant != domain)
        });
        near.next().map_or_else(String::new, |meant| format!(", did you mean \"{meant}\"?"))
    }
}

/// Email flow rules that can never apply: inbound ones for nobody here, outbound ones of nobody here.
pub(super) fn idle_rules(root: &Section<'_>, rules: &FlowRules, reach: &Reach<'_>) {
    let why = "the rule never applies: none of them is an address or a domain of the organization";
    each_rule(root, "inbound_rule", &rules.inbound, |section, rule| {
        let destinations = &rule.destinations;
        if !destinations.iter().any(|pattern| reach.is_anybody(pattern)) {
            section.warning("destinations", format!("{why}{}", reach.meant(destinations)));
            return;
        }
        for address in destinations.iter().filter(|pattern| reach.is_nobodys(pattern)) {
            section.warning("destinations", format!("there is no {address}"));
        }
    });
    each_rule(root, "outbound_rule", &rules.outbound, |section, rule| {
        if !rule.senders.iter().any(|pattern| reach.writes(pattern)) {
            section.warning("senders", format!("{why}{}", reach.meant(&rule.senders)));
        }
    });
}

/// The rules with the sections that they stand in.
fn each_rule<A: Action>(
    root: &Section<'_>,
    key: &'static str,
    rules: &RuleSet<A>,
    tell: impl Fn(&Section<'_>, &Rule<A>),
) {
    let rules: HashMap<&str, &Rule<A>> =
        rules.rules().iter().map(|rule| (&*rule.name, rule)).collect();
    for section in root.sections(key) {
        let name = section.text("name");
        if let Some(rule) = name.and_then(|name| rules.get(name.as_str()).copied()) {
            tell(&section, rule);
        }
    }
}
