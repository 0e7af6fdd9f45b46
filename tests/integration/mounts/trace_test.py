"""`holdfast trace slow`: reads that wait for long, as they happen, and why."""

import errno
import json
import os
import signal
import subprocess
import threading
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.other_user import as_nobody
from harness.readers import RIGHT, Reader, pread
from harness.sandbox import wait_until

SIZE = 64 << 20
LENGTH = 65536


class Follower:
    """`holdfast trace slow` in the background, and the lines that it has printed."""

    def __init__(self, case, *arguments):
        instance = case.instance
        self.process = case.box.start(
            instance.command_line("trace", "slow", *instance.root_flags(), "--instance", instance.name, *arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.begun = self.process.stderr.readline()
        self.lines = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def events(self, event):
        return [e for e in map(json.loads, list(self.lines)) if e["event"] == event]

    def wait_for(self, event, count=1, seconds=30):
        return wait_until(lambda: (lambda found: found if len(found) >= count else None)(self.events(event)), seconds,
                          f"{count} events {event}, among {self.lines[-5:]}")

    def end(self, sig=signal.SIGINT):
        self.process.send_signal(sig)
        code = self.process.wait(30)
        self._thread.join(30)
        return code


class TraceTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(SIZE)
        self.name = os.path.basename(self.truth)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.instance = self.holdfast()

    def mount(self, *flags):
        self.path = self.instance.mount_file(self.origin.url(self.name), NO_READ_AHEAD, *flags)

    def follow(self, *arguments):
        follower = Follower(self, *arguments)
        self.assertIn("following the reads of instance t", follower.begun)
        return follower

    def read(self, offset):
        return self.keep(Reader(self.path, offset, LENGTH, pread(self.truth, offset, LENGTH)))

    def assert_is_of(self, event, reader, offset):
        self.assertEqual((event["pid"], event["paths"]), (reader.pid, [self.path]))
        self.assertIn(event["command"], ("python3", "python3-dbg", os.path.basename(os.readlink("/proc/self/exe"))))
        self.assertLessEqual(event["offset"], offset)
        self.assertGreater(event["offset"] + event["length"], offset)

    def test_a_slow_origin_is_shown_while_a_read_waits_and_when_it_ends(self):
        self.mount()
        self.origin.restart(delay_ms=2000)
        follower = self.follow("--json", "--over=300ms")
        offset = 8 << 20
        reader = self.read(offset)
        waits = follower.wait_for("waiting")[0]
        self.assertFalse(reader.wait(0), "the line comes while the read waits")
        self.assert_is_of(waits, reader, offset)
        self.assertIn("the origin is slow", waits["why"])
        self.assertGreaterEqual(waits["waited_ms"], 300)
        ended = follower.wait_for("ended")[0]
        self.assert_is_of(ended, reader, offset)
        self.assertIn("the origin was slow", ended["why"])
        self.assertGreaterEqual(ended["waited_ms"], 1900)
        self.assertEqual(ended["error"], "")
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, RIGHT)
        self.assertEqual(follower.end(), 0)
        shown = [e for e in follower.events("waiting") if e["offset"] == waits["offset"]]
        self.assertEqual(len(shown), 1, "a read that waits is shown once")

    def test_an_origin_that_fails_is_the_cause(self):
        self.mount()
        self.origin.stop()
        follower = self.follow("--json", "--over=1s")
        reader = self.read(8 << 20)
        self.assertRegex(follower.wait_for("waiting")[0]["why"], r"(?i)refused|connect")
        self.origin.configure()
        self.origin.start()
        self.assertTrue(reader.wait(60))
        self.assertRegex(follower.wait_for("ended")[0]["why"], r"(?i)refused|connect")
        self.assertEqual(follower.end(signal.SIGTERM), 0)

    def test_a_fetcher_that_is_gone_is_the_cause_and_a_daemon_that_is_replaced_is_said(self):
        self.mount()
        daemon = self.instance.daemon_pid()
        follower = self.follow("--json", "--over=300ms")
        self.instance.hold_supervisor()
        self.instance.kill_fetcher()
        reader = self.read(8 << 20)
        self.assertEqual(follower.wait_for("waiting")[0]["why"], "no fetcher is attached")
        os.kill(daemon, signal.SIGKILL)
        self.instance.release_supervisor()
        said = follower.wait_for("daemon")[0]
        self.assertNotEqual(said["pid"], daemon)
        self.assertTrue(reader.wait(60))
        self.assertEqual(reader.result, RIGHT)
        self.assertEqual(follower.end(), 0)

    def test_a_read_that_fails_says_so_in_a_line_for_people(self):
        self.mount("--request-timeout=1s")
        self.origin.stop()
        follower = self.follow()
        reader = self.read(8 << 20)
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, errno.EIO)
        line = wait_until(lambda: next((x for x in follower.lines if "failed EIO" in x), None), 30, "the line")
        self.assertRegex(line, r"^\d\d:\d\d:\d\d\.\d{3}  failed EIO after \d\.\d{3} s  pid "
                               rf"{reader.pid} \(.*\)  {self.path} \[\d+, \d+\): .*(?i:refused|connect)")
        self.assertEqual(follower.end(), 0)

    def test_a_follower_that_is_too_slow_is_told_how_much_it_has_lost(self):
        self.mount("--fetch-size=4K")
        follower = self.follow("--json", "--over=1ms")
        follower.process.send_signal(signal.SIGSTOP)
        with open(self.path, "rb", buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for block in range(4096 + 64):
                os.pread(f.fileno(), 4096, block * 8192)
        follower.process.send_signal(signal.SIGCONT)
        lost = follower.wait_for("lost")[0]["reads"]
        waited = self.instance.status()["counters"]["reads_waited"]
        self.assertGreater(lost, 0)
        self.assertLessEqual(lost, waited - 4096)
        self.assertEqual(follower.end(), 0)

    def test_what_cannot_be_followed_is_an_error_in_one_line(self):
        self.mount()
        flags = self.instance.root_flags()
        self.assert_one_line(self.instance.run("trace", "slow", *flags, "--instance=other"), "other")
        self.assert_one_line(self.instance.run("trace", "slow", *flags, "--instance=t", "--over=soon"), "--over")
        argv = self.instance.command_line("trace", "slow", *flags, "--instance=t")
        done = as_nobody(lambda: (lambda run: (run.returncode, run.stdout, run.stderr))(
            subprocess.run(argv, text=True, capture_output=True, timeout=60)))
        self.assertEqual(done[:2], (1, ""))
        self.assertRegex(done[2], "^holdfast: following slow reads needs root.*\n$")
        self.instance.umount(os.path.dirname(self.path))
        self.instance.stop()
        self.assert_one_line(self.instance.run("trace", "slow", *flags, "--instance=t"), "is not running")


if __name__ == "__main__":
    main()
