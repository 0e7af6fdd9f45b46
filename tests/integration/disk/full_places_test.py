"""Run, state and log directories on file systems that are full, and the processes killed in it."""

import contextlib
import os
import shutil
import signal

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import Reader, RIGHT
from harness.sandbox import wait_gone, wait_until

MB = 1 << 20
SIZE = 8 * MB
HALF = 2 * MB
SERVED_S = 5


def fill(directory):
    """Takes every byte; returns what gives them back."""
    ballast = os.path.join(directory, "ballast")
    with open(ballast, "wb", buffering=0) as f:
        for piece in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while f.write(bytes(piece)):
                    pass
    return lambda: os.unlink(ballast)


class FullPlacesTest(Case):
    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        self.truth = os.path.join(self.root, "image")
        images.write_random(self.truth, SIZE, 7)
        self.other = os.path.join(self.root, "other")
        images.write_random(self.other, MB, 8)
        self.origin = self.serve(self.root)
        self.h = self.holdfast()

    def small(self, path, size="512k"):
        """A small file system at `path`, before anything is there."""
        os.makedirs(path, mode=0o700, exist_ok=True)
        done = self.box.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,size={size}", "none", path])
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def mount(self):
        self.file = self.h.mount_file(self.origin.url("image"), NO_READ_AHEAD)
        self.assert_reads_right(self.file, self.truth, 0, HALF)

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_gone(pid, 10))

    def kill_all(self):
        """Daemon, spare and fetcher."""
        service = self.h.service("holdfastd")
        old = service["pid"]
        for pid in (service["spare"], self.h.service("fetcherd")["pid"], old):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    self.kill(pid)
        wait_until(lambda: self.new_daemon(old), 20, "another daemon")

    def new_daemon(self, old):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return self.h.status() and self.h.daemon_pid() != old

    def drop_pages(self):
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")

    def survives(self, directory):
        self.mount()
        free = fill(directory)
        for _ in range(3):
            self.kill_all()
            self.drop_pages()
            self.assert_reads_right(self.file, self.truth, 0, HALF, seconds=SERVED_S)
        self.assert_reads_right(self.file, self.truth, 4 * MB, MB)  # The cache has room.
        self.assertEqual(self.h.service("holdfastd")["pid"], self.h.daemon_pid())
        return free

    def test_a_full_run_directory(self):
        run = self.small(os.path.join(self.h.root, "run/holdfast"))
        free = self.survives(run)
        # A mount that could not be written down is refused, in one line, and leaves nothing.
        point = self.box.make_directory("second")
        done = self.h.try_mount(self.origin.url("other"), point, "--as=file")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn("No space left", done.stderr)
        self.assertFalse(os.path.ismount(point))
        free()
        second = self.h.mount_file(self.origin.url("other"))
        self.assert_reads_right(second, self.other)
        self.kill_all()
        self.assert_reads_right(self.file, self.truth)
        fill(run)
        self.h.umount(os.path.dirname(second))
        self.h.umount(os.path.dirname(self.file))
        self.assertEqual(self.h.processes(), [])

    def test_a_full_state_directory(self):
        state = self.small(os.path.join(self.h.root, "var/lib/holdfast"), "64m")
        self.mount()
        free = fill(state)
        for _ in range(2):
            self.kill_all()
            self.drop_pages()
            self.assert_reads_right(self.file, self.truth, 0, HALF, seconds=SERVED_S)
        with open(self.truth, "rb") as f:
            f.seek(4 * MB)
            waiting = self.keep(Reader(self.file, 4 * MB, MB, f.read(MB)))
        wait_until(lambda: self.h.status()["store_trouble"], 20, "the status says what is wrong")
        self.assertFalse(waiting.wait(0.5))
        free()
        self.assertTrue(waiting.wait(30))
        self.assertEqual(waiting.result, RIGHT)
        self.h.umount(os.path.dirname(self.file))

    def test_a_full_log_directory(self):
        log = self.small(os.path.join(self.h.root, "var/log/holdfast"))
        self.survives(log)
        self.h.umount(os.path.dirname(self.file))

    def test_a_new_instance_on_a_full_run_directory(self):
        """It is refused, and starts as soon as there is room."""
        run = self.small(os.path.join(self.h.root, "run/holdfast"))
        free = fill(run)
        point = self.box.make_directory("first")
        done = self.h.try_mount(self.origin.url("image"), point, "--as=file")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn("No space left", done.stderr)
        self.assertEqual(self.h.processes(), [])
        free()
        self.mount()
        self.kill_all()
        self.assert_reads_right(self.file, self.truth)
        self.h.umount(os.path.dirname(self.file))

    def test_a_mount_on_a_full_cache_disk_says_so(self):
        """Of a new instance, and of one whose disk has become full; both mount as soon as there is room."""
        cache = self.small(self.box.path("cache"), "64m")
        shutil.copy(images.random_image(1, 200000, seed=9)[0], os.path.join(self.root, "image.erofs"))
        point = self.box.make_directory("first")
        cause = f"{cache}.*No space left on device"
        free = fill(cache)
        self.assert_one_line(self.h.try_mount(self.origin.url("image.erofs"), point, "--cache-dir", cache), cause)
        self.assertEqual(self.h.processes(), [])
        free()
        self.file = self.h.mount_file(self.origin.url("image"), NO_READ_AHEAD, "--cache-dir", cache)
        free = fill(cache)
        done = self.h.try_mount(self.origin.url("image.erofs"), point, "--timeout=3s")
        self.assert_one_line(done, cause)
        self.assertFalse(os.path.ismount(point))
        free()
        self.h.umount(self.h.mount(self.origin.url("image.erofs"), mount_point=point))
        self.h.umount(os.path.dirname(self.file))

    def check(self):
        return self.h.run("status", *self.h.root_flags(), "--check").stdout

    def test_a_read_that_waits_for_a_full_cache_disk_is_told_to_a_monitor_at_once(self):
        """Not after the 30 s after which any wait is told."""
        cache = self.small(self.box.path("cache"), "64m")
        self.file = self.h.mount_file(self.origin.url("image"), NO_READ_AHEAD, "--cache-dir", cache)
        free = fill(cache)
        self.assertRegex(self.check(), "^OK: ", "no read waits")
        with open(self.truth, "rb") as f:
            f.seek(HALF)
            reader = self.keep(Reader(self.file, HALF, MB, f.read(MB)))
        told = "DEGRADED: t: the file system of the cache is full, with 0 bytes free, and a read waits"
        wait_until(lambda: self.check().startswith(told), 20, "it being told")
        free()
        self.assertTrue(reader.wait(30))
        self.assertEqual(reader.result, RIGHT)
        wait_until(lambda: self.check().startswith("OK: "), 20, "all being fine again")
        self.h.umount(os.path.dirname(self.file))

    def test_a_log_has_a_limit(self):
        self.mount()
        for program in ("holdfastd", "fetcherd", "supervise"):
            with open(self.h.log_path(program), "ab") as f:
                f.write(b"old line\n" * (1 << 20))  # 9 MiB.
        self.kill_all()
        for program in ("holdfastd", "fetcherd", "supervise"):
            path = self.h.log_path(program)
            wait_until(lambda: os.path.getsize(path) < MB, 20, f"{path} is cut")
            self.assertLessEqual(os.path.getsize(path + ".1"), 10 * MB)
        self.assert_reads_right(self.file, self.truth)
        self.h.umount(os.path.dirname(self.file))


if __name__ == "__main__":
    main()
