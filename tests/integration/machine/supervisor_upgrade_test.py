"""`holdfast upgrade` exchanges the program of `holdfast supervise` in its own process; descriptors and reads are kept."""

import contextlib
import os
import random
import signal
import sys
import time

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.programs import Programs
from harness.readers import TreeReaders
from harness.sandbox import wait_gone, wait_until

FILES = 16
FILE_SIZE = 1 << 20
SEED = int(os.environ.get("HOLDFAST_TEST_SEED") or time.time())

CAN_AND_DIES = '[ "$2" = --can-exchange ] && exit 0\nexit 3\n'
CANNOT = "exit 2\n"


class SupervisorUpgradeTest(TreeReaders, Case):
    def setUp(self):
        super().setUp()
        self.programs = Programs(self.box)
        self.instance = self.holdfast()
        self.serve_random_image(FILES, FILE_SIZE, seed=13)
        self.point = self.instance.mount(self.url, "--as=erofs", NO_READ_AHEAD)
        self.unread = sorted(os.listdir(self.point))
        self.wait_settled()

    def wait_settled(self, other_than=0, other_daemon=0):
        """A supervisor since another moment, that has a standby and another daemon, which is ready."""
        def look():
            status = self.instance.supervise_status()
            daemon = status["services"][0]
            is_other = status["since_ms"] != other_than and daemon["pid"] != other_daemon
            return status if is_other and status["standby"] and daemon["state"] == "ready" else None
        return wait_until(look, 30, "a supervisor with a standby and a daemon")

    def upgrade(self, *flags):
        return self.instance.run("upgrade", *self.instance.root_flags(), "--instance", self.instance.name, *flags)

    def inodes(self):
        pid = self.instance.supervisor_pid()
        return os.stat(f"/proc/{pid}/exe").st_ino, os.stat(self.programs.path("holdfast")).st_ino

    def start_readers(self):
        self.start_reading([self.unread.pop() for _ in range(3)])

    def test_it_runs_the_program_on_disk_in_its_own_process(self):
        pid = self.instance.supervisor_pid()
        with open(os.path.join(self.point, self.unread[0]), "rb", buffering=0) as kept:
            for _ in range(3):
                self.start_readers()
                self.programs.replace("holdfast")
                running, on_disk = self.inodes()
                self.assertNotEqual(running, on_disk)
                done = self.upgrade()
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, rf"holdfast supervise: pid {pid} version \S+ -> version \S+\n$")
                self.assertEqual(self.instance.supervisor_pid(), pid)
                self.assertEqual(*self.inodes())
                self.assert_all_right()
            self.wait_settled()
            self.start_readers()
            os.kill(self.instance.daemon_pid(), signal.SIGKILL)
            self.assert_all_right()
            with open(os.path.join(self.tree, sorted(os.listdir(self.point))[0]), "rb") as truth:
                self.assertEqual(kept.read(), truth.read())
        before = self.wait_settled()["since_ms"]
        os.kill(pid, signal.SIGKILL)  # Its standby is of the new program.
        self.assertTrue(wait_gone(pid, 10))
        self.wait_settled(other_than=before)
        self.assertEqual(*self.inodes())
        self.assert_tree_right()
        self.instance.umount(self.point)
        self.assertEqual(self.instance.processes(), [])

    def test_a_daemon_that_dies_at_that_moment_costs_nothing(self):
        print(f"HOLDFAST_TEST_SEED={SEED}", file=sys.stderr)
        chance = random.Random(SEED)
        supervisor = self.instance.supervisor_pid()
        descriptors = None
        for i in range(15):
            before = self.wait_settled()["since_ms"]
            if i < 5:
                self.start_readers()
            daemon = self.instance.daemon_pid()
            os.kill(supervisor, signal.SIGUSR2)
            time.sleep(chance.uniform(0, 0.15))  # Which step the daemon's death meets.
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGKILL)
            self.wait_settled(other_than=before, other_daemon=daemon)
            self.assertEqual(self.instance.supervisor_pid(), supervisor)
            if i < 5:
                self.assert_all_right()
            self.assertEqual(len(os.listdir(self.point)), FILES)
            count = len(os.listdir(f"/proc/{supervisor}/fd"))
            descriptors = descriptors or count
            self.assertLessEqual(count, descriptors + 3, "descriptors are left from one program to the next")
        self.assert_tree_right()

    def test_the_fetchers_environment_goes_on(self):
        other = self.holdfast("secret")
        self.box.environment["AWS_SECRET_ACCESS_KEY"] = "only-for-the-store"
        point = other.mount(self.url, "--as=erofs")
        del self.box.environment["AWS_SECRET_ACCESS_KEY"]
        done = other.run("upgrade", *other.root_flags(), "--instance", other.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(other.service("fetcherd")["fd_store"].count("environment"), 1)
        other.umount(point)

    def test_a_program_that_cannot_is_not_run(self):
        pid, inode = self.instance.supervisor_pid(), self.inodes()[0]
        self.programs.replace_by_script("holdfast", CANNOT)
        done = self.upgrade()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"holdfast supervise: pid {pid} stays the old program until the instance is stopped\n", done.stdout)
        self.assertEqual(self.inodes()[0], inode)
        os.kill(self.instance.daemon_pid(), signal.SIGKILL)
        self.assert_tree_right()

    def test_without_the_right_to_copy_descriptors_the_old_program_goes_on(self):
        other = self.holdfast("bounded")
        point = self.box.make_directory("bounded-point")
        mount = other.command_line(*other.mount_arguments(self.url, point, "--as=erofs", NO_READ_AHEAD))
        done = self.box.run(["setpriv", "--bounding-set=-sys_ptrace", *mount])  # As in a container.
        self.assertEqual(done.returncode, 0, done.stderr)
        other.wait_fetcher()
        supervisor = other.supervisor_pid()
        for _ in range(2):
            done = other.run("upgrade", *other.root_flags(), "--instance", other.name)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"holdfast supervise: pid {supervisor} stays the old program until the instance is stopped\n", done.stdout)
            self.assertRegex(done.stderr, r"\Aholdfast: the supervisor does not exchange its program: a new one could not go on "
                                          r"with fetcherd: .*CAP_SYS_PTRACE.*\n\Z")
            self.assertEqual(other.supervisor_pid(), supervisor)
        daemon, fetcher = other.daemon_pid(), other.attached_pid()
        self.assertEqual(other.pid_of("fetcherd"), fetcher)
        os.kill(daemon, signal.SIGKILL)
        for name in self.unread:
            self.assert_reads_right(os.path.join(point, name), os.path.join(self.tree, name))
        self.assertNotEqual(other.daemon_pid(), daemon)
        self.assertEqual(other.pid_of("fetcherd"), fetcher)
        other.umount(point)

    def test_a_program_that_dies_leaves_daemons_that_another_one_adopts(self):
        self.programs.replace_by_script("holdfast", CAN_AND_DIES)
        done = self.upgrade("--timeout=10s")
        self.assert_one_line(done, "the daemons are upgraded, but the supervisor does not go on with its new program")
        daemon = self.instance.daemon_pid()
        self.programs.replace("holdfast")
        done = self.instance.run("start", *self.instance.root_flags(), "--instance", self.instance.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.instance.daemon_pid(), daemon)
        self.wait_settled()
        os.kill(daemon, signal.SIGKILL)
        self.assert_tree_right()


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
