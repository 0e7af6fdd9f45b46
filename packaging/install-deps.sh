#!/bin/sh
# Installs, as root, the Debian packages that are missing here: install-deps.sh GROUP...
#
#   build   to compile the three programs
#   snapshotter   to compile holdfast-snapshotter too (with `build`)
#   test    to build and run every test (with `build`)
#   demo    to run packaging/demo.sh (with `build`)
#   demo-container  to run packaging/demo-container.sh (with `build`)
#   deb     to build the Debian packages (packaging/build-deb.sh)
#   bench   what tests/bench/cold.sh compares with
#
# Quiet when all is there or all goes well.
set -eu

build='build-essential ccache cmake libarchive-dev libblkid-dev libcli11-dev libcurl4-openssl-dev libfuse3-dev libgflags-dev
  libgoogle-glog-dev libmicrohttpd-dev libmount-dev librocksdb-dev libseccomp-dev libssl-dev libsystemd-dev libtomlplusplus-dev libxxhash-dev mold ninja-build nlohmann-json3-dev prometheus-cpp-dev
  perl pkg-config fuse3'
# Debian has it for this architecture alone; the build goes without it too.
[ "$(dpkg --print-architecture)" != amd64 ] || build="$build libipsec-mb-dev"
snapshotter='golang-github-containerd-containerd-dev libgrpc++-dev libprotobuf-dev libre2-dev protobuf-compiler
  protobuf-compiler-grpc'
deb='debhelper fakeroot git'
demo='erofs-utils libnginx-mod-http-echo nginx-light python3'
test="$demo $snapshotter acl apache2-bin apache2-utils btrfs-progs busybox-static clang clang-format clang-tidy containerd docker-registry dosfstools f2fs-tools fdisk fio fish
  fsverity genisoimage git golang-go libbenchmark-dev libc6-dev libcap2-bin libgmock-dev libgtest-dev lighttpd logrotate openssl prometheus runc skopeo squashfs-tools strace systemd tcc umoci xfsprogs zsh zstd"
demo_container="$demo docker-registry fsverity mmdebstrap runc skopeo"
# For an S3 server; a node from elsewhere brings its own, with which Debian's conflicts.
command -v npm >/dev/null || test="$test npm"
bench="$demo curl rclone s3fs"

wanted=
for group in "${@:-build}"; do
  case $group in
    build) wanted="$wanted $build" ;;
    snapshotter) wanted="$wanted $snapshotter" ;;
    test) wanted="$wanted $test" ;;
    demo) wanted="$wanted $demo" ;;
    demo-container) wanted="$wanted $demo_container" ;;
    bench) wanted="$wanted $bench" ;;
    deb) wanted="$wanted $build $snapshotter $deb" ;;
    *) echo "install-deps.sh: no group '$group'; there are build, snapshotter, test, demo, demo-container, bench, deb" >&2; exit 2 ;;
  esac
done

missing=
for package in $wanted; do
  case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "install-deps.sh: not root; install these yourself:$missing" >&2
  exit 1
fi
log=$(mktemp)
made_policy=
trap 'rm -f "$log" $made_policy' EXIT
# nginx's own service is not to be started: the tests start theirs, on ports of their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  made_policy=/usr/sbin/policy-rc.d
  printf '#!/bin/sh\nexit 101\n' >"$made_policy"
  chmod 755 "$made_policy"
fi
# A machine that updates itself after boot holds the locks of apt and dpkg for a while.  apt-get waits for dpkg's by
# itself; for that of its lists it does not.
patience_s=600
update() {
  waited_s=0
  until apt-get -q update >"$log" 2>&1; do
    grep -q 'Could not get lock' "$log" && [ "$waited_s" -lt "$patience_s" ] || return 1
    sleep 1
    waited_s=$((waited_s + 1))
  done
}
status=0
{ update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=$patience_s \
  -o Dpkg::Options::=--force-confold install $missing; } >>"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
  cat "$log" >&2
  echo "install-deps.sh: could not install:$missing" >&2
fi
exit "$status"
