"""A day of a machine in an hour: mounts come and go, with kills, outages, a full disk and upgrades.

    day.py [--minutes 60] [--mounts 50] [--images 200] [--seed N] [--verbose]

Every reader has a share of the mounts.  It mounts an image, reads parts of it and of its other mounts, compares them
with the image, and unmounts the mount that it has had for longest.  Beside them processes are killed, the origin goes
away for some seconds, the cache's disk is filled and emptied, and the instance is upgraded.  No read may fail or be
wrong, and none may hang.  A mount that fails while the origin is away or the disk is full is tried again.

Once every part of a hundredth of the time the processes' memory and descriptors, and the sizes of the database, the
logs, the run directory and the cache are taken; they are printed as plots.  It fails where the last quarter's
median of one is more than a tenth above that of the second quarter, and by more than that number's slack.
"""

import argparse
import collections
import os
import random
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from harness import disk, images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.disk import Disk, fill_up  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.readers import pread_all  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from harness.soak.killer import Killer  # noqa: E402

KB, MB = 1 << 10, 1 << 20
READERS = 8
DISK_SIZE, CACHE_MAX = 1024 * MB, 256 * MB
SIZES = (1 * MB, 4 * MB, 16 * MB)
LARGEST_READ = 256 * KB
HANGS_S = 120           # A read or a mount that takes longer.
KILL_EVERY_S = (0.5, 4)
AWAY_EVERY_S, AWAY_S = 90, 6
FULL_EVERY_S, FULL_S = 120, 8
UPGRADE_EVERY_S = 150
BLOCKS = "▁▂▃▄▅▆▇█"
# How much more of each may be a matter of chance.
SLACK = {"memory of holdfastd": 8 * MB, "memory of fetcherd": 8 * MB, "memory of supervise": 2 * MB,
         "descriptors of holdfastd": 30, "descriptors of fetcherd": 30, "descriptors of supervise": 4,
         "threads of holdfastd": 8, "threads of fetcherd": 8, "database": 4 * MB, "logs": 4 * MB,
         "run directory": 256 * KB, "cache": 32 * MB}


def size_below(directory):
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def plot(values, width=60):
    """One line: each character the median of its part of the values, from 0 to the largest."""
    part = max(1, len(values) / width)
    points = [statistics.median(values[int(i * part):max(int((i + 1) * part), int(i * part) + 1)])
              for i in range(int(len(values) / part))]
    top = max(points) or 1
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(point / top * len(BLOCKS)))] for point in points)


def in_words(name, value):
    return f"{value:.0f}" if name.startswith(("descriptors", "threads")) else f"{value / MB:.1f} MB"


class Day:
    def __init__(self, box, options):
        self.box, self.options = box, options
        self.root = box.make_directory("root")
        for number in range(options.images):
            images.write_random(self.truth(number), SIZES[number % len(SIZES)], 700 + number)
        self.origin = Nginx(box, self.root).start()
        self.disk = Disk(box, "disk", DISK_SIZE)
        self.holdfast = Holdfast(box, "day")
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.trouble = 0            # How many of the troubles in which a mount may fail last now.
        self.trouble_ended = 0.0
        self.faults, self.counts = [], collections.Counter()
        self.samples = collections.defaultdict(list)
        self.longest_read = self.longest_mount = 0.0
        self.busy_since = {}        # Reader: since when it reads or mounts, and what.

    def truth(self, number):
        return os.path.join(self.root, f"image{number}")

    def fault(self, text):
        with self.lock:
            self.faults.append(f"{time.monotonic() - self.began:.0f} s: {text}")
        self.over.set()

    def may_fail(self, since):
        return self.trouble > 0 or self.trouble_ended > since - 1

    # The readers.
    def mount(self, number):
        """The file's path; None when the day was over before."""
        while not self.over.is_set():
            start = time.monotonic()
            point = self.box.make_directory(f"m{threading.get_ident()}-{time.monotonic_ns()}")
            done = self.holdfast.try_mount(self.origin.url(f"image{number}"), point, "--as=file", "--timeout=30s",
                                           "--on-full=through", "--cache-dir", os.path.join(self.disk.path, "cache"),
                                           f"--cache-max={CACHE_MAX}", timeout=HANGS_S)
            self.longest_mount = max(self.longest_mount, time.monotonic() - start)
            if done.returncode == 0:
                self.counts["mounts"] += 1
                return os.path.join(point, f"image{number}")
            os.rmdir(point)
            if not self.may_fail(start):
                self.fault(f"mount of image{number}: {done.stderr.strip()}")
            self.counts["mounts tried again"] += 1
        return None

    def read(self, path, number, rng):
        size = os.path.getsize(self.truth(number))
        offset = rng.randrange(size)
        length = rng.randint(1, LARGEST_READ)
        start = time.monotonic()
        with open(path, "rb", buffering=0) as f, open(self.truth(number), "rb", buffering=0) as right:
            os.posix_fadvise(f.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
            if pread_all(f.fileno(), offset, length) != pread_all(right.fileno(), offset, length):
                self.fault(f"image{number} at {offset}, {length} bytes: wrong")
        self.longest_read = max(self.longest_read, time.monotonic() - start)
        self.counts["reads"] += 1

    def live(self, reader):
        rng = random.Random(self.options.seed * 100 + reader)
        mounted = collections.deque()
        try:
            while not self.over.is_set():
                number = rng.randrange(self.options.images)
                self.busy_since[reader] = (time.monotonic(), f"mount of image{number}")
                path = self.mount(number)
                if path:
                    mounted.append((path, number))
                for _ in range(rng.randint(1, 30)):
                    if self.over.is_set():
                        break
                    path, at = mounted[rng.randrange(len(mounted))]
                    self.busy_since[reader] = (time.monotonic(), f"read of image{at}")
                    self.read(path, at, rng)
                while len(mounted) > max(1, self.options.mounts // READERS) or (self.over.is_set() and mounted):
                    self.busy_since[reader] = (time.monotonic(), "umount")
                    point = os.path.dirname(mounted.popleft()[0])
                    self.holdfast.umount(point)
                    os.rmdir(point)
        except Exception as e:  # Whatever it is, it is a fault and not the end of one reader.
            self.fault(f"reader {reader}: {type(e).__name__}: {e}")
        self.busy_since.pop(reader, None)

    # What happens to it.
    def kill(self):
        killer, rng = Killer(self.options.seed), random.Random(self.options.seed)
        while not self.over.wait(rng.uniform(*KILL_EVERY_S)):
            killer.strike(self.holdfast)
            self.counts["kills"] = killer.kills

    def every(self, seconds, name, trouble, begin, end, lasts):
        while not self.over.wait(seconds):
            with self.lock:
                self.trouble += trouble
            undo = begin()
            self.over.wait(lasts)
            end(undo)
            with self.lock:
                self.trouble -= trouble
                self.trouble_ended = time.monotonic()
            self.counts[name] += 1

    def upgrade(self):
        done = self.holdfast.run("upgrade", *self.holdfast.root_flags(), "--instance", "day", timeout=HANGS_S)
        if done.returncode:
            self.counts["upgrades refused"] += 1  # One of the processes was being killed.

    # What is seen of it.
    def sample(self):
        pids = {"supervise": self.holdfast.supervisor_pid(), "holdfastd": self.holdfast.daemon_pid(),
                "fetcherd": self.holdfast.pid_of("fetcherd")}
        found = {}
        for name, pid in pids.items():
            with open(f"/proc/{pid}/status") as f:
                fields = dict(line.split(":", 1) for line in f)
            found["memory of " + name] = (int(fields["RssAnon"].split()[0])) * KB
            found["descriptors of " + name] = len(os.listdir(f"/proc/{pid}/fd"))
            if name != "supervise":
                found["threads of " + name] = int(fields["Threads"])
        cache = os.path.join(self.disk.path, "cache")
        found["database"] = size_below(os.path.join(cache, "db"))
        found["cache"] = size_below(os.path.join(cache, "data"))
        found["logs"] = size_below(os.path.join(self.holdfast.root, "var/log"))
        found["run directory"] = size_below(self.holdfast.run_path())
        for name, value in found.items():
            self.samples[name].append(value)

    def watch(self):
        seconds = self.options.minutes * 60
        said = 0
        while not self.over.wait(seconds / 400):
            try:
                self.sample()
            except (OSError, ValueError, KeyError, IndexError):
                continue  # One of them is dead at this moment.
            now = time.monotonic()
            for since, what in list(self.busy_since.values()):
                if now - since > HANGS_S:
                    self.fault(f"{what} takes more than {HANGS_S} s")
            if self.options.verbose and now - said > 60:
                said = now
                print(f"{now - self.began:.0f} s: {dict(self.counts)}", flush=True)
            if now - self.began > seconds:
                self.over.set()

    def run(self):
        self.began = time.monotonic()
        work = [threading.Thread(target=self.live, args=(reader,), daemon=True) for reader in range(READERS)]
        for thread in work:
            thread.start()
        # What happens begins when there is an instance.
        while not self.counts["mounts"] and not self.over.is_set():
            time.sleep(0.1)
        work += [threading.Thread(target=self.kill, daemon=True),
                 threading.Thread(target=self.every, args=(AWAY_EVERY_S, "outages", 1, self.origin.stop,
                                                           lambda _: self.origin.start(), AWAY_S), daemon=True),
                 threading.Thread(target=self.every, args=(FULL_EVERY_S, "full disks", 1, lambda: fill_up(self.disk.path),
                                                           lambda undo: undo(), FULL_S), daemon=True),
                 threading.Thread(target=self.every, args=(UPGRADE_EVERY_S, "upgrades", 0, self.upgrade,
                                                           lambda _: None, 0), daemon=True)]
        for thread in work[READERS:]:
            thread.start()
        self.watch()
        for thread in work:
            thread.join(HANGS_S)
            if thread.is_alive():
                self.faults.append("a thread does not end: " + str(self.busy_since))
                break

    def report(self):
        print(f"{(time.monotonic() - self.began) / 60:.0f} minutes, seed {self.options.seed}: "
              + ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
              + f"; the longest read took {self.longest_read:.1f} s, the longest mount {self.longest_mount:.1f} s")
        for name, values in sorted(self.samples.items()):
            quarter = max(1, len(values) // 4)
            early = statistics.median(values[quarter:2 * quarter] or values)
            late = statistics.median(values[-quarter:])
            grows = late > early * 1.1 + SLACK[name]
            if grows:
                self.faults.append(f"{name} grows")
            print(f"{name:<26}{plot(values)}  {in_words(name, early):>9} -> {in_words(name, late):>9}"
                  f"{'  GROWS' if grows else ''}")
        for fault in self.faults:
            print("FAULT: " + fault)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--mounts", type=int, default=50)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    reasons = unmet(()) + ([disk.unmet()] if disk.unmet() else [])
    if reasons:
        sys.exit("day: cannot run here: " + ", ".join(reasons))
    with Sandbox("day") as box:
        day = Day(box, options)
        day.run()
        day.report()
        if day.faults:
            for path, lines in box.logs():
                if "nginx" not in path:
                    print(f"--- {path}\n" + "".join(lines)[-3000:])
    sys.exit(1 if day.faults else 0)


if __name__ == "__main__":
    main()
