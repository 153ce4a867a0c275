#!/usr/bin/env bash
# Installs what the tests need, runs all of them, fuzzes for a minute, and shows that every
# measurement still works.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo test --ignore-rust-version --workspace
fuzz/run.sh --smoke
bench/run.sh --quick
