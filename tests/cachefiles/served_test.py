"""A daemon of the kernel's interface serves an image through Holdfast, dies, and its successor goes on."""

import filecmp
import os
import threading
import unittest

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CLIENTS, CachefilesCase, UnderTheUnit, image
from harness.case import main
from harness.readers import RIGHT, Reader
from harness.sandbox import wait_until


class Served:
    """The tests; a class below for each client."""

    def acquire_beside(self, volume, cookie):
        """Acquires while a daemon is still to come or to answer."""
        answer = []
        thread = threading.Thread(target=lambda: answer.append(self.machine.acquire(volume, cookie)))
        thread.start()
        self.addCleanup(thread.join)
        return thread, answer

    def assert_same_tree(self, where, tree):
        names = sorted(os.listdir(tree))
        self.assertEqual(sorted(os.listdir(where)), names)
        _, wrong, errors = filecmp.cmpfiles(where, tree, names, shallow=False)
        self.assertEqual((wrong, errors), ([], []))

    def test_an_image_is_read_through_a_daemon(self):
        path, tree = image()
        self.source("image", path)
        _, log = self.client(self.device, "bind")
        served = self.machine.acquire("erofs,image", "image")
        self.assert_same_tree(self.mount(served), tree)
        text = self.text(log)
        self.assertEqual(text.count("open erofs,image image"), 1, text)
        reads = [line.split() for line in text.splitlines() if line.startswith("read ")]
        self.assertTrue(all(int(length) <= 2 << 20 for _, _, length in reads), text)
        self.assertTrue(all(int(offset) % 4096 == 0 for _, offset, _ in reads), text)

    def test_restore_finishes_what_a_killed_daemon_had_begun(self):
        path, tree = image()
        self.source("image", path)
        fd = self.open_device()
        first, log = self.client(f"fd:{fd}", "bind", "3", pass_fds=[fd])
        served = self.machine.acquire("erofs,image", "image")
        with open(path, "rb") as f:
            truth = f.read()
        reader = self.keep(Reader(served, 0, len(truth), truth))
        wait_until(lambda: "stopped" in self.text(log), 20, "the daemon stops in mid-read")
        self.kill(first)
        self.assertIsNone(reader.result)
        _, log = self.client(f"fd:{fd}", "restore", pass_fds=[fd])
        self.assertTrue(reader.wait(30), self.text(log))
        self.assertEqual(reader.result, RIGHT)
        self.assertIn("open erofs,image image", self.text(log))
        self.assert_same_tree(self.mount(served), tree)
        self.assertEqual(self.machine.counters()["reads_failed"], 0)

    def test_an_object_that_waits_to_be_opened_survives_its_daemon(self):
        path, _ = image()
        self.source("image", path)
        fd = self.open_device()
        thread, answer = self.acquire_beside("erofs,image", "image")
        os.write(fd, b"dir " + os.fsencode(self.directory))
        os.write(fd, b"bind ondemand")
        self.client(f"fd:{fd}", "restore", pass_fds=[fd])
        thread.join(20)
        self.assertEqual(len(answer), 1)
        self.assert_reads_right(answer[0], path, 0, 1 << 20)


class ServedByPreloadedC(Served, CachefilesCase):
    kind = "preloaded C"


class ServedByStaticC(Served, CachefilesCase):
    kind = "static C"


class ServedByLinkedC(Served, CachefilesCase):
    kind = "linked C"


class ServedUnderTheUnit(Served, UnderTheUnit, CachefilesCase):
    kind = "static C"


@unittest.skipUnless(os.path.exists(CLIENTS["static Go"][0]), "no Go compiler")
class ServedByStaticGo(Served, CachefilesCase):
    kind = "static Go"


if __name__ == "__main__":
    main()
