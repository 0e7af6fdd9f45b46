"""`--on-full=through`: what the cache's disk has no room for is served all the same, and not kept."""

import os
import signal

import _path  # noqa: F401
from full_disk_test import HALF, MB, PARTIAL, PRESENT, DiskCase
from harness import disk, images
from harness.case import Case, main
from harness.disk import Disk, fill_up
from harness.readers import RIGHT, WRONG_BYTES, Child, drop_page_cache, pread_all
from harness.sandbox import wait_until
from harness.verity import with_tree

THROUGH = "--on-full=through"


class ThroughTest(DiskCase):
    FLAGS = (THROUGH,)

    def object(self, name):
        return next(o for o in self.status()["objects"] if (o["volume"], o["name"]) == name)

    def present(self, name):
        return self.object(name)["present"]

    def is_said_to_be_full(self, name):
        return self.object(name)["full"]

    def test_a_full_disk_serves_what_it_cannot_keep(self):
        make_room = self.fill_up()
        self.kill_and_start()
        self.read(PRESENT)
        before = self.present(PARTIAL)
        self.read(PARTIAL, 8 * MB, 20 * MB)
        self.assertTrue(self.is_said_to_be_full(PARTIAL))
        # In one request of the kernel's: bytes that are there, and bytes that are not.
        self.read(PARTIAL, HALF - 512 * 1024, HALF + 3 * MB)
        self.kill_and_start()
        self.read(PARTIAL, 8 * MB, 20 * MB)
        self.assertEqual(self.present(PARTIAL), before)
        self.assertGreaterEqual(self.machine.counters()["bytes_through"], 12 * MB)
        self.assertEqual(self.machine.counters()["reads_failed"], 0)
        make_room()
        self.kill_and_start()
        self.read(PARTIAL)
        self.assertFalse(self.is_said_to_be_full(PARTIAL))
        self.assertEqual(self.present(PARTIAL), self.machine.counters()["bytes_filled"] + before)
        self.assert_nothing_is_claimed_falsely()

    def test_room_is_noticed_without_a_restart(self):
        make_room = self.fill_up()
        self.read(PARTIAL, 8 * MB, 9 * MB)
        before = self.present(PARTIAL)
        make_room()
        at = iter(range(10 * MB, 40 * MB, 64 * 1024))

        def is_kept():
            begin = next(at)
            self.read(PARTIAL, begin, begin + 64 * 1024)
            return self.present(PARTIAL) > before
        wait_until(is_kept, 20, "what is fetched is kept again")
        self.read(PARTIAL)
        self.assert_nothing_is_claimed_falsely()


class ThroughDeathsTest(Case):
    """Under `holdfast supervise`, whose mounts outlive the processes."""

    SIZE = 64 * MB

    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        self.truth = os.path.join(self.root, "image")
        source = images.random_file(self.SIZE, seed=91)
        self.digest = with_tree(source, self.root)
        self.origin = self.serve(self.root, limit_rate="20m")  # So that there is a middle of a read.
        self.disk = Disk(self.box, "d", 160 * MB)
        self.instance = self.holdfast()

    def mount(self, *flags):
        return self.instance.mount_file(self.origin.url("image"), "--on-full=through", "--cache-dir",
                                        os.path.join(self.disk.path, "cache"), *flags)

    def read_on(self, path):
        with open(path, "rb", buffering=0) as f, open(self.truth, "rb", buffering=0) as right:
            for at in range(0, self.SIZE, 128 * 1024):
                length = min(128 * 1024, self.SIZE - at)
                if pread_all(f.fileno(), at, length) != pread_all(right.fileno(), at, length):
                    return WRONG_BYTES
        return RIGHT

    def counters(self):
        return self.instance.status()["counters"]

    def is_replaced(self, daemon):
        try:
            return self.instance.status()["pid"] != daemon
        except (OSError, ValueError):
            return False

    def survives(self, *flags):
        path = self.mount(*flags)
        self.assert_reads_right(path, self.truth, 0, MB)
        make_room = fill_up(self.disk.path)
        reader = self.keep(Child("reader", lambda: self.read_on(path)))
        for _ in range(3):
            wait_until(lambda: reader.wait(0) or self.counters()["bytes_through"] > 4 * MB, 30, "bytes go through")
            self.assertIsNone(reader.result, "the read is over before everything was killed")
            daemon = self.instance.status()["pid"]
            self.instance.kill_fetcher()
            os.kill(daemon, signal.SIGKILL)
            wait_until(lambda: self.is_replaced(daemon), 20, "the next daemon")
        self.assertTrue(reader.wait(60), self.instance.log_text()[-2000:])
        self.assertEqual(reader.result, RIGHT, self.instance.log_text()[-2000:])
        present = self.instance.status()["objects"][0]["present"]
        self.assertLess(present, self.SIZE)
        make_room()
        drop_page_cache()
        wait_until(lambda: self.is_kept_whole(path), 60, "all of it is kept")
        drop_page_cache()
        self.origin.stop()
        self.assertEqual(self.read_on(path), RIGHT)

    def is_kept_whole(self, path):
        drop_page_cache()
        self.assertEqual(self.read_on(path), RIGHT)
        return self.instance.status()["objects"][0]["present"] == self.SIZE

    def test_deaths_in_mid_read(self):
        self.survives()

    def test_deaths_in_mid_read_of_an_object_with_a_digest(self):
        self.survives(f"--verify={self.digest}")


if __name__ == "__main__":
    main(tools=("mkfs.ext4", "chattr"), reasons=[disk.unmet()])
