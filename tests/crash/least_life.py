"""The least life that the daemons need for a read to make progress: each of them is killed so long after its start.

For each life, the longest first: a mount, a reader of the whole file that nothing was fetched of, and SIGKILL of
every holdfastd and every fetcher that old.  Prints a table; a life that did not bring the file in time says how far it came.

    tests/crash/least_life.py [--lives MS,...] [--limit S] [--mib N] [--which both|daemon|fetcher] [--must MS]

With --must it fails unless a life of that length made progress.
"""

import argparse
import os
import signal
import sys
import threading
import time

import _path  # noqa: F401
from harness import images
from harness.case import unmet
from harness.holdfast import Holdfast
from harness.origins.nginx import Nginx
from harness.readers import RIGHT, Reader
from harness.sandbox import Sandbox

PROGRAMS = {"both": ("holdfastd", "fetcherd"), "daemon": ("holdfastd",), "fetcher": ("fetcherd",)}
LOOK_EVERY_S = 0.002


class Reaper:
    """Kills each life of `programs` at its `life_s`, which counts from when its process is there."""

    def __init__(self, holdfast, programs, life_s):
        self._holdfast, self._programs, self._life_s = holdfast, programs, life_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.kills = 0

    def _pid(self, program):
        try:
            return self._holdfast.pid_of(program)
        except (OSError, IndexError, ValueError):
            return None

    def _run(self):
        since = {}  # (program, pid) -> when it was seen first; what is dead stays, with None.
        while not self._over.wait(LOOK_EVERY_S):
            for key in [(program, self._pid(program)) for program in self._programs]:
                begun = since.setdefault(key, time.monotonic())
                if key[1] is None or begun is None or time.monotonic() - begun < self._life_s:
                    continue
                since[key] = None
                try:
                    os.kill(key[1], signal.SIGKILL)
                    self.kills += 1
                except ProcessLookupError:
                    pass

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join()



def measure(box, origin, truth, served, given, life_ms):
    """(seconds or None, kills)."""
    name = f"life{life_ms}"
    os.link(truth, os.path.join(served, name))
    holdfast = Holdfast(box, name)
    path = holdfast.mount_file(origin.url(name))
    with open(truth, "rb") as f:
        expected = f.read()
    begun = time.monotonic()
    with Reaper(holdfast, PROGRAMS[given.which], life_ms / 1000) as reaper:
        reader = Reader(path, 0, len(expected), expected)
        done = reader.wait(given.limit)
        took = time.monotonic() - begun
    # In peace it must finish, whatever was done to it.
    assert reader.wait(120), "the read does not finish although no process is killed any more"
    assert reader.result == RIGHT, reader.result
    holdfast.umount(os.path.dirname(path))
    return (took if done else None), reaper.kills


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", default="2000,1000,500,300,200,150,100,70,50,30,20")
    parser.add_argument("--limit", type=float, default=30, help="seconds that a life has to bring the file")
    parser.add_argument("--mib", type=int, default=8)
    parser.add_argument("--which", choices=sorted(PROGRAMS), default="both")
    parser.add_argument("--must", type=int)
    given = parser.parse_args()
    if reasons := unmet(["nginx"]):
        sys.exit("least_life: cannot run here: " + ", ".join(reasons))
    with Sandbox("least-life") as box:
        truth = images.random_file(given.mib << 20)
        served = box.make_directory("served")
        origin = Nginx(box, served).start()
        least = None
        print(f"{given.which}, {given.mib} MiB, {given.limit:.0f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        for life in [int(text) for text in given.lives.split(",")]:
            took, kills = measure(box, origin, truth, served, given, life)
            print(f"{life:5} ms  {'%.1f s' % took if took is not None else 'not in time':>12}  {kills} kills", flush=True)
            if took is None:
                break
            least = life
    print(f"The least life that made progress: {least} ms" if least else "No life made progress")
    if given.must and (least is None or least > given.must):
        sys.exit(f"least_life: a life of {given.must} ms has to make progress")


if __name__ == "__main__":
    main()
