#!/usr/bin/env bash
# Installs what the tests need and is not there: swaks, Postfix, NSD, OpenSSL, strace, libfaketime
# and a C++ compiler (for libFuzzer) from Debian's packages, and Node.js if there is none; dkimpy into
# a virtual environment and nodemailer into a folder below target/. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
export DEBIAN_FRONTEND=noninteractive

declare -A package_of=(
  [/usr/bin/swaks]=swaks [/usr/sbin/postfix]=postfix [/usr/sbin/nsd]=nsd
  [/usr/bin/strace]=strace [/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1]=libfaketime
  [/usr/bin/openssl]=openssl [/usr/share/perl5/IO/Socket/SSL.pm]=libio-socket-ssl-perl
)
missing=()
for file in "${!package_of[@]}"; do
  [ -e "$file" ] || missing+=("${package_of[$file]}")
done
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl)
command -v c++ >/dev/null || missing+=(g++)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
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
  as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

venv=target/test-venv
pins=(dkimpy==1.1.8 dnspython==2.7.0 pynacl==1.6.2 jsonschema==4.26.0)
if [ "$(cat "$venv/pins" 2>/dev/null)" != "${pins[*]}" ]; then
  echo "installing ${pins[*]} into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "${pins[@]}"
  "$venv/bin/python" -c 'import dkim, nacl, dns, jsonschema'
  echo "${pins[*]}" >"$venv/pins"
fi

modules=target/test-node
nodemailer=nodemailer@7.0.13
if [ "$(cat "$modules/pins" 2>/dev/null)" != "$nodemailer" ]; then
  echo "installing $nodemailer into $modules"
  rm -rf "$modules"
  mkdir -p "$modules"
  npm install --prefix "$modules" --no-audit --no-fund --silent "$nodemailer"
  echo "$nodemailer" >"$modules/pins"
fi
