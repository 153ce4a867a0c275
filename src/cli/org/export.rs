//! `mailweir org export`: what is recorded of an organization, as a file that says the same.

use anyhow::Context;

use super::{ConfigArgument, find};
use crate::cli::output;
use crate::directory::OrganizationId;
use crate::{config, daemon};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArguments {
    /// The organization: its alias or its id
    organization: String,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &ExportArguments) -> anyhow::Result<()> {
    let settings = arguments.config.store()?;
    let register = crate::store::reader::register(&settings)?;
    let meant = find(&register, &arguments.organization)?;
    let id = OrganizationId::parse(&meant).context("it has no id")?;
    let state = daemon::recorded(&settings, &id)?;
    let state = state.with_context(|| format!("nothing is recorded of {meant}"))?;
    // As it is: it is a file, and no text of it may become another.
    output::bytes(config::export(&state).as_bytes())?;
    Ok(())
}
