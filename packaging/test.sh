#!/bin/bash
# test.sh [--full] [--seed N]: installs what the tests need (Debian packages, as root), then
#
#   dev     builds with optimisation; unit, integration and crash tests
#   asan    the engine's, the daemon's and the fetcher's unit tests under the address and
#           undefined-behaviour sanitizers
#   tsan    those of them in which threads meet, under the thread sanitizer
#   release configures what is installed: the dev build without the tests, by the same flags
#   clang   the programs with clang's thread-safety analysis; the fuzz targets, 10 s each
#
# Of the long crash tests a run takes a third, chosen by the seed, which it prints; --full takes all of them, and builds in
# a chroot of Debian 13 too (test-debian.sh).
#
# One line for each slice and a summary at the end; the full output is in build/test-logs, and that of a failed test
# is shown too.  A failing slice does not stop the others, and fails the whole.  Tests that could not run here are
# listed with their reason.
set -uo pipefail
cd "$(dirname "$0")/.."

full=
seed=$RANDOM
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --seed) seed=${2:?test.sh: --seed wants a number}; shift ;;
    *) echo "test.sh: unknown argument '$1'; there are --full and --seed N" >&2; exit 2 ;;
  esac
  shift
done

# A second checkout finds what the first has compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

logs=$PWD/build/test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed=()
began=$SECONDS

# slice NAME COMMAND...: runs it, says how it went and shows what went badly.
slice() {
  local name=$1 log=$logs/$1.log start=$SECONDS word=ok
  shift
  printf '%-22s ' "$name"
  "$@" >"$log" 2>&1 || word=FAILED
  printf '%-6s  %4d s   %s\n' $word $((SECONDS - start)) "$(outcome "$log")"
  [ $word = FAILED ] || return 0
  { failures "$log" | tail -n 100; tail -n 20 "$log"; } | sed 's/^/    | /'
  failed+=("$name")
  return 1
}

# The output of tests that failed, and where a compiler stopped.
failures() {
  awk '/: error: |^FAILED: / { print }
       / Test +#[0-9]+: .*\*\*\*(Failed|Timeout|Exception|Not Run)/ { shown = 1 }
       /^ +Start +[0-9]+: / { shown = 0 }
       shown' "$1"
}

# ctest's own closing count, where there is one.
outcome() { grep -Eo '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+' "$1" | tail -n 1; }

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  cmake --preset "$preset" && cmake --build --preset "$preset" ${1:+--target "$@"}
}

# tests PRESET LABEL [CTEST FLAG...]
tests() {
  local preset=$1 label=$2
  shift 2
  ctest --test-dir "build/$preset" -L "^$label\$" --no-tests=error --output-on-failure "$@"
}

# The long tests of this run, one a line: all, or a third of them by the seed.
long_tests() {
  ctest --test-dir build/dev -N -L '^long$' | sed -nE 's/^ +Test +#[0-9]+: (.*)/\1/p' | sort |
    awk -v full="$full" -v seed="$seed" 'full || NR % 3 == seed % 3'
}

# any NAME...: a regular expression for the tests of these binaries.
any() { echo "^($(IFS='|' && echo "$*"))\\."; }

# Where threads meet; and, for memory, also where bytes from outside are taken apart.
threaded=(cache_test device_server_test engine_model_test engine_test fetcher_client_test
  fetcher_device_test fuse_connection_test interrupts_test request_log_test
  rocksdb_metadata_store_test snapshot_store_test watchdog_test)
decoding=(data_store_test fd_store_test fetcher_parts_test metadata_schema_test notify_message_test
  presence_leaf_test presence_map_test request_table_test snapshotter_parts_test wire_test)
programs=(holdfast holdfastd holdfast-fetcherd)
fuzzers=(command_fuzz content_range_fuzz message_fuzz metadata_fuzz object_attr_fuzz presence_fuzz
  source_config_fuzz)

slice install packaging/install-deps.sh build test || exit 1

if slice dev-build build dev; then
  slice dev-unit tests dev unit -j2
  slice dev-integration tests dev integration
  slice dev-crash tests dev crash -LE '^long$'
  mapfile -t long < <(long_tests)
  echo "long tests (${full:+all of them, }--seed $seed): ${long[*]}"
  slice dev-long tests dev long -R "^($(IFS='|' && echo "${long[*]}"))\$"
fi
slice asan-build build asan "${threaded[@]}" "${decoding[@]}" && ASAN_OPTIONS=detect_leaks=1 \
  slice asan-unit tests asan unit -j2 -R "$(any "${threaded[@]}" "${decoding[@]}")"
slice tsan-build build tsan "${threaded[@]}" && TSAN_OPTIONS='ignore_noninstrumented_modules=1 halt_on_error=1' \
  slice tsan-unit tests tsan unit -j2 -R "$(any "${threaded[@]}")"
slice clang-build build clang "${programs[@]}" "${fuzzers[@]}" && slice clang-fuzz tests clang fuzz -j2
slice release-configure cmake --preset release
[ -z "$full" ] || slice debian-13 packaging/test-debian.sh trixie

echo
grep -h '\*\*\*Skipped' "$logs"/*.log | sed -E 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .*/not run here: \1/' | sort -u
grep -h '^SKIP: ' "$logs"/*.log | sort -u
if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED after $((SECONDS - began)) s: ${failed[*]} (full output: $logs)"
  exit 1
fi
echo "All passed in $((SECONDS - began)) s."
