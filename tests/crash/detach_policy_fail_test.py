"""--detach-policy=fail: pending reads end with EIO when the fetcher dies; its successor serves new ones."""

import errno
import os
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import Reader, pread, wait_all

AT_ONCE_S = 1.0
END_S = 10  # The origin answers after 20 s.
# The connection ends with the fetcher, as it does for one without a service manager.
NOT_KEPT = "--fetcher-flag=--nokeep-connection"


class DetachPolicyFailTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(32 << 20)
        self.origin = self.serve(os.path.dirname(self.truth))

    def mount_and_start_readers(self, *flags):
        """Eight reads that an origin 20 s away will not have answered when the fetcher dies."""
        holdfast = self.holdfast()
        path = holdfast.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD, *flags)
        self.origin.restart(delay_ms=20000)
        readers = [self.keep(Reader(path, (4 * i + 2) << 20, 4096)) for i in range(8)]
        holdfast.wait_waiting(8)
        return holdfast, path, readers

    def test_pending_reads_end_with_eio_at_once_and_a_new_fetcher_serves_new_reads(self):
        holdfast, path, readers = self.mount_and_start_readers("--detach-policy=fail", NOT_KEPT)
        holdfast.hold_supervisor()
        holdfast.kill_fetcher()
        killed = time.monotonic()
        self.assertEqual([r.what for r in wait_all(readers, 10)], [])
        self.assertLess(time.monotonic() - killed, END_S)
        self.assertEqual({r.result for r in readers}, {errno.EIO})
        self.origin.restart()
        holdfast.release_supervisor()
        holdfast.wait_fetcher()
        for offset in (2 << 20, 21 << 20):
            self.assertEqual(pread(path, offset, 4096), pread(self.truth, offset, 4096))
        self.assertEqual(holdfast.waiting(), 0)

    def test_with_its_connection_in_the_store_the_death_of_a_fetcher_fails_nothing(self):
        holdfast, path, readers = self.mount_and_start_readers("--detach-policy=fail")
        generation = holdfast.status()["generation"]
        for _ in range(3):  # A successor may die as well, before or after it has resumed.
            holdfast.hold_supervisor()
            holdfast.kill_fetcher()
            late = self.keep(Reader(path, 30 << 20, 4096))
            self.assertEqual(len(wait_all(readers + [late], AT_ONCE_S)), 9)
            readers.append(late)
            self.assertIsNone(holdfast.attached_pid())
            holdfast.release_supervisor()
            holdfast.wait_fetcher()
            readers.pop().kill()
        self.assertGreater(holdfast.status()["generation"], generation)
        self.assertNotIn("fetcher detached", holdfast.log_text())
        self.origin.restart()
        self.assertEqual([r.what for r in wait_all(readers, 20)], [])
        self.assertEqual({r.result for r in readers}, {0})
        for offset in (2 << 20, 21 << 20):
            self.assertEqual(pread(path, offset, 4096), pread(self.truth, offset, 4096))

    def test_with_hold_the_same_reads_go_on_waiting(self):
        holdfast, path, readers = self.mount_and_start_readers("--detach-policy=hold")
        holdfast.hold_supervisor()
        holdfast.kill_fetcher()
        self.assertEqual(len(wait_all(readers, 2 * AT_ONCE_S)), 8)
        self.origin.restart()
        holdfast.release_supervisor()
        self.assertEqual([r.what for r in wait_all(readers, 20)], [])
        self.assertEqual({r.result for r in readers}, {0})


if __name__ == "__main__":
    main()
