//! The mailweir binary: arguments and exit codes, no logic.

use std::process::ExitCode;

/// Takes less time for the many small pieces of a message than the system's (`docs/profile.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Many small buffers come and go: in huge pages they would hold twice the memory. A kernel that
    // knows nothing of this has none.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    mailweir::cli::main()
}
