"""A disk that takes no writes, and the daemon killed in it: what is there is served, the rest waits, nothing is claimed falsely."""

import contextlib
import errno
import glob
import os
import re
import signal

import _path  # noqa: F401
from harness import disk, images
from harness.case import Case, main
from harness.disk import Disk, fill_up
from harness.holdfast import NO_READ_AHEAD
from harness.machine import Machine, read_ranges
from harness.readers import RIGHT, Child, Reader
from harness.sandbox import wait_gone, wait_until

MB = 1 << 20
PRESENT, PARTIAL = ("v", "present"), ("v", "partial")
SIZES = {PRESENT: 6 * MB + 4097, PARTIAL: 40 * MB}
HALF = 2 * MB  # Of the partial one, what is present.
SERVED_S = 5


class DiskCase(Case):
    FLAGS = ()  # More of the daemon's.

    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        for i, (name, size) in enumerate(SIZES.items()):
            images.write_random(self.truth_of(name), size, 70 + i)
        self.origin = self.serve(self.root)
        self.machine = Machine(self.box, "d", 160 * MB, {"v": self.origin.url()},
                               flags=["--sync-interval=50ms", "--readahead-max=0", *self.FLAGS])
        self.prepare()
        self.machine.power_on()
        self.start()
        self.read(PRESENT)
        self.read(PARTIAL, 0, HALF)
        wait_until(lambda: self.machine.counters()["bytes_synced"] >= SIZES[PRESENT] + HALF, 10, "it is durable")

    def prepare(self):
        """Before there is a cache."""

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

    def fill_up(self, disk=None):
        return fill_up((disk or self.machine.disk).path)

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
            begin = os.path.getsize(self.machine.log)
            self.kill_and_start()
            self.read(PRESENT, seconds=SERVED_S)
            self.read(PARTIAL, 0, HALF, seconds=SERVED_S)
        waiting = self.start_reading(PARTIAL, 30 * MB, 34 * MB)
        if not fetches:
            wait_until(self.causes, 20, "the cause is in the status")
            self.assertFalse(waiting.wait(0.5), f"result {waiting.result}: {self.machine.last_words()}")
        pid = self.machine.daemon.pid
        self.assert_each_cause_is_logged_once(begin)
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

    def assert_each_cause_is_logged_once(self, since):
        """By the daemon whose log begins at `since`."""
        with open(self.machine.log, errors="replace") as f:
            f.seek(since)
            causes = [re.sub(r"^.*?\] ", "", line) for line in f if line[0] == "E"]
        self.assertEqual(sorted(set(causes)), sorted(causes))

    def causes(self):
        return [request["cause"] for request in self.status()["requests"]["list"] if request["cause"]]

    def trouble(self):
        return self.status()["store_trouble"]

    def assert_nothing_is_claimed_falsely(self):
        self.machine.kill(self.machine.daemon, self.machine.fetcher)
        found = self.machine.verify({name: self.truth_of(name) for name in SIZES})
        self.assertEqual(found["faults"], [])


class FullDiskTest(DiskCase):
    """The disk of the cache."""

    def test_a_full_disk(self):
        self.serves_through(self.fill_up)

    def test_no_inodes(self):
        self.serves_through(self.use_up_inodes, fetches=True)

    def test_a_database_that_cannot_be_written(self):
        self.serves_through(self.protect_database, fetches=True)

    def test_a_file_system_that_has_become_read_only(self):
        self.serves_through(self.make_read_only)


class FullDatabaseDiskTest(DiskCase):
    """The database on a file system of its own."""

    def prepare(self):
        os.makedirs(os.path.join(self.machine.cache, "db"), mode=0o700)
        self.database_disk = Disk(self.box, "d/cache/db", 24 * MB)

    def test_a_full_database_disk(self):
        self.serves_through(lambda: self.fill_up(self.database_disk), fetches=True)

    def test_a_database_disk_that_has_become_read_only(self):
        def make_read_only():
            self.machine.kill(self.machine.daemon, self.machine.fetcher)
            self.database_disk.remount("ro")
            return lambda: self.database_disk.remount("rw")
        self.serves_through(make_read_only, fetches=True)


class FailingDiskTest(Case):
    """The file system of the cache fails as a whole (FS_IOC_SHUTDOWN), and comes back in the same boot."""

    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        self.truth = os.path.join(self.root, "image")
        images.write_random(self.truth, 8 * MB, 90)
        self.origin = self.serve(self.root)

    def test_what_was_not_synced_is_not_taken_for_present(self):
        machine = Machine(self.box, "d", 80 * MB, {"v": self.origin.url()},
                          flags=["--sync-interval=1h", "--readahead-max=0"])
        self.assertTrue(machine.start_daemon(), machine.last_words())
        machine.start_fetcher()
        read = lambda: read_ranges([(machine.acquire("v", "image"), self.truth, 0, 8 * MB)])  # noqa: E731
        self.assertEqual(read(), RIGHT)
        # What is recorded of the bytes is on the disk, the bytes are not.
        database = os.path.join(machine.cache, "db")
        for name in os.listdir(database):
            if name.endswith(".log"):
                fd = os.open(os.path.join(database, name), os.O_RDONLY)
                os.fdatasync(fd)
                os.close(fd)
        machine.disk.cut()
        machine.power_off()
        self.assertTrue(machine.start_daemon(), machine.last_words())
        machine.start_fetcher()
        self.assertEqual(read(), RIGHT)

    def test_reads_of_a_living_daemon_fail_and_say_what_is_lost(self):
        machine = Machine(self.box, "d", 80 * MB, {"v": self.origin.url()},
                          flags=["--sync-interval=50ms", "--readahead-max=0"])
        self.assertTrue(machine.start_daemon(), machine.last_words())
        machine.start_fetcher()
        path = machine.acquire("v", "image")
        self.assertEqual(read_ranges([(path, self.truth, 0, 2 * MB)]), RIGHT)
        wait_until(lambda: machine.counters()["bytes_synced"] >= 2 * MB, 10, "it is durable")
        machine.disk.cut()
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")
        for at in (0, MB, 0):
            with open(path, "rb", buffering=0) as f, self.assertRaises(OSError) as failed:
                os.pread(f.fileno(), 4096, at)
            self.assertEqual(failed.exception.errno, errno.EIO)
        lines = [line for line in machine.all_words().splitlines() if "what its disk has lost" in line]
        self.assertEqual(len(lines), 1, machine.last_words())
        self.assertRegex(lines[0], r"object v/image: .*bytes \[0, \d+\) of .*/data/.*\.data: Input/output error")
        self.assertGreaterEqual(machine.counters()["reads_failed"], 3)

    def test_reads_wait_for_it_and_go_on(self):
        disk = Disk(self.box, "d", 80 * MB)
        h = self.holdfast()
        file = h.mount_file(self.origin.url("image"), NO_READ_AHEAD, "--cache-dir", os.path.join(disk.path, "cache"),
                            "--daemon-flag=--sync-interval=50ms")
        self.assert_reads_right(file, self.truth, 0, 2 * MB)
        wait_until(lambda: h.status()["counters"]["bytes_synced"] >= 2 * MB, 10, "it is durable")
        kept_open = self.enterContext(open(file, "rb", buffering=0))
        disk.cut()
        pid = h.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 10))
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")
        waiting = [self.keep(Reader(file, at, MB, self.bytes_at(at))) for at in (0, 4 * MB)]
        disk.unmount(30)
        wait_until(lambda: "the cache of a living mount is not in" in h.log_text(), 30, "its absence is noticed")
        for reader in waiting:
            self.assertFalse(reader.wait(0.1), reader.result)
        self.assertEqual(os.listdir(disk.path), [])  # No second cache was begun where it was mounted.
        disk.mount()
        for reader in waiting:
            self.assertTrue(reader.wait(30), h.log_text()[-2000:])
            self.assertEqual(reader.result, RIGHT)
        self.assertEqual(os.pread(kept_open.fileno(), MB, 6 * MB), self.bytes_at(6 * MB))
        kept_open.close()
        self.assert_reads_right(file, self.truth)
        h.umount(os.path.dirname(file))

    def test_the_data_alone_is_not_mounted(self):
        disk = Disk(self.box, "d", 80 * MB)
        cache = self.box.make_directory("cache")
        data = self.box.make_directory("cache/data")
        self.addCleanup(self.box.run, ["umount", "-l", data])
        mount = ["mount", "--bind", disk.path, data]
        self.assertEqual(self.box.run(mount).returncode, 0)
        h = self.holdfast()
        file = h.mount_file(self.origin.url("image"), NO_READ_AHEAD, "--cache-dir", cache,
                            "--daemon-flag=--sync-interval=50ms")
        self.assert_reads_right(file, self.truth, 0, 2 * MB)
        wait_until(lambda: h.status()["counters"]["bytes_synced"] >= 2 * MB, 10, "it is durable")
        [known] = h.status()["objects"]
        kept_open = self.enterContext(open(file, "rb", buffering=0))
        # Under a living daemon that changes nothing.
        self.assertEqual(self.box.run(["umount", "-l", data]).returncode, 0)
        self.assertEqual(os.pread(kept_open.fileno(), MB, 3 * MB), self.bytes_at(3 * MB))
        pid = h.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 10))
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")
        waiting = [self.keep(Reader(file, at, MB, self.bytes_at(at))) for at in (0, 6 * MB)]
        wait_until(lambda: f"{data} has nothing of the objects" in h.log_text(), 30, "its absence is noticed")
        for reader in waiting:
            self.assertFalse(reader.wait(0.1), reader.result)
        self.assertEqual(self.box.run(mount).returncode, 0)
        for reader in waiting:
            self.assertTrue(reader.wait(30), h.log_text()[-2000:])
            self.assertEqual(reader.result, RIGHT)
        self.assertEqual(os.pread(kept_open.fileno(), MB, 8 * MB), self.bytes_at(8 * MB))
        [now] = h.status()["objects"]
        self.assertEqual(now["name"], known["name"])
        self.assertGreaterEqual(now["present"], 2 * MB)
        # What was in it is lost for good: fetched again, also for processes that have the file open.
        pid = h.daemon_pid()
        self.box.run(["rm", "-r", *glob.glob(os.path.join(data, "[0-9a-f][0-9a-f]"))])
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 10))
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")
        self.assertEqual(os.pread(kept_open.fileno(), MB, 0), self.bytes_at(0))
        self.assert_reads_right(file, self.truth)
        kept_open.close()
        h.umount(os.path.dirname(file))

    def bytes_at(self, at):
        with open(self.truth, "rb") as f:
            f.seek(at)
            return f.read(MB)


if __name__ == "__main__":
    main(tools=("mkfs.ext4", "chattr"), reasons=[disk.unmet()])
