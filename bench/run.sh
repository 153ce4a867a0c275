#!/usr/bin/env bash
# All measurements: Mailweir beside Postfix with rspamd and Haraka with Dovecot, growth, memory, load
# that a server does not like, and 200 rounds of kill -9. Installs what is missing (Haraka from npm
# into target/bench-node), builds for release, prints everything, and writes docs/bench.md,
# docs/bench.svg and docs/budgets.md; about 40 minutes. With --quick it only shows that everything
# works, and writes nothing. For Debian 12, as root or with sudo: Postfix's private instances need
# that.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$*" in
  "" | --quick) ;;
  *) echo "usage: bench/run.sh [--quick]" >&2; exit 2 ;;
esac
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive
[ -n "${MAILWEIR_BENCH_IS_BUILT-}" ] || cargo build --release --ignore-rust-version --workspace
if [ "$(id -u)" != 0 ]; then
  # What is built stays the user's own; the rest is root's, with the same toolchain.
  if ! sudo -n true 2>/dev/null; then
    echo "bench/run.sh needs root, and sudo asks for a password: run sudo -v first" >&2
    exit 1
  fi
  exec sudo -n env PATH="$PATH" HOME="$HOME" MAILWEIR_BENCH_IS_BUILT=1 bench/run.sh "$@"
fi

# Whatever happens, nothing stays that was started or made for the time of this run.
policy=
scratch=$(mktemp -d)
clean_up() {
  local process
  [ -z "$policy" ] || rm -f "$policy"
  for process in /proc/[0-9]*; do
    if readlink "$process"/cwd "$process"/fd/* 2>/dev/null | grep -qF "$scratch/"; then
      kill "${process#/proc/}" 2>/dev/null || true
    fi
  done
  rm -rf "$scratch" 2>/dev/null || { sleep 2; rm -rf "$scratch"; }
}
trap clean_up EXIT

missing=()
for wanted in postfix:postfix rspamd:rspamd nsd:nsd strace:strace dovecot:dovecot-core \
  node:nodejs npm:npm; do
  command -v "${wanted%:*}" >/dev/null || missing+=("${wanted#*:}")
done
[ -x /usr/lib/dovecot/lmtp ] || missing+=(dovecot-lmtpd)
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || missing+=(libfaketime)
if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing: ${missing[*]}"
  # A policy of "no services" while they are installed: the comparison starts its own.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Haraka and what it needs of its plugins. The package asks for Node.js 20, and runs on Debian's 18.
modules=target/bench-node
pins=(Haraka@3.3.4 haraka-plugin-spf@1.3.0 haraka-plugin-dkim@1.3.1)
if [ "$(cat "$modules/pins" 2>/dev/null)" != "${pins[*]}" ]; then
  echo "installing: ${pins[*]}"
  rm -rf "$modules"
  mkdir -p "$modules"
  npm install --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
    --cache "$scratch/npm" --prefix "$modules" "${pins[@]}"
  echo "${pins[*]}" >"$modules/pins"
  # What is below target/ stays the user's, for whom root does this.
  chown -R --reference=target "$modules"
fi

# Postfix's and rspamd's users have to reach their folders below it.
chmod 755 "$scratch"
export TMPDIR="$scratch"
measure() { target/release/mailweir-bench "$@"; }

if [ "$*" = --quick ]; then
  measure compare --quick
  measure growth --quick
  measure idle --quick
  exit
fi
measure compare
{
  cat <<'TEXT'
# Budgets

Made by `bench/run.sh`; do not edit. Two shared virtual cores, with the load on the same two.

## Growth

TEXT
  measure growth
  printf '\n## Memory\n\n'
  measure idle
  printf '\n## Load that a server does not like\n\n```text\n'
  measure stress || true # What did not hold says so.
  printf '```\n\n## kill -9 under load\n\n```text\n'
  MAILWEIR_CRASH_ROUNDS=200 cargo test --quiet --ignore-rust-version --test it \
    crash::nothing_acknowledged -- --nocapture 2>"$scratch/crash.log" | grep rounds ||
    { cat "$scratch/crash.log" >&2; exit 1; }
  printf '```\n'
} | tee "$scratch/budgets.md"
cp "$scratch/budgets.md" docs/budgets.md
