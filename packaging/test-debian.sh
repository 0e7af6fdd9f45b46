#!/bin/bash
# test-debian.sh [RELEASE]: builds HEAD in a fresh chroot of that Debian release (default: trixie, which is 13) as a
# user would, with the tests, and runs the unit tests there.  As root; needs mmdebstrap, and Debian's servers.
#
# Everything is in one temporary directory and goes with it.  $HOLDFAST_DEBIAN_CCACHE names a directory that keeps
# what the compiler made for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."

release=${1:-trixie}
if [ "$(id -u)" -ne 0 ] || ! command -v mmdebstrap >/dev/null; then
  echo "SKIP: test-debian.sh: it needs root and mmdebstrap"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
echo "making a chroot of $release ..."
mmdebstrap --quiet --variant=buildd "$release" "$root"
mkdir -p "$root/src" "$root/ccache"
git archive HEAD | tar -x -C "$root/src"

# What happens within ends with this script, its mounts too.
cat >"$work/within" <<'WITHIN'
set -eu
root=$1
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
[ -z "${HOLDFAST_DEBIAN_CCACHE:-}" ] || mount --bind "$HOLDFAST_DEBIAN_CCACHE" "$root/ccache"
chroot "$root" env -u TMPDIR HOME=/root CCACHE_DIR=/ccache PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -euc '
  cd /src
  echo "installing what the build and the tests need ..."
  packaging/install-deps.sh build test
  echo "building ..."
  cmake --preset release -DHOLDFAST_BUILD_TESTS=ON
  cmake --build --preset release
  ctest --test-dir build/release -L "^unit\$" --no-tests=error --output-on-failure -j2'
WITHIN
unshare --mount --pid --fork --kill-child --propagation private sh "$work/within" "$root"
