//! The mailweir binary: arguments and exit codes, no logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailweir::cli::main()
}
