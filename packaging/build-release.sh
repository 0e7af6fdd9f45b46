#!/bin/sh
# Installs, as root, the Debian packages of these groups (install-deps.sh) and builds into build/release.  Says what it
# is at, and shows the compiler's output when that fails.
set -eu
cd "$(dirname "$0")/.."

echo "installing the Debian packages that it needs ..."
packaging/install-deps.sh "$@"
echo "building into build/release (the first time about 5 minutes on two processors) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { cmake --preset release && cmake --build --preset release; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
