"""How long reads stall when holdfastd is killed: from the SIGKILL to the first and the last answered read.

The reads wait for an origin that stands still; it goes on at the moment of the kill, and the blocks are
adjacent, so that fetching them costs next to nothing.  `serving` is when the next daemon answers on its
control socket.  Each kill has an object of its own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import images  # noqa: E402
from harness.case import unmet  # noqa: E402
from harness.holdfast import Holdfast, helper  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.sandbox import Sandbox, wait_until  # noqa: E402

SIZE = 48 << 20
SETTLE_S = 0.2  # For the daemon to have read and journaled what the kernel says is waiting.


class Bench:
    def __init__(self, box, name, objects, ranges, no_spare):
        self.no_spare = ("--no-spare",) if no_spare else ()
        self.box = box
        self.truth = images.random_file(SIZE)
        self.served = box.make_directory("served-" + name)
        self.origin = Nginx(box, self.served, name="nginx-" + name).start()
        with open(box.path("nginx-" + name, "nginx.pid")) as f:
            self.origin_pid = int(f.read())
        self.holdfast = Holdfast(box, name)
        self.count = 0
        cache = self.holdfast.state_path("cache")
        os.makedirs(cache)
        start = time.monotonic()
        subprocess.run([helper("recovery_store"), os.path.join(cache, "db"), str(objects), str(ranges)], check=True)
        os.mkdir(os.path.join(cache, "data"))
        with open(os.path.join(cache, "data", ".holdfast-data"), "w"):
            pass  # The mark of a cache whose data files are there, which these objects have not.
        size = sum(entry.stat().st_size for entry in os.scandir(os.path.join(cache, "db")))
        print(f"{objects} objects with {ranges} present ranges each: {size / 1e6:.0f} MB of metadata, "
              f"written in {time.monotonic() - start:.0f} s", flush=True)
        self.control = box.make_directory("fusectl-" + name)
        subprocess.run(["mount", "-t", "fusectl", "none", self.control], check=True)
        self.mount("keeper")  # Without a mount the daemons would end.

    def mount(self, name):
        os.link(self.truth, os.path.join(self.served, name))
        settings = () if self.count else ("--fetch-size=4096", "--daemon-flag=--readahead-max=0", *self.no_spare)
        self.count += 1
        return self.holdfast.mount_file(self.origin.url(name), *settings)

    def kernel_waiting(self):
        minor = os.minor(os.stat(self.holdfast.run_path("fuse")).st_dev)
        with open(os.path.join(self.control, str(minor), "waiting")) as f:
            return int(f.read())

    def has_spare(self):
        with open(self.holdfast.run_path("supervise.status")) as f:
            return any(service["spare"] for service in json.load(f)["services"])

    def one_kill(self, waiting):
        """(serving, first, last), in ms after the kill."""
        path = self.mount(f"o{self.count}")
        os.kill(self.origin_pid, signal.SIGSTOP)
        reader = self.box.start([helper("recovery_reader"), path, self.truth, str(waiting)], stdout=subprocess.PIPE,
                                text=True)
        wait_until(lambda: self.kernel_waiting() >= waiting, 60, f"{waiting} reads waiting")
        time.sleep(SETTLE_S)
        if not self.no_spare:
            wait_until(self.has_spare, 30, "a spare")
        pid = self.holdfast.daemon_pid()
        killed = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        os.kill(self.origin_pid, signal.SIGCONT)
        serving = self.wait_serving(pid)
        first, last, not_right = map(int, reader.communicate(timeout=120)[0].split())
        assert not_right == 0, f"{not_right} reads failed or gave wrong bytes"
        self.holdfast.umount(os.path.dirname(path))
        return [(at - killed) / 1e6 for at in (serving, first, last)]

    def wait_serving(self, dead_pid):
        while True:
            try:
                if self.holdfast.control({"op": "ping"})["pid"] != dead_pid:
                    return time.monotonic_ns()
            except (OSError, ValueError):
                time.sleep(0.001)  # The dead one had taken the connection.


def percentiles(values):
    values = sorted(values)
    return [values[min(len(values) - 1, int(len(values) * share))] for share in (0.5, 0.99, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="per line of the table")
    parser.add_argument("--waiting", type=int, nargs="+", default=[1, 64, 1024, 10000])
    parser.add_argument("--caches", nargs="+", default=["1000x1", "100000x100"], help="OBJECTSxRANGES")
    parser.add_argument("--no-spare", action="store_true", help="without a second holdfastd at hand, as under systemd")
    options = parser.parse_args()
    reasons = unmet(())
    if reasons:
        sys.exit("recovery: cannot run here: " + ", ".join(reasons))
    with Sandbox("recovery") as box:
        for number, cache in enumerate(options.caches):
            objects, ranges = map(int, cache.split("x"))
            bench = Bench(box, f"b{number}", objects, ranges, options.no_spare)
            print(f"{'ms after the kill':>18}|{'serving':^24}|{'first read':^24}|{'last read':^24}|")
            print(f"{'waiting':>18}|" + f"{'p50':>8}{'p99':>8}{'max':>8}|" * 3 + "  load")
            for waiting in options.waiting:
                stalls = zip(*(bench.one_kill(waiting) for _ in range(options.kills)))
                print(f"{waiting:>18}|" + "|".join("".join(f"{v:8.0f}" for v in percentiles(s)) for s in stalls)
                      + f"|{os.getloadavg()[0]:6.1f}", flush=True)


if __name__ == "__main__":
    main()
