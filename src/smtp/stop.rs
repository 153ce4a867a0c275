//! The word that the daemon is stopping.

use tokio::sync::watch;

/// Waits until `stop` is true, or nobody is left who could make it so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the daemon.
    stop.wait_for(|stop| *stop).await.map(drop).ok();
}
