"""`holdfast supervise` dies: its standby goes on with the stored descriptors, and neither reads nor commands notice."""

import contextlib
import os
import signal
import subprocess

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import TreeReaders
from harness.sandbox import mounts_below, wait_gone, wait_until

FILES = 12
FILE_SIZE = 1 << 20


class SupervisorKilledTest(TreeReaders, Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.serve_random_image(FILES, FILE_SIZE, seed=11)
        self.point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD)
        self.wait_standby()

    def wait_standby(self, other_than=0):
        """A supervisor that is not `other_than`, and has a standby."""
        def look():
            status = self.instance.supervise_status()
            return status if status["pid"] != other_than and status["standby"] else None
        return wait_until(look, 20, "a supervisor with a standby")

    def kill_supervisor_alone(self, *others):
        """At once with processes of these pids, in that order; returns what its successor says."""
        pid = self.instance.supervisor_pid()
        os.kill(pid, signal.SIGKILL)
        for victim in others:
            with contextlib.suppress(ProcessLookupError):  # A spare ends by itself when the standby takes over.
                os.kill(victim, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 5))
        return self.wait_standby(other_than=pid)

    def start_readers(self):
        self.start_reading(sorted(os.listdir(self.point))[:4])

    def test_alone(self):
        self.start_readers()
        daemon, fetcher = self.instance.daemon_pid(), self.instance.attached_pid()
        status = self.kill_supervisor_alone()
        self.assertEqual(status["takeovers"], 1)
        self.assertEqual([service["pid"] for service in status["services"]][:2], [daemon, fetcher])
        self.assert_all_right()
        self.assertEqual((self.instance.daemon_pid(), self.instance.attached_pid()), (daemon, fetcher))
        os.kill(daemon, signal.SIGKILL)  # What it has taken over is of use.
        self.assert_tree_right()

    def test_at_once_with_each_other_process(self):
        victims = {"holdfastd": lambda: [self.instance.daemon_pid()], "fetcher": lambda: [self.instance.attached_pid()],
                   "spare": self.spare, "both": lambda: [self.instance.daemon_pid(), self.instance.attached_pid()]}
        for seed, (name, pids) in enumerate(victims.items(), start=20):
            with self.subTest(name):
                self.serve_random_image(FILES, FILE_SIZE, seed=seed)
                self.point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD,
                                                 mount_point=self.box.make_directory(f"with-{name}"))
                self.start_readers()
                self.kill_supervisor_alone(*pids())
                self.assert_all_right()
                self.instance.wait_fetcher()
                self.assert_tree_right()

    def spare(self):
        return [wait_until(lambda: self.instance.service("holdfastd")["spare"], 20, "a spare")]

    def test_a_hundred_times_one_after_another(self):
        for _ in range(100):
            self.kill_supervisor_alone()
        self.start_readers()
        self.kill_supervisor_alone()
        self.assert_all_right()

    def test_commands_in_that_moment(self):
        for i in range(5):
            point = self.box.make_directory(f"other-{i}")
            os.kill(self.instance.supervisor_pid(), signal.SIGKILL)
            done = self.instance.try_mount(self.url, point)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.wait_standby()
            os.kill(self.instance.supervisor_pid(), signal.SIGKILL)
            self.instance.umount(point)
            self.wait_standby()

    def test_sixteen_mounts_at_once_while_supervisors_die(self):
        points = [self.box.make_directory(f"many-{i}") for i in range(16)]
        mounts = [self.box.start(self.instance.command_line(*self.instance.mount_arguments(self.url, point)),
                                 stderr=subprocess.PIPE, text=True) for point in points]
        while any(mount.poll() is None for mount in mounts):
            self.kill_supervisor_alone()
        said = [line for mount in mounts for line in mount.stderr if "waiting for " not in line]
        self.assertEqual(([mount.returncode for mount in mounts], said), ([0] * 16, []))
        for point in points:
            self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))

    def test_the_first_mount_of_an_instance_whose_supervisor_dies(self):
        for i in range(5):
            other = self.holdfast(f"new-{i}")
            point = self.box.make_directory(f"first-{i}")
            mount = self.box.start(other.command_line(*other.mount_arguments(self.url, point)), stderr=subprocess.PIPE, text=True)
            status = wait_until(lambda: self.has_standby(other), 20, "a standby")
            os.kill(status["pid"], signal.SIGKILL)
            self.assertEqual((mount.wait(30), mount.stderr.read()), (0, ""))
            self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))
            other.umount(point)

    @staticmethod
    def has_standby(instance):
        try:
            status = instance.supervise_status()
        except (FileNotFoundError, ValueError):
            return None
        return status if status["standby"] else None

    def test_stop_in_that_moment_leaves_nothing(self):
        done = self.instance.run("umount", *self.instance.root_flags(), "--keep", self.point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.wait_standby()
        os.kill(self.instance.supervisor_pid(), signal.SIGKILL)
        self.instance.stop()
        self.assertEqual(self.instance.processes(), [])
        self.assertEqual(mounts_below(self.box.directory), [])

    def test_the_next_one_is_told_to_users_and_upgrades(self):
        self.kill_supervisor_alone()
        done = self.instance.run("status", *self.instance.root_flags())
        self.assertIn(f"supervisor pid {self.instance.supervisor_pid()}", done.stdout)
        daemon = self.instance.daemon_pid()
        done = self.instance.run("upgrade", *self.instance.root_flags(), "--instance", self.instance.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(self.instance.daemon_pid(), daemon)
        self.assert_tree_right()

    def test_one_that_ends_with_its_parent_has_no_standby(self):
        for name, start in (("parent", self.box.start), ("flag", self.start_on_its_own)):
            with self.subTest(name):
                other = self.holdfast(name)
                flags = ["--no-standby"] if name == "flag" else []
                supervisor = start(other.command_line("supervise", *other.root_flags(), f"--instance={name}", *flags))
                wait_until(lambda: os.path.exists(other.run_path("supervise.status")), 20, "its status")
                wait_until(lambda: other.service("holdfastd")["state"] == "ready", 20, "a daemon")
                self.assertEqual(other.supervise_status()["standby"], 0)
                supervisor.terminate()
                self.assertEqual(supervisor.wait(20), 0)

    def start_on_its_own(self, command):
        process = subprocess.Popen(command, env=self.box.environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
