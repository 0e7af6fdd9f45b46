#!/bin/sh
# Shows a container that lives through deaths: a Debian root with Python in it becomes an image in a registry, and
# `holdfast run` starts a program from it that imports, reads and checks files for a minute, while fetcher and
# daemon are killed with SIGKILL every 300 ms.  Prints a table; exit 0 only if the program saw no error.
#
#   packaging/demo-container.sh [--seconds N] [--seed N]
#
# Installs what it needs (Debian packages, as root), builds into build/release, and takes everything down again.
set -eu
cd "$(dirname "$0")/.."

packaging/build-release.sh build demo-container
HOLDFAST_BIN="$PWD/build/release/bin" /usr/bin/python3 -B tests/crash/demo_container.py "$@"
