"""The demonstration behind packaging/demo.sh: see there."""

import argparse
import hashlib
import json
import os
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import unmet
from harness.holdfast import Holdfast
from harness.killer import kill_once
from harness.origins.nginx import Nginx
from harness.sandbox import Sandbox, die_with_parent, wait_until
from demo_report import SLOW_S, finish, megabytes, milliseconds, print_rows, stalls

READERS = 8
KILL_EVERY_S = 0.2
LEAST_KILLS = 100
ROUNDS_MAX = 4
CHUNK = 128 << 10
# So slow that fetching the image takes longer than the kills do.
DELAY_MS = 5
RATE = "3m"


def read_tree(point, truth, first, result_path):
    """One reader: checksums the whole tree, beginning at the `first` file, and writes down what it saw."""
    names = sorted(truth)
    names = names[first:] + names[:first]
    result = {"reads": 0, "bytes": 0, "errors": [], "wrong": [], "slow": []}
    for name in names:
        digest = hashlib.sha256()
        try:
            fd = os.open(os.path.join(point, name), os.O_RDONLY)
            try:
                while True:
                    start = time.time()
                    data = os.read(fd, CHUNK)
                    end = time.time()
                    result["reads"] += 1
                    if end - start > SLOW_S:
                        result["slow"].append((start, end))
                    if not data:
                        break
                    result["bytes"] += len(data)
                    digest.update(data)
            finally:
                os.close(fd)
        except OSError as e:
            result["errors"].append(f"{name}: {e}")
            continue
        if digest.hexdigest() != truth[name]:
            result["wrong"].append(name)
    with open(result_path, "w") as f:
        json.dump(result, f)


def start_reader(point, truth, first, result_path):
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent()
            read_tree(point, truth, first, result_path)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def kill_while_reading(holdfast, pids):
    """One SIGKILL every KILL_EVERY_S until all the readers have ended."""
    kills = []
    due = time.monotonic()
    running = set(pids)
    while True:
        for pid in list(running):
            if os.waitpid(pid, os.WNOHANG)[0]:
                running.remove(pid)
        if not running:
            return kills
        due = max(due + KILL_EVERY_S, time.monotonic())
        time.sleep(max(0, due - time.monotonic()))
        kill = kill_once(holdfast)
        if kill:
            kills.append(kill)
            holdfast.wait_fetcher()


class Totals:
    def __init__(self):
        self.reads = self.fetched = self.twice = self.in_flight = self.kills_in_reads = 0
        self.errors, self.wrong, self.kills, self.stalls = [], [], [], []

    def add(self, results, kills, served, in_flight):
        for result in results:
            self.reads += result["reads"]
            self.errors += result["errors"]
            self.wrong += result["wrong"]
            self.stalls += stalls(result["slow"], [kill.at for kill in kills])
        self.kills += kills
        self.fetched += served.bytes
        self.twice += served.twice_bytes
        self.in_flight += in_flight

    def faults(self):
        found = []
        if self.errors:
            found.append(f"{len(self.errors)} errors, the first: {self.errors[0]}")
        if self.wrong:
            found.append(f"{len(self.wrong)} wrong checksums, the first: {self.wrong[0]}")
        if len(self.kills) < LEAST_KILLS:
            found.append(f"only {len(self.kills)} kills")
        if self.twice > self.in_flight:
            found.append("more was fetched twice than was in flight at the kills")
        return found


def one_round(box, number, image, truth, totals):
    """An empty cache, a mount, the readers and the kills, and everything down again."""
    origin = Nginx(box, os.path.dirname(image), DELAY_MS, RATE, name=f"nginx-{number}").start()
    holdfast = Holdfast(box, f"demo{number}")
    point = holdfast.mount(origin.url(os.path.basename(image)))
    results = [box.path(f"reader-{number}-{i}.json") for i in range(READERS)]
    pids = [start_reader(point, truth, i * len(truth) // READERS, path) for i, path in enumerate(results)]
    kills = kill_while_reading(holdfast, pids)
    found = []
    for path in results:
        if not os.path.exists(path):
            totals.errors.append("a reader died")
            continue
        with open(path) as f:
            found.append(json.load(f))
    listed = {os.path.relpath(os.path.join(folder, name), point)
              for folder, _, names in os.walk(point) for name in names}
    if listed != set(truth):
        totals.errors.append("the mounted tree has not the same files as its source")
    wait_until(lambda: holdfast.pending() == 0, 60, "nothing pending")
    in_flight = holdfast.status()["counters"]["bytes_in_flight_at_detach"]
    holdfast.umount(point)
    holdfast.stop()
    origin.stop()
    totals.add(found, kills, origin.served(), in_flight)


def print_table(totals, image_bytes, rounds, seconds):
    print_rows([
        ("reads", f"{totals.reads}", f"{READERS} readers, the whole tree each, {rounds} x, {seconds:.0f} s"),
        ("errors", f"{len(totals.errors)}", ""),
        ("wrong checksums", f"{len(totals.wrong)}", "against the source tree"),
        ("kills", f"{len(totals.kills)}", f"SIGKILL of the fetcher, every {KILL_EVERY_S * 1000:.0f} ms"),
        ("stall p50", milliseconds(totals.stalls, 0.5), f"{len(totals.stalls)} reads that a kill fell into"),
        ("stall p99", milliseconds(totals.stalls, 0.99), f"(the origin waits {DELAY_MS} ms, then sends"),
        ("stall max", milliseconds(totals.stalls, 1), f"at {RATE.upper()}B/s a connection)"),
        ("bytes in the image", megabytes(image_bytes), f"x {rounds}" if rounds > 1 else ""),
        ("bytes fetched", megabytes(totals.fetched), "by the origin's log"),
        ("bytes fetched twice", megabytes(totals.twice), f"{megabytes(totals.in_flight)} were in flight at the kills and could have been"),
    ])


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    reasons = unmet(("mkfs.erofs",))
    if reasons:
        sys.exit("demo: cannot run here: " + ", ".join(reasons))
    with Sandbox("demo") as box:
        images.CACHE = box.make_directory("images")
        image, tree = images.real_image()
        truth = images.manifest(tree)
        size = os.path.getsize(image)
        print(f"An EROFS image of {size / 1e6:.0f} MB with {len(truth)} files, at a slow origin; "
              f"{READERS} readers; the fetcher killed all the while ...", flush=True)
        totals, rounds, start = Totals(), 0, time.monotonic()
        while len(totals.kills) < LEAST_KILLS and rounds < ROUNDS_MAX and not totals.errors:
            rounds += 1
            one_round(box, rounds, image, truth, totals)
        print_table(totals, size, rounds, time.monotonic() - start)
        finish(box, totals.faults())


if __name__ == "__main__":
    main()
