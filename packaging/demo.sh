#!/bin/sh
# Shows the main job: a remote image is mounted and read by eight programs while the process that fetches
# it is killed with SIGKILL every 200 ms.  Prints a table; exit 0 only if every read was right.
#
# Installs what it needs (Debian packages, as root), builds into build/release, and takes everything down again.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

"$root/packaging/install-deps.sh" build demo
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cd "$root"
if ! { cmake --preset release && cmake --build --preset release; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
HOLDFAST_BIN="$root/build/release/bin" /usr/bin/python3 -B tests/crash/demo.py "$@"
