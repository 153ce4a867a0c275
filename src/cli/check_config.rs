//! `mailweir check-config`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{DEFAULT_CONFIG, environment, output, runtime};
use crate::config::{self, Configuration, Examined, Problem, Problems};
use crate::daemon::{self, Outlook};

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<JsonProblem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<JsonProblem<'a>>,
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

impl OrganizationSummary<'_> {
    fn counts(&self) -> String {
        [
            (self.users, "user"),
            (self.groups, "group"),
            (self.resources, "resource"),
            (self.permissions, "permission"),
            (self.inbound_rules, "inbound rule"),
            (self.outbound_rules, "outbound rule"),
            (self.smtp_gateways, "SMTP gateway"),
        ]
        .map(|(count, what)| output::counted(count as u64, what))
        .join(", ")
    }
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

impl<'a> JsonProblem<'a> {
    fn of(problem: &'a Problem) -> Self {
        Self { place: &problem.place, key: &problem.key, message: &problem.message }
    }
}

pub(super) fn run(arguments: &CheckConfigArguments) -> anyhow::Result<()> {
    let path = arguments.file.as_ref().unwrap_or(&arguments.config);
    let Found { configuration, outlook } = examine(path)?;
    let Outlook { problems, warnings, notes } = outlook;
    let configuration = match configuration {
        Some(configuration) if problems.is_empty() => configuration,
        _ => {
            if arguments.json {
                let listed = problems.iter().map(JsonProblem::of);
                output::json(&Failure { ok: false, problems: listed.collect() })?;
            }
            return Err(Problems(problems).into());
        }
    };
    let mut summary = summary(&configuration);
    if arguments.json {
        summary.warnings = warnings.iter().map(JsonProblem::of).collect();
        summary.notes = notes.iter().map(JsonProblem::of).collect();
        return output::json(&summary);
    }
    for warning in &warnings {
        output::note(&format!("warning: {warning}"));
    }
    for note in &notes {
        output::note(&format!("note: {note}"));
    }
    let verdict = match warnings.len() {
        0 => "is fine".to_owned(),
        count => format!("can be used, with {}", output::counted(count as u64, "warning")),
    };
    output::line(&format!("{} {verdict}", path.display()))?;
    for organization in &summary.organizations {
        output::line(&format!(
            "organization {}: {}, journaling {}, DMARC enforcement {}",
            organization.alias,
            organization.counts(),
            if organization.journaling { "on" } else { "off" },
            if organization.dmarc_enforcement { "on" } else { "off" },
        ))?;
    }
    Ok(())
}

/// A configuration, and all that there is to tell of it.
struct Found {
    configuration: Option<Configuration>,
    outlook: Outlook,
}

/// Reads the files, and tries out what they name; a mistake in one hides none in another.
fn examine(path: &Path) -> anyhow::Result<Found> {
    let Examined { configuration, mut problems } = config::examine(path, environment());
    let Some(configuration) = configuration else {
        let outlook = Outlook { problems, ..Outlook::default() };
        return Ok(Found { configuration: None, outlook });
    };
    match daemon::try_out(&configuration) {
        Ok(()) => problems.extend(daemon::open_domain_keys(&configuration)),
        Err(Problems(found)) => problems.extend(found),
    }
    let around = daemon::look_around(&configuration);
    problems.extend(around.problems);
    problems.extend(runtime()?.block_on(daemon::ask_resolver(&configuration)));
    let mut warnings = configuration.warnings.clone();
    warnings.extend(around.warnings);
    Problem::sort(&mut problems);
    Problem::sort(&mut warnings);
    let outlook = Outlook { problems, warnings, notes: around.notes };
    Ok(Found { configuration: Some(configuration), outlook })
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
        warnings: Vec::new(),
        notes: Vec::new(),
        listeners: configuration.listeners.iter().map(|listener| &*listener.name).collect(),
        organizations: organizations.collect(),
    }
}
