//! How often a system waits for the disk, counted by strace in a pass of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::corpus::Corpus;
use super::kind::Kind;
use super::load;
use super::local::wait;
use super::measure::{settle, wait_delivered, warm_up};
use super::plan::Cell;
use super::system::{Ground, System};
use crate::process;

/// System calls that wait for the disk.
const CALLS: [&str; 6] = ["fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync"];

/// Syncs for each message of a cell; their time means nothing.
pub(super) fn count(
    kind: Kind,
    ground: &Ground<'_>,
    corpus: &Corpus,
    cell: Cell,
    count: usize,
) -> anyhow::Result<f64> {
    let system = kind.start(ground, corpus.direction())?;
    let before = warm_up(&*system, corpus, cell)?;
    let folder = tempfile::tempdir()?;
    let summary = folder.path().join("summary");
    let mut strace = attach(&*system, &summary)?;
    let sent = load::drive(&*system, corpus, cell, count).and_then(|latencies| {
        wait_delivered(&*system, before + latencies.len())?;
        settle(&*system)?;
        Ok(latencies.len())
    });
    // It detaches and writes its summary.
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    let sent = sent?;
    kind.check(&*system, corpus.direction(), before + sent)?;
    let text = fs::read_to_string(summary)?;
    Ok(calls(&text)? as f64 / sent as f64)
}

/// Traces all threads of all processes, and those that they start.
fn attach(system: &dyn System, summary: &Path) -> anyhow::Result<Child> {
    let pids: Vec<_> = system.roots().into_iter().flat_map(process::tree).collect();
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-c", "-U", "calls,name", "-e"]);
    command.arg(format!("trace={}", CALLS.join(","))).arg("-o").arg(summary);
    for pid in &pids {
        command.args(["-p", &pid.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut strace = command.spawn().context("strace cannot be started")?;
    wait("strace to attach", Duration::from_secs(30), || {
        if let Some(status) = strace.try_wait()? {
            bail!("strace ended with {status}");
        }
        Ok(threads(&pids).iter().all(|status| is_traced(status)))
    })?;
    Ok(strace)
}

/// The status files of all threads of these processes.
fn threads(pids: &[u32]) -> BTreeSet<std::path::PathBuf> {
    let folders = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    folders.flatten().flatten().map(|entry| entry.path().join("status")).collect()
}

/// Whether a thread is traced; one that has ended needs not be.
fn is_traced(status: &Path) -> bool {
    let Ok(text) = fs::read_to_string(status) else { return true };
    !text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == "0"))
}

/// The calls of a summary of `calls` and `syscall` columns.
fn calls(summary: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for line in summary.lines() {
        if let [calls, name] = line.split_whitespace().collect::<Vec<_>>()[..]
            && CALLS.contains(&name)
        {
            sum += calls.parse::<u64>()?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_summary_is_added_up() {
        let text = "    calls syscall\n--------- ---------\n      120 fsync\n        3 fdatasync\n\
                    --------- ---------\n      123 total\n";
        assert_eq!(super::calls(text).expect("adds"), 123);
    }
}
