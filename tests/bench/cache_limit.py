"""Images that are larger together than the cache, read in turn and at random through a cache with a limit.

    cache_limit.py [--images 100] [--size 50M] [--limit 500M] [--reads 300] [--kills]

Each read is of a whole image, and compared with the image.  For each order of reads it prints the hit ratio, in
bytes, beside that of an LRU cache of the same size which is asked for the same parts of 4 MiB in the same order; how
far above the limit the data files were at most; and the throughput beside that of a cache without a limit.  With
--kills holdfastd and the fetcher are killed in turn, every fifth read.  It fails where a byte is wrong, a read fails,
the cache is above its limit by more than 64 MB, or the ratio is more than 5 points below that of the simulation.
"""

import argparse
import collections
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from harness import images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.readers import drop_page_cache  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402

MB = 1 << 20
PART = 4 * MB
OVER = 64 * MB
WORSE = 0.05


def parse_size(text):
    return int(text[:-1]) * {"M": MB, "G": 1024 * MB}[text[-1]]


def simulate(order, size, limit):
    """The hit ratio of an LRU cache."""
    parts, hits, room = collections.OrderedDict(), 0, 0
    for number in order:
        for begin in range(0, size, PART):
            length = min(PART, size - begin)
            if (number, begin) in parts:
                hits += length
                parts.move_to_end((number, begin))
                continue
            parts[number, begin] = length
            room += length
            while room > limit:
                room -= parts.popitem(last=False)[1]
    return hits / (len(order) * size)


class Watch(threading.Thread):
    """The most that the data files have taken."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self._directory, self._ended, self.most = directory, threading.Event(), 0
        self.start()

    def run(self):
        while not self._ended.wait(0.02):
            total = 0
            for where, _, names in os.walk(self._directory):
                for name in names:
                    total += os.stat(os.path.join(where, name)).st_blocks * 512
            self.most = max(self.most, total)

    def end(self):
        self._ended.set()
        self.join()
        return self.most


class Bench:
    def __init__(self, box, options):
        self.box, self.options = box, options
        self.size, self.limit = parse_size(options.size), parse_size(options.limit)
        self.root = box.make_directory("root")
        for number in range(options.images):
            images.write_random(self.truth(number), self.size, 900 + number)
        self.origin = Nginx(box, self.root).start()

    def truth(self, number):
        return os.path.join(self.root, f"image{number}")

    def read(self, path, number):
        with open(path, "rb", buffering=0) as f, open(self.truth(number), "rb", buffering=0) as right:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # Of the cache, not of the kernel's.
            while piece := right.read(MB):
                got = b""
                while len(got) < len(piece):
                    more = f.read(len(piece) - len(got))
                    if not more:
                        sys.exit(f"image {number} ends early")
                    got += more
                if got != piece:
                    sys.exit(f"image {number}: wrong bytes")

    def run(self, name, order, limit, kills):
        """(seconds, bytes that were sent by the origin, the most that was allocated)"""
        holdfast = Holdfast(self.box, name)
        flags = [f"--cache-max={limit}"] if limit else []
        paths = [holdfast.mount_file(self.origin.url(f"image{number}"), *flags) for number in range(self.options.images)]
        drop_page_cache()
        sent = self.origin.served().bytes
        watch = Watch(holdfast.state_path("cache", "data"))
        start = time.monotonic()
        for at, number in enumerate(order):
            if kills and at % 5 == 4:
                if at % 2:
                    os.kill(holdfast.daemon_pid(), signal.SIGKILL)
                else:
                    holdfast.kill_fetcher()
            self.read(paths[number], number)
        seconds = time.monotonic() - start
        most = watch.end()
        for path in paths:
            holdfast.umount(os.path.dirname(path))
        return seconds, self.origin.served().bytes - sent, most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", default="50M")
    parser.add_argument("--limit", default="500M")
    parser.add_argument("--reads", type=int, default=300, help="of each order")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", action="store_true")
    options = parser.parse_args()
    reasons = unmet(())
    if reasons:
        sys.exit("cache_limit: cannot run here: " + ", ".join(reasons))
    rng = random.Random(options.seed)
    orders = {
        "in turn": [i % options.images for i in range(options.reads)],
        # Few images are read often, and most of them seldom.
        "at random": [min(int(rng.paretovariate(0.8)) - 1, options.images - 1) for _ in range(options.reads)],
    }
    failed = False
    with Sandbox("cache-limit") as box:
        bench = Bench(box, options)
        for number, (name, order) in enumerate(orders.items()):
            total = len(order) * bench.size
            seconds, sent, most = bench.run(f"limited{number}", order, bench.limit, options.kills)
            free_seconds, _, _ = bench.run(f"free{number}", order, 0, False)
            ratio, expected = 1 - sent / total, simulate(order, bench.size, bench.limit)
            over = max(0, most - bench.limit)
            print(f"{name}: {options.reads} reads of {options.images} images of {options.size} through "
                  f"{options.limit}: hit ratio {ratio:.3f}, LRU {expected:.3f}; above the limit by {over / MB:.0f} MB at "
                  f"most; {total / MB / seconds:.0f} MB/s, without a limit {total / MB / free_seconds:.0f} MB/s", flush=True)
            failed = failed or over > OVER or ratio < expected - WORSE
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
