"""Daemons of the kernel's interface that break its rules: none costs more than its own objects, and a good one that follows works."""

import errno
import os
import signal

import _path  # noqa: F401
from harness.cachefiles.cachefiles_case import CachefilesCase
from harness import images
from harness.case import main
from harness.readers import RIGHT, WRONG_BYTES, Child, pread_all
from harness.sandbox import wait_until
from harness.cachefiles.raw_device import CLOSE, OPEN, READ, RawDevice, error_of

SIZE = 4 << 20
PAGE = 4096
NAME = "image"


class BadDaemonsTest(CachefilesCase):
    def setUp(self):
        super().setUp()
        self.path = self.source(NAME, images.random_file(SIZE))
        with open(self.path, "rb") as f:
            self.truth = f.read()
        self.raw = self.open_raw()
        self.raw.bind(self.directory)

    def open_raw(self):
        raw = RawDevice(self.device)
        self.addCleanup(raw.close)
        return raw

    def acquire(self, count=1):
        """The answers of as many look-ups, in processes of their own."""
        request = {"op": "acquire", "volume": "erofs,image", "object": NAME, "timeout_ms": 20000}
        return [self.child(lambda: self.machine.control(request).get("errno", 0)) for _ in range(count)]

    def child(self, work):
        """A process without the device."""
        def alone():
            self.raw.close()
            return work()
        return self.keep(Child("a process beside the daemon", alone))

    def opened(self):
        """(the object's path, its OPEN)."""
        looks, = self.acquire()
        message = self.raw.await_message()
        self.raw.write(f"copen {message.msg_id},{SIZE}")
        self.assertTrue(looks.wait(20))
        self.assertEqual(looks.result, 0)
        return self.machine.acquire("erofs,image", NAME), message

    def reader(self, path, offset=0, length=SIZE):
        truth = self.truth[offset:offset + length]

        def read():
            return RIGHT if pread_all(os.open(path, os.O_RDONLY), offset, length) == truth else WRONG_BYTES
        return self.child(read)

    def assert_a_good_one_works(self):
        self.raw.close()
        self.client(self.device, "bind")
        served = self.machine.acquire("erofs,image", NAME)
        self.assert_reads_right(served, self.path)

    def test_refuses_every_open(self):
        looks = self.acquire(3)
        while not all(look.wait(0) for look in looks):
            if self.raw.is_readable(0.05):
                message = self.raw.read()
                self.raw.write(f"copen {message.msg_id},-5")
                self.raw.close_object(message.fd)
        self.assertEqual({look.result for look in looks}, {errno.EIO})
        self.assert_a_good_one_works()

    def test_refuses_every_reopen(self):
        path, message = self.opened()
        self.raw.close_object(message.fd)
        reader = self.reader(path)
        while not reader.wait(0):
            if self.raw.is_readable(0.05):
                message = self.raw.read()
                if message is not None:
                    self.raw.write(f"copen {message.msg_id},-5")
                    self.raw.close_object(message.fd)
        self.assertEqual(reader.result, errno.EIO, "it is not asked for ever")
        self.assert_a_good_one_works()

    def test_ignores_opens(self):
        look, = self.acquire()
        self.assertEqual(self.raw.await_message().opcode, OPEN)
        self.raw.close()
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, errno.EIO)
        self.assert_a_good_one_works()

    def test_ignores_reads(self):
        path, _ = self.opened()
        reader = self.reader(path)
        self.assertEqual(self.raw.await_message().opcode, READ)
        self.raw.close()
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, errno.EIO)
        self.assert_a_good_one_works()

    def test_completes_without_data(self):
        path, message = self.opened()
        reader = self.reader(path)
        while not reader.wait(0):
            if self.raw.is_readable(0.05):
                self.raw.complete(message.fd, self.raw.read().msg_id)
        self.assertEqual(reader.result, errno.EIO)
        self.assert_a_good_one_works()

    def test_writes_more_than_was_asked_and_at_odd_offsets(self):
        path, message = self.opened()
        reader = self.reader(path, 0, PAGE)
        read = self.raw.await_message()
        for offset in (1, 100, PAGE - 1, SIZE + 1):
            self.assertEqual(error_of(os.pwrite, message.fd, bytes(PAGE), offset), errno.ENOBUFS)
        self.assertEqual(os.pwrite(message.fd, self.truth + bytes(1 << 20), 0), SIZE)
        self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, RIGHT)
        self.assert_a_good_one_works()

    def test_closes_an_objects_file_at_once(self):
        path, message = self.opened()
        reader = self.reader(path)
        for _ in range(20):
            self.raw.close_object(message.fd)
            while (message := self.raw.await_message()).opcode != OPEN:
                self.raw.write("restore")
            self.raw.write(f"copen {message.msg_id},{SIZE}")
        self.assertIsNone(reader.result)
        self.raw.close()
        self.assertTrue(reader.wait(20))
        self.assert_a_good_one_works()

    def release(self):
        self.assertTrue(self.machine.control({"op": "release", "volume": "erofs,image", "object": NAME})["ok"])
        self.assertTrue(self.raw.is_readable(20), "a CLOSE is queued")

    def test_never_closes_an_objects_file(self):
        _, message = self.opened()
        given = {message.object_id}
        for number in range(1, 4):
            self.release()
            self.assertEqual(self.raw.read().opcode, CLOSE)
            path = self.machine.acquire("erofs,image", NAME)
            reader = self.reader(path, number << 20, PAGE)
            message = self.raw.await_message()
            self.assertEqual(message.opcode, OPEN)
            given.add(message.object_id)
            self.raw.write(f"copen {message.msg_id},{SIZE}")
            read = self.raw.await_message()
            os.pwrite(message.fd, self.truth[read.offset:read.offset + read.bytes], read.offset)
            self.assertEqual(self.raw.complete(message.fd, read.msg_id), 0)
            self.assertTrue(reader.wait(20))
            self.assertEqual(reader.result, RIGHT)
        self.assertEqual(len(given), 4, "each use has a file of its own")
        self.assert_a_good_one_works()

    def test_ignores_closes(self):
        self.opened()
        self.release()
        look, = self.acquire()
        self.assertTrue(look.wait(20))
        self.assertEqual(look.result, 0)
        self.assert_a_good_one_works()

    def test_answers_with_ids_of_an_earlier_life(self):
        path, message = self.opened()
        reader = self.reader(path, 0, PAGE)
        ids = (message.msg_id, self.raw.await_message().msg_id)
        self.raw.close()
        self.assertTrue(reader.wait(20))
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        reader = self.reader(path, 0, PAGE)
        again = self.raw.await_message()
        for msg_id in ids:
            self.assertEqual(self.raw.error(f"copen {msg_id},{SIZE}"), errno.EINVAL)
            self.assertEqual(self.raw.complete(again.fd, msg_id), errno.EINVAL)
        self.assertIsNone(reader.result)
        self.raw.close()
        self.assertTrue(reader.wait(20))
        self.assertEqual(reader.result, errno.EIO)
        self.assert_a_good_one_works()

    def test_a_child_goes_on_holding_its_files(self):
        self.opened()
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(told, b"x")
            while True:
                signal.pause()
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        self.raw.close()
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.EBUSY)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.assert_a_good_one_works()

    def test_closes_the_device_before_its_objects(self):
        _, message = self.opened()
        os.close(self.raw.fd)
        self.raw.fd = -1
        self.assertEqual(error_of(os.open, self.device, os.O_RDWR), errno.EBUSY)
        self.raw.close_object(message.fd)
        self.assert_a_good_one_works()

    def test_is_stopped_in_an_open_and_killed(self):
        self.raw.close()
        os.unlink(os.path.join(self.sources, NAME))
        os.mkfifo(os.path.join(self.sources, NAME))  # It waits for a writer.
        process, log = self.client(self.device, "bind")
        look, = self.acquire()
        wait_until(lambda: self.machine.control({"op": "status"})["requests"]["list"] and
                   self.machine.control({"op": "status"})["requests"]["list"][0]["delivered"], 20, "it has the OPEN")
        process.send_signal(signal.SIGSTOP)
        self.assertFalse(look.wait(0.05))
        self.kill(process)
        self.assertTrue(look.wait(20), self.text(log))
        self.assertEqual(look.result, errno.EIO)
        os.unlink(os.path.join(self.sources, NAME))
        self.source(NAME, self.path)
        self.assert_a_good_one_works()


if __name__ == "__main__":
    main()
