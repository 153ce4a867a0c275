//! How long a connection is waited for: every wait has an end, and all end when the daemon does.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::reason::Reason;
use super::stop::stopped;

/// How long a message in progress may take once the daemon is stopping.
const DRAIN_GRACE: Duration = Duration::from_secs(30);

/// Whether a wait goes on when the daemon is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStop {
    /// It ends at once.
    Close,
    /// It has [`DRAIN_GRACE`] left.
    Finish,
}

/// How long the connection may still be waited for.
pub(crate) struct Patience {
    deadline: Instant,
    stop: watch::Receiver<bool>,
    stopping: bool,
}

impl Patience {
    /// For a whole connection; `stop` becomes true when the daemon is stopping.
    pub(crate) fn new(session_timeout: Duration, stop: watch::Receiver<bool>) -> Self {
        Self { deadline: Instant::now() + session_timeout, stop, stopping: false }
    }

    /// Waits, but not past `until`, the end of the session's time or the end of the daemon's.
    ///
    /// # Errors
    /// [`Reason::TimedOut`] or [`Reason::ShuttingDown`]
    pub(crate) async fn wait<F: Future>(
        &mut self,
        future: F,
        until: Instant,
        on_stop: OnStop,
    ) -> Result<F::Output, Reason> {
        tokio::pin!(future);
        loop {
            if self.stopping && on_stop == OnStop::Close {
                return Err(Reason::ShuttingDown);
            }
            tokio::select! {
                biased;
                // Cancelling a wait for a flag or a timer loses nothing; the future itself is
                // dropped only when the connection is given up or the future is cancel-safe.
                () = stopped(&mut self.stop), if !self.stopping => {
                    self.stopping = true;
                    self.deadline = self.deadline.min(Instant::now() + DRAIN_GRACE);
                }
                output = &mut future => return Ok(output),
                () = tokio::time::sleep_until(until.min(self.deadline)) => {
                    return Err(if self.stopping { Reason::ShuttingDown } else { Reason::TimedOut });
                }
            }
        }
    }
}
