//! `mailweir reload`: the daemon takes its changed files, and says what became of it.

use super::{BadConfiguration, ConfigArgument, output};
use crate::daemon::control::{self, ReloadAnswer, Request};

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &ReloadArguments) -> anyhow::Result<()> {
    let data_dir = arguments.config.data_dir()?;
    let answer: ReloadAnswer = control::ask(&data_dir, &Request::Reload)?;
    if arguments.json {
        output::json(&answer)?;
    }
    if let Some(problem) = answer.problem {
        let told = format!("not reloaded, the old configuration goes on:\n{problem}");
        return Err(BadConfiguration(told).into());
    }
    if arguments.json {
        return Ok(());
    }
    let changes = answer.changes;
    if changes.in_force.is_empty() {
        output::line("reloaded: nothing has changed")?;
    }
    for change in &changes.in_force {
        output::line(&format!("reloaded: {change}"))?;
    }
    for change in &changes.after_restart {
        output::line(&format!("only a restart changes {change}"))?;
    }
    for warning in &answer.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(())
}
