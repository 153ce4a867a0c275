#!/usr/bin/env bash
# Fuzzes the parsers and the protocol with libFuzzer, on the stable toolchain.
#
#   fuzz/run.sh --smoke            replays all that is kept, then runs each target for 5 s
#   fuzz/run.sh TARGET [SECONDS]   a long run (600 s) of one target, optimized
#
# A long run keeps what it learns in target/fuzz-corpus/TARGET and what it finds in
# target/fuzz-artifacts/TARGET. An input that failed once belongs into fuzz/regressions/TARGET,
# which every run and `cargo test` replay first.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t targets < <(sed -n 's/^name = "fuzz-\(.*\)"$/\1/p' fuzz/Cargo.toml)
wrapper="$PWD/fuzz/rustc-coverage"
# Targets that write files do so in memory, where that is possible.
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi

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
  local artifacts="target/fuzz-artifacts/$target" options=()
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

smoke() {
  build dev "${targets[@]}"
  local scratch log
  scratch=$(mktemp -d)
  log="$scratch/log"
  for target in "${targets[@]}"; do
    echo "fuzzing $target for 5 s"
    mkdir "$scratch/$target"
    if ! { replay_regressions target/debug "$target" &&
      fuzz target/debug "$target" -max_total_time=5 "$scratch/$target" "fuzz/corpus/$target"
    } >"$log" 2>&1; then
      tail -n 50 "$log"
      exit 1
    fi
  done
  rm -rf "$scratch"
}

long_run() {
  local corpus="target/fuzz-corpus/$1"
  build fuzz "$1"
  mkdir -p "$corpus"
  replay_regressions target/fuzz "$1"
  fuzz target/fuzz "$1" -max_total_time="${2:-600}" -print_final_stats=1 \
    "$corpus" "fuzz/corpus/$1"
}

case "${1:-}" in
--smoke) smoke ;;
"" | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && echo "targets: ${targets[*]}" && exit 2 ;;
*) long_run "$@" ;;
esac
