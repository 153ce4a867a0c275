//! What one process holds at this moment, from `/proc`.

use std::fs;

use anyhow::Context;

/// Resident memory, in octets.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024)
}

/// Makes the peak of [`crate::process::peak_memory`] begin anew.
pub(crate) fn reset_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")
}

/// Open file descriptors.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Fails unless a process may have `needed` file descriptors at once (`ulimit -n`).
pub(crate) fn require_descriptors(pid: u32, needed: u64) -> anyhow::Result<()> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)).context("no limit")?;
    if soft.parse().unwrap_or(u64::MAX) < needed {
        anyhow::bail!("{needed} file descriptors are needed, {soft} allowed: raise `ulimit -n`");
    }
    Ok(())
}
