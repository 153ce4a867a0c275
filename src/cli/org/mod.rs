//! `mailweir org`

mod history;
mod plan;
mod show;

use clap::Subcommand;

use super::ConfigArgument;

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// What the organizations' files say, as the daemon understands it
    Show(show::ShowArguments),
    /// What a reload would change if an organization's file were this one
    Plan(plan::PlanArguments),
    /// What the daemon has recorded of organizations: what changed, when, and who did it
    History(history::HistoryArguments),
}

pub(super) fn run(command: &OrgCommand) -> anyhow::Result<()> {
    match command {
        OrgCommand::Show(arguments) => show::run(arguments),
        OrgCommand::Plan(arguments) => plan::run(arguments),
        OrgCommand::History(arguments) => history::run(arguments),
    }
}
