"""What a daemon of the kernel's interface and an operator are told when the disk takes no more."""

import ctypes
import errno
import os

import _path  # noqa: F401
from harness.cachefiles.backing_case import PAGE, SIZE, BackingCase
from harness.case import main
from harness.disk import Disk, fill_up
from harness.readers import Child
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import error_of

_SPARE = 640 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class TroubleTest(BackingCase):
    def trouble(self):
        return self.machine.control({"op": "status"})["cachefiles"]["trouble"]

    def errors(self):
        return [line for line in self.machine.all_words().splitlines() if line[:1] == "E" and "was not stored" in line]

    def bind_elsewhere(self):
        """To a directory whose file system has room."""
        self.directory = os.path.join(Disk(self.box, "roomy", 64 << 20).path, "dir")
        os.mkdir(self.directory)
        self.raw.bind(self.directory)

    def assert_told(self, *words):
        self.assertEqual(len(self.errors()), 1, self.machine.last_words())
        for word in words:
            self.assertIn(word, self.trouble())
            self.assertIn(word, self.errors()[0])

    def test_a_full_cache_disk_is_told_until_a_write_is_stored(self):
        self.bind_elsewhere()
        _, message = self.acquire()
        self.assertEqual(self.trouble(), "")
        make_room = fill_up(self.machine.disk.path)
        for offset in (0, PAGE):
            self.assertEqual(error_of(os.pwrite, message.fd, self.truth[:PAGE], offset), errno.ENOBUFS)
        self.assert_told(os.path.join(self.machine.cache, "data"), "No space left on device", "make room")
        make_room()
        self.assertEqual(os.pwrite(message.fd, self.truth[:PAGE], 0), PAGE)
        self.assertEqual(self.trouble(), "")

    def test_a_write_that_is_stored_in_part_is_told(self):
        self.bind_elsewhere()
        _, message = self.acquire()
        spare = os.path.join(self.machine.disk.path, "spare")
        with open(spare, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, _SPARE)
        make_room = fill_up(self.machine.disk.path)
        os.unlink(spare)
        os.sync()
        stored = os.pwrite(message.fd, self.truth, 0)
        self.assertTrue(0 < stored < SIZE, stored)
        self.assert_told("No space left on device")
        make_room()
        self.assertEqual(os.pwrite(message.fd, self.truth, 0), SIZE)
        self.assertEqual(self.trouble(), "")

    def test_a_cache_disk_that_has_become_read_only_is_told(self):
        self.bind_elsewhere()
        _, message = self.acquire()
        self.machine.disk.cut()
        self.addCleanup(self.machine.power_off)
        self.assertNotEqual(error_of(os.pwrite, message.fd, self.truth[:PAGE], 0), 0)
        self.assert_told(os.path.join(self.machine.cache, "data"))

    def bind_beside(self, path):
        """A process whose result is the errno of a `bind` of this directory."""
        def bind():
            self.raw.write("dir " + path)
            return self.raw.error("bind ondemand")
        return self.keep(Child("binds " + path, bind))

    def test_a_directory_whose_file_system_does_not_answer_is_refused(self):
        where = self.box.make_directory("mnt")
        server = os.open("/dev/fuse", os.O_RDWR)
        done = _libc.mount(b"hung", os.fsencode(where), b"fuse.hung", 0, f"fd={server},rootmode=40000,user_id=0,group_id=0".encode())
        self.assertEqual(done, 0, os.strerror(ctypes.get_errno()))
        self.addCleanup(self.box.run, ["umount", "-l", where])
        try:
            for _ in range(2):
                binds = self.bind_beside(where)
                self.assertTrue(binds.wait(20))
                self.assertEqual(binds.result, errno.ETIMEDOUT)
                self.assertIn(f"the file system of {where} does not answer", self.machine.all_words())
                self.raw.end()
                self.raw = self.open_raw()
        finally:
            os.close(server)  # What waits fails.
        wait_until(lambda: self.bound_again(), 20, "another directory is bound")

    def bound_again(self):
        self.raw.end()
        self.raw = self.open_raw()
        self.raw.write("dir " + self.directory)
        return self.raw.error("bind ondemand") == 0

    def test_a_directory_by_a_link_of_proc_is_the_clients_own(self):
        number = os.open(self.directory, os.O_PATH)
        self.addCleanup(os.close, number)
        os.chdir(self.box.directory)
        below = os.path.relpath(self.directory, self.box.directory)
        for path in ("/proc/self/cwd/" + below, f"/proc/self/fd/{number}", f"/dev/fd/{number}/.", "/proc/thread-self/root" + self.directory):
            self.raw.write("dir " + path)
            self.assertEqual(self.raw.error("bind ondemand"), 0, path)
            self.assertTrue(os.path.isdir(os.path.join(self.directory, "graveyard")), path)
            os.rmdir(os.path.join(self.directory, "graveyard"))
            self.raw.end()
            self.raw = self.open_raw()
        self.raw.write("dir /proc/self/exe")
        self.assertNotEqual(self.raw.error("bind ondemand"), 0)

    def test_the_limits_of_the_daemons_directory_are_told(self):
        disk = Disk(self.box, "small", 64 << 20)
        self.directory = os.path.join(disk.path, "dir")
        os.mkdir(self.directory)
        self.raw.bind(self.directory)
        _, message = self.acquire()
        make_room = fill_up(disk.path)
        self.assertEqual(error_of(os.pwrite, message.fd, self.truth[:PAGE], 0), errno.ENOBUFS)
        self.assert_told(self.directory, "limits")
        make_room()
        self.assertEqual(os.pwrite(message.fd, self.truth[:PAGE], 0), PAGE)
        self.assertEqual(self.trouble(), "")


if __name__ == "__main__":
    main()
