//! Email flow rules of both directions, from an organization's file.

use std::collections::HashSet;

use super::hints;
use super::reader::Section;
use super::tree::Place;
use crate::rules::{
    Action, InboundAction, OutboundAction, Pattern, Rule, RuleError, RuleSet, check_together,
};

const INBOUND: &str = "inbound_rule";
const OUTBOUND: &str = "outbound_rule";

/// An organization's rules.
#[derive(Debug, Default)]
pub(super) struct FlowRules {
    pub(super) inbound: RuleSet<InboundAction>,
    pub(super) outbound: RuleSet<OutboundAction>,
}

/// Reads the rules; `gateways` are the names of the organization's SMTP gateways.
pub(super) fn read(root: &Section<'_>, gateways: &HashSet<String>) -> FlowRules {
    let inbound = Listed::read(root, INBOUND, inbound_action);
    let outbound = Listed::read(root, OUTBOUND, |section| outbound_action(section, gateways));
    if let Err(error) = check_together(&inbound.rules, &outbound.rules) {
        root.problem(if root.has(INBOUND) { INBOUND } else { OUTBOUND }, error);
    }
    FlowRules { inbound: inbound.checked(), outbound: outbound.checked() }
}

/// The rules of a direction, and where they stand.
struct Listed<'a, A> {
    sections: Vec<Section<'a>>,
    rules: Vec<Rule<A>>,
}

impl<'a, A: Action> Listed<'a, A> {
    fn read(
        root: &Section<'a>,
        key: &'static str,
        action: impl Fn(&Section<'_>) -> Option<A>,
    ) -> Self {
        let sections = root.sections(key);
        let rules = sections.iter().filter_map(|section| rule(section, &action)).collect();
        Self { sections, rules }
    }

    fn checked(self) -> RuleSet<A> {
        let Self { sections, rules } = self;
        RuleSet::new(rules).unwrap_or_else(|errors| {
            for error in errors {
                let name = match &error {
                    RuleError::TooManySenders(name, _)
                    | RuleError::NoPatterns(name, _)
                    | RuleError::SameName(name) => name,
                    RuleError::TooManyInAll(_) => continue, // Told for both directions together.
                };
                let mut named = sections.iter().rev();
                let named = named.find(|section| section.text("name").as_deref() == Some(name));
                named.into_iter().for_each(|section| section.problem("name", &error));
            }
            RuleSet::default()
        })
    }
}

fn rule<A>(section: &Section<'_>, action: impl Fn(&Section<'_>) -> Option<A>) -> Option<Rule<A>> {
    let name = section.text("name");
    let action = action(section);
    let patterns = |key| -> Option<Vec<Pattern>> {
        let list: Option<Vec<(Pattern, Place)>> = section.list(key);
        let list = section.required(key, list)?;
        Some(list.into_iter().map(|(pattern, _)| pattern).collect())
    };
    let (senders, destinations) = (patterns("senders"), patterns("destinations"));
    section.finish();
    let name = section.required("name", name)?.into();
    Some(Rule { name, action: action?, senders: senders?, destinations: destinations? })
}

/// An action as the file spells it.
#[derive(Clone)]
enum Word<A> {
    Action(A),
    /// Names a gateway with a key of its own.
    Route,
}

/// An action of the guide that this version does not have.
const RUN_LAMBDA: &str = "RUN_LAMBDA";

fn word<A: Action>(
    section: &Section<'_>,
    words: impl IntoIterator<Item = (&'static str, Word<A>)>,
) -> Option<Word<A>> {
    let text = section.text("action");
    let text = section.required("action", text)?;
    if text == RUN_LAMBDA {
        section.problem("action", format!("{RUN_LAMBDA} is not supported by this version"));
        return None;
    }
    let words: Vec<_> = words.into_iter().collect();
    section.one_of("action", &text, &words)
}

fn inbound_action(section: &Section<'_>) -> Option<InboundAction> {
    let words = InboundAction::ALL.map(|action| (action.as_str(), Word::Action(action)));
    match word(section, words)? {
        Word::Action(action) => Some(action),
        Word::Route => None,
    }
}

fn outbound_action(section: &Section<'_>, gateways: &HashSet<String>) -> Option<OutboundAction> {
    let words = [OutboundAction::Default, OutboundAction::Drop, OutboundAction::Bounce]
        .map(|action| (action.as_str(), Word::Action(action)));
    let word = word(section, words.into_iter().chain([(ROUTE, Word::Route)]));
    let gateway = section.text("gateway");
    if let Some(gateway) = gateway.as_ref().filter(|gateway| !gateways.contains(*gateway)) {
        let meant = hints::nearest(gateway, gateways.iter().map(String::as_str));
        let meant = meant.map(|known| format!(", did you mean \"{known}\"?"));
        let meant = meant.unwrap_or_default();
        section.problem("gateway", format!("there is no smtp_gateway \"{gateway}\"{meant}"));
    }
    match word? {
        Word::Action(_) if section.has("gateway") => {
            section.problem("gateway", format!("only {ROUTE} has one"));
            None
        }
        Word::Action(action) => Some(action),
        Word::Route => {
            let gateway = section.required("gateway", gateway)?.into();
            Some(OutboundAction::RouteToSmtpGateway { gateway })
        }
    }
}

/// How the file spells [`OutboundAction::RouteToSmtpGateway`].
const ROUTE: &str = "ROUTE_TO_SMTP_GATEWAY";
