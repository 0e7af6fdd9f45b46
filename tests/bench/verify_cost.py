"""What checking costs: one cold sequential read with --verify against one without, in turn.

Both read the same file from the same nginx on loopback, each time into a new cache, with the kernel's page cache
dropped and the origin's files read back into it.  Prints the medians and their ratio.
"""

import argparse
import os
import shutil
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cold import read_all  # noqa: E402
from harness import images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.nginx import Nginx  # noqa: E402
from harness.readers import drop_page_cache  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from harness.verity import with_tree  # noqa: E402


def run(box, name, origin, root, size, flags):
    """Seconds of one cold read."""
    drop_page_cache()
    for served in os.listdir(root):
        with open(os.path.join(root, served), "rb") as f:
            while f.read(1 << 20):
                pass
    holdfast = Holdfast(box, name)
    path = holdfast.mount_file(origin.url("image"), *flags)
    try:
        return read_all(path, size)
    finally:
        holdfast.umount(os.path.dirname(path))
        holdfast.stop()
        shutil.rmtree(holdfast.root)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=512)
    given = parser.parse_args()
    reasons = unmet(("fsverity",))
    if reasons:
        sys.exit("verify_cost: cannot run here: " + ", ".join(reasons))
    with Sandbox("verify-cost") as box:
        images.CACHE = box.make_directory("images")
        root = box.make_directory("origin")
        size = given.size_mib << 20
        digest = with_tree(images.random_file(size), root)
        origin = Nginx(box, root).start()
        seconds = {"unverified": [], "verified": []}
        for turn in range(given.runs):
            for name, flags in (("unverified", ()), ("verified", (f"--verify={digest}",))):
                seconds[name].append(run(box, f"{name[0]}{turn}", origin, root, size, flags))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        print(f"{given.size_mib} MiB, cold, sequential, nginx on loopback, medians of {given.runs}")
        for name, values in seconds.items():
            print(f"{name:<11} {size / 1e6 / medians[name]:>6.0f} MB/s  ({min(values):.2f} to {max(values):.2f} s)")
        print(f"verified takes {medians['verified'] / medians['unverified']:.2f} x the time of unverified")


if __name__ == "__main__":
    main()
