"""The demonstration behind packaging/demo-cachefiles.sh: see there."""

import argparse
import json
import os
import random
import subprocess
import sys
import time

import _path  # noqa: F401
from demo import READERS, start_reader
from demo_report import finish, megabytes, milliseconds, print_rows, stalls
from harness import images
from harness.case import unmet
from harness.holdfast import Holdfast
from harness.sandbox import Sandbox, wait_gone, wait_until

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cachefiles", "clients", "blob_daemon.c")
IMAGE = "image"
KILL_EVERY_S = (0.1, 0.3)
DAEMON_EVERY = 4  # Of so many kills one is holdfastd's.
LEAST_KILLS = 40
DELAY_MS = "40"  # Of the daemon's origin: fetching the image takes longer than many kills.


class Demo:
    def __init__(self, box):
        self.box = box
        self.program = box.path("blob-daemon")
        subprocess.run(["cc", "-static", "-O2", "-o", self.program, SOURCE, "-lpthread"], check=True)
        box.environment["DELAY_MS"] = DELAY_MS
        self.blobs, self.cache = box.make_directory("blobs"), box.make_directory("blob-cache")
        self.work = box.make_directory("work")
        self.holdfast = Holdfast(box, "demo")
        self.device = box.path("dev-cachefiles")
        self.kills = {"the daemon": [], "holdfastd": []}

    def must(self, *arguments):
        done = self.holdfast.run(*arguments)
        assert done.returncode == 0, f"holdfast {' '.join(arguments)}: {done.stderr}"

    def start(self):
        self.must("start", *self.holdfast.root_flags(), "--instance", self.holdfast.name,
                  f"--cachefiles-device={self.device}")
        # As a file-descriptor store does: the device outlives its daemon.
        self.fd = os.open(self.device, os.O_RDWR)
        self.serve("bind")

    def serve(self, how):
        log = self.box.path("blob-daemon.log")
        open(log, "w").close()
        with open(log, "ab") as out:
            self.daemon = self.box.start([self.program, f"fd:{self.fd}", self.work, self.blobs, self.cache, how],
                                         stdout=out, stderr=out, pass_fds=[self.fd])
        wait_until(lambda: os.path.getsize(log) > 0 or self.daemon.poll() is not None, 30, "the daemon is ready")

    def mount(self):
        point = self.box.make_directory("mnt")
        self.must("mount-erofs", *self.holdfast.root_flags(), "--instance", self.holdfast.name, "-o",
                  f"fsid={IMAGE}", point)
        return point

    def serves_again(self, dead):
        try:
            return self.holdfast.daemon_pid() != dead and self.holdfast.status()["ok"]
        except (OSError, ValueError, IndexError):
            return False  # Its pid file or its socket is not there yet.

    def kill(self, rng):
        if rng.randrange(DAEMON_EVERY) == 0:
            pid = self.holdfast.daemon_pid()
            self.kills["holdfastd"].append(time.time())
            os.kill(pid, 9)
            wait_gone(pid, 10)
            wait_until(lambda: self.serves_again(pid), 30, "the next holdfastd")
            return
        self.kills["the daemon"].append(time.time())
        self.daemon.kill()
        self.daemon.wait()
        self.serve("restore")

    def kill_while_reading(self, pids, seed):
        rng, running = random.Random(seed), set(pids)
        while True:
            for pid in list(running):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    running.remove(pid)
            if not running:
                return
            try:
                self.daemon.wait(rng.uniform(*KILL_EVERY_S))
                raise AssertionError("the daemon has ended by itself")
            except subprocess.TimeoutExpired:
                self.kill(rng)

    def stop(self, point):
        self.holdfast.umount(point)
        self.daemon.kill()
        self.daemon.wait()
        os.close(self.fd)
        self.holdfast.stop()


def run(demo, image, truth, seed):
    """(results of the readers, seconds)."""
    os.link(image, os.path.join(demo.blobs, IMAGE))
    demo.start()
    point = demo.mount()
    began = time.monotonic()
    results = [demo.box.path(f"reader-{i}.json") for i in range(READERS)]
    pids = [start_reader(point, truth, i * len(truth) // READERS, path) for i, path in enumerate(results)]
    demo.kill_while_reading(pids, seed)
    seconds = time.monotonic() - began
    found = []
    for path in results:
        if os.path.exists(path):
            with open(path) as f:
                found.append(json.load(f))
    demo.stop(point)
    return found, seconds


def faults_of(found, kills):
    faults = [] if len(found) == READERS else ["a reader died"]
    for what in ("errors", "wrong"):
        some = [text for result in found for text in result[what]]
        if some:
            faults.append(f"{len(some)} {what}, the first: {some[0]}")
    if kills < LEAST_KILLS:
        faults.append(f"only {kills} kills")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    flags = parser.parse_args()
    reasons = unmet(("mkfs.erofs", "cc"))
    if reasons:
        sys.exit("demo-cachefiles: cannot run here: " + ", ".join(reasons))
    with Sandbox("demo-cachefiles") as box:
        images.CACHE = box.make_directory("images")
        image, tree = images.real_image()
        truth = images.manifest(tree)
        print(f"An EROFS image of {os.path.getsize(image) / 1e6:.0f} MB with {len(truth)} files, served by a daemon of "
              f"/dev/cachefiles; {READERS} readers; seed {flags.seed} ...", flush=True)
        demo = Demo(box)
        found, seconds = run(demo, image, truth, flags.seed)
        kills = [at for times in demo.kills.values() for at in times]
        stalled = [stall for result in found for stall in stalls(result["slow"], kills)]
        print_rows([
            ("reads", str(sum(result["reads"] for result in found)), f"{READERS} readers, the whole tree each, {seconds:.0f} s"),
            ("bytes read", megabytes(sum(result["bytes"] for result in found)), ""),
            ("errors", str(sum(len(result["errors"]) for result in found)), ""),
            ("wrong checksums", str(sum(len(result["wrong"]) for result in found)), "against the source tree"),
            *[("kills", str(len(times)), f"SIGKILL of {name}") for name, times in demo.kills.items()],
            ("stall p50", milliseconds(stalled, 0.5), f"{len(stalled)} reads that a kill fell into"),
            ("stall p99", milliseconds(stalled, 0.99), f"(the daemon's origin takes {DELAY_MS} ms)"),
            ("stall max", milliseconds(stalled, 1), ""),
        ])
        finish(box, faults_of(found, len(kills)))


if __name__ == "__main__":
    main()
