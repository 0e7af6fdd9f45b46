"""A disk that takes no writes, and the daemon killed in it: what is there is served, the rest waits, nothing is claimed falsely."""

import contextlib
import os

import _path  # noqa: F401
from harness import disk, images
from harness.case import Case, main
from harness.machine import Machine, Workload, read_ranges
from harness.readers import RIGHT, Child
from harness.sandbox import wait_until

MB = 1 << 20
PRESENT, PARTIAL = ("v", "present"), ("v", "partial")
SIZES = {PRESENT: 6 * MB + 4097, PARTIAL: 40 * MB}
HALF = 2 * MB  # Of the partial one, what is present.
SERVED_S = 5


class FullDiskTest(Case):
    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        for i, (name, size) in enumerate(SIZES.items()):
            images.write_random(self.truth_of(name), size, 70 + i)
        self.origin = self.serve(self.root)
        self.machine = Machine(self.box, "d", 160 * MB, {"v": self.origin.url()},
                               flags=["--sync_interval=50ms", "--readahead_max=0"])
        self.machine.power_on()
        self.start()
        self.read(PRESENT)
        self.read(PARTIAL, 0, HALF)
        wait_until(lambda: self.machine.counters()["bytes_synced"] >= SIZES[PRESENT] + HALF, 10, "it is durable")

    # Vocabulary.
    def start(self):
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.machine.start_fetcher()

    def truth_of(self, name):
        return os.path.join(self.root, name[1])

    def start_reading(self, name, begin=0, end=None):
        """In a process of its own; the name is looked up first."""
        end = SIZES[name] if end is None else end
        return self.keep(Child("/".join(name), lambda: read_ranges(
            [(self.machine.acquire(*name), self.truth_of(name), begin, end)])))

    def read(self, name, begin=0, end=None, seconds=30):
        reader = self.start_reading(name, begin, end)
        self.assertTrue(reader.wait(seconds), f"{name}: still waiting: {self.machine.last_words()}")
        self.assertEqual(reader.result, RIGHT, f"{name}: {self.machine.last_words()}")

    def kill_and_start(self):
        """SIGKILL; the mount of the dead daemon goes with it, so that what the kernel has kept of it is of no help."""
        self.machine.kill(self.machine.daemon, self.machine.fetcher)
        self.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        self.start()

    def fill_up(self):
        ballast = os.path.join(self.machine.disk.path, "ballast")
        with open(ballast, "wb", buffering=0) as f:
            for piece in (MB, 4096, 1):
                with contextlib.suppress(OSError):
                    while f.write(bytes(piece)):
                        pass
        return lambda: os.unlink(ballast)

    def use_up_inodes(self):
        directory = os.path.join(self.machine.disk.path, "many")
        os.mkdir(directory)
        with contextlib.suppress(OSError):
            for i in range(1 << 20):
                os.close(os.open(os.path.join(directory, str(i)), os.O_CREAT))
        return lambda: self.box.run(["rm", "-r", directory])

    def protect_database(self):
        """Nothing in db/ can be made, changed or removed."""
        database = os.path.join(self.machine.cache, "db")
        paths = [database, *(os.path.join(database, name) for name in os.listdir(database))]
        self.assertEqual(self.box.run(["chattr", "+i", *paths]).returncode, 0)
        undo = lambda: self.box.run(["chattr", "-i", *paths])  # noqa: E731
        self.addCleanup(undo)
        return undo

    def make_read_only(self):
        # What is open for writing would refuse it.
        self.machine.kill(self.machine.daemon, self.machine.fetcher)
        self.machine.disk.remount("ro")
        return lambda: self.machine.disk.remount("rw")

    def serves_through(self, trouble, fetches=False):
        """Trouble, SIGKILL in it, and its end without a restart.  `fetches`: data can still be written."""
        mend = trouble()
        for _ in range(2):  # A life that began in trouble is killed, too.
            self.kill_and_start()
            self.read(PRESENT, seconds=SERVED_S)
            self.read(PARTIAL, 0, HALF, seconds=SERVED_S)
        waiting = self.start_reading(PARTIAL, 30 * MB, 34 * MB)
        if not fetches:
            wait_until(self.causes, 20, "the cause is in the status")
            self.assertFalse(waiting.wait(0.5), f"result {waiting.result}: {self.machine.last_words()}")
        pid = self.machine.daemon.pid
        mend()
        self.assertTrue(waiting.wait(30), self.machine.last_words())
        self.assertEqual(waiting.result, RIGHT, self.machine.last_words())
        wait_until(lambda: not self.trouble(), 20, "the store writes to the disk again")
        self.read(PARTIAL)
        self.assertEqual(self.machine.daemon.pid, pid)
        self.assertIsNone(self.machine.daemon.poll())
        self.assert_nothing_is_claimed_falsely()
        self.kill_and_start()
        self.read(PARTIAL)

    def status(self):
        return self.machine.control({"op": "status"})

    def causes(self):
        return [request["cause"] for request in self.status()["requests"]["list"] if request["cause"]]

    def trouble(self):
        return self.status()["store_trouble"]

    def assert_nothing_is_claimed_falsely(self):
        self.machine.kill(self.machine.daemon, self.machine.fetcher)
        found = self.machine.verify({name: self.truth_of(name) for name in SIZES})
        self.assertEqual(found["faults"], [])

    # The disk of the cache.
    def test_a_full_disk(self):
        self.serves_through(self.fill_up)

    def test_no_inodes(self):
        self.serves_through(self.use_up_inodes, fetches=True)

    def test_a_database_that_cannot_be_written(self):
        self.serves_through(self.protect_database, fetches=True)

    def test_a_file_system_that_has_become_read_only(self):
        self.serves_through(self.make_read_only)


if __name__ == "__main__":
    main(tools=("mkfs.ext4", "chattr"), reasons=[disk.unmet()])
