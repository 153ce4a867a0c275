//! `mailweir init`: from nothing to files with which the daemon starts. It never overwrites, and
//! what it has begun when something fails stands in the way of no second run.

mod answers;
mod files;
mod next;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

use super::domain;
use super::owner::{self, DaemonUser};
use super::user::{FoundUser, keep_password, read_password};
use super::{DEFAULT_CONFIG, environment, output};
use crate::config::{self, Configuration, Problem, Problems};
use crate::daemon;
use crate::directory::credential::{check_policy, new_password};
use crate::domains::{self, DnsRecord, Today};
use crate::mail::{Address, Domain, Secret};
use crate::store::{CredentialStore, DomainKeyFolder, is_there};
use answers::Answers;
use files::Staged;

#[derive(Debug, clap::Args)]
pub(super) struct InitArguments {
    /// This host's name in DNS, such as mx.example.com; asked for on a terminal
    #[arg(long, value_parser = answers::host_name)]
    hostname: Option<Domain>,
    /// The domain whose mail comes here, such as example.com; asked for on a terminal
    #[arg(long, value_parser = answers::mail_domain)]
    domain: Option<Domain>,
    /// The administrator's address at the domain, or the part before the @; asked for on a terminal
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Ask for the administrator's password (without a terminal: a line of standard input) instead
    /// of making one
    #[arg(long)]
    ask_password: bool,
    /// Where mail, keys and events will be
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mailweir")]
    data_dir: PathBuf,
    /// The user that the daemon runs as, where root prepares its files
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The configuration file to write; the organization's file is written beside it
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Do not ask on a terminal whether what will be written is meant
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    configuration: &'a Path,
    organization: &'a Path,
    data_dir: &'a Path,
    user: &'a str,
    address: &'a Address,
    /// Only one that was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    records: Vec<DnsRecord>,
}

pub(super) fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let main = std::path::absolute(&arguments.config)?;
    let data_dir = std::path::absolute(&arguments.data_dir)?;
    files::check_free(&main, &data_dir)?;
    let daemon = DaemonUser::find(&data_dir, arguments.user.as_deref())?;
    let answers = Answers::complete(arguments)?;
    let organization = main.with_file_name(format!("{}.toml", answers.domain));
    files::check_no_passwords(&data_dir, &organization)?;
    if !arguments.yes && !answers::agreed(&plan(&main, &organization, &data_dir))? {
        bail!("nothing is written");
    }
    let staged = Staged::write(&main, &organization, &data_dir, &answers, daemon.as_ref())?;
    let configuration = configuration_of(&staged)?;
    let found = FoundUser::find(&configuration, &answers.admin.to_string())?;
    let password = first_password(arguments, &found)?;

    if daemon.is_none() && arguments.user.is_none() && !is_there(&data_dir)? {
        owner::warn_of_root();
    }
    files::make_data_dir(&data_dir, daemon.as_ref())?;
    let keys = DomainKeyFolder::open(&configuration.store)?;
    domains::make_keys(&keys, &answers.domain)?;
    tell_of_earlier_password(&configuration, &found)?;
    keep_password(&configuration, &found, password.secret())?;
    staged.put_in_place()?;

    let keys = domains::keys_of(&keys, &answers.domain)?;
    let hostname = answers.hostname.as_str();
    // Too late to fail: all is made, and what DNS has not said can be asked for again.
    let today = domain::today(&configuration, &answers.domain)
        .unwrap_or_else(|error| Today::unsaid(&answers.domain, hostname, &error.to_string()));
    if let Some(problem) = today.first_unsaid() {
        output::note(&format!("warning: {}: {problem}", domain::UNSAID));
    }
    if arguments.json {
        return output::json(&Made {
            configuration: &main,
            organization: &organization,
            data_dir: &data_dir,
            user: &found.user.name,
            address: &answers.admin,
            password: password.made(),
            records: domains::records(&answers.domain, hostname, &keys, &today),
        });
    }
    output::line(&format!("{} is written", main.display()))?;
    output::line(&format!("{} is written", organization.display()))?;
    output::line(&format!(
        "{} has the keys that sign mail of {}",
        data_dir.display(),
        answers.domain
    ))?;
    output::line(&match password.made() {
        Some(made) => format!("{}'s password, which is not shown again: {made}", answers.admin),
        None => format!("{}'s password is set", answers.admin),
    })?;
    output::line("\nThe DNS records to publish:\n")?;
    output::line(domains::zone_file(&answers.domain, hostname, &keys, &today).trim_end())?;
    output::line("\nWhat to do next:\n")?;
    for (number, step) in next::steps(&answers, &main, &organization).iter().enumerate() {
        output::line(&format!("{}. {step}", number + 1))?;
    }
    Ok(())
}

/// What is about to be made, for whoever may have meant other places.
fn plan(main: &Path, organization: &Path, data_dir: &Path) -> String {
    format!(
        "This writes\n  {}\n  {}\nand makes keys and a password in\n  {}\n(--config and --data-dir \
         name other places)\n",
        main.display(),
        organization.display(),
        data_dir.display()
    )
}

/// The files as the daemon would read them: whatever is wrong with the answers shows here, before
/// anything is in place.
fn configuration_of(staged: &Staged) -> anyhow::Result<Configuration> {
    let examined = config::examine(staged.main(), environment());
    let mut problems = examined.problems;
    if let Some(configuration) = &examined.configuration {
        let outlook = daemon::look_around(configuration).problems.into_iter();
        // The files are not where they will be, with the rights that they will have there.
        problems.extend(outlook.filter(|problem| problem.key == "hostname"));
    }
    match examined.configuration {
        Some(configuration) if problems.is_empty() => Ok(configuration),
        // There is no such file yet, so its lines would say nothing.
        _ => Err(Problems(problems.into_iter().map(without_place).collect()).into()),
    }
}

fn without_place(problem: Problem) -> Problem {
    Problem { place: String::new(), ..problem }
}

/// The administrator's first password.
enum FirstPassword {
    Made(Secret),
    Given(Secret),
}

impl FirstPassword {
    fn secret(&self) -> &Secret {
        match self {
            Self::Made(secret) | Self::Given(secret) => secret,
        }
    }

    /// A password that nobody knows yet.
    fn made(&self) -> Option<&str> {
        match self {
            Self::Made(secret) => Some(secret.expose()),
            Self::Given(_) => None,
        }
    }
}

fn first_password(arguments: &InitArguments, user: &FoundUser) -> anyhow::Result<FirstPassword> {
    if !arguments.ask_password {
        return Ok(FirstPassword::Made(new_password()?));
    }
    loop {
        let given = read_password(user).and_then(|given| {
            check_policy(&given)?;
            Ok(given)
        });
        match given {
            Ok(given) => return Ok(FirstPassword::Given(given)),
            Err(error) if is_worth_asking_again(&error) => {
                output::note(&output::described(&error));
            }
            Err(error) => return Err(error.context("nothing is written")),
        }
    }
}

/// Somebody sits there who may give another answer; an end of input is none.
fn is_worth_asking_again(error: &anyhow::Error) -> bool {
    io::stdin().is_terminal() && !error.is::<io::Error>()
}

/// A run that was cut off may have told its password already, so nobody shall go on believing in
/// it; it may as well have told nobody, so it cannot be kept.
fn tell_of_earlier_password(
    configuration: &Configuration,
    found: &FoundUser,
) -> anyhow::Result<()> {
    let Some(known) = CredentialStore::open_if_there(&configuration.store.data_dir)? else {
        return Ok(());
    };
    if known.password_hash(&found.owner())?.is_some() {
        output::note(&format!(
            "an earlier run that was cut off has set a password for {}: the one below takes its \
             place",
            found.user.email
        ));
    }
    Ok(())
}
