"""The second half of conformance_test.py: answers, objects' files, failover."""

import errno
import fcntl
import os
import select
import signal
import socket
import unittest

import _path  # noqa: F401
from harness.cachefiles.conformance_case import ConformanceCase, PAGE, SIZE
from harness.disk import fill_up
from harness.readers import Reader
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import CALLER, CLOSE, FIRST_ID, OPEN, READ, UNAIDED, RawDevice, error_of


class ObjectConformanceTest(ConformanceCase):
    def test_7_copen(self):
        self.raw.bind(self.directory)
        for number, (size, result) in enumerate((("-2", 0), ("-4095", 0), ("-4096", errno.EINVAL), ("9223372036854775807", 0),
                                                 ("9223372036854775808", errno.ERANGE), ("1 ", errno.EINVAL), ("", errno.EINVAL))):
            thread, answer = self.acquire_beside(f"refused-{number}")
            message = self.raw.await_message()
            self.assertEqual(self.raw.error(f"copen {message.msg_id},{size}"), result, size)
            thread.join(20)
            self.assertFalse(answer[0]["ok"], size)
            self.assertEqual(self.raw.error(f"copen {message.msg_id},1"), errno.EINVAL, "its request is gone")
            self.raw.close_object(message.fd)
        for number, (size, right) in enumerate((("0", 0), ("1", 1), ("0x10", 16), ("010", 8), ("+5", 5))):
            thread, answer = self.acquire_beside(f"taken-{number}")
            message = self.raw.await_message()
            self.assertEqual(self.raw.error(f"copen {message.msg_id:#x},{size}"), 0, size)
            thread.join(20)
            self.assertEqual(answer[0].get("size"), right)
        for text in ("copen", "copen ,", "copen 5", "copen 999999,1", "copen ,5", "copen x,5"):
            self.assertEqual(self.raw.error(text), errno.EINVAL, text)

    def test_7_copen_after_its_file_was_closed(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        message = self.raw.await_message()
        self.raw.close_object(message.fd)
        self.assertEqual(self.raw.error(f"copen {message.msg_id},{SIZE}"), 0, "the write succeeds")
        thread.join(20)
        self.assertEqual(answer[0]["errno"], errno.EBADFD)

    def test_7_sizes_that_no_image_has(self):
        self.raw.bind(self.directory)
        look, answer = self.acquire_beside("huge")
        huge = self.raw.await_message()
        self.assertGreater(self.raw.write(f"copen {huge.msg_id},{2 ** 63 - 1}"), 0)
        look.join(20)
        self.assertEqual(answer[0]["errno"], errno.EFBIG)
        self.assertIsNone(self.raw.read(), "it was not opened, and has no CLOSE")
        self.raw.close_object(huge.fd)
        look, answer = self.acquire_beside("empty")
        empty = self.raw.await_message()
        self.raw.write(f"copen {empty.msg_id},0")
        look.join(20)
        self.assertEqual(os.stat(answer[0]["path"]).st_size, 0)
        with open(answer[0]["path"], "rb") as f:
            self.assertEqual(f.read(), b"")
        self.assertIsNone(self.raw.read(), "nothing has to be fetched")

    def test_8_completions(self):
        self.raw.bind(self.directory)
        path, one = self.opened(cookie="one")
        thread, _ = self.acquire_beside("two")
        two = self.raw.await_message()
        self.assertEqual(two.opcode, OPEN, vars(two))
        complete = self.raw.complete
        self.assertEqual(complete(two.fd, two.msg_id), errno.EINVAL, "an OPEN's id")
        self.raw.write(f"copen {two.msg_id},{SIZE}")
        thread.join(20)
        reader = self.read_beside(path, 0, PAGE)
        read = self.raw.await_message()
        self.assertEqual(complete(two.fd, read.msg_id), errno.EINVAL, "another object's READ")
        self.assertEqual(self.raw.error(f"copen {read.msg_id},5"), errno.EINVAL, "a READ's id")
        self.assertEqual(complete(one.fd, FIRST_ID + 4711), errno.EINVAL, "an unknown id")
        self.assertEqual(error_of(fcntl.ioctl, one.fd, 0x9802, 0), errno.EINVAL, "an unknown command")
        self.raw.pwrite(one.fd, self.truth[:PAGE], 0)
        self.assertEqual(complete(one.fd, read.msg_id), 0)
        self.assertEqual(complete(one.fd, read.msg_id), errno.EINVAL, "twice")
        self.assert_ends(reader)
        reader = self.read_beside(path, PAGE, PAGE)
        self.assertTrue(self.raw.is_readable(20))
        self.raw.pwrite(one.fd, self.truth[PAGE:2 * PAGE], PAGE)
        self.assertEqual(complete(one.fd, read.msg_id + 1), 0, "a READ that was not delivered")
        self.assertFalse(self.raw.is_readable())
        self.assert_ends(reader)

    def test_8_an_id_that_is_no_address(self):
        self.raw.bind(self.directory)
        _, message = self.opened()
        self.assertEqual(self.raw.complete(message.fd, 5), errno.EFAULT if UNAIDED else errno.EINVAL)

    def test_9_writes(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        message = self.raw.await_message()
        fd = message.fd
        self.assertEqual(error_of(self.raw.pwrite, fd, bytes(PAGE), 0), errno.ENOBUFS, "before copen")
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        thread.join(20)
        for offset in (1, 511, 4095):
            self.assertEqual(error_of(self.raw.pwrite, fd, bytes(PAGE), offset), errno.ENOBUFS, offset)
        for offset in (2 << 20, 1 << 40):
            self.assertEqual(error_of(self.raw.pwrite, fd, bytes(512), offset), errno.ENOBUFS, offset)
        path = answer[0]["path"]
        # Without a READ, in odd lengths at the end, and past it.
        self.assertEqual(self.raw.pwrite(fd, self.truth[:SIZE - SIZE % PAGE], 0), SIZE - SIZE % PAGE)
        tail = self.truth[SIZE - SIZE % PAGE:]
        self.assertEqual(self.raw.pwrite(fd, tail + bytes(2 * PAGE), SIZE - SIZE % PAGE), PAGE, "to the end of the last page")
        self.assert_ends(self.read_beside(path, 0, SIZE))
        self.assertFalse(self.raw.is_readable(), "no READ was needed")

    def test_9_part_of_a_block_does_not_count(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.assertEqual(self.raw.pwrite(message.fd, self.truth[:512], 0), 512)
        self.serve_one(path, 0, PAGE)
        self.raw.lseek(message.fd, 2 * PAGE, os.SEEK_SET)
        self.assertEqual(self.raw.pwrite(message.fd, self.truth[2 * PAGE:3 * PAGE]), PAGE)
        self.assertEqual(self.raw.pwrite(message.fd, self.truth[3 * PAGE:4 * PAGE]), PAGE)
        self.assert_ends(self.read_beside(path, 2 * PAGE, 2 * PAGE))

    def test_9_memory_off_a_page_border(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        # The kernel sends it in two pieces, the second at an odd offset.
        self.assertEqual(self.raw.pwrite(message.fd, self.truth, 0, shift=16), SIZE)
        self.assert_ends(self.read_beside(path, 0, SIZE))

    def test_9_other_calls_on_an_objects_file(self):
        self.raw.bind(self.directory)
        _, message = self.opened()
        self.assertEqual(error_of(os.read, message.fd, 1), errno.EBADF)
        self.assertEqual(error_of(os.fsync, message.fd), errno.EINVAL)
        self.assertEqual(error_of(os.ftruncate, message.fd, 5), errno.EINVAL)
        self.assertEqual(os.fstat(message.fd).st_size, 0)
        self.assertEqual(self.raw.poll(select.POLLIN | select.POLLOUT, 0, message.fd), select.POLLIN | select.POLLOUT)
        self.assertEqual(error_of(self.raw.open_object, message.object_id), errno.ENXIO, "it is opened once")
        self.assertEqual(error_of(self.raw.open_object, 4711), errno.ESTALE)

    def release(self):
        self.assertTrue(self.machine.control({"op": "release", "volume": "volume", "object": "object"})["ok"])

    def test_9_a_write_after_the_objects_use_has_ended(self):
        self.raw.bind(self.directory)
        _, message = self.opened()
        self.assertEqual(self.raw.pwrite(message.fd, self.truth[:PAGE], 0), PAGE)
        self.release()
        closed = self.raw.await_message()
        self.assertEqual((closed.opcode, closed.size, closed.object_id), (CLOSE, 16, message.object_id))
        self.assertEqual(error_of(self.raw.pwrite, message.fd, bytes(PAGE), PAGE), errno.ENOBUFS)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            self.assertEqual(error_of(self.raw.lseek, message.fd, 0, whence), errno.ENOBUFS)

    def test_10_lseek_shows_what_is_present(self):
        self.raw.bind(self.directory)
        _, message = self.opened()
        fd = message.fd
        self.assertEqual(error_of(self.raw.lseek, fd, 0, os.SEEK_DATA), errno.ENXIO)
        self.assertEqual(self.raw.lseek(fd, 0, os.SEEK_HOLE), 0)
        self.raw.pwrite(fd, self.truth[PAGE:3 * PAGE], PAGE)
        self.assertEqual(self.raw.lseek(fd, 0, os.SEEK_DATA), PAGE)
        self.assertEqual(self.raw.lseek(fd, PAGE, os.SEEK_HOLE), 3 * PAGE)
        self.assertEqual(error_of(self.raw.lseek, fd, 3 * PAGE, os.SEEK_DATA), errno.ENXIO)
        self.assertEqual(self.raw.lseek(fd, 0, os.SEEK_END), SIZE)
        self.assertEqual(os.fstat(fd).st_size, 0)
        look, _ = self.acquire_beside("other")
        other = self.raw.await_message()
        self.assertEqual(error_of(self.raw.lseek, other.fd, 0, os.SEEK_END), errno.ENOBUFS, "before its copen")
        self.raw.write(f"copen {other.msg_id},{SIZE}")
        look.join(20)
        self.assertEqual(self.raw.lseek(other.fd, -PAGE % (1 << 64), os.SEEK_END) if self.raw.caller else
                         self.raw.lseek(other.fd, -PAGE, os.SEEK_END), SIZE - PAGE)

    def test_11_completions_without_all_the_data(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        reader = self.read_beside(path, 0, 4 * PAGE)
        for first in range(4):  # One page of each.
            read = self.expect_read(first * PAGE, (4 - first) * PAGE)
            self.raw.pwrite(message.fd, self.truth[first * PAGE:(first + 1) * PAGE], first * PAGE)
            self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader)
        reader = self.read_beside(path, 8 * PAGE, PAGE)
        read = self.expect_read(8 * PAGE, PAGE)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader, errno.EIO)
        self.serve_one(path, 8 * PAGE, PAGE)
        self.raw.pwrite(message.fd, self.truth[18 * PAGE:19 * PAGE], 18 * PAGE)
        reader = self.read_beside(path, 16 * PAGE, 4 * PAGE)
        for offset, length in ((16 * PAGE, 2 * PAGE), (19 * PAGE, PAGE)):  # A page in the middle is present.
            read = self.expect_read(offset, length)
            self.raw.serve(read, self.truth)
            self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_11_a_page_cache_asks_twice(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        reader = self.keep(Reader(path, 0, 4 * PAGE))
        asked = 0
        while not reader.wait(0):
            if self.raw.is_readable(0.05):
                read = self.raw.read()
                asked += 1
                self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assertEqual(reader.result, errno.EIO)
        self.assertGreaterEqual(asked, 2)

    def test_11_a_read_ends_at_the_objects_end(self):
        self.raw.bind(self.directory)
        path, _ = self.opened()
        last = SIZE - SIZE % PAGE
        self.serve_one(path, last, SIZE % PAGE)

    def test_12_an_objects_file_is_closed(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.raw.close_object(message.fd)
        self.assertFalse(self.raw.is_readable(), "idle: nothing happens")
        # A READ that is new: the next read of the device asks for an OPEN.
        reader = self.read_beside(path, 0, PAGE)
        again = self.raw.await_message()
        self.assertEqual(again.opcode, OPEN)
        self.assertGreater(again.object_id, message.object_id)
        self.raw.write(f"copen {again.msg_id},{SIZE}")
        read = self.expect_read(0, PAGE)
        self.assertLess(read.msg_id, again.msg_id)
        # A READ that was delivered: seen again after `restore` only.
        self.raw.close_object(again.fd)
        self.assertFalse(self.raw.is_readable())
        self.assertIsNone(self.raw.read())
        self.assertIsNone(reader.result)
        self.raw.write("restore")
        third = self.raw.await_message()
        self.assertEqual(third.opcode, OPEN)
        self.raw.write(f"copen {third.msg_id},{SIZE}")
        self.assertEqual(self.expect_read(0, PAGE).msg_id, read.msg_id)
        self.raw.pwrite(third.fd, self.truth[:PAGE], 0)
        self.assertEqual(self.raw.complete(third.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_14_nothing_holds_the_device(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.raw.pwrite(message.fd, self.truth[:PAGE], 0)
        reader = self.read_beside(path, PAGE, PAGE)
        self.expect_read(PAGE, PAGE)
        thread, answer = self.acquire_beside("another")
        self.assertTrue(self.raw.is_readable(20))
        self.raw.close()
        self.assert_ends(reader, errno.EIO)
        thread.join(20)
        self.assertEqual(answer[0]["errno"], errno.EIO)
        self.assert_ends(self.read_beside(path, 0, PAGE))
        self.assert_ends(self.read_beside(path, PAGE, PAGE), errno.EIO)
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        self.assert_ends(self.read_beside(path, 0, PAGE))
        reader = self.read_beside(path, PAGE, PAGE)
        again = self.raw.await_message()
        self.raw.write(f"copen {again.msg_id},{SIZE}")
        read = self.expect_read(PAGE, PAGE)
        self.raw.serve(read, self.truth)
        self.assertEqual(self.raw.complete(again.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_14_writes_go_on_after_the_device_was_closed(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        kept = os.dup(message.fd)
        self.raw.close()
        self.assertEqual(self.raw.pwrite(kept, self.truth[:2 * PAGE], 0), 2 * PAGE)
        self.assertEqual(error_of(self.raw.pwrite, kept, bytes(PAGE), 1), errno.ENOBUFS)
        self.assertEqual(self.raw.complete(kept, FIRST_ID), errno.EINVAL)
        self.assert_ends(self.read_beside(path, 0, 2 * PAGE))
        os.close(kept)
        self.raw = self.open_raw()

    def test_15_restore_without_a_crash(self):
        self.raw.bind(self.directory)
        self.assertEqual(self.raw.write("restore"), 7)
        self.assertEqual(self.raw.write("restore and more"), 16)
        path, message = self.opened()
        reader = self.read_beside(path, 0, PAGE)
        first = self.expect_read(0, PAGE)
        self.raw.write("restore")
        self.raw.write("restore")
        second = self.expect_read(0, PAGE)
        self.assertEqual(first.msg_id, second.msg_id)
        self.raw.serve(first, self.truth)
        self.assertEqual(self.raw.complete(message.fd, first.msg_id), 0)
        self.assertEqual(self.raw.complete(message.fd, second.msg_id), errno.EINVAL)
        self.assert_ends(reader)

    def test_15_restore_while_an_open_is_answered(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        message = self.raw.await_message()
        self.raw.write("restore")
        self.assertTrue(self.raw.is_readable())
        self.assertEqual(error_of(self.raw.read), errno.EEXIST)
        thread.join(20)
        self.assertFalse(answer[0]["ok"])
        self.assertEqual(self.raw.error(f"copen {message.msg_id},{SIZE}"), errno.EINVAL)
        self.assertFalse(self.raw.is_readable())
        self.raw.close_object(message.fd)
        self.opened()

    def test_16_an_open_survives_its_reader(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        first = self.raw.await_message()
        self.raw.close_object(first.fd)
        self.raw.write("restore")
        second = self.raw.await_message()
        self.assertEqual((second.opcode, second.msg_id), (OPEN, first.msg_id))
        self.assertNotEqual(second.object_id, first.object_id)
        self.raw.write(f"copen {second.msg_id},{SIZE}")
        thread.join(20)
        self.assertTrue(answer[0]["ok"], answer)

    def test_16_an_open_whose_reader_dies_before_it_has_the_file(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        self.assertTrue(self.raw.is_readable(20))
        child = os.fork()
        if child == 0:
            os.pread(self.raw.fd, 1024, 0x6861 << 32)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        self.assertFalse(self.raw.is_readable())
        self.raw.write("restore")
        message = self.raw.await_message()
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        thread.join(20)
        self.assertTrue(answer[0]["ok"], answer)

    def test_17_a_killed_reader_takes_its_read_along(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        reader = self.read_beside(path, 0, PAGE)
        read = self.expect_read(0, PAGE)
        reader.kill()
        wait_until(lambda: self.raw.complete(message.fd, read.msg_id) == errno.EINVAL, 20, "the READ is gone")

    def test_17_the_use_of_an_object_ends_with_a_read_that_waits(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        reader = self.read_beside(path, 0, PAGE)
        read = self.expect_read(0, PAGE)
        self.release()
        self.assertFalse(self.raw.is_readable(0.05), "the CLOSE waits for the READ")
        reader.kill()
        wait_until(lambda: self.raw.complete(message.fd, read.msg_id) == errno.EINVAL, 20, "the READ is gone")

    def test_17_the_use_of_an_object_ends_while_it_is_opened_again(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.raw.close_object(message.fd)
        reader = self.read_beside(path, 0, PAGE)
        again = self.raw.await_message()
        self.assertEqual(again.opcode, OPEN)
        self.release()
        self.raw.write(f"copen {again.msg_id},{SIZE}")
        read = self.expect_read(0, PAGE)
        self.raw.serve(read, self.truth)
        self.assertEqual(self.raw.complete(again.fd, read.msg_id), 0)
        self.assert_ends(reader)

    def test_18_ids_of_an_earlier_program(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        reader = self.read_beside(path, 0, PAGE)
        read = self.expect_read(0, PAGE)
        self.raw.close()
        self.assert_ends(reader, errno.EIO)
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        thread, _ = self.acquire_beside("another")
        another = self.raw.await_message()
        for msg_id in (message.msg_id, read.msg_id):
            self.assertEqual(self.raw.error(f"copen {msg_id},{SIZE}"), errno.EINVAL)
            self.assertEqual(self.raw.complete(another.fd, msg_id), errno.EINVAL)
        self.raw.write(f"copen {another.msg_id},{SIZE}")
        thread.join(20)

    def test_20_a_disk_that_is_full(self):
        for limit in ("bstop 0%", "fstop 0%"):
            self.raw.write(limit)
        self.raw.bind(self.directory)
        path, message = self.opened()
        disk = self.machine.disk.path
        ballast = os.open(disk, os.O_TMPFILE | os.O_WRONLY)
        self.addCleanup(os.close, ballast)
        os.posix_fallocate(ballast, 0, os.statvfs(disk).f_bavail * PAGE - (8 << 20))  # Quicker than to write it.
        make_room = fill_up(disk)
        reader = self.read_beside(path, 0, PAGE)
        read = self.expect_read(0, PAGE)
        self.assertEqual(error_of(self.raw.serve, read, self.truth), errno.ENOBUFS)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader, errno.EIO)
        make_room()
        os.ftruncate(ballast, 0)
        self.serve_one(path, 0, PAGE)

    def test_the_next_life_of_holdfastd_has_a_new_device(self):
        self.raw.bind(self.directory)
        path, message = self.opened()
        self.raw.pwrite(message.fd, self.truth[:2 * PAGE], 0)
        self.machine.kill(self.machine.daemon)
        self.assertEqual(self.raw.error("restore"), errno.ENOTCONN)
        self.box.run(["umount", "-l", os.path.join(self.machine.run, "fuse")])
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.raw.close()
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        self.assertEqual(self.machine.acquire("volume", "object"), path)
        self.assert_ends(self.read_beside(path, 0, 2 * PAGE))

    def test_a_fetcher_is_refused_beside_the_device(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(20)
            s.connect(os.path.join(self.machine.run, "device.sock"))
            hello = s.recv(4096)
        self.assertEqual(int.from_bytes(hello[16:20], "little", signed=True), -errno.EBUSY)

    @unittest.skipUnless(RawDevice.is_plain, "these calls are not the library's")
    def test_each_kind_of_read_gives_the_file(self):
        self.raw.bind(self.directory)
        for number, call in enumerate((b"V", b"A")):
            thread, answer = self.acquire_beside(f"object-{number}")
            self.assertTrue(self.raw.is_readable(20))
            message = self.raw.read(call=call)
            self.assertTrue(CALLER or os.get_inheritable(message.fd))
            self.raw.write(f"copen {message.msg_id},{SIZE}")
            thread.join(20)
            self.serve_on(message, answer[0]["path"])

    def serve_on(self, message, path):
        reader = self.read_beside(path, 0, PAGE)
        read = self.raw.await_message()
        self.raw.pwrite(message.fd, self.truth[:PAGE], 0)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assert_ends(reader)

    @unittest.skipUnless(RawDevice.is_plain, "these calls are not the library's")
    def test_a_full_descriptor_table_ends_the_open(self):
        self.raw.bind(self.directory)
        thread, answer = self.acquire_beside()
        self.assertTrue(self.raw.is_readable(20))
        self.raw.fill_descriptor_table(True)
        try:
            self.assertEqual(error_of(self.raw.read), errno.EMFILE)
        finally:
            self.raw.fill_descriptor_table(False)
        thread.join(20)
        self.assertEqual(answer[0]["errno"], errno.EMFILE)
        path, message = self.opened()
        self.serve_on(message, path)
