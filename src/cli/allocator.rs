//! How long the memory allocator keeps what the daemon has freed.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where mimalloc reads the milliseconds after which freed memory goes back to the system. It asks
/// once, before `main`, and has no other setting that stays the same from version to version.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
/// Its own default of a second keeps the memory of all large messages of that second: twice what
/// two connections hold that send one after the other.
const MILLISECONDS: &str = "30";

/// Starts this program again, as the same process, with the setting. Does nothing if there is one
/// already; without one the daemon does all its work too, in more memory.
pub(super) fn give_memory_back_soon() {
    if env::var_os(PURGE_DELAY).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let Some(name) = arguments.next() else { return };
    // Under a loader that was called by name, the program is the loader.
    if program.file_name() != Path::new(&name).file_name() {
        return;
    }
    let mut command = Command::new(program);
    command.arg0(name);
    // Comes back only if it failed.
    drop(command.args(arguments).env(PURGE_DELAY, MILLISECONDS).exec());
}
