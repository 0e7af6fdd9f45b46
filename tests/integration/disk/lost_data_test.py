"""Present bytes that the disk below the cache has lost: EIO to their reads, said once with object, range, file and cause."""

import glob
import os
import re

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader
from harness.sandbox import wait_until

SIZE = 4 << 20
PRESENT = 1 << 20  # One fetch.
KEPT = 256 << 10


class LostDataTest(Case):
    def setUp(self):
        super().setUp()
        directory = self.box.make_directory("root")
        self.file = os.path.join(directory, "object.bin")
        images.write_random(self.file, SIZE, 7)
        origin = self.serve(directory)
        self.instance = self.holdfast()
        self.path = self.instance.mount_file(origin.url("object.bin"), NO_READ_AHEAD,
                                             f"--daemon-flag=--fetch-size={PRESENT}", "--daemon-flag=--kernel-readahead-kb=4")

    def result_of(self, offset):
        with open(self.file, "rb") as f:
            f.seek(offset)
            truth = f.read(4096)
        reader = self.keep(Reader(self.path, offset, 4096, truth))
        self.assertTrue(reader.wait(20))
        return reader.result

    def test_reads_of_lost_bytes_are_eio_and_said_once(self):
        self.assertEqual(self.result_of(0), RIGHT)
        wait_until(lambda: self.instance.status()["objects"][0]["present"] == PRESENT, 20, "the whole of the fetch")
        [data] = glob.glob(self.instance.state_path("cache", "data", "*", "*.data"))
        os.truncate(data, KEPT)
        for offset in (KEPT, KEPT + 4096, PRESENT - 4096):
            self.assertEqual(self.result_of(offset), 5)
        self.assertEqual(self.result_of(4096), RIGHT)
        status = self.instance.status()
        self.assertGreaterEqual(status["counters"]["reads_failed"], 3)  # The kernel may ask twice for a page.
        [line] = [line for line in self.instance.log_text().splitlines() if "its disk has lost" in line]
        found = re.search(r"object (\S+)/object\.bin: EIO .*: bytes \[(\d+), (\d+)\) of (\S+): the file ends before them", line)
        self.assertTrue(found, line)
        self.assertEqual((found[1], found[4]), (status["objects"][0]["volume"], os.path.realpath(data)))
        self.assertEqual(int(found[2]), KEPT)
        # What was not there yet is fetched as before.
        self.assertEqual(self.result_of(2 * PRESENT), RIGHT)


if __name__ == "__main__":
    main()
