"""The origin goes away with reads in flight: for a while, and for good."""

import errno
import os
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader, pread, wait_all

READERS = 16
OUTAGE_S = 20
TIMEOUT_S = 5


class OriginOutageTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(64 << 20)
        self.name = os.path.basename(self.truth)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.instance = self.holdfast()

    def start_readers(self, path, count):
        """Reads in flight at an origin that answers after 2 s, which it does not live to do."""
        self.origin.restart(delay_ms=2000)
        readers = []
        for i in range(count):
            offset = (i << 22) + (1 << 20)
            readers.append(self.keep(Reader(path, offset, 65536, pread(self.truth, offset, 65536))))
        self.instance.wait_waiting(count)
        self.origin.stop()
        return readers

    def test_reads_in_flight_finish_when_the_origin_is_back_after_20_s(self):
        readers = self.start_readers(self.instance.mount_file(self.origin.url(self.name), NO_READ_AHEAD), READERS)
        time.sleep(OUTAGE_S)
        self.assertEqual([r.what for r in readers if r.wait(0)], [], "readers that did not wait")
        self.origin.configure()
        self.origin.start()
        back = time.monotonic()
        self.assertEqual([r.what for r in wait_all(readers, 60)], [], "readers still waiting")
        print(f"all {READERS} reads finished {time.monotonic() - back:.1f} s after the origin was back", flush=True)
        self.assertEqual({r.result for r in readers}, {RIGHT})

    def test_with_a_request_timeout_they_end_with_eio_and_the_log_says_why(self):
        path = self.instance.mount_file(self.origin.url(self.name), NO_READ_AHEAD, f"--request-timeout={TIMEOUT_S}s")
        readers = self.start_readers(path, 4)
        self.assertEqual([r.what for r in wait_all(readers, 4 * TIMEOUT_S)], [], "readers still waiting")
        self.assertEqual({r.result for r in readers}, {errno.EIO})
        for reader in readers:
            self.assertGreater(reader.seconds, TIMEOUT_S - 0.5)
            self.assertLess(reader.seconds, 3 * TIMEOUT_S)
        lines = [line for line in self.instance.log_text().splitlines() if self.name in line]
        offset = 1 << 20
        said = [line for line in lines if f"[{offset}, " in line]
        self.assertEqual(len(said), 1, f"one line for one failed read, not: {said or lines}")
        self.assertRegex(said[0], r"(?i)connect|refused")
        self.origin.configure()
        self.origin.start()
        self.assertEqual(pread(path, 50 << 20, 4096), pread(self.truth, 50 << 20, 4096))


if __name__ == "__main__":
    main()
