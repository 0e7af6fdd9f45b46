"""`holdfast metrics`: what a run of known reads, kills and deaths has counted."""

import mmap
import os
import re
import shutil
import signal
import subprocess
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.scripted import Answer, ScriptedOrigin, whole_or_range
from harness.sandbox import Timeout, wait_gone, wait_until

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
DOCUMENT = os.path.join(ROOT, "docs/metrics.md")
RULES = os.path.join(ROOT, "packaging/prometheus/holdfast.rules.yml")
SIZE = 4 << 20
BLOCK = 64 << 10
PAGE = 4096


class MetricsTest(Case):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(SIZE)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.instance = self.holdfast()
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD)

    def text(self, *arguments):
        done = self.instance.run("metrics", *self.instance.root_flags(), *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def samples(self):
        """{"name" or "name,label value": value}"""
        found = {}
        for name, labels, value in re.findall(r'^(holdfast_\w+)\{instance_name="t"([^}]*)\} (\S+)$', self.text(), re.M):
            found[",".join([name, *re.findall(r'"([^"]*)"', labels)])] = float(value)
        return found

    def wait_known(self, known):
        """Until the counts are those; what has answered a reader is counted a moment later."""
        got = {}

        def agrees():
            got.update(self.samples())
            return all(got.get(name) == value for name, value in known.items())

        try:
            wait_until(agrees, 30, "the counts")
        except Timeout:
            self.assertEqual({name: got.get(name) for name in known}, known)
        return got

    def read_block(self, path, index):
        """One READ of the kernel, past its page cache."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            buffer = mmap.mmap(-1, BLOCK)
            self.assertEqual(os.preadv(fd, [buffer], index * BLOCK), BLOCK)
        finally:
            os.close(fd)

    def test_a_known_run_reads_back_exactly(self):
        self.assert_reads_right(self.path, self.truth)
        self.instance.kill_fetcher()
        self.instance.wait_fetcher()
        supervisor = self.instance.supervisor_pid()
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: self.instance.supervisor_pid() != supervisor, 20, "the standby")
        got = self.samples()
        known = {"holdfast_up": 1, "holdfast_filled_bytes_total": SIZE, "holdfast_filled_twice_bytes_total": 0,
                 "holdfast_reads_failed_total": 0, "holdfast_objects": 1, "holdfast_requests_waiting": 0,
                 "holdfast_mounts,mounted": 1, "holdfast_mounts,lost": 0, "holdfast_service_restarts_total,fetcherd": 1,
                 "holdfast_service_restarts_total,holdfastd": 0, "holdfast_supervisor_takeovers_total": 1}
        self.assertEqual({name: got.get(name) for name in known}, known)
        self.assertGreater(got["holdfast_reads_total"], 0)

    def test_deaths_are_counted_on_after_all_processes_were_killed(self):
        name = "holdfast_service_ends_total,fetcherd,signal"
        before = self.samples().get(name, 0)
        fetcher = self.instance.wait_fetcher()
        self.instance.kill_fetcher()
        self.instance.wait_fetcher(other_than=fetcher)
        self.wait_known({name: before + 1})
        daemon = self.instance.daemon_pid()
        self.instance.kill_supervisor()
        os.kill(daemon, signal.SIGKILL)
        self.assertTrue(wait_gone(daemon, 30))
        self.instance.start()
        self.wait_known({name: before + 1})

    def test_totals_go_on_over_deaths_and_restarts(self):
        known = {"holdfast_reads_by_result_total,miss": 3, "holdfast_reads_by_result_total,hit": 5,
                 "holdfast_reads_by_result_total,failed": 0, "holdfast_reads_by_result_total,cancelled": 0,
                 "holdfast_reads_total": 8, "holdfast_reads_waited_total": 3, "holdfast_read_wait_seconds_count": 3}
        before = self.samples()
        for name in known:
            known[name] += before.get(name, 0)
        for index in (1, 3, 5, 1, 3, 5, 1, 1):
            self.read_block(self.path, index)
        self.wait_known(known)
        for _ in range(3):
            os.kill(self.instance.daemon_pid(), signal.SIGKILL)
            self.read_block(self.path, 1)
            known["holdfast_reads_by_result_total,hit"] += 1
            known["holdfast_reads_total"] += 1
            self.wait_known(known)
        # The whole instance: nothing of it is left in memory.
        self.instance.umount(os.path.dirname(self.path))
        self.instance.stop()
        path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD)
        got = self.samples()
        for name in ("holdfast_reads_by_result_total,miss", "holdfast_read_wait_seconds_count", "holdfast_filled_bytes_total"):
            self.assertGreaterEqual(got[name], known.get(name, 3 * BLOCK), name)
        self.assertEqual(got["holdfast_service_ends_total,holdfastd,signal"], 3)
        # The stop ends holdfastd first, and its supervisor may have started another one before it is ended itself.
        self.assertIn(got["holdfast_service_restarts_total,holdfastd"], (3, 4))
        self.assertIn(got["holdfast_recovery_pause_seconds_count"], (3, 4))
        hits = got["holdfast_reads_by_result_total,hit"]
        self.read_block(path, 5)
        self.wait_known({"holdfast_reads_by_result_total,hit": hits + 1})

    def test_what_an_origin_answers_is_counted(self):
        with open(self.truth, "rb") as f:
            body = f.read()
        faults, sent = [], []

        def answer(request):
            fault = faults.pop(0) if faults else None
            if fault == "busy":
                return Answer(503, b"later")
            right = whole_or_range(request, body, etag='"one"')
            if fault == "cut":
                right.cut_to = 2 * PAGE
            sent.append(len(right.body if right.cut_to is None else right.body[:right.cut_to]))
            return right

        origin = ScriptedOrigin(answer)
        self.addCleanup(origin.close)
        path = self.instance.mount_file(origin.url())
        host = f"127.0.0.1:{origin.port}"
        requests, filled = f"holdfast_origin_requests_total,{host}", "holdfast_filled_bytes_total"
        # Also of the mount, whose last counts may come a moment later.
        before = self.wait_known({f"{requests},206": len(origin.requests), f"holdfast_origin_bytes_total,{host}": sum(sent)})
        faults += ["busy", "busy", "cut"]
        self.read_block(path, 2)
        self.assertEqual(faults, [])
        known = {f"{requests},503": 2, f"{requests},206": before[f"{requests},206"] + 2, f"holdfast_origin_bytes_total,{host}": sum(sent),
                 "holdfast_retries_total,status": 2, "holdfast_retries_total,connection": 1,
                 filled: before[filled] + BLOCK, "holdfast_filled_twice_bytes_total": 0}
        self.wait_known(known)
        os.kill(self.instance.daemon_pid(), signal.SIGKILL)
        self.instance.kill_fetcher()
        self.read_block(path, 2)
        self.wait_known(known)

    def test_a_dead_daemon_is_down(self):
        subprocess.run(["umount", "--lazy", os.path.dirname(self.path)], check=True)
        self.instance.kill_supervisor()
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        wait_gone(daemon, 20)
        got = self.samples()
        self.assertEqual((got["holdfast_up"], got["holdfast_mounts,lost"]), (0, 1))
        self.assertNotIn("holdfast_reads_total", got)

    def test_a_file_is_replaced_as_a_whole(self):
        path = self.box.path("holdfast.prom")
        self.assertEqual(self.text("-o", path), "")
        with open(path) as f:
            self.assertIn('holdfast_up{instance_name="t"} 1\n', f.read())
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o644)
        done = self.instance.run("metrics", *self.instance.root_flags(), "-o", self.box.path("none/x"))
        self.assert_one_line(done, "none/x")

    def test_what_was_stopped_properly_is_not_down(self):
        self.instance.umount(os.path.dirname(self.path))
        self.instance.stop()
        self.assertEqual(self.text(), "")
        self.assertIn('holdfast_up{instance_name="t"} 0\n', self.text("--instance=t"))

    def test_what_cannot_be_known_is_an_error(self):
        done = self.instance.run("metrics", *self.instance.root_flags(), "--instance=other")
        self.assert_one_line(done, "other")

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not installed")
    def test_promtool_finds_no_fault(self):
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text(), text=True, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_the_alert_rules_are_those_of_the_document(self):
        with open(RULES) as f:
            rules = re.findall(r"expr: (.*)", f.read())
        with open(DOCUMENT) as f:
            document = f.read()
        names = set(re.findall(r"^\| `(\w+)`", document, re.M))
        self.assertEqual({name for rule in rules for name in re.findall(r"holdfast_\w+", rule)} - names, set())
        advised = document.partition("What to alert on:")[2]
        expressions = [part for item in re.findall(r"^- (.*?):", advised, re.M | re.S) for part in re.findall(r"`(.*?)`", item)]
        self.assertEqual(sorted(rules), sorted(expressions))

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not installed")
    def test_promtool_takes_the_alert_rules(self):
        done = subprocess.run(["promtool", "check", "rules", RULES], text=True, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    main()
