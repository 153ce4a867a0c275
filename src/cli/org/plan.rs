//! `mailweir org plan`: what a reload would change, before anything does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::ConfigArgument;
use crate::cli::{environment, output, start_failure};
use crate::config::{self, Candidate, LoadError};
use crate::daemon::{self, Plan};
use crate::id::{EntityId, EntityKind};
use crate::organization::{Fact, Names, State, summary, words};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PlanArguments {
    /// The organization's file, as it is to be
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What a reload would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned<'a> {
    organization: &'a str,
    alias: &'a str,
    /// Nothing is recorded of it yet.
    is_first: bool,
    /// In words.
    changes: Vec<String>,
    /// Addresses that are nobody's any more.
    lost_addresses: Vec<String>,
    /// Whose mailbox is closed.
    closed_mailboxes: BTreeMap<&'a EntityId, &'a str>,
    warnings: Vec<String>,
    facts: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    about: Box<str>,
    fact: &'a Fact,
}

pub(super) fn run(arguments: &PlanArguments) -> anyhow::Result<()> {
    let main = &arguments.config.config;
    let candidate = config::read_instead(main, environment(), &arguments.file);
    let candidate = candidate.map_err(|error| match error {
        LoadError::Problems(problems) => anyhow::Error::from(problems),
        LoadError::Store(error) => error.into(),
    })?;
    let plan = daemon::plan(&candidate).map_err(start_failure)?;
    let planned = planned(&candidate, &plan);
    if arguments.json {
        return output::json(&planned);
    }
    for warning in &planned.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if planned.facts.is_empty() {
        return Ok(output::line("nothing would change")?);
    }
    output::line(&format!("organization {} ({})", planned.alias, planned.organization))?;
    for change in &planned.changes {
        output::line(&format!("  {change}"))?;
    }
    for address in &planned.lost_addresses {
        output::line(&format!("  mail is refused for {address}"))?;
    }
    for name in planned.closed_mailboxes.values() {
        output::line(&format!("  a mailbox is closed: {name}"))?;
    }
    Ok(())
}

fn planned<'a>(candidate: &'a Candidate, plan: &'a Plan) -> Planned<'a> {
    let state = &*candidate.organization.state;
    let facts = &plan.facts;
    let mut changes = Vec::new();
    let mut closed_mailboxes = BTreeMap::new();
    let mut lost_addresses = Vec::new();
    if let Some(before) = &plan.before {
        let names = Names::new(before, facts);
        changes.extend(facts.iter().map(|fact| words(fact, &names)));
        for (id, entity) in before.entities.iter() {
            if state.entities.get(id).is_none() && entity.kind() != EntityKind::Group {
                closed_mailboxes.insert(id, &**entity.name());
            }
        }
        let after: BTreeSet<_> = keys(state).map(|(key, _)| key).collect();
        let lost = keys(before).filter(|(key, _)| !after.contains(key));
        lost_addresses.extend(lost.map(|(_, address)| address));
        lost_addresses.sort_unstable();
    } else {
        changes.push(format!("first recorded: {}", summary(state)));
    }
    Planned {
        organization: state.id.as_str(),
        alias: &state.alias,
        is_first: plan.before.is_none(),
        changes,
        lost_addresses,
        closed_mailboxes,
        warnings: candidate.warnings.iter().map(ToString::to_string).collect(),
        facts: facts.iter().map(|fact| Told { about: fact.about(), fact }).collect(),
    }
}

/// The addresses of everybody, each with the form by which it is looked up.
fn keys(state: &State) -> impl Iterator<Item = (String, String)> {
    let addresses = state.entities.iter().flat_map(|(_, entity)| entity.addresses());
    addresses.map(|address| (address.key(), address.to_string()))
}
