#!/usr/bin/env bash
# Make sure that programs are there, by installing Debian's packages of them where that is possible.
#
#   scripts/programs.sh prometheus prometheus-alertmanager
#
# Says nothing when there is nothing to do. Does not start the services those packages bring: the tests
# and the demo start their own, on ports of their own, and a daemon on 9090 or 9093 is nobody's wish.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
ours='Put here by scripts/programs.sh'

present() {
  case $1 in
    prometheus-alertmanager) command -v prometheus-alertmanager || command -v alertmanager ;;
    chromium-driver) command -v chromedriver ;;
    python3-venv) python3 -c 'import ensurepip' ;; # a package with no program of its own
    *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

absent() {
  local name
  for name in "$@"; do
    present "$name" || echo "$name"
  done
}

give_up() {
  echo "programs.sh: $1" >&2
  echo "programs.sh: install ${missing[*]} yourself, on Debian or Ubuntu with: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@" </dev/null >/dev/null
}

lists_are_there() {
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null
}

install() {
  apt install -y --no-install-recommends "${missing[@]}"
}

forbid_services() {
  if [ -e "$policy" ] && ! grep -qs "$ours" "$policy"; then
    return # somebody else's policy: theirs to change
  fi
  trap allow_services EXIT
  printf '#!/bin/sh\n# %s while it installs; 101 means: start nothing.\nexit 101\n' "$ours" | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

allow_services() {
  if grep -qs "$ours" "$policy"; then as_root rm -f "$policy"; fi
}

not_at_boot() {
  [ -d /run/systemd/system ] || return 0
  local name
  for name in "${missing[@]}"; do
    as_root systemctl disable --quiet "$name.service" 2>/dev/null || true # not every package has a service
  done
}

mapfile -t missing < <(absent "$@")
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || give_up "not on PATH: ${missing[*]}, and there is no apt-get here"
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || give_up "not on PATH: ${missing[*]}, and installing needs root"

echo "programs.sh: installing ${missing[*]}" >&2
forbid_services
lists_are_there || apt update || { sleep 5; apt update; } || give_up "apt-get update failed"
# Lists that have aged name packages that are gone; a network that failed may be back.
install || { sleep 5; apt update && install; } || give_up "apt-get could not install ${missing[*]}"
not_at_boot

mapfile -t missing < <(absent "$@")
[ ${#missing[@]} -eq 0 ] || give_up "installed, and still not on PATH: ${missing[*]}"
