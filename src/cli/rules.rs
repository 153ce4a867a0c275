//! `mailweir rules test`: the guide's "Test configuration" (4397–4416).

use anyhow::{Context, anyhow};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{ConfigArgument, output};
use crate::mail::Address;
use crate::rules::{AuthorField, Authors, Explanation};

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
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TestResult<'a> {
    organization: &'a str,
    action: &'a str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

pub(super) fn run(command: &RulesCommand) -> anyhow::Result<()> {
    let RulesCommand::Test(arguments) = command;
    let Direction::Inbound = arguments.direction;
    let configuration = arguments.config.load()?;
    let recipient = &arguments.recipient;
    let config = configuration
        .organizations
        .iter()
        .find(|config| config.organization.domains.contains(recipient.domain()))
        .ok_or_else(|| anyhow!("{} is no organization's domain", recipient.domain()))?;
    configuration
        .directory
        .resolve(recipient, configuration.pipeline.max_group_members)
        .with_context(|| format!("mail for {recipient} is refused before any rule"))?;
    let authors =
        Authors { sender: arguments.sender_field.as_ref(), from: Some(&arguments.sender) };
    let explanation = config.rules.explain(&authors, recipient);
    let action = explanation.winner.as_ref().map_or("DEFAULT", |winner| winner.action.as_str());
    if arguments.json {
        return output::json(&TestResult {
            organization: &config.organization.alias,
            action,
            explanation: &explanation,
        });
    }
    print(action, &explanation)
}

fn print(action: &str, explanation: &Explanation) -> anyhow::Result<()> {
    match &explanation.winner {
        None => output::line(&format!("{action}: no rule matches"))?,
        Some(winner) => {
            let field = match winner.author {
                AuthorField::Sender => "Sender",
                AuthorField::From => "From",
            };
            output::line(&format!(
                "{action}: rule \"{}\" wins, its sender pattern {} matches {field}, its \
                 destination pattern {} the recipient",
                winner.name, winner.sender_pattern, winner.destination_pattern
            ))?;
        }
    }
    for lost in &explanation.lost {
        let reason = lost.loss.as_str();
        output::line(&format!("  not \"{}\" ({}): {reason}", lost.name, lost.action))?;
    }
    Ok(())
}
