"""Neighbour: another mount of the same daemon, read all the time, which nothing that a test does may disturb."""

import os
import random
import threading

from harness import images
from harness.readers import drop_page_cache, pread
from harness.sandbox import wait_until

SIZE = 16 << 20
LENGTH = 4096


class Neighbour:
    """Mounts a healthy file, reads all of it, and goes on reading with the page cache dropped now and then."""

    def __init__(self, case, holdfast, *flags):
        self._case = case
        truth = images.random_file(SIZE, seed=99)
        self.origin = case.serve(os.path.dirname(truth), name="neighbour")
        self._holdfast = holdfast
        self._path = holdfast.mount_file(self.origin.url(os.path.basename(truth)), *flags)
        with open(truth, "rb") as f:
            self._truth = f.read()
        case.assertEqual(pread(self._path, 0, SIZE), self._truth)
        self._daemon = holdfast.daemon_pid()
        self._stop = threading.Event()
        self._failures = []
        self.reads = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        rng = random.Random(1)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            while not self._stop.wait(0.002):
                offset = rng.randrange(SIZE // LENGTH) * LENGTH
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(fd, LENGTH, offset) != self._truth[offset:offset + LENGTH]:
                    self._failures.append(f"wrong bytes at {offset}")
                self.reads += 1
        except OSError as e:
            self._failures.append(str(e))
        finally:
            os.close(fd)

    def assert_undisturbed(self):
        """It was read while the test did its worst, without an error, by the daemon it was mounted from."""
        wait_until(lambda: self.reads > 10 or not self._thread.is_alive(), 10, "the neighbour's reads going on")
        self._stop.set()
        self._thread.join(10)
        self._case.assertFalse(self._thread.is_alive(), "the neighbour's read hangs")
        self._case.assertEqual(self._failures, [])
        self._holdfast.assert_daemon_is(self._daemon)
        drop_page_cache()
        self._case.assertEqual(pread(self._path, 0, SIZE), self._truth)
