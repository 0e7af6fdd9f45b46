"""TreeReaders: reads of an image's files that wait for a slow origin while something happens to the processes."""

import os

from harness.readers import RIGHT, Reader, wait_all
from harness.sandbox import wait_until

DELAY_MS = 400


class TreeReaders:
    """For a Case with serve_random_image(), whose image is mounted on self.point."""

    def start_reading(self, names):
        """One reader for each of these files, which nobody has read yet."""
        self.origin.restart(delay_ms=DELAY_MS)
        self.readers = []
        for name in names:
            with open(os.path.join(self.tree, name), "rb") as f:
                truth = f.read()
            self.readers.append(self.keep(Reader(os.path.join(self.point, name), 0, len(truth), truth)))
        wait_until(lambda: self.instance.waiting() > 0, 20, "reads that wait")

    def assert_all_right(self):
        self.assertEqual([r.what for r in wait_all(self.readers, 60)], [], "readers still wait")
        self.assertEqual({r.result for r in self.readers}, {RIGHT})

    def assert_tree_right(self, point=None):
        point = point or self.point
        for name in sorted(os.listdir(point)):
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))
