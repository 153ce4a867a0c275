//! Where the lines of the log go: to a thread that writes them, so that nobody else waits for who reads
//! them. Lines of mail come by the thousand: they are gathered for a moment and written together. For
//! any other line whoever logs waits until it is written, but not for long. What nobody takes away in
//! time is counted and left out.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line of mail may wait for others. One write in this time costs nothing beside the
/// messages, and no reader of the log notices it.
const GATHERING: Duration = Duration::from_millis(10);
/// How many octets may wait; who has more waits for room, and where there is none in time the line is
/// left out.
const MOST_WAITING: usize = 256 * 1024;
/// How long whoever logs waits for a line that is not of mail. Once in vain, nobody waits until
/// something is written again.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last lines.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// After so long a reader that is too slow for what it does not want to wait for is tried again.
const READER_PAUSE: Duration = Duration::from_millis(10);

/// The log, until it is dropped; then it waits a moment for the last lines.
pub(in crate::cli) struct Log(Arc<Shared>);

struct Shared {
    lines: Mutex<Lines>,
    /// There is something to write, or it need not wait any longer.
    is_wanted: Condvar,
    /// Lines were taken to be written, or are written.
    is_moved: Condvar,
}

#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Octets of all lines so far, and of those that are written or given up.
    taken: u64,
    written: u64,
    /// Whether somebody waits for what is waiting.
    is_urgent: bool,
    /// Whether somebody has waited in vain, and nothing was written since.
    is_stuck: bool,
    /// Lines that were left out and not told yet.
    lost: u64,
    is_ended: bool,
    /// Whose own lines wait for nobody.
    writer: Option<ThreadId>,
}

impl Log {
    /// Writes to this with a thread of its own.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            lines: Mutex::default(),
            is_wanted: Condvar::new(),
            is_moved: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let writer = Writer { out, is_within_line: false };
        let thread = thread::Builder::new().name("log".into());
        let thread = thread.spawn(move || of_thread.write_until_the_end(writer))?;
        shared.lines().writer = Some(thread.thread().id());
        Ok(Self(shared))
    }

    /// What the lines are given to; `is_of_mail` says which may wait for others.
    pub(super) fn entrance(&self, is_of_mail: fn(&Metadata<'_>) -> bool) -> Entrance {
        Entrance { shared: Arc::clone(&self.0), is_of_mail }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let mut lines = self.0.lines();
        lines.is_ended = true;
        self.0.is_wanted.notify_one();
        let end = lines.taken;
        // Once more, also if somebody has waited in vain before.
        lines.is_stuck = false;
        drop(self.0.wait_while(lines, LAST_PATIENCE, |lines| lines.written < end));
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, and waits until it is written if it is urgent.
    fn take(&self, line: &[u8], is_urgent: bool) {
        let mut lines = self.lines();
        let is_full = |lines: &mut Lines| lines.waiting.len() + line.len() > MOST_WAITING;
        if is_full(&mut lines) {
            lines.is_urgent = true;
            self.is_wanted.notify_one();
            lines = self.wait_while(lines, PATIENCE, is_full);
        }
        if is_full(&mut lines) {
            lines.lost += 1;
            return;
        }
        let is_first = lines.waiting.is_empty();
        lines.waiting.extend_from_slice(line);
        lines.taken += line.len() as u64;
        lines.is_urgent |= is_urgent;
        if is_first || is_urgent {
            self.is_wanted.notify_one();
        }
        let end = lines.taken;
        if is_urgent {
            drop(self.wait_while(lines, PATIENCE, |lines| lines.written < end));
        }
    }

    /// Waits as long as this holds and nobody has waited in vain, but not for longer than so.
    fn wait_while<'a>(
        &self,
        lines: MutexGuard<'a, Lines>,
        patience: Duration,
        holds: impl Fn(&mut Lines) -> bool,
    ) -> MutexGuard<'a, Lines> {
        if lines.is_stuck || lines.writer == Some(thread::current().id()) {
            return lines;
        }
        let waited = self.is_moved.wait_timeout_while(lines, patience, |lines| holds(lines));
        let (mut lines, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        lines.is_stuck |= waited.timed_out();
        lines
    }

    fn write_until_the_end(&self, mut writer: Writer<impl Write>) {
        let mut batch = Vec::new();
        while self.next_batch(&mut batch) {
            let lost = writer.write(&batch, || self.lines().is_ended);
            let mut lines = self.lines();
            lines.written += batch.len() as u64;
            lines.is_stuck = false;
            lines.lost += lost;
            let lost = if lost == 0 { std::mem::take(&mut lines.lost) } else { 0 };
            drop(lines);
            self.is_moved.notify_all();
            batch.clear();
            if lost > 0 {
                tracing::warn!(lines = lost, "lines of the log were left out: they were not taken");
            }
        }
    }

    /// Waits for lines; none once the log has ended.
    fn next_batch(&self, batch: &mut Vec<u8>) -> bool {
        let is_idle = |lines: &mut Lines| lines.waiting.is_empty() && !lines.is_ended;
        let lines = self.is_wanted.wait_while(self.lines(), is_idle);
        let lines = lines.unwrap_or_else(PoisonError::into_inner);
        let has_time = |lines: &mut Lines| !lines.is_urgent && !lines.is_ended;
        let waited = self.is_wanted.wait_timeout_while(lines, GATHERING, has_time);
        let (mut lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        lines.is_urgent = false;
        std::mem::swap(batch, &mut lines.waiting);
        self.is_moved.notify_all();
        !batch.is_empty()
    }
}

struct Writer<W> {
    out: W,
    /// Whether what was written last is a part of a line.
    is_within_line: bool,
}

impl<W: Write> Writer<W> {
    /// Writes a batch; how many lines of it nobody has, because they cannot be written.
    #[expect(
        clippy::disallowed_methods,
        reason = "what was written must be known to go on behind it"
    )]
    fn write(&mut self, batch: &[u8], is_ended: impl Fn() -> bool) -> u64 {
        if std::mem::take(&mut self.is_within_line) {
            // What follows is no part of it. If this fails, so does the rest.
            self.out.write_all(b"\n").ok();
        }
        let mut rest = batch;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !is_ended() => {
                    thread::park_timeout(READER_PAUSE);
                }
                Ok(_) | Err(_) => break,
            }
        }
        let written = batch.get(..batch.len() - rest.len()).unwrap_or_default();
        self.is_within_line = !rest.is_empty() && written.last().is_some_and(|last| *last != b'\n');
        memchr::memchr_iter(b'\n', rest).count() as u64
    }
}

/// Gives each line to the log, as what it is.
pub(super) struct Entrance {
    shared: Arc<Shared>,
    is_of_mail: fn(&Metadata<'_>) -> bool,
}

/// Takes one line.
pub(super) struct LineWriter<'a> {
    shared: &'a Shared,
    is_urgent: bool,
}

impl<'a> MakeWriter<'a> for Entrance {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { shared: &self.shared, is_urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { shared: &self.shared, is_urgent: !(self.is_of_mail)(metadata) }
    }
}

/// The subscriber writes a line in one piece.
impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.take(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::soon::received;

    /// Tells each write, and ends it when it is let, with what it is told.
    struct Watched {
        written: Sender<String>,
        let_on: Receiver<io::Result<usize>>,
    }

    impl Write for Watched {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            self.let_on.recv().unwrap_or(Ok(bytes.len())).map(|most| most.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const ALL: io::Result<usize> = Ok(usize::MAX);

    fn watched() -> (Log, Receiver<String>, Sender<io::Result<usize>>) {
        let (written, writes) = channel();
        let (lets_on, let_on) = channel();
        let log = Log::start(Watched { written, let_on }).expect("a thread");
        (log, writes, lets_on)
    }

    #[test]
    fn lines_of_mail_are_one_write_and_come_by_themselves() {
        let (log, writes, lets_on) = watched();
        // The first is being written, and these come meanwhile.
        log.0.take(b"first\n", false);
        assert_eq!(received("a write", &writes), "first\n");
        for line in ["one\n", "two\n", "three\n"] {
            log.0.take(line.as_bytes(), false);
        }
        lets_on.send(ALL).expect("waits");
        assert_eq!(received("a write", &writes), "one\ntwo\nthree\n");
        drop(lets_on);
    }

    #[test]
    fn other_lines_are_written_when_they_are_logged_and_all_keep_their_order() {
        let (log, writes, lets_on) = watched();
        drop(lets_on);
        let mut all = String::new();
        let mut expected = String::new();
        for number in 0..200 {
            let line = format!("mail {number}\n");
            log.0.take(line.as_bytes(), false);
            expected.push_str(&line);
            if number % 3 == 0 {
                let line = format!("other {number}\n");
                log.0.take(line.as_bytes(), true);
                expected.push_str(&line);
                all.extend(writes.try_iter());
                assert_eq!(all, expected);
            }
        }
        drop(log);
        all.extend(writes.try_iter());
        assert_eq!(all, expected, "the last ones too");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_left_out_is_counted() {
        let (log, writes, lets_on) = watched();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        log.0.take(b"first\n", true);
        assert_eq!(received("a write", &writes), "first\n");
        // One has waited, for a while; now none does.
        assert!(log.0.lines().is_stuck);
        let places = MOST_WAITING / line.len();
        for number in 0..places + 3 {
            log.0.take(&line, number % 2 == 0);
        }
        assert_eq!(log.0.lines().lost, 3);
        lets_on.send(ALL).expect("waits");
        assert_eq!(received("a write", &writes).len(), MOST_WAITING);
        lets_on.send(ALL).expect("waits");
        drop(lets_on);
        log.0.take(b"last\n", true);
        assert_eq!(log.0.lines().lost, 0, "they are told");
    }

    /// As a message to thousands of mailboxes makes them.
    #[test]
    fn more_lines_at_once_than_may_wait_are_all_written() {
        let (log, writes, lets_on) = watched();
        drop(lets_on);
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let count = 5 * MOST_WAITING / line.len();
        for _ in 0..count {
            log.0.take(&line, false);
        }
        assert_eq!(log.0.lines().lost, 0);
        drop(log);
        assert_eq!(writes.iter().map(|it| it.len()).sum::<usize>(), count * line.len());
    }

    #[test]
    fn a_reader_that_is_slow_has_all_and_one_that_fails_is_told_how_much_it_lacks() {
        let (log, writes, lets_on) = watched();
        log.0.take(b"one\n", false);
        for (outcome, expected) in [
            (Ok(2), "one\n"),
            (Err(ErrorKind::WouldBlock.into()), "e\n"),
            (Err(ErrorKind::Interrupted.into()), "e\n"),
            (Ok(2), "e\n"),
        ] {
            assert_eq!(received("a write", &writes), expected);
            lets_on.send(outcome).expect("waits");
        }
        log.0.take(b"two\nthree\n", false);
        assert_eq!(received("a write", &writes), "two\nthree\n");
        lets_on.send(Ok(1)).expect("waits");
        assert_eq!(received("a write", &writes), "wo\nthree\n");
        lets_on.send(Err(ErrorKind::StorageFull.into())).expect("waits");
        log.0.take(b"four\n", false);
        assert_eq!(received("a write", &writes), "\n", "the line that was cut has an end");
        assert_eq!(log.0.lines().lost, 2);
        drop(lets_on);
        assert_eq!(received("a write", &writes), "four\n");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (log, writes, lets_on) = watched();
        log.0.take(b"first\n", false);
        assert_eq!(received("a write", &writes), "first\n");
        log.0.take(b"second\n", false);
        drop(log);
        drop(lets_on);
    }
}
