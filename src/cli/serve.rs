//! `mailweir serve`

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgument, allocator, environment, log, output, runtime, start_failure};
use crate::config::{self, Configuration};
use crate::daemon::control::ReloadAnswer;
use crate::daemon::{self, Changes, Daemon};
use crate::store::By;

/// SIGXFSZ on Linux, except on MIPS and PA-RISC: a file would grow past the process's limit.
const FILE_SIZE_EXCEEDED: i32 = 25;

pub(super) fn run(arguments: &ConfigArgument) -> anyhow::Result<()> {
    allocator::give_memory_back_soon();
    let configuration = arguments.load_with_store()?;
    daemon::try_out(&configuration)?;
    let _log = log::start(&configuration.log)?;
    tell_findings(&configuration);
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // With a handler, a write past the limit is an error like a full disk, not the end of the
        // process. The handler stays after its stream is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let mut daemon = Daemon::start(configuration).await.map_err(start_failure)?;
        let mut requests = daemon.take_reload_requests().context("nobody has them yet")?;
        notify(&[NotifyState::Ready]);
        loop {
            // All branches only wait for a signal or a request, so none loses anything when
            // cancelled.
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => drop(reload(&daemon, arguments, By::Daemon).await),
                Some(request) = requests.recv() => {
                    let answer = reload(&daemon, arguments, request.by).await;
                    // The operator may have gone meanwhile.
                    drop(request.answer.send(answer));
                }
            }
        }
        tracing::info!("stopping: messages under way are finished");
        notify(&[NotifyState::Stopping]);
        daemon.stop().await;
        Ok(())
    })
}

/// Logs what is wrong around the daemon, or hardly meant, without keeping it from its work; all of
/// that, for whoever asked.
fn tell_findings(configuration: &Configuration) -> Vec<String> {
    let outlook = daemon::look_around(configuration);
    let mut told = Vec::new();
    for problem in &outlook.problems {
        tracing::error!("{problem}");
        told.push(problem.to_string());
    }
    for warning in configuration.warnings.iter().chain(&outlook.warnings) {
        tracing::warn!("{warning}");
        told.push(warning.to_string());
    }
    for note in &outlook.notes {
        tracing::info!("{note}");
    }
    told
}

/// All or nothing: whatever is wrong is logged and told, and the old configuration goes on.
async fn reload(daemon: &Daemon, arguments: &ConfigArgument, by: By) -> ReloadAnswer {
    notify(&[NotifyState::Reloading]);
    let reloaded = try_reload(daemon, arguments.clone(), by).await;
    notify(&[NotifyState::Ready]);
    match reloaded {
        Ok((changes, warnings)) => ReloadAnswer { changes, warnings, problem: None },
        Err(error) => {
            let error = output::described(&error);
            tracing::error!("not reloaded, the old configuration goes on: {error}");
            ReloadAnswer { problem: Some(error), ..ReloadAnswer::default() }
        }
    }
}

/// What has changed, and what is to be told beside it.
async fn try_reload(
    daemon: &Daemon,
    arguments: ConfigArgument,
    by: By,
) -> anyhow::Result<(Changes, Vec<String>)> {
    let (known, register) = (daemon.organizations(), daemon.register());
    let read = move || {
        let configuration =
            config::load_again(&arguments.config, environment(), &known, &register)?;
        daemon::try_out(&configuration)?;
        let told = tell_findings(&configuration);
        anyhow::Ok((configuration, told))
    };
    // Files are read where nobody waits for it.
    let (configuration, told) = tokio::task::spawn_blocking(read).await??;
    Ok((daemon.reload(configuration, by).await?, told))
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
