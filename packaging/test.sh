#!/bin/bash
# Everything that is to hold: installs what the tests need (Debian packages, as root), then
#
#   dev     builds with optimisation; unit, integration and crash tests
#   asan    unit tests under the address and undefined-behaviour sanitizers
#   tsan    unit tests under the thread sanitizer
#   clang   builds with clang's thread-safety analysis; unit tests; the fuzz targets for 60 s together
#
# One line for each slice and a summary at the end; the full output is in build/test-logs.  A failing slice does
# not stop the others, and fails the whole.  Tests that could not run here are listed with their reason.
set -uo pipefail
cd "$(dirname "$0")/.."

# A second checkout finds what the first has compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

logs=$PWD/build/test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed=()
began=$SECONDS

# slice NAME COMMAND...: runs it, says how it went; shows the end of its output if it went badly.
slice() {
  local name=$1 start=$SECONDS
  shift
  printf '%-22s ' "$name"
  if "$@" >"$logs/$name.log" 2>&1; then
    printf 'ok      %4d s   %s\n' $((SECONDS - start)) "$(outcome "$logs/$name.log")"
    return 0
  fi
  printf 'FAILED  %4d s   %s\n' $((SECONDS - start)) "$(outcome "$logs/$name.log")"
  tail -n 60 "$logs/$name.log" | sed 's/^/    | /'
  failed+=("$name")
  return 1
}

# ctest's own closing count, where there is one.
outcome() { grep -Eo '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+' "$1" | tail -n 1; }

build() { cmake --preset "$1" && cmake --build --preset "$1"; }

# tests PRESET LABEL [CTEST FLAG...]
tests() {
  local preset=$1 label=$2
  shift 2
  ctest --test-dir "build/$preset" -L "^$label\$" --no-tests=error --output-on-failure "$@"
}

slice install packaging/install-deps.sh build test || exit 1

if slice dev-build build dev; then
  slice dev-unit tests dev unit -j2
  slice dev-integration tests dev integration
  slice dev-crash tests dev crash
fi
export ASAN_OPTIONS=detect_leaks=1 TSAN_OPTIONS='ignore_noninstrumented_modules=1 halt_on_error=1'
for preset in asan tsan; do
  slice $preset-build build $preset && slice $preset-unit tests $preset unit -j2
done
if slice clang-build build clang; then
  slice clang-unit tests clang unit -j2
  slice clang-fuzz tests clang fuzz
fi

echo
grep -h '\*\*\*Skipped' "$logs"/*.log | sed -E 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .*/not run here: \1/' | sort -u
grep -h '^SKIP: ' "$logs"/*.log | sort -u
if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED after $((SECONDS - began)) s: ${failed[*]} (full output: $logs)"
  exit 1
fi
echo "All passed in $((SECONDS - began)) s."
