//! `mailweir check-config`

use std::path::PathBuf;

use serde::Serialize;

use super::{DEFAULT_CONFIG, load, output, start_failure};
use crate::config::Configuration;
use crate::daemon;

#[derive(Debug, clap::Args)]
pub(super) struct CheckConfigArguments {
    /// The configuration file
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a valid configuration amounts to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    ok: bool,
    listeners: Vec<&'a str>,
    organizations: Vec<OrganizationSummary<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OrganizationSummary<'a> {
    alias: &'a str,
    id: &'a str,
    users: usize,
    groups: usize,
    resources: usize,
    inbound_rules: usize,
    outbound_rules: usize,
    smtp_gateways: usize,
    permissions: usize,
    journaling: bool,
    dmarc_enforcement: bool,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    ok: bool,
    problems: Vec<JsonProblem<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonProblem<'a> {
    place: &'a str,
    key: &'a str,
    message: &'a str,
}

pub(super) fn run(arguments: &CheckConfigArguments) -> anyhow::Result<()> {
    let path = arguments.file.as_ref().unwrap_or(&arguments.config);
    let configuration = match load(path) {
        Ok(configuration) => configuration,
        Err(problems) => {
            if arguments.json {
                let listed = problems.0.iter().map(|problem| JsonProblem {
                    place: &problem.place,
                    key: &problem.key,
                    message: &problem.message,
                });
                output::json(&Failure { ok: false, problems: listed.collect() })?;
            }
            return Err(problems.into());
        }
    };
    daemon::try_out(&configuration).map_err(start_failure)?;
    let summary = summary(&configuration);
    if arguments.json {
        return output::json(&summary);
    }
    output::line(&format!("{} is fine", path.display()))?;
    for organization in &summary.organizations {
        output::line(&format!(
            "organization {}: {} users, {} groups, {} resources, {} permissions, {} inbound rules, \
             {} outbound rules, {} SMTP gateways, journaling {}, DMARC enforcement {}",
            organization.alias,
            organization.users,
            organization.groups,
            organization.resources,
            organization.permissions,
            organization.inbound_rules,
            organization.outbound_rules,
            organization.smtp_gateways,
            if organization.journaling { "on" } else { "off" },
            if organization.dmarc_enforcement { "on" } else { "off" },
        ))?;
    }
    Ok(())
}

fn summary(configuration: &Configuration) -> Summary<'_> {
    let organizations = configuration.organizations.iter().map(|config| {
        let organization = &config.organization;
        OrganizationSummary {
            alias: &organization.alias,
            id: organization.id.as_str(),
            users: organization.users.len(),
            groups: organization.groups.len(),
            resources: organization.resources.len(),
            inbound_rules: config.rules.rules().len(),
            outbound_rules: config.outbound.rules().len(),
            smtp_gateways: config.gateways.len(),
            permissions: organization.permissions.len(),
            journaling: config.journaling.is_some(),
            dmarc_enforcement: config.dmarc_enforcement,
        }
    });
    Summary {
        ok: true,
        listeners: configuration.listeners.iter().map(|listener| &*listener.name).collect(),
        organizations: organizations.collect(),
    }
}
