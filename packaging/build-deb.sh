#!/bin/sh
# build-deb.sh [DIRECTORY]: builds HEAD's Debian packages into DIRECTORY (default: build/deb), by dpkg-buildpackage and
# without the network.  The packages that it needs are those of `packaging/install-deps.sh deb`.
#
# packaging/debian is where dpkg expects debian/ to be: in a copy of the tree.
set -eu
cd "$(dirname "$0")/.."

mkdir -p "${1:-build/deb}"
out=$(realpath "${1:-build/deb}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/holdfast"
git archive HEAD | tar -x -C "$work/holdfast"
mv "$work/holdfast/packaging/debian" "$work/holdfast/debian"
echo "building the packages ..."
log=$out/build.log
if ! (cd "$work/holdfast" && dpkg-buildpackage --build=binary --unsigned-changes) >"$log" 2>&1; then
  tail -n 50 "$log" >&2
  echo "build-deb.sh: dpkg-buildpackage failed; its whole output is in $log" >&2
  exit 1
fi
mv "$work"/*.deb "$work"/*.buildinfo "$work"/*.changes "$out/"
ls "$out"/*.deb
