"""What `holdfast status` and the cures in errors say of instances that this user may not ask, that are half dead, or that are others."""

import json
import os
import re
import signal
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import helper
from harness.sandbox import wait_gone, wait_until

NOBODY = 65534


class StatusTroubleTest(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.box.directory, 0o711)
        web = self.box.make_directory("web")
        with open(images.random_file(1 << 20, seed=62), "rb") as f:
            data = f.read()
        for name in ("one", "two"):
            with open(os.path.join(web, name), "wb") as f:
                f.write(data)
        self.origin = self.serve(web)
        self.instance = self.holdfast()

    def as_user(self, *arguments):
        return self.box.run([helper("holdfast"), *arguments], user=NOBODY, group=NOBODY, extra_groups=[])

    def test_without_root_the_state_is_not_known(self):
        self.instance.mount_file(self.origin.url("one"))
        shown = self.as_user("status", *self.instance.root_flags())
        self.assertEqual(shown.returncode, 1)
        self.assertIn("instance t: state not known, this needs root; use sudo", shown.stdout)
        self.assertNotIn("dead", shown.stdout)
        self.assertRegex(shown.stderr, "not known without root; use sudo")
        listed = self.as_user("status", "--json", *self.instance.root_flags())
        self.assertEqual(listed.returncode, 1)
        told = json.loads(listed.stdout)["instances"][0]
        self.assertIsNone(told["running"])
        self.assertIsNone(told["supervisor_pid"])
        where = [*self.instance.root_flags(), "--instance", "t"]
        for arguments in (["verify", *where, "h-1/x"], ["verify", *where], ["dump", *where]):
            self.assert_one_line(self.as_user(*arguments), "needs root; use sudo")

    def check(self, *arguments):
        done = self.instance.run("status", *self.instance.root_flags(), "--check", *arguments)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout.strip()

    def test_a_monitor_is_told_by_the_exit_code(self):
        self.instance.mount(self.origin.url("one"), "--as=file")
        self.assertEqual(self.check(), (0, "OK: instances that serve: 1, mounts: 1"))
        self.instance.hold_supervisor()
        supervisor = self.instance.supervisor_pid()
        stopped = (f"t: its supervisor (process {supervisor}) is stopped, and would restart nothing; "
                   f"let it go on: kill -CONT {supervisor}")
        self.assertEqual(self.check(), (1, "DEGRADED: " + stopped))
        self.instance.kill_fetcher()
        wait_until(lambda: self.check() == (1, f"DEGRADED: {stopped}; t: no fetcher is attached"), 20, "it being told")
        os.kill(self.instance.daemon_pid(), signal.SIGKILL)
        wait_until(lambda: self.check()[0] == 2, 20, "it being told")
        self.assertTrue(self.check("--instance=t")[1].startswith("NOT SERVING: t: "))
        self.assertTrue(self.check()[1].endswith(stopped[3:]), "NOT SERVING names it too")
        self.instance.release_supervisor()
        wait_until(lambda: self.check()[0] == 0, 20, "all being fine again")
        told = self.as_user("status", "--check", *self.instance.root_flags(), "--instance=t")
        self.assertEqual(told.returncode, 3)
        self.assertTrue(told.stdout.startswith("NOT KNOWN: t: "), told.stdout)
        self.assertEqual(self.as_user("status", "--check", *self.instance.root_flags()).returncode, 3)
        self.assertEqual(self.instance.run("status", *self.instance.root_flags(), "--check", "--instance=x").returncode, 3)

    def test_a_stopped_supervisor_is_named_and_does_not_delay_an_umount(self):
        point = self.instance.mount(self.origin.url("one"), "--as=file")
        wait_until(self.stop_standby, 20, "a stopped standby being shown")
        os.kill(self.instance.supervise_status()["standby"], signal.SIGCONT)
        daemon, supervisor = self.instance.daemon_pid(), self.instance.supervisor_pid()
        self.instance.hold_supervisor()
        stopped = rf"its supervisor \(process {supervisor}\) is stopped.*kill -CONT {supervisor}"
        wait_until(lambda: re.search(f"  trouble     {stopped}\n", self.shown()), 20, "a stopped supervisor being shown")
        done = self.instance.run("upgrade", *self.instance.root_flags(), "--instance=t")
        self.assert_one_line(done, f"instance t: {stopped}$")
        self.instance.assert_daemon_is(daemon)
        began = time.monotonic()
        self.instance.umount(point)
        self.assertLess(time.monotonic() - began, 25, "less than the time that a supervisor has to end")
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def shown(self):
        return self.instance.run("status", *self.instance.root_flags()).stdout

    def stop_standby(self):
        """Whether it is seen to be stopped: another one may have taken its place meanwhile."""
        standby = self.instance.supervise_status()["standby"]
        try:
            os.kill(standby, signal.SIGSTOP)
        except ProcessLookupError:
            return False
        shown = self.shown()
        return f"\n  standby     pid {standby}\n" in shown and f"its standby (process {standby}) is stopped" in shown

    def test_the_fetcher_that_is_left_is_not_called_a_supervisor(self):
        point = self.instance.mount(self.origin.url("one"), "--as=file")
        fetcher = self.instance.attached_pid()
        self.instance.kill_supervisor()
        daemon = self.instance.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        wait_gone(daemon, 20)
        done = self.instance.run("status", *self.instance.root_flags())
        self.assertEqual(done.returncode, 0)
        self.assertIn("instance t: not served: its supervisor is gone, so nothing restarts its daemons", done.stdout)
        self.assertRegex(done.stdout, rf"left: holdfast-fetcherd \(pid {fetcher}\)")
        cures = re.findall(r"holdfast (umount [^\]\n]*--force [^\]\n]*)\]", done.stdout)
        self.assertEqual(len(cures), 1, done.stdout)
        self.assertEqual(self.instance.run(*cures[0].split()).returncode, 0)
        self.assertFalse(os.path.ismount(point))

    def test_cures_name_root_and_instance(self):
        url = self.origin.url("one")
        other = self.holdfast("o")
        point = self.instance.mount(url, "--as=file")
        done = other.try_mount(url, point)
        self.assert_one_line(done, f"mount of instance t; unmount it first: holdfast umount --root {self.instance.root} {point}$")
        done = other.run("umount", *other.root_flags(), point)
        self.assert_one_line(done, f"mount of instance t: holdfast umount --root {self.instance.root} {point}$")
        done = self.instance.run("umount", *self.instance.root_flags(), "--instance", "x", point)
        self.assert_one_line(done, f"mount of instance t: holdfast umount --root {self.instance.root} {point}$")
        done = self.instance.try_mount(url, point)
        self.assert_one_line(done, f"unmount it first: holdfast umount --root {self.instance.root} {point}$")
        cure = re.search("holdfast (umount .*)$", done.stderr.strip()).group(1)
        self.assertEqual(self.instance.run(*cure.split()).returncode, 0)
        self.assertFalse(os.path.ismount(point))

    def test_an_instance_that_does_not_run_is_said_to_be_so(self):
        done = self.instance.run("verify", *self.instance.root_flags(), "--instance", "t", "h-1/x")
        self.assert_one_line(done, "instance t is not running .*holdfast mount --root .* --instance t URL MOUNTPOINT")

    def test_an_unknown_instance_is_an_error_that_names_the_known_ones(self):
        self.assert_one_line(self.of_instance("status", "typo"), "there is no instance typo beneath .*; there are none$")
        point = self.instance.mount(self.origin.url("one"), "--as=file")
        for flags in ([], ["--json"]):
            self.assert_one_line(self.of_instance("status", "typo", *flags), "there is no instance typo beneath .*; there are: t$")
        done = self.of_instance("stop", "typo")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertRegex(done.stderr, "^holdfast: there is no instance typo beneath .*; there are: t\n$")
        self.instance.umount(point)
        # Its cache is still there.
        for verb in ("status", "stop"):
            done = self.of_instance(verb, "t")
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def of_instance(self, verb, name, *flags):
        return self.instance.run(verb, *self.instance.root_flags(), "--instance", name, *flags)

    def test_a_mount_that_had_no_time_says_so(self):
        done = self.instance.try_mount(self.origin.url("one"), self.box.make_directory("p"), "--timeout=1ms")
        self.assert_one_line(done, "--timeout waits longer")
        self.assertNotIn("control.sock", done.stderr)


if __name__ == "__main__":
    main()
