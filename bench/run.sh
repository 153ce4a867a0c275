#!/usr/bin/env bash
# Mailweir beside Postfix and rspamd: installs what is missing, builds for release, measures, and
# writes docs/bench.md and docs/bench.svg. With --quick it only shows that everything works, and
# writes nothing. For Debian 12, as root: Postfix's private instances need that.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$*" in
  "" | --quick) ;;
  *) echo "usage: bench/run.sh [--quick]" >&2; exit 2 ;;
esac
if [ "$(id -u)" != 0 ]; then
  echo "bench/run.sh has to run as root" >&2
  exit 1
fi
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

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
for program in postfix rspamd nsd strace; do
  command -v "$program" >/dev/null || missing+=("$program")
done
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

cargo build --release --ignore-rust-version --workspace

# Postfix's and rspamd's users have to reach their folders below it.
chmod 755 "$scratch"
TMPDIR="$scratch" target/release/mailweir-bench compare "$@"
