//! Waits of tests that have an end: what does not come fails the test with words, where it would
//! hang.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

/// Far longer than anything takes that comes at once, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What comes at once, if it ever comes.
#[track_caller]
pub(crate) fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let came = tokio::time::timeout(PATIENCE, future).await;
        came.unwrap_or_else(|_| panic!("{caller}: {what} did not come within {PATIENCE:?}"))
    }
}

/// The same from a channel, outside of a runtime.
#[track_caller]
pub(crate) fn received<T>(what: &str, channel: &Receiver<T>) -> T {
    match channel.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("{what} did not come within {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{what} will never come"),
    }
}

/// The same as an answer to one question.
#[track_caller]
pub(crate) fn answered<T: Send + 'static>(what: &str, answer: oneshot::Receiver<T>) -> T {
    let (tells, told) = channel();
    // One that has no answer is dropped, and then there is nothing to receive.
    std::thread::spawn(move || answer.blocking_recv().map(|answer| tells.send(answer)));
    received(what, &told)
}

/// What a thread comes to, which ends by itself.
#[track_caller]
pub(crate) fn joined<T: Send + 'static>(what: &str, thread: JoinHandle<T>) -> T {
    let (tells, told) = channel();
    std::thread::spawn(move || tells.send(thread.join()));
    received(what, &told).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What work comes to that may never end.
#[track_caller]
pub(crate) fn done<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(what, std::thread::spawn(work))
}
