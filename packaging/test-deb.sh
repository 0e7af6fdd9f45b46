#!/bin/bash
# test-deb.sh [RELEASE]: builds HEAD's Debian packages in a chroot of that Debian release (default: the one that runs
# here), looks at them with lintian, and installs, uses, upgrades and purges them in a second, clean chroot.  As root;
# needs mmdebstrap, and Debian's servers.
#
# Everything is in one temporary directory and goes with it.  $HOLDFAST_DEBIAN_CCACHE names a directory that keeps
# what the compiler made for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."

release=${1:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
if [ "$(id -u)" -ne 0 ] || ! command -v mmdebstrap >/dev/null; then
  echo "SKIP: test-deb.sh: it needs root and mmdebstrap"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages" "$work/ccache"

# within ROOT COMMAND: in the chroot, with /dev, /proc and /sys; what it mounts and starts ends with it.
cat >"$work/within" <<'WITHIN'
set -eu
root=$1
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --bind "$2" "$root/ccache"
mount --bind "$3" "$root/packages"
exec chroot "$root" env -u TMPDIR HOME=/root CCACHE_DIR=/ccache DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -euc "$4"
WITHIN
within() {
  mkdir -p "$1/ccache" "$1/packages"
  unshare --mount --pid --fork --kill-child --propagation private \
    sh "$work/within" "$1" "${HOLDFAST_DEBIAN_CCACHE:-$work/ccache}" "$work/packages" "$2"
}

echo "making two chroots of $release ..."
mmdebstrap --quiet --variant=buildd "$release" "$work/build"
mmdebstrap --quiet --variant=important --include=procps "$release" "$work/clean"

mkdir "$work/build/src"
git archive HEAD | tar -x -C "$work/build/src"
echo "building ..."
within "$work/build" '
  cd /src
  packaging/install-deps.sh deb
  git -c init.defaultBranch=main init -q . && git add -A
  git -c user.name=test -c user.email=test@localhost commit -qm test
  packaging/build-deb.sh /packages
  apt-get install -qq -y --no-install-recommends lintian >/dev/null
  lintian --fail-on error --tag-display-limit 0 /packages/*.changes'

# The same packages, as the next version.
for package in "$work"/packages/holdfast_*.deb "$work"/packages/holdfast-snapshotter_*.deb; do
  rm -rf "$work/next"
  dpkg-deb -R "$package" "$work/next"
  sed -i 's/0\.1\.0/0.1.1/g' "$work/next/DEBIAN/control"
  dpkg-deb --root-owner-group -b "$work/next" "${package/0.1.0/0.1.1}" >/dev/null
done

cat >"$work/packages/use" <<'USE'
# Installed, used, upgraded under a mount, removed, purged.
set -eu
fail() { echo "test-deb.sh: $*" >&2; exit 1; }
before=$(find / -xdev -iname '*holdfast*' -not -path '/packages/*' -not -path '/proc/*' | sort)
apt-get update -qq
apt-get install -qq -y --no-install-recommends /packages/holdfast_0.1.0_*.deb /packages/holdfast-snapshotter_0.1.0_*.deb >/tmp/log 2>&1 || { cat /tmp/log; fail "it cannot be installed"; }
holdfast version
for file in bash-completion/completions/holdfast fish/vendor_completions.d/holdfast.fish zsh/vendor-completions/_holdfast; do
  [ -e "/usr/share/$file" ] || fail "no completion: $file"
done
getent passwd holdfast-fetcher >/dev/null || fail "no user holdfast-fetcher"

head -c 8000000 /dev/urandom >/srv/image
mkdir /mnt/image
mkdir -p /etc/holdfast
printf '[holdfastd]\nfetch-size = "128K"\n' >/etc/holdfast/default.conf
holdfast config check || fail "its own example of a configuration is wrong"
holdfast mount --persist --as=file file:///srv/image /mnt/image
holdfast config show | grep "fetch-size = 128K" || fail "the configuration does not apply"
holdfast mounts | grep "mounted  /mnt/image" || fail "the mount is not persistent"
[ -e /etc/logrotate.d/holdfast ] || fail "no configuration for logrotate"
cmp -n 1000000 /srv/image /mnt/image/image || fail "wrong bytes"
old=$(holdfast status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | sort)
exec 3</mnt/image/image  # Open over the upgrade.
apt-get install -qq -y --no-install-recommends /packages/holdfast_0.1.1_*.deb /packages/holdfast-snapshotter_0.1.1_*.deb >/tmp/log 2>&1 || { cat /tmp/log; fail "it cannot be upgraded under a mount"; }
grep holdfastd: /tmp/log || { cat /tmp/log; fail "the daemons were not swapped"; }
new=$(holdfast status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | sort)
[ "$old" != "$new" ] || fail "the daemons are the old ones"
cmp - /srv/image <&3 || fail "wrong bytes after the upgrade"
exec 3<&-

if apt-get remove -qq -y holdfast >/tmp/log 2>&1; then fail "it was removed under a mount"; fi
grep "unmount" /tmp/log || { cat /tmp/log; fail "the refusal names no cure"; }
cmp /srv/image /mnt/image/image || fail "wrong bytes after the refused removal"
dpkg --configure -a
holdfast umount /mnt/image
apt-get purge -qq -y holdfast holdfast-snapshotter >/tmp/log 2>&1 || { cat /tmp/log; fail "it cannot be purged"; }
pgrep -l holdfast && fail "processes are left"
after=$(find / -xdev -iname '*holdfast*' -not -path '/packages/*' -not -path '/proc/*' | sort)
[ "$before" = "$after" ] || fail "left: $after"
echo "installed, used, upgraded under a mount, refused to go under it, purged: ok"
USE
echo "using them ..."
within "$work/clean" 'sh /packages/use'
