//! `mailweir org show`: what a file was understood to say, with ids and defaults.

use std::fmt::Display;

use anyhow::Context;

use super::ConfigArgument;
use crate::cli::output::{self, Lines};
use crate::config::Configuration;
use crate::id::{EntityId, EntityKind};
use crate::organization::{Entity, Resource, Rights, State, User};
use crate::rules::{Action, Rule};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArguments {
    /// The organization: its alias, its id or one of its domains; all of them, if it is left out
    organization: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &ShowArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let states = states(&configuration, arguments.organization.as_deref())?;
    if arguments.json {
        return output::json_list(states);
    }
    let mut lines = Lines::to_stdout();
    for state in states {
        show(state, &mut |line| lines.line(&line))?;
    }
    lines.finish()
}

/// The organizations that are meant.
fn states<'a>(
    configuration: &'a Configuration,
    meant: Option<&str>,
) -> anyhow::Result<Vec<&'a State>> {
    let all = configuration.organizations.iter().map(|config| &*config.state);
    let Some(meant) = meant else { return Ok(all.collect()) };
    let is_meant = |state: &State| {
        let mut domains = state.domains.iter();
        *state.alias == *meant
            || state.id.as_str() == meant
            || domains.any(|domain| domain.name.as_str().eq_ignore_ascii_case(meant))
    };
    let mut all = all;
    let found = all.find(|state| is_meant(state));
    let found = found.with_context(|| format!("there is no organization \"{meant}\""))?;
    Ok(vec![found])
}

type Print<'a> = &'a mut dyn FnMut(String) -> std::io::Result<()>;

fn show(state: &State, print: Print<'_>) -> anyhow::Result<()> {
    print(format!("organization {} ({})", state.alias, state.id))?;
    let domains: Vec<_> = state.domains.iter().map(|domain| &domain.name).collect();
    print(format!("  domains: {}", listed(&domains)))?;
    if let Some(postmaster) = &state.postmaster {
        print(format!("  postmaster: {}", called(state, postmaster)))?;
    }
    if let Some(file) = &state.managed {
        print(format!("  file: {}", file.display()))?;
    }
    settings(state, print)?;
    for kind in EntityKind::ALL {
        entities(state, kind, print)?;
    }
    for (owner, granted) in &state.permissions {
        for (grantee, rights) in granted {
            let owner = called(state, owner);
            let grantee = called(state, grantee);
            print(format!("  permission of {grantee} for {owner}: {}", rights_of(*rights)))?;
        }
    }
    rules("inbound", &state.inbound_rules, print)?;
    rules("outbound", &state.outbound_rules, print)?;
    for (name, gateway) in &state.gateways {
        let host = &gateway.host;
        let port = gateway.port;
        let tls = if gateway.implicit_tls { "implicit" } else { "starttls" };
        print(format!("  SMTP gateway {name}: {host}, port {port}, {tls}"))?;
    }
    for rule in &state.access {
        print(format!("  access rule {}: {}", rule.name, rule.effect))?;
    }
    Ok(())
}

fn settings(state: &State, print: Print<'_>) -> anyhow::Result<()> {
    let mail = &state.mail;
    print(format!("  plus_addressing: {}", mail.plus_addressing))?;
    print(format!("  dmarc_enforcement: {}", mail.dmarc_enforcement))?;
    if let Some(blocked) = &mail.blocked_attachments {
        print(format!("  blocked_attachments: {}", listed(&blocked.0)))?;
    }
    if let Some(journaling) = &state.journaling {
        let to = &journaling.journaling_address;
        let report = &journaling.report_address;
        print(format!("  journaling: to {to}, reports to {report}"))?;
    }
    for (folder, rule) in &state.retention {
        let days = rule.period_days.map(|days| format!(" after {days} days")).unwrap_or_default();
        print(format!("  retention of {folder}: {}{days}", rule.action.as_str()))?;
    }
    Ok(())
}

/// Those of a kind, in the order of their names.
fn entities(state: &State, kind: EntityKind, print: Print<'_>) -> anyhow::Result<()> {
    let of_kind = state.entities.iter().filter(|(_, entity)| entity.kind() == kind);
    let mut of_kind: Vec<_> = of_kind.collect();
    of_kind.sort_unstable_by_key(|(_, entity)| entity.name());
    for (id, entity) in of_kind {
        let name = entity.name();
        let about = about(state, entity);
        print(format!("  {kind} {name} ({id}): {about}"))?;
        for rule in state.mailbox_rules.get(id).iter().flat_map(|rules| rules.rules()) {
            print(format!("    mailbox rule {}: {}", rule.name, rule.action.as_str()))?;
        }
    }
    Ok(())
}

fn about(state: &State, entity: &Entity) -> String {
    let addresses =
        |user: &User| listed(&user.email.iter().chain(&user.aliases).collect::<Vec<_>>());
    match entity {
        Entity::User(user) | Entity::Resource(Resource { mailbox: user, .. }) => {
            let mut told = vec![addresses(user)];
            if !user.enabled {
                told.push("disabled".to_owned());
            }
            told.extend(user.remote.iter().map(|remote| format!("the mailbox is {remote}")));
            told.push(format!("{} MB", user.quota_mb));
            told.join("; ")
        }
        Entity::Group(group) => {
            let own: Vec<_> = group.email.iter().chain(&group.aliases).collect();
            let members: Vec<_> = group.members.iter().map(|id| called(state, id)).collect();
            let state = if group.enabled { "" } else { "; disabled" };
            format!("{}; members {}{state}", listed(&own), listed(&members))
        }
    }
}

fn rules<A: Action>(direction: &str, rules: &[Rule<A>], print: Print<'_>) -> anyhow::Result<()> {
    for rule in rules {
        let gateway = rule.action.gateway().map(|name| format!(" {name}")).unwrap_or_default();
        let name = &rule.name;
        let action = rule.action.as_str();
        print(format!("  {direction} rule {name}: {action}{gateway}"))?;
    }
    Ok(())
}

fn rights_of(rights: Rights) -> String {
    let all = [
        ("full access", rights.full_access),
        ("send as", rights.send_as),
        ("send on behalf", rights.send_on_behalf),
    ];
    let given: Vec<_> = all.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
    if given.is_empty() { "none".to_owned() } else { given.join(", ") }
}

fn called(state: &State, id: &EntityId) -> String {
    state.entities.get(id).map_or_else(|| id.to_string(), |entity| entity.name().to_string())
}

fn listed<'a, T: Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    let items: Vec<_> = items.into_iter().map(ToString::to_string).collect();
    items.join(", ")
}
