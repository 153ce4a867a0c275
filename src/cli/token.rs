//! `mailweir token create`, `list`, `revoke`: personal access tokens (guide 6279–6302).

use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::owner::give_to_daemon;
use super::user::FoundUser;
use super::{ConfigArgument, audited, output};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Configuration;
use crate::directory::credential::{new_token, token_hash};
use crate::events::audit::{Occasion, PersonalAccessToken, TokenAction};
use crate::id::TraceId;
use crate::store::{CREDENTIALS_FILE, CredentialStore, NewToken, Token};

const DAY: Duration = Duration::from_secs(86_400);
/// A hundred years.
const MAX_DAYS: u32 = 36_500;
/// Characters of a token's name.
const MAX_NAME: usize = 64;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a personal access token, which serves as a password, and show it once
    Create(CreateArguments),
    /// The personal access tokens of a user
    List(ListArguments),
    /// Remove a personal access token: nobody logs in with it any more
    Revoke(RevokeArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: String,
    /// What the user calls it, for example the device that it is for
    #[arg(long, value_parser = token_name)]
    name: String,
    /// Days until it expires, or never
    #[arg(long, value_name = "DAYS", default_value = "365")]
    expires: Lifetime,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: String,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: String,
    /// The token's id, from `token list`
    id: String,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How long a token is valid (guide 6281: 365 days unless set otherwise).
#[derive(Clone, Copy, Debug)]
enum Lifetime {
    Days(u32),
    Endless,
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let days = || text.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days));
        match text {
            "never" => Ok(Self::Endless),
            _ => days()
                .map(Self::Days)
                .ok_or_else(|| format!("not between 1 and {MAX_DAYS} days, nor \"never\"")),
        }
    }
}

impl Lifetime {
    fn end(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Days(days) => Some(now.plus(DAY * days)),
            Self::Endless => None,
        }
    }
}

fn token_name(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    match (1..=MAX_NAME).contains(&length) && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(format!("not 1 to {MAX_NAME} characters that can be printed")),
    }
}

/// A token of a user; `token` is the secret itself, where it has just been made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenLine<'a> {
    organization: &'a str,
    user: &'a str,
    #[serde(flatten)]
    known: &'a Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

pub(super) fn run(command: &TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(arguments) => create(arguments),
        TokenCommand::List(arguments) => list(arguments),
        TokenCommand::Revoke(arguments) => revoke(arguments),
    }
}

fn create(arguments: &CreateArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let attempt = Attempt {
        configuration: &configuration,
        user: &arguments.user,
        action: TokenAction::Create,
        name: Some(&arguments.name),
    };
    let found = attempt.find()?;
    let (secret, now) = (new_token()?, SystemClock.now());
    let new = NewToken {
        hash: token_hash(&secret),
        name: &arguments.name,
        created_at: now,
        expires_at: arguments.expires.end(now),
    };
    let store = CredentialStore::open(&configuration.store.data_dir);
    let known = store
        .and_then(|store| store.add_token(&found.owner(), new))
        .inspect_err(|error| attempt.failed(Some(&found), &error.to_string()))?;
    // It is shown whatever becomes of the audit line: it is in force.
    let told = tell_audit(&configuration, &found, &known, TokenAction::Create);
    if arguments.json {
        output::json(&line_of(&found, &known, Some(secret.expose())))?;
    } else {
        output::line(secret.expose())?;
        output::line(&format!("token {} of {found}, {}", known.id, validity(&known)))?;
        output::line("keep the token now: it is not shown again")?;
    }
    told
}

fn list(arguments: &ListArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let found = FoundUser::find(&configuration, &arguments.user)?;
    let store = CredentialStore::open_if_there(&configuration.store.data_dir)?;
    let tokens = store.map_or(Ok(Vec::new()), |store| store.tokens(&found.owner()))?;
    if arguments.json {
        return output::json_list(tokens.iter().map(|token| line_of(&found, token, None)));
    }
    for token in &tokens {
        let used = token.last_used_at.map_or("never".to_owned(), |at| at.to_string());
        let (id, name) = (&token.id, &token.name);
        output::line(&format!("{id}  {name}  {}, last used {used}", validity(token)))?;
    }
    if tokens.is_empty() {
        output::line(&format!("{found} has no personal access tokens"))?;
    }
    Ok(())
}

fn revoke(arguments: &RevokeArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let attempt = Attempt {
        configuration: &configuration,
        user: &arguments.user,
        action: TokenAction::Delete,
        name: None,
    };
    let found = attempt.find()?;
    let removed = removed(&configuration, &found, &arguments.id)
        .inspect_err(|error| attempt.failed(Some(&found), &error.to_string()))?;
    tell_audit(&configuration, &found, &removed, TokenAction::Delete)?;
    let (id, name) = (&removed.id, &removed.name);
    Ok(output::line(&format!("token {id} of {found} ({name}) is revoked"))?)
}

fn removed(configuration: &Configuration, found: &FoundUser, id: &str) -> anyhow::Result<Token> {
    let store = CredentialStore::open_if_there(&configuration.store.data_dir)?;
    let removed = store.map_or(Ok(None), |store| store.remove_token(&found.owner(), id))?;
    removed.ok_or_else(|| anyhow!("{found} has no token {id}"))
}

/// Something that is tried with a token, for the audit log.
struct Attempt<'a> {
    configuration: &'a Configuration,
    /// As the operator names the user.
    user: &'a str,
    action: TokenAction,
    name: Option<&'a str>,
}

impl Attempt<'_> {
    fn find(&self) -> anyhow::Result<FoundUser> {
        FoundUser::find(self.configuration, self.user)
            .inspect_err(|error| self.failed(None, &error.to_string()))
    }

    fn failed(&self, found: Option<&FoundUser>, reason: &str) {
        let organization = found.map(|found| (&found.organization.id).into());
        let user = found.map(|found| found.user.id.clone());
        let email = found.map_or(self.user.to_owned(), |found| found.user.email.to_string());
        let occasion = Occasion::new(SystemClock.now(), TraceId::generate(), organization, user);
        let (action, name) = (self.action, self.name);
        let line = PersonalAccessToken::failed_by_command(occasion, &email, action, name, reason);
        audited::record_or_note(self.configuration, [line]);
    }
}

fn validity(token: &Token) -> String {
    match token.expires_at {
        Some(end) if end <= SystemClock.now() => format!("expired {end}"),
        Some(end) => format!("expires {end}"),
        None => "never expires".to_owned(),
    }
}

fn line_of<'a>(found: &'a FoundUser, known: &'a Token, token: Option<&'a str>) -> TokenLine<'a> {
    let organization = &found.organization.alias;
    TokenLine { organization, user: &found.user.name, known, token }
}

/// The audit line about a token that is made or removed already.
fn tell_audit(
    configuration: &Configuration,
    found: &FoundUser,
    token: &Token,
    action: TokenAction,
) -> anyhow::Result<()> {
    let (organization, user) = ((&found.organization.id).into(), found.user.id.clone());
    let (now, request_id) = (SystemClock.now(), TraceId::generate());
    let occasion = Occasion::new(now, request_id, Some(organization), Some(user));
    let line = PersonalAccessToken::by_command(
        occasion,
        &found.user.email.to_string(),
        action,
        (&token.name, &token.scopes),
        token.expires_at,
    );
    audited::record(configuration, [line])?;
    give_to_daemon(&configuration.store.data_dir, &[CREDENTIALS_FILE])
}
