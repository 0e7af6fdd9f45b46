"""A daemon of the kernel's interface is killed again and again in mid-read of a large file of a mounted image.

The test is the supervisor: it binds the device and holds it.  `--mib` says how large the file is, which is random.
"""

import argparse
import collections
import hashlib
import os
import random
import re
import sys

import _path  # noqa: F401
from harness.cachefiles.erofs_case import ErofsCase
from harness import images
from harness.case import main
from harness.machine import read_ranges
from harness.readers import RIGHT, Child
from harness.sandbox import wait_until

KILLS = 50
READERS = 4
DELAY_MS = "2"  # Of the daemon, for each READ.
LIVES_READS = 4  # As many READs a life is given at most: all lives together less than there are of 1 MiB.
READ = re.compile(r"^id (\d+) of \d+\nread (\d+) (\d+)\n(stopped\n)?", re.M)
OPTIONS = None


def checksum(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class ErofsFailoverTest(ErofsCase):
    """With a static daemon, which has nothing of Holdfast in it."""

    def setUp(self):
        self.disk_bytes = (OPTIONS.mib * 9 // 8 + 256) << 20
        super().setUp()
        self.image, self.tree = images.random_image(1, OPTIONS.mib << 20)
        self.source("image", self.image)
        self.fd = self.open_device()
        for command in (f"dir {self.directory}", "tag test", "bind ondemand"):
            os.write(self.fd, command.encode())
        self.logs = []

    def restore(self, stop_at="0"):
        """The next daemon.  At its READ of that number it has the READ, and answers nothing any more."""
        process, log = self.client(f"fd:{self.fd}", "restore", stop_at, DELAY_MS, pass_fds=[self.fd])
        self.logs.append(log)
        return process, log

    def begin_to_read(self):
        """Readers of a quarter each."""
        point = self.point("a")
        self.assertEqual(self.mount(point, "fsid=image"), (0, ""))
        wait_until(lambda: self.instance.pending() == 0, 20, "the mount's own READs are answered")
        self.served, self.truth = os.path.join(point, "000"), os.path.join(self.tree, "000")
        part = os.path.getsize(self.truth) // READERS
        return lambda: [self.keep(Child(f"reader {i}", lambda i=i: read_ranges(
            [(self.served, self.truth, i * part, (i + 1) * part)]))) for i in range(READERS)]

    def test_a_daemon_is_killed_many_times_in_mid_read(self):
        rng = random.Random(OPTIONS.seed)
        process, _ = self.restore()
        begin = self.begin_to_read()
        self.kill(process)
        process, log = self.restore(str(rng.randint(1, LIVES_READS)))
        readers = begin()
        for number in range(KILLS):
            wait_until(lambda: "stopped" in self.text(log), 60, f"daemon {number} stops in mid-read")
            self.assertEqual({reader.result for reader in readers}, {None}, "the load lasts")
            self.kill(process)
            process, log = self.restore(str(rng.randint(1, LIVES_READS)) if number < KILLS - 1 else "0")
        for reader in readers:
            self.assertTrue(reader.wait(240), reader.what)
            self.assertEqual(reader.result, RIGHT, reader.what)
        self.assertEqual(checksum(self.served), checksum(self.truth))
        wait_until(lambda: self.instance.pending() == 0, 20, "each request is answered")
        self.assert_completed_once()

    def assert_completed_once(self):
        """By what the daemons had and answered, and by the instance's counters."""
        reads = [read.groups() for log in self.logs for read in READ.finditer(self.text(log))]
        answered = [(msg_id, int(offset), int(size)) for msg_id, offset, size, stopped in reads if not stopped]
        counters = self.instance.status()["counters"]
        print(f"{KILLS} kills, {len(answered)} READs answered, counters {counters}", file=sys.stderr)
        self.assertEqual(len(reads) - len(answered), KILLS)
        given_twice = {msg_id: count for msg_id, count in collections.Counter(msg_id for msg_id, _, _ in answered).items()
                       if count > 1}
        self.assertEqual(given_twice, {}, "a READ that was answered comes again")
        self.assertLessEqual({msg_id for msg_id, _, _, stopped in reads if stopped}, {msg_id for msg_id, _, _ in answered},
                             "each READ that a daemon was killed with comes again")
        self.assertEqual(counters["reads_failed"], 0, counters)
        self.assertEqual(counters["bytes_filled_twice"], 0, counters)
        self.assertEqual(counters["bytes_filled"], sum(size for _, _, size in answered), counters)
        self.assertEqual(counters["bytes_filled"], os.path.getsize(self.image), counters)


class PreloadedErofsFailoverTest(ErofsFailoverTest):
    """With a dynamic daemon under the library."""

    kind = "preloaded C"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="of the file (256)")
    parser.add_argument("--seed", type=int, default=7)
    OPTIONS, sys.argv[1:] = parser.parse_known_args()
    main(tools=("mkfs.erofs",))
