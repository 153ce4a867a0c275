//! `mailweir user list`, `set-password`, `unlock`

mod list;

use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;

use super::harmless::harmless;
use super::owner::give_to_daemon;
use super::{ConfigArgument, audited, output};
use crate::clock::{Clock, SystemClock};
use crate::config::Configuration;
use crate::daemon::control::{self, Request, UnlockAnswer, UnlockOccasion};
use crate::directory::credential::{PasswordHash, check_policy};
use crate::directory::{Directory, EntityState, Organization, User};
use crate::events::audit::{AuthFailure, Authentication, Occasion};
use crate::id::{EntityId, EntityKind, TraceId};
use crate::mail::{Address, Secret};
use crate::store::{CREDENTIALS_FILE, CredentialStore, MailboxOwner, Register};

/// What is read of standard input, in octets: more than any password has.
const MAX_LINE: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// All users: whether they take mail, what their mailboxes hold, how they log in, and whether
    /// some network is kept from trying
    List(list::ListArguments),
    /// Give a user a password: asked for twice on a terminal, else a line of standard input
    SetPassword(SetPasswordArguments),
    /// Let a user's networks try again that have failed to log in too often
    Unlock(UnlockArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct UnlockArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: String,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct SetPasswordArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: String,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List(arguments) => list::run(arguments),
        UserCommand::SetPassword(arguments) => set_password(arguments),
        UserCommand::Unlock(arguments) => unlock(arguments),
    }
}

fn unlock(arguments: &UnlockArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let found = FoundUser::find(&configuration, &arguments.user)?;
    let answer = lift_throttle(&configuration, &found, UnlockOccasion::Command)?;
    let was_locked = answer.is_some_and(|answer| answer.was_locked);
    output::line(&match was_locked {
        true => format!("{found} is unlocked"),
        false => format!("{found} was not locked"),
    })?;
    Ok(())
}

/// Has the daemon forget a user's failed logins; `None` if there is no daemon, and so nothing to
/// forget.
fn lift_throttle(
    configuration: &Configuration,
    found: &FoundUser,
    occasion: UnlockOccasion,
) -> anyhow::Result<Option<UnlockAnswer>> {
    let request = Request::Unlock { user: found.owner(), occasion };
    match control::ask(&configuration.store.data_dir, &request) {
        Err(error) if is_nobody_there(&error) => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

/// Whether it is known that no daemon runs.
fn is_nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn set_password(arguments: &SetPasswordArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let found = FoundUser::find(&configuration, &arguments.user).inspect_err(|_| {
        let occasion = Occasion::new(SystemClock.now(), TraceId::generate(), None, None);
        let failed = Err(AuthFailure::UnknownUser);
        let line = Authentication::password_by_command(occasion, &arguments.user, failed);
        audited::record_or_note(&configuration, [line]);
    })?;
    let password = read_password(&found)?;
    check_policy(&password).inspect_err(|_| {
        let failed = Err(AuthFailure::WeakPassword);
        audited::record_or_note(&configuration, [password_line(&found, failed)]);
    })?;
    keep_password(&configuration, &found, &password)?;
    if let Err(error) = lift_throttle(&configuration, &found, UnlockOccasion::NewPassword) {
        output::note(&format!("networks that have failed to log in are not told: {error:#}"));
    }
    output::line(&format!("the password of {found} is set"))?;
    if found.user.state == EntityState::Disabled {
        output::note(&format!("{found} is disabled, and cannot log in until that changes"));
    }
    Ok(())
}

/// Gives a user a password that meets the policy, and tells the audit log.
pub(super) fn keep_password(
    configuration: &Configuration,
    found: &FoundUser,
    password: &Secret,
) -> anyhow::Result<()> {
    let hash = PasswordHash::of(password)?;
    let store = CredentialStore::open(&configuration.store.data_dir)?;
    store.set_password(&found.owner(), hash.as_str(), SystemClock.now())?;
    give_to_daemon(&configuration.store.data_dir, &[CREDENTIALS_FILE])?;
    audited::record_or_note(configuration, [password_line(found, Ok(()))]);
    Ok(())
}

fn password_line(found: &FoundUser, outcome: Result<(), AuthFailure>) -> Authentication {
    let (organization, user) = ((&found.organization.id).into(), found.user.id.clone());
    let (now, id) = (SystemClock.now(), TraceId::generate());
    let occasion = Occasion::new(now, id, Some(organization), Some(user));
    Authentication::password_by_command(occasion, &found.user.email.to_string(), outcome)
}

/// A password as the operator gives it: asked for twice on a terminal, else a line of standard input.
pub(super) fn read_password(user: &FoundUser) -> anyhow::Result<Secret> {
    if !io::stdin().is_terminal() {
        return read_line(io::stdin().lock());
    }
    let ask = |prompt: &str| rpassword::prompt_password(harmless(prompt)).map(Secret::new);
    let password = ask(&format!("New password of {user}: "))?;
    if ask("The same again: ")? != password {
        bail!("the two are not the same");
    }
    Ok(password)
}

fn read_line(input: impl BufRead) -> anyhow::Result<Secret> {
    let mut line = String::new();
    input.take(MAX_LINE).read_line(&mut line).context("standard input")?;
    let line = Secret::new(line);
    let text = line.expose();
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// A user who can log in, and the organization.
pub(super) struct FoundUser {
    pub(super) organization: Arc<Organization>,
    pub(super) user: User,
}

impl FoundUser {
    /// The user whom an operator means.
    pub(super) fn find(configuration: &Configuration, text: &str) -> anyhow::Result<Self> {
        let found = Self::named(configuration, text)?;
        found.check_known(&configuration.register)?;
        Ok(found)
    }

    /// Somebody who has a name that was another's gets an id when the daemon reads the file; until
    /// then nothing can be kept for that person.
    fn check_known(&self, register: &Register) -> anyhow::Result<()> {
        let (organization, name) = (self.organization.id.as_str(), &*self.user.name);
        let is_first = self.user.id == EntityId::of_first(EntityKind::User, organization, name);
        if is_first || register.entity(organization, &self.user.id).is_some() {
            return Ok(());
        }
        bail!(
            "{self} is somebody new, whom the daemon does not know yet: mailweir reload, or start it, \
             and then again"
        )
    }

    fn named(configuration: &Configuration, text: &str) -> anyhow::Result<Self> {
        let directory = &configuration.directory;
        if let Ok(id) = text.parse::<EntityId>() {
            return Self::of_id(directory, &id);
        }
        if let Ok(address) = Address::parse(text) {
            let found = directory.user_for_login(text);
            let (organization, user) =
                found.ok_or_else(|| anyhow!("no user has the address {address}"))?;
            return Self::that_logs_in(Arc::clone(organization), user.clone());
        }
        let (alias, name) = match text.split_once('/') {
            Some((alias, name)) => (Some(alias), name),
            None => (None, text),
        };
        let user_of = |organization: &Arc<Organization>| {
            let mut users = organization.users.iter();
            let found = users.find(|user| &*user.name == name).cloned();
            found.map(|user| (Arc::clone(organization), user))
        };
        let found: Vec<_> = directory
            .organizations()
            .filter(|organization| alias.is_none_or(|alias| organization.alias == alias))
            .filter_map(user_of)
            .collect();
        match found.as_slice() {
            [(organization, user)] => Self::that_logs_in(Arc::clone(organization), user.clone()),
            [] => bail!("there is no user {text}; mailweir user list names all"),
            _ => bail!("several organizations have a {text}; say ORGANIZATION/{text}"),
        }
    }

    fn of_id(directory: &Directory, id: &EntityId) -> anyhow::Result<Self> {
        for organization in directory.organizations() {
            if let Some(user) = organization.users.iter().find(|user| user.id == *id) {
                return Self::that_logs_in(Arc::clone(organization), user.clone());
            }
        }
        bail!("no user of today has the id {id}")
    }

    /// A disabled user may be prepared for the day when that changes.
    fn that_logs_in(organization: Arc<Organization>, user: User) -> anyhow::Result<Self> {
        if let EntityState::Remote(elsewhere) = &user.state {
            bail!("{} cannot log in here: the mailbox is elsewhere, at {elsewhere}", user.name);
        }
        Ok(Self { organization, user })
    }

    /// Whose credentials they are.
    pub(super) fn owner(&self) -> MailboxOwner {
        MailboxOwner {
            organization: self.organization.id.as_str().into(),
            entity: self.user.id.clone(),
        }
    }
}

impl std::fmt::Display for FoundUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.organization.alias, self.user.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_without_its_end() {
        for (input, expected) in [
            ("Lemon-tree1\nnext\n", "Lemon-tree1"),
            ("Lemon-tree1\r\n", "Lemon-tree1"),
            ("Lemon-tree1", "Lemon-tree1"),
            (" Lemon tree 1 \n", " Lemon tree 1 "),
            ("", ""),
        ] {
            let read = read_line(input.as_bytes()).expect("reads");
            assert_eq!(read.expose(), expected);
        }
        assert!(read_line(b"\xff\xfe\n".as_slice()).is_err(), "not UTF-8");
    }
}
