//! The daemon under strace: system calls recorded, made to fail, or turned into the daemon's end.
//! The binary is the ordinary one, so every step of the commit path that leaves a trace anywhere,
//! on disk or on the wire, is a point where it can be stopped.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::BINARY;

/// The daemon, to be launched with strace beside it, which does as `arguments` say.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    // The daemon stays our child; strace is the grandchild.
    command.args(["-D", "-f"]).args(arguments).arg(BINARY);
    command
}

/// The daemon with a fault at the `when`th of some calls of a thread that touch one of `paths`.
pub fn with_fault(calls: &str, paths: &[PathBuf], fault: &str, when: &str) -> Command {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}:when={when}"));
    let mut arguments = vec!["-o", "/dev/null", "-e", &trace, "-e", &inject];
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    for path in &paths {
        arguments.extend(["-P", path]);
    }
    command(&arguments)
}

/// The calls that change files, and those that speak to clients.
const RECORDED: &str = "trace=openat,write,writev,pwrite64,pwritev,fdatasync,fsync,ftruncate,\
    rename,renameat2,unlink,unlinkat,mkdir,sendto";

/// The daemon with all that it does to files and says to clients recorded in `file`.
pub fn recording(file: &Path) -> Command {
    let file = file.display().to_string();
    command(&["-y", "-xx", "-s", "100000000", "-o", &file, "-e", RECORDED])
}

/// strace writes its last lines after the daemon has ended.
pub fn wait_for_end(recording: &Path) {
    super::wait_for("strace's last line", || {
        let text = fs::read_to_string(recording).ok()?;
        text.lines().last()?.contains("+++ exited with 0 +++").then_some(())
    });
}

/// A system call that succeeded.
#[derive(Clone, Debug)]
pub enum Call {
    /// A file was opened; whether it was to be made or emptied.
    Open {
        path: PathBuf,
        creates: bool,
        truncates: bool,
    },
    /// Bytes were written; at the end unless `at` says where.
    Write {
        path: PathBuf,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    /// A file or folder was synced, as it was when the call began.
    Sync {
        path: PathBuf,
        began: usize,
    },
    Truncate {
        path: PathBuf,
        length: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Something was sent on a socket.
    Say {
        text: String,
    },
}

/// Reads a recording: the calls in the order in which they ended.
pub fn calls(recording: &Path) -> Vec<Call> {
    let text = fs::read_to_string(recording).expect("strace has written");
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
    for line in text.lines().filter(|line| !line.contains("+++ ") && !line.contains("--- ")) {
        let (thread, rest) = line.split_once(' ').expect("a thread");
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (begun.to_owned(), calls.len()));
            continue;
        }
        let (whole, began) = match rest.strip_prefix("<... ") {
            Some(rest) => {
                let (begun, began) = unfinished.remove(thread).expect("has begun");
                let end = rest.split_once(" resumed>").expect("resumed").1;
                (begun + end, began)
            }
            None => (rest.to_owned(), calls.len()),
        };
        calls.extend(call(&whole, began));
    }
    calls
}

/// `name(arguments) = result`; `None` for a call that failed or is of no interest.
fn call(line: &str, began: usize) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let strings = || quoted(arguments);
    let path = |bytes: Vec<u8>| PathBuf::from(String::from_utf8(bytes).expect("UTF-8"));
    let of_descriptor = || Some(path(unescaped(arguments.split_once('<')?.1.split_once('>')?.0)));
    let last_number = || arguments.trim_end_matches(')').rsplit_once(", ")?.1.parse().ok();
    let written = |mut bytes: Vec<u8>| {
        bytes.truncate(result.parse().expect("a count"));
        bytes
    };
    Some(match name {
        "openat" => Call::Open {
            path: path(unescaped(result.split_once('<')?.1.trim_end_matches('>'))),
            creates: arguments.contains("O_CREAT"),
            truncates: arguments.contains("O_TRUNC"),
        },
        "write" => {
            Call::Write { path: of_descriptor()?, at: None, bytes: written(strings().pop()?) }
        }
        "writev" => {
            Call::Write { path: of_descriptor()?, at: None, bytes: written(strings().concat()) }
        }
        "pwrite64" => Call::Write {
            path: of_descriptor()?,
            at: last_number(),
            bytes: written(strings().pop()?),
        },
        "fdatasync" | "fsync" => Call::Sync { path: of_descriptor()?, began },
        "ftruncate" => Call::Truncate { path: of_descriptor()?, length: last_number()? },
        "rename" => {
            let [from, to] = strings().try_into().ok()?;
            Call::Rename { from: path(from), to: path(to) }
        }
        "unlink" => Call::Remove { path: path(strings().pop()?) },
        "sendto" => {
            let text = String::from_utf8_lossy(&strings().pop()?).into_owned();
            Call::Say { text }
        }
        "mkdir" => return None,
        other => panic!("the model does not know {other}"),
    })
}

/// The quoted strings of a call's arguments.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescaped).collect()
}

/// `\x41` is A; strace writes all strings so.
fn unescaped(text: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).expect("two hexadecimal digits");
    text.split("\\x").skip(1).map(byte).collect()
}
