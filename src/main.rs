//! The mailweir binary: arguments and exit codes, no logic.

use std::process::ExitCode;

/// Takes less time for the many small pieces of a message than the system's (`docs/profile.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mailweir::cli::main()
}
