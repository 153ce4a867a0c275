#!/usr/bin/env bash
# Counts the instructions that two builds of the daemon spend on a 4 KB message: the one figure that
# does not depend on what else the machine does. Needs valgrind and strace; takes three minutes.
#
#   bench/instructions.sh BEFORE AFTER     paths of two `mailweir` binaries of release builds
#
# Counted is what the process does in user mode under callgrind, its start included; beside it
# stand the system calls that it makes, which callgrind does not see.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=target/release/mailweir-bench
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Set already, so that the daemon does not start itself again, away from what counts.
export MIMALLOC_PURGE_DELAY=10

# The benchmark kills what it started, and so ends only this shell; the daemon below it then gets
# the time to write down what was counted.
wrap() {
  local tool="$1" binary="$2" wrapper="$scratch/wrapper"
  printf '#!/bin/sh\nif [ "$1" != serve ]; then exec %s "$@"; fi\n%s %s "$@" &\n' \
    "$binary" "$tool" "$binary" >"$wrapper"
  printf 'echo $! >%s/pid\nwait\n' "$scratch" >>"$wrapper"
  chmod +x "$wrapper"
}

measure() {
  timeout 120 "$bench" --mailweir "$scratch/wrapper" compare "4 KB 8 × 20 Mailweir" \
    >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
  local pid
  pid=$(cat "$scratch/pid")
  # strace hands no signal on to what it traces.
  pkill -TERM -P "$pid" || kill -TERM "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
}

for binary in "$@"; do
  wrap "valgrind --quiet --tool=callgrind --callgrind-out-file=$scratch/counts" "$binary"
  measure
  wrap "strace -f -c -U calls,name -o $scratch/calls" "$binary"
  measure
  instructions=$(sed -n 's/^totals: //p' "$scratch/counts")
  calls=$(awk '$NF == "total" {print $1}' "$scratch/calls")
  printf '%s: %s million instructions, %s system calls\n' \
    "$binary" "$((instructions / 1000000))" "$calls"
done
