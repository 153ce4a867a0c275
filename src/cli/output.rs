//! Standard output, so that a closed pipe (`| head`) ends a command quietly.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::harmless::harmless;

/// What is written at once of many lines, in octets.
const PIECE: usize = 64 * 1024;

/// Prints a line, or several, as [`harmless`] makes them.
pub(super) fn line(text: &str) -> io::Result<()> {
    let text = harmless(text);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// Lines that may be many, written in large pieces. Nobody should wait for one of them.
pub(super) struct Lines<W: Write>(BufWriter<W>);

impl Lines<StdoutLock<'static>> {
    /// To standard output.
    pub(super) fn to_stdout() -> Self {
        Self(BufWriter::with_capacity(PIECE, io::stdout().lock()))
    }
}

impl<W: Write> Lines<W> {
    /// As [`line`].
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.0, "{}", harmless(text))
    }

    /// As [`json`].
    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.line(&serde_json::to_string(value)?)?)
    }

    /// Writes what is still held back; without this, errors are not noticed.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// `1 message`, `2 messages`
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints one thing as one line of JSON; a list goes through [`json_list`].
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string(value)?)?)
}

/// Prints a list as JSON: each of its items on a line of its own, as the event file has them, so
/// that a list of any length can be read as it comes. An empty one prints nothing.
pub(super) fn json_list<T: Serialize>(items: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    let mut lines = Lines::to_stdout();
    for item in items {
        lines.json(&item)?;
    }
    lines.finish()
}

/// Tells the operator something beside the output, on standard error.
#[expect(clippy::print_stderr, reason = "standard output may be read by a program")]
pub(super) fn note(text: &str) {
    eprintln!("{}", harmless(text));
}

/// Prints bytes as they are; to a terminal, what it can show of them.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        out.write_all(harmless(&text).as_bytes())?;
        return out.flush();
    }
    out.write_all(bytes)?;
    out.flush()
}

/// An error and its causes; a cause that an error names itself is not told twice.
pub(super) fn described(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    if error.chain().any(is_denied) {
        text.push_str("; run this as root or as the daemon's user");
    }
    text
}

fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    let denied = cause.downcast_ref::<io::Error>();
    denied.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it is written to.
    #[derive(Default)]
    struct Counter {
        writes: usize,
        text: Vec<u8>,
    }

    impl Write for &mut Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn many_lines_are_written_at_once() {
        let mut counter = Counter::default();
        let mut lines = Lines(BufWriter::with_capacity(PIECE, &mut counter));
        for number in 0..1000 {
            lines.line(&format!("line {number}\u{1b}[2J")).expect("writes");
        }
        lines.json(&["a\nb"]).expect("writes");
        lines.finish().expect("writes");
        assert_eq!(counter.writes, 1);
        let text = String::from_utf8(counter.text).expect("UTF-8");
        assert!(text.starts_with("line 0\u{fffd}[2J\n") && text.ends_with("\n[\"a\\nb\"]\n"));
        assert_eq!(text.lines().count(), 1001);
    }
}
