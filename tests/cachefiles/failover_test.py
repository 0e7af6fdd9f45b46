"""A daemon of the kernel's interface is killed again and again in mid-read, while another process holds its device."""

import os
import random
import unittest

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CLIENTS, CachefilesCase
from harness import images
from harness.case import main
from harness.readers import RIGHT, Reader
from harness.sandbox import wait_until

KILLS = 50
SIZE = 256 << 20
READERS = 4


class Failover:
    """The test; a class below for each client."""

    writes_nothing_when_killed = True

    def test_a_daemon_is_killed_many_times_under_load(self):
        path = self.source("image", images.random_file(SIZE))
        with open(path, "rb") as f:
            truth = f.read()
        fd = self.open_device()
        rng = random.Random(7)
        # Each is killed at its READ of that number: it has the READ and answers nothing any more.
        process, log = self.client(f"fd:{fd}", "bind", "2", pass_fds=[fd])
        served = self.machine.acquire("erofs,image", "image")
        part = SIZE // READERS
        readers = [self.keep(Reader(served, i * part, part, truth[i * part:(i + 1) * part])) for i in range(READERS)]
        for _ in range(KILLS):
            wait_until(lambda: "stopped" in self.text(log), 30, "the daemon stops in mid-read")
            self.kill(process)
            process, log = self.client(f"fd:{fd}", "restore", str(rng.randrange(1, 12)), pass_fds=[fd])
        wait_until(lambda: "stopped" in self.text(log), 30, "the daemon stops in mid-read")
        self.assertEqual({reader.result for reader in readers}, {None}, "the load lasts")
        self.kill(process)
        self.client(f"fd:{fd}", "restore", pass_fds=[fd])
        for reader in readers:
            self.assertTrue(reader.wait(60), reader.what)
            self.assertEqual(reader.result, RIGHT)
        counters = self.machine.counters()
        self.assertEqual(counters["reads_failed"], 0, counters)
        if self.writes_nothing_when_killed:
            self.assertEqual(counters["bytes_filled_twice"], 0, counters)
        self.assertEqual(counters["bytes_filled"], SIZE)
        self.assertEqual(self.machine.control({"op": "status"})["requests"]["total"], 0)
        self.assertLessEqual(os.path.getsize(path), counters["bytes_filled"])


class FailoverOfPreloadedC(Failover, CachefilesCase):
    kind = "preloaded C"


class FailoverOfStaticC(Failover, CachefilesCase):
    kind = "static C"


@unittest.skipUnless(os.path.exists(CLIENTS["static Go"][0]), "no Go compiler")
class FailoverOfStaticGo(Failover, CachefilesCase):
    kind = "static Go"
    writes_nothing_when_killed = False  # It answers other READs meanwhile: one may be written and not completed.


if __name__ == "__main__":
    main()
