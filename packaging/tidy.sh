#!/bin/bash
# tidy.sh [--part K/N]: compiles every source file by itself, outside the unity build, and looks at it with clang-tidy
# (.clang-tidy; of test files the compiler's warnings and doubled includes).  --part takes every Nth file from the Kth on, K from 0.
# The programs it uses are those of `packaging/install-deps.sh test`.
set -euo pipefail
cd "$(dirname "$0")/.."

part=0/1
while [ $# -gt 0 ]; do
  case $1 in
    --part) part=${2:?tidy.sh: --part wants K/N}; shift ;;
    *) echo "tidy.sh: unknown argument '$1'; there is --part K/N" >&2; exit 2 ;;
  esac
  shift
done
[[ $part =~ ^[0-9]+/[1-9][0-9]*$ ]] || { echo "tidy.sh: '$part' is not K/N" >&2; exit 2; }

cmake --preset tidy >/dev/null
# The snapshotter and its tests include what protoc makes.
if cmake --build build/tidy --target help | grep '^containerd_api_sources:' >/dev/null; then
  cmake --build build/tidy --target containerd_api_sources cri_api_sources >/dev/null
fi
mapfile -t files < <(sed -nE "s|^  \"file\": \"$PWD/([^\"]*)\",?\$|\1|p" build/tidy/compile_commands.json |
  grep -v '^build/' | sort -u | awk -v k="${part%/*}" -v n="${part#*/}" 'NR % n == k % n')
printf '%s\n' "${files[@]}"
[ ${#files[@]} -gt 0 ] || { echo "tidy.sh: no file in part $part" >&2; exit 1; }

checks_of() { case $1 in tests/*) echo '--checks=-*,readability-duplicate-include' ;; esac }
export -f checks_of
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I{} bash -c '
  clang-tidy -p build/tidy --quiet $(checks_of "$1") "$1" 2>/dev/null' _ {}
echo "${#files[@]} files compile by themselves and pass clang-tidy (part $part)"
