//! The command line: arguments in, text or JSON out, exit status as sysexits has it. No logic of
//! mail.

mod access;
mod allocator;
mod audited;
mod check_config;
mod demo;
mod domain;
mod events;
mod export;
mod harmless;
mod init;
mod log;
mod mailbox;
mod org;
mod output;
mod owner;
mod queue;
mod reload;
mod rules;
mod serve;
mod store;
mod story;
mod token;
mod trace;
mod user;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::config::{self, Configuration, LoadError, Problems};

/// sysexits EX_CONFIG: the unit does not restart on it.
const EX_CONFIG: u8 = 78;
/// Where the configuration is looked for.
const DEFAULT_CONFIG: &str = "/etc/mailweir/mailweir.toml";

/// A mail pipeline daemon with the semantics of Amazon WorkMail's mail flow.
#[derive(Debug, Parser)]
#[command(name = "mailweir", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From nothing to a running domain: write both files, make keys and a first password, and show
    /// the DNS records and what to do next
    Init(init::InitArguments),
    /// Run the daemon: SIGTERM drains and stops, SIGHUP reloads
    Serve(ConfigArgument),
    /// Have the daemon read its configuration again, and tell what became of it
    Reload(reload::ReloadArguments),
    /// Start throw-away daemons, send mail in and out over SMTP, and show what became of it
    Demo(demo::DemoArguments),
    /// Check the configuration and organization files, and print every problem
    CheckConfig(check_config::CheckConfigArguments),
    /// Organizations: what their files say, and what has become of them
    #[command(subcommand)]
    Org(org::OrgCommand),
    /// Email flow rules
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Mail domains: signing keys and DNS records
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Email events and what they are about
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Mailboxes and their messages
    #[command(subcommand)]
    Mailbox(mailbox::MailboxCommand),
    /// Users and their passwords
    #[command(subcommand)]
    User(user::UserCommand),
    /// Personal access tokens, which serve as passwords
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Access control rules
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// What waits to leave
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// SPF, DKIM and DMARC verdicts for a message file, as the daemon would give them
    Verify(verify::VerifyArguments),
    /// Check the mail store: checksums, keys, messages, index and events; may run beside the daemon
    Fsck(store::FsckArguments),
    /// Copy the mail store, whole in itself, while mail flows
    Backup(store::BackupArguments),
    /// Put a backup back into an empty data folder
    Restore(store::RestoreArguments),
}

/// Which configuration.
#[derive(Clone, Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl ConfigArgument {
    /// The data folder, also where something else is wrong with the files.
    fn data_dir(&self) -> Result<PathBuf, Problems> {
        Ok(self.store()?.data_dir)
    }

    /// Where the store is, also where something else is wrong with the files.
    fn store(&self) -> Result<crate::store::Settings, Problems> {
        let examined = config::examine(&self.config, environment());
        let configuration = examined.configuration.ok_or(Problems(examined.problems))?;
        Ok(configuration.store)
    }

    /// For what asks only the files: anybody may who can read them.
    fn load(&self) -> Result<Configuration, Problems> {
        config::load_without_store(&self.config, environment())
    }

    /// For what is about mailboxes, passwords and tokens: the store says whose they are.
    fn load_with_store(&self) -> anyhow::Result<Configuration> {
        config::load(&self.config, environment()).map_err(|error| match error {
            LoadError::Problems(problems) => problems.into(),
            LoadError::Store(error) => error.into(),
        })
    }
}

/// The variables that can be read as text; the configuration's can.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    let arguments =
        Arguments::try_parse().unwrap_or_else(|error| with_optional_config(error).exit());
    // What the daemon and its commands make is for its owner alone, whatever the shell says.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let outcome = match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Org(command) => org::run(&command),
        Command::Rules(command) => rules::run(&command),
        Command::Domain(command) => domain::run(&command),
        Command::Events(command) => events::run(&command),
        Command::Mailbox(command) => mailbox::run(&command),
        Command::User(command) => user::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Access(command) => access::run(&command),
        Command::Queue(command) => queue::run(&command),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Fsck(arguments) => store::fsck(&arguments),
        Command::Backup(arguments) => store::backup(&arguments),
        Command::Restore(arguments) => store::restore(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln_all(&error);
            let is_config = error.is::<Problems>() || error.is::<BadConfiguration>();
            ExitCode::from(if is_config { EX_CONFIG } else { 1 })
        }
    }
}

/// The usage in an error lists what was given beside what is required, in the same way.
fn with_optional_config(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        let usage = usage.to_string().replace(" --config <FILE>", " [--config <FILE>]");
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage.into()));
    }
    error
}

/// A configuration whose files are well-formed, but which cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadConfiguration(String);

fn start_failure(error: crate::daemon::StartError) -> anyhow::Error {
    if error.is_configuration() { BadConfiguration(error.to_string()).into() } else { error.into() }
}

#[expect(clippy::print_stderr, reason = "the command line's own errors")]
fn eprintln_all(error: &anyhow::Error) {
    eprintln!("{}", harmless::harmless(&output::described(error)));
}

/// Files are read and passwords hashed in these. Each is over soon, and more of them would not be
/// faster, but each thread keeps memory of its own.
const MAX_BLOCKING_THREADS: usize = 64;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    runtime_builder().build()
}

/// One processor is left to the store's threads: a worker more would only be switched with them.
fn runtime_builder() -> tokio::runtime::Builder {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = processors.saturating_sub(1).max(1);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).max_blocking_threads(MAX_BLOCKING_THREADS).enable_all();
    builder
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, RwLock, mpsc};

    use super::*;

    /// A thread more is made when work comes and all are busy, or never.
    #[test]
    fn what_waits_for_files_has_so_many_threads_at_most() {
        let threads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&threads);
        let mut builder = runtime_builder();
        builder.on_thread_start(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let runtime = builder.build().expect("starts");
        let workers = runtime.metrics().num_workers();
        let gate = Arc::new(RwLock::new(()));
        let (began, begun) = mpsc::channel();
        let begin = || {
            let (gate, began) = (Arc::clone(&gate), began.clone());
            runtime.spawn_blocking(move || {
                began.send(()).expect("is heard");
                drop(gate.read());
            });
        };
        let closed = gate.write().expect("nobody panics");
        (0..MAX_BLOCKING_THREADS).for_each(|_| begin());
        assert_eq!(begun.iter().take(MAX_BLOCKING_THREADS).count(), MAX_BLOCKING_THREADS);
        begin();
        drop(closed);
        // Waits for all of them to end.
        drop(runtime);
        assert_eq!(threads.load(Ordering::Relaxed), workers + MAX_BLOCKING_THREADS);
    }
}
