"""Unmounted, stopped, the origin gone, mounted again: what was present is still there and needs no origin."""

import errno
import os
import time

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader, drop_page_cache, pread

FILES = 8
FILE_SIZE = 4 << 20
MOUNT_S = 15  # A mount that waits for the origin waits for 30 s.


class RestartWithoutOriginTest(Case):
    def setUp(self):
        super().setUp()
        self.serve_random_image(FILES, FILE_SIZE, seed=5)

    def truth(self, name):
        with open(os.path.join(self.tree, name), "rb") as f:
            return f.read()

    def remount_without_origin(self, *flags):
        """Reads the first half of the files, takes everything down, and mounts again with no origin."""
        point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD)
        names = sorted(os.listdir(point))
        self.present, self.absent = names[:FILES // 2], names[FILES // 2 + 1:]
        for name in self.present:
            self.assertEqual(pread(os.path.join(point, name), 0, FILE_SIZE), self.truth(name))
        self.instance.umount(point)
        self.instance.stop()
        self.origin.stop()
        drop_page_cache()
        start = time.monotonic()
        self.instance.mount(self.url, NO_READ_AHEAD, *flags, mount_point=point)
        self.assertLess(time.monotonic() - start, MOUNT_S, "the mount waited for the origin")
        return point

    def assert_present_is_right(self, point):
        for name in self.present:
            self.assertEqual(pread(os.path.join(point, name), 0, FILE_SIZE), self.truth(name))

    def test_what_was_present_reads_right_and_the_rest_waits_for_the_origin(self):
        point = self.remount_without_origin()
        self.assert_present_is_right(point)
        offset = FILE_SIZE - 65536
        name = self.absent[-1]
        reader = self.keep(Reader(os.path.join(point, name), offset, 4096, self.truth(name)[offset:offset + 4096]))
        self.assertFalse(reader.wait(3), "an absent range was read without an origin")
        self.assert_present_is_right(point)
        self.origin.start()
        self.assertTrue(reader.wait(30), "the read did not finish when the origin was back")
        self.assertEqual(reader.result, RIGHT)

    def test_with_a_request_timeout_the_rest_fails(self):
        point = self.remount_without_origin("--request-timeout=2s")
        self.assert_present_is_right(point)
        reader = self.keep(Reader(os.path.join(point, self.absent[-1]), FILE_SIZE - 65536, 4096))
        self.assertTrue(reader.wait(10), "still waiting")
        self.assertEqual(reader.result, errno.EIO)
        self.assert_present_is_right(point)

    def test_nothing_present_is_fetched_again(self):
        point = self.remount_without_origin()
        self.origin.start()
        for name in sorted(os.listdir(point)):
            self.assertEqual(pread(os.path.join(point, name), 0, FILE_SIZE), self.truth(name))
        self.assertEqual(self.origin.served().twice_bytes, 0)


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
