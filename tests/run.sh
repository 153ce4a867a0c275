#!/usr/bin/env bash
# Installs what the tests need, runs all of them, and fuzzes for a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo test --ignore-rust-version
fuzz/run.sh --smoke
