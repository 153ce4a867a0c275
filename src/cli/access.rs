//! `mailweir access test`: the guide's "Testing access control rules" (4573–4592).

use std::net::IpAddr;

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use super::user::FoundUser;
use super::{ConfigArgument, output};
use crate::directory::{AccessEffect, AccessProtocol, AccessRequest, EntityState};

#[derive(Debug, Subcommand)]
pub(super) enum AccessCommand {
    /// Whether the access control rules let a user in, and the rules that decide it
    Test(TestArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArguments {
    /// The user: a name, ORGANIZATION/NAME, or one of the user's addresses
    #[arg(long)]
    user: String,
    /// The client's address
    #[arg(long)]
    ip: IpAddr,
    /// ActiveSync, AutoDiscover, EWS, IMAP, SMTP, WindowsOutlook or WebMail
    #[arg(long, default_value = "SMTP")]
    protocol: AccessProtocol,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// The API's GetAccessControlEffect, with what was asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TestResult<'a> {
    organization: &'a str,
    user: &'a str,
    protocol: AccessProtocol,
    effect: AccessEffect,
    /// A disabled user cannot log in, whatever the rules say.
    #[serde(rename = "disabled", skip_serializing_if = "std::ops::Not::not")]
    is_disabled: bool,
    matched_rules: Vec<&'a str>,
}

pub(super) fn run(command: &AccessCommand) -> anyhow::Result<()> {
    let AccessCommand::Test(arguments) = command;
    let configuration = arguments.config.load()?;
    let found = FoundUser::find(&configuration, &arguments.user)?;
    let id = &found.organization.id;
    let config = configuration.organizations.iter().find(|config| config.organization.id == *id);
    let config = config.context("the organization has no rules")?;
    let user = &*found.user.name;
    let request = AccessRequest { protocol: arguments.protocol, ip: arguments.ip, user };
    let decision = config.access.decide(&request);
    let is_disabled = found.user.state == EntityState::Disabled;
    let effect = if is_disabled { AccessEffect::Deny } else { decision.effect };
    let matched_rules: Vec<_> = decision.matched.iter().map(|name| &**name).collect();
    if arguments.json {
        output::json(&TestResult {
            organization: &found.organization.alias,
            user,
            protocol: arguments.protocol,
            effect,
            is_disabled,
            matched_rules,
        })?;
    } else if is_disabled {
        output::line(&format!("{effect}: {user} cannot log in: disabled"))?;
    } else {
        let because = match matched_rules.as_slice() {
            [] => "no rule applies".to_owned(),
            names => format!("by {}", names.join(", ")),
        };
        output::line(&format!("{effect}: {because}"))?;
    }
    // So that a script can ask.
    anyhow::ensure!(
        effect == AccessEffect::Allow,
        "{user} is denied access over {} from {}",
        arguments.protocol,
        arguments.ip
    );
    Ok(())
}
