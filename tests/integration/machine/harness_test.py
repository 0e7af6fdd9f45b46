"""The harness itself: an origin that counts right and a sandbox that leaves nothing, or every other test lies."""

import os
import signal
import subprocess
import sys
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.origins.nginx import union_size
from harness.readers import RIGHT, WRONG_BYTES, Reader
from harness.sandbox import MARK, mounts_below, processes_of, wait_until


class AccountingTest(unittest.TestCase):
    def test_a_union_counts_overlaps_once(self):
        self.assertEqual(union_size([(0, 10), (5, 15), (20, 30), (22, 25)]), 25)
        self.assertEqual(union_size([]), 0)


class NginxTest(Case):
    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        images.write_random(os.path.join(self.root, "f"), 1 << 20, 7)
        with open(os.path.join(self.root, "f"), "rb") as f:
            self.truth = f.read()

    def test_a_delayed_answer_is_a_206_with_the_right_bytes_and_an_etag(self):
        origin = self.serve(self.root, delay_ms=50)
        start = time.monotonic()
        status, headers, body = origin.get("f", {"Range": "bytes=1000-4999"})
        self.assertGreaterEqual(time.monotonic() - start, 0.045)
        self.assertEqual((status, body), (206, self.truth[1000:5000]))
        self.assertEqual(headers["Content-Range"], f"bytes 1000-4999/{1 << 20}")
        self.assertTrue(headers["ETag"])
        status, _, body = origin.get("f", {"Range": "bytes=0-9", "If-Range": '"another"'})
        self.assertEqual((status, len(body)), (200, 1 << 20))

    def test_bytes_sent_twice_are_counted_exactly(self):
        origin = self.serve(self.root)
        for begin, end in ((0, 99), (50, 149), (1000, 1999), (1000, 1999)):
            origin.get("f", {"Range": f"bytes={begin}-{end}"})
        served = wait_until(lambda: (lambda s: s if s.requests == 4 else None)(origin.served("/f")), 5, "the log")
        self.assertEqual((served.bytes, served.unique_bytes, served.twice_bytes), (2200, 1150, 1050))

    def test_it_comes_back_on_its_port_after_a_sigkill(self):
        origin = self.serve(self.root)
        origin.stop()
        with self.assertRaises(OSError):
            origin.get("f")
        origin.start()
        self.assertEqual(origin.get("f")[2], self.truth)


class ReaderTest(Case):
    def test_it_tells_right_bytes_from_wrong_ones_and_from_an_error(self):
        path = self.box.path("f")
        with open(path, "wb") as f:
            f.write(b"truth")
        for reader, result in ((Reader(path, 0, 5, b"truth"), RIGHT), (Reader(path, 0, 5, b"lies!"), WRONG_BYTES),
                               (Reader(path, 0, 9, b"truth+more"), WRONG_BYTES), (Reader(path + "x", 0, 5), 2)):
            self.assertTrue(reader.wait(5))
            self.assertEqual(reader.result, result)


class SandboxTest(Case):
    def test_a_killed_test_leaves_no_process_no_mount_and_no_file(self):
        script = ("import os, sys, time; sys.path.insert(0, sys.argv[1]); from harness.sandbox import Sandbox\n"
                  "import subprocess\n"
                  "box = Sandbox('victim'); point = box.make_directory('m')\n"
                  "subprocess.run(['mount', '-t', 'tmpfs', 'none', point], check=True)\n"
                  "subprocess.Popen(['/bin/sh', '-c', 'setsid sleep 1000 & exec sleep 1000'], env=box.environment)\n"
                  "print(box.directory, flush=True); time.sleep(1000)\n")
        child = self.box.start([sys.executable, "-B", "-c", script, os.path.dirname(sys.modules["harness"].__path__[0])],
                               stdout=subprocess.PIPE, text=True)
        directory = child.stdout.readline().strip()
        wait_until(lambda: len(processes_of(directory)) >= 2, 5, f"two processes with {MARK}")
        self.assertEqual(len(mounts_below(directory)), 1)
        child.send_signal(signal.SIGKILL)
        wait_until(lambda: not os.path.exists(directory), 20, "everything cleaned by the guard")
        self.assertEqual((processes_of(directory), mounts_below(directory)), ([], []))


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
