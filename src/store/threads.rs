//! The threads of the store's own, which may block.

use std::thread::JoinHandle;
use std::time::Duration;

use super::StoreError;

/// Starts a thread that the store awaits when it closes.
pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(StoreError::file(name))
}

/// Lets time pass, on a thread of the store's own.
#[expect(clippy::disallowed_methods, reason = "nobody but the store waits for its threads")]
pub(super) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
