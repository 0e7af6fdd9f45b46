"""Every lock of the programs is in the table of docs/design.md, "Locks", and every lock of the table exists."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("cachecore", "fusefs", "fetcher", "host", "cli", "snapshotter")
DECLARATION = re.compile(r"^\s*(?:mutable )?(?:(?:cachecore::)?Mutex|std::(?:shared_)?mutex) (\w+);")
ROW = re.compile(r"^\| (\d+) \| `([\w/.]+)` `(\w+)` \|")


def declared():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", *FOLDERS],
                            capture_output=True, text=True).stdout.splitlines()
    for path in listed:
        if path == "cachecore/base/mutex.h" or not path.endswith((".h", ".cc")):
            continue
        if not os.path.isfile(os.path.join(ROOT, path)):
            continue
        with open(os.path.join(ROOT, path)) as f:
            for line in f:
                match = DECLARATION.match(line)
                if match:
                    yield f"{path}:{match[1]}"


def table(lines):
    """(level, lock) of each row, in order."""
    return [(int(m[1]), f"{m[2]}:{m[3]}") for m in map(ROW.match, lines) if m]


def faults(locks, rows):
    in_table = [lock for _, lock in rows]
    yield from (f"docs/design.md: {lock} is not in the table of locks" for lock in locks if lock not in in_table)
    yield from (f"docs/design.md: {lock} is in the table of locks and does not exist" for lock in in_table if lock not in locks)
    if [level for level, _ in rows] != sorted(level for level, _ in rows):
        yield "docs/design.md: the table of locks is not in the order of its levels"


def self_test():
    """A checker that finds nothing must have been able to."""
    rows = table(["| 1 | `a/b.h` `mu_` | text |", "| 2 | `a/c.h` `mu_` | text |"])
    locks = ["a/b.h:mu_", "a/c.h:mu_"]
    return (not list(faults(locks, rows)) and list(faults(locks + ["a/d.h:mu_"], rows)) and list(faults(locks[:1], rows))
            and list(faults(locks, rows[::-1])))


def main():
    if not self_test():
        print("the lock order test no longer finds what it is for")
        return 1
    locks = list(declared())
    if not locks:
        print("SKIP: not a checkout: git lists no file")
        return 77
    with open(os.path.join(ROOT, "docs/design.md")) as f:
        rows = table(f)
    found = list(faults(locks, rows))
    print("\n".join(found) or f"{len(locks)} locks are in the order of docs/design.md")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
