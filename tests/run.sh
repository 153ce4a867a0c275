#!/usr/bin/env bash
# Installs what the tests need, and runs all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo test --ignore-rust-version
