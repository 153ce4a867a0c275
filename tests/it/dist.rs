//! `dist.sh`: a small binary to install, whose backtraces find their lines beside it.

use std::path::Path;
use std::process::Command;

use crate::support::daemon::text;
use crate::support::pages::root;

const PROGRAM: &str = "#[inline(never)]\nfn falls(n: u32) {\n    if n == 0 {\n        panic!(\"on \
                       purpose\");\n    }\n    falls(n - 1);\n}\n\nfn main() {\n    falls(2);\n}\n";

/// A program that panics, built as a release is.
fn build(dir: &Path) {
    std::fs::write(dir.join("falls.rs"), PROGRAM).expect("writes");
    let status = Command::new("rustc")
        .args(["-O", "-C", "debuginfo=line-tables-only", "falls.rs", "-o", "falls"])
        .current_dir(dir)
        .status();
    assert!(status.expect("a Rust toolchain").success());
}

fn backtrace(binary: &Path) -> String {
    let output = Command::new(binary).env("RUST_BACKTRACE", "1").output().expect("runs");
    assert!(!output.status.success());
    let told = text(&output.stderr);
    assert!(told.contains("on purpose"), "{told}");
    told
}

#[test]
fn backtraces_of_what_is_installed_find_their_lines_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    build(dir.path());
    let dist = dir.path().join("dist");
    let status = Command::new(root().join("dist.sh"))
        .args([dir.path().join("falls"), dist.clone()])
        .output()
        .expect("runs");
    assert!(status.status.success(), "{}", text(&status.stderr));
    let size = |path: &Path| std::fs::metadata(path).expect("is there").len();
    assert!(size(&dist.join("falls")) * 2 < size(&dir.path().join("falls")), "it is not stripped");
    let called_from = "falls.rs:10:";
    assert!(backtrace(&dist.join("falls")).contains(called_from));
    // Without its tables it still runs; with those in the folder of such files it has them again.
    let tables = dist.join("falls.debug");
    let elsewhere = dist.join(".debug");
    std::fs::create_dir(&elsewhere).expect("makes");
    std::fs::rename(&tables, dir.path().join("kept")).expect("moves");
    assert!(!backtrace(&dist.join("falls")).contains(called_from));
    std::fs::rename(dir.path().join("kept"), elsewhere.join("falls.debug")).expect("moves");
    assert!(backtrace(&dist.join("falls")).contains(called_from));
}
