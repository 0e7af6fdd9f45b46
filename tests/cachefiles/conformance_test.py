"""The device's calls, one by one: what each returns, and what changes state.  The numbers are those of the kernel's list of behaviours."""

import errno
import os
import select
import threading

import _path  # noqa: F401
from harness.cachefiles.conformance_case import ConformanceCase, PAGE, SIZE
from conformance_objects import ObjectConformanceTest  # noqa: F401
from harness.case import main
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import FIRST_ID, OPEN, READ, error_of


class DeviceConformanceTest(ConformanceCase):
    def test_1_messages_are_the_kernels(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.assertEqual((message.msg_id, message.size, message.length), (FIRST_ID, 32 + 7 + 6, 32 + 7 + 6))
        self.assertEqual((message.volume, message.flags), (b"volume\0", 0))
        self.assertGreaterEqual(message.object_id, 1)
        reader = self.read_beside(path, 0, PAGE)
        read = self.expect_read(0, PAGE)
        self.assertEqual((read.size, read.length, read.object_id), (32, 32, message.object_id))
        self.raw.serve(read, self.truth)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_2_reads_never_wait(self):
        self.assertEqual(self.raw.read_bytes(), b"")
        self.raw.bind(self.directory)
        self.assertEqual(self.raw.read_bytes(), b"")
        self.assertIsNone(self.raw.read())
        self.assertEqual(self.raw.lseek(self.raw.fd, 0, os.SEEK_SET), 0)
        thread, _ = self.acquire_beside()
        self.assertTrue(self.raw.is_readable(20))
        for room in (1, 16, 32, 44):
            self.assertEqual(error_of(self.raw.read, room), errno.EMSGSIZE)
            self.assertTrue(self.raw.is_readable())
        message = self.raw.read(45)
        self.assertEqual(message.size, 45)
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        thread.join(20)

    def test_3_commands_that_reach_the_machine(self):
        for text, result in (("bind ondemand", errno.EINVAL), ("copen 0,1", errno.EOPNOTSUPP), ("x" * 4096, errno.EOPNOTSUPP),
                             ("restore", errno.EOPNOTSUPP), ("nonsense", errno.EOPNOTSUPP), ("\n", errno.EINVAL)):
            self.assertEqual(self.raw.error(text), result, text[:20])
        self.raw.write("dir " + self.box.path("nowhere"))
        self.assertEqual(self.raw.error("bind ondemand"), errno.ENOENT)
        self.assertEqual(self.raw.error("copen"), errno.EINVAL, "the mode stays after a bind that failed")
        self.assertEqual(self.raw.write("restore"), 7)
        self.raw.close()
        self.raw = self.open_raw()
        plain = self.box.path("plain")
        with open(plain, "w"):
            pass
        self.raw.write("dir " + plain)
        self.assertEqual(self.raw.error("bind"), errno.ENOTDIR)
        self.raw.close()
        self.raw = self.open_raw()
        self.raw.write("dir " + self.directory)
        self.assertEqual(self.raw.write("bind ondemand\nrest"), 18)
        self.assertEqual(self.raw.error("bind ondemand"), errno.EBUSY)
        self.assertEqual(sorted(os.listdir(self.directory)), ["cache", "graveyard"])
        for text, result in (("inuse nothing", errno.ENOENT), ("cull nothing", errno.ENOENT), ("cull a/b", errno.EINVAL)):
            self.assertEqual(self.raw.error(text), result, text)

    def test_3_each_bad_input_of_each_command(self):
        rows = [(text, errno.EOPNOTSUPP) for text in (" tag a", "\ttag a", "nonsense", "TAG a", "tags a", "ta", "run 8%", "frunx 8%", "copen 0,1",
                                                      "restore", "secctx a:b:c", "x" * 4096)]
        rows += [(text, errno.EINVAL) for text in (b"tag a\0b", b"nonsense\0", "\n", "\ntag a", "dir", "dir ", "tag", "secctx", "debug 08",
                                                   "debug 0x", "debug 7 ", "debug x", "bind", "bind ondemand", "bind ondemand ", "bind x",
                                                   "inuse a/b", "cull a/b")]
        rows += [(f"{kind}{limit}", errno.EINVAL) for kind in "fb" for limit in (
            "run", "run 8", "run 8%%", "run 8% ", "run x%", "run 0x8%", "run +8%", "run %", "run 5%", "run 100%", "run 99999999999999999999%",
            "cull 7%", "cull 1%", "stop 5%")]
        rows += [("inuse a", errno.EIO), ("cull a", errno.EIO), ("debug", 0), ("debug 0x1F", 0), ("debug 017\nrest", 0)]
        for text, result in rows:
            self.assertEqual(self.raw.error(text), result, text[:30])
        self.assertEqual(self.raw.write("dir " + self.directory), 4 + len(self.directory))
        for text, result in (("dir /other", errno.EEXIST), ("tag t", 0), ("tag u", errno.EEXIST), ("bind x", errno.EINVAL), ("bind", 0),
                             ("bind", errno.EBUSY), ("bind x", errno.EBUSY), ("tag u", errno.EEXIST)):
            self.assertEqual(self.raw.error(text), result, text)
        blocks = os.statvfs(self.directory).f_blocks // 100
        self.assertIn(f"brun={blocks * 7:x} bcull={blocks * 5:x} bstop={blocks:x} ", self.raw.read_bytes().decode(), "nothing has changed")

    def test_3_directories_that_cannot_be_bound(self):
        where = self.box.make_directory("disk", "read-only")
        self.box.run(["mount", "--bind", where, where])
        self.addCleanup(self.box.run, ["umount", where])
        self.box.run(["mount", "-o", "remount,ro,bind", where])
        self.raw.end()  # Its program may have a mount namespace of its own.
        self.raw = self.open_raw()
        for directory, result in ((where, errno.EROFS), ("/proc", errno.EOPNOTSUPP), (where + "/none", errno.ENOENT)):
            self.raw.write("dir " + directory)
            self.assertEqual(self.raw.error("bind ondemand"), result, directory)
            self.raw.close()
            self.raw = self.open_raw()

    def test_3_without_on_demand_a_read_gives_the_status(self):
        self.raw.write("dir " + self.directory)
        self.raw.write("bind")
        self.assertRegex(self.raw.read_bytes().decode(),
                         r"^cull=0 frun=[0-9a-f]+ fcull=[0-9a-f]+ fstop=[0-9a-f]+ brun=[0-9a-f]+ bcull=[0-9a-f]+ "
                         r"bstop=[0-9a-f]+ freleased=0 breleased=0$")
        self.assertEqual(error_of(self.raw.read_bytes, 10), errno.EMSGSIZE)
        self.assertEqual(self.raw.error("copen 0,1"), errno.EOPNOTSUPP)

    def test_4_one_open_of_the_device(self):
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.EBUSY)
        self.raw.bind(self.directory)
        _, message = self.opened()
        kept = os.dup(message.fd)
        self.raw.close()
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.EBUSY, "an object's file lives")
        os.close(kept)
        self.raw = self.open_raw()
        self.assertEqual(self.raw.read_bytes(), b"", "nothing is bound")
        self.raw.bind(self.directory)

    def test_4_the_device_is_for_administrators(self):
        os.chmod(self.box.directory, 0o755)
        code = f"import os\ntry: os.open({self.device!r}, os.O_RDWR)\nexcept OSError as e: print(e.errno)"
        done = self.box.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code])
        self.assertEqual(done.stdout.strip(), str(errno.EPERM), "before EBUSY")

    def queued(self, path, offset):
        """A reader of one page, whose READ is queued."""
        before = self.published()
        reader = self.read_beside(path, offset, PAGE)
        wait_until(lambda: self.published() > before, 20, "a READ is queued")
        return reader

    def published(self):
        return sum(request["published"] for request in self.machine.control({"op": "status"})["requests"]["list"])

    def test_5_messages_come_in_the_order_of_their_ids_from_the_cursor_on(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        readers = [self.queued(path, number * 2 * PAGE) for number in range(4)]
        first = [self.raw.read() for _ in range(2)]
        self.raw.write("restore")
        rest = [self.raw.read() for _ in range(4)]
        self.assertIsNone(self.raw.read())
        ids = [read.msg_id for read in first]
        self.assertEqual([read.msg_id for read in rest][2:], ids, "it begins again when all later ones were given")
        self.assertEqual(sorted(read.msg_id for read in rest), [read.msg_id for read in first + rest[:2]])
        for read in rest:
            read.fd = message.fd
            self.raw.serve(read, self.truth)
            self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        for reader in readers:
            self.assert_ends(reader)

    def test_5_a_read_of_a_closed_object_is_passed_over(self):
        self.raw.bind(self.directory)
        path, closed = self.opened(cookie="closed")
        other_path, other = self.opened(cookie="open")
        self.raw.close_object(closed.fd)
        readers = [self.queued(path, 0), self.queued(other_path, 0)]
        read = self.raw.read()
        self.assertEqual((read.opcode, read.object_id), (READ, other.object_id), "the READ before it has to wait")
        self.raw.pwrite(other.fd, self.truth[:PAGE], 0)
        self.assertEqual(self.raw.complete(other.fd, read.msg_id), 0)
        again = self.raw.await_message()
        self.assertEqual((again.opcode, again.cookie), (OPEN, b"closed"))
        self.assertIsNone(self.raw.read(), "its READ waits for copen")
        self.raw.write(f"copen {again.msg_id},{SIZE}")
        late = self.raw.await_message()
        self.assertLess(late.msg_id, read.msg_id)
        self.raw.pwrite(again.fd, self.truth[:PAGE], 0)
        self.assertEqual(self.raw.complete(again.fd, late.msg_id), 0)
        for reader in readers:
            self.assert_ends(reader)

    def test_several_threads_read_the_device(self):
        self.raw.bind(self.directory)
        count, served, done = 60, [], threading.Event()

        def serve_some():
            while not done.is_set():
                if not self.raw.is_readable(0.05):
                    continue
                message = self.raw.read()
                if message is None or message.opcode != OPEN:
                    continue
                self.raw.write(f"copen {message.msg_id},{PAGE}")
                self.raw.pwrite(message.fd, message.cookie.ljust(PAGE, b"."), 0)
                served.append(message.object_id)
        threads = [threading.Thread(target=serve_some) for _ in range(3)]
        for thread in threads:
            thread.start()
        looks = [self.acquire_beside(f"object-{number}") for number in range(count)]
        for thread, _ in looks:
            thread.join(20)
        wait_until(lambda: len(served) == count, 20, "each is served")
        done.set()
        for thread in threads:
            thread.join(20)
        self.assertEqual(len(set(served)), count)
        for number, (_, answer) in enumerate(looks):
            with open(answer[0]["path"], "rb") as f:
                self.assertEqual(f.read(), f"object-{number}".encode().ljust(PAGE, b"."))

    def test_6_poll(self):
        self.raw.bind(self.directory)
        self.assertFalse(self.raw.is_readable())
        path, message = self.opened()
        self.assertFalse(self.raw.is_readable(), "nothing is new")
        reader = self.read_beside(path, 0, PAGE)
        self.assertTrue(self.raw.is_readable(20))
        read = self.raw.read()
        self.assertFalse(self.raw.is_readable(), "it was delivered")
        self.raw.write("restore")
        self.assertTrue(self.raw.is_readable())
        self.assertEqual(self.raw.read().msg_id, read.msg_id)
        self.raw.pwrite(message.fd, self.truth[:PAGE], 0)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_6_edges(self):
        self.raw.bind(self.directory)
        while self.raw.edge():
            pass
        first, _ = self.acquire_beside("one")
        self.assertEqual(self.raw.edge(20), select.EPOLLIN, "a request is queued")
        self.assertEqual(self.raw.edge(0.05), 0)
        second, _ = self.acquire_beside("two")
        self.assertEqual(self.raw.edge(20), select.EPOLLIN, "another one, beside one that was not read")
        self.assertEqual(self.raw.edge(0.05), 0)
        for _ in range(3):
            self.raw.write("restore")
            self.assertEqual(self.raw.edge(20), select.EPOLLIN, "restore")
        one = self.raw.read()
        self.assertEqual(self.raw.edge(0.05), 0, "a read makes none")
        self.raw.write(f"copen {one.msg_id},{SIZE}")
        self.assertEqual(self.raw.edge(20), select.EPOLLIN, "copen, beside an OPEN that was not read")
        first.join(20)
        self.raw.close_object(one.fd)
        self.assertEqual(self.raw.edge(0.05), 0, "the close of an object's file makes none")
        self.raw.write(f"copen {self.raw.read().msg_id},0")
        second.join(20)

    def test_6_edges_of_an_object_that_is_opened_again(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.raw.close_object(message.fd)
        while self.raw.edge():
            pass
        reader = self.read_beside(path, 0, PAGE)
        self.assertEqual(self.raw.edge(20), select.EPOLLIN, "a READ of a closed object is queued")
        again = self.raw.await_message()
        self.assertEqual(again.opcode, OPEN)
        self.assertFalse(self.raw.is_readable(), "its READ waits for copen")
        self.raw.write(f"copen {again.msg_id},{SIZE}")
        self.assertEqual(self.raw.edge(20), select.EPOLLIN, "copen makes the READ readable")
        read = self.expect_read(0, PAGE)
        self.raw.serve(read, self.truth)
        self.assertEqual(self.raw.complete(read.fd, read.msg_id), 0)
        self.assert_ends(reader)


if __name__ == "__main__":
    main()
