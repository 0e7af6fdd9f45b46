"""`holdfast supervise` and its standby die at once: the next one goes on with the daemons and has their descriptors again."""

import contextlib
import os
import signal
import subprocess

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.origins.nginx import free_port
from harness.readers import TreeReaders
from harness.sandbox import mounts_below, wait_gone, wait_until

FILES = 12
FILE_SIZE = 1 << 20
STORED = ["control.sock", "device.sock", "fuse"]


class SupervisorLostTest(TreeReaders, Case):
    def setUp(self):
        super().setUp()
        self.instance = self.holdfast()
        self.serve_random_image(FILES, FILE_SIZE, seed=12)

    def mount_first(self, *flags):
        self.point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD, *flags)
        wait_until(lambda: self.service("holdfastd")["state"] == "ready", 20, "a daemon that is ready")
        self.unread = sorted(os.listdir(self.point))

    def start_readers(self):
        self.start_reading([self.unread.pop() for _ in range(3)])

    def service(self, name):
        return self.instance.service(name)

    def pids(self):
        return self.instance.daemon_pid(), self.instance.pid_of("fetcherd")

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 10))

    def adopt_by_mount(self):
        point = self.box.make_directory(f"by-mount-{len(mounts_below(self.box.directory))}")
        done = self.instance.try_mount(self.url, point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, f"had lost its supervisor; process {self.instance.supervisor_pid()} goes on in its place")
        return point

    def supervise(self, *flags):
        """By hand, and until it has adopted or started the daemons."""
        process = self.box.start(self.instance.command_line("supervise", *self.instance.root_flags(),
                                                            f"--instance={self.instance.name}", *flags), stderr=subprocess.DEVNULL)

        def has_status():
            with contextlib.suppress(FileNotFoundError):
                return self.instance.supervisor_pid() == process.pid
        wait_until(has_status, 20, "another supervisor's status")

    def test_the_next_mount_adopts_and_later_deaths_cost_nothing(self):
        self.mount_first()
        daemon, fetcher = self.pids()
        with open(os.path.join(self.point, "000"), "rb", buffering=0) as kept:
            self.start_readers()
            self.instance.kill_supervisor()
            other = self.adopt_by_mount()
            self.assertEqual(self.pids(), (daemon, fetcher), "a process was started again")
            self.assert_all_right()
            self.assertLessEqual(set(STORED), set(self.service("holdfastd")["fd_store"]))
            self.assertIn("device", self.service("fetcherd")["fd_store"])
            self.start_readers()
            self.kill(daemon)
            self.assert_all_right()
            with open(os.path.join(self.tree, "000"), "rb") as truth:
                self.assertEqual(kept.read(), truth.read())
        # The fetcher has found the socket of the new supervisor: it stored its next connection there.
        self.assertEqual(self.instance.wait_fetcher(), fetcher)
        wait_until(lambda: "device" in self.service("fetcherd")["fd_store"], 20, "the fetcher's connection in the store")
        self.kill(fetcher)
        self.start_readers()
        self.assert_all_right()
        self.assert_tree_right(other)
        self.instance.umount(other)
        self.instance.umount(self.point)
        self.assertEqual(self.instance.processes(), [])

    def test_a_stopped_daemon_is_adopted_and_the_next_one_serves_its_reads(self):
        self.mount_first()
        daemon, fetcher = self.pids()
        self.start_readers()
        self.instance.kill_supervisor()
        os.kill(daemon, signal.SIGSTOP)
        self.supervise()
        self.assertEqual(self.service("holdfastd")["pid"], daemon)
        self.assertLessEqual(set(STORED), set(self.service("holdfastd")["fd_store"]))
        self.kill(daemon)
        self.assert_all_right()
        self.assertEqual(self.instance.wait_fetcher(), fetcher)
        self.assert_tree_right()

    def test_a_stopped_daemon_goes_on_where_it_was(self):
        self.mount_first()
        daemon, _ = self.pids()
        self.start_readers()
        self.instance.kill_supervisor()
        os.kill(daemon, signal.SIGSTOP)
        self.supervise()
        os.kill(daemon, signal.SIGCONT)
        self.assert_all_right()
        self.instance.assert_daemon_is(daemon)

    def test_a_daemon_that_stays_stopped_is_ended_by_the_watchdog(self):
        self.mount_first("--watchdog=2s")
        daemon, _ = self.pids()
        self.instance.kill_supervisor()
        os.kill(daemon, signal.SIGSTOP)
        other = self.adopt_by_mount()
        self.assertTrue(wait_gone(daemon, 0))
        self.assert_tree_right()
        self.assert_tree_right(other)

    def test_a_fetcher_that_died_too_is_started(self):
        self.mount_first()
        daemon, fetcher = self.pids()
        self.start_readers()
        self.instance.kill_supervisor()
        self.kill(fetcher)
        self.adopt_by_mount()
        self.assert_all_right()
        self.assertEqual(self.instance.daemon_pid(), daemon)
        self.assertNotEqual(self.instance.wait_fetcher(), fetcher)

    def test_a_fetcher_that_may_not_be_copied_from_is_started_again(self):
        def run(*arguments):
            command = self.instance.command_line(*arguments)
            done = self.box.run(["setpriv", "--bounding-set=-sys_ptrace", *command])  # As in a container.
            self.assertEqual(done.returncode, 0, done.stderr)
        self.point = self.box.make_directory("bounded")
        run(*self.instance.mount_arguments(self.url, self.point, "--as=erofs", NO_READ_AHEAD))
        daemon, fetcher = self.pids()
        self.instance.kill_supervisor()
        run("start", *self.instance.root_flags(), "--instance", self.instance.name)
        self.assertTrue(wait_gone(fetcher, 30), "nothing supervises it")
        self.assertEqual(self.instance.wait_fetcher(other_than=fetcher), self.instance.pid_of("fetcherd"))
        self.assertIn("fetcherd is started again", self.instance.log_text("supervise"))
        self.instance.assert_daemon_is(daemon)
        self.assert_tree_right()

    def test_with_the_daemon_the_mounts_are_lost_and_the_fetcher_goes_on(self):
        self.mount_first()
        daemon, fetcher = self.pids()
        self.instance.kill_supervisor()
        self.kill(daemon)
        done = self.instance.try_mount(self.url, self.point, NO_READ_AHEAD)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{self.point} had lost its daemons and is mounted again", done.stderr)
        self.assert_tree_right()
        self.assertEqual(self.instance.wait_fetcher(), fetcher)

    def test_a_fetcher_does_not_go_on_under_other_settings(self):
        self.mount_first()
        daemon, fetcher = self.pids()
        self.instance.kill_supervisor()
        self.kill(daemon)
        done = self.instance.try_mount(self.url, self.box.make_directory("other"), "--fetcher-flag=--connections=2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(wait_gone(fetcher, 0))

    def test_the_next_one_has_the_options_that_the_last_one_was_given(self):
        port = free_port()
        self.supervise("--fetcher-user=daemon", f"--metrics-listen=127.0.0.1:{port}", "--no-standby")
        self.point = self.instance.mount(self.url, "--as=erofs")
        daemon, fetcher = self.pids()
        for _ in range(2):  # The second time they are those of an adopting one.
            supervisor = self.instance.supervisor_pid()
            self.instance.kill_supervisor()
            done = self.instance.run("start", *self.instance.root_flags(), "--instance", self.instance.name)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotEqual(self.instance.supervisor_pid(), supervisor)
            self.assertEqual(self.pids(), (daemon, fetcher))
            self.assertEqual(self.instance.supervise_status()["why_no_standby"], "--no-standby was given")
            with open(f"/proc/{self.service('metricsd')['pid']}/cmdline") as f:
                self.assertIn(f"--listen=127.0.0.1:{port}", f.read().split("\0"))
        self.assert_tree_right()

    def test_of_commands_at_once_one_adopts(self):
        self.mount_first()
        for i in range(4):
            daemon, fetcher = self.pids()
            self.instance.kill_supervisor()
            points = [self.box.make_directory(f"race-{i}-{k}") for k in range(3)]
            commands = [self.instance.command_line(*self.instance.mount_arguments(self.url, point)) for point in points]
            mounts = [self.box.start(command, stderr=subprocess.PIPE, text=True) for command in commands]
            by_hand = [self.box.start(self.instance.command_line("supervise", *self.instance.root_flags(),
                                                                 f"--instance={self.instance.name}"),
                                      stderr=subprocess.DEVNULL) for _ in range(2)]
            said = [(mount.wait(60), mount.stderr.read()) for mount in mounts]
            self.assertEqual([code for code, _ in said], [0] * len(mounts), said)
            self.assertEqual(self.pids(), (daemon, fetcher), "a process was started again")
            supervisor = self.instance.supervisor_pid()
            for process in by_hand:  # The one that supervises, if it is one of them, and no other.
                wait_until(lambda p=process: p.poll() is not None or p.pid == supervisor, 20, "the others' refusal")
            for point in points:
                self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))
        self.kill(self.instance.daemon_pid())
        self.assert_tree_right()

    def test_status_names_the_state_and_the_cure(self):
        self.mount_first()
        self.instance.kill_supervisor()
        cure = f"start {' '.join(self.instance.root_flags())} --instance {self.instance.name}"
        said = self.instance.run("status", *self.instance.root_flags()).stdout
        self.assertIn("running, but its supervisor is gone, so nothing restarts its daemons", said)
        self.assertIn(f"holdfast {cure}\n", said)
        check = self.instance.run("status", "--check", *self.instance.root_flags())
        self.assertEqual(check.returncode, 1, check.stdout)
        self.assertIn(f"nothing restarts its daemons (holdfast {cure})", check.stdout)
        done = self.instance.run(*cure.split())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"running, supervisor pid {self.instance.supervisor_pid()}",
                      self.instance.run("status", *self.instance.root_flags()).stdout)

    def test_an_upgrade_adopts_first(self):
        self.mount_first()
        daemon, _ = self.pids()
        self.instance.kill_supervisor()
        done = self.instance.run("upgrade", *self.instance.root_flags(), "--instance", self.instance.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(self.instance.daemon_pid(), daemon)
        self.assert_tree_right()

    def test_stop_ends_what_is_left(self):
        self.mount_first()
        done = self.instance.run("umount", *self.instance.root_flags(), "--keep", self.point)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.instance.kill_supervisor()
        self.instance.stop()
        self.assertEqual(self.instance.processes(), [])
        self.assertFalse(os.path.exists(self.instance.run_path()))

    def test_the_secrets_of_the_environment_stay_the_fetchers(self):
        self.box.environment["AWS_SECRET_ACCESS_KEY"] = "only-for-the-store"
        self.mount_first()
        del self.box.environment["AWS_SECRET_ACCESS_KEY"]
        self.assertIn("environment", self.service("fetcherd")["fd_store"])
        _, fetcher = self.pids()
        self.instance.kill_supervisor()
        self.adopt_by_mount()
        self.assertEqual(self.service("fetcherd")["fd_store"].count("environment"), 1)
        self.kill(fetcher)
        self.assertNotEqual(self.instance.wait_fetcher(), fetcher)
        self.assert_tree_right()


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
