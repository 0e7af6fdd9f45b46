"""Machine: holdfastd and a fetcher on a disk whose power is cut, one boot after another."""

import json
import os
import random
import re
import signal
import socket
import uuid

from harness.disk import Disk
from harness.holdfast import BIN
from harness.readers import RIGHT, WRONG_BYTES, Child, pread_all
from harness.sandbox import wait_gone, wait_until

OBJECT = re.compile(r'^object number=(\d+) volume=(\d+) size=(\d+) stale=0 cookie="([^"]*)"', re.M)
VOLUME = re.compile(r'^volume number=(\d+) key="([^"]*)"', re.M)
DURABLE = re.compile(r"^presence durable object=(\d+) leaf=\d+ bytes=(.*)$", re.M)


class Machine:
    """A cache on a disk of its own.  `sources` maps volumes to origins, `truths` cookies to right files."""

    def __init__(self, box, name, size, sources, daemon="holdfastd", flags=(), store=None):
        self.box, self.daemon_name, self.flags = box, daemon, list(flags)
        self.disk = Disk(box, name, size)
        self.cache = os.path.join(self.disk.path, "cache")
        self.run = box.make_directory(name + "-run")
        self.sources = box.make_directory(name + "-sources")
        for volume, origin in sources.items():
            with open(os.path.join(self.sources, volume + ".json"), "w") as f:
                json.dump({"version": 1, "origins": [origin]}, f)
        self.store = store  # An FdStore, or None.
        self.boot = None
        self.daemon = self.fetcher = None
        self.log = box.path(name + "-holdfastd.err")

    # Life.
    def power_on(self):
        """A new boot; the daemon is not started yet."""
        self.boot = str(uuid.uuid4())

    def start_daemon(self, seconds=20):
        """True once it serves, False when it has ended."""
        self.spawn_daemon()
        wait_until(lambda: self.daemon.poll() is not None or self.answers(), seconds, "holdfastd serving or ended")
        return self.daemon.poll() is None

    def spawn_daemon(self):
        with open(self.log, "ab") as err:
            argv = [os.path.join(BIN, self.daemon_name), "--cache-dir=" + self.cache, "--run-dir=" + self.run,
                    *(["--boot-id=" + self.boot] if self.boot else []), "--logtostderr", *self.flags]
            start = self.box.start if self.store is None else lambda *given, **options: self.store.start(self.box, *given, **options)
            self.daemon = start(argv, stdout=err, stderr=err)

    def start_fetcher(self):
        with open(self.box.path("fetcherd.err"), "ab") as err:
            self.fetcher = self.box.start(
                [os.path.join(BIN, "holdfast-fetcherd"), "--device=" + os.path.join(self.run, "device.sock"),
                 "--sources-dir=" + self.sources, "--logtostderr"], stdout=err, stderr=err)

    def kill(self, *processes):
        for process in processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
        for process in processes:
            if process is not None:
                assert wait_gone(process.pid, 20), "a process survives SIGKILL"
                process.wait()

    def power_off(self):
        """After disk.cut(): whatever ran is gone, and the disk is there again."""
        self.kill(self.daemon, self.fetcher)
        self.box.run(["umount", "-l", os.path.join(self.run, "fuse")])
        self.disk.restore_power()

    # Talk.
    def control(self, request):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(os.path.join(self.run, "control.sock"))
            s.sendall(json.dumps(request).encode() + b"\n")
            with s.makefile() as f:
                return json.loads(f.readline())

    def answers(self):
        try:
            return self.control({"op": "ping"})["pid"] == self.daemon.pid
        except (OSError, ValueError):
            return False

    def counters(self):
        return self.control({"op": "status"})["counters"]

    def acquire(self, volume, cookie):
        """The object's path in the tree."""
        answer = self.control({"op": "acquire", "volume": volume, "object": cookie, "timeout_ms": 20000})
        assert answer["ok"], answer
        return answer["path"]

    def all_words(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def last_words(self):
        return self.all_words()[-2000:]

    # Offline.
    def known(self):
        """{(volume, cookie): [durable ranges]}, from the dump."""
        done = self.box.run([os.path.join(BIN, "holdfast"), "dump", "--cache-dir", self.cache])
        assert done.returncode == 0, done.stderr
        volumes = dict(VOLUME.findall(done.stdout))
        names, sizes = {}, {}
        for number, volume, size, cookie in OBJECT.findall(done.stdout):
            names[number], sizes[number] = (volumes[volume], cookie), int(size)
        ranges = {name: [] for name in names.values()}
        for number, text in DURABLE.findall(done.stdout):
            for begin, end in re.findall(r"\[(\d+), (\d+)\)", text):
                ranges[names[number]].append((int(begin), min(int(end), sizes[number])))
        return ranges

    def verify(self, truths):
        """What `holdfast verify` says as on a new boot; `truths` maps (volume, cookie) to files."""
        argv = [os.path.join(BIN, "holdfast"), "verify", "--cache-dir", self.cache, "--as-new-boot", "--json"]
        for (volume, cookie), path in truths.items():
            argv.append(f"--content={volume}/{cookie}={path}")
        done = self.box.run(argv)
        assert done.returncode in (0, 1) and done.stdout, done.stderr
        return json.loads(done.stdout)


class Workload:
    """Processes that read objects at random, and compare."""

    def __init__(self, paths, seed, count=4):
        """`paths`: [(path in the tree, right file)]."""
        self._children = [Child(f"reader {i}", lambda i=i: _read_on(paths, seed * 100 + i)) for i in range(count)]

    @staticmethod
    def once(machine, name, truth):
        """Looks one object up and reads all of it."""
        return read_ranges([(machine.acquire(*name), truth, 0, os.path.getsize(truth))])

    def stop(self):
        """Ends them; True when none has met wrong bytes."""
        for child in self._children:
            child.close()
        return all(child.result != WRONG_BYTES for child in self._children)


def _read_on(paths, seed):
    """Half of the processes go through a file from its begin, half jump."""
    rng = random.Random(seed)
    while True:
        path, truth = rng.choice(paths)
        with open(path, "rb", buffering=0) as f, open(truth, "rb", buffering=0) as right:
            size = os.fstat(right.fileno()).st_size
            sequential = seed % 2 == 0
            at = rng.randrange(size) if not sequential else rng.randrange(4) * (size // 4)
            for _ in range(60):
                length = 262144 if sequential else rng.choice((4096, 65536))
                if pread_all(f.fileno(), at, length) != pread_all(right.fileno(), at, length):
                    return WRONG_BYTES
                at = at + length if sequential else rng.randrange(size)


def read_ranges(ranges):
    """For a child: [(path, right file, begin, end)]."""
    for path, truth, begin, end in ranges:
        with open(path, "rb", buffering=0) as f, open(truth, "rb", buffering=0) as right:
            # The kernel's read-ahead would ask in one request for what is there and for what is not.
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in range(begin, end, 1 << 20):
                length = min(1 << 20, end - at)
                if pread_all(f.fileno(), at, length) != pread_all(right.fileno(), at, length):
                    return WRONG_BYTES
    return RIGHT
