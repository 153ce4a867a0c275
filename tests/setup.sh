#!/usr/bin/env bash
# Installs what the tests need and is not there: swaks, Postfix, NSD, OpenSSL, strace, libfaketime
# and a C++ compiler (for libFuzzer) from Debian's packages, and Node.js if there is none; dkimpy and
# jsonschema into a virtual environment, nodemailer and postal-mime into a folder below target/. Safe
# to run again. With --check it only says what it would do, and whether it can.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"

case "$*" in
  "" | --check) ;;
  *) echo "usage: tests/setup.sh [--check]" >&2; exit 2 ;;
esac

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
can_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
refuse() { printf '%s\n' "$@" >&2; exit 1; }

# Debian puts libraries below the name of the processor: x86_64-linux-gnu, aarch64-linux-gnu, …
has_file() { compgen -G "$1" >/dev/null; }

missing=()
for wanted in swaks:swaks postfix:postfix nsd:nsd strace:strace openssl:openssl c++:g++ \
  node:nodejs npm:npm python3:python3; do
  command -v "${wanted%:*}" >/dev/null || missing+=("${wanted#*:}")
done
has_file '/usr/lib/*/faketime/libfaketime.so.1' || missing+=(libfaketime)
perl -MIO::Socket::SSL -e 1 2>/dev/null || missing+=(libio-socket-ssl-perl)
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

venv=target/test-venv
pins=(dkimpy==1.1.8 dnspython==2.7.0 pynacl==1.6.2 jsonschema==4.26.0)
modules=target/test-node
node_pins=(nodemailer@7.0.13 postal-mime@4.0.0)
is_pinned() { [ "$(cat "$1/pins" 2>/dev/null)" = "$2" ]; }

if [ "${#missing[@]}" -gt 0 ]; then
  echo "needed from Debian's packages, as root: ${missing[*]}"
  command -v apt-get >/dev/null ||
    refuse "There is no apt-get here: install what these packages have by other means."
else
  echo "Debian's packages that the tests need are all there"
fi
is_pinned "$venv" "${pins[*]}" || echo "needed from PyPI, into $venv: ${pins[*]}"
is_pinned "$modules" "${node_pins[*]}" || echo "needed from npm, into $modules: ${node_pins[*]}"
# Tests with Postfix, which only root starts, need it too.
can_be_root || refuse "" \
  "This needs root, for packages and to start Postfix, and is neither run as root nor can sudo be" \
  "used without a password. Let sudo remember it first (sudo -v), or run it as root."
[ "$*" != --check ] || exit 0

if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing: ${missing[*]}"
  # A policy of "no services" for the time of the installation: the tests start their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    trap 'as_root rm -f "$policy"' EXIT
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND="$DEBIAN_FRONTEND" \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! is_pinned "$venv" "${pins[*]}"; then
  echo "installing ${pins[*]} into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet "${pins[@]}"
  "$venv/bin/python" -c 'import dkim, nacl, dns, jsonschema'
  echo "${pins[*]}" >"$venv/pins"
fi

if ! is_pinned "$modules" "${node_pins[*]}"; then
  echo "installing ${node_pins[*]} into $modules"
  rm -rf "$modules"
  mkdir -p "$modules"
  npm install --prefix "$modules" --no-audit --no-fund --silent "${node_pins[@]}"
  echo "${node_pins[*]}" >"$modules/pins"
fi
