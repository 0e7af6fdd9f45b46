"""What checking costs: one cold sequential read with --verify against one without, in turn.

Both read the same file from the same nginx on loopback, each time into a new cache, with the kernel's page cache
dropped and the origin's files read back into it.  First as fast as the machine goes, then over a link of 1 Gbit/s
(in a network namespace of its own).  Prints the medians, their ratio, and the processor time of both daemons.
"""

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cold import read_all  # noqa: E402
from harness import images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.readers import drop_page_cache  # noqa: E402
from harness.sandbox import Sandbox, processes_of  # noqa: E402
from harness.verity import with_tree  # noqa: E402

CLONE_NEWNET = 0x40000000
LINK = "1gbit"


def processor_seconds(box):
    """By program, what its processes have used up to now."""
    used = {"holdfastd": 0.0, "holdfast-fetche": 0.0}
    for pid in processes_of(box.directory):
        try:
            with open(f"/proc/{pid}/stat") as f:
                name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if name in used:
            used[name] += sum(int(ticks) for ticks in rest.split()[11:13]) / os.sysconf("SC_CLK_TCK")
    return used


def run(box, name, origin, root, size, flags):
    """Seconds of one cold read, and by program the processor's."""
    drop_page_cache()
    for served in os.listdir(root):
        with open(os.path.join(root, served), "rb") as f:
            while f.read(1 << 20):
                pass
    holdfast = Holdfast(box, name)
    path = holdfast.mount_file(origin.url("image"), *flags)
    before = processor_seconds(box)
    try:
        seconds = read_all(path, size)
        after = processor_seconds(box)
        return seconds, {program: after[program] - before[program] for program in after}
    finally:
        holdfast.umount(os.path.dirname(path))
        holdfast.stop()
        shutil.rmtree(holdfast.root)


def compare(box, runs, size_mib, link):
    root = box.make_directory("origin-" + link)
    size = size_mib << 20
    digest = with_tree(images.random_file(size), root)
    origin = Nginx(box, root, name="nginx-" + link).start()
    results = {"unverified": [], "verified": []}
    for turn in range(runs):
        for name, flags in (("unverified", ()), ("verified", (f"--verify={digest}",))):
            results[name].append(run(box, f"{link}-{name[0]}{turn}", origin, root, size, flags))
    origin.stop()
    print(f"{size_mib} MiB, cold, sequential, nginx over {link}, medians of {runs}")
    medians = {}
    for name, values in results.items():
        seconds = [value[0] for value in values]
        medians[name] = statistics.median(seconds)
        daemon, fetcher = (statistics.median(value[1][program] for value in values)
                           for program in ("holdfastd", "holdfast-fetche"))
        print(f"{name:<11} {size / 1e6 / medians[name]:>6.0f} MB/s  ({min(seconds):.2f} to {max(seconds):.2f} s; "
              f"processor: holdfastd {daemon:.2f} s, fetcher {fetcher:.2f} s)")
    print(f"verified takes {medians['verified'] / medians['unverified']:.2f} x the time of unverified", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--link-size-mib", type=int, default=192, help="the same over the link; 0: not over it")
    given = parser.parse_args()
    reasons = unmet(("fsverity", "tc"))
    if reasons:
        sys.exit("verify_cost: cannot run here: " + ", ".join(reasons))
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.exit("verify_cost: cannot make a network namespace: " + os.strerror(ctypes.get_errno()))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with Sandbox("verify-cost") as box:
        images.CACHE = box.make_directory("images")
        compare(box, given.runs, given.size_mib, "loopback")
        if given.link_size_mib:
            subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", LINK, "burst", "256kb",
                            "latency", "50ms"], check=True)
            compare(box, given.runs, given.link_size_mib, LINK)


if __name__ == "__main__":
    main()
