#!/usr/bin/env bash
# Everything that shows that Mailweir works: installs what the tests need, runs all of them, fuzzes
# for a minute, and shows that every measurement still works. It says what it needs before it
# starts, and goes on with what is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

stages=(
  "what the tests need|tests/setup.sh"
  "all tests|cargo test --ignore-rust-version --workspace"
  "fuzzing, five seconds for each target|fuzz/run.sh --smoke"
  "the measurements, in short|bench/run.sh --quick"
)

# Programs that nothing here can install; then whatever else stands in the way is told at once.
for program in cargo cc git; do
  if ! command -v "$program" >/dev/null; then
    echo "tests/run.sh needs $program: a Rust toolchain (1.95 or later), a C compiler and git" >&2
    exit 1
  fi
done
tests/setup.sh --check
echo "about 10 minutes on two cores, most of it the build, and 10 GB below target/"

began=$SECONDS
number=0
for stage in "${stages[@]}"; do
  number=$((number + 1))
  since=$SECONDS
  printf '\n[%d/%d] %s (%s)\n' "$number" "${#stages[@]}" "${stage%|*}" "${stage#*|}"
  read -ra command <<<"${stage#*|}"
  if ! "${command[@]}"; then
    printf '[%d/%d] failed after %d s: %s\n' "$number" "${#stages[@]}" "$((SECONDS - since))" \
      "${stage#*|}" >&2
    exit 1
  fi
  printf '[%d/%d] done in %d s\n' "$number" "${#stages[@]}" "$((SECONDS - since))"
done
printf '\nall of it is well, after %d s\n' "$((SECONDS - began))"
