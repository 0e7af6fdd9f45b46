#!/bin/sh
# Shows that a daemon of the kernel's /dev/cachefiles runs on Holdfast as it is: a C program that knows
# <linux/cachefiles.h> alone serves an EROFS image, mounted by fsid=, to eight readers, while it and holdfastd are killed
# with SIGKILL all the while.  Prints a table; exit 0 only if every read was right.
#
# Installs what it needs (Debian packages, as root), builds into build/release, and takes everything down again.
set -eu
cd "$(dirname "$0")/.."

packaging/build-release.sh build demo
HOLDFAST_BIN="$PWD/build/release/bin" /usr/bin/python3 -B tests/crash/demo_cachefiles.py "$@"
