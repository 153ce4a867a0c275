#!/usr/bin/env bash
# Builds the binary that is installed, and puts its line tables beside it: target/dist/mailweir, and
# target/dist/mailweir.debug, in which a backtrace finds the lines as long as it lies in the same
# folder, in .debug/ there, or below /usr/lib/debug. With a binary as argument that one is taken, and
# nothing is built; with a folder after it, that is where both go.
set -euo pipefail
cd "$(dirname "$0")"

binary=${1:-target/release/mailweir}
folder=${2:-target/dist}
# The tools that the toolchain's linker comes with.
command -v objcopy >/dev/null || { echo "dist.sh needs objcopy, which binutils has" >&2; exit 1; }
[ $# -gt 0 ] || cargo build --release --ignore-rust-version

name=$(basename "$binary")
mkdir -p "$folder"
rm -f "$folder/$name" "$folder/$name.debug"
objcopy --only-keep-debug --compress-debug-sections=zlib "$binary" "$folder/$name.debug"
chmod 644 "$folder/$name.debug"
objcopy --strip-all --add-gnu-debuglink="$folder/$name.debug" "$binary" "$folder/$name"
ls -sh "$folder/$name" "$folder/$name.debug"
