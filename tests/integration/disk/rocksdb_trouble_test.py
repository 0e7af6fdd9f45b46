"""Trouble with the metadata's files or their disk: the daemon starts or says exactly what to do, and keeps what it can.

Two objects are in the cache, the records of the first in a table, those of the second in the log.
"""

import glob
import os
import random
import shutil

import _path  # noqa: F401
from harness import disk, images
from harness.case import Case, main
from harness.machine import Machine, Workload
from harness.readers import RIGHT, WRONG_BYTES, Child
from harness.sandbox import wait_until

MB = 1 << 20
SIZE = 3 * MB + 4097
OLD, NEW = ("v", "old"), ("v", "new")
SEED = int(os.environ.get("HOLDFAST_SEED", random.randrange(1 << 32)))
CURE = "remove the cache directory to start empty"


class RocksDbTroubleTest(Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        print(f"\nHOLDFAST_SEED={SEED}", flush=True)
        self.root = self.box.make_directory("root")
        for i, (_, name) in enumerate((OLD, NEW, ("v", "third"), ("v", "large"))):
            images.write_random(os.path.join(self.root, name), SIZE if name != "large" else 40 * MB, 90 + i)
        self.origin = self.serve(self.root)
        self.machine = Machine(self.box, "d", 160 * MB, {"v": self.origin.url()},
                               flags=["--sync-interval=50ms", "--readahead-max=0"])
        self.machine.power_on()
        self.database = os.path.join(self.machine.cache, "db")
        for name in (OLD, NEW):  # A start puts what is in the log into a table.
            self.start()
            self.read(name)
            self.stop()

    # Vocabulary.
    def start(self):
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.machine.start_fetcher()

    def stop(self):
        self.machine.control({"op": "stop"})
        self.machine.daemon.wait(20)
        self.machine.kill(self.machine.fetcher)

    def truth_of(self, name):
        return os.path.join(self.root, name[1])

    def start_reading(self, name):
        """All of it, in a process of its own; looked up first."""
        return self.keep(Child("/".join(name), lambda: Workload.once(self.machine, name, self.truth_of(name))))

    def read(self, name):
        reader = self.start_reading(name)
        self.assertTrue(reader.wait(30), f"{name}: still waiting")
        self.assertEqual(reader.result, RIGHT, name)

    def fetched(self, what):
        """Bytes of each object that the origin sent while what() was done."""
        before = len(self.origin.log())
        what()
        sent = [s for s in self.origin.log()[before:] if s.method == "GET" and not s.is_probe]
        return {name: sum(s.length for s in sent if s.uri == "/" + name) for _, name in (OLD, NEW)}

    def files(self, pattern):
        return sorted(glob.glob(os.path.join(self.database, pattern)))

    def log_file(self):
        return max(self.files("*.log"), key=os.path.getsize)

    def assert_serves(self):
        """It starts, every byte is right, new objects too; then the store is whole, and nothing is fetched again."""
        self.start()
        fetched = self.fetched(lambda: [self.read(name) for name in (OLD, NEW, ("v", "third"))])
        self.stop()
        found = self.machine.verify({name: self.truth_of(name) for name in self.machine.known()})
        self.assertEqual(found["faults"], [])
        self.start()
        again = self.fetched(lambda: [self.read(name) for name in (OLD, NEW)])
        self.assertEqual(again, {"old": 0, "new": 0})
        self.stop()
        return fetched

    def assert_refuses(self, pattern):
        """It does not start, and its last line says why and what to do."""
        self.assertFalse(self.machine.start_daemon())
        self.assertNotEqual(self.machine.daemon.returncode, 0)
        self.assertGreaterEqual(self.machine.daemon.returncode, 0, "killed by a signal")
        self.assertRegex(self.machine.last_words().strip().splitlines()[-1], pattern)

    def backup(self):
        shutil.copytree(self.machine.cache, self.box.path("backup"), symlinks=True)

    def restore(self):
        shutil.rmtree(self.machine.cache)
        shutil.copytree(self.box.path("backup"), self.machine.cache, symlinks=True)

    # The log.
    def test_a_log_cut_off_anywhere_loses_only_the_rest(self):
        self.backup()
        size = os.path.getsize(self.log_file())
        for cut in [0, 1, 6, 7, 8, size - 1, *sorted(self.rng.randrange(size) for _ in range(5))]:
            with self.subTest(cut=cut):
                self.restore()
                os.truncate(self.log_file(), cut)
                self.assertEqual(self.assert_serves()["old"], 0)

    def test_garbage_in_the_log_loses_only_what_follows_it(self):
        self.backup()
        size = os.path.getsize(self.log_file())
        for begin in [0, *sorted(self.rng.randrange(size) for _ in range(4))]:
            for end in (min(begin + 20, size), size):
                with self.subTest(begin=begin, end=end):
                    self.restore()
                    overwrite(self.log_file(), begin, self.rng.randbytes(end - begin))
                    self.assertEqual(self.assert_serves()["old"], 0)

    def test_garbage_after_the_log_loses_nothing(self):
        with open(self.log_file(), "ab") as f:
            f.write(self.rng.randbytes(1000))
        self.assertEqual(self.assert_serves(), {"old": 0, "new": 0})

    def test_a_missing_log_loses_only_its_own_records(self):
        os.unlink(self.log_file())
        self.assertEqual(self.assert_serves()["old"], 0)

    # Tables, manifest, CURRENT: repaired.
    def test_a_missing_table_loses_only_its_own_records(self):
        for path in self.files("*.sst"):
            os.unlink(path)
        self.assert_serves()
        self.assertRegex(self.machine.all_words(), f"metadata in {self.database} is damaged .*: repairing it")

    def test_a_truncated_table_loses_only_its_own_records(self):
        for path in self.files("*.sst"):
            os.truncate(path, os.path.getsize(path) // 2)
        self.assert_serves()

    def test_a_manifest_cut_off_anywhere_is_repaired(self):
        self.backup()
        size = os.path.getsize(self.files("MANIFEST-*")[-1])
        for cut in [0, 1, 7, size - 1, *sorted(self.rng.randrange(size) for _ in range(5))]:
            with self.subTest(cut=cut):
                self.restore()
                os.truncate(self.files("MANIFEST-*")[-1], cut)
                self.assert_serves()

    def test_a_missing_manifest_loses_nothing(self):
        os.unlink(self.files("MANIFEST-*")[-1])
        self.assertEqual(self.assert_serves(), {"old": 0, "new": 0})

    def test_a_missing_current_loses_nothing(self):
        os.unlink(os.path.join(self.database, "CURRENT"))
        self.assertEqual(self.assert_serves(), {"old": 0, "new": 0})

    def test_garbage_in_current_loses_nothing(self):
        for text in (b"", b"garbage\n", b"MANIFEST-999999\n"):
            with self.subTest(text=text):
                with open(os.path.join(self.database, "CURRENT"), "wb") as f:
                    f.write(text)
                self.assertEqual({**self.assert_serves()}, {"old": 0, "new": 0})

    def test_garbage_everywhere_is_refused_with_the_cure_or_survived(self):
        for path in self.files("*"):
            if os.path.basename(path) != "LOCK":
                overwrite(path, 0, self.rng.randbytes(os.path.getsize(path)))
        if self.machine.start_daemon():
            self.machine.kill(self.machine.daemon)
            self.assert_serves()
            return
        self.assert_refuses(f"{self.database}.*{CURE}")
        shutil.rmtree(self.machine.cache)
        self.assert_serves()

    # The disk.
    def test_a_read_only_file_system_without_a_cache_is_refused_with_the_cure(self):
        shutil.rmtree(self.database)
        self.machine.disk.remount("ro")
        self.assert_refuses(f"{self.machine.cache}.*Read-only file system.*choose a --cache-dir")
        self.machine.disk.remount("rw")
        self.assert_serves()

    def test_an_empty_directory_that_may_not_be_written_to_is_refused_with_the_cure(self):
        for path in self.files("*"):
            os.unlink(path)
        done = self.box.run(["chattr", "+i", self.database])
        self.assertEqual(done.returncode, 0, done.stderr)
        try:
            self.assert_refuses(f"{self.database}.*not permitted.*--cache-dir")
        finally:
            self.box.run(["chattr", "-i", self.database])
        self.assert_serves()

    def test_a_disk_that_is_full_for_a_while_fails_nothing_that_was_there_and_heals(self):
        self.start()
        self.read(OLD)
        ballast = os.path.join(self.machine.disk.path, "ballast")
        with open(ballast, "wb") as f:
            with self.assertRaises(OSError):
                while True:
                    os.write(f.fileno(), bytes(MB))
        pid = self.machine.daemon.pid
        large = self.start_reading(("v", "large"))
        wait_until(self.causes, 30, "the read that waits for room is told why")
        self.read(OLD)
        self.assertFalse(large.wait(0), f"a read that waits for room has ended: {large.result}")
        self.assertIsNone(self.machine.daemon.poll(), self.machine.last_words())
        os.unlink(ballast)
        self.assertTrue(large.wait(30), "a read waits though there is room")
        self.assertEqual(large.result, RIGHT)
        self.assertEqual(self.machine.daemon.pid, pid)
        self.stop()
        self.assertEqual(self.assert_serves(), {"old": 0, "new": 0})

    def causes(self):
        return [r["cause"] for r in self.machine.control({"op": "status"})["requests"]["list"] if r["cause"]]

    def test_a_disk_that_dies_leaves_the_daemon_alive_and_what_was_synced_in_place(self):
        self.start()
        self.read(OLD)
        self.read(("v", "third"))
        wait_until(lambda: self.machine.counters()["bytes_synced"] >= SIZE, 10, "third is durable")
        self.machine.disk.cut()
        for name in (OLD, ("v", "large")):
            reader = self.start_reading(name)
            self.assertTrue(reader.wait(30), f"{name}: a read of a dead disk waits")
            self.assertNotEqual(reader.result, WRONG_BYTES)
        self.assertTrue(self.machine.answers(), self.machine.last_words())
        self.assertRegex(self.machine.last_words(), "Input/output error|IO error")
        self.machine.power_off()
        self.assertEqual(self.assert_serves(), {"old": 0, "new": 0})
        self.assertEqual(self.machine.daemon.returncode, 0)


def overwrite(path, begin, data):
    with open(path, "r+b") as f:
        f.seek(begin)
        f.write(data)


if __name__ == "__main__":
    main(tools=("mkfs.ext4", "chattr"), reasons=[disk.unmet()])
