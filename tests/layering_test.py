"""Which folder may include which, and how long files and functions may be (docs/design.md, "Folders and direction")."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What all of cachecore/ that has neither engine nor disk in it is, for every program.
BASE = ("cachecore/base", "cachecore/environment", "cachecore/logging", "cachecore/system", "cachecore/totals")
DOMAIN = BASE + ("cachecore/values", "cachecore/protocol", "cachecore/verity")
# A folder, and the folders that its files may include beside their own.  A folder that is not here may not have files.
MAY_INCLUDE = {
    "cachecore/base": (),
    "cachecore/environment": ("cachecore/base",),
    "cachecore/logging": ("cachecore/base",),
    "cachecore/system": ("cachecore/base", "cachecore/environment"),
    # Links libcurl, which holdfastd does without.
    "cachecore/url": ("cachecore/base",),
    "cachecore/totals": ("cachecore/base",),
    "cachecore/values": ("cachecore/base",),
    "cachecore/verity": ("cachecore/base",),
    "cachecore/protocol": ("cachecore/base", "cachecore/values", "cachecore/verity"),
    "cachecore/store": ("cachecore/base", "cachecore/values", "cachecore/verity"),
    "cachecore/policy": ("cachecore/base", "cachecore/store"),
    "cachecore/offline": ("cachecore/base", "cachecore/values", "cachecore/protocol", "cachecore/store", "cachecore/policy"),
    "cachecore/engine": DOMAIN + ("cachecore/store",),
    "cachecore/cache": DOMAIN + ("cachecore/store", "cachecore/policy", "cachecore/engine"),
    "fusefs/service": BASE,
    "fusefs/server": BASE + ("cachecore/cache", "fusefs/service"),
    "fusefs/device": BASE + ("cachecore/cache", "cachecore/protocol", "fusefs/service"),
    "fusefs/cachefiles": BASE + ("cachecore/values", "cachecore/protocol", "cachecore/cache", "fusefs/cachefiles/preload", "fusefs/inject", "fusefs/service",
                                 "fusefs/server"),
    "fusefs/inject": BASE + ("fusefs/cachefiles/preload",),
    # Linked into other people's programs.
    "fusefs/cachefiles/preload": ("fusefs/cachefiles/preload/holdfast",),
    "fusefs/cachefiles/preload/holdfast": (),
    "fusefs/control": BASE + ("cachecore/cache", "cachecore/policy", "cachecore/protocol", "fusefs/device", "fusefs/server"),
    "fusefs": BASE + ("cachecore/cache", "cachecore/policy", "cachecore/protocol", "cachecore/store", "fusefs/service", "fusefs/server", "fusefs/cachefiles", "fusefs/device", "fusefs/control"),
    "fetcher/client": DOMAIN,
    "fetcher/source": DOMAIN + ("cachecore/url",),
    "fetcher/transfer": DOMAIN,
    "fetcher/http": DOMAIN + ("cachecore/url", "fetcher/source", "fetcher/transfer"),
    "fetcher/auth": DOMAIN + ("cachecore/url", "fetcher/source", "fetcher/transfer", "fetcher/http"),
    "fetcher/origins": DOMAIN + ("cachecore/url", "fetcher/source", "fetcher/transfer", "fetcher/http", "fetcher/auth"),
    "fetcher/room": DOMAIN + ("fetcher/transfer",),
    "fetcher/engine": DOMAIN + ("cachecore/url", "fetcher/client", "fetcher/source", "fetcher/transfer", "fetcher/origins", "fetcher/room"),
    "fetcher": DOMAIN + ("fetcher/source", "fetcher/engine"),
    "host/notify": BASE,
    "host/supervisor": BASE + ("host/notify",),
    "host/instance": BASE + ("cachecore/protocol", "host/supervisor"),
    "host/config": BASE + ("host/instance",),
    "host/content": BASE,
    "host/mounts": BASE + ("cachecore/protocol", "host/content", "host/instance"),
    "host/service": BASE + ("cachecore/protocol", "host/supervisor", "host/instance", "host/config", "host/mounts"),
    "host/report": BASE + ("cachecore/protocol", "host/instance", "host/mounts", "host/service"),
    "host/watch": BASE + ("cachecore/protocol", "host/instance", "host/mounts", "host/service"),
    "host/registries": BASE + ("cachecore/url",),
    "host/images": DOMAIN + ("cachecore/url", "host/instance", "host/registries"),
    "host/build": BASE + ("host/instance", "host/registries", "host/images"),
    "host/mount": DOMAIN + ("host/instance", "host/config", "host/mounts", "host/service", "host/registries", "host/content", "host/images"),
    "host/containers": BASE + ("host/instance", "host/mounts", "host/service", "host/registries", "host/images", "host/mount"),
    "host/cachefiles": BASE + ("fusefs/cachefiles/preload", "fusefs/inject"),
    "host/cache": BASE + ("cachecore/protocol", "host/instance", "host/mounts", "host/service", "host/mount"),
    "cli": DOMAIN + ("cachecore/store", "cachecore/policy", "cachecore/offline", "host/supervisor", "host/instance", "host/config", "host/service",
                     "host/registries", "host/images", "host/build", "host/mount", "host/cache", "host/containers", "host/cachefiles", "host/report", "host/watch"),
    "cli/watch": BASE + ("cachecore/protocol", "host/instance", "host/service", "host/report", "host/watch", "cli"),
    "snapshotter": BASE + ("host/instance", "host/mounts"),
}
# What protoc makes of containerd's interface.
CONTAINERD_API = re.compile(r"github\.com/containerd/containerd/api/[\w/.]+\.pb\.h$")
# Which files may include an outside library.
ONLY_IN = (
    (re.compile(r"rocksdb/"), re.compile(
        r"cachecore/store/|tests/cachecore/|tests/integration/(\w+/)?damage_record\.cc$")),
    (re.compile(r"fuse\w*\.h$|fuse3?/|linux/fuse\.h"), re.compile(r"fusefs/|tests/(fusefs|crash)/")),
    (re.compile(r"grpc|google/protobuf/|github\.com/containerd/"), re.compile(
        r"snapshotter/snapshot(_service|ter_main)\.(h|cc)$|tests/snapshotter/cri_image\.cc$")),
    (re.compile(r"re2/"), re.compile(r"snapshotter/filter\.cc$")),
    (re.compile(r"intel-ipsec-mb\.h"), re.compile(r"cachecore/verity/multi_hasher\.cc$")),
    (re.compile(r"seccomp\.h$"), re.compile(r"host/cachefiles/")),
    (re.compile(r"toml\+\+/"), re.compile(r"host/(config|registries)/")),
    (re.compile(r"prometheus/"), re.compile(r"host/service/")),
    (re.compile(r"microhttpd\.h"), re.compile(r"host/service/metrics_server\.cc$")),
    (re.compile(r"curl/"), re.compile(r"fetcher/http/|cachecore/url/|tests/fetcher/")),
)
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
# Places that exist on one machine only.
FOREIGN_PATH = re.compile(r"/(?:work|home/\w+|root|Users)/[\w.]")
# The compiler finds the others: Status and Result are [[nodiscard]].
DROPPED_ERROR = re.compile(r"^\s*(?:\(void\)|static_cast<void>\().*\.(?:ok|status)\(\)\)?;|^\s+\w[\w:.]*\([^=]*\)\.ok\(\);")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
MAX_FILES_OF_A_FOLDER = 25


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
    folder = os.path.dirname(path)
    is_test = folder.startswith("tests")
    if not is_test and folder not in MAY_INCLUDE:
        yield f"{path}: {folder}/ is not in the table of tests/layering_test.py"
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match[2]
        other = os.path.dirname(target)
        if match[1] == '"' and not is_test and other != folder and other not in MAY_INCLUDE[folder] and not (
                folder == "snapshotter" and CONTAINERD_API.match(target)):
            yield f"{path}:{number}: {folder}/ may not include {target}"
        for library, places in ONLY_IN:
            if library.match(target) and other not in MAY_INCLUDE and not places.match(path):
                yield f"{path}:{number}: {target} may only be included by {places.pattern}"


def cycle_faults():
    """The table itself must have a direction."""
    left = {folder: set(others) for folder, others in MAY_INCLUDE.items()}
    while left:
        lowest = [folder for folder, others in left.items() if not others & left.keys()]
        if not lowest:
            yield f"tests/layering_test.py: the table goes in a circle: {', '.join(sorted(left))}"
            return
        for folder in lowest:
            del left[folder]


def folder_faults(paths):
    counts = {}
    for path in paths:
        folder = os.path.dirname(path)
        counts[folder] = counts.get(folder, 0) + 1
    for folder, count in counts.items():
        if count > MAX_FILES_OF_A_FOLDER:
            yield f"{folder}/: {count} files, at most {MAX_FILES_OF_A_FOLDER}"


def length_faults(path, lines):
    """Functions as clang-format lays them out: they end with a brace in the column they began in."""
    if len(lines) > MAX_FILE_LINES:
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


def dropped_error_faults(path, lines):
    """A Status that is not used says why, by IgnoreError."""
    for number, line in enumerate(lines, 1):
        if DROPPED_ERROR.search(line):
            yield f"{path}:{number}: drops an error without IgnoreError(\"why\"): {line.strip()}"


def faults():
    paths = tracked_files()
    yield from cycle_faults()
    yield from folder_faults(paths)
    for path in paths:
        try:
            with open(os.path.join(ROOT, path)) as f:
                lines = f.read().splitlines()
        except UnicodeDecodeError:
            continue  # A fuzz corpus, an image.
        if path.endswith((".h", ".cc", ".def")):
            yield from include_faults(path, lines)
            yield from length_faults(path, lines)
            yield from dropped_error_faults(path, lines)
        if path != "tests/layering_test.py":
            for number, line in enumerate(lines, 1):
                if FOREIGN_PATH.search(line):
                    yield f"{path}:{number}: names a place outside the tree: {line.strip()}"


def self_test():
    """A checker that finds nothing must have been able to."""
    long_function = ["void F() {"] + ["  x();"] * MAX_FUNCTION_LINES + ["}"]
    must_fail = (
        list(include_faults("cachecore/engine/x.cc", ['#include "fusefs/daemon.h"'])),
        list(include_faults("cachecore/store/x.cc", ['#include "cachecore/engine/engine.h"'])),
        list(include_faults("cachecore/engine/x.cc", ['#include "cachecore/cache/cache.h"'])),
        list(include_faults("fusefs/server/x.cc", ['#include "cachecore/engine/engine.h"'])),
        list(include_faults("cachecore/x.cc", [])),
        list(include_faults("fetcher/engine/x.cc", ['#include "cachecore/cache/cache.h"'])),
        list(include_faults("fetcher/http/x.cc", ['#include "fetcher/origins/s3_backend.h"'])),
        list(include_faults("host/supervisor/x.cc", ['#include "host/instance/instance.h"'])),
        list(include_faults("host/instance/x.cc", ['#include "host/images/image_source.h"'])),
        list(include_faults("host/mount/x.cc", ['#include "cli/command.h"'])),
        list(include_faults("cli/x.cc", ['#include "fetcher/client/client.h"'])),
        list(include_faults("cachecore/cache/cache.cc", ["#include <rocksdb/db.h>"])),
        list(include_faults("cli/x.cc", ["#include <fuse_lowlevel.h>"])),
        list(include_faults("snapshotter/snapshot_store.cc", ["#include <grpcpp/grpcpp.h>"])),
        list(include_faults("fetcher/client/client.cc", ["#include <curl/curl.h>"])),
        list(length_faults("cli/x.cc", long_function)),
        list(length_faults("cli/x.cc", [""] * (MAX_FILE_LINES + 1))),
        list(dropped_error_faults("cli/x.cc", ["  (void)Remove(path).ok();"])),
        list(dropped_error_faults("cli/x.cc", ["  Remove(path).ok();"])),
        list(folder_faults([f"cli/{n}.cc" for n in range(MAX_FILES_OF_A_FOLDER + 1)])),
    )
    return all(must_fail) and not list(include_faults("fusefs/server/x.cc", ['#include "fusefs/server/fuse_ops.h"']))


def main():
    if not self_test():
        print("the layering test no longer finds what it is for")
        return 1
    found = sorted(faults())
    print("\n".join(found) or "every include, file and function keeps to the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
