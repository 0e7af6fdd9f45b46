"""The instructions that holdfastd's cache spends on one read of 4 KiB that is present.

    hit_cost.py [DIRECTORY...]    Each DIRECTORY has the program hit_cost of one build.  Without one:
                                  $HOLDFAST_BIN, or build/dev/bin.

A virtual machine has no counter of instructions for perf, and times differ from run to run, so callgrind
counts.  It cannot count those of a holdfastd that serves a mount: the two lock each other up.  So hit_cost.cc does
with the Cache what a FUSE thread does for each hit, from TryRead to the end of the slice.  It runs twice, with few
hits and with many; the difference is theirs alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from harness.holdfast import BIN  # noqa: E402

FEW, MANY = 1000, 11000


def instructions(program, case, hits):
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out",
                               program, case, str(hits)], capture_output=True, text=True, timeout=300)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not collected:
        sys.exit(f"hit_cost: {program}: exit {done.returncode}: {done.stderr[-2000:]}")
    return int(collected[1])


def main():
    if not shutil.which("valgrind"):
        sys.exit("hit_cost: cannot run here: no valgrind")
    for directory in sys.argv[1:] or [BIN]:
        program = os.path.join(directory, "hit_cost")
        for case in ("complete", "incomplete"):
            cost = (instructions(program, case, MANY) - instructions(program, case, FEW)) / (MANY - FEW)
            print(f"{directory}: {case} object: {cost:.0f} instructions per 4 KiB hit", flush=True)


if __name__ == "__main__":
    main()
