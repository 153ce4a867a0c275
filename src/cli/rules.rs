//! `mailweir rules test`: the guide's "Test configuration" (4397–4416).

use anyhow::{Context, anyhow};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{ConfigArgument, output};
use crate::config::{Configuration, OrganizationConfig};
use crate::directory::{ResolveError, Resolved};
use crate::mail::Address;
use crate::rules::{Action, AuthorField, Authors, Explanation, RuleSet};

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// The action for a sender and a recipient, the rule that wins, and why the others lost
    Test(TestArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArguments {
    /// The address in the From field
    #[arg(long, value_name = "ADDRESS")]
    sender: Address,
    /// The address in the Sender field, if the message has one
    #[arg(long, value_name = "ADDRESS")]
    sender_field: Option<Address>,
    /// The recipient
    #[arg(long, value_name = "ADDRESS")]
    recipient: Address,
    /// Which rules
    #[arg(long, value_enum, default_value = "inbound")]
    direction: Direction,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Direction {
    /// Rules for mail that comes in
    Inbound,
    /// Rules for mail that users send
    Outbound,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TestResult<'a, A> {
    organization: &'a str,
    action: &'a str,
    #[serde(flatten)]
    explanation: &'a Explanation<A>,
}

pub(super) fn run(command: &RulesCommand) -> anyhow::Result<()> {
    let RulesCommand::Test(arguments) = command;
    let configuration = arguments.config.load()?;
    match arguments.direction {
        Direction::Inbound => {
            let config = organization_of(&configuration, &arguments.recipient)?;
            let recipient = &arguments.recipient;
            resolve(&configuration, recipient)
                .with_context(|| format!("mail for {recipient} is refused before any rule"))?;
            test(arguments, config, &config.rules)
        }
        Direction::Outbound => {
            let config = organization_of(&configuration, &arguments.sender)?;
            let sender = &arguments.sender;
            match resolve(&configuration, sender) {
                Err(error @ (ResolveError::Unknown | ResolveError::Disabled)) => Err(error)
                    .with_context(|| format!("mail from {sender} is refused before any rule")),
                Ok(_) | Err(_) => test(arguments, config, &config.outbound),
            }
        }
    }
}

/// The organization that an address is in.
fn organization_of<'a>(
    configuration: &'a Configuration,
    address: &Address,
) -> anyhow::Result<&'a OrganizationConfig> {
    let mut organizations = configuration.organizations.iter();
    let found = organizations.find(|config| config.organization.domains.contains(address.domain()));
    let found = found.ok_or_else(|| anyhow!("{} is no organization's domain", address.domain()))?;
    Ok(&**found)
}

fn resolve(configuration: &Configuration, address: &Address) -> Result<Resolved, ResolveError> {
    configuration.directory.resolve(address, configuration.pipeline.max_group_members)
}

fn test<A: Action + Serialize>(
    arguments: &TestArguments,
    config: &OrganizationConfig,
    rules: &RuleSet<A>,
) -> anyhow::Result<()> {
    let authors =
        Authors { sender: arguments.sender_field.as_ref(), from: Some(&arguments.sender) };
    let explanation = rules.explain(&authors, &arguments.recipient);
    let action = explanation.winner.as_ref().map_or("DEFAULT", |winner| winner.action.as_str());
    if arguments.json {
        return output::json(&TestResult {
            organization: &config.organization.alias,
            action,
            explanation: &explanation,
        });
    }
    print(&explanation)
}

fn print<A: Action>(explanation: &Explanation<A>) -> anyhow::Result<()> {
    match &explanation.winner {
        None => output::line("DEFAULT: no rule matches")?,
        Some(winner) => {
            let field = match winner.author {
                AuthorField::Sender => "Sender",
                AuthorField::From => "From",
            };
            output::line(&format!(
                "{}: rule \"{}\" wins, its sender pattern {} matches {field}, its \
                 destination pattern {} the recipient",
                described(&winner.action),
                winner.name,
                winner.sender_pattern,
                winner.destination_pattern
            ))?;
        }
    }
    for lost in &explanation.lost {
        let (action, reason) = (described(&lost.action), lost.loss.as_str());
        output::line(&format!("  not \"{}\" ({action}): {reason}", lost.name))?;
    }
    Ok(())
}

fn described<A: Action>(action: &A) -> String {
    match action.gateway() {
        None => action.to_string(),
        Some(gateway) => format!("{action} \"{gateway}\""),
    }
}
