//! The mailweir binary: arguments and exit codes, no logic.

fn main() {}
