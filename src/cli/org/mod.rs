//! `mailweir org`

mod show;

use clap::Subcommand;

use super::ConfigArgument;

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// What the organizations' files say, as the daemon understands it
    Show(show::ShowArguments),
}

pub(super) fn run(command: &OrgCommand) -> anyhow::Result<()> {
    match command {
        OrgCommand::Show(arguments) => show::run(arguments),
    }
}
