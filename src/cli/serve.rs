//! `mailweir serve`

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgument, runtime, start_failure, start_log};
use crate::daemon::Daemon;

/// SIGXFSZ on Linux, except on MIPS and PA-RISC: a file would grow past the process's limit.
const FILE_SIZE_EXCEEDED: i32 = 25;

pub(super) fn run(arguments: &ConfigArgument) -> anyhow::Result<()> {
    let configuration = arguments.load()?;
    start_log(&configuration.log);
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // With a handler, a write past the limit is an error like a full disk, not the end of the
        // process. The handler stays after its stream is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let daemon = Daemon::start(configuration).await.map_err(start_failure)?;
        notify(&[NotifyState::Ready]);
        loop {
            // All three branches only wait for a signal, so none loses anything when cancelled.
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => reload(&daemon, arguments).await,
            }
        }
        tracing::info!("stopping: messages under way are finished");
        notify(&[NotifyState::Stopping]);
        daemon.stop().await;
        Ok(())
    })
}

/// All or nothing: whatever is wrong is logged, and the old configuration goes on.
async fn reload(daemon: &Daemon, arguments: &ConfigArgument) {
    notify(&[NotifyState::Reloading]);
    match arguments.load().context("the old configuration goes on") {
        Ok(configuration) => {
            if let Err(error) = daemon.reload(configuration).await {
                tracing::error!(%error, "not reloaded, the old configuration goes on");
            }
        }
        Err(error) => {
            tracing::error!("not reloaded: {error:#}");
        }
    }
    notify(&[NotifyState::Ready]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
