//! Where the lines of the log go. Lines of mail come by the thousand and nobody waits for one: they
//! are gathered for a moment and written together. Every other line is written at once, after what
//! was gathered before it, so that all stay in their order.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line of mail may wait for others. One write in this time costs nothing beside the
/// messages, and no reader of the log notices it.
const GATHERING: Duration = Duration::from_millis(10);

/// What may be gathered. Where nobody takes it away any more, whoever has another line waits.
const MOST_GATHERED: usize = 256 * 1024;

/// The log's end: everything is written when it is dropped.
pub(in crate::cli) struct Gatherer<W: Write>(Arc<Gathered<W>>);

struct Gathered<W> {
    lines: Mutex<Vec<u8>>,
    is_begun: Condvar,
    /// Held from the moment at which lines are taken, so that none overtakes another.
    out: Mutex<Out<W>>,
}

struct Out<W> {
    to: W,
    /// What is being written; between times empty.
    taken: Vec<u8>,
}

impl<W: Write + Send + 'static> Gatherer<W> {
    /// Writes to this, with a thread for the lines that are gathered.
    pub(super) fn start(out: W) -> io::Result<Self> {
        let gathered = Arc::new(Gathered {
            lines: Mutex::default(),
            is_begun: Condvar::new(),
            out: Mutex::new(Out { to: out, taken: Vec::new() }),
        });
        // It ends with the process.
        let shared = Arc::clone(&gathered);
        thread::Builder::new().name("log".into()).spawn(move || shared.write_for_ever())?;
        Ok(Self(gathered))
    }

    /// What the lines are given to.
    pub(super) fn entrance(&self, gathers: fn(&Metadata<'_>) -> bool) -> Entrance<W> {
        Entrance { gathered: Arc::clone(&self.0), gathers }
    }
}

impl<W: Write> Drop for Gatherer<W> {
    fn drop(&mut self) {
        self.0.write_with(&[]);
    }
}

impl<W: Write> Gathered<W> {
    #[expect(clippy::disallowed_methods, reason = "nobody but the log waits for its thread")]
    fn write_for_ever(&self) {
        loop {
            let lines = self.lines();
            drop(self.is_begun.wait_while(lines, |lines| lines.is_empty()));
            thread::sleep(GATHERING);
            self.write_with(&[]);
        }
    }

    fn gather(&self, line: &[u8]) {
        let mut lines = self.lines();
        let is_first = lines.is_empty();
        lines.extend_from_slice(line);
        let is_full = lines.len() > MOST_GATHERED;
        drop(lines);
        if is_full {
            self.write_with(&[]);
        } else if is_first {
            self.is_begun.notify_one();
        }
    }

    /// Writes what was gathered, and then this. Nobody can be told where it fails.
    fn write_with(&self, line: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { to, taken } = &mut *out;
        std::mem::swap(taken, &mut *self.lines());
        taken.extend_from_slice(line);
        to.write_all(taken).and_then(|()| to.flush()).ok();
        taken.clear();
    }

    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each line to the gatherer, as what it is.
pub(super) struct Entrance<W> {
    gathered: Arc<Gathered<W>>,
    gathers: fn(&Metadata<'_>) -> bool,
}

/// Takes one line.
pub(super) struct LineWriter<'a, W> {
    gathered: &'a Gathered<W>,
    is_gathered: bool,
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Entrance<W> {
    type Writer = LineWriter<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { gathered: &self.gathered, is_gathered: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { gathered: &self.gathered, is_gathered: (self.gathers)(metadata) }
    }
}

/// The subscriber writes a line in one piece.
impl<W: Write> Write for LineWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_gathered {
            self.gathered.gather(line);
        } else {
            self.gathered.write_with(line);
        }
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

    /// Tells each write, and ends it when it is let.
    struct Watched {
        written: Sender<String>,
        let_on: Receiver<()>,
    }

    impl Write for Watched {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            self.let_on.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn watched() -> (Gatherer<Watched>, Receiver<String>, Sender<()>) {
        let (written, writes) = channel();
        let (lets_on, let_on) = channel();
        let gatherer = Gatherer::start(Watched { written, let_on }).expect("a thread");
        (gatherer, writes, lets_on)
    }

    fn gathered(gatherer: &Gatherer<Watched>) -> LineWriter<'_, Watched> {
        LineWriter { gathered: &gatherer.0, is_gathered: true }
    }

    #[test]
    fn lines_that_are_gathered_are_one_write_and_come_by_themselves() {
        let (gatherer, writes, lets_on) = watched();
        // The first is being written, and these come meanwhile.
        gathered(&gatherer).write_all(b"first\n").expect("writes");
        assert_eq!(writes.recv().expect("a write"), "first\n");
        for line in ["one\n", "two\n", "three\n"] {
            gathered(&gatherer).write_all(line.as_bytes()).expect("writes");
        }
        lets_on.send(()).expect("waits");
        assert_eq!(writes.recv().expect("a write"), "one\ntwo\nthree\n");
        drop(lets_on);
    }

    #[test]
    fn other_lines_come_at_once_and_behind_what_was_gathered() {
        let (gatherer, writes, lets_on) = watched();
        drop(lets_on);
        let mut all = String::new();
        for number in 0..200 {
            gathered(&gatherer).write_all(format!("mail {number}\n").as_bytes()).expect("writes");
            if number % 3 == 0 {
                let mut other = LineWriter { gathered: &gatherer.0, is_gathered: false };
                let line = format!("other {number}\n");
                other.write_all(line.as_bytes()).expect("writes");
                all.extend(writes.try_iter());
                assert!(all.ends_with(&line), "{all}");
            }
        }
        drop(gatherer);
        all.extend(writes.try_iter());
        let expected: String = (0..200)
            .flat_map(|number| {
                let other = (number % 3 == 0).then(|| format!("other {number}\n"));
                std::iter::once(format!("mail {number}\n")).chain(other)
            })
            .collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn whoever_logs_waits_when_nobody_takes_the_lines_away() {
        let (gatherer, writes, lets_on) = watched();
        gathered(&gatherer).write_all(b"first\n").expect("writes");
        assert_eq!(writes.recv().expect("a write"), "first\n");
        let line = [b'x'; 1024];
        let shared = Arc::clone(&gatherer.0);
        let (counts, count) = channel();
        let flood = thread::spawn(move || {
            for _ in 0..MOST_GATHERED / 1024 + 2 {
                LineWriter { gathered: &shared, is_gathered: true }
                    .write_all(&line)
                    .expect("writes");
                counts.send(()).expect("is counted");
            }
        });
        // All that may be gathered, and not one more.
        for _ in 0..MOST_GATHERED / 1024 {
            count.recv().expect("is gathered");
        }
        assert!(count.recv_timeout(Duration::from_millis(100)).is_err());
        drop(lets_on);
        flood.join().expect("goes on");
        assert_eq!(writes.iter().next().map(|it| it.len()), Some(MOST_GATHERED + 1024));
    }
}
