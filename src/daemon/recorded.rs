//! What the log has to be told so that it says what the files say: who is who, and the state of each
//! organization.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StartError;
use super::identities;
use crate::clock::Timestamp;
use crate::config::{Candidate, Configuration, OrganizationConfig};
use crate::directory::OrganizationId;
use crate::organization::{Fact, State, assign, difference};
use crate::store::{self, By, FACT_FORMAT, Register, Said, Stated, reader};

/// The log says something of an organization that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error(
    "what the log says of organization {organization} ({about}) is not known to this version of \
     mailweir, {version}: {problem}", version = env!("CARGO_PKG_VERSION")
)]
pub struct UnknownFact {
    organization: String,
    about: Box<str>,
    problem: String,
}

/// What a configuration says that is not in the log yet.
pub(super) struct News {
    pub(super) facts: Vec<store::Fact>,
    pub(super) stated: Option<Stated>,
}

/// Who wants the files to be in force, by what, and when.
pub(super) struct Occasion {
    pub(super) by: By,
    pub(super) command: &'static str,
    pub(super) at: Timestamp,
}

impl News {
    /// Finds out what is new in a configuration beside the organizations that are in force, whose
    /// states the log has, and beside all that the log has.
    ///
    /// # Errors
    /// Most users of an organization are gone; the log cannot be read.
    pub(super) fn of(
        configuration: &Configuration,
        in_force: &[Arc<OrganizationConfig>],
        register: &Register,
        occasion: Occasion,
    ) -> Result<Self, StartError> {
        let Occasion { by, command, at } = occasion;
        let facts = identities::facts(configuration, register, at)?;
        let mut said = Vec::new();
        for config in &configuration.organizations {
            let state = &*config.state;
            let known = in_force.iter().find(|known| known.state.id == state.id);
            let facts = match known {
                Some(known) if Arc::ptr_eq(&known.state, &config.state) => Vec::new(),
                Some(known) => difference(Some(&known.state), state),
                None => beside_the_log(&configuration.store, state)?,
            };
            let organization: Arc<str> = (&state.id).into();
            said.extend(facts.iter().map(|fact| said_of(&organization, fact)));
        }
        let stated = Stated { at, by, command: command.into(), said };
        Ok(Self { facts, stated: Some(stated).filter(|stated| !stated.said.is_empty()) })
    }
}

/// What a reload would record of an organization, if its file were the candidate.
#[derive(Debug)]
pub struct Plan {
    /// What the log says of it; `None` if that is nothing.
    pub before: Option<State>,
    /// What would be said.
    pub facts: Vec<Fact>,
}

/// Compares a file with what the log says, not with the file that is configured: that may be the
/// edited one itself.
///
/// # Errors
/// What would keep a reload from taking it; the log cannot be read.
pub fn plan(candidate: &Candidate) -> Result<Plan, StartError> {
    let Candidate { organization, store, register, .. } = candidate;
    identities::check_exodus(organization, register)?;
    let state = &*organization.state;
    let before = recorded(store, &state.id)?;
    let facts = difference(before.as_ref(), state);
    Ok(Plan { before, facts })
}

/// What the log says of an organization; `None` if that is nothing.
///
/// # Errors
/// The log cannot be read.
pub fn recorded(
    settings: &store::Settings,
    organization: &OrganizationId,
) -> Result<Option<State>, StartError> {
    let said = reader::said(settings, organization.as_str())?;
    if said.is_empty() {
        return Ok(None);
    }
    Ok(Some(read(State::empty(organization.clone()), said.values())?))
}

/// What is new in a state beside what the log says of its organization.
fn beside_the_log(settings: &store::Settings, state: &State) -> Result<Vec<Fact>, StartError> {
    let said = reader::said(settings, state.id.as_str())?;
    if said.is_empty() {
        return Ok(difference(None, state));
    }
    if is_said(state, &said)? {
        return Ok(Vec::new());
    }
    let known = read(State::empty(state.id.clone()), said.values())?;
    Ok(difference(Some(&known), state))
}

/// Whether the log says all of a state, and nothing else, to the letter. To read a hundred thousand
/// facts takes longer than to write them, and at most starts nothing has changed.
fn is_said(state: &State, said: &BTreeMap<Box<str>, Said>) -> Result<bool, StartError> {
    let mut others: BTreeMap<&str, &Said> =
        said.iter().map(|(about, said)| (&**about, said)).collect();
    for fact in difference(None, state) {
        let is_same = |said: &Said| said.fact.get() == json(&fact);
        if !others.remove(&*fact.about()).is_some_and(is_same) {
            return Ok(false);
        }
    }
    // What else is said must come to nothing: somebody who left, or something that is off again.
    let nothing = State::empty(state.id.clone());
    Ok(read(nothing.clone(), others.into_values())? == nothing)
}

/// A state with what was said.
fn read<'a>(mut state: State, said: impl Iterator<Item = &'a Said>) -> Result<State, UnknownFact> {
    for Said { organization, about, fact, .. } in said {
        let fact = serde_json::from_str(fact.get()).map_err(|error| UnknownFact {
            organization: organization.to_string(),
            about: about.clone(),
            problem: error.to_string(),
        })?;
        assign(&mut state, fact);
    }
    Ok(state)
}

fn said_of(organization: &Arc<str>, fact: &Fact) -> Said {
    let raw = serde_json::value::RawValue::from_string(json(fact));
    Said {
        organization: Arc::clone(organization),
        about: fact.about(),
        format: FACT_FORMAT,
        fact: raw.expect("JSON that was just written is JSON"),
    }
}

fn json(fact: &Fact) -> String {
    serde_json::to_string(fact).expect("a fact has only texts, numbers, lists and maps of them")
}

#[cfg(test)]
mod tests;
