//! `mailweir rules test`: the guide's "Test configuration" (4397–4416).

use std::borrow::Cow;

use anyhow::{Context as _, anyhow};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{ConfigArgument, output};
use crate::config::{Configuration, OrganizationConfig};
use crate::directory::{ResolveError, Resolved};
use crate::mail::{Address, author_domains, may_be_one_organization};
use crate::rules::{Action, AuthorField, Authors, Explanation, Party, RuleSet, Sender};

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// The action for a sender and a recipient, the rule that wins, and why the others lost
    Test(TestArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArguments {
    /// The sender: the address in the From field or, with --from, that in the Sender field
    #[arg(long, value_name = "ADDRESS", required_unless_present = "from")]
    sender: Option<Address>,
    /// The address in the From field; again for each further author
    #[arg(long, value_name = "ADDRESS")]
    from: Vec<Address>,
    /// The address in the Sender field, if the message has one, as --sender with --from
    #[arg(long, value_name = "ADDRESS", conflicts_with = "from")]
    sender_field: Option<Address>,
    /// SPF or DKIM proves the Sender's domain; without it a rule for Sender restricts only
    #[arg(long)]
    sender_authenticated: bool,
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
#[serde(rename_all = "camelCase", bound = "A: Action + Serialize")]
struct TestResult<'a, A> {
    organization: &'a str,
    action: &'a str,
    #[serde(flatten)]
    explanation: &'a Explanation<A>,
    /// What becomes of authors of several domains before any rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl TestArguments {
    /// The authors, then the `Sender`.
    fn addresses(&self) -> (Vec<&Address>, Option<&Address>) {
        match self.from.as_slice() {
            [] => (self.sender.iter().collect(), self.sender_field.as_ref()),
            from => (from.iter().collect(), self.sender.as_ref()),
        }
    }

    /// What becomes of authors of several domains before any rule.
    fn note(&self) -> Option<&'static str> {
        let domains = author_domains(&self.from);
        if !may_be_one_organization(&domains) {
            return Some(
                "A message of these authors is refused before any rule, because their domains are not \
                 one organization's [several-authors]",
            );
        }
        (domains.len() > 1 && matches!(self.direction, Direction::Inbound)).then_some(
            "A message of these authors is refused before any rule, unless DMARC finds one \
             organizational domain for all of them [several-authors]",
        )
    }

    /// Whose organization's outbound rules are asked: who sends for somebody is the `Sender`.
    fn submitter(&self) -> anyhow::Result<&Address> {
        let (from, sender) = self.addresses();
        sender.or(from.first().copied()).context("--sender or --from is needed")
    }
}

pub(super) fn run(command: &RulesCommand) -> anyhow::Result<()> {
    let RulesCommand::Test(arguments) = command;
    let configuration = arguments.config.load()?;
    match arguments.direction {
        Direction::Inbound => {
            let recipient = recipient(arguments, &configuration);
            let config = organization_of(&configuration, &recipient).with_context(|| {
                "inbound rules are for mail to an organization here; for what leaves it, say \
                 --direction outbound"
            })?;
            resolve(&configuration, &recipient)
                .with_context(|| format!("mail for {recipient} is refused before any rule"))?;
            test(arguments, &configuration, config, &config.rules)
        }
        Direction::Outbound => {
            let sender = arguments.submitter()?;
            let config = organization_of(&configuration, sender)?;
            match resolve(&configuration, sender) {
                Err(error @ (ResolveError::Unknown | ResolveError::Disabled)) => Err(error)
                    .with_context(|| format!("mail from {sender} is refused before any rule")),
                Ok(_) | Err(_) => test(arguments, &configuration, config, &config.outbound),
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

/// The recipient as the daemon means it.
fn recipient<'a>(arguments: &'a TestArguments, configuration: &Configuration) -> Cow<'a, Address> {
    configuration.directory.meant(&arguments.recipient, &configuration.pipeline.hostname)
}

fn resolve(configuration: &Configuration, address: &Address) -> Result<Resolved, ResolveError> {
    configuration.directory.resolve(address, configuration.pipeline.max_group_members)
}

fn test<A: Action + Serialize>(
    arguments: &TestArguments,
    configuration: &Configuration,
    config: &OrganizationConfig,
    rules: &RuleSet<A>,
) -> anyhow::Result<()> {
    let directory = &configuration.directory;
    let meant = recipient(arguments, configuration);
    let recipient = Party::of(&meant, directory);
    let explain = |is_proven: bool| {
        let (from, sender) = arguments.addresses();
        let sender = sender.map(|it| Sender { party: Party::of(it, directory), is_proven });
        let from = from.into_iter().map(|author| Party::of(author, directory)).collect();
        rules.explain(&Authors { sender, from }, &recipient)
    };
    let explanation = explain(arguments.sender_authenticated);
    let action = action_of(&explanation);
    if arguments.json {
        return output::json(&TestResult {
            organization: &config.organization.alias,
            action,
            explanation: &explanation,
            note: arguments.note(),
        });
    }
    print(&explanation)?;
    if let Some(note) = arguments.note() {
        output::line(note)?;
    }
    let other = explain(!arguments.sender_authenticated);
    if other.winner.as_ref().map(|it| &it.name) != explanation.winner.as_ref().map(|it| &it.name) {
        let not = if arguments.sender_authenticated { "not " } else { "" };
        let winner = other
            .winner
            .as_ref()
            .map_or("no rule".to_owned(), |it| format!("rule \"{}\"", it.name));
        output::line(&format!(
            "If the Sender is {not}authenticated: {}, {winner} wins",
            action_of(&other)
        ))?;
    }
    Ok(())
}

fn action_of<A: Action>(explanation: &Explanation<A>) -> &'static str {
    explanation.winner.as_ref().map_or("DEFAULT", |winner| winner.action.as_str())
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
