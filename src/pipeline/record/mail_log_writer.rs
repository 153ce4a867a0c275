//! Writes the lines of messages on a thread of its own, many after each other: that costs a third of
//! what it does between two steps of another message, and no message waits for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::heavy;
use crate::pipeline::record::mail_log::{MailLog, OwnDelivery, write_settlement};
use crate::queue::Settlement;

/// How long the writer gathers messages, since waking it for each would cost more than its lines.
const GATHERING: Duration = Duration::from_millis(5);
/// Messages that may wait for it. Who has one more writes them all.
const WAITING: usize = 1024;

/// Writes the operational log's lines of mail, and what waits when it is dropped.
pub struct MailLogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    is_wanted: Condvar,
    /// Whoever writes has it, so that the lines keep their order.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<MailLog>,
    is_ended: bool,
}

impl MailLogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("mail-log".into());
        let thread = thread.spawn(move || of_thread.write_until_the_end())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes the lines of a message, for a moment later.
    pub(in crate::pipeline) fn add(&self, message: MailLog) {
        let mut waiting = self.shared.waiting();
        waiting.messages.push(message);
        let count = waiting.messages.len();
        drop(waiting);
        if count == 1 {
            self.shared.is_wanted.notify_one();
        }
        if count > WAITING {
            drop(self.shared.write());
        }
    }

    /// Writes the lines of a message now.
    pub(in crate::pipeline) fn write(&self, message: &MailLog) {
        let _writing = self.shared.write();
        message.write();
    }

    /// Writes what came of an attempt, after the lines that tell of the message.
    pub(in crate::pipeline) fn write_settlement(
        &self,
        settlement: &Settlement,
        delivered: &[OwnDelivery],
    ) {
        let _writing = self.shared.write();
        write_settlement(settlement, delivered);
    }
}

impl Drop for MailLogWriter {
    fn drop(&mut self) {
        self.shared.waiting().is_ended = true;
        self.shared.is_wanted.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log of mail did not end well");
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits. Whoever keeps the guard may write after it.
    fn write(&self) -> MutexGuard<'_, ()> {
        let writing = match self.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => heavy::beside_the_runtime(|| {
                self.writing.lock().unwrap_or_else(PoisonError::into_inner)
            }),
        };
        let messages = std::mem::take(&mut self.waiting().messages);
        messages.iter().for_each(MailLog::write);
        writing
    }

    fn write_until_the_end(&self) {
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.messages.is_empty() && !waiting.is_ended;
            let waiting = self.is_wanted.wait_while(self.waiting(), is_idle);
            let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let goes_on = |waiting: &mut Waiting| !waiting.is_ended;
            let gathered = self.is_wanted.wait_timeout_while(waiting, GATHERING, goes_on);
            let (waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let is_ended = waiting.is_ended;
            drop(waiting);
            drop(self.write());
            if is_ended {
                return;
            }
        }
    }
}
