"""Who may include whom, and how long files and functions may be (docs/HACKING.md)."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("cachecore", "fusefs", "fetcher", "cli", "snapshotter")

# The part of cachecore/ that has neither engine nor disk in it, for every program.
BASE = re.compile(
    r"cachecore/(block_hasher|byte_range|clock|fault_point|ids|limits|metrics|mutex|parse_text|pinned_file|"
    r"process_limits|program_help|secret_environment|secret_file|service_environment|status|tree_cache|"
    r"unique_fd|verity_tree|wire)\.(h|def)$")
# What is mounted, which holdfast-snapshotter asks too.
MOUNTS = re.compile(r"cli/(instance|mount_record|mount_table|own_mounts)\.h$")
# What protoc makes of containerd's interface.
CONTAINERD_API = re.compile(r"github\.com/containerd/containerd/api/[\w/.]+\.pb\.h$")
MAY_INCLUDE = {
    "cachecore": lambda path: path.startswith("cachecore/"),
    "fusefs": lambda path: path.startswith(("cachecore/", "fusefs/")),
    "fetcher": lambda path: path.startswith("fetcher/") or BASE.match(path),
    "cli": lambda path: path.startswith(("cachecore/", "cli/")),
    "snapshotter": lambda path: (path.startswith("snapshotter/") or BASE.match(path) or MOUNTS.match(path)
                                 or CONTAINERD_API.match(path)),
}
# Which files may include an outside library.
ONLY_IN = (
    (re.compile(r"rocksdb/"), re.compile(
        r"cachecore/rocksdb_\w+\.(h|cc)$|tests/cachecore/|tests/integration/damage_record\.cc$")),
    (re.compile(r"fuse\w*\.h$|fuse3?/|linux/fuse\.h"), re.compile(r"fusefs/|tests/(fusefs|crash)/")),
    (re.compile(r"grpc|google/protobuf/|github\.com/containerd/"), re.compile(
        r"snapshotter/snapshot(_service|ter_main)\.(h|cc)$|tests/snapshotter/cri_image\.cc$")),
    (re.compile(r"intel-ipsec-mb\.h"), re.compile(r"cachecore/multi_hasher\.cc$")),
    (re.compile(r"curl/"), re.compile(r"fetcher/http_\w+\.(h|cc)$|tests/fetcher/")),
)
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
# Places that exist on one machine only.
FOREIGN_PATH = re.compile(r"/(?:work|home/\w+|root|Users)/[\w.]")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70


def tracked_files():
    """What git knows, or, in an exported tree, what there is."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode == 0:
        return [path for path in listed.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, path))]
    return [os.path.relpath(os.path.join(folder, name), ROOT)
            for folder, _, names in os.walk(ROOT) for name in names
            if not os.path.relpath(folder, ROOT).startswith("build")]


def include_faults(path, lines):
    folder = path.split("/")[0]
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quoted, target = match[1] == '"', match[2]
        if quoted and folder in MAY_INCLUDE and not MAY_INCLUDE[folder](target):
            yield f"{path}:{number}: {folder}/ may not include {target}"
        for library, places in ONLY_IN:
            if library.match(target) and not target.startswith(FOLDERS) and not places.match(path):
                yield f"{path}:{number}: {target} may only be included by {places.pattern}"


def length_faults(path, lines):
    """Functions as clang-format lays them out: they end with a brace in the column they began in."""
    if not path.startswith("tests/") and len(lines) > MAX_FILE_LINES:
        yield f"{path}: {len(lines)} lines, at most {MAX_FILE_LINES}"
    start = None
    for number, line in enumerate(lines, 1):
        if re.match(r"[A-Za-z~].*\{$", line) and not re.match(
                r"(namespace|class|struct|enum|union|extern|constexpr|const|static const)\b", line):
            start = number
        elif re.match(r"[A-Za-z~ ].*\) (const )?(noexcept )?\{$", line) and start is None:
            start = number
        elif line == "}" and start is not None:
            if number - start + 1 > MAX_FUNCTION_LINES:
                yield f"{path}:{start}: {number - start + 1} lines in a function, at most {MAX_FUNCTION_LINES}"
            start = None


def faults():
    for path in tracked_files():
        try:
            with open(os.path.join(ROOT, path)) as f:
                lines = f.read().splitlines()
        except UnicodeDecodeError:
            continue  # A fuzz corpus, an image.
        if path.endswith((".h", ".cc", ".def")):
            yield from include_faults(path, lines)
            yield from length_faults(path, lines)
        if path != "tests/layering_test.py":
            for number, line in enumerate(lines, 1):
                if FOREIGN_PATH.search(line):
                    yield f"{path}:{number}: names a place outside the tree: {line.strip()}"


def self_test():
    """A checker that finds nothing must have been able to."""
    long_function = ["void F() {"] + ["  x();"] * MAX_FUNCTION_LINES + ["}"]
    must_fail = (
        list(include_faults("cachecore/x.cc", ['#include "fusefs/daemon.h"'])),
        list(include_faults("fetcher/x.cc", ['#include "cachecore/cache.h"'])),
        list(include_faults("fetcher/x.cc", ['#include "fusefs/daemon.h"'])),
        list(include_faults("cli/x.cc", ['#include "fetcher/client.h"'])),
        list(include_faults("cachecore/cache.cc", ["#include <rocksdb/db.h>"])),
        list(include_faults("cli/x.cc", ["#include <fuse_lowlevel.h>"])),
        list(include_faults("snapshotter/x.cc", ['#include "cli/process.h"'])),
        list(include_faults("snapshotter/snapshot_store.cc", ["#include <grpcpp/grpcpp.h>"])),
        list(include_faults("fetcher/client.cc", ["#include <curl/curl.h>"])),
        list(length_faults("cli/x.cc", long_function)),
        list(length_faults("cli/x.cc", [""] * (MAX_FILE_LINES + 1))),
    )
    return all(must_fail) and not list(include_faults("fusefs/x.cc", ['#include "fusefs/fuse_ops.h"']))


def main():
    if not self_test():
        print("the layering test no longer finds what it is for")
        return 1
    found = sorted(faults())
    print("\n".join(found) or "every include, file and function keeps to the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
