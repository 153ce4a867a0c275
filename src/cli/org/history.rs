//! `mailweir org history`: what the log says of organizations, record by record.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ConfigArgument, find};
use crate::cli::output::Lines;
use crate::clock::Timestamp;
use crate::directory::OrganizationId;
use crate::events::Lsn;
use crate::organization::{Fact, Names, State, assign, summary, words};
use crate::store::{By, Said, Stated, reader};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HistoryArguments {
    /// The organization: its alias or its id; all of them, if it is left out
    organization: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What became of one organization by one record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    /// The version of the daemon's snapshot from then on: `ruleVersion` of a trace.
    position: u64,
    at: Timestamp,
    by: &'a By,
    command: &'a str,
    organization: &'a str,
    /// What it was called then.
    alias: Arc<str>,
    /// Nothing was recorded of it before.
    is_first: bool,
    /// In words.
    changes: Vec<String>,
    facts: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    about: &'a str,
    fact: &'a RawValue,
}

pub(super) fn run(arguments: &HistoryArguments) -> anyhow::Result<()> {
    let settings = arguments.config.store()?;
    let register = reader::register(&settings)?;
    let meant =
        arguments.organization.as_deref().map(|meant| find(&register, meant)).transpose()?;
    let statements = reader::statements(&settings, meant.as_deref())?;
    let mut states = HashMap::new();
    let mut lines = Lines::to_stdout();
    for (position, stated) in &statements {
        for said in stated.said.chunk_by(|one, other| one.organization == other.organization) {
            let step = step(*position, stated, said, &mut states)?;
            if arguments.json {
                lines.json(&step)?;
            } else {
                show(&step, &mut lines)?;
            }
        }
    }
    lines.finish()
}

/// What a record says of one organization, of which `states` has what was said before; it has this
/// too afterwards.
fn step<'a>(
    position: Lsn,
    stated: &'a Stated,
    said: &'a [Said],
    states: &mut HashMap<&'a str, State>,
) -> anyhow::Result<Step<'a>> {
    let organization = said.first().map_or("", |said| &*said.organization);
    let mut facts = Vec::new();
    for Said { about, fact, .. } in said {
        let read: Fact = serde_json::from_str(fact.get())
            .with_context(|| format!("what {position} says of {organization} ({about})"))?;
        facts.push(read);
    }
    let is_first = !states.contains_key(organization);
    if is_first {
        let id = OrganizationId::parse(organization);
        let id = id.with_context(|| format!("{organization} is no id of an organization"))?;
        states.insert(organization, State::empty(id));
    }
    let state = states.get_mut(organization).context("it was put there")?;
    let names = Names::new(state, &facts);
    let mut changes: Vec<_> =
        if is_first { Vec::new() } else { facts.iter().map(|fact| words(fact, &names)).collect() };
    facts.into_iter().for_each(|fact| assign(state, fact));
    if is_first {
        changes.push(format!("first recorded: {}", summary(state)));
    }
    Ok(Step {
        position: position.0,
        at: stated.at,
        by: &stated.by,
        command: &stated.command,
        organization,
        alias: Arc::clone(&state.alias),
        is_first,
        changes,
        facts: said.iter().map(|said| Told { about: &said.about, fact: &said.fact }).collect(),
    })
}

fn show(step: &Step<'_>, lines: &mut Lines<std::io::StdoutLock<'static>>) -> anyhow::Result<()> {
    let Step { position, at, by, command, alias, .. } = step;
    lines.line(&format!("{at} {alias}: {command} by {by}, version {position}"))?;
    for change in &step.changes {
        lines.line(&format!("  {change}"))?;
    }
    Ok(())
}
