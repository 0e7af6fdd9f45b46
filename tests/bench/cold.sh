#!/bin/sh
# A cold sequential read of a 1 GiB file: Holdfast beside curl -o, s3fs and rclone mount, in one run, from one
# nginx on loopback.  Prints medians of five and their ratios.  Then the same of 512 MiB from an origin that caps
# each connection, and how many connections' worth each reaches.  Root; installs the Debian packages it compares with.
#
# usage: tests/bench/cold.sh [--delay-ms N]... [--runs N] [--size-mib N] [--pace MB/S] [--connections N] [--capped-only]
# HOLDFAST_BIN: where the programs are; by default build/release/bin, which it builds.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
"$root/packaging/install-deps.sh" build bench
if [ -z "${HOLDFAST_BIN:-}" ]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  { cmake --preset release && cmake --build --preset release; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  HOLDFAST_BIN=$root/build/release/bin
fi
export HOLDFAST_BIN
/usr/bin/python3 -B tests/bench/cold.py "$@"
