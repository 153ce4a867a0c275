//! What the fuzzed doors of the rooms share: each room's `fuzz` module takes a fuzzer's bytes and
//! asserts what must hold for them. Compiled for the fuzzers (`fuzz/`), and for tests, which replay
//! the inputs kept there.

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};

/// Lengths of pieces, from a seed: every cutting of the same bytes can be named in four octets.
#[derive(Clone, Debug)]
pub(crate) struct Cuts(u32);

impl Cuts {
    /// The lengths that a seed stands for.
    pub(crate) fn of(seed: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(seed) | 1) // Xorshift stands still at zero.
    }

    /// The next length, most often short, at most 2048.
    pub(crate) fn next_length(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        1 << (self.0 % 12)
    }
}

/// What separates the pieces of an input: a line of two hyphens.
const SEPARATOR: &[u8] = b"\n--\n";

/// An input in pieces; the last is the rest, those that are missing are empty.
pub(crate) fn pieces<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(input);
    std::array::from_fn(|number| {
        let input = rest.unwrap_or_default();
        let end = memchr::memmem::find(input, SEPARATOR).filter(|_| number + 1 < N);
        rest = end.and_then(|end| input.get(end + SEPARATOR.len()..));
        end.map_or(input, |end| &input[..end])
    })
}

/// Text with every line end made CR LF and no other CR, as messages are handed over.
pub(crate) fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    for octet in text.iter().filter(|octet| **octet != b'\r') {
        match octet {
            b'\n' => out.extend_from_slice(b"\r\n"),
            octet => out.push(*octet),
        }
    }
    out
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
}

/// Runs a future to its end. The clock stands still until nobody can go on, so no wait takes time.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Fails unless a field that we made is whole: printable lines of at most 998 octets (RFC 5322
/// §2.1.1), of which only the first is not a continuation.
pub(crate) fn assert_field(field: &[u8]) {
    assert!(field.ends_with(b"\r\n"), "has no end");
    assert_no_bare_line_ends(field);
    for (number, line) in field.split_inclusive(|octet| *octet == b'\n').enumerate() {
        assert!(line.len() <= 1000, "a line of {} octets", line.len());
        assert_eq!(matches!(line[0], b' ' | b'\t'), number > 0, "not one field");
        let text = line.trim_ascii();
        assert!(!text.is_empty(), "an empty line in a field");
        assert!(text.iter().all(|octet| *octet >= b' ' && *octet != 0x7f), "a control character");
    }
}

/// A folder of this process for a target that reads files, empty.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("mailweir-fuzz-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
    dir
}

/// Fails unless every line end is CR LF (RFC 5321 §2.3.8).
pub(crate) fn assert_no_bare_line_ends(bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        match byte {
            b'\r' => assert_eq!(bytes.get(at + 1), Some(&b'\n'), "a bare CR at {at}"),
            b'\n' => assert_eq!(before, Some(&b'\r'), "a bare LF at {at}"),
            _ => {}
        }
    }
}

/// Runs a target on its corpus and on all that it ever failed for.
#[cfg(test)]
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut count = 0;
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder).join(target)) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let input = std::fs::read(&path).expect("reads");
            // The name of what fails, which the check itself does not know.
            let outcome = std::panic::catch_unwind(|| check(&input));
            assert!(outcome.is_ok(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 0, "{target} has no corpus");
}
