//! `mailweir org`

mod export;
mod history;
mod plan;
mod show;

use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;

use super::ConfigArgument;
use crate::store::Register;

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// What the organizations' files say, as the daemon understands it
    Show(show::ShowArguments),
    /// What a reload would change if an organization's file were this one
    Plan(plan::PlanArguments),
    /// What is recorded of an organization, as a file that says the same, with ids
    Export(export::ExportArguments),
    /// What the daemon has recorded of organizations: what changed, when, and who did it
    History(history::HistoryArguments),
}

pub(super) fn run(command: &OrgCommand) -> anyhow::Result<()> {
    match command {
        OrgCommand::Show(arguments) => show::run(arguments),
        OrgCommand::Plan(arguments) => plan::run(arguments),
        OrgCommand::Export(arguments) => export::run(arguments),
        OrgCommand::History(arguments) => history::run(arguments),
    }
}

/// The id of an organization that the store knows.
fn find(register: &Register, meant: &str) -> anyhow::Result<Arc<str>> {
    let called = register.organization_called(meant).map(Arc::clone);
    let known = || register.alias_of(meant).map(|_| meant.into());
    called.or_else(known).with_context(|| format!("the store knows no organization \"{meant}\""))
}
