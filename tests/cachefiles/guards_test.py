"""What the device gives to none but its program, and what of it ends with its mount, its program and the daemon."""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import struct

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CachefilesCase
from harness import images
from harness.case import main
from harness.holdfast import BIN
from harness.other_user import NOBODY
from harness.readers import RIGHT, Child, pread_all
from harness.sandbox import mounts_below, wait_gone, wait_until
from harness.cachefiles.raw_device import OPEN, READ, RawDevice, error_of, open_object

SIZE = 1 << 20
PAGE = 4096
_FAILED_OPEN = 0x40089882
_CAP_DAC_READ_SEARCH = 1 << 2
_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def become_another_user(capabilities):
    """uid 65534 with these bits of the first 32 capabilities and no others."""
    _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class GuardsTest(CachefilesCase):
    def setUp(self):
        super().setUp()
        with open(images.random_file(SIZE), "rb") as f:
            self.truth = f.read()
        self.raw = None

    def open_raw(self):
        self.raw = RawDevice(self.device)
        self.addCleanup(self.raw.close)
        return self.raw

    def bound(self):
        self.open_raw().bind(self.directory)
        return self.raw

    def child(self, work):
        """A process without the device."""
        def alone():
            if self.raw is not None:
                self.raw.close()
            return work()
        return self.keep(Child("a process beside the daemon", alone))

    def acquire(self, cookie="object"):
        request = {"op": "acquire", "volume": "volume", "object": cookie, "timeout_ms": 20000}
        return self.child(lambda: self.machine.control(request).get("errno", 0))

    def opened(self):
        """(the object's path, its OPEN)."""
        look = self.acquire()
        message = self.raw.await_message()
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)
        return self.machine.acquire("volume", "object"), message

    def reader(self, path, offset=0, length=PAGE):
        truth = self.truth[offset:offset + length]

        def read():
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            return RIGHT if pread_all(fd, offset, length) == truth else 200
        return self.child(read)

    def assert_ends(self, child, result):
        self.assertTrue(child.wait(20), "it still waits")
        self.assertEqual(child.result, result)

    def daemon_with(self, name, device, *flags):
        """A daemon on another cache that is started with this device; its log."""
        log = self.box.path(name + ".err")
        with open(log, "wb") as err:
            process = self.box.start(
                [os.path.join(BIN, "holdfastd"), "--cache-dir=" + self.box.path(name + "-cache"),
                 "--run-dir=" + self.box.path(name + "-run"), "--logtostderr", "--cachefiles-device=" + device, *flags],
                stdout=err, stderr=err)
        wait_until(lambda: process.poll() is not None or "serving" in self.text(log), 20, "it serves or has ended")
        return process, log

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        self.assertTrue(wait_gone(process.pid, 20), "it stops")
        process.wait()

    def assert_refuses(self, device, *words):
        process, log = self.daemon_with("refused", device)
        self.assertIsNotNone(process.poll(), "it should have ended")
        for word in words:
            self.assertIn(word, self.text(log))
        left = self.box.path("refused-run")
        self.assertEqual([point for point in mounts_below(self.box.directory) if point.startswith(left)], [])

    # Other users.

    def test_another_user_gets_nothing(self):
        self.bound()
        _, message = self.opened()
        place = f"/proc/{os.getpid()}/fd/{message.fd}"

        def tries(work, capabilities=0):
            def alone():
                become_another_user(capabilities)
                return error_of(work)
            return self.keep(Child("another user", alone))
        for work, result in ((lambda: os.open(self.device, os.O_RDWR), errno.EPERM), (lambda: os.open(place, os.O_WRONLY), errno.EACCES),
                             (lambda: open_object(self.raw.fd, message.object_id), errno.EPERM)):
            self.assert_ends(tries(work), result)
        self.assert_ends(tries(lambda: open_object(self.raw.fd, message.object_id), _CAP_DAC_READ_SEARCH), errno.ENXIO)
        self.assertEqual(error_of(os.open, place, os.O_WRONLY), errno.ENXIO, "also for its own program")

    def test_the_file_of_an_open_is_its_readers(self):
        self.bound()
        look = self.acquire()
        self.assertTrue(self.raw.is_readable(20))
        message = self.raw.read_only()
        self.assertEqual(message.opcode, OPEN)
        steal = lambda: error_of(open_object, self.raw.fd, message.object_id)  # noqa: E731
        self.assert_ends(self.keep(Child("another process", steal)), errno.EPERM)
        self.raw.take_file(message)
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        self.assert_ends(look, 0)

    def test_the_device_keeps_its_owner_and_mode(self):
        # 0 and no change would have an administrator believe in it.
        self.assertEqual(error_of(os.chmod, self.device, 0o600), errno.EOPNOTSUPP)
        self.assertEqual(error_of(os.chown, self.device, NOBODY, NOBODY), errno.EOPNOTSUPP)
        self.assertEqual(error_of(os.truncate, self.device, 0), 0, "a shell's redirection")
        self.bound()
        self.opened()

    def test_nodes_that_are_none(self):
        self.bound()
        _, message = self.opened()
        for high in (2, 1 << 31):
            self.assertEqual(error_of(open_object, self.raw.fd, message.object_id, high), errno.ESTALE)

    # Its mount.

    def test_an_abort_of_the_mount_ends_what_waits(self):
        self.bound()
        path, _ = self.opened()
        reader = self.reader(path)
        self.assertEqual(self.raw.await_message().opcode, READ)
        self.box.run(["umount", "-f", self.device])  # It says that the device is busy, and has cut it off.
        self.assertEqual(error_of(os.read, self.raw.fd, 1024), errno.ENOTCONN)
        self.assert_ends(reader, errno.EIO)
        wait_until(lambda: "start holdfastd again" in self.machine.all_words(), 20, "it says what to do")

    def test_a_dead_mount_that_the_kernel_still_knows_is_detached(self):
        os.stat(self.device)  # The kernel keeps what it is told.
        self.machine.kill(self.machine.daemon)
        self.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.bound()
        self.opened()
        self.raw.close()
        self.stop(self.machine.daemon)
        self.assertNotIn(self.device, mounts_below(self.box.directory))

    def test_a_second_daemon_on_a_living_device_is_refused(self):
        self.assert_refuses(self.device, self.device, "another holdfastd")
        self.bound()
        self.opened()

    def test_the_end_of_a_daemon_leaves_the_next_ones_device(self):
        self.assertEqual(self.box.run(["umount", self.device]).returncode, 0)
        second, log = self.daemon_with("second", self.device)
        self.assertIsNone(second.poll(), self.text(log))
        self.stop(self.machine.daemon)
        self.bound()
        self.raw.close()
        self.stop(second)
        self.assertNotIn(self.device, mounts_below(self.box.directory))

    def end_with_kill(self):
        """A killed daemon, whose next one has no device."""
        self.machine.kill(self.machine.daemon)
        self.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        self.machine.flags = []
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.assertNotIn(self.device, mounts_below(self.box.directory))

    def test_what_was_made_for_a_device_ends_with_it(self):
        self.end_with_kill()
        self.assertFalse(os.path.lexists(self.device))

    def test_a_file_that_was_there_before_a_device_stays(self):
        self.stop(self.machine.daemon)
        with open(self.device, "w"):
            pass
        self.machine.flags = self.machine_flags()
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.bound()
        self.raw.close()
        self.machine.kill(self.machine.daemon)
        self.assertEqual(self.box.run(["umount", self.device]).returncode, 0)
        self.end_with_kill()
        self.assertTrue(os.path.isfile(self.device))

    def test_what_has_come_in_the_place_of_a_made_file_stays(self):
        self.machine.kill(self.machine.daemon)
        self.assertEqual(self.box.run(["umount", self.device]).returncode, 0)
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.ENXIO, "no program takes it for a device")
        os.unlink(self.device)
        with open(self.device, "w"):
            pass
        self.end_with_kill()
        self.assertTrue(os.path.isfile(self.device))

    def test_an_unmounted_device_leaves_no_file(self):
        self.assertEqual(self.box.run(["umount", self.device]).returncode, 0)
        wait_until(lambda: not os.path.lexists(self.device), 20, "what was made for it is gone")

    def test_paths_that_cannot_be_a_device(self):
        directory = self.box.make_directory("directory")
        self.assert_refuses(directory, directory, "not a regular file")
        missing = self.box.path("missing", "device")
        self.assert_refuses(missing, missing, "mkdir -p " + os.path.dirname(missing))
        os.symlink(self.box.path("nowhere"), self.box.path("dangling"))
        self.assert_refuses(self.box.path("dangling"), "dangling")
        self.assertFalse(os.path.lexists(self.box.path("nowhere")))

    def test_a_start_that_fails_later_leaves_no_device(self):
        device = self.box.path("another")
        with open(self.box.path("file"), "w"):
            pass
        process, log = self.daemon_with("refused", device, "--fuse-dir=" + self.box.path("file"))
        self.assertEqual(process.wait(20), 1, self.text(log))
        self.assertFalse(os.path.exists(device))

    # Its program.

    def test_a_library_whose_path_the_linker_would_split(self):
        for name in ("a folder", "a:folder"):
            programs = self.box.make_directory(name, "bin")
            shutil.copy(os.path.join(BIN, "holdfast"), programs)
            shutil.copytree(os.path.join(os.path.dirname(BIN), "lib", "holdfast"), self.box.path(name, "lib", "holdfast"))
            done = self.box.run([os.path.join(programs, "holdfast"), "cachefiles-run", "--", "/bin/true"])
            self.assert_one_line(done, "LD_PRELOAD")

    def test_a_thread_that_reads_can_be_cancelled(self):
        done = self.box.run([os.path.join(BIN, "holdfast"), "cachefiles-run", "--", os.path.join(BIN, "cachefiles_cancel")])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_name_that_is_the_device(self):
        self.bound()
        os.chdir(self.box.directory)
        self.addCleanup(os.chdir, "/")
        child = self.keep(Child("asks", lambda: error_of(os.write, self.raw.fd, b"inuse " + os.fsencode(os.path.basename(self.device)))))
        self.assertTrue(child.wait(20), "the device waits for itself")
        self.opened()

    def test_a_name_that_is_the_device_on_the_file_system_of_the_cache(self):
        self.open_raw().bind(self.box.make_directory("beside-the-device"))
        os.chdir(self.box.directory)
        self.addCleanup(os.chdir, "/")
        for word in (b"inuse ", b"cull "):
            child = self.keep(Child("asks", lambda: error_of(os.write, self.raw.fd, word + os.fsencode(os.path.basename(self.device)))))
            self.assert_ends(child, errno.EBUSY)
        self.opened()

    def test_files_that_were_not_opened_are_given_back(self):
        self.bound()
        directory = f"/proc/{self.machine.daemon.pid}/fd"

        def files():
            return [name for name in (os.readlink(os.path.join(directory, fd)) for fd in os.listdir(directory))
                    if "/data/" in name]
        for number in range(5):
            look = self.acquire(f"object-{number}")
            self.assertTrue(self.raw.is_readable(20))
            message = self.raw.read_only()
            fcntl.ioctl(self.raw.fd, _FAILED_OPEN, struct.pack("=Ii", message.msg_id, errno.EMFILE))
            self.assert_ends(look, errno.EMFILE)
            self.assertEqual(error_of(self.raw.take_file, message), errno.ESTALE)
            self.assertEqual(error_of(fcntl.ioctl, self.raw.fd, _FAILED_OPEN, struct.pack("=Ii", message.msg_id, errno.EMFILE)), errno.EINVAL)
        wait_until(lambda: not files(), 20, "no file of them is open")

    def test_failures_with_no_errno(self):
        self.bound()
        for error in (0, -5, -(1 << 31), 1 << 30):
            look = self.acquire(f"object-{error}")
            self.assertTrue(self.raw.is_readable(20))
            message = self.raw.read_only()
            fcntl.ioctl(self.raw.fd, _FAILED_OPEN, struct.pack("=Ii", message.msg_id, error))
            self.assert_ends(look, errno.EIO)
        self.opened()

    def test_a_path_where_the_device_cannot_stay(self):
        run = self.box.make_directory("other-run")
        for path, words in (("cachefiles", "must be an absolute path"), (run + "/fuse/device", "is in the directory of the instance's own mount"),
                            (run + "/x/../fuse", "is in the directory of the instance's own mount")):
            done = self.box.run([os.path.join(BIN, "holdfastd"), "--cache-dir=" + self.box.path("other"), "--run-dir=" + run,
                                 "--cachefiles-device=" + path])
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--cachefiles-device=" + path + " " + words, done.stderr)
            self.assertEqual(mounts_below(run), [])


if __name__ == "__main__":
    main()
