//! `mailweir serve`

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgument, environment, output, runtime, start_failure, start_log};
use crate::config::{self, Configuration, OrganizationConfig};
use crate::daemon::{self, Daemon};

/// SIGXFSZ on Linux, except on MIPS and PA-RISC: a file would grow past the process's limit.
const FILE_SIZE_EXCEEDED: i32 = 25;

pub(super) fn run(arguments: &ConfigArgument) -> anyhow::Result<()> {
    let configuration = arguments.load()?;
    daemon::try_out(&configuration)?;
    start_log(&configuration.log);
    tell_findings(&configuration);
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // With a handler, a write past the limit is an error like a full disk, not the end of the
        // process. The handler stays after its stream is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let mut known = configuration.organizations.clone();
        let daemon = Daemon::start(configuration).await.map_err(start_failure)?;
        notify(&[NotifyState::Ready]);
        loop {
            // All three branches only wait for a signal, so none loses anything when cancelled.
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => reload(&daemon, arguments, &mut known).await,
            }
        }
        tracing::info!("stopping: messages under way are finished");
        notify(&[NotifyState::Stopping]);
        daemon.stop().await;
        Ok(())
    })
}

/// What is wrong around the daemon, or hardly meant, without keeping it from its work.
fn tell_findings(configuration: &Configuration) {
    let outlook = daemon::look_around(configuration);
    for problem in &outlook.problems {
        tracing::error!("{problem}");
    }
    for warning in configuration.warnings.iter().chain(&outlook.warnings) {
        tracing::warn!("{warning}");
    }
}

/// All or nothing: whatever is wrong is logged, and the old configuration goes on.
async fn reload(
    daemon: &Daemon,
    arguments: &ConfigArgument,
    known: &mut Vec<Arc<OrganizationConfig>>,
) {
    notify(&[NotifyState::Reloading]);
    if let Err(error) = try_reload(daemon, arguments.clone(), known).await {
        let error = output::described(&error);
        tracing::error!("not reloaded, the old configuration goes on: {error}");
    }
    notify(&[NotifyState::Ready]);
}

async fn try_reload(
    daemon: &Daemon,
    arguments: ConfigArgument,
    known: &mut Vec<Arc<OrganizationConfig>>,
) -> anyhow::Result<()> {
    let before = known.clone();
    let load = move || config::load_again(&arguments.config, environment(), &before);
    // Files are read where nobody waits for it.
    let configuration = tokio::task::spawn_blocking(load).await??;
    let organizations = configuration.organizations.clone();
    daemon.reload(configuration).await?;
    *known = organizations;
    Ok(())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
