#!/bin/sh
# Shows the main job: a remote image is mounted and read by eight programs while the process that fetches
# it is killed with SIGKILL every 200 ms.  Prints a table; exit 0 only if every read was right.
#
# Installs what it needs (Debian packages, as root), builds into build/release, and takes everything down again.
set -eu
cd "$(dirname "$0")/.."

packaging/build-release.sh build demo
HOLDFAST_BIN="$PWD/build/release/bin" /usr/bin/python3 -B tests/crash/demo.py "$@"
