"""Culling by a daemon of the kernel's interface: `inuse` and `cull` in its working directory, and when it is asked to."""

import errno
import os
import select

import _path  # noqa: F401
from harness.cachefiles.backing_case import PAGE, SIZE, BackingCase
from harness.case import leave_mounts_of_others, main
from harness.readers import Child
from harness.cachefiles.raw_device import error_of


class CullTest(BackingCase):
    def known(self):
        return {info["name"] for info in self.machine.control({"op": "status"})["objects"]}

    def assert_errors(self, errors):
        for text, error in errors:
            self.assertEqual(self.raw.error(text), error, text)

    def test_an_unused_object_is_culled_and_fetched_again(self):
        self.raw.bind(self.directory)
        self.stored()
        self.enter()
        self.assert_errors([("inuse Dobject", 0), ("cull Dobject", 0), ("inuse Dobject", errno.ENOENT), ("cull Dobject", errno.ENOENT)])
        self.assertFalse(os.path.exists(self.path_of()))
        self.assertEqual(self.known(), set())
        path, message = self.acquire()
        self.read_one(path, message)

    def test_a_used_object_is_busy(self):
        self.raw.bind(self.directory)
        self.stored()
        path, message = self.acquire()
        self.enter()
        self.assert_errors([("inuse Dobject", errno.EBUSY), ("cull Dobject", errno.EBUSY)])
        self.assertTrue(os.path.exists(self.path_of()))
        self.release(message)
        self.assert_errors([("inuse Dobject", 0), ("cull Dobject", 0)])

    def test_a_new_object_is_not_found_while_it_is_used(self):
        self.raw.bind(self.directory)
        self.stored("other")
        self.acquire()
        self.enter("other")
        self.assert_errors([("inuse Dobject", errno.ENOENT)])

    def test_an_object_that_is_being_opened_is_busy(self):
        self.raw.bind(self.directory)
        self.stored()
        self.enter()
        thread, answer = self.acquire_beside("object")
        message = self.raw.await_message()
        self.assert_errors([("inuse Dobject", errno.EBUSY), ("cull Dobject", errno.EBUSY)])
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        thread.join(20)
        self.assertTrue(answer[0]["ok"], answer)
        self.release(message)
        self.assert_errors([("inuse Dobject", 0), ("cull Dobject", 0)])

    def test_names_that_are_wrong(self):
        self.assert_errors([("cull x", errno.EIO), ("inuse x", errno.EIO), ("cull a/b", errno.EINVAL)])
        self.raw.bind(self.directory)
        self.raw.chdir(self.directory)
        self.assert_errors([("cull a/b", errno.EINVAL), ("inuse /", errno.EINVAL), ("inuse .", errno.EIO), ("cull ..", errno.EIO),
                            ("inuse", errno.EIO), ("cull", errno.EIO), ("inuse " + "x" * 300, errno.EIO), ("inuse nothing", errno.ENOENT),
                            ("inuse cache", errno.EBUSY), ("cull cache", errno.EBUSY), ("cull graveyard", errno.EBUSY)])
        self.raw.close()

    def test_nothing_outside_the_cache_is_removed(self):
        self.raw.bind(self.directory)
        outside = self.box.make_directory("disk", "outside")
        with open(os.path.join(outside, "file"), "w"):
            pass
        self.raw.chdir(outside)
        self.assert_errors([("inuse file", 0), ("cull file", errno.EIO)])
        self.assertTrue(os.path.exists(os.path.join(outside, "file")))
        beside = os.path.join(self.directory, "beside")
        os.mkdir(beside)
        self.raw.chdir(self.directory)
        self.assert_errors([("cull beside", errno.EIO), ("cull cache", errno.EBUSY)])
        self.assertTrue(os.path.isdir(beside))
        self.raw.chdir("/proc")
        self.assert_errors([("inuse version", errno.ENOENT), ("cull version", errno.ENOENT)])

    def test_other_files_of_the_cache_are_removed(self):
        self.raw.bind(self.directory)
        where = os.path.join(self.directory, "cache")
        with open(os.path.join(where, "file"), "w"):
            pass
        os.mkfifo(os.path.join(where, "fifo"))
        os.symlink("nowhere", os.path.join(where, "link"))
        self.raw.chdir(where)
        for name in ("file", "fifo", "link"):
            self.assert_errors([("inuse " + name, 0), ("cull " + name, 0)])
        self.assertEqual(os.listdir(where), [])

    def test_a_directory_goes_to_the_graveyard(self):
        self.raw.bind(self.directory)
        self.stored()
        self.enter()
        fan_out = os.path.basename(os.path.dirname(self.path_of()))
        _, message = self.acquire()
        self.raw.chdir("..")
        self.assert_errors([("cull " + fan_out, errno.EBUSY)])
        self.raw.chdir("..")
        self.assert_errors([("cull Ivolume", errno.EBUSY)])
        self.release(message)
        self.assert_errors([("inuse Ivolume", 0), ("cull Ivolume", 0), ("inuse Ivolume", errno.ENOENT)])
        self.assertEqual(len(os.listdir(os.path.join(self.directory, "graveyard"))), 1)
        path, message = self.acquire()
        self.read_one(path, message)

    def test_a_directory_is_culled_from_another_mount_namespace(self):
        self.raw.bind(self.directory)
        self.stored()
        self.enter()
        self.raw.chdir("../..")

        def cull():
            leave_mounts_of_others()
            return error_of(self.raw.write, "cull Ivolume")
        client = self.keep(Child("culls", cull))
        self.assertTrue(client.wait(20))
        self.assertEqual(client.result, 0)
        self.assertEqual(len(os.listdir(os.path.join(self.directory, "graveyard"))), 1)

    def wants_culling(self):
        return bool(self.raw.poll(select.POLLOUT))

    def small_disk(self, *limits):
        disk = self.bind_elsewhere("small")
        for limit in limits:
            self.raw.write(limit)
        self.raw.write("dir " + self.directory)
        return disk

    def fill(self, disk, size):
        path = os.path.join(disk.path, "ballast")
        with open(path, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, size)
        return path

    def test_pollout_while_culling_is_wanted(self):
        disk = self.small_disk("brun 80%", "bcull 60%", "bstop 20%")
        self.raw.write("bind ondemand")
        self.assertFalse(self.wants_culling())
        path, message = self.acquire()
        self.read_one(path, message, 0)
        while self.raw.edge():
            pass
        ballast = self.fill(disk, 30 << 20)
        self.read_one(path, message, PAGE)
        self.assertTrue(self.wants_culling(), "between bcull and bstop")
        self.assertTrue(self.raw.edge(20) & select.EPOLLOUT)
        os.unlink(ballast)
        self.read_one(path, message, 2 * PAGE)
        self.assertFalse(self.wants_culling())

    def test_below_the_stop_limit_nothing_is_stored(self):
        disk = self.small_disk("brun 80%", "bcull 60%", "bstop 50%")
        self.raw.write("bind ondemand")
        _, message = self.acquire()
        self.fill(disk, 40 << 20)
        self.assertEqual(error_of(self.raw.pwrite, message.fd, bytes(PAGE), 0), errno.ENOBUFS)
        self.assertTrue(self.wants_culling())
        self.assertEqual(self.ask(op="acquire", object="other")["errno"], errno.ENOBUFS)
        self.assertIsNone(self.raw.read())

    def test_the_status_line_says_so(self):
        disk = self.small_disk("brun 80%", "bcull 60%", "bstop 20%")
        self.raw.write("bind")
        self.assertFalse(self.raw.is_readable())
        blocks = os.statvfs(self.directory).f_blocks // 100
        line = self.raw.read_bytes().decode()
        self.assertIn("cull=0 ", line)
        self.assertIn(f"brun={blocks * 80:x} bcull={blocks * 60:x} bstop={blocks * 20:x} ", line)
        self.fill(disk, 40 << 20)
        self.assertIn("cull=1 ", self.raw.read_bytes().decode())
        self.assertFalse(self.raw.is_readable(), "a read of the line is enough")

    def test_the_status_line_counts_what_is_not_used_any_more(self):
        self.raw.bind(self.directory)
        self.stored()
        self.raw.close()
        self.raw = self.open_raw()
        self.raw.write("dir " + self.directory)
        self.raw.write("bind")
        self.assertRegex(os.read(self.raw.fd, 1024), b" freleased=0 breleased=0$", "a file that was new is not counted")
        self.assertTrue(self.ask(op="acquire", object="object")["ok"])
        self.assertTrue(self.ask(op="release", object="object")["ok"])
        self.assertTrue(self.raw.is_readable(20))
        blocks = os.stat(self.path_of()).st_blocks
        self.assertGreater(blocks, 0)
        self.assertRegex(os.read(self.raw.fd, 1024), b" freleased=1 breleased=%x$" % blocks)
        self.assertRegex(os.read(self.raw.fd, 1024), b" freleased=0 breleased=0$")

    def test_limits_that_come_after_bind_have_no_effect(self):
        self.raw.write("dir " + self.directory)
        self.raw.write("bind")
        line = os.read(self.raw.fd, 1024)
        self.assert_errors([("brun 50%", 0), ("bcull 40%", 0), ("bcull 60%", errno.EINVAL)])
        self.assertEqual(os.read(self.raw.fd, 1024), line)


if __name__ == "__main__":
    main()
