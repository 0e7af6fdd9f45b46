"""A process that lives but does not serve: the watchdog of `holdfast supervise` ends it, and reads go on."""

import json
import os
import signal
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import RIGHT, Reader, wait_all
from harness.sandbox import wait_gone

WATCHDOG = "--watchdog=1s"
READERS = 16


class WatchdogTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(32 << 20)
        with open(self.truth, "rb") as f:
            self.bytes = f.read()
        self.origin = self.serve(os.path.dirname(self.truth), delay_ms=5)

    def mount(self, *flags):
        holdfast = self.holdfast()
        path = holdfast.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD, *flags)
        return holdfast, path

    def start_readers(self, path):
        """Of ranges that were not read yet."""
        size = 256 << 10
        return [self.keep(Reader(path, i << 21, size, self.bytes[i << 21:(i << 21) + size])) for i in range(READERS)]

    def service(self, holdfast, name):
        with open(holdfast.run_path("supervise.status")) as f:
            return next(s for s in json.load(f)["services"] if s["name"] == name)

    def assert_all_right(self, readers):
        self.assertEqual([r.what for r in wait_all(readers, 30)], [])
        self.assertEqual({r.result for r in readers}, {RIGHT})

    def stop_and_wait(self, holdfast, name, pid):
        """Stops the process; readers start; the watchdog must end it."""
        os.kill(pid, signal.SIGSTOP)
        try:
            readers = self.start_readers(self.path)
            self.assertTrue(wait_gone(pid, 20), f"{name} {pid} is stopped and was not ended")
        finally:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.assert_all_right(readers)
        service = self.service(holdfast, name)
        self.assertIn("watchdog", service["last_exit"])
        return service

    def test_a_stopped_daemon_is_replaced_and_its_reads_finish(self):
        holdfast, self.path = self.mount(WATCHDOG)
        self.assertEqual(self.stop_and_wait(holdfast, "holdfastd", holdfast.daemon_pid())["restarts"], 1)

    def test_a_stopped_fetcher_is_replaced_and_the_reads_it_had_finish(self):
        holdfast, self.path = self.mount(WATCHDOG)
        service = self.stop_and_wait(holdfast, "fetcherd", holdfast.attached_pid())
        self.assertEqual(service["restarts"], 1)

    def test_both_stopped_are_replaced(self):
        holdfast, self.path = self.mount(WATCHDOG)
        fetcher, daemon = holdfast.attached_pid(), holdfast.daemon_pid()
        os.kill(fetcher, signal.SIGSTOP)
        self.stop_and_wait(holdfast, "holdfastd", daemon)
        self.assertTrue(wait_gone(fetcher, 20))

    def test_a_process_that_waits_for_an_origin_is_not_regarded_as_hung(self):
        """However much longer than the watchdog's limit."""
        holdfast, self.path = self.mount(WATCHDOG)
        daemon, fetcher = holdfast.daemon_pid(), holdfast.attached_pid()
        self.origin.restart(delay_ms=4000)
        self.assert_all_right(self.start_readers(self.path)[:4])
        self.assertEqual((holdfast.daemon_pid(), holdfast.attached_pid()), (daemon, fetcher))

    def test_without_a_watchdog_a_stopped_daemon_stays(self):
        holdfast, self.path = self.mount("--watchdog=0")
        pid = holdfast.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        readers = self.start_readers(self.path)
        self.assertEqual(len(wait_all(readers, 3)), READERS)
        os.kill(pid, signal.SIGCONT)
        self.assert_all_right(readers)
        self.assertEqual(holdfast.daemon_pid(), pid)


if __name__ == "__main__":
    main()
