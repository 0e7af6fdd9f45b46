"""The device's calls and an object that is open, for the conformance tests."""

import os
import threading

from harness.cachefiles.cachefiles_case import CachefilesCase
from harness import images
from harness.readers import RIGHT, Child, pread_all
from harness.cachefiles.raw_device import OPEN, READ, RawDevice

SIZE = (1 << 20) + 1000  # The last page is not whole.
PAGE = 4096


class ConformanceCase(CachefilesCase):
    def setUp(self):
        super().setUp()
        with open(images.random_file(SIZE), "rb") as f:
            self.truth = f.read()
        self.raw = self.open_raw()

    def open_raw(self):
        raw = RawDevice(self.device)
        self.addCleanup(raw.end)
        return raw

    def acquire_beside(self, cookie="object"):
        """Starts to acquire; the answer is the list's first element once the thread has ended."""
        answer = []
        request = {"op": "acquire", "volume": "volume", "object": cookie, "timeout_ms": 20000}
        thread = threading.Thread(target=lambda: answer.append(self.machine.control(request)))
        thread.start()
        self.addCleanup(thread.join)
        return thread, answer

    def opened(self, size=SIZE, cookie="object"):
        """(the object's path, its OPEN) of an object that is open now."""
        thread, answer = self.acquire_beside(cookie)
        message = self.raw.await_message()
        self.assertEqual((message.opcode, message.cookie), (OPEN, cookie.encode()))
        self.raw.write(f"copen {message.msg_id},{size}")
        thread.join(20)
        self.assertTrue(answer[0]["ok"], answer)
        return answer[0]["path"], message

    def read_beside(self, path, offset, length):
        """A process that reads those very bytes, past the page cache."""
        truth = self.truth[offset:offset + length]

        def read():
            self.raw.close()  # The reader holds no copy of the device.
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            return RIGHT if pread_all(fd, offset, length) == truth else 200
        return self.keep(Child(f"{offset}+{length}", read))

    def expect_read(self, offset, length):
        message = self.raw.await_message()
        self.assertEqual((message.opcode, message.offset, message.bytes), (READ, offset, length))
        message.fd = next(iter(self.raw.anons))
        return message

    def assert_ends(self, reader, result=RIGHT):
        self.assertTrue(reader.wait(20), reader.what)
        self.assertEqual(reader.result, result)

    def serve_one(self, path, offset, length):
        reader = self.read_beside(path, offset, length)
        message = self.expect_read(offset, length)
        self.raw.serve(message, self.truth)
        self.assertEqual(self.raw.complete(message.fd, message.msg_id), 0)
        self.assert_ends(reader)
