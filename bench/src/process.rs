//! What a process and its children cost, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// `proc(5)` counts time in ticks of 10 ms.
const TICK: Duration = Duration::from_millis(10);

/// A process as `/proc/PID/stat` tells it.
struct Stat {
    parent: u32,
    /// User and system time of the process, in whole ticks.
    own: Duration,
    /// The same of children that it has waited for.
    waited: Duration,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so what follows its last parenthesis counts: field 3 on.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    let ticks = |user, system| Some(TICK * (field(user)? + field(system)?));
    Some(Stat { parent: field(4)?, own: ticks(14, 15)?, waited: ticks(16, 17)? })
}

/// Time on a CPU of the threads that a process has now, to the nanosecond.
fn running_threads(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(nanoseconds).sum())
}

/// What the threads of one name cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThreadCost {
    /// Time on a CPU.
    pub(crate) cpu: Duration,
    /// How often they let go of it, because they had to wait for something.
    pub(crate) waits: u64,
}

/// What the threads that a process has now have cost so far, by their names.
pub(crate) fn threads(pid: u32) -> BTreeMap<String, ThreadCost> {
    let mut costs: BTreeMap<String, ThreadCost> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        // A thread that ends meanwhile is not there any more.
        if let Some((name, cost)) = thread_cost(&thread.path()) {
            let all = costs.entry(name).or_default();
            all.cpu += cost.cpu;
            all.waits += cost.waits;
        }
    }
    costs
}

fn thread_cost(thread: &Path) -> Option<(String, ThreadCost)> {
    let read = |name| fs::read_to_string(thread.join(name)).ok();
    let name = read("comm")?.trim_end().to_owned();
    let nanoseconds = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
    let status = read("status")?;
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    let waits = waits.trim().parse().ok()?;
    Some((name, ThreadCost { cpu: Duration::from_nanos(nanoseconds), waits }))
}

/// A process and all below it, as they are now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(pid) = tree.get(at) {
        tree.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    tree
}

/// Asks processes to end with SIGTERM, so that they can end what they have started, and waits for the
/// child that has started them or is the one. They may have ended by themselves.
pub(crate) fn end(child: &mut Child, asked: &[u32]) {
    let ids = asked.iter().map(u32::to_string);
    drop(Command::new("kill").args(ids).stderr(Stdio::null()).status());
    drop(child.wait());
}

/// User and system time so far of a process, of all below it and of those of them that have
/// ended.
pub(crate) fn cpu(root: u32) -> Duration {
    // Ticks are too coarse for a hundred processes that each did little, and threads that have
    // ended are missing from the finer figure: neither is ever too much.
    let of_process = |pid| stat(pid).map(|stat| stat.own.max(running_threads(pid)) + stat.waited);
    tree(root).into_iter().filter_map(of_process).sum()
}

/// Memory of a process and all below it, in octets: proportional set sizes, so that what
/// processes share counts once.
pub(crate) fn memory(root: u32) -> u64 {
    let kib = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    tree(root).into_iter().filter_map(kib).sum::<u64>() * 1024
}

/// The most memory that one process ever had, in octets.
#[allow(dead_code, reason = "for measurements of one process")]
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024)
}
