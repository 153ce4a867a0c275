//! What the fuzzed doors of the rooms share: each room's `fuzz` module takes a fuzzer's bytes and
//! asserts what must hold for them. Compiled for the fuzzers (`fuzz/`), and for tests, which replay
//! the inputs kept there.

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

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
