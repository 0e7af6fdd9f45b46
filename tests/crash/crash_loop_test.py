"""A daemon that dies at each start: damped, shown by `holdfast status`; the read that waited all along finishes once
it is mended."""

import json
import os
import re
import signal
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.programs import Programs
from harness.readers import RIGHT, Reader, wait_all
from harness.sandbox import wait_gone, wait_until

PAUSE_MAX_S = 5.0


class CrashLoopTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(32 << 20)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.programs = Programs(self.box)
        self.instance = self.holdfast()
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD)

    def start_readers(self):
        """Reads that wait in the daemon when it dies, and others that come while there is none."""
        self.origin.restart(delay_ms=600_000)
        self.readers = [self.start_reader(i) for i in range(1, 5)]
        wait_until(lambda: self.instance.waiting() >= 4, 20, "four reads waiting")

    def start_reader(self, i):
        with open(self.truth, "rb") as f:
            f.seek(i * (3 << 20))
            return self.keep(Reader(self.path, i * (3 << 20), 8192, f.read(8192)))

    def kill_daemon(self):
        pid = self.instance.daemon_pid()
        self.restarts = self.instance.service("holdfastd")["restarts"]
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 5))

    def wait_deaths(self, count):
        wait_until(lambda: self.instance.service("holdfastd")["restarts"] >= self.restarts + count, 30,
                   f"{count} deaths")

    def assert_damped_and_reported(self, last_exit):
        # 10 ms, doubled each time: ten deaths take five seconds, and no more come in the next second than one or two.
        self.wait_deaths(9)
        before = self.instance.service("holdfastd")["restarts"]
        end = time.monotonic() + 2
        wait_until(lambda: time.monotonic() > end, 3, "two seconds")  # What is to be seen is that nothing happens.
        self.assertLessEqual(self.instance.service("holdfastd")["restarts"] - before, 2, "the loop is not damped")

        wait_until(lambda: self.instance.service("holdfastd")["retry_at_ms"] > 0, 10, "a pause between two starts")
        service = self.instance.service("holdfastd")
        self.assertIn("fuse", service["fd_store"], "the connection was lost")
        done = self.instance.run("status", "--root", self.instance.root, "--json")
        shown = next(s for s in json.loads(done.stdout)["instances"][0]["supervise"]["services"]
                     if s["name"] == "holdfastd")
        self.assertGreaterEqual(shown["restarts"], self.restarts + 9)
        self.assertEqual(shown["last_exit"], last_exit)
        self.assertIn("fuse", shown["fd_store"])
        text = wait_until(self.status_with_next_start, 30, "status naming the next start")
        self.assertIn("not serving", text)
        self.assertRegex(text, r"restarted \d+ times \(last: " + re.escape(last_exit) + r"\)")

    def status_with_next_start(self):
        text = self.instance.run("status", "--root", self.instance.root).stdout
        return text if re.search(r"next start in \d\.\d s", text) else None

    def assert_all_finish(self):
        self.readers.append(self.start_reader(6))  # One that comes while no daemon serves.
        self.assertFalse(self.readers[-1].wait(0.2))
        self.origin.restart()
        self.mend()
        self.assertEqual([r.what for r in wait_all(self.readers, 30 + PAUSE_MAX_S)], [])
        self.assertEqual({r.result for r in self.readers}, {RIGHT})

    def test_a_program_that_exits_at_once(self):
        self.start_readers()
        self.programs.replace("holdfastd", "/bin/false")
        self.kill_daemon()
        self.assert_damped_and_reported("exited with code 1")
        self.mend = lambda: self.programs.replace("holdfastd")
        self.assert_all_finish()

    def test_a_program_that_is_gone(self):
        self.start_readers()
        os.unlink(self.programs.path("holdfastd"))
        self.kill_daemon()
        self.assert_damped_and_reported("could not be started: No such file or directory")
        self.mend = lambda: self.programs.replace("holdfastd")
        self.assert_all_finish()

    def test_a_database_that_cannot_be_read(self):
        self.start_readers()
        database = self.instance.state_path("cache", "db")
        self.instance.hold_supervisor()
        self.kill_daemon()
        os.rename(database, database + ".kept")
        with open(database, "w"):
            pass  # A file where the directory should be.
        self.instance.release_supervisor()
        self.assert_damped_and_reported("exited with code 1")

        def mend():
            os.unlink(database)
            os.rename(database + ".kept", database)
        self.mend = mend
        self.assert_all_finish()


if __name__ == "__main__":
    main()
