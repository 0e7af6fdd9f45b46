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
# Of the long crash tests a run takes an eighth, chosen by the seed, which it prints; --full takes all of them.  Of the
# source files a run compiles a fiftieth, each by itself, and looks at them with clang-tidy (tidy.sh); --full takes all.
# --full also builds in a chroot of Debian 13 (test-debian.sh).
#
# One line for each slice and a summary at the end; the full output is in build/test-logs, and that of a failed test
# is shown too.  The last lines name the failed tests and their assertions again (failed-lines.awk).  A failing slice
# does not stop the others, and fails the whole.  Tests that could not run here are listed with their reason.
#
# A unit or integration test that fails beside others runs once more by itself, when at most two of its slice failed.
# One that passes then does not fail the run: it is listed as unstable at the end, with its assertions, and is a defect
# to be mended.  Crash tests and sanitizers have no second run: what they find comes by chance.
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
  [ ! -e "$logs/$name.unstable" ] || [ $word = FAILED ] || word=unstable
  printf '%-8s %4d s   %s\n' $word $((SECONDS - start)) "$(outcome "$log")"
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
outcome() {
  grep -Eo '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+|^[0-9]+ files compile .*' "$1" | head -n 1
}

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

# tests_beside_others PRESET LABEL [CTEST FLAG...]: gives at most two tests that fail a second run, by themselves.
tests_beside_others() {
  tests "$@" && return
  local list=build/$1/Testing/Temporary/LastTestsFailed.log
  cp "$list" "$logs/$1-$2.first"
  [ "$(wc -l <"$logs/$1-$2.first")" -le 2 ] || return 1
  echo "Once more, by themselves:"
  ctest --test-dir "build/$1" --rerun-failed --no-tests=error --output-on-failure || return 1
  mv "$logs/$1-$2.first" "$logs/$1-$2.unstable"
}

# The long tests of this run, one a line: all, or an eighth of them by the seed.
long_tests() {
  ctest --test-dir build/dev -N -L '^long$' | sed -nE 's/^ +Test +#[0-9]+: (.*)/\1/p' | sort |
    awk -v full="$full" -v seed="$seed" 'full || NR % 8 == seed % 8'
}

# any NAME...: a regular expression for the tests of these binaries.
any() { echo "^($(IFS='|' && echo "$*"))\\."; }

# Where threads meet; and, for memory, also where bytes from outside are taken apart.
threaded=(cache_test control_ops_test control_server_test device_model_test device_server_test engine_model_test
  engine_test fetcher_client_test fetcher_device_test fuse_connection_test fuse_server_test fuse_takeover_test interrupts_test
  request_log_test rocksdb_metadata_store_test sanitizer_test snapshot_store_test watchdog_test)
decoding=(data_store_test fetcher_parts_test metadata_schema_test notify_message_test
  presence_leaf_test presence_map_test request_table_test snapshotter_parts_test stored_descriptors_test wire_test)
programs=(holdfast holdfastd holdfast-fetcherd holdfast-injectd holdfast-metricsd)
fuzzers=(command_fuzz content_range_fuzz message_fuzz metadata_fuzz object_attr_fuzz presence_fuzz
  source_config_fuzz)


# What the sanitizers and clang want, one after the other, with the processor time that the tests leave: these wait
# more than they compute.  built NAME ends as the build of that name did, with its output.
builds() {
  renice -n 19 "$BASHPID"
  build asan "${threaded[@]}" "${decoding[@]}" >"$logs/asan.out" 2>&1 && touch "$logs/asan.ok"
  build tsan "${threaded[@]}" >"$logs/tsan.out" 2>&1 && touch "$logs/tsan.ok"
  build clang "${programs[@]}" "${fuzzers[@]}" >"$logs/clang.out" 2>&1 && touch "$logs/clang.ok"
  local part=$((seed % 50))/50
  [ -z "$full" ] || part=0/1
  packaging/tidy.sh --part "$part" >"$logs/tidy.out" 2>&1 && touch "$logs/tidy.ok"
}
built() {
  wait "$builder"
  cat "$logs/$1.out"
  [ -e "$logs/$1.ok" ]
}

slice install packaging/install-deps.sh build test || exit 1

slice dev-build build dev || dev=failed
set -m  # In a process group of their own, which ends with this script.
builds >/dev/null &
builder=$!
set +m
trap 'kill -- "-$builder" 2>/dev/null' EXIT
if [ -z "${dev:-}" ]; then
  slice dev-unit tests_beside_others dev unit -j2
  slice dev-integration tests_beside_others dev integration -j3  # They mostly wait.
  slice dev-crash tests dev crash -LE '^long$'
  mapfile -t long < <(long_tests)
  echo "long tests (${full:+all of them, }--seed $seed): ${long[*]}"
  slice dev-long tests dev long -R "^($(IFS='|' && echo "${long[*]}"))\$"
fi
slice asan-build built asan && ASAN_OPTIONS=detect_leaks=1 \
  slice asan-unit tests asan unit -j2 -R "$(any "${threaded[@]}" "${decoding[@]}")"
slice tsan-build built tsan && TSAN_OPTIONS='ignore_noninstrumented_modules=1 halt_on_error=1' \
  slice tsan-unit tests tsan unit -j2 -R "$(any "${threaded[@]}")"
slice clang-build built clang && slice clang-fuzz tests clang fuzz -j2
slice tidy built tidy
slice release-configure cmake --preset release
[ -z "$full" ] || slice debian-13 packaging/test-debian.sh trixie

echo
grep -h '\*\*\*Skipped' "$logs"/*.log | sed -E 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .*/not run here: \1/' | sort -u
grep -h '^SKIP: ' "$logs"/*.log | sort -u
for unstable in "$logs"/*.unstable; do
  [ -e "$unstable" ] || continue
  echo "UNSTABLE, failed beside other tests and passed alone: $(sed 's/^[0-9]*://' "$unstable" | tr '\n' ' ')"
  awk -v max=20 -f packaging/failed-lines.awk "${unstable%.unstable}.log" | sed 's/^/  /'
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED after $((SECONDS - began)) s: ${failed[*]} (full output: $logs)"
  # At most 40 lines, since a reader may have only the end of this output.
  share=$((40 / ${#failed[@]}))
  for name in "${failed[@]}"; do
    echo "$name:"
    awk -v max=$((share > 3 ? share - 1 : 2)) -f packaging/failed-lines.awk "$logs/$name.log" | sed 's/^/  /'
  done
  exit 1
fi
echo "All passed in $((SECONDS - began)) s."
