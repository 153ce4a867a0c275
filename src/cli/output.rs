//! Standard output, so that a closed pipe (`| head`) ends a command quietly.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a line, or several. What came from a peer cannot move the cursor or colour the screen:
/// control characters are replaced.
pub(super) fn line(text: &str) -> io::Result<()> {
    let harmless = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    let text: String = text.chars().map(harmless).collect();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// `1 message`, `2 messages`
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string(value)?)?)
}

/// Tells the operator something beside the output, on standard error.
#[expect(clippy::print_stderr, reason = "standard output may be read by a program")]
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
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
    text
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
