#!/usr/bin/env bash
# Fuzzes the parsers and the protocol with libFuzzer, on the stable toolchain.
#
#   fuzz/run.sh --smoke            replays all that is kept, then tries the same inputs at each run:
#                                  up to 20,000 of each target, for 5 s at most
#   fuzz/run.sh TARGET [SECONDS]   a long run (600 s) of one target, optimized
#
# A long run keeps what it learns in target/fuzz-corpus/TARGET and what it finds in
# target/fuzz-artifacts/TARGET. An input that failed once belongs into fuzz/regressions/TARGET,
# which every run and `cargo test` replay first.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t targets < <(sed -n 's/^name = "fuzz-\(.*\)"$/\1/p' fuzz/Cargo.toml)
target_dir="${CARGO_TARGET_DIR:-target}"
wrapper="$PWD/fuzz/rustc-coverage"
# For the files that targets write: in memory, where that is possible.
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# The profile, then the targets.
build() {
  local bins=()
  for target in "${@:2}"; do bins+=(--bin "fuzz-$target"); done
  RUSTC_WORKSPACE_WRAPPER="$wrapper" cargo build --quiet --ignore-rust-version \
    --package mailweir-fuzz --features libfuzzer --profile "$1" "${bins[@]}"
}

# The folder of the binaries, the target, then options and folders for libFuzzer.
fuzz() {
  local target=$2 dictionary="fuzz/dictionaries/$2"
  local artifacts="$target_dir/fuzz-artifacts/$target" options=()
  mkdir -p "$artifacts"
  if [ -e "$dictionary" ]; then options+=("-dict=$dictionary"); fi
  "$1/fuzz-$target" -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$artifacts/" \
    "${options[@]}" "${@:3}"
}

# The folder of the binaries, then the target.
replay_regressions() {
  local inputs=(fuzz/regressions/"$2"/*)
  if [ -e "${inputs[0]}" ]; then fuzz "$1" "$2" "${inputs[@]}"; fi
}

# A change is to fail by what it has changed, not by chance: with one seed libFuzzer makes the same
# inputs as long as the target does the same with them, and a slow machine only stops earlier. What
# is new is for a long run to find, which has another seed each time.
same_inputs=(-seed=1 -runs=20000 -max_total_time=5)

smoke() {
  build dev "${targets[@]}"
  local bins="$target_dir/debug" log="$TMPDIR/log" found
  for target in "${targets[@]}"; do
    echo "fuzzing $target for up to 5 s"
    found=$(mktemp -d)
    if ! { replay_regressions "$bins" "$target" &&
      fuzz "$bins" "$target" "${same_inputs[@]}" "$found" "fuzz/corpus/$target"; } >"$log" 2>&1; then
      tail -n 50 "$log"
      exit 1
    fi
  done
}

long_run() {
  local bins="$target_dir/fuzz" corpus="$target_dir/fuzz-corpus/$1"
  build fuzz "$1"
  mkdir -p "$corpus"
  replay_regressions "$bins" "$1"
  fuzz "$bins" "$1" -max_total_time="${2:-600}" -print_final_stats=1 \
    "$corpus" "fuzz/corpus/$1"
}

case "${1:-}" in
--smoke) smoke ;;
"" | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && echo "targets: ${targets[*]}" && exit 2 ;;
*) long_run "$@" ;;
esac
