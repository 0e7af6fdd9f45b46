"""`holdfast upgrade` under load: no read fails, the programs on disk serve; one that cannot take over leaves the
old one serving.  HOLDFAST_UPGRADES says how often (50)."""

import os
import select
import subprocess
import sys
import threading
import time
import unittest

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import BIN, NO_READ_AHEAD, helper
from harness.programs import Programs
from harness.readers import RIGHT, Reader, drop_page_cache
from harness.sandbox import mounts_below, wait_until
from harness.soak import image as soak_image
from soak import SETTINGS, mounted_from
from harness.soak.killer import Event
from harness.soak.readers import Readers
from harness.soak.report import add_stalls, percentile, print_stalls

UPGRADES = int(os.environ.get("HOLDFAST_UPGRADES") or 50)
UPGRADES_OF_AN_IMAGE = 10  # By then most of it is in the cache.
SEED = int(os.environ.get("HOLDFAST_TEST_SEED") or time.time())

REFUSES = 'echo "holdfastd 9.9: the state is of another kind" >&2\nexit 1\n'
AGREES_AND_DIES = 'for last; do :; done\n[ "$last" = --check-state ] && exit 0\necho "it will not do"\nexit 3\n'


class Exit(threading.Thread):
    """Notes when a process ends."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._fd = os.pidfd_open(pid)
        self.at_ns = None
        self.start()

    def run(self):
        select.select([self._fd], [], [], 60)
        self.at_ns = time.monotonic_ns()
        os.close(self._fd)


class UpgradeCase(Case):
    def setUp(self):
        super().setUp()
        self.programs = Programs(self.box)
        self.instance = self.holdfast()

    def upgrade(self, *flags):
        return self.instance.run("upgrade", "--root", self.instance.root, "--instance", self.instance.name, *flags)

    def inode_of(self, pid):
        return os.stat(f"/proc/{pid}/exe").st_ino

    def inode_on_disk(self, name):
        return os.stat(self.programs.path(name)).st_ino


class UpgradeUnderLoadTest(UpgradeCase):
    def test_no_read_fails_and_the_programs_on_disk_serve(self):
        print(f"HOLDFAST_TEST_SEED={SEED}", file=sys.stderr)
        image, tree = soak_image.make(self.box)
        expected = soak_image.run_script(tree, 60)
        served = self.box.make_directory("served")
        origin = self.serve(served, delay_ms=2)
        self.stalls, self.reported_ms = {}, []
        point = None
        for begin in range(0, UPGRADES, UPGRADES_OF_AN_IMAGE):
            name = f"{begin}.erofs"
            os.link(image, os.path.join(served, name))
            last, point = point, self.instance.mount(origin.url(name), "--as=erofs", *(() if point else SETTINGS))
            if last:
                self.instance.umount(last)
            readers = Readers(self.box, mounted_from(point), point, image, tree, expected, SEED + begin)
            events = [self.upgrade_once() for _ in range(min(UPGRADES_OF_AN_IMAGE, UPGRADES - begin))]
            readers.finish()
            self.assertEqual(readers.faults, [])
            add_stalls(self.stalls, events, readers.waits)
            print(f"{begin + len(events)} upgrades, {readers.reads} reads, {readers.runs} runs of the interpreter",
                  file=sys.stderr)
        counters = self.instance.status()["counters"]
        self.assertEqual(counters["reads_failed"] - counters["reads_withdrawn"], 0)
        print("pause that the verb reports, ms: " +
              ", ".join(f"{what} {percentile(self.reported_ms, p):.0f}"
                        for what, p in (("p50", 0.5), ("p99", 0.99), ("max", 1))), file=sys.stderr)
        sys.stdout.flush()
        print_stalls(self.stalls)

    def upgrade_once(self):
        supervisor = self.instance.supervisor_pid()
        for name in ("holdfast", "holdfastd", "holdfast-fetcherd"):
            self.programs.replace(name)
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1\n")  # So that reads reach the daemon.
        old = self.instance.daemon_pid()
        exit_of_old = Exit(old)
        done = self.upgrade()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rf"^holdfastd: pid {old} version \S+ -> pid \d+ version \S+, pause \d+ ms\n"
                                      r"holdfast-fetcherd: pid \d+ -> pid \d+\n"
                                      rf"holdfast supervise: pid {supervisor} version \S+ -> version \S+\n$")
        self.reported_ms.append(int(done.stdout.split(" pause ")[1].split()[0]))
        self.assertEqual(self.inode_of(self.instance.daemon_pid()), self.inode_on_disk("holdfastd"))
        self.assertEqual(self.inode_of(self.instance.attached_pid()), self.inode_on_disk("holdfast-fetcherd"))
        self.assertEqual(self.inode_of(supervisor), self.inode_on_disk("holdfast"))
        exit_of_old.join(10)
        return Event("upgrade", time.time(), exit_of_old.at_ns)


class UpgradeTest(UpgradeCase):
    def setUp(self):
        super().setUp()
        self.truth = images.random_file(32 << 20)
        self.origin = self.serve(os.path.dirname(self.truth))
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD)

    def assert_reads(self, offset):
        drop_page_cache()
        self.assert_reads_right(self.path, self.truth, offset, 65536)

    def start_waiting_reader(self):
        self.origin.restart(delay_ms=600_000)
        with open(self.truth, "rb") as f:
            f.seek(20 << 20)
            reader = self.keep(Reader(self.path, 20 << 20, 4096, f.read(4096)))
        wait_until(lambda: self.instance.waiting() > 0, 20, "a read waiting")
        return reader

    def assert_refused(self, pattern):
        """The verb says why, and the old one serves on."""
        old, fetcher = self.instance.daemon_pid(), self.instance.attached_pid()
        self.assert_one_line(self.upgrade(), pattern + rf".*; the old one \(pid {old}, version \S+\) serves on")
        self.instance.assert_daemon_is(old)
        self.assertEqual(self.instance.attached_pid(), fetcher)
        self.assert_reads(8 << 20)

    def test_a_program_that_refuses_the_state_leaves_the_old_one_serving(self):
        self.programs.replace_by_script("holdfastd", REFUSES)
        self.assert_refused("holdfastd cannot take over: holdfastd 9.9: the state is of another kind")

    def test_a_program_that_does_not_know_the_question_is_refused(self):
        self.programs.replace("holdfastd", "/bin/false")
        self.assert_refused("holdfastd cannot take over: exit code 1")

    def test_a_fetcher_that_does_not_run_is_refused(self):
        self.programs.replace_by_script("holdfast-fetcherd", "exit 9\n")
        self.assert_refused("holdfast-fetcherd cannot take over: exit code 9")

    def test_a_program_that_agreed_on_something_else_with_the_kernel_is_refused(self):
        answer = self.instance.run_path("fuse.init.answer")
        with open(answer, "rb") as f:
            agreed = f.read()
        with open(answer, "wb") as f:  # FUSE_ASYNC_DIO, the 15th flag: it is off here.
            f.write(agreed[:16 + 12] + bytes([agreed[28], agreed[29] | 0x80]) + agreed[30:])
        self.assert_refused("cannot take over: holdfastd .*: the kernel was promised flags")
        with open(answer, "wb") as f:
            f.write(agreed)
        self.assertEqual(self.upgrade().returncode, 0)

    def test_a_program_that_keeps_requests_in_another_way_is_refused_where_the_kernel_cannot_resend(self):
        self.instance.umount(os.path.dirname(self.path))
        self.path = self.instance.mount_file(self.origin.url(os.path.basename(self.truth)), NO_READ_AHEAD,
                                             "--daemon-flag=--nofuse-resend")
        descriptors = f"/proc/{self.instance.daemon_pid()}/fd"
        memory = next(os.path.join(descriptors, fd) for fd in os.listdir(descriptors)
                      if "holdfast-requests" in os.readlink(os.path.join(descriptors, fd)))
        with open(memory, "r+b", buffering=0) as f:
            layout = f.read(8)
            os.pwrite(f.fileno(), bytes(8), 0)
            self.assert_refused("cannot take over: holdfastd .*: the FUSE requests that the running daemon keeps")
            os.pwrite(f.fileno(), layout, 0)
        self.assertEqual(self.upgrade().returncode, 0)
        self.assert_reads(16 << 20)

    def test_a_state_of_a_newer_schema_is_refused(self):
        self.instance.umount(os.path.dirname(self.path))
        cache = self.instance.state_path("cache")
        ask = [os.path.join(BIN, "holdfastd"), f"--cache-dir={cache}", f"--run-dir={self.box.path('run')}",
               "--check-state"]
        done = self.box.run(ask)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^holdfastd \S+: can take over .* \(schema \d+\)")
        subprocess.run([helper("damage_record"), os.path.join(cache, "db"), "newer"], check=True)
        done = self.box.run(ask)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"was written by a newer Holdfast \(schema \d+, this program knows up to \d+\)")

    def test_a_program_that_dies_after_it_agreed_is_named_and_the_old_program_serves_again(self):
        reader = self.start_waiting_reader()
        self.programs.replace_by_script("holdfastd", AGREES_AND_DIES)
        self.assert_one_line(self.upgrade(), r"the new \S+/holdfastd does not serve \(it will not do\); "
                                             "reads wait, nothing is lost: put the old program back")
        self.assertFalse(reader.wait(0.2))
        self.origin.restart()
        self.programs.replace("holdfastd")
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, RIGHT)
        self.assert_reads(12 << 20)

    def test_a_read_that_waits_for_the_origin_goes_through_it(self):
        reader = self.start_waiting_reader()
        for _ in range(3):
            self.assertEqual(self.upgrade().returncode, 0)
        self.assertFalse(reader.wait(0))
        self.origin.restart()
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, RIGHT)

    def test_what_does_not_run_needs_none(self):
        self.instance.umount(os.path.dirname(self.path))
        self.assert_one_line(self.upgrade(), "does not run; its next start takes the programs")
        self.assertEqual(mounts_below(self.box.directory), [])

    def test_what_others_run_is_upgraded_by_them(self):
        other = self.holdfast("other")
        for directory in (other.run_path(), other.state_path("cache")):
            os.makedirs(directory)
        self.box.start([os.path.join(BIN, "holdfastd"), f"--cache-dir={other.state_path('cache')}",
                        f"--run-dir={other.run_path()}"], stderr=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(other.run_path("control.sock")), 20, "the daemon's socket")
        done = other.run("upgrade", "--root", other.root, "--instance", "other")
        self.assert_one_line(done, "is not run by holdfast supervise; restart its daemons where they were started$")


if __name__ == "__main__":
    main(tools=("mkfs.erofs",), reasons=soak_image.missing())
