#!/bin/sh
# Installs, as root, the Debian packages of these groups (install-deps.sh) and builds into build/release; says something
# only when that fails.
set -eu
cd "$(dirname "$0")/.."

packaging/install-deps.sh "$@"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { cmake --preset release && cmake --build --preset release; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
