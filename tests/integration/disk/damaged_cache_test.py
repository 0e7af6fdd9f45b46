"""A damaged RocksDB record costs its object, which is fetched again; the rest is served as before."""

import os
import re
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import helper
from harness.readers import drop_page_cache, pread

SIZE = 4 << 20
FILES = ("a.bin", "b.bin", "c.bin")


class DamagedCacheTest(Case):
    def setUp(self):
        super().setUp()
        root = self.box.make_directory("root")
        for i, name in enumerate(FILES):
            images.write_random(os.path.join(root, name), SIZE, 50 + i)
        self.root = root
        self.origin = self.serve(root)
        self.instance = self.holdfast()

    def read_all_right(self):
        for name in FILES:
            path = self.instance.mount_file(self.origin.url(name))
            self.assertEqual(pread(path, 0, SIZE), pread(os.path.join(self.root, name), 0, SIZE), name)
            self.instance.umount(os.path.dirname(path))

    def object_number(self, name):
        for line in self.instance.dump().splitlines():
            if line.startswith("object number=") and name in line:
                return int(re.search(r"\d+", line)[0])
        raise AssertionError(f"no object {name} in:\n{self.instance.dump()}")

    def damage_and_remount(self, value):
        """Overwrites the record of b.bin while nothing runs; returns how often each file was asked for then."""
        self.read_all_right()
        self.instance.stop()
        number = self.object_number("b.bin")
        done = self.box.run([helper("damage_record"), self.instance.state_path("cache", "db"), str(number), value])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(self.instance.dump(), "damaged")
        drop_page_cache()
        before = len(self.origin.log())
        self.read_all_right()
        self.read_all_right()
        return [sent.uri for sent in self.origin.log()[before:] if sent.method == "GET" and not sent.is_probe]

    def test_garbage_in_an_objects_record_affects_that_object_only(self):
        fetched = self.damage_and_remount("garbage that decodes to nothing")
        self.assertEqual(set(fetched), {"/b.bin"})
        self.assertRegex(self.instance.dump(), r"(?m)^quarantine")

    def test_an_empty_record_affects_that_object_only(self):
        self.assertEqual(set(self.damage_and_remount("")), {"/b.bin"})


if __name__ == "__main__":
    main()
