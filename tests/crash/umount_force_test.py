"""`holdfast umount --force` in every bad situation: back within 5 s, waiting reads get EIO, nothing is left, the cache is
kept."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import BIN, NO_READ_AHEAD
from harness.programs import Programs
from harness.readers import RIGHT, Reader, drop_page_cache, wait_all
from harness.sandbox import mounts_below, processes_of, wait_gone, wait_until
from soak import mounted_from

LIMIT_S = 5.0
FILES = 8
FILE_SIZE = 4 << 20
NEVER_MS = 600_000  # An origin that does not answer while the test lasts.

# Holds the mount by its working directory, an open file and a mapping; told to go on, it reads what is absent.
HOLDER = """
import mmap, os, sys
os.chdir(sys.argv[1])
fd = os.open(sys.argv[2], os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
print("holds", flush=True)
sys.stdin.readline()
try:
    os.pread(fd, 4096, 1 << 20)
    print("read", flush=True)
except OSError as e:
    print(e.errno, flush=True)
sys.stdin.readline()
print(m[2 << 20], flush=True)
"""


def uninterruptible(pids):
    """Those of them that are in state D."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "D":
                    found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class UmountForceTest(Case):
    def setUp(self):
        super().setUp()
        self.serve_random_image(FILES, FILE_SIZE, seed=5)

    # Arranging.
    def truth(self, name, offset=0, length=FILE_SIZE):
        with open(os.path.join(self.tree, name), "rb") as f:
            f.seek(offset)
            return f.read(length)

    def mount_and_wait(self, flags=(NO_READ_AHEAD,), readers=6):
        """A mount with file 000 in the cache, and readers that wait for the others."""
        self.point = self.instance.mount(self.url, "--as=erofs", *flags)
        self.assert_reads_right(os.path.join(self.point, "000"), os.path.join(self.tree, "000"))
        for name in os.listdir(self.point):
            os.stat(os.path.join(self.point, name))
        self.origin.restart(delay_ms=NEVER_MS)
        self.readers = self.start_readers(self.point, readers)
        return self.point

    def start_readers(self, point, count, reaching=None):
        return self.read_and_wait([(os.path.join(point, f"{i + 2:03}"), 3 << 20) for i in range(count)], reaching)

    def read_and_wait(self, places, reaching=None):
        """One reader for each place; returns once `reaching` of them, or all, wait in the daemon."""
        reaching = reaching or len(places)
        before = self.instance.waiting()
        readers = [self.keep(Reader(path, offset, 4096)) for path, offset in places]
        wait_until(lambda: all(self.has_open(reader.pid, path) for reader, (path, _) in zip(readers, places)),
                   20, "each reader having opened its file")
        wait_until(lambda: self.instance.waiting() >= before + reaching, 20, f"{reaching} more reads waiting")
        return readers

    def has_open(self, pid, path):
        fds = f"/proc/{pid}/fd"
        return any(os.path.lexists(f"{fds}/{fd}") and os.readlink(f"{fds}/{fd}") == path for fd in os.listdir(fds))

    def signal(self, number, *pids):
        for pid in pids:
            os.kill(pid, number)
            if number == signal.SIGKILL:
                self.assertTrue(wait_gone(pid, 5))

    def pids(self):
        return {"supervisor": self.instance.supervisor_pid(), "daemon": self.instance.daemon_pid(),
                "fetcher": self.instance.pid_of("fetcherd")}

    # Acting and asserting.
    def force(self, point=None, readers=None, errors=(errno.EIO,)):
        """Takes the mount away and checks what must hold each time; returns what was said on stderr."""
        point = point or self.point
        readers = self.readers if readers is None else readers
        began = time.monotonic()
        done = self.instance.run("umount", "--root", self.instance.root, "--force", point, timeout=60)
        seconds = time.monotonic() - began
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(seconds, LIMIT_S, "umount --force took too long")
        self.assertEqual([r.what for r in wait_all(readers, LIMIT_S)], [], "readers still wait")
        self.assertLessEqual({r.result for r in readers}, set(errors))
        self.assertNotIn(point, mounts_below(self.box.directory))
        self.assert_none_is_stuck(processes_of(self.box.directory) + [r.pid for r in readers])
        print(f"    {self._testMethodName}: {seconds:.2f} s", file=sys.stderr)
        return done.stderr

    def assert_none_is_stuck(self, pids):
        """A daemon that lives on may be seen waiting for the disk; what is stuck is seen in state D each time."""
        stuck = set(pids)

        def left():
            stuck.intersection_update(uninterruptible(stuck))
            return not stuck
        wait_until(left, LIMIT_S, "no process left in state D")

    def assert_nothing_is_left(self):
        self.assertEqual(mounts_below(self.box.directory), [])
        wait_until(lambda: not self.daemons(), 2, "no process of the instance")
        self.assertFalse(os.path.exists(self.instance.run_path()), "the run directory is still there")

    def daemons(self):
        found = []
        for pid in processes_of(self.box.directory):
            try:
                name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            except OSError:
                continue
            if name.startswith("holdfast"):
                found.append((pid, name))
        return found

    def assert_the_cache_is_kept(self):
        """Mounted again on the same point, what was read before comes from the cache."""
        self.origin.restart()
        drop_page_cache()
        point = self.instance.mount(self.url, "--as=erofs", mount_point=self.point)
        self.assert_reads_right(os.path.join(point, "000"), os.path.join(self.tree, "000"))
        self.assertEqual(self.origin.served().twice_bytes, 0, "what was in the cache was fetched again")
        self.assert_reads_right(os.path.join(point, "001"), os.path.join(self.tree, "001"))
        self.instance.umount(point)

    def force_and_check_all(self):
        said = self.force()
        self.assert_nothing_is_left()
        self.assert_the_cache_is_kept()
        return said

    # The situations.
    def test_all_is_well_and_the_origin_does_not_answer(self):
        self.mount_and_wait()
        self.force_and_check_all()

    def test_the_origin_is_dead(self):
        self.mount_and_wait()
        self.origin.stop()
        self.origin.start()  # restart() stops it again; a dead one has no log to count.
        self.origin.stop()
        began = self.force()
        self.assert_nothing_is_left()
        self.assertEqual(began, "")
        self.origin.start()
        self.assert_the_cache_is_kept()

    def test_the_fetcher_is_dead(self):
        self.mount_and_wait()
        self.instance.hold_supervisor()
        self.instance.kill_fetcher()
        self.force_and_check_all()

    def test_the_daemon_is_stopped(self):
        self.mount_and_wait()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        said = self.force_and_check_all()
        self.assertIn(f"instance {self.instance.name} does not serve", said)
        self.assertIn("; its supervisor and its daemons are ended\n", said)

    def test_all_of_them_are_stopped(self):
        self.mount_and_wait()
        self.signal(signal.SIGSTOP, *self.pids().values())
        self.force_and_check_all()

    def test_a_stopped_spare_does_not_outlive_it(self):
        self.mount_and_wait()
        spare = wait_until(lambda: self.instance.service("holdfastd")["spare"], 20, "a spare")
        self.signal(signal.SIGSTOP, self.instance.daemon_pid(), spare)
        self.force_and_check_all()

    def test_a_stopped_server_of_metrics_does_not_outlive_it(self):
        self.mount_and_wait()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid(), self.instance.pid_of("metricsd"))
        self.force_and_check_all()

    def test_the_daemon_is_dead_and_its_supervisor_stopped(self):
        self.mount_and_wait()
        self.instance.hold_supervisor()
        self.signal(signal.SIGKILL, self.instance.daemon_pid())
        self.force_and_check_all()

    def test_all_of_them_are_dead(self):
        self.mount_and_wait()
        pids = self.pids()
        self.instance.kill_supervisor()
        self.signal(signal.SIGKILL, pids["daemon"], pids["fetcher"])
        self.force_and_check_all()

    def test_the_supervisor_is_dead_and_the_daemon_stopped(self):
        self.mount_and_wait()
        self.instance.kill_supervisor()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        self.force_and_check_all()

    def wait_crash_loop(self):
        before = self.instance.service("holdfastd")["restarts"]
        wait_until(lambda: self.instance.service("holdfastd")["restarts"] > before + 4, 20,
                   "the daemon dying at each start")

    def test_the_daemon_dies_at_each_start(self):
        programs = Programs(self.box)
        self.mount_and_wait()
        programs.replace("holdfastd", "/bin/false")
        self.signal(signal.SIGKILL, self.instance.daemon_pid())
        self.wait_crash_loop()
        self.force()
        self.assert_nothing_is_left()
        programs.replace("holdfastd")
        self.assert_the_cache_is_kept()

    def test_another_command_waits_for_the_daemon_that_dies_at_each_start(self):
        programs = Programs(self.box)
        self.mount_and_wait()
        programs.replace("holdfastd", "/bin/false")
        self.signal(signal.SIGKILL, self.instance.daemon_pid())
        self.wait_crash_loop()
        other = self.box.start([os.path.join(BIN, "holdfast"), *self.instance.mount_arguments(
            self.url, self.box.make_directory("other"))], stderr=-1, stdout=-1)
        claim = self.instance.run_path("mounts")
        wait_until(lambda: self.lock_is_held(), 10, "the other command holding the instance's lock")
        self.force()
        other.send_signal(signal.SIGTERM)
        self.assertTrue(wait_gone(other.pid, 20))
        self.assertEqual(mounts_below(self.box.directory), [], claim)
        programs.replace("holdfastd")
        self.assert_the_cache_is_kept()

    def lock_is_held(self):
        inode = os.stat(os.path.join(self.instance.run_path(), "..", ".locks",
                                     self.instance.name + ".lock")).st_ino
        with open("/proc/locks") as f:
            return any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in f)

    def hold_the_mount(self):
        holder = self.box.start(["python3", "-c", HOLDER, self.point, "007"], stdin=-1, stdout=-1, text=True)
        self.assertEqual(holder.stdout.readline(), "holds\n")
        return holder

    def go_on(self, holder):
        """What the holder says of its next step."""
        holder.stdin.write("\n")
        holder.stdin.flush()
        return holder.stdout.readline()

    def test_the_mount_is_busy(self):
        self.mount_and_wait()
        holder = self.hold_the_mount()
        plain = self.instance.run("umount", "--root", self.instance.root, self.point)
        self.assert_one_line(plain, "is busy, held by python3")
        self.force()
        self.assert_nothing_is_left()
        self.assertEqual(self.go_on(holder), f"{errno.EIO}\n")
        self.assertEqual(self.go_on(holder), "")
        self.assertEqual(holder.wait(5), -signal.SIGBUS)
        self.assert_the_cache_is_kept()

    def test_the_mount_is_busy_and_the_daemon_stopped(self):
        self.mount_and_wait()
        holder = self.hold_the_mount()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        self.force_and_check_all()

    def test_daemons_that_others_run_are_left_to_them(self):
        for path in (self.instance.run_path(), self.instance.state_path("cache"), self.instance.state_path("sources")):
            os.makedirs(path)
        self.box.start([os.path.join(BIN, "holdfastd"), f"--cache-dir={self.instance.state_path('cache')}",
                        f"--run-dir={self.instance.run_path()}", "--readahead-max=0"], stderr=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.instance.run_path("control.sock")), 20, "the daemon's socket")
        fetcher = self.box.start([os.path.join(BIN, "holdfast-fetcherd"),
                                  f"--device={self.instance.run_path('device.sock')}",
                                  f"--sources-dir={self.instance.state_path('sources')}"], stderr=subprocess.DEVNULL)
        self.mount_and_wait(flags=())
        self.assertIn("its daemons were left to their service manager", self.force())
        self.assertIsNone(fetcher.poll())

    def test_a_loop_device_carries_the_mount(self):
        """As on kernels that can't mount an image from a file."""
        self.mount_and_wait(readers=0)
        file = mounted_from(self.point)
        self.assertEqual(self.box.run(["umount", self.point]).returncode, 0)
        done = self.box.run(["mount", "-o", "ro,loop", "-t", "erofs", file, self.point])
        self.assertEqual(done.returncode, 0, done.stderr)
        loop = mounted_from(self.point)
        self.assertRegex(loop, "^/dev/loop")
        self.readers = self.start_readers(self.point, 4, reaching=1)  # The loop device asks for one after the other.
        holder = self.hold_the_mount()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        self.force()
        self.assert_nothing_is_left()
        self.assertEqual(self.go_on(holder), f"{errno.EIO}\n")
        holder.kill()
        wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(loop)}/loop"), 10, "the loop device free")
        self.assert_the_cache_is_kept()

    def mount_plain_and_wait(self):
        path = self.instance.mount_file(self.url, NO_READ_AHEAD)
        self.assert_reads_right(path, self.image, length=1 << 20)
        self.point = os.path.dirname(path)
        self.origin.restart(delay_ms=NEVER_MS)
        self.readers = self.read_and_wait([(path, (5 * i + 8) << 20) for i in range(4)])

    def test_a_plain_file(self):
        self.mount_plain_and_wait()
        self.force()
        self.assert_nothing_is_left()

    def test_a_plain_file_and_the_daemon_is_stopped(self):
        self.mount_plain_and_wait()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        self.force(errors=(errno.EIO, errno.ENOTCONN, errno.ECONNABORTED))
        self.assert_nothing_is_left()

    def test_the_mount_is_gone_already(self):
        point = self.mount_and_wait(readers=0)
        pids = self.pids()
        self.signal(signal.SIGKILL, *pids.values())
        self.assertEqual(self.box.run(["umount", point]).returncode, 0)
        self.assertIn("no longer mounted", self.force())
        self.assert_nothing_is_left()

    # Several mounts of one instance.
    def mount_another(self):
        other_image, self.other_tree = images.random_image(FILES, FILE_SIZE, seed=6)
        self.origin.restart()
        self.other = self.instance.mount(self.origin.url(os.path.basename(other_image)), "--as=erofs", NO_READ_AHEAD)
        os.listdir(self.other)
        return self.mount_and_wait(flags=())

    def test_a_daemon_that_serves_goes_on_with_its_other_mounts(self):
        self.mount_another()
        pids = self.pids()
        path = os.path.join(self.other, "001")
        waiting = self.instance.waiting()
        others = [self.keep(Reader(path, 1 << 20, 4096, self.other_truth("001", 1 << 20)))]
        wait_until(lambda: self.instance.waiting() > waiting, 10, "one more read waiting")
        self.assertEqual(self.force(), "")
        self.assertEqual(self.pids(), pids)
        self.assertFalse(others[0].wait(0), "a read of the other mount has ended")
        self.origin.restart()
        self.assertTrue(others[0].wait(20))
        self.assertEqual(others[0].result, RIGHT)
        self.assert_the_cache_is_kept()
        self.instance.umount(self.other)

    def other_truth(self, name, offset):
        with open(os.path.join(self.other_tree, name), "rb") as f:
            f.seek(offset)
            return f.read(4096)

    def test_users_of_a_busy_one_get_eio_while_the_others_go_on(self):
        self.mount_another()
        holder = self.hold_the_mount()
        self.force()
        self.assertEqual(self.go_on(holder), f"{errno.EIO}\n")
        holder.kill()
        self.origin.restart()
        self.assert_reads_right(os.path.join(self.other, "002"), os.path.join(self.other_tree, "002"))
        self.instance.umount(self.other)

    def test_a_daemon_that_hangs_takes_its_other_mounts_along_and_they_are_named(self):
        self.mount_another()
        self.signal(signal.SIGSTOP, self.instance.daemon_pid())
        said = self.force()
        self.assertIn(f"and its other mounts end too: {self.other}", said)
        self.assert_nothing_is_left()
        self.assert_the_cache_is_kept()

    def test_another_mount_of_the_same_image_is_named_and_goes_on(self):
        self.mount_and_wait(readers=0)
        self.origin.restart()
        twin = self.instance.mount(self.url, "--as=erofs")
        self.origin.restart(delay_ms=NEVER_MS)
        self.readers = self.start_readers(self.point, 2)
        self.assertIn(f"{twin} shows the same image", self.force())
        self.origin.restart()
        self.assert_reads_right(os.path.join(twin, "003"), os.path.join(self.tree, "003"))
        self.instance.umount(twin)

    # Mounts that were detached earlier, while something used them.
    def detach_in_use(self, path):
        """Detaches the mount that has the file, which stays open; returns a path to it, and its descriptor."""
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(lambda: os.path.exists(f"/proc/self/fd/{fd}") and os.close(fd))
        done = self.instance.run("umount", *self.instance.root_flags(), "--lazy", os.path.dirname(path))
        self.assertEqual(done.returncode, 0, done.stderr)
        return f"/proc/{os.getpid()}/fd/{fd}", fd

    def stop(self):
        return self.instance.run("stop", *self.instance.root_flags(), "--instance", "t")

    def assert_goes_on(self, said, held, truth):
        """The instance runs for the user of the file, until that closes it."""
        path, fd = held
        self.assertIn("goes on, since it is still in use", said)
        self.assertIn(f"({os.getpid()})", said)
        self.origin.restart()
        self.assert_reads_right(path, truth)
        self.assert_one_line(self.stop(), f"held by .*[(]{os.getpid()}[)]")
        os.close(fd)
        self.assertEqual(self.stop().returncode, 0)
        self.assert_nothing_is_left()

    def test_users_of_a_mount_that_was_detached_earlier_go_on(self):
        self.mount_another()
        held = self.detach_in_use(os.path.join(self.other, "001"))
        self.assert_goes_on(self.force(), held, os.path.join(self.other_tree, "001"))

    def test_users_of_the_same_image_that_was_detached_earlier_go_on(self):
        self.mount_and_wait(readers=0)
        self.origin.restart()
        twin = self.instance.mount(self.url, "--as=erofs")
        held = self.detach_in_use(os.path.join(twin, "004"))
        self.origin.restart(delay_ms=NEVER_MS)
        self.readers = self.start_readers(self.point, 2)
        self.assert_goes_on(self.force(), held, os.path.join(self.tree, "004"))

    def test_users_of_a_file_that_was_detached_earlier_go_on(self):
        other, _ = images.random_image(FILES, FILE_SIZE, seed=6)
        path = self.instance.mount_file(self.origin.url(os.path.basename(other)), NO_READ_AHEAD)
        held = self.detach_in_use(path)
        self.point = os.path.dirname(self.instance.mount_file(self.url))
        self.readers = []
        self.assert_goes_on(self.force(), held, other)

    def test_users_of_a_mount_that_umount_8_detached_go_on(self):
        self.mount_another()
        fd = os.open(os.path.join(self.other, "001"), os.O_RDONLY)
        self.assertEqual(self.box.run(["umount", "--lazy", self.other]).returncode, 0)
        held = f"/proc/{os.getpid()}/fd/{fd}", fd
        self.assert_goes_on(self.force(), held, os.path.join(self.other_tree, "001"))

    def test_a_detached_mount_that_is_only_mapped_is_in_use(self):
        self.mount_another()
        path, fd = self.detach_in_use(os.path.join(self.other, "001"))
        mapped = mmap.mmap(fd, FILE_SIZE, prot=mmap.PROT_READ)
        self.addCleanup(mapped.close)
        os.close(fd)
        self.assertIn(f"({os.getpid()})", self.force())
        self.origin.restart()
        with open(os.path.join(self.other_tree, "001"), "rb") as f:
            self.assertEqual(mapped[:], f.read())
        self.assert_one_line(self.stop(), f"held by .*[(]{os.getpid()}[)]")
        mapped.close()
        self.assertEqual(self.stop().returncode, 0)
        self.assert_nothing_is_left()

    def test_a_detached_mount_below_an_overlay_is_in_use(self):
        self.mount_another()
        top = self.box.make_directory("top")
        done = self.box.run(["mount", "-t", "overlay", "-o", f"lowerdir={self.other}:{self.box.make_directory('e')}",
                             "o", top])
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.instance.run("umount", *self.instance.root_flags(), "--lazy", self.other)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"overlay on {top}", self.force())
        self.origin.restart()
        self.assert_reads_right(os.path.join(top, "001"), os.path.join(self.other_tree, "001"))
        self.assert_one_line(self.stop(), f"overlay on {top}")
        self.assertEqual(self.box.run(["umount", top]).returncode, 0)
        self.assertEqual(self.stop().returncode, 0)
        self.assert_nothing_is_left()


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
